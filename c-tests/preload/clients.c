/* What a program that has contexts for both roles asks for in its role as a client is what it gets. */
#define _POSIX_C_SOURCE 200809L

#include "spare_memory.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

static SSL_CTX *client_new(void)
{
    SSL_CTX *client = SSL_CTX_new(TLS_method());
    CHECK(client != NULL);
    CHECK(SSL_CTX_set_max_proto_version(client, TLS1_2_VERSION) == 1);
    return client;
}

/* What its ClientHello says. */
static bool offers_tickets(SSL *client)
{
    unsigned char hello[16384];
    int len = 0;
    SSL_set_bio(client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(client), -1);
    CHECK(SSL_do_handshake(client) < 0);
    len = BIO_read(SSL_get_wbio(client), hello, sizeof hello);
    CHECK(len > 0);
    /* extension 35 of length 0, the only one of that shape */
    for (int i = 40; i + 4 <= len; i++)
        if (memcmp(hello + i, "\0\x23\0", 4) == 0)
            return true;
    return false;
}

static SSL_CTX *server_of(const SSL_METHOD *method)
{
    SSL_CTX *pattern = server_new(), *server = SSL_CTX_new(method);
    CHECK(server != NULL && SSL_CTX_use_certificate(server, own_certificate()) == 1);
    CHECK(SSL_CTX_use_PrivateKey(server, SSL_CTX_get0_privatekey(pattern)) == 1);
    CHECK(SSL_CTX_set_session_id_context(server, (const unsigned char *)"s", 1) == 1);
    SSL_CTX_free(pattern);
    return server;
}

/* What one writes the other one reads. */
static void connects_in_memory(struct pair *pair)
{
    BIO *to_client = memory_bio(), *to_server = memory_bio();
    CHECK(BIO_up_ref(to_client) == 1 && BIO_up_ref(to_server) == 1);
    SSL_set_bio(pair->client, to_client, to_server);
    SSL_set_bio(pair->server, to_server, to_client);
    SSL_set_connect_state(pair->client);
    SSL_set_accept_state(pair->server);
}

static void a_client_offers_to_take_tickets(void)
{
    SSL_CTX *client = client_new();
    SSL *ssl = SSL_new(client);
    SSL_set_connect_state(ssl);
    CHECK(offers_tickets(ssl));
    SSL_free(ssl);
    SSL_CTX_free(client);
}

static void a_client_that_wants_no_tickets_takes_none(void)
{
    SSL_CTX *client = client_new();
    SSL_CTX_set_options(client, SSL_OP_NO_TICKET);
    SSL *ssl = SSL_new(client);
    SSL_set_connect_state(ssl);
    CHECK(!offers_tickets(ssl));
    SSL_free(ssl);
    SSL_CTX_free(client);
}

static void a_connection_that_wants_no_tickets_takes_none(void)
{
    SSL_CTX *client = client_new();
    SSL *ssl = SSL_new(client);
    SSL_set_options(ssl, SSL_OP_NO_TICKET);
    SSL_set_connect_state(ssl);
    CHECK(!offers_tickets(ssl));
    SSL_free(ssl);
    SSL_CTX_free(client);
}

static bool nobody_resumes(void)
{
    const char *mode = getenv("TLSRESUME_RESUMPTION_MODE");
    return mode != NULL && strcmp(mode, "off") == 0;
}

/* It is for both roles, and had a connection as a client. */
static SSL_CTX *server_that_connects(void)
{
    SSL_CTX *server = server_of(TLS_method());
    SSL *client = SSL_new(server);
    SSL_set_connect_state(client);
    offers_tickets(client);
    SSL_free(client);
    ERR_clear_error();
    return server;
}

static void a_logout_counts_at_a_context_that_has_connected(void)
{
    for (int k = 0; k < KINDS; k++) {
        if (k == TLS12_TICKET)
            continue; /* has no id that it could be removed by */
        SSL_CTX *server = server_that_connects();
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, server));
        CHECK_SAYING(visit(&visitor, server) == !nobody_resumes(), "%s", KIND[k].name);
        struct pair pair = pair_new(&visitor, server);
        CHECK(pair_shakes(&pair));
        visitor_leaves(&visitor, &pair);
        SSL_CTX_remove_session(server, SSL_get_session(pair.server));
        pair_free(&pair, true);
        CHECK_SAYING(!visit(&visitor, server), "%s", KIND[k].name);
        visitor_free(&visitor);
        SSL_CTX_free(server);
    }
}

