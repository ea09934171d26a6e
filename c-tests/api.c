/* Every function of the interface: what it refuses, how it says so, and what it gives. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>

/* ---- Arguments ---- */

static void null_is_refused_with_a_reason(void)
{
    TLSRESUME *tr = realm_new("");
    SSL_CTX *ctx = server_new();
    unsigned char bytes[80] = {0};
    TLSRESUME_STATS stats;
    char text[16];
    size_t len = sizeof text;

    CHECK_REFUSED(tlsresume_install(NULL), "ctx is NULL");
    CHECK_REFUSED((tlsresume_install)(NULL), "ctx is NULL");
    CHECK_REFUSED(tlsresume_new_from_string(NULL), "toml is NULL");
    CHECK_REFUSED(tlsresume_attach(NULL, ctx), "tr is NULL");
    CHECK_REFUSED((tlsresume_attach)(NULL, ctx), "tr is NULL");
    CHECK_REFUSED(tlsresume_attach(tr, NULL), "ctx is NULL");
    CHECK_REFUSED(tlsresume_detach(NULL), "ctx is NULL");
    CHECK_REFUSED(tlsresume_start(NULL), "tr is NULL");
    CHECK_REFUSED(tlsresume_keys_import(NULL, bytes, sizeof bytes, 1), "tr is NULL");
    CHECK_REFUSED(tlsresume_keys_import(tr, NULL, 80, 1), "data is NULL");
    CHECK_REFUSED(tlsresume_keys_rotate(NULL), "tr is NULL");
    CHECK_REFUSED(tlsresume_keys_revoke(NULL, bytes), "tr is NULL");
    CHECK_REFUSED(tlsresume_keys_revoke(NULL, NULL), "tr is NULL");
    CHECK_REFUSED(tlsresume_sessions_flush(NULL), "tr is NULL");
    CHECK_REFUSED(tlsresume_session_remove(NULL, bytes, 32), "tr is NULL");
    CHECK_REFUSED(tlsresume_session_remove(tr, NULL, 32), "id is NULL");
    CHECK_REFUSED(tlsresume_session_remove(tr, NULL, 0), "id is NULL");
    CHECK_REFUSED(tlsresume_stats(NULL, &stats, sizeof stats), "tr is NULL");
    CHECK_REFUSED(tlsresume_stats(tr, NULL, sizeof stats), "out is NULL");
    CHECK_REFUSED(tlsresume_metrics(NULL, text, &len), "tr is NULL");
    CHECK_REFUSED(tlsresume_metrics(tr, text, NULL), "len is NULL");
    CHECK_REFUSED(tlsresume_metrics(tr, NULL, NULL), "len is NULL");

    ERR_clear_error();
    tlsresume_free(NULL);
    CHECK_EQUAL(tlsresume_early_data_allowed(NULL), 0);
    CHECK_EQUAL(ERR_peek_error(), 0);
    SSL_CTX_free(ctx);
    tlsresume_free(tr);
}

static void bad_arguments_are_refused_with_a_reason(void)
{
    TLSRESUME *tr = realm_new("");
    SSL_CTX *ctx = server_new();
    unsigned char bytes[80] = {0};
    static const int FORMATS[] = {0, 9, -1, 1000, -2147483647};

    for (size_t i = 0; i < sizeof FORMATS / sizeof *FORMATS; i++)
        CHECK_REFUSED(tlsresume_keys_import(tr, bytes, sizeof bytes, FORMATS[i]), "TLSRESUME_KEYS_");
    CHECK_REFUSED(tlsresume_keys_import(tr, bytes, (size_t)-1, 1), "length");
    CHECK_REFUSED(tlsresume_keys_revoke(tr, bytes), "no key of that name");
    CHECK_REFUSED(tlsresume_detach(ctx), "not attached");
    CHECK_REFUSED(tlsresume_new("/nonexistent/tlsresume.toml"), "/nonexistent/tlsresume.toml");
    CHECK_REFUSED(tlsresume_new("\xff\xfe"), "UTF-8");
    CHECK_REFUSED(tlsresume_new_from_string("\xff\xfe"), "UTF-8");
    CHECK_REFUSED(tlsresume_new("/"), "/");
    CHECK_REFUSED(tlsresume_check("/"), "/");
    CHECK_REFUSED(tlsresume_check("\xff\xfe"), "UTF-8");

    SSL *ssl = SSL_new(ctx);
    CHECK_EQUAL(tlsresume_early_data_allowed(ssl), 0);
    SSL_free(ssl);
    CHECK(tlsresume_attach(tr, ctx) == 1);
    ssl = SSL_new(ctx);
    CHECK_EQUAL(tlsresume_early_data_allowed(ssl), 0);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    tlsresume_free(tr);
}

