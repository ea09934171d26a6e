/* A server that goes on configuring its contexts, before and after they served, in every way that concerns sessions. It
 * reads back what it set, and its sessions are shared all the same: by its contexts, and by its children. */
#define _POSIX_C_SOURCE 200809L
#define OPENSSL_SUPPRESS_DEPRECATED

#include "check.h"

#include <string.h>
#include <unistd.h>

#include <openssl/rand.h>

enum { KEYS_LEN = 80 };

struct setter {
    void (*set)(SSL_CTX *server);
    void (*reads_back)(SSL_CTX *server);
    bool without_tickets;    /* no TLS 1.3 tickets are wanted */
};

enum moment { BEFORE, AFTER, MOMENTS };

static const char *const MOMENT[MOMENTS] = {"set before the first connection", "set after it"};

/* How often a callback of this program was called. */
static int calls;

static SSL_CTX *server_with(const struct setter *setter, enum moment moment)
{
    SSL_CTX *server = server_new();
    if (moment == AFTER)
        SSL_free(SSL_new(server));
    setter->set(server);
    setter->reads_back(server);
    return server;
}

/* The child has contexts of its own, which know nothing of the parent's. */
static void resumes_in_a_child(struct visitor *visitor, const struct setter *setter,
                               enum moment moment)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        SSL_CTX *server = server_with(setter, moment);
        CHECK(visit(visitor, server));
        _exit(0);
    }
    check_child(child);
}

static void resumes(const struct setter *setter, enum moment moment, const struct kind *kind)
{
    bool none = setter->without_tickets && kind->version == TLS1_3_VERSION;
    SSL_CTX *one = server_with(setter, moment), *other = server_with(setter, moment);
    struct visitor visitor = visitor_new(kind, "a.example");
    CHECK(!visit(&visitor, one));
    CHECK((visitor.session == NULL) == none);
    CHECK_SAYING(visit(&visitor, other) == !none, "%s, %s", kind->name, MOMENT[moment]);
    CHECK_SAYING(visit(&visitor, one) == !none, "%s, %s", kind->name, MOMENT[moment]);
    if (!none)
        resumes_in_a_child(&visitor, setter, moment);
    setter->reads_back(one);
    setter->reads_back(other);
    visitor_free(&visitor);
    SSL_CTX_free(one);
    SSL_CTX_free(other);
}

static void shares_with(void (*set)(SSL_CTX *), void (*reads_back)(SSL_CTX *), bool without_tickets)
{
    const struct setter setter = {set, reads_back, without_tickets};
    calls = 0;
    for (enum moment moment = BEFORE; moment < MOMENTS; moment++)
        for (int k = TLS12_ID; k <= TLS13_STATELESS; k++)
            resumes(&setter, moment, &KIND[k]);
    CHECK_EQUAL(calls, 0);
}

static void has_no_getter(SSL_CTX *server)
{
    (void)server;
}

/* ---- Tickets ---- */

static int own_evp_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                       EVP_MAC_CTX *mac, int encrypt)
{
    (void)ssl, (void)name, (void)iv, (void)cipher, (void)mac, (void)encrypt;
    calls++;
    return 0;
}

static void set_evp_key(SSL_CTX *server)
{
    CHECK(SSL_CTX_set_tlsext_ticket_key_evp_cb(server, own_evp_key) == 1);
}

static void a_ticket_key_callback_is_put_aside(void)
{
    shares_with(set_evp_key, has_no_getter, false);
}

static int own_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                   HMAC_CTX *mac, int encrypt)
{
    (void)ssl, (void)name, (void)iv, (void)cipher, (void)mac, (void)encrypt;
    calls++;
    return 0;
}

static void set_key(SSL_CTX *server)
{
    CHECK(SSL_CTX_set_tlsext_ticket_key_cb(server, own_key) == 1);
}

static void a_ticket_key_callback_of_the_old_kind_is_put_aside(void)
{
    shares_with(set_key, has_no_getter, false);
}

static unsigned char keys[KEYS_LEN];

/* Other keys for each context. */
static void set_keys(SSL_CTX *server)
{
    CHECK(RAND_bytes(keys, sizeof keys) == 1);
    CHECK(SSL_CTX_set_tlsext_ticket_keys(server, keys, sizeof keys) == 1);
    unsigned char read[KEYS_LEN];
    CHECK(SSL_CTX_get_tlsext_ticket_keys(server, read, sizeof read) == 1);
    CHECK(memcmp(read, keys, sizeof keys) == 0);
}

static void ticket_keys_are_put_aside(void)
{
    shares_with(set_keys, has_no_getter, false);
}

