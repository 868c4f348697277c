/* SPDX-License-Identifier: MIT */
/* The verbs of migrations that the server of the target does by itself: see migrate_native.h. */
#include "ops/migrate_native.h"

#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"

enum { SAMPLE = 64 << 10 }; /* bytes that are read twice, around each place */

/* ---- prepare -----------------------------------------------------------------------------------
 */

static int check_options(const struct platter_migrate_prepare_options *o, const char *name,
                         struct platter_error *err)
{
    if (o->format && strcmp(o->format, "raw") != 0)
        return native_refuse(err, name, "it makes a raw disk of it, not %s", o->format);
    if (o->options && *o->options)
        return native_refuse(err, name,
                             "what is said of a new image is said of the place (object_size, "
                             "features, data_pool ...)");
    if (o->state)
        return native_refuse(err, name, "the state of such a migration is kept by Ceph alone");
    return 0;
}

/* What Ceph reads is what we read, where there is something: so it gets at the source, and takes it
 * for what it is. */
static int compare_at(struct stream *target, struct platter_disk *disk, goff at,
                      struct platter_error *err)
{
    goff off = round_down(at, SAMPLE);
    size_t n = (size_t)min_u64(SAMPLE, disk_size(disk) - off);
    auto_free uint8_t *ours = malloc(SAMPLE), *theirs = malloc(SAMPLE);
    if (!ours || !theirs)
        return fail_memory(err, "comparing");
    int r = disk_read(disk, ours, n, off, err);
    if (r == 0)
        r = stream_pread(target, theirs, n, off, err);
    if (r < 0)
        return r;
    return memcmp(ours, theirs, n) == 0
               ? 0
               : fail(err, EIO, "%s: Ceph reads something else at offset %" PRIu64 " than platter",
                      disk_top(disk)->stream->name, off);
}

static int compare(const struct place *target, struct platter_disk *disk,
                   const struct native_samples *samples, struct platter_error *err)
{
    struct stream *s;
    uint64_t size;
    int r = place_open(target, 0, &s, err);
    if (r < 0)
        return r;
    r = stream_size(s, &size, err);
    if (r == 0 && size != disk_size(disk))
        r = fail(err, EIO, "%s: the disk has %" PRIu64 " bytes, and Ceph finds %" PRIu64,
                 target->name, disk_size(disk), size);
    const goff places[] = {0, samples->first, samples->last, disk_size(disk) - 1};
    for (size_t i = 0; r == 0 && i < sizeof places / sizeof *places; i++)
        r = compare_at(s, disk, places[i], err);
    stream_close(s);
    return r;
}

static int prepare_over(const struct source *source, struct platter_disk *disk,
                        const struct place *target, const struct platter_migrate_prepare_options *o,
                        struct platter_error *err)
{
    struct native_samples samples;
    char *spec = NULL;
    int r = native_spec(source, disk_top(disk)->format, &spec, err);
    if (r == 0 && o->has_disk_size && o->disk_size != disk_size(disk))
        r = native_refuse(err, source_name(source), "it makes the disk as large as it is here");
    if (r == 0)
        r = native_judge(disk, o, &samples, err);
    if (r == 0)
        r = target->kind->import->prepare(target, spec, err);
    if (spec)
        explicit_bzero(spec, strlen(spec));
    free(spec);
    if (r < 0)
        return r;
    r = compare(target, disk, &samples, err);
    if (r < 0 && target->kind->import->abort(target, NULL) < 0)
        fail_besides(err, -r, "the target could not be removed (rbd migration abort)");
    return r;
}

static int prepare_from(const char *name, const struct platter_open_options *given,
                        const struct source *source, const struct place *target,
                        const struct platter_migrate_prepare_options *o, struct platter_error *err)
{
    const unsigned not =
        PLATTER_OPEN_WRITE | PLATTER_OPEN_QUERY | PLATTER_OPEN_IN_ORDER | PLATTER_OPEN_SALVAGE;
    struct platter_open_options open = *given;
    struct platter_disk *disk;
    open.flags = (open.flags & ~not ) | PLATTER_OPEN_NO_BACKING;
    int r = disk_open(name, &open, &disk, err);
    if (r < 0)
        return r;
    r = prepare_over(source, disk, target, o, err);
    disk_close(disk, NULL);
    return r;
}

