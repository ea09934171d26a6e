/* What a worker of the terminator does: TLS from clients, plain TCP to the backend. */
#ifndef EXAMPLES_TERMINATOR_RELAY_H
#define EXAMPLES_TERMINATOR_RELAY_H

#include <openssl/ssl.h>
#include <sys/socket.h>

struct relay {
    SSL_CTX *ctx;
    struct sockaddr_storage backend;
    socklen_t backend_size;
    int listener;    /* non-blocking; other workers may accept on it too */
    int lifeline;    /* readable once the terminator shuts down */
    int handshake_s; /* how long a client may take until its bytes flow */
    int idle_s;      /* how long a connection may be silent in both directions */
};

/* Serves many clients at once until the lifeline ends, and then those that are left, for a while. */
void run_relay(const struct relay *relay);

#endif
