/* Server processes, and what they are told: to serve one client on a port, whose end they play as well. */
#include "../moving_clock.h"

#include "policies.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <openssl/err.h>

const char *const PLACE[PLACES] = {
    [SAME_PROCESS] = "same process",
    [FORKED_CHILD] = "forked children",
    [OTHER_PROCESS] = "other process",
    [OTHER_NODE] = "other node",
};

/* LATER: more than the register of early data needs to know what it has seen. */
enum { LONGEST = 120, LATER = 100 };

enum order { SERVE, CROWD, CHURN };

struct request {
    enum order order;
    int port, count, rounds, kind;
    struct guest guest;
};

struct response {
    enum outcome outcome;
    bool took_early;
    int count, session_len;
    unsigned char session[MOST_SESSION];
};

static bool sends(int socket, const void *from, size_t len)
{
    return send(socket, from, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static bool receives(int socket, void *to, size_t len)
{
    return recv(socket, to, len, MSG_WAITALL) == (ssize_t)len;
}

/* ---- Serving one client ---- */

static struct visitor visitor_of(const struct guest *guest)
{
    struct visitor visitor = visitor_new(&KIND[guest->kind], guest->name);
    client_is(visitor.ctx, guest->who);
    if (guest->session_len > 0) {
        const unsigned char *start = guest->session;
        visitor.session = d2i_SSL_SESSION(NULL, &start, guest->session_len);
        CHECK(visitor.session != NULL);
    }
    return visitor;
}

/* As far as the server reads early data; true when the application was given some. */
static bool early_data_arrives(struct pair *pair)
{
    char data[64];
    size_t len = 0;
    bool arrived = false;
    if (SSL_write_early_data(pair->client, "GET /", 5, &len) != 1)
        ERR_clear_error();
    for (int steps = 0; steps < 20; steps++) {
        server_runs = true;
        int result = SSL_read_early_data(pair->server, data, sizeof data, &len);
        int error = SSL_get_error(pair->server, 0);
        server_runs = false;
        arrived = arrived || (result == SSL_READ_EARLY_DATA_SUCCESS && len > 0);
        if (result == SSL_READ_EARLY_DATA_FINISH || error == SSL_ERROR_SSL)
            break;
        if (SSL_do_handshake(pair->client) != 1)
            ERR_clear_error();
    }
    return arrived;
}

static void keep_session(struct visitor *visitor, struct response *response)
{
    unsigned char *der = NULL;
    response->session_len = visitor->session != NULL ? i2d_SSL_SESSION(visitor->session, &der) : 0;
    CHECK(response->session_len >= 0 && response->session_len <= MOST_SESSION);
    if (der != NULL)
        memcpy(response->session, der, (size_t)response->session_len);
    OPENSSL_free(der);
}

static void serve(struct site *site, const struct request *request, struct response *response)
{
    struct visitor visitor = visitor_of(&request->guest);
    key_was_shown = false;
    struct pair pair = pair_with(&visitor, site_accepts(site, request->port));
    if (request->guest.insists)
        response->took_early = early_data_arrives(&pair);
    bool served = pair_shakes(&pair);
    /* The application sees the connection as soon as its own side is done. */
    bool resumed = SSL_session_reused(pair.server) && !key_was_shown;
    if (SSL_is_init_finished(pair.server))
        response->outcome = resumed ? RESUMED : served ? FULL : REFUSED;
    if (served)
        visitor_leaves(&visitor, &pair);
    if (served || visitor.tickets > 0)
        keep_session(&visitor, response);
    if (getenv("POLICIES_TELL") != NULL && !served)
        ERR_print_errors_fp(stderr);
    pair_free(&pair, true);
    visitor_free(&visitor);
    ERR_clear_error();
}

/* ---- Many ---- */

static bool one_of_a_crowd(struct site *site, struct visitor *visitor)
{
    struct pair pair = pair_with(visitor, site_accepts(site, 0));
    CHECK_SAYING(pair_shakes(&pair), "%s", visitor->name);
    bool resumed = SSL_session_reused(pair.server);
    visitor_leaves(visitor, &pair);
    pair_free(&pair, true);
    return resumed;
}

static int crowd(struct site *site, int count, int rounds, int kind)
{
    struct visitor visitor = visitor_new(&KIND[kind], NULL);
    SSL_SESSION **sessions = calloc((size_t)count, sizeof *sessions);
    int resumed = 0;
    CHECK(sessions != NULL);
    client_is(visitor.ctx, NOBODY);
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < count; i++) {
            char name[MOST_NAME];
            snprintf(name, sizeof name, "host-%d.example", i);
            visitor.name = name;
            visitor.session = sessions[i];
            resumed += one_of_a_crowd(site, &visitor) && round == rounds - 1;
            sessions[i] = visitor.session;
        }
    for (int i = 0; i < count; i++)
        SSL_SESSION_free(sessions[i]);
    free(sessions);
    visitor.session = NULL;
    visitor_free(&visitor);
    return resumed;
}

/* All of them at once, then none. */
static void churn(int count)
{
    SSL_CTX **hosts = calloc((size_t)count, sizeof *hosts);
    CHECK(hosts != NULL);
    for (int i = 0; i < count; i++) {
        hosts[i] = new_host(&PARTS[0].strict, AS_IT_IS, true);
        SSL *ssl = SSL_new(hosts[i]);
        SSL_set_accept_state(ssl);
        SSL_free(ssl);
    }
    for (int i = 0; i < count; i++)
        SSL_CTX_free(hosts[i]);
    free(hosts);
}

/* ---- The process ---- */

static void follow(struct site *site, const struct request *request, struct response *response)
{
    memset(response, 0, sizeof *response);
    if (request->order == SERVE)
        serve(site, request, response);
    else if (request->order == CROWD)
        response->count = crowd(site, request->count, request->rounds, request->kind);
    else
        churn(request->count);
}

/* A server that forks for each connection: what it learns it has to tell by shared memory. */
static void follow_in_a_child(int socket, struct site *site, const struct request *request)
{
    struct response response;
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        follow(site, request, &response);
        sends(socket, &response, sizeof response);
        _exit(0);
    }
    check_child(child);
}

