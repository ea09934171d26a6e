/* A program with OpenSSL, one of whose modules brings another library with the same names. */
#include "check.h"

#include <pthread.h>

#include "another.h"

/* About what OpenSSL allocates for a context and for a connection, and what lies between. */
static const size_t SIZES[] = {64, 1024, 1192, 3000, 6200};
enum { SIZE_COUNT = sizeof SIZES / sizeof *SIZES, THREADS = 4 };

/* What every connection of a server gets, from OpenSSL and whatever stands before it. */
static uint64_t options;

static uint64_t options_of_a_connection(SSL_CTX *server)
{
    SSL *ssl = SSL_new(server);
    CHECK(ssl != NULL);
    uint64_t found = SSL_get_options(ssl);
    SSL_free(ssl);
    return found;
}

static void both_at_work(int rounds)
{
    for (int i = 0; i < rounds; i++) {
        another_library_at_work(SIZES[i % SIZE_COUNT]);
        SSL_CTX *server = server_new();
        another_library_at_work(SIZES[(i + 1) % SIZE_COUNT]);
        SSL_CTX_set_timeout(server, 6);
        CHECK_EQUAL(SSL_CTX_get_timeout(server), 6);
        CHECK(options_of_a_connection(server) == options);
        struct visitor visitor = visitor_new(&KIND[i % TLS13_STATEFUL], "a.example");
        CHECK(!visit(&visitor, server));
        another_library_at_work(SIZES[(i + 2) % SIZE_COUNT]);
        visit(&visitor, server);
        visitor_free(&visitor);
        SSL_CTX_free(server);
    }
}

static void two_libraries_keep_their_objects_apart(void)
{
    both_at_work(scaled(300));
}

static void *at_work(void *argument)
{
    both_at_work(scaled(100));
    return argument;
}

static void two_libraries_keep_their_objects_apart_in_threads(void)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, at_work, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    /* The other library comes first. */
    another_library_at_work(SIZES[0]);
    SSL_CTX *server = server_new();
    options = options_of_a_connection(server);
    SSL_CTX_free(server);
    CLAIM(two_libraries_keep_their_objects_apart);
    CLAIM(two_libraries_keep_their_objects_apart_in_threads);
    return check_end();
}
