/* Clients that stay where they are: their sessions resume. */
#include "policies.h"

#include <stdio.h>
#include <string.h>

/* Enough for two returns to each of two nodes, and one more. */
enum { VISITS = 6 };

/* ---- One client and more ---- */

struct stay {
    struct setup setup;
    enum place place;
    const char *mode;
    int kind;
    int first, ports;    /* every port has a name, and one client that goes there alone */
};

/* What the visits of one client came to, as letters: f full, r resumed, x refused, d the server died. */
struct course {
    char letters[2 * VISITS + 1];
    int full[2];    /* returns to each node that were full handshakes */
};

static void notes(struct course *course, enum outcome outcome)
{
    size_t len = strlen(course->letters);
    course->letters[len] = outcome == FULL      ? 'f'
                           : outcome == RESUMED ? 'r'
                           : outcome == REFUSED ? 'x'
                                                : 'd';
}

/* Where nobody verifies every return resumes; else one to a node may be a full handshake: the first after the node has
 * served anybody under rules. */
static bool may_be_full(const struct stay *stay, int nth_full)
{
    bool is_public = stay->ports == 1 && stay->setup.ports[stay->first] == OPEN_TO_ALL;
    return !is_public && nth_full == 1;
}

static bool is_well(const struct stay *stay, struct course *course, int nth, int process,
                    enum outcome outcome)
{
    notes(course, outcome);
    if (nth == 0)
        return outcome == FULL;
    /* Processes of one memory path are one node. */
    int node = stay->place == OTHER_NODE ? process : 0;
    return outcome == RESUMED || (outcome == FULL && may_be_full(stay, ++course->full[node]));
}

static const char *const NAMES[MOST_PORTS] = {"a.example", "b.example", "c.example"};

static bool stays(const struct stay *stay, struct course *courses)
{
    struct world world = {0};
    struct guest guests[MOST_PORTS];
    bool early, well;
    const struct policy *const *policies = stay->setup.ports;
    world_open(&world, &stay->setup, stay->place, stay->mode);
    well = world_is_ready(&world, stay->kind, policies[0]->client);
    for (int i = 0; i < stay->ports; i++)
        guests[i] = guest_new(NAMES[i], stay->kind, policies[stay->first + i]->client);
    for (int nth = 0; nth < VISITS; nth++)
        for (int i = 0; i < stay->ports; i++) {
            int process = nth % world.count, port = stay->first + i;
            enum outcome outcome = world_visit(&world, process, port, &guests[i], &early);
            bool good = is_well(stay, &courses[i], nth, process, outcome);
            well = well && good;
        }
    world_close(&world);
    return well;
}

static void counts(const struct stay *stay)
{
    struct course courses[MOST_PORTS];
    memset(courses, 0, sizeof courses);
    bool well = stays(stay, courses);
    row_counts(well ? GOOD : BAD, "not resumed: %s%s, %s, %s %s, %s: %s %s %s",
               stay->setup.ports[stay->first]->name,
               stay->ports > 1 ? " and others" : "", WAY[stay->setup.way], stay->mode,
               KIND_OF_CLIENT[stay->kind], PLACE[stay->place], courses[0].letters,
               courses[1].letters, courses[2].letters);
}

static void every_kind(struct stay stay, bool modes_matter)
{
    for (int m = 0; m < 2; m++)
        for (int k = 0; k < 3; k++) {
            int only = stay.setup.ports[0]->only;
            stay.mode = MODES[m];
            stay.kind = KINDS_OF_CLIENTS[k];
            /* In TLS 1.2 the modes differ in what clients that take tickets get: ids. */
            if (m == 1 && stay.kind != TLS13_STATELESS && !modes_matter)
                continue;
            if (only == 0 || only == KIND[stay.kind].version)
                counts(&stay);
        }
}

static void every_place(struct stay stay)
{
    for (stay.place = first_place(); stay.place <= last_place(); stay.place++)
        every_kind(stay, true);
}

