/* Whatever becomes of the memory and its file, handshakes go on. */
#define _GNU_SOURCE

#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* A place for files of this process, on a tmpfs so that nothing warns of disks. */
static char folder[64], file[96];

static void make_folder(void)
{
    snprintf(folder, sizeof folder, "/dev/shm/tlsresume-check-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    snprintf(file, sizeof file, "%s/memory", folder);
}

static void remove_folder(void)
{
    remove(file);
    CHECK(rmdir(folder) == 0);
}

static TLSRESUME *realm_at(const char *path, const struct kind *kind, const char *size)
{
    char more[256];
    snprintf(more, sizeof more, "[memory]\npath = \"%s\"\nsize = \"%s\"\n", path, size);
    return realm_of(kind, more);
}

static void serves(TLSRESUME *tr, const struct kind *kind)
{
    SSL_CTX *server = attached_server(tr);
    struct visitor visitor = visitor_new(kind, "a.example");
    CHECK(!visit(&visitor, server));
    for (int i = 0; i < 3; i++)
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
    visitor_free(&visitor);
    SSL_CTX_free(server);
}

static char warning[1024];
static int warnings;

static void keep_warning(int level, const char *message, void *arg)
{
    (void)arg;
    if (level > 2)
        return;
    warnings++;
    snprintf(warning, sizeof warning, "%s", message);
}

/* The instance works in other memory and says so once, naming the path. */
static void works_without(const char *path)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        warnings = 0;
        tlsresume_set_log_callback(keep_warning, NULL);
        TLSRESUME *tr = realm_at(path, kind, "1MiB");
        tlsresume_set_log_callback(NULL, NULL);
        CHECK_SAYING(warnings == 1, "%s: %d warnings", path, warnings);
        CHECK_SAYING(strstr(warning, path) != NULL, "\"%s\" does not name %s", warning, path);
        serves(tr, kind);
        tlsresume_free(tr);
    }
}

static void a_path_that_cannot_be_used_costs_one_warning(void)
{
    works_without("/nonexistent/memory");
    works_without("/proc/self/memory");
    works_without(folder);

    CHECK(symlink("/dev/null", file) == 0);
    works_without(file);
    CHECK(unlink(file) == 0);

    CHECK(mkfifo(file, 0600) == 0);
    works_without(file);
    CHECK(unlink(file) == 0);
}

static void a_file_that_others_may_open_is_not_used(void)
{
    static const mode_t MODES[] = {0644, 0660, 0602, 0640};
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++) {
        int descriptor = open(file, O_CREAT | O_RDWR, 0600);
        CHECK(descriptor >= 0 && fchmod(descriptor, MODES[i]) == 0);
        close(descriptor);
        works_without(file);
        CHECK(unlink(file) == 0);
    }
}

static void a_file_of_another_user_is_not_used(void)
{
    if (geteuid() != 0)
        return;
    int descriptor = open(file, O_CREAT | O_RDWR, 0600);
    CHECK(descriptor >= 0 && fchown(descriptor, 4711, 4711) == 0);
    close(descriptor);
    works_without(file);
    CHECK(unlink(file) == 0);
}

/* The limit stands for a full file system too. SIGXFSZ has its default action: to end the process. */
static void no_room_for_the_file(void)
{
    struct rlimit limit = {65536, 65536};
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    works_without(file);
}

static void a_file_that_finds_no_room_costs_one_warning(void)
{
    check_apart(no_room_for_the_file);
    CHECK_SAYING(access(file, F_OK) != 0, "half a file was left behind");
}

static void fill_file(const char *text, size_t len)
{
    int descriptor = open(file, O_CREAT | O_TRUNC | O_RDWR, 0600);
    CHECK(descriptor >= 0);
    CHECK(write(descriptor, text, len) == (ssize_t)len);
    close(descriptor);
}

static void a_file_that_is_not_ours_breaks_nothing(void)
{
    static const size_t SIZES[] = {1, 100, 4096, 524288, 1048576, 3000000};
    char *content = malloc(3000000);
    CHECK(content != NULL);
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++)
            for (int fill = 0; fill < 3; fill++) {
                memset(content, fill == 1 ? 0xff : 0, SIZES[i]);
                if (fill == 2)
                    random_bytes((unsigned char *)content, SIZES[i]);
                fill_file(content, SIZES[i]);
                tlsresume_set_log_callback(keep_warning, NULL);
                TLSRESUME *tr = realm_at(file, kind, "1MiB");
                tlsresume_set_log_callback(NULL, NULL);
                serves(tr, kind);
                tlsresume_free(tr);
                remove(file);
            }
    free(content);
}

