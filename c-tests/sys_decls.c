/* What src/tls/sys.rs declares by hand, held against OpenSSL's own headers by the compiler.
 *
 * Each function is assigned to a pointer of the type that sys.rs gives it, so that a difference is an
 * error; const of pointers aside, which C converts and Rust does not see. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "check.h"

#include <openssl/async.h>
#include <openssl/err.h>
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
#include <openssl/core_names.h>
#include <openssl/params.h>
#endif

/* C99 has no _Static_assert: an array of length -1 is an error too. */
#define SAME(name, value) typedef char same_##name[(name) == (value) ? 1 : -1]

SAME(SSL_OP_NO_TICKET, UINT64_C(1) << 14);
SAME(SSL_OP_NO_ANTI_REPLAY, UINT64_C(1) << 24);
SAME(SSL_CTRL_SET_SESS_CACHE_MODE, 44);
SAME(SSL_CTRL_GET_SESS_CACHE_MODE, 45);
SAME(SSL_CTRL_GET_VERIFY_CERT_STORE, 137);
SAME(SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB, 72);
SAME(SSL_SESS_CACHE_CLIENT, 1);
SAME(SSL_SESS_CACHE_SERVER, 2);
SAME(SSL_SESS_CACHE_NO_AUTO_CLEAR, 0x80);
SAME(SSL_SESS_CACHE_NO_INTERNAL_LOOKUP, 0x100);
SAME(SSL_SESS_CACHE_NO_INTERNAL, 0x300);
SAME(SSL_CTRL_MODE, 33);
SAME(SSL_MODE_ASYNC, 0x100);
SAME(CRYPTO_EX_INDEX_SSL, 0);
SAME(CRYPTO_EX_INDEX_SSL_CTX, 1);
SAME(CRYPTO_EX_INDEX_SSL_SESSION, 2);
SAME(CRYPTO_EX_INDEX_BIO, 12);
SAME(ERR_LIB_SSL, 20);
SAME(SSL_CB_ACCEPT_LOOP, 0x2001);
SAME(SSL_CB_HANDSHAKE_START, 0x10);
SAME(SSL_CB_HANDSHAKE_DONE, 0x20);
SAME(TLS_ST_BEFORE, 0);
SAME(BIO_CTRL_FLUSH, 11);
SAME(BIO_CB_READ, 2);
SAME(BIO_CB_WRITE, 3);
SAME(BIO_CB_GETS, 5);
SAME(BIO_CB_CTRL, 6);
SAME(BIO_CB_RETURN, 0x80);
SAME(SSL_VERIFY_PEER, 1);
SAME(SSL_VERIFY_FAIL_IF_NO_PEER_CERT, 2);
SAME(SSL_VERIFY_POST_HANDSHAKE, 8);
SAME(SSL_SENT_SHUTDOWN, 1);
SAME(SSL_RECEIVED_SHUTDOWN, 2);
SAME(SSL_CTRL_CERT_FLAGS, 99);
#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
SAME(SSL_R_UNEXPECTED_EOF_WHILE_READING, 294);
#endif
SAME(X509_V_OK, 0);
SAME(TLS1_3_VERSION, 0x0304);
SAME(SSL_CTRL_SET_TLS_EXT_SRP_USERNAME_CB, 75);
SAME(SSL_CTRL_GET_MAX_PROTO_VERSION, 131);
SAME(NID_kx_psk, 1043);
SAME(NID_kx_ecdhe_psk, 1040);
SAME(NID_kx_dhe_psk, 1041);
SAME(NID_kx_rsa_psk, 1042);
SAME(NID_kx_srp, 1044);
SAME(NID_kx_any, 1063);
SAME(NID_auth_null, 1053);
/* sys.rs writes these in capitals: NID_KX_PSK NID_KX_ECDHE_PSK NID_KX_DHE_PSK NID_KX_RSA_PSK NID_KX_SRP NID_KX_ANY
 * NID_AUTH_NULL. */
/* Of the other files in src/tls. */
SAME(TLS1_2_VERSION, 0x0303);
SAME(TLSEXT_TYPE_server_name, 0);
SAME(TLSEXT_NAMETYPE_host_name, 0);
SAME(SSL_MAX_SSL_SESSION_ID_LENGTH, 32);
SAME(EVP_MAX_IV_LENGTH, 16);
SAME(TLSEXT_MAXLEN_host_name, 255);

