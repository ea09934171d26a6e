/* Sessions stay with the server name and the client-verification policy that they were made under. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <openssl/err.h>

enum { MOST_HOSTS = 4 };

/* A server with virtual hosts: the context that accepts, and those that its servername callback
 * switches to, as nginx does. */
struct site {
    SSL_CTX *front;
    struct {
        const char *name;
        SSL_CTX *ctx;
    } hosts[MOST_HOSTS];
    int answer;    /* of the servername callback */
};

static int choose_host(SSL *ssl, int *alert, void *arg)
{
    struct site *site = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    (void)alert;
    for (int i = 0; i < MOST_HOSTS && site->hosts[i].name != NULL; i++) {
        SSL_CTX *host = site->hosts[i].ctx;
        if (name == NULL || strcasecmp(name, site->hosts[i].name) != 0)
            continue;
        SSL_set_SSL_CTX(ssl, host);
        SSL_set_verify(ssl, SSL_CTX_get_verify_mode(host), SSL_CTX_get_verify_callback(host));
        SSL_set_verify_depth(ssl, SSL_CTX_get_verify_depth(host));
        SSL_clear_options(ssl, SSL_get_options(ssl) & ~SSL_CTX_get_options(host));
        SSL_set_options(ssl, SSL_CTX_get_options(host));
    }
    return site->answer;
}

/* How a site is set up. */
struct setup {
    bool attached;    /* the virtual hosts' contexts too, or only passed to SSL_set_SSL_CTX */
    bool switches;    /* there is a servername callback at all */
    int answer;
    const char *text;
};

static const struct setup SETUPS[] = {
    {true, true, SSL_TLSEXT_ERR_OK, "hosts attached, callback answers OK"},
    {true, true, SSL_TLSEXT_ERR_NOACK, "hosts attached, callback answers NOACK"},
    {false, true, SSL_TLSEXT_ERR_OK, "hosts not attached, callback answers OK"},
    {false, true, SSL_TLSEXT_ERR_NOACK, "hosts not attached, callback answers NOACK"},
    {true, false, 0, "no servername callback"},
};
enum { ALL_SETUPS = sizeof SETUPS / sizeof *SETUPS };

/* SSL_set_SSL_CTX brings the host's own options: one that is not attached has no NO_TICKET, so what
 * the accepting context looks up when the client comes back was never stored. */
static bool never_resumes(const struct kind *kind, const struct setup *setup)
{
    return kind == &KIND[TLS13_STATEFUL] && !setup->attached;
}

/* In TLS 1.2 an application that did not acknowledge the name is not told it when the client comes back, and does not
 * choose the host again: the session of another policy is not taken then. */
static bool forgets_the_host(const struct kind *kind, const struct setup *setup)
{
    return kind->version < TLS1_3_VERSION && setup->answer != SSL_TLSEXT_ERR_OK;
}

static void site_open(struct site *site, TLSRESUME *tr, const struct setup *setup)
{
    memset(site, 0, sizeof *site);
    site->front = server_new();
    site->answer = setup->answer;
    if (setup->switches) {
        SSL_CTX_set_tlsext_servername_callback(site->front, choose_host);
        SSL_CTX_set_tlsext_servername_arg(site->front, site);
    }
    CHECK(tlsresume_attach(tr, site->front) == 1);
}

/* authority: whose certificates the host asks for, or NULL. */
static SSL_CTX *site_add(struct site *site, TLSRESUME *tr, const struct setup *setup,
                         const char *name, X509 *authority)
{
    int i = 0;
    while (site->hosts[i].name != NULL)
        i++;
    CHECK(i < MOST_HOSTS);
    SSL_CTX *host = server_new();
    if (authority != NULL)
        server_verifies(host, authority);
    if (setup->attached)
        CHECK(tlsresume_attach(tr, host) == 1);
    site->hosts[i].name = name;
    site->hosts[i].ctx = host;
    return host;
}

static void site_close(struct site *site)
{
    SSL_CTX_free(site->front);
    for (int i = 0; i < MOST_HOSTS; i++)
        SSL_CTX_free(site->hosts[i].ctx);
}

/* Two authorities and a client certificate of each. */
static struct {
    EVP_PKEY *key;
    X509 *authority, *client;
} ours, theirs;

static void make_authorities(void)
{
    ours.key = new_key();
    ours.authority = new_certificate("our authority", ours.key, NULL, NULL, 0);
    ours.client = new_certificate("client", ours.key, ours.authority, ours.key, 0);
    theirs.key = new_key();
    theirs.authority = new_certificate("their authority", theirs.key, NULL, NULL, 0);
    theirs.client = new_certificate("client", theirs.key, theirs.authority, theirs.key, 0);
}

static struct visitor member_new(const struct kind *kind, const char *name)
{
    struct visitor member = visitor_new(kind, name);
    visitor_shows(&member, ours.client, ours.key);
    return member;
}

/* What a visit comes to where it may fail. */
enum outcome { REFUSED, FULL, RESUMED };

/* The context that served last. */
static const SSL_CTX *served;

static enum outcome tries(struct visitor *visitor, SSL_CTX *server)
{
    struct pair pair = pair_new(visitor, server);
    bool done = pair_shakes(&pair);
    served = SSL_get_SSL_CTX(pair.server);
    enum outcome outcome = !done ? REFUSED : SSL_session_reused(pair.server) ? RESUMED : FULL;
    if (done)
        visitor_leaves(visitor, &pair);
    pair_free(&pair, true);
    ERR_clear_error();
    return outcome;
}

/* ---- Names ---- */

static void a_session_never_resumes_under_another_name(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        for (const struct setup *setup = SETUPS; setup < SETUPS + ALL_SETUPS; setup++) {
            static const char *const OTHERS[] = {"b.example", "a.exampl", "a.example.org", NULL};
            TLSRESUME *tr = realm_of(kind, "");
            struct site site;
            site_open(&site, tr, setup);
            if (setup->switches) {
                site_add(&site, tr, setup, "a.example", NULL);
                site_add(&site, tr, setup, "b.example", NULL);
            }
            for (int i = 0; i < 4; i++) {
                struct visitor visitor = visitor_new(kind, "a.example");
                CHECK(!visit(&visitor, site.front));
                CHECK_SAYING(visit(&visitor, site.front) == !never_resumes(kind, setup), "%s, %s",
                             kind->name, setup->text);
                visitor.name = OTHERS[i];
                CHECK_SAYING(!visit(&visitor, site.front), "%s, %s, %s", kind->name, setup->text,
                             OTHERS[i] ? OTHERS[i] : "no name");
                visitor.name = "a.example";
                CHECK_SAYING(!visit(&visitor, site.front), "back: %s, %s", kind->name, setup->text);
                visitor_free(&visitor);
            }
            site_close(&site);
            tlsresume_free(tr);
        }
}

