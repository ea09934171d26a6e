#define _POSIX_C_SOURCE 200809L
#define OPENSSL_SUPPRESS_DEPRECATED

#include "check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

/* ---- Claims and checks ---- */

static const char *current = "no claim";
static int tried;
static char **wanted;
static uint32_t generator;

void check_begin(int argc, char **argv)
{
    wanted = argc > 1 ? argv + 1 : NULL;
    const char *seed = getenv("CHECK_SEED");
    generator = seed != NULL ? (uint32_t)strtoul(seed, NULL, 0) : UINT32_C(0x7ea5ed);
    /* What the environment says about sessions is not for tests. */
    setvbuf(stdout, NULL, _IOLBF, 0);
}

bool check_starts(const char *claim)
{
    bool chosen = wanted == NULL;
    for (char **part = wanted; part != NULL && *part != NULL; part++)
        chosen = chosen || strstr(claim, *part) != NULL;
    if (!chosen)
        return false;
    current = claim;
    tried++;
    ERR_clear_error();
    return true;
}

void check_holds(void)
{
    for (const char *c = current; *c != '\0'; c++)
        putchar(*c == '_' ? ' ' : *c);
    putchar('\n');
    current = "no claim";
}

void check_apart(void (*claim)(void))
{
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        claim();
        fflush(NULL);
        _exit(0);
    }
    check_child(child);
}

void check_child(int pid)
{
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_SAYING(!WIFSIGNALED(status), "a child died of signal %d", WTERMSIG(status));
    CHECK_SAYING(WEXITSTATUS(status) == 0, "a child ended with %d", WEXITSTATUS(status));
}

int check_end(void)
{
    if (tried > 0)
        return 0;
    fprintf(stderr, "no claim has such a name\n");
    return 1;
}

void check_fails(const char *file, int line, const char *format, ...)
{
    fprintf(stderr, "%s:%d: %s: ", file, line, current);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    ERR_print_errors_fp(stderr);
    /* Not exit(): handlers of a process that is broken prove nothing. */
    _exit(1);
}

void check_equal(const char *file, int line, const char *text, long long actual, long long expected)
{
    if (actual != expected)
        check_fails(file, line, "%s: %lld, not %lld", text, actual, expected);
}

void check_reason(const char *file, int line, const char *text)
{
    const char *data = NULL;
    int flags = 0;
    unsigned long error = ERR_peek_error_line_data(NULL, NULL, &data, &flags);
    const char *library = ERR_lib_error_string(error);
    const char *reason = ERR_reason_error_string(error);
    if (error == 0 || library == NULL || strcmp(library, "tlsresume") != 0)
        check_fails(file, line, "the error is of library %s", library ? library : "(none)");
    if (reason == NULL || *reason == '\0')
        check_fails(file, line, "the error has no reason");
    if (!(flags & ERR_TXT_STRING) || data == NULL || strstr(data, text) == NULL)
        check_fails(file, line, "\"%s\" is not in \"%s\"", text, data ? data : "");
    ERR_get_error();
    if (ERR_peek_error() != 0)
        check_fails(file, line, "there is more than one error");
}

int scaled(int count)
{
    const char *scale = getenv("CHECK_SCALE");
    int divisor = scale != NULL ? atoi(scale) : 1;
    return divisor > 1 && count > divisor ? count / divisor : divisor > 1 && count > 1 ? 1 : count;
}

static long long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

void next_millisecond(void)
{
    long long start = milliseconds();
    while (milliseconds() == start)
        ;
}

/* xorshift: good enough to vary inputs, the same everywhere. */
uint32_t random_number(void)
{
    generator ^= generator << 13;
    generator ^= generator >> 17;
    generator ^= generator << 5;
    return generator;
}

void random_bytes(unsigned char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = (unsigned char)(random_number() >> 11);
}

/* ---- Servers ---- */

