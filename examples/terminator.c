/*
 * A small prefork TLS terminator, as stud and hitch are: it takes TLS connections and forwards
 * what they carry, as plain TCP, to a backend.
 *
 *     terminator --listen 127.0.0.1:8443 --backend 127.0.0.1:8080 --workers 4
 *
 * Its sessions resume in every worker, in every other terminator on the same memory path, and
 * after a restart. The integration is the one line marked INTEGRATION below; the relaying in
 * terminator_relay.c knows nothing of it. SIGTERM ends all processes in order.
 */
#define _POSIX_C_SOURCE 200809L

#include "common.h"
#include "terminator_relay.h"

#include <errno.h>
#include <getopt.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <tlsresume.h>
#include <unistd.h>

#define MAX_WORKERS 64

static const char usage[] =
    "usage: terminator --backend ADDR:PORT [options]\n"
    "  --backend ADDR:PORT        where plain TCP goes\n"
    "  --listen ADDR:PORT         where TLS comes from (default 127.0.0.1:0, any port)\n"
    "  --workers N                processes (default 2)\n"
    "  --cert FILE --key FILE     certificate and key (default: a self-signed one)\n"
    "  --handshake-timeout S      seconds until a client's bytes must flow (default 10)\n"
    "  --idle-timeout S           seconds that a connection may be silent (default 60)\n"
    "  --plain                    without libtlsresume\n";

static struct {
    const char *listen, *backend, *cert, *key;
    int workers, plain;
} options = {.listen = "127.0.0.1:0", .workers = 2};

/* What the parent prepares before it forks; workers inherit it. */
static struct {
    struct relay relay;
    int lifeline; /* never written: the workers' end is readable once this is closed */
    sigset_t signals, original_signals;
    pid_t workers[MAX_WORKERS];
} terminator = {.relay = {.handshake_s = 10, .idle_s = 60}};

static void parse_options(int argc, char **argv);
static SSL_CTX *make_context(void);
static void find_backend(void);
static void open_sockets(void);
static void start_all_workers(void);
static void supervise(void);

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0); /* whole lines, also when workers share a pipe */
    signal(SIGPIPE, SIG_IGN);

    terminator.relay.ctx = make_context();
    find_backend();
    open_sockets();
    start_all_workers();

    char address[ADDRESS_MAX];
    local_address(terminator.relay.listener, address);
    printf("ready %s\n", address);

    supervise();
    return 0;
}

/* ---- TLS ---- */

static void load_certificate(SSL_CTX *ctx)
{
    if (options.cert == NULL) {
        use_self_signed_certificate(ctx);
        return;
    }
    if (SSL_CTX_use_certificate_chain_file(ctx, options.cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, options.key, SSL_FILETYPE_PEM) != 1)
        die("cannot use %s and %s", options.cert, options.key);
}

static SSL_CTX *make_context(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL)
        die("cannot make a context");
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION);
    /* Buffers of silent clients are given back; a write tells how far it got. */
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE);
    load_certificate(ctx);

    /*
     * INTEGRATION: this one line. It stands after the context's own settings and before fork(),
     * so that all workers inherit one session cache and one set of ticket keys.
     */
    if (!options.plain && !tlsresume_install(ctx))
        die("cannot make sessions resumable");

    return ctx;
}

/* ---- sockets ---- */

/* Once, so that no worker ever waits for a resolver. */
static void find_backend(void)
{
    struct addrinfo *found = resolve(options.backend);
    memcpy(&terminator.relay.backend, found->ai_addr, found->ai_addrlen);
    terminator.relay.backend_size = found->ai_addrlen;
    freeaddrinfo(found);
}

static void open_sockets(void)
{
    int lifeline[2];
    if (pipe(lifeline) != 0)
        die("cannot make a pipe: %s", strerror(errno));
    terminator.relay.listener = listen_on(options.listen);
    terminator.relay.lifeline = lifeline[0];
    terminator.lifeline = lifeline[1];
}

/* ---- workers ---- */