/* An application may tell A from a. */
static void a_name_is_what_the_client_sent_byte_for_byte(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        struct site site;
        site_open(&site, tr, &SETUPS[0]);
        site_add(&site, tr, &SETUPS[0], "a.example", NULL);
        struct visitor visitor = visitor_new(kind, "A.Example");
        CHECK(!visit(&visitor, site.front));
        CHECK_SAYING(visit(&visitor, site.front), "%s", kind->name);
        visitor.name = "a.eXAMPLE";
        CHECK_SAYING(!visit(&visitor, site.front), "%s", kind->name);
        visitor_free(&visitor);
        site_close(&site);
        tlsresume_free(tr);
    }
}

static void without_bind_sessions_resume_under_every_name(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "bind = false\n");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, server));
        visitor.name = "b.example";
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* Two public sites differ by nothing but their certificates: they share sessions unless the configuration parts them. */
static enum outcome crosses_certificates(const struct kind *kind, const char *bind, bool same)
{
    TLSRESUME *tr = realm_of(kind, bind);
    SSL_CTX *servers[2] = {attached_server(tr), attached_server(tr)};
    EVP_PKEY *key = new_key();
    X509 *other = new_certificate("another.example", key, NULL, NULL, 0);
    if (!same) {
        CHECK(SSL_CTX_use_certificate(servers[1], other) == 1);
        CHECK(SSL_CTX_use_PrivateKey(servers[1], key) == 1);
    }
    /* The first visit under rules is a full handshake, which the node remembers. */
    struct visitor visitor = visitor_new(kind, "a.example");
    for (int again = 0; again < 3; again++)
        visit(&visitor, servers[0]);
    CHECK_SAYING(visit(&visitor, servers[0]), "%s, %s", kind->name, bind);
    /* And so is the first one at each context of a program. */
    struct visitor guest = visitor_new(kind, "a.example");
    visit(&guest, servers[1]);
    visitor_free(&guest);
    enum outcome outcome = tries(&visitor, servers[1]);
    visitor_free(&visitor);
    X509_free(other);
    EVP_PKEY_free(key);
    SSL_CTX_free(servers[0]);
    SSL_CTX_free(servers[1]);
    tlsresume_free(tr);
    return outcome;
}

static void sessions_stay_with_the_certificate_where_bind_says_so(void)
{
    static const char BOUND[] = "bind = \"certificate\"\n";
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        CHECK_SAYING(crosses_certificates(kind, "", false) == RESUMED, "%s", kind->name);
        CHECK_SAYING(crosses_certificates(kind, BOUND, true) == RESUMED, "%s", kind->name);
        CHECK_SAYING(crosses_certificates(kind, BOUND, false) != RESUMED, "%s", kind->name);
    }
}

/* TLS 1.2 cannot tell the name when it renews a ticket: that must not cost the next resumption. */
static void tickets_renewed_after_rotations_still_resume(void)
{
    for (int k = TLS12_TICKET; k <= TLS13_STATELESS; k++)
        for (const struct setup *setup = SETUPS; setup < SETUPS + ALL_SETUPS; setup++) {
            TLSRESUME *tr = realm_of(&KIND[k], "[keys]\nactivation_delay = \"0s\"\n");
            struct site site;
            site_open(&site, tr, setup);
            if (setup->switches)
                site_add(&site, tr, setup, "a.example", NULL);
            struct visitor visitor = visitor_new(&KIND[k], "a.example");
            CHECK(!visit(&visitor, site.front));
            for (int i = 0; i < 5; i++) {
                next_millisecond();
                CHECK(tlsresume_keys_rotate(tr) == 1);
                CHECK_SAYING(visit(&visitor, site.front), "%s, %s, rotation %d", KIND[k].name,
                             setup->text, i);
            }
            CHECK_EQUAL(stats_of(tr).tickets_accepted_older, 5);
            visitor_free(&visitor);
            site_close(&site);
            tlsresume_free(tr);
        }
}

/* ---- Policies ---- */

static void a_verified_client_resumes_from_its_second_visit_on(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        for (const struct setup *setup = SETUPS; setup < SETUPS + ALL_SETUPS; setup++) {
            if (!setup->switches || never_resumes(kind, setup))
                continue;
            TLSRESUME *tr = realm_of(kind, "");
            struct site site;
            site_open(&site, tr, setup);
            site_add(&site, tr, setup, "members.example", ours.authority);
            site_add(&site, tr, setup, "a.example", NULL);
            struct visitor member = member_new(kind, "members.example");
            struct visitor guest = visitor_new(kind, "a.example");
            CHECK(!visit(&member, site.front));
            CHECK(!visit(&guest, site.front));
            if (forgets_the_host(kind, setup))
                tries(&member, site.front);
            for (int i = 0; i < 3; i++) {
                CHECK_SAYING(visit(&member, site.front) == !forgets_the_host(kind, setup), "%s, %s", kind->name,
                             setup->text);
                CHECK_SAYING(visit(&guest, site.front), "%s, %s", kind->name, setup->text);
            }
            visitor_free(&member);
            visitor_free(&guest);
            site_close(&site);
            tlsresume_free(tr);
        }
}

