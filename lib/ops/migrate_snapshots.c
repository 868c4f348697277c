/* SPDX-License-Identifier: MIT */
/*
 * Snapshots that come along in a migration. They are copied by prepare, oldest first; what the
 * target has then is what its newest one has. Where the disk of the source differs from that, the
 * target gives it up again, and shows the source; the rest is there already. A raw target does not
 * give up anything: its map of presence has what is right, and nothing else.
 *
 * The snapshots are complete. A cluster that none of them stores is zeros in them as soon as the
 * link is cut, and until then nobody opens them, for the image names a backing file that nothing
 * opens.
 */
#include <string.h>

#include "base/ckd.h"
#include "format/presence.h"
#include "ops/migrate.h"
#include "ops/snapshot_copy.h"
#include "stream/place.h"

/* ---- what there is to bring along ------------------------------------------------------------ */

static int check_snapshot(const char *target, bool raw, const struct snapshot_request *s,
                          struct platter_error *err)
{
    if (raw && s->vm_state_size)
        return fail(err, ENOTSUP,
                    "%s: snapshot \"%s\" has the state of a machine, which a raw target cannot "
                    "hold: a qcow2 can (-O qcow2)",
                    target, s->name);
    return 0;
}

int migrate_snapshots_look(struct platter_disk *source, const char *target,
                           const struct format *format, struct migrate_snapshots *ret,
                           struct platter_error *err)
{
    const struct platter_convert_options as_new = {.size = sizeof as_new};
    const struct snapshot_ops *ops = image_snapshots(disk_top(source));
    struct snapshot_request s;
    *ret = (struct migrate_snapshots){.names = json_array()};
    int r = snapshots_check_copy(source, format, &as_new, &ret->first_size, err);
    for (uint32_t i = 0; r == 0 && ops->describe(disk_top(source), i, &s); i++) {
        r = check_snapshot(target, format == &format_raw, &s, err);
        if (json_array_append_new(ret->names, json_name(s.name)) < 0 && r == 0)
            r = fail_memory(err, "the names of snapshots");
        ret->n++;
    }
    return r;
}

/* ---- a raw target: what is there already ------------------------------------------------------
 */

struct present {
    struct presence map;
    goff done; /* what lies before it is in the map, or differs */
};

/* All is right from p->done to `end`. Units are there as a whole, or not. */
static void present_until(struct present *p, goff end)
{
    const struct presence *map = &p->map;
    goff from = round_up(p->done, map->unit);
    if (end < map->disk_size)
        end = round_down(end, map->unit);
    if (from < end)
        presence_set(&p->map, from, end - from);
}

static int note_difference(void *opaque, goff off, uint64_t len, struct platter_error *err)
{
    struct present *p = opaque;
    (void)err;
    present_until(p, off);
    p->done = off + len;
    return 0;
}

/* Before the target is durable: nobody looks at the map before the state says that there is a
 * target. */
static int present_store(struct present *p, struct platter_error *err)
{
    bool more;
    int r;
    present_until(p, p->map.disk_size);
    presence_begin(&p->map);
    do {
        more = presence_copy(&p->map);
        r = presence_write(&p->map, err);
    } while (more && r == 0);
    return r == 0 ? stream_flush(p->map.stream, err) : r;
}

static int copy_to_raw(const struct copy *copy, struct platter_disk *source,
                       struct platter_disk *target, struct migrate_state *state,
                       struct platter_error *err)
{
    struct present p = {0};
    const struct snapshots_differ differ = {.fn = note_difference, .opaque = &p};
    struct stream *map;
    int r = migrate_state_presence(state, &map, err);
    if (r == 0)
        r = presence_load(&p.map, stream_share(map), true, copy->budget, err);
    if (r == 0)
        r = snapshots_copy_older(copy, source, target, state->size, &differ, err);
    if (r == 0)
        r = present_store(&p, err);
    presence_free(&p.map);
    return r;
}

/* ---- a qcow2 ----------------------------------------------------------------------------------
 */

static int uncover(void *opaque, goff off, uint64_t len, struct platter_error *err)
{
    return disk_uncover(opaque, off, len, err);
}

/* It gets its mark last: while it is filled there is nothing below. */
static int copy_to_qcow2(const struct copy *copy, struct platter_disk *source,
                         struct platter_disk *target, struct migrate_state *state,
                         struct platter_error *err)
{
    struct image *top = disk_top(target);
    const struct snapshots_differ differ = {.fn = uncover, .opaque = target};
    auto_free char *mark = migrate_mark(state);
    int r = mark ? snapshots_copy_older(copy, source, target, state->size, &differ, err)
                 : fail_memory(err, "a name");
    if (r == 0)
        r = disk_flush(target, err);
    return r < 0 ? r : top->format->set_backing(top, mark, "raw", NULL, err);
}

int migrate_snapshots_copy(struct platter_disk *source, struct platter_disk *target,
                           struct migrate_state *state,
                           const struct platter_migrate_prepare_options *o,
                           struct platter_error *err)
{
    struct copy copy = {.gaps = COPY_GAPS_SKIP,
                        .sparse = COPY_SPARSE,
                        .budget = budget_new(COPY_MEMORY),
                        .progress = o->progress,
                        .opaque = o->opaque};
    bool raw = strcmp(state->format, "raw") == 0;
    int r = !copy.budget ? fail_memory(err, "a copy")
            : raw        ? copy_to_raw(&copy, source, target, state, err)
                         : copy_to_qcow2(&copy, source, target, state, err);
    budget_unref(copy.budget);
    return r;
}

/* ---- away with them ---------------------------------------------------------------------------
 */

static bool is_ours(const struct migrate_state *state, const char *name)
{
    json_t *wanted = json_name(name);
    bool found = false;
    for (size_t i = 0; !found && i < json_array_size(state->snapshots); i++)
        found = json_equal(json_array_get(state->snapshots, i), wanted);
    json_decref(wanted);
    return found;
}

static int check_states(const struct migrate_state *state, const struct stream *s,
                        struct platter_error *err)
{
    for (unsigned i = 0; i < s->states->n; i++) {
        const struct stream_state *old = &s->states->all[i];
        if (!is_ours(state, old->name))
            return fail(err, ENOTEMPTY,
                        "%s: has a snapshot \"%s\", which was made since the migration was "
                        "prepared: nothing is removed while it is there",
                        s->name, old->name);
        if (old->is_protected)
            return fail(err, EBUSY,
                        "%s: its snapshot \"%s\" is protected, as other images may be clones of "
                        "it: nothing is removed while it is (rbd snap unprotect)",
                        s->name, old->name);
    }
    return 0;
}

int migrate_snapshots_remove(const struct migrate_state *state, const char *keys,
                             struct platter_error *err)
{
    const unsigned change = STREAM_LOCK_WRITE | STREAM_LOCK_RESIZE;
    struct stream *s;
    if (strcmp(state->format, "raw") != 0 || json_array_size(state->snapshots) == 0)
        return 0;
    int r = stream_open_with(state->place, keys, STREAM_FILE_WRITE, 0, &s, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if (s->states && s->states->remove) {
        r = stream_lock(s, STREAM_LOCK_READ | change, change, err);
        if (r == 0)
            r = check_states(state, s, err);
        while (r == 0 && s->states->n > 0)
            r = s->states->remove(s, s->states->n - 1, err);
    }
    stream_close(s);
    return r;
}
