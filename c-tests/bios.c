/* The BIOs of a connection whose handshake was ended stay the application's: their callbacks, copies and descriptors. */
#define _POSIX_C_SOURCE 200809L
#define OPENSSL_SUPPRESS_DEPRECATED

#include "check.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

enum { MUST_SHOW = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT };

/* A public server, and one that goes to a strict host in its servername callback when it is told to. */
static struct {
    TLSRESUME *tr;
    SSL_CTX *lax, *front, *strict;
    bool is_strict;
    struct visitor stranger;    /* without a certificate; has a session of the public server */
} site;

static int choose_host(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    SSL_set_SSL_CTX(ssl, site.is_strict ? site.strict : site.front);
    SSL_set_verify(ssl, site.is_strict ? MUST_SHOW : SSL_VERIFY_NONE, NULL);
    return SSL_TLSEXT_ERR_OK;
}

/* Has a session of the public server. */
static struct visitor stranger_new(const char *name)
{
    /* Under a name that nobody has come under before, nobody would resume at the front. */
    struct visitor guest = visitor_new(tried_kind, name), stranger = visitor_new(tried_kind, name);
    site.is_strict = false;
    visit(&guest, site.front);
    visitor_free(&guest);
    CHECK(!visit(&stranger, site.lax) && visit(&stranger, site.lax));
    return stranger;
}

static void site_open(void)
{
    site.tr = realm_of(tried_kind, "");
    site.lax = attached_server(site.tr);
    site.front = server_new();
    site.strict = server_new();
    SSL_CTX_set_tlsext_servername_callback(site.front, choose_host);
    server_verifies(site.strict, own_certificate());
    CHECK(tlsresume_attach(site.tr, site.front) == 1 && tlsresume_attach(site.tr, site.strict) == 1);
    site.stranger = stranger_new("a.example");
}

static void site_close(void)
{
    visitor_free(&site.stranger);
    SSL_CTX_free(site.lax);
    SSL_CTX_free(site.front);
    SSL_CTX_free(site.strict);
    tlsresume_free(site.tr);
}

/* The stranger resumes at the strict host, over the BIOs that both have, and is ended. */
static void is_ended(struct pair *pair)
{
    site.is_strict = true;
    CHECK_SAYING(!pair_shakes(pair), "%s", tried_kind->name);
    CHECK_SAYING(SSL_session_reused(pair->server), "%s: a full handshake", tried_kind->name);
    CHECK(!SSL_is_init_finished(pair->server));
    ERR_clear_error();
}

/* Whatever the application calls fails. */
static void stays_ended(struct pair *pair)
{
    char byte;
    for (int again = 0; again < 3; again++) {
        CHECK_SAYING(SSL_do_handshake(pair->server) != 1, "%s", tried_kind->name);
        CHECK_SAYING(SSL_read(pair->server, &byte, 1) <= 0, "%s", tried_kind->name);
        CHECK_SAYING(SSL_write(pair->server, "x", 1) <= 0, "%s", tried_kind->name);
    }
    CHECK(!SSL_is_init_finished(pair->server));
    ERR_clear_error();
}

/* ---- Callbacks ---- */

static int traced, counted;

static long traces(BIO *bio, int operation, const char *bytes, size_t len, int number, long argument, int result,
                   size_t *processed)
{
    (void)operation, (void)bytes, (void)len, (void)number, (void)argument, (void)processed;
    CHECK_SAYING(BIO_get_callback_arg(bio) != NULL, "%s: called after it was taken off", tried_kind->name);
    traced++;
    return result;
}

static long counts(BIO *bio, int operation, const char *bytes, size_t len, int number, long argument, int result,
                   size_t *processed)
{
    (void)bio, (void)operation, (void)bytes, (void)len, (void)number, (void)argument, (void)processed;
    counted++;
    return result;
}

/* How an application leaves the trace of a connection that came to nothing. */
enum tracing { TAKEN_OFF, REPLACED, LEFT, TRACINGS };

static enum tracing tracing;

static BIO_callback_fn_ex callback_of_application(void)
{
    return tracing == TAKEN_OFF ? NULL : tracing == REPLACED ? counts : traces;
}

