/* A server that gets no randomness of the kernel any more, as in a sandbox that refuses getrandom(2). OpenSSL's generator
 * is seeded, and the library has its keys. */
#define _GNU_SOURCE

#include "check.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <openssl/err.h>
#include <openssl/rand.h>

enum { MUST_SHOW = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT };

/* Two people with certificates of their own making, and an authority that vouches for a third. */
static struct person {
    EVP_PKEY *key;
    X509 *certificate;
} guest, clerk, authority, member;

static struct person person_new(const char *name, const struct person *issuer)
{
    struct person person = {.key = new_key()};
    person.certificate = new_certificate(name, person.key, issuer != NULL ? issuer->certificate : NULL,
                                         issuer != NULL ? issuer->key : NULL, 0);
    return person;
}

static void enters_the_sandbox(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog filter = {sizeof rules / sizeof *rules, rules};
    unsigned char bytes[8];
    /* A process that was forked seeds its generators again. */
    CHECK(RAND_bytes(bytes, sizeof bytes) == 1 && RAND_priv_bytes(bytes, sizeof bytes) == 1);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
    CHECK(syscall(SYS_getrandom, bytes, sizeof bytes, 0) == -1 && errno == EPERM);
}

static TLSRESUME *realm_with_keys(void)
{
    TLSRESUME *tr = realm_of(tried_kind, "");
    SSL_CTX *server = attached_server(tr);
    struct visitor visitor = visitor_new(tried_kind, "first.example");
    CHECK(!visit(&visitor, server) && visit(&visitor, server));
    visitor_free(&visitor);
    SSL_CTX_free(server);
    return tr;
}

enum outcome { REFUSED, FULL, RESUMED };

static enum outcome comes(struct visitor *visitor, SSL_CTX *server)
{
    struct pair pair = pair_new(visitor, server);
    pair_shakes(&pair);
    bool in = SSL_is_init_finished(pair.server);
    enum outcome outcome = !in ? REFUSED : SSL_session_reused(pair.server) ? RESUMED : FULL;
    pair_free(&pair, in);
    ERR_clear_error();
    return outcome;
}

/* ---- Whom a verify callback lets in ---- */

static int lets_one_in(X509_STORE_CTX *store, void *certificate)
{
    bool is_that_one = X509_cmp(X509_STORE_CTX_get0_cert(store), certificate) == 0;
    X509_STORE_CTX_set_error(store, is_that_one ? X509_V_OK : X509_V_ERR_APPLICATION_VERIFICATION);
    return is_that_one;
}

static SSL_CTX *door_for(const struct person *person, TLSRESUME *tr)
{
    SSL_CTX *door = server_new();
    SSL_CTX_set_verify(door, MUST_SHOW, NULL);
    SSL_CTX_set_cert_verify_callback(door, lets_one_in, person->certificate);
    CHECK(tlsresume_attach(tr, door) == 1);
    return door;
}

static struct visitor visitor_of(const struct person *person)
{
    struct visitor visitor = visitor_new(tried_kind, "a.example");
    visitor_shows(&visitor, person->certificate, person->key);
    return visitor;
}

static void comes_to_the_door_of_another(void)
{
    TLSRESUME *tr = realm_with_keys();
    enters_the_sandbox();
    SSL_CTX *guests = door_for(&guest, tr), *clerks = door_for(&clerk, tr);
    struct visitor a = visitor_of(&guest), b = visitor_of(&clerk);
    visit(&b, clerks);
    visit(&a, guests);
    visit(&b, clerks);
    for (int again = 0; again < 2; again++)
        CHECK_SAYING(comes(&a, clerks) == REFUSED, "%s, time %d", tried_kind->name, again);
    visit(&a, guests);
    visit(&b, clerks);
    visitor_free(&a);
    visitor_free(&b);
    SSL_CTX_free(guests);
    SSL_CTX_free(clerks);
    tlsresume_free(tr);
}

static void verify_callbacks_with_other_arguments_share_no_sessions(void)
{
    for_each_kind_apart(comes_to_the_door_of_another);
}

/* ---- Which context saw a name served ---- */

static SSL_CTX *strict;

static void traces_nothing(const SSL *ssl, int position, int value)
{
    (void)ssl, (void)position, (void)value;
}

