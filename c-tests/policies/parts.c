/* What decides who gets in, part by part: the lax policy and the strict one differ in nothing else. */
#include "policies.h"

#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

/* A policy that is one call on its context. */
#define APPLIES(name, call)                                                                        \
    static void name(SSL_CTX *server)                                                              \
    {                                                                                              \
        call;                                                                                      \
    }

static void set_verify(SSL_CTX *server, int mode)
{
    SSL_CTX_set_verify(server, mode, NULL);
}

static X509_STORE *store_of(SSL_CTX *server)
{
    return SSL_CTX_get_cert_store(server);
}

static void trusts(SSL_CTX *server, enum who whom)
{
    CHECK(X509_STORE_add_cert(store_of(server), authority(whom)) == 1);
}

static void asks(SSL_CTX *server, int mode)
{
    set_verify(server, mode);
    trusts(server, MEMBER);
    CHECK(SSL_CTX_add_client_CA(server, authority(MEMBER)) == 1);
}

enum { REQUIRED = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT };

APPLIES(is_public, set_verify(server, SSL_VERIFY_NONE))

static void is_public_ssl(SSL *ssl)
{
    SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
}

APPLIES(optional, asks(server, SSL_VERIFY_PEER))
APPLIES(required, asks(server, REQUIRED))

static void required_ssl(SSL *ssl)
{
    SSL_set_verify(ssl, REQUIRED, NULL);
}

/* ---- Verification, part by part ---- */

static void chains(SSL_CTX *server, int depth)
{
    required(server);
    SSL_CTX_set_verify_depth(server, depth);
}

APPLIES(deep_chains, chains(server, 4))
APPLIES(flat_chains, chains(server, 1))

static void names_two_authorities(SSL_CTX *server)
{
    required(server);
    CHECK(SSL_CTX_add_client_CA(server, authority(FOREIGNER)) == 1);
}

/* Both stores are asked with the same names, so that the store alone differs. */
static void trusts_both(SSL_CTX *server)
{
    required(server);
    trusts(server, FOREIGNER);
}

static void trusts_them_alone(SSL_CTX *server)
{
    set_verify(server, REQUIRED);
    trusts(server, FOREIGNER);
    CHECK(SSL_CTX_add_client_CA(server, authority(MEMBER)) == 1);
}

/* The same anchors for other purposes. */
static void trusts_one_for_no_clients(SSL_CTX *server)
{
    X509 *anchor = X509_dup(authority(MEMBER));
    CHECK(anchor != NULL && X509_add1_reject_object(anchor, OBJ_nid2obj(NID_client_auth)) == 1);
    set_verify(server, REQUIRED);
    CHECK(X509_STORE_add_cert(store_of(server), anchor) == 1);
    CHECK(SSL_CTX_add_client_CA(server, anchor) == 1);
    trusts(server, FOREIGNER);
    X509_free(anchor);
}

static void has_list(SSL_CTX *server, enum who revoked)
{
    required(server);
    CHECK(X509_STORE_add_crl(store_of(server), list_of_revoked(revoked)) == 1);
}

static void checks_revocation(SSL_CTX *server, enum who revoked)
{
    has_list(server, revoked);
    CHECK(X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(server), X509_V_FLAG_CRL_CHECK) == 1);
}

APPLIES(nobody_is_revoked, checks_revocation(server, NOBODY))
APPLIES(a_member_is_revoked, checks_revocation(server, MEMBER))

static void partial_chains(SSL_CTX *server)
{
    required(server);
    CHECK(X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(server), X509_V_FLAG_PARTIAL_CHAIN) == 1);
}

static void any_purpose(SSL_CTX *server)
{
    required(server);
    CHECK(SSL_CTX_set_purpose(server, X509_PURPOSE_ANY) == 1);
}

static void expects_host(SSL_CTX *server, const char *host)
{
    required(server);
    CHECK(X509_VERIFY_PARAM_set1_host(SSL_CTX_get0_param(server), host, 0) == 1);
}

APPLIES(one_host, expects_host(server, "client.example"))
APPLIES(other_host, expects_host(server, "other.example"))

static void one_address(SSL_CTX *server)
{
    required(server);
    CHECK(X509_VERIFY_PARAM_set1_ip_asc(SSL_CTX_get0_param(server), "192.0.2.1") == 1);
}

static void one_mailbox(SSL_CTX *server)
{
    X509_VERIFY_PARAM *param = SSL_CTX_get0_param(server);
    required(server);
    CHECK(X509_VERIFY_PARAM_set1_email(param, "client@client.example", 0) == 1);
}

