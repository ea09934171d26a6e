/*
 * Resumed handshakes of a server in this process, with this library or with
 * OpenSSL's own means, for benches/handshakes.rs to measure.
 *
 *     handshake own|library tls12-ticket|tls12-id|tls13-stateless|tls13-stateful CLIENTS VISITS
 *
 * Each of CLIENTS clients makes a full handshake; then they take turns, VISITS
 * in all, and every visit must resume. All that the server does is in three
 * functions, so that callgrind can count them alone (--toggle-collect).
 * Prints the CPU time of those functions per visit in nanoseconds.
 */
#define _POSIX_C_SOURCE 200809L

#include "../examples/common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tlsresume.h>

#define MAX_CLIENTS 64
#define SERVER_NAMES 16
#define MAX_STEPS 10
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

static void make_server_context(const struct mode *mode, int with_library)
{
    static const unsigned char session_id_context[] = "bench";

    server_ctx = SSL_CTX_new(TLS_server_method());
    if (server_ctx == NULL ||
        !SSL_CTX_set_session_id_context(server_ctx, session_id_context,
                                        sizeof session_id_context - 1))
        die("cannot make a server context");
    use_self_signed_certificate(server_ctx);

    if (with_library) {
        setenv("TLSRESUME_RESUMPTION_MODE", mode->stateful ? "stateful" : "stateless", 1);
        if (!tlsresume_install(server_ctx))
            die("tlsresume_install failed");
    } else if (mode->stateful) {
        SSL_CTX_set_options(server_ctx, SSL_OP_NO_TICKET);
    }
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

static void visit(struct client *client, int must_resume)
{
    /* The connections before left these empty, and each takes a reference. */
    BIO_up_ref(client_side);
    BIO_up_ref(server_side);
    BIO_reset(client_side);
    BIO_reset(server_side);

    SSL *ssl = begin_client(client, client_side);
    SSL *server = timed_begin(server_side);
    shake_hands(ssl, server);
    if (SSL_session_reused(server) != must_resume)
        die("a handshake was %sresumed", must_resume ? "not " : "");
    timed_end(server);
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
}

static void visit_in_turn(struct client *clients, long count, long visits)
{
    for (long i = 0; i < visits; i++)
        visit(&clients[i % count], 1);
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
    if (argc != 5 || (strcmp(argv[1], "own") != 0 && strcmp(argv[1], "library") != 0))
        die("usage: handshake own|library MODE CLIENTS VISITS");
    const struct mode *mode = find_mode(argv[2]);
    long client_count = parse_number("CLIENTS", argv[3], 1, MAX_CLIENTS);
    long visits = parse_number("VISITS", argv[4], 1, INT32_MAX);
    make_server_context(mode, strcmp(argv[1], "library") == 0);
    make_client_context(mode);
    if (!BIO_new_bio_pair(&client_side, PIPE_BYTES, &server_side, PIPE_BYTES))
        die("cannot make a pair of BIOs");

    for (long i = 0; i < client_count; i++) {
        snprintf(clients[i].server_name, sizeof clients[i].server_name, "host%02ld.example",
                 i % SERVER_NAMES);
        visit(&clients[i], 0);
    }
    visit_in_turn(clients, client_count, WARM_UP);
    measure(clients, client_count, visits);
    printf("%llu\n", (unsigned long long)(server_ns / (uint64_t)visits));

    for (long i = 0; i < client_count; i++)
        SSL_SESSION_free(clients[i].session);
    BIO_free(client_side);
    BIO_free(server_side);
    SSL_CTX_free(client_ctx);
    SSL_CTX_free(server_ctx);
    return 0;
}
