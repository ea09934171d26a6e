/* Where memory runs out, OpenSSL fails a connection. We cost no more than that: never the process, and no connection
 * where only our own allocations fail.
 *
 * The program has an allocator of its own, which the library and OpenSSL call too; it fails when told to, on the
 * server's side alone. With gcc's sanitizers it stands before theirs. Valgrind puts its own in the place of ours: there
 * nothing fails, and each claim but the last ends with the first run.
 *
 * A second program loads all of this by dlopen(3) (loaded/host.c): memory for the variables of threads is then allocated
 * when a thread first uses them, and glibc ends a process that has none. */
#define _GNU_SOURCE

#include "check.h"

#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/err.h>

enum { DEADLINE = 120, MOST_RUNS = 5000, MOST_SESSION = 8192 };

/* What the processes share. */
static struct {
    int session_len;
    unsigned char session[MOST_SESSION];
    long failed;
    bool shook, resumed;
} *shared;

/* ---- An allocator that fails ---- */

enum failing { ONE, REST, ONE_OF_OURS, ALL_OF_OURS, FAILINGS };

static const char *const FAILING[FAILINGS] = {
    [ONE] = "one allocation fails",
    [REST] = "each from one on fails",
    [ONE_OF_OURS] = "one of ours fails",
    [ALL_OF_OURS] = "each of ours from one on fails",
};

static bool is_ours(enum failing failing)
{
    return failing == ONE_OF_OURS || failing == ALL_OF_OURS;
}

#ifdef __SANITIZE_ADDRESS__
/* One allocation in so many is tried, and one of ours in so many: processes are made slowly there. */
enum { PACE = 29, OUR_PACE = 3 };
#else
enum { PACE = 1, OUR_PACE = 1 };
#endif

/* Set before there are threads. */
static enum failing failing;
static uintptr_t library_start, library_end;

/* Of this thread: the allocation that fails, counted from now, or 0; and whether those count too that are
 * made while no server runs. */
static __thread long left;
static __thread bool counts_always;

static bool fails(void *caller)
{
    if (left <= 0 || !(server_runs || counts_always))
        return false;
    uintptr_t at = (uintptr_t)caller;
    if (is_ours(failing) && (at < library_start || at >= library_end))
        return false;
    if (left > 1) {
        left--;
        return false;
    }
    if (failing == ONE || failing == ONE_OF_OURS)
        left = 0; /* the only one */
    shared->failed++;
    errno = ENOMEM;
    return true;
}

#ifdef LOADED
/* The program that has loaded this one has the allocator. */
extern bool (*allocation_fails)(void *caller);
#else
#include "failing_malloc.h"
#endif

static int find_library(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    if (strstr(info->dlpi_name, "libtlsresume.so") == NULL)
        return 0;
    library_start = (uintptr_t)info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t end = library_start + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && end > library_end)
            library_end = end;
    }
    return 1;
}

/* ---- Runs: each in a process of its own, which knows no more than one that has just begun ---- */

enum situation {
    NEW,
    RESUMES,
    RESUMES_UNDER_RULES,
    RESUMES_AFTER_ROTATION,
    MUST_NOT_RESUME,
    IS_ENDED,
    SITUATIONS
};

static const char *const SITUATION[SITUATIONS] = {
    [NEW] = "a full handshake",
    [RESUMES] = "a resumption",
    [RESUMES_UNDER_RULES] = "a resumption where clients are verified elsewhere",
    [RESUMES_AFTER_ROTATION] = "a resumption after keys were rotated",
    [MUST_NOT_RESUME] = "a resumption where clients are verified by now",
    [IS_ENDED] = "a resumption at a name for which clients are verified by now",
};

struct scene {
    const struct kind *kind;
    enum situation situation;
    TLSRESUME *tr;
    SSL_CTX *server, *verifying;
    struct visitor visitor;
    long at;
};

struct tally {
    int runs, bad;
    char first[256];
};

static void make_session(struct scene *scene)
{
    unsigned char *to = shared->session;
    CHECK(!visit(&scene->visitor, scene->server));
    int len = i2d_SSL_SESSION(scene->visitor.session, NULL);
    CHECK(len > 0 && len <= MOST_SESSION);
    shared->session_len = i2d_SSL_SESSION(scene->visitor.session, &to);
    if (scene->situation == RESUMES_AFTER_ROTATION)
        CHECK(tlsresume_keys_rotate(scene->tr) == 1);
}

/* The visitor gets the session of a visit that this process knows nothing of. */
static void come_back(struct scene *scene)
{
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        make_session(scene);
        _exit(0);
    }
    check_child(child);
    const unsigned char *from = shared->session;
    scene->visitor.session = d2i_SSL_SESSION(NULL, &from, shared->session_len);
    CHECK(scene->visitor.session != NULL);
}