typedef ASYNC_JOB AsyncJob;
typedef ASYNC_WAIT_CTX AsyncWaitCtx;
typedef void AsyncCleanup(AsyncWaitCtx *, const void *, int, void *);
typedef int NewSessionCallback(SSL *, SSL_SESSION *);
typedef SSL_SESSION *GetSessionCallback(SSL *, const unsigned char *, int, int *);
typedef void RemoveSessionCallback(SSL_CTX *, SSL_SESSION *);
typedef int GenerateIdCallback(SSL *, unsigned char *, unsigned int *);
typedef int AllowEarlyDataCallback(SSL *, void *);
typedef void InfoCallback(const SSL *, int, int);
typedef int SecurityCallback(const SSL *, const SSL_CTX *, int, int, int, void *, void *);
typedef int CertVerifyCallback(X509_STORE_CTX *, void *);
typedef unsigned int PskServerCallback(SSL *, const char *, unsigned char *, unsigned int);
typedef int PskFindSessionCallback(SSL *, const unsigned char *, size_t, SSL_SESSION **);
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
typedef EVP_MAC_CTX MacCtx;
typedef uint64_t Options;
typedef const X509_STORE ReadStore;
typedef const X509 AuxX509;
typedef const BIO AuxBio;
#else
typedef HMAC_CTX MacCtx;
typedef unsigned long Options;
typedef X509_STORE ReadStore;
typedef X509 AuxX509;
typedef BIO AuxBio;
#endif
typedef int TicketKeyCallback(SSL *, unsigned char *, unsigned char *, EVP_CIPHER_CTX *, MacCtx *,
                              int);