static void everywhere(const char *name, const struct policy *policy)
{
    if (!row_starts(name))
        return;
    for (enum way way = 0; way < NOT_ATTACHED; way++) {
        /* What is set late was public before. */
        int first = policy != OPEN_TO_ALL && (way == LATE || way == LATE_HOST);
        struct stay stay = {.first = first, .ports = 1};
        stay.setup.way = way;
        stay.setup.ports[0] = OPEN_TO_ALL;
        stay.setup.ports[first] = policy;
        every_place(stay);
    }
}

/* ---- Rows ---- */

/* Those of which sessions can be expected back, and where. */
static void every_policy(void)
{
    if (!row_starts("every policy"))
        return;
    for (int i = 2; i < 2 * ALL_PARTS; i++)
        for (int w = 0; w < ways_to(policy_of(i)); w++)
            for (int p = 0; p < 2; p++) {
                const struct policy *policy = policy_of(i);
                struct stay stay = {.place = p ? OTHER_PROCESS : SAME_PROCESS, .ports = 1};
                stay.setup.way = WAYS_TO_PARTS[w];
                stay.setup.ports[0] = policy;
                bool is_whole = policy->apply_attached == NULL && policy->apply_live == NULL;
                bool is_known = is_whole && (policy->apply_ctx == MEMBERS_ONLY->apply_ctx ||
                                             policy->apply_ctx == OPEN_TO_ALL->apply_ctx);
                bool stays_inside = policy->is_private && stay.place != SAME_PROCESS;
                if (!policy->never && !is_known && !stays_inside)
                    every_kind(stay, deep);
            }
}

static void virtual_hosts(void)
{
    static const enum way WAYS_OF_HOSTS[] = {BY_SERVER_NAME, BY_CLIENT_HELLO};
    if (!row_starts("virtual hosts with several policies"))
        return;
    for (int w = 0; w < 2; w++) {
        struct stay stay = {.ports = MOST_PORTS};
        stay.setup.way = WAYS_OF_HOSTS[w];
        stay.setup.ports[0] = OPEN_TO_ALL;
        stay.setup.ports[1] = MEMBERS_ONLY;
        /* Their own clients, whom the others do not let in. */
        stay.setup.ports[2] = &PARTS[4].strict;
        every_place(stay);
    }
}

static struct setup two_contexts(void)
{
    struct setup setup = {.way = NO_CALLBACK};
    setup.ports[0] = OPEN_TO_ALL;
    setup.ports[1] = MEMBERS_ONLY;
    return setup;
}

static void many_names(void)
{
    enum { COUNT = 6000 };
    struct setup setup = two_contexts();
    if (!row_starts("6000 names on a node where somebody verifies"))
        return;
    for (int k = 0; k < (deep ? 3 : 1); k++) {
        struct world world = {.is_large = true};
        bool early;
        struct guest member = guest_new("members.example", KINDS_OF_CLIENTS[k], MEMBER);
        world_open(&world, &setup, SAME_PROCESS, "stateless");
        for (int i = 0; i < 3; i++)
            world_visit(&world, 0, 1, &member, &early);
        int resumed = world_crowd(&world, COUNT, 3, KINDS_OF_CLIENTS[k]);
        row_counts(resumed == COUNT ? GOOD : BAD, "not resumed: %s: %d of %d", KIND_OF_CLIENT[k],
                   COUNT - resumed, COUNT);
        world_close(&world);
    }
}

/* More at once than the library has callbacks of their own for. */
static void contexts_that_are_gone(void)
{
    static const enum way ALL[] = {BY_SERVER_NAME, BY_CONNECTION, NO_CALLBACK};
    if (!row_starts("520 contexts that verify were attached and freed"))
        return;
    for (int w = 0; w < 3; w++)
        for (enum place place = SAME_PROCESS; place <= OTHER_PROCESS; place++)
            for (int k = 0; k < 3; k++) {
                struct world world = {0};
                struct setup setup = {.way = ALL[w]};
                struct guest guest = guest_new("a.example", KINDS_OF_CLIENTS[k], NOBODY);
                bool early;
                setup.ports[0] = OPEN_TO_ALL;
                world_open(&world, &setup, place, "stateless");
                world_churn(&world, 520);
                /* The first handshake under a name of a program that knows rules is a full one. */
                struct guest first = guest_new("a.example", KINDS_OF_CLIENTS[k], NOBODY);
                world_visit(&world, 0, 0, &first, &early);
                world_visit(&world, 1, 0, &guest, &early);
                bool resumed = world_visit(&world, 0, 0, &guest, &early) == RESUMED;
                row_counts(resumed ? GOOD : BAD, "not resumed: %s, %s, %s", WAY[ALL[w]], KIND_OF_CLIENT[k],
                           PLACE[place]);
                world_close(&world);
            }
}

