/* SPDX-License-Identifier: MIT */
/*
 * What a migration leaves where it is given up, or was never prepared to its end: the target goes,
 * and the state after it. A device stays, as does an export of a server, and so does a file that is
 * not ours: one that somebody put there after the state was written.
 */
#include <string.h>

#include "base/memory.h"
#include "ops/migrate.h"
#include "stream/place.h"

/* Whether the image names its migration for its backing file. */
static bool has_mark(const struct migrate_state *state, const char *keys)
{
    struct platter_open_options open = {.size = sizeof open,
                                        .flags = PLATTER_OPEN_QUERY | PLATTER_OPEN_NO_BACKING |
                                                 PLATTER_OPEN_NO_LOCK,
                                        .format = "qcow2",
                                        .place = keys};
    struct platter_disk *disk;
    auto_free char *mark = migrate_mark(state);
    if (!mark || disk_open(state->place, &open, &disk, NULL) < 0)
        return false;
    const char *name = disk_top(disk)->backing_name;
    bool same = name && strcmp(name, mark) == 0;
    disk_close(disk, NULL);
    return same;
}

static bool is_device(const char *name, const char *keys)
{
    struct stream *s;
    if (!place_is_file(name, NULL) || stream_open_with(name, keys, 0, 0, &s, NULL) < 0)
        return false;
    bool device = stream_is_device(s);
    stream_close(s);
    return device;
}

int migrate_remove_target(const struct migrate_state *state, const char *keys,
                          struct platter_error *err)
{
    bool ours = strcmp(state->format, "qcow2") == 0 ? has_mark(state, keys)
                                                    : state->made && !is_device(state->place, keys);
    int r = ours ? migrate_snapshots_remove(state, keys, err) : 0;
    if (r == 0 && ours && place_can_remove(state->place))
        r = place_remove(state->place, keys, err);
    return r == -ENOENT ? 0 : r;
}

int migrate_remove_remains(const char *target, const struct platter_migrate_options *o,
                           bool *ret_done, struct platter_error *err)
{
    struct migrate_state state;
    *ret_done = false;
    int r = migrate_state_claim(target, o->state, o->target_place, &state, err);
    if (r < 0)
        return r;
    *ret_done = state.phase == MIGRATE_PREPARING;
    if (*ret_done)
        r = migrate_remove_target(&state, o->target_place, err);
    if (*ret_done && r == 0)
        r = migrate_state_remove(&state, target, o->state, o->target_place, err);
    migrate_state_close(&state);
    return r;
}