static const struct {
    AsyncJob *(*async_get_current_job)(void);
    AsyncWaitCtx *(*async_get_wait_ctx)(AsyncJob *);
    int (*async_pause_job)(void);
    int (*async_set_wait_fd)(AsyncWaitCtx *, const void *, int, void *, AsyncCleanup *);
    int (*async_get_fd)(AsyncWaitCtx *, const void *, int *, void **);
    int (*err_set_mark)(void);
    int (*err_pop_to_mark)(void);
    Options (*ssl_get_options)(const SSL *);
    Options (*ssl_set_options)(SSL *, Options);
    Options (*ssl_clear_options)(SSL *, Options);
    Options (*ctx_get_options)(const SSL_CTX *);
    Options (*ctx_set_options)(SSL_CTX *, Options);
    Options (*ctx_clear_options)(SSL_CTX *, Options);
    void (*ssl_set_info_callback)(SSL *, InfoCallback *);
    InfoCallback *(*ssl_get_info_callback)(const SSL *);
    InfoCallback *(*ctx_get_info_callback)(SSL_CTX *);
    int (*ssl_get_rfd)(const SSL *);
    OSSL_HANDSHAKE_STATE (*ssl_get_state)(const SSL *);
    int (*ssl_up_ref)(SSL *);
    int (*ssl_in_init)(const SSL *);
    int (*ssl_is_init_finished)(const SSL *);
    BIO_callback_fn_ex (*bio_get_callback_ex)(const BIO *);
    BIO_callback_fn (*bio_get_callback)(const BIO *);
    void (*bio_set_callback_ex)(BIO *, BIO_callback_fn_ex);
    void *(*bio_get_ex_data)(AuxBio *, int);
    int (*bio_set_ex_data)(BIO *, int, void *);
    int (*i2d_x509_aux)(AuxX509 *, unsigned char **);
    STACK_OF(SSL_CIPHER) *(*ssl_get_ciphers)(const SSL *);
    STACK_OF(SSL_CIPHER) *(*ctx_get_ciphers)(const SSL_CTX *);
    int (*cipher_get_kx_nid)(const SSL_CIPHER *);
    int (*cipher_get_auth_nid)(const SSL_CIPHER *);
    SSL_verify_cb (*ssl_get_verify_callback)(const SSL *);
    SSL_verify_cb (*ctx_get_verify_callback)(const SSL_CTX *);
    STACK_OF(X509_NAME) *(*ssl_get_client_ca_list)(const SSL *);
    void (*ctx_set_cert_verify_callback)(SSL_CTX *, CertVerifyCallback *, void *);
    void (*ctx_set_psk_server_callback)(SSL_CTX *, PskServerCallback *);
    void (*ctx_set_psk_find_session_callback)(SSL_CTX *, PskFindSessionCallback *);
    unsigned int (*param_get_hostflags)(const X509_VERIFY_PARAM *);
    int (*param_get_depth)(const X509_VERIFY_PARAM *);
    int (*param_get_auth_level)(const X509_VERIFY_PARAM *);
    time_t (*param_get_time)(const X509_VERIFY_PARAM *);
    uint32_t (*param_get_inh_flags)(const X509_VERIFY_PARAM *);
    SecurityCallback *(*get_security_callback)(const SSL *);
    SecurityCallback *(*ctx_get_security_callback)(const SSL_CTX *);
    void *(*get0_security_ex_data)(const SSL *);
    void *(*ctx_get0_security_ex_data)(const SSL_CTX *);
    int (*store_up_ref)(X509_STORE *);
    X509_VERIFY_PARAM *(*store_get0_param)(ReadStore *);
    X509_STORE_CTX_verify_fn (*store_get_verify)(ReadStore *);
    X509_STORE_CTX_verify_cb (*store_get_verify_cb)(ReadStore *);
    X509_STORE_CTX_get_issuer_fn (*store_get_get_issuer)(ReadStore *);
    X509_STORE_CTX_check_issued_fn (*store_get_check_issued)(ReadStore *);
    X509_STORE_CTX_check_revocation_fn (*store_get_check_revocation)(ReadStore *);
    X509_STORE_CTX_get_crl_fn (*store_get_get_crl)(ReadStore *);
    X509_STORE_CTX_check_crl_fn (*store_get_check_crl)(ReadStore *);
    X509_STORE_CTX_cert_crl_fn (*store_get_cert_crl)(ReadStore *);
    X509_STORE_CTX_check_policy_fn (*store_get_check_policy)(ReadStore *);
    X509_STORE_CTX_lookup_certs_fn (*store_get_lookup_certs)(ReadStore *);
    X509_STORE_CTX_lookup_crls_fn (*store_get_lookup_crls)(ReadStore *);
    X509_STORE_CTX_cleanup_fn (*store_get_cleanup)(ReadStore *);
    const unsigned char *(*session_get0_id_context)(const SSL_SESSION *, unsigned int *);
    SSL_SESSION *(*session_new)(void);
    long (*session_set_timeout)(SSL_SESSION *, long);
    long (*session_set_time)(SSL_SESSION *, long);
    int (*session_set1_id)(SSL_SESSION *, const unsigned char *, unsigned int);
    int (*session_set1_master_key)(SSL_SESSION *, const unsigned char *, size_t);
    X509 *(*session_get0_peer)(SSL_SESSION *);
    void *(*session_get_ex_data)(const SSL_SESSION *, int);
    int (*session_set_ex_data)(SSL_SESSION *, int, void *);
    long (*ctx_get_timeout)(const SSL_CTX *);
    long (*ctx_set_timeout)(SSL_CTX *, long);
    STACK_OF(X509_NAME) *(*ctx_get_client_ca_list)(const SSL_CTX *);
    int (*ctx_set_generate_session_id)(SSL_CTX *, GenerateIdCallback *);
    int (*ctx_set_session_id_context)(SSL_CTX *, const unsigned char *, unsigned int);
    void (*ctx_set_allow_early_data_cb)(SSL_CTX *, AllowEarlyDataCallback *, void *);
    void (*set_allow_early_data_cb)(SSL *, AllowEarlyDataCallback *, void *);
    int (*set_session_id_context)(SSL *, const unsigned char *, unsigned int);
    SSL_CTX *(*ctx_new)(const SSL_METHOD *);
    SSL *(*new)(SSL_CTX *);
    SSL_CTX *(*set_ssl_ctx)(SSL *, SSL_CTX *);
    void (*set_connect_state)(SSL *);
    int (*connect)(SSL *);
    long (*ctx_ctrl)(SSL_CTX *, int, long, void *);
    long (*ctx_callback_ctrl)(SSL_CTX *, int, void (*)(void));
    int (*ctx_set_num_tickets)(SSL_CTX *, size_t);
    size_t (*ctx_get_num_tickets)(const SSL_CTX *);
    void (*ctx_sess_set_new_cb)(SSL_CTX *, NewSessionCallback *);
    void (*ctx_sess_set_get_cb)(SSL_CTX *, GetSessionCallback *);
    void (*ctx_sess_set_remove_cb)(SSL_CTX *, RemoveSessionCallback *);
    NewSessionCallback *(*ctx_sess_get_new_cb)(SSL_CTX *);
    GetSessionCallback *(*ctx_sess_get_get_cb)(SSL_CTX *);
    RemoveSessionCallback *(*ctx_sess_get_remove_cb)(SSL_CTX *);
    int (*store_lock)(X509_STORE *);
    int (*store_unlock)(X509_STORE *);
    int (*crypto_get_ex_new_index)(int, long, void *, CRYPTO_EX_new *, CRYPTO_EX_dup *,
                                   CRYPTO_EX_free *);
} DECLARED = {
    ASYNC_get_current_job,
    ASYNC_get_wait_ctx,
    ASYNC_pause_job,
    ASYNC_WAIT_CTX_set_wait_fd,
    ASYNC_WAIT_CTX_get_fd,
    ERR_set_mark,
    ERR_pop_to_mark,
    SSL_get_options,
    SSL_set_options,
    SSL_clear_options,
    SSL_CTX_get_options,
    SSL_CTX_set_options,
    SSL_CTX_clear_options,
    SSL_set_info_callback,
    SSL_get_info_callback,
    SSL_CTX_get_info_callback,
    SSL_get_rfd,
    SSL_get_state,
    SSL_up_ref,
    SSL_in_init,
    SSL_is_init_finished,
    BIO_get_callback_ex,
    BIO_get_callback,
    BIO_set_callback_ex,
    BIO_get_ex_data,
    BIO_set_ex_data,
    i2d_X509_AUX,
    SSL_get_ciphers,
    SSL_CTX_get_ciphers,
    SSL_CIPHER_get_kx_nid,
    SSL_CIPHER_get_auth_nid,
    SSL_get_verify_callback,
    SSL_CTX_get_verify_callback,
    SSL_get_client_CA_list,
    SSL_CTX_set_cert_verify_callback,
    SSL_CTX_set_psk_server_callback,
    SSL_CTX_set_psk_find_session_callback,
    X509_VERIFY_PARAM_get_hostflags,
    X509_VERIFY_PARAM_get_depth,
    X509_VERIFY_PARAM_get_auth_level,
    X509_VERIFY_PARAM_get_time,
    X509_VERIFY_PARAM_get_inh_flags,
    SSL_get_security_callback,
    SSL_CTX_get_security_callback,
    SSL_get0_security_ex_data,
    SSL_CTX_get0_security_ex_data,
    X509_STORE_up_ref,
    X509_STORE_get0_param,
    X509_STORE_get_verify,
    X509_STORE_get_verify_cb,
    X509_STORE_get_get_issuer,
    X509_STORE_get_check_issued,
    X509_STORE_get_check_revocation,
    X509_STORE_get_get_crl,
    X509_STORE_get_check_crl,
    X509_STORE_get_cert_crl,
    X509_STORE_get_check_policy,
    X509_STORE_get_lookup_certs,
    X509_STORE_get_lookup_crls,
    X509_STORE_get_cleanup,
    SSL_SESSION_get0_id_context,
    SSL_SESSION_new,
    SSL_SESSION_set_timeout,
    SSL_SESSION_set_time,
    SSL_SESSION_set1_id,
    SSL_SESSION_set1_master_key,
    SSL_SESSION_get0_peer,
    SSL_SESSION_get_ex_data,
    SSL_SESSION_set_ex_data,
    SSL_CTX_get_timeout,
    SSL_CTX_set_timeout,
    SSL_CTX_get_client_CA_list,
    SSL_CTX_set_generate_session_id,
    SSL_CTX_set_session_id_context,
    SSL_CTX_set_allow_early_data_cb,
    SSL_set_allow_early_data_cb,
    SSL_set_session_id_context,
    SSL_CTX_new,
    SSL_new,
    SSL_set_SSL_CTX,
    SSL_set_connect_state,
    SSL_connect,
    SSL_CTX_ctrl,
    SSL_CTX_callback_ctrl,
    SSL_CTX_set_num_tickets,
    SSL_CTX_get_num_tickets,
    SSL_CTX_sess_set_new_cb,
    SSL_CTX_sess_set_get_cb,
    SSL_CTX_sess_set_remove_cb,
    SSL_CTX_sess_get_new_cb,
    SSL_CTX_sess_get_get_cb,
    SSL_CTX_sess_get_remove_cb,
    X509_STORE_lock,
    X509_STORE_unlock,
    CRYPTO_get_ex_new_index,
};

