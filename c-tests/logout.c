/* Whose wish it is that a session is removed: the application's counts, whenever and wherever it is uttered; what OpenSSL
 * removes because of a stranger does not. */
#define _POSIX_C_SOURCE 200809L

#include "spare_memory.h"

#include <string.h>

#include <openssl/err.h>

/* ---- Logouts ---- */

static bool has_name_to_remove(int kind)
{
    return kind != TLS12_TICKET; /* has no id that it could be removed by */
}

/* Whether a client who has this session resumes. */
static bool still_resumes(SSL_SESSION *session, const struct kind *kind, SSL_CTX *server)
{
    struct visitor visitor = visitor_new(kind, "a.example");
    visitor_takes(&visitor, session);
    bool resumed = visit(&visitor, server);
    visitor_free(&visitor);
    return resumed;
}

/* Freed without a close_notify. Where its session was. */
static SSL_SESSION *one_is_freed_uncleanly(const struct kind *kind, SSL_CTX *server)
{
    struct visitor stranger = visitor_new(kind, "b.example");
    struct pair pair = pair_new(&stranger, server);
    CHECK(pair_shakes(&pair));
    SSL_SESSION *session = SSL_get_session(pair.server);
    pair_free(&pair, false);
    visitor_free(&stranger);
    return session;
}

