/* Virtual hosts, client certificates and session id contexts. Nobody attaches anything: what the library is to know of a
 * context it has to see. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <string.h>
#include <unistd.h>

#include <openssl/err.h>

static EVP_PKEY *key;
static X509 *authority, *certificate;

static void make_certificates(void)
{
    key = new_key();
    authority = new_certificate("authority", key, NULL, NULL, 0);
    certificate = new_certificate("client", key, authority, key, 0);
}

/* Chooses between two contexts by name. */
struct site {
    SSL_CTX *front, *host;
    const char *name;
    bool traces;    /* it sets an info callback on connections to that host */
};

static int told;

static void is_told(const SSL *ssl, int position, int value)
{
    (void)ssl, (void)position, (void)value;
    told++;
}

static int choose(SSL *ssl, int *alert, void *arg)
{
    const struct site *site = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    (void)alert;
    if (name != NULL && strcmp(name, site->name) == 0) {
        SSL_set_SSL_CTX(ssl, site->host);
        SSL_set_verify(ssl, SSL_CTX_get_verify_mode(site->host), NULL);
        SSL_set_options(ssl, SSL_CTX_get_options(site->host));
        if (site->traces)
            SSL_set_info_callback(ssl, is_told);
    }
    return SSL_TLSEXT_ERR_OK;
}

static void site_open(struct site *site, const char *name)
{
    *site = (struct site){server_new(), server_new(), name, false};
    SSL_CTX_set_tlsext_servername_callback(site->front, choose);
    SSL_CTX_set_tlsext_servername_arg(site->front, site);
}

static void site_close(struct site *site)
{
    SSL_CTX_free(site->front);
    SSL_CTX_free(site->host);
}

static struct visitor member_new(const struct kind *kind, const char *name)
{
    struct visitor member = visitor_new(kind, name);
    visitor_shows(&member, certificate, key);
    return member;
}

static void sessions_of_a_virtual_host_are_shared(void)
{
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        struct site one, other;
        site_open(&one, "a.example");
        site_open(&other, "a.example");
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, one.front));
        CHECK_SAYING(visit(&visitor, other.front), "%s", KIND[k].name);
        CHECK_SAYING(visit(&visitor, one.front), "%s", KIND[k].name);
        visitor_free(&visitor);
        site_close(&one);
        site_close(&other);
    }
}

/* Comes with a session of another context: one handshake may be ended, when nobody knew yet who serves the name; then it
 * is a full one. In TLS 1.2 the application is told the name that the session was made under, and none if the callback of
 * that time did not acknowledge it: then the accepting context itself serves, by its own rules. */
static void visits_without_resuming(struct visitor *visitor, SSL_CTX *front, const char *kind)
{
    struct pair pair = pair_new(visitor, front);
    bool done = pair_shakes(&pair);
    bool by_front = SSL_get_verify_mode(pair.server) == SSL_CTX_get_verify_mode(front);
    CHECK_SAYING(!done || by_front || !SSL_session_reused(pair.server), "%s", kind);
    if (done)
        visitor_leaves(visitor, &pair);
    pair_free(&pair, done);
    ERR_clear_error();
    if (!done)
        CHECK_SAYING(!visit(visitor, front), "%s: again", kind);
}

/* The name was served by another context, to which anybody may come. */
static void a_host_that_verifies_refuses_what_others_gave(void)
{
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        SSL_CTX *open = server_new();
        struct site site;
        site_open(&site, "a.example");
        server_verifies(site.host, authority);
        struct visitor member = member_new(&KIND[k], "a.example");
        CHECK(!visit(&member, open));
        visits_without_resuming(&member, site.front, KIND[k].name);
        visitor_free(&member);
        site_close(&site);
        SSL_CTX_free(open);
    }
}

/* The host gives no tickets, so nothing but the library's info callback could judge. */
static void an_info_callback_that_is_set_on_the_way_is_called_and_lets_nobody_in(void)
{
    /* A name under which a handshake was ended does not resume for a while. */
    static const char *const NAMES[] = {"a.example", "b.example", "c.example"};
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        struct site site, open;
        site_open(&site, NAMES[k]);
        site_open(&open, "");
        site.traces = true;
        server_verifies(site.host, authority);
        SSL_CTX_set_options(site.host, SSL_OP_NO_TICKET);
        CHECK(SSL_CTX_set_num_tickets(site.host, 0) == 1);
        struct visitor member = member_new(&KIND[k], NAMES[k]), guest = visitor_new(&KIND[k], NAMES[k]);
        told = 0;
        CHECK(!visit(&member, site.front) && told > 0);
        CHECK(!visit(&guest, open.front));
        CHECK_SAYING(visit(&guest, open.front), "%s", KIND[k].name);
        told = 0;
        struct pair pair = pair_new(&guest, site.front);
        CHECK_SAYING(!pair_shakes(&pair) && told > 0, "%s: told %d times", KIND[k].name, told);
        CHECK_SAYING(SSL_session_reused(pair.server), "%s: a full handshake", KIND[k].name);
        pair_free(&pair, false);
        ERR_clear_error();
        visitor_free(&member);
        visitor_free(&guest);
        site_close(&site);
        site_close(&open);
    }
}

