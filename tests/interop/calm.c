/* SPDX-License-Identifier: MIT */
/*
 * Loaded into nbdkit beside the sanitizer's library, which leaves a lock of the C library's locales
 * taken: p11-kit, which frees its locale at exit, would then stand still for ever. And the plugin
 * stays, so that a leak is told with the names of who left it.
 */
#include <dlfcn.h>
#include <locale.h>

void freelocale(locale_t locale)
{
    (void)locale;
}

int dlclose(void *library)
{
    (void)library;
    return 0;
}
