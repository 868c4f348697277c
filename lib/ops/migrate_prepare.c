/* SPDX-License-Identifier: MIT */
/*
 * A new target with its state. The source is looked at as far as it can be beforehand, so that
 * what would fail in the middle fails here: its first and its last data is read.
 *
 * First the state appears, which says that there is nothing yet, then the target, and then the
 * state says what there is: a crash in between leaves what the next prepare replaces.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/ckd.h"
#include "ops/migrate.h"
#include "ops/migrate_native.h"
#include "ops/target.h"
#include "stream/place.h"

enum { PROBE = 4096 }; /* bytes that are read to see that they can be */

struct preparation {
    const char *target;
    const struct platter_migrate_prepare_options *o;
    struct platter_disk *source;
    struct migrate_state state;
    struct migrate_snapshots snapshots; /* that are brought along; 0 of them */
};

/* ---- the source ------------------------------------------------------------------------------ */

/* Reads a piece of the first data at or behind `off`, of which not much is passed by. */
static int probe_at(struct platter_disk *disk, goff off, struct platter_error *err)
{
    uint8_t piece[PROBE];
    uint64_t size = disk_size(disk);
    for (unsigned i = 0; i < 64 && off < size; i++) {
        struct disk_extent x;
        int r = disk_map(disk, off, size - off, &x, err);
        if (r < 0)
            return r;
        if (x.e.kind != EXTENT_ZERO)
            return disk_read(disk, piece, (size_t)min_u64(PROBE, x.e.len), off, err);
        off += x.e.len;
    }
    return 0;
}

static int open_source(struct preparation *p, const char *name,
                       const struct platter_open_options *open, struct platter_error *err)
{
    int r = migrate_source_keep(name, open, &p->state.source, err);
    if (r == 0)
        r = disk_open(name, open, &p->source, err);
    if (r < 0)
        return r;
    /* What was found by content is named from now on: nobody guesses again. */
    if (!open->format && !place_is_spec(name))
        json_object_set_new(p->state.source, "format",
                            json_string(disk_top(p->source)->format->name));
    uint64_t size = disk_size(p->source);
    r = probe_at(p->source, 0, err);
    if (r == 0)
        r = probe_at(p->source, round_down(size - size / 8, PROBE), err);
    return r == 0 ? disk_identity(p->source, 0, &p->state.identity, err) : r;
}

static int look_at_snapshots(struct preparation *p, struct platter_error *err)
{
    if (!(p->o->flags & PLATTER_MIGRATE_SNAPSHOTS))
        return 0;
    int r = migrate_snapshots_look(p->source, p->target, format_find(p->state.format),
                                   &p->snapshots, err);
    if (r == 0 && p->snapshots.n > 0 && p->state.part)
        r = fail(err, ENOTSUP,
                 "%s: a raw file cannot have snapshots, of which the source has %" PRIu32
                 ": a qcow2 can (-O qcow2), and so can an image in Ceph",
                 p->target, p->snapshots.n);
    /* Those of a qcow2 go with it. */
    if (r == 0 && p->snapshots.n > 0 && strcmp(p->state.format, "raw") == 0)
        p->state.snapshots = json_incref(p->snapshots.names);
    return r;
}

/* ---- the target ------------------------------------------------------------------------------ */

static int choose_format(struct preparation *p, struct platter_error *err)
{
    bool file = place_is_file(p->target, NULL);
    const char *format = p->o->format ? p->o->format : file ? "qcow2" : "raw";
    if (strcmp(format, "qcow2") != 0 && strcmp(format, "raw") != 0)
        return fail(err, ENOTSUP,
                    "%s: the target of a migration is qcow2 or raw, not %s: convert it afterwards",
                    p->target, format);
    p->state.format = string_copy(format);
    return p->state.format ? 0 : fail_memory(err, "a name");
}

