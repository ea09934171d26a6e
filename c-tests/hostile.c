/* What clients may send without being anybody: it costs little, breaks nothing and resumes nothing. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/rand.h>

/* ---- ClientHellos by hand ---- */

enum { MOST_BYTES = 70000, RECORD = 16384 };

struct bytes {
    unsigned char at[MOST_BYTES];
    size_t len;
};

static void put8(struct bytes *to, size_t value)
{
    CHECK(to->len < sizeof to->at);
    to->at[to->len++] = (unsigned char)value;
}

static void put16(struct bytes *to, size_t value)
{
    put8(to, value >> 8);
    put8(to, value & 0xff);
}

static void put(struct bytes *to, const void *from, size_t len)
{
    CHECK(to->len + len <= sizeof to->at);
    memcpy(to->at + to->len, from, len);
    to->len += len;
}

static void put_random(struct bytes *to, size_t len)
{
    CHECK(to->len + len <= sizeof to->at);
    random_bytes(to->at + to->len, len);
    to->len += len;
}

/* Leaves room for a length of two bytes; closed when what it counts is there. */
static size_t open16(struct bytes *to)
{
    put16(to, 0);
    return to->len;
}

static void close16(struct bytes *to, size_t start)
{
    to->at[start - 2] = (unsigned char)((to->len - start) >> 8);
    to->at[start - 1] = (unsigned char)((to->len - start) & 0xff);
}

/* An identity of a TLS 1.3 ClientHello: what the client says it got as a ticket. */
typedef void put_identity(struct bytes *to, int number);

/* A TLS 1.3 ClientHello with that many identities and this server_name extension (or none). */
static void client_hello(struct bytes *hello, int identities, put_identity *identity,
                         const unsigned char *name, size_t name_len)
{
    static const unsigned char BEFORE_PSK[] = {
        0, 43, 0, 3, 2, 3, 4,                 /* supported_versions: TLS 1.3 */
        0, 10, 0, 4, 0, 2, 0, 0x17,           /* supported_groups: P-256 */
        0, 13, 0, 4, 0, 2, 4, 3,              /* signature_algorithms: ECDSA with P-256 */
        0, 51, 0, 2, 0, 0,                    /* key_share: none yet */
        0, 45, 0, 2, 1, 1,                    /* psk_key_exchange_modes: with (EC)DHE */
    };
    hello->len = 0;
    put8(hello, 1);
    put8(hello, 0);
    size_t message = open16(hello);
    put16(hello, 0x0303);
    put_random(hello, 32);
    put8(hello, 32);
    put_random(hello, 32);
    put16(hello, 2);
    put16(hello, 0x1301);
    put8(hello, 1);
    put8(hello, 0);
    size_t extensions = open16(hello);
    if (name != NULL) {
        put16(hello, 0);
        put16(hello, name_len);
        put(hello, name, name_len);
    }
    put(hello, BEFORE_PSK, sizeof BEFORE_PSK);
    put16(hello, 41);
    size_t psk = open16(hello), list = open16(hello);
    for (int i = 0; i < identities; i++) {
        size_t one = open16(hello);
        identity(hello, i);
        close16(hello, one);
        put_random(hello, 4);
    }
    close16(hello, list);
    size_t binders = open16(hello);
    put8(hello, 32);
    put_random(hello, 32);
    close16(hello, binders);
    close16(hello, psk);
    close16(hello, extensions);
    close16(hello, message);
}

/* What the server makes of a first flight. */
static int error_after(SSL *server, const unsigned char *flight, size_t len)
{
    BIO_write(SSL_get_rbio(server), flight, (int)len);
    int result = SSL_do_handshake(server);
    int error = SSL_get_error(server, result);
    ERR_clear_error();
    return error;
}

