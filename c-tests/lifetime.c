/* Keys and sessions live as long as they should: on the server's side a clock that the test moves. */
#include "moving_clock.h"

#include <stdio.h>

/* By the server's clock. */
#define SERVER(call) (server_runs = true, server_result = (call), server_runs = false, server_result)
static int server_result;

static TLSRESUME_STATS stats_by_clock(TLSRESUME *tr)
{
    server_runs = true;
    TLSRESUME_STATS stats = stats_of(tr);
    server_runs = false;
    return stats;
}

static void the_clock_of_these_tests_moves(void)
{
    time_t before = time(NULL);
    server_clock_is_at(DAY);
    CHECK(time(NULL) < before + HOUR);
    server_runs = true;
    CHECK(time(NULL) >= before + DAY);
    server_runs = false;
    TLSRESUME *tr = realm_new("");
    uint64_t keys = stats_of(tr).rotations;
    CHECK_SAYING(stats_by_clock(tr).rotations > keys, "the library reads another clock");
    tlsresume_free(tr);
    server_clock_is_at(0);
}

static void sessions_end_with_their_lifetime_and_not_before(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "lifetime = \"1h\"\n");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, NULL);
        server_clock_is_at(0);
        CHECK(!visit(&visitor, server));
        SSL_SESSION *session = session_copy(visitor.session);
        static const struct {
            int at;
            bool resumes;
        } TIMES[] = {{1, true}, {HOUR / 2, true}, {HOUR - 2, true}, {HOUR + 2, false}, {2 * HOUR, false}};
        for (size_t i = 0; i < sizeof TIMES / sizeof *TIMES; i++) {
            server_clock_is_at(TIMES[i].at);
            visitor_takes(&visitor, session);
            CHECK_SAYING(visit(&visitor, server) == TIMES[i].resumes, "%s after %d s", kind->name,
                         TIMES[i].at);
        }
        SSL_SESSION_free(session);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void renewed_tickets_carry_what_is_left_of_the_lifetime(void)
{
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "lifetime = \"1000s\"\n");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], NULL);
        for (int at = 0; at < 1000; at += 100) {
            server_clock_is_at(at);
            CHECK_SAYING(visit(&visitor, server) == (at > 0), "%s after %d s", KIND[k].name, at);
            long hint = (long)SSL_SESSION_get_ticket_lifetime_hint(visitor.session);
            CHECK_SAYING(hint <= 1000 - at && hint >= 1000 - at - 1, "%s after %d s: hint %ld",
                         KIND[k].name, at, hint);
        }
        server_clock_is_at(1002);
        CHECK(!visit(&visitor, server));
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

#if OPENSSL_VERSION_NUMBER >= 0x30000000L
/* SSL_new_session_ticket(3) on a connection that has been open for long. */
static void tickets_given_late_carry_what_is_left(void)
{
    static const int TIMES[] = {100, 500, 990};
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++)
        for (int resumed = 0; resumed < 2; resumed++) {
            TLSRESUME *tr = realm_of(&KIND[k], "lifetime = \"1000s\"\n");
            SSL_CTX *server = attached_server(tr);
            struct visitor visitor = visitor_new(&KIND[k], NULL);
            server_clock_is_at(0);
            if (resumed)
                CHECK(!visit(&visitor, server));
            struct pair pair = pair_new(&visitor, server);
            CHECK(pair_shakes(&pair));
            CHECK_EQUAL(SSL_session_reused(pair.server), resumed);
            SSL_SESSION *late[3];
            for (int i = 0; i < 3; i++) {
                char byte;
                server_clock_is_at(TIMES[i]);
                int before = visitor.tickets;
                CHECK(SERVER(SSL_new_session_ticket(pair.server)) == 1);
                CHECK(SERVER(SSL_write(pair.server, "x", 1)) == 1);
                CHECK(SSL_read(pair.client, &byte, 1) == 1);
                CHECK_EQUAL(visitor.tickets, before + 1);
                long hint = (long)SSL_SESSION_get_ticket_lifetime_hint(visitor.session);
                CHECK_SAYING(hint <= 1000 - TIMES[i] && hint >= 1000 - TIMES[i] - 1,
                             "%s after %d s: hint %ld", KIND[k].name, TIMES[i], hint);
                late[i] = session_copy(visitor.session);
            }
            pair_free(&pair, true);
            for (int i = 0; i < 3; i++) {
                server_clock_is_at(994);
                visitor_takes(&visitor, late[i]);
                CHECK_SAYING(visit(&visitor, server), "%s, given after %d s", KIND[k].name, TIMES[i]);
                server_clock_is_at(1003);
                visitor_takes(&visitor, late[i]);
                CHECK_SAYING(!visit(&visitor, server), "%s, given after %d s, too late",
                             KIND[k].name, TIMES[i]);
                SSL_SESSION_free(late[i]);
            }
            visitor_free(&visitor);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
    server_clock_is_at(0);
}

