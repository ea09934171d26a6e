#define _POSIX_C_SOURCE 200809L

#include "serve.h"

#include "common.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A client that says nothing for this long is dropped, so it cannot block its loop. */
#define TIMEOUT_S 5

#define REQUEST_MAX 16384
#define HEAD_MAX 128
#define BODY_MAX 65536

struct request {
    char text[REQUEST_MAX + 1]; /* always ends with NUL */
    size_t length;
};

static void serve_client(const struct serving_loop *loop, int client);
static int handshake(SSL *ssl, struct request *request);
static int read_early_data(SSL *ssl, struct request *request);
static int read_request(SSL *ssl, struct request *request);
static int is_complete(const struct request *request);
static void respond(const struct serving_loop *loop, SSL *ssl, const struct request *request,
                    uint64_t cpu_us);
static void describe_connection(const struct serving_loop *loop, SSL *ssl, uint64_t cpu_us,
                                char body[BODY_MAX]);
static void describe_metrics(TLSRESUME *tr, char body[BODY_MAX]);

void serve(const struct serving_loop *loop)
{
    struct pollfd sources[] = {
        {.fd = loop->lifeline, .events = POLLIN},
        {.fd = loop->shared, .events = POLLIN},
        {.fd = loop->direct, .events = POLLIN},
    };

    while (poll(sources, 3, -1) >= 0 || errno == EINTR) {
        if (sources[0].revents != 0)
            return;
        for (int i = 1; i < 3; i++) {
            /* The listeners do not block: another loop may have been faster. */
            int client = sources[i].revents != 0 ? accept(sources[i].fd, NULL, NULL) : -1;
            if (client >= 0)
                serve_client(loop, client);
        }
    }
}

static void serve_client(const struct serving_loop *loop, int client)
{
    struct request request = {.length = 0};
    prepare_connection(client, TIMEOUT_S);

    SSL *ssl = SSL_new(loop->ctx);
    if (ssl != NULL && SSL_set_fd(ssl, client)) {
        uint64_t before = clock_us(CLOCK_THREAD_CPUTIME_ID);
        if (handshake(ssl, &request)) {
            uint64_t cpu_us = clock_us(CLOCK_THREAD_CPUTIME_ID) - before;
            int error = read_request(ssl, &request);
            if (error == SSL_ERROR_NONE)
                respond(loop, ssl, &request, cpu_us);
            if (error != SSL_ERROR_SSL && error != SSL_ERROR_SYSCALL)
                SSL_shutdown(ssl);
        }
    }
    SSL_free(ssl);
    close(client);
    /* What went wrong with this client must not be blamed on the next one. */
    ERR_clear_error();
}

static int handshake(SSL *ssl, struct request *request)
{
    if (SSL_get_max_early_data(ssl) > 0 && !read_early_data(ssl, request))
        return 0;
    return SSL_accept(ssl) == 1;
}

/* Must come before SSL_accept(), also when the client turns out to send none. */
static int read_early_data(SSL *ssl, struct request *request)
{
    while (request->length < REQUEST_MAX) {
        size_t count = 0;
        int result = SSL_read_early_data(ssl, request->text + request->length,
                                         REQUEST_MAX - request->length, &count);
        request->length += count;
        if (result != SSL_READ_EARLY_DATA_SUCCESS)
            return result == SSL_READ_EARLY_DATA_FINISH;
    }
    return 0;
}

/* SSL_ERROR_NONE, or the reason why there is no whole request. */
static int read_request(SSL *ssl, struct request *request)
{
    while (!is_complete(request)) {
        int count = SSL_read(ssl, request->text + request->length,
                             (int)(REQUEST_MAX - request->length));
        if (count <= 0)
            return SSL_get_error(ssl, count);
        request->length += (size_t)count;
    }
    return SSL_ERROR_NONE;
}

/* A request line without "HTTP/" has no headers; others end with an empty line. */
static int is_complete(const struct request *request)
{
    const char *line_end = strchr(request->text, '\n');
    if (line_end == NULL)
        return request->length == REQUEST_MAX;

    const char *protocol = strstr(request->text, " HTTP/");
    int has_headers = protocol != NULL && protocol < line_end;
    return !has_headers || strstr(line_end, "\n\r\n") != NULL || strstr(line_end, "\n\n") != NULL ||
           request->length == REQUEST_MAX;
}

static void respond(const struct serving_loop *loop, SSL *ssl, const struct request *request,
                    uint64_t cpu_us)
{
    int wants_metrics = strncmp(request->text, "GET /stats", strlen("GET /stats")) == 0;
    char body[BODY_MAX], response[BODY_MAX + HEAD_MAX];
    if (wants_metrics)
        describe_metrics(loop->tr, body);
    else
        describe_connection(loop, ssl, cpu_us, body);

    int length = snprintf(response, sizeof response,
                          "HTTP/1.0 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s",
                          wants_metrics ? "text/plain" : "application/json", strlen(body), body);
    SSL_write(ssl, response, length);
}

/* The name that the client asked for, without what would need escapes in JSON. */
static void server_name(SSL *ssl, char out[256])
{
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    snprintf(out, 256, "%s", name != NULL ? name : "");
    for (char *c = out; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr(".-_", *c) == NULL)
            *c = '?';
}

static const char *early_data_status(SSL *ssl)
{
    switch (SSL_get_early_data_status(ssl)) {
    case SSL_EARLY_DATA_ACCEPTED:
        return "accepted";
    case SSL_EARLY_DATA_REJECTED:
        return "rejected";
    default:
        return "not sent";
    }
}

static void describe_connection(const struct serving_loop *loop, SSL *ssl, uint64_t cpu_us,
                                char body[BODY_MAX])
{
    char name[256];
    server_name(ssl, name);

    X509 *certificate = SSL_get_peer_certificate(ssl);
    int has_client_certificate = certificate != NULL;
    X509_free(certificate);

    snprintf(body, BODY_MAX,
             "{\"server\":\"%s\",\"worker\":%d,\"thread\":%d,\"pid\":%ld,\"version\":\"%s\","
             "\"resumed\":%s,\"name\":\"%s\",\"client_cert\":%s,\"early_data\":\"%s\","
             "\"cpu_us\":%llu}\n",
             loop->server, loop->worker, loop->thread, (long)getpid(), SSL_get_version(ssl),
             SSL_session_reused(ssl) ? "true" : "false", name,
             has_client_certificate ? "true" : "false", early_data_status(ssl),
             (unsigned long long)cpu_us);
}

static void describe_metrics(TLSRESUME *tr, char body[BODY_MAX])
{
    size_t room = BODY_MAX;
    if (tr == NULL)
        snprintf(body, BODY_MAX, "# start the server with --handle to see metrics\n");
    else if (!tlsresume_metrics(tr, body, &room))
        snprintf(body, BODY_MAX, "# metrics are not available\n");
}
