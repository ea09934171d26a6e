/* Copies of connections (SSL_dup), and info callbacks that outlive the connection where they were found. */
#include "check.h"

#include <string.h>

#include <openssl/err.h>

/* A public context, beside one with rules where `has_rules`: then each step of what resumes is judged. */
static struct {
    TLSRESUME *tr;
    SSL_CTX *server, *strict;
} site;

static bool has_rules;

static void site_open(int (*on_server_name)(SSL *, int *, void *))
{
    site.tr = realm_of(tried_kind, "");
    site.server = server_new();
    SSL_CTX_set_tlsext_servername_callback(site.server, on_server_name);
    CHECK(tlsresume_attach(site.tr, site.server) == 1);
    site.strict = server_new();
    if (!has_rules)
        return;
    server_verifies(site.strict, own_certificate());
    CHECK(tlsresume_attach(site.tr, site.strict) == 1);
}

static void site_close(void)
{
    SSL_CTX_free(site.server);
    SSL_CTX_free(site.strict);
    tlsresume_free(site.tr);
}

/* ---- The application's info callback ---- */

static int ends_seen;    /* of handshakes */

static void counts_ends(const SSL *ssl, int position, int value)
{
    (void)ssl, (void)value;
    ends_seen += position == SSL_CB_HANDSHAKE_DONE;
}

/* ---- Copies ---- */

/* A connection that is the model of others. */
static SSL *model_new(void)
{
    SSL *model = SSL_new(site.server);
    SSL_set_info_callback(model, counts_ends);
    return model;
}

/* A client that resumes goes away in the midst, and the server clears the object. */
static void is_left_in_the_midst(struct visitor *visitor, SSL *model)
{
    struct pair pair = pair_with(visitor, model);
    CHECK(!pair_steps(&pair));
    SSL_free(pair.client);
    CHECK(SSL_clear(model) == 1);
    SSL_set_bio(model, NULL, NULL);
    ERR_clear_error();
}

static bool is_used_before;

static void has_copies(void)
{
    site_open(NULL);
    struct visitor visitor = visitor_new(tried_kind, "a.example"), other = visitor_new(tried_kind, "a.example");
    for (int visits = 0; visits < 3; visits++)
        CHECK_SAYING(visit(&visitor, site.server) || visits < 2, "%s, visit %d", tried_kind->name, visits);
    SSL_SESSION *session = session_copy(visitor.session);
    SSL *model = model_new();
    if (is_used_before) {
        visitor_takes(&other, session);
        is_left_in_the_midst(&other, model);
    }
    for (int copies = 0; copies < 3; copies++) {
        visitor_takes(&visitor, session);
        struct pair pair = pair_with(&visitor, SSL_dup(model));
        ends_seen = 0;
        CHECK(pair.server != model && pair_shakes(&pair));
        CHECK_SAYING(ends_seen == 1, "%s, rules %d, used %d, copy %d: called %d times at the end", tried_kind->name,
                     has_rules, is_used_before, copies, ends_seen);
        CHECK_SAYING(SSL_session_reused(pair.server), "%s, rules %d, used %d, copy %d", tried_kind->name, has_rules,
                     is_used_before, copies);
        pair_free(&pair, true);
        visitor_takes(&visitor, session);
        CHECK_SAYING(visit(&visitor, site.server), "%s, rules %d, used %d, after copy %d", tried_kind->name,
                     has_rules, is_used_before, copies);
    }
    SSL_free(model);
    SSL_SESSION_free(session);
    visitor_free(&visitor);
    visitor_free(&other);
    site_close();
}

static void a_copy_of_a_connection_has_its_info_callback_and_resumes(void)
{
    for (int rules = 0; rules < 2; rules++)
        for (int used = 0; used < 2; used++) {
            has_rules = rules;
            is_used_before = used;
            for_each_kind_apart(has_copies);
        }
}

/* ---- An info callback that passes on to another one ---- */

typedef void info_callback(const SSL *, int, int);

/* The first one that was found on any connection: the application takes it for that of all. */
static info_callback *found;

static void passes_on(const SSL *ssl, int position, int value)
{
    counts_ends(ssl, position, value);
    if (found != NULL)
        found(ssl, position, value);
}