/* ---- Info callbacks that the program sets on each connection, as Apache does ---- */

/* One visit to a connection that had this info callback from the start. */
static bool visit_with(void (*callback)(const SSL *, int, int), struct visitor *visitor, SSL_CTX *server)
{
    SSL *ssl = SSL_new(server);
    SSL_set_info_callback(ssl, callback);
    struct pair pair = pair_with(visitor, ssl);
    CHECK(pair_shakes(&pair));
    bool resumed = SSL_session_reused(pair.server);
    visitor_leaves(visitor, &pair);
    pair_free(&pair, true);
    return resumed;
}

static void a_name_resumes_from_the_second_visit_where_each_connection_has_an_info_callback(void)
{
    /* Names that were visited count for every context of the same settings. */
    static const char *const NAMES[] = {"a.example", "b.example", "c.example"};
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        SSL_CTX *server = server_new(), *strict = server_new();
        server_verifies(strict, authority);
        struct visitor member = member_new(&KIND[k], "r.example"), visitor = visitor_new(&KIND[k], NAMES[k]);
        visit(&member, strict);
        CHECK(!visit_with(is_told, &visitor, server));
        for (int again = 0; again < 3; again++)
            CHECK_SAYING(visit_with(is_told, &visitor, server), "%s, time %d", KIND[k].name, again);
        visitor_free(&member);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        SSL_CTX_free(strict);
    }
}

/* What is around the info callback that the connection had. */
static struct {
    void (*inner)(const SSL *, int, int);
    int told_before, told;
} wrap;

static void passes_on(const SSL *ssl, int position, int value)
{
    wrap.told++;
    wrap.inner(ssl, position, value);
}

static int wraps(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    wrap.told_before = told;
    wrap.inner = SSL_get_info_callback(ssl);
    SSL_set_info_callback(ssl, passes_on);
    return SSL_TLSEXT_ERR_OK;
}

/* Within a flight OpenSSL goes on with the one that it began with. */
static void an_info_callback_is_called_once_for_each_step_whatever_is_put_around_it(void)
{
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        SSL_CTX *bare = server_new(), *wrapping = server_new();
        SSL_CTX_set_tlsext_servername_callback(wrapping, wraps);
        struct visitor one = visitor_new(&KIND[k], "a.example"), other = visitor_new(&KIND[k], "b.example");
        for (int again = 0; again < 3; again++) {
            told = 0;
            bool resumed = visit_with(is_told, &one, bare);
            int steps = told;
            told = wrap.told = 0;
            CHECK_EQUAL(visit_with(is_told, &other, wrapping), resumed);
            CHECK_EQUAL(resumed, again > 0);
            CHECK_SAYING(told == steps, "%s, time %d: told of %d of %d steps", KIND[k].name, again, told, steps);
            CHECK_SAYING(wrap.told > 0 && wrap.told <= steps - wrap.told_before, "%s, time %d: %d of %d steps",
                         KIND[k].name, again, wrap.told, steps);
        }
        visitor_free(&one);
        visitor_free(&other);
        SSL_CTX_free(bare);
        SSL_CTX_free(wrapping);
    }
}

/* Without a call of SSL_CTX_set_verify, as from a file in OpenSSL's format. */
static void verifies_by_command(SSL_CTX *server)
{
    SSL_CONF_CTX *commands = SSL_CONF_CTX_new();
    CHECK(commands != NULL);
    SSL_CONF_CTX_set_flags(commands, SSL_CONF_FLAG_SERVER | SSL_CONF_FLAG_FILE);
    SSL_CONF_CTX_set_ssl_ctx(commands, server);
    CHECK(SSL_CONF_cmd(commands, "VerifyMode", "Require") == 2);
    CHECK(SSL_CONF_CTX_finish(commands) == 1);
    SSL_CONF_CTX_free(commands);
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(server), authority) == 1);
}

static void a_host_that_verifies_by_command_refuses_what_others_gave(void)
{
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        SSL_CTX *open = server_new();
        struct site site;
        site_open(&site, "a.example");
        verifies_by_command(site.host);
        struct visitor member = member_new(&KIND[k], "a.example");
        CHECK(!visit(&member, open));
        visits_without_resuming(&member, site.front, KIND[k].name);
        visitor_free(&member);
        site_close(&site);
        SSL_CTX_free(open);
    }
}

