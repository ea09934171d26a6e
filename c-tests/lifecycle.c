/* Contexts, connections and instances end in any order, and what is not ours stays as it was. */
#include "check.h"

#include <errno.h>
#include <string.h>

#include <openssl/err.h>

/* ---- Contexts and instances ---- */

static void contexts_outlive_their_instance(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *one = attached_server(tr), *other = attached_server(tr);
        tlsresume_free(tr);
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, one));
        CHECK_SAYING(visit(&visitor, one), "%s", kind->name);
        SSL_CTX_free(one);
        CHECK_SAYING(visit(&visitor, other), "%s", kind->name);
        visitor_free(&visitor);
        SSL_CTX_free(other);
    }
}

static void an_instance_outlives_its_contexts(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        struct visitor visitor = visitor_new(kind, "a.example");
        SSL_CTX *server = attached_server(tr);
        CHECK(!visit(&visitor, server));
        SSL_CTX_free(server);
        server = attached_server(tr);
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        SSL_CTX_free(server);
        CHECK(stats_of(tr).keys_active == 1);
        tlsresume_free(tr);
        visitor_free(&visitor);
    }
}

static void connections_outlive_context_and_instance(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, server));
        struct pair pair = pair_new(&visitor, server);
        SSL_CTX_free(server);
        tlsresume_free(tr);
        CHECK(pair_shakes(&pair));
        CHECK_SAYING(SSL_session_reused(pair.server), "%s", kind->name);
        pair_free(&pair, true);
        visitor_free(&visitor);
    }
}

static int use_host(SSL *ssl, int *alert, void *host)
{
    (void)alert;
    SSL_set_SSL_CTX(ssl, host);
    return SSL_TLSEXT_ERR_OK;
}

/* What is freed in which order: accepting context, the host's context, instance, connection. */
static void after_a_switch_everything_may_be_freed_in_any_order(void)
{
    static const char *const ORDERS[] = {"abic", "baic", "ibac", "abci", "cabi", "iabc", "cbai"};
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++)
        for (size_t i = 0; i < sizeof ORDERS / sizeof *ORDERS; i++) {
            TLSRESUME *tr = realm_of(kind, "");
            SSL_CTX *front = server_new(), *host = attached_server(tr);
            SSL_CTX_set_tlsext_servername_callback(front, use_host);
            SSL_CTX_set_tlsext_servername_arg(front, host);
            CHECK(tlsresume_attach(tr, front) == 1);
            struct visitor visitor = visitor_new(kind, "a.example");
            CHECK(!visit(&visitor, front));
            struct pair pair = pair_new(&visitor, front);
            CHECK(pair_shakes(&pair));
            CHECK_SAYING(SSL_session_reused(pair.server), "%s", kind->name);
            for (const char *what = ORDERS[i]; *what != '\0'; what++)
                switch (*what) {
                case 'a': SSL_CTX_free(front); break;
                case 'b': SSL_CTX_free(host); break;
                case 'i': tlsresume_free(tr); break;
                default: pair_free(&pair, true); break;
                }
            visitor_free(&visitor);
        }
}

static int never_asked(const char *what)
{
    CHECK_SAYING(0, "the application's %s was called", what);
    return 0;
}

static int app_new(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl, (void)session;
    return never_asked("new-session callback");
}

static SSL_SESSION *app_get(SSL *ssl, const unsigned char *id, int len, int *copy)
{
    (void)ssl, (void)id, (void)len, (void)copy;
    never_asked("get-session callback");
    return NULL;
}

static int removals;

static void app_remove(SSL_CTX *ctx, SSL_SESSION *session)
{
    (void)ctx, (void)session;
    removals++;
}

struct settings {
    unsigned long options;
    long cache_mode, timeout;
    size_t tickets;
    int (*new_session)(SSL *, SSL_SESSION *);
    SSL_SESSION *(*get_session)(SSL *, const unsigned char *, int, int *);
    void (*remove_session)(SSL_CTX *, SSL_SESSION *);
};

static struct settings settings_of(SSL_CTX *ctx)
{
    struct settings settings;
    memset(&settings, 0, sizeof settings);
    settings.options = (unsigned long)SSL_CTX_get_options(ctx);
    settings.cache_mode = SSL_CTX_get_session_cache_mode(ctx);
    settings.timeout = SSL_CTX_get_timeout(ctx);
    settings.tickets = SSL_CTX_get_num_tickets(ctx);
    settings.new_session = SSL_CTX_sess_get_new_cb(ctx);
    settings.get_session = SSL_CTX_sess_get_get_cb(ctx);
    settings.remove_session = SSL_CTX_sess_get_remove_cb(ctx);
    return settings;
}

