/*
 * Connects again and again to several addresses of a TLS service, each time
 * with the newest session it has, and tells how often that session was resumed
 * and what the handshakes cost. Linked to plain OpenSSL.
 *
 *     load_client --connect 127.0.0.1:8443 --connect 127.0.0.1:8444 --connections 1000
 *
 * Prints one line of JSON; latencies are from connect() to the end of the
 * handshake. A server that dies under the client ("reset") is not a TLS failure
 * ("failed"); of those that failed, the ones without an answer in time are
 * "hung". Exits with 0 whatever it saw, unless the command line is wrong.
 */
#define _POSIX_C_SOURCE 200809L

#include "common.h"

#include <errno.h>
#include <getopt.h>
#include <openssl/err.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_ADDRESSES 64
#define MAX_THREADS 256
#define ERROR_MAX 200

struct options {
    const char *addresses[MAX_ADDRESSES];
    size_t address_count;
    const char *sni;
    uint64_t connections; /* of all threads together; 0: no limit */
    long seconds;         /* 0: no limit */
    long insist_ms;       /* 0: what is not resumed at once is lost */
    long returns;         /* 0: no limit */
    long timeout_s;       /* for each answer of the server */
    long pause_ms;        /* of each client between its connections */
    int threads;
    unsigned seed;        /* 0: round robin */
    int tls_version, no_ticket, hold, rounds, once;
};

struct times {
    uint32_t *us;
    size_t count, room;
};

/* What one thread saw. */
struct tally {
    uint64_t handshakes, resumed, failed, reset, not_resumed_after_first, server_cpu_us;
    uint64_t offered_again; /* offers that were repeated: --insist */
    uint64_t hung;          /* of the failed ones, those without an answer in time */
    uint64_t longest_us;    /* of all connections, served or not, from connect() to the end */
    struct times latencies, latencies_full; /* of all, of those that resumed nothing */
    struct times delays; /* from getting a session to a return that resumed it */
    char first_error[ERROR_MAX]; /* of a TLS failure */
};

enum outcome { SUCCESS, FAILED, RESET, TRY_AGAIN };

struct client {
    pthread_t thread;
    int number;
    unsigned random;
    SSL_SESSION *session; /* the newest one */
    uint64_t session_us;  /* when it came, on CLOCK_MONOTONIC */
    int session_is_new;   /* no connection has resumed it yet */
    long returned;        /* since the last full handshake that was meant to be one */
    struct tally tally;
};

static struct options options;
static SSL_CTX *ctx;
static uint64_t end_us; /* of --seconds, on CLOCK_MONOTONIC */
static uint64_t round_number;
static struct client clients[MAX_THREADS];

static void parse_options(int argc, char **argv);
static void make_context(void);
static void run_round(void);
static void *run_client(void *client);
static enum outcome visit(struct client *client, const char *address);
static void report(void);

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    make_context();
    for (int i = 0; i < options.threads; i++) {
        clients[i].number = i;
        clients[i].random = options.seed + (unsigned)i;
    }

    if (!options.rounds)
        run_round();
    while (options.rounds && scanf("%ld", &options.seconds) == 1 && options.seconds > 0) {
        run_round();
        round_number++;
    }

    for (int i = 0; i < options.threads; i++)
        SSL_SESSION_free(clients[i].session);
    SSL_CTX_free(ctx);
    return 0;
}

/* All that the options ask for, with the sessions of the round before. */
static void run_round(void)
{
    end_us = clock_us(CLOCK_MONOTONIC) + (uint64_t)options.seconds * 1000000;
    for (int i = 0; i < options.threads; i++) {
        clients[i].tally = (struct tally){.handshakes = 0};
        if (pthread_create(&clients[i].thread, NULL, run_client, &clients[i]) != 0)
            die("cannot start thread %d", i);
    }
    for (int i = 0; i < options.threads; i++)
        pthread_join(clients[i].thread, NULL);
    report();
    fflush(stdout);
}

static const char usage[] =
    "usage: load_client --connect ADDR:PORT... [options]\n"
    "  --connect ADDR:PORT   an address of the service; repeat for more\n"
    "  --connections N       end after N connections\n"
    "  --seconds S           end after S seconds\n"
    "  --threads N           clients at the same time, each with its own session (default 1)\n"
    "  --tls1.2 | --tls1.3   only this version\n"
    "  --no-ticket           TLS 1.2: resume by session id\n"
    "  --sni NAME            server name to ask for\n"
    "  --seed N              addresses in the random order N instead of round robin\n"
    "  --insist MS           offer a session that is not resumed again, for so long after it came\n"
    "  --returns N           forget the session after N returns and begin anew\n"
    "  --timeout S           give up when the server is silent for so long (default 10)\n"
    "  --pause MS            of each client between its connections (default 0)\n"
    "  --rounds              for each number on standard input, connect for so many seconds and\n"
    "                        report; clients keep their sessions\n"
    "  --once                in a round each client connects once, all to the same address: the\n"
    "                        next one in the next round (with --rounds)\n"
    "  --hold                after a client's first connection print \"holding\" and wait for\n"
    "                        the end of standard input (with one thread only)\n";