static SSL *listening(SSL_CTX *ctx)
{
    SSL *server = SSL_new(ctx);
    CHECK(server != NULL);
    SSL_set_bio(server, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    /* Nothing more for now, rather than the end. */
    BIO_set_mem_eof_return(SSL_get_rbio(server), -1);
    SSL_set_accept_state(server);
    return server;
}

/* The message in records. */
static int answer_to(SSL *server, const struct bytes *message)
{
    static struct bytes flight;
    flight.len = 0;
    for (size_t done = 0; done < message->len; done += RECORD) {
        size_t part = message->len - done < RECORD ? message->len - done : RECORD;
        put8(&flight, 22);
        put16(&flight, 0x0301);
        put16(&flight, part);
        put(&flight, message->at + done, part);
    }
    return error_after(server, flight.at, flight.len);
}

static void random_32(struct bytes *to, int number)
{
    (void)number;
    put_random(to, 32);
}

static void random_48(struct bytes *to, int number)
{
    (void)number;
    put_random(to, 48);
}

static unsigned char some_key_name[16];

static void known_key_48(struct bytes *to, int number)
{
    (void)number;
    put(to, some_key_name, sizeof some_key_name);
    put_random(to, 32);
}

enum { MOST_IDS = 64 };
static unsigned char some_ids[MOST_IDS][32];

static void known_id(struct bytes *to, int number)
{
    put(to, some_ids[number % MOST_IDS], 32);
}

static struct bytes hello;

/* The server asks for a key share (it goes on to a full handshake) rather than end the connection. */
static void check_flood(SSL_CTX *ctx, int identities, put_identity *identity)
{
    SSL *server = listening(ctx);
    client_hello(&hello, identities, identity, NULL, 0);
    CHECK_EQUAL(answer_to(server, &hello), SSL_ERROR_WANT_READ);
    SSL_free(server);
}

static void ids_by_the_thousand_cost_four_lookups(void)
{
    TLSRESUME *tr = realm_of(&KIND[TLS13_STATEFUL], "");
    SSL_CTX *ctx = attached_server(tr);
    check_flood(ctx, 1700, random_32);
    TLSRESUME_STATS stats = stats_of(tr);
    CHECK_EQUAL(stats.sessions_missed_forged_id, 4);
    CHECK_EQUAL(stats.sessions_missed_over_limit, 1696);
    CHECK_EQUAL(stats.sessions_missed_absent, 0);
    SSL_CTX_free(ctx);
    tlsresume_free(tr);
}

static void ids_that_are_ours_and_gone_cost_four_lookups(void)
{
    TLSRESUME *tr = realm_of(&KIND[TLS13_STATEFUL], "tickets = 1\n");
    SSL_CTX *ctx = attached_server(tr);
    for (int i = 0; i < MOST_IDS; i++) {
        struct visitor visitor = visitor_new(&KIND[TLS13_STATEFUL], NULL);
        const unsigned char *ticket = NULL;
        size_t len = 0;
        CHECK(!visit(&visitor, ctx));
        SSL_SESSION_get0_ticket(visitor.session, &ticket, &len);
        CHECK_EQUAL(len, 32);
        memcpy(some_ids[i], ticket, 32);
        CHECK(tlsresume_session_remove(tr, ticket, len) == 1);
        visitor_free(&visitor);
    }
    check_flood(ctx, 1700, known_id);
    TLSRESUME_STATS stats = stats_of(tr);
    CHECK_EQUAL(stats.sessions_missed_absent, 4);
    CHECK_EQUAL(stats.sessions_missed_over_limit, 1696);
    SSL_CTX_free(ctx);
    tlsresume_free(tr);
}

static void tickets_by_the_thousand_cost_eight_decryptions(void)
{
    TLSRESUME *tr = realm_of(&KIND[TLS13_STATELESS], "");
    SSL_CTX *ctx = attached_server(tr);
    check_flood(ctx, 1000, random_48);
    TLSRESUME_STATS stats = stats_of(tr);
    CHECK_EQUAL(stats.tickets_rejected_unknown_key, 8);
    CHECK_EQUAL(stats.tickets_rejected_over_limit, 992);

    struct visitor visitor = visitor_new(&KIND[TLS13_STATELESS], NULL);
    const unsigned char *ticket = NULL;
    size_t len = 0;
    CHECK(!visit(&visitor, ctx));
    SSL_SESSION_get0_ticket(visitor.session, &ticket, &len);
    CHECK(len > sizeof some_key_name);
    memcpy(some_key_name, ticket, sizeof some_key_name);
    check_flood(ctx, 1000, known_key_48);
    stats = stats_of(tr);
    CHECK_EQUAL(stats.tickets_rejected_over_limit, 2 * 992);
    CHECK_EQUAL(stats.tickets_rejected_mac <= 8, 1);
    CHECK_EQUAL(stats.tickets_accepted_current, 0);
    visitor_free(&visitor);
    SSL_CTX_free(ctx);
    tlsresume_free(tr);
}

static void the_limit_is_one_for_both_hellos_of_a_retry(void)
{
    TLSRESUME *tr = realm_of(&KIND[TLS13_STATEFUL], "");
    SSL_CTX *ctx = attached_server(tr);
    SSL *server = listening(ctx);
    client_hello(&hello, 1000, random_32, NULL, 0);
    CHECK_EQUAL(answer_to(server, &hello), SSL_ERROR_WANT_READ);
    answer_to(server, &hello);
    TLSRESUME_STATS stats = stats_of(tr);
    CHECK_EQUAL(stats.sessions_missed_forged_id, 4);
    SSL_free(server);
    SSL_CTX_free(ctx);
    tlsresume_free(tr);
}

static void an_invented_tls12_id_is_counted_and_not_looked_up(void)
{
    TLSRESUME *tr = realm_of(&KIND[TLS12_ID], "");
    SSL_CTX *ctx = attached_server(tr);
    struct visitor visitor = visitor_new(&KIND[TLS12_ID], NULL);
    CHECK(!visit(&visitor, ctx));
    for (int len = 1; len <= 32; len++) {
        unsigned char id[32];
        random_bytes(id, sizeof id);
        CHECK(SSL_SESSION_set1_id(visitor.session, id, (unsigned)len) == 1);
        CHECK(!visit(&visitor, ctx));
    }
    TLSRESUME_STATS stats = stats_of(tr);
    CHECK_EQUAL(stats.sessions_missed_forged_id, 32);
    CHECK_EQUAL(stats.sessions_missed_absent, 0);
    visitor_free(&visitor);
    SSL_CTX_free(ctx);
    tlsresume_free(tr);
}

/* ---- Tickets that were changed on the way ---- */

/* Content of a DER element with a length of up to two bytes. */
static const unsigned char *der_content(const unsigned char *at, size_t *len)
{
    unsigned first = at[1];
    if (first < 0x80) {
        *len = first;
        return at + 2;
    }
    CHECK(first == 0x81 || first == 0x82);
    *len = first == 0x81 ? at[2] : (size_t)at[2] << 8 | at[3];
    return at + 2 + (first & 0x7f);
}

static void put_der(struct bytes *to, unsigned tag, const unsigned char *content, size_t len)
{
    put8(to, tag);
    if (len < 0x80) {
        put8(to, len);
    } else {
        put8(to, 0x82);
        put16(to, len);
    }
    put(to, content, len);
}

/* A session with another ticket: element [10] of the client's own encoding. */
static SSL_SESSION *with_ticket(SSL_SESSION *session, const unsigned char *ticket, size_t ticket_len)
{
    static struct bytes inner, element, outer;
    unsigned char *der = NULL;
    int len = i2d_SSL_SESSION(session, &der);
    CHECK(len > 0);
    size_t left = 0;
    inner.len = element.len = outer.len = 0;
    for (const unsigned char *at = der_content(der, &left), *end = at + left; at < end;) {
        size_t content_len = 0;
        const unsigned char *content = der_content(at, &content_len);
        if (*at == 0xaa) {
            put_der(&element, 0x04, ticket, ticket_len);
            put_der(&inner, 0xaa, element.at, element.len);
        } else {
            put_der(&inner, *at, content, content_len);
        }
        at = content + content_len;
    }
    OPENSSL_free(der);
    put_der(&outer, 0x30, inner.at, inner.len);
    const unsigned char *start = outer.at;
    SSL_SESSION *changed = d2i_SSL_SESSION(NULL, &start, (long)outer.len);
    CHECK(changed != NULL);
    return changed;
}

static void comes_with(struct visitor *visitor, SSL_SESSION *session, const unsigned char *ticket,
                       size_t len)
{
    SSL_SESSION_free(visitor->session);
    visitor->session = with_ticket(session, ticket, len);
}

static void a_changed_ticket_leads_to_a_full_handshake(void)
{
    for (int k = TLS12_TICKET; k < KINDS; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *ctx = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        unsigned char ticket[1024];
        const unsigned char *original = NULL;
        size_t len = 0;
        CHECK(!visit(&visitor, ctx));
        SSL_SESSION *session = session_copy(visitor.session);
        SSL_SESSION_get0_ticket(session, &original, &len);
        CHECK(len >= 32 && len < sizeof ticket);

        comes_with(&visitor, session, original, len);
        CHECK_SAYING(visit(&visitor, ctx), "%s, unchanged", KIND[k].name);
        size_t stride = (size_t)(len / (size_t)scaled((int)len));
        for (size_t at = 0; at < len; at += stride) {
            comes_with(&visitor, session, original, at);
            CHECK_SAYING(!visit(&visitor, ctx), "%s, cut to %zu bytes", KIND[k].name, at);
            memcpy(ticket, original, len);
            ticket[at] ^= (unsigned char)(1 << (random_number() & 7));
            comes_with(&visitor, session, ticket, len);
            CHECK_SAYING(!visit(&visitor, ctx), "%s, byte %zu changed", KIND[k].name, at);
        }
        memcpy(ticket, original, len);
        random_bytes(ticket + len, 200);
        for (size_t more = 1; more < 200; more += 7 * stride) {
            comes_with(&visitor, session, ticket, len + more);
            CHECK_SAYING(!visit(&visitor, ctx), "%s, %zu bytes more", KIND[k].name, more);
        }
        comes_with(&visitor, session, original, len);
        CHECK_SAYING(visit(&visitor, ctx), "%s, unchanged again", KIND[k].name);
        SSL_SESSION_free(session);
        visitor_free(&visitor);
        SSL_CTX_free(ctx);
        tlsresume_free(tr);
    }
}

/* ---- Sessions of extreme size ---- */

static int trust(int verified, X509_STORE_CTX *store)
{
    (void)verified;
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
}

static void a_session_of_64_kib_is_not_stored_and_its_handshake_succeeds(void)
{
    static const struct {
        size_t extension;
        bool resumes;
    } SIZES[] = {{100, true}, {16000, true}, {60000, true}, {64900, false}, {66000, false}, {90000, false}};
    EVP_PKEY *key = new_key();
    for (int k = 0; k < KINDS; k++)
        for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
            /* OpenSSL itself gives up on a ticket that long. */
            if (k != TLS12_ID && k != TLS13_STATEFUL && SIZES[i].extension > 60000)
                continue;
            TLSRESUME *tr = realm_of(&KIND[k], "");
            SSL_CTX *ctx = server_new();
            SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, trust);
            CHECK(tlsresume_attach(tr, ctx) == 1);
            X509 *certificate = new_certificate("client", key, NULL, NULL, SIZES[i].extension);
            struct visitor visitor = visitor_new(&KIND[k], NULL);
            visitor_shows(&visitor, certificate, key);
            CHECK(!visit(&visitor, ctx));
            CHECK_SAYING(visit(&visitor, ctx) == SIZES[i].resumes, "%s, %zu bytes", KIND[k].name,
                         SIZES[i].extension);
            CHECK_EQUAL(stats_of(tr).sessions_dropped > 0, !SIZES[i].resumes);
            visitor_free(&visitor);
            X509_free(certificate);
            SSL_CTX_free(ctx);
            tlsresume_free(tr);
        }
    EVP_PKEY_free(key);
}