const struct kind KIND[KINDS] = {
    [TLS12_ID] = {"TLS 1.2 session id", TLS1_2_VERSION, false, "stateless"},
    [TLS12_TICKET] = {"TLS 1.2 ticket", TLS1_2_VERSION, true, "stateless"},
    [TLS13_STATELESS] = {"TLS 1.3 stateless ticket", TLS1_3_VERSION, true, "stateless"},
    [TLS13_STATEFUL] = {"TLS 1.3 stateful ticket", TLS1_3_VERSION, true, "stateful"},
};

const struct kind *tried_kind;

void for_each_kind_apart(void (*claim)(void))
{
    for (tried_kind = KIND; tried_kind < KIND + KINDS; tried_kind++)
        check_apart(claim);
}

EVP_PKEY *new_key(void)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, NULL);
    CHECK(ctx != NULL && EVP_PKEY_keygen_init(ctx) == 1);
    CHECK(EVP_PKEY_CTX_set_ec_paramgen_curve_nid(ctx, NID_X9_62_prime256v1) == 1);
    CHECK(EVP_PKEY_keygen(ctx, &key) == 1);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static void add_extension(X509 *certificate, size_t len)
{
    unsigned char *bytes = calloc(1, len);
    ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
    ASN1_OBJECT *object = OBJ_txt2obj("1.3.6.1.4.1.32473.1", 1);
    CHECK(bytes != NULL && value != NULL && object != NULL);
    CHECK(ASN1_OCTET_STRING_set(value, bytes, (int)len) == 1);
    X509_EXTENSION *extension = X509_EXTENSION_create_by_OBJ(NULL, object, 0, value);
    CHECK(extension != NULL && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
    ASN1_OBJECT_free(object);
    ASN1_OCTET_STRING_free(value);
    free(bytes);
}

static void add_basic_constraints(X509 *certificate, bool authority)
{
    BASIC_CONSTRAINTS *constraints = BASIC_CONSTRAINTS_new();
    CHECK(constraints != NULL);
    constraints->ca = authority ? 0xff : 0;
    CHECK(X509_add1_ext_i2d(certificate, NID_basic_constraints, constraints, 1, 0) == 1);
    BASIC_CONSTRAINTS_free(constraints);
}

X509 *new_certificate(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key,
                      size_t extension_len)
{
    X509 *certificate = X509_new();
    X509_NAME *subject = X509_NAME_new();
    CHECK(certificate != NULL && subject != NULL);
    CHECK(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                                     -1, 0) == 1);
    CHECK(X509_set_version(certificate, 2) == 1);
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1 + (long)(random_number() >> 1)));
    CHECK(X509_gmtime_adj(X509_getm_notBefore(certificate), -86400L) != NULL);
    CHECK(X509_gmtime_adj(X509_getm_notAfter(certificate), 86400L * 365) != NULL);
    CHECK(X509_set_subject_name(certificate, subject) == 1);
    CHECK(X509_set_issuer_name(certificate, issuer ? X509_get_subject_name(issuer) : subject) == 1);
    CHECK(X509_set_pubkey(certificate, key) == 1);
    add_basic_constraints(certificate, issuer == NULL);
    if (extension_len > 0)
        add_extension(certificate, extension_len);
    CHECK(X509_sign(certificate, issuer_key ? issuer_key : key, EVP_sha256()) > 0);
    X509_NAME_free(subject);
    return certificate;
}

static EVP_PKEY *own_key;

X509 *own_certificate(void)
{
    static X509 *certificate;
    if (certificate == NULL) {
        own_key = new_key();
        certificate = new_certificate("server.example", own_key, NULL, NULL, 0);
    }
    return certificate;
}

#if OPENSSL_VERSION_NUMBER >= 0x30000000L
OSSL_LIB_CTX *library_context;

static SSL_CTX *context_new(const SSL_METHOD *method)
{
    return SSL_CTX_new_ex(library_context, NULL, method);
}
#else
static SSL_CTX *context_new(const SSL_METHOD *method)
{
    return SSL_CTX_new(method);
}
#endif

