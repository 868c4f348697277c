/* SPDX-License-Identifier: MIT */
/* Shared libraries at run time: see library.h. */
#include "base/library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "base/memory.h"

static int load(struct library *lib, struct platter_error *err)
{
    void *handle = dlopen(lib->file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle) {
        const char *why = dlerror();
        return fail(err, ENOTSUP,
                    "%s needs the library %s, which cannot be loaded (%s): install it",
                    lib->purpose, lib->file, why ? why : "no reason given");
    }
    int r = 0;
    for (const struct library_symbol *s = lib->symbols; s->name && r == 0; s++) {
        void *address = dlsym(handle, s->name);
        if (address)
            memcpy(s->ret, &address, sizeof address);
        else
            r = fail(err, ENOTSUP, "the library %s is too old: it lacks %s(), which %s needs",
                     lib->file, s->name, lib->purpose);
    }
    dlclose(handle); /* stays: RTLD_NODELETE */
    return r;
}

int library_load(struct library *lib, struct platter_error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    WITH_LOCK(&lock);
    int r = lib->loaded ? 0 : load(lib, err);
    lib->loaded = r == 0;
    return r;
}