static int choose_size(struct preparation *p, struct platter_error *err)
{
    uint64_t least = disk_size(p->source);
    uint64_t size = p->o->has_disk_size ? p->o->disk_size : least;
    if (size < least)
        return fail(err, EINVAL,
                    "%s: the target must have at least the %" PRIu64
                    " bytes of the source, not %" PRIu64,
                    p->target, least, size);
    if (ckd_round_up(&p->state.size, size, 512) || p->state.size > INT64_MAX)
        return fail(err, EFBIG, "%s: a disk has at most 2^63 - 512 bytes", p->target);
    return 0;
}

static int choose_id(struct preparation *p, struct platter_error *err)
{
    uint64_t random[2];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return fail_errno(err, errno, "%s: no random name to be had", p->target);
    p->state.id = string_format("%016" PRIx64 "%016" PRIx64, random[0], random[1]);
    return p->state.id ? 0 : fail_memory(err, "a name");
}

/* A raw file would look complete. What is no file has the name that it is to have. */
static int choose_place(struct preparation *p, struct platter_error *err)
{
    struct stream *there = NULL;
    bool raw_file = strcmp(p->state.format, "raw") == 0 && place_is_file(p->target, NULL);
    if (raw_file && stream_open_with(p->target, p->o->target_place, 0, 0, &there, NULL) == 0) {
        bool device = stream_is_device(there);
        stream_close(there);
        if (!device)
            return fail(err, EEXIST, "%s: exists already", p->target);
        raw_file = false;
        if (!p->o->state)
            return fail(err, EINVAL, "%s: is a device: say where the state is to be kept (--state)",
                        p->target);
    }
    p->state.part = raw_file;
    p->state.place = migrate_place_of(p->target, raw_file);
    return p->state.place ? 0 : fail_memory(err, "a name");
}

/* Where the target stores something itself nothing of the source would show. */
static int check_empty(struct platter_disk *disk, struct platter_error *err)
{
    struct disk_extent x;
    uint64_t size = disk_size(disk);
    const struct image *top = disk_top(disk);
    int r = size ? disk_map_above(disk, 1, 0, size, &x, err) : 0;
    if (r == 0 && size && (x.e.kind != EXTENT_BACKING || x.e.len < size))
        r = fail(err, EINVAL,
                 "%s: with these options it has room set aside, which hides the source: without "
                 "preallocation",
                 top->stream->name);
    return r;
}

static int check_qcow2(struct target *t, struct platter_disk *disk, struct platter_error *err)
{
    json_t *info = disk_top(disk)->format->info(disk_top(disk));
    int r = 0;
    const char *compat = json_string_value(json_object_get(info, "compat"));
    if (compat && strcmp(compat, "0.10") == 0)
        r = fail(err, EINVAL,
                 "%s: an image of version 2 cannot say that a part of it reads as zeros, which a "
                 "target has to: without compat=0.10",
                 t->request->name);
    else if (json_object_get(info, "data-file"))
        r = fail(err, ENOTSUP, "%s: a target has no file for its data: without data_file",
                 t->request->name);
    json_decref(info);
    return r < 0 ? r : check_empty(disk, err);
}

/* An empty image, with nothing in it that is not the source's, becomes the target. */
static int fill_target(struct preparation *p, struct target *t, struct platter_error *err)
{
    bool qcow2 = strcmp(p->state.format, "qcow2") == 0;
    struct platter_disk *disk;
    if (!qcow2 && p->snapshots.n == 0)
        return 0;
    int r = target_disk(t, 0, &disk, err);
    if (r < 0)
        return r;
    if (qcow2)
        r = check_qcow2(t, disk, err);
    if (r == 0 && p->snapshots.n > 0)
        r = migrate_snapshots_copy(p->source, disk, &p->state, p->o, err);
    if (r == 0 && p->snapshots.n > 0)
        r = disk_identity_check(p->source, 0, p->state.identity, err);
    int e = disk_close(disk, r < 0 ? NULL : err);
    return r < 0 ? r : e;
}

/* From here on what has the name of the target is ours, should all of this be cut off. */
static int publish(struct preparation *p, struct target *t, struct platter_error *err)
{
    p->state.made = true;
    int r = migrate_state_write(&p->state, err);
    return r < 0 ? r : target_publish(t, err);
}