static void run(int socket, const struct setup *setup, bool forks)
{
    struct site site;
    struct request request;
    struct response response;
    alarm(LONGEST);
    server_clock_is_at(0);
    site_open(&site, setup);
    if (setup->tweak == EARLY_DATA)
        server_clock_is_at(LATER);
    /* Its children serve: it is as if one of them had. */
    site.has_served = forks;
    while (receives(socket, &request, sizeof request)) {
        site_turns(&site, request.port);
        if (forks && request.order == SERVE) {
            follow_in_a_child(socket, &site, &request);
        } else {
            follow(&site, &request, &response);
            sends(socket, &response, sizeof response);
        }
    }
    _exit(0);
}

/* ---- Starting it: a program of its own, since the library reads the environment when a program begins. ---- */

enum { ARGUMENTS = 5 + MOST_PORTS };

static int number_of(const struct policy *policy)
{
    for (int i = 0; i < 2 * ALL_PARTS; i++)
        if (policy == policy_of(i))
            return i;
    return -1;
}

int serve_as_told(int argc, char **argv)
{
    struct setup setup = {0};
    int numbers[ARGUMENTS];
    CHECK(argc == 3 + ARGUMENTS);
    for (int i = 0; i < ARGUMENTS; i++)
        numbers[i] = atoi(argv[3 + i]);
    find_people(argv[2]);
    setup.way = (enum way)numbers[2];
    setup.tweak = (enum tweak)numbers[3];
    for (int i = 0; i < MOST_PORTS; i++)
        setup.ports[i] = numbers[4 + i] >= 0 ? policy_of(numbers[4 + i]) : NULL;
    run(numbers[0], &setup, numbers[1]);
    return 0;
}

static void become_a_server(int socket, const struct world *world, const struct setup *setup)
{
    char words[ARGUMENTS][16];
    char *argv[4 + ARGUMENTS] = {"policies", "serve", (char *)folder};
    int numbers[ARGUMENTS] = {socket, world->place == FORKED_CHILD, (int)setup->way,
                              (int)setup->tweak};
    for (int i = 0; i < MOST_PORTS; i++)
        numbers[4 + i] = setup->ports[i] != NULL ? number_of(setup->ports[i]) : -1;
    for (int i = 0; i < ARGUMENTS; i++) {
        snprintf(words[i], sizeof words[i], "%d", numbers[i]);
        argv[3 + i] = words[i];
    }
    execv("/proc/self/exe", argv);
    perror("execv");
    _exit(1);
}

