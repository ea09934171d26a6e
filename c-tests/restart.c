/* A server that is started anew: at the same address, with the same memory, and with virtual hosts under other rules. */
#define _GNU_SOURCE

#include "check.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

enum { MUST_SHOW = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, DEADLINE = 60, MOST_SESSION = 8192 };

static EVP_PKEY *key;
static X509 *authority, *of_member;

/* What one process leaves to the next one. */
static struct {
    int session_len;
    unsigned char session[MOST_SESSION];
    int refused, resumed;
} *left;

/* ---- The server ---- */

static struct {
    int listener;
    struct sockaddr_in address;
    char memory[64];
    const char *size;    /* of the memory */
} place;

static void place_open(void)
{
    socklen_t len = sizeof place.address;
    struct sockaddr *address = (struct sockaddr *)&place.address;
    place.address.sin_family = AF_INET;
    place.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    place.listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(place.listener >= 0 && bind(place.listener, address, len) == 0);
    CHECK(listen(place.listener, 8) == 0 && getsockname(place.listener, address, &len) == 0);
    snprintf(place.memory, sizeof place.memory, "/dev/shm/tlsresume-restart-XXXXXX");
    CHECK(mkdtemp(place.memory) != NULL);
    strcat(place.memory, "/memory");
    place.size = "1MiB";
}

static void place_close(void)
{
    CHECK(close(place.listener) == 0 && unlink(place.memory) == 0);
    *strrchr(place.memory, '/') = '\0';
    CHECK(rmdir(place.memory) == 0);
}

/* What the application does with the info callback of every connection. */
enum habit { LEAVES_IT, TAKES_IT_OFF, SETS_ONE_THAT_LEAVES, HABITS };

/* How the application is set up. */
static struct setup {
    bool verifies;    /* its only virtual host asks for certificates */
    bool traces;      /* and sets an info callback of its own on connections that it verifies */
    bool frees;       /* each connection, in place of leaving it to the end of the process */
    bool is_mute;     /* and gives no tickets where it verifies */
    enum habit habit;
    bool is_unattached; /* what verifies: its rules show when a client was verified */
    int jumps_at;     /* its info callback is left by longjmp(3) once, at this step from now on; 0: never */
} setup;

static struct {
    TLSRESUME *tr;
    SSL_CTX *front, *members;
} server;

static void traces_nothing(const SSL *ssl, int position, int value)
{
    (void)ssl, (void)position, (void)value;
}

static void traces_one_step(const SSL *ssl, int position, int value)
{
    (void)value;
    if (position & SSL_CB_LOOP)
        SSL_set_info_callback((SSL *)ssl, NULL);
}

static bool gives_no_tickets(void)
{
    return setup.verifies && setup.is_mute;
}

static int choose_host(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    if (setup.habit != LEAVES_IT)
        SSL_set_info_callback(ssl, setup.habit == TAKES_IT_OFF ? NULL : traces_one_step);
    if (!setup.verifies)
        return SSL_TLSEXT_ERR_OK;
    if (setup.traces)
        SSL_set_info_callback(ssl, traces_nothing);
    SSL_set_SSL_CTX(ssl, server.members);
    SSL_set_verify(ssl, MUST_SHOW, NULL);
    if (gives_no_tickets()) {
        SSL_set_options(ssl, SSL_OP_NO_TICKET);
        SSL_set_num_tickets(ssl, 0);
    }
    return SSL_TLSEXT_ERR_OK;
}

static jmp_buf handshake;

/* As an interpreter does whose callback fails. */
static void jumps_out(const SSL *ssl, int position, int value)
{
    (void)value;
    if (SSL_is_server((SSL *)ssl) && (position & SSL_CB_LOOP) && setup.jumps_at > 0 && --setup.jumps_at == 0)
        longjmp(handshake, 1);
}

/* Goes on where the info callback is left. */
static int serves(SSL *ssl)
{
    setjmp(handshake);
    return SSL_do_handshake(ssl);
}

static void server_starts(void)
{
    char more[128];
    snprintf(more, sizeof more, "[memory]\npath = \"%s\"\nsize = \"%s\"\n", place.memory, place.size);
    server.tr = realm_of(tried_kind, more);
    server.front = server_new();
    server.members = server_new();
    server_verifies(server.members, authority);
    if (setup.habit == LEAVES_IT) {
        SSL_CTX_set_info_callback(server.front, jumps_out);
        SSL_CTX_set_info_callback(server.members, jumps_out);
    }
    SSL_CTX_set_tlsext_servername_callback(server.front, choose_host);
    CHECK(tlsresume_attach(server.tr, server.front) == 1);
    if (!setup.is_unattached)
        CHECK(tlsresume_attach(server.tr, server.members) == 1);
}

