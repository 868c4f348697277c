/* SPDX-License-Identifier: MIT */
/*
 * native TARGET: begins to copy what Ceph copies by itself, has enough of it at once, and begins
 * again; prints what both calls said. The process ends with the copy under way.
 */
#include <errno.h>
#include <platter/platter.h>
#include <stdio.h>
#include <unistd.h>

static int enough(void *opaque, const struct platter_progress *now)
{
    (void)opaque, (void)now;
    return 1;
}

int main(int argc, char **argv)
{
    const int expected[] = {-ECANCELED, -EALREADY};
    const struct platter_migrate_options options = {.size = sizeof options, .progress = enough};
    int code = argc != 2;
    for (int i = 0; i < 2 && code == 0; i++) {
        struct platter_error err = {0};
        code = platter_migrate_execute(argv[1], &options, &err) != expected[i];
        puts(err.message);
    }
    fflush(NULL);
    _exit(code);
}
