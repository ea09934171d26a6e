/* A program without libssl that loads plug-ins, each for itself as Apache and Python do, lets them serve and unloads
 * them. As many servers do, it clears its environment first. With "into FOLDER" before the plug-ins, that folder is its
 * root directory by the time that they serve; with "past", the C library does not know of that. */
#define _DEFAULT_SOURCE

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int change_root(const char *how, const char *root)
{
    long failed = how[0] == 'p' ? syscall(SYS_chroot, root) : chroot(root);
    if (failed || chdir("/") != 0) {
        fputs("chroot: this needs root\n", stderr);
        return 1;
    }
    return 0;
}

static int serve(const char *path, const char *how, const char *root)
{
    void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void (*run)(void) = NULL;
    if (plugin != NULL)
        *(void **)&run = dlsym(plugin, "serve");
    if (run == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    if (root != NULL && change_root(how, root) != 0)
        return 1;
    run();
    return dlclose(plugin);
}

int main(int argc, char **argv)
{
    const char *how = NULL, *root = NULL;
    if (clearenv() != 0)
        return 1;
    if (argc > 2 && (strcmp(argv[1], "into") == 0 || strcmp(argv[1], "past") == 0)) {
        how = argv[1];
        root = argv[2];
        argc -= 2;
        argv += 2;
    }
    for (int i = 1; i < argc; i++)
        if (serve(argv[i], how, root) != 0)
            return 1;
    return 0;
}
