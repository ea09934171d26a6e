/* 0-RTT data is accepted at most once, and never at the price of resumption. */
#include "moving_clock.h"

#include <stdio.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include <openssl/err.h>

enum { WINDOW = 20, MOST_FLIGHT = 8192 };

static TLSRESUME *early_realm(int kind, const char *more)
{
    server_clock_is_at(0);
    return realm_of(&KIND[kind], more);
}

static SSL_CTX *early_server(TLSRESUME *tr)
{
    SSL_CTX *server = server_new();
    SSL_CTX_set_max_early_data(server, 1024);
    CHECK(tlsresume_attach(tr, server) == 1);
    return server;
}

/* A first flight with early data, as an attacker would record it. */
struct flight {
    unsigned char bytes[MOST_FLIGHT];
    int len;
};

static struct flight record(struct visitor *visitor)
{
    struct flight flight;
    size_t written = 0;
    SSL *client = SSL_new(visitor->ctx);
    CHECK(client != NULL);
    SSL_set_bio(client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(client), -1);
    SSL_set_connect_state(client);
    if (visitor->name != NULL)
        CHECK(SSL_set_tlsext_host_name(client, visitor->name) == 1);
    CHECK(SSL_set_session(client, visitor->session) == 1);
    CHECK(SSL_write_early_data(client, "GET /", 5, &written) == 1);
    flight.len = BIO_read(SSL_get_wbio(client), flight.bytes, sizeof flight.bytes);
    CHECK(flight.len > 0 && flight.len < MOST_FLIGHT);
    SSL_set_shutdown(client, SSL_SENT_SHUTDOWN);
    SSL_free(client);
    return flight;
}

/* What a server does with the flight: whether it resumes, and whether it takes the early data. */
struct reception {
    bool resumes, takes;
};

static struct reception receive(SSL_CTX *ctx, const struct flight *flight)
{
    SSL *server = SSL_new(ctx);
    struct reception reception;
    char data[64];
    size_t len = 0;
    CHECK(server != NULL);
    SSL_set_bio(server, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(server), -1);
    SSL_set_accept_state(server);
    BIO_write(SSL_get_rbio(server), flight->bytes, flight->len);
    server_runs = true;
    reception.takes =
        SSL_read_early_data(server, data, sizeof data, &len) == SSL_READ_EARLY_DATA_SUCCESS;
    server_runs = false;
    CHECK_EQUAL(reception.takes,
                SSL_get_early_data_status(server) == SSL_EARLY_DATA_ACCEPTED);
    if (reception.takes)
        CHECK(len == 5 && memcmp(data, "GET /", 5) == 0);
    reception.resumes = SSL_session_reused(server);
    SSL_set_shutdown(server, SSL_SENT_SHUTDOWN);
    SSL_free(server);
    ERR_clear_error();
    return reception;
}

static bool takes(SSL_CTX *ctx, const struct flight *flight)
{
    return receive(ctx, flight).takes;
}

static struct flight flight_of_new_visitor(const struct kind *kind, SSL_CTX *server)
{
    struct visitor visitor = visitor_new(kind, "a.example");
    CHECK(!visit(&visitor, server));
    CHECK_EQUAL(SSL_SESSION_get_max_early_data(visitor.session), 1024);
    struct flight flight = record(&visitor);
    visitor_free(&visitor);
    return flight;
}

static void a_replay_is_refused_on_every_context_of_the_memory(void)
{
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        TLSRESUME *tr = early_realm(k, "");
        SSL_CTX *servers[2] = {early_server(tr), early_server(tr)};
        server_clock_is_at(WINDOW + 1);
        for (int first = 0; first < 2; first++) {
            struct flight flight = flight_of_new_visitor(&KIND[k], servers[0]);
            CHECK_SAYING(takes(servers[first], &flight), "%s", KIND[k].name);
            for (int again = 0; again < 4; again++)
                CHECK_SAYING(!takes(servers[again % 2], &flight), "%s: replay %d", KIND[k].name,
                             again);
        }
        TLSRESUME_STATS stats = stats_of(tr);
        CHECK_EQUAL(stats.early_data_allowed, 2);
        CHECK_EQUAL(stats.early_data_refused, 8);
        SSL_CTX_free(servers[0]);
        SSL_CTX_free(servers[1]);
        tlsresume_free(tr);
    }
}

