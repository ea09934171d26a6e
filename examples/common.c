#define _POSIX_C_SOURCE 200809L

#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    ERR_print_errors_fp(stderr);
    exit(1);
}

void die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before we could ask */
        _exit(1);
}

long parse_number(const char *option, const char *text, long min, long max)
{
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || number < min || number > max)
        die("%s: \"%s\" is not a number from %ld to %ld", option, text, min, max);
    return number;
}

struct addrinfo *resolve(const char *address)
{
    char host[ADDRESS_MAX];
    const char *colon = strrchr(address, ':');
    if (colon == NULL || (size_t)(colon - address) >= sizeof host)
        die("%s is not of the form ADDR:PORT", address);

    int bracketed = colon > address && address[0] == '[' && colon[-1] == ']';
    int length = (int)(colon - address) - 2 * bracketed;
    snprintf(host, sizeof host, "%.*s", length, address + bracketed);

    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(host, colon + 1, &hints, &found);
    if (error != 0)
        die("%s: %s", address, gai_strerror(error));
    return found;
}

int listen_on(const char *address)
{
    struct addrinfo *target = resolve(address);
    const int on = 1;
    int listener = socket(target->ai_family, SOCK_STREAM, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(listener, target->ai_addr, target->ai_addrlen) != 0 ||
        listen(listener, SOMAXCONN) != 0 || fcntl(listener, F_SETFL, O_NONBLOCK) != 0)
        die("cannot listen on %s: %s", address, strerror(errno));
    freeaddrinfo(target);
    return listener;
}

int connect_to(const char *address)
{
    struct addrinfo *target = resolve(address);
    int connection = socket(target->ai_family, SOCK_STREAM, 0);
    if (connection >= 0 && connect(connection, target->ai_addr, target->ai_addrlen) != 0) {
        int reason = errno;
        close(connection);
        errno = reason;
        connection = -1;
    }
    freeaddrinfo(target);
    return connection;
}

void prepare_connection(int connection, int timeout_s)
{
    const struct timeval limit = {.tv_sec = timeout_s};
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    /* A TLS flight can be several small writes, which would wait for each other's ACK. */
    const int on = 1;
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void local_address(int socket, char out[ADDRESS_MAX])
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    char host[ADDRESS_MAX / 2 + 14], port[8];
    if (getsockname(socket, (struct sockaddr *)&address, &size) != 0 ||
        getnameinfo((struct sockaddr *)&address, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        die("cannot tell the address of a socket: %s", strerror(errno));
    snprintf(out, ADDRESS_MAX, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static EVP_PKEY *make_p256_key(void)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *maker = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, NULL);
    if (maker == NULL || EVP_PKEY_keygen_init(maker) != 1 ||
        EVP_PKEY_CTX_set_ec_paramgen_curve_nid(maker, NID_X9_62_prime256v1) != 1 ||
        EVP_PKEY_keygen(maker, &key) != 1)
        die("cannot make a P-256 key");
    EVP_PKEY_CTX_free(maker);
    return key;
}

void use_self_signed_certificate(SSL_CTX *ctx)
{
    const unsigned char name_text[] = "tlsresume example";
    const long a_day_ago = -24 * 3600, a_year = 365 * 24 * 3600;

    EVP_PKEY *key = make_p256_key();
    X509 *certificate = X509_new();
    X509_NAME *name = X509_NAME_new();
    if (certificate == NULL || name == NULL ||
        !X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, name_text, -1, -1, 0) ||
        !X509_set_version(certificate, 2) ||
        !ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1) ||
        !X509_gmtime_adj(X509_getm_notBefore(certificate), a_day_ago) ||
        !X509_gmtime_adj(X509_getm_notAfter(certificate), a_year) ||
        !X509_set_subject_name(certificate, name) || !X509_set_issuer_name(certificate, name) ||
        !X509_set_pubkey(certificate, key) || !X509_sign(certificate, key, EVP_sha256()) ||
        !SSL_CTX_use_certificate(ctx, certificate) || !SSL_CTX_use_PrivateKey(ctx, key))
        die("cannot make a self-signed certificate");
    X509_NAME_free(name);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

uint64_t clock_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}
