#define _POSIX_C_SOURCE 200809L

#include "options.h"

#include "common.h"

#include <getopt.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: prefork_server [options]\n"
    "  --listen ADDR:PORT          where all loops accept (default 127.0.0.1:0, any port)\n"
    "  --workers N                 processes (default 2)\n"
    "  --threads N                 threads of each worker (default 1)\n"
    "  --direct                    each loop also accepts on a port of its own\n"
    "  --name NAME                 name in the answers (default \"server\")\n"
    "  --cert FILE --key FILE      certificate and key (default: a self-signed one)\n"
    "  --ca FILE                   require client certificates signed by these\n"
    "  --vhost NAME[=CAFILE]       a virtual host; with CAFILE it requires client certificates\n"
    "  --tls1.2 | --tls1.3         only this version\n"
    "  --early-data N              accept N bytes of early data\n"
    "  --no-session-id-context     leave the session id context empty\n"
    "  --handle                    tlsresume_new() and _attach() instead of _install();\n"
    "                              needed for GET /stats and SIGHUP\n"
    "  --plain                     without libtlsresume\n";

enum {
    LISTEN = 1, WORKERS, THREADS, NAME, CERT, KEY, CA, VHOST, EARLY_DATA, HELP
};

static void add_vhost(struct options *options, char *text)
{
    if (options->vhost_count == MAX_VHOSTS)
        die("--vhost: at most %d", MAX_VHOSTS);
    char *equals = strchr(text, '=');
    if (equals != NULL)
        *equals = '\0';
    options->vhosts[options->vhost_count++] = (struct vhost){
        .name = text,
        .ca = equals != NULL ? equals + 1 : NULL,
    };
}

struct options parse_options(int argc, char **argv)
{
    static struct options options = {
        .name = "server", .listen = "127.0.0.1:0", .workers = 2, .threads = 1,
    };
    static const struct option known[] = {
        {"listen", required_argument, NULL, LISTEN},
        {"workers", required_argument, NULL, WORKERS},
        {"threads", required_argument, NULL, THREADS},
        {"direct", no_argument, &options.direct, 1},
        {"name", required_argument, NULL, NAME},
        {"cert", required_argument, NULL, CERT},
        {"key", required_argument, NULL, KEY},
        {"ca", required_argument, NULL, CA},
        {"vhost", required_argument, NULL, VHOST},
        {"tls1.2", no_argument, &options.tls_version, TLS1_2_VERSION},
        {"tls1.3", no_argument, &options.tls_version, TLS1_3_VERSION},
        {"early-data", required_argument, NULL, EARLY_DATA},
        {"no-session-id-context", no_argument, &options.no_session_id_context, 1},
        {"handle", no_argument, &options.handle, 1},
        {"plain", no_argument, &options.plain, 1},
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };

    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 0: /* a flag, which getopt_long has set */
            break;
        case LISTEN:
            options.listen = optarg;
            break;
        case WORKERS:
            options.workers = (int)parse_number("--workers", optarg, 1, MAX_WORKERS);
            break;
        case THREADS:
            options.threads = (int)parse_number("--threads", optarg, 1, MAX_THREADS);
            break;
        case NAME:
            options.name = optarg;
            break;
        case CERT:
            options.cert = optarg;
            break;
        case KEY:
            options.key = optarg;
            break;
        case CA:
            options.ca = optarg;
            break;
        case VHOST:
            add_vhost(&options, optarg);
            break;
        case EARLY_DATA:
            options.early_data = (uint32_t)parse_number("--early-data", optarg, 0, UINT32_MAX);
            break;
        case HELP:
            fputs(usage, stdout);
            exit(0);
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (optind != argc)
        die("prefork_server takes no arguments: %s", argv[optind]);
    if ((options.cert == NULL) != (options.key == NULL))
        die("--cert and --key go together");
    if (options.plain && options.handle)
        die("--plain is without the library, --handle is with it");
    return options;
}