static void auth_level(SSL_CTX *server, int level)
{
    required(server);
    X509_VERIFY_PARAM_set_auth_level(SSL_CTX_get0_param(server), level);
}

APPLIES(auth_level_0, auth_level(server, 0))
APPLIES(auth_level_3, auth_level(server, 3))

static void security_level(SSL_CTX *server, int level)
{
    required(server);
    SSL_CTX_set_security_level(server, level);
}

APPLIES(security_level_1, security_level(server, 1))
APPLIES(security_level_2, security_level(server, 2))

/* In TLS 1.2 Suite B has the cipher say which curve a client's certificate must be of. */
static void one_cipher(SSL_CTX *server)
{
    required(server);
    CHECK(SSL_CTX_set_cipher_list(server, "ECDHE-ECDSA-AES128-GCM-SHA256") == 1);
}

static void suite_b(SSL_CTX *server)
{
    one_cipher(server);
    SSL_CTX_set_cert_flags(server, SSL_CERT_FLAG_SUITEB_128_LOS);
}

/* ---- What lies on the store ---- */

APPLIES(knows_who_is_revoked, has_list(server, MEMBER))

static void store_checks_revocation(SSL_CTX *server)
{
    knows_who_is_revoked(server);
    CHECK(X509_STORE_set_flags(store_of(server), X509_V_FLAG_CRL_CHECK) == 1);
}

static int finds_nobody_revoked(X509_STORE_CTX *store)
{
    (void)store;
    return 1;
}

static void store_overlooks_revocation(SSL_CTX *server)
{
    store_checks_revocation(server);
    X509_STORE_set_check_revocation(store_of(server), finds_nobody_revoked);
}

static void store_of_one_host(SSL_CTX *server)
{
    required(server);
    X509_VERIFY_PARAM *param = X509_STORE_get0_param(store_of(server));
    CHECK(X509_VERIFY_PARAM_set1_host(param, "client.example", 0) == 1);
}

APPLIES(trusts_foreigners, trusts(server, FOREIGNER))

static X509_STORE *new_store(enum who trusted)
{
    X509_STORE *store = X509_STORE_new();
    CHECK(store != NULL && X509_STORE_add_cert(store, authority(trusted)) == 1);
    return store;
}

/* The context's own store is the same for both. */
static void verifies_by_store(SSL_CTX *server, enum who trusted)
{
    required(server);
    CHECK(SSL_CTX_set0_verify_cert_store(server, new_store(trusted)) == 1);
}

APPLIES(verify_store_of_foreigners, verifies_by_store(server, FOREIGNER))
APPLIES(verify_store_of_members, verifies_by_store(server, MEMBER))

/* One store for each connection, which is gone with it: the next one often lies at the same address. */
static void verifies_by_store_ssl(SSL *ssl, enum who trusted)
{
    required_ssl(ssl);
    CHECK(SSL_set0_verify_cert_store(ssl, new_store(trusted)) == 1);
}

static void verify_store_of_foreigners_ssl(SSL *ssl)
{
    verifies_by_store_ssl(ssl, FOREIGNER);
}

static void verify_store_of_members_ssl(SSL *ssl)
{
    verifies_by_store_ssl(ssl, MEMBER);
}

/* ---- Callbacks ---- */

static int lets_all_in(int ok, X509_STORE_CTX *store)
{
    (void)ok, (void)store;
    return 1;
}

static int looks(int ok, X509_STORE_CTX *store)
{
    return ok && X509_STORE_CTX_get_error(store) == X509_V_OK;
}

static void verify_callback_lets_all_in(SSL_CTX *server)
{
    required(server);
    SSL_CTX_set_verify(server, REQUIRED, lets_all_in);
}

static void verify_callback_looks(SSL_CTX *server)
{
    required(server);
    SSL_CTX_set_verify(server, REQUIRED, looks);
}

static int verifies_nothing(X509_STORE_CTX *store, void *arg)
{
    (void)store, (void)arg;
    return 1;
}

static char everybody, members;

static int verifies_as_told(X509_STORE_CTX *store, void *arg)
{
    return arg == &everybody || X509_verify_cert(store) == 1;
}

static void cert_callback_verifies_nothing(SSL_CTX *server)
{
    required(server);
    SSL_CTX_set_cert_verify_callback(server, verifies_nothing, NULL);
}

static void cert_callback_for_everybody(SSL_CTX *server)
{
    required(server);
    SSL_CTX_set_cert_verify_callback(server, verifies_as_told, &everybody);
}