/* Where versions differ in const. */
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
static SSL_SESSION *(*const SESSION_DUP)(const SSL_SESSION *) = SSL_SESSION_dup;
static STACK_OF(X509_OBJECT) *(*const STORE_GET0_OBJECTS)(const X509_STORE *) =
    X509_STORE_get0_objects;
static X509_CRL *(*const OBJECT_GET0_CRL)(const X509_OBJECT *) = X509_OBJECT_get0_X509_CRL;
static SSL_CTX *(*const NEW_CONTEXT_EX)(OSSL_LIB_CTX *, const char *, const SSL_METHOD *) =
    SSL_CTX_new_ex;
static int (*const SET_TICKET_KEY)(SSL_CTX *, TicketKeyCallback *) =
    SSL_CTX_set_tlsext_ticket_key_evp_cb;
static OSSL_PARAM (*const CONSTRUCT_UTF8)(const char *, char *, size_t) =
    OSSL_PARAM_construct_utf8_string;
static char *(*const PARAM_GET0_HOST)(X509_VERIFY_PARAM *, int) = X509_VERIFY_PARAM_get0_host;
static char *(*const PARAM_GET0_EMAIL)(X509_VERIFY_PARAM *) = X509_VERIFY_PARAM_get0_email;
static char *(*const PARAM_GET1_IP)(X509_VERIFY_PARAM *) = X509_VERIFY_PARAM_get1_ip_asc;
static void (*const MEMORY_FREE)(void *, const char *, int) = CRYPTO_free;
typedef int AsyncCallback(void *);
static int (*const ASYNC_GET_CALLBACK)(AsyncWaitCtx *, AsyncCallback **, void **) =
    ASYNC_WAIT_CTX_get_callback;