static void check_same(struct settings now, struct settings before)
{
    CHECK_EQUAL(now.options, before.options);
    CHECK_EQUAL(now.cache_mode, before.cache_mode);
    CHECK_EQUAL(now.timeout, before.timeout);
    CHECK_EQUAL(now.tickets, before.tickets);
    CHECK(now.new_session == before.new_session);
    CHECK(now.get_session == before.get_session);
    CHECK(now.remove_session == before.remove_session);
}

static const char *const MODES[] = {
    "[resumption]\nmode = \"stateless\"\n",
    "[resumption]\nmode = \"stateful\"\non_remove = \"forget\"\n",
    "[resumption]\nmode = \"off\"\n",
    "[resumption]\nforce = true\n",
};
enum { ALL_MODES = sizeof MODES / sizeof *MODES };

static void detach_puts_back_what_the_application_had(void)
{
    for (int mode = 0; mode < ALL_MODES; mode++)
        for (int variant = 0; variant < 3; variant++) {
            TLSRESUME *tr = realm_new(MODES[mode]);
            SSL_CTX *server = server_new();
            if (variant == 1) {
                SSL_CTX_set_options(server, SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
                SSL_CTX_set_session_cache_mode(server, SSL_SESS_CACHE_OFF);
                SSL_CTX_set_num_tickets(server, 0);
            }
            if (variant == 2) {
                SSL_CTX_set_options(server, SSL_OP_NO_ANTI_REPLAY);
                SSL_CTX_set_session_cache_mode(server,
                                               SSL_SESS_CACHE_BOTH | SSL_SESS_CACHE_NO_AUTO_CLEAR);
                SSL_CTX_set_num_tickets(server, 5);
                SSL_CTX_set_timeout(server, 4711);
                SSL_CTX_sess_set_new_cb(server, app_new);
                SSL_CTX_sess_set_get_cb(server, app_get);
                SSL_CTX_sess_set_remove_cb(server, app_remove);
            }
            struct settings before = settings_of(server);
            CHECK(tlsresume_attach(tr, server) == 1);
            CHECK(tlsresume_detach(server) == 1);
            check_same(settings_of(server), before);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
}

static void a_detached_context_serves_as_before(void)
{
    TLSRESUME *tr = realm_new("");
    SSL_CTX *server = attached_server(tr);
    CHECK(tlsresume_detach(server) == 1);
    tlsresume_free(tr);
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, server));
        CHECK_SAYING(visit(&visitor, server), "%s", KIND[k].name);
        visitor_free(&visitor);
    }
    SSL_CTX_free(server);
}

static void a_context_can_be_detached_and_attached_again(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, server));
        for (int i = 0; i < 3; i++) {
            CHECK(tlsresume_detach(server) == 1);
            CHECK(tlsresume_attach(tr, server) == 1);
            CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        }
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void attaching_twice_is_refused_and_changes_nothing(void)
{
    TLSRESUME *tr = realm_new(""), *other = realm_new("[resumption]\nmode = \"off\"\n");
    SSL_CTX *server = attached_server(tr);
    struct settings before = settings_of(server);
    CHECK_REFUSED(tlsresume_attach(tr, server), "attached already");
    CHECK_REFUSED(tlsresume_attach(other, server), "attached already");
    check_same(settings_of(server), before);
    struct visitor visitor = visitor_new(&KIND[TLS13_STATELESS], NULL);
    CHECK(!visit(&visitor, server));
    CHECK(visit(&visitor, server));
    visitor_free(&visitor);
    CHECK(tlsresume_detach(server) == 1);
    CHECK_REFUSED(tlsresume_detach(server), "not attached");
    SSL_CTX_free(server);
    tlsresume_free(tr);
    tlsresume_free(other);
}

static void callbacks_of_the_application_from_before_attach_are_replaced(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = server_new();
        SSL_CTX_sess_set_new_cb(server, app_new);
        SSL_CTX_sess_set_get_cb(server, app_get);
        SSL_CTX_sess_set_remove_cb(server, app_remove);
        CHECK(tlsresume_attach(tr, server) == 1);
        removals = 0;
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, server));
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        CHECK_EQUAL(removals, 0);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* A context without a number counts as one that verifies, which imported keys do not survive: so
 * while they work, all numbers came back. */