/* ---- Nonsense ---- */

static void nonsense_for_a_server_name_breaks_nothing(void)
{
    static put_identity *const IDENTITIES[] = {random_32, random_48};
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *ctx = attached_server(tr);
        for (int round = 0; round < scaled(1000); round++) {
            unsigned char name[600];
            size_t len = random_number() % (round % 5 == 0 ? sizeof name : 24);
            random_bytes(name, len);
            /* Half of them with a beginning that is almost right. */
            if (round % 2 == 0 && len > 5) {
                size_t less = random_number() % 3;
                memset(name, 0, 5);
                name[1] = (unsigned char)(len - 2 - (less == 1));
                name[4] = (unsigned char)(len - 5 + (less == 2));
            }
            SSL *server = listening(ctx);
            client_hello(&hello, 3, IDENTITIES[k - TLS13_STATELESS], name, len);
            answer_to(server, &hello);
            SSL_free(server);
        }
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, ctx));
        CHECK(visit(&visitor, ctx));
        visitor_free(&visitor);
        SSL_CTX_free(ctx);
        tlsresume_free(tr);
    }
}

/* The first flight of a client that comes back. */
static size_t first_flight(struct visitor *visitor, unsigned char *flight, size_t room)
{
    SSL *client = SSL_new(visitor->ctx);
    CHECK(client != NULL);
    SSL_set_bio(client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(client), -1);
    SSL_set_connect_state(client);
    CHECK(SSL_set_tlsext_host_name(client, visitor->name) == 1);
    CHECK(SSL_set_session(client, visitor->session) == 1);
    CHECK(SSL_do_handshake(client) == -1);
    int len = BIO_read(SSL_get_wbio(client), flight, (int)room);
    CHECK(len > 0 && (size_t)len < room);
    SSL_set_shutdown(client, SSL_SENT_SHUTDOWN);
    SSL_free(client);
    return (size_t)len;
}

