/* Authorities, clients and what they show. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "policies.h"

#include <stdio.h>
#include <string.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

static struct {
    EVP_PKEY *key;
    X509 *authority, *second_authority, *member, *second_member, *foreigner, *self_made;
    X509_CRL *nobody_revoked, *member_revoked;
} people;

static const unsigned char SHARED_KEY[32] = "known to servers and to clients";

static void add_names(X509 *certificate, EVP_PKEY *issuer_key)
{
    static const char NAMES[] = "DNS:client.example,DNS:other.example,IP:192.0.2.1,"
                                "email:client@client.example";
    X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, NAMES);
    CHECK(names != NULL && X509_add_ext(certificate, names, -1) == 1);
    X509_EXTENSION_free(names);
    CHECK(X509_sign(certificate, issuer_key, EVP_sha256()) > 0);
}

static X509 *issue(X509 *issuer)
{
    X509 *certificate = new_certificate("client.example", people.key, issuer, people.key, 0);
    add_names(certificate, people.key);
    return certificate;
}

static void add_revoked(X509_CRL *list, X509 *certificate)
{
    X509_REVOKED *entry = X509_REVOKED_new();
    CHECK(entry != NULL);
    CHECK(X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(certificate)) == 1);
    CHECK(X509_REVOKED_set_revocationDate(entry, X509_getm_notBefore(certificate)) == 1);
    CHECK(X509_CRL_add0_revoked(list, entry) == 1);
}

static X509_CRL *make_list(X509 *revoked)
{
    X509_CRL *list = X509_CRL_new();
    CHECK(list != NULL && X509_CRL_set_version(list, 1) == 1);
    CHECK(X509_CRL_set_issuer_name(list, X509_get_subject_name(people.authority)) == 1);
    CHECK(X509_CRL_set1_lastUpdate(list, X509_get0_notBefore(people.authority)) == 1);
    CHECK(X509_CRL_set1_nextUpdate(list, X509_get0_notAfter(people.authority)) == 1);
    if (revoked != NULL)
        add_revoked(list, revoked);
    CHECK(X509_CRL_sort(list) == 1 && X509_CRL_sign(list, people.key, EVP_sha256()) > 0);
    return list;
}

/* One key has to do for all: who has which certificate is what matters. */
void make_people(void)
{
    people.key = new_key();
    people.authority = new_certificate("our authority", people.key, NULL, NULL, 0);
    people.second_authority = new_certificate("their authority", people.key, NULL, NULL, 0);
    people.member = issue(people.authority);
    people.second_member = issue(people.authority);
    people.foreigner = issue(people.second_authority);
    people.self_made = new_certificate("client.example", people.key, NULL, NULL, 0);
    people.nobody_revoked = make_list(NULL);
    people.member_revoked = make_list(people.member);
}

static X509 **const ALL[] = {&people.authority, &people.second_authority, &people.member,
                             &people.second_member, &people.foreigner, &people.self_made};

static FILE *people_file(const char *folder, const char *how)
{
    char path[512];
    snprintf(path, sizeof path, "%s/people.pem", folder);
    FILE *file = fopen(path, how);
    CHECK_SAYING(file != NULL, "%s", path);
    return file;
}

void keep_people(const char *folder)
{
    FILE *file = people_file(folder, "w");
    CHECK(PEM_write_PrivateKey(file, people.key, NULL, NULL, 0, NULL, NULL) == 1);
    for (size_t i = 0; i < sizeof ALL / sizeof *ALL; i++)
        CHECK(PEM_write_X509(file, *ALL[i]) == 1);
    CHECK(PEM_write_X509_CRL(file, people.nobody_revoked) == 1);
    CHECK(PEM_write_X509_CRL(file, people.member_revoked) == 1);
    CHECK(fclose(file) == 0);
}

void find_people(const char *folder)
{
    FILE *file = people_file(folder, "r");
    people.key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    for (size_t i = 0; i < sizeof ALL / sizeof *ALL; i++)
        CHECK((*ALL[i] = PEM_read_X509(file, NULL, NULL, NULL)) != NULL);
    people.nobody_revoked = PEM_read_X509_CRL(file, NULL, NULL, NULL);
    people.member_revoked = PEM_read_X509_CRL(file, NULL, NULL, NULL);
    CHECK(people.key != NULL && people.nobody_revoked != NULL && people.member_revoked != NULL);
    fclose(file);
}