static void what_succeeds_leaves_no_error(void)
{
    TLSRESUME *tr = realm_new("");
    SSL_CTX *ctx = server_new();
    unsigned char id[32] = {0};
    size_t len = 0;
    ERR_clear_error();
    CHECK(tlsresume_attach(tr, ctx) == 1);
    CHECK(tlsresume_start(tr) == 1);
    CHECK(tlsresume_keys_rotate(tr) == 1);
    CHECK(tlsresume_keys_revoke(tr, NULL) == 1);
    CHECK(tlsresume_sessions_flush(tr) == 1);
    CHECK(tlsresume_session_remove(tr, id, sizeof id) == 1);
    CHECK(tlsresume_session_remove(tr, id, 0) == 1);
    CHECK(tlsresume_metrics(tr, NULL, &len) == 1);
    stats_of(tr);
    CHECK(tlsresume_detach(ctx) == 1);
    CHECK_EQUAL(ERR_peek_error(), 0);
    SSL_CTX_free(ctx);
    tlsresume_free(tr);
}

static void another_major_version_of_openssl_is_refused_with_both_named(void)
{
    TLSRESUME *tr = realm_new("");
    SSL_CTX *ctx = server_new();
    static const struct {
        unsigned long number;
        const char *text;
    } OTHERS[] = {{0x10100000UL, "1.1.0"}, {0x1010117fUL, "1.1.1"}, {0x30000130UL, "3.0.19"},
                  {0x40000030UL, "4.0.3"}, {0x50000000UL, "5.0.0"}};
    char library[64];
    snprintf(library, sizeof library, "this libtlsresume is for OpenSSL %lu.",
             (unsigned long)OpenSSL_version_num() >> 28);
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) {
        char header[64];
        snprintf(header, sizeof header, "compiled against OpenSSL %s,", OTHERS[i].text);
        /* One ABI for all of a major version; before 3.0, of a minor one. */
        int unit = OTHERS[i].number >> 28 >= 3 ? 28 : 20;
        if (OTHERS[i].number >> unit == (unsigned long)OpenSSL_version_num() >> unit)
            continue;
        CHECK_REFUSED(tlsresume_attach_checked(tr, ctx, OTHERS[i].number), header);
        CHECK_REFUSED(tlsresume_attach_checked(tr, ctx, OTHERS[i].number), library);
        CHECK_REFUSED(tlsresume_install_checked(ctx, OTHERS[i].number), header);
    }
    CHECK_REFUSED(tlsresume_detach(ctx), "not attached");
    /* Of one major version each is as good as the other. */
    CHECK(tlsresume_attach_checked(tr, ctx, OPENSSL_VERSION_NUMBER + 0x10) == 1);
    SSL_CTX_free(ctx);
    tlsresume_free(tr);
}

static void the_version_is_that_of_the_header(void)
{
    CHECK(strcmp(tlsresume_version(), TLSRESUME_VERSION) == 0);
}

/* ---- Reports ---- */

static void stats_write_no_more_than_they_are_given(void)
{
    TLSRESUME *tr = realm_new("");
    union {
        TLSRESUME_STATS stats;
        unsigned char bytes[sizeof(TLSRESUME_STATS) + 64];
    } out;
    size_t least = sizeof(size_t) + sizeof(uint64_t);
    for (size_t size = 0; size <= sizeof out; size++) {
        memset(&out, 0xa5, sizeof out);
        if (size < least) {
            CHECK_REFUSED(tlsresume_stats(tr, &out.stats, size), "out_size");
        } else {
            size_t expected = size < sizeof out.stats ? size : sizeof out.stats;
            CHECK(tlsresume_stats(tr, &out.stats, size) == 1);
            CHECK_EQUAL(out.stats.struct_size, expected);
        }
        size_t written = size < least ? 0 : size < sizeof out.stats ? size : sizeof out.stats;
        for (size_t i = written; i < sizeof out; i++)
            CHECK_SAYING(out.bytes[i] == 0xa5, "%zu bytes given, byte %zu written", size, i);
    }
    tlsresume_free(tr);
}

