/* The library loaded by dlopen(3), as plug-ins load it; this program is not linked to it. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <dlfcn.h>
#include <string.h>

typedef TLSRESUME *new_from_string(const char *);
typedef int attach_checked(TLSRESUME *, SSL_CTX *, unsigned long);
typedef int detach(SSL_CTX *);
typedef void free_instance(TLSRESUME *);

static struct library {
    void *handle;
    new_from_string *new_from_string;
    attach_checked *attach;
    detach *detach;
    free_instance *free;
} library;

/* C99 has no cast from an object pointer to a function pointer; POSIX says they look alike. */
static void find(const char *name, void *function, size_t size)
{
    void *address = dlsym(library.handle, name);
    CHECK_SAYING(address != NULL, "%s", dlerror());
    CHECK(size == sizeof address);
    memcpy(function, &address, sizeof address);
}

static void load(void)
{
    library.handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    CHECK_SAYING(library.handle != NULL, "%s", dlerror());
    find("tlsresume_new_from_string", &library.new_from_string, sizeof library.new_from_string);
    find("tlsresume_attach_checked", &library.attach, sizeof library.attach);
    find("tlsresume_detach", &library.detach, sizeof library.detach);
    find("tlsresume_free", &library.free, sizeof library.free);
}

static SSL_CTX *attached(const struct kind *kind)
{
    TLSRESUME *tr = library.new_from_string(
        strcmp(kind->mode, "stateful") == 0 ? "[resumption]\nmode = \"stateful\"\n" : "");
    SSL_CTX *server = server_new();
    CHECK(tr != NULL && library.attach(tr, server, OPENSSL_VERSION_NUMBER) == 1);
    library.free(tr);
    return server;
}

static void contexts_outlive_the_plug_in_that_attached_them(void)
{
    for (const struct kind *kind = KIND; kind < KIND + KINDS; kind++) {
        load();
        SSL_CTX *server = attached(kind);
        struct visitor visitor = visitor_new(kind, NULL);
        CHECK(!visit(&visitor, server));
        CHECK(dlclose(library.handle) == 0);
        CHECK_SAYING(visit(&visitor, server), "%s", kind->name);
        struct pair pair = pair_new(&visitor, server);
        CHECK(pair_shakes(&pair));
        SSL_CTX_free(server);
        pair_free(&pair, true);
        visitor_free(&visitor);
    }
}

static void a_library_that_is_loaded_again_works_as_before(void)
{
    SSL_CTX *server = NULL;
    struct visitor visitor = visitor_new(&KIND[TLS13_STATEFUL], NULL);
    for (int i = 0; i < 10; i++) {
        load();
        if (i == 0) {
            server = attached(&KIND[TLS13_STATEFUL]);
            CHECK(!visit(&visitor, server));
        }
        CHECK(visit(&visitor, server));
        SSL_CTX *other = attached(&KIND[TLS13_STATELESS]);
        CHECK(library.detach(other) == 1);
        SSL_CTX_free(other);
        CHECK(dlclose(library.handle) == 0);
        CHECK(visit(&visitor, server));
    }
    SSL_CTX_free(server);
    visitor_free(&visitor);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM(contexts_outlive_the_plug_in_that_attached_them);
    CLAIM(a_library_that_is_loaded_again_works_as_before);
    return check_end();
}
