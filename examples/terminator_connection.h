/* One client of the terminator, its connection to the backend, and the steps that they take. */
#ifndef EXAMPLES_TERMINATOR_CONNECTION_H
#define EXAMPLES_TERMINATOR_CONNECTION_H

#include "terminator_relay.h"

#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

/* One TLS record. What a connection holds is bounded by two of these and the kernel's buffers. */
#define FLOW_BYTES 16384

/* The bytes on their way in one direction. It is filled when it is empty, never before. */
struct flow {
    unsigned char bytes[FLOW_BYTES];
    size_t begin, end;
    int source_ended; /* nothing more will come */
    int over;         /* and the other side has been told */
};

struct connection {
    struct connection *previous, *next;
    const struct relay *relay;
    enum { HANDSHAKE, CONNECT, RELAY } phase;
    int client, backend; /* non-blocking sockets; the backend's is connected in phase CONNECT */
    SSL *ssl;
    uint64_t deadline_us;
    struct flow up, down; /* to the backend, to the client */
};

/* What came of a step. */
enum outcome {
    PROGRESS, /* the next one may be possible */
    BLOCKED,  /* nothing is possible before one of the sockets is ready */
    FINISHED, /* both directions ended in order */
    BROKEN
};

/* Takes the next step in each direction, without waiting. */
enum outcome take_step(struct connection *c);

#endif
