/* Applications that keep their data under indexes which they never took. */
#include "check.h"

#include <string.h>

#include <openssl/err.h>

/* Index 0 is the application's (SSL_set_app_data(3)). */
enum { LAST = 16 };

/* Which indexes the application uses: those of FreeRADIUS 3.2, which are none of ours; or all, also ours. */
static bool uses_all;

static bool uses(int index)
{
    return index == 1 || (index >= 10 && index <= LAST) || (uses_all && index > 0);
}

static int things[LAST + 1], other_things[LAST + 1];

/* What the library had under these indexes of the connection or context. Each test puts it back in the end: it would not
 * be freed otherwise, which valgrind reports. */
static void *replaced[LAST + 1];

static void notes_what_is_replaced(int index, void *stored)
{
    if (stored != things + index && stored != other_things + index && stored != NULL)
        replaced[index] = stored;
}

static void writes_to_connection(SSL *ssl, int *data)
{
    for (int i = 0; i <= LAST; i++)
        if (uses(i)) {
            notes_what_is_replaced(i, SSL_get_ex_data(ssl, i));
            CHECK_SAYING(SSL_set_ex_data(ssl, i, data + i) == 1, "index %d", i);
        }
}

static void finds_on_connection(SSL *ssl, const int *data)
{
    for (int i = 0; i <= LAST; i++)
        CHECK_SAYING(!uses(i) || SSL_get_ex_data(ssl, i) == data + i, "index %d", i);
}

static void puts_back_on_connection(SSL *ssl)
{
    for (int i = 0; i <= LAST; i++)
        if (replaced[i] != NULL)
            CHECK(SSL_set_ex_data(ssl, i, replaced[i]) == 1);
    memset(replaced, 0, sizeof replaced);
}

static void clears_on_connection(SSL *ssl)
{
    for (int i = 0; i <= LAST; i++) {
        notes_what_is_replaced(i, SSL_get_ex_data(ssl, i));
        CHECK(SSL_set_ex_data(ssl, i, NULL) == 1);
    }
}

/* Frees a connection, and what was replaced with another one: by now something else may be in its place. */
static void frees_with_what_was_replaced(struct pair *pair, SSL_CTX *server)
{
    SSL *other = SSL_new(server);
    for (int i = 0; i <= LAST; i++)
        if (replaced[i] != NULL)
            CHECK(SSL_set_ex_data(other, i, replaced[i]) == 1);
    memset(replaced, 0, sizeof replaced);
    pair_free(pair, true);
    SSL_free(other);
}

static void writes_to_context(SSL_CTX *ctx, int *data)
{
    for (int i = 0; i <= LAST; i++)
        if (uses(i)) {
            notes_what_is_replaced(i, SSL_CTX_get_ex_data(ctx, i));
            CHECK_SAYING(SSL_CTX_set_ex_data(ctx, i, data + i) == 1, "index %d", i);
        }
}

static void finds_on_context(SSL_CTX *ctx, const int *data)
{
    for (int i = 0; i <= LAST; i++)
        CHECK_SAYING(!uses(i) || SSL_CTX_get_ex_data(ctx, i) == data + i, "index %d", i);
}

static void puts_back_on_context(SSL_CTX *ctx)
{
    for (int i = 0; i <= LAST; i++)
        if (replaced[i] != NULL)
            CHECK(SSL_CTX_set_ex_data(ctx, i, replaced[i]) == 1);
    memset(replaced, 0, sizeof replaced);
}

/* ---- Connections ---- */

/* When the application writes. */
enum { AFTER_SSL_NEW = 1, IN_THE_CALLBACK = 2, AFTER_THE_HANDSHAKE = 4, EVER = 8 };

static unsigned when;

static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    if (when & IN_THE_CALLBACK)
        writes_to_connection(ssl, other_things);
    return SSL_TLSEXT_ERR_OK;
}

static bool is_served(struct visitor *visitor, SSL_CTX *server)
{
    struct pair pair = pair_new(visitor, server);
    if (when & AFTER_SSL_NEW)
        writes_to_connection(pair.server, things);
    CHECK_SAYING(pair_shakes(&pair), "when %u", when);
    bool resumed = SSL_session_reused(pair.server);
    if (when & IN_THE_CALLBACK)
        finds_on_connection(pair.server, other_things);
    else if (when & AFTER_SSL_NEW)
        finds_on_connection(pair.server, things);
    if (when & AFTER_THE_HANDSHAKE) {
        writes_to_connection(pair.server, things);
        CHECK(SSL_write(pair.server, "x", 1) == 1);
        finds_on_connection(pair.server, things);
    }
    visitor_leaves(visitor, &pair);
    puts_back_on_connection(pair.server);
    pair_free(&pair, true);
    return resumed;
}

