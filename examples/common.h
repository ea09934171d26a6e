/* What the example programs share: sockets, a certificate, an exit. */
#ifndef EXAMPLES_COMMON_H
#define EXAMPLES_COMMON_H

#include <netdb.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/* Room for an address as text: "[IPv6]:PORT". */
#define ADDRESS_MAX 64

/* Prints the message and OpenSSL's error queue on stderr, and exits with 1. */
void die(const char *format, ...);

/* Has this process killed when `parent` ends, whatever ends it: a worker must not outlive it. */
void die_with(pid_t parent);

/* The decimal number in `text`; an end of the program that names `option` when it is none. */
long parse_number(const char *option, const char *text, long min, long max);

/* Looks "ADDR:PORT" or "[ADDR]:PORT" up, for freeaddrinfo(). Dies on failure. */
struct addrinfo *resolve(const char *address);

/* A non-blocking socket that listens on "ADDR:PORT"; port 0 takes any. Dies on failure. */
int listen_on(const char *address);

/* A socket connected to "ADDR:PORT", or -1 with errno. */
int connect_to(const char *address);

/* Limits how long one read or write on `connection` may wait, and sends without delay. */
void prepare_connection(int connection, int timeout_s);

/* Writes the local address of `socket` as "ADDR:PORT". */
void local_address(int socket, char out[ADDRESS_MAX]);

/* Gives `ctx` a fresh P-256 key and a certificate that it signed itself. Dies on failure. */
void use_self_signed_certificate(SSL_CTX *ctx);

uint64_t clock_us(clockid_t clock);

#endif
