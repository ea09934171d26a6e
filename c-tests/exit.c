/* A process may end while its threads do handshakes.
 *
 * OpenSSL before 4.0 tears itself down when a process exits, under the feet of threads that still use
 * it: most such exits crash without this library too. OPENSSL_INIT_NO_ATEXIT is how a program with
 * such threads keeps OpenSSL up, so what could crash here is ours. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/crypto.h>

enum { THREADS = 8, EXITS = 20 };

static SSL_CTX *servers[KINDS];
static atomic_int visits;

static void *visit_for_ever(void *arg)
{
    int k = (int)(intptr_t)arg % KINDS;
    struct visitor visitor = visitor_new(&KIND[k], NULL);
    for (;;) {
        visit(&visitor, servers[k]);
        atomic_fetch_add(&visits, 1);
    }
    return NULL;
}

static int end_under_load(void)
{
    own_certificate();
    for (int k = 0; k < KINDS; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "");
        servers[k] = attached_server(tr);
        tlsresume_free(tr);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, visit_for_ever, (void *)(intptr_t)i) == 0);
    }
    while (atomic_load(&visits) < 2 * THREADS)
        sched_yield();
    return 0;
}

/* A program of its own, so that nothing of this one's is torn down twice. */
static pid_t start_again(char *program)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        /* What threads hold at the exit is no leak. */
        setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
        char *arguments[] = {program, "--end-under-load", NULL};
        execv(program, arguments);
        _exit(99);
    }
    return child;
}

static char *own_program;

static void a_process_ends_well_while_its_threads_do_handshakes(void)
{
    for (int i = 0; i < scaled(EXITS); i++)
        check_child(start_again(own_program));
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--end-under-load") == 0) {
        CHECK(OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL) == 1);
        /* As most servers end: main returns, which is exit(). */
        return end_under_load();
    }
    check_begin(argc, argv);
    own_program = argv[0];
    CLAIM(a_process_ends_well_while_its_threads_do_handshakes);
    return check_end();
}
