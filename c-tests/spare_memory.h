/* OpenSSL gets its memory here: what has the size of a session is given out again at once, the last first, as malloc()
 * does where no sanitizer and no valgrind keeps it back. To be included once by a program, which begins with
 * begins_to_give_out_again(). */
#ifndef SPARE_MEMORY_H
#define SPARE_MEMORY_H

#include "check.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

union header {
    size_t len;
    long double aligned;
};

static size_t session_len;
static union header *spares[64];
static int spare_count;
static pthread_mutex_t spares_lock = PTHREAD_MUTEX_INITIALIZER;

static union header *spare_of(size_t len)
{
    union header *found = NULL;
    pthread_mutex_lock(&spares_lock);
    if (len == session_len && spare_count > 0)
        found = spares[--spare_count];
    pthread_mutex_unlock(&spares_lock);
    return found;
}

static bool is_kept(union header *block)
{
    pthread_mutex_lock(&spares_lock);
    bool kept = block->len == session_len && spare_count < (int)(sizeof spares / sizeof *spares);
    if (kept)
        spares[spare_count++] = block;
    pthread_mutex_unlock(&spares_lock);
    return kept;
}

static void *gives(size_t len, const char *file, int line)
{
    (void)file, (void)line;
    union header *block = spare_of(len);
    if (block == NULL)
        block = malloc(sizeof *block + len);
    if (block == NULL)
        return NULL;
    block->len = len;
    return block + 1;
}

static void takes(void *bytes, const char *file, int line)
{
    (void)file, (void)line;
    union header *block = bytes == NULL ? NULL : (union header *)bytes - 1;
    if (block != NULL && !is_kept(block))
        free(block);
}

static void *resizes(void *bytes, size_t len, const char *file, int line)
{
    void *other = len > 0 ? gives(len, file, line) : NULL;
    if (bytes != NULL && other != NULL) {
        size_t before = ((union header *)bytes - 1)->len;
        memcpy(other, bytes, before < len ? before : len);
    }
    if (other != NULL || len == 0)
        takes(bytes, file, line);
    return other;
}

static void begins_to_give_out_again(void)
{
    CHECK(CRYPTO_set_mem_functions(gives, resizes, takes) == 1);
    SSL_SESSION *session = SSL_SESSION_new();
    CHECK(session != NULL);
    session_len = ((union header *)session - 1)->len;
    SSL_SESSION_free(session);
}

#endif
