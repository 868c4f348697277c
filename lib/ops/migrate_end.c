/* SPDX-License-Identifier: MIT */
/*
 * The two ends of a migration. Commit, each step durable before the next, and all of them such that
 * they can be done again: the state says that it is being committed; the link is cut; a raw file
 * gets its name; the state goes. Abort: the state says that there is nothing of use any more; the
 * target goes, then the state (migrate_remove.c).
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/partial.h"
#include "ops/copy.h"
#include "ops/migrate.h"
#include "ops/migrate_native.h"
#include "ops/target.h"
#include "stream/place.h"

/* ---- commit ---------------------------------------------------------------------------------- */

static int cut_link(struct image *top, void *opaque, struct platter_error *err)
{
    (void)opaque;
    if (top->format == &format_partial) {
        partial_complete(top);
        return 0;
    }
    return top->backing_name ? top->format->set_backing(top, NULL, NULL, NULL, err) : 0;
}

/* What is left to do when the target is whole. What is done of it is not done again. */
static int end_commit(const char *target, const struct platter_migrate_options *o,
                      struct migrate_state *state, struct platter_error *err)
{
    const char *path = target;
    auto_free char *name = migrate_state_name(target, o->state);
    if (!name)
        return fail_memory(err, "a name");
    place_is_file(target, &path);
    int r = state->part ? stream_file_rename(state->place, path, err) : 0;
    if (r < 0)
        return r;
    state->part = false;
    stream_close(TAKE(state->map));
    stream_close(TAKE(state->stream));
    return place_remove(name, o->target_place, err);
}

/* One at a time, and not beside a copy. */
static int begin_commit(struct platter_migration *m, struct platter_error *err)
{
    WITH_LOCK(&m->lock);
    if (m->executing || m->state.phase < MIGRATE_EXECUTED)
        return fail(err, EAGAIN,
                    "%s: has not all of its source yet: it can be committed when execute has ended",
                    m->target);
    if (m->ending)
        return fail(err, EALREADY, "%s: is committed", m->target);
    m->ending = true;
    return 0;
}

/* The target stands alone: nobody writes the state any more, which goes. */
static int leave_state(struct platter_migration *m, struct platter_error *err)
{
    WITH_LOCK(&m->lock);
    m->ended = true;
    return end_commit(m->target, &m->options, &m->state, err);
}

int migration_commit(struct platter_migration *m, struct platter_error *err)
{
    int r = begin_commit(m, err);
    if (r < 0)
        return r;
    r = migration_enter(m, MIGRATE_COMMITTING, NULL, err);
    if (r == 0)
        r = disk_stand_alone(m->disk, cut_link, NULL, err);
    if (r == 0)
        r = leave_state(m, err);
    pthread_mutex_lock(&m->lock);
    m->ending = r == 0;
    pthread_mutex_unlock(&m->lock);
    return r;
}

/* ---- a commit that was cut off ----------------------------------------------------------------
 */

int migration_finish(const char *target, const struct platter_migrate_options *o,
                     struct platter_error *err)
{
    struct migrate_state state;
    struct stream *s = NULL;
    int r = migrate_state_open(target, o->state, o->target_place, false, &state, err);
    if (r < 0)
        return r;
    /* The file has its name already, so the state is all that is left. */
    if (state.phase == MIGRATE_COMMITTING && state.part &&
        stream_open_with(state.place, o->target_place, 0, 0, &s, NULL) == -ENOENT) {
        state.part = false;
        r = end_commit(target, o, &state, err);
        migrate_state_close(&state);
        return r < 0 ? r : 1;
    }
    stream_close(s);
    migrate_state_close(&state);
    return 0;
}

/* ---- abort ----------------------------------------------------------------------------------- */

/* A new qcow2 over the source, with what the target stores and the source has not; or, where the
 * source cannot be read, with all that the target stores. */
static int copy_writes(struct platter_migration *m, struct target *t,
                       const struct platter_migrate_options *o, struct platter_error *err)
{
    struct platter_disk *disk;
    struct copy copy = {.gaps = t->backing ? COPY_GAPS_DIFFER : COPY_GAPS_ZERO,
                        .above = 1,
                        .sparse = COPY_SPARSE,
                        .progress = o->progress,
                        .opaque = o->opaque};
    int r = target_create(t, err);
    if (r == 0)
        r = target_disk(t, o->memory_limit, &disk, err);
    if (r < 0)
        return r;
    copy.target = disk;
    r = copy_disk(&copy, m->disk, disk, NULL, err);
    int e = disk_close(disk, r < 0 ? NULL : err);
    r = r < 0 ? r : e;
    return r == 0 ? target_publish(t, err) : r;
}

