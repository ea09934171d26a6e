/* Verification that nobody can know of before the servername callback has run: sessions from where nobody was verified,
 * or from before, open nothing. Each claim has a process of its own, which has seen no such callback yet. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <openssl/err.h>

static EVP_PKEY *key;
static X509 *authority, *certificate;

static const int VERIFIES = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;

/* The connection alone is told. */
static int verifies_by_connection(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    SSL_set_verify(ssl, VERIFIES, NULL);
    return SSL_TLSEXT_ERR_OK;
}

/* The context is made when it is needed. */
static int verifies_by_new_context(SSL *ssl, int *alert, void *arg)
{
    (void)alert;
    SSL_CTX **made = arg;
    *made = server_new();
    server_verifies(*made, authority);
    SSL_set_SSL_CTX(ssl, *made);
    SSL_set_verify(ssl, VERIFIES, NULL);
    return SSL_TLSEXT_ERR_OK;
}

/* The context was a client before. */
static int verifies_by_context(SSL *ssl, int *alert, void *arg)
{
    (void)alert;
    SSL_set_SSL_CTX(ssl, arg);
    SSL_set_verify(ssl, VERIFIES, NULL);
    return SSL_TLSEXT_ERR_OK;
}

static const char *const NAMES[KINDS] = {"a.example", "b.example", "c.example", "d.example"};

typedef int server_name_callback(SSL *, int *, void *);

/* A visitor without a certificate, whose session is from where nobody asked for one. */
static bool gets_in(const struct kind *kind, server_name_callback *callback, void *arg)
{
    SSL_CTX *open = server_new(), *closed = server_new();
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(closed), authority) == 1);
    SSL_CTX_set_tlsext_servername_callback(closed, callback);
    SSL_CTX_set_tlsext_servername_arg(closed, arg);
    /* A name of its own for each: one that several policies serve is not resumed any more. */
    struct visitor visitor = visitor_new(kind, NAMES[kind - KIND]);
    CHECK(!visit(&visitor, open));
    visit(&visitor, open);
    CHECK_SAYING(visit(&visitor, open), "%s: the session is good", kind->name);
    struct pair pair = pair_new(&visitor, closed);
    bool in = pair_shakes(&pair);
    pair_free(&pair, false);
    ERR_clear_error();
    visitor_free(&visitor);
    SSL_CTX_free(open);
    SSL_CTX_free(closed);
    return in;
}

static void verification_told_to_the_connection_counts(void)
{
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++)
        CHECK_SAYING(!gets_in(&KIND[k], verifies_by_connection, NULL), "%s", KIND[k].name);
}

static void verification_of_a_context_made_in_the_callback_counts(void)
{
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        SSL_CTX *made = NULL;
        CHECK_SAYING(!gets_in(&KIND[k], verifies_by_new_context, &made), "%s", KIND[k].name);
        SSL_CTX_free(made);
    }
}

static void verification_of_a_context_that_also_connects_counts(void)
{
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        SSL_CTX *both = SSL_CTX_new(TLS_method());
        CHECK(SSL_CTX_use_certificate(both, own_certificate()) == 1);
        server_verifies(both, authority);
        SSL *upstream = SSL_new(both);
        SSL_set_connect_state(upstream);
        CHECK_SAYING(!gets_in(&KIND[k], verifies_by_context, both), "%s", KIND[k].name);
        SSL_free(upstream);
        SSL_CTX_free(both);
    }
}

/* Who shows a certificate gets in every time: visit() fails otherwise. */
static void members_are_served_where_the_callback_verifies(void)
{
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        SSL_CTX *server = server_new();
        CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(server), authority) == 1);
        SSL_CTX_set_tlsext_servername_callback(server, verifies_by_connection);
        struct visitor member = visitor_new(&KIND[k], "a.example");
        visitor_shows(&member, certificate, key);
        for (int i = 0; i < 3; i++)
            visit(&member, server);
        visitor_free(&member);
        SSL_CTX_free(server);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    key = new_key();
    authority = new_certificate("authority", key, NULL, NULL, 0);
    certificate = new_certificate("client", key, authority, key, 0);
    CLAIM_APART(verification_told_to_the_connection_counts);
    CLAIM_APART(verification_of_a_context_made_in_the_callback_counts);
    CLAIM_APART(verification_of_a_context_that_also_connects_counts);
    CLAIM_APART(members_are_served_where_the_callback_verifies);
    X509_free(certificate);
    X509_free(authority);
    EVP_PKEY_free(key);
    return check_end();
}
