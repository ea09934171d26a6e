/* A program without libssl that loads plug-ins, each for itself as Apache and Python do, lets them serve and unloads
 * them. As many servers do, it clears its environment first. */
#define _DEFAULT_SOURCE

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static int serve(const char *path)
{
    void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void (*run)(void) = NULL;
    if (plugin != NULL)
        *(void **)&run = dlsym(plugin, "serve");
    if (run == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    run();
    return dlclose(plugin);
}

int main(int argc, char **argv)
{
    if (clearenv() != 0)
        return 1;
    for (int i = 1; i < argc; i++)
        if (serve(argv[i]) != 0)
            return 1;
    return 0;
}