static void a_replay_is_refused_by_another_process_with_the_same_file(void)
{
    char path[64], memory[128];
    snprintf(path, sizeof path, "/dev/shm/tlsresume-check-%ld", (long)getpid());
    snprintf(memory, sizeof memory, "[memory]\npath = \"%s\"\nsize = \"1MiB\"\n", path);
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        remove(path);
        /* Two instances map the file twice, as two processes would. */
        TLSRESUME *one = early_realm(k, memory), *other = early_realm(k, memory);
        SSL_CTX *here = early_server(one), *there = early_server(other);
        server_clock_is_at(WINDOW + 1);
        struct flight flight = flight_of_new_visitor(&KIND[k], here);
        CHECK_SAYING(takes(there, &flight), "%s", KIND[k].name);
        CHECK_SAYING(!takes(here, &flight), "%s", KIND[k].name);
        CHECK_SAYING(!takes(there, &flight), "%s", KIND[k].name);
        SSL_CTX_free(here);
        SSL_CTX_free(there);
        tlsresume_free(one);
        tlsresume_free(other);
    }
    remove(path);
}

static void a_refused_replay_still_resumes_where_tickets_may(void)
{
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        TLSRESUME *tr = early_realm(k, "");
        SSL_CTX *server = early_server(tr);
        server_clock_is_at(WINDOW + 1);
        struct flight flight = flight_of_new_visitor(&KIND[k], server);
        CHECK(takes(server, &flight));
        struct reception replay = receive(server, &flight);
        CHECK_SAYING(replay.resumes && !replay.takes, "%s", KIND[k].name);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void with_single_use_a_replay_does_not_even_resume(void)
{
    TLSRESUME *tr = early_realm(TLS13_STATEFUL, "single_use = true\n");
    SSL_CTX *server = early_server(tr);
    server_clock_is_at(WINDOW + 1);
    struct flight flight = flight_of_new_visitor(&KIND[TLS13_STATEFUL], server);
    CHECK(takes(server, &flight));
    struct reception replay = receive(server, &flight);
    CHECK(!replay.resumes && !replay.takes);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void a_register_refuses_until_it_is_as_old_as_its_window(void)
{
    static const struct {
        int at;
        bool takes;
    } TIMES[] = {{0, false}, {WINDOW / 2, false}, {WINDOW - 2, false}, {WINDOW + 1, true}};
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        TLSRESUME *tr = early_realm(k, "");
        SSL_CTX *server = early_server(tr);
        for (size_t i = 0; i < sizeof TIMES / sizeof *TIMES; i++) {
            server_clock_is_at(TIMES[i].at);
            struct flight flight = flight_of_new_visitor(&KIND[k], server);
            struct reception reception = receive(server, &flight);
            CHECK_SAYING(reception.takes == TIMES[i].takes, "%s after %d s", KIND[k].name,
                         TIMES[i].at);
            CHECK_SAYING(reception.resumes, "%s after %d s", KIND[k].name, TIMES[i].at);
        }
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* When the register has forgotten, OpenSSL finds the flight too old. */
static void a_replay_stays_refused_after_the_window(void)
{
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        TLSRESUME *tr = early_realm(k, "");
        SSL_CTX *server = early_server(tr);
        server_clock_is_at(100);
        struct flight flight = flight_of_new_visitor(&KIND[k], server);
        CHECK(takes(server, &flight));
        for (int later = 1; later < 3 * WINDOW; later += 3) {
            server_clock_is_at(100 + later);
            CHECK_SAYING(!takes(server, &flight), "%s, %d s later", KIND[k].name, later);
        }
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* Sessions by the thousand make room for one another, and not in the register. */
static void a_full_store_takes_nothing_from_the_register(void)
{
    TLSRESUME *tr = early_realm(TLS13_STATEFUL, "tickets = 16\n[memory]\nsize = \"512KiB\"\n");
    SSL_CTX *server = early_server(tr);
    server_clock_is_at(WINDOW + 1);
    struct flight flight = flight_of_new_visitor(&KIND[TLS13_STATEFUL], server);
    CHECK(takes(server, &flight));
    struct visitor visitor = visitor_new(&KIND[TLS13_STATEFUL], NULL);
    for (int i = 0; i < 200; i++) {
        visitor_forgets(&visitor);
        CHECK(!visit(&visitor, server));
    }
    CHECK(stats_of(tr).sessions_evicted > 0);
    CHECK(!takes(server, &flight));
    flight = flight_of_new_visitor(&KIND[TLS13_STATEFUL], server);
    CHECK(takes(server, &flight));
    CHECK(!takes(server, &flight));
    visitor_free(&visitor);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void a_flush_allows_no_replay(void)
{
    TLSRESUME *tr = early_realm(TLS13_STATELESS, "");
    SSL_CTX *server = early_server(tr);
    server_clock_is_at(WINDOW + 1);
    struct flight flight = flight_of_new_visitor(&KIND[TLS13_STATELESS], server);
    CHECK(takes(server, &flight));
    CHECK(tlsresume_sessions_flush(tr) == 1);
    CHECK(!takes(server, &flight));
    flight = flight_of_new_visitor(&KIND[TLS13_STATELESS], server);
    CHECK(takes(server, &flight));
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void a_file_on_a_disk_allows_no_early_data(void)
{
    static const char *const PATH = "early-data-on-a-disk";
    char here[512], path[600], memory[700];
    struct statfs place;
    CHECK(statfs(".", &place) == 0);
    CHECK_SAYING(place.f_type != TMPFS_MAGIC, "run this where . is on a disk");
    CHECK(getcwd(here, sizeof here) != NULL);
    snprintf(path, sizeof path, "%s/%s-%ld", here, PATH, (long)getpid());
    snprintf(memory, sizeof memory, "[memory]\npath = \"%s\"\nsize = \"1MiB\"\n", path);
    TLSRESUME *tr = early_realm(TLS13_STATELESS, memory);
    SSL_CTX *server = early_server(tr);
    server_clock_is_at(WINDOW + 1);
    struct flight flight = flight_of_new_visitor(&KIND[TLS13_STATELESS], server);
    struct reception reception = receive(server, &flight);
    CHECK(reception.resumes && !reception.takes);
    SSL_CTX_free(server);
    tlsresume_free(tr);
    remove(path);
}

static int asked;

static int ask_the_library(SSL *ssl, void *arg)
{
    const bool *agrees = arg;
    asked++;
    return *agrees && tlsresume_early_data_allowed(ssl);
}

static void an_application_with_a_callback_of_its_own_asks_the_same_register(void)
{
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        TLSRESUME *tr = early_realm(k, "");
        SSL_CTX *own = early_server(tr), *other = early_server(tr);
        bool agrees = true;
        SSL_CTX_set_allow_early_data_cb(own, ask_the_library, &agrees);
        asked = 0;
        server_clock_is_at(WINDOW + 1);
        struct flight flight = flight_of_new_visitor(&KIND[k], own);
        CHECK(takes(own, &flight));
        CHECK(!takes(own, &flight));
        CHECK(!takes(other, &flight));
        flight = flight_of_new_visitor(&KIND[k], own);
        CHECK(takes(other, &flight));
        CHECK(!takes(own, &flight));
        CHECK_EQUAL(asked, 3);
        agrees = false;
        flight = flight_of_new_visitor(&KIND[k], own);
        CHECK(!takes(own, &flight));
        SSL_CTX_free(own);
        SSL_CTX_free(other);
        tlsresume_free(tr);
    }
}

static void early_data_switched_on_after_attach_works_and_resumes(void)
{
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        TLSRESUME *tr = early_realm(k, "");
        SSL_CTX *server = attached_server(tr);
        SSL_CTX_set_max_early_data(server, 1024);
        server_clock_is_at(WINDOW + 1);
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, server));
        for (int i = 0; i < 5; i++)
            CHECK_SAYING(visit(&visitor, server), "%s", KIND[k].name);
        struct flight flight = record(&visitor);
        CHECK(takes(server, &flight));
        CHECK(!takes(server, &flight));
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void early_data_under_another_name_is_not_taken(void)
{
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        TLSRESUME *tr = early_realm(k, "");
        SSL_CTX *server = early_server(tr);
        server_clock_is_at(WINDOW + 1);
        struct visitor visitor = visitor_new(&KIND[k], NULL);
        CHECK(!visit(&visitor, server));
        visitor.name = "b.example";
        struct flight flight = record(&visitor);
        struct reception reception = receive(server, &flight);
        CHECK(!reception.resumes && !reception.takes);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM(a_replay_is_refused_on_every_context_of_the_memory);
    CLAIM(a_replay_is_refused_by_another_process_with_the_same_file);
    CLAIM(a_refused_replay_still_resumes_where_tickets_may);
    CLAIM(with_single_use_a_replay_does_not_even_resume);
    CLAIM(a_register_refuses_until_it_is_as_old_as_its_window);
    CLAIM(a_replay_stays_refused_after_the_window);
    CLAIM(a_full_store_takes_nothing_from_the_register);
    CLAIM(a_flush_allows_no_replay);
    CLAIM(a_file_on_a_disk_allows_no_early_data);
    CLAIM(an_application_with_a_callback_of_its_own_asks_the_same_register);
    CLAIM(early_data_switched_on_after_attach_works_and_resumes);
    CLAIM(early_data_under_another_name_is_not_taken);
    return check_end();
}
