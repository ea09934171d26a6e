/* Early data under a register that the program knows nothing of. Its own word on early data is not asked, so that none
 * is taken where it has one. */
#include "moving_clock.h"

#include <stdio.h>

#include <openssl/err.h>

/* More than the register's window. */
enum { LATER = 100, MOST_FLIGHT = 8192 };

static SSL_CTX *early_server(void)
{
    SSL_CTX *server = server_new();
    SSL_CTX_set_max_early_data(server, 1024);
    return server;
}

static int asked;

static int agrees(SSL *ssl, void *arg)
{
    (void)ssl, (void)arg;
    asked++;
    return 1;
}

/* A first flight with early data, as an attacker would record it. */
struct flight {
    unsigned char bytes[MOST_FLIGHT];
    int len;
};

static struct flight flight_of_visitor_to(SSL_CTX *server)
{
    struct flight flight;
    size_t written = 0;
    struct visitor visitor = visitor_new(&KIND[TLS13_STATELESS], "a.example");
    CHECK(!visit(&visitor, server));
    CHECK_EQUAL(SSL_SESSION_get_max_early_data(visitor.session), 1024);
    SSL *client = SSL_new(visitor.ctx);
    SSL_set_bio(client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(client), -1);
    SSL_set_connect_state(client);
    CHECK(SSL_set_tlsext_host_name(client, visitor.name) == 1);
    CHECK(SSL_set_session(client, visitor.session) == 1);
    CHECK(SSL_write_early_data(client, "GET /", 5, &written) == 1);
    flight.len = BIO_read(SSL_get_wbio(client), flight.bytes, sizeof flight.bytes);
    CHECK(flight.len > 0 && flight.len < MOST_FLIGHT);
    SSL_set_shutdown(client, SSL_SENT_SHUTDOWN);
    SSL_free(client);
    visitor_free(&visitor);
    return flight;
}

static void nothing(SSL *ssl)
{
    (void)ssl;
}

/* Whether the early data of the flight is taken; prepare is called with the connection. */
static bool takes(SSL_CTX *ctx, const struct flight *flight, void (*prepare)(SSL *))
{
    SSL *server = SSL_new(ctx);
    char data[64];
    size_t len = 0;
    CHECK(server != NULL);
    prepare(server);
    SSL_set_bio(server, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(server), -1);
    SSL_set_accept_state(server);
    BIO_write(SSL_get_rbio(server), flight->bytes, flight->len);
    server_runs = true;
    bool taken =
        SSL_read_early_data(server, data, sizeof data, &len) == SSL_READ_EARLY_DATA_SUCCESS;
    server_runs = false;
    /* What is refused costs a round trip, not the resumption. */
    CHECK(SSL_session_reused(server));
    SSL_set_shutdown(server, SSL_SENT_SHUTDOWN);
    SSL_free(server);
    ERR_clear_error();
    return taken;
}

static void the_first_is_taken_and_a_replay_is_not(void)
{
    SSL_CTX *one = early_server(), *other = early_server();
    struct flight flight = flight_of_visitor_to(one);
    CHECK(takes(other, &flight, nothing));
    CHECK(!takes(other, &flight, nothing));
    CHECK(!takes(one, &flight, nothing));
    SSL_CTX_free(one);
    SSL_CTX_free(other);
}

static void a_context_with_a_callback_takes_none(void)
{
    for (int after = 0; after < 2; after++) {
        SSL_CTX *server = early_server();
        if (after)
            SSL_free(SSL_new(server));
        SSL_CTX_set_allow_early_data_cb(server, agrees, NULL);
        struct flight flight = flight_of_visitor_to(server);
        CHECK(!takes(server, &flight, nothing));
        SSL_CTX_free(server);
    }
    CHECK_EQUAL(asked, 0);
}

static void a_context_whose_callback_is_taken_back_takes_the_first(void)
{
    for (int after = 0; after < 2; after++) {
        SSL_CTX *server = early_server();
        if (after)
            SSL_free(SSL_new(server));
        SSL_CTX_set_allow_early_data_cb(server, agrees, NULL);
        SSL_CTX_set_allow_early_data_cb(server, NULL, NULL);
        struct flight flight = flight_of_visitor_to(server);
        CHECK(takes(server, &flight, nothing));
        CHECK(!takes(server, &flight, nothing));
        SSL_CTX_free(server);
    }
}

static void agree(SSL *ssl)
{
    SSL_set_allow_early_data_cb(ssl, agrees, NULL);
}

static void a_connection_with_a_callback_takes_none(void)
{
    SSL_CTX *server = early_server();
    struct flight flight = flight_of_visitor_to(server);
    CHECK(!takes(server, &flight, agree));
    CHECK_EQUAL(asked, 0);
    SSL_CTX_free(server);
}

static void take_back(SSL *ssl)
{
    SSL_set_allow_early_data_cb(ssl, NULL, NULL);
}

static void a_connection_without_a_callback_still_refuses_replays(void)
{
    SSL_CTX *server = early_server();
    struct flight flight = flight_of_visitor_to(server);
    takes(server, &flight, take_back);
    CHECK(!takes(server, &flight, take_back));
    SSL_CTX_free(server);
}

static void a_handshake_whose_early_data_is_refused_goes_on(void)
{
    SSL_CTX *server = early_server();
    SSL_CTX_set_allow_early_data_cb(server, agrees, NULL);
    struct visitor visitor = visitor_new(&KIND[TLS13_STATELESS], "a.example");
    CHECK(!visit(&visitor, server));
    struct pair pair = pair_new(&visitor, server);
    size_t len = 0;
    char data[64];
    CHECK(SSL_write_early_data(pair.client, "GET /", 5, &len) == 1);
    CHECK(SSL_read_early_data(pair.server, data, sizeof data, &len)
          != SSL_READ_EARLY_DATA_SUCCESS);
    ERR_clear_error();
    CHECK(pair_shakes(&pair));
    CHECK(SSL_session_reused(pair.server));
    CHECK_EQUAL(SSL_get_early_data_status(pair.client), SSL_EARLY_DATA_REJECTED);
    pair_free(&pair, true);
    visitor_free(&visitor);
    SSL_CTX_free(server);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    /* The register is as old as its window from here on. */
    SSL_CTX_free(server_new());
    server_clock_is_at(LATER);
    CLAIM(the_first_is_taken_and_a_replay_is_not);
    CLAIM(a_context_with_a_callback_takes_none);
    CLAIM(a_context_whose_callback_is_taken_back_takes_the_first);
    CLAIM(a_connection_with_a_callback_takes_none);
    CLAIM(a_handshake_whose_early_data_is_refused_goes_on);
    CLAIM(a_connection_without_a_callback_still_refuses_replays);
    return check_end();
}