static void a_context_that_verifies_itself_resumes_from_the_second_visit_on(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = server_new();
        server_verifies(server, ours.authority);
        CHECK(tlsresume_attach(tr, server) == 1);
        struct visitor member = member_new(kind, NULL);
        CHECK(!visit(&member, server));
        for (int i = 0; i < 3; i++)
            CHECK_SAYING(visit(&member, server), "%s", kind->name);
        visitor_free(&member);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* The same name on two ports: a session goes from the first to the second. */
static struct crossing {
    const struct kind *kind;
    const struct setup *setup;
    X509 *first, *second;      /* whose certificates the ports ask for, or NULL */
    bool warm;                 /* both ports have served clients of that name before */
    enum outcome expected;
} crossing;

static void crosses(void)
{
    const struct setup *setup = crossing.setup;
    TLSRESUME *tr = realm_of(crossing.kind, "");
    struct site here, there;
    site_open(&here, tr, setup);
    site_open(&there, tr, setup);
    site_add(&here, tr, setup, "members.example", crossing.first);
    site_add(&there, tr, setup, "members.example", crossing.second);
    struct visitor member = member_new(crossing.kind, "members.example");
    if (crossing.warm) {
        struct visitor other = member_new(crossing.kind, "members.example");
        if (crossing.second == theirs.authority)
            visitor_shows(&other, theirs.client, theirs.key);
        CHECK(!visit(&other, there.front));
        tries(&other, there.front);
        bool comes_back = !never_resumes(crossing.kind, setup)
                          && (crossing.second == NULL || !forgets_the_host(crossing.kind, setup));
        CHECK(visit(&other, there.front) == comes_back);
        visitor_free(&other);
        CHECK(!visit(&member, here.front));
    }
    tries(&member, here.front);
    enum outcome outcome = tries(&member, there.front);
    /* A session may have come along that nobody knew enough of: one handshake is ended, no more. */
    if (outcome == REFUSED)
        outcome = tries(&member, there.front);
    /* Who is not told the name serves by its own rules, not by those of the host. */
    if (outcome == RESUMED && forgets_the_host(crossing.kind, setup) && served == there.front)
        outcome = crossing.expected;
    CHECK_SAYING(outcome == crossing.expected, "%s, %s: outcome %d, not %d", crossing.kind->name,
                 setup->text, outcome, crossing.expected);
    visitor_free(&member);
    site_close(&here);
    site_close(&there);
    tlsresume_free(tr);
}

/* Each crossing in a process of its own: once one context has verified, a process remembers. */
static void sessions_do_not_cross(const struct setup *setup, bool warm)
{
    /* Processes are what slow tools are slowest at. */
    if (scaled(2) < 2 && setup->answer != SSL_TLSEXT_ERR_OK)
        return;
    const struct crossing cases[] = {
        {NULL, setup, NULL, ours.authority, warm, FULL},
        {NULL, setup, ours.authority, NULL, warm, FULL},
        {NULL, setup, ours.authority, theirs.authority, warm, REFUSED},
    };
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            crossing = cases[i];
            crossing.kind = kind;
            check_apart(crosses);
        }
}

static void a_session_never_resumes_under_another_policy_on_another_port(void)
{
    for (const struct setup *setup = SETUPS; setup < SETUPS + ALL_SETUPS; setup++)
        if (setup->switches)
            sessions_do_not_cross(setup, true);
}

static void nor_while_it_is_not_known_yet_who_serves_the_name(void)
{
    for (const struct setup *setup = SETUPS; setup < SETUPS + ALL_SETUPS; setup++)
        if (setup->switches && setup->attached)
            sessions_do_not_cross(setup, false);
}

/* One port, one name; the second process, after a reload that turned verification on. */
static void a_session_from_before_verification_was_turned_on_is_not_resumed(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *before = attached_server(tr), *after = server_new();
        struct visitor member = member_new(kind, NULL);
        CHECK(!visit(&member, before));
        CHECK(visit(&member, before));
        server_verifies(after, ours.authority);
        CHECK(tlsresume_attach(tr, after) == 1);
        CHECK_SAYING(!visit(&member, after), "%s", kind->name);
        CHECK_SAYING(visit(&member, after), "%s", kind->name);
        visitor_free(&member);
        SSL_CTX_free(before);
        SSL_CTX_free(after);
        tlsresume_free(tr);
    }
}

static void contexts_with_the_same_policy_share_sessions(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *servers[2];
        for (int i = 0; i < 2; i++) {
            servers[i] = server_new();
            /* Two anchors, loaded in either order. */
            server_verifies(servers[i], i ? theirs.authority : ours.authority);
            server_verifies(servers[i], i ? ours.authority : theirs.authority);
            CHECK(tlsresume_attach(tr, servers[i]) == 1);
        }
        struct visitor member = member_new(kind, NULL), other = member_new(kind, NULL);
        CHECK(!visit(&member, servers[0]));
        /* The first handshake at a context is a full one. */
        CHECK(!visit(&other, servers[1]));
        visitor_free(&other);
        CHECK_SAYING(visit(&member, servers[1]), "%s", kind->name);
        CHECK_SAYING(visit(&member, servers[0]), "%s", kind->name);
        CHECK_SAYING(visit(&member, servers[1]), "%s", kind->name);
        visitor_free(&member);
        SSL_CTX_free(servers[0]);
        SSL_CTX_free(servers[1]);
        tlsresume_free(tr);
    }
}

/* ---- Verify modes of single connections ---- */

enum { MUST_SHOW = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT };

/* As tries(), where the application gives the connection a verify mode of its own. */
static enum outcome tries_under(struct visitor *visitor, SSL_CTX *server, int mode)
{
    struct pair pair = pair_new(visitor, server);
    SSL_set_verify(pair.server, mode, NULL);
    bool done = pair_shakes(&pair);
    enum outcome outcome = !done ? REFUSED : SSL_session_reused(pair.server) ? RESUMED : FULL;
    if (done)
        visitor_leaves(visitor, &pair);
    pair_free(&pair, true);
    ERR_clear_error();
    return outcome;
}

/* What SSL_get_error() says of the server's side when its handshake is ended. */
static int error_of_ended(struct visitor *visitor, SSL_CTX *server)
{
    struct pair pair = pair_new(visitor, server);
    SSL_set_verify(pair.server, MUST_SHOW, NULL);
    int error = SSL_ERROR_WANT_READ;
    for (int step = 0; step < 4 && error == SSL_ERROR_WANT_READ; step++) {
        SSL_do_handshake(pair.client);
        ERR_clear_error();
        error = SSL_get_error(pair.server, SSL_do_handshake(pair.server));
    }
    CHECK_EQUAL(ERR_peek_error(), 0);
    CHECK(error == SSL_get_error(pair.server, SSL_do_handshake(pair.server)));
    pair_free(&pair, false);
    ERR_clear_error();
    return error;
}

