/*
 * A small TLS server with one thread and an event loop, for sessions that other
 * hosts made: while a handshake waits for one of them to come out of Redis
 * (cluster.sessions = "pull", or resumption.single_use), the loop serves others.
 *
 *     async_server --listen 127.0.0.1:8443
 *
 * The integration is the line that every server has, tlsresume_install(), and
 * the two parts marked ASYNC below: SSL_MODE_ASYNC says that the application
 * knows what to do with SSL_ERROR_WANT_ASYNC, which is to watch the descriptors
 * that OpenSSL names and to call again when one of them is readable. Without that
 * mode a handshake waits on its thread, at most for cluster.lookup_budget.
 *
 * Settings come from the TLSRESUME_* environment variables or the file that
 * $TLSRESUME_CONFIG names. SIGTERM ends it.
 */
#define _POSIX_C_SOURCE 200809L

#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <tlsresume.h>
#include <unistd.h>

#define SECOND_US 1000000u

/* How long a client may take for everything. */
#define PATIENCE_US (10 * SECOND_US)

#define EVENTS 64
#define REQUEST_MAX 4096
#define RESPONSE_MAX 1024

/* More descriptors than one connection ever waits for. */
#define WAIT_MAX 8

struct connection {
    struct connection *previous, *next;
    enum { HANDSHAKE, REQUEST, RESPONSE, SHUTDOWN, OVER } phase;
    int client;
    uint32_t watched; /* what is watched of the client's socket */
    SSL *ssl;
    uint64_t opened_us, shaken_us;
    int pauses; /* how often the handshake was */
    int is_paused;
    char request[REQUEST_MAX], response[RESPONSE_MAX];
    size_t request_length, response_length;
};

static struct {
    const char *name, *listen, *cert, *key;
    int tls_version; /* 0: any */
    SSL_CTX *ctx;
    int epoll, listener;
    struct connection *connections;
    sigset_t original_signals;
} server = {.name = "server", .listen = "127.0.0.1:0"};

static volatile sig_atomic_t stopped;

static void parse_options(int argc, char **argv);
static void prepare(void);
static void serve(void);
static void clean_up(void);

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    prepare();

    char address[ADDRESS_MAX];
    local_address(server.listener, address);
    printf("worker 0 thread 0 pid %ld listening %s\n", (long)getpid(), address);
    printf("ready %s\n", address);

    serve();
    clean_up();
    return 0;
}

/* ---- TLS ---- */

static void make_context(void)
{
    static const unsigned char session_id_context[] = "async_server";
    SSL_CTX *ctx = server.ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL)
        die("cannot make a context");
    SSL_CTX_set_min_proto_version(ctx, server.tls_version);
    SSL_CTX_set_max_proto_version(ctx, server.tls_version);
    SSL_CTX_set_session_id_context(ctx, session_id_context, sizeof session_id_context - 1);
    if (server.cert == NULL)
        use_self_signed_certificate(ctx);
    else if (SSL_CTX_use_certificate_chain_file(ctx, server.cert) != 1 ||
             SSL_CTX_use_PrivateKey_file(ctx, server.key, SSL_FILETYPE_PEM) != 1)
        die("cannot use %s and %s", server.cert, server.key);

    /* ASYNC, part 1: handshakes may be paused. */
    SSL_CTX_set_mode(ctx, SSL_MODE_ASYNC);

    if (!tlsresume_install(ctx))
        die("tlsresume_install failed");
}

/* ---- sockets and events ---- */

/* Watches a descriptor for a connection; NULL stands for the listener. */
static int watch(int descriptor, uint32_t events, struct connection *c)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    return epoll_ctl(server.epoll, EPOLL_CTL_ADD, descriptor, &event) == 0;
}

/* Waits for the client: EPOLLIN, EPOLLOUT, or 0 while something else is waited for. */
static void watch_client(struct connection *c, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (c->watched != events && epoll_ctl(server.epoll, EPOLL_CTL_MOD, c->client, &event) == 0)
        c->watched = events;
}

/*
 * ASYNC, part 2: the connection waits for something else than its client. OpenSSL
 * names the descriptors that tell when it is there, and those that it no longer
 * needs, since the last time. They are OpenSSL's: they are watched, neither read
 * nor closed, and epoll forgets them when SSL_free() closes them.
 */
