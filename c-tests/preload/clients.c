/* What a program that has contexts for both roles asks for in its role as a client is what it gets. */
#include "check.h"

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
    CLAIM(lists_may_be_checked_without_a_context);
    CLAIM(a_client_offers_to_take_tickets);
    CLAIM(a_client_that_wants_no_tickets_takes_none);
    CLAIM(a_connection_that_wants_no_tickets_takes_none);
    return check_end();
}