static void metrics_tell_the_length_that_they_need(void)
{
    TLSRESUME *tr = realm_new("");
    size_t needed = 0, len = 0;
    CHECK(tlsresume_metrics(tr, NULL, &needed) == 1);
    CHECK(needed > 1000);
    char *text = malloc(needed + 1);
    CHECK(text != NULL);
    static const size_t SHORT[] = {0, 1, 100};
    for (size_t i = 0; i < sizeof SHORT / sizeof *SHORT; i++) {
        memset(text, 'x', needed + 1);
        len = SHORT[i];
        CHECK_REFUSED(tlsresume_metrics(tr, text, &len), "too small");
        CHECK_EQUAL(len, needed);
        CHECK_EQUAL(text[0], 'x');
    }
    len = needed - 1;
    CHECK_REFUSED(tlsresume_metrics(tr, text, &len), "too small");
    memset(text, 'x', needed + 1);
    len = needed + 1;
    CHECK(tlsresume_metrics(tr, text, &len) == 1);
    CHECK_EQUAL(len, needed);
    CHECK_EQUAL(strlen(text), needed - 1);
    CHECK_EQUAL(text[needed], 'x');
    len = needed;
    CHECK(tlsresume_metrics(tr, text, &len) == 1);
    CHECK(strstr(text, "\ntlsresume_tickets_issued_total 0\n") != NULL);
    free(text);
    tlsresume_free(tr);
}

static int lines;
static char last_line[512];

static void keep_line(int level, const char *message, void *arg)
{
    CHECK(arg == &lines);
    CHECK(level >= 1 && level <= 4);
    CHECK(strchr(message, '\n') == NULL);
    lines++;
    snprintf(last_line, sizeof last_line, "%s", message);
}

static void log_lines_go_to_the_callback_while_it_is_set(void)
{
    tlsresume_set_log_callback(keep_line, &lines);
    TLSRESUME *tr = realm_new("[log]\nlevel = \"info\"\n");
    SSL_CTX *one = attached_server(tr);
    CHECK_EQUAL(lines, 1);
    CHECK(strstr(last_line, "attached a context") != NULL);
    tlsresume_set_log_callback(NULL, NULL);
    SSL_CTX_free(one);
    tlsresume_free(tr);
}

/* ---- Configuration ---- */

static void mistakes_in_the_configuration_name_line_and_key(void)
{
    static const struct {
        const char *toml, *line, *key;
    } MISTAKES[] = {
        {"[resumption]\n\nlifetime = \"1 fortnight\"\n", "3", "resumption.lifetime"},
        {"[resumption]\nlifetime = \"8d\"\n", "2", "resumption.lifetime"},
        {"[resumption]\nmode = \"both\"\n", "2", "stateless, stateful, off"},
        {"[resumption]\ntickets = 17\n", "2", "resumption.tickets"},
        {"[resumption]\nmode = \"stateless\"\nsingle_use = true\n", "3", "resumption.single_use"},
        {"realm = \"a\"\n\n[resumption]\nlifetme = \"1h\"\n", "4", "lifetime"},
        {"[keys]\nrotate = 5\n", "2", "keys.rotate"},
        {"[keys]\nsource = \"files\"\n", "2", "keys.files"},
        {"[memory]\nsize = \"100\"\n", "2", "memory.size"},
        {"[memory]\npath = \"relative\"\n", "2", "memory.path"},
        {"[early_data]\nreplay_window = \"1s\"\n", "2", "early_data.replay_window"},
        {"[nonsense]\n", "1", "nonsense"},
        {"[resumption\n", "1", ""},
    };
    for (size_t i = 0; i < sizeof MISTAKES / sizeof *MISTAKES; i++) {
        char line[32];
        snprintf(line, sizeof line, ":%s:", MISTAKES[i].line);
        CHECK_REFUSED(tlsresume_new_from_string(MISTAKES[i].toml), line);
        CHECK_REFUSED(tlsresume_new_from_string(MISTAKES[i].toml), MISTAKES[i].key);
    }
}