/* Where clients are asked for certificates, each step of a handshake is judged. */
static bool asks;

static void are_written_on_connections(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        for (when = 0; when < EVER; when++) {
            TLSRESUME *tr = realm_of(kind, "");
            SSL_CTX *server = server_new();
            SSL_CTX_set_tlsext_servername_callback(server, on_server_name);
            if (asks) {
                server_verifies(server, own_certificate());
                SSL_CTX_set_verify(server, SSL_VERIFY_PEER, NULL);
            }
            CHECK(tlsresume_attach(tr, server) == 1);
            struct visitor visitor = visitor_new(kind, "a.example");
            for (int visits = 0; visits < 4; visits++) {
                bool resumed = is_served(&visitor, server);
                CHECK_SAYING(uses_all || resumed == (visits > 0), "%s, when %u, visit %d",
                             kind->name, when, visits);
            }
            visitor_free(&visitor);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
}

static void on_connections_of_either_sort(void)
{
    for (int verifies = 0; verifies < 2; verifies++) {
        asks = verifies;
        check_apart(are_written_on_connections);
    }
}

static void what_freeradius_writes_on_connections_is_its_own_and_costs_no_resumption(void)
{
    uses_all = false;
    on_connections_of_either_sort();
}

static void what_is_written_over_ours_on_connections_stays_and_handshakes_succeed(void)
{
    uses_all = true;
    on_connections_of_either_sort();
}

static SSL_CTX *strict;

/* Goes to the strict host, and writes over what is ours. */
static int goes_to_the_strict_host(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    writes_to_connection(ssl, things);
    SSL_set_SSL_CTX(ssl, strict);
    SSL_set_verify(ssl, SSL_CTX_get_verify_mode(strict), NULL);
    return SSL_TLSEXT_ERR_OK;
}

static void a_stranger_comes_to_the_strict_host(void)
{
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *lax = attached_server(tr), *front = server_new();
    strict = server_new();
    SSL_CTX_set_tlsext_servername_callback(front, goes_to_the_strict_host);
    server_verifies(strict, own_certificate());
    CHECK(tlsresume_attach(tr, front) == 1 && tlsresume_attach(tr, strict) == 1);
    struct visitor stranger = visitor_new(tried_kind, "a.example");
    CHECK(!visit(&stranger, lax) && visit(&stranger, lax));
    for (int again = 0; again < 3; again++) {
        struct pair pair = pair_new(&stranger, front);
        CHECK_SAYING(!pair_shakes(&pair), "%s, time %d", tried_kind->name, again);
        puts_back_on_connection(pair.server);
        pair_free(&pair, true);
        ERR_clear_error();
    }
    visitor_free(&stranger);
    SSL_CTX_free(lax);
    SSL_CTX_free(front);
    SSL_CTX_free(strict);
    tlsresume_free(tr);
}

static void who_writes_over_ours_in_the_servername_callback_lets_nobody_in(void)
{
    uses_all = true;
    for_each_kind_apart(a_stranger_comes_to_the_strict_host);
}

enum { MUST_SHOW = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT };

static bool writes_null, asks_by_now;

static int asks_for_a_certificate(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    if (!asks_by_now)
        return SSL_TLSEXT_ERR_OK;
    if (writes_null)
        clears_on_connection(ssl);
    else
        writes_to_connection(ssl, things);
    SSL_set_verify(ssl, MUST_SHOW, NULL);
    return SSL_TLSEXT_ERR_OK;
}

static void a_guest_comes_back_where_a_certificate_is_required_by_now(void)
{
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *server = server_new();
    server_verifies(server, own_certificate());
    SSL_CTX_set_verify(server, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_tlsext_servername_callback(server, asks_for_a_certificate);
    CHECK(tlsresume_attach(tr, server) == 1);
    struct visitor guest = visitor_new(tried_kind, "a.example");
    CHECK(!visit(&guest, server) && visit(&guest, server));
    asks_by_now = true;
    for (int again = 0; again < 2; again++) {
        struct pair pair = pair_new(&guest, server);
        pair_shakes(&pair);
        CHECK_SAYING(!SSL_is_init_finished(pair.server), "%s, NULL %d, time %d", tried_kind->name, writes_null,
                     again);
        frees_with_what_was_replaced(&pair, server);
        ERR_clear_error();
    }
    visitor_free(&guest);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

/* One context, at which nobody had rules before. */
static void who_writes_over_ours_and_requires_a_certificate_resumes_nobody_without(void)
{
    uses_all = true;
    for (int null = 0; null < 2; null++) {
        writes_null = null;
        for_each_kind_apart(a_guest_comes_back_where_a_certificate_is_required_by_now);
    }
}

/* ---- Logouts after that ---- */

static bool has_name_to_remove(const struct kind *kind)
{
    return kind != &KIND[TLS12_TICKET];
}

/* The connection is gone by then, and OpenSSL had nothing of ours to free with it. */
static void a_logout_after_ours_was_written_over_counts_and_follows_nothing(void)
{
    uses_all = true;
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        for (int properly = 0; properly < 2; properly++)
            for (int null = 0; null < 2; null++) {
                if (!has_name_to_remove(kind))
                    continue;
                TLSRESUME *tr = realm_of(kind, "");
                SSL_CTX *server = attached_server(tr);
                struct visitor visitor = visitor_new(kind, "a.example");
                struct pair pair = pair_new(&visitor, server);
                CHECK(pair_shakes(&pair));
                SSL_SESSION *kept = SSL_get1_session(pair.server);
                visitor_leaves(&visitor, &pair);
                if (null)
                    clears_on_connection(pair.server);
                else
                    writes_to_connection(pair.server, things);
                SSL *with_ours = SSL_new(server);
                pair_free(&pair, properly);
                if (!properly)
                    CHECK_SAYING(visit(&visitor, server), "%s, NULL %d: broken off", kind->name, null);
                SSL_CTX_remove_session(server, kept);
                CHECK_SAYING(!visit(&visitor, server), "%s, properly %d, NULL %d", kind->name, properly, null);
                for (int i = 0; i <= LAST; i++)
                    if (replaced[i] != NULL)
                        CHECK(SSL_set_ex_data(with_ours, i, replaced[i]) == 1);
                memset(replaced, 0, sizeof replaced);
                SSL_free(with_ours);
                SSL_SESSION_free(kept);
                visitor_free(&visitor);
                SSL_CTX_free(server);
                tlsresume_free(tr);
            }
}

/* ---- Contexts ---- */

static void serves_and_finds(SSL_CTX *server, const struct kind *kind, bool resumes)
{
    struct visitor visitor = visitor_new(kind, "a.example");
    visit(&visitor, server);
    for (int visits = 0; visits < 3; visits++)
        CHECK_SAYING(visit(&visitor, server) || !resumes, "%s, visit %d", kind->name, visits);
    finds_on_context(server, things);
    visitor_free(&visitor);
}

static void what_freeradius_writes_on_contexts_is_its_own_and_costs_no_resumption(void)
{
    uses_all = false;
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        for (int before = 0; before < 2; before++) {
            TLSRESUME *tr = realm_of(kind, "");
            SSL_CTX *server = server_new();
            if (before)
                writes_to_context(server, things);
            CHECK(tlsresume_attach(tr, server) == 1);
            if (!before)
                writes_to_context(server, things);
            serves_and_finds(server, kind, true);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
}

static void a_context_with_data_of_others_in_our_place_is_refused_and_serves(void)
{
    uses_all = true;
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = server_new();
        writes_to_context(server, things);
        CHECK_REFUSED(tlsresume_attach(tr, server), "SSL_CTX_get_ex_new_index");
        serves_and_finds(server, kind, false);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void what_is_written_over_ours_on_contexts_stays_and_handshakes_succeed(void)
{
    uses_all = true;
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, server));
        writes_to_context(server, things);
        for (int visits = 0; visits < 3; visits++)
            visit(&visitor, server);
        visitor_free(&visitor);
        serves_and_finds(server, kind, false);
        puts_back_on_context(server);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    own_certificate();
    CLAIM(what_freeradius_writes_on_connections_is_its_own_and_costs_no_resumption);
    CLAIM(what_is_written_over_ours_on_connections_stays_and_handshakes_succeed);
    CLAIM(who_writes_over_ours_in_the_servername_callback_lets_nobody_in);
    CLAIM(who_writes_over_ours_and_requires_a_certificate_resumes_nobody_without);
    CLAIM(a_logout_after_ours_was_written_over_counts_and_follows_nothing);
    CLAIM_APART(what_freeradius_writes_on_contexts_is_its_own_and_costs_no_resumption);
    CLAIM_APART(a_context_with_data_of_others_in_our_place_is_refused_and_serves);
    CLAIM_APART(what_is_written_over_ours_on_contexts_stays_and_handshakes_succeed);
    return check_end();
}