static void cert_callback_for_members(SSL_CTX *server)
{
    required(server);
    SSL_CTX_set_cert_verify_callback(server, verifies_as_told, &members);
}

static int finds_all_secure(const SSL *ssl, const SSL_CTX *ctx, int what, int bits, int id,
                            void *other, void *data)
{
    (void)ssl, (void)ctx, (void)what, (void)bits, (void)id, (void)other, (void)data;
    return 1;
}

static void all_is_secure(SSL_CTX *server)
{
    required(server);
    SSL_CTX_set_security_callback(server, finds_all_secure);
}

static void all_is_secure_for_everybody(SSL_CTX *server)
{
    all_is_secure(server);
    SSL_CTX_set0_security_ex_data(server, &everybody);
}

static void all_is_secure_for_members(SSL_CTX *server)
{
    all_is_secure(server);
    SSL_CTX_set0_security_ex_data(server, &members);
}

/* ---- Clients that are known without a certificate ---- */

static void psk_only(SSL_CTX *server)
{
    SSL_CTX_set_psk_server_callback(server, knows_psk);
    CHECK(SSL_CTX_set_cipher_list(server, "PSK") == 1);
}

static void psk_ssl(SSL *ssl)
{
    SSL_set_psk_server_callback(ssl, knows_psk);
}

static void psk_by_session(SSL_CTX *server)
{
    SSL_CTX_set_psk_find_session_callback(server, finds_psk);
}

static void psk_by_session_ssl(SSL *ssl)
{
    SSL_set_psk_find_session_callback(ssl, finds_psk);
}

static void psk_too(SSL_CTX *server)
{
    SSL_CTX_set_psk_server_callback(server, knows_psk);
    CHECK(SSL_CTX_set_cipher_list(server, "ALL:PSK") == 1);
}

static void srp_only(SSL_CTX *server)
{
    if (knows_passwords(server))
        CHECK(SSL_CTX_set_cipher_list(server, "SRP-AES-128-CBC-SHA") == 1);
}

static void anonymous(SSL_CTX *server)
{
    CHECK(SSL_CTX_set_cipher_list(server, "aNULL:@SECLEVEL=0") == 1);
}

#define KNOWS(text, of_ctx, of_ssl, who)                                                           \
    .name = text, .apply_ctx = of_ctx, .apply_ssl = of_ssl, .client = who
#define PUBLIC {KNOWS("public", is_public, is_public_ssl, NOBODY)}
#define STRICT {KNOWS("certificate required", required, required_ssl, MEMBER)}

