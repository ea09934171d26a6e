/*
 * Resumed handshakes of a server in this process, with this library or with
 * OpenSSL's own means, for benches/handshakes.rs to measure.
 *
 *     handshake own|library tls12-ticket|tls12-id|tls13-stateless|tls13-stateful CLIENTS VISITS
 *         [HOSTS public|rules]
 *
 * Each of CLIENTS clients makes a full handshake; then they take turns, VISITS
 * in all, and every visit must resume. All that the server does is in three
 * functions, so that callgrind can count them alone (--toggle-collect).
 * With HOSTS there are as many virtual hosts, each a context of its own, behind
 * the one that accepts; with "rules" another context has verified a client
 * before, so that policies are checked.
 * Prints the CPU time of those functions per visit in nanoseconds.
 */
#define _POSIX_C_SOURCE 200809L

#include "../examples/common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tlsresume.h>

#define MAX_CLIENTS 64
#define MAX_HOSTS 3000
#define SERVER_NAMES 16
#define MAX_STEPS 10
/* Under rules a name is remembered by its first visits. */
#define FIRST_VISITS 4
/* Visits before it counts: the heap settles, caches fill. */
#define WARM_UP 256
/* Every flight fits, so no side ever waits for the other to read. */
#define PIPE_BYTES (64 * 1024)

struct mode {
    const char *name;
    int tls_version, client_without_tickets, stateful;
};

struct client {
    char server_name[32];
    SSL_SESSION *session; /* the newest one */
};

static const struct mode modes[] = {
    {"tls12-ticket", TLS1_2_VERSION, 0, 0},
    {"tls12-id", TLS1_2_VERSION, 1, 0},
    {"tls13-stateless", TLS1_3_VERSION, 0, 0},
    {"tls13-stateful", TLS1_3_VERSION, 0, 1},
};

static SSL_CTX *server_ctx, *client_ctx;
static SSL_CTX *hosts[MAX_HOSTS];
static long host_count;
/* One transport for all connections, so that the heap looks the same to each. */
static BIO *client_side, *server_side;
static uint64_t server_ns;

static const struct mode *find_mode(const char *name)
{
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strcmp(modes[i].name, name) == 0)
            return &modes[i];
    die("%s is no mode", name);
    return NULL;
}

/* ---- the server, measured ---- */

/* Not inlined, so that each has a name to callgrind. */
__attribute__((noinline)) SSL *server_begin(BIO *transport)
{
    SSL *ssl = SSL_new(server_ctx);
    SSL_set_bio(ssl, transport, transport);
    SSL_set_accept_state(ssl);
    /* Every real server hangs its connection on the SSL; OpenSSL makes room for that with the first use. */
    SSL_set_app_data(ssl, transport);
    return ssl;
}

__attribute__((noinline)) int server_step(SSL *ssl)
{
    return SSL_do_handshake(ssl);
}

__attribute__((noinline)) void server_end(SSL *ssl)
{
    /* OpenSSL forgets sessions whose connections were not closed in order. */
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
}

static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static SSL *timed_begin(BIO *transport)
{
    uint64_t before = cpu_ns();
    SSL *ssl = server_begin(transport);
    server_ns += cpu_ns() - before;
    return ssl;
}

static int timed_step(SSL *ssl)
{
    uint64_t before = cpu_ns();
    int result = server_step(ssl);
    server_ns += cpu_ns() - before;
    return result == 1;
}

static void timed_end(SSL *ssl)
{
    uint64_t before = cpu_ns();
    server_end(ssl);
    server_ns += cpu_ns() - before;
}

/* ---- contexts ---- */

static SSL_CTX *new_server_context(const struct mode *mode, int with_library)
{
    static const unsigned char session_id_context[] = "bench";

    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL || !SSL_CTX_set_session_id_context(ctx, session_id_context,
                                                       sizeof session_id_context - 1))
        die("cannot make a server context");
    if (server_ctx == NULL)
        use_self_signed_certificate(ctx);
    else if (!SSL_CTX_use_certificate(ctx, SSL_CTX_get0_certificate(server_ctx)) ||
             !SSL_CTX_use_PrivateKey(ctx, SSL_CTX_get0_privatekey(server_ctx)))
        die("cannot use the certificate again");

    if (with_library) {
        setenv("TLSRESUME_RESUMPTION_MODE", mode->stateful ? "stateful" : "stateless", 1);
        if (!tlsresume_install(ctx))
            die("tlsresume_install failed");
    } else if (mode->stateful) {
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    }
    return ctx;
}

/* "host00.example" is the last of them, "host01.example" the one before. */
static int choose_host(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    long number = name == NULL ? 0 : strtol(name + strlen("host"), NULL, 10);
    SSL_set_SSL_CTX(ssl, hosts[host_count - 1 - number % host_count]);
    return SSL_TLSEXT_ERR_OK;
}

static void make_hosts(const struct mode *mode, int with_library, long count)
{
    for (long i = 0; i < count; i++)
        hosts[i] = new_server_context(mode, with_library);
    host_count = count;
    SSL_CTX_set_tlsext_servername_callback(server_ctx, choose_host);
}

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct client *client = SSL_get_app_data(ssl);
    SSL_SESSION_free(client->session);
    client->session = session;
    return 1;
}