/* One of a context that is no client yet, but keeps a cache for both roles, is freed without a close_notify. Where its
 * session was. */
static SSL_SESSION *one_is_freed_where_both_are_cached(const struct kind *kind)
{
    SSL_CTX *both = server_of(TLS_method());
    SSL_CTX_set_session_cache_mode(both, SSL_SESS_CACHE_BOTH);
    struct visitor stranger = visitor_new(kind, "b.example");
    struct pair pair = pair_new(&stranger, both);
    CHECK(pair_shakes(&pair));
    SSL_SESSION *session = SSL_get_session(pair.server);
    pair_free(&pair, false);
    visitor_free(&stranger);
    SSL_CTX_free(both);
    return session;
}

static void a_logout_counts_where_a_session_was_freed_that_both_caches_keep(void)
{
    int same_place = 0;
    for (int k = 0; k < KINDS; k++)
        for (const struct kind *other = KIND; other < KIND + KINDS; other++) {
            if (k == TLS12_TICKET)
                continue; /* has no id that it could be removed by */
            SSL_CTX *server = server_of(TLS_server_method());
            struct visitor visitor = visitor_new(&KIND[k], "a.example");
            SSL_SESSION *gone = one_is_freed_where_both_are_cached(other);
            struct pair pair = pair_new(&visitor, server);
            CHECK(pair_shakes(&pair));
            same_place += SSL_get_session(pair.server) == gone;
            visitor_leaves(&visitor, &pair);
            SSL_CTX_remove_session(server, SSL_get_session(pair.server));
            pair_free(&pair, true);
            CHECK_SAYING(!visit(&visitor, server), "%s after %s", KIND[k].name, other->name);
            visitor_free(&visitor);
            SSL_CTX_free(server);
        }
    CHECK_SAYING(same_place > 0, "no session was where another one had been");
}

/* Its server's ids are those of this library. */
static void a_client_that_breaks_off_logs_nobody_out(void)
{
    SSL_CTX *server = server_of(TLS_method()), *both = server_that_connects();
    SSL_CTX_set_max_proto_version(both, TLS1_2_VERSION);
    SSL_CTX_set_options(both, SSL_OP_NO_TICKET);
    SSL_SESSION *session = NULL;
    for (int visits = 0; visits < 4; visits++) {
        struct pair pair = {SSL_new(both), SSL_new(server)};
        connects_in_memory(&pair);
        if (session != NULL)
            CHECK(SSL_set_session(pair.client, session) == 1);
        SSL_SESSION_free(session);
        for (int step = 0; step < 4; step++) {
            SSL_do_handshake(pair.client);
            SSL_do_handshake(pair.server);
        }
        CHECK(SSL_is_init_finished(pair.client) && SSL_is_init_finished(pair.server));
        CHECK_SAYING(SSL_session_reused(pair.server) == (visits > 0 && !nobody_resumes()), "visit %d", visits);
        SSL_SESSION *had = SSL_get1_session(pair.client);
        session = session_copy(had);
        SSL_SESSION_free(had);
        SSL_free(pair.client); /* without a close_notify */
        SSL_set_shutdown(pair.server, SSL_SENT_SHUTDOWN);
        SSL_free(pair.server);
        ERR_clear_error();
    }
    SSL_SESSION_free(session);
    SSL_CTX_free(both);
    SSL_CTX_free(server);
}

static void lists_may_be_checked_without_a_context(void)
{
    /* Later versions of OpenSSL follow the pointer. */
    if (OpenSSL_version_num() >= 0x30200000UL)
        return;
    SSL_CTX *server = server_new();
    CHECK(SSL_CTX_set1_sigalgs_list(NULL, "RSA+SHA256") == 1);
    CHECK(SSL_CTX_set1_sigalgs_list(NULL, "nonsense") == 0);
    ERR_clear_error();
    SSL_CTX_free(server);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    begins_to_give_out_again();
    CLAIM(lists_may_be_checked_without_a_context);
    CLAIM(a_client_offers_to_take_tickets);
    CLAIM(a_client_that_wants_no_tickets_takes_none);
    CLAIM(a_connection_that_wants_no_tickets_takes_none);
    CLAIM(a_logout_counts_at_a_context_that_has_connected);
    CLAIM(a_logout_counts_where_a_session_was_freed_that_both_caches_keep);
    CLAIM(a_client_that_breaks_off_logs_nobody_out);
    return check_end();
}
