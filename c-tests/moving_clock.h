/* A clock for the server's side that a test moves. To be included once, first, by a program: libssl and the library find
 * its functions before the C library's. */
#ifndef MOVING_CLOCK_H
#define MOVING_CLOCK_H

#define _GNU_SOURCE

#include "check.h"

#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Seconds by which the server's clock is ahead of the world's. The clients' is not: they would keep
 * to themselves what the server is to refuse. */
static long long ahead;

/* The world's clock goes on by a millisecond whenever somebody looks at it, however long a busy machine takes. */
static struct timespec world(void)
{
    static atomic_llong begun, looks;
    if (begun == 0) {
        struct timespec now;
        syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
        begun = now.tv_sec;
    }
    long long ms = ++looks;
    return (struct timespec){(time_t)(begun + ms / 1000), (long)(ms % 1000 * 1000000)};
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (clock != CLOCK_REALTIME)
        return (int)syscall(SYS_clock_gettime, clock, now);
    *now = world();
    if (server_runs)
        now->tv_sec += (time_t)ahead;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL)
        *out = now.tv_sec;
    return now.tv_sec;
}

/* The clock of OpenSSL since 3.1. */
int gettimeofday(struct timeval *out, void *zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = (suseconds_t)(now.tv_nsec / 1000);
    return 0;
}

static void server_clock_is_at(long long seconds)
{
    ahead = seconds;
}

enum { MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR };

#endif