static void was_traced(void)
{
    site_open();
    struct pair pair = pair_new(&site.stranger, site.front);
    BIO *bio = SSL_get_wbio(pair.server);
    CHECK(BIO_up_ref(bio) == 1);
    BIO_set_callback_arg(bio, (char *)&traced);
    BIO_set_callback_ex(bio, traces);
    is_ended(&pair);
    CHECK(traced > 0);
    if (tracing != LEFT) {
        BIO_set_callback_ex(bio, callback_of_application());
        BIO_set_callback_arg(bio, NULL);
    }
    stays_ended(&pair);
    pair_free(&pair, true);
    /* Since OpenSSL 3.2 a connection that is freed has no BIOs any more: they get their callbacks back when they are used. */
    BIO_ctrl_pending(bio);
    CHECK_SAYING(BIO_get_callback_ex(bio) == callback_of_application(), "%s, tracing %d", tried_kind->name, tracing);
    BIO_free(bio);
    site_close();
}

static void a_bio_of_an_ended_handshake_has_the_callback_that_the_application_set_last(void)
{
    for (tracing = 0; tracing < TRACINGS; tracing++)
        for_each_kind_apart(was_traced);
}

/* ---- Copies ---- */

/* Each way through a BIO of its own, which both ends have. */
static struct pair pair_over_memory(void)
{
    struct pair pair = pair_new(&site.stranger, site.front);
    BIO *there = memory_bio(), *back = memory_bio();
    CHECK(BIO_up_ref(there) == 1 && BIO_up_ref(back) == 1);
    SSL_set_bio(pair.client, back, there);
    SSL_set_bio(pair.server, there, back);
    return pair;
}

static void is_used(BIO *copy)
{
    char byte;
    CHECK(BIO_write(copy, "x", 1) == 1);
    CHECK(BIO_read(copy, &byte, 1) == 1 && byte == 'x');
}

static bool copy_outlives;

static void is_copied(void)
{
    for (int reads = 0; reads < 2; reads++) {
        site_open();
        struct pair pair = pair_over_memory();
        is_ended(&pair);
        BIO *copy = BIO_dup_chain(reads ? SSL_get_rbio(pair.server) : SSL_get_wbio(pair.server));
        CHECK(copy != NULL);
        is_used(copy);
        if (!copy_outlives)
            BIO_free(copy);
        stays_ended(&pair);
        pair_free(&pair, true);
        if (copy_outlives) {
            is_used(copy);
            BIO_free(copy);
        }
        site_close();
    }
}

static void a_copy_of_a_bio_of_an_ended_handshake_is_a_bio_like_any_other(void)
{
    for (int outlives = 0; outlives < 2; outlives++) {
        copy_outlives = outlives;
        for_each_kind_apart(is_copied);
    }
}

/* ---- Descriptors ---- */

struct sockets {
    int client, server;
};

static struct sockets sockets_new(void)
{
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    CHECK(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0);
    return (struct sockets){ends[0], ends[1]};
}

/* The server's BIO closes its descriptor when it is freed. */
static struct pair pair_over(struct sockets sockets)
{
    struct pair pair = pair_new(&site.stranger, site.front);
    CHECK(SSL_set_fd(pair.client, sockets.client) == 1);
    BIO *bio = BIO_new_socket(sockets.server, BIO_CLOSE);
    CHECK(bio != NULL);
    SSL_set_bio(pair.server, bio, bio);
    return pair;
}

static bool is_closed_for(int client)
{
    char bytes[256];
    ssize_t len;
    while ((len = read(client, bytes, sizeof bytes)) > 0)
        ;
    return len == 0;
}

/* How an application gives up a connection. */
enum end { FREED, WITHOUT_BIOS, WITHOUT_BIOS_AND_CLEARED, CLEARED_AND_WITHOUT_BIOS, ENDS };

static enum end end;

static void is_given_up(SSL *server)
{
    switch (end) {
    case FREED:
        SSL_free(server);
        break;
    case WITHOUT_BIOS:
        SSL_set_bio(server, NULL, NULL);
        break;
    case WITHOUT_BIOS_AND_CLEARED:
        SSL_set_bio(server, NULL, NULL);
        SSL_clear(server);
        break;
    default:
        SSL_clear(server);
        SSL_set_bio(server, NULL, NULL);
    }
}

static void has_a_descriptor(void)
{
    site_open();
    struct sockets sockets = sockets_new();
    struct pair pair = pair_over(sockets);
    is_ended(&pair);
    CHECK(!is_closed_for(sockets.client));
    is_given_up(pair.server);
    CHECK_SAYING(is_closed_for(sockets.client), "%s, end %d", tried_kind->name, end);
    if (end != FREED)
        SSL_free(pair.server);
    SSL_free(pair.client);
    CHECK(close(sockets.client) == 0);
    site_close();
}

static void the_descriptor_of_an_ended_handshake_is_closed_when_the_application_gives_it_up(void)
{
    for (end = 0; end < ENDS; end++)
        for_each_kind_apart(has_a_descriptor);
}

