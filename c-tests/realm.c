#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <stdio.h>

TLSRESUME *realm_new(const char *toml)
{
    TLSRESUME *tr = tlsresume_new_from_string(toml);
    CHECK_SAYING(tr != NULL, "%s", toml);
    return tr;
}

TLSRESUME *realm_of(const struct kind *kind, const char *more)
{
    char toml[1024];
    snprintf(toml, sizeof toml, "[resumption]\nmode = \"%s\"\n%s", kind->mode, more);
    return realm_new(toml);
}

SSL_CTX *attached_server(TLSRESUME *tr)
{
    SSL_CTX *server = server_new();
    CHECK(tlsresume_attach(tr, server) == 1);
    return server;
}

TLSRESUME_STATS stats_of(TLSRESUME *tr)
{
    TLSRESUME_STATS stats;
    CHECK(tlsresume_stats(tr, &stats, sizeof stats) == 1);
    return stats;
}