int migrate_native_prepare(const char *name, const struct platter_open_options *open,
                           const char *target, const struct platter_migrate_prepare_options *o,
                           struct platter_error *err)
{
    struct source source;
    struct place place;
    int r = place_parse_with(target, o->target_place, &place, err);
    if (r < 0)
        return r;
    if (!place.kind->import)
        r = fail(err, ENOTSUP, "%s: only a target in Ceph can be left to it (--native, rbd:...)",
                 place.name);
    if (r == 0)
        r = check_options(o, place.name, err);
    if (r == 0)
        r = source_of(name, open->place, &source, err);
    if (r == 0) {
        r = prepare_from(name, open, &source, &place, o, err);
        source_done(&source);
    }
    place_done(&place);
    return r;
}

/* ---- the others --------------------------------------------------------------------------------
 */

int migrate_native_find(const char *target, const struct platter_migrate_options *o,
                        struct place *ret, struct platter_error *err)
{
    struct place_import import;
    if (o->state || place_is_spec(target))
        return 0;
    int r = place_parse_with(target, o->target_place, ret, err);
    if (r < 0)
        return r;
    r = ret->kind->import ? ret->kind->import->status(ret, &import, err) : -ENOENT;
    if (r == 0) {
        place_import_done(&import);
        return 1;
    }
    place_done(ret);
    return r == -ENOENT ? 0 : r;
}

int migrate_native_execute(const struct place *target, const struct platter_migrate_options *o,
                           struct platter_error *err)
{
    if (o->rate)
        return fail(err, ENOTSUP, "%s: Ceph does the copying, and does it at its own rate",
                    target->name);
    return target->kind->import->execute(target, o->progress, o->opaque, err);
}

int migrate_native_commit(const struct place *target, struct platter_error *err)
{
    return target->kind->import->commit(target, err);
}

/* Ceph does not tell whether somebody wrote to it. */
int migrate_native_abort(const struct place *target, const struct platter_migrate_options *o,
                         struct platter_error *err)
{
    if (o->keep_writes)
        return fail(err, ENOTSUP,
                    "%s: what was written to it cannot be told from what Ceph copied, and so not "
                    "be kept alone: copy all of it (platter convert)",
                    target->name);
    if (!(o->flags & PLATTER_MIGRATE_DISCARD_WRITES))
        return fail(err, EPERM,
                    "%s: Ceph removes it, with all that may have been written to it since it was "
                    "prepared: say that this may be lost (--discard-writes)",
                    target->name);
    return target->kind->import->abort(target, err);
}

int migrate_native_refuse_owner(const struct place *target, struct platter_error *err)
{
    return fail(err, ENOTSUP,
                "%s: is migrated by Ceph, so it needs no owner: use it as any image of Ceph "
                "(platter serve, or a virtual machine)",
                target->name);
}

/* ---- status ------------------------------------------------------------------------------------
 */

/* From where, without the secrets in the document. */
static json_t *shown_source(const struct place_import *import)
{
    struct source source;
    if (!import->source || source_of(import->source, NULL, &source, NULL) < 0)
        return json_null();
    json_t *name = json_name(source_name(&source));
    source_done(&source);
    return name;
}

static json_t *describe(const struct place *target, const struct place_import *import)
{
    json_t *why = import->why ? json_name(import->why) : json_null();
    json_t *size = import->size ? json_integer((json_int_t)import->size) : json_null();
    return json_pack("{s:s, s:b, s:o, s:o, s:s, s:o, s:i, s:n, s:n, s:n, s:n, s:n, s:n, s:o, s:[], "
                     "s:i}",
                     "state", import->state, "native", 1, "source", shown_source(import), "target",
                     json_name(target->name), "format", "raw", "virtual-size", size, "percent",
                     (int)import->percent, "copied", "left", "rate", "written", "owner",
                     "failed-reads", "error", why, "missing", "missing-ranges", 0);
}

int migrate_native_status(const struct place *target, json_t **ret, struct platter_error *err)
{
    struct place_import import;
    int r = target->kind->import->status(target, &import, err);
    if (r < 0)
        return r;
    *ret = describe(target, &import);
    place_import_done(&import);
    return *ret ? 0 : fail_memory(err, "a status");
}