/* To the application it is as if the client had closed: no error of OpenSSL's, which servers log as their own fault. */
static void an_ended_handshake_looks_as_if_the_client_had_closed(void)
{
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *server = server_new();
    server_verifies(server, ours.authority);
    SSL_CTX_set_verify(server, SSL_VERIFY_NONE, NULL);
    CHECK(tlsresume_attach(tr, server) == 1);
    struct visitor visitor = visitor_new(tried_kind, "a.example");
    CHECK(!visit(&visitor, server));
    CHECK_EQUAL(error_of_ended(&visitor, server), SSL_ERROR_ZERO_RETURN);
    visitor_free(&visitor);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void a_handshake_that_is_ended_looks_as_if_the_client_had_closed(void)
{
    for_each_kind_apart(an_ended_handshake_looks_as_if_the_client_had_closed);
}

/* An OpenSSL client whose session is renewed in TLS 1.2 forgets it, if it takes sessions from its new-session callback
 * alone. */
static void a_tls12_ticket_is_renewed_under_rules_only_until_the_info_callback_was_seen(void)
{
    const struct kind *kind = &KIND[TLS12_TICKET];
    TLSRESUME *tr = realm_of(kind, "");
    SSL_CTX *server = server_new();
    server_verifies(server, ours.authority);
    CHECK(tlsresume_attach(tr, server) == 1);
    struct visitor member = member_new(kind, "a.example");
    CHECK(!visit(&member, server) && visit(&member, server));
    SSL_SESSION *kept = member.session;
    for (int again = 0; again < 3; again++) {
        CHECK(SSL_SESSION_up_ref(kept) == 1);
        CHECK(visit(&member, server));
        CHECK(SSL_SESSION_is_resumable(kept));
        SSL_SESSION_free(kept);
    }
    visitor_free(&member);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static bool replaced_callback_verifies;

static void nothing_to_see(const SSL *ssl, int position, int value)
{
    (void)ssl, (void)position, (void)value;
}

static int replace_info_callback(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    SSL_set_info_callback(ssl, nothing_to_see);
    if (replaced_callback_verifies)
        SSL_set_verify(ssl, MUST_SHOW, NULL);
    return SSL_TLSEXT_ERR_OK;
}

static void replaces_the_info_callback(void)
{
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *server = server_new(), *other = server_new();
    server_verifies(server, ours.authority);
    SSL_CTX_set_verify(server, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_tlsext_servername_callback(server, replace_info_callback);
    server_verifies(other, ours.authority);
    CHECK(tlsresume_attach(tr, server) == 1 && tlsresume_attach(tr, other) == 1);
    struct visitor member = member_new(tried_kind, "rules.example");
    visit(&member, other);
    struct visitor stranger = visitor_new(tried_kind, "a.example");
    for (int again = 0; again < 4; again++)
        visit(&stranger, server);
    replaced_callback_verifies = true;
    CHECK_SAYING(tries(&stranger, server) != RESUMED, "%s", tried_kind->name);
    replaced_callback_verifies = false;
    visitor_free(&member);
    visitor_free(&stranger);
    SSL_CTX_free(server);
    SSL_CTX_free(other);
    tlsresume_free(tr);
}

/* One context behind a public port and one where the application asks for certificates. */
static void who_replaces_the_info_callback_in_the_servername_callback_is_judged_under_rules(void)
{
    for_each_kind_apart(replaces_the_info_callback);
}

static void (*found_before)(const SSL *ssl, int position, int value);

static void calls_what_was_found(const SSL *ssl, int position, int value)
{
    if (found_before != NULL)
        found_before(ssl, position, value);
}

/* What it finds may be the library's. */
static int keeps_what_it_finds(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    if (found_before == NULL && SSL_get_info_callback(ssl) != calls_what_was_found)
        found_before = SSL_get_info_callback(ssl);
    return SSL_TLSEXT_ERR_OK;
}

static void traces_with_what_it_found(void)
{
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *server = server_new(), *other = server_new();
    SSL_CTX_set_info_callback(server, calls_what_was_found);
    SSL_CTX_set_tlsext_servername_callback(server, keeps_what_it_finds);
    server_verifies(other, ours.authority);
    CHECK(tlsresume_attach(tr, server) == 1 && tlsresume_attach(tr, other) == 1);
    struct visitor visitor = visitor_new(tried_kind, "a.example");
    CHECK(!visit(&visitor, server));
    for (int again = 0; again < 6; again++)
        CHECK_SAYING(visit(&visitor, server), "%s, visit %d", tried_kind->name, again);
    visitor_free(&visitor);
    SSL_CTX_free(server);
    SSL_CTX_free(other);
    tlsresume_free(tr);
}

static void a_name_resumes_where_the_applications_info_callback_calls_the_librarys(void)
{
    for_each_kind_apart(traces_with_what_it_found);
}

static void one_context_two_ports(bool others_verify)
{
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *server = attached_server(tr), *verifying = server_new();
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(server), ours.authority) == 1);
    if (others_verify) {
        /* So that what served a name is remembered. */
        server_verifies(verifying, ours.authority);
        CHECK(tlsresume_attach(tr, verifying) == 1);
    }
    struct visitor guest = visitor_new(tried_kind, "a.example");
    CHECK(!visit(&guest, server));
    visit(&guest, server);
    CHECK_SAYING(visit(&guest, server), "%s", tried_kind->name);
    enum outcome outcome = tries_under(&guest, server, MUST_SHOW);
    CHECK_SAYING(outcome == REFUSED, "%s: outcome %d", tried_kind->name, outcome);

    struct visitor member = member_new(tried_kind, "a.example");
    for (int i = 0; i < 3; i++) {
        CHECK_SAYING(tries_under(&member, server, MUST_SHOW) != REFUSED, "%s", tried_kind->name);
        struct visitor other = visitor_new(tried_kind, "a.example");
        for (int visits = 0; visits <= i; visits++)
            visit(&other, server);
        outcome = tries_under(&other, server, MUST_SHOW);
        CHECK_SAYING(outcome == REFUSED, "%s, after %d members: outcome %d", tried_kind->name,
                     i + 1, outcome);
        outcome = tries_under(&other, server, SSL_VERIFY_PEER);
        CHECK_SAYING(outcome == FULL, "%s, after %d members, optional: outcome %d",
                     tried_kind->name, i + 1, outcome);
        visitor_free(&other);
    }
    visitor_free(&guest);
    visitor_free(&member);
    SSL_CTX_free(server);
    SSL_CTX_free(verifying);
    tlsresume_free(tr);
}

static void where_nobody_else_verifies(void)
{
    one_context_two_ports(false);
}

static void where_others_verify(void)
{
    one_context_two_ports(true);
}

static void two_contexts_two_ports(void)
{
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *open = attached_server(tr), *asking = attached_server(tr);
    struct visitor guest = visitor_new(tried_kind, "a.example");
    CHECK(!visit(&guest, open));
    enum outcome outcome = tries_under(&guest, asking, MUST_SHOW);
    CHECK_SAYING(outcome == REFUSED, "%s: outcome %d", tried_kind->name, outcome);
    visitor_free(&guest);
    SSL_CTX_free(open);
    SSL_CTX_free(asking);
    tlsresume_free(tr);
}

static void a_verify_mode_set_per_connection_never_takes_over_unverified_sessions(void)
{
    for_each_kind_apart(where_nobody_else_verifies);
    for_each_kind_apart(where_others_verify);
    for_each_kind_apart(two_contexts_two_ports);
}

static void switched_on_later(bool same)
{
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *open = attached_server(tr), *later = attached_server(tr), *verifying = server_new();
    if (same) {
        /* Another context verifies, so that what served a name is remembered. */
        server_verifies(verifying, ours.authority);
        CHECK(tlsresume_attach(tr, verifying) == 1);
    }
    struct visitor guest = visitor_new(tried_kind, "a.example");
    for (int i = 0; i < 3; i++)
        visit(&guest, same ? later : open);
    CHECK_SAYING(visit(&guest, same ? later : open), "%s", tried_kind->name);
    server_verifies(later, ours.authority);
    enum outcome outcome = tries(&guest, later);
    CHECK_SAYING(outcome == REFUSED, "%s: outcome %d", tried_kind->name, outcome);
    visitor_free(&guest);
    SSL_CTX_free(open);
    SSL_CTX_free(later);
    SSL_CTX_free(verifying);
    tlsresume_free(tr);
}

static void switched_on_elsewhere(void)
{
    switched_on_later(false);
}

static void verification_switched_on_later_counts_at_once(void)
{
    for_each_kind_apart(switched_on_elsewhere);
}

static void switched_on_here(void)
{
    switched_on_later(true);
}

static void verification_switched_on_where_the_name_was_served_without_counts_at_once(void)
{
    for_each_kind_apart(switched_on_here);
}

/* ---- Certificates that are asked for after the handshake (TLS 1.3) ---- */

static bool has_certificate;

static void says(SSL *from, SSL *to)
{
    char byte = 0;
    CHECK(SSL_write(from, "x", 1) == 1);
    CHECK(SSL_read(to, &byte, 1) == 1 && byte == 'x');
}

/* As Apache does for a part of a public site. */
static void asks_on_a_connection_that_resumed(void)
{
    /* Clients of OpenSSL 1.1.1 show none where they resumed. */
    const bool shows_it = has_certificate && OPENSSL_VERSION_NUMBER >= 0x30000000L;
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *server = attached_server(tr);
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(server), ours.authority) == 1);
    struct visitor asked = visitor_new(tried_kind, "a.example"), other = visitor_new(tried_kind, "a.example");
    SSL_CTX_set_post_handshake_auth(asked.ctx, 1);
    if (has_certificate)
        visitor_shows(&asked, ours.client, ours.key);
    CHECK(!visit(&asked, server) && !visit(&other, server));
    SSL_SESSION *session = session_copy(asked.session);
    for (int again = 0; again < 3; again++) {
        visitor_takes(&asked, session);
        struct pair pair = pair_new(&asked, server);
        char byte;
        CHECK(pair_shakes(&pair));
        CHECK_SAYING(SSL_session_reused(pair.server), "%s, time %d", tried_kind->name, again);
        SSL_set_verify(pair.server, SSL_VERIFY_PEER, NULL);
        CHECK(SSL_verify_client_post_handshake(pair.server) == 1);
        CHECK(SSL_do_handshake(pair.server) == 1);
        CHECK(SSL_read(pair.client, &byte, 1) < 0);
        says(pair.client, pair.server);
        says(pair.server, pair.client);
        bool is_known = SSL_SESSION_get0_peer(SSL_get_session(pair.server)) != NULL;
        CHECK_SAYING(is_known == shows_it, "%s, time %d", tried_kind->name, again);
        pair_free(&pair, true);
        CHECK_SAYING(visit(&other, server), "%s, time %d: another client", tried_kind->name, again);
        CHECK(tries(&asked, server) != REFUSED);
    }
    SSL_SESSION_free(session);
    visitor_free(&asked);
    visitor_free(&other);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void who_resumed_may_be_asked_for_a_certificate_later_and_others_resume_as_before(void)
{
    for (int certificate = 0; certificate < 2; certificate++)
        for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
            has_certificate = certificate;
            tried_kind = &KIND[k];
            check_apart(asks_on_a_connection_that_resumed);
        }
}

