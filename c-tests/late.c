/* What an application sets in the midst of a handshake, when sessions and tickets are made or resumed already. */
#include "check.h"

#include <openssl/err.h>

enum { MUST_SHOW = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT };

/* Two authorities and a client certificate of each. */
static struct authority {
    EVP_PKEY *key;
    X509 *certificate, *client;
} ours, theirs;

static struct authority authority_new(const char *name)
{
    struct authority authority = {.key = new_key()};
    authority.certificate = new_certificate(name, authority.key, NULL, NULL, 0);
    authority.client = new_certificate("client", authority.key, authority.certificate, authority.key, 0);
    return authority;
}

static struct visitor member_new(const struct kind *kind)
{
    struct visitor member = visitor_new(kind, "a.example");
    visitor_shows(&member, ours.client, ours.key);
    return member;
}

/* What a visit comes to where a certificate is required from the start. */
enum outcome { REFUSED, FULL, RESUMED };

static enum outcome tries_strict_door(struct visitor *visitor, SSL_CTX *server)
{
    SSL *end = SSL_new(server);
    SSL_set_verify(end, MUST_SHOW, NULL);
    struct pair pair = pair_with(visitor, end);
    bool done = pair_shakes(&pair);
    enum outcome outcome = !done ? REFUSED : SSL_session_reused(pair.server) ? RESUMED : FULL;
    if (done)
        visitor_leaves(visitor, &pair);
    pair_free(&pair, true);
    ERR_clear_error();
    return outcome;
}

/* ---- A certificate that becomes required after the client was asked ---- */

enum moment { BETWEEN_TWO_CALLS, IN_THE_INFO_CALLBACK, AFTER_THE_HANDSHAKE, MOMENTS };

static enum moment moment;

/* The server's flight is made, with or without a request for a certificate. */
static bool has_answered(const SSL *ssl)
{
    OSSL_HANDSHAKE_STATE state = SSL_get_state(ssl);
    return state == (SSL_version(ssl) == TLS1_3_VERSION ? TLS_ST_SW_FINISHED : TLS_ST_SW_SRVR_DONE);
}

static void requires_a_certificate(const SSL *ssl, int position, int value)
{
    (void)value;
    if (moment == IN_THE_INFO_CALLBACK && position == SSL_CB_ACCEPT_LOOP && has_answered(ssl))
        SSL_set_verify((SSL *)ssl, MUST_SHOW, NULL);
}

/* The client is asked, and gets a ticket before it answers. */
static void asks_and_gives_a_ticket(struct pair *pair)
{
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
    char byte;
    SSL_set_verify(pair->server, MUST_SHOW, NULL);
    CHECK(SSL_verify_client_post_handshake(pair->server) == 1);
    CHECK(SSL_do_handshake(pair->server) == 1);
    CHECK(SSL_new_session_ticket(pair->server) == 1);
    CHECK(SSL_write(pair->server, "x", 1) == 1);
    CHECK(SSL_read(pair->client, &byte, 1) == 1);
#else
    (void)pair;
#endif
}

/* Somebody without a certificate, whose connection is to show one when it is too late to ask. */
static void comes_too_early(struct visitor *guest, SSL_CTX *server)
{
    struct pair pair = pair_new(guest, server);
    if (moment == BETWEEN_TWO_CALLS) {
        CHECK(!pair_steps(&pair));
        SSL_set_verify(pair.server, MUST_SHOW, NULL);
    }
    CHECK(pair_shakes(&pair));
    if (moment == AFTER_THE_HANDSHAKE)
        asks_and_gives_a_ticket(&pair);
    CHECK_EQUAL(SSL_get_verify_mode(pair.server), MUST_SHOW);
    visitor_leaves(guest, &pair);
    pair_free(&pair, true);
}

static SSL_CTX *door_new(TLSRESUME *tr, int mode)
{
    SSL_CTX *door = server_new();
    server_verifies(door, ours.certificate);
    SSL_CTX_set_verify(door, mode, NULL);
    SSL_CTX_set_info_callback(door, requires_a_certificate);
    if (moment == AFTER_THE_HANDSHAKE)
        CHECK(SSL_CTX_set_num_tickets(door, mode == MUST_SHOW ? 2 : 0) == 1);
    CHECK(tlsresume_attach(tr, door) == 1);
    return door;
}

static bool is_one_context;

