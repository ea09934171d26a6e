/* Children share the memory of the process that attached, and work whatever their parent was doing. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 8, MOST_SESSION = 8192, DEADLINE = 60 };

/* ---- Sessions between processes ---- */

static void send_all(int socket, const void *from, size_t len)
{
    const char *at = from;
    while (len > 0) {
        ssize_t sent = write(socket, at, len);
        CHECK(sent > 0);
        at += sent;
        len -= (size_t)sent;
    }
}

static void receive_all(int socket, void *to, size_t len)
{
    char *at = to;
    while (len > 0) {
        ssize_t got = read(socket, at, len);
        CHECK(got > 0);
        at += got;
        len -= (size_t)got;
    }
}

static void send_session(int socket, SSL_SESSION *session)
{
    unsigned char *der = NULL;
    int len = i2d_SSL_SESSION(session, &der);
    CHECK(len > 0);
    send_all(socket, &len, sizeof len);
    send_all(socket, der, (size_t)len);
    OPENSSL_free(der);
}

static SSL_SESSION *receive_session(int socket)
{
    unsigned char der[MOST_SESSION];
    const unsigned char *start = der;
    int len = 0;
    receive_all(socket, &len, sizeof len);
    CHECK(len > 0 && len <= MOST_SESSION);
    receive_all(socket, der, (size_t)len);
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &start, len);
    CHECK(session != NULL);
    return session;
}

/* A handshake drops its session rather than wait longer than a millisecond for a process that was stopped in the midst
 * of keeping its own, and counts it. This visitor comes until none is dropped. */
static void first_visit(struct visitor *visitor, SSL_CTX *server, TLSRESUME *tr)
{
    uint64_t dropped;
    do {
        dropped = stats_of(tr).sessions_dropped;
        visitor_forgets(visitor);
        CHECK(!visit(visitor, server));
    } while (stats_of(tr).sessions_dropped != dropped);
}

/* A worker: serves one client that is new, hands its session in, and serves those of its siblings. */
static void work(int socket, const struct kind *kind, SSL_CTX *server, TLSRESUME *tr,
                 SSL_SESSION *of_parent)
{
    struct visitor visitor = visitor_new(kind, "a.example");
    alarm(DEADLINE);
    first_visit(&visitor, server, tr);
    send_session(socket, visitor.session);
    visitor_takes(&visitor, of_parent);
    CHECK_SAYING(visit(&visitor, server), "%s: a session of the parent", kind->name);
    for (int i = 0; i < CHILDREN; i++) {
        SSL_SESSION *session = receive_session(socket);
        visitor_takes(&visitor, session);
        CHECK_SAYING(visit(&visitor, server), "%s: the session of child %d", kind->name, i);
        SSL_SESSION_free(session);
    }
    visitor_free(&visitor);
}

static void children_resume_each_others_sessions(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, server));
        pid_t children[CHILDREN];
        int sockets[CHILDREN];
        for (int i = 0; i < CHILDREN; i++) {
            int pair[2];
            CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
            fflush(NULL);
            children[i] = fork();
            CHECK(children[i] >= 0);
            if (children[i] == 0) {
                work(pair[1], kind, server, tr, visitor.session);
                _exit(0);
            }
            close(pair[1]);
            sockets[i] = pair[0];
        }
        SSL_SESSION *sessions[CHILDREN];
        for (int i = 0; i < CHILDREN; i++)
            sessions[i] = receive_session(sockets[i]);
        for (int i = 0; i < CHILDREN; i++)
            for (int j = 0; j < CHILDREN; j++)
                send_session(sockets[i], sessions[j]);
        for (int i = 0; i < CHILDREN; i++)
            check_child(children[i]);
        for (int i = 0; i < CHILDREN; i++) {
            visitor_takes(&visitor, sessions[i]);
            CHECK_SAYING(visit(&visitor, server), "%s: a session of a child", kind->name);
            SSL_SESSION_free(sessions[i]);
            close(sockets[i]);
        }
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* ---- One node ---- */

/* What only the threads knew that stayed behind is no leak: another program takes over, into which
 * valgrind does not follow. */
static void end_without_leak_check(void)
{
    execl("/bin/true", "true", (char *)NULL);
}

static void in_a_child(void (*what)(TLSRESUME *, SSL_CTX *), TLSRESUME *tr, SSL_CTX *server)
{
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(DEADLINE);
        what(tr, server);
        end_without_leak_check();
        _exit(0);
    }
    check_child(child);
}

static void visit_three_times(TLSRESUME *tr, SSL_CTX *server)
{
    struct visitor visitor = visitor_new(&KIND[TLS12_ID], NULL);
    (void)tr;
    CHECK(!visit(&visitor, server));
    CHECK(visit(&visitor, server));
    CHECK(visit(&visitor, server));
    visitor_free(&visitor);
}

