/* Clients that take a session where one policy holds to where another does. */
#include "policies.h"

#include <stdio.h>
#include <string.h>

/* One attack. Its steps:
 *   p   at process 0, port 0: makes the session that is taken elsewhere, and renews it
 *   q   at process 1, port 1: an honest client of that policy, so that the server has learned it
 *   Q   at process 1, port 1: the attempt, always with the session of the last p
 *   Z   the same at process 0
 *   F   at process 0, port 0: guests of more names than the library of 0.1 remembered
 *   M   as Z, N as Q; but what the attempt brought is kept and taken along to the next one */
struct attack {
    struct setup setup;
    enum place place;
    const char *mode, *steps;
    int kind;
    const char *made_for, *taken_to;    /* server names */
    bool early, every_kind;
};

static enum verdict attempt(struct world *world, const struct attack *attack, char step,
                            struct guest *guest)
{
    bool early = false, keeps = step == 'M' || step == 'N';
    struct guest copy = *guest;
    snprintf(copy.name, sizeof copy.name, "%s", attack->taken_to);
    int process = step == 'Q' || step == 'N';
    enum outcome outcome = world_visit(world, process, 1, &copy, &early);
    if (outcome == DIED)
        return NOT_TRIED;
    if (outcome == RESUMED || early)
        return BAD;
    /* One who is let in by the policy itself is no attacker from here on. */
    if (keeps && outcome == REFUSED)
        *guest = copy;
    return GOOD;
}

static bool is_made(const struct attack *attack, const struct guest *guest)
{
    return guest->session_len > 0 || attack->setup.ports[0]->never;
}

static enum verdict goes(const struct attack *attack)
{
    struct world world = {.is_large = strchr(attack->steps, 'F') != NULL};
    bool early;
    const struct policy *const *ports = attack->setup.ports;
    struct guest guest = guest_new(attack->made_for, attack->kind, ports[0]->client);
    struct guest honest = guest_new(attack->taken_to, attack->kind, ports[1]->client);
    world_open(&world, &attack->setup, attack->place, attack->mode);
    enum verdict verdict =
        world_is_ready(&world, attack->kind, ports[0]->client) ? GOOD : NOT_TRIED;
    for (const char *step = attack->steps; *step != '\0' && verdict == GOOD; step++) {
        guest.insists = attack->early && *step != 'p';
        if (*step == 'p') {
            enum outcome outcome = world_visit(&world, 0, 0, &guest, &early);
            if (outcome == DIED || (step[1] != 'p' && !is_made(attack, &guest)))
                verdict = NOT_TRIED;
        } else if (*step == 'F') {
            world_crowd(&world, 9000, 1, attack->kind);
        } else if (*step == 'q') {
            world_visit(&world, 1, 1, &honest, &early);
        } else {
            verdict = attempt(&world, attack, *step, &guest);
        }
    }
    world_close(&world);
    return verdict;
}

/* ---- What can be tried at all ---- */

static bool is_for(const struct policy *policy, int kind)
{
    return policy->only == 0 || policy->only == KIND[kind].version;
}

/* A context that was switched to is too late to ask for a password, or for a key in TLS 1.3. */
static bool makes_sessions(const struct attack *attack)
{
    const struct policy *policy = attack->setup.ports[0];
    bool is_late = attack->setup.way != NO_CALLBACK;
    if (!is_late)
        return true;
    return policy->client != HAS_PASSWORD &&
           !(policy->client == HAS_PSK && attack->kind == TLS13_STATELESS);
}

/* A policy that is set late stays. */
static bool has_an_order(const struct attack *attack)
{
    const char *last_p = strrchr(attack->steps, 'p'), *first_q = strchr(attack->steps, 'q');
    bool is_one_process = attack->place == SAME_PROCESS || attack->place == FORKED_CHILD;
    bool is_late = attack->setup.way == LATE || attack->setup.way == LATE_HOST;
    return !is_late || !is_one_process || first_q == NULL || first_q > last_p;
}

static bool can_be_tried(const struct attack *attack)
{
    return is_for(attack->setup.ports[0], attack->kind) &&
           is_for(attack->setup.ports[1], attack->kind) && makes_sessions(attack) &&
           has_an_order(attack);
}

static void tries(const struct attack *attack)
{
    if (!can_be_tried(attack))
        return;
    enum verdict verdict = goes(attack);
    row_counts(verdict, "%s: %s -> %s, %s, %s %s, %s, steps %s",
               verdict == NOT_TRIED ? "could not be tried" : "got in",
               attack->setup.ports[0]->name, attack->setup.ports[1]->name, WAY[attack->setup.way],
               attack->mode, KIND_OF_CLIENT[attack->kind], PLACE[attack->place], attack->steps);
}

/* ---- Rows ---- */

static void tries_every_kind(struct attack attack)
{
    if (attack.made_for == NULL)
        attack.made_for = attack.taken_to = "site.example";
    for (int m = 0; m < 2; m++)
        for (int k = 0; k < 3; k++) {
            attack.mode = MODES[m];
            attack.kind = KINDS_OF_CLIENTS[k];
            /* In TLS 1.2 the modes differ in what clients that take tickets get: ids. */
            bool is_new = attack.every_kind || deep || m == 0 || attack.kind == TLS13_STATELESS;
            if (is_new && (!attack.early || attack.kind == TLS13_STATELESS))
                tries(&attack);
        }
}