static void a_guest_comes_to_a_door_that_becomes_strict(void)
{
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *open = door_new(tr, SSL_VERIFY_NONE), *strict = is_one_context ? open : door_new(tr, MUST_SHOW);
    struct visitor member = member_new(tried_kind), guest = visitor_new(tried_kind, "a.example");
    SSL_CTX_set_post_handshake_auth(guest.ctx, 1);
    CHECK_EQUAL(tries_strict_door(&member, strict), FULL);
    comes_too_early(&guest, open);
    for (int again = 0; again < 2; again++) {
        enum outcome outcome = tries_strict_door(&guest, strict);
        CHECK_SAYING(outcome == REFUSED, "%s, moment %d, one context %d, time %d: outcome %d", tried_kind->name,
                     moment, is_one_context, again, outcome);
    }
    CHECK(tries_strict_door(&member, strict) != REFUSED);
    visitor_free(&member);
    visitor_free(&guest);
    SSL_CTX_free(open);
    if (!is_one_context)
        SSL_CTX_free(strict);
    tlsresume_free(tr);
}

static void at_one_context_or_at_two(void)
{
    for (int one = 0; one < 2; one++) {
        is_one_context = one;
        for_each_kind_apart(a_guest_comes_to_a_door_that_becomes_strict);
    }
}

static void a_certificate_that_is_required_between_two_calls_is_not_taken_for_shown(void)
{
    moment = BETWEEN_TWO_CALLS;
    at_one_context_or_at_two();
}

static void a_certificate_that_the_info_callback_requires_is_not_taken_for_shown(void)
{
    moment = IN_THE_INFO_CALLBACK;
    at_one_context_or_at_two();
}

#if OPENSSL_VERSION_NUMBER >= 0x30000000L
static void a_ticket_that_is_given_before_the_certificate_came_is_not_that_of_a_member(void)
{
    moment = AFTER_THE_HANDSHAKE;
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++)
        for (int one = 0; one < 2; one++) {
            is_one_context = one;
            tried_kind = &KIND[k];
            check_apart(a_guest_comes_to_a_door_that_becomes_strict);
        }
}

/* ---- Rules that are lifted before the ticket is made ---- */

/* What makes the rules of a server that asks nobody. */
static struct {
    const char *settings;
    bool takes_shared_keys;
    const struct authority *trusted;    /* by the first of two contexts; the other one trusts others than ours */
} lax;

static unsigned knows_no_key(SSL *ssl, const char *identity, unsigned char *shared, unsigned most)
{
    (void)ssl, (void)identity, (void)shared, (void)most;
    return 0;
}

/* A context that asks nobody by itself. */
static SSL_CTX *lax_context_new(TLSRESUME *tr, const struct authority *trusted)
{
    SSL_CTX *server = server_new();
    server_verifies(server, trusted->certificate);
    SSL_CTX_set_verify(server, SSL_VERIFY_NONE, NULL);
    if (lax.takes_shared_keys)
        SSL_CTX_set_psk_server_callback(server, knows_no_key);
    CHECK(tlsresume_attach(tr, server) == 1);
    return server;
}

/* A member of ours gets a ticket of a connection that asks nobody any more, and trusts whom its context trusts. */
static struct visitor member_with_a_late_ticket(SSL_CTX *server)
{
    struct visitor member = member_new(tried_kind);
    SSL *end = SSL_new(server);
    X509_STORE *store = X509_STORE_new();
    char byte;
    CHECK(X509_STORE_add_cert(store, ours.certificate) == 1 && SSL_set1_verify_cert_store(end, store) == 1);
    X509_STORE_free(store);
    SSL_set_verify(end, MUST_SHOW, NULL);
    struct pair pair = pair_with(&member, end);
    CHECK(pair_shakes(&pair));
    SSL_set_verify(pair.server, SSL_VERIFY_NONE, NULL);
    CHECK(SSL_set0_verify_cert_store(pair.server, NULL) == 1);
    CHECK(SSL_new_session_ticket(pair.server) == 1);
    CHECK(SSL_write(pair.server, "x", 1) == 1 && SSL_read(pair.client, &byte, 1) == 1);
    CHECK(member.tickets == 1);
    visitor_leaves(&member, &pair);
    pair_free(&pair, true);
    return member;
}

