/* The command line of prefork_server. */
#ifndef EXAMPLES_OPTIONS_H
#define EXAMPLES_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#define MAX_WORKERS 64
#define MAX_THREADS 64
#define MAX_VHOSTS 16

struct vhost {
    const char *name;
    const char *ca; /* NULL: does not ask for client certificates */
};

struct options {
    const char *name;
    const char *listen;
    const char *cert, *key, *ca;
    struct vhost vhosts[MAX_VHOSTS];
    size_t vhost_count;
    int workers, threads;
    int tls_version; /* 0: any */
    uint32_t early_data;
    int direct, plain, handle, no_session_id_context;
};

/* Exits with a message when the command line is wrong, and after --help. */
struct options parse_options(int argc, char **argv);

#endif
