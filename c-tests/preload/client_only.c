/* A program that connects to servers and is none. Prints the objects that are loaded. With an argument it gives up root first;
 * with "child", in a child of a process with threads. */
#define _DEFAULT_SOURCE

#include "check.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>

static void begins_a_handshake(const SSL_METHOD *method)
{
    SSL_CTX *client = SSL_CTX_new(method);
    SSL_CTX_set_verify(client, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(client, SSL_SESS_CACHE_CLIENT);
    SSL *ssl = SSL_new(client);
    CHECK(ssl != NULL);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(ssl), -1);
    CHECK(SSL_connect(ssl) < 0);
    CHECK_EQUAL(SSL_get_error(ssl, -1), SSL_ERROR_WANT_READ);
    SSL_free(ssl);
    SSL_CTX_free(client);
}

static void *stays(void *arg)
{
    for (;;)
        pause();
    return arg;
}

static void goes_on_in_a_child_of_a_process_with_threads(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, stays, NULL) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child != 0) {
        check_child(child);
        exit(0);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "child") == 0)
        goes_on_in_a_child_of_a_process_with_threads();
    CHECK(argc == 1 || setuid(65534) == 0);
    begins_a_handshake(TLS_client_method());
    begins_a_handshake(DTLS_client_method());
    char line[4096];
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        const char *name = strrchr(line, '/');
        if (name != NULL && strstr(line, "r-xp") != NULL)
            fputs(name + 1, stdout);
    }
    fclose(maps);
    return 0;
}
