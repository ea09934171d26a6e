/* With SSL_MODE_ASYNC a handshake is paused while it waits for another host. Redis is a real one, which is stopped and
 * continued as the test wants: while it is stopped a paused handshake stays paused, until its budget is over. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <openssl/async.h>
#include <openssl/crypto.h>
#include <openssl/err.h>

/* SSL_free() of a paused connection leaves the job's stack to OpenSSL, which never frees it. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:async_fibre_makecontext\nleak:ASYNC_start_job\nleak:async_job_new\n";
}

enum { BUDGET_MS = 1000, SOON_MS = 10000 };

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* ---- Redis ---- */

static struct {
    char folder[64], socket[96], secret[96], memory[96];
    pid_t pid;
} redis;

static bool redis_answers(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer[8] = "";
    int connection = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(connection >= 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", redis.socket);
    bool answers = connect(connection, (struct sockaddr *)&address, sizeof address) == 0 &&
                   write(connection, "PING\r\n", 6) == 6 && read(connection, answer, 5) == 5 &&
                   memcmp(answer, "+PONG", 5) == 0;
    close(connection);
    return answers;
}

static void redis_start(void)
{
    snprintf(redis.folder, sizeof redis.folder, "/dev/shm/tlsresume-async-XXXXXX");
    CHECK(mkdtemp(redis.folder) != NULL);
    snprintf(redis.socket, sizeof redis.socket, "%s/socket", redis.folder);
    snprintf(redis.memory, sizeof redis.memory, "%s/memory", redis.folder);
    snprintf(redis.secret, sizeof redis.secret, "%s/secret", redis.folder);
    FILE *secret = fopen(redis.secret, "w");
    CHECK(secret != NULL && fputs("0123456789abcdef0123456789abcdef\n", secret) > 0);
    CHECK(fclose(secret) == 0 && chmod(redis.secret, 0600) == 0);
    redis.pid = fork();
    CHECK(redis.pid >= 0);
    if (redis.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", redis.socket, "--save", "",
               "--dir", redis.folder, (char *)NULL);
        _exit(127);
    }
    long long deadline = now_ms() + SOON_MS;
    while (!redis_answers()) {
        CHECK_SAYING(waitpid(redis.pid, NULL, WNOHANG) == 0, "redis-server is missing or has ended");
        CHECK(now_ms() < deadline);
        poll(NULL, 0, 10);
    }
}

static void redis_stops(void)
{
    int status;
    CHECK(kill(redis.pid, SIGSTOP) == 0);
    CHECK(waitpid(redis.pid, &status, WUNTRACED) == redis.pid && WIFSTOPPED(status));
}

static void redis_goes_on(void)
{
    CHECK(kill(redis.pid, SIGCONT) == 0);
}

static void redis_end(void)
{
    kill(redis.pid, SIGKILL);
    waitpid(redis.pid, NULL, 0);
    unlink(redis.socket);
    unlink(redis.secret);
    unlink(redis.memory);
    rmdir(redis.folder);
}

/* ---- Two nodes ---- */

struct nodes {
    const struct kind *kind;
    TLSRESUME *first, *second;
    SSL_CTX *makes, *finds;
    struct visitor visitor;
};

/* With more lines of the sections resumption and cluster. */
static TLSRESUME *node_of(const struct kind *kind, const char *more, const char *cluster)
{
    char toml[1024];
    snprintf(toml, sizeof toml,
             "[resumption]\nmode = \"%s\"\n%s[cluster]\nsecret_file = \"%s\"\nsessions = \"pull\"\n"
             "lookup_budget = \"%dms\"\n%s[redis]\nurl = \"redis+unix://%s\"\n",
             kind->mode, more, redis.secret, BUDGET_MS, cluster, redis.socket);
    return realm_new(toml);
}

static TLSRESUME *node_new(const struct kind *kind, const char *more)
{
    return node_of(kind, more, "");
}

/* Until the second finds what the first makes: both have the ring then, and their threads are there. */
static void nodes_agree(struct nodes *nodes)
{
    struct visitor scout = visitor_new(nodes->kind, "a.example");
    long long deadline = now_ms() + SOON_MS;
    SSL_CTX *blocking = attached_server(nodes->second);
    for (bool found = false; !found;) {
        CHECK(now_ms() < deadline);
        visitor_forgets(&scout);
        visit(&scout, nodes->makes);
        /* Who has no threads asks once. */
        poll(NULL, 0, 20);
        found = visit(&scout, blocking);
    }
    SSL_CTX_free(blocking);
    visitor_free(&scout);
}