/* ---- Another policy under the same name ---- */

enum difference { NO_DIFFERENCE, OTHER_MODE, OTHER_DEPTH, OTHER_NAMES, OTHER_ANCHORS, OTHER_STORE, OTHER_REVOCATIONS,
                  OTHER_FLAGS, DIFFERENCES };

/* A list of our authority that revokes nothing. */
static void add_revocation_list(X509_STORE *store)
{
    X509_CRL *list = X509_CRL_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, 0);
    CHECK(list != NULL && now != NULL && X509_CRL_set_version(list, 1) == 1);
    CHECK(X509_CRL_set_issuer_name(list, X509_get_subject_name(ours.authority)) == 1);
    CHECK(X509_CRL_set1_lastUpdate(list, now) == 1 && X509_CRL_set1_nextUpdate(list, now) == 1);
    CHECK(X509_CRL_sign(list, ours.key, EVP_sha256()) > 0);
    CHECK(X509_STORE_add_crl(store, list) == 1);
    ASN1_TIME_free(now);
    X509_CRL_free(list);
}

static void make_different(SSL_CTX *server, enum difference difference)
{
    X509_STORE *store = NULL;
    STACK_OF(X509_NAME) *names = NULL;
    switch (difference) {
    case OTHER_MODE:
        SSL_CTX_set_verify(server, SSL_VERIFY_PEER, NULL);
        break;
    case OTHER_DEPTH:
        SSL_CTX_set_verify_depth(server, SSL_CTX_get_verify_depth(server) + 7);
        break;
    case OTHER_NAMES:
        names = sk_X509_NAME_new_null();
        CHECK(names != NULL);
        CHECK(sk_X509_NAME_push(names, X509_NAME_dup(X509_get_subject_name(theirs.authority))));
        CHECK(sk_X509_NAME_push(names, X509_NAME_dup(X509_get_subject_name(ours.authority))));
        SSL_CTX_set_client_CA_list(server, names);
        break;
    case OTHER_ANCHORS:
        CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(server), theirs.authority) == 1);
        break;
    case OTHER_STORE:
        store = X509_STORE_new();
        CHECK(store != NULL && X509_STORE_add_cert(store, ours.authority) == 1);
        CHECK(SSL_CTX_set0_verify_cert_store(server, store) == 1);
        break;
    case OTHER_REVOCATIONS:
        add_revocation_list(SSL_CTX_get_cert_store(server));
        break;
    case OTHER_FLAGS:
        CHECK(X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(server), X509_V_FLAG_PARTIAL_CHAIN));
        break;
    default:
        break;
    }
}

