/* What the test programs share: claims and checks, and clients and servers that talk in memory. */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <tlsresume.h>

/* ---- Claims: functions whose names say what holds. ---- */

/* Reads the arguments: with any, only claims whose name contains one of them are tried. */
void check_begin(int argc, char **argv);
/* For main to return. */
int check_end(void);

#define CLAIM(claim)                                                                               \
    do {                                                                                           \
        if (check_starts(#claim)) {                                                                \
            claim();                                                                               \
            check_holds();                                                                         \
        }                                                                                          \
    } while (0)

/* The same in a process of its own, for what a process remembers. */
#define CLAIM_APART(claim)                                                                         \
    do {                                                                                           \
        if (check_starts(#claim)) {                                                                \
            check_apart(claim);                                                                    \
            check_holds();                                                                         \
        }                                                                                          \
    } while (0)

bool check_starts(const char *claim);
void check_holds(void);
void check_apart(void (*claim)(void));
/* Waits for a child, which must end with status 0. */
void check_child(int pid);

/* ---- Checks: each ends the program when it fails, and prints OpenSSL's error queue. ---- */

#define CHECK(condition)                                                                           \
    ((condition) ? (void)0 : check_fails(__FILE__, __LINE__, "%s", #condition))

/* As CHECK; what follows is printed in place of the condition. */
#define CHECK_SAYING(condition, ...)                                                               \
    ((condition) ? (void)0 : check_fails(__FILE__, __LINE__, __VA_ARGS__))

/* For integers; both are printed. */
#define CHECK_EQUAL(actual, expected)                                                              \
    check_equal(__FILE__, __LINE__, #actual " == " #expected, (long long)(actual),                 \
                (long long)(expected))

/* The call fails with an error of library "tlsresume" that has a reason, and data with this text. */
#define CHECK_REFUSED(call, text)                                                                  \
    do {                                                                                           \
        ERR_clear_error();                                                                         \
        CHECK(!(call));                                                                            \
        check_reason(__FILE__, __LINE__, text);                                                    \
    } while (0)

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4), noreturn))
#endif
void check_fails(const char *file, int line, const char *format, ...);
void check_equal(const char *file, int line, const char *text, long long actual,
                 long long expected);
void check_reason(const char *file, int line, const char *text);

/* count, or less of it where the environment's CHECK_SCALE asks for a fraction (slow tools). */
int scaled(int count);

/* Of two keys made in one millisecond either may count as the newer: comes back in the next one. */
void next_millisecond(void);

/* A small generator with a printed seed, so that a failure can be had again: CHECK_SEED sets it. */
uint32_t random_number(void);
void random_bytes(unsigned char *bytes, size_t len);

/* ---- The four ways to resume. ---- */

struct kind {
    const char *name;
    int version;
    bool tickets;         /* the client takes tickets; else TLS 1.2 session ids */
    const char *mode;     /* resumption.mode */
};

enum { TLS12_ID, TLS12_TICKET, TLS13_STATELESS, TLS13_STATEFUL, KINDS };
extern const struct kind KIND[KINDS];

/* Tries a claim about tried_kind with each, in a process of its own: once a context has verified, a process remembers. */
extern const struct kind *tried_kind;
void for_each_kind_apart(void (*claim)(void));

/* ---- Servers. ---- */

/* Certificate and key of the process, made at first use. */
X509 *own_certificate(void);
EVP_PKEY *new_key(void);
/* Signed by issuer, or by itself where issuer is NULL. extension_len bytes of an extension that
 * nobody knows make it as large as a test needs. */
X509 *new_certificate(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key,
                      size_t extension_len);

#if OPENSSL_VERSION_NUMBER >= 0x30000000L
/* That of the contexts of servers and clients that are made from now on; NULL: OpenSSL's default one. */
extern OSSL_LIB_CTX *library_context;
#endif

/* A configured context with a session id context, not attached. */
SSL_CTX *server_new(void);
/* Asks clients for a certificate of this authority. */
void server_verifies(SSL_CTX *server, X509 *authority);

/* An instance with this configuration. */
TLSRESUME *realm_new(const char *toml);
/* An instance with resumption.mode, and more lines of that section and others. */
TLSRESUME *realm_of(const struct kind *kind, const char *more);
SSL_CTX *attached_server(TLSRESUME *tr);
TLSRESUME_STATS stats_of(TLSRESUME *tr);

/* ---- Clients. ---- */

/* Comes back with the session that it got last, as a browser does. */
struct visitor {
    SSL_CTX *ctx;
    const char *name;        /* server name to ask for, or NULL */
    SSL_SESSION *session;    /* to come back with, or NULL */
    int tickets;             /* got in the last visit (TLS 1.3) */
};

struct visitor visitor_new(const struct kind *kind, const char *name);
void visitor_shows(struct visitor *visitor, X509 *certificate, EVP_PKEY *key);
void visitor_forgets(struct visitor *visitor);
/* Makes it come back with a copy of this one, used before or not. */
void visitor_takes(struct visitor *visitor, SSL_SESSION *session);
void visitor_free(struct visitor *visitor);

/* One connection, closed properly by both. The handshake must succeed; true: it resumed. */
bool visit(struct visitor *visitor, SSL_CTX *server);

/* ---- Connections, for tests that look closer. ---- */

struct pair {
    SSL *client, *server;
};

/* True while the server's side of a pair runs on this thread: it may have a clock of its own. */
extern __thread bool server_runs;

/* Empty, and with more to come. */
BIO *memory_bio(void);
/* The client takes visitor->session along. visitor stays where it is until pair_free. */
struct pair pair_new(struct visitor *visitor, SSL_CTX *server);
/* The same with a server's end that was made already. */
struct pair pair_with(struct visitor *visitor, SSL *server);
/* Until both are done and the client has read its tickets; false when one of them fails. */
bool pair_shakes(struct pair *pair);
/* One call of SSL_do_handshake each; true when both are done. Fails when an SSL_get_error is one. */
bool pair_steps(struct pair *pair);
/* Takes over what the client got; call it before pair_free. */
void visitor_leaves(struct visitor *visitor, struct pair *pair);
/* Properly closed, or else as after an unclean end of the server's connection. */
void pair_free(struct pair *pair, bool properly);

/* For the rest of the process: clients can repeat their random. */
void let_clients_repeat(void);
/* The client's first flight, with the same random each time. */
void client_begins_as_ever(struct pair *pair);

SSL_SESSION *session_copy(SSL_SESSION *session);

#endif
