/*
 * A small prefork TLS server whose sessions resume in every worker, across
 * restarts and, when so configured, on other hosts. The integration is the one
 * line marked INTEGRATION below. Settings come from the TLSRESUME_* environment
 * variables or the file that $TLSRESUME_CONFIG names.
 *
 *     prefork_server --listen 127.0.0.1:8443 --workers 4
 *
 * The parent opens the sockets, prepares the contexts, starts the workers and
 * replaces those that die. SIGTERM ends all, SIGHUP makes a new ticket key.
 */
#define _POSIX_C_SOURCE 200809L

#include "common.h"
#include "options.h"
#include "serve.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <tlsresume.h>
#include <unistd.h>

struct site {
    const char *name;
    SSL_CTX *ctx;
};

struct worker {
    pid_t pid;
    int direct[MAX_THREADS]; /* the own listening socket of each loop, or -1 */
};

/* What the parent prepares before it forks; workers inherit it. */
static struct {
    struct options options;
    TLSRESUME *tr; /* only with --handle */
    SSL_CTX *ctx;
    struct site sites[MAX_VHOSTS];
    int shared;
    int lifeline[2]; /* never written: reading it ends when the parent closes it or dies */
    sigset_t signals, original_signals;
    struct worker workers[MAX_WORKERS];
} server;

static void prepare_contexts(void);
static void open_sockets(void);
static void start_all_workers(void);
static void supervise(void);

int main(int argc, char **argv)
{
    server.options = parse_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0); /* whole lines, also when workers share a pipe */
    signal(SIGPIPE, SIG_IGN);

    prepare_contexts();
    open_sockets();
    start_all_workers();

    char address[ADDRESS_MAX];
    local_address(server.shared, address);
    printf("ready %s\n", address);

    supervise();
    return 0;
}

/* ---- TLS ---- */

static void make_resumable(SSL_CTX *ctx)
{
    if (server.options.plain)
        return;

    if (server.tr != NULL) { /* the long form, for a server that wants a handle */
        if (!tlsresume_attach(server.tr, ctx))
            die("tlsresume_attach failed");
        return;
    }

    /*
     * INTEGRATION: this one line. It stands before fork(), so that all workers
     * inherit one session cache and one set of ticket keys, and after the
     * context's own settings, whose verification rules sessions are tied to.
     */
    if (!tlsresume_install(ctx))
        die("tlsresume_install failed");
}

static void load_certificate(SSL_CTX *ctx)
{
    const struct options *options = &server.options;
    if (options->cert == NULL) {
        use_self_signed_certificate(ctx);
        return;
    }
    if (SSL_CTX_use_certificate_chain_file(ctx, options->cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, options->key, SSL_FILETYPE_PEM) != 1)
        die("cannot use %s and %s", options->cert, options->key);
}

static void require_client_certificates(SSL_CTX *ctx, const char *ca_file)
{
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(ca_file);
    if (names == NULL || SSL_CTX_load_verify_locations(ctx, ca_file, NULL) != 1)
        die("cannot use the certificates in %s", ca_file);
    SSL_CTX_set_client_CA_list(ctx, names);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
}

static SSL_CTX *make_context(const char *ca_file)
{
    /* Says which application a session belongs to: OpenSSL resumes no other. */
    static const unsigned char session_id_context[] = "prefork_server";
    const struct options *options = &server.options;

    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL)
        die("cannot make a context");
    SSL_CTX_set_min_proto_version(ctx, options->tls_version);
    SSL_CTX_set_max_proto_version(ctx, options->tls_version);
    SSL_CTX_set_max_early_data(ctx, options->early_data);
    if (!options->no_session_id_context)
        SSL_CTX_set_session_id_context(ctx, session_id_context, sizeof session_id_context - 1);

    load_certificate(ctx);
    if (ca_file != NULL)
        require_client_certificates(ctx, ca_file);
    make_resumable(ctx);
    return ctx;
}

