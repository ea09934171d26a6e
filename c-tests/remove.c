/* What takes sessions and keys away, and what does not. */
#include "moving_clock.h"

#include <string.h>

#include <openssl/err.h>

static bool in_store(int kind)
{
    return kind == TLS12_ID || kind == TLS13_STATEFUL;
}

/* One connection whose server's end is freed without a close_notify of its own, as most are. */
static bool visit_and_break_off(struct visitor *visitor, SSL_CTX *server)
{
    struct pair pair = pair_new(visitor, server);
    CHECK(pair_shakes(&pair));
    bool resumed = SSL_session_reused(pair.server);
    visitor_leaves(visitor, &pair);
    pair_free(&pair, false);
    return resumed;
}

static void an_unclean_close_costs_no_session(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, NULL);
        CHECK(!visit_and_break_off(&visitor, server));
        for (int i = 0; i < 5; i++)
            CHECK_SAYING(visit_and_break_off(&visitor, server), "%s", kind->name);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* OpenSSL 3 says "unexpected eof while reading" of it, and takes it for a fatal error. */
static void a_client_that_closes_without_close_notify_resumes(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, NULL);
        CHECK(!visit(&visitor, server));
        for (int i = 0; i < 5; i++) {
            struct pair pair = pair_new(&visitor, server);
            char byte;
            CHECK(pair_shakes(&pair));
            CHECK_SAYING(SSL_session_reused(pair.server), "%s, time %d", kind->name, i);
            visitor_leaves(&visitor, &pair);
            CHECK(BIO_shutdown_wr(SSL_get_wbio(pair.client)) == 1);
            int result = SSL_read(pair.server, &byte, 1), error = SSL_get_error(pair.server, result);
            CHECK(error == SSL_ERROR_SSL || error == SSL_ERROR_SYSCALL);
            pair_free(&pair, false);
            ERR_clear_error();
        }
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void with_forget_an_unclean_close_ends_a_stored_session(void)
{
    for (int k = 0; k < KINDS; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "on_remove = \"forget\"\n");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], NULL);
        CHECK(!visit(&visitor, server));
        CHECK_SAYING(visit(&visitor, server), "%s", KIND[k].name);
        CHECK_SAYING(visit_and_break_off(&visitor, server), "%s", KIND[k].name);
        CHECK_SAYING(visit(&visitor, server) == !in_store(k), "%s", KIND[k].name);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* What the server knows the visitor's session by. */
static const unsigned char *session_name(const struct visitor *visitor, size_t *len)
{
    const unsigned char *name = NULL;
    unsigned id_len = 0;
    if (SSL_SESSION_has_ticket(visitor->session)) {
        SSL_SESSION_get0_ticket(visitor->session, &name, len);
        return name;
    }
    name = SSL_SESSION_get_id(visitor->session, &id_len);
    *len = id_len;
    return name;
}