static size_t tickets;

static void set_tickets(SSL_CTX *server)
{
    CHECK(SSL_CTX_set_num_tickets(server, tickets) == 1);
}

static void reads_tickets(SSL_CTX *server)
{
    CHECK_EQUAL(SSL_CTX_get_num_tickets(server), tickets);
}

static void a_number_of_tickets_is_put_aside(void)
{
    for (tickets = 1; tickets < 10; tickets += 4)
        shares_with(set_tickets, reads_tickets, false);
}

static void no_tickets_are_respected(void)
{
    tickets = 0;
    shares_with(set_tickets, reads_tickets, true);
}

/* ---- Sessions ---- */

static int own_new(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl, (void)session;
    calls++;
    return 0;
}

static SSL_SESSION *own_get(SSL *ssl, const unsigned char *id, int len, int *copy)
{
    (void)ssl, (void)id, (void)len;
    *copy = 0;
    calls++;
    return NULL;
}

static void own_remove(SSL_CTX *ctx, SSL_SESSION *session)
{
    (void)ctx, (void)session;
    calls++;
}

static void set_session_callbacks(SSL_CTX *server)
{
    SSL_CTX_sess_set_new_cb(server, own_new);
    SSL_CTX_sess_set_get_cb(server, own_get);
    SSL_CTX_sess_set_remove_cb(server, own_remove);
}

static void reads_session_callbacks(SSL_CTX *server)
{
    CHECK(SSL_CTX_sess_get_new_cb(server) == own_new);
    CHECK(SSL_CTX_sess_get_get_cb(server) == own_get);
    CHECK(SSL_CTX_sess_get_remove_cb(server) == own_remove);
}

static void session_callbacks_are_put_aside(void)
{
    shares_with(set_session_callbacks, reads_session_callbacks, false);
}

static void clear_session_callbacks(SSL_CTX *server)
{
    set_session_callbacks(server);
    SSL_CTX_sess_set_new_cb(server, NULL);
    SSL_CTX_sess_set_get_cb(server, NULL);
    SSL_CTX_sess_set_remove_cb(server, NULL);
}

static void reads_no_session_callbacks(SSL_CTX *server)
{
    CHECK(SSL_CTX_sess_get_new_cb(server) == NULL);
    CHECK(SSL_CTX_sess_get_get_cb(server) == NULL);
    CHECK(SSL_CTX_sess_get_remove_cb(server) == NULL);
}

static void session_callbacks_that_are_taken_back_read_as_none(void)
{
    shares_with(clear_session_callbacks, reads_no_session_callbacks, false);
}

static long mode;

static void set_mode(SSL_CTX *server)
{
    CHECK_EQUAL(SSL_CTX_set_session_cache_mode(server, SSL_SESS_CACHE_BOTH), SSL_SESS_CACHE_SERVER);
    CHECK_EQUAL(SSL_CTX_set_session_cache_mode(server, mode), SSL_SESS_CACHE_BOTH);
}

static void reads_mode(SSL_CTX *server)
{
    CHECK_EQUAL(SSL_CTX_get_session_cache_mode(server), mode);
}

static void a_session_cache_mode_is_put_aside(void)
{
    static const long MODES[] = {
        SSL_SESS_CACHE_OFF, SSL_SESS_CACHE_CLIENT, SSL_SESS_CACHE_SERVER, SSL_SESS_CACHE_BOTH,
        SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL,
    };
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++) {
        mode = MODES[i];
        shares_with(set_mode, reads_mode, false);
    }
}

static void set_timeout(SSL_CTX *server)
{
    long before = SSL_CTX_get_timeout(server);
    CHECK_EQUAL(SSL_CTX_set_timeout(server, 7), before);
    CHECK_EQUAL(SSL_CTX_set_timeout(server, 5), 7);
}

static void reads_timeout(SSL_CTX *server)
{
    CHECK_EQUAL(SSL_CTX_get_timeout(server), 5);
}

static void a_timeout_is_put_aside(void)
{
    shares_with(set_timeout, reads_timeout, false);
}

static void the_timeout_of_openssl_reads_as_before(void)
{
    SSL_CTX *server = server_new();
    long before = SSL_CTX_get_timeout(server), cache = SSL_CTX_get_session_cache_mode(server);
    SSL_free(SSL_new(server));
    CHECK_EQUAL(SSL_CTX_get_timeout(server), before);
    CHECK_EQUAL(SSL_CTX_get_session_cache_mode(server), cache);
    CHECK_EQUAL(SSL_CTX_get_num_tickets(server), 2);
    reads_no_session_callbacks(server);
    SSL_CTX_free(server);
}

