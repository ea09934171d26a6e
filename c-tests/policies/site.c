/* Servers that come to the policy of a connection in one way or another. They tell connections apart by port, as real
 * ones do that serve one name on several; here the port is a number that the process is told before each
 * connection. */
#include "policies.h"

#include <string.h>

#include <openssl/err.h>
#include <openssl/rand.h>

const char *const WAY[WAYS] = {
    [BY_SERVER_NAME] = "servername callback",
    [BY_CLIENT_HELLO] = "client-hello callback",
    [SET_BY_NAME] = "set by the servername callback",
    [SET_BY_ALPN] = "set by the ALPN callback",
    [BY_CONNECTION] = "set per connection",
    [LATE] = "set late",
    [LATE_HOST] = "set late on a virtual host",
    [NO_CALLBACK] = "no callback",
    [NOT_ATTACHED] = "servername callback, hosts not attached",
};

const enum way WAYS_TO_PARTS[MOST_WAYS_TO_PARTS] = {BY_SERVER_NAME, NO_CALLBACK, SET_BY_NAME,
                                                    BY_CONNECTION};

int ways_to(const struct policy *policy)
{
    return policy->by_connection ? MOST_WAYS_TO_PARTS : 2;
}

/* What the callbacks look at; the port of the connection that is accepted now. */
static const struct site *serving;
static int port_now;

static void attach(SSL_CTX *server)
{
#ifdef WITH_API
    CHECK(tlsresume_install(server) == 1);
#else
    (void)server;
#endif
}

/* One context for all, which connections are told the rest of. */
static bool has_one_context(enum way way)
{
    return way == SET_BY_NAME || way == SET_BY_ALPN || way == BY_CONNECTION || way == LATE;
}

static bool has_name_callback(enum way way)
{
    return way == BY_SERVER_NAME || way == SET_BY_NAME || way == LATE_HOST || way == NOT_ATTACHED;
}

static SSL_CTX *new_context(bool bare)
{
    if (!bare)
        return server_new();
    SSL_CTX *server = SSL_CTX_new(TLS_server_method());
    CHECK(server != NULL);
    CHECK(SSL_CTX_set_session_id_context(server, (const unsigned char *)"check", 5) == 1);
    return server;
}

SSL_CTX *new_host(const struct policy *policy, enum tweak tweak, bool attached)
{
    SSL_CTX *host = new_context(policy->bare);
    policy->apply_ctx(host);
    if (tweak == EARLY_DATA)
        SSL_CTX_set_max_early_data(host, 1024);
    if (attached)
        attach(host);
    if (policy->apply_attached != NULL)
        policy->apply_attached(host);
    return host;
}

/* ---- Switching ---- */

/* All that a careful application takes over, as nginx does and more. */
static void takes_over(SSL *ssl, SSL_CTX *host, const struct policy *policy)
{
    SSL_set_SSL_CTX(ssl, host);
    CHECK(SSL_set1_param(ssl, SSL_CTX_get0_param(host)) == 1);
    SSL_set_verify(ssl, SSL_CTX_get_verify_mode(host), SSL_CTX_get_verify_callback(host));
    SSL_set_verify_depth(ssl, SSL_CTX_get_verify_depth(host));
    SSL_clear_options(ssl, SSL_get_options(ssl) & ~SSL_CTX_get_options(host));
    SSL_set_options(ssl, SSL_CTX_get_options(host));
    /* The mode came with the context. */
    if (policy->apply_ssl != NULL)
        policy->apply_ssl(ssl);
}

static void decides(SSL *ssl)
{
    const struct setup *setup = serving->setup;
    const struct policy *policy = setup->ports[port_now];
    if (setup->way == SET_BY_NAME || setup->way == SET_BY_ALPN)
        policy->apply_ssl(ssl);
    else
        takes_over(ssl, serving->hosts[setup->way == LATE_HOST ? 0 : port_now], policy);
    if (setup->tweak == NO_TICKETS_IN_CALLBACK && port_now > 0)
        CHECK(SSL_set_num_tickets(ssl, 0) == 1);
}

static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    decides(ssl);
    return SSL_TLSEXT_ERR_OK;
}

