/* Threads and children that meet a library which nobody prepared them for. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 8, MOST_DER = 16384 };

static pthread_barrier_t barrier;

static void in_threads(void *(*run)(void *), void *argument)
{
    pthread_t threads[THREADS];
    CHECK(pthread_barrier_init(&barrier, NULL, THREADS) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, run, argument) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    pthread_barrier_destroy(&barrier);
}

/* ---- The first connections of a context ---- */

static void *makes_a_connection(void *argument)
{
    SSL_CTX *server = argument;
    pthread_barrier_wait(&barrier);
    SSL *first = SSL_new(server), *later = SSL_new(server);
    CHECK(first != NULL && later != NULL);
    /* Whatever the context is given, no connection goes without. */
    CHECK(SSL_get_options(first) == SSL_get_options(later));
    CHECK_EQUAL(SSL_get_num_tickets(first), SSL_get_num_tickets(later));
    SSL_free(first);
    SSL_free(later);
    return NULL;
}

static void the_first_connections_of_a_context_are_like_all_others(void)
{
    for (int i = 0; i < scaled(300); i++) {
        SSL_CTX *server = server_new();
        in_threads(makes_a_connection, server);
        SSL_CTX_free(server);
    }
}

static SSL_CTX *elsewhere;

static void *visits(void *argument)
{
    SSL_CTX *server = argument;
    pthread_barrier_wait(&barrier);
    SSL *first = SSL_new(server);
    CHECK(first != NULL);
    /* While a context is being attached, handshakes of others may be full ones; and a store that others keep for a
     * millisecond takes no session. What the race left behind is looked at by one thread after the other. */
    pthread_barrier_wait(&barrier);
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&one_at_a_time);
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, server));
        CHECK_SAYING(visit(&visitor, elsewhere), "%s", KIND[k].name);
        visitor_free(&visitor);
    }
    pthread_mutex_unlock(&one_at_a_time);
    SSL_free(first);
    return NULL;
}

static void threads_that_make_the_first_connections_all_share(void)
{
    elsewhere = server_new();
    SSL_free(SSL_new(elsewhere));
    for (int i = 0; i < scaled(20); i++) {
        SSL_CTX *server = server_new();
        in_threads(visits, server);
        SSL_CTX_free(server);
    }
    SSL_CTX_free(elsewhere);
}

/* ---- The first contexts of a process ---- */

static const unsigned char OWN[] = "own";

static void *names_its_context(void *argument)
{
    (void)argument;
    pthread_barrier_wait(&barrier);
    SSL_CTX *server = server_new();
    CHECK(SSL_CTX_set_session_id_context(server, OWN, sizeof OWN) == 1);
    struct visitor visitor = visitor_new(&KIND[TLS12_ID], NULL);
    struct pair pair = pair_new(&visitor, server);
    CHECK(pair_shakes(&pair));
    unsigned len = 0;
    const unsigned char *id = SSL_SESSION_get0_id_context(SSL_get_session(pair.server), &len);
    CHECK(len == sizeof OWN && memcmp(id, OWN, len) == 0);
    pair_free(&pair, true);
    visitor_free(&visitor);
    SSL_CTX_free(server);
    return NULL;
}

/* Each in a process that has made no context so far. */
static void what_threads_say_of_the_first_contexts_is_heard(void)
{
    own_certificate();
    for (int i = 0; i < scaled(20); i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            in_threads(names_its_context, NULL);
            _exit(0);
        }
        check_child(child);
    }
}

/* ---- Children ---- */

static void sends(int pipe, SSL_SESSION *session)
{
    unsigned char der[MOST_DER], *end = der;
    int len = i2d_SSL_SESSION(session, &end);
    CHECK(len > 0 && write(pipe, der, (size_t)len) == len);
}

static SSL_SESSION *receives(int pipe)
{
    unsigned char der[MOST_DER];
    const unsigned char *start = der;
    ssize_t len = read(pipe, der, sizeof der);
    CHECK(len > 0);
    return d2i_SSL_SESSION(NULL, &start, len);
}

static void in_a_child(void (*run)(const struct kind *, SSL_CTX *, const int *),
                       const struct kind *kind, SSL_CTX *server, const int *pipe)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        run(kind, server, pipe);
        _exit(0);
    }
    check_child(child);
}

static void comes(const struct kind *kind, SSL_CTX *server, const int *pipe)
{
    struct visitor visitor = visitor_new(kind, "a.example");
    CHECK(!visit(&visitor, server));
    sends(pipe[1], visitor.session);
    visitor_free(&visitor);
}

static void comes_back(const struct kind *kind, SSL_CTX *server, const int *pipe)
{
    struct visitor visitor = visitor_new(kind, "a.example");
    visitor.session = receives(pipe[0]);
    CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
    visitor_free(&visitor);
}

static void children_share_what_their_parent_never_saw(void)
{
    SSL_CTX *server = server_new();
    for (const struct kind *kind = KIND; kind <= &KIND[TLS13_STATELESS]; kind++) {
        int ends[2];
        CHECK(pipe(ends) == 0);
        in_a_child(comes, kind, server, ends);
        in_a_child(comes_back, kind, server, ends);
        close(ends[0]);
        close(ends[1]);
    }
    SSL_CTX_free(server);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM_APART(what_threads_say_of_the_first_contexts_is_heard);
    CLAIM_APART(children_share_what_their_parent_never_saw);
    CLAIM(threads_that_make_the_first_connections_all_share);
    CLAIM(the_first_connections_of_a_context_are_like_all_others);
    return check_end();
}
