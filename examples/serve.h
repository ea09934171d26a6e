/* One serving loop of prefork_server: accept, handshake, answer, close. */
#ifndef EXAMPLES_SERVE_H
#define EXAMPLES_SERVE_H

#include <openssl/ssl.h>
#include <tlsresume.h>

struct serving_loop {
    const char *server;      /* --name */
    int worker, thread;
    SSL_CTX *ctx;
    TLSRESUME *tr;           /* for GET /stats; NULL without --handle */
    int lifeline;            /* readable once the server shuts down */
    int shared;              /* listening socket of all loops */
    int direct;              /* listening socket of this loop alone, or -1 */
};

/* Serves one client after the other until the lifeline ends. */
void serve(const struct serving_loop *loop);

#endif
