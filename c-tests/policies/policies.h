/* The matrix of policies: sessions that are made under one policy, and connections that are served under another. One
 * source for two programs: with WITH_API defined it attaches its contexts itself; without, the library comes by
 * LD_PRELOAD and the program does not know of it. */
#ifndef POLICIES_H
#define POLICIES_H

#include "check.h"

/* ---- Policies (parts.c): what decides who gets in. ---- */

/* What a client shows. */
enum who { NOBODY, MEMBER, SECOND_MEMBER, FOREIGNER, SELF_MADE, HAS_PSK, HAS_PASSWORD, ANONYMOUS };

struct policy {
    const char *name;
    void (*apply_ctx)(SSL_CTX *);
    /* What SSL_set_SSL_CTX does not bring along, or all of it where connections are told one by one. */
    void (*apply_ssl)(SSL *);
    /* The rest of it: right after the context was attached, and after it has served a member. */
    void (*apply_attached)(SSL_CTX *), (*apply_live)(SSL_CTX *);
    enum who client;     /* who gets in */
    bool bare;           /* the context has no certificate */
    int only;            /* the one version that it is for, or 0 */
    bool is_private;     /* the library cannot read it: sessions need not leave their context */
    bool never;          /* its clients do not resume */
    bool by_connection;  /* apply_ssl does all of it */
};

/* Two policies that differ in one part. */
struct part {
    const char *name;
    struct policy lax, strict;
};

extern const struct part PARTS[];
extern const int ALL_PARTS;

/* The first part's: a public server, and one that requires a member's certificate. */
extern const struct policy *const OPEN_TO_ALL, *const MEMBERS_ONLY;

/* All policies of the table, two for each part: 0 to 2 * ALL_PARTS - 1. */
const struct policy *policy_of(int number);

/* ---- Certificates (people.c). ---- */

void make_people(void);
/* The same for all processes that are told the same folder: the first one writes, others read. */
void keep_people(const char *folder);
void find_people(const char *folder);

X509 *authority(enum who whose);
X509_CRL *list_of_revoked(enum who revoked);
void client_is(SSL_CTX *client, enum who who);

/* Answers of a server that knows clients by a shared key or a password. */
unsigned knows_psk(SSL *ssl, const char *identity, unsigned char *psk, unsigned most);
int finds_psk(SSL *ssl, const unsigned char *identity, size_t len, SSL_SESSION **session);
/* They found the client of this connection: TLS 1.3 calls that a resumption, too. */
extern bool key_was_shown;
/* False where this OpenSSL has no SRP. */
bool knows_passwords(SSL_CTX *server);

/* ---- Sites (site.c): how a server comes to the policy of a connection. ---- */

enum way {
    BY_SERVER_NAME,      /* the servername callback switches contexts */
    BY_CLIENT_HELLO,     /* so does the client-hello callback */
    SET_BY_NAME,         /* SSL_set_verify() in the servername callback */
    SET_BY_ALPN,         /* the same in the ALPN callback */
    BY_CONNECTION,       /* the same right after SSL_new() */
    LATE,                /* SSL_CTX_set_verify() on the attached context after its first handshake */
    LATE_HOST,           /* the same, on a context to which the servername callback switches */
    NO_CALLBACK,         /* a context for each port */
    NOT_ATTACHED,        /* BY_SERVER_NAME to contexts that nobody attached: through the API alone */
    WAYS
};
extern const char *const WAY[WAYS];

/* The ways to come to a policy of the table: the first two, or all. */
enum { MOST_WAYS_TO_PARTS = 4 };
extern const enum way WAYS_TO_PARTS[MOST_WAYS_TO_PARTS];
int ways_to(const struct policy *policy);

/* What a server does to connections under the second policy, beside that. */
enum tweak {
    AS_IT_IS,
    NO_TICKETS_IN_CALLBACK,   /* SSL_set_num_tickets(ssl, 0), by the servername callback */
    NO_TICKETS,               /* the same, right after SSL_new() */
    OWN_IDS,                  /* SSL_set_generate_session_id() */
    EARLY_DATA                /* every context takes early data */
};

enum { MOST_PORTS = 3 };

struct setup {
    enum way way;
    enum tweak tweak;
    const struct policy *ports[MOST_PORTS];    /* the policy of each port */
};

struct site {
    const struct setup *setup;
    SSL_CTX *front, *hosts[MOST_PORTS];
    int last;                /* the port whose policy is in force: LATE */
    bool has_served, is_live[MOST_PORTS];
};

void site_open(struct site *site, const struct setup *setup);
/* Before a connection to this port is accepted, in the process that accepts all of them. */
void site_turns(struct site *site, int port);
SSL *site_accepts(struct site *site, int port);
/* One more context of the server. */
SSL_CTX *new_host(const struct policy *policy, enum tweak tweak, bool attached);

/* ---- Processes (process.c): servers that serve when they are told to. ---- */

enum outcome { REFUSED, FULL, RESUMED, DIED };

enum { MOST_SESSION = 8192, MOST_NAME = 40 };

/* A client as the test sees it, with the session that it would offer. */
struct guest {
    char name[MOST_NAME];
    int kind;                /* TLS12_ID, TLS12_TICKET or TLS13_STATELESS */
    enum who who;
    bool insists;            /* sends early data along */
    int session_len;
    unsigned char session[MOST_SESSION];
};

enum place { SAME_PROCESS, FORKED_CHILD, OTHER_PROCESS, OTHER_NODE, PLACES };
extern const char *const PLACE[PLACES];

struct world {
    bool is_large;           /* for many sessions; all else is 0 before it is opened */
    enum place place;
    int count;
    struct {
        int pid, socket;
    } processes[2];
    char paths[2][512];
};

/* What is in force besides the setup: the environment is read when the first context is attached. */
void world_open(struct world *world, const struct setup *setup, enum place place, const char *mode);
void world_close(struct world *world);
/* A visit to a port of a process. Guests that were served have a newer session then. took_early: whether the
 * application was handed early data. */
enum outcome world_visit(struct world *world, int process, int port, struct guest *guest,
                         bool *took_early);
/* Nodes find each other first: a client of the first port resumes at the second one. False: not within a few
 * seconds. */
bool world_is_ready(struct world *world, int kind, enum who who);
/* Guests of `count` names come to the first port, round by round; how many of them resumed in the last one. */
int world_crowd(struct world *world, int count, int rounds, int kind);
/* Contexts that verify come and go. */
void world_churn(struct world *world, int count);

struct guest guest_new(const char *name, int kind, enum who who);

/* For the program when it was started as a server: argv. */
int serve_as_told(int argc, char **argv);

/* ---- Rows (main.c): what is counted. ---- */

extern const char *folder;    /* for certificates and memory paths, gone after the test */
extern bool deep;        /* TLSRESUME_DEEP: every history, every kind */
extern bool on_nodes;    /* only what goes from node to node */

/* What the cells of a row go through: the library's modes; what clients resume by, and its name; places. */
extern const char *const MODES[2];
extern const int KINDS_OF_CLIENTS[3];
extern const char *const KIND_OF_CLIENT[];
enum place first_place(void);
enum place last_place(void);

/* False: the command line names other rows. */
bool row_starts(const char *name);
enum verdict { BAD, GOOD, NOT_TRIED };
/* One more cell of the row that started last; one that is not good is printed. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void row_counts(enum verdict verdict, const char *format, ...);

void attackers(void);
void honest_clients(void);

#endif
