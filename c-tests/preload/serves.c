/* A server and its clients in one process. Prints for each kind of session whether a client that was at one context
 * resumes at another. With arguments, sessions wait in a folder for another process:
 *     serves | serves leave FOLDER | serves return FOLDER
 * also where the program changes its root directory to that folder, and its user, before it makes a context:
 *     serves leave FOLDER confined | serves return FOLDER confined
 * or nothing is served, and only what OpenSSL's functions leave behind is looked at:
 *     serves quietly */
#define _DEFAULT_SOURCE

#include "check.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>

enum { ANYTHING = 77, NOBODY = 65534 };

static void is_as_it_was(void)
{
    CHECK_EQUAL(errno, ANYTHING);
    CHECK(ERR_peek_error() == 0);
}

/* errno and the error queue, where a library is loaded and attached behind the program's back. */
static void nothing_is_left_behind(void)
{
    /* OpenSSL's own initialisation is not what is looked at. */
    SSL_CTX_free(SSL_CTX_new(TLS_client_method()));
    ERR_clear_error();
    errno = ANYTHING;
    SSL_CTX *server = SSL_CTX_new(TLS_server_method());
    is_as_it_was();
    SSL *ssl = SSL_new(server);
    CHECK(ssl != NULL);
    is_as_it_was();
    SSL_free(ssl);
    SSL_CTX_free(server);
}

static FILE *session_file(const char *folder, const struct kind *kind, const char *how)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%td", folder, kind - KIND);
    FILE *file = fopen(path, how);
    CHECK_SAYING(file != NULL, "%s", path);
    return file;
}

static void leave(struct visitor *visitor, const char *folder, const struct kind *kind)
{
    FILE *file = session_file(folder, kind, "w");
    CHECK(PEM_write_SSL_SESSION(file, visitor->session) == 1);
    CHECK(fclose(file) == 0);
}

static void come_back(struct visitor *visitor, const char *folder, const struct kind *kind)
{
    FILE *file = session_file(folder, kind, "r");
    visitor->session = PEM_read_SSL_SESSION(file, NULL, NULL, NULL);
    CHECK(visitor->session != NULL);
    fclose(file);
}

/* As login processes do that give up everything before they serve. */
static void give_up_all_but(const char *folder)
{
    CHECK(chroot("/nowhere at all") != 0 && errno == ENOENT);
    errno = ANYTHING;
    CHECK_SAYING(chroot(folder) == 0, "chroot: this needs root");
    CHECK_EQUAL(errno, ANYTHING);
    CHECK(chdir("/") == 0 && setgroups(0, NULL) == 0);
    CHECK(setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
    CHECK(setuid(0) != 0 && errno == EPERM);
}

int main(int argc, char **argv)
{
    const char *what = argc >= 3 ? argv[1] : "", *folder = argc >= 3 ? argv[2] : "";
    bool leaves = strcmp(what, "leave") == 0, returns = strcmp(what, "return") == 0;
    check_begin(0, argv);
    if (argc == 2) {
        nothing_is_left_behind();
        return 0;
    }
    if (argc == 4) {
        give_up_all_but(folder);
        folder = "";
    }
    SSL_CTX *one = server_new(), *other = server_new();
    for (const struct kind *kind = KIND; kind <= &KIND[TLS13_STATELESS]; kind++) {
        struct visitor visitor = visitor_new(kind, "a.example");
        if (returns)
            come_back(&visitor, folder, kind);
        else
            CHECK(!visit(&visitor, one));
        if (leaves)
            leave(&visitor, folder, kind);
        else
            puts(visit(&visitor, other) ? "resumed" : "full");
        visitor_free(&visitor);
    }
    SSL_CTX_free(one);
    SSL_CTX_free(other);
    return 0;
}
