/* Loads a program that was built as a shared object, with the library, as servers load modules. */
#include "../failing_malloc.h"

#include <dlfcn.h>
#include <stdio.h>

bool (*allocation_fails)(void *caller);

static bool fails(void *caller)
{
    return allocation_fails != NULL && allocation_fails(caller);
}

int main(int argc, char **argv)
{
    union {
        void *address;
        int (*function)(int argc, char **argv);
    } program = {NULL};
    void *loaded = dlopen(PROGRAM, RTLD_NOW);
    if (loaded != NULL)
        program.address = dlsym(loaded, "program");
    if (program.address == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    return program.function(argc, argv);
}