/* Whether the connection began with a full handshake or resumed. */
static void tickets_given_when_nothing_is_left_do_not_resume(void)
{
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++)
        for (int resumed = 0; resumed < 2; resumed++) {
            TLSRESUME *tr = realm_of(&KIND[k], "lifetime = \"1000s\"\n");
            SSL_CTX *server = attached_server(tr);
            struct visitor visitor = visitor_new(&KIND[k], NULL);
            server_clock_is_at(0);
            if (resumed)
                CHECK(!visit(&visitor, server));
            struct pair pair = pair_new(&visitor, server);
            CHECK(pair_shakes(&pair));
            CHECK_EQUAL(SSL_session_reused(pair.server), resumed);
            char byte;
            server_clock_is_at(1100);
            CHECK(SERVER(SSL_new_session_ticket(pair.server)) == 1);
            CHECK(SERVER(SSL_write(pair.server, "x", 1)) == 1);
            CHECK(SSL_read(pair.client, &byte, 1) == 1);
            pair_free(&pair, true);
            CHECK_SAYING(!visit(&visitor, server), "%s, %s", KIND[k].name,
                         resumed ? "resumed" : "not resumed");
            visitor_free(&visitor);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
    server_clock_is_at(0);
}
#endif

/* What an application may do that keeps the library from shortening a session. */
enum habit { NO_HABIT, OWN_IDS, MOVES_TIMES, HABITS };

static int own_id(SSL *ssl, unsigned char *id, unsigned *len)
{
    (void)ssl;
    random_bytes(id, *len);
    return 1;
}

static bool visit_with(enum habit habit, struct visitor *visitor, SSL_CTX *server)
{
    struct pair pair = pair_new(visitor, server);
    if (habit == OWN_IDS)
        CHECK(SSL_set_generate_session_id(pair.server, own_id) == 1);
    CHECK(pair_shakes(&pair));
    bool resumed = SSL_session_reused(pair.server);
    visitor_leaves(visitor, &pair);
    pair_free(&pair, true);
    return resumed;
}

/* How long a client is resumed that comes back every so many seconds, with what it got last. */
static int last_resumption(const struct kind *kind, const char *toml, int every, int until, enum habit habit)
{
    TLSRESUME *tr = realm_of(kind, toml);
    SSL_CTX *server = attached_server(tr);
#ifdef SSL_SESS_CACHE_UPDATE_TIME
    if (habit == MOVES_TIMES)
        SSL_CTX_set_session_cache_mode(server, SSL_CTX_get_session_cache_mode(server) | SSL_SESS_CACHE_UPDATE_TIME);
#endif
    struct visitor visitor = visitor_new(kind, NULL);
    server_clock_is_at(0);
    CHECK(!visit_with(habit, &visitor, server));
    int at = every;
    while (at < until) {
        server_clock_is_at(at);
        if (!visit_with(habit, &visitor, server))
            break;
        at += every;
    }
    visitor_free(&visitor);
    SSL_CTX_free(server);
    tlsresume_free(tr);
    server_clock_is_at(0);
    return at - every;
}

static void a_client_that_comes_back_often_is_not_resumed_for_ever(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        int last = last_resumption(kind, "lifetime = \"30s\"\n", 1, 60, NO_HABIT);
        CHECK_SAYING(last >= 27 && last <= 32, "%s: resumed for %d of 30 s", kind->name, last);
        last = last_resumption(kind, "lifetime = \"2h\"\n", MINUTE, 5 * HOUR, NO_HABIT);
        CHECK_SAYING(last >= 2 * HOUR - MINUTE && last <= 2 * HOUR, "%s: resumed for %d s of 2 h",
                     kind->name, last);
    }
}

static void nor_where_the_application_makes_ids_or_moves_the_times_of_sessions(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        for (enum habit habit = OWN_IDS; habit < HABITS; habit++) {
            int last = last_resumption(kind, "lifetime = \"30s\"\n", 1, 60, habit);
            CHECK_SAYING(last <= 32, "%s, habit %d: resumed for %d of 30 s", kind->name, habit, last);
        }
}

static void a_clock_that_is_an_hour_wrong_loses_nothing(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        static const int STEPS[] = {0, -HOUR, HOUR, 0, HOUR, -HOUR, 0};
        enum { ALL = sizeof STEPS / sizeof *STEPS };
        struct visitor visitors[ALL];
        for (int i = 0; i < ALL; i++) {
            server_clock_is_at(STEPS[i]);
            visitors[i] = visitor_new(kind, NULL);
            CHECK(!visit(&visitors[i], server));
            for (int earlier = 0; earlier <= i; earlier++)
                CHECK_SAYING(visit(&visitors[earlier], server), "%s: made at step %d, used at %d",
                             kind->name, earlier, i);
        }
        for (int i = 0; i < ALL; i++)
            visitor_free(&visitors[i]);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
    server_clock_is_at(0);
}

