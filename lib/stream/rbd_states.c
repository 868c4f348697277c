/* SPDX-License-Identifier: MIT */
/* Snapshots of an image, as the older states of its stream. */
#include <string.h>

#include "base/memory.h"
#include "stream/rbd.h"

/* ---- opening --------------------------------------------------------------------------------- */

int rbd_open_at(struct rbd_stream *s, uint64_t snap, rbd_image_t *ret, struct platter_error *err)
{
    int r = librbd.open_by_id_read_only(s->pool, s->id, ret, NULL);
    if (r < 0) {
        *ret = NULL;
        return rbd_fail(&s->head, r, err, "the image cannot be opened once more");
    }
    r = snap == RBD_NO_SNAP ? 0 : librbd.snap_set_by_id(*ret, snap);
    if (r < 0) {
        librbd.close(TAKE(*ret));
        return rbd_fail(&s->head, r, err, "a snapshot cannot be opened");
    }
    return 0;
}

static int open_pool_of(struct rbd_stream *s, struct rbd_stream *of, struct platter_error *err)
{
    int64_t id = librados.ioctx_get_id(of->pool);
    int r = librados.ioctx_create2(s->cluster->handle, id, &s->pool);
    if (r < 0) {
        s->pool = NULL;
        return rbd_fail(&s->head, r, err, "the pool cannot be opened");
    }
    if (of->space)
        librados.ioctx_set_namespace(s->pool, of->space);
    s->space = string_copy(of->space);
    return of->space && !s->space ? fail_memory(err, "a name") : 0;
}

static int open_state(struct stream *base, unsigned i, struct stream **ret,
                      struct platter_error *err)
{
    struct rbd_stream *of = rbd_of(base), *s;
    auto_free char *name = string_format("%s@%s", base->name, of->snapshots[i].name);
    if (!name)
        return fail_memory(err, "a name");
    int r = rbd_stream_new(rbd_cluster_share(of->cluster), name, &s, err);
    if (r < 0)
        return r;
    strcpy(s->id, of->id);
    s->snap = of->snapshot_ids[i];
    r = open_pool_of(s, of, err);
    if (r == 0)
        r = rbd_open_at(s, s->snap, &s->image, err);
    if (r == 0)
        r = rbd_stream_learn(s, err);
    if (r < 0) {
        stream_close(&s->head);
        return r;
    }
    *ret = &s->head;
    return 0;
}

/* ---- the list -------------------------------------------------------------------------------- */

static void forget(struct rbd_stream *s)
{
    for (unsigned i = 0; i < s->states.n; i++)
        free((char *)s->snapshots[i].name);
    free(TAKE(s->snapshots));
    free(TAKE(s->snapshot_ids));
    s->states.n = 0;
    s->states.all = NULL;
}

/* What `list` tells of one, if it was made by a user, and not by a group or a mirror. Names are the
 * ids: no two snapshots have the same, and a number might be another one's name. */
static int keep(struct rbd_stream *s, const rbd_snap_info_t *snap, struct platter_error *err)
{
    rbd_snap_namespace_type_t type;
    struct timespec made = {0};
    int is_protected = 0;
    if (librbd.snap_get_namespace_type(s->image, snap->id, &type) == 0 &&
        type != RBD_SNAP_NAMESPACE_TYPE_USER)
        return 0;
    librbd.snap_get_timestamp(s->image, snap->id, &made);
    librbd.snap_is_protected(s->image, snap->name, &is_protected);
    char *name = string_copy(snap->name);
    if (!name)
        return fail_memory(err, "the names of snapshots");
    s->snapshot_ids[s->states.n] = snap->id;
    s->snapshots[s->states.n++] = (struct stream_state){.id = name,
                                                        .name = name,
                                                        .size = snap->size,
                                                        .date_sec = (uint32_t)made.tv_sec,
                                                        .date_nsec = (uint32_t)made.tv_nsec,
                                                        .is_protected = is_protected > 0};
    return 0;
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const rbd_snap_info_t *)a)->id, y = ((const rbd_snap_info_t *)b)->id;
    return (x > y) - (x < y);
}

static int list(struct rbd_stream *s, rbd_snap_info_t **ret, int *ret_n, struct platter_error *err)
{
    int n, most = 16;
    do {
        free(*ret);
        *ret = calloc((size_t)most, sizeof **ret);
        if (!*ret)
            return fail_memory(err, "the names of snapshots");
        n = librbd.snap_list(s->image, *ret, &most);
    } while (n == -ERANGE);
    *ret_n = n;
    if (n > 0)
        qsort(*ret, (size_t)n, sizeof **ret, by_id);
    return n < 0 ? rbd_fail(&s->head, n, err, "its snapshots cannot be listed") : 0;
}