/* What only the connections knew that nobody freed is no leak: another program takes over, into which valgrind does not
 * follow. */
static void process_ends(void)
{
    fflush(NULL);
    execl("/bin/true", "true", (char *)NULL);
}

/* ---- Clients ---- */

static void waits_for_input(int socket, int other)
{
    struct pollfd either[2] = {{.fd = socket, .events = POLLIN}, {.fd = other, .events = POLLIN}};
    CHECK_SAYING(poll(either, 2, DEADLINE * 1000) > 0, "nothing comes");
}

/* False when the server's side fails. */
static bool is_let_in(struct pair *pair)
{
    for (;;) {
        SSL_do_handshake(pair->client);
        ERR_clear_error();
        int result = serves(pair->server);
        if (result != 1 && SSL_get_error(pair->server, result) != SSL_ERROR_WANT_READ)
            return false;
        if (result == 1 && SSL_is_init_finished(pair->client))
            return true;
        waits_for_input(SSL_get_fd(pair->client), SSL_get_fd(pair->server));
    }
}

static void takes_tickets(struct visitor *visitor, struct pair *pair)
{
    char byte;
    while (tried_kind->version == TLS1_3_VERSION && visitor->tickets == 0 && !gives_no_tickets()) {
        CHECK(SSL_read(pair->client, &byte, 1) < 0);
        if (visitor->tickets == 0)
            waits_for_input(SSL_get_fd(pair->client), -1);
    }
    visitor_leaves(visitor, pair);
}

enum outcome { REFUSED, FULL, RESUMED };

static enum outcome comes(struct visitor *visitor)
{
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(client >= 0 && connect(client, (struct sockaddr *)&place.address, sizeof place.address) == 0);
    int accepted = accept(place.listener, NULL, NULL);
    CHECK(fcntl(client, F_SETFL, O_NONBLOCK) == 0 && fcntl(accepted, F_SETFL, O_NONBLOCK) == 0);
    struct pair pair = pair_new(visitor, server.front);
    CHECK(SSL_set_fd(pair.client, client) == 1 && SSL_set_fd(pair.server, accepted) == 1);
    bool is_in = is_let_in(&pair);
    enum outcome outcome = !is_in ? REFUSED : SSL_session_reused(pair.server) ? RESUMED : FULL;
    if (is_in)
        takes_tickets(visitor, &pair);
    if (setup.frees) {
        pair_free(&pair, true);
    } else {
        SSL_set_shutdown(pair.client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(pair.client);
    }
    CHECK(close(client) == 0 && close(accepted) == 0);
    ERR_clear_error();
    return outcome;
}

static struct visitor client_new(bool is_member)
{
    struct visitor client = visitor_new(tried_kind, "a.example");
    if (is_member)
        visitor_shows(&client, of_member, key);
    return client;
}

static bool is_member;    /* the client of these claims */

/* The first server, where the client gets the session that it comes back with. */
static void comes_before_the_restart(void)
{
    setup.frees = true;
    server_starts();
    struct visitor client = client_new(is_member);
    CHECK(comes(&client) == FULL);
    CHECK(comes(&client) == RESUMED || setup.habit != LEAVES_IT);
    unsigned char *at = left->session;
    int len = i2d_SSL_SESSION(client.session, NULL);
    CHECK(len > 0 && len <= MOST_SESSION);
    left->session_len = i2d_SSL_SESSION(client.session, &at);
    process_ends();
}

/* And after the restart. */
static void comes_with_that_session(void)
{
    const unsigned char *at = left->session;
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &at, left->session_len);
    CHECK(session != NULL);
    struct visitor client = client_new(is_member);
    visitor_takes(&client, session);
    enum outcome outcome = comes(&client);
    left->refused += outcome == REFUSED;
    left->resumed += outcome == RESUMED;
    SSL_SESSION_free(session);
    visitor_free(&client);
}

static void comes_in_a_process_that_starts(void)
{
    server_starts();
    comes_with_that_session();
    process_ends();
}

static void comes_in_a_child(void)
{
    comes_with_that_session();
    process_ends();
}

enum { VISITS = 4 };

static void comes_to_a_process_that_forks(void)
{
    server_starts();
    for (int i = 0; i < VISITS; i++)
        check_apart(comes_in_a_child);
    process_ends();
}

