/*
 * The event loop of a worker. Nothing here knows that sessions resume.
 *
 * Every socket is watched edge-triggered for both directions, once and for all. Whatever happens
 * on either socket of a connection, the connection takes all the steps that it can take now; it
 * stops when each of them would block, so the next edge cannot be missed.
 */
#define _POSIX_C_SOURCE 200809L

#include "terminator_relay.h"

#include "common.h"
#include "terminator_connection.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

/* Steps that a connection may take before it is another one's turn. */
#define TURNS 16

#define MAX_CONNECTIONS 4096 /* of one worker */
#define SECOND_US 1000000

/* How long clients may go on once the terminator shuts down. */
#define DRAIN_S 5

/* The worker is one process with one thread: there is one of these. */
static struct {
    const struct relay *relay;
    struct connection *connections;
    int epoll, count, capacity;
    int accepting, draining;
    uint64_t now_us, next_sweep_us, end_us;
} worker;

static void start(const struct relay *relay);
static int wait_ms(void);
static void handle(void *source);
static void sweep(void);

void run_relay(const struct relay *relay)
{
    start(relay);
    while (!worker.draining || worker.connections != NULL) {
        /* One event at a time: ending a connection takes the other event of its sockets along. */
        struct epoll_event event;
        int count = epoll_wait(worker.epoll, &event, 1, wait_ms());
        if (count < 0 && errno != EINTR)
            die("cannot wait for events: %s", strerror(errno));

        worker.now_us = clock_us(CLOCK_MONOTONIC);
        if (count == 1)
            handle(event.data.ptr);
        if (worker.now_us >= worker.next_sweep_us)
            sweep();
    }
    close(worker.epoll);
}

/* ---- the sockets that are watched ---- */

static int watch(int fd, uint32_t events, void *source)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(worker.epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

static int watch_both_ways(int fd, struct connection *c)
{
    return fcntl(fd, F_SETFL, O_NONBLOCK) == 0 && watch(fd, EPOLLIN | EPOLLOUT | EPOLLET, c);
}

/* Makes an event of what is ready already: no edge would tell it. */
static void rearm(struct connection *c)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    epoll_ctl(worker.epoll, EPOLL_CTL_MOD, c->client, &event);
    epoll_ctl(worker.epoll, EPOLL_CTL_MOD, c->backend, &event);
}

static void start_accepting(void)
{
    if (worker.accepting || worker.draining || worker.count >= worker.capacity)
        return;
    /* Exclusive: a client wakes one worker, not all. */
    worker.accepting = watch(worker.relay->listener, EPOLLIN | EPOLLEXCLUSIVE, &worker.accepting);
}

/* Clients wait in the kernel, or go to another worker. */
static void stop_accepting(void)
{
    if (worker.accepting)
        epoll_ctl(worker.epoll, EPOLL_CTL_DEL, worker.relay->listener, NULL);
    worker.accepting = 0;
}

/* As many connections as there can be descriptors, two for each, with some to spare. */
static int find_capacity(void)
{
    const rlim_t spare = 32;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > 2 * MAX_CONNECTIONS + spare)
        return MAX_CONNECTIONS;
    return limit.rlim_cur > spare + 2 ? (int)((limit.rlim_cur - spare) / 2) : 1;
}

static void start(const struct relay *relay)
{
    worker.relay = relay;
    worker.capacity = find_capacity();
    worker.epoll = epoll_create1(0);
    if (worker.epoll < 0 || !watch(relay->lifeline, EPOLLIN, &worker.draining))
        die("cannot watch sockets: %s", strerror(errno));
    start_accepting();
}

/* ---- the life of a connection ---- */

static void link_connection(struct connection *c)
{
    c->next = worker.connections;
    if (c->next != NULL)
        c->next->previous = c;
    worker.connections = c;
    worker.count++;
}

static void unlink_connection(struct connection *c)
{
    if (c->previous != NULL)
        c->previous->next = c->next;
    else
        worker.connections = c->next;
    if (c->next != NULL)
        c->next->previous = c->previous;
    worker.count--;
}

static void free_connection(struct connection *c)
{
    SSL_free(c->ssl);
    close(c->client);
    if (c->backend >= 0)
        close(c->backend);
    free(c);
}

static uint64_t in_seconds(int seconds)
{
    return worker.now_us + (uint64_t)seconds * SECOND_US;
}

static void open_connection(int client)
{
    const struct relay *relay = worker.relay;
    struct connection *c = calloc(1, sizeof *c);
    if (c == NULL) {
        close(client);
        return;
    }
    c->relay = relay;
    c->client = client;
    c->backend = socket(relay->backend.ss_family, SOCK_STREAM, 0);
    c->ssl = SSL_new(relay->ctx);
    c->deadline_us = in_seconds(relay->handshake_s);

    if (c->backend < 0 || c->ssl == NULL || !SSL_set_fd(c->ssl, client) ||
        !watch_both_ways(client, c) || !watch_both_ways(c->backend, c)) {
        free_connection(c);
        return;
    }
    prepare_connection(client, 0);
    prepare_connection(c->backend, 0);
    link_connection(c);
}

static void close_connection(struct connection *c, enum outcome why)
{
    /*
     * What was cut off must not look like a whole request: the backend gets a reset. The client
     * can tell by itself, for a whole response ends with TLS's close_notify.
     */
    const struct linger reset = {.l_onoff = 1};
    if (why != FINISHED)
        setsockopt(c->backend, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    unlink_connection(c);
    free_connection(c);
    start_accepting();
}

/* Takes all steps that are possible now, unless there are too many. */
static void advance(struct connection *c)
{
    for (int turn = 0; turn < TURNS; turn++) {
        enum outcome outcome = take_step(c);
        if (outcome == BLOCKED)
            return;
        if (outcome != PROGRESS) {
            close_connection(c, outcome);
            return;
        }
        if (c->phase == RELAY)
            c->deadline_us = in_seconds(worker.relay->idle_s);
    }
    rearm(c);
}

static void accept_client(void)
{
    int client = accept(worker.relay->listener, NULL, NULL);
    if (client >= 0)
        open_connection(client);
    /* The system is short of something: the next sweep tries again, the loop must not spin. */
    int exhausted = client < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
                                   errno == ENOMEM);
    if (exhausted || worker.count >= worker.capacity)
        stop_accepting();
}

static void drain(void)
{
    stop_accepting();
    close(worker.relay->listener); /* new clients are refused, not kept waiting */
    epoll_ctl(worker.epoll, EPOLL_CTL_DEL, worker.relay->lifeline, NULL);
    worker.draining = 1;
    worker.end_us = in_seconds(DRAIN_S);
}

static void handle(void *source)
{
    if (source == &worker.accepting)
        accept_client();
    else if (source == &worker.draining)
        drain();
    else
        advance(source);
}

/* Ends what took too long. */
static void sweep(void)
{
    struct connection *next;
    for (struct connection *c = worker.connections; c != NULL; c = next) {
        next = c->next;
        if (worker.now_us >= c->deadline_us || (worker.draining && worker.now_us >= worker.end_us))
            close_connection(c, BROKEN);
    }
    start_accepting();
    worker.next_sweep_us = in_seconds(1);
}

/* A worker without a connection has nothing to sweep. */
static int wait_ms(void)
{
    return worker.connections == NULL && worker.accepting ? -1 : 1000;
}