/* OpenSSL 1.1.1 serves nobody after a TLS 1.3 handshake that broke off, whoever ended it. */
static bool can_serve_again(void)
{
    return OPENSSL_VERSION_NUMBER >= 0x30000000L || tried_kind->version < TLS1_3_VERSION;
}

/* An object of a pool, which gets the next client's BIOs before it is cleared or after. */
static bool cleared_first;

static void serves_the_next_client(void)
{
    if (!can_serve_again())
        return;
    site_open();
    struct pair pair = pair_over_memory();
    is_ended(&pair);
    SSL_free(pair.client);
    if (cleared_first)
        CHECK(SSL_clear(pair.server) == 1);
    else
        SSL_set_bio(pair.server, NULL, NULL);
    site.is_strict = false;
    visitor_forgets(&site.stranger);
    struct pair next = pair_with(&site.stranger, pair.server);
    if (!cleared_first)
        CHECK(SSL_clear(next.server) == 1);
    SSL_set_accept_state(next.server);
    CHECK_SAYING(pair_shakes(&next), "%s, cleared first %d", tried_kind->name, cleared_first);
    char byte;
    CHECK(SSL_write(next.server, "x", 1) == 1 && SSL_read(next.client, &byte, 1) == 1);
    pair_free(&next, true);
    site_close();
}

static void an_object_whose_handshake_was_ended_serves_the_next_client_over_other_bios(void)
{
    for (int first = 0; first < 2; first++) {
        cleared_first = first;
        for_each_kind_apart(serves_the_next_client);
    }
}

/* ---- Connections that share a BIO ---- */

/* As a server that has one socket for all: what connections write comes out of one BIO, and goes to the client whose
 * datagram was served last. */
static BIO *shared;

static SSL_CTX *datagram_context(const SSL_METHOD *method)
{
    static EVP_PKEY *key;
    static X509 *certificate;
    if (key == NULL) {
        key = new_key();
        certificate = new_certificate("server.example", key, NULL, NULL, 0);
    }
    SSL_CTX *ctx = SSL_CTX_new(method);
    CHECK(SSL_CTX_use_certificate(ctx, certificate) == 1 && SSL_CTX_use_PrivateKey(ctx, key) == 1);
    CHECK(SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"check", 5) == 1);
    SSL_CTX_set_options(ctx, SSL_OP_NO_QUERY_MTU);
    return ctx;
}