/* A full handshake may be made without a certificate. */
static int verify_at_name(SSL *server, int *alert, void *arg)
{
    (void)alert;
    (void)arg;
    SSL_set_verify(server, SSL_VERIFY_PEER, NULL);
    return SSL_TLSEXT_ERR_OK;
}

static struct scene scene_new(const struct kind *kind, enum situation situation)
{
    struct scene scene = {.kind = kind, .situation = situation};
    scene.tr = realm_of(kind, "");
    scene.server = attached_server(scene.tr);
    scene.visitor = visitor_new(kind, "a.example");
    if (situation == RESUMES_UNDER_RULES) {
        scene.verifying = server_new();
        server_verifies(scene.verifying, own_certificate());
        CHECK(tlsresume_attach(scene.tr, scene.verifying) == 1);
    }
    if (situation != NEW)
        come_back(&scene);
    if (situation == MUST_NOT_RESUME)
        server_verifies(scene.server, own_certificate());
    if (situation == IS_ENDED)
        SSL_CTX_set_tlsext_servername_callback(scene.server, verify_at_name);
    return scene;
}

static void scene_free(struct scene *scene)
{
    visitor_free(&scene->visitor);
    SSL_CTX_free(scene->verifying);
    SSL_CTX_free(scene->server);
    tlsresume_free(scene->tr);
}

static void scene_renew(struct scene *scene)
{
    long at = scene->at;
    scene_free(scene);
    *scene = scene_new(scene->kind, scene->situation);
    scene->at = at;
}

static void *serve_without_memory(void *arg)
{
    struct scene *scene = arg;
    struct pair pair = pair_new(&scene->visitor, scene->server);
    left = scene->at;
    shared->shook = pair_shakes(&pair);
    shared->resumed = shared->shook && SSL_session_reused(pair.server);
    pair_free(&pair, shared->shook);
    left = 0;
    ERR_clear_error();
    return NULL;
}

