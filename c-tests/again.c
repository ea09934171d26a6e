/* SSL objects that are used again, handshakes that are ended, callbacks that are replaced. */
#define _POSIX_C_SOURCE 200809L
#define OPENSSL_SUPPRESS_DEPRECATED

#include "check.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

enum { MUST_SHOW = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT };

/* An authority, and two clients that have a certificate of it. */
static struct {
    EVP_PKEY *key;
    X509 *authority, *alice, *mallory;
} people;

static void make_people(void)
{
    people.key = new_key();
    people.authority = new_certificate("authority", people.key, NULL, NULL, 0);
    people.alice = new_certificate("alice", people.key, people.authority, people.key, 0);
    people.mallory = new_certificate("mallory", people.key, people.authority, people.key, 0);
}

/* ---- Objects that are used again ---- */

enum { CLOSED = SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN };

/* The server's end, ready for the next client. */
static SSL *is_used_again(struct pair *pair)
{
    SSL *server = pair->server;
    SSL_set_shutdown(pair->client, CLOSED);
    SSL_free(pair->client);
    pair->client = pair->server = NULL;
    ERR_clear_error();
    if (SSL_is_init_finished(server))
        SSL_set_shutdown(server, CLOSED);
    CHECK(SSL_clear(server) == 1);
    return server;
}

static bool shakes_as_ever(struct pair *pair)
{
    client_begins_as_ever(pair);
    return pair_shakes(pair);
}

/* The server learns of a renegotiation when it reads. The error that this ends with. */
static int goes_through_a_renegotiation(struct pair *pair)
{
    int error = SSL_ERROR_WANT_READ;
    for (int step = 0; step < 8 && error == SSL_ERROR_WANT_READ; step++) {
        char byte;
        SSL_do_handshake(pair->client);
        ERR_clear_error();
        error = SSL_get_error(pair->server, SSL_read(pair->server, &byte, 1));
    }
    return error;
}

