/* With single_use a TLS 1.3 ticket resumes once, whoever asks and however often. */
#define _POSIX_C_SOURCE 200809L
#define OPENSSL_SUPPRESS_DEPRECATED

#include "check.h"

#include <pthread.h>
#include <string.h>

#include <openssl/err.h>

static const char SINGLE_USE[] = "single_use = true\n";

static void a_ticket_resumes_once(void)
{
    const struct kind *kind = &KIND[TLS13_STATEFUL];
    TLSRESUME *tr = realm_of(kind, SINGLE_USE);
    SSL_CTX *server = attached_server(tr);
    struct visitor visitor = visitor_new(kind, "a.example");
    CHECK(!visit(&visitor, server));
    for (int i = 0; i < 5; i++) {
        SSL_SESSION *session = session_copy(visitor.session);
        CHECK(visit(&visitor, server));
        SSL_SESSION *next = session_copy(visitor.session);
        for (int again = 0; again < 3; again++) {
            visitor_takes(&visitor, session);
            CHECK(!visit(&visitor, server));
        }
        visitor_takes(&visitor, next);
        SSL_SESSION_free(session);
        SSL_SESSION_free(next);
    }
    visitor_free(&visitor);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void every_ticket_of_a_full_handshake_can_be_used(void)
{
    const struct kind *kind = &KIND[TLS13_STATEFUL];
    TLSRESUME *tr = realm_of(kind, "single_use = true\ntickets = 3\n");
    SSL_CTX *server = attached_server(tr);
    struct visitor visitor = visitor_new(kind, NULL);
    CHECK(!visit(&visitor, server));
    CHECK_EQUAL(visitor.tickets, 3);
    CHECK_EQUAL(stats_of(tr).sessions_live, 3);
    CHECK(visit(&visitor, server));
    CHECK_EQUAL(stats_of(tr).sessions_live, 3);
    visitor_free(&visitor);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void without_single_use_a_ticket_resumes_again(void)
{
    const struct kind *kind = &KIND[TLS13_STATEFUL];
    TLSRESUME *tr = realm_of(kind, "");
    SSL_CTX *server = attached_server(tr);
    struct visitor visitor = visitor_new(kind, NULL);
    CHECK(!visit(&visitor, server));
    SSL_SESSION *session = session_copy(visitor.session);
    for (int i = 0; i < 3; i++) {
        visitor_takes(&visitor, session);
        CHECK(visit(&visitor, server));
    }
    SSL_SESSION_free(session);
    visitor_free(&visitor);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

/* They are visible on the wire and made to be used again. */
static void tls12_ids_resume_again(void)
{
    const struct kind *kind = &KIND[TLS12_ID];
    TLSRESUME *tr = realm_of(&KIND[TLS13_STATEFUL], SINGLE_USE);
    SSL_CTX *server = attached_server(tr);
    struct visitor visitor = visitor_new(kind, NULL);
    CHECK(!visit(&visitor, server));
    for (int i = 0; i < 3; i++)
        CHECK(visit(&visitor, server));
    visitor_free(&visitor);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

/* The server takes none of the key shares that the client sends at first, so it asks again, and
 * OpenSSL looks the session up for both ClientHellos. */
static void a_hello_retry_request_costs_no_resumption(void)
{
    for (int single_use = 0; single_use < 2; single_use++)
        for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
            if (single_use && k == TLS13_STATELESS)
                continue;
            TLSRESUME *tr = realm_of(&KIND[k], single_use ? SINGLE_USE : "");
            SSL_CTX *server = server_new();
            CHECK(SSL_CTX_set1_groups_list(server, "P-384") == 1);
            CHECK(tlsresume_attach(tr, server) == 1);
            struct visitor visitor = visitor_new(&KIND[k], NULL);
            CHECK(SSL_CTX_set1_groups_list(visitor.ctx, "P-256:P-384") == 1);
            CHECK(!visit(&visitor, server));
            for (int i = 0; i < 5; i++) {
                SSL_SESSION *session = session_copy(visitor.session);
                CHECK_SAYING(visit(&visitor, server), "%s", KIND[k].name);
                if (single_use) {
                    visitor_takes(&visitor, session);
                    CHECK(!visit(&visitor, server));
                }
                SSL_SESSION_free(session);
            }
            visitor_free(&visitor);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
}

/* A client that never finishes uses its ticket up all the same. */
static void a_ticket_of_an_unfinished_handshake_is_used(void)
{
    const struct kind *kind = &KIND[TLS13_STATEFUL];
    TLSRESUME *tr = realm_of(kind, SINGLE_USE);
    SSL_CTX *server = attached_server(tr);
    struct visitor visitor = visitor_new(kind, NULL);
    CHECK(!visit(&visitor, server));
    SSL_SESSION *session = session_copy(visitor.session);
    struct pair pair = pair_new(&visitor, server);
    CHECK(!pair_steps(&pair));
    pair_free(&pair, false);
    visitor_takes(&visitor, session);
    CHECK(!visit(&visitor, server));
    SSL_SESSION_free(session);
    visitor_free(&visitor);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

/* ---- Client randoms that come again ---- */

static SSL *served_again(struct pair *pair, SSL *reused)
{
    BIO *end = SSL_get_rbio(pair->server);
    CHECK(BIO_up_ref(end) == 1);
    SSL_set_bio(reused, end, end);
    SSL_free(pair->server);
    SSL_set_accept_state(reused);
    return reused;
}

/* The connection remembers that it used the ticket up, for its second ClientHello after a retry
 * request. What the client sends, and that it repeats its random, must not pass for that. */
static void clears_and_comes_back(void)
{
    static const char *const NAMES[] = {"a.example", "a.example", "b.example", NULL, "a.example"};
    const struct kind *kind = &KIND[TLS13_STATEFUL];
    own_certificate();
    let_clients_repeat();
    for (size_t first = 0; first < sizeof NAMES / sizeof *NAMES; first++) {
        TLSRESUME *tr = realm_of(kind, SINGLE_USE);
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, server));
        SSL_SESSION *ticket = session_copy(visitor.session);
        SSL *reused = SSL_new(server);
        CHECK(reused != NULL);
        int resumed = 0;
        /* The name of the first may already be the wrong one. */
        for (size_t i = first; i < sizeof NAMES / sizeof *NAMES; i++) {
            visitor_takes(&visitor, ticket);
            visitor.name = NAMES[i];
            struct pair pair = pair_new(&visitor, server);
            pair.server = served_again(&pair, reused);
            client_begins_as_ever(&pair);
            CHECK(pair_shakes(&pair));
            if (SSL_session_reused(reused)) {
                CHECK_SAYING(visitor.name != NULL && strcmp(visitor.name, "a.example") == 0,
                             "visit %d from %d on", (int)i, (int)first);
                resumed++;
            }
            CHECK_SAYING(resumed <= 1, "visit %d from %d on", (int)i, (int)first);
            SSL_set_shutdown(pair.client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
            SSL_set_shutdown(reused, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
            SSL_free(pair.client);
            CHECK(SSL_clear(reused) == 1);
        }
        CHECK_EQUAL(resumed, 1);
        SSL_free(reused);
        SSL_SESSION_free(ticket);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* In a process of its own, whose random numbers are not. OpenSSL 1.1.1 keeps the session itself when a connection is
 * cleared, and resumes it although our callback says that there is none. */
static void a_connection_that_is_cleared_does_not_resume_a_used_ticket(void)
{
    if (OpenSSL_version_num() >= 0x30000000L)
        check_apart(clears_and_comes_back);
}

/* ---- Races ---- */

enum { RACERS = 2 };

static struct race {
    SSL_CTX *servers[RACERS];
    struct visitor visitors[RACERS];
    bool resumed[RACERS];
    pthread_barrier_t start;
} race;

static void *race_once(void *number)
{
    int i = (int)(intptr_t)number;
    pthread_barrier_wait(&race.start);
    race.resumed[i] = visit(&race.visitors[i], race.servers[i]);
    return NULL;
}

static void of_two_contexts_that_race_for_a_ticket_one_resumes(void)
{
    const struct kind *kind = &KIND[TLS13_STATEFUL];
    TLSRESUME *tr = realm_of(kind, SINGLE_USE);
    struct visitor visitor = visitor_new(kind, NULL);
    int resumed = 0, rounds = scaled(200);
    CHECK(pthread_barrier_init(&race.start, NULL, RACERS) == 0);
    for (int i = 0; i < RACERS; i++) {
        race.servers[i] = attached_server(tr);
        race.visitors[i] = visitor_new(kind, NULL);
    }
    for (int round = 0; round < rounds; round++) {
        pthread_t threads[RACERS];
        visitor_forgets(&visitor);
        CHECK(!visit(&visitor, race.servers[0]));
        for (int i = 0; i < RACERS; i++) {
            visitor_takes(&race.visitors[i], visitor.session);
            CHECK(pthread_create(&threads[i], NULL, race_once, (void *)(intptr_t)i) == 0);
        }
        for (int i = 0; i < RACERS; i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK_SAYING(!(race.resumed[0] && race.resumed[1]), "both resumed in round %d", round);
        resumed += race.resumed[0] || race.resumed[1];
    }
    CHECK_EQUAL(resumed, rounds);
    for (int i = 0; i < RACERS; i++) {
        visitor_free(&race.visitors[i]);
        SSL_CTX_free(race.servers[i]);
    }
    pthread_barrier_destroy(&race.start);
    visitor_free(&visitor);
    tlsresume_free(tr);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM(a_ticket_resumes_once);
    CLAIM(every_ticket_of_a_full_handshake_can_be_used);
    CLAIM(without_single_use_a_ticket_resumes_again);
    CLAIM(tls12_ids_resume_again);
    CLAIM(a_hello_retry_request_costs_no_resumption);
    CLAIM(a_ticket_of_an_unfinished_handshake_is_used);
    CLAIM(a_connection_that_is_cleared_does_not_resume_a_used_ticket);
    CLAIM(of_two_contexts_that_race_for_a_ticket_one_resumes);
    return check_end();
}