static void a_configuration_file_is_read_and_named_in_mistakes(void)
{
    char path[] = "/tmp/tlsresume-check-XXXXXX";
    int descriptor = mkstemp(path);
    static const char WRONG[] = "[resumption]\nlifetime = \"never\"\n";
    CHECK(descriptor >= 0 && write(descriptor, WRONG, sizeof WRONG - 1) == sizeof WRONG - 1);
    CHECK_REFUSED(tlsresume_new(path), path);
    CHECK_REFUSED(tlsresume_new(path), ":2:");
    CHECK_REFUSED(tlsresume_check(path), path);
    CHECK_REFUSED(tlsresume_check(path), ":2:");
    static const char RIGHT[] = "[resumption]\nmode = \"off\"\n";
    CHECK(ftruncate(descriptor, 0) == 0 && lseek(descriptor, 0, SEEK_SET) == 0);
    CHECK(write(descriptor, RIGHT, sizeof RIGHT - 1) == sizeof RIGHT - 1);
    close(descriptor);
    CHECK(tlsresume_check(path) == 1);
    TLSRESUME *tr = tlsresume_new(path);
    CHECK(tr != NULL);
    SSL_CTX *ctx = attached_server(tr);
    CHECK_EQUAL(SSL_CTX_get_num_tickets(ctx), 0);
    SSL_CTX_free(ctx);
    tlsresume_free(tr);
    remove(path);
}

static void a_check_makes_no_file(void)
{
    char path[] = "/tmp/tlsresume-memory-XXXXXX";
    close(mkstemp(path));
    CHECK(remove(path) == 0);
    setenv("TLSRESUME_MEMORY_PATH", path, 1);
    CHECK(tlsresume_check(NULL) == 1);
    setenv("TLSRESUME_KEYS_SOURCE", "files", 1);
    setenv("TLSRESUME_KEYS_FILES", "/nonexistent/key", 1);
    CHECK_REFUSED(tlsresume_check(NULL), "/nonexistent/key");
    unsetenv("TLSRESUME_KEYS_SOURCE");
    unsetenv("TLSRESUME_KEYS_FILES");
    unsetenv("TLSRESUME_MEMORY_PATH");
    CHECK(access(path, F_OK) != 0);
}

static void the_environment_overrides_and_is_named_in_mistakes(void)
{
    setenv("TLSRESUME_RESUMPTION_TICKETS", "7", 1);
    TLSRESUME *tr = realm_new("[resumption]\ntickets = 3\n");
    unsetenv("TLSRESUME_RESUMPTION_TICKETS");
    SSL_CTX *ctx = attached_server(tr);
    CHECK_EQUAL(SSL_CTX_get_num_tickets(ctx), 7);
    SSL_CTX_free(ctx);
    tlsresume_free(tr);

    setenv("TLSRESUME_KEYS_ROTATE", "often", 1);
    CHECK_REFUSED(tlsresume_new(NULL), "TLSRESUME_KEYS_ROTATE");
    unsetenv("TLSRESUME_KEYS_ROTATE");
    setenv("TLSRESUME_CONFIG", "/nonexistent/by-environment.toml", 1);
    CHECK_REFUSED(tlsresume_new(NULL), "/nonexistent/by-environment.toml");
    unsetenv("TLSRESUME_CONFIG");
    tr = tlsresume_new(NULL);
    CHECK(tr != NULL);
    tlsresume_free(tr);
}

/* ---- The one line ---- */