/* The life of a worker process. `ready` is told that it is about to serve. */
static void run_worker(int number, pid_t parent, int ready)
{
    die_with(parent);
    close(terminator.lifeline);
    signal(SIGINT, SIG_IGN); /* a terminal sends it to the whole group, but it is for the parent */
    sigprocmask(SIG_SETMASK, &terminator.original_signals, NULL);

    char address[ADDRESS_MAX];
    local_address(terminator.relay.listener, address);
    printf("worker %d thread 0 pid %ld listening %s\n", number, (long)getpid(), address);
    if (ready >= 0 && (write(ready, "", 1) != 1 || close(ready) != 0))
        die("cannot report to the parent: %s", strerror(errno));

    run_relay(&terminator.relay);
    SSL_CTX_free(terminator.relay.ctx);
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
    terminator.workers[number] = child;
}

/* Returns once every worker is about to serve. */
static void start_all_workers(void)
{
    /* Blocked, the signals wait for supervise() and none is lost before it. */
    sigemptyset(&terminator.signals);
    sigaddset(&terminator.signals, SIGCHLD);
    sigaddset(&terminator.signals, SIGINT);
    sigaddset(&terminator.signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &terminator.signals, &terminator.original_signals);

    int ready[2], reports = 0;
    if (pipe(ready) != 0)
        die("cannot make a pipe: %s", strerror(errno));
    for (int w = 0; w < options.workers; w++)
        start_worker(w, ready[1]);
    close(ready[1]);

    char report;
    while (read(ready[0], &report, 1) == 1) /* ends when no worker has the pipe open */
        reports++;
    close(ready[0]);
    if (reports != options.workers)
        die("%d of %d workers started", reports, options.workers);
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
        for (int w = 0; w < options.workers; w++)
            if (terminator.workers[w] == dead)
                start_worker(w, -1);
    }
}

/* Lets the workers finish what they can, and waits for them. */
static void stop_workers(void)
{
    close(terminator.relay.listener);
    close(terminator.lifeline);
    while (wait(NULL) > 0 || errno == EINTR)
        continue;
    SSL_CTX_free(terminator.relay.ctx);
}

static void supervise(void)
{
    for (;;) {
        int received = 0;
        sigwait(&terminator.signals, &received);
        if (received != SIGCHLD) {
            stop_workers();
            return;
        }
        replace_dead_workers();
    }
}

/* ---- the command line ---- */

static void parse_options(int argc, char **argv)
{
    enum { LISTEN = 1, BACKEND, WORKERS, CERT, KEY, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, HELP };
    static const struct option known[] = {
        {"listen", required_argument, NULL, LISTEN},
        {"backend", required_argument, NULL, BACKEND},
        {"workers", required_argument, NULL, WORKERS},
        {"cert", required_argument, NULL, CERT},
        {"key", required_argument, NULL, KEY},
        {"handshake-timeout", required_argument, NULL, HANDSHAKE_TIMEOUT},
        {"idle-timeout", required_argument, NULL, IDLE_TIMEOUT},
        {"plain", no_argument, &options.plain, 1},
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };

    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 0: /* a flag, which getopt_long has set */
            break;
        case LISTEN:
            options.listen = optarg;
            break;
        case BACKEND:
            options.backend = optarg;
            break;
        case WORKERS:
            options.workers = (int)parse_number("--workers", optarg, 1, MAX_WORKERS);
            break;
        case CERT:
            options.cert = optarg;
            break;
        case KEY:
            options.key = optarg;
            break;
        case HANDSHAKE_TIMEOUT:
            terminator.relay.handshake_s =
                (int)parse_number("--handshake-timeout", optarg, 1, 3600);
            break;
        case IDLE_TIMEOUT:
            terminator.relay.idle_s = (int)parse_number("--idle-timeout", optarg, 1, 24 * 3600);
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
        die("terminator takes no arguments: %s", argv[optind]);
    if (options.backend == NULL)
        die("--backend is missing");
    if ((options.cert == NULL) != (options.key == NULL))
        die("--cert and --key go together");
}