static void tries_both_directions(struct attack attack, const struct part *part)
{
    attack.setup.ports[0] = &part->lax;
    attack.setup.ports[1] = &part->strict;
    tries_every_kind(attack);
    attack.setup.ports[0] = &part->strict;
    attack.setup.ports[1] = &part->lax;
    tries_every_kind(attack);
}

/* Nobody knows the second policy; it was learned; both were; it is met once while the first is used. */
static const char *const HISTORIES[] = {"ppQQZ", "qqppQZ", "ppqQZ", "qpqpQpZQ"};

/* The first of a row's histories are of every day. */
static int histories(int everyday)
{
    return deep ? (int)(sizeof HISTORIES / sizeof *HISTORIES) : everyday;
}

static bool exists(enum way way)
{
#ifdef WITH_API
    return way < (on_nodes ? NOT_ATTACHED : WAYS);
#else
    return way < NOT_ATTACHED;
#endif
}

static void every_way_and_place(void)
{
    for (enum way way = 0; way < WAYS; way++) {
        if (!exists(way) || !row_starts(WAY[way]))
            continue;
        for (enum place place = first_place(); place <= last_place(); place++)
            for (int h = 0; h < histories(way == LATE || way == LATE_HOST ? 3 : 2); h++) {
                struct attack attack = {.setup.way = way,
                                        .place = place,
                                        .steps = HISTORIES[h],
                                        .every_kind = true};
                tries_both_directions(attack, &PARTS[0]);
            }
    }
}

static void every_part(void)
{
    for (const struct part *part = PARTS + 1; part < PARTS + ALL_PARTS; part++) {
        if (!row_starts(part->name))
            continue;
        for (int w = 0; w < ways_to(&part->strict); w++)
            for (int p = 0; p < 2; p++)
                for (int h = 0; h < histories(1); h++) {
                    enum place place = p ? OTHER_PROCESS : SAME_PROCESS;
                    struct attack attack = {
                        .setup.way = WAYS_TO_PARTS[w], .place = place, .steps = HISTORIES[h]};
                    tries_both_directions(attack, part);
                }
    }
}

/* From a public port to one that asks for certificates, with something more. */
static void with(const char *name, struct attack attack, const enum way *ways, int count)
{
    if (!row_starts(name))
        return;
    attack.setup.ports[0] = OPEN_TO_ALL;
    attack.setup.ports[1] = MEMBERS_ONLY;
    for (int w = 0; w < count; w++)
        for (enum place place = SAME_PROCESS; place <= OTHER_PROCESS; place++) {
            attack.setup.way = ways[w];
            attack.place = place;
            tries_every_kind(attack);
        }
}

static void further_ones(void)
{
    static const enum way CALLBACKS[] = {BY_SERVER_NAME, BY_CLIENT_HELLO, SET_BY_NAME};
    static const enum way MOST[] = {BY_SERVER_NAME, BY_CLIENT_HELLO, SET_BY_NAME, BY_CONNECTION,
                                    NO_CALLBACK};
    struct attack plain = {.steps = "ppQQZ"}, named = plain;
    struct attack tickets = plain, callback = plain, ids = plain, early = plain, chain = plain;
    named.made_for = "B.example";
    named.taken_to = "b.example";
    with("B visited, b offered", named, CALLBACKS, 3);
    chain.steps = "ppMNMNN";
    with("renewal chains", chain, MOST, 5);
    callback.setup.tweak = NO_TICKETS_IN_CALLBACK;
    with("num_tickets 0 in the callback", callback, CALLBACKS, 3);
    tickets.setup.tweak = NO_TICKETS;
    with("num_tickets 0 per connection", tickets, MOST, 5);
    ids.setup.tweak = OWN_IDS;
    with("session ids of its own per connection", ids, MOST, 5);
    early.setup.tweak = EARLY_DATA;
    early.early = true;
    with("early data", early, MOST, 5);
}

/* What was learned is not forgotten for what strangers invent. */
static void invented_names(void)
{
    static const enum way ALL[] = {BY_SERVER_NAME, NO_CALLBACK};
    if (!row_starts("9000 invented names"))
        return;
    for (int w = 0; w < 2; w++)
        for (int k = 0; k < 3; k++) {
            struct attack attack = {.mode = "stateless", .kind = KINDS_OF_CLIENTS[k]};
            attack.setup.way = ALL[w];
            attack.setup.ports[0] = OPEN_TO_ALL;
            attack.setup.ports[1] = MEMBERS_ONLY;
            attack.made_for = attack.taken_to = "site.example";
            attack.steps = "qqppFppQZ";
            if (deep || (w == 0 && k == 0))
                tries(&attack);
        }
}

/* Sessions of clients that were not authenticated by a certificate that holds: not even under the policy that they were
 * made under. */
static void what_is_not_made_resumable(void)
{
    if (!row_starts("not made resumable"))
        return;
    for (int i = 0; i < 2 * ALL_PARTS; i++)
        for (int w = 0; w < 2; w++) {
            struct attack attack = {.steps = "ppQZ"};
            attack.setup.way = w ? NO_CALLBACK : BY_SERVER_NAME;
            attack.setup.ports[0] = attack.setup.ports[1] = policy_of(i);
            if (policy_of(i)->never)
                tries_every_kind(attack);
        }
}

void attackers(void)
{
    every_way_and_place();
    if (on_nodes)
        return;
    every_part();
    further_ones();
    invented_names();
    what_is_not_made_resumable();
}