static void install_makes_one_instance_for_all_contexts(void)
{
    SSL_CTX *one = server_new(), *other = server_new();
    setenv("TLSRESUME_RESUMPTION_MODE", "nonsense", 1);
    CHECK_REFUSED(tlsresume_install(one), "TLSRESUME_RESUMPTION_MODE");
    CHECK_REFUSED(tlsresume_detach(one), "not attached");
    unsetenv("TLSRESUME_RESUMPTION_MODE");
    CHECK(tlsresume_install(one) == 1);
    CHECK(tlsresume_install(other) == 1);
    CHECK_REFUSED(tlsresume_install(one), "attached already");
    for (int k = 0; k < TLS13_STATEFUL; k++) {
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, one));
        CHECK_SAYING(visit(&visitor, other), "%s", KIND[k].name);
        visitor_free(&visitor);
    }
    SSL_CTX_free(one);
    SSL_CTX_free(other);
}

/* ---- Imported keys ---- */

/* Three key names, by their first byte; the rest of each key is the same. */
static void put_key(unsigned char *to, unsigned char first, size_t len)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (unsigned char)(first + i);
}

static size_t base64_lines(char *to, const unsigned char *keys, int count, size_t len)
{
    char *at = to;
    for (int i = 0; i < count; i++) {
        at += EVP_EncodeBlock((unsigned char *)at, keys + (size_t)i * len, (int)len);
        *at++ = '\n';
    }
    return (size_t)(at - to);
}

static const char H2O[] =
    "- name: 202122232425262728292a2b2c2d2e2f\n"
    "  cipher: AES-256-CBC\n"
    "  hash: SHA256\n"
    "  key: 101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f"
    "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f"
    "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f\n"
    "  not_before: 1700000000\n"
    "  not_after: 4000000000\n";

static void check_import(const char *text, int format, const void *data, size_t len,
                         unsigned char encrypts)
{
    for (int k = TLS12_TICKET; k <= TLS13_STATELESS; k++) {
        TLSRESUME *tr = realm_new("[keys]\nactivation_delay = \"0s\"\n");
        SSL_CTX *ctx = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK_SAYING(tlsresume_keys_import(tr, data, len, format) == 1, "%s", text);
        next_millisecond(); /* when it takes over */
        CHECK(!visit(&visitor, ctx));
        const unsigned char *ticket = NULL;
        size_t ticket_len = 0;
        SSL_SESSION_get0_ticket(visitor.session, &ticket, &ticket_len);
        unsigned char name[16];
        put_key(name, encrypts, sizeof name);
        CHECK_SAYING(ticket_len > 16 && memcmp(ticket, name, 16) == 0,
                     "%s: the key that encrypts begins with %02x", text, ticket[0]);
        CHECK_SAYING(visit(&visitor, ctx), "%s, %s", text, KIND[k].name);
        CHECK(tlsresume_keys_rotate(tr) == 1);
        CHECK_SAYING(visit(&visitor, ctx), "%s, %s, after a rotation", text, KIND[k].name);
        visitor_free(&visitor);
        SSL_CTX_free(ctx);
        tlsresume_free(tr);
    }
}

static void every_format_of_key_file_is_imported(void)
{
    enum { KEYS = 3, SMALL = 48, LARGE = 80 };
    unsigned char small[KEYS * SMALL], large[KEYS * LARGE];
    char lines_of_base64[KEYS * 120];
    for (int i = 0; i < KEYS; i++) {
        put_key(small + i * SMALL, (unsigned char)(0x10 + 0x10 * i), SMALL);
        put_key(large + i * LARGE, (unsigned char)(0x10 + 0x10 * i), LARGE);
    }
    check_import("nginx, 48 bytes", TLSRESUME_KEYS_NGINX, small, SMALL, 0x10);
    check_import("nginx, 80 bytes", TLSRESUME_KEYS_NGINX, large, LARGE, 0x10);
    size_t len = base64_lines(lines_of_base64, small, KEYS, SMALL);
    check_import("haproxy, 48 bytes", TLSRESUME_KEYS_HAPROXY, lines_of_base64, len, 0x20);
    len = base64_lines(lines_of_base64, large, KEYS, LARGE);
    check_import("haproxy, 80 bytes", TLSRESUME_KEYS_HAPROXY, lines_of_base64, len, 0x20);
    check_import("apache", TLSRESUME_KEYS_APACHE, small, SMALL, 0x10);
    check_import("ats", TLSRESUME_KEYS_ATS, small, sizeof small, 0x10);
    check_import("nghttpx, 48 bytes", TLSRESUME_KEYS_NGHTTPX, small, SMALL, 0x10);
    check_import("nghttpx, 80 bytes", TLSRESUME_KEYS_NGHTTPX, large, LARGE, 0x10);
    check_import("h2o", TLSRESUME_KEYS_H2O, H2O, sizeof H2O - 1, 0x20);
    check_import("openssl", TLSRESUME_KEYS_OPENSSL, large, LARGE, 0x10);
    check_import("dnsdist", TLSRESUME_KEYS_DNSDIST, large, sizeof large, 0x30);
}

