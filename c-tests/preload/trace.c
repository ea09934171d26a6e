/* Prints what a client sees whose contexts are made with TLS_method(), which could serve as well. The servers are out of
 * the reach of LD_PRELOAD, so that the trace is the same with a library that leaves clients alone and without one. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>

static SSL *(*own_ssl_new)(SSL_CTX *);

/* libssl's own function, whatever comes before it. */
static void find_own_ssl_new(void)
{
    void *libssl = dlopen("libssl.so.3", RTLD_LAZY | RTLD_NOLOAD);
    CHECK(libssl != NULL);
    *(void **)&own_ssl_new = dlsym(libssl, "SSL_new");
    CHECK(own_ssl_new != NULL);
}

static SSL_SESSION *last;
static bool timeouts;    /* are part of the trace */

static int got_session(SSL *ssl, SSL_SESSION *session)
{
    puts(SSL_is_server(ssl) ? "  new session of a server" : "  new session");
    if (timeouts)
        printf("  for %ld seconds\n", SSL_SESSION_get_timeout(session));
    SSL_SESSION_free(last);
    last = session;
    return 1;
}

static void lost_session(SSL_CTX *ctx, SSL_SESSION *session)
{
    (void)ctx, (void)session;
    puts("  removed");
}

/* How a client is set up. */
struct setup {
    const SSL_METHOD *(*method)(void);
    int version;
    long mode;
    bool late;       /* only after its first connection was made */
    bool is_told;    /* has a new-session callback */
    long timeout;    /* 0: OpenSSL's */
};

static void configure(SSL_CTX *client, const struct setup *setup)
{
    SSL_CTX_set_session_cache_mode(client, setup->mode);
    SSL_CTX_sess_set_remove_cb(client, lost_session);
    if (setup->is_told)
        SSL_CTX_sess_set_new_cb(client, got_session);
    timeouts = setup->timeout != 0;
    if (timeouts)
        SSL_CTX_set_timeout(client, setup->timeout);
}

static SSL_CTX *client_new(const struct setup *setup)
{
    SSL_CTX *client = SSL_CTX_new(setup->method());
    CHECK(client != NULL);
    CHECK(SSL_CTX_set_min_proto_version(client, setup->version) == 1);
    CHECK(SSL_CTX_set_max_proto_version(client, setup->version) == 1);
    if (setup->late)
        SSL_free(SSL_new(client));
    configure(client, setup);
    return client;
}

static struct pair pair_of(SSL_CTX *client, SSL_CTX *server, SSL_SESSION *session)
{
    struct pair pair = {SSL_new(client), own_ssl_new(server)};
    BIO *client_end = NULL, *server_end = NULL;
    CHECK(pair.client != NULL && pair.server != NULL);
    CHECK(BIO_new_bio_pair(&client_end, 0, &server_end, 0) == 1);
    SSL_set_bio(pair.client, client_end, client_end);
    SSL_set_bio(pair.server, server_end, server_end);
    SSL_set_connect_state(pair.client);
    SSL_set_accept_state(pair.server);
    if (session != NULL)
        CHECK(SSL_set_session(pair.client, session) == 1);
    return pair;
}

static void connects(SSL_CTX *client, SSL_CTX *server, SSL_SESSION *session, bool properly)
{
    struct pair pair = pair_of(client, server, session);
    bool done = pair_shakes(&pair);
    printf("  %s\n", !done ? "no connection" : SSL_session_reused(pair.client) ? "resumed" : "full");
    ERR_clear_error();
    int closed = SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN;
    SSL_set_shutdown(pair.client, properly ? closed : 0);
    SSL_set_shutdown(pair.server, closed);
    SSL_free(pair.client);
    SSL_free(pair.server);
}

static void comes_back(SSL_CTX *client, SSL_CTX *server, bool properly)
{
    SSL_SESSION *session = last;
    last = NULL;
    connects(client, server, session, properly);
    SSL_SESSION_free(session);
}

static void trace(const char *name, const struct setup *setup)
{
    printf("%s, TLS 1.%d\n", name, setup->version - TLS1_VERSION);
    SSL_CTX *client = client_new(setup), *server = server_new();
    connects(client, server, NULL, true);
    comes_back(client, server, true);
    comes_back(client, server, false);
    printf("  %ld in the cache\n", SSL_CTX_sess_number(client));
    SSL_CTX_free(client);
    SSL_SESSION_free(last);
    last = NULL;
    SSL_CTX_free(server);
}

/* Sessions made by connections of one context are used by those of another. */
static void trace_exchange(const char *name, const struct setup *setup)
{
    printf("%s, TLS 1.%d\n", name, setup->version - TLS1_VERSION);
    struct setup for_clients_only = *setup;
    for_clients_only.method = TLS_client_method;
    SSL_CTX *one = client_new(&for_clients_only), *other = client_new(setup);
    SSL_CTX *server = server_new();
    connects(one, server, NULL, true);
    comes_back(other, server, true);
    comes_back(one, server, true);
    SSL_CTX_free(one);
    SSL_CTX_free(other);
    SSL_SESSION_free(last);
    last = NULL;
    SSL_CTX_free(server);
}

enum { EXTERNAL = SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL };

static const struct {
    const char *name;
    void (*trace)(const char *name, const struct setup *setup);
    struct setup setup;
} TRACES[] = {
    {"told", trace, {.mode = EXTERNAL, .is_told = true}},
    {"told late", trace, {.mode = EXTERNAL, .is_told = true, .late = true}},
    {"told of removals only", trace, {.mode = EXTERNAL}},
    {"cache off", trace, {.mode = SSL_SESS_CACHE_OFF, .is_told = true}},
    {"a minute", trace, {.mode = EXTERNAL, .is_told = true, .timeout = 60}},
    {"internal cache", trace, {.mode = SSL_SESS_CACHE_BOTH, .is_told = true}},
    {"exchange", trace_exchange, {.mode = EXTERNAL, .is_told = true}},
};

int main(int argc, char **argv)
{
    check_begin(0, argv);
    /* This is what loads a library that serves. */
    SSL_CTX_free(SSL_CTX_new(TLS_server_method()));
    find_own_ssl_new();
    for (size_t i = 0; i < sizeof TRACES / sizeof *TRACES; i++)
        for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
            struct setup setup = TRACES[i].setup;
            setup.method = TLS_method;
            setup.version = version;
            /* An argument: only this trace. */
            if (argc < 2 || strcmp(argv[1], TRACES[i].name) == 0)
                TRACES[i].trace(TRACES[i].name, &setup);
        }
    return 0;
}