static void a_session_never_resumes_under_another_way_to_verify(void)
{
    static const char *const WHAT[] = {"nothing", "mode", "depth", "names", "anchors", "store",
                                       "revocation list", "flags"};
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        for (int difference = 0; difference < DIFFERENCES; difference++)
            for (int back = 0; back < 2; back++) {
                TLSRESUME *tr = realm_of(kind, "");
                SSL_CTX *servers[2];
                struct visitor members[2];
                for (int i = 0; i < 2; i++) {
                    servers[i] = server_new();
                    server_verifies(servers[i], ours.authority);
                    make_different(servers[i], i == back ? NO_DIFFERENCE : (enum difference)difference);
                    CHECK(tlsresume_attach(tr, servers[i]) == 1);
                    /* Both know how they serve the name. */
                    members[i] = member_new(kind, "a.example");
                    CHECK(!visit(&members[i], servers[i]));
                    visit(&members[i], servers[i]);
                    CHECK_SAYING(visit(&members[i], servers[i]), "%s, other %s", kind->name,
                                 WHAT[difference]);
                }
                CHECK_SAYING(visit(&members[0], servers[1]) == (difference == NO_DIFFERENCE),
                             "%s, other %s", kind->name, WHAT[difference]);
                for (int i = 0; i < 2; i++) {
                    visitor_free(&members[i]);
                    SSL_CTX_free(servers[i]);
                }
                tlsresume_free(tr);
            }
}

/* ---- A ticket after an id ---- */

/* As choose_host(), from the callback that comes before everything else. */
static int choose_early(SSL *ssl, int *alert, void *site)
{
    const unsigned char *extension = NULL;
    size_t len = 0;
    (void)alert;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &extension, &len) && len > 5) {
        SSL_CTX *host = ((struct site *)site)->hosts[0].ctx;
        SSL_set_SSL_CTX(ssl, host);
        SSL_set_verify(ssl, SSL_CTX_get_verify_mode(host), NULL);
    }
    return SSL_CLIENT_HELLO_SUCCESS;
}

static struct {
    bool early;
    int answer;
} late_ticket;

/* TLS 1.2: the client comes back with an id, and offers to take a ticket this time. */
static void takes_a_ticket_after_an_id(void)
{
    const struct kind *kind = &KIND[TLS12_TICKET];
    const struct setup setup = {true, !late_ticket.early, late_ticket.answer, ""};
    TLSRESUME *tr = realm_of(kind, "");
    struct site site;
    site_open(&site, tr, &setup);
    server_verifies(site.front, theirs.authority);
    if (late_ticket.early)
        SSL_CTX_set_client_hello_cb(site.front, choose_early, &site);
    site_add(&site, tr, &setup, "a.example", ours.authority);
    /* With and without a visit in between that may renew what it got. */
    for (int between = 0; between < 2; between++) {
        struct visitor member = member_new(kind, "a.example");
        SSL_CTX_set_options(member.ctx, SSL_OP_NO_TICKET);
        const bool forgets = !late_ticket.early && forgets_the_host(kind, &setup);
        CHECK(tries(&member, site.front) == FULL);
        CHECK(tries(&member, site.front) != REFUSED || forgets);
        CHECK(tries(&member, site.front) == (forgets ? FULL : RESUMED));
        SSL_CTX_clear_options(member.ctx, SSL_OP_NO_TICKET);
        CHECK(tries(&member, site.front) != REFUSED);
        if (between > 0) {
            CHECK(tries(&member, site.front) == (forgets ? FULL : RESUMED));
            CHECK(tries(&member, site.front) == (forgets ? FULL : RESUMED));
        }
        CHECK(member.session != NULL);
        member.name = NULL;
        enum outcome outcome = tries(&member, site.front);
        CHECK_SAYING(outcome == REFUSED, "early %d, answer %d, between %d: outcome %d",
                     late_ticket.early, late_ticket.answer, between, outcome);
        visitor_free(&member);
    }
    site_close(&site);
    tlsresume_free(tr);
}

static void a_ticket_given_after_an_id_keeps_its_name(void)
{
    late_ticket.early = false;
    late_ticket.answer = SSL_TLSEXT_ERR_OK;
    check_apart(takes_a_ticket_after_an_id);
    late_ticket.answer = SSL_TLSEXT_ERR_NOACK;
    check_apart(takes_a_ticket_after_an_id);
    late_ticket.early = true;
    check_apart(takes_a_ticket_after_an_id);
}

/* ---- Contexts in the place of others ---- */

/* Threads that keep the tables of the library in use. */
static struct {
    SSL_CTX *server;
    pthread_mutex_t mutex;
    bool ends;
    pthread_t threads[2];
} busy = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static bool busy_ends(void)
{
    CHECK(pthread_mutex_lock(&busy.mutex) == 0);
    bool ends = busy.ends;
    CHECK(pthread_mutex_unlock(&busy.mutex) == 0);
    return ends;
}

