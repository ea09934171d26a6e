/* What resumes in which mode, and what a mode, or an application that disables resumption, prevents. */
#include "check.h"

#if OPENSSL_VERSION_NUMBER >= 0x30000000L
#include <openssl/provider.h>
#endif

#include <stdio.h>
#include <string.h>

#include <openssl/err.h>

static void every_kind_resumes_a_hundred_times_in_a_row(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK_SAYING(!visit(&visitor, server), "%s", kind->name);
        for (int i = 0; i < scaled(100); i++)
            CHECK_SAYING(visit(&visitor, server), "%s, visit %d", kind->name, i);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* As two processes that share memory; or, after a reload, the old and the new context of one. */
static void every_kind_resumes_on_another_context_of_the_realm(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *one = attached_server(tr), *other = attached_server(tr);
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, one));
        CHECK_SAYING(visit(&visitor, other), "%s", kind->name);
        SSL_CTX_free(one);
        CHECK_SAYING(visit(&visitor, other), "%s", kind->name);
        visitor_free(&visitor);
        SSL_CTX_free(other);
        tlsresume_free(tr);
    }
}

static void nothing_resumes_in_another_realm(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, ""), *foreign = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr), *elsewhere = attached_server(foreign);
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, server));
        CHECK_SAYING(!visit(&visitor, elsewhere), "%s", kind->name);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        SSL_CTX_free(elsewhere);
        tlsresume_free(tr);
        tlsresume_free(foreign);
    }
}

static void every_tls13_resumption_brings_one_new_ticket(void)
{
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], NULL);
        CHECK(!visit(&visitor, server));
        CHECK_EQUAL(visitor.tickets, 2);
        for (int i = 0; i < 5; i++) {
            CHECK(visit(&visitor, server));
            CHECK_EQUAL(visitor.tickets, 1);
        }
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void a_full_tls13_handshake_brings_as_many_tickets_as_configured(void)
{
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        static const int COUNTS[] = {0, 1, 2, 16};
        for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++) {
            char tickets[32];
            snprintf(tickets, sizeof tickets, "tickets = %d\n", COUNTS[i]);
            TLSRESUME *tr = realm_of(&KIND[k], tickets);
            SSL_CTX *server = attached_server(tr);
            struct visitor visitor = visitor_new(&KIND[k], NULL);
            CHECK(!visit(&visitor, server));
            CHECK_EQUAL(visitor.tickets, COUNTS[i]);
            CHECK_EQUAL(visit(&visitor, server), COUNTS[i] > 0);
            visitor_free(&visitor);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
    }
}

static void only_what_needs_the_store_goes_there(void)
{
    static const int STORED[KINDS] = {1, 0, 0, 2};
    for (int k = 0; k < KINDS; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, server));
        CHECK_EQUAL(stats_of(tr).sessions_stored, STORED[k]);
        CHECK_EQUAL(stats_of(tr).sessions_live, STORED[k]);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void resumptions_are_counted(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, server));
        for (int i = 0; i < 5; i++)
            CHECK(visit(&visitor, server));
        TLSRESUME_STATS stats = stats_of(tr);
        bool by_ticket = kind == &KIND[TLS12_TICKET] || kind == &KIND[TLS13_STATELESS];
        CHECK_EQUAL(stats.tickets_accepted_current, by_ticket ? 5 : 0);
        CHECK_EQUAL(stats.sessions_hit, by_ticket ? 0 : 5);
        CHECK_EQUAL(stats.tickets_issued > 0, by_ticket);
        CHECK_EQUAL(stats.tickets_rejected_mac + stats.tickets_rejected_unknown_key, 0);
        CHECK_EQUAL(stats.sessions_missed_absent + stats.sessions_missed_binding, 0);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void with_mode_off_nothing_is_sent_and_nothing_is_kept(void)
{
    TLSRESUME *tr = realm_new("[resumption]\nmode = \"off\"\n");
    SSL_CTX *server = attached_server(tr);
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, server));
        CHECK_EQUAL(visitor.tickets, 0);
        if (kind->version == TLS1_2_VERSION) {
            unsigned id_len = 1;
            SSL_SESSION_get_id(visitor.session, &id_len);
            CHECK_EQUAL(SSL_SESSION_has_ticket(visitor.session), 0);
            CHECK_SAYING(id_len == 0, "%s: the server sent an id of %u bytes", kind->name, id_len);
        }
        CHECK_SAYING(!visit(&visitor, server), "%s", kind->name);
        visitor_free(&visitor);
    }
    TLSRESUME_STATS stats = stats_of(tr);
    CHECK_EQUAL(stats.tickets_issued + stats.sessions_stored + stats.sessions_live, 0);
    CHECK_EQUAL(SSL_CTX_sess_number(server), 0);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

