/* Verify callbacks in plug-ins that come and go, and that look alike: whom one lets in the other need not. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>

static EVP_PKEY *key;
static X509 *authority, *of_guest, *of_clerk;

/* ---- Doors ---- */

/* A context whose verify callback is a plug-in's. */
struct door {
    void *plugin;
    SSL_verify_cb verify;
    SSL_CTX *server;
};

static struct door door_open(const char *plugin, TLSRESUME *tr)
{
    struct door door = {.server = server_new()};
    char path[4096];
    snprintf(path, sizeof path, PLUGINS "/%s", plugin);
    door.plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK_SAYING(door.plugin != NULL, "%s", dlerror());
    /* C99 has no cast from an object pointer to a function pointer; POSIX says they look alike. */
    void *address = dlsym(door.plugin, "verify");
    CHECK(address != NULL && sizeof address == sizeof door.verify);
    memcpy(&door.verify, &address, sizeof address);
    server_verifies(door.server, authority);
    SSL_CTX_set_verify(door.server, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, door.verify);
    CHECK(tlsresume_attach(tr, door.server) == 1);
    return door;
}

static void door_close(struct door *door)
{
    SSL_CTX_free(door->server);
    CHECK(dlclose(door->plugin) == 0);
}

static struct visitor visitor_with(X509 *certificate)
{
    struct visitor visitor = visitor_new(tried_kind, "a.example");
    visitor_shows(&visitor, certificate, key);
    return visitor;
}

static bool is_let_in(struct visitor *visitor, struct door *door)
{
    struct pair pair = pair_new(visitor, door->server);
    pair_shakes(&pair);
    bool in = SSL_is_init_finished(pair.server);
    pair_free(&pair, in);
    ERR_clear_error();
    return in;
}

/* ---- Claims ---- */

static const char *for_guests, *for_clerks;

static void comes_with_the_session_of_a_plug_in_that_is_gone(void)
{
    TLSRESUME *tr = realm_of(tried_kind, "");
    struct visitor guest = visitor_with(of_guest), clerk = visitor_with(of_clerk);
    struct door guests = door_open(for_guests, tr);
    SSL_verify_cb before = guests.verify;
    CHECK(!visit(&guest, guests.server));
    door_close(&guests);
    struct door clerks = door_open(for_clerks, tr);
    CHECK_SAYING(clerks.verify == before, "the plug-in is at another address");
    visit(&clerk, clerks.server);
    CHECK_SAYING(!is_let_in(&guest, &clerks), "%s, %s", tried_kind->name, for_clerks);
    visitor_free(&guest);
    visitor_free(&clerk);
    door_close(&clerks);
    tlsresume_free(tr);
}

static void comes_to_the_plug_in_beside(void)
{
    TLSRESUME *tr = realm_of(tried_kind, "");
    struct visitor guest = visitor_with(of_guest), clerk = visitor_with(of_clerk);
    struct door guests = door_open(for_guests, tr), clerks = door_open(for_clerks, tr);
    CHECK(!visit(&guest, guests.server));
    visit(&clerk, clerks.server);
    CHECK_SAYING(!is_let_in(&guest, &clerks), "%s, %s", tried_kind->name, for_clerks);
    visitor_free(&guest);
    visitor_free(&clerk);
    door_close(&guests);
    door_close(&clerks);
    tlsresume_free(tr);
}

/* By names of their own, and by one name in two directories. */
static void of_either_name(void (*claim)(void))
{
    for_guests = "guests.so";
    for_clerks = "clerks.so";
    for_each_kind_apart(claim);
    for_guests = "guests/verify.so";
    for_clerks = "clerks/verify.so";
    for_each_kind_apart(claim);
}

static void a_verify_callback_is_not_taken_for_one_that_was_at_its_address_before(void)
{
    of_either_name(comes_with_the_session_of_a_plug_in_that_is_gone);
}

static void a_verify_callback_is_not_taken_for_that_of_a_plug_in_of_the_same_name(void)
{
    of_either_name(comes_to_the_plug_in_beside);
}

/* Nor is anything lost by it. */
static void a_plug_in_that_is_loaded_again_resumes_its_sessions(void)
{
    for (tried_kind = KIND; tried_kind < KIND + KINDS; tried_kind++) {
        TLSRESUME *tr = realm_of(tried_kind, "");
        struct visitor guest = visitor_with(of_guest), other = visitor_with(of_guest);
        for (int visits = 0; visits < 4; visits++) {
            struct door guests = door_open("guests.so", tr);
            visit(&other, guests.server);
            bool resumed = visit(&guest, guests.server);
            CHECK_SAYING(resumed == (visits > 0), "%s, visit %d", tried_kind->name, visits);
            door_close(&guests);
        }
        visitor_free(&guest);
        visitor_free(&other);
        tlsresume_free(tr);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    own_certificate();
    key = new_key();
    authority = new_certificate("authority", key, NULL, NULL, 0);
    of_guest = new_certificate("guest", key, authority, key, 0);
    of_clerk = new_certificate("clerk", key, authority, key, 0);
    CLAIM(a_verify_callback_is_not_taken_for_one_that_was_at_its_address_before);
    CLAIM(a_verify_callback_is_not_taken_for_that_of_a_plug_in_of_the_same_name);
    CLAIM_APART(a_plug_in_that_is_loaded_again_resumes_its_sessions);
    return check_end();
}