static void make_client_context(const struct mode *mode)
{
    client_ctx = SSL_CTX_new(TLS_client_method());
    if (client_ctx == NULL || !SSL_CTX_set_min_proto_version(client_ctx, mode->tls_version) ||
        !SSL_CTX_set_max_proto_version(client_ctx, mode->tls_version))
        die("cannot make a client context");
    if (mode->client_without_tickets)
        SSL_CTX_set_options(client_ctx, SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(client_ctx,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client_ctx, keep_session);
}

/* ---- a visit ---- */

static SSL *begin_client(struct client *client, BIO *transport)
{
    SSL *ssl = SSL_new(client_ctx);
    if (ssl == NULL || !SSL_set_app_data(ssl, client) ||
        !SSL_set_tlsext_host_name(ssl, client->server_name) ||
        (client->session != NULL && !SSL_set_session(ssl, client->session)))
        die("cannot prepare a client");
    SSL_set_bio(ssl, transport, transport);
    SSL_set_connect_state(ssl);
    return ssl;
}

static void shake_hands(SSL *client, SSL *server)
{
    int client_done = 0, server_done = 0;
    for (int step = 0; step < MAX_STEPS && !(client_done && server_done); step++) {
        client_done = client_done || SSL_do_handshake(client) == 1;
        server_done = server_done || timed_step(server);
    }
    if (!client_done || !server_done)
        die("a handshake failed");
    /* There is nothing to read but TLS 1.3 tickets. */
    char nothing;
    SSL_read(client, &nothing, sizeof nothing);
}

static int visit(struct client *client)
{
    /* The connections before left these empty, and each takes a reference. */
    BIO_up_ref(client_side);
    BIO_up_ref(server_side);
    BIO_reset(client_side);
    BIO_reset(server_side);

    SSL *ssl = begin_client(client, client_side);
    SSL *server = timed_begin(server_side);
    shake_hands(ssl, server);
    int resumed = SSL_session_reused(server);
    timed_end(server);
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
    return resumed;
}

static void make_session(struct client *client)
{
    if (visit(client))
        die("a first handshake was resumed");
    int visits = 1;
    while (!visit(client))
        if (++visits == FIRST_VISITS)
            die("no handshake is resumed");
}

/* One client's visit may be full once, where the library renews its ticket to see what the application does. */
static void warm_up(struct client *clients, long count)
{
    for (long i = 0; i < WARM_UP; i++)
        visit(&clients[i % count]);
}

static void visit_in_turn(struct client *clients, long count, long visits)
{
    for (long i = 0; i < visits; i++)
        if (!visit(&clients[i % count]))
            die("a handshake was not resumed");
}

/* Another context asks a client for a certificate: from then on there are rules. */
static void have_rules(const struct mode *mode, int with_library)
{
    static struct client stranger = {"verified.example", NULL};

    SSL_CTX *public = server_ctx;
    server_ctx = new_server_context(mode, with_library);
    SSL_CTX_set_verify(server_ctx, SSL_VERIFY_PEER, NULL);
    visit(&stranger);
    SSL_SESSION_free(stranger.session);
    SSL_CTX_free(server_ctx);
    server_ctx = public;
}

/* callgrind starts to count here (--zero-before). */
__attribute__((noinline)) void measure(struct client *clients, long count, long visits)
{
    server_ns = 0;
    visit_in_turn(clients, count, visits);
}

int main(int argc, char **argv)
{
    static struct client clients[MAX_CLIENTS];
    if ((argc != 5 && argc != 7) || (strcmp(argv[1], "own") != 0 && strcmp(argv[1], "library") != 0))
        die("usage: handshake own|library MODE CLIENTS VISITS [HOSTS public|rules]");
    const struct mode *mode = find_mode(argv[2]);
    int with_library = strcmp(argv[1], "library") == 0;
    long client_count = parse_number("CLIENTS", argv[3], 1, MAX_CLIENTS);
    long visits = parse_number("VISITS", argv[4], 1, INT32_MAX);
    server_ctx = new_server_context(mode, with_library);
    make_client_context(mode);
    if (!BIO_new_bio_pair(&client_side, PIPE_BYTES, &server_side, PIPE_BYTES))
        die("cannot make a pair of BIOs");
    if (argc == 7)
        make_hosts(mode, with_library, parse_number("HOSTS", argv[5], 1, MAX_HOSTS));
    if (argc == 7 && strcmp(argv[6], "rules") == 0)
        have_rules(mode, with_library);

    for (long i = 0; i < client_count; i++) {
        snprintf(clients[i].server_name, sizeof clients[i].server_name, "host%02ld.example",
                 i % SERVER_NAMES);
        make_session(&clients[i]);
    }
    warm_up(clients, client_count);
    measure(clients, client_count, visits);
    printf("%llu\n", (unsigned long long)(server_ns / (uint64_t)visits));

    for (long i = 0; i < client_count; i++)
        SSL_SESSION_free(clients[i].session);
    BIO_free(client_side);
    BIO_free(server_side);
    SSL_CTX_free(client_ctx);
    for (long i = 0; i < host_count; i++)
        SSL_CTX_free(hosts[i]);
    SSL_CTX_free(server_ctx);
    return 0;
}