/* An application that says NO_TICKET means TLS 1.2; its TLS 1.3 tickets become handles. */
static void no_ticket_of_the_application_is_respected(void)
{
    TLSRESUME *tr = realm_new("");
    SSL_CTX *server = server_new();
    SSL_CTX_set_options(server, SSL_OP_NO_TICKET);
    CHECK(tlsresume_attach(tr, server) == 1);
    struct visitor visitor = visitor_new(&KIND[TLS12_TICKET], NULL);
    CHECK(!visit(&visitor, server));
    CHECK(!SSL_SESSION_has_ticket(visitor.session));
    CHECK(visit(&visitor, server));
    visitor_free(&visitor);

    visitor = visitor_new(&KIND[TLS13_STATELESS], NULL);
    CHECK(!visit(&visitor, server));
    CHECK(visit(&visitor, server));
    visitor_free(&visitor);
    CHECK_EQUAL(stats_of(tr).tickets_issued, 0);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void num_tickets_0_of_the_application_is_respected(void)
{
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *server = server_new();
        SSL_CTX_set_num_tickets(server, 0);
        CHECK(tlsresume_attach(tr, server) == 1);
        struct visitor visitor = visitor_new(&KIND[k], NULL);
        CHECK(!visit(&visitor, server));
        CHECK_EQUAL(visitor.tickets, 0);
        CHECK(!visit(&visitor, server));
        visitor_free(&visitor);
        visitor = visitor_new(&KIND[TLS12_ID], NULL);
        CHECK(!visit(&visitor, server));
        CHECK(visit(&visitor, server));
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* Neither tickets nor a cache is an opt-out, whatever the number of TLS 1.3 tickets: PostgreSQL sets it to 0 too,
 * lighttpd without tickets leaves it. A client's cache makes no difference. */
static const struct disabled {
    size_t tickets;
    long cache;
} DISABLED[] = {
    {0, SSL_SESS_CACHE_OFF},
    {2, SSL_SESS_CACHE_OFF},
    {2, SSL_SESS_CACHE_CLIENT},
};
#define WAYS (sizeof DISABLED / sizeof *DISABLED)

static SSL_CTX *server_without_resumption(const struct disabled *how)
{
    SSL_CTX *server = server_new();
    SSL_CTX_set_options(server, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(server, how->tickets);
    SSL_CTX_set_session_cache_mode(server, how->cache);
    return server;
}

static void left_unchanged(const struct kind *kind, const struct disabled *how)
{
    TLSRESUME *tr = realm_of(kind, "");
    SSL_CTX *server = server_without_resumption(how);
    CHECK(tlsresume_attach(tr, server) == 1);
    CHECK_EQUAL(SSL_CTX_get_session_cache_mode(server), how->cache);
    CHECK_EQUAL(SSL_CTX_get_num_tickets(server), how->tickets);
    CHECK(SSL_CTX_sess_get_get_cb(server) == NULL && SSL_CTX_sess_get_new_cb(server) == NULL);
    struct visitor visitor = visitor_new(kind, NULL);
    CHECK(!visit(&visitor, server));
    CHECK_SAYING(!visit(&visitor, server), "%s", kind->name);
    visitor_free(&visitor);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void a_server_that_disables_resumption_is_left_unchanged(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        for (size_t i = 0; i < WAYS; i++)
            left_unchanged(kind, &DISABLED[i]);
}

static void force_overrides_a_server_that_disables_resumption(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "force = true\n");
        SSL_CTX *server = server_without_resumption(&DISABLED[(kind - KIND) % 2]);
        CHECK(tlsresume_attach(tr, server) == 1);
        struct visitor visitor = visitor_new(kind, NULL);
        CHECK(!visit(&visitor, server));
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        if (kind == &KIND[TLS12_TICKET])
            CHECK(SSL_SESSION_has_ticket(visitor.session));
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void a_cache_mode_alone_is_no_opt_out(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = server_new();
        SSL_CTX_set_session_cache_mode(server, SSL_SESS_CACHE_OFF);
        CHECK(tlsresume_attach(tr, server) == 1);
        struct visitor visitor = visitor_new(kind, NULL);
        CHECK(!visit(&visitor, server));
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* A context for both directions keeps what its clients were promised. */
static void born_with(void *session, void *value, CRYPTO_EX_DATA *data, int index, long argl,
                      void *argp)
{
    (void)session, (void)value, (void)argl;
    CHECK(CRYPTO_set_ex_data(data, index, argp) == 1);
}

static int mark, note;

/* As stunnel notes on a session that its client is not let in. */
static int notes(int ok, X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    (void)ok;
    CHECK(SSL_SESSION_set_ex_data(SSL_get_session(ssl), mark, NULL) == 1);
    return 1;
}

static void a_session_with_data_of_the_application_is_not_kept(void)
{
    mark = SSL_SESSION_get_ex_new_index(0, &note, born_with, NULL, NULL);
    EVP_PKEY *key = new_key();
    X509 *certificate = new_certificate("client", key, NULL, NULL, 0);
    for (int noted = 0; noted < 2; noted++)
        for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
            TLSRESUME *tr = realm_of(kind, "");
            SSL_CTX *server = server_new();
            server_verifies(server, certificate);
            if (noted)
                SSL_CTX_set_verify(server, SSL_VERIFY_PEER, notes);
            CHECK(tlsresume_attach(tr, server) == 1);
            struct visitor visitor = visitor_new(kind, "a.example");
            visitor_shows(&visitor, certificate, key);
            for (int i = 0; i < 2; i++)
                visit(&visitor, server);
            bool is_stored = kind == &KIND[TLS12_ID] || kind == &KIND[TLS13_STATEFUL];
            CHECK_SAYING(visit(&visitor, server) == !(noted && is_stored), "%s", kind->name);
            visitor_free(&visitor);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
    X509_free(certificate);
    EVP_PKEY_free(key);
}

/* Those of modules that are loaded after others. */
static const int FAR[] = {5, 40, 300};

static int far;

static int notes_far(int ok, X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    (void)ok;
    CHECK(SSL_SESSION_set_ex_data(SSL_get_session(ssl), far, &note) == 1);
    return 1;
}

static void is_noted_far_away(void)
{
    for (int index = 0; index < far;)
        index = SSL_SESSION_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *server = server_new();
    EVP_PKEY *key = new_key();
    X509 *certificate = new_certificate("client", key, NULL, NULL, 0);
    server_verifies(server, certificate);
    SSL_CTX_set_verify(server, SSL_VERIFY_PEER, notes_far);
    CHECK(tlsresume_attach(tr, server) == 1);
    struct visitor visitor = visitor_new(tried_kind, "a.example");
    visitor_shows(&visitor, certificate, key);
    bool is_stored = !tried_kind->tickets || strcmp(tried_kind->mode, "stateful") == 0;
    for (int visits = 0; visits < 3; visits++) {
        bool resumed = visit(&visitor, server);
        CHECK_SAYING(!resumed || !is_stored, "%s, index %d, visit %d", tried_kind->name, far, visits);
    }
    visitor_free(&visitor);
    X509_free(certificate);
    EVP_PKEY_free(key);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void nor_is_one_with_data_at_an_index_far_away(void)
{
    for (size_t i = 0; i < sizeof FAR / sizeof *FAR; i++) {
        far = FAR[i];
        for_each_kind_apart(is_noted_far_away);
    }
}

static void the_client_bit_of_the_cache_mode_stays(void)
{
    static const char *const MODES[] = {"stateless", "stateful", "off"};
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++) {
        char toml[64];
        snprintf(toml, sizeof toml, "[resumption]\nmode = \"%s\"\n", MODES[i]);
        TLSRESUME *tr = realm_new(toml);
        for (int client = 0; client < 2; client++) {
            SSL_CTX *server = server_new();
            SSL_CTX_set_session_cache_mode(server, client ? SSL_SESS_CACHE_BOTH
                                                          : SSL_SESS_CACHE_SERVER);
            CHECK(tlsresume_attach(tr, server) == 1);
            CHECK_EQUAL((SSL_CTX_get_session_cache_mode(server) & SSL_SESS_CACHE_CLIENT) != 0,
                        client);
            SSL_CTX_free(server);
        }
        tlsresume_free(tr);
    }
}

/* Programs that keep apart what they load, as with a FIPS provider, leave OpenSSL's default library context without
 * anything. */
static void a_library_context_of_the_application_resumes_too(void)
{
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
    own_certificate();
    OSSL_LIB_CTX *empty = OSSL_LIB_CTX_new();
    CHECK(OSSL_PROVIDER_load(empty, "null") != NULL);
    OSSL_LIB_CTX_set0_default(empty);
    CHECK((library_context = OSSL_LIB_CTX_new()) != NULL);
    CHECK(OSSL_PROVIDER_load(library_context, "default") != NULL);
    for (int k = 0; k < KINDS; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, server));
        CHECK_SAYING(visit(&visitor, server), "%s", KIND[k].name);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
#endif
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    /* The first one, for the library takes indexes of ex_data in the default library context. */
    CLAIM_APART(a_library_context_of_the_application_resumes_too);
    CLAIM(every_kind_resumes_a_hundred_times_in_a_row);
    CLAIM(every_kind_resumes_on_another_context_of_the_realm);
    CLAIM(nothing_resumes_in_another_realm);
    CLAIM(every_tls13_resumption_brings_one_new_ticket);
    CLAIM(a_full_tls13_handshake_brings_as_many_tickets_as_configured);
    CLAIM(only_what_needs_the_store_goes_there);
    CLAIM(resumptions_are_counted);
    CLAIM(with_mode_off_nothing_is_sent_and_nothing_is_kept);
    CLAIM(no_ticket_of_the_application_is_respected);
    CLAIM(num_tickets_0_of_the_application_is_respected);
    CLAIM(a_server_that_disables_resumption_is_left_unchanged);
    CLAIM(force_overrides_a_server_that_disables_resumption);
    CLAIM(a_cache_mode_alone_is_no_opt_out);
    CLAIM(the_client_bit_of_the_cache_mode_stays);
    CLAIM_APART(a_session_with_data_of_the_application_is_not_kept);
    CLAIM(nor_is_one_with_data_at_an_index_far_away);
    return check_end();
}
