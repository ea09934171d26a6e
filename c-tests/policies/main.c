/* Runs the matrix and counts:
 *     policies FOLDER attackers|honest [ROW...]
 *     policies FOLDER nodes attackers|honest [ROW...]    from node to node, through the Redis of the environment
 * It prints a line for each row, and one for each cell that is not as it must be. FOLDER is for certificates and
 * memory. The exit status is 0 when all cells are as they must be. TLSRESUME_DEEP=1 takes more histories and kinds. */
#include "policies.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *folder;
bool deep, on_nodes;

const char *const MODES[2] = {"stateless", "stateful"};
const int KINDS_OF_CLIENTS[3] = {TLS12_ID, TLS12_TICKET, TLS13_STATELESS};
const char *const KIND_OF_CLIENT[] = {
    [TLS12_ID] = "TLS 1.2 id", [TLS12_TICKET] = "TLS 1.2 ticket", [TLS13_STATELESS] = "TLS 1.3"};

enum place first_place(void)
{
    return on_nodes ? OTHER_NODE : SAME_PROCESS;
}

enum place last_place(void)
{
    return on_nodes ? OTHER_NODE : OTHER_PROCESS;
}

static struct {
    const char *name;
    int cells, good, untried;
} row, total;

static bool of_attackers;
static char **wanted;

static void tell(const char *name, int cells, int good, int untried)
{
    if (of_attackers)
        printf("attackers: %s: %d cells, %d got in", name, cells, cells - good - untried);
    else
        printf("honest: %s: %d cells, %d resumed", name, cells, good);
    if (untried > 0)
        printf(", %d could not be tried", untried);
    putchar('\n');
    fflush(stdout);
}

static void row_ends(void)
{
    if (row.cells > 0)
        tell(row.name, row.cells, row.good, row.untried);
    total.cells += row.cells;
    total.good += row.good;
    total.untried += row.untried;
    memset(&row, 0, sizeof row);
}

bool row_starts(const char *name)
{
    bool chosen = *wanted == NULL;
    for (char **part = wanted; *part != NULL; part++)
        chosen = chosen || strstr(name, *part) != NULL;
    row_ends();
    row.name = name;
    return chosen;
}

void row_counts(enum verdict verdict, const char *format, ...)
{
    row.cells++;
    row.good += verdict == GOOD;
    row.untried += verdict == NOT_TRIED;
    if (verdict == GOOD)
        return;
    va_list arguments;
    va_start(arguments, format);
    printf("  %s: ", row.name);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    check_begin(0, argv);
    if (argc > 2 && strcmp(argv[1], "serve") == 0)
        return serve_as_told(argc, argv);
    CHECK_SAYING(argc > 2, "usage: %s FOLDER [nodes] attackers|honest [ROW...]", argv[0]);
    folder = argv[1];
    deep = getenv("TLSRESUME_DEEP") != NULL;
    on_nodes = strcmp(argv[2], "nodes") == 0;
    wanted = argv + 2 + on_nodes;
    CHECK(*wanted != NULL);
    of_attackers = strcmp(*wanted++, "attackers") == 0;
    make_people();
    keep_people(folder);
    if (of_attackers)
        attackers();
    else
        honest_clients();
    row_ends();
    tell("all", total.cells, total.good, total.untried);
    return total.cells > 0 && total.good == total.cells ? 0 : 1;
}