static int puts_its_own_before(SSL *ssl, int *alert, void *arg)
{
    info_callback *current = SSL_get_info_callback(ssl);
    (void)alert, (void)arg;
    if (found == NULL && current != passes_on)
        found = current;
    SSL_set_info_callback(ssl, passes_on);
    return SSL_TLSEXT_ERR_OK;
}

/* A visitor comes again and again, and others in between for the first time. */
static void is_passed_on_to_on_all_connections(void)
{
    site_open(puts_its_own_before);
    struct visitor visitor = visitor_new(tried_kind, "a.example");
    for (int visits = 0; visits < 6; visits++) {
        struct visitor other = visitor_new(tried_kind, "b.example");
        ends_seen = 0;
        bool resumed = visit(&visitor, site.server);
        /* Under rules a callback that is not ours is none that judges. */
        CHECK_SAYING(resumed || visits == 0 || has_rules, "%s, visit %d", tried_kind->name, visits);
        CHECK_SAYING(ends_seen == 1, "%s, rules %d, visit %d: called %d times at the end", tried_kind->name, has_rules,
                     visits, ends_seen);
        ends_seen = 0;
        visit(&other, site.server);
        CHECK_SAYING(ends_seen == 1, "%s, rules %d, visitor %d: called %d times at the end", tried_kind->name,
                     has_rules, visits, ends_seen);
        visitor_free(&other);
    }
    visitor_free(&visitor);
    site_close();
}

static void an_info_callback_that_passes_on_to_that_of_another_connection_stays(void)
{
    for (int rules = 0; rules < 2; rules++) {
        has_rules = rules;
        for_each_kind_apart(is_passed_on_to_on_all_connections);
    }
}

/* ---- An info callback that is found on a connection and given to a context ---- */

enum place { ITS_OWN, ATTACHED, NOT_ATTACHED, PLACES };

static SSL_CTX *goal;
static bool is_wrapped;    /* in one that passes on to it */

static int gives_what_it_finds(SSL *ssl, int *alert, void *arg)
{
    info_callback *current = SSL_get_info_callback(ssl);
    (void)alert, (void)arg;
    if (current != NULL) {
        found = current;
        SSL_CTX_set_info_callback(goal, is_wrapped ? passes_on : current);
    }
    return SSL_TLSEXT_ERR_OK;
}

static enum place place;

static void visitors_come_to(SSL_CTX *server)
{
    struct visitor visitor = visitor_new(tried_kind, "a.example");
    for (int visits = 0; visits < 5; visits++) {
        ends_seen = 0;
        visit(&visitor, server);
        bool is_seen = is_wrapped && server == goal && found != NULL;
        /* Twice where it stands before ours for a part of the handshake only. */
        CHECK_SAYING(!is_seen || ends_seen == 1 || ends_seen == 2, "%s, rules %d, place %d, visit %d: %d times",
                     tried_kind->name, has_rules, place, visits, ends_seen);
        if (visits == 3)
            visitor_forgets(&visitor);
    }
    visitor_free(&visitor);
}

static void is_given_to_a_context(void)
{
    site_open(gives_what_it_finds);
    SSL_CTX *other = server_new();
    CHECK(tlsresume_attach(site.tr, other) == 1);
    SSL_CTX *goals[PLACES] = {site.server, other, server_new()};
    goal = goals[place];
    for (int rounds = 0; rounds < 2; rounds++) {
        visitors_come_to(site.server);
        CHECK_SAYING(found != NULL, "%s: nothing was found", tried_kind->name);
        visitors_come_to(goal);
    }
    SSL_CTX_free(other);
    SSL_CTX_free(goals[NOT_ATTACHED]);
    site_close();
}

static void an_info_callback_that_is_found_on_a_connection_may_be_given_to_a_context(void)
{
    for (place = 0; place < PLACES; place++)
        for (int setting = 0; setting < 4; setting++) {
            has_rules = setting & 1;
            is_wrapped = setting & 2;
            for_each_kind_apart(is_given_to_a_context);
        }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    own_certificate();
    CLAIM(a_copy_of_a_connection_has_its_info_callback_and_resumes);
    CLAIM(an_info_callback_that_passes_on_to_that_of_another_connection_stays);
    CLAIM(an_info_callback_that_is_found_on_a_connection_may_be_given_to_a_context);
    return check_end();
}