/* How ex_data's dup hands over the value. */
static int dup_data(CRYPTO_EX_DATA *to, const CRYPTO_EX_DATA *from, void **value, int index,
                    long argl, void *argp)
{
    (void)to, (void)from, (void)value, (void)index, (void)argl, (void)argp;
    return 1;
}
static CRYPTO_EX_dup *const DUP_DATA = dup_data;
#else
static SSL_SESSION *(*const SESSION_DUP)(SSL_SESSION *) = SSL_SESSION_dup;
static STACK_OF(X509_OBJECT) *(*const STORE_GET0_OBJECTS)(X509_STORE *) = X509_STORE_get0_objects;
static X509_CRL *(*const OBJECT_GET0_CRL)(X509_OBJECT *) = X509_OBJECT_get0_X509_CRL;
#endif

static void free_data(void *parent, void *value, CRYPTO_EX_DATA *data, int index, long argl,
                      void *argp)
{
    (void)parent, (void)value, (void)data, (void)index, (void)argl, (void)argp;
}
static CRYPTO_EX_free *const FREE_DATA = free_data;

static void declarations_are_those_of_the_headers(void)
{
    CHECK(DECLARED.err_set_mark != NULL && SESSION_DUP != NULL && STORE_GET0_OBJECTS != NULL);
    CHECK(FREE_DATA != NULL && OBJECT_GET0_CRL != NULL);
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
    CHECK(CONSTRUCT_UTF8 != NULL && DUP_DATA != NULL && SET_TICKET_KEY != NULL &&
          NEW_CONTEXT_EX != NULL);
    CHECK(ASYNC_GET_CALLBACK != NULL && PARAM_GET0_HOST != NULL && PARAM_GET0_EMAIL != NULL);
    CHECK(PARAM_GET1_IP != NULL && MEMORY_FREE != NULL);
    /* The names of parameters are text in src/tls/ticket.rs. */
    CHECK_EQUAL(OSSL_MAC_PARAM_KEY[0], 'k');
    CHECK_EQUAL(OSSL_MAC_PARAM_DIGEST[0], 'd');
#endif
}

static void constants_have_the_size_of_their_types(void)
{
    CHECK_EQUAL(sizeof(Options), 8);
    CHECK_EQUAL(sizeof(long), sizeof(void *));
    CHECK_EQUAL(sizeof(size_t), sizeof(void *));
}

/* Where nothing but the value tells: the options survive the way through the library. */
static void options_set_by_the_library_are_those_of_the_headers(void)
{
    TLSRESUME *tr = realm_of(&KIND[TLS13_STATEFUL], "");
    SSL_CTX *server = attached_server(tr);
    CHECK(SSL_CTX_get_options(server) & SSL_OP_NO_TICKET);
    CHECK(SSL_CTX_get_options(server) & SSL_OP_NO_ANTI_REPLAY);
    CHECK_EQUAL(SSL_CTX_get_session_cache_mode(server),
                SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL | SSL_SESS_CACHE_NO_AUTO_CLEAR);
    CHECK_EQUAL(SSL_CTX_get_timeout(server), 12 * 3600);
    SSL_CTX_free(server);
    tlsresume_free(tr);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM(declarations_are_those_of_the_headers);
    CLAIM(constants_have_the_size_of_their_types);
    CLAIM(options_set_by_the_library_are_those_of_the_headers);
    return check_end();
}