static int on_client_hello(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    decides(ssl);
    return SSL_CLIENT_HELLO_SUCCESS;
}

static int on_alpn(SSL *ssl, const unsigned char **chosen, unsigned char *len,
                   const unsigned char *offered, unsigned offered_len, void *arg)
{
    (void)arg;
    CHECK(offered_len == 2);
    *chosen = offered + 1;
    *len = 1;
    decides(ssl);
    return SSL_TLSEXT_ERR_OK;
}

/* ---- Sites ---- */

/* The context that accepts. It has no policy of its own; where each connection is told its policy, it has the trust
 * anchors. */
static SSL_CTX *new_front(const struct setup *setup)
{
    SSL_CTX *front = new_context(false);
    if (setup->way == LATE)
        setup->ports[0]->apply_ctx(front);
    else if (has_one_context(setup->way)) {
        CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(front), authority(MEMBER)) == 1);
        OPEN_TO_ALL->apply_ctx(front);
    }
    if (setup->tweak == EARLY_DATA)
        SSL_CTX_set_max_early_data(front, 1024);
    if (has_name_callback(setup->way))
        SSL_CTX_set_tlsext_servername_callback(front, on_server_name);
    if (setup->way == BY_CLIENT_HELLO)
        SSL_CTX_set_client_hello_cb(front, on_client_hello, NULL);
    if (setup->way == SET_BY_ALPN)
        SSL_CTX_set_alpn_select_cb(front, on_alpn, NULL);
    attach(front);
    return front;
}

void site_open(struct site *site, const struct setup *setup)
{
    memset(site, 0, sizeof *site);
    site->setup = setup;
    serving = site;
    if (setup->way != NO_CALLBACK)
        site->front = new_front(setup);
    int hosts = has_one_context(setup->way) ? 0 : setup->way == LATE_HOST ? 1 : MOST_PORTS;
    for (int i = 0; i < hosts && setup->ports[i] != NULL; i++)
        site->hosts[i] = new_host(setup->ports[i], setup->tweak, setup->way != NOT_ATTACHED);
}

/* Whoever came before the policy changed. */
static void serve_somebody(struct site *site, int port, enum who who)
{
    struct visitor visitor = visitor_new(&KIND[TLS12_TICKET], "first.example");
    client_is(visitor.ctx, who);
    struct pair pair = pair_with(&visitor, site_accepts(site, port));
    CHECK(pair_shakes(&pair));
    pair_free(&pair, true);
    visitor_free(&visitor);
}

static void goes_live(struct site *site, int port)
{
    const struct policy *policy = site->setup->ports[port];
    if (policy->apply_live == NULL || site->is_live[port])
        return;
    site->is_live[port] = true;
    serve_somebody(site, port, MEMBER);
    policy->apply_live(site->hosts[port]);
}

void site_turns(struct site *site, int port)
{
    enum way way = site->setup->way;
    goes_live(site, port);
    if ((way != LATE && way != LATE_HOST) || port == site->last)
        return;
    if (!site->has_served)
        serve_somebody(site, site->last, site->setup->ports[site->last]->client);
    site->setup->ports[port]->apply_ctx(way == LATE ? site->front : site->hosts[0]);
    site->last = port;
}

static int makes_an_id(SSL *ssl, unsigned char *id, unsigned *len)
{
    (void)ssl;
    return RAND_bytes(id, (int)*len);
}

static void tweaks(SSL *ssl, enum tweak tweak)
{
    if (tweak == NO_TICKETS)
        CHECK(SSL_set_num_tickets(ssl, 0) == 1);
    if (tweak == OWN_IDS)
        CHECK(SSL_set_generate_session_id(ssl, makes_an_id) == 1);
}

SSL *site_accepts(struct site *site, int port)
{
    const struct setup *setup = site->setup;
    SSL *ssl = SSL_new(setup->way == NO_CALLBACK ? site->hosts[port] : site->front);
    CHECK(ssl != NULL);
    port_now = port;
    site->has_served = true;
    if (setup->way == BY_CONNECTION)
        setup->ports[port]->apply_ssl(ssl);
    if (port > 0)
        tweaks(ssl, setup->tweak);
    return ssl;
}