static void allow_renegotiation(SSL_CTX *server)
{
#ifdef SSL_OP_ALLOW_CLIENT_RENEGOTIATION
    SSL_CTX_set_options(server, SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
#else
    (void)server;
#endif
}

#ifdef SSL_OP_NO_EXTENDED_MASTER_SECRET
/* How a client of TLS 1.2 gets a second handshake on one SSL object. */
enum second { NEXT_CONNECTION, HE_RENEGOTIATES, THE_SERVER_RENEGOTIATES, SECONDS };

static struct {
    enum second second;
    bool has_certificate;
} impersonation;

/* Without extended master secret, as its session is not resumed once it has that. */
static struct visitor mallory_new(void)
{
    struct visitor mallory = visitor_new(&KIND[TLS12_ID], "a.example");
    SSL_CTX_set_options(mallory.ctx, SSL_OP_NO_EXTENDED_MASTER_SECRET);
    if (impersonation.has_certificate)
        visitor_shows(&mallory, people.mallory, people.key);
    return mallory;
}

/* What Mallory knows: the ticket of Alice, and the secret of a session of his own. */
static SSL_SESSION *forged_of(const struct visitor *alice, const struct visitor *mallory)
{
    unsigned char secret[SSL_MAX_MASTER_KEY_LENGTH];
    size_t len = SSL_SESSION_get_master_key(mallory->session, secret, sizeof secret);
    SSL_SESSION *forged = session_copy(alice->session);
    CHECK(SSL_SESSION_set1_master_key(forged, secret, len) == 1);
    return forged;
}

static bool gets_a_second_handshake(struct pair *pair, struct visitor *mallory, SSL_SESSION *forged)
{
    if (impersonation.second == NEXT_CONNECTION) {
        SSL *server = is_used_again(pair);
        SSL_CTX_clear_options(mallory->ctx, SSL_OP_NO_TICKET);
        visitor_takes(mallory, forged);
        *pair = pair_with(mallory, server);
        return shakes_as_ever(pair);
    }
    if (impersonation.second == THE_SERVER_RENEGOTIATES) {
        CHECK(SSL_renegotiate(pair->server) == 1);
        CHECK(SSL_do_handshake(pair->server) == 1);
    }
    SSL_clear_options(pair->client, SSL_OP_NO_TICKET);
    CHECK(SSL_set_session(pair->client, forged) == 1);
    CHECK(SSL_renegotiate_abbreviated(pair->client) == 1);
    client_begins_as_ever(pair);
    goes_through_a_renegotiation(pair);
    return SSL_is_init_finished(pair->server);
}

static void mallory_comes_as_alice(void)
{
    let_clients_repeat();
    TLSRESUME *tr = realm_of(&KIND[TLS12_TICKET], "");
    SSL_CTX *server = server_new();
    server_verifies(server, people.authority);
    SSL_CTX_set_verify(server, impersonation.has_certificate ? MUST_SHOW : SSL_VERIFY_PEER, NULL);
    allow_renegotiation(server);
    CHECK(tlsresume_attach(tr, server) == 1);
    struct visitor alice = visitor_new(&KIND[TLS12_TICKET], "a.example"), mallory = mallory_new();
    visitor_shows(&alice, people.alice, people.key);
    CHECK(!visit(&alice, server) && visit(&alice, server));
    CHECK(!visit(&mallory, server) && visit(&mallory, server));
    SSL_SESSION *forged = forged_of(&alice, &mallory);
    SSL_CTX_clear_options(mallory.ctx, SSL_OP_NO_EXTENDED_MASTER_SECRET);
    struct pair pair = pair_new(&mallory, server);
    CHECK(shakes_as_ever(&pair) && !SSL_session_reused(pair.server));
    bool is_in = gets_a_second_handshake(&pair, &mallory, forged);
    CHECK_SAYING(!is_in || !SSL_session_reused(pair.server), "second handshake %d, certificate %d",
                 impersonation.second, impersonation.has_certificate);
    pair_free(&pair, true);
    SSL_SESSION_free(forged);
    visitor_free(&alice);
    visitor_free(&mallory);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void who_repeats_his_random_resumes_nobody_elses_session(void)
{
    for (int certificate = 0; certificate < 2; certificate++)
        for (int second = 0; second < SECONDS; second++) {
            impersonation.second = (enum second)second;
            impersonation.has_certificate = certificate;
            check_apart(mallory_comes_as_alice);
        }
}
#endif

/* Who stole a session renews it in the second handshake of an object, with the random of the first. */
static void is_renewed_by_a_thief(void)
{
    let_clients_repeat();
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *server = attached_server(tr);
    struct visitor alice = visitor_new(tried_kind, "a.example"), thief = visitor_new(tried_kind, "a.example");
    struct pair stays = pair_new(&alice, server);
    CHECK(pair_shakes(&stays));
    visitor_leaves(&alice, &stays);

    struct pair pair = pair_new(&thief, server);
    CHECK(shakes_as_ever(&pair));
    SSL *used = is_used_again(&pair);
    visitor_takes(&thief, alice.session);
    pair = pair_with(&thief, used);
    CHECK(shakes_as_ever(&pair) && SSL_session_reused(used));
    visitor_leaves(&thief, &pair);
    pair_free(&pair, true);

    SSL_CTX_remove_session(server, SSL_get_session(stays.server));
    pair_free(&stays, true);
    CHECK_SAYING(!visit(&alice, server), "%s", tried_kind->name);
    CHECK_SAYING(!visit(&thief, server), "%s: the thief's", tried_kind->name);
    visitor_free(&alice);
    visitor_free(&thief);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void a_logout_ends_what_its_session_was_renewed_to_on_an_object_used_again(void)
{
    for (int k = 0; k < KINDS; k++) {
        if (k == TLS12_TICKET)
            continue; /* has no id that it could be removed by */
        tried_kind = &KIND[k];
        check_apart(is_renewed_by_a_thief);
    }
}

/* ---- Handshakes that are ended ---- */

/* A public server, and one that goes to a strict host in its servername callback when it is told to. */
static struct {
    TLSRESUME *tr;
    SSL_CTX *lax, *front, *strict;
    bool is_strict, gives_no_tickets, replaces_info_callback;
} site;

static void sees_nothing(const SSL *ssl, int position, int value)
{
    (void)ssl, (void)position, (void)value;
}

static int choose_host(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    SSL_CTX *host = site.is_strict ? site.strict : site.front;
    if (site.replaces_info_callback)
        SSL_set_info_callback(ssl, sees_nothing);
    SSL_set_SSL_CTX(ssl, host);
    SSL_set_verify(ssl, SSL_CTX_get_verify_mode(host), NULL);
    SSL_clear_options(ssl, SSL_get_options(ssl) & ~SSL_CTX_get_options(host));
    SSL_set_options(ssl, SSL_CTX_get_options(host));
    if (site.is_strict && site.gives_no_tickets)
        CHECK(SSL_set_num_tickets(ssl, 0) == 1);
    return SSL_TLSEXT_ERR_OK;
}

static void site_open(unsigned long options_of_strict)
{
    site.tr = realm_of(tried_kind, "");
    site.lax = attached_server(site.tr);
    site.front = server_new();
    site.strict = server_new();
    SSL_CTX_set_tlsext_servername_callback(site.front, choose_host);
    server_verifies(site.strict, people.authority);
    SSL_CTX_set_options(site.strict, options_of_strict);
    CHECK(tlsresume_attach(site.tr, site.front) == 1);
    CHECK(tlsresume_attach(site.tr, site.strict) == 1);
    site.is_strict = false;
}

static void site_close(void)
{
    SSL_CTX_free(site.lax);
    SSL_CTX_free(site.front);
    SSL_CTX_free(site.strict);
    tlsresume_free(site.tr);
}

/* Somebody without a certificate who has a session of the public server. */
static struct visitor stranger_new(const char *name)
{
    struct visitor stranger = visitor_new(tried_kind, name);
    CHECK(!visit(&stranger, site.lax));
    CHECK_SAYING(visit(&stranger, site.lax), "%s", tried_kind->name);
    /* Under a name that nobody has come under before, he would not resume at the front. */
    struct visitor guest = visitor_new(tried_kind, name);
    visit(&guest, site.front);
    visitor_free(&guest);
    return stranger;
}

/* At the strict host this resumes, and is ended. */
static void is_ended(struct pair *pair)
{
    site.is_strict = true;
    CHECK_SAYING(!pair_shakes(pair), "%s", tried_kind->name);
    CHECK_SAYING(SSL_session_reused(pair->server), "%s: a full handshake", tried_kind->name);
    CHECK(!SSL_is_init_finished(pair->server));
}

static void the_next_one_comes_with_the_same_random(void)
{
    let_clients_repeat();
    site_open(0);
    struct visitor first = stranger_new("a.example"), next = stranger_new("b.example");
    struct visitor guest = stranger_new("c.example");
    visit(&guest, site.front);
    visit(&guest, site.front);
    struct pair pair = pair_new(&first, site.front);
    client_begins_as_ever(&pair);
    is_ended(&pair);
    SSL *used = is_used_again(&pair);
    pair = pair_with(&next, used);
    CHECK_SAYING(!shakes_as_ever(&pair), "%s", tried_kind->name);
    pair_free(&pair, true);
    visitor_free(&first);
    visitor_free(&next);
    visitor_free(&guest);
    site_close();
}

static void after_an_ended_handshake_the_object_judges_the_next_one(void)
{
    for (int none = 0; none < 2; none++) {
        site.gives_no_tickets = none;
        for_each_kind_apart(the_next_one_comes_with_the_same_random);
    }
}

static const unsigned char ALERT[] = {21, 3, 3, 0, 2, 2, 40};

/* The client overlooks that alert. */
static void hands_on(BIO *from, BIO *to)
{
    unsigned char bytes[20000];
    int len = BIO_read(from, bytes, sizeof bytes), skipped = 0;
    if (len >= (int)sizeof ALERT && memcmp(bytes, ALERT, sizeof ALERT) == 0)
        skipped = sizeof ALERT;
    if (len > skipped)
        CHECK_EQUAL(BIO_write(to, bytes + skipped, len - skipped), len - skipped);
}

/* As an application does that brings its connection what came in and fetches what is to go out, turn by turn, and that
 * takes every failure for "later". */
static void gets_new_bios_at_each_turn(void)
{
    site_open(0);
    struct visitor stranger = stranger_new("a.example");
    struct pair pair = pair_new(&stranger, site.front);
    SSL_set_bio(pair.client, memory_bio(), memory_bio());
    site.is_strict = true;
    for (int turn = 0; turn < 8; turn++) {
        BIO *reads = memory_bio(), *writes = memory_bio();
        SSL_do_handshake(pair.client);
        hands_on(SSL_get_wbio(pair.client), reads);
        CHECK(BIO_up_ref(writes) == 1);
        SSL_set_bio(pair.server, reads, writes);
        CHECK_SAYING(SSL_do_handshake(pair.server) != 1, "%s, turn %d", tried_kind->name, turn);
        CHECK(SSL_session_reused(pair.server));
        hands_on(writes, SSL_get_rbio(pair.client));
        BIO_free(writes);
        ERR_clear_error();
    }
    CHECK(!SSL_is_init_finished(pair.server));
    pair_free(&pair, true);
    visitor_free(&stranger);
    site_close();
}

static void an_ended_handshake_stays_ended_whatever_bios_the_application_sets(void)
{
    for (int none = 0; none < 2; none++) {
        site.gives_no_tickets = none;
        for_each_kind_apart(gets_new_bios_at_each_turn);
    }
}

/* ---- Sockets of ended handshakes ---- */

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

static void sockets_close(struct sockets sockets)
{
    CHECK(close(sockets.client) == 0 && close(sockets.server) == 0);
}

/* server keeps the BIOs that it has. */
static struct pair pair_over(struct visitor *visitor, SSL *server, int client_socket)
{
    struct pair pair = {SSL_new(visitor->ctx), server};
    CHECK(pair.client != NULL && SSL_set_fd(pair.client, client_socket) == 1);
    SSL_set_connect_state(pair.client);
    SSL_set_app_data(pair.client, visitor);
    CHECK(SSL_set_tlsext_host_name(pair.client, visitor->name) == 1);
    if (visitor->session != NULL)
        CHECK(SSL_set_session(pair.client, visitor->session) == 1);
    SSL_set_accept_state(pair.server);
    return pair;
}

/* A handshake that was ended over these sockets. */
static struct pair ended_over(struct visitor *stranger, struct sockets sockets)
{
    SSL *server = SSL_new(site.front);
    CHECK(server != NULL && SSL_set_fd(server, sockets.server) == 1);
    struct pair pair = pair_over(stranger, server, sockets.client);
    is_ended(&pair);
    return pair;
}

/* OpenSSL 1.1.1 serves nobody after a TLS 1.3 handshake that broke off, whoever ended it. */
static bool can_serve_again(void)
{
    return OPENSSL_VERSION_NUMBER >= 0x30000000L || tried_kind->version < TLS1_3_VERSION;
}

/* Whose descriptor has the number of the socket that was closed. */
static void has_another_socket_then(void)
{
    if (!can_serve_again())
        return;
    site_open(0);
    struct visitor stranger = stranger_new("a.example");
    struct sockets old = sockets_new(), next = sockets_new(), others = sockets_new();
    struct pair pair = ended_over(&stranger, old);
    SSL *used = is_used_again(&pair);
    /* The new BIO often lies at the address of the old one. */
    SSL_set_bio(used, NULL, NULL);
    CHECK(SSL_set_fd(used, next.server) == 1);
    CHECK(dup2(others.server, old.server) == old.server);
    site.is_strict = false;
    visitor_forgets(&stranger);
    pair = pair_over(&stranger, used, next.client);
    CHECK_SAYING(pair_shakes(&pair), "%s", tried_kind->name);
    char byte;
    CHECK_SAYING(read(others.client, &byte, 1) < 0, "%s: written to somebody else's socket",
                 tried_kind->name);
    pair_free(&pair, true);
    sockets_close(old);
    sockets_close(next);
    sockets_close(others);
    visitor_free(&stranger);
    site_close();
}

static void after_an_ended_handshake_nothing_is_written_to_the_old_socket(void)
{
    for_each_kind_apart(has_another_socket_then);
}

static void is_asked_for_its_socket(void)
{
    site_open(0);
    struct visitor stranger = stranger_new("a.example");
    struct sockets sockets = sockets_new();
    struct pair pair = ended_over(&stranger, sockets);
    CHECK_EQUAL(SSL_get_fd(pair.server), sockets.server);
    CHECK_EQUAL(SSL_get_rfd(pair.server), sockets.server);
    CHECK_EQUAL(SSL_get_wfd(pair.server), sockets.server);
    pair_free(&pair, true);
    sockets_close(sockets);
    visitor_free(&stranger);
    site_close();
}

static void the_socket_of_an_ended_handshake_stays_known(void)
{
    for_each_kind_apart(is_asked_for_its_socket);
}

static void keeps_its_bios(void)
{
    if (!can_serve_again())
        return;
    site_open(0);
    struct visitor stranger = stranger_new("a.example");
    struct sockets old = sockets_new(), next = sockets_new();
    struct pair pair = ended_over(&stranger, old);
    SSL *used = is_used_again(&pair);
    CHECK(dup2(next.server, old.server) == old.server);
    site.is_strict = false;
    visitor_forgets(&stranger);
    pair = pair_over(&stranger, used, next.client);
    CHECK_SAYING(pair_shakes(&pair), "%s", tried_kind->name);
    pair_free(&pair, true);
    sockets_close(old);
    sockets_close(next);
    visitor_free(&stranger);
    site_close();
}

static void after_an_ended_handshake_the_same_bios_serve_the_next_client(void)
{
    for_each_kind_apart(keeps_its_bios);
}

/* ---- Handshakes that are ended in a stream that is encrypted already ---- */

static void renegotiates_under_other_rules(void)
{
    site_open(0);
    allow_renegotiation(site.lax);
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(site.lax), people.authority) == 1);
    struct visitor stranger = stranger_new("a.example");
    struct pair pair = pair_new(&stranger, site.lax);
    CHECK(pair_shakes(&pair));
    SSL_set_verify(pair.server, MUST_SHOW, NULL);
    CHECK(SSL_renegotiate_abbreviated(pair.client) == 1);
    int error = goes_through_a_renegotiation(&pair);
    CHECK(error != SSL_ERROR_WANT_READ && error != SSL_ERROR_NONE);
    unsigned char sent[sizeof ALERT];
    int len = BIO_read(SSL_get_rbio(pair.client), sent, sizeof sent);
    CHECK_SAYING(len < (int)sizeof ALERT || memcmp(sent, ALERT, sizeof ALERT) != 0, "%s",
                 tried_kind->name);
    pair_free(&pair, true);
    visitor_free(&stranger);
    site_close();
}

static void no_plain_alert_ends_a_renegotiation(void)
{
    for (int k = TLS12_ID; k <= TLS12_TICKET; k++) {
        tried_kind = &KIND[k];
        check_apart(renegotiates_under_other_rules);
    }
}

/* ---- Handshakes that fail by themselves ---- */

static int refuses_protocols(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_len,
                             const unsigned char *offered, unsigned offered_len, void *arg)
{
    (void)ssl, (void)chosen, (void)chosen_len, (void)offered, (void)offered_len, (void)arg;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool failed_is_cleared;

static void one_client_is_refused_early(void)
{
    static const unsigned char PROTOCOL[] = "\3foo";
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *server = server_new();
    server_verifies(server, people.authority);
    SSL_CTX_set_alpn_select_cb(server, refuses_protocols, NULL);
    CHECK(tlsresume_attach(tr, server) == 1);
    struct visitor alice = visitor_new(tried_kind, "a.example"), bad = visitor_new(tried_kind, "a.example");
    visitor_shows(&alice, people.alice, people.key);
    visitor_shows(&bad, people.mallory, people.key);
    CHECK(!visit(&alice, server) && visit(&alice, server));
    visit(&bad, server);
    CHECK(SSL_CTX_set_alpn_protos(bad.ctx, PROTOCOL, 4) == 0);
    struct pair pair = pair_new(&bad, server);
    CHECK(!pair_shakes(&pair));
    if (failed_is_cleared)
        SSL_clear(pair.server);
    else
        SSL_set_accept_state(pair.server);
    pair_free(&pair, true);
    ERR_clear_error();
    for (int i = 0; i < 4; i++)
        CHECK_SAYING(visit(&alice, server), "%s, cleared %d, visit %d", tried_kind->name,
                     failed_is_cleared, i);
    visitor_free(&alice);
    visitor_free(&bad);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void a_handshake_that_fails_early_costs_others_no_resumption(void)
{
    for (int cleared = 0; cleared < 2; cleared++) {
        failed_is_cleared = cleared;
        for_each_kind_apart(one_client_is_refused_early);
    }
}

/* ---- Info callbacks ---- */

static unsigned long strict_options;

static void never_sees_a_step(void)
{
    site.replaces_info_callback = true;
    site_open(strict_options);
    struct visitor stranger = stranger_new("a.example"), guest = visitor_new(tried_kind, "b.example");
    visit(&guest, site.front);
    visit(&guest, site.front);
    site.is_strict = true;
    for (int again = 0; again < 2; again++) {
        struct pair pair = pair_new(&stranger, site.front);
        CHECK_SAYING(!pair_shakes(&pair), "%s, no tickets %d, options %lx, time %d", tried_kind->name,
                     site.gives_no_tickets, strict_options, again);
        pair_free(&pair, true);
        ERR_clear_error();
    }
    visitor_free(&stranger);
    visitor_free(&guest);
    site_close();
}

static void who_always_replaces_the_info_callback_and_gives_no_tickets_lets_nobody_in(void)
{
    for (int none = 0; none < 2; none++) {
        site.gives_no_tickets = none;
        strict_options = none ? 0 : SSL_OP_NO_TICKET;
        for_each_kind_apart(never_sees_a_step);
    }
}

/* An application's own info callback, which it puts before the one that the connection has. */
static int before;    /* where a connection has the other one */
static int depth;

typedef void info_callback(const SSL *, int, int);

static void calls_the_one_before(const SSL *ssl, int position, int value)
{
    info_callback **other = SSL_get_ex_data(ssl, before);
    CHECK_SAYING(++depth < 10, "endless recursion");
    if (other != NULL && *other != NULL)
        (*other)(ssl, position, value);
    depth--;
}

static info_callback *found;    /* by the only connection there is */

static int wrap_info_callback(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    info_callback *current = SSL_get_info_callback(ssl);
    if (current != calls_the_one_before) {
        found = current;
        CHECK(SSL_set_ex_data(ssl, before, &found) == 1);
        SSL_set_info_callback(ssl, calls_the_one_before);
    }
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *wrapping_server(TLSRESUME *tr)
{
    SSL_CTX *server = server_new();
    SSL_CTX_set_tlsext_servername_callback(server, wrap_info_callback);
    CHECK(tlsresume_attach(tr, server) == 1);
    return server;
}

static void an_info_callback_that_wraps_ours_may_be_set_again_on_an_object_used_again(void)
{
    before = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = wrapping_server(tr);
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, server));
        SSL *used = SSL_new(server);
        for (int i = 0; i < 4; i++) {
            struct pair pair = pair_with(&visitor, used);
            CHECK_SAYING(pair_shakes(&pair), "%s, time %d", kind->name, i);
            CHECK_SAYING(SSL_session_reused(used), "%s, time %d", kind->name, i);
            visitor_leaves(&visitor, &pair);
            is_used_again(&pair);
        }
        SSL_free(used);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void an_info_callback_that_wraps_ours_may_be_set_again_after_a_retry_request(void)
{
    before = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *server = wrapping_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, server));
        /* The client's key is of another group. */
        CHECK(SSL_CTX_set1_groups_list(server, "P-384") == 1);
        for (int i = 0; i < 3; i++)
            CHECK_SAYING(visit(&visitor, server), "%s, time %d", KIND[k].name, i);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    own_certificate();
    make_people();
#ifdef SSL_OP_NO_EXTENDED_MASTER_SECRET
    CLAIM(who_repeats_his_random_resumes_nobody_elses_session);
#endif
    CLAIM(a_logout_ends_what_its_session_was_renewed_to_on_an_object_used_again);
    CLAIM(after_an_ended_handshake_the_object_judges_the_next_one);
    CLAIM(an_ended_handshake_stays_ended_whatever_bios_the_application_sets);
    CLAIM(after_an_ended_handshake_nothing_is_written_to_the_old_socket);
    CLAIM(the_socket_of_an_ended_handshake_stays_known);
    CLAIM(after_an_ended_handshake_the_same_bios_serve_the_next_client);
    CLAIM(no_plain_alert_ends_a_renegotiation);
    CLAIM(a_handshake_that_fails_early_costs_others_no_resumption);
    CLAIM(who_always_replaces_the_info_callback_and_gives_no_tickets_lets_nobody_in);
    CLAIM_APART(an_info_callback_that_wraps_ours_may_be_set_again_on_an_object_used_again);
    CLAIM_APART(an_info_callback_that_wraps_ours_may_be_set_again_after_a_retry_request);
    return check_end();
}