/* The next client gets in, and resumes when it comes again. */
static void *serve_the_next(void *arg)
{
    struct scene *scene = arg;
    struct visitor next = visitor_new(scene->kind, "b.example");
    SSL_CTX_set_verify(scene->server, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_tlsext_servername_callback(scene->server, NULL);
    CHECK(!visit(&next, scene->server));
    CHECK(visit(&next, scene->server));
    visitor_free(&next);
    return NULL;
}

/* What a thread remembers needs memory too. */
static void on_new_thread(void *(*work)(void *), struct scene *scene)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, work, scene) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* The status of a process that works without memory, and then with it. */
static int run(struct scene *scene, void *(*without)(void *), void *(*with)(void *))
{
    shared->failed = 0;
    shared->shook = shared->resumed = false;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(DEADLINE);
        on_new_thread(without, scene);
        on_new_thread(with, scene);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

/* What is wrong with a run, or NULL. */
static const char *verdict(const struct scene *scene, int status)
{
    bool must_not = scene->situation == MUST_NOT_RESUME || scene->situation == IS_ENDED;
    bool may_fail = !is_ours(failing) || must_not;
    if (WIFSIGNALED(status))
        return strsignal(WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        return "what comes next fails";
    if (must_not && shared->resumed)
        return "it resumed";
    if (scene->situation == IS_ENDED && shared->failed == 0 && shared->shook)
        return "it was not ended";
    return may_fail || shared->shook ? NULL : "the connection fails";
}

/* Runs until nothing has failed in one. */
static void try_all(struct scene *scene, void *(*without)(void *), void *(*with)(void *),
                    struct tally *tally)
{
    bool is_over = false;
    for (scene->at = 1; !is_over; scene->at += is_ours(failing) ? OUR_PACE : PACE) {
        CHECK(scene->at <= MOST_RUNS);
        const char *wrong = verdict(scene, run(scene, without, with));
        tally->runs++;
        is_over = shared->failed == 0;
        /* The node remembers the name of a handshake that was ended. */
        if (scene->situation == IS_ENDED)
            scene_renew(scene);
        if (wrong != NULL && ++tally->bad == 1)
            snprintf(tally->first, sizeof tally->first, "%s, %s, allocation %ld: %s",
                     scene->kind->name, SITUATION[scene->situation], scene->at, wrong);
    }
}

static void tell(const struct tally *tally)
{
    printf("%d runs in which %s\n", tally->runs, FAILING[failing]);
    CHECK_SAYING(tally->bad == 0, "%d of %d runs end badly where %s; the first: %s", tally->bad,
                 tally->runs, FAILING[failing], tally->first);
}

/* ---- Handshakes ---- */

static void try_handshakes(enum failing how)
{
    struct tally tally = {0};
    failing = how;
    for (int kind = 0; kind < KINDS; kind++) {
        for (int situation = 0; situation < SITUATIONS; situation++) {
            struct scene scene = scene_new(&KIND[kind], situation);
            try_all(&scene, serve_without_memory, serve_the_next, &tally);
            scene_free(&scene);
        }
    }
    tell(&tally);
}

static void an_allocation_of_ours_that_fails_costs_no_connection(void)
{
    try_handshakes(ONE_OF_OURS);
}

static void connections_go_on_where_all_of_our_allocations_fail(void)
{
    try_handshakes(ALL_OF_OURS);
}

static void an_allocation_that_fails_ends_no_process(void)
{
    try_handshakes(ONE);
}

static void a_server_that_had_no_memory_serves_the_next_client(void)
{
    try_handshakes(REST);
}

/* ---- Calls ---- */

static void *call_without_memory(void *arg)
{
    struct scene *scene = arg;
    TLSRESUME_STATS stats;
    char metrics[100] = "";
    size_t len = sizeof metrics;
    SSL_CTX *server = server_new();
    counts_always = true;
    left = scene->at;
    TLSRESUME *tr = tlsresume_new_from_string("[resumption]\nlifetime = \"1h\"\n");
    if (tr != NULL && tlsresume_attach(tr, server) == 1) {
        tlsresume_stats(tr, &stats, sizeof stats);
        tlsresume_metrics(tr, metrics, &len);
        tlsresume_keys_rotate(tr);
        tlsresume_session_remove(tr, (const unsigned char *)metrics, 32);
        tlsresume_sessions_flush(tr);
    }
    SSL_CTX_free(server);
    tlsresume_free(tr);
    left = 0;
    shared->shook = true;
    return NULL;
}

static void *call_with_memory(void *arg)
{
    struct scene *scene = arg;
    ERR_clear_error();
    TLSRESUME *tr = realm_of(scene->kind, "");
    SSL_CTX *server = attached_server(tr);
    SSL_CTX_free(server);
    tlsresume_free(tr);
    return NULL;
}

static void calls_fail_where_there_is_no_memory_and_end_no_process(void)
{
    for (int how = 0; how < FAILINGS; how++) {
        struct scene scene = {.kind = &KIND[TLS13_STATELESS], .situation = NEW};
        struct tally tally = {0};
        failing = how;
        try_all(&scene, call_without_memory, call_with_memory, &tally);
        tell(&tally);
    }
}

/* What OpenSSL looks up at first use, and would never find again where memory fails just then, is found before. */
static void warm_openssl_up(void)
{
    SSL_CTX *server = server_new();
    for (int kind = 0; kind < KINDS; kind++) {
        struct visitor visitor = visitor_new(&KIND[kind], "a.example");
        for (int i = 0; i < 3; i++)
            visit(&visitor, server);
        visitor_free(&visitor);
    }
    SSL_CTX_free(server);
}

/* Lines are made, and go nowhere. */
static void quiet(int level, const char *message, void *arg)
{
    (void)level;
    (void)message;
    (void)arg;
}

/* ---- A limit of the system's ---- */

#ifndef __SANITIZE_ADDRESS__
enum { STEP = 256 << 10 };

static size_t size_of_process(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void *call_under_a_limit(void *arg)
{
    struct scene *scene = arg;
    struct rlimit limit = {size_of_process() + (size_t)(scene->at - 1) * STEP, RLIM_INFINITY};
    SSL_CTX *server = server_new();
    shared->failed = 1;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    TLSRESUME *tr = tlsresume_new_from_string("");
    shared->failed = tr == NULL || tlsresume_attach(tr, server) != 1;
    SSL_CTX_free(server);
    tlsresume_free(tr);
    limit.rlim_cur = RLIM_INFINITY;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    shared->shook = true;
    return NULL;
}

static void a_limit_of_memory_ends_no_process(void)
{
    struct scene scene = {.kind = &KIND[TLS13_STATELESS], .situation = NEW};
    struct tally tally = {0};
    try_all(&scene, call_under_a_limit, call_with_memory, &tally);
    printf("%d runs under limits\n", tally.runs);
    CHECK_SAYING(tally.bad == 0, "%d end badly; the first: %s", tally.bad, tally.first);
}
#endif

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CHECK(dl_iterate_phdr(find_library, NULL) == 1);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
#ifdef LOADED
    allocation_fails = fails;
#endif
    warm_openssl_up();
    tlsresume_set_log_callback(quiet, NULL);
    CLAIM_APART(an_allocation_of_ours_that_fails_costs_no_connection);
    CLAIM_APART(connections_go_on_where_all_of_our_allocations_fail);
    CLAIM_APART(an_allocation_that_fails_ends_no_process);
    CLAIM_APART(a_server_that_had_no_memory_serves_the_next_client);
    CLAIM_APART(calls_fail_where_there_is_no_memory_and_end_no_process);
#ifndef __SANITIZE_ADDRESS__
    CLAIM_APART(a_limit_of_memory_ends_no_process);
#endif
    return check_end();
}