static int goes_to_the_strict_host(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    SSL_set_info_callback(ssl, traces_nothing);
    SSL_set_SSL_CTX(ssl, strict);
    SSL_set_verify(ssl, MUST_SHOW, NULL);
    return SSL_TLSEXT_ERR_OK;
}

static void comes_from_the_shop_to_the_back_door(void)
{
    TLSRESUME *tr = realm_with_keys();
    enters_the_sandbox();
    SSL_CTX *shop = server_new(), *back = server_new();
    strict = server_new();
    server_verifies(strict, authority.certificate);
    SSL_CTX_set_tlsext_servername_callback(back, goes_to_the_strict_host);
    CHECK(tlsresume_attach(tr, shop) == 1 && tlsresume_attach(tr, back) == 1);
    CHECK(tlsresume_attach(tr, strict) == 1);
    struct visitor visitor = visitor_new(tried_kind, "a.example");
    visit(&visitor, shop);
    SSL_SESSION *kept = session_copy(visitor.session);
    for (int again = 0; again < 2; again++) {
        visitor_takes(&visitor, kept);
        CHECK_SAYING(comes(&visitor, back) == REFUSED, "%s, time %d", tried_kind->name, again);
    }
    SSL_SESSION_free(kept);
    visitor_free(&visitor);
    SSL_CTX_free(shop);
    SSL_CTX_free(back);
    SSL_CTX_free(strict);
    tlsresume_free(tr);
}

static void what_one_context_served_is_not_taken_for_anothers(void)
{
    for_each_kind_apart(comes_from_the_shop_to_the_back_door);
}

/* ---- What the client does not know yet ---- */

static int takes_the_info_callback_off(SSL *ssl, int *alert, void *arg)
{
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    (void)alert, (void)arg;
    SSL_set_info_callback(ssl, NULL);
    if (name != NULL && strcmp(name, "strict.example") == 0) {
        SSL_set_SSL_CTX(ssl, strict);
        SSL_set_verify(ssl, MUST_SHOW, NULL);
    }
    return SSL_TLSEXT_ERR_OK;
}

/* Who knows the session's id alone tries a secret that is easy to guess. */
static struct visitor eavesdropper_new(const struct visitor *victim)
{
    static const unsigned char ZEROS[SSL_MAX_MASTER_KEY_LENGTH];
    struct visitor eavesdropper = visitor_new(tried_kind, victim->name);
    visitor_takes(&eavesdropper, victim->session);
    CHECK(SSL_SESSION_set1_master_key(eavesdropper.session, ZEROS, sizeof ZEROS) == 1);
    return eavesdropper;
}

static void comes_with_an_id_alone(void)
{
    TLSRESUME *tr = realm_with_keys();
    SSL_CTX *front = server_new();
    strict = server_new();
    server_verifies(strict, authority.certificate);
    SSL_CTX_set_tlsext_servername_callback(front, takes_the_info_callback_off);
    CHECK(tlsresume_attach(tr, front) == 1);
    struct visitor victim = visitor_new(tried_kind, "a.example"), other = visitor_of(&member);
    other.name = "strict.example";
    CHECK(!visit(&victim, front) && !visit(&other, front));
    struct visitor eavesdropper = eavesdropper_new(&victim);
    enters_the_sandbox();
    CHECK(comes(&eavesdropper, front) != RESUMED);
    visit(&victim, front);
    visitor_free(&victim);
    visitor_free(&other);
    visitor_free(&eavesdropper);
    SSL_CTX_free(front);
    SSL_CTX_free(strict);
    tlsresume_free(tr);
}

static void a_secret_that_is_withheld_is_one_that_nobody_knows(void)
{
    tried_kind = &KIND[TLS12_ID];
    check_apart(comes_with_an_id_alone);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    own_certificate();
    guest = person_new("guest", NULL);
    clerk = person_new("clerk", NULL);
    authority = person_new("authority", NULL);
    member = person_new("member", &authority);
    CLAIM(verify_callbacks_with_other_arguments_share_no_sessions);
    CLAIM(what_one_context_served_is_not_taken_for_anothers);
    CLAIM(a_secret_that_is_withheld_is_one_that_nobody_knows);
    return check_end();
}