static void *keeps_visiting(void *arg)
{
    struct visitor visitor = visitor_new(tried_kind, "busy.example");
    (void)arg;
    while (!busy_ends())
        visit(&visitor, busy.server);
    visitor_free(&visitor);
    return NULL;
}

static void busy_start(SSL_CTX *server)
{
    busy.server = server;
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&busy.threads[i], NULL, keeps_visiting, NULL) == 0);
}

static void busy_stop(void)
{
    CHECK(pthread_mutex_lock(&busy.mutex) == 0);
    busy.ends = true;
    CHECK(pthread_mutex_unlock(&busy.mutex) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(busy.threads[i], NULL) == 0);
}

static void replaces_contexts(void)
{
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *open = attached_server(tr), *verifying = server_new();
    /* From here on policies count. */
    server_verifies(verifying, ours.authority);
    CHECK(tlsresume_attach(tr, verifying) == 1);
    struct visitor guest = visitor_new(tried_kind, "a.example");
    CHECK(!visit(&guest, open));
    visit(&guest, open);
    CHECK(visit(&guest, open));
    SSL_SESSION *session = session_copy(guest.session);
    busy_start(open);
    for (int i = 0; i < scaled(20); i++) {
        SSL_CTX *before = attached_server(tr);
        for (int visits = 0; visits < 3; visits++)
            visit(&guest, before);
        SSL_CTX_free(before);
        SSL_CTX *after = server_new();
        server_verifies(after, ours.authority);
        CHECK(tlsresume_attach(tr, after) == 1);
        /* A context that verifies resumes nobody before it has served somebody. */
        struct visitor first = member_new(tried_kind, "first.example");
        CHECK(!visit(&first, after));
        visitor_free(&first);
        visitor_takes(&guest, session);
        enum outcome outcome = tries(&guest, after);
        CHECK_SAYING(outcome == REFUSED, "%s, reload %d: outcome %d", tried_kind->name, i, outcome);
        /* And the other way: who was verified is not known to the next one's. */
        struct visitor member = member_new(tried_kind, "a.example");
        CHECK(!visit(&member, after));
        visit(&member, after);
        SSL_CTX_free(after);
        before = attached_server(tr);
        CHECK_SAYING(!visit(&member, before), "%s, reload %d", tried_kind->name, i);
        visitor_free(&member);
        SSL_CTX_free(before);
    }
    busy_stop();
    SSL_SESSION_free(session);
    visitor_free(&guest);
    SSL_CTX_free(open);
    SSL_CTX_free(verifying);
    tlsresume_free(tr);
}

static void contexts_that_replace_others_learn_anew(void)
{
    own_certificate();
    for_each_kind_apart(replaces_contexts);
}

/* ---- No session id context ---- */

static int warnings;

static void count_warnings(int level, const char *message, void *arg)
{
    (void)arg;
    if (level == 2 && strstr(message, "SSL_CTX_set_session_id_context") != NULL)
        warnings++;
}

static void verification_without_a_session_id_context_warns_once_and_never_fails(void)
{
    warnings = 0;
    tlsresume_set_log_callback(count_warnings, NULL);
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *open = server_new(), *server = server_new();
        CHECK(SSL_CTX_set_session_id_context(open, NULL, 0) == 1);
        CHECK(SSL_CTX_set_session_id_context(server, NULL, 0) == 1);
        server_verifies(server, ours.authority);
        CHECK(tlsresume_attach(tr, open) == 1 && tlsresume_attach(tr, server) == 1);
        struct visitor member = member_new(kind, "a.example");
        for (int i = 0; i < 3; i++)
            CHECK_SAYING(!visit(&member, server), "%s", kind->name);
        for (int i = 0; i < 3; i++)
            visit(&member, open);
        for (int i = 0; i < 3; i++)
            CHECK_SAYING(!visit(&member, server), "%s", kind->name);
        visitor_free(&member);
        SSL_CTX_free(open);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
    tlsresume_set_log_callback(NULL, NULL);
    CHECK_EQUAL(warnings, 1);
}

/* What is not verified behind an accepting context that verifies: OpenSSL ends the handshake when a
 * session comes up that has no session id context. */
