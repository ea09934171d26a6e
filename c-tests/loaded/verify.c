/* A plug-in that says who is let in: people whose certificates have that name, and their authority. */
#include <string.h>

#include <openssl/ssl.h>
#include <openssl/x509.h>

int verify(int ok, X509_STORE_CTX *store);

int verify(int ok, X509_STORE_CTX *store)
{
    char name[64] = "";
    X509 *certificate = X509_STORE_CTX_get_current_cert(store);
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name, sizeof name);
    if (ok && X509_STORE_CTX_get_error_depth(store) == 0 && strcmp(name, LETS_IN) != 0) {
        X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
        return 0;
    }
    return ok;
}
