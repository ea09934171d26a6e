/* A program that turns tickets and the cache off, with TLS 1.3 tickets left at their number or not. */
#include "check.h"

#include <stdio.h>
#include <string.h>

#include <openssl/err.h>

static SSL_CTX *refusing_server(size_t tickets)
{
    SSL_CTX *server = server_new();
    SSL_CTX_set_options(server, SSL_OP_NO_TICKET);
    CHECK(SSL_CTX_set_num_tickets(server, tickets) == 1);
    SSL_CTX_set_session_cache_mode(server, SSL_SESS_CACHE_OFF);
    return server;
}

static void reads_back(SSL_CTX *server, size_t tickets)
{
    CHECK_EQUAL(SSL_CTX_get_num_tickets(server), tickets);
    CHECK_EQUAL(SSL_CTX_get_session_cache_mode(server), SSL_SESS_CACHE_OFF);
}

static int resumptions(SSL_CTX *server, SSL_CTX *other)
{
    int resumed = 0;
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, server));
        resumed += visit(&visitor, other);
        visitor_free(&visitor);
    }
    return resumed;
}

static void left_alone(void)
{
    for (size_t tickets = 0; tickets <= 2; tickets += 2) {
        SSL_CTX *server = refusing_server(tickets);
        CHECK_EQUAL(resumptions(server, server), 0);
        CHECK(SSL_CTX_get_options(server) & SSL_OP_NO_TICKET);
        reads_back(server, tickets);
        SSL_CTX_free(server);
    }
}

static int generated;

static int own_id(SSL *ssl, unsigned char *id, unsigned *len)
{
    (void)ssl;
    memset(id, ++generated, *len);
    return 1;
}

static void left_alone_with_what_it_sets_later(void)
{
    SSL_CTX *server = refusing_server(2);
    SSL_free(SSL_new(server));
    SSL_CTX_set_session_cache_mode(server, SSL_SESS_CACHE_SERVER);
    CHECK(SSL_CTX_set_generate_session_id(server, own_id) == 1);
    struct visitor visitor = visitor_new(&KIND[TLS12_ID], NULL);
    CHECK(!visit(&visitor, server));
    CHECK(visit(&visitor, server));
    CHECK_EQUAL(generated, 1);
    visitor_free(&visitor);
    SSL_CTX_free(server);
}

static void overruled(void)
{
    for (size_t tickets = 0; tickets <= 2; tickets += 2) {
        SSL_CTX *server = refusing_server(tickets), *other = refusing_server(tickets);
        CHECK_EQUAL(resumptions(server, other), 3);
        reads_back(server, tickets);
        SSL_CTX_free(server);
        SSL_CTX_free(other);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM(left_alone);
    CLAIM(left_alone_with_what_it_sets_later);
    CLAIM(overruled);
    return check_end();
}