static void what_children_do_counts_for_the_node(void)
{
    TLSRESUME *tr = realm_of(&KIND[TLS12_ID], "");
    SSL_CTX *server = attached_server(tr);
    for (int i = 0; i < 5; i++)
        in_a_child(visit_three_times, tr, server);
    CHECK_EQUAL(stats_of(tr).sessions_stored, 5);
    CHECK_EQUAL(stats_of(tr).sessions_live, 5);
    CHECK_EQUAL(stats_of(tr).sessions_hit, 10);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void rotate_and_flush(TLSRESUME *tr, SSL_CTX *server)
{
    (void)server;
    CHECK(tlsresume_keys_revoke(tr, NULL) == 1);
    CHECK(tlsresume_sessions_flush(tr) == 1);
}

static void what_a_child_revokes_is_revoked_everywhere(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, NULL);
        CHECK(!visit(&visitor, server));
        CHECK(visit(&visitor, server));
        in_a_child(rotate_and_flush, tr, server);
        CHECK_SAYING(!visit(&visitor, server), "%s", kind->name);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* A worker that is killed in the midst of things costs the others nothing but the sessions that they drop, and count,
 * while what it was writing is not given up for lost. */
static void killed_children_cost_nothing(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "[memory]\nsize = \"1MiB\"\n");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, NULL);
        uint64_t in_vain = 0;
        CHECK(!visit(&visitor, server));
        for (int i = 0; i < scaled(10); i++) {
            fflush(NULL);
            pid_t child = fork();
            CHECK(child >= 0);
            if (child == 0) {
                struct visitor its = visitor_new(kind, NULL);
                alarm(DEADLINE);
                for (;;) {
                    visitor_forgets(&its);
                    visit(&its, server);
                    (void)!tlsresume_keys_rotate(tr);
                }
            }
            for (int j = 0; j < 5; j++)
                in_vain += !visit(&visitor, server);
            int status = 0;
            CHECK(kill(child, SIGKILL) == 0);
            CHECK(waitpid(child, &status, 0) == child);
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            in_vain += !visit(&visitor, server);
            CHECK_SAYING(in_vain <= stats_of(tr).sessions_dropped, "%s", kind->name);
        }
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* ---- Fork under load ----
 *
 * OpenSSL has locks that no child can ever take again if another thread has them at the fork. So that
 * none does, the threads that do handshakes stand still between two calls of OpenSSL, each somewhere
 * in a handshake. The other threads go on: they are in the library, and its locks are at stake (but
 * not with AddressSanitizer, whose own allocator does not survive such a fork). */

enum { HANDSHAKERS = 4, ADMINISTRATORS = 2, ALL_THREADS = HANDSHAKERS + ADMINISTRATORS };

#if defined(__SANITIZE_ADDRESS__)
static const int STANDING = ALL_THREADS;
#else
static const int STANDING = HANDSHAKERS;
#endif

static struct load {
    const struct kind *kind;
    TLSRESUME *tr;
    SSL_CTX *server;
    atomic_bool hold, over;
    atomic_int standing, calls;
} load;

static void stand_still_when_told(void)
{
    if (!atomic_load(&load.hold))
        return;
    atomic_fetch_add(&load.standing, 1);
    while (atomic_load(&load.hold))
        sched_yield();
    atomic_fetch_sub(&load.standing, 1);
}

static void *do_handshakes(void *arg)
{
    struct visitor visitor = visitor_new(load.kind, NULL);
    (void)arg;
    while (!atomic_load(&load.over)) {
        struct pair pair = pair_new(&visitor, load.server);
        do
            stand_still_when_told();
        while (!pair_steps(&pair));
        CHECK(pair_shakes(&pair));
        visitor_leaves(&visitor, &pair);
        pair_free(&pair, true);
    }
    visitor_free(&visitor);
    return NULL;
}

static void *administrate(void *arg)
{
    static const unsigned char ID[32];
    (void)arg;
    while (!atomic_load(&load.over)) {
        TLSRESUME_STATS stats;
        CHECK(tlsresume_stats(load.tr, &stats, sizeof stats) == 1);
        CHECK(tlsresume_session_remove(load.tr, ID, sizeof ID) == 1);
        /* May fail: others want the ring all the time. */
        (void)!tlsresume_keys_revoke(load.tr, NULL);
        atomic_fetch_add(&load.calls, 1);
        if (STANDING == ALL_THREADS)
            stand_still_when_told();
    }
    return NULL;
}

static void visit_and_administrate(TLSRESUME *tr, SSL_CTX *server)
{
    struct visitor visitor = visitor_new(load.kind, NULL);
    for (int i = 0; i < 3; i++)
        visit(&visitor, server);
    CHECK(tlsresume_keys_rotate(tr) == 1);
    CHECK(tlsresume_sessions_flush(tr) == 1);
    stats_of(tr);
    SSL_CTX *other = attached_server(tr);
    visit(&visitor, other);
    CHECK(tlsresume_detach(other) == 1);
    SSL_CTX_free(other);
    visitor_free(&visitor);
}

static void a_fork_under_load_gives_a_child_that_works(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        pthread_t threads[ALL_THREADS];
        load.kind = kind;
        load.tr = realm_of(kind, "");
        load.server = attached_server(load.tr);
        atomic_store(&load.over, false);
        for (int i = 0; i < ALL_THREADS; i++)
            CHECK(pthread_create(&threads[i], NULL, i < HANDSHAKERS ? do_handshakes : administrate,
                                 NULL) == 0);
        for (int i = 0; i < scaled(10); i++) {
            atomic_store(&load.hold, true);
            while (atomic_load(&load.standing) < STANDING)
                sched_yield();
            in_a_child(visit_and_administrate, load.tr, load.server);
            atomic_store(&load.hold, false);
            while (atomic_load(&load.standing) > 0)
                sched_yield();
        }
        atomic_store(&load.over, true);
        for (int i = 0; i < ALL_THREADS; i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(atomic_load(&load.calls) > 0);
        SSL_CTX_free(load.server);
        tlsresume_free(load.tr);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    own_certificate();
    CLAIM(children_resume_each_others_sessions);
    CLAIM(what_children_do_counts_for_the_node);
    CLAIM(what_a_child_revokes_is_revoked_everywhere);
    CLAIM(killed_children_cost_nothing);
    CLAIM(a_fork_under_load_gives_a_child_that_works);
    return check_end();
}