/* The servername callback: goes over to the context of the virtual host that was asked for. */
static int select_site(SSL *ssl, int *alert, void *unused)
{
    (void)alert;
    (void)unused;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    for (size_t i = 0; name != NULL && i < server.options.vhost_count; i++) {
        SSL_CTX *ctx = server.sites[i].ctx;
        if (strcasecmp(name, server.sites[i].name) != 0)
            continue;
        if (SSL_set_SSL_CTX(ssl, ctx) == NULL)
            return SSL_TLSEXT_ERR_ALERT_FATAL;
        /* The one setting that SSL_set_SSL_CTX() leaves behind and that guards access. */
        SSL_set_verify(ssl, SSL_CTX_get_verify_mode(ctx), NULL);
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

static void prepare_contexts(void)
{
    const struct options *options = &server.options;
    if (options->handle && (server.tr = tlsresume_new(NULL)) == NULL)
        die("tlsresume_new failed");

    server.ctx = make_context(options->ca);
    for (size_t i = 0; i < options->vhost_count; i++) {
        server.sites[i].name = options->vhosts[i].name;
        server.sites[i].ctx = make_context(options->vhosts[i].ca);
    }
    if (options->vhost_count > 0)
        SSL_CTX_set_tlsext_servername_callback(server.ctx, select_site);
}

static void free_contexts(void)
{
    for (size_t i = 0; i < server.options.vhost_count; i++)
        SSL_CTX_free(server.sites[i].ctx);
    SSL_CTX_free(server.ctx);
    tlsresume_free(server.tr);
}

/* ---- sockets ---- */

/* The parent opens them all: a worker's successor goes on with the same ports. */
static void open_sockets(void)
{
    const struct options *options = &server.options;
    server.shared = listen_on(options->listen);

    /* The own port of a loop: the same address, any port. */
    char any_port[ADDRESS_MAX];
    snprintf(any_port, sizeof any_port, "%.*s:0",
             (int)(strrchr(options->listen, ':') - options->listen), options->listen);

    for (int w = 0; w < options->workers; w++)
        for (int t = 0; t < options->threads; t++)
            server.workers[w].direct[t] = options->direct ? listen_on(any_port) : -1;

    if (pipe(server.lifeline) != 0)
        die("cannot make a pipe: %s", strerror(errno));
}

/* ---- workers ---- */

static void announce(const struct serving_loop *loop)
{
    char address[ADDRESS_MAX];
    local_address(loop->direct >= 0 ? loop->direct : loop->shared, address);
    printf("worker %d thread %d pid %ld listening %s\n", loop->worker, loop->thread,
           (long)getpid(), address);
}

static void *run_thread(void *loop)
{
    serve(loop);
    return NULL;
}

/* Serves on the calling thread and on as many more as were asked for. */
static void run_loops(struct serving_loop *loops, int count)
{
    pthread_t threads[MAX_THREADS];
    for (int t = 1; t < count; t++)
        if (pthread_create(&threads[t], NULL, run_thread, &loops[t]) != 0)
            die("cannot start thread %d", t);
    serve(&loops[0]);
    for (int t = 1; t < count; t++)
        pthread_join(threads[t], NULL);
}

/* The life of a worker process. `ready` is told once its loops are about to serve. */
static void run_worker(int number, pid_t parent, int ready)
{
    die_with(parent);
    close(server.lifeline[1]);
    /* A terminal sends these to the whole group, but they are for the parent. */
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigprocmask(SIG_SETMASK, &server.original_signals, NULL);

    struct serving_loop loops[MAX_THREADS];
    for (int t = 0; t < server.options.threads; t++) {
        loops[t] = (struct serving_loop){
            .server = server.options.name,
            .worker = number,
            .thread = t,
            .ctx = server.ctx,
            .tr = server.tr,
            .lifeline = server.lifeline[0],
            .shared = server.shared,
            .direct = server.workers[number].direct[t],
        };
        announce(&loops[t]);
    }
    if (ready >= 0 && (write(ready, "", 1) != 1 || close(ready) != 0))
        die("cannot report to the parent: %s", strerror(errno));

    run_loops(loops, server.options.threads);
    free_contexts();
    exit(0);
}

static void start_worker(int number, int ready)
{
    pid_t parent = getpid();
    pid_t child = fork();
    if (child < 0)
        die("cannot fork: %s", strerror(errno));
    if (child == 0)
        run_worker(number, parent, ready);
    server.workers[number].pid = child;
}

/* Returns once every worker is about to serve. */
static void start_all_workers(void)
{
    /* Blocked, the signals wait for supervise() and none is lost before it. */
    sigemptyset(&server.signals);
    sigaddset(&server.signals, SIGCHLD);
    sigaddset(&server.signals, SIGHUP);
    sigaddset(&server.signals, SIGINT);
    sigaddset(&server.signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &server.signals, &server.original_signals);

    int ready[2], reports = 0;
    if (pipe(ready) != 0)
        die("cannot make a pipe: %s", strerror(errno));
    for (int w = 0; w < server.options.workers; w++)
        start_worker(w, ready[1]);
    close(ready[1]);

    char report;
    while (read(ready[0], &report, 1) == 1) /* ends when no worker has the pipe open */
        reports++;
    close(ready[0]);
    if (reports != server.options.workers)
        die("%d of %d workers started", reports, server.options.workers);
}

/* ---- the parent's life ---- */

static void replace_dead_workers(void)
{
    int status;
    pid_t dead;
    while ((dead = waitpid(-1, &status, WNOHANG)) > 0) {
        /* One that gave up by itself would only do so again. */
        if (WIFEXITED(status))
            die("worker %ld failed with status %d", (long)dead, WEXITSTATUS(status));
        for (int w = 0; w < server.options.workers; w++)
            if (server.workers[w].pid == dead)
                start_worker(w, -1);
    }
}

static void rotate_keys(void)
{
    if (server.tr == NULL)
        fprintf(stderr, "SIGHUP: start with --handle to rotate keys by hand\n");
    else if (!tlsresume_keys_rotate(server.tr))
        fprintf(stderr, "SIGHUP: tlsresume_keys_rotate failed\n");
}

/* Lets every loop finish its client, and waits for the workers. */
static void stop_workers(void)
{
    close(server.lifeline[1]);
    while (wait(NULL) > 0 || errno == EINTR)
        continue;
    free_contexts();
}

static void supervise(void)
{
    for (;;) {
        int received = 0;
        sigwait(&server.signals, &received);
        switch (received) {
        case SIGCHLD:
            replace_dead_workers();
            break;
        case SIGHUP:
            rotate_keys();
            break;
        default:
            stop_workers();
            return;
        }
    }
}