static void a_clock_that_is_years_wrong_costs_no_connection(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, NULL);
        static const long long STEPS[] = {-400LL * DAY, 0, 30LL * 365 * DAY, 0, -20LL * 365 * DAY};
        for (size_t i = 0; i < sizeof STEPS / sizeof *STEPS; i++) {
            server_clock_is_at(STEPS[i]);
            visit(&visitor, server);
            visit(&visitor, server);
            CHECK_EQUAL(stats_by_clock(tr).keys_active, 1);
        }
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
    server_clock_is_at(0);
}

enum { ROTATIONS = 100 };

static void a_hundred_rotations_within_a_lifetime_lose_nothing(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        int rotations = scaled(ROTATIONS);
        TLSRESUME *tr = realm_of(kind, "[keys]\nactivation_delay = \"0s\"\n");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitors[ROTATIONS];
        server_clock_is_at(0);
        for (int i = 0; i < rotations; i++) {
            server_clock_is_at(i * MINUTE);
            visitors[i] = visitor_new(kind, NULL);
            CHECK(!visit(&visitors[i], server));
            CHECK(SERVER(tlsresume_keys_rotate(tr)) == 1);
        }
        CHECK(stats_by_clock(tr).rotations >= (uint64_t)rotations);
        server_clock_is_at(rotations * MINUTE);
        for (int i = 0; i < rotations; i++) {
            CHECK_SAYING(visit(&visitors[i], server), "%s, rotation %d", kind->name, i);
            CHECK_SAYING(visit(&visitors[i], server), "%s, rotation %d", kind->name, i);
        }
        server_clock_is_at(12 * HOUR + rotations * MINUTE + MINUTE);
        for (int i = 0; i < rotations; i++) {
            CHECK_SAYING(!visit(&visitors[i], server), "%s, rotation %d, too late", kind->name, i);
            visitor_free(&visitors[i]);
        }
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
    server_clock_is_at(0);
}

static void three_days_of_scheduled_rotation_lose_nothing(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, NULL);
        long long authenticated = 0;
        int every = 10 * MINUTE * (ROTATIONS / scaled(ROTATIONS) > 1 ? 3 : 1);
        for (long long at = 0; at < 3 * DAY; at += every) {
            server_clock_is_at(at);
            bool resumed = visit(&visitor, server);
            long long age = at - authenticated;
            if (at > 0 && age < 12 * HOUR)
                CHECK_SAYING(resumed, "%s, hour %lld, age %lld s", kind->name, at / HOUR, age);
            if (age > 12 * HOUR)
                CHECK_SAYING(!resumed, "%s, hour %lld, age %lld s", kind->name, at / HOUR, age);
            if (!resumed)
                authenticated = at;
            TLSRESUME_STATS stats = stats_by_clock(tr);
            CHECK_EQUAL(stats.keys_active, 1);
            CHECK_SAYING(stats.keys_pending >= 3 && stats.keys_pending <= 6, "%d pending",
                         (int)stats.keys_pending);
            CHECK_SAYING(stats.keys_accepting <= 14, "%d accepting", (int)stats.keys_accepting);
            CHECK_SAYING(stats.key_age_seconds <= HOUR, "age %d", (int)stats.key_age_seconds);
        }
        CHECK(stats_by_clock(tr).rotations >= 72);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
    server_clock_is_at(0);
}

static void a_server_that_was_idle_for_longer_than_its_keys_still_resumes(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, NULL);
        server_clock_is_at(0);
        CHECK(!visit(&visitor, server));
        server_clock_is_at(11 * HOUR);
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        server_clock_is_at(3 * DAY);
        CHECK(!visit(&visitor, server));
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        server_clock_is_at(3 * DAY + 11 * HOUR);
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
    server_clock_is_at(0);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM(the_clock_of_these_tests_moves);
    CLAIM(sessions_end_with_their_lifetime_and_not_before);
    CLAIM(renewed_tickets_carry_what_is_left_of_the_lifetime);
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
    CLAIM(tickets_given_late_carry_what_is_left);
#endif
    CLAIM(a_client_that_comes_back_often_is_not_resumed_for_ever);
    CLAIM(nor_where_the_application_makes_ids_or_moves_the_times_of_sessions);
    CLAIM(a_clock_that_is_an_hour_wrong_loses_nothing);
    CLAIM(a_clock_that_is_years_wrong_costs_no_connection);
    CLAIM(a_hundred_rotations_within_a_lifetime_lose_nothing);
    CLAIM(three_days_of_scheduled_rotation_lose_nothing);
    CLAIM(a_server_that_was_idle_for_longer_than_its_keys_still_resumes);
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
    CLAIM(tickets_given_when_nothing_is_left_do_not_resume);
#endif
    return check_end();
}
