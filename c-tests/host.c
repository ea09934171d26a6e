/* What the library asks of the program that it lives in. ARCHITECTURE.md has the list. */
#define _GNU_SOURCE

#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/crypto.h>

extern char **environ;

static char folder[64], file[96];

static TLSRESUME *realm_with_a_file(const struct kind *kind)
{
    char more[192];
    snprintf(folder, sizeof folder, "/dev/shm/tlsresume-host-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    snprintf(file, sizeof file, "%s/memory", folder);
    snprintf(more, sizeof more, "[memory]\npath = \"%s\"\n", file);
    return realm_of(kind, more);
}

static void removes_the_file(void)
{
    CHECK(remove(file) == 0 && rmdir(folder) == 0);
}

static void visits_twice(SSL_CTX *server, const struct kind *kind)
{
    struct visitor visitor = visitor_new(kind, "a.example");
    visit(&visitor, server);
    visit(&visitor, server);
    visitor_free(&visitor);
}

/* All that a server does in its life: memory, keys, full handshakes and others. */
static void lives_with(const struct kind *kind)
{
    TLSRESUME *tr = realm_with_a_file(kind);
    SSL_CTX *server = attached_server(tr);
    visits_twice(server, kind);
    CHECK(tlsresume_keys_rotate(tr) == 1);
    visits_twice(server, kind);
    SSL_CTX_free(server);
    tlsresume_free(tr);
    removes_the_file();
}

static void lives_without(const struct kind *kind)
{
    SSL_CTX *server = server_new();
    visits_twice(server, kind);
    SSL_CTX_free(server);
}

static int entries(const char *path)
{
    int count = 0;
    DIR *all = opendir(path);
    CHECK(all != NULL);
    for (struct dirent *one = readdir(all); one != NULL; one = readdir(all))
        count += one->d_name[0] != '.';
    closedir(all);
    return count;
}

static void no_descriptor_stays_open(void)
{
    int before = entries("/proc/self/fd");
    TLSRESUME *tr = realm_with_a_file(&KIND[TLS13_STATEFUL]);
    CHECK_EQUAL(entries("/proc/self/fd"), before);
    SSL_CTX *server = attached_server(tr);
    visits_twice(server, &KIND[TLS13_STATEFUL]);
    CHECK_EQUAL(entries("/proc/self/fd"), before);
    SSL_CTX_free(server);
    tlsresume_free(tr);
    removes_the_file();
}

static void without_a_transport_there_is_no_thread(void)
{
    int before = entries("/proc/self/task");
    TLSRESUME *tr = realm_with_a_file(&KIND[TLS13_STATELESS]);
    CHECK(tlsresume_start(tr) == 1);
    SSL_CTX *server = attached_server(tr);
    visits_twice(server, &KIND[TLS13_STATELESS]);
    CHECK_EQUAL(entries("/proc/self/task"), before);
    SSL_CTX_free(server);
    tlsresume_free(tr);
    removes_the_file();
}

/* ---- Signals and environment ---- */

static void all_handlers(void *(*handlers)[NSIG])
{
    for (int signal = 1; signal < NSIG; signal++) {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        sigaction(signal, NULL, &action);
        (*handlers)[signal] = *(void **)&action.sa_handler;
    }
}

static void signals_are_left_to_the_program(void)
{
    static void *before[NSIG], *after[NSIG];
    sigset_t masked, still_masked;
    sigemptyset(&masked);
    sigaddset(&masked, SIGUSR1);
    CHECK(pthread_sigmask(SIG_SETMASK, &masked, NULL) == 0);
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &masked) == 0);
    all_handlers(&before);
    lives_with(&KIND[TLS12_ID]);
    all_handlers(&after);
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &still_masked) == 0);
    CHECK(memcmp(before, after, sizeof before) == 0);
    for (int signal = 1; signal < NSIG; signal++)
        CHECK_EQUAL(sigismember(&still_masked, signal), sigismember(&masked, signal));
}

static void the_environment_is_left_as_it_is(void)
{
    enum { MOST = 4096 };
    static char *before[MOST];
    char **entry = environ;
    int count = 0;
    for (; *entry != NULL && count < MOST; entry++, count++)
        before[count] = *entry;
    lives_with(&KIND[TLS12_TICKET]);
    CHECK(environ + count == entry && memcmp(before, environ, count * sizeof *before) == 0);
}

/* ---- Objects of OpenSSL ---- */

static void nothing_of_others(void *parent, void *value, CRYPTO_EX_DATA *data, int index, long argl,
                              void *argp)
{
    (void)parent, (void)value, (void)data, (void)index, (void)argl, (void)argp;
}

static int next_index(int class)
{
    int index = CRYPTO_get_ex_new_index(class, 0, NULL, NULL, NULL, nothing_of_others);
    CHECK(index >= 0);
    return index;
}

/* In a process of its own, which nobody has taken an index in. */
static void few_indexes_of_ex_data_are_taken(void)
{
    static const struct {
        int class, most;
    } CLASS[] = {{CRYPTO_EX_INDEX_SSL_CTX, 2},
                 {CRYPTO_EX_INDEX_SSL, 1},
                 {CRYPTO_EX_INDEX_SSL_SESSION, 0},
                 {CRYPTO_EX_INDEX_BIO, 0}};
    enum { CLASSES = sizeof CLASS / sizeof *CLASS };
    int before[CLASSES];
    /* The library leaves the first two of each class to programs that take none. */
    for (int i = 0; i < CLASSES; i++)
        while ((before[i] = next_index(CLASS[i].class)) < 2)
            ;
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        lives_with(kind);
    for (int i = 0; i < CLASSES; i++) {
        int taken = next_index(CLASS[i].class) - before[i] - 1;
        CHECK_SAYING(taken <= CLASS[i].most, "%d indexes of class %d", taken, CLASS[i].class);
    }
}