/* ---- What a file is for ---- */

static void sessions_and_keys_survive_a_restart(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        struct visitor visitor = visitor_new(kind, NULL);
        for (int start = 0; start < 3; start++) {
            TLSRESUME *tr = realm_at(file, kind, "1MiB");
            SSL_CTX *server = attached_server(tr);
            CHECK_SAYING(visit(&visitor, server) == (start > 0), "%s, start %d", kind->name, start);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
        visitor_free(&visitor);
        remove(file);
    }
}

static void two_instances_of_a_file_resume_each_others_sessions(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *one = realm_at(file, kind, "1MiB"), *other = realm_at(file, kind, "1MiB");
        SSL_CTX *here = attached_server(one), *there = attached_server(other);
        struct visitor visitor = visitor_new(kind, NULL);
        CHECK(!visit(&visitor, here));
        for (int i = 0; i < 4; i++) {
            next_millisecond();
            CHECK(tlsresume_keys_rotate(i % 2 ? one : other) == 1);
            CHECK_SAYING(visit(&visitor, i % 2 ? here : there), "%s", kind->name);
        }
        visitor_free(&visitor);
        SSL_CTX_free(here);
        SSL_CTX_free(there);
        tlsresume_free(one);
        tlsresume_free(other);
        remove(file);
    }
}

static void a_file_of_another_size_is_used_as_it_is(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        struct visitor visitor = visitor_new(kind, NULL);
        static const char *const SIZES[] = {"1MiB", "2MiB", "512KiB"};
        warnings = 0;
        tlsresume_set_log_callback(keep_warning, NULL);
        TLSRESUME *first = realm_at(file, kind, SIZES[0]);
        for (int i = 0; i < 3; i++) {
            struct stat now;
            TLSRESUME *tr = realm_at(file, kind, SIZES[i]);
            CHECK(stat(file, &now) == 0);
            CHECK_EQUAL(now.st_size, 1 << 20);
            SSL_CTX *server = attached_server(tr);
            CHECK_SAYING(visit(&visitor, server) == (i > 0), "%s, %s", kind->name, SIZES[i]);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
        CHECK(tlsresume_keys_revoke(first, NULL) == 1);
        TLSRESUME *tr = realm_at(file, kind, SIZES[1]);
        tlsresume_set_log_callback(NULL, NULL);
        CHECK_SAYING(warnings == 0, "\"%s\"", warning);
        SSL_CTX *server = attached_server(tr);
        CHECK_SAYING(!visit(&visitor, server), "%s: what another one revoked", kind->name);
        SSL_CTX_free(server);
        tlsresume_free(tr);
        tlsresume_free(first);
        visitor_free(&visitor);
        remove(file);
    }
}

static void the_file_is_private(void)
{
    TLSRESUME *tr = realm_at(file, &KIND[TLS13_STATEFUL], "1MiB");
    struct stat stat_;
    CHECK(stat(file, &stat_) == 0);
    CHECK_EQUAL(stat_.st_mode & 07777, 0600);
    CHECK_EQUAL(stat_.st_size, 1 << 20);
    tlsresume_free(tr);
    remove(file);
}

/* ---- Whose a file is ---- */

static TLSRESUME *realm_named(const char *name, const struct kind *kind)
{
    char toml[512];
    snprintf(toml, sizeof toml,
             "realm = \"%s\"\n[resumption]\nmode = \"%s\"\n[memory]\npath = \"%s\"\nsize = \"1MiB\"\n",
             name, kind->mode, file);
    return realm_new(toml);
}

