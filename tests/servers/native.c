/* SPDX-License-Identifier: MIT */
/*
 * native VERB ...: migrations that Ceph does by itself, past the command line.
 *
 *     native prepare SOURCE TARGET [FORMAT [snapshots]]
 *     native execute TARGET [cancel]    prints how far it was told to be; or cancels at once, and
 *                                       prints what it is told when it begins again
 *     native status TARGET              prints JSON
 *     native commit TARGET
 *     native abort TARGET [discard]
 *
 * Ends with 0, or 1 and a sentence; 2 where the target is no such migration.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ops/migrate_native.h"

struct telling {
    bool cancel;
    uint64_t done, total;
};

static int tell(void *opaque, const struct platter_progress *now)
{
    struct telling *t = opaque;
    if (now->done < t->done || now->done > now->total)
        fprintf(stderr, "native: progress from %" PRIu64 " to %" PRIu64 " of %" PRIu64 "\n",
                t->done, now->done, now->total);
    t->done = now->done;
    t->total = now->total;
    return t->cancel;
}

static int prepare(char **argv, int argc, struct platter_error *err)
{
    struct platter_open_options open = {.size = sizeof open};
    struct platter_migrate_prepare_options o = {.size = sizeof o, .flags = PLATTER_MIGRATE_NATIVE};
    if (argc > 2 && *argv[2])
        open.format = argv[2];
    if (argc > 3)
        o.flags |= PLATTER_MIGRATE_SNAPSHOTS;
    return migrate_native_prepare(argv[0], &open, argv[1], &o, err);
}

static int status(const struct place *place, struct platter_error *err)
{
    json_t *told = NULL;
    int r = migrate_native_status(place, &told, err);
    if (r == 0)
        json_dumpf(told, stdout, JSON_COMPACT);
    json_decref(told);
    return r;
}

static int run(const char *verb, const struct place *place, bool more, struct platter_error *err)
{
    struct telling t = {.cancel = more};
    struct platter_migrate_options o = {.size = sizeof o, .progress = tell, .opaque = &t};
    if (strcmp(verb, "status") == 0)
        return status(place, err);
    if (strcmp(verb, "commit") == 0)
        return migrate_native_commit(place, err);
    if (strcmp(verb, "abort") == 0) {
        o.flags = more ? PLATTER_MIGRATE_DISCARD_WRITES : 0;
        return migrate_native_abort(place, &o, err);
    }
    int r = migrate_native_execute(place, &o, err);
    struct platter_error again = {0};
    if (r == -ECANCELED && migrate_native_execute(place, &o, &again) < 0)
        printf("%s\n", again.message);
    else
        printf("%" PRIu64 "\n", t.total);
    return r;
}

int main(int argc, char **argv)
{
    struct platter_error err = {0};
    struct platter_migrate_options o = {.size = sizeof o};
    struct place place;
    if (argc < 3)
        return 3;
    int r;
    if (strcmp(argv[1], "prepare") == 0) {
        r = prepare(argv + 2, argc - 2, &err);
    } else {
        r = migrate_native_find(argv[2], &o, &place, &err);
        if (r == 0)
            return 2;
        if (r == 1) {
            r = run(argv[1], &place, argc > 3, &err);
            place_done(&place);
        }
    }
    if (r < 0)
        fprintf(stderr, "native: %s\n", err.message);
    fflush(NULL);
    if (r == -ECANCELED) /* as the command, which dies of its signal: the copy is under way */
        _exit(1);
    return r < 0;
}