static int reload(struct rbd_stream *s, struct platter_error *err)
{
    rbd_snap_info_t *all = NULL;
    int n = 0, r = list(s, &all, &n, err);
    forget(s);
    if (r == 0) {
        s->snapshots = calloc((size_t)n + 1, sizeof *s->snapshots);
        s->snapshot_ids = calloc((size_t)n + 1, sizeof *s->snapshot_ids);
        if (!s->snapshots || !s->snapshot_ids)
            r = fail_memory(err, "the names of snapshots");
        for (int i = 0; r == 0 && i < n; i++)
            r = keep(s, &all[i], err);
    }
    if (n > 0)
        librbd.snap_list_end(all);
    free(all);
    s->states.all = s->snapshots;
    return r;
}

/* ---- changes --------------------------------------------------------------------------------- */

static int accepts_name(struct stream *base, const char *name, struct platter_error *err)
{
    return *name && !strpbrk(name, "@/")
               ? 0
               : fail(
                     err, EINVAL,
                     "%s: a snapshot cannot be called \"%s\": a name in Ceph is not empty, and has "
                     "no @ and no /",
                     base->name, name);
}

/* A new image may have room that nothing was written to yet, which is not the snapshot's. */
static int create_alone(struct rbd_stream *s, const void *name, struct platter_error *err)
{
    pthread_rwlock_wrlock(&s->gate);
    int r = rbd_set_size(s, s->size, s->size, err);
    pthread_rwlock_unlock(&s->gate);
    if (r < 0)
        return r;
    r = librbd.snap_create(s->image, name);
    if (r == -EEXIST)
        return fail(err, EEXIST, "%s: has a snapshot \"%s\" already", s->head.name,
                    (const char *)name);
    if (r < 0)
        return rbd_fail(&s->head, r, err, "snapshot \"%s\" cannot be made", (const char *)name);
    return reload(s, err);
}

static int create_state(struct stream *base, const char *name, struct platter_error *err)
{
    return rbd_alone(rbd_of(base), create_alone, name, err);
}

static int remove_alone(struct rbd_stream *s, const void *i, struct platter_error *err)
{
    const char *name = s->snapshots[*(const unsigned *)i].name;
    int r = librbd.snap_remove(s->image, name);
    if (r == -EBUSY)
        return fail(err, EBUSY,
                    "%s: snapshot \"%s\" is protected, as other images are clones of it",
                    s->head.name, name);
    if (r < 0)
        return rbd_fail(&s->head, r, err, "snapshot \"%s\" cannot be deleted", name);
    rbd_runs_done(s);
    return reload(s, err);
}

static int remove_state(struct stream *base, unsigned i, struct platter_error *err)
{
    return rbd_alone(rbd_of(base), remove_alone, &i, err);
}

static int apply_alone(struct rbd_stream *s, const void *i, struct platter_error *err)
{
    const struct stream_state *state = &s->snapshots[*(const unsigned *)i];
    const char *name = state->name;
    uint64_t size = state->size;
    pthread_rwlock_wrlock(&s->gate);
    s->changes++;
    int r = librbd.snap_rollback(s->image, name);
    if (r == 0)
        s->size = s->room = size;
    pthread_rwlock_unlock(&s->gate);
    return r < 0 ? rbd_fail(&s->head, r, err, "cannot go back to snapshot \"%s\"", name) : 0;
}

static int apply_state(struct stream *base, unsigned i, struct platter_error *err)
{
    return rbd_alone(rbd_of(base), apply_alone, &i, err);
}

/* They go with the stream, whose new image has to be removed first, and them with it. */
static void close_states(struct stream_states *states)
{
    (void)states;
}

int rbd_states_load(struct rbd_stream *s, struct platter_error *err)
{
    if (s->snap != RBD_NO_SNAP || !*s->id)
        return 0; /* one of them, or an image of the first format, which are not made any more */
    s->states.open = open_state;
    s->states.differ = rbd_differ;
    s->states.accepts = accepts_name;
    s->states.create = create_state;
    s->states.remove = remove_state;
    s->states.apply = apply_state;
    s->states.close = close_states;
    s->head.states = &s->states;
    return reload(s, err);
}

void rbd_states_free(struct rbd_stream *s)
{
    forget(s);
}