/* A raw target that is a file, and has its own name, was there before. */
static bool is_device(const struct preparation *p)
{
    return strcmp(p->state.format, "raw") == 0 && !p->state.part &&
           place_is_file(p->state.place, NULL);
}

static int make_target(struct preparation *p, struct platter_error *err)
{
    const struct platter_migrate_prepare_options *o = p->o;
    bool snapshots = p->snapshots.n > 0;
    bool marked = strcmp(p->state.format, "qcow2") == 0 && !snapshots;
    auto_free char *mark = migrate_mark(&p->state);
    struct target_request request = {.name = p->state.place,
                                     .fd = -1,
                                     .place = o->target_place,
                                     .format = format_find(p->state.format),
                                     .options = o->options,
                                     .size = snapshots ? p->snapshots.first_size : p->state.size,
                                     .backing = marked ? mark : NULL,
                                     .backing_format = marked ? "raw" : NULL,
                                     .secret = o->secret,
                                     .secret_opaque = o->secret_opaque,
                                     .exclusive = !is_device(p),
                                     .bulk = snapshots,
                                     .durable = true};
    struct target t;
    if (!mark)
        return fail_memory(err, "a name");
    int r = target_open(&request, 0, &t, err);
    if (r == 0)
        r = check_stream_not_of(t.stream, p->source, "source", err);
    if (r == 0)
        r = target_create(&t, err);
    if (r == 0)
        r = fill_target(p, &t, err);
    if (r == 0)
        r = publish(p, &t, err);
    return target_end(&t, r, err);
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* The target may have its name before the state says that it is prepared: what is left of a crash
 * there is in the way of nobody but the next prepare, which knows it for what it is. */
static int remove_remains(const struct preparation *p, struct platter_error *err)
{
    struct migrate_state old;
    const char *keys = p->o->target_place;
    int r = migrate_state_claim(p->target, p->o->state, keys, &old, err);
    if (r < 0)
        return r == -EBUSY || r == -ESTALE ? r : 0; /* of all else who makes the new one tells */
    if (old.phase == MIGRATE_PREPARING)
        r = migrate_remove_target(&old, keys, err);
    migrate_state_close(&old);
    return r;
}

/* Nothing stays of what failed; a target that got its name goes before the state that knows it. */
static void unmake(struct preparation *p, bool target)
{
    const char *keys = p->o->target_place;
    if (!target || migrate_remove_target(&p->state, keys, NULL) == 0)
        migrate_state_remove(&p->state, p->target, p->o->state, keys, NULL);
    /* Else the next prepare, or an abort, finds it. */
}

static int make(struct preparation *p, struct platter_error *err)
{
    const char *keys = p->o->target_place;
    bool raw = strcmp(p->state.format, "raw") == 0;
    int r = migrate_state_create(p->target, p->o->state, keys, raw, &p->state, err);
    if (r < 0)
        return r;
    r = make_target(p, err);
    bool target = r == 0;
    if (r == 0) {
        p->state.phase = MIGRATE_PREPARED;
        r = migrate_state_write(&p->state, err);
    }
    if (r < 0) {
        p->state.phase = MIGRATE_PREPARING;
        unmake(p, target);
    }
    return r;
}

int ops_migrate_prepare(const char *source, const struct platter_open_options *open,
                        const char *target, const struct platter_migrate_prepare_options *o,
                        struct platter_error *err)
{
    struct preparation p = {.target = target, .o = o, .state = {.error = json_null()}};
    if (o->flags & PLATTER_MIGRATE_NATIVE)
        return migrate_native_prepare(source, open, target, o, err);
    int r = open_source(&p, source, open, err);
    if (r == 0)
        r = choose_format(&p, err);
    if (r == 0)
        r = choose_size(&p, err);
    if (r == 0)
        r = choose_id(&p, err);
    if (r == 0)
        r = remove_remains(&p, err);
    if (r == 0)
        r = choose_place(&p, err);
    if (r == 0)
        r = look_at_snapshots(&p, err);
    if (r == 0)
        r = make(&p, err);
    migrate_state_close(&p.state);
    disk_close(p.source, NULL);
    json_decref(p.snapshots.names);
    return r;
}