static int watch_what_openssl_waits_for(struct connection *c)
{
    OSSL_ASYNC_FD added[WAIT_MAX], removed[WAIT_MAX];
    size_t added_count = 0, removed_count = 0;
    if (!SSL_get_changed_async_fds(c->ssl, NULL, &added_count, NULL, &removed_count) ||
        added_count > WAIT_MAX || removed_count > WAIT_MAX ||
        !SSL_get_changed_async_fds(c->ssl, added, &added_count, removed, &removed_count))
        return 0;
    for (size_t i = 0; i < removed_count; i++)
        epoll_ctl(server.epoll, EPOLL_CTL_DEL, removed[i], NULL);
    for (size_t i = 0; i < added_count; i++)
        if (!watch(added[i], EPOLLIN, c))
            return 0;

    /* What the client says meanwhile does not help: calling again would be in vain. */
    watch_client(c, 0);
    c->is_paused = 1;
    c->pauses++;
    printf("paused %d\n", c->client);
    return 1;
}

/* ---- the life of a connection ---- */

static void open_connection(int client)
{
    struct connection *c = calloc(1, sizeof *c);
    if (c == NULL || fcntl(client, F_SETFL, O_NONBLOCK) != 0 ||
        (c->ssl = SSL_new(server.ctx)) == NULL || !SSL_set_fd(c->ssl, client) ||
        !watch(client, EPOLLIN, c)) {
        if (c != NULL)
            SSL_free(c->ssl);
        free(c);
        close(client);
        return;
    }
    prepare_connection(client, 0);
    SSL_set_accept_state(c->ssl);
    c->client = client;
    c->watched = EPOLLIN;
    c->opened_us = clock_us(CLOCK_MONOTONIC);
    c->next = server.connections;
    if (c->next != NULL)
        c->next->previous = c;
    server.connections = c;
}

static void free_connection(struct connection *c)
{
    if (c->previous != NULL)
        c->previous->next = c->next;
    else
        server.connections = c->next;
    if (c->next != NULL)
        c->next->previous = c->previous;
    SSL_free(c->ssl);
    close(c->client);
    free(c);
}

static void prepare_response(struct connection *c)
{
    char body[RESPONSE_MAX / 2];
    const char *name = SSL_get_servername(c->ssl, TLSEXT_NAMETYPE_host_name);
    int is_plain = name != NULL && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") == strlen(name);
    snprintf(body, sizeof body,
             "{\"server\":\"%s\",\"worker\":0,\"thread\":0,\"pid\":%ld,\"version\":\"%s\","
             "\"resumed\":%s,\"name\":\"%.200s\",\"client_cert\":false,\"early_data\":\"not sent\","
             "\"cpu_us\":0,\"pauses\":%d,\"handshake_us\":%llu}\n",
             server.name, (long)getpid(), SSL_get_version(c->ssl),
             SSL_session_reused(c->ssl) ? "true" : "false", is_plain ? name : "", c->pauses,
             (unsigned long long)(c->shaken_us - c->opened_us));
    int length = snprintf(c->response, sizeof c->response,
                          "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n"
                          "Content-Length: %zu\r\n\r\n%s",
                          strlen(body), body);
    c->response_length = (size_t)length;
}

static int request_is_complete(const struct connection *c)
{
    const char *end = memchr(c->request, '\n', c->request_length);
    return c->request_length == REQUEST_MAX - 1 ||
           (end != NULL && (strstr(c->request, " HTTP/") == NULL || strstr(c->request, "\n\r\n") != NULL ||
                            strstr(c->request, "\n\n") != NULL));
}

/* Takes the next step; what SSL_do_handshake(), SSL_read() and so on return. */
static int take_step(struct connection *c)
{
    int result = 0;
    switch (c->phase) {
    case HANDSHAKE:
        if ((result = SSL_do_handshake(c->ssl)) == 1) {
            c->shaken_us = clock_us(CLOCK_MONOTONIC);
            c->phase = REQUEST;
        }
        return result;
    case REQUEST:
        result = SSL_read(c->ssl, c->request + c->request_length,
                          (int)(REQUEST_MAX - 1 - c->request_length));
        if (result > 0) {
            c->request_length += (size_t)result;
            if (request_is_complete(c)) {
                prepare_response(c);
                c->phase = RESPONSE;
            }
        }
        return result;
    case RESPONSE:
        if ((result = SSL_write(c->ssl, c->response, (int)c->response_length)) > 0)
            c->phase = SHUTDOWN;
        return result;
    default:
        SSL_shutdown(c->ssl);
        c->phase = OVER;
        return 1;
    }
}