static void a_session_that_was_removed_does_not_resume(void)
{
    for (int k = 0; k < KINDS; k++) {
        if (!in_store(k))
            continue;
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], NULL), other = visitor_new(&KIND[k], NULL);
        CHECK(!visit(&visitor, server));
        CHECK(!visit(&other, server));
        size_t len = 0;
        const unsigned char *name = session_name(&visitor, &len);
        CHECK_EQUAL(len, 32);
        CHECK(tlsresume_session_remove(tr, name, len) == 1);
        CHECK(tlsresume_session_remove(tr, name, len) == 1);
        CHECK_SAYING(!visit(&visitor, server), "%s", KIND[k].name);
        CHECK_EQUAL(stats_of(tr).sessions_missed_absent, 1);
        CHECK_SAYING(visit(&visitor, server), "%s", KIND[k].name);
        CHECK_SAYING(visit(&other, server), "%s", KIND[k].name);
        visitor_free(&visitor);
        visitor_free(&other);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void removing_what_never_was_a_session_does_nothing(void)
{
    TLSRESUME *tr = realm_of(&KIND[TLS13_STATEFUL], "");
    SSL_CTX *server = attached_server(tr);
    struct visitor visitor = visitor_new(&KIND[TLS13_STATEFUL], NULL);
    unsigned char id[64];
    CHECK(!visit(&visitor, server));
    uint64_t live = stats_of(tr).sessions_live;
    for (size_t len = 0; len <= sizeof id; len++) {
        random_bytes(id, sizeof id);
        CHECK(tlsresume_session_remove(tr, id, len) == 1);
    }
    CHECK_EQUAL(stats_of(tr).sessions_live, live);
    CHECK(visit(&visitor, server));
    visitor_free(&visitor);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void a_flush_ends_stored_sessions_and_leaves_tickets(void)
{
    for (int k = 0; k < KINDS; k++) {
        server_clock_is_at(0);
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitors[5];
        for (int i = 0; i < 5; i++) {
            visitors[i] = visitor_new(&KIND[k], NULL);
            CHECK(!visit(&visitors[i], server));
        }
        server_clock_is_at(10);
        server_runs = true;
        CHECK(tlsresume_sessions_flush(tr) == 1);
        server_runs = false;
        CHECK_EQUAL(stats_of(tr).sessions_live, 0);
        server_clock_is_at(20);
        for (int i = 0; i < 5; i++) {
            CHECK_SAYING(visit(&visitors[i], server) == !in_store(k), "%s", KIND[k].name);
            CHECK_SAYING(visit(&visitors[i], server), "%s", KIND[k].name);
            visitor_free(&visitors[i]);
        }
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
    server_clock_is_at(0);
}

static const unsigned char *key_name(const struct visitor *visitor)
{
    size_t len = 0;
    const unsigned char *name = session_name(visitor, &len);
    CHECK(len > 32);
    return name;
}

static void a_revoked_key_opens_nothing_and_another_takes_its_place(void)
{
    for (int k = TLS12_TICKET; k <= TLS13_STATELESS; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "[keys]\nactivation_delay = \"0s\"\n");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], NULL), other = visitor_new(&KIND[k], NULL);
        unsigned char name[16];
        CHECK(!visit(&visitor, server));
        memcpy(name, key_name(&visitor), sizeof name);
        next_millisecond();
        CHECK(tlsresume_keys_rotate(tr) == 1);
        CHECK(!visit(&other, server));
        CHECK(memcmp(name, key_name(&other), sizeof name) != 0);
        CHECK(tlsresume_keys_revoke(tr, name) == 1);
        CHECK_SAYING(!visit(&visitor, server), "%s", KIND[k].name);
        CHECK_SAYING(visit(&visitor, server), "%s", KIND[k].name);
        CHECK_SAYING(visit(&other, server), "%s", KIND[k].name);
        CHECK(memcmp(name, key_name(&visitor), sizeof name) != 0);
        TLSRESUME_STATS stats = stats_of(tr);
        CHECK_EQUAL(stats.tickets_rejected_revoked, 1);
        CHECK_EQUAL(stats.keys_revoked, 1);
        CHECK_EQUAL(stats.keys_active, 1);
        CHECK_REFUSED(tlsresume_keys_revoke(tr, name), "no key of that name");
        visitor_free(&visitor);
        visitor_free(&other);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void the_key_that_encrypts_can_be_revoked_again_and_again(void)
{
    for (int k = TLS12_TICKET; k <= TLS13_STATELESS; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], NULL);
        CHECK(!visit(&visitor, server));
        for (int i = 0; i < 10; i++) {
            CHECK(tlsresume_keys_revoke(tr, key_name(&visitor)) == 1);
            CHECK_SAYING(!visit(&visitor, server), "%s, time %d", KIND[k].name, i);
            CHECK_SAYING(visit(&visitor, server), "%s, time %d", KIND[k].name, i);
        }
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void when_every_key_is_revoked_no_ticket_opens_and_new_ones_do(void)
{
    for (int k = TLS12_TICKET; k <= TLS13_STATELESS; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "[keys]\nactivation_delay = \"0s\"\n");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitors[5];
        for (int i = 0; i < 5; i++) {
            visitors[i] = visitor_new(&KIND[k], NULL);
            CHECK(!visit(&visitors[i], server));
            next_millisecond();
            CHECK(tlsresume_keys_rotate(tr) == 1);
        }
        next_millisecond();
        CHECK(tlsresume_keys_revoke(tr, NULL) == 1);
        for (int i = 0; i < 5; i++) {
            CHECK_SAYING(!visit(&visitors[i], server), "%s", KIND[k].name);
            CHECK_SAYING(visit(&visitors[i], server), "%s", KIND[k].name);
            visitor_free(&visitors[i]);
        }
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* ---- Families: all tickets and ids of one full handshake ---- */

enum remover { THE_APPLICATION, THE_API, REMOVERS };

/* Comes twice, and what it got each time is tried after the session of the second visit was removed. */
static void a_removal_covers_the_whole_handshake(void)
{
    for (int k = 0; k < KINDS; k++)
        for (enum remover remover = THE_APPLICATION; remover < REMOVERS; remover++) {
            if (k == TLS12_TICKET)
                continue; /* has no id that it could be removed by */
            TLSRESUME *tr = realm_of(&KIND[k], "");
            SSL_CTX *server = attached_server(tr);
            struct visitor visitor = visitor_new(&KIND[k], NULL), other = visitor_new(&KIND[k], NULL);
            CHECK(!visit(&visitor, server) && !visit(&other, server));
            SSL_SESSION *first = session_copy(visitor.session);
            struct pair pair = pair_new(&visitor, server);
            CHECK(pair_shakes(&pair) && SSL_session_reused(pair.server));
            SSL_SESSION *removed = SSL_get1_session(pair.server);
            visitor_leaves(&visitor, &pair);
            pair_free(&pair, true);
            SSL_SESSION *second = session_copy(visitor.session);
            unsigned len = 0;
            const unsigned char *id = SSL_SESSION_get_id(removed, &len);
            if (remover == THE_API)
                CHECK(tlsresume_session_remove(tr, id, len) == 1);
            else
                SSL_CTX_remove_session(server, removed);
            visitor_takes(&visitor, first);
            CHECK_SAYING(!visit(&visitor, server), "%s: what it got first", KIND[k].name);
            visitor_takes(&visitor, second);
            CHECK_SAYING(!visit(&visitor, server), "%s: what it got then", KIND[k].name);
            CHECK_SAYING(visit(&visitor, server), "%s: a new handshake", KIND[k].name);
            CHECK_SAYING(visit(&other, server), "%s: somebody else's", KIND[k].name);
            SSL_SESSION_free(first);
            SSL_SESSION_free(second);
            SSL_SESSION_free(removed);
            visitor_free(&visitor);
            visitor_free(&other);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
}

#if OPENSSL_VERSION_NUMBER >= 0x30000000L
/* The connection is older than what the administrator asked for. */
static void a_ticket_that_is_given_after_a_flush_or_a_revocation_does_not_resume(void)
{
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++)
        for (int flushes = 0; flushes < 2; flushes++) {
            TLSRESUME *tr = realm_of(&KIND[k], "");
            SSL_CTX *server = attached_server(tr);
            struct visitor visitor = visitor_new(&KIND[k], NULL);
            struct pair pair = pair_new(&visitor, server);
            CHECK(pair_shakes(&pair));
            next_millisecond();
            CHECK((flushes ? tlsresume_sessions_flush(tr) : tlsresume_keys_revoke(tr, NULL)) == 1);
            next_millisecond();
            char byte;
            int before = visitor.tickets;
            CHECK(SSL_new_session_ticket(pair.server) == 1);
            CHECK(SSL_write(pair.server, "x", 1) == 1);
            CHECK(SSL_read(pair.client, &byte, 1) == 1);
            CHECK_EQUAL(visitor.tickets, before + 1);
            pair_free(&pair, true);
            CHECK_SAYING(!visit(&visitor, server), "%s, flush %d", KIND[k].name, flushes);
            visitor_free(&visitor);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
}
#endif

/* ---- What strangers on the way can do ---- */

enum { MOST_HELLO = 4096 };

struct hello {
    unsigned char bytes[MOST_HELLO];
    int len;
};

/* A visit whose ClientHello somebody sees. */
static struct hello is_seen(struct visitor *visitor, SSL_CTX *server)
{
    struct pair pair = pair_new(visitor, server);
    struct hello hello = {.len = 0};
    char *bytes = NULL;
    CHECK(SSL_do_handshake(pair.client) != 1);
    hello.len = BIO_nread0(SSL_get_rbio(pair.server), &bytes);
    CHECK(hello.len > 0 && hello.len <= MOST_HELLO);
    memcpy(hello.bytes, bytes, (size_t)hello.len);
    CHECK(pair_shakes(&pair) && SSL_session_reused(pair.server));
    visitor_leaves(visitor, &pair);
    pair_free(&pair, true);
    return hello;
}

static void sends(SSL *server, const unsigned char *bytes, int len)
{
    CHECK_EQUAL(BIO_write(SSL_get_rbio(server), bytes, len), len);
    CHECK(SSL_do_handshake(server) != 1);
}

/* Somebody sends again what another one sent. */
static SSL *is_sent_again(const struct hello *hello, SSL_CTX *ctx)
{
    SSL *server = SSL_new(ctx);
    CHECK(server != NULL);
    SSL_set_bio(server, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(server), -1);
    SSL_set_accept_state(server);
    sends(server, hello->bytes, hello->len);
    CHECK(SSL_session_reused(server));
    return server;
}

static const unsigned char ALERT[] = {21, 3, 3, 0, 2, 2, 40};
static const unsigned char GARBAGE[] = {22, 3, 3, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static void sends_nonsense(SSL *server, bool is_alert)
{
    ERR_clear_error();
    if (is_alert)
        sends(server, ALERT, sizeof ALERT);
    else
        sends(server, GARBAGE, sizeof GARBAGE);
    CHECK(ERR_peek_error() != 0);
    SSL_free(server);
    ERR_clear_error();
}

static void who_sends_a_client_hello_again_with_nonsense_removes_no_session(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        for (int is_alert = 0; is_alert < 2; is_alert++)
            for (int others = 0; others < 2; others++) {
                TLSRESUME *tr = realm_of(kind, "");
                SSL_CTX *server = attached_server(tr);
                struct visitor visitor = visitor_new(kind, NULL), other = visitor_new(kind, NULL);
                CHECK(!visit(&visitor, server) && !visit(&other, server));
                struct hello hello = is_seen(&visitor, server), next = is_seen(&other, server);
                SSL *bad = is_sent_again(&hello, server);
                /* Another handshake of the same thread may be in between. */
                SSL *between = others ? is_sent_again(&next, server) : NULL;
                sends_nonsense(bad, is_alert);
                SSL_free(between);
                CHECK_SAYING(visit(&visitor, server), "%s, alert %d, others %d", kind->name,
                             is_alert, others);
                CHECK_SAYING(visit(&other, server), "%s, alert %d, others %d: another's",
                             kind->name, is_alert, others);
                visitor_free(&visitor);
                visitor_free(&other);
                SSL_CTX_free(server);
                tlsresume_free(tr);
            }
}

/* OpenSSL would take over the id that comes beside a TLS 1.2 ticket. */
static void who_sends_the_id_of_another_beside_its_own_ticket_does_not_remove_that_one(void)
{
    TLSRESUME *tr = realm_of(&KIND[TLS12_ID], "");
    SSL_CTX *server = attached_server(tr);
    struct visitor victim = visitor_new(&KIND[TLS12_ID], NULL);
    struct visitor attacker = visitor_new(&KIND[TLS12_TICKET], NULL);
    CHECK(!visit(&victim, server) && !visit(&attacker, server));
    unsigned len = 0;
    const unsigned char *id = SSL_SESSION_get_id(victim.session, &len);
    for (int is_alert = 0; is_alert < 2; is_alert++)
        for (int finishes = 0; finishes < 2; finishes++) {
            struct visitor copy = visitor_new(&KIND[TLS12_TICKET], NULL);
            visitor_takes(&copy, attacker.session);
            CHECK(SSL_SESSION_set1_id(copy.session, id, len) == 1);
            struct pair pair = pair_new(&copy, server);
            if (finishes)
                CHECK(pair_shakes(&pair));
            else
                CHECK(!pair_steps(&pair));
            CHECK(!SSL_session_reused(pair.server));
            const unsigned char *bytes = is_alert ? ALERT : GARBAGE;
            int most = is_alert ? (int)sizeof ALERT : (int)sizeof GARBAGE;
            char byte;
            CHECK_EQUAL(BIO_write(SSL_get_rbio(pair.client), bytes, most), most);
            CHECK(SSL_read(pair.server, &byte, 1) <= 0 && ERR_peek_error() != 0);
            pair_free(&pair, false);
            ERR_clear_error();
            CHECK_SAYING(visit(&victim, server), "alert %d, finished %d", is_alert, finishes);
            visitor_free(&copy);
        }
    visitor_free(&victim);
    visitor_free(&attacker);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM(an_unclean_close_costs_no_session);
    CLAIM(a_client_that_closes_without_close_notify_resumes);
    CLAIM(with_forget_an_unclean_close_ends_a_stored_session);
    CLAIM(a_session_that_was_removed_does_not_resume);
    CLAIM(removing_what_never_was_a_session_does_nothing);
    CLAIM(a_flush_ends_stored_sessions_and_leaves_tickets);
    CLAIM(a_revoked_key_opens_nothing_and_another_takes_its_place);
    CLAIM(the_key_that_encrypts_can_be_revoked_again_and_again);
    CLAIM(when_every_key_is_revoked_no_ticket_opens_and_new_ones_do);
    CLAIM(a_removal_covers_the_whole_handshake);
    CLAIM(who_sends_a_client_hello_again_with_nonsense_removes_no_session);
    CLAIM(who_sends_the_id_of_another_beside_its_own_ticket_does_not_remove_that_one);
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
    CLAIM(a_ticket_that_is_given_after_a_flush_or_a_revocation_does_not_resume);
#endif
    return check_end();
}
