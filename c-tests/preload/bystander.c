/* A program that has nothing to do with TLS. Prints the objects that are loaded. */
#include <stdio.h>
#include <string.h>

int main(void)
{
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