static void a_thousand_contexts_one_after_the_other_find_room(void)
{
    TLSRESUME *tr = realm_new("[keys]\nactivation_delay = \"0s\"\n");
    unsigned char key[80];
    random_bytes(key, sizeof key);
    CHECK(tlsresume_keys_import(tr, key, sizeof key, TLSRESUME_KEYS_OPENSSL) == 1);
    next_millisecond(); /* when it takes over */
    for (int i = 0; i < scaled(1000); i++) {
        SSL_CTX *server = SSL_CTX_new(TLS_server_method());
        CHECK(tlsresume_attach(tr, server) == 1);
        if (i % 3 == 0)
            CHECK(tlsresume_detach(server) == 1);
        SSL_CTX_free(server);
    }
    SSL_CTX *server = attached_server(tr);
    struct visitor visitor = visitor_new(&KIND[TLS13_STATELESS], NULL);
    CHECK(!visit(&visitor, server));
    const unsigned char *ticket = NULL;
    size_t len = 0;
    SSL_SESSION_get0_ticket(visitor.session, &ticket, &len);
    CHECK(len > 16 && memcmp(ticket, key, 16) == 0);
    CHECK(visit(&visitor, server));
    visitor_free(&visitor);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

/* ---- Connections ---- */

static void a_duplicate_of_a_connection_is_one_of_its_own(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, NULL);
        CHECK(!visit(&visitor, server));
        struct pair pair = pair_new(&visitor, server);
        SSL *copy = SSL_dup(pair.server);
        CHECK(copy != NULL && copy != pair.server);
        CHECK(pair_shakes(&pair));
        CHECK_SAYING(SSL_session_reused(pair.server), "%s", kind->name);
        SSL *same = SSL_dup(pair.server);
        SSL_free(copy);
        pair_free(&pair, true);
        SSL_free(same);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void a_connection_that_is_cleared_serves_the_next_client(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitors[2] = {visitor_new(kind, "a.example"),
                                      visitor_new(kind, "b.example")};
        CHECK(!visit(&visitors[0], server));
        CHECK(!visit(&visitors[1], server));
        SSL *reused = SSL_new(server);
        for (int i = 0; i < 6; i++) {
            struct visitor *visitor = &visitors[i % 2];
            struct pair pair = pair_new(visitor, server);
            /* The connection from before takes the place of the new one, with its end of the pair. */
            BIO *end = SSL_get_rbio(pair.server);
            CHECK(BIO_up_ref(end) == 1);
            SSL_set_bio(reused, end, end);
            SSL_free(pair.server);
            pair.server = reused;
            SSL_set_accept_state(reused);
            CHECK(pair_shakes(&pair));
            CHECK_SAYING(SSL_session_reused(reused), "%s, %s", kind->name, visitor->name);
            visitor_leaves(visitor, &pair);
            SSL_set_shutdown(pair.client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
            SSL_set_shutdown(reused, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
            SSL_free(pair.client);
            CHECK(SSL_clear(reused) == 1);
        }
        SSL_free(reused);
        visitor_free(&visitors[0]);
        visitor_free(&visitors[1]);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void handshakes_may_end_anywhere(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, server));
        SSL_SESSION *session = session_copy(visitor.session);
        for (int steps = 0; steps < 5; steps++)
            for (int properly = 0; properly < 2; properly++) {
                visitor_takes(&visitor, session);
                struct pair pair = pair_new(&visitor, server);
                for (int i = 0; i < steps && !pair_steps(&pair); i++)
                    ;
                pair_free(&pair, properly);
                ERR_clear_error();
            }
        visitor_takes(&visitor, session);
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        SSL_SESSION_free(session);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void an_idle_connection_counts_for_its_own_realm_after_detach(void)
{
    TLSRESUME *tr = realm_of(&KIND[TLS12_TICKET], ""), *other = realm_of(&KIND[TLS12_TICKET], "");
    SSL_CTX *server = attached_server(tr);
    struct visitor visitor = visitor_new(&KIND[TLS12_TICKET], "a.example");
    CHECK(!visit(&visitor, server));
    struct pair pair = pair_new(&visitor, server);
    CHECK(pair_shakes(&pair));
    CHECK(SSL_session_reused(pair.server));
    CHECK(tlsresume_detach(server) == 1);
    /* Takes the place that the first one had. */
    SSL_CTX *next = attached_server(other);
    pair_free(&pair, true);
    CHECK_EQUAL(stats_of(tr).tickets_accepted_current, 1);
    CHECK_EQUAL(stats_of(tr).tickets_rejected_mac, 0);
    CHECK_EQUAL(stats_of(other).tickets_accepted_current, 0);
    CHECK_EQUAL(stats_of(other).tickets_rejected_mac, 0);
    visitor_free(&visitor);
    SSL_CTX_free(server);
    SSL_CTX_free(next);
    tlsresume_free(tr);
    tlsresume_free(other);
}

/* A context that serves and also connects, as proxies have them; its own connections are made
 * with its callbacks. */
static SSL_CTX *both_sides(const struct kind *kind, TLSRESUME *tr)
{
    SSL_CTX *like = server_new(), *both = SSL_CTX_new(TLS_method());
    CHECK(both != NULL);
    CHECK(SSL_CTX_use_certificate(both, own_certificate()) == 1);
    CHECK(SSL_CTX_use_PrivateKey(both, SSL_CTX_get0_privatekey(like)) == 1);
    CHECK(SSL_CTX_set_session_id_context(both, (const unsigned char *)"check", 5) == 1);
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(both), own_certificate()) == 1);
    CHECK(SSL_CTX_set_max_proto_version(both, kind->version) == 1);
    SSL_CTX_set_session_cache_mode(both, SSL_SESS_CACHE_BOTH);
    CHECK(tlsresume_attach(tr, both) == 1);
    SSL_CTX_free(like);
    return both;
}

static void client_connections_of_an_attached_context_leave_no_trace(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, ""), *elsewhere = realm_of(kind, "");
        SSL_CTX *both = both_sides(kind, tr), *server = attached_server(elsewhere);
        struct visitor guest = visitor_new(kind, "a.example"), own = {.ctx = both, .name = "a.example"};
        CHECK(!visit(&guest, both));
        CHECK(visit(&guest, both));
        TLSRESUME_STATS before = stats_of(tr);
        for (int i = 0; i < 4; i++) {
            struct pair pair = pair_new(&own, server);
            if (!kind->tickets)
                SSL_set_options(pair.client, SSL_OP_NO_TICKET);
            SSL_set_verify(pair.client, SSL_VERIFY_PEER, NULL);
            CHECK(pair_shakes(&pair));
            SSL_SESSION *session = SSL_get1_session(pair.client);
            SSL_SESSION_free(own.session);
            own.session = session;
            pair_free(&pair, true);
        }
        TLSRESUME_STATS after = stats_of(tr);
        CHECK_EQUAL(after.tickets_issued, before.tickets_issued);
        CHECK_EQUAL(after.sessions_stored, before.sessions_stored);
        CHECK_EQUAL(after.sessions_dropped, before.sessions_dropped);
        CHECK_EQUAL(after.sessions_live, before.sessions_live);
        CHECK_EQUAL(after.sessions_missed_binding, before.sessions_missed_binding);
        CHECK_EQUAL(after.tickets_rejected_mac, before.tickets_rejected_mac);
        CHECK_EQUAL(SSL_CTX_sess_number(both), 0);
        /* Nor did verifying a server teach it anything about its own clients, nor does it when it
         * is both ends of a connection. */
        CHECK_SAYING(visit(&guest, both), "%s", kind->name);
        visitor_forgets(&own);
        for (int i = 0; i < 3; i++) {
            struct pair pair = pair_new(&own, both);
            if (!kind->tickets)
                SSL_set_options(pair.client, SSL_OP_NO_TICKET);
            SSL_set_verify(pair.client, SSL_VERIFY_PEER, NULL);
            CHECK(pair_shakes(&pair));
            CHECK_SAYING(SSL_session_reused(pair.server) == (i > 0), "%s, %d", kind->name, i);
            SSL_SESSION *session = SSL_get1_session(pair.client);
            SSL_SESSION_free(own.session);
            own.session = session;
            pair_free(&pair, true);
        }
        CHECK_SAYING(visit(&guest, both), "%s", kind->name);
        CHECK_SAYING(visit(&guest, both), "%s", kind->name);
        CHECK_EQUAL(stats_of(tr).sessions_missed_binding, 0);
        visitor_forgets(&own);
        visitor_free(&guest);
        SSL_CTX_free(both);
        SSL_CTX_free(server);
        tlsresume_free(tr);
        tlsresume_free(elsewhere);
    }
}