static void a_file_of_another_realm_is_left_alone(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        tlsresume_set_log_callback(keep_warning, NULL);
        warnings = 0;
        TLSRESUME *shop = realm_named("shop", kind);
        CHECK_EQUAL(warnings, 0);
        SSL_CTX *here = attached_server(shop);
        struct visitor customer = visitor_new(kind, "a.example");
        CHECK(!visit(&customer, here));
        CHECK(visit(&customer, here));
        TLSRESUME_STATS before = stats_of(shop);

        TLSRESUME *bank = realm_named("bank", kind);
        CHECK_EQUAL(warnings, 1);
        CHECK_SAYING(strstr(warning, file) != NULL && strstr(warning, "another realm") != NULL,
                     "\"%s\"", warning);
        CHECK_EQUAL(stats_of(bank).sessions_live, 0);
        CHECK_EQUAL(stats_of(bank).tickets_issued, 0);
        SSL_CTX *there = attached_server(bank);
        struct visitor client = visitor_new(kind, "a.example");
        CHECK(!visit(&client, there));
        CHECK_SAYING(visit(&client, there), "%s", kind->name);
        CHECK(tlsresume_keys_rotate(bank) == 1);
        CHECK(tlsresume_keys_revoke(bank, NULL) == 1);
        CHECK(tlsresume_sessions_flush(bank) == 1);
        TLSRESUME_STATS after = stats_of(shop);
        CHECK_EQUAL(after.tickets_issued, before.tickets_issued);
        CHECK_EQUAL(after.sessions_stored, before.sessions_stored);
        CHECK_EQUAL(after.sessions_live, before.sessions_live);
        CHECK_EQUAL(after.rotations, before.rotations);

        /* Neither takes the other's, and what the first one gave is as good as before. */
        struct visitor stranger = visitor_new(kind, "a.example");
        visitor_takes(&stranger, customer.session);
        CHECK_SAYING(!visit(&stranger, there), "%s", kind->name);
        visitor_takes(&stranger, client.session);
        CHECK_SAYING(!visit(&stranger, here), "%s", kind->name);
        CHECK_SAYING(visit(&customer, here), "%s", kind->name);

        /* Nor does it become the other's once the first one has ended. */
        SSL_CTX_free(here);
        tlsresume_free(shop);
        TLSRESUME *again = realm_named("bank", kind);
        CHECK_EQUAL(warnings, 2);
        tlsresume_free(again);
        shop = realm_named("shop", kind);
        CHECK_EQUAL(warnings, 2);
        here = attached_server(shop);
        CHECK_SAYING(visit(&customer, here), "%s", kind->name);
        tlsresume_set_log_callback(NULL, NULL);
        visitor_free(&customer);
        visitor_free(&client);
        visitor_free(&stranger);
        SSL_CTX_free(here);
        SSL_CTX_free(there);
        tlsresume_free(shop);
        tlsresume_free(bank);
        remove(file);
    }
}

static void an_empty_file_is_made_ours(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        struct visitor visitor = visitor_new(kind, NULL);
        fill_file("", 0);
        for (int start = 0; start < 2; start++) {
            struct stat now;
            warnings = 0;
            tlsresume_set_log_callback(keep_warning, NULL);
            TLSRESUME *tr = realm_at(file, kind, "1MiB");
            tlsresume_set_log_callback(NULL, NULL);
            CHECK_SAYING(warnings == 0, "\"%s\"", warning);
            CHECK(stat(file, &now) == 0);
            CHECK_EQUAL(now.st_size, 1 << 20);
            CHECK_EQUAL(now.st_mode & 07777, 0600);
            SSL_CTX *server = attached_server(tr);
            CHECK_SAYING(visit(&visitor, server) == (start > 0), "%s, start %d", kind->name, start);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
        visitor_free(&visitor);
        remove(file);
    }
}

/* One that claims to be of ours and very large, with nothing in it: to fill it would take the
 * machine's memory. */
static void a_sparse_file_that_is_not_whole_is_replaced_without_filling_it(void)
{
    enum { SMALL = 1 << 20, LARGE_SHIFT = 30 };
    for (int header = 0; header < 2; header++) {
        TLSRESUME *tr = realm_at(file, &KIND[TLS13_STATEFUL], "1MiB");
        tlsresume_free(tr);
        int descriptor = open(file, O_RDWR);
        CHECK(descriptor >= 0);
        if (header == 0)
            CHECK(ftruncate(descriptor, 8) == 0);    /* the first word alone */
        CHECK(ftruncate(descriptor, (off_t)1 << LARGE_SHIFT) == 0);
        warnings = 0;
        tlsresume_set_log_callback(keep_warning, NULL);
        tr = realm_at(file, &KIND[TLS13_STATEFUL], "1MiB");
        tlsresume_set_log_callback(NULL, NULL);
        CHECK_EQUAL(warnings, 1);
        struct stat old, now;
        CHECK(fstat(descriptor, &old) == 0 && stat(file, &now) == 0);
        CHECK_SAYING(old.st_blocks <= 2 * SMALL / 512, "%lld blocks", (long long)old.st_blocks);
        CHECK(old.st_ino != now.st_ino);
        CHECK_EQUAL(now.st_size, SMALL);
        close(descriptor);
        serves(tr, &KIND[TLS13_STATEFUL]);
        tlsresume_free(tr);
        remove(file);
    }
}

/* ---- Damage while servers run ---- */

enum { FILE_SIZE = 1 << 20, HEADER = 4096, RING_END = HEADER + 2 * 45056 };