enum {
    CONNECT = 1, CONNECTIONS, SECONDS, THREADS, SNI, SEED, INSIST, RETURNS, TIMEOUT, PAUSE
};

static void parse_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"connect", required_argument, NULL, CONNECT},
        {"connections", required_argument, NULL, CONNECTIONS},
        {"seconds", required_argument, NULL, SECONDS},
        {"threads", required_argument, NULL, THREADS},
        {"tls1.2", no_argument, &options.tls_version, TLS1_2_VERSION},
        {"tls1.3", no_argument, &options.tls_version, TLS1_3_VERSION},
        {"no-ticket", no_argument, &options.no_ticket, 1},
        {"sni", required_argument, NULL, SNI},
        {"seed", required_argument, NULL, SEED},
        {"insist", required_argument, NULL, INSIST},
        {"returns", required_argument, NULL, RETURNS},
        {"timeout", required_argument, NULL, TIMEOUT},
        {"pause", required_argument, NULL, PAUSE},
        {"rounds", no_argument, &options.rounds, 1},
        {"once", no_argument, &options.once, 1},
        {"hold", no_argument, &options.hold, 1},
        {NULL, 0, NULL, 0},
    };

    options.threads = 1;
    options.timeout_s = 10;
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 0: /* a flag, which getopt_long has set */
            break;
        case CONNECT:
            if (options.address_count == MAX_ADDRESSES)
                die("--connect: at most %d", MAX_ADDRESSES);
            options.addresses[options.address_count++] = optarg;
            break;
        case CONNECTIONS:
            options.connections = (uint64_t)parse_number("--connections", optarg, 1, INT32_MAX);
            break;
        case SECONDS:
            options.seconds = parse_number("--seconds", optarg, 1, 86400);
            break;
        case THREADS:
            options.threads = (int)parse_number("--threads", optarg, 1, MAX_THREADS);
            break;
        case SNI:
            options.sni = optarg;
            break;
        case SEED:
            options.seed = (unsigned)parse_number("--seed", optarg, 1, INT32_MAX);
            break;
        case INSIST:
            options.insist_ms = parse_number("--insist", optarg, 1, 60000);
            break;
        case RETURNS:
            options.returns = parse_number("--returns", optarg, 1, INT32_MAX);
            break;
        case TIMEOUT:
            options.timeout_s = parse_number("--timeout", optarg, 1, 3600);
            break;
        case PAUSE:
            options.pause_ms = parse_number("--pause", optarg, 0, 60000);
            break;
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (options.address_count == 0 || optind != argc ||
        (options.connections == 0 && options.seconds == 0 && !options.rounds) ||
        (options.hold && (options.threads != 1 || options.rounds)) ||
        (options.once && !options.rounds)) {
        fputs(usage, stderr);
        exit(2);
    }
}

static void make_context(void)
{
    ctx = SSL_CTX_new(TLS_client_method());
    if (ctx == NULL || !SSL_CTX_set_min_proto_version(ctx, options.tls_version) ||
        !SSL_CTX_set_max_proto_version(ctx, options.tls_version))
        die("cannot make a context");
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    if (options.no_ticket)
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
}

/* ---- one thread's connections ---- */

static const char *choose_address(struct client *client, uint64_t turn)
{
    size_t choice = options.once ? (size_t)round_number : (size_t)turn + (size_t)client->number;
    if (options.seed != 0) {
        /* Knuth's generator: the same order on every machine, its high bits are the good ones. */
        client->random = client->random * 1664525u + 1013904223u;
        choice = client->random >> 16;
    }
    return options.addresses[choice % options.address_count];
}

/* The share of --connections for one thread. */
static uint64_t connections_of(const struct client *client)
{
    uint64_t threads = (uint64_t)options.threads;
    uint64_t rest = options.connections % threads;
    return options.connections / threads + ((uint64_t)client->number < rest ? 1 : 0);
}

static int is_over(const struct client *client, uint64_t turn)
{
    return (options.connections != 0 && turn >= connections_of(client)) ||
           (options.once && turn > 0) ||
           (options.seconds != 0 && clock_us(CLOCK_MONOTONIC) >= end_us);
}

static void hold(void)
{
    puts("holding");
    fflush(stdout);
    while (getchar() != EOF)
        continue;
}

