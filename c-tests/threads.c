/* Many threads on one context, while keys, contexts and statistics come and go. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { THREADS = 8 };

static struct crowd {
    const struct kind *kind;
    TLSRESUME *tr;
    SSL_CTX *server;
    int visits;
    atomic_int resumed;
    int dropped;    /* sessions that found the store locked for a millisecond: a resumption each */
    atomic_bool over;
} crowd;

static void *come_again(void *arg)
{
    struct visitor visitor = visitor_new(crowd.kind, arg);
    CHECK(!visit(&visitor, crowd.server));
    for (int i = 0; i < crowd.visits; i++)
        atomic_fetch_add(&crowd.resumed, visit(&visitor, crowd.server));
    visitor_free(&visitor);
    return NULL;
}

/* All threads with one server and a companion that disturbs them: how many visits resumed. */
static int crowd_resumes(const struct kind *kind, const char *toml, void *(*companion)(void *))
{
    static const char *const NAMES[] = {"a.example", "b.example", "c.example", NULL};
    pthread_t threads[THREADS], other;
    crowd.kind = kind;
    crowd.tr = realm_of(kind, toml);
    crowd.server = attached_server(crowd.tr);
    crowd.visits = scaled(40);
    atomic_store(&crowd.resumed, 0);
    atomic_store(&crowd.over, false);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, come_again, (void *)(intptr_t)NAMES[i % 4]) == 0);
    CHECK(pthread_create(&other, NULL, companion, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    atomic_store(&crowd.over, true);
    CHECK(pthread_join(other, NULL) == 0);
    crowd.dropped = (int)stats_of(crowd.tr).sessions_dropped;
    SSL_CTX_free(crowd.server);
    tlsresume_free(crowd.tr);
    return atomic_load(&crowd.resumed);
}

static void *rotate(void *arg)
{
    (void)arg;
    for (int i = 0; i < 200 && !atomic_load(&crowd.over); i++) {
        CHECK(tlsresume_keys_rotate(crowd.tr) == 1);
        for (int pause = 0; pause < 20; pause++)
            sched_yield();
    }
    return NULL;
}

static void rotation_in_the_background_loses_no_resumption(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        int resumed = crowd_resumes(kind, "[keys]\nactivation_delay = \"0s\"\n", rotate);
        CHECK_SAYING(resumed + crowd.dropped >= THREADS * crowd.visits, "%s: %d of %d, %d dropped",
                     kind->name, resumed, THREADS * crowd.visits, crowd.dropped);
    }
}

static void *report(void *arg)
{
    (void)arg;
    while (!atomic_load(&crowd.over)) {
        char text[16384];
        size_t len = sizeof text;
        CHECK(tlsresume_metrics(crowd.tr, text, &len) == 1);
        stats_of(crowd.tr);
        CHECK(tlsresume_session_remove(crowd.tr, (const unsigned char *)text, 32) == 1);
    }
    return NULL;
}

static void reports_in_the_background_lose_no_resumption(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        int resumed = crowd_resumes(kind, "[memory]\nsize = \"2MiB\"\n", report);
        CHECK_SAYING(resumed + crowd.dropped >= THREADS * crowd.visits, "%s: %d of %d, %d dropped",
                     kind->name, resumed, THREADS * crowd.visits, crowd.dropped);
    }
}

static void *attach_and_detach(void *arg)
{
    (void)arg;
    while (!atomic_load(&crowd.over)) {
        SSL_CTX *other = SSL_CTX_new(TLS_server_method());
        CHECK(tlsresume_attach(crowd.tr, other) == 1);
        if (random_number() % 2)
            CHECK(tlsresume_detach(other) == 1);
        SSL_CTX_free(other);
    }
    return NULL;
}

/* While the set of contexts changes it may be unknown for a moment whether one verifies clients. */
static void contexts_that_come_and_go_lose_few_resumptions(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        int resumed = crowd_resumes(kind, "", attach_and_detach);
        CHECK_SAYING(resumed >= THREADS * crowd.visits * 9 / 10, "%s: %d of %d", kind->name,
                     resumed, THREADS * crowd.visits);
    }
}

static void *revoke_and_flush(void *arg)
{
    (void)arg;
    while (!atomic_load(&crowd.over)) {
        CHECK(tlsresume_keys_revoke(crowd.tr, NULL) == 1);
        CHECK(tlsresume_sessions_flush(crowd.tr) == 1);
        for (int pause = 0; pause < 50; pause++)
            sched_yield();
    }
    return NULL;
}

static void revocations_and_flushes_fail_no_handshake(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        crowd_resumes(kind, "[memory]\nsize = \"2MiB\"\n", revoke_and_flush);
}

/* ---- Each thread its own instance ---- */

static void *alone(void *arg)
{
    const struct kind *kind = arg;
    for (int i = 0; i < scaled(20); i++) {
        TLSRESUME *tr = realm_of(kind, "[memory]\nsize = \"512KiB\"\n");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, NULL);
        tlsresume_free(tr);
        CHECK(!visit(&visitor, server));
        visit(&visitor, server);
        visitor_free(&visitor);
        SSL_CTX_free(server);
    }
    return NULL;
}

static void instances_of_different_threads_do_not_disturb_each_other(void)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, alone, (void *)(intptr_t)&KIND[i % KINDS]) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    own_certificate();
    CLAIM(rotation_in_the_background_loses_no_resumption);
    CLAIM(reports_in_the_background_lose_no_resumption);
    CLAIM(contexts_that_come_and_go_lose_few_resumptions);
    CLAIM(revocations_and_flushes_fail_no_handshake);
    CLAIM(instances_of_different_threads_do_not_disturb_each_other);
    return check_end();
}
