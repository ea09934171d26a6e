/* One thread frees a connection while another one logs its client out. */
#define _GNU_SOURCE

#include "check.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

/* Milliseconds that one thread waits for the other where they may not be able to meet. */
enum { MOST_WAIT = 50 };

static struct {
    SSL_CTX *server;
    SSL_SESSION *session;    /* that is to be removed */
    atomic_int asked;        /* the last round in which it is to be */
    atomic_int met;          /* in which the other thread is in the midst of it, or past it */
    atomic_int removed;      /* in which it was */
    atomic_int freed;        /* in which SSL_free() came back */
    atomic_bool is_freed;    /* the connection of this round */
    atomic_bool over;
    bool is_asked_when_freed;
} race;

/* A number that only one thread changes reaches what is awaited, or time is over. */
static void waits_for(atomic_int *number, int round, long most)
{
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (unsigned tries = 1; atomic_load(number) < round && !atomic_load(&race.over); tries++) {
        if (tries % 256 != 0)
            continue;
        sched_yield();
        clock_gettime(CLOCK_MONOTONIC, &now);
        if ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 > most)
            return;
    }
}

/* ---- The thread that logs out ---- */

static __thread bool logs_out_now;

/* The library finds this one before that of OpenSSL. Whoever takes a reference to the connection of another thread has it
 * still when that one frees it. */
int SSL_up_ref(SSL *ssl)
{
    int (*real)(SSL *);
    *(void **)&real = dlsym(RTLD_NEXT, "SSL_up_ref");
    int result = real(ssl);
    if (logs_out_now && result == 1) {
        atomic_store(&race.met, atomic_load(&race.asked));
        waits_for(&race.freed, atomic_load(&race.asked), MOST_WAIT);
    }
    return result;
}

/* So that the two meet at another place each time. */
static void idles(int turns)
{
    for (volatile int turn = 0; turn < turns; turn++)
        ;
}

static void *logs_out(void *arg)
{
    (void)arg;
    for (int round = 1;; round++) {
        while (atomic_load(&race.asked) < round && !atomic_load(&race.over))
            waits_for(&race.asked, round, MOST_WAIT);
        if (atomic_load(&race.over))
            return NULL;
        idles(round * 7 % 400);
        logs_out_now = true;
        SSL_CTX_remove_session(race.server, race.session);
        logs_out_now = false;
        atomic_store(&race.met, round);
        atomic_store(&race.removed, round);
    }
}

/* ---- The thread that frees ---- */

static int index_of_round;

static void on_freed(void *ssl, void *round, CRYPTO_EX_DATA *all, int index, long number, void *pointer)
{
    (void)ssl, (void)all, (void)index, (void)number, (void)pointer;
    if (round == NULL)
        return;
    CHECK_SAYING(!logs_out_now, "round %d: freed by the thread that logs out", *(int *)round);
    atomic_store(&race.is_freed, true);
    if (race.is_asked_when_freed) {
        atomic_store(&race.asked, *(int *)round);
        waits_for(&race.removed, *(int *)round, MOST_WAIT);
    }
}

/* The connection of one round, which is properly closed. */
static void is_freed(struct pair *pair, int round)
{
    CHECK(SSL_set_ex_data(pair->server, index_of_round, &round) == 1);
    SSL_set_shutdown(pair->server, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    atomic_store(&race.is_freed, false);
    if (!race.is_asked_when_freed) {
        atomic_store(&race.asked, round);
        if (round % 2)
            idles(round * 13 % 600);
        else
            waits_for(&race.met, round, MOST_WAIT);
    }
    SSL_free(pair->server);
    CHECK_SAYING(atomic_load(&race.is_freed), "round %d: SSL_free() came back before it was freed", round);
    atomic_store(&race.freed, round);
    while (atomic_load(&race.removed) < round)
        waits_for(&race.removed, round, MOST_WAIT);
    SSL_set_shutdown(pair->client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(pair->client);
}

static void both_at_once(const struct kind *kind, int rounds)
{
    pthread_t other;
    TLSRESUME *tr = realm_of(kind, "");
    race.server = attached_server(tr);
    atomic_store(&race.asked, 0);
    atomic_store(&race.met, 0);
    atomic_store(&race.removed, 0);
    atomic_store(&race.freed, 0);
    atomic_store(&race.over, false);
    struct visitor visitor = visitor_new(kind, "a.example");
    CHECK(pthread_create(&other, NULL, logs_out, NULL) == 0);
    for (int round = 1; round <= rounds; round++) {
        visitor_forgets(&visitor);
        struct pair pair = pair_new(&visitor, race.server);
        CHECK(pair_shakes(&pair));
        visitor_leaves(&visitor, &pair);
        race.session = SSL_get1_session(pair.server);
        is_freed(&pair, round);
        SSL_SESSION_free(race.session);
        CHECK_SAYING(!visit(&visitor, race.server), "%s, round %d: the logout was lost", kind->name, round);
    }
    atomic_store(&race.over, true);
    CHECK(pthread_join(other, NULL) == 0);
    visitor_free(&visitor);
    SSL_CTX_free(race.server);
    tlsresume_free(tr);
}

static bool has_name_to_remove(int kind)
{
    return kind != TLS12_TICKET; /* has no id that it could be removed by */
}

static void a_logout_counts_while_another_thread_frees_the_connection(void)
{
    race.is_asked_when_freed = true;
    for (int k = 0; k < KINDS; k++)
        if (has_name_to_remove(k))
            both_at_once(&KIND[k], scaled(10));
}

static void a_logout_elsewhere_keeps_nobody_from_freeing_the_connection(void)
{
    race.is_asked_when_freed = false;
    for (int k = 0; k < KINDS; k++)
        if (has_name_to_remove(k))
            both_at_once(&KIND[k], scaled(200));
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    own_certificate();
    /* Before the library takes an index, so that what lies there is freed before what is the library's. */
    index_of_round = SSL_get_ex_new_index(0, NULL, NULL, NULL, on_freed);
    CLAIM(a_logout_counts_while_another_thread_frees_the_connection);
    CLAIM(a_logout_elsewhere_keeps_nobody_from_freeing_the_connection);
    return check_end();
}