static void key_files_that_are_none_are_refused_whole(void)
{
    TLSRESUME *tr = realm_new("");
    TLSRESUME_STATS before = stats_of(tr);
    static unsigned char junk[70000];
    static const size_t SIZES[] = {0, 1, 16, 47, 49, 79, 81, 65536, 70000};
    random_bytes(junk, sizeof junk);
    for (int format = TLSRESUME_KEYS_NGINX; format <= TLSRESUME_KEYS_DNSDIST; format++)
        for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++)
            CHECK_REFUSED(tlsresume_keys_import(tr, junk, SIZES[i], format), "imported data");
    CHECK_EQUAL(stats_of(tr).keys_pending, before.keys_pending);
    CHECK_EQUAL(stats_of(tr).keys_accepting, before.keys_accepting);
    tlsresume_free(tr);
}

static void a_ring_that_is_full_says_so(void)
{
    TLSRESUME *tr = realm_new("");
    int rotations = 0;
    while (rotations < 300 && tlsresume_keys_rotate(tr) == 1)
        rotations++;
    CHECK_SAYING(rotations > 200 && rotations < 256, "%d rotations", rotations);
    CHECK_REFUSED(tlsresume_keys_rotate(tr), "full");
    CHECK(tlsresume_keys_revoke(tr, NULL) == 1);
    CHECK(tlsresume_keys_rotate(tr) == 1);
    tlsresume_free(tr);
}

static void keys_from_elsewhere_are_not_rotated_here(void)
{
    char path[] = "/tmp/tlsresume-check-XXXXXX", toml[128];
    unsigned char key[80];
    int descriptor = mkstemp(path);
    random_bytes(key, sizeof key);
    CHECK(descriptor >= 0 && write(descriptor, key, sizeof key) == sizeof key);
    close(descriptor);
    snprintf(toml, sizeof toml, "[keys]\nsource = \"files\"\nfiles = [\"%s\"]\n", path);
    TLSRESUME *tr = realm_new(toml);
    remove(path);
    CHECK_REFUSED(tlsresume_keys_rotate(tr), "random");
    SSL_CTX *ctx = attached_server(tr);
    for (int k = TLS12_TICKET; k <= TLS13_STATELESS; k++) {
        struct visitor visitor = visitor_new(&KIND[k], NULL);
        CHECK(!visit(&visitor, ctx));
        CHECK(visit(&visitor, ctx));
        visitor_free(&visitor);
    }
    SSL_CTX_free(ctx);
    tlsresume_free(tr);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM(null_is_refused_with_a_reason);
    CLAIM(bad_arguments_are_refused_with_a_reason);
    CLAIM(what_succeeds_leaves_no_error);
    CLAIM(another_major_version_of_openssl_is_refused_with_both_named);
    CLAIM(the_version_is_that_of_the_header);
    CLAIM(stats_write_no_more_than_they_are_given);
    CLAIM(metrics_tell_the_length_that_they_need);
    CLAIM_APART(log_lines_go_to_the_callback_while_it_is_set);
    CLAIM(mistakes_in_the_configuration_name_line_and_key);
    CLAIM(a_configuration_file_is_read_and_named_in_mistakes);
    CLAIM(a_check_makes_no_file);
    CLAIM(the_environment_overrides_and_is_named_in_mistakes);
    CLAIM(install_makes_one_instance_for_all_contexts);
    CLAIM(every_format_of_key_file_is_imported);
    CLAIM(key_files_that_are_none_are_refused_whole);
    CLAIM(a_ring_that_is_full_says_so);
    CLAIM(keys_from_elsewhere_are_not_rotated_here);
    return check_end();
}