static void set_cache_size(SSL_CTX *server)
{
    SSL_CTX_sess_set_cache_size(server, 3);
    CHECK_EQUAL(SSL_CTX_sess_set_cache_size(server, 1), 3);
}

static void reads_cache_size(SSL_CTX *server)
{
    CHECK_EQUAL(SSL_CTX_sess_get_cache_size(server), 1);
}

static void a_cache_size_is_no_limit(void)
{
    shares_with(set_cache_size, reads_cache_size, false);
}

static int own_id(SSL *ssl, unsigned char *id, unsigned *len)
{
    (void)ssl;
    calls++;
    return RAND_bytes(id, (int)*len) == 1;
}

static void set_generate_id(SSL_CTX *server)
{
    CHECK(SSL_CTX_set_generate_session_id(server, own_id) == 1);
}

static void a_session_id_generator_is_put_aside(void)
{
    shares_with(set_generate_id, has_no_getter, false);
}

static void set_id_context(SSL_CTX *server)
{
    CHECK(SSL_CTX_set_session_id_context(server, (const unsigned char *)"another", 7) == 1);
}

static void a_session_id_context_may_change(void)
{
    shares_with(set_id_context, has_no_getter, false);
}

/* ---- Options ---- */

static void set_options(SSL_CTX *server)
{
    uint64_t wanted = SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_RENEGOTIATION;
    uint64_t before = SSL_CTX_get_options(server);
    CHECK(SSL_CTX_set_options(server, wanted) == (before | wanted));
    CHECK(SSL_CTX_clear_options(server, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_ANTI_REPLAY)
          == SSL_CTX_get_options(server));
}

static void reads_options(SSL_CTX *server)
{
    CHECK(SSL_CTX_get_options(server) & SSL_OP_CIPHER_SERVER_PREFERENCE);
    CHECK(!(SSL_CTX_get_options(server) & SSL_OP_NO_RENEGOTIATION));
}

static void options_of_another_kind_are_those_of_the_program(void)
{
    shares_with(set_options, reads_options, false);
}

static void set_no_ticket(SSL_CTX *server)
{
    CHECK(SSL_CTX_set_options(server, SSL_OP_NO_TICKET) & SSL_OP_NO_TICKET);
}

static void reads_no_ticket(SSL_CTX *server)
{
    CHECK(SSL_CTX_get_options(server) & SSL_OP_NO_TICKET);
    struct visitor visitor = visitor_new(&KIND[TLS12_TICKET], NULL);
    CHECK(!visit(&visitor, server));
    CHECK(!SSL_SESSION_has_ticket(visitor.session));
    visitor_free(&visitor);
}

static void where_tickets_are_off_sessions_are_shared_by_id(void)
{
    shares_with(set_no_ticket, reads_no_ticket, false);
}

static void switch_tickets_on_again(SSL_CTX *server)
{
    set_no_ticket(server);
    CHECK(!(SSL_CTX_clear_options(server, SSL_OP_NO_TICKET) & SSL_OP_NO_TICKET));
}

static void gives_tickets(SSL_CTX *server)
{
    struct visitor visitor = visitor_new(&KIND[TLS12_TICKET], NULL);
    CHECK(!visit(&visitor, server));
    CHECK(SSL_SESSION_has_ticket(visitor.session));
    visitor_free(&visitor);
}

static void stateless_tickets_that_were_off_may_come_on_again(void)
{
    shares_with(switch_tickets_on_again, gives_tickets, false);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM(a_ticket_key_callback_is_put_aside);
    CLAIM(a_ticket_key_callback_of_the_old_kind_is_put_aside);
    CLAIM(ticket_keys_are_put_aside);
    CLAIM(a_number_of_tickets_is_put_aside);
    CLAIM(no_tickets_are_respected);
    CLAIM(session_callbacks_are_put_aside);
    CLAIM(session_callbacks_that_are_taken_back_read_as_none);
    CLAIM(a_session_cache_mode_is_put_aside);
    CLAIM(a_timeout_is_put_aside);
    CLAIM(the_timeout_of_openssl_reads_as_before);
    CLAIM(a_cache_size_is_no_limit);
    CLAIM(a_session_id_generator_is_put_aside);
    CLAIM(a_session_id_context_may_change);
    CLAIM(options_of_another_kind_are_those_of_the_program);
    CLAIM(where_tickets_are_off_sessions_are_shared_by_id);
    CLAIM(stateless_tickets_that_were_off_may_come_on_again);
    return check_end();
}
