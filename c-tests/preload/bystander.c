/* A program that has nothing to do with TLS. Prints the objects that are loaded. With an argument it gives up root first. */
#define _DEFAULT_SOURCE

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1 && setuid(65534) != 0)
        return 2;
    char line[4096];
    FILE *maps = fopen("/proc/self/maps", "r");
    if (maps == NULL)
        return 1;
    while (fgets(line, sizeof line, maps) != NULL) {
        const char *name = strrchr(line, '/');
        if (name != NULL && strstr(line, "r-xp") != NULL)
            fputs(name + 1, stdout);
    }
    return fclose(maps);
}