const struct part PARTS[] = {
    {"verify mode", PUBLIC, STRICT},
    {"verify mode, optional", {KNOWS("certificate asked for", optional, NULL, NOBODY)}, STRICT},
    {"depth", {KNOWS("depth 4", deep_chains, NULL, MEMBER)}, {KNOWS("depth 1", flat_chains, NULL, MEMBER)}},
    {"client CA names", {KNOWS("two names", names_two_authorities, NULL, MEMBER)}, STRICT},
    {"trust store", {KNOWS("two authorities", trusts_both, NULL, MEMBER)},
     {KNOWS("their authority", trusts_them_alone, NULL, FOREIGNER)}},
    {"trust settings of an anchor", {KNOWS("two authorities", trusts_both, NULL, MEMBER)},
     {KNOWS("one not for clients", trusts_one_for_no_clients, NULL, FOREIGNER)}},
    {"CRL check", STRICT, {KNOWS("revoked member", a_member_is_revoked, NULL, SECOND_MEMBER)}},
    {"CRL", {KNOWS("nobody revoked", nobody_is_revoked, NULL, MEMBER)},
     {KNOWS("revoked member", a_member_is_revoked, NULL, SECOND_MEMBER)}},
    {"verify flags", {KNOWS("partial chains", partial_chains, NULL, MEMBER)}, STRICT},
    {"purpose", {KNOWS("any purpose", any_purpose, NULL, MEMBER)}, STRICT},
    {"host", STRICT, {KNOWS("one host", one_host, NULL, MEMBER)}},
    {"other host", {KNOWS("other host", other_host, NULL, MEMBER)}, {KNOWS("one host", one_host, NULL, MEMBER)}},
    {"e-mail", STRICT, {KNOWS("one mailbox", one_mailbox, NULL, MEMBER)}},
    {"IP", STRICT, {KNOWS("one address", one_address, NULL, MEMBER)}},
    {"auth level", {KNOWS("auth level 0", auth_level_0, NULL, MEMBER)},
     {KNOWS("auth level 3", auth_level_3, NULL, MEMBER)}},
    {"security level", {KNOWS("security level 1", security_level_1, NULL, MEMBER)},
     {KNOWS("security level 2", security_level_2, NULL, MEMBER)}},
    {"Suite B", {KNOWS("one cipher", one_cipher, NULL, MEMBER)}, {KNOWS("Suite B", suite_b, NULL, MEMBER)}},
    {"verify callback",
     {KNOWS("verify callback lets in", verify_callback_lets_all_in, NULL, MEMBER)}, STRICT},
    {"other verify callback",
     {KNOWS("verify callback lets in", verify_callback_lets_all_in, NULL, MEMBER)},
     {KNOWS("verify callback looks", verify_callback_looks, NULL, MEMBER)}},
    {"verify_result",
     {KNOWS("self-made certificates", verify_callback_lets_all_in, NULL, SELF_MADE), .never = true}, STRICT},
    {"cert-verify callback",
     {KNOWS("cert-verify callback", cert_callback_verifies_nothing, NULL, SELF_MADE), .is_private = true},
     STRICT},
    {"cert-verify argument",
     {KNOWS("cert-verify for all", cert_callback_for_everybody, NULL, SELF_MADE), .is_private = true},
     {KNOWS("cert-verify for members", cert_callback_for_members, NULL, MEMBER), .is_private = true}},
    {"store flags", {KNOWS("lists unused", knows_who_is_revoked, NULL, MEMBER)},
     {KNOWS("lists used", store_checks_revocation, NULL, SECOND_MEMBER)}},
    {"store callback", {KNOWS("revocation overlooked", store_overlooks_revocation, NULL, MEMBER)},
     {KNOWS("lists used", store_checks_revocation, NULL, SECOND_MEMBER)}},
    {"store host", STRICT, {KNOWS("store of one host", store_of_one_host, NULL, MEMBER)}},
    {"CA loaded after attaching",
     {KNOWS("foreigners after attaching", required, NULL, FOREIGNER), .apply_attached = trusts_foreigners},
     STRICT},
    {"CA added to a live store",
     {KNOWS("foreigners later", required, NULL, FOREIGNER), .apply_live = trusts_foreigners}, STRICT},
    {"verify store",
     {KNOWS("foreigners' store", verify_store_of_foreigners, verify_store_of_foreigners_ssl, FOREIGNER),
      .by_connection = true},
     {KNOWS("members' store", verify_store_of_members, verify_store_of_members_ssl, MEMBER),
      .by_connection = true}},
    {"security callback", {KNOWS("all is secure", all_is_secure, NULL, MEMBER)}, STRICT},
    {"security data",
     {KNOWS("secure for all", all_is_secure_for_everybody, NULL, MEMBER), .is_private = true},
     {KNOWS("secure for members", all_is_secure_for_members, NULL, MEMBER), .is_private = true}},
    {"PSK only", PUBLIC,
     {KNOWS("PSK only", psk_only, psk_ssl, HAS_PSK), .bare = true, .never = true}},
    {"PSK only, by session", PUBLIC,
     {KNOWS("PSK by session", psk_by_session, psk_by_session_ssl, HAS_PSK), .bare = true,
      .only = TLS1_3_VERSION, .never = true}},
    {"PSK ciphers", {KNOWS("PSK too", psk_too, psk_ssl, HAS_PSK), .never = true}, PUBLIC},
    {"PSK ciphers, client without", {KNOWS("PSK too", psk_too, psk_ssl, NOBODY)}, PUBLIC},
#ifndef OPENSSL_NO_SRP
    {"SRP", PUBLIC,
     {KNOWS("SRP only", srp_only, NULL, HAS_PASSWORD), .bare = true, .only = TLS1_2_VERSION,
      .never = true}},
#endif
    {"anonymous ciphers",
     {KNOWS("anonymous", anonymous, NULL, ANONYMOUS), .bare = true, .only = TLS1_2_VERSION, .never = true},
     PUBLIC},
};
const int ALL_PARTS = sizeof PARTS / sizeof *PARTS;

const struct policy *const OPEN_TO_ALL = &PARTS[0].lax;
const struct policy *const MEMBERS_ONLY = &PARTS[0].strict;

const struct policy *policy_of(int number)
{
    const struct part *part = &PARTS[number / 2];
    return number % 2 ? &part->strict : &part->lax;
}
