/* A plug-in that brings libssl into a program without it. */
#include "check.h"

#include <stdio.h>

__attribute__((visibility("default"))) void serve(void);

void serve(void)
{
    SSL_CTX *one = server_new(), *other = server_new();
    for (int k = TLS12_ID; k <= TLS13_STATELESS; k++) {
        struct visitor visitor = visitor_new(&KIND[k], "a.example");
        CHECK(!visit(&visitor, one));
        puts(visit(&visitor, other) ? "resumed" : "full");
        visitor_free(&visitor);
    }
    SSL_CTX_free(one);
    SSL_CTX_free(other);
}