static struct visitor datagram_visitor(const char *name)
{
    struct visitor visitor = {.ctx = datagram_context(DTLS_client_method()), .name = name};
    SSL_CTX_set_session_cache_mode(visitor.ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    if (!tried_kind->tickets)
        SSL_CTX_set_options(visitor.ctx, SSL_OP_NO_TICKET);
    return visitor;
}

static SSL_CTX *datagram_server(void)
{
    SSL_CTX *server = datagram_context(DTLS_server_method());
    CHECK(tlsresume_attach(site.tr, server) == 1);
    return server;
}

static struct pair pair_at(struct visitor *visitor, SSL_CTX *server)
{
    struct pair pair = pair_new(visitor, server);
    BIO *there = memory_bio();
    CHECK(BIO_up_ref(there) == 1 && BIO_up_ref(shared) == 1);
    SSL_set_bio(pair.client, memory_bio(), there);
    SSL_set_bio(pair.server, there, shared);
    SSL_set_mtu(pair.client, 1400);
    SSL_set_mtu(pair.server, 1400);
    return pair;
}

static void is_delivered(struct pair *pair)
{
    char bytes[20000];
    int len = BIO_read(shared, bytes, sizeof bytes);
    if (len > 0)
        CHECK_EQUAL(BIO_write(SSL_get_rbio(pair->client), bytes, len), len);
}

/* Both are done. */
static bool shakes_over_shared(struct pair *pair)
{
    for (int turn = 0; turn < 8; turn++) {
        SSL_do_handshake(pair->client);
        SSL_do_handshake(pair->server);
        is_delivered(pair);
        ERR_clear_error();
    }
    return SSL_is_init_finished(pair->client) && SSL_is_init_finished(pair->server);
}

static bool visits_over_shared(struct visitor *visitor, SSL_CTX *server)
{
    struct pair pair = pair_at(visitor, server);
    CHECK_SAYING(shakes_over_shared(&pair), "%s", tried_kind->name);
    bool resumed = SSL_session_reused(pair.server);
    visitor_leaves(visitor, &pair);
    pair_free(&pair, true);
    return resumed;
}

static void is_written_to(struct pair *pair)
{
    char byte;
    CHECK_SAYING(SSL_write(pair->server, "x", 1) == 1, "%s", tried_kind->name);
    is_delivered(pair);
    CHECK_SAYING(SSL_read(pair->client, &byte, 1) == 1 && byte == 'x', "%s", tried_kind->name);
}

static void shares_a_bio_with_one_that_is_ended(void)
{
    shared = memory_bio();
    site.tr = realm_of(tried_kind, "");
    site.front = datagram_server();
    site.strict = datagram_server();
    site.is_strict = false;
    server_verifies(site.strict, own_certificate());
    SSL_CTX_set_tlsext_servername_callback(site.front, choose_host);
    struct visitor honest = datagram_visitor("b.example"), stranger = datagram_visitor("a.example");
    CHECK(!visits_over_shared(&stranger, site.front) && visits_over_shared(&stranger, site.front));
    struct pair pair = pair_at(&honest, site.front), other = pair_at(&honest, site.front);
    CHECK(shakes_over_shared(&pair));
    is_written_to(&pair);
    struct pair ended = pair_at(&stranger, site.front);
    site.is_strict = true;
    CHECK_SAYING(!shakes_over_shared(&ended), "%s", tried_kind->name);
    CHECK_SAYING(SSL_session_reused(ended.server), "%s: a full handshake", tried_kind->name);
    stays_ended(&ended);
    is_written_to(&pair);
    site.is_strict = false;
    CHECK_SAYING(shakes_over_shared(&other), "%s: another handshake", tried_kind->name);
    pair_free(&ended, true);
    is_written_to(&pair);
    is_written_to(&other);
    pair_free(&pair, true);
    pair_free(&other, true);
    visitor_free(&honest);
    visitor_free(&stranger);
    SSL_CTX_free(site.front);
    SSL_CTX_free(site.strict);
    tlsresume_free(site.tr);
    BIO_free(shared);
}

static void who_shares_a_bio_of_dtls_with_one_whose_handshake_was_ended_goes_on(void)
{
    for (int k = TLS12_ID; k <= TLS12_TICKET; k++) {
        tried_kind = &KIND[k];
        check_apart(shares_a_bio_with_one_that_is_ended);
    }
}

/* ---- Callbacks of the older kind ---- */

static int older_told[2];    /* of bytes, and of the BIO's end */

static long older(BIO *bio, int operation, const char *bytes, int len, long argument, long result)
{
    (void)bio, (void)bytes, (void)argument;
    older_told[0] += operation == (BIO_CB_WRITE | BIO_CB_RETURN) && result == len;
    older_told[1] += operation == BIO_CB_FREE;
    return result;
}

static enum { BEFORE_THE_CONNECTION, WITH_THE_CONNECTION, AFTER_THE_CONNECTION, MOMENTS } freed;

static void has_an_older_callback(void)
{
    site_open();
    struct pair pair = pair_over_memory();
    BIO *bio = memory_bio();    /* the server's alone */
    SSL_set0_wbio(pair.server, bio);
    memset(older_told, 0, sizeof older_told);
    BIO_set_callback(bio, older);
    is_ended(&pair);
    CHECK(older_told[0] > 0);
    CHECK(freed != AFTER_THE_CONNECTION || BIO_up_ref(bio) == 1);
    if (freed == BEFORE_THE_CONNECTION)
        SSL_set_bio(pair.server, NULL, NULL);
    pair_free(&pair, true);
    if (freed == AFTER_THE_CONNECTION) {
        int before = older_told[0];
        CHECK(older_told[1] == 0 && BIO_write(bio, "x", 1) == 1);
        CHECK_SAYING(older_told[0] == before + 1, "%s: told %d times", tried_kind->name, older_told[0] - before);
        BIO_free(bio);
    }
    CHECK_SAYING(older_told[1] == 1, "%s, moment %d: %d ends", tried_kind->name, freed, older_told[1]);
    site_close();
}

static void a_bio_of_an_ended_handshake_tells_a_callback_of_the_older_kind_of_its_end(void)
{
    for (freed = 0; freed < MOMENTS; freed++)
        for_each_kind_apart(has_an_older_callback);
}

/* ---- Callbacks that pass on to the one that was there before ---- */

static BIO_callback_fn_ex was_before;
static int depth;

static long passes_on(BIO *bio, int operation, const char *bytes, size_t len, int number, long argument, int result,
                      size_t *processed)
{
    CHECK_SAYING(++depth < 10, "%s: without an end", tried_kind->name);
    long answer = was_before(bio, operation, bytes, len, number, argument, result, processed);
    depth--;
    return answer;
}

/* An object and its BIOs are used again, and ended each time. */
static void is_passed_on_to(void)
{
    if (!can_serve_again())
        return;
    site_open();
    struct pair pair = pair_over_memory();
    was_before = NULL;
    /* Under a name that was served by two everybody makes full handshakes for a while. */
    struct visitor others[] = {stranger_new("b.example"), stranger_new("c.example")};
    for (int again = 0; again < 3; again++) {
        is_ended(&pair);
        BIO *bio = SSL_get_wbio(pair.server);
        if (was_before == NULL)
            was_before = BIO_get_callback_ex(bio);
        CHECK(was_before != NULL);
        BIO_set_callback_ex(bio, passes_on);
        stays_ended(&pair);
        if (again == 2)
            break;
        CHECK(SSL_clear(pair.server) == 1);
        SSL_free(pair.client);
        CHECK(BIO_reset(bio) == 1 && BIO_reset(SSL_get_rbio(pair.server)) == 1);
        BIO *there = SSL_get_rbio(pair.server);
        CHECK(BIO_up_ref(there) == 1 && BIO_up_ref(bio) == 1 && BIO_up_ref(there) == 1 && BIO_up_ref(bio) == 1);
        pair = pair_with(&others[again], pair.server);
        SSL_set_bio(pair.client, bio, there);
        SSL_set_bio(pair.server, there, bio);
        SSL_set_accept_state(pair.server);
    }
    pair_free(&pair, true);
    visitor_free(&others[0]);
    visitor_free(&others[1]);
    site_close();
}

static void a_callback_that_passes_on_to_ours_comes_to_an_end(void)
{
    for_each_kind_apart(is_passed_on_to);
}

/* ---- Data of others ---- */

enum { LAST_INDEX = 16 };

static char other_data;
static void *replaced[2][LAST_INDEX + 1];

static void writes_over_ours(BIO *bio, void **before)
{
    for (int i = 1; i <= LAST_INDEX; i++)
        if ((before[i] = BIO_get_ex_data(bio, i)) != NULL)
            CHECK(BIO_set_ex_data(bio, i, &other_data) == 1);
}

/* What was written over belongs to nobody any more: it goes with another BIO, or valgrind would report it. */
static void frees_what_was_replaced(void **before)
{
    BIO *bio = memory_bio();
    for (int i = 1; i <= LAST_INDEX; i++)
        CHECK(before[i] == NULL || BIO_set_ex_data(bio, i, before[i]) == 1);
    BIO_free(bio);
}

static bool goes_on_after;

static void is_written_over(void)
{
    site_open();
    struct pair pair = pair_over_memory();
    is_ended(&pair);
    BIO *bios[2] = {SSL_get_rbio(pair.server), SSL_get_wbio(pair.server)};
    for (int i = 0; i < 2; i++)
        writes_over_ours(bios[i], replaced[i]);
    if (goes_on_after) {
        CHECK(!pair_shakes(&pair) && !SSL_is_init_finished(pair.server) && !SSL_is_init_finished(pair.client));
        stays_ended(&pair);
    }
    SSL_set_bio(pair.server, NULL, NULL);
    SSL_free(pair.client);
    SSL_free(pair.server);
    for (int i = 0; i < 2; i++)
        frees_what_was_replaced(replaced[i]);
    site_close();
}

static void what_others_write_over_ours_on_a_bio_is_theirs_and_lets_nobody_in(void)
{
    for (int on = 0; on < 2; on++) {
        goes_on_after = on;
        for_each_kind_apart(is_written_over);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    own_certificate();
    CLAIM(a_bio_of_an_ended_handshake_has_the_callback_that_the_application_set_last);
    CLAIM(a_bio_of_an_ended_handshake_tells_a_callback_of_the_older_kind_of_its_end);
    CLAIM(a_callback_that_passes_on_to_ours_comes_to_an_end);
    CLAIM(what_others_write_over_ours_on_a_bio_is_theirs_and_lets_nobody_in);
    CLAIM(a_copy_of_a_bio_of_an_ended_handshake_is_a_bio_like_any_other);
    CLAIM(the_descriptor_of_an_ended_handshake_is_closed_when_the_application_gives_it_up);
    CLAIM(an_object_whose_handshake_was_ended_serves_the_next_client_over_other_bios);
    CLAIM(who_shares_a_bio_of_dtls_with_one_whose_handshake_was_ended_goes_on);
    return check_end();
}