static void verifies_without_id_context(void)
{
    tlsresume_set_log_callback(count_warnings, NULL);
    for (const struct setup *setup = SETUPS; setup < SETUPS + ALL_SETUPS; setup++) {
        if (!setup->switches)
            continue;
        TLSRESUME *tr = realm_of(tried_kind, "");
        struct site site;
        site_open(&site, tr, setup);
        SSL_CTX *host = site_add(&site, tr, setup, "a.example", NULL);
        CHECK(SSL_CTX_set_session_id_context(site.front, NULL, 0) == 1);
        CHECK(SSL_CTX_set_session_id_context(host, NULL, 0) == 1);
        server_verifies(site.front, ours.authority);
        struct visitor guest = visitor_new(tried_kind, "a.example");
        for (int i = 0; i < 4; i++)
            CHECK_SAYING(tries(&guest, site.front) != REFUSED, "%s, %s, visit %d", tried_kind->name,
                         setup->text, i);
        visitor_free(&guest);
        site_close(&site);
        tlsresume_free(tr);
    }

    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *server = server_new();
    CHECK(SSL_CTX_set_session_id_context(server, NULL, 0) == 1);
    CHECK(tlsresume_attach(tr, server) == 1);
    struct visitor guest = visitor_new(tried_kind, "b.example");
    for (int i = 0; i < 3; i++) {
        CHECK_SAYING(tries(&guest, server) != REFUSED, "%s", tried_kind->name);
        CHECK_SAYING(tries_under(&guest, server, SSL_VERIFY_PEER) == FULL, "%s, visit %d",
                     tried_kind->name, i);
    }
    visitor_free(&guest);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

static void verifying_without_id_context_never_ends_a_handshake(void)
{
    for_each_kind_apart(verifies_without_id_context);
}

/* ---- Imported keys ---- */

enum { IMPORTED_LEN = 80, NAME_LEN = 16 };

static void import_a_key(TLSRESUME *tr, unsigned char key[IMPORTED_LEN])
{
    random_bytes(key, IMPORTED_LEN);
    CHECK(tlsresume_keys_import(tr, key, IMPORTED_LEN, TLSRESUME_KEYS_OPENSSL) == 1);
    next_millisecond(); /* when it takes over */
}

static bool ticket_is_under(const struct visitor *visitor, const unsigned char *key)
{
    const unsigned char *ticket = NULL;
    size_t len = 0;
    SSL_SESSION_get0_ticket(visitor->session, &ticket, &len);
    return len > NAME_LEN && memcmp(ticket, key, NAME_LEN) == 0;
}

static struct {
    const struct kind *kind;
    bool bind;
} importing;

static void imports(void)
{
    TLSRESUME *tr = realm_of(importing.kind, importing.bind
                                                 ? "[keys]\nactivation_delay = \"0s\"\n"
                                                 : "bind = false\n"
                                                   "[keys]\nactivation_delay = \"0s\"\n");
    unsigned char key[IMPORTED_LEN];
    SSL_CTX *open = attached_server(tr);
    struct visitor visitor = visitor_new(importing.kind, "a.example");
    import_a_key(tr, key);
    CHECK(!visit(&visitor, open));
    CHECK(ticket_is_under(&visitor, key));
    CHECK(visit(&visitor, open));
    CHECK(ticket_is_under(&visitor, key));
    /* The other server ties its tickets to no name, so what it gave opens here under any. */
    visitor.name = "b.example";
    CHECK(visit(&visitor, open));

    SSL_CTX *verifying = server_new();
    server_verifies(verifying, ours.authority);
    CHECK(tlsresume_attach(tr, verifying) == 1);
    CHECK_SAYING(visit(&visitor, open) == !importing.bind, "%s", importing.kind->name);
    CHECK_SAYING(ticket_is_under(&visitor, key) == !importing.bind, "%s", importing.kind->name);
    visitor_free(&visitor);
    SSL_CTX_free(open);
    SSL_CTX_free(verifying);
    tlsresume_free(tr);
}

/* Each in a process of its own: once a context has verified, a process remembers. */
static void imported_keys_are_refused_once_a_context_verifies(void)
{
    for (int k = TLS12_TICKET; k <= TLS13_STATELESS; k++)
        for (int bind = 0; bind < 2; bind++) {
            importing.kind = &KIND[k];
            importing.bind = bind;
            check_apart(imports);
        }
}

/* ---- More contexts than are numbered ---- */

enum { CONTEXTS = 514, NUMBERED = 512 };

static void contexts_beyond_the_numbered_ones_resume_and_isolate(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *servers[CONTEXTS];
        for (int i = 0; i < CONTEXTS; i++) {
            servers[i] = server_new();
            if (i % 2 == 1)
                server_verifies(servers[i], ours.authority);
            CHECK(tlsresume_attach(tr, servers[i]) == 1);
        }
        static const int SOME[] = {0, 1, NUMBERED - 2, NUMBERED - 1, NUMBERED, NUMBERED + 1};
        static const char *const NAMES[] = {"a.example", "b.example", "c.example",
                                            "d.example", "e.example", "f.example"};
        for (int i = 0; i < 6; i++) {
            struct visitor member = member_new(kind, NAMES[i]);
            CHECK(!visit(&member, servers[SOME[i]]));
            visit(&member, servers[SOME[i]]);
            for (int again = 0; again < 3; again++)
                CHECK_SAYING(visit(&member, servers[SOME[i]]), "%s, context %d", kind->name,
                             SOME[i]);
            visitor_free(&member);
        }
        /* Neighbours have different policies: under one name, from each of them to each other. */
        for (int i = 0; i < 6; i++)
            for (int j = 0; j < 6; j++) {
                struct visitor member = member_new(kind, "x.example");
                for (int again = 0; again < 3; again++)
                    visit(&member, servers[SOME[i]]);
                if (SOME[i] % 2 != SOME[j] % 2)
                    CHECK_SAYING(!visit(&member, servers[SOME[j]]), "%s, from context %d to %d",
                                 kind->name, SOME[i], SOME[j]);
                visitor_free(&member);
            }
        for (int i = 0; i < CONTEXTS; i++)
            SSL_CTX_free(servers[i]);
        tlsresume_free(tr);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM(a_session_never_resumes_under_another_name);
    CLAIM(a_name_is_what_the_client_sent_byte_for_byte);
    CLAIM(without_bind_sessions_resume_under_every_name);
    CLAIM(sessions_stay_with_the_certificate_where_bind_says_so);
    CLAIM(tickets_renewed_after_rotations_still_resume);

    make_authorities();
    CLAIM(a_session_never_resumes_under_another_policy_on_another_port);
    CLAIM(nor_while_it_is_not_known_yet_who_serves_the_name);
    CLAIM(imported_keys_are_refused_once_a_context_verifies);
    CLAIM(a_verified_client_resumes_from_its_second_visit_on);
    CLAIM(a_context_that_verifies_itself_resumes_from_the_second_visit_on);
    CLAIM(a_session_from_before_verification_was_turned_on_is_not_resumed);
    CLAIM(contexts_with_the_same_policy_share_sessions);
    CLAIM(a_verify_mode_set_per_connection_never_takes_over_unverified_sessions);
    CLAIM(a_handshake_that_is_ended_looks_as_if_the_client_had_closed);
    CLAIM(a_tls12_ticket_is_renewed_under_rules_only_until_the_info_callback_was_seen);
    CLAIM(who_replaces_the_info_callback_in_the_servername_callback_is_judged_under_rules);
    CLAIM(a_name_resumes_where_the_applications_info_callback_calls_the_librarys);
    CLAIM(verification_switched_on_later_counts_at_once);
    CLAIM(who_resumed_may_be_asked_for_a_certificate_later_and_others_resume_as_before);
    CLAIM(a_session_never_resumes_under_another_way_to_verify);
    CLAIM(a_ticket_given_after_an_id_keeps_its_name);
    CLAIM(contexts_that_replace_others_learn_anew);
    CLAIM(verifying_without_id_context_never_ends_a_handshake);
    CLAIM(verification_without_a_session_id_context_warns_once_and_never_fails);
    CLAIM(contexts_beyond_the_numbered_ones_resume_and_isolate);
    CLAIM(verification_switched_on_where_the_name_was_served_without_counts_at_once);
    return check_end();
}