SSL_CTX *server_new(void)
{
    SSL_CTX *server = context_new(TLS_server_method());
    CHECK(server != NULL);
    CHECK(SSL_CTX_use_certificate(server, own_certificate()) == 1);
    CHECK(SSL_CTX_use_PrivateKey(server, own_key) == 1);
    CHECK(SSL_CTX_set_session_id_context(server, (const unsigned char *)"check", 5) == 1);
    return server;
}

void server_verifies(SSL_CTX *server, X509 *authority)
{
    SSL_CTX_set_verify(server, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(server), authority) == 1);
    CHECK(SSL_CTX_add_client_CA(server, authority) == 1);
}

/* ---- Clients ---- */

__thread bool server_runs;

static int got_session(SSL *client, SSL_SESSION *session)
{
    struct visitor *visitor = SSL_get_app_data(client);
    if (visitor == NULL || SSL_version(client) != TLS1_3_VERSION)
        return 0;
    visitor->tickets++;
    SSL_SESSION_free(visitor->session);
    visitor->session = session;
    return 1;
}

struct visitor visitor_new(const struct kind *kind, const char *name)
{
    struct visitor visitor = {.ctx = context_new(TLS_client_method()), .name = name};
    CHECK(visitor.ctx != NULL);
    CHECK(SSL_CTX_set_min_proto_version(visitor.ctx, kind->version) == 1);
    CHECK(SSL_CTX_set_max_proto_version(visitor.ctx, kind->version) == 1);
    if (!kind->tickets)
        SSL_CTX_set_options(visitor.ctx, SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(visitor.ctx,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(visitor.ctx, got_session);
    return visitor;
}

void visitor_shows(struct visitor *visitor, X509 *certificate, EVP_PKEY *key)
{
    CHECK(SSL_CTX_use_certificate(visitor->ctx, certificate) == 1);
    CHECK(SSL_CTX_use_PrivateKey(visitor->ctx, key) == 1);
}

void visitor_forgets(struct visitor *visitor)
{
    SSL_SESSION_free(visitor->session);
    visitor->session = NULL;
}

void visitor_takes(struct visitor *visitor, SSL_SESSION *session)
{
    SSL_SESSION *copy = session_copy(session);
    SSL_SESSION_free(visitor->session);
    visitor->session = copy;
}

void visitor_free(struct visitor *visitor)
{
    visitor_forgets(visitor);
    SSL_CTX_free(visitor->ctx);
    visitor->ctx = NULL;
}

bool visit(struct visitor *visitor, SSL_CTX *server)
{
    struct pair pair = pair_new(visitor, server);
    CHECK_SAYING(pair_shakes(&pair), "%s, %s", SSL_get_version(pair.server),
                 visitor->name ? visitor->name : "no name");
    bool resumed = SSL_session_reused(pair.server);
    CHECK_EQUAL(SSL_session_reused(pair.client), resumed);
    visitor_leaves(visitor, &pair);
    pair_free(&pair, true);
    return resumed;
}

BIO *memory_bio(void)
{
    BIO *bio = BIO_new(BIO_s_mem());
    CHECK(bio != NULL);
    BIO_set_mem_eof_return(bio, -1);
    return bio;
}

struct pair pair_new(struct visitor *visitor, SSL_CTX *server)
{
    return pair_with(visitor, SSL_new(server));
}

struct pair pair_with(struct visitor *visitor, SSL *server)
{
    struct pair pair = {SSL_new(visitor->ctx), server};
    BIO *client_end = NULL, *server_end = NULL;
    CHECK(pair.client != NULL && pair.server != NULL);
    CHECK(BIO_new_bio_pair(&client_end, 0, &server_end, 0) == 1);
    SSL_set_bio(pair.client, client_end, client_end);
    SSL_set_bio(pair.server, server_end, server_end);
    SSL_set_connect_state(pair.client);
    SSL_set_accept_state(pair.server);
    SSL_set_app_data(pair.client, visitor);
    if (visitor->name != NULL)
        CHECK(SSL_set_tlsext_host_name(pair.client, visitor->name) == 1);
    if (visitor->session != NULL)
        CHECK(SSL_set_session(pair.client, visitor->session) == 1);
    visitor->tickets = 0;
    return pair;
}

enum progress { FAILED, WAITS, DONE };

static enum progress progress(SSL *ssl)
{
    int result = SSL_do_handshake(ssl);
    if (result == 1)
        return DONE;
    int error = SSL_get_error(ssl, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? WAITS : FAILED;
}

static enum progress step(struct pair *pair)
{
    enum progress client = progress(pair->client);
    if (client == FAILED)
        return FAILED;
    server_runs = true;
    enum progress server = progress(pair->server);
    server_runs = false;
    return server < client ? server : client;
}

bool pair_steps(struct pair *pair)
{
    enum progress now = step(pair);
    CHECK(now != FAILED);
    return now == DONE;
}

/* More steps than the largest handshake of the tests takes through the small buffers between the two. */
enum { MOST_STEPS = 100 };

/* The client takes its tickets in, which may be more than fit between the two at once. */
static bool client_reads(struct pair *pair)
{
    char byte;
    int result = SSL_read(pair->client, &byte, 1);
    return SSL_get_error(pair->client, result) == SSL_ERROR_WANT_READ;
}

bool pair_shakes(struct pair *pair)
{
    enum progress now = WAITS;
    for (int steps = 0; now == WAITS && steps < MOST_STEPS; steps++) {
        now = step(pair);
        if (now != FAILED && SSL_is_init_finished(pair->client) && !client_reads(pair))
            return false;
    }
    return now == DONE;
}

void visitor_leaves(struct visitor *visitor, struct pair *pair)
{
    if (SSL_version(pair->client) == TLS1_3_VERSION)
        return;
    SSL_SESSION *session = SSL_get1_session(pair->client);
    SSL_SESSION_free(visitor->session);
    visitor->session = session;
}

void pair_free(struct pair *pair, bool properly)
{
    SSL_set_shutdown(pair->client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    if (properly)
        SSL_set_shutdown(pair->server, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    server_runs = true;
    SSL_free(pair->server);
    server_runs = false;
    SSL_free(pair->client);
    pair->client = pair->server = NULL;
}

SSL_SESSION *session_copy(SSL_SESSION *session)
{
    unsigned char *bytes = NULL;
    int len = i2d_SSL_SESSION(session, &bytes);
    CHECK(len > 0);
    const unsigned char *start = bytes;
    SSL_SESSION *copy = d2i_SSL_SESSION(NULL, &start, len);
    CHECK(copy != NULL);
    OPENSSL_free(bytes);
    return copy;
}

/* ---- Clients that repeat their random ---- */

enum { CLIENT_RANDOM_LEN = 32 };

static const unsigned char AS_EVER = 0x5a;

static bool repeats;    /* the next random number of that length is the same as ever */

static int repeating(unsigned char *bytes, int len)
{
    if (repeats && len == CLIENT_RANDOM_LEN) {
        memset(bytes, AS_EVER, CLIENT_RANDOM_LEN);
        repeats = false;
    } else {
        random_bytes(bytes, (size_t)len);
    }
    return 1;
}

static int always_ready(void)
{
    return 1;
}

void let_clients_repeat(void)
{
    static RAND_METHOD method = {NULL, repeating, NULL, NULL, repeating, always_ready};
    CHECK(RAND_set_rand_method(&method) == 1);
}

void client_begins_as_ever(struct pair *pair)
{
    unsigned char shown[CLIENT_RANDOM_LEN], expected[CLIENT_RANDOM_LEN];
    repeats = true;
    CHECK(SSL_do_handshake(pair->client) != 1);
    repeats = false;
    memset(expected, AS_EVER, sizeof expected);
    CHECK_EQUAL(SSL_get_client_random(pair->client, shown, sizeof shown), sizeof shown);
    CHECK(memcmp(shown, expected, sizeof shown) == 0);
}