/* ---- Error queue and errno ---- */

enum { MARKER = 42, ERRNO_MARKER = 77 };

static void push_marker(void)
{
    ERR_put_error(ERR_LIB_USER, 0, MARKER, __FILE__, __LINE__);
    errno = ERRNO_MARKER;
}

/* The marker alone is on the queue, and goes. */
static void check_marker(const char *after)
{
    CHECK_SAYING(errno == ERRNO_MARKER, "after %s: errno is %d", after, errno);
    unsigned long error = ERR_get_error();
    CHECK_SAYING(ERR_GET_REASON(error) == MARKER, "after %s: the marker is gone", after);
    CHECK_SAYING(ERR_peek_error() == 0, "after %s: there is another error", after);
}

static int called;

/* In the midst of a ClientHello the callbacks are called as OpenSSL would, but on a queue that is
 * not empty. */
static int with_markers(SSL *ssl, int *alert, void *arg)
{
    SSL_CTX *ctx = SSL_get_SSL_CTX(ssl);
    SSL_SESSION *session = arg, *found;
    unsigned char id[32];
    unsigned id_len = 0;
    int copy = 1;
    (void)alert;

    memset(id, 7, sizeof id);
    push_marker();
    found = SSL_CTX_sess_get_get_cb(ctx)(ssl, id, sizeof id, &copy);
    check_marker("the look-up of a forged id");
    CHECK(found == NULL);

    push_marker();
    found = SSL_CTX_sess_get_get_cb(ctx)(ssl, NULL, 0, &copy);
    check_marker("the look-up of nothing");
    CHECK(found == NULL);

    const unsigned char *own = SSL_SESSION_get_id(session, &id_len);
    push_marker();
    found = SSL_CTX_sess_get_get_cb(ctx)(ssl, own, (int)id_len, &copy);
    check_marker("a look-up");
    SSL_SESSION_free(found);

    push_marker();
    SSL_CTX_sess_get_new_cb(ctx)(ssl, session);
    check_marker("a new session");

    push_marker();
    SSL_CTX_sess_get_remove_cb(ctx)(ctx, session);
    check_marker("a removal");

    push_marker();
    CHECK_EQUAL(tlsresume_early_data_allowed(ssl), 0);
    check_marker("a question about early data");
    called++;
    return SSL_CLIENT_HELLO_SUCCESS;
}