static bool has_callback(BIO *bio)
{
    return BIO_get_callback_ex(bio) != NULL || BIO_get_callback_arg(bio) != NULL;
}

/* Only a handshake that has to be ended gets one (again.c). */
static void bios_of_connections_that_go_well_have_no_callback(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, "a.example");
        for (int i = 0; i < 2; i++) {
            struct pair pair = pair_new(&visitor, server);
            do
                CHECK(!has_callback(SSL_get_rbio(pair.server)) && !has_callback(SSL_get_wbio(pair.server)));
            while (!pair_steps(&pair));
            CHECK(pair_shakes(&pair));
            CHECK(!has_callback(SSL_get_rbio(pair.server)) && !has_callback(SSL_get_wbio(pair.server)));
            visitor_leaves(&visitor, &pair);
            pair_free(&pair, true);
        }
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* ---- The stack ---- */

enum { STACK = 1 << 20, KIB = 1024, PAINT = 0xa5, MOST_KIB = 8 };

struct life {
    void (*lives)(SSL_CTX *, const struct kind *);
    SSL_CTX *server;
    const struct kind *kind;
};

static void *lives(void *arg)
{
    const struct life *life = arg;
    life->lives(life->server, life->kind);
    return NULL;
}

/* How many bytes of its stack a thread uses for this life. Client and server share it, and the key exchange of either is
 * deeper than any callback of the library's. */
static size_t stack_of(struct life life)
{
    unsigned char *stack =
        mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(stack != MAP_FAILED);
    memset(stack, PAINT, STACK);
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstack(&attributes, stack, STACK) == 0);
    CHECK(pthread_create(&thread, &attributes, lives, &life) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    size_t untouched = 0;
    while (untouched < STACK && stack[untouched] == PAINT)
        untouched++;
    pthread_attr_destroy(&attributes);
    munmap(stack, STACK);
    return STACK - untouched;
}

static void handshakes_need_little_more_of_the_stack(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *plain = server_new(), *attached = attached_server(tr);
        /* What both load at first use. */
        visits_twice(plain, kind);
        size_t without = stack_of((struct life){visits_twice, plain, kind});
        size_t with = stack_of((struct life){visits_twice, attached, kind});
        CHECK_SAYING(with <= without + MOST_KIB * KIB, "%s: %zu KiB with the library, %zu without",
                     kind->name, with / KIB, without / KIB);
        SSL_CTX_free(plain);
        SSL_CTX_free(attached);
        tlsresume_free(tr);
    }
}

/* ---- Standard error ---- */

/* A daemon that closes them, and opens two files before its data. */
static void loses_the_standard_descriptors(void)
{
    for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; descriptor++)
        CHECK(close(descriptor) == 0);
    for (int descriptor = STDIN_FILENO; descriptor < STDERR_FILENO; descriptor++)
        CHECK(open("/proc/self/status", O_RDONLY) == descriptor);
}

/* How many bytes of log come into a file that is only appended to, once that is descriptor 2. */
static off_t bytes_logged_to(bool is_log)
{
    char path[] = "/dev/shm/tlsresume-host-XXXXXX";
    int file_of_program = mkstemp(path), before = fcntl(STDERR_FILENO, F_DUPFD, 100);
    CHECK(file_of_program > STDERR_FILENO && close(file_of_program) == 0 && before >= 100);
    if (!is_log)
        loses_the_standard_descriptors();
    int opened = open(path, O_WRONLY | O_APPEND);
    CHECK(is_log ? dup2(opened, STDERR_FILENO) == STDERR_FILENO : opened == STDERR_FILENO);
    TLSRESUME *tr = realm_of(&KIND[TLS12_TICKET], "[log]\nlevel = \"info\"\n");
    SSL_CTX *server = attached_server(tr);
    struct stat status;
    CHECK(fstat(STDERR_FILENO, &status) == 0 && dup2(before, STDERR_FILENO) == STDERR_FILENO);
    CHECK(!is_log || close(opened) == 0);
    CHECK(close(before) == 0 && unlink(path) == 0);
    SSL_CTX_free(server);
    tlsresume_free(tr);
    return status.st_size;
}

static void data_that_gets_the_number_of_standard_error_gets_no_lines(void)
{
    CHECK_EQUAL(bytes_logged_to(false), 0);
}

static void a_log_that_is_made_standard_error_gets_them(void)
{
    CHECK(bytes_logged_to(true) > 0);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    /* What OpenSSL opens, starts and allocates at first use is its own. */
    lives_without(&KIND[TLS12_TICKET]);
    CLAIM_APART(few_indexes_of_ex_data_are_taken);
    CLAIM_APART(no_descriptor_stays_open);
    CLAIM_APART(without_a_transport_there_is_no_thread);
    CLAIM_APART(signals_are_left_to_the_program);
    CLAIM_APART(the_environment_is_left_as_it_is);
    CLAIM(bios_of_connections_that_go_well_have_no_callback);
    CLAIM_APART(data_that_gets_the_number_of_standard_error_gets_no_lines);
    CLAIM_APART(a_log_that_is_made_standard_error_gets_them);
    /* Valgrind takes for stack what it is not, and may not read it. */
    if (scaled(10) == 10)
        CLAIM(handshakes_need_little_more_of_the_stack);
    return check_end();
}