X509 *authority(enum who whose)
{
    return whose == FOREIGNER ? people.second_authority : people.authority;
}

X509_CRL *list_of_revoked(enum who revoked)
{
    return revoked == MEMBER ? people.member_revoked : people.nobody_revoked;
}

/* ---- What clients show ---- */

static unsigned has_psk(SSL *ssl, const char *hint, char *identity, unsigned most_identity,
                        unsigned char *psk, unsigned most)
{
    (void)ssl, (void)hint;
    CHECK(most_identity > 4 && most >= sizeof SHARED_KEY);
    strcpy(identity, "dev");
    memcpy(psk, SHARED_KEY, sizeof SHARED_KEY);
    return sizeof SHARED_KEY;
}

static void shows(SSL_CTX *client, X509 *certificate)
{
    CHECK(SSL_CTX_use_certificate(client, certificate) == 1);
    CHECK(SSL_CTX_use_PrivateKey(client, people.key) == 1);
}

static void has_password(SSL_CTX *client)
{
#ifndef OPENSSL_NO_SRP
    CHECK(SSL_CTX_set_srp_username(client, "dev") == 1);
    CHECK(SSL_CTX_set_srp_password(client, "password") == 1);
#else
    (void)client;
#endif
}

void client_is(SSL_CTX *client, enum who who)
{
    static const unsigned char PROTOCOL[] = "\1x";
    /* All that anybody offers, or OpenSSL refuses to offer what was negotiated elsewhere. */
    CHECK(SSL_CTX_set_cipher_list(client, "ALL:PSK:aNULL:@SECLEVEL=0") == 1);
    CHECK(SSL_CTX_set_alpn_protos(client, PROTOCOL, 2) == 0);
    switch (who) {
    case NOBODY: case ANONYMOUS: return;
    case MEMBER: shows(client, people.member); return;
    case SECOND_MEMBER: shows(client, people.second_member); return;
    case FOREIGNER: shows(client, people.foreigner); return;
    case SELF_MADE: shows(client, people.self_made); return;
    case HAS_PSK:
        /* Before all others, so that the key is what gets it in. */
        CHECK(SSL_CTX_set_cipher_list(client, "PSK:ALL:aNULL:@SECLEVEL=0") == 1);
        SSL_CTX_set_psk_client_callback(client, has_psk);
        return;
    case HAS_PASSWORD: has_password(client); return;
    }
}

/* ---- What servers know ---- */

bool key_was_shown;

unsigned knows_psk(SSL *ssl, const char *identity, unsigned char *psk, unsigned most)
{
    (void)ssl;
    if (strcmp(identity, "dev") != 0 || most < sizeof SHARED_KEY)
        return 0;
    memcpy(psk, SHARED_KEY, sizeof SHARED_KEY);
    key_was_shown = true;
    return sizeof SHARED_KEY;
}

int finds_psk(SSL *ssl, const unsigned char *identity, size_t len, SSL_SESSION **session)
{
    static const unsigned char SUITE[] = {0x13, 0x01};
    *session = NULL;
    if (len != 3 || memcmp(identity, "dev", 3) != 0)
        return 1;
    SSL_SESSION *made = SSL_SESSION_new();
    CHECK(made != NULL && SSL_SESSION_set_protocol_version(made, TLS1_3_VERSION) == 1);
    CHECK(SSL_SESSION_set_cipher(made, SSL_CIPHER_find(ssl, SUITE)) == 1);
    CHECK(SSL_SESSION_set1_master_key(made, SHARED_KEY, sizeof SHARED_KEY) == 1);
    *session = made;
    key_was_shown = true;
    return 1;
}

#ifndef OPENSSL_NO_SRP
static int knows_password(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    const char *name = SSL_get_srp_username(ssl);
    if (name == NULL || strcmp(name, "dev") != 0)
        return SSL3_AL_FATAL;
    return SSL_set_srp_server_param_pw(ssl, "dev", "password", "2048") == 1 ? SSL_ERROR_NONE
                                                                           : SSL3_AL_FATAL;
}

bool knows_passwords(SSL_CTX *server)
{
    return SSL_CTX_set_srp_username_callback(server, knows_password) == 1;
}
#else
bool knows_passwords(SSL_CTX *server)
{
    (void)server;
    return false;
}
#endif