static void callbacks_leave_error_queue_and_errno_alone(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "on_remove = \"forget\"\n");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(kind, NULL);
        CHECK(!visit(&visitor, server));
        called = 0;
        SSL_CTX_set_client_hello_cb(server, with_markers, visitor.session);
        struct visitor next = visitor_new(kind, NULL);
        CHECK(!visit(&next, server));
        CHECK_EQUAL(called, 1);
        visitor_free(&visitor);
        visitor_free(&next);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static int mark_hello(SSL *ssl, int *alert, void *arg)
{
    (void)ssl, (void)alert, (void)arg;
    push_marker();
    return SSL_CLIENT_HELLO_SUCCESS;
}

static int mark_name(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    if (SSL_session_reused(ssl)) {
        CHECK(ERR_GET_REASON(ERR_peek_last_error()) == MARKER);
        called++;
    }
    ERR_clear_error();
    return SSL_TLSEXT_ERR_OK;
}

/* The ticket-key callback has no getter: what stands before and after it in a handshake is asked. */
static void opening_a_ticket_leaves_the_error_queue_alone(void)
{
    for (int k = TLS12_TICKET; k <= TLS13_STATELESS; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, server));
        called = 0;
        SSL_CTX_set_client_hello_cb(server, mark_hello, NULL);
        SSL_CTX_set_tlsext_servername_callback(server, mark_name);
        CHECK(visit(&visitor, server));
        CHECK_EQUAL(called, 1);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static SSL_SESSION *damaged;

/* Puts a session into the store that OpenSSL writes but does not read, in the place of its original.
 * At the end of a handshake, which has a version and a cipher then. */
static void damages(const SSL *connection, int where, int value)
{
    SSL *ssl = (SSL *)connection;
    SSL_CTX *ctx = SSL_get_SSL_CTX(ssl);
    int copy = 1;
    unsigned id_len = 0;
    const unsigned char *id = SSL_SESSION_get_id(damaged, &id_len);
    (void)value;
    if (!(where & SSL_CB_HANDSHAKE_DONE) || called > 0)
        return;
    SSL_CTX_sess_get_new_cb(ctx)(ssl, damaged);
    push_marker();
    SSL_SESSION *found = SSL_CTX_sess_get_get_cb(ctx)(ssl, id, (int)id_len, &copy);
    check_marker("a session that cannot be parsed");
    CHECK(found == NULL);
    called++;
}