static void a_logout_counts_where_another_session_was_freed_before(void)
{
    int same_place = 0;
    for (int k = 0; k < KINDS; k++)
        for (const struct kind *other = KIND; other < KIND + KINDS; other++) {
            if (!has_name_to_remove(k))
                continue;
            TLSRESUME *tr = realm_of(&KIND[k], "");
            SSL_CTX *server = attached_server(tr);
            struct visitor visitor = visitor_new(&KIND[k], "a.example");
            SSL_SESSION *gone = one_is_freed_uncleanly(other, server);
            struct pair pair = pair_new(&visitor, server);
            CHECK(pair_shakes(&pair));
            same_place += SSL_get_session(pair.server) == gone;
            SSL_CTX_remove_session(server, SSL_get_session(pair.server));
            visitor_leaves(&visitor, &pair);
            pair_free(&pair, true);
            CHECK_SAYING(!visit(&visitor, server), "%s after %s", KIND[k].name, other->name);
            visitor_free(&visitor);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
    CHECK_SAYING(same_place > 0, "no session was where another one had been");
}

/* As servers do with what comes to the wrong port: an error that has nothing to do with the session. */
static void a_stranger_speaks_http(SSL_CTX *server)
{
    static const char REQUEST[] = "GET / HTTP/1.0\r\n\r\n";
    SSL *ssl = SSL_new(server);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_accept_state(ssl);
    CHECK(BIO_write(SSL_get_rbio(ssl), REQUEST, sizeof REQUEST - 1) > 0);
    CHECK(SSL_do_handshake(ssl) != 1 && ERR_GET_LIB(ERR_peek_last_error()) == ERR_LIB_SSL);
    SSL_free(ssl);
}

static void a_logout_counts_after_the_connection_is_gone_whatever_error_there_is(void)
{
    for (int k = 0; k < KINDS; k++)
        for (int resumed = 0; resumed < 2; resumed++) {
            if (!has_name_to_remove(k))
                continue;
            TLSRESUME *tr = realm_of(&KIND[k], "");
            SSL_CTX *server = attached_server(tr);
            struct visitor visitor = visitor_new(&KIND[k], "a.example");
            if (resumed)
                CHECK(!visit(&visitor, server));
            struct pair pair = pair_new(&visitor, server);
            CHECK(pair_shakes(&pair));
            CHECK_EQUAL(SSL_session_reused(pair.server), resumed);
            SSL_SESSION *kept = SSL_get1_session(pair.server);
            visitor_leaves(&visitor, &pair);
            pair_free(&pair, true);
            a_stranger_speaks_http(server);
            SSL_CTX_remove_session(server, kept);
            ERR_clear_error();
            SSL_SESSION_free(kept);
            CHECK_SAYING(!visit(&visitor, server), "%s, resumed before %d", KIND[k].name, resumed);
            visitor_free(&visitor);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
}

/* A connection over memory that has no client. */
static SSL *accepting(SSL_CTX *server)
{
    SSL *ssl = SSL_new(server);
    CHECK(ssl != NULL);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(ssl), -1);
    SSL_set_accept_state(ssl);
    return ssl;
}

enum { NOTHING, A_NEW_ONE, ITS_SESSION, STRANGERS };

/* One who has sent a ClientHello and no more: one who was there before offers a session with it. */
static SSL *one_is_slow(const struct kind *kind, int stranger, SSL_CTX *server)
{
    if (stranger == NOTHING)
        return NULL;
    struct visitor slow = visitor_new(kind, "b.example");
    if (stranger == ITS_SESSION)
        CHECK(!visit(&slow, server));
    struct pair pair = pair_new(&slow, server);
    CHECK(!pair_steps(&pair));
    SSL_free(pair.client);
    visitor_free(&slow);
    return pair.server;
}

static void a_logout_counts_while_handshakes_of_strangers_are_under_way(void)
{
    for (int k = 0; k < KINDS; k++)
        for (int stranger = NOTHING; stranger < STRANGERS; stranger++)
            for (int gone = 0; gone < 2; gone++) {
                if (!has_name_to_remove(k))
                    continue;
                TLSRESUME *tr = realm_of(&KIND[k], "");
                SSL_CTX *server = attached_server(tr);
                struct visitor visitor = visitor_new(&KIND[k], "a.example");
                CHECK(!visit(&visitor, server) && visit(&visitor, server));
                struct pair pair = pair_new(&visitor, server);
                CHECK(pair_shakes(&pair) && SSL_session_reused(pair.server));
                SSL_SESSION *kept = SSL_get1_session(pair.server);
                visitor_leaves(&visitor, &pair);
                SSL_SESSION *before = session_copy(visitor.session);
                if (gone)
                    pair_free(&pair, true);
                ERR_clear_error();
                SSL *slow = one_is_slow(&KIND[k], stranger, server);
                a_stranger_speaks_http(server);
                SSL_CTX_remove_session(server, kept);
                ERR_clear_error();
                CHECK_SAYING(!still_resumes(before, &KIND[k], server), "%s, stranger %d, gone %d", KIND[k].name,
                             stranger, gone);
                SSL_free(slow);
                if (!gone)
                    pair_free(&pair, true);
                SSL_SESSION_free(kept);
                SSL_SESSION_free(before);
                visitor_free(&visitor);
                SSL_CTX_free(server);
                tlsresume_free(tr);
            }
}

/* ---- Users who are logged in when something else happens ---- */

struct user {
    const struct kind *kind;
    struct visitor visitor;
    struct pair pair;       /* over which they are logged in */
    SSL_SESSION *of_pair;
    SSL_SESSION *kept;      /* what the client comes back with */
};

static struct user user_new(const struct kind *kind, const char *name, SSL_CTX *server)
{
    struct user user = {.kind = kind, .visitor = visitor_new(kind, name)};
    SSL_CTX_set_post_handshake_auth(user.visitor.ctx, 1);
    CHECK(!visit(&user.visitor, server) && visit(&user.visitor, server));
    user.pair = pair_new(&user.visitor, server);
    CHECK(pair_shakes(&user.pair) && SSL_session_reused(user.pair.server));
    user.of_pair = SSL_get1_session(user.pair.server);
    visitor_leaves(&user.visitor, &user.pair);
    user.kept = session_copy(user.visitor.session);
    return user;
}

static void user_free(struct user *user)
{
    SSL_SESSION_free(user->of_pair);
    SSL_SESSION_free(user->kept);
    visitor_free(&user->visitor);
}

/* Without a close_notify. OpenSSL 3 leaves "unexpected eof while reading" on the queue, as the server does. */
static void client_cuts(struct pair *pair)
{
    char byte;
    CHECK(BIO_shutdown_wr(SSL_get_wbio(pair->client)) == 1);
    CHECK(SSL_read(pair->server, &byte, 1) <= 0);
}

/* The server sees the end before it carries out what the client asked for. */
static void a_logout_counts_after_the_client_has_cut_the_connection(void)
{
    for (int k = 0; k < KINDS; k++)
        for (int gone = 0; gone < 2; gone++) {
            if (!has_name_to_remove(k))
                continue;
            TLSRESUME *tr = realm_of(&KIND[k], "");
            SSL_CTX *server = attached_server(tr);
            struct user user = user_new(&KIND[k], "a.example", server);
            client_cuts(&user.pair);
            if (gone)
                pair_free(&user.pair, false);
            SSL_CTX_remove_session(server, user.of_pair);
            if (!gone)
                pair_free(&user.pair, false);
            ERR_clear_error();
            CHECK_SAYING(!still_resumes(user.kept, &KIND[k], server), "%s, gone %d", KIND[k].name, gone);
            user_free(&user);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
}

/* OpenSSL removes nothing by itself any more. */
static void a_logout_counts_after_a_close_notify_that_the_client_did_not_answer(void)
{
    for (int k = 0; k < KINDS; k++) {
        if (!has_name_to_remove(k))
            continue;
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *server = attached_server(tr);
        struct user user = user_new(&KIND[k], "a.example", server);
        CHECK_EQUAL(SSL_shutdown(user.pair.server), 0);
        client_cuts(&user.pair);
        SSL_CTX_remove_session(server, user.of_pair);
        pair_free(&user.pair, false);
        ERR_clear_error();
        CHECK_SAYING(!still_resumes(user.kept, &KIND[k], server), "%s", KIND[k].name);
        user_free(&user);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

enum late_message { REQUEST_FOR_A_CERTIFICATE, KEY_UPDATE, LATE_MESSAGES };

static void begins_to_send(enum late_message message, SSL *server)
{
    if (message == KEY_UPDATE) {
        CHECK(SSL_key_update(server, SSL_KEY_UPDATE_REQUESTED) == 1);
        return;
    }
    SSL_set_verify(server, SSL_VERIFY_PEER, NULL);
    CHECK(SSL_verify_client_post_handshake(server) == 1);
}

static void a_logout_counts_while_a_late_message_is_under_way_whatever_strangers_do(void)
{
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++)
        for (enum late_message message = 0; message < LATE_MESSAGES; message++) {
            TLSRESUME *tr = realm_of(&KIND[k], "");
            SSL_CTX *server = attached_server(tr);
            struct user user = user_new(&KIND[k], "a.example", server);
            struct user stranger = user_new(&KIND[k], "b.example", server);
            begins_to_send(message, user.pair.server);
            client_cuts(&stranger.pair);
            SSL_CTX_remove_session(server, user.of_pair);
            ERR_clear_error();
            pair_free(&stranger.pair, false);
            pair_free(&user.pair, true);
            CHECK_SAYING(!still_resumes(user.kept, &KIND[k], server), "%s, message %d", KIND[k].name, message);
            CHECK_SAYING(visit(&stranger.visitor, server), "%s, message %d: the stranger", KIND[k].name, message);
            user_free(&user);
            user_free(&stranger);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
}

/* ---- Sessions that are removed without a word to the library ---- */

static void hears_of_a_removal(SSL_CTX *ctx, SSL_SESSION *session)
{
    (void)ctx, (void)session;
}

/* One of a context that the library lost in the meantime is freed without a close_notify. Where its session was. */
static SSL_SESSION *one_is_freed_unheard(const struct kind *kind, bool detached, TLSRESUME *tr)
{
    SSL_CTX *left = attached_server(tr);
    struct visitor stranger = visitor_new(kind, "b.example");
    struct pair pair = pair_new(&stranger, left);
    CHECK(pair_shakes(&pair));
    if (detached)
        CHECK(tlsresume_detach(left) == 1);
    else
        SSL_CTX_sess_set_remove_cb(left, hears_of_a_removal);
    SSL_SESSION *session = SSL_get_session(pair.server);
    pair_free(&pair, false);
    visitor_free(&stranger);
    SSL_CTX_free(left);
    return session;
}

static void a_logout_counts_where_a_session_of_a_context_that_was_left_was_freed_before(void)
{
    int same_place = 0;
    for (int k = 0; k < KINDS; k++)
        for (const struct kind *other = KIND; other < KIND + KINDS; other++)
            for (int detached = 0; detached < 2; detached++) {
                if (!has_name_to_remove(k))
                    continue;
                TLSRESUME *tr = realm_of(&KIND[k], "");
                SSL_CTX *server = attached_server(tr);
                struct visitor visitor = visitor_new(&KIND[k], "a.example");
                SSL_SESSION *gone = one_is_freed_unheard(other, detached, tr);
                struct pair pair = pair_new(&visitor, server);
                CHECK(pair_shakes(&pair));
                same_place += SSL_get_session(pair.server) == gone;
                SSL_CTX_remove_session(server, SSL_get_session(pair.server));
                visitor_leaves(&visitor, &pair);
                pair_free(&pair, true);
                CHECK_SAYING(!visit(&visitor, server), "%s after %s, detached %d", KIND[k].name, other->name,
                             detached);
                visitor_free(&visitor);
                SSL_CTX_free(server);
                tlsresume_free(tr);
            }
    CHECK_SAYING(same_place > 0, "no session was where another one had been");
}

/* ---- Connections that are freed ---- */

/* Who is to be logged out when the application's data on a connection is freed. */
static struct {
    SSL_CTX *server;
    SSL_SESSION *session;
} to_log_out;

static void data_is_freed(void *parent, void *data, CRYPTO_EX_DATA *all, int index, long number, void *arg)
{
    (void)parent, (void)all, (void)index, (void)number, (void)arg;
    if (data != NULL)
        SSL_CTX_remove_session(to_log_out.server, to_log_out.session);
}

static void who_is_logged_out_while_a_connection_is_freed_is_not_who_had_that_one(void)
{
    for (int k = 0; k < KINDS; k++) {
        if (!has_name_to_remove(k))
            continue;
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *server = attached_server(tr);
        struct user user = user_new(&KIND[k], "a.example", server), other = user_new(&KIND[k], "a.example", server);
        int index = SSL_get_ex_new_index(0, NULL, NULL, NULL, data_is_freed);
        CHECK(index > 0 && SSL_set_ex_data(user.pair.server, index, &to_log_out) == 1);
        to_log_out.server = server;
        to_log_out.session = other.of_pair;
        pair_free(&other.pair, true);
        pair_free(&user.pair, false);
        CHECK(CRYPTO_free_ex_index(CRYPTO_EX_INDEX_SSL, index) == 1);
        CHECK_SAYING(!still_resumes(other.kept, &KIND[k], server), "%s: who was logged out", KIND[k].name);
        CHECK_SAYING(still_resumes(user.kept, &KIND[k], server), "%s: who was not", KIND[k].name);
        user_free(&user);
        user_free(&other);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void connection_is_freed(void *parent, void *data, CRYPTO_EX_DATA *all, int index, long number, void *arg)
{
    (void)parent, (void)all, (void)index, (void)number, (void)arg;
    SSL_free(data);
}

/* As a proxy frees its other side. Neither was logged out, and both were cut off. */
static void who_has_a_connection_that_is_freed_with_another_is_not_logged_out(void)
{
    for (int k = 0; k < KINDS; k++)
        for (int both_cut = 0; both_cut < 2; both_cut++) {
            TLSRESUME *tr = realm_of(&KIND[k], "");
            SSL_CTX *server = attached_server(tr);
            struct user user = user_new(&KIND[k], "a.example", server), other = user_new(&KIND[k], "a.example", server);
            int index = SSL_get_ex_new_index(0, NULL, NULL, NULL, connection_is_freed);
            CHECK(index > 0 && SSL_set_ex_data(user.pair.server, index, other.pair.server) == 1);
            if (!both_cut)
                SSL_set_shutdown(other.pair.server, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
            pair_free(&user.pair, false);
            SSL_free(other.pair.client);
            CHECK(CRYPTO_free_ex_index(CRYPTO_EX_INDEX_SSL, index) == 1);
            CHECK_SAYING(still_resumes(user.kept, &KIND[k], server), "%s, both cut %d", KIND[k].name, both_cut);
            CHECK_SAYING(still_resumes(other.kept, &KIND[k], server), "%s, both cut %d", KIND[k].name, both_cut);
            user_free(&user);
            user_free(&other);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
}

/* ---- Callbacks ---- */

enum callback { SERVERNAME, ALPN, INFO, CALLBACKS };

/* What the application does in which callback. */
static struct {
    enum callback callback;
    bool removes, refuses;
    bool fails;    /* at something before that, which leaves an error of libssl's on the queue */
} application;

static void removes(SSL *ssl)
{
    if (!application.removes)
        return;
    if (application.fails)
        CHECK(SSL_CTX_use_certificate(SSL_get_SSL_CTX(ssl), NULL) == 0);
    SSL_CTX_remove_session(SSL_get_SSL_CTX(ssl), SSL_get_session(ssl));
    ERR_clear_error();
    application.removes = false;
}

static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    if (application.callback != SERVERNAME)
        return SSL_TLSEXT_ERR_OK;
    removes(ssl);
    return application.refuses ? SSL_TLSEXT_ERR_ALERT_FATAL : SSL_TLSEXT_ERR_OK;
}

static int on_protocols(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_len,
                        const unsigned char *offered, unsigned offered_len, void *arg)
{
    (void)chosen, (void)chosen_len, (void)offered, (void)offered_len, (void)arg;
    if (application.callback != ALPN)
        return SSL_TLSEXT_ERR_NOACK;
    removes(ssl);
    return application.refuses ? SSL_TLSEXT_ERR_ALERT_FATAL : SSL_TLSEXT_ERR_NOACK;
}

static void on_step(const SSL *ssl, int position, int value)
{
    (void)value;
    if (application.callback == INFO && position == SSL_CB_ACCEPT_LOOP && SSL_session_reused(ssl))
        removes((SSL *)ssl);
}

static SSL_CTX *server_with_callbacks(TLSRESUME *tr)
{
    SSL_CTX *server = server_new();
    SSL_CTX_set_tlsext_servername_callback(server, on_server_name);
    SSL_CTX_set_alpn_select_cb(server, on_protocols, NULL);
    SSL_CTX_set_info_callback(server, on_step);
    CHECK(tlsresume_attach(tr, server) == 1);
    return server;
}

static struct visitor visitor_with_protocols(const struct kind *kind)
{
    static const unsigned char PROTOCOL[] = "\3foo";
    struct visitor visitor = visitor_new(kind, "a.example");
    CHECK(SSL_CTX_set_alpn_protos(visitor.ctx, PROTOCOL, 4) == 0);
    return visitor;
}

/* Comes back while the application does that; whether its session resumes afterwards. */
static bool resumes_after(int kind, enum callback callback, bool removal, bool refusal)
{
    TLSRESUME *tr = realm_of(&KIND[kind], "");
    SSL_CTX *server = server_with_callbacks(tr);
    struct visitor visitor = visitor_with_protocols(&KIND[kind]);
    CHECK(!visit(&visitor, server) && visit(&visitor, server));
    SSL_SESSION *session = session_copy(visitor.session);
    struct pair pair = pair_new(&visitor, server);
    application.callback = callback;
    application.removes = removal;
    application.refuses = refusal;
    /* OpenSSL 1.1.1 also ends handshakes whose session was removed. */
    CHECK(!(pair_shakes(&pair) && refusal));
    CHECK(SSL_session_reused(pair.server) && !application.removes);
    application.refuses = false;
    pair_free(&pair, true);
    ERR_clear_error();
    bool resumed = still_resumes(session, &KIND[kind], server);
    SSL_SESSION_free(session);
    visitor_free(&visitor);
    SSL_CTX_free(server);
    tlsresume_free(tr);
    return resumed;
}

static void a_logout_counts_in_every_callback(void)
{
    for (int k = 0; k < KINDS; k++)
        for (enum callback callback = 0; callback < CALLBACKS; callback++)
            for (int refuses = 0; refuses < 2; refuses++)
                if (has_name_to_remove(k) && !(callback == INFO && refuses))
                    CHECK_SAYING(!resumes_after(k, callback, true, refuses), "%s, callback %d, refuses %d",
                                 KIND[k].name, callback, refuses);
}

static void a_logout_counts_in_every_callback_after_what_failed_there(void)
{
    application.fails = true;
    for (int k = 0; k < KINDS; k++)
        for (enum callback callback = 0; callback < CALLBACKS; callback++)
            if (has_name_to_remove(k))
                CHECK_SAYING(!resumes_after(k, callback, true, false), "%s, callback %d", KIND[k].name, callback);
    application.fails = false;
}

/* ---- Strangers ---- */

static void who_is_refused_in_a_callback_loses_no_session(void)
{
    for (int k = 0; k < KINDS; k++)
        for (enum callback callback = SERVERNAME; callback <= ALPN; callback++)
            CHECK_SAYING(resumes_after(k, callback, false, true), "%s, callback %d", KIND[k].name, callback);
}

enum { MOST_HELLO = 4096 };

struct hello {
    unsigned char bytes[MOST_HELLO];
    int len;
};

/* What the visitor sends when it comes back. */
static struct hello hello_of(struct visitor *visitor)
{
    struct hello hello = {.len = 0};
    SSL *client = SSL_new(visitor->ctx);
    SSL_set_bio(client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(client);
    CHECK(SSL_set_tlsext_host_name(client, visitor->name) == 1);
    CHECK(SSL_set_session(client, visitor->session) == 1);
    CHECK(SSL_do_handshake(client) != 1);
    hello.len = BIO_read(SSL_get_wbio(client), hello.bytes, sizeof hello.bytes);
    CHECK(hello.len > 0);
    SSL_free(client);
    ERR_clear_error();
    return hello;
}

static void is_sent(const struct hello *hello, SSL_CTX *server)
{
    SSL *ssl = SSL_new(server);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_accept_state(ssl);
    CHECK_EQUAL(BIO_write(SSL_get_rbio(ssl), hello->bytes, hello->len), hello->len);
    SSL_do_handshake(ssl);
    SSL_free(ssl);
    ERR_clear_error();
}

/* Whoever saw the ClientHello sends it again and again, each time with another byte changed. */
static void who_changes_a_byte_of_a_client_hello_removes_no_session(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = attached_server(tr);
        struct visitor visitor = visitor_with_protocols(kind);
        CHECK(!visit(&visitor, server));
        struct hello hello = hello_of(&visitor);
        uint64_t used = stats_of(tr).store_bytes_used;
        int step = hello.len / scaled(hello.len);
        for (int i = hello.len - 1; i >= 0; i -= step) {
            hello.bytes[i] ^= 0x15;
            is_sent(&hello, server);
            hello.bytes[i] ^= 0x15;
        }
        CHECK_EQUAL(stats_of(tr).store_bytes_used, used);
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        visitor_free(&visitor);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void server_takes_one_cipher(SSL_CTX *server)
{
    CHECK(SSL_CTX_set_cipher_list(server, "ECDHE-ECDSA-AES128-GCM-SHA256") == 1);
    CHECK(SSL_CTX_set_ciphersuites(server, "TLS_AES_128_GCM_SHA256") == 1);
}

static void who_comes_with_a_session_and_without_its_cipher_removes_no_session(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = server_new();
        server_takes_one_cipher(server);
        CHECK(tlsresume_attach(tr, server) == 1);
        struct visitor visitor = visitor_new(kind, "a.example"), thief = visitor_new(kind, "a.example");
        CHECK(!visit(&visitor, server));
        CHECK(SSL_CTX_set_cipher_list(thief.ctx, "ECDHE-ECDSA-AES256-GCM-SHA384") == 1);
        CHECK(SSL_CTX_set_ciphersuites(thief.ctx, "TLS_CHACHA20_POLY1305_SHA256") == 1);
        uint64_t used = stats_of(tr).store_bytes_used;
        for (int again = 0; again < 3; again++) {
            visitor_takes(&thief, visitor.session);
            struct pair pair = pair_new(&thief, server);
            CHECK_SAYING(!pair_shakes(&pair), "%s", kind->name);
            pair_free(&pair, false);
            ERR_clear_error();
        }
        CHECK_EQUAL(stats_of(tr).store_bytes_used, used);
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        visitor_free(&visitor);
        visitor_free(&thief);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static const unsigned char GARBAGE[] = {22, 3, 3, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static void on_no_step(const SSL *ssl, int position, int value)
{
    (void)ssl, (void)position, (void)value;
}

static int sets_its_own_info_callback(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    SSL_set_info_callback(ssl, on_no_step);
    return SSL_TLSEXT_ERR_OK;
}

/* The application traces each connection, and others are served before the nonsense comes. */
static void who_sends_nonsense_late_removes_no_session_where_connections_are_traced(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        TLSRESUME *tr = realm_of(kind, "");
        SSL_CTX *server = server_new();
        SSL_CTX_set_tlsext_servername_callback(server, sets_its_own_info_callback);
        CHECK(tlsresume_attach(tr, server) == 1);
        struct visitor visitor = visitor_new(kind, "a.example"), other = visitor_new(kind, "b.example");
        CHECK(!visit(&visitor, server));
        struct hello hello = hello_of(&visitor);
        SSL *bad = accepting(server);
        CHECK_EQUAL(BIO_write(SSL_get_rbio(bad), hello.bytes, hello.len), hello.len);
        CHECK(SSL_do_handshake(bad) != 1 && SSL_session_reused(bad));
        CHECK(!visit(&other, server));
        CHECK(BIO_write(SSL_get_rbio(bad), GARBAGE, sizeof GARBAGE) > 0);
        CHECK(SSL_do_handshake(bad) != 1 && ERR_peek_error() != 0);
        SSL_free(bad);
        ERR_clear_error();
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        visitor_free(&visitor);
        visitor_free(&other);
        SSL_CTX_free(server);
        tlsresume_free(tr);
    }
}

static void allow_renegotiation(SSL_CTX *server)
{
#ifdef SSL_OP_ALLOW_CLIENT_RENEGOTIATION
    SSL_CTX_set_options(server, SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
#else
    (void)server;
#endif
}

/* What somebody has who saw the visitor's id, and does not know its secret. */
static SSL_SESSION *seen_of(const struct visitor *visitor)
{
    static const unsigned char SECRET[SSL_MAX_MASTER_KEY_LENGTH] = {7};
    SSL_SESSION *seen = session_copy(visitor->session);
    CHECK(SSL_SESSION_set1_master_key(seen, SECRET, sizeof SECRET) == 1);
    return seen;
}

/* The handshake before was the attacker's own. */
static void renegotiates_with(SSL_SESSION *session, bool server_asks, struct pair *pair)
{
    int error = SSL_ERROR_WANT_READ;
    if (server_asks)
        CHECK(SSL_renegotiate(pair->server) == 1 && SSL_do_handshake(pair->server) == 1);
    /* So that OpenSSL does not give up the session of the handshake before. */
    SSL_set_shutdown(pair->client, SSL_SENT_SHUTDOWN);
    CHECK(SSL_set_session(pair->client, session) == 1);
    SSL_set_shutdown(pair->client, 0);
    CHECK(SSL_renegotiate_abbreviated(pair->client) == 1);
    for (int step = 0; step < 8 && error == SSL_ERROR_WANT_READ; step++) {
        char byte;
        ERR_clear_error();
        SSL_do_handshake(pair->client);
        ERR_clear_error();
        error = SSL_get_error(pair->server, SSL_read(pair->server, &byte, 1));
    }
    CHECK(SSL_session_reused(pair->server) && error == SSL_ERROR_SSL);
}

static void who_renegotiates_with_the_id_of_another_removes_no_session(void)
{
    for (int server_asks = 0; server_asks < 2; server_asks++)
        for (int properly = 0; properly < 2; properly++) {
            TLSRESUME *tr = realm_of(&KIND[TLS12_ID], "");
            SSL_CTX *server = server_new();
            allow_renegotiation(server);
            CHECK(tlsresume_attach(tr, server) == 1);
            struct visitor visitor = visitor_new(&KIND[TLS12_ID], "a.example");
            struct visitor attacker = visitor_new(&KIND[TLS12_ID], "a.example");
            CHECK(!visit(&visitor, server) && visit(&visitor, server));
            SSL_SESSION *seen = seen_of(&visitor);
            struct pair pair = pair_new(&attacker, server);
            CHECK(pair_shakes(&pair));
            renegotiates_with(seen, server_asks, &pair);
            pair_free(&pair, properly);
            ERR_clear_error();
            CHECK_SAYING(visit(&visitor, server), "server asks %d, closed properly %d", server_asks, properly);
            SSL_SESSION_free(seen);
            visitor_free(&visitor);
            visitor_free(&attacker);
            SSL_CTX_free(server);
            tlsresume_free(tr);
        }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    begins_to_give_out_again();
    own_certificate();
    CLAIM(a_logout_counts_where_another_session_was_freed_before);
    CLAIM(a_logout_counts_after_the_connection_is_gone_whatever_error_there_is);
    CLAIM(a_logout_counts_while_handshakes_of_strangers_are_under_way);
    CLAIM(a_logout_counts_after_the_client_has_cut_the_connection);
    CLAIM(a_logout_counts_after_a_close_notify_that_the_client_did_not_answer);
    CLAIM(a_logout_counts_while_a_late_message_is_under_way_whatever_strangers_do);
    CLAIM(a_logout_counts_where_a_session_of_a_context_that_was_left_was_freed_before);
    CLAIM(who_is_logged_out_while_a_connection_is_freed_is_not_who_had_that_one);
    CLAIM(who_has_a_connection_that_is_freed_with_another_is_not_logged_out);
    CLAIM(a_logout_counts_in_every_callback);
    CLAIM(a_logout_counts_in_every_callback_after_what_failed_there);
    CLAIM(who_is_refused_in_a_callback_loses_no_session);
    CLAIM(who_changes_a_byte_of_a_client_hello_removes_no_session);
    CLAIM(who_comes_with_a_session_and_without_its_cipher_removes_no_session);
    CLAIM(who_sends_nonsense_late_removes_no_session_where_connections_are_traced);
    CLAIM(who_renegotiates_with_the_id_of_another_removes_no_session);
    return check_end();
}