static void pause_between_connections(void)
{
    const struct timespec pause = {
        .tv_sec = options.pause_ms / 1000,
        .tv_nsec = options.pause_ms % 1000 * 1000000,
    };
    if (options.pause_ms > 0)
        nanosleep(&pause, NULL);
}

static void *run_client(void *argument)
{
    struct client *client = argument;
    for (uint64_t turn = 0; !is_over(client, turn); turn++) {
        const char *address = choose_address(client, turn);
        enum outcome outcome = visit(client, address);
        while (outcome == TRY_AGAIN)
            outcome = visit(client, address);
        client->tally.handshakes += outcome == SUCCESS;
        client->tally.failed += outcome == FAILED;
        client->tally.reset += outcome == RESET;
        if (options.hold && turn == 0)
            hold();
        pause_between_connections();
    }
    return NULL;
}

/* ---- one connection ---- */

/*
 * Tells a peer that went away from one that answered wrongly, and keeps the
 * first wrong answer. `result` is what the failed SSL function returned.
 */
static enum outcome explain(struct tally *tally, SSL *ssl, int result)
{
    int saved_errno = errno;
    int error = SSL_get_error(ssl, result);
    unsigned long code = ERR_peek_last_error();

    int timed_out = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
    int cut_off = error == SSL_ERROR_SYSCALL;
#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
    cut_off |= ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
#endif
    if (cut_off)
        return RESET;

    tally->hung += (uint64_t)timed_out;
    if (tally->first_error[0] == '\0') {
        if (timed_out)
            snprintf(tally->first_error, ERROR_MAX, "no answer within %ld s", options.timeout_s);
        else if (code != 0)
            ERR_error_string_n(code, tally->first_error, ERROR_MAX);
        else
            snprintf(tally->first_error, ERROR_MAX, "SSL error %d, %s", error,
                     strerror(saved_errno));
    }
    return FAILED;
}

