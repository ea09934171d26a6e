/* A module that brings a TLS library of its own. */
#ifndef ANOTHER_H
#define ANOTHER_H

#include <stddef.h>

/* Makes, uses and frees a few of its objects, of this size. */
__attribute__((visibility("default"))) void another_library_at_work(size_t size);

#endif