static void comes_to_who_trusts_others(void)
{
    TLSRESUME *tr = realm_of(tried_kind, lax.settings);
    SSL_CTX *server = lax_context_new(tr, lax.trusted), *other = lax_context_new(tr, &theirs);
    struct visitor guest = visitor_new(tried_kind, "a.example");
    for (int i = 0; i < 3; i++)
        visit(&guest, other);
    CHECK(visit(&guest, other) && SSL_CTX_set_num_tickets(server, 0) == 1);
    struct visitor member = member_with_a_late_ticket(server);
    struct pair pair = pair_new(&member, other);
    CHECK(pair_shakes(&pair));
    CHECK_SAYING(SSL_get0_peer_certificate(pair.server) == NULL, "%s", tried_kind->name);
    pair_free(&pair, true);
    visitor_free(&member);
    visitor_free(&guest);
    SSL_CTX_free(server);
    SSL_CTX_free(other);
    tlsresume_free(tr);
}

static void is_nobody_to_who_trusts_others(const char *settings, bool takes_shared_keys)
{
    const struct authority *const either[] = {&ours, &theirs};
    lax.settings = settings;
    lax.takes_shared_keys = takes_shared_keys;
    for (int same = 0; same < 2; same++)
        for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
            lax.trusted = either[same];
            tried_kind = &KIND[k];
            check_apart(comes_to_who_trusts_others);
        }
}

static void a_certificate_that_one_server_accepted_is_no_other_ones_once_the_rules_were_lifted(void)
{
    is_nobody_to_who_trusts_others("", false);
}

static void nor_where_sessions_are_bound_to_the_servers_certificate(void)
{
    is_nobody_to_who_trusts_others("bind = \"certificate\"\n", false);
}

static void nor_where_clients_may_come_with_shared_keys(void)
{
    is_nobody_to_who_trusts_others("", true);
}
#endif

/* ---- Another context after the first step ---- */

static bool key_is_older;

static void is_sent_to_another_context_when_it_has_resumed(void)
{
    TLSRESUME *tr = realm_of(tried_kind, "[keys]\nactivation_delay = \"0s\"\n");
    SSL_CTX *first = server_new(), *other = server_new();
    server_verifies(first, ours.certificate);
    server_verifies(other, theirs.certificate);
    CHECK(tlsresume_attach(tr, first) == 1 && tlsresume_attach(tr, other) == 1);
    struct visitor member = member_new(tried_kind);
    CHECK(!visit(&member, first) && visit(&member, first));
    if (key_is_older) {
        next_millisecond();
        CHECK(tlsresume_keys_rotate(tr) == 1);
    }
    struct pair pair = pair_new(&member, first);
    CHECK(!pair_steps(&pair));
    CHECK_SAYING(SSL_session_reused(pair.server), "%s", tried_kind->name);
    SSL_set_SSL_CTX(pair.server, other);
    pair_shakes(&pair);
    CHECK_SAYING(!SSL_is_init_finished(pair.server), "%s, older key %d", tried_kind->name, key_is_older);
    pair_free(&pair, true);
    visitor_free(&member);
    SSL_CTX_free(first);
    SSL_CTX_free(other);
    tlsresume_free(tr);
}

static void who_resumed_before_the_context_was_switched_does_not_get_in_there(void)
{
    key_is_older = false;
    for_each_kind_apart(is_sent_to_another_context_when_it_has_resumed);
}

static void nor_with_a_ticket_that_is_renewed_on_the_way(void)
{
    key_is_older = true;
    for_each_kind_apart(is_sent_to_another_context_when_it_has_resumed);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    own_certificate();
    ours = authority_new("our authority");
    theirs = authority_new("their authority");
    CLAIM(a_certificate_that_is_required_between_two_calls_is_not_taken_for_shown);
    CLAIM(a_certificate_that_the_info_callback_requires_is_not_taken_for_shown);
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
    CLAIM(a_ticket_that_is_given_before_the_certificate_came_is_not_that_of_a_member);
    CLAIM(a_certificate_that_one_server_accepted_is_no_other_ones_once_the_rules_were_lifted);
    CLAIM(nor_where_sessions_are_bound_to_the_servers_certificate);
    CLAIM(nor_where_clients_may_come_with_shared_keys);
#endif
    CLAIM(who_resumed_before_the_context_was_switched_does_not_get_in_there);
    CLAIM(nor_with_a_ticket_that_is_renewed_on_the_way);
    return check_end();
}