static void comes_to_a_process_that_stays(void)
{
    server_starts();
    for (int i = 0; i < VISITS; i++)
        comes_with_that_session();
    process_ends();
}

enum style { STARTS_FOR_EACH, FORKS_FOR_EACH, STAYS, STYLES };

static void comes_again_and_again(enum style style)
{
    for (int i = 0; style == STARTS_FOR_EACH && i < VISITS; i++)
        check_apart(comes_in_a_process_that_starts);
    if (style == FORKS_FOR_EACH)
        check_apart(comes_to_a_process_that_forks);
    if (style == STAYS)
        check_apart(comes_to_a_process_that_stays);
}

/* What became of the visits to a server that was started anew, in `left`. */
static void is_visited_before_and_after(struct setup before, struct setup after, enum style style)
{
    memset(left, 0, sizeof *left);
    place_open();
    setup = before;
    check_apart(comes_before_the_restart);
    setup = after;
    comes_again_and_again(style);
    place_close();
}

/* Processes are what slow tools are slowest at: there the kinds that differ, and one process. */
static bool is_left_out(enum style style)
{
    return scaled(2) < 2 && (style != STAYS || tried_kind->version == TLS1_3_VERSION);
}

/* ---- A server that only reads its configuration anew ---- */

static struct setup after_the_reload;

static void a_member_comes_to_another_host(void)
{
    struct visitor member = client_new(true);
    member.name = "b.example";
    CHECK(comes(&member) == FULL);
    visitor_free(&member);
}

/* As a guest of what is public, and back when the server verifies. */
static void comes_before_and_after_a_reload(void)
{
    setup = after_the_reload;
    setup.verifies = false;
    setup.jumps_at = 0;
    server_starts();
    struct visitor guest = client_new(false);
    CHECK(comes(&guest) == FULL);
    if (setup.habit == LEAVES_IT || setup.is_unattached)
        CHECK(comes(&guest) == RESUMED);
    SSL_SESSION *kept = session_copy(guest.session);
    setup.verifies = true;
    if (setup.is_unattached)
        a_member_comes_to_another_host();
    for (int i = 0; i < VISITS; i++) {
        setup = after_the_reload;
        visitor_takes(&guest, kept);
        left->refused += comes(&guest) == REFUSED;
    }
    SSL_SESSION_free(kept);
    visitor_free(&guest);
    process_ends();
}

static void guests_are_refused_after_a_reload(struct setup after)
{
    for (tried_kind = KIND; tried_kind < KIND + KINDS; tried_kind++) {
        if (is_left_out(STAYS))
            continue;
        memset(left, 0, sizeof *left);
        after_the_reload = after;
        place_open();
        check_apart(comes_before_and_after_a_reload);
        place_close();
        CHECK_SAYING(left->refused == VISITS, "%s, habit %d, unattached %d, jumps at %d: %d refused",
                     tried_kind->name, after.habit, after.is_unattached, after.jumps_at, left->refused);
    }
}

/* ---- A server that is public in between ---- */

enum { MORE_NAMES_THAN_FIT = 6000 };

static void a_stranger_asks_for_many_names(void)
{
    char name[32];
    struct visitor stranger = visitor_new(tried_kind, name);
    for (int i = 0; i < MORE_NAMES_THAN_FIT; i++) {
        snprintf(name, sizeof name, "n%d.example", i);
        CHECK(!visit(&stranger, server.front));
        visitor_forgets(&stranger);
    }
    visitor_free(&stranger);
}

/* Each time with the session of a public visit. */
static void a_member_comes_where_the_table_is_full(void)
{
    setup = (struct setup){.frees = true};
    server_starts();
    a_stranger_asks_for_many_names();
    struct visitor member = client_new(true);
    for (int i = 0; i < VISITS; i++) {
        setup.verifies = false;
        visitor_forgets(&member);
        CHECK(comes(&member) == FULL);
        setup.verifies = true;
        left->refused += comes(&member) == REFUSED;
    }
    visitor_free(&member);
    process_ends();
}

/* ---- Claims ---- */

static void a_session_from_before_verification_was_turned_on_does_not_resume_where_callbacks_are_replaced(void)
{
    is_member = false;
    for (tried_kind = KIND; tried_kind < KIND + KINDS; tried_kind++)
        for (int variant = 0; variant < 4; variant++)
            for (enum style style = 0; style < STYLES; style++) {
                bool frees = variant & 1, is_mute = variant & 2;
                if (is_left_out(style))
                    continue;
                const struct setup before = {.frees = true};
                const struct setup after = {.verifies = true, .traces = true, .frees = frees, .is_mute = is_mute};
                is_visited_before_and_after(before, after, style);
                CHECK_SAYING(left->resumed == 0 && left->refused == VISITS,
                             "%s, frees %d, mute %d, style %d: %d resumed", tried_kind->name, frees, is_mute, style,
                             left->resumed);
            }
}