static int worlds;

static void set_environment(const struct world *world, int process, const char *mode)
{
    char realm[32];
    setenv("TLSRESUME_RESUMPTION_MODE", mode, 1);
    setenv("TLSRESUME_LOG_LEVEL", "error", 0);
    /* Thousands of worlds are made, and making their memory is most of what they take; a crowd needs the default. */
    if (!world->is_large)
        setenv("TLSRESUME_MEMORY_SIZE", "4MiB", 0);
    if (world->place == OTHER_PROCESS || world->place == OTHER_NODE)
        setenv("TLSRESUME_MEMORY_PATH", world->paths[process], 1);
    if (world->place == OTHER_NODE) {
        snprintf(realm, sizeof realm, "world-%d", worlds);
        setenv("TLSRESUME_REALM", realm, 1);
    }
}

static void start(struct world *world, int process, const struct setup *setup, const char *mode)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(fcntl(pair[0], F_SETFD, FD_CLOEXEC) == 0);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        set_environment(world, process, mode);
        become_a_server(pair[1], world, setup);
    }
    close(pair[1]);
    world->processes[process].pid = child;
    world->processes[process].socket = pair[0];
}

/* ---- The test's side ---- */

void world_open(struct world *world, const struct setup *setup, enum place place, const char *mode)
{
    world->place = place;
    world->count = place == OTHER_PROCESS || place == OTHER_NODE ? 2 : 1;
    worlds++;
    for (int i = 0; i < world->count; i++) {
        int node = place == OTHER_NODE ? i : 0;
        snprintf(world->paths[i], sizeof world->paths[i], "%s/%d-%d", folder, worlds, node);
        start(world, i, setup, mode);
    }
}

void world_close(struct world *world)
{
    for (int i = 0; i < world->count; i++)
        close(world->processes[i].socket);
    for (int i = 0; i < world->count; i++) {
        waitpid(world->processes[i].pid, NULL, 0);
        remove(world->paths[i]);
    }
}

static struct response ask(struct world *world, int process, const struct request *request)
{
    struct response response;
    int socket = world->processes[process % world->count].socket;
    if (!sends(socket, request, sizeof *request) || !receives(socket, &response, sizeof response)) {
        memset(&response, 0, sizeof response);
        response.outcome = DIED;
    }
    return response;
}

enum outcome world_visit(struct world *world, int process, int port, struct guest *guest,
                         bool *took_early)
{
    struct request request = {.order = SERVE, .port = port, .guest = *guest};
    struct response response = ask(world, process, &request);
    *took_early = response.took_early;
    if (response.session_len > 0) {
        guest->session_len = response.session_len;
        memcpy(guest->session, response.session, (size_t)response.session_len);
    }
    return response.outcome;
}

bool world_is_ready(struct world *world, int kind, enum who who)
{
    /* Once some have not found each other, others are not waited for as long. */
    static int patience = 10;
    time_t end = time(NULL) + patience;
    bool early;
    if (world->place != OTHER_NODE)
        return true;
    while (time(NULL) < end) {
        struct guest guest = guest_new("control.example", kind, who);
        world_visit(world, 1, 0, &guest, &early);
        guest.session_len = 0;
        world_visit(world, 0, 0, &guest, &early);
        if (world_visit(world, 1, 0, &guest, &early) == RESUMED)
            return true;
    }
    patience = 1;
    return false;
}

int world_crowd(struct world *world, int count, int rounds, int kind)
{
    struct request request = {.order = CROWD, .count = count, .rounds = rounds, .kind = kind};
    return ask(world, 0, &request).count;
}

void world_churn(struct world *world, int count)
{
    struct request request = {.order = CHURN, .count = count};
    ask(world, 0, &request);
}

struct guest guest_new(const char *name, int kind, enum who who)
{
    struct guest guest = {.kind = kind, .who = who};
    snprintf(guest.name, sizeof guest.name, "%s", name);
    return guest;
}