static void a_child_that_verifies_refuses_what_its_parent_gave(void)
{
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        SSL_CTX *open = server_new();
        struct visitor member = member_new(&KIND[k], "a.example");
        CHECK(!visit(&member, open));
        pid_t child = fork();
        if (child == 0) {
            struct site site;
            site_open(&site, "a.example");
            server_verifies(site.host, authority);
            visits_without_resuming(&member, site.front, KIND[k].name);
            _exit(0);
        }
        check_child(child);
        visitor_free(&member);
        SSL_CTX_free(open);
    }
}

static void no_context(SSL_CTX *server)
{
    CHECK(SSL_CTX_set_session_id_context(server, (const unsigned char *)"", 0) == 1);
}

static void clients_that_are_verified_resume_without_a_session_id_context(void)
{
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        SSL_CTX *one = server_new(), *other = server_new();
        no_context(one);
        no_context(other);
        server_verifies(one, authority);
        server_verifies(other, authority);
        struct visitor member = member_new(&KIND[k], "a.example");
        CHECK(!visit(&member, one));
        CHECK_SAYING(visit(&member, one), "%s", KIND[k].name);
        struct visitor another = member_new(&KIND[k], "a.example");
        CHECK(!visit(&another, other));
        CHECK_SAYING(visit(&another, one), "%s", KIND[k].name);
        CHECK_SAYING(visit(&another, other), "%s", KIND[k].name);
        visitor_free(&member);
        visitor_free(&another);
        SSL_CTX_free(one);
        SSL_CTX_free(other);
    }
}

static bool is_context(SSL_SESSION *session, const char *expected)
{
    unsigned len = 0;
    const unsigned char *id = SSL_SESSION_get0_id_context(session, &len);
    return len == strlen(expected) && memcmp(id, expected, len) == 0;
}

static void id_context_of(SSL_CTX *server, const char *expected)
{
    struct visitor visitor = visitor_new(&KIND[TLS12_ID], NULL);
    struct pair pair = pair_new(&visitor, server);
    CHECK(pair_shakes(&pair));
    CHECK(is_context(SSL_get_session(pair.server), expected));
    visitor_leaves(&visitor, &pair);
    pair_free(&pair, true);
    visitor_free(&visitor);
}

static void a_session_id_context_of_the_program_is_kept(void)
{
    SSL_CTX *server = server_new();
    id_context_of(server, "check");
    CHECK(SSL_CTX_set_session_id_context(server, (const unsigned char *)"other", 5) == 1);
    id_context_of(server, "other");
    SSL_CTX_free(server);
}

static void a_session_id_context_that_was_refused_counts_as_none(void)
{
    SSL_CTX *server = server_new();
    unsigned char too_long[SSL_MAX_SID_CTX_LENGTH + 1] = {0};
    no_context(server);
    CHECK(SSL_CTX_set_session_id_context(server, too_long, sizeof too_long) == 0);
    ERR_clear_error();
    server_verifies(server, authority);
    struct visitor member = member_new(&KIND[TLS12_TICKET], NULL);
    CHECK(!visit(&member, server));
    CHECK(visit(&member, server));
    visitor_free(&member);
    SSL_CTX_free(server);
}

/* Clients verify servers: that says nothing about who may come to this server. */
static void a_client_context_that_verifies_costs_the_server_nothing(void)
{
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        SSL_CTX *server = server_new();
        SSL_CTX *client = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_verify(client, SSL_VERIFY_PEER, NULL);
        SSL *upstream = SSL_new(client);
        SSL_set_connect_state(upstream);
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, server));
        SSL_CTX *other = server_new();
        CHECK_SAYING(visit(&visitor, other), "%s", KIND[k].name);
        visitor_free(&visitor);
        SSL_free(upstream);
        SSL_CTX_free(client);
        SSL_CTX_free(server);
        SSL_CTX_free(other);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    make_certificates();
    CLAIM_APART(sessions_of_a_virtual_host_are_shared);
    CLAIM_APART(a_host_that_verifies_refuses_what_others_gave);
    CLAIM_APART(a_child_that_verifies_refuses_what_its_parent_gave);
    CLAIM_APART(clients_that_are_verified_resume_without_a_session_id_context);
    CLAIM_APART(a_session_id_context_of_the_program_is_kept);
    CLAIM_APART(a_session_id_context_that_was_refused_counts_as_none);
    CLAIM_APART(a_client_context_that_verifies_costs_the_server_nothing);
    CLAIM_APART(an_info_callback_that_is_set_on_the_way_is_called_and_lets_nobody_in);
    CLAIM_APART(a_name_resumes_from_the_second_visit_where_each_connection_has_an_info_callback);
    CLAIM_APART(an_info_callback_is_called_once_for_each_step_whatever_is_put_around_it);
    CLAIM_APART(a_host_that_verifies_by_command_refuses_what_others_gave);
    X509_free(certificate);
    X509_free(authority);
    EVP_PKEY_free(key);
    return check_end();
}