/* The session that the visitor has then, only the first node knows, and Redis. */
static struct nodes nodes_new(const struct kind *kind, const char *more)
{
    struct nodes nodes = {.kind = kind, .visitor = visitor_new(kind, "a.example")};
    nodes.first = node_new(kind, more);
    nodes.second = node_new(kind, more);
    nodes.makes = attached_server(nodes.first);
    nodes.finds = attached_server(nodes.second);
    SSL_CTX_set_mode(nodes.finds, SSL_MODE_ASYNC);
    nodes_agree(&nodes);
    return nodes;
}

/* How many sessions Redis has. */
static long redis_sessions(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer[32] = "";
    int connection = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", redis.socket);
    CHECK(connect(connection, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(write(connection, "DBSIZE\r\n", 8) == 8 && read(connection, answer, sizeof answer - 1) > 1);
    close(connection);
    return atol(answer + 1);
}

/* How often it was asked this. */
static long redis_calls(const char *command)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    static const char ask[] = "INFO commandstats\r\nQUIT\r\n";
    char answer[16384], line[64];
    size_t len = 0;
    ssize_t more;
    int connection = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", redis.socket);
    CHECK(connect(connection, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(write(connection, ask, strlen(ask)) == (ssize_t)strlen(ask));
    while ((more = read(connection, answer + len, sizeof answer - 1 - len)) > 0)
        len += (size_t)more;
    close(connection);
    CHECK(len > 0 && len < sizeof answer - 1);
    answer[len] = '\0';
    snprintf(line, sizeof line, "cmdstat_%s:calls=", command);
    const char *found = strstr(answer, line);
    return found == NULL ? 0 : atol(found + strlen(line));
}

static void visitor_gets_a_new_session(struct nodes *nodes)
{
    long before = redis_sessions();
    visitor_forgets(&nodes->visitor);
    CHECK(!visit(&nodes->visitor, nodes->makes));
    long long deadline = now_ms() + SOON_MS;
    long more = nodes->kind == &KIND[TLS13_STATEFUL] ? 2 : 1;
    while (redis_sessions() < before + more) {
        CHECK(now_ms() < deadline);
        poll(NULL, 0, 5);
    }
}

static void nodes_free(struct nodes *nodes)
{
    visitor_free(&nodes->visitor);
    SSL_CTX_free(nodes->makes);
    SSL_CTX_free(nodes->finds);
    tlsresume_free(nodes->first);
    tlsresume_free(nodes->second);
}

/* ---- Paused handshakes ---- */

static int server_error(struct pair *pair)
{
    int result = SSL_do_handshake(pair->server);
    return result == 1 ? SSL_ERROR_NONE : SSL_get_error(pair->server, result);
}

/* A connection that waits for the session. */
static struct pair paused_pair(struct nodes *nodes)
{
    struct pair pair = pair_new(&nodes->visitor, nodes->finds);
    CHECK(SSL_do_handshake(pair.client) != 1);
    CHECK_EQUAL(server_error(&pair), SSL_ERROR_WANT_ASYNC);
    CHECK_EQUAL(ERR_peek_error(), 0);
    return pair;
}

static int wait_descriptor(struct pair *pair)
{
    OSSL_ASYNC_FD descriptor = -1;
    size_t count = 0;
    CHECK(SSL_get_all_async_fds(pair->server, NULL, &count) == 1);
    CHECK_EQUAL(count, 1);
    CHECK(SSL_get_all_async_fds(pair->server, &descriptor, &count) == 1);
    return descriptor;
}

static bool is_readable(int descriptor, int timeout_ms)
{
    struct pollfd poll_for = {.fd = descriptor, .events = POLLIN};
    return poll(&poll_for, 1, timeout_ms) == 1;
}

/* Goes on as an event loop does; whether the session resumed. */
static bool pair_ends(struct pair *pair)
{
    char byte;
    long long deadline = now_ms() + SOON_MS;
    bool client = false, server = false;
    while (!client || !server) {
        CHECK(now_ms() < deadline);
        int error = server ? SSL_ERROR_NONE : server_error(pair);
        CHECK_SAYING(error == SSL_ERROR_NONE || error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_ASYNC,
                     "error %d", error);
        if (error == SSL_ERROR_WANT_ASYNC)
            CHECK(is_readable(wait_descriptor(pair), SOON_MS));
        server = error == SSL_ERROR_NONE;
        client = SSL_do_handshake(pair->client) == 1;
    }
    CHECK(SSL_read(pair->client, &byte, 1) <= 0);
    return SSL_session_reused(pair->server);
}

static const struct kind *const STORED[] = {&KIND[TLS12_ID], &KIND[TLS13_STATEFUL]};

static void a_paused_handshake_goes_on_when_the_answer_comes(void)
{
    for (size_t k = 0; k < 2; k++) {
        struct nodes nodes = nodes_new(STORED[k], "");
        struct visitor other = visitor_new(STORED[k], "b.example");
        for (int round = 0; round < scaled(10) + 2; round++) {
            visitor_gets_a_new_session(&nodes);
            redis_stops();
            struct pair pair = paused_pair(&nodes);
            int descriptor = wait_descriptor(&pair);
            CHECK(!is_readable(descriptor, 0));
            /* Others are served meanwhile, on the same thread. */
            visitor_forgets(&other);
            CHECK(!visit(&other, nodes.finds));
            CHECK(!is_readable(descriptor, 0));
            redis_goes_on();
            CHECK(is_readable(descriptor, SOON_MS));
            CHECK_SAYING(pair_ends(&pair), "%s", STORED[k]->name);
            CHECK(!is_readable(descriptor, 0));
            CHECK_EQUAL(wait_descriptor(&pair), descriptor);
            pair_free(&pair, true);
            CHECK_EQUAL(fcntl(descriptor, F_GETFD), -1);
        }
        visitor_free(&other);
        nodes_free(&nodes);
    }
}

static void a_paused_handshake_goes_on_without_the_session_when_its_time_is_over(void)
{
    struct nodes nodes = nodes_new(&KIND[TLS13_STATEFUL], "");
    visitor_gets_a_new_session(&nodes);
    redis_stops();
    long long begun = now_ms();
    struct pair pair = paused_pair(&nodes);
    CHECK(!pair_ends(&pair));
    CHECK(now_ms() - begun >= BUDGET_MS);
    pair_free(&pair, true);
    redis_goes_on();
    nodes_free(&nodes);
}

static void who_comes_back_too_early_is_sent_away_again(void)
{
    struct nodes nodes = nodes_new(&KIND[TLS12_ID], "");
    visitor_gets_a_new_session(&nodes);
    redis_stops();
    struct pair pair = paused_pair(&nodes);
    for (int i = 0; i < 50; i++)
        CHECK_EQUAL(server_error(&pair), SSL_ERROR_WANT_ASYNC);
    redis_goes_on();
    CHECK(pair_ends(&pair));
    pair_free(&pair, true);
    nodes_free(&nodes);
}

static void many_handshakes_are_paused_at_once(void)
{
    enum { MANY = 20 };
    struct nodes nodes = nodes_new(&KIND[TLS13_STATEFUL], "");
    struct visitor visitors[MANY];
    struct pair pairs[MANY];
    for (int i = 0; i < MANY; i++) {
        visitor_gets_a_new_session(&nodes);
        visitors[i] = visitor_new(nodes.kind, "a.example");
        visitor_takes(&visitors[i], nodes.visitor.session);
    }
    redis_stops();
    for (int i = 0; i < MANY; i++) {
        pairs[i] = pair_new(&visitors[i], nodes.finds);
        CHECK(SSL_do_handshake(pairs[i].client) != 1);
        CHECK_EQUAL(server_error(&pairs[i]), SSL_ERROR_WANT_ASYNC);
    }
    redis_goes_on();
    for (int i = MANY; i-- > 0;) {
        bool resumed = pair_ends(&pairs[i]);
        /* Valgrind may take longer than the budget. */
        CHECK(resumed || scaled(10) == 1);
        pair_free(&pairs[i], true);
        visitor_free(&visitors[i]);
    }
    nodes_free(&nodes);
}

static void a_single_use_ticket_resumes_after_a_retry_request_too(void)
{
    struct nodes nodes = nodes_new(&KIND[TLS13_STATEFUL], "single_use = true\n");
    CHECK(SSL_CTX_set1_groups_list(nodes.finds, "P-384") == 1);
    CHECK(SSL_CTX_set1_groups_list(nodes.visitor.ctx, "P-256:P-384") == 1);
    visitor_gets_a_new_session(&nodes);
    SSL_SESSION *ticket = session_copy(nodes.visitor.session);
    redis_stops();
    struct pair pair = paused_pair(&nodes);
    redis_goes_on();
    CHECK(pair_ends(&pair));
    pair_free(&pair, true);
    visitor_takes(&nodes.visitor, ticket);
    pair = pair_new(&nodes.visitor, nodes.finds);
    CHECK(!pair_ends(&pair));
    pair_free(&pair, true);
    SSL_SESSION_free(ticket);
    nodes_free(&nodes);
}

static void a_connection_may_be_freed_while_it_is_paused(void)
{
    struct nodes nodes = nodes_new(&KIND[TLS13_STATEFUL], "");
    visitor_gets_a_new_session(&nodes);
    SSL_SESSION *ticket = session_copy(nodes.visitor.session);
    int first = -1;
    for (int round = 0; round < scaled(40) + 2; round++) {
        redis_stops();
        visitor_takes(&nodes.visitor, ticket);
        struct pair pair = paused_pair(&nodes);
        int descriptor = wait_descriptor(&pair);
        /* With the answer on its way, or there, or never to come. */
        if (round % 2 == 1)
            redis_goes_on();
        if (round % 4 == 3)
            CHECK(is_readable(descriptor, SOON_MS));
        pair_free(&pair, false);
        /* It is closed at once, and what has its number next is not written to. */
        int next = open("/dev/null", O_RDONLY);
        CHECK(next >= 0);
        first = first < 0 ? next : first;
        CHECK_EQUAL(next, first);
        CHECK_EQUAL(lseek(next, 0, SEEK_CUR), 0);
        close(next);
        redis_goes_on();
        /* So that the breaker never opens. */
        struct visitor other = visitor_new(nodes.kind, "a.example");
        visitor_gets_a_new_session(&nodes);
        visitor_takes(&other, nodes.visitor.session);
        struct pair well = pair_new(&other, nodes.finds);
        pair_ends(&well);
        pair_free(&well, true);
        visitor_free(&other);
    }
    SSL_SESSION_free(ticket);
    nodes_free(&nodes);
}

static void contexts_and_realm_may_go_before_a_paused_connection(void)
{
    struct nodes nodes = nodes_new(&KIND[TLS12_ID], "");
    visitor_gets_a_new_session(&nodes);
    redis_stops();
    struct pair pair = paused_pair(&nodes);
    SSL_CTX_free(nodes.finds);
    tlsresume_free(nodes.second);
    nodes.finds = NULL;
    nodes.second = NULL;
    redis_goes_on();
    CHECK(pair_ends(&pair));
    pair_free(&pair, true);
    nodes_free(&nodes);
}

static void a_child_may_free_what_is_paused(void)
{
    struct nodes nodes = nodes_new(&KIND[TLS12_ID], "");
    visitor_gets_a_new_session(&nodes);
    redis_stops();
    struct pair pair = paused_pair(&nodes);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int descriptor = wait_descriptor(&pair);
        pair_free(&pair, false);
        /* Another program: what the parent's threads have here is nobody's, and no leak. */
        const char *verdict = fcntl(descriptor, F_GETFD) == -1 ? "true" : "false";
        execlp(verdict, verdict, (char *)NULL);
        _exit(1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    redis_goes_on();
    CHECK(pair_ends(&pair));
    pair_free(&pair, true);
    nodes_free(&nodes);
}

static int told;

static int tell(SSL *ssl, void *argument)
{
    (void)ssl, (void)argument;
    told++;
    return 1;
}

/* Counts only inside of a job. */
static int blocks(SSL *ssl, int *alert, void *way)
{
    (void)ssl, (void)alert;
    if (*(int *)way == 2)
        ASYNC_block_pause();
    return SSL_CLIENT_HELLO_SUCCESS;
}

static int unblocks(SSL *ssl, int *alert, void *way)
{
    (void)ssl, (void)alert;
    if (*(int *)way == 2)
        ASYNC_unblock_pause();
    return SSL_TLSEXT_ERR_OK;
}

static struct nodes unpaused;
static int unpaused_way;

static void *waits(void *nothing)
{
    visitor_gets_a_new_session(&unpaused);
    redis_stops();
    long long begun = now_ms();
    struct pair pair = pair_new(&unpaused.visitor, unpaused.finds);
    if (unpaused_way == 0)
        SSL_clear_mode(pair.server, SSL_MODE_ASYNC);
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
    if (unpaused_way == 1)
        CHECK(SSL_set_async_callback(pair.server, tell) == 1);
#else
    (void)tell;
    if (unpaused_way == 1)
        SSL_clear_mode(pair.server, SSL_MODE_ASYNC);
#endif
    CHECK(SSL_do_handshake(pair.client) != 1);
    CHECK_EQUAL(server_error(&pair), SSL_ERROR_WANT_READ);
    CHECK(now_ms() - begun >= BUDGET_MS);
    redis_goes_on();
    CHECK(!pair_ends(&pair));
    pair_free(&pair, true);
    return nothing;
}

/* Without SSL_MODE_ASYNC, told by a callback, or blocked: such a handshake waits. Each on a thread of its own, which may
 * wait for a budget. */
static void who_did_not_ask_for_it_is_not_paused(void)
{
    unpaused = nodes_new(&KIND[TLS12_ID], "");
    SSL_CTX_set_client_hello_cb(unpaused.finds, blocks, &unpaused_way);
    SSL_CTX_set_tlsext_servername_callback(unpaused.finds, unblocks);
    SSL_CTX_set_tlsext_servername_arg(unpaused.finds, &unpaused_way);
    for (unpaused_way = 0; unpaused_way < 3; unpaused_way++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, waits, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    CHECK_EQUAL(told, 0);
    nodes_free(&unpaused);
}

/* ---- The stack of a job ---- */

enum { STACK = 32768, PAINT = 0xa5 };

static unsigned char *stacks[64];
static size_t stack_count;

static void *paints(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    unsigned char *memory = malloc(size);
    if (size == STACK && memory != NULL && stack_count < 64) {
        memset(memory, PAINT, size);
        stacks[stack_count++] = memory;
    }
    return memory;
}

static void *grows(void *memory, size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return realloc(memory, size);
}

static void frees(void *memory, const char *file, int line)
{
    (void)file, (void)line;
    for (size_t i = 0; i < stack_count && memory != NULL; i++)
        if (stacks[i] == memory)
            stacks[i] = stacks[--stack_count];
    free(memory);
}

/* The very first handshakes of a realm are in jobs, which start all of its threads. */
static void first_handshakes_in_jobs(const struct kind *kind)
{
    struct visitor visitor = visitor_new(kind, "a.example");
    TLSRESUME *tr = node_new(kind, "");
    SSL_CTX *server = attached_server(tr);
    SSL_CTX_set_mode(server, SSL_MODE_ASYNC);
    for (int round = 0; round < 3; round++) {
        struct pair pair = pair_new(&visitor, server);
        CHECK(SSL_do_handshake(pair.client) != 1);
        pair_ends(&pair);
        visitor_leaves(&visitor, &pair);
        pair_free(&pair, true);
    }
    visitor_free(&visitor);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

/* How much is left of each; SIZE_MAX where nobody can tell. */
static size_t least_left_of_stacks(void)
{
    size_t least = SIZE_MAX;
    CHECK(stack_count > 0);
    /* Valgrind takes for stack what it is not, and may not read it. */
    for (size_t i = 0; i < stack_count && scaled(10) != 1; i++) {
        size_t untouched = 0;
        while (untouched < STACK && stacks[i][untouched] == PAINT)
            untouched++;
        least = untouched < least ? untouched : least;
    }
    return least;
}

static void half_of_each_stack_is_left(void)
{
    size_t least = least_left_of_stacks();
    CHECK_SAYING(least > STACK / 2, "%d bytes are left", (int)least);
    if (least < SIZE_MAX)
        printf("%d bytes of a job's stack were left\n", (int)least);
}

/* It has no guard page. (A library that is built without optimisation needs all of it and more.) */
static void jobs_leave_half_of_their_stack_alone(void)
{
    for (size_t k = 0; k < KINDS; k++)
        first_handshakes_in_jobs(&KIND[k]);
    for (size_t k = 0; k < 2; k++) {
        struct nodes nodes = nodes_new(STORED[k], "");
        for (int round = 0; round < 3; round++) {
            visitor_gets_a_new_session(&nodes);
            struct pair pair = pair_new(&nodes.visitor, nodes.finds);
            CHECK(SSL_do_handshake(pair.client) != 1);
            CHECK(pair_ends(&pair));
            pair_free(&pair, true);
        }
        nodes_free(&nodes);
    }
    half_of_each_stack_is_left();
}

/* SSL_do_handshake() of a server, in a job that the application started. */
static int accepts(void *arguments)
{
    return SSL_do_handshake(*(SSL **)arguments);
}

static void steps_in_a_job_of_its_own(struct pair *pair)
{
    ASYNC_JOB *job = NULL;
    ASYNC_WAIT_CTX *ctx = ASYNC_WAIT_CTX_new();
    int result;
    CHECK(ctx != NULL && SSL_do_handshake(pair->client) != 1);
    CHECK_EQUAL(ASYNC_start_job(&job, ctx, &result, accepts, &pair->server, sizeof pair->server), ASYNC_FINISH);
    ASYNC_WAIT_CTX_free(ctx);
}

/* Redis' client would need all of the stack and more, and without threads nobody else can ask. Whoever is in no job
 * asks still. */
static void without_threads_jobs_do_not_ask(void)
{
    char more[256];
    struct nodes nodes = {.kind = &KIND[TLS13_STATEFUL]};
    nodes.visitor = visitor_new(nodes.kind, "a.example");
    /* One host: the second has the ring and the sessions of the first, and Redis says who may use one. */
    snprintf(more, sizeof more, "single_use = true\n[memory]\npath = \"%s\"\n", redis.memory);
    nodes.first = node_new(nodes.kind, more);
    nodes.makes = attached_server(nodes.first);
    nodes.second = node_of(nodes.kind, more, "agent = \"external\"\n");
    nodes.finds = attached_server(nodes.second);
    nodes_agree(&nodes);
    ASYNC_cleanup_thread();
    CHECK_EQUAL(stack_count, 0);
    long asked = redis_calls("getdel");
    CHECK(asked > 0);
    for (int round = 0; round < 4; round++) {
        visitor_gets_a_new_session(&nodes);
        struct pair pair = pair_new(&nodes.visitor, nodes.finds);
        if (round % 2 == 0)
            SSL_set_mode(pair.server, SSL_MODE_ASYNC);
        else
            steps_in_a_job_of_its_own(&pair);
        CHECK(!pair_ends(&pair));
        CHECK_EQUAL(redis_calls("getdel"), asked);
        pair_free(&pair, true);
    }
    half_of_each_stack_is_left();
    nodes_agree(&nodes);
    CHECK(redis_calls("getdel") > asked);
    nodes_free(&nodes);
}

int main(int argc, char **argv)
{
    CHECK(CRYPTO_set_mem_functions(paints, grows, frees) == 1);
    check_begin(argc, argv);
    redis_start();
    atexit(redis_end);
    if (ASYNC_is_capable()) {
        CLAIM(jobs_leave_half_of_their_stack_alone);
        CLAIM(without_threads_jobs_do_not_ask);
        CLAIM(a_paused_handshake_goes_on_when_the_answer_comes);
        CLAIM(a_paused_handshake_goes_on_without_the_session_when_its_time_is_over);
        CLAIM(who_comes_back_too_early_is_sent_away_again);
        CLAIM(many_handshakes_are_paused_at_once);
        CLAIM(a_single_use_ticket_resumes_after_a_retry_request_too);
        CLAIM(contexts_and_realm_may_go_before_a_paused_connection);
        CLAIM(who_did_not_ask_for_it_is_not_paused);
        CLAIM(a_child_may_free_what_is_paused);
        CLAIM(a_connection_may_be_freed_while_it_is_paused);
    }
    return check_end();
}