/* Also shows that the attackers' early data would arrive. */
static void early_data(void)
{
    static const enum way ALL[] = {BY_SERVER_NAME, BY_CLIENT_HELLO, BY_CONNECTION, NO_CALLBACK};
    if (!row_starts("early data of public servers"))
        return;
    for (int w = 0; w < 4; w++)
        for (int m = 0; m < 2; m++)
            for (enum place place = SAME_PROCESS; place <= OTHER_PROCESS; place++) {
                struct world world = {0};
                struct setup setup = {.way = ALL[w], .tweak = EARLY_DATA};
                struct guest guest = guest_new("a.example", TLS13_STATELESS, NOBODY);
                bool early;
                setup.ports[0] = OPEN_TO_ALL;
                world_open(&world, &setup, place, MODES[m]);
                world_visit(&world, 0, 0, &guest, &early);
                guest.insists = true;
                world_visit(&world, 1, 0, &guest, &early);
                row_counts(early ? GOOD : BAD, "not taken: %s, %s, %s", WAY[ALL[w]], MODES[m], PLACE[place]);
                world_close(&world);
            }
}

/* ---- Clients with a certificate whose session has other rules ---- */

/* Comes to the port that verifies until it is let in; how often it was refused. */
static int moves(struct world *world, int process, struct guest *guest)
{
    enum { MOST = 4 };
    bool early;
    for (int refused = 0; refused < MOST; refused++) {
        enum outcome outcome = world_visit(world, process, 1, guest, &early);
        if (outcome == FULL)
            return refused;
        if (outcome != REFUSED)
            break;
    }
    /* Never let in, or let in where it should not. */
    return MOST;
}

static void move(enum way way, enum place place, const char *mode, int kind)
{
    enum { GUESTS = 3 };
    struct setup setup = two_contexts();
    struct world world = {0};
    struct guest guests[GUESTS];
    int refused[2] = {0, 0};
    bool early;
    setup.way = way;
    world_open(&world, &setup, place, mode);
    bool ready = world_is_ready(&world, kind, NOBODY);
    for (int i = 0; i < GUESTS; i++) {
        guests[i] = guest_new("site.example", kind, MEMBER);
        for (int visits = 0; visits < 2; visits++)
            world_visit(&world, 0, 0, &guests[i], &early);
    }
    for (int i = 0; i < GUESTS; i++)
        refused[place == OTHER_NODE ? i % 2 : 0] += moves(&world, i % 2, &guests[i]);
    world_close(&world);
    row_counts(ready && refused[0] <= 1 && refused[1] <= 1 ? GOOD : BAD,
               "%s, %s %s, %s: refused %d and %d times (4: never let in, or with the old session)",
               WAY[way], mode,
               KIND_OF_CLIENT[kind], PLACE[place], refused[0], refused[1]);
}

static void sessions_of_other_rules(void)
{
    static const enum way MOVES[] = {BY_SERVER_NAME, BY_CLIENT_HELLO, SET_BY_NAME, BY_CONNECTION,
                                     NO_CALLBACK};
    if (!row_starts("one ended handshake at most, with a session of other rules"))
        return;
    for (int w = 0; w < 5; w++)
        for (enum place place = first_place(); place <= last_place(); place++)
            for (int m = 0; m < 2; m++)
                for (int k = 0; k < 3; k++)
                    move(MOVES[w], place, MODES[m], KINDS_OF_CLIENTS[k]);
}

void honest_clients(void)
{
    everywhere("public servers", OPEN_TO_ALL);
    everywhere("servers that verify", MEMBERS_ONLY);
    virtual_hosts();
    sessions_of_other_rules();
    if (on_nodes)
        return;
    every_policy();
    early_data();
    many_names();
    contexts_that_are_gone();
}