static void garbage_for_a_client_hello_breaks_nothing(void)
{
    for (int k = 0; k < KINDS; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "");
        SSL_CTX *ctx = attached_server(tr);
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        unsigned char flight[2048], changed[2048];
        CHECK(!visit(&visitor, ctx));
        SSL_SESSION *session = session_copy(visitor.session);
        size_t len = first_flight(&visitor, flight, sizeof flight);
        for (int round = 0; round < scaled(500); round++) {
            memcpy(changed, flight, len);
            for (unsigned i = 0; i <= round % 8u; i++)
                changed[random_number() % len] = (unsigned char)random_number();
            if (round % 10 == 0)
                random_bytes(changed + 5, len - 5);
            SSL *server = listening(ctx);
            error_after(server, changed, round % 7 == 0 ? random_number() % len : len);
            SSL_free(server);
        }
        visitor_takes(&visitor, session);
        CHECK_SAYING(visit(&visitor, ctx), "%s", KIND[k].name);
        SSL_SESSION_free(session);
        visitor_free(&visitor);
        SSL_CTX_free(ctx);
        tlsresume_free(tr);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM(ids_by_the_thousand_cost_four_lookups);
    CLAIM(ids_that_are_ours_and_gone_cost_four_lookups);
    CLAIM(tickets_by_the_thousand_cost_eight_decryptions);
    CLAIM(the_limit_is_one_for_both_hellos_of_a_retry);
    CLAIM(an_invented_tls12_id_is_counted_and_not_looked_up);
    CLAIM(a_changed_ticket_leads_to_a_full_handshake);
    CLAIM(a_session_of_64_kib_is_not_stored_and_its_handshake_succeeds);
    CLAIM(nonsense_for_a_server_name_breaks_nothing);
    CLAIM(garbage_for_a_client_hello_breaks_nothing);
    return check_end();
}