/* Comes after OpenSSL looked for the session. */
static int finds_marker(SSL *ssl, void *arg)
{
    (void)ssl, (void)arg;
    CHECK(ERR_GET_REASON(ERR_get_error()) == MARKER);
    CHECK_EQUAL(ERR_peek_error(), 0);
    called++;
    return 1;
}

static void a_callback_that_fails_leaves_no_error(void)
{
    for (int k = TLS12_ID; k <= TLS13_STATEFUL; k += TLS13_STATEFUL - TLS12_ID) {
        TLSRESUME *tr = realm_of(&KIND[k], "on_remove = \"forget\"\n");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], NULL), other = visitor_new(&KIND[k], NULL);
        struct pair pair = pair_new(&visitor, server);
        CHECK(pair_shakes(&pair));
        damaged = session_copy(SSL_get_session(pair.server));
        CHECK(SSL_SESSION_set_protocol_version(damaged, 0x0505) == 1);
        visitor_leaves(&visitor, &pair);
        pair_free(&pair, true);

        called = 0;
        SSL_CTX_set_info_callback(server, damages);
        CHECK(!visit(&other, server));
        SSL_CTX_set_info_callback(server, NULL);
        CHECK_EQUAL(called, 1);
        CHECK_EQUAL(stats_of(tr).sessions_missed_parse, 1);

        SSL_CTX_set_client_hello_cb(server, mark_hello, NULL);
        SSL_CTX_set_cert_cb(server, finds_marker, NULL);
        CHECK_SAYING(!visit(&visitor, server), "%s", KIND[k].name);
        CHECK_EQUAL(called, 2);
        CHECK_EQUAL(stats_of(tr).sessions_missed_parse, 2);
        SSL_SESSION_free(damaged);
        visitor_free(&visitor);
        visitor_free(&other);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

/* A handshake that waits for more says so, whatever the callbacks met: pair_shakes() looks at every
 * SSL_get_error(). Here sessions and tickets are of another realm. */
static void what_is_refused_is_no_error_of_the_connection(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, ""), *other = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr), *elsewhere = attached_server(other);
        struct visitor visitor = visitor_new(kind, NULL);
        for (int i = 0; i < 3; i++) {
            CHECK(!visit(&visitor, elsewhere));
            struct pair pair = pair_new(&visitor, server);
            CHECK(pair_shakes(&pair));
            CHECK(!SSL_session_reused(pair.server));
            CHECK_EQUAL(ERR_peek_error(), 0);
            visitor_leaves(&visitor, &pair);
            pair_free(&pair, true);
        }
        visitor_free(&visitor);
        SSL_CTX_free(server);
        SSL_CTX_free(elsewhere);
        tlsresume_free(tr);
        tlsresume_free(other);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM(contexts_outlive_their_instance);
    CLAIM(an_instance_outlives_its_contexts);
    CLAIM(connections_outlive_context_and_instance);
    CLAIM(after_a_switch_everything_may_be_freed_in_any_order);
    CLAIM(detach_puts_back_what_the_application_had);
    CLAIM(a_detached_context_serves_as_before);
    CLAIM(a_context_can_be_detached_and_attached_again);
    CLAIM(attaching_twice_is_refused_and_changes_nothing);
    CLAIM(callbacks_of_the_application_from_before_attach_are_replaced);
    CLAIM(a_thousand_contexts_one_after_the_other_find_room);
    CLAIM(a_duplicate_of_a_connection_is_one_of_its_own);
    CLAIM(a_connection_that_is_cleared_serves_the_next_client);
    CLAIM(handshakes_may_end_anywhere);
    CLAIM(an_idle_connection_counts_for_its_own_realm_after_detach);
    CLAIM(client_connections_of_an_attached_context_leave_no_trace);
    CLAIM(callbacks_leave_error_queue_and_errno_alone);
    CLAIM(opening_a_ticket_leaves_the_error_queue_alone);
    CLAIM(a_callback_that_fails_leaves_no_error);
    CLAIM(what_is_refused_is_no_error_of_the_connection);
    return check_end();
}
