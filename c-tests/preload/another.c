/* Another library with OpenSSL's names, as a module brings it: it knows its own objects, and ends the program when it is
 * given anybody else's. */
#define _POSIX_C_SOURCE 200809L

#include "another.h"

#include <stdio.h>
#include <stdlib.h>

/* The names of OpenSSL, with types of our own: this file has none of its headers. */
struct method {
    int any;
};
typedef struct object SSL_CTX;
typedef struct object SSL;

struct object {
    unsigned long kind;
    long value;
    struct object *ctx;
};

enum { CTX = 0xc0ffee, CONNECTION = 0xbeef };

SSL_CTX *SSL_CTX_new(const struct method *method);
SSL *SSL_new(SSL_CTX *ctx);
long SSL_CTX_set_timeout(SSL_CTX *ctx, long seconds);
long SSL_CTX_get_timeout(const SSL_CTX *ctx);
long SSL_CTX_ctrl(SSL_CTX *ctx, int command, long value, void *data);
unsigned long long SSL_CTX_set_options(SSL_CTX *ctx, unsigned long long options);
void SSL_set_connect_state(SSL *ssl);
SSL_CTX *SSL_set_SSL_CTX(SSL *ssl, SSL_CTX *ctx);

static void is(const struct object *object, unsigned long kind)
{
    if (object != NULL && object->kind == kind)
        return;
    fprintf(stderr, "another library got an object that is not its own\n");
    _Exit(1);
}

static struct object *make(unsigned long kind, size_t room)
{
    struct object *object = calloc(1, room > sizeof *object ? room : sizeof *object);
    if (object == NULL)
        _Exit(1);
    object->kind = kind;
    return object;
}

static size_t room;

SSL_CTX *SSL_CTX_new(const struct method *method)
{
    if (method->any != CTX)
        _Exit(1);
    return make(CTX, room);
}

SSL *SSL_new(SSL_CTX *ctx)
{
    is(ctx, CTX);
    SSL *ssl = make(CONNECTION, room);
    ssl->ctx = ctx;
    return ssl;
}

long SSL_CTX_set_timeout(SSL_CTX *ctx, long seconds)
{
    is(ctx, CTX);
    ctx->value = -seconds;
    return 1;
}

long SSL_CTX_get_timeout(const SSL_CTX *ctx)
{
    is(ctx, CTX);
    return ctx->value;
}

long SSL_CTX_ctrl(SSL_CTX *ctx, int command, long value, void *data)
{
    is(ctx, CTX);
    return data == NULL ? command + value : 0;
}

unsigned long long SSL_CTX_set_options(SSL_CTX *ctx, unsigned long long options)
{
    is(ctx, CTX);
    return options + 1;
}

void SSL_set_connect_state(SSL *ssl)
{
    is(ssl, CONNECTION);
    ssl->value++;
}

SSL_CTX *SSL_set_SSL_CTX(SSL *ssl, SSL_CTX *ctx)
{
    is(ssl, CONNECTION);
    is(ctx, CTX);
    return ssl->ctx = ctx;
}

static void expect(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "another library: %s\n", what);
    _Exit(1);
}

static const struct method METHOD = {CTX};

/* Objects as large as those of the real library, so that they take turns at the same addresses. */
void another_library_at_work(size_t size)
{
    room = size;
    SSL_CTX *ctx = SSL_CTX_new(&METHOD), *other = SSL_CTX_new(&METHOD);
    expect(SSL_CTX_set_timeout(ctx, 5) == 1, "set_timeout");
    expect(SSL_CTX_get_timeout(ctx) == -5, "get_timeout");
    expect(SSL_CTX_ctrl(ctx, 44, 2, NULL) == 46, "ctrl");
    expect(SSL_CTX_set_options(ctx, 1ULL << 40) == (1ULL << 40) + 1, "set_options");
    SSL *ssl = SSL_new(ctx);
    SSL_set_connect_state(ssl);
    expect(ssl->value == 1, "set_connect_state");
    expect(SSL_set_SSL_CTX(ssl, other) == other, "set_SSL_CTX");
    free(ssl);
    free(other);
    free(ctx);
}