static void add_time(struct times *times, uint64_t us)
{
    if (times->count == times->room) {
        times->room = times->room == 0 ? 1024 : 2 * times->room;
        times->us = realloc(times->us, times->room * sizeof *times->us);
        if (times->us == NULL)
            die("out of memory");
    }
    times->us[times->count++] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

static void count_cpu(struct tally *tally, const char *response)
{
    static const char key[] = "\"cpu_us\":";
    const char *found = strstr(response, key);
    if (found != NULL)
        tally->server_cpu_us += strtoull(found + sizeof key - 1, NULL, 10);
}

/* Sends a request and reads to the end: with TLS 1.3 that is when tickets arrive. */
static int converse(struct tally *tally, SSL *ssl)
{
    static const char request[] = "GET / HTTP/1.0\r\n\r\n";
    char response[4096];
    size_t length = 0;

    int result = SSL_write(ssl, request, sizeof request - 1);
    while (result > 0 && length < sizeof response - 1) {
        result = SSL_read(ssl, response + length, (int)(sizeof response - 1 - length));
        length += result > 0 ? (size_t)result : 0;
    }
    response[length] = '\0';
    count_cpu(tally, response);
    return result;
}

static void keep_newest_session(struct client *client, SSL *ssl)
{
    SSL_SESSION *session = SSL_get1_session(ssl);
    if (session == NULL || !SSL_SESSION_is_resumable(session)) {
        SSL_SESSION_free(session);
        return;
    }
    SSL_SESSION_free(client->session);
    client->session = session;
    client->session_us = clock_us(CLOCK_MONOTONIC);
    /* A TLS 1.2 session is the same one again and again. */
    client->session_is_new = !SSL_session_reused(ssl) || SSL_version(ssl) == TLS1_3_VERSION;
}

static void forget_session_after_returns(struct client *client, int offered)
{
    client->returned = offered ? client->returned + 1 : 0;
    if (options.returns == 0 || client->returned < options.returns)
        return;
    SSL_SESSION_free(client->session);
    client->session = NULL;
}

/* A copy, because OpenSSL never offers the session of a connection that was cut again. */
static int offer_copy(SSL *ssl, SSL_SESSION *session)
{
    SSL_SESSION *copy = SSL_SESSION_dup(session);
    int done = copy != NULL && SSL_set_session(ssl, copy);
    SSL_SESSION_free(copy);
    return done;
}

static enum outcome shake_hands_and_talk(struct client *client, SSL *ssl)
{
    struct tally *tally = &client->tally;
    uint64_t start = clock_us(CLOCK_MONOTONIC);
    int offered = client->session != NULL;

    if (offered && !offer_copy(ssl, client->session))
        return explain(tally, ssl, 0);
    int result = SSL_connect(ssl);
    if (result != 1)
        return explain(tally, ssl, result);
    uint64_t latency = clock_us(CLOCK_MONOTONIC) - start;

    result = converse(tally, ssl);
    if (result <= 0 && SSL_get_error(ssl, result) != SSL_ERROR_ZERO_RETURN)
        return explain(tally, ssl, result);

    int resumed = SSL_session_reused(ssl);
    if (offered && !resumed && start < client->session_us + (uint64_t)options.insist_ms * 1000) {
        tally->offered_again++;
        return TRY_AGAIN;
    }
    if (resumed && client->session_is_new)
        add_time(&tally->delays, start - client->session_us);
    tally->resumed += (uint64_t)resumed;
    tally->not_resumed_after_first += (uint64_t)(offered && !resumed);
    add_time(&tally->latencies, latency);
    if (!resumed)
        add_time(&tally->latencies_full, latency);
    keep_newest_session(client, ssl);
    forget_session_after_returns(client, offered);
    return SUCCESS;
}

static enum outcome visit(struct client *client, const char *address)
{
    ERR_clear_error();
    uint64_t start = clock_us(CLOCK_MONOTONIC);
    int connection = connect_to(address);
    if (connection < 0)
        return RESET;
    prepare_connection(connection, (int)options.timeout_s);

    SSL *ssl = SSL_new(ctx);
    if (ssl == NULL || !SSL_set_fd(ssl, connection) ||
        (options.sni != NULL && !SSL_set_tlsext_host_name(ssl, options.sni)))
        die("cannot prepare a connection");

    enum outcome outcome = shake_hands_and_talk(client, ssl);
    /* OpenSSL makes a session useless whose connection was not closed in order. */
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
    close(connection);
    uint64_t took = clock_us(CLOCK_MONOTONIC) - start;
    if (took > client->tally.longest_us)
        client->tally.longest_us = took;
    return outcome;
}

/* ---- the result ---- */

static void move_times(struct times *to, struct times *from)
{
    for (size_t i = 0; i < from->count; i++)
        add_time(to, from->us[i]);
    free(from->us);
}

static struct tally sum_of_tallies(void)
{
    struct tally sum = {.handshakes = 0};
    for (int i = 0; i < options.threads; i++) {
        struct tally *tally = &clients[i].tally;
        sum.handshakes += tally->handshakes;
        sum.resumed += tally->resumed;
        sum.failed += tally->failed;
        sum.reset += tally->reset;
        sum.not_resumed_after_first += tally->not_resumed_after_first;
        sum.server_cpu_us += tally->server_cpu_us;
        sum.offered_again += tally->offered_again;
        sum.hung += tally->hung;
        if (tally->longest_us > sum.longest_us)
            sum.longest_us = tally->longest_us;
        move_times(&sum.latencies, &tally->latencies);
        move_times(&sum.latencies_full, &tally->latencies_full);
        move_times(&sum.delays, &tally->delays);
        if (sum.first_error[0] == '\0')
            memcpy(sum.first_error, tally->first_error, ERROR_MAX);
    }
    return sum;
}

static int compare_times(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

/* `times` are sorted. */
static unsigned percentile(const struct times *times, size_t percent)
{
    return times->count == 0 ? 0 : times->us[(times->count - 1) * percent / 100];
}

static void print_percentiles(const char *name, struct times *times)
{
    if (times->count > 0)
        qsort(times->us, times->count, sizeof *times->us, compare_times);
    printf("\"%s\":{\"p50\":%u,\"p99\":%u,\"max\":%u},", name, percentile(times, 50),
           percentile(times, 99), percentile(times, 100));
    free(times->us);
}

static void report(void)
{
    struct tally sum = sum_of_tallies();
    printf("{\"handshakes\":%llu,\"resumed\":%llu,\"failed\":%llu,\"reset\":%llu,"
           "\"not_resumed_after_first\":%llu,\"offered_again\":%llu,\"server_cpu_us\":%llu,"
           "\"hung\":%llu,\"longest_us\":%llu,",
           (unsigned long long)sum.handshakes, (unsigned long long)sum.resumed,
           (unsigned long long)sum.failed, (unsigned long long)sum.reset,
           (unsigned long long)sum.not_resumed_after_first, (unsigned long long)sum.offered_again,
           (unsigned long long)sum.server_cpu_us, (unsigned long long)sum.hung,
           (unsigned long long)sum.longest_us);
    print_percentiles("latency_us", &sum.latencies);
    print_percentiles("full_us", &sum.latencies_full);
    print_percentiles("delay_us", &sum.delays);
    /* OpenSSL's error texts have nothing that JSON would want escaped. */
    printf("\"first_error\":\"%s\"}\n", sum.first_error);
}