static void nor_where_each_connection_loses_its_info_callback(void)
{
    is_member = false;
    for (tried_kind = KIND; tried_kind < KIND + KINDS; tried_kind++)
        for (enum habit habit = TAKES_IT_OFF; habit < HABITS; habit++) {
            const struct setup before = {.frees = true, .habit = habit};
            const struct setup after = {.verifies = true, .frees = true, .habit = habit};
            is_visited_before_and_after(before, after, STAYS);
            CHECK_SAYING(left->refused == VISITS, "%s, habit %d: %d refused", tried_kind->name, habit, left->refused);
        }
}

static void nor_after_a_reload_where_each_connection_loses_its_info_callback(void)
{
    for (enum habit habit = TAKES_IT_OFF; habit < HABITS; habit++)
        for (int unattached = 0; unattached < 2; unattached++)
            guests_are_refused_after_a_reload(
                (struct setup){.verifies = true, .frees = true, .habit = habit, .is_unattached = unattached});
}

enum { MOST_STEPS = 8 };

static void nor_where_an_info_callback_was_left_by_a_jump(void)
{
    for (int step = 1; step <= MOST_STEPS; step++)
        guests_are_refused_after_a_reload((struct setup){.verifies = true, .frees = true, .jumps_at = step});
}

static void a_member_comes_back(bool frees, enum style style)
{
    is_member = true;
    for (tried_kind = KIND; tried_kind < KIND + KINDS; tried_kind++) {
        if (is_left_out(style))
            continue;
        const struct setup before = {.verifies = true, .frees = true};
        const struct setup after = {.verifies = true, .traces = true, .frees = frees};
        is_visited_before_and_after(before, after, style);
        CHECK_SAYING(left->refused == 0, "%s, frees %d, style %d: %d of %d refused", tried_kind->name, frees, style,
                     left->refused, VISITS);
    }
}

static void who_shows_a_certificate_is_let_in_where_callbacks_are_replaced(void)
{
    for (int frees = 0; frees < 2; frees++)
        for (enum style style = 0; style < STYLES; style++)
            a_member_comes_back(frees, style);
}

/* Without a trace of its own: the first visit to each program is a full handshake. */
static void a_member_resumes_from_the_second_visit_to_a_program(void)
{
    is_member = true;
    for (tried_kind = KIND; tried_kind < KIND + KINDS; tried_kind++)
        for (enum style style = FORKS_FOR_EACH; style < STYLES; style++) {
            if (is_left_out(style))
                continue;
            const struct setup before = {.verifies = true, .frees = true}, after = before;
            is_visited_before_and_after(before, after, style);
            CHECK_SAYING(left->refused == 0 && left->resumed == VISITS - 1, "%s, style %d: %d of %d resumed",
                         tried_kind->name, style, left->resumed, VISITS);
        }
}

static void an_ended_handshake_costs_one_connection_where_there_is_no_room_for_its_name(void)
{
    for (tried_kind = KIND; tried_kind < KIND + KINDS; tried_kind++) {
        /* Thousands of handshakes. */
        if (scaled(2) < 2)
            continue;
        memset(left, 0, sizeof *left);
        place_open();
        place.size = "512KiB";
        check_apart(a_member_comes_where_the_table_is_full);
        place_close();
        CHECK_SAYING(left->refused <= 1, "%s: %d of %d refused", tried_kind->name, left->refused, VISITS);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    own_certificate();
    key = new_key();
    authority = new_certificate("authority", key, NULL, NULL, 0);
    of_member = new_certificate("member", key, authority, key, 0);
    left = mmap(NULL, sizeof *left, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(left != MAP_FAILED);
    CLAIM(a_session_from_before_verification_was_turned_on_does_not_resume_where_callbacks_are_replaced);
    CLAIM(nor_where_each_connection_loses_its_info_callback);
    CLAIM(nor_after_a_reload_where_each_connection_loses_its_info_callback);
    CLAIM(nor_where_an_info_callback_was_left_by_a_jump);
    CLAIM(who_shows_a_certificate_is_let_in_where_callbacks_are_replaced);
    CLAIM(a_member_resumes_from_the_second_visit_to_a_program);
    CLAIM(an_ended_handshake_costs_one_connection_where_there_is_no_room_for_its_name);
    return check_end();
}
