/* Shared libraries that are loaded by the first call into them, since most commands call none of
 * them: loading them all is ten times the work of such a command. The stubs are generated
 * (tools/gen/lazy.py); each comes here once.
 *
 * Threads: any. Two that come at once find the same. */
#include "main/lazy.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

void *lazy_find(uint64_t n)
{
    const struct lazy_row *row = &lazy_rows[n];
    void *library = dlopen(row->library, RTLD_NOW | RTLD_LOCAL); /* stays, whoever asks again */
    void *function = library ? dlsym(library, row->function) : NULL;

    if (!function) { /* as the dynamic linker has it: a program without its library ends */
        (void)fprintf(stderr, "posada: %s\n", dlerror());
        _Exit(127);
    }
    __atomic_store_n(&lazy_slots[n], function, __ATOMIC_RELAXED); /* all find the same */
    return function;
}