/* Takes all steps that are possible now. */
static void advance(struct connection *c)
{
    int result = 1;
    c->is_paused = 0;
    while (result > 0 && c->phase != OVER)
        result = take_step(c);
    if (c->phase == OVER)
        return;
    switch (SSL_get_error(c->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        watch_client(c, EPOLLIN);
        break;
    case SSL_ERROR_WANT_WRITE:
        watch_client(c, EPOLLOUT);
        break;
    case SSL_ERROR_WANT_ASYNC:
        if (!watch_what_openssl_waits_for(c))
            c->phase = OVER;
        break;
    default:
        c->phase = OVER;
    }
    /* What went wrong with this client must not be blamed on the next one. */
    ERR_clear_error();
}

/* ---- the loop ---- */

static void accept_clients(void)
{
    int client;
    while ((client = accept(server.listener, NULL, NULL)) >= 0)
        open_connection(client);
}

/*
 * Frees connections only now: of one that ended, the same round may have had another event. One that
 * is paused waits for its answer, which is never long; SSL_free() would be right too, but OpenSSL
 * loses the memory of the job that it had paused.
 */
static void sweep(void)
{
    uint64_t now = clock_us(CLOCK_MONOTONIC);
    struct connection *next;
    for (struct connection *c = server.connections; c != NULL; c = next) {
        next = c->next;
        if (c->phase == OVER || (!c->is_paused && now - c->opened_us > PATIENCE_US))
            free_connection(c);
    }
}

static void serve(void)
{
    struct epoll_event events[EVENTS];
    while (!stopped) {
        int count = epoll_pwait(server.epoll, events, EVENTS, 1000, &server.original_signals);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == NULL)
                accept_clients();
            else if (c->phase != OVER)
                advance(c);
        }
        sweep();
    }
}

static void clean_up(void)
{
    while (server.connections != NULL)
        free_connection(server.connections);
    SSL_CTX_free(server.ctx);
    close(server.listener);
    close(server.epoll);
}

/* ---- the start ---- */

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static void prepare(void)
{
    /* The signals come while the loop waits, and never just before that. */
    struct sigaction action = {.sa_handler = stop};
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, &server.original_signals);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);

    make_context();
    server.listener = listen_on(server.listen);
    server.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server.epoll < 0 || !watch(server.listener, EPOLLIN, NULL))
        die("cannot watch sockets: %s", strerror(errno));
}

static const char usage[] =
    "usage: async_server [options]\n"
    "  --listen ADDR:PORT          where it accepts (default 127.0.0.1:0, any port)\n"
    "  --name NAME                 name in the answers (default \"server\")\n"
    "  --cert FILE --key FILE      certificate and key (default: a self-signed one)\n"
    "  --tls1.2 | --tls1.3         only this version\n";

static void parse_options(int argc, char **argv)
{
    enum { LISTEN = 1, NAME, CERT, KEY, HELP };
    static const struct option known[] = {
        {"listen", required_argument, NULL, LISTEN},
        {"name", required_argument, NULL, NAME},
        {"cert", required_argument, NULL, CERT},
        {"key", required_argument, NULL, KEY},
        {"tls1.2", no_argument, &server.tls_version, TLS1_2_VERSION},
        {"tls1.3", no_argument, &server.tls_version, TLS1_3_VERSION},
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 0: /* a flag, which getopt_long has set */
            break;
        case LISTEN:
            server.listen = optarg;
            break;
        case NAME:
            server.name = optarg;
            break;
        case CERT:
            server.cert = optarg;
            break;
        case KEY:
            server.key = optarg;
            break;
        case HELP:
            fputs(usage, stdout);
            exit(0);
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (optind != argc)
        die("async_server takes no arguments: %s", argv[optind]);
    if ((server.cert == NULL) != (server.key == NULL))
        die("--cert and --key go together");
}