/* The format of the source, as it was when it was looked at first. */
static const char *source_format(const struct platter_migration *m)
{
    return json_string_value(json_object_get(json_array_get(m->state.identity, 0), "format"));
}

static int keep_writes(struct platter_migration *m, const struct platter_migrate_options *o,
                       struct platter_error *err)
{
    auto_free char *backing = NULL;
    /* Its clusters are those of the target, so that each is there as a whole or not at all. */
    auto_free char *options =
        string_format("cluster_size=%" PRIu64, min_u64(disk_top(m->disk)->unit, 2 << 20));
    if (m->state.phase >= MIGRATE_EXECUTED)
        return fail(err, EINVAL,
                    "%s: needs nothing of its source any more: commit it, which keeps all of it",
                    m->target);
    int r = migration_attach(m, err);
    if (r == -ESTALE || r == -ENOMEM)
        return r; /* laid over another disk, what is kept would be no disk */
    bool there = r == 0;
    r = migrate_source_as_backing(m->state.source, &backing, err);
    if (r < 0)
        return r;
    struct target_request request = {.name = o->keep_writes,
                                     .fd = -1,
                                     .format = format_find("qcow2"),
                                     .options = options,
                                     .size = disk_size(m->disk),
                                     .backing = backing,
                                     .backing_format = source_format(m),
                                     .look_at_backing = there,
                                     .sources = &m->disk,
                                     .n_sources = 1,
                                     .allow = o->allow,
                                     .secret = o->secret,
                                     .secret_opaque = o->secret_opaque,
                                     .exclusive = true,
                                     .bulk = true,
                                     .durable = true,
                                     .progress = o->progress,
                                     .progress_opaque = o->opaque};
    struct target t;
    m->filling.copy_on_read = false;
    r = options ? target_open(&request, o->memory_limit, &t, err) : -ENOMEM;
    if (!options)
        return fail_memory(err, "the options of an image");
    if (r == 0)
        r = copy_writes(m, &t, o, err);
    return target_end(&t, r, err);
}

static int check_abort(const struct platter_migration *m, const struct platter_migrate_options *o,
                       struct platter_error *err)
{
    if (m->state.phase == MIGRATE_COMMITTING)
        return fail(err, EINVAL, "%s: its commit was begun, and has to be ended: commit it",
                    m->target);
    if (!m->state.written || o->keep_writes || (o->flags & PLATTER_MIGRATE_DISCARD_WRITES))
        return 0;
    return fail(err, EPERM,
                "%s: was written to since it was prepared, which would be lost: keep that in an "
                "image of its own (--keep-writes FILE.qcow2), or say that it may go "
                "(--discard-writes)",
                m->target);
}

static int abort_owned(const char *target, const struct platter_migrate_options *o,
                       struct platter_error *err)
{
    struct platter_migration *m;
    bool done = false;
    int r = migrate_remove_remains(target, o, &done, err);
    if (r < 0 || done)
        return r;
    r = migration_open(target, o, &m, err);
    if (r < 0)
        return r;
    r = check_abort(m, o, err);
    if (r == 0 && o->keep_writes)
        r = keep_writes(m, o, err);
    if (r == 0)
        /* From here on nobody becomes its owner any more, and another abort goes on with this. */
        r = migration_enter(m, MIGRATE_PREPARING, NULL, err);
    int e = migration_close(m, r < 0 ? NULL : err);
    if (r < 0 || e < 0)
        return r < 0 ? r : e;
    r = migrate_remove_remains(target, o, &done, err);
    return r == -ENOENT ? 0 : r; /* somebody else has ended it */
}

int ops_migrate_abort(const char *target, const struct platter_migrate_options *o,
                      struct platter_error *err)
{
    struct place native;
    int r = migrate_native_find(target, o, &native, err);
    if (r == 0)
        return abort_owned(target, o, err);
    if (r > 0) {
        r = migrate_native_abort(&native, o, err);
        place_done(&native);
    }
    return r;
}