static void overwrite(int descriptor, size_t begin, size_t end)
{
    unsigned char bytes[64];
    size_t len = 1 + random_number() % sizeof bytes;
    size_t at = begin + random_number() % (end - begin - sizeof bytes);
    random_bytes(bytes, sizeof bytes);
    if (random_number() % 4 == 0)
        memset(bytes, random_number() % 2 ? 0xff : 0, sizeof bytes);
    CHECK(pwrite(descriptor, bytes, len, (off_t)at) == (ssize_t)len);
}

static void damage_costs_full_handshakes_and_no_connection(void)
{
    static const struct {
        const char *what;
        size_t begin, end;
    } PARTS[] = {{"header", 0, HEADER}, {"ring", HEADER, RING_END}, {"store", RING_END, FILE_SIZE},
                 {"everything", 0, FILE_SIZE}};
    tlsresume_set_log_callback(keep_warning, NULL);
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        for (size_t part = 0; part < sizeof PARTS / sizeof *PARTS; part++) {
            TLSRESUME *tr = realm_at(file, kind, "1MiB");
            SSL_CTX *server = attached_server(tr);
            struct visitor visitor = visitor_new(kind, "a.example");
            int descriptor = open(file, O_RDWR);
            CHECK(descriptor >= 0);
            for (int round = 0; round < scaled(60); round++) {
                for (int i = 0; i < 20; i++)
                    overwrite(descriptor, PARTS[part].begin, PARTS[part].end);
                visit(&visitor, server);
                if (round % 8 == 0) {
                    stats_of(tr);
                    (void)!tlsresume_keys_rotate(tr);
                }
            }
            close(descriptor);
            visitor_free(&visitor);
            SSL_CTX_free(server);
            tlsresume_free(tr);
            /* The next server comes to what is left of it. */
            tr = realm_at(file, kind, "1MiB");
            server = attached_server(tr);
            visitor = visitor_new(kind, "a.example");
            visit(&visitor, server);
            CHECK_SAYING(visit(&visitor, server), "%s, damaged %s", kind->name, PARTS[part].what);
            visitor_free(&visitor);
            SSL_CTX_free(server);
            tlsresume_free(tr);
            remove(file);
        }
    tlsresume_set_log_callback(NULL, NULL);
}

static void a_removed_file_goes_on_serving_those_who_have_it(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_at(file, kind, "1MiB");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, NULL);
        CHECK(!visit(&visitor, server));
        CHECK(unlink(file) == 0);
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* Sessions by the thousand in little memory: the oldest go. */
static void a_full_store_evicts_and_serves(void)
{
    for (int k = TLS12_ID; k <= TLS13_STATEFUL; k += TLS13_STATEFUL - TLS12_ID) {
        TLSRESUME *tr = realm_of(&KIND[k], "tickets = 16\n[memory]\nsize = \"512KiB\"\n");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], NULL), first = visitor_new(&KIND[k], NULL);
        CHECK(!visit(&first, server));
        int rounds = k == TLS12_ID ? 3000 : 250;
        for (int i = 0; i < scaled(rounds); i++) {
            visitor_forgets(&visitor);
            CHECK(!visit(&visitor, server));
            CHECK(visit(&visitor, server));
        }
        if (scaled(rounds) == rounds) {
            CHECK(stats_of(tr).sessions_evicted > 0);
            CHECK(!visit(&first, server));
        }
        visitor_free(&visitor);
        visitor_free(&first);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    make_folder();
    CLAIM(a_path_that_cannot_be_used_costs_one_warning);
    CLAIM(a_file_that_others_may_open_is_not_used);
    CLAIM(a_file_of_another_user_is_not_used);
    CLAIM(a_file_that_finds_no_room_costs_one_warning);
    CLAIM(a_file_that_is_not_ours_breaks_nothing);
    CLAIM(sessions_and_keys_survive_a_restart);
    CLAIM(two_instances_of_a_file_resume_each_others_sessions);
    CLAIM(a_file_of_another_size_is_used_as_it_is);
    CLAIM(the_file_is_private);
    CLAIM(a_file_of_another_realm_is_left_alone);
    CLAIM(an_empty_file_is_made_ours);
    CLAIM(a_sparse_file_that_is_not_whole_is_replaced_without_filling_it);
    CLAIM(damage_costs_full_handshakes_and_no_connection);
    CLAIM(a_removed_file_goes_on_serving_those_who_have_it);
    CLAIM(a_full_store_evicts_and_serves);
    remove_folder();
    return check_end();
}
