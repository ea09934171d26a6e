/* First the TLS handshake, then connect(), then bytes in both directions. */
#define _POSIX_C_SOURCE 200809L

#include "terminator_connection.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static enum outcome outcome_of_tls(SSL *ssl, int result)
{
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_NONE:
        return PROGRESS;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return BLOCKED;
    default:
        return BROKEN;
    }
}

static enum outcome outcome_of_socket(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK ? BLOCKED : BROKEN;
}

static enum outcome shake_hands(struct connection *c)
{
    enum outcome outcome = outcome_of_tls(c->ssl, SSL_accept(c->ssl));
    if (outcome == PROGRESS)
        c->phase = CONNECT;
    return outcome;
}

/* Says it once, not for every client. */
static void note_backend(int is_down)
{
    static int was_down;
    if (is_down && !was_down)
        fprintf(stderr, "cannot connect to the backend: %s\n", strerror(errno));
    was_down = is_down;
}

/* Asking again is how to learn what became of a connect() that was in progress. */
static enum outcome connect_backend(struct connection *c)
{
    int result = connect(c->backend, (const struct sockaddr *)&c->relay->backend,
                         c->relay->backend_size);
    if (result != 0 && (errno == EINPROGRESS || errno == EALREADY))
        return BLOCKED;

    int is_down = result != 0 && errno != EISCONN;
    note_backend(is_down);
    c->phase = RELAY;
    return is_down ? BROKEN : PROGRESS;
}

static enum outcome read_client(struct connection *c)
{
    int count = SSL_read(c->ssl, c->up.bytes, FLOW_BYTES);
    if (count > 0)
        c->up.end = (size_t)count;
    else if (SSL_get_error(c->ssl, count) == SSL_ERROR_ZERO_RETURN)
        c->up.source_ended = 1; /* close_notify; an end without it is broken off */
    else
        return outcome_of_tls(c->ssl, count);
    return PROGRESS;
}

static enum outcome write_client(struct connection *c)
{
    struct flow *down = &c->down;
    int count = SSL_write(c->ssl, down->bytes + down->begin, (int)(down->end - down->begin));
    if (count > 0)
        down->begin += (size_t)count;
    return outcome_of_tls(c->ssl, count);
}

static enum outcome end_client(struct connection *c)
{
    int result = SSL_shutdown(c->ssl); /* 0 when the client has not ended yet: it may go on */
    if (result < 0)
        return outcome_of_tls(c->ssl, result);
    shutdown(c->client, SHUT_WR);
    return PROGRESS;
}

static enum outcome read_backend(struct connection *c)
{
    ssize_t count = recv(c->backend, c->down.bytes, FLOW_BYTES, 0);
    if (count < 0)
        return outcome_of_socket();
    c->down.end = (size_t)count;
    c->down.source_ended = count == 0;
    return PROGRESS;
}

static enum outcome write_backend(struct connection *c)
{
    struct flow *up = &c->up;
    ssize_t count = send(c->backend, up->bytes + up->begin, up->end - up->begin, 0);
    /* A backend that has closed in order wants no more, but its last words are on their way. */
    if (count < 0 && errno == EPIPE)
        count = (ssize_t)(up->end - up->begin);
    if (count < 0)
        return outcome_of_socket();
    up->begin += (size_t)count;
    return PROGRESS;
}

static enum outcome end_backend(struct connection *c)
{
    shutdown(c->backend, SHUT_WR);
    return PROGRESS;
}

typedef enum outcome (*action)(struct connection *c);

/* One step of one direction: first write what there is, then pass on the end, else read. */
static enum outcome move(struct connection *c, struct flow *flow, action read_source,
                         action write_sink, action end_sink)
{
    if (flow->begin < flow->end)
        return write_sink(c);
    if (flow->over)
        return BLOCKED;
    if (flow->source_ended) {
        enum outcome outcome = end_sink(c);
        flow->over = outcome == PROGRESS;
        return outcome;
    }
    flow->begin = flow->end = 0;
    return read_source(c);
}

static enum outcome relay_bytes(struct connection *c)
{
    enum outcome up = move(c, &c->up, read_client, write_backend, end_backend);
    if (up == BROKEN)
        return BROKEN;
    enum outcome down = move(c, &c->down, read_backend, write_client, end_client);
    if (down == BROKEN)
        return BROKEN;
    if (c->up.over && c->down.over)
        return FINISHED;
    return up == PROGRESS || down == PROGRESS ? PROGRESS : BLOCKED;
}

enum outcome take_step(struct connection *c)
{
    ERR_clear_error(); /* what another connection left there would be taken for ours */
    switch (c->phase) {
    case HANDSHAKE:
        return shake_hands(c);
    case CONNECT:
        return connect_backend(c);
    default:
        return relay_bytes(c);
    }
}
