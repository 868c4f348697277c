/* SPDX-License-Identifier: MIT */
/* What there is to tell of a migration: of what it has in its state, and of what its target has. */
#include <string.h>
#include <unistd.h>

#include "base/awake.h"
#include "base/ckd.h"
#include "disk/inside.h"
#include "ops/migrate.h"
#include "stream/place.h"

enum {
    MOST_RANGES = 1000, /* of those that are missing, that are listed */
    MOST_UNTOLD = 4096  /* units in a row of which the source tells nothing: it is asked no more */
};

/* What a walk over the whole disk counts. */
struct counts {
    uint64_t copied, left; /* bytes that the target stores; that are data in the source alone */
    uint64_t ranges;       /* that cannot be read */
    goff last_end;         /* of the last of them */
    unsigned untold;       /* units in a row of which the source told nothing */
    bool lost;             /* nobody can tell what is in the source */
    bool failed;           /* what the last copy left there could not be read */
    json_t *list;
};

static void add_missing(struct counts *n, goff off, uint64_t len)
{
    json_t *last = json_array_get(n->list, json_array_size(n->list) - 1);
    if (n->ranges > 0 && n->last_end == off) {
        if (n->ranges == json_array_size(n->list))
            json_object_set_new(last, "length",
                                json_integer(json_integer_value(json_object_get(last, "length")) +
                                             (json_int_t)len));
    } else if (n->ranges++ < MOST_RANGES) {
        json_array_append_new(
            n->list, json_pack("{s:I, s:I}", "start", (json_int_t)off, "length", (json_int_t)len));
    }
    n->last_end = off + len;
}

/*
 * Of a range that the target lacks: what is in the source. With the disk pinned: the source goes
 * when all is copied, and then it lacks nothing that matters.
 */
static void count_below(struct platter_migration *m, goff off, uint64_t *len, struct counts *n)
{
    struct disk_extent x;
    bool known = !n->lost && m->disk->depth > 1;
    if (known && (disk_map_held(m->disk, off, *len, &x, NULL) < 0 || disk_find_holes(&x, NULL) < 0))
        known = false;
    else if (known)
        *len = x.e.len;
    /* A damaged table is no reason to give up what is behind it; a server that is gone is. */
    if (known)
        n->untold = 0;
    else if (!n->lost && m->disk->depth > 1 && n->untold++ < MOST_UNTOLD)
        *len = min_u64(*len, disk_top(m->disk)->unit);
    bool data = known && x.e.kind != EXTENT_ZERO;
    if (!known || (data && n->failed))
        add_missing(n, off, *len);
    n->left += data ? *len : 0;
}

static int count_first(struct platter_migration *m, goff off, uint64_t *len, struct counts *n,
                       struct platter_error *err)
{
    struct image *top = disk_top(m->disk);
    struct extent e;
    int r = top->format->map(top, off, *len, &e, err);
    if (r < 0)
        return r;
    *len = e.len;
    if (e.kind == EXTENT_BACKING && (m->disk->cut || m->disk->depth > 1))
        count_below(m, off, len, n);
    else if (e.kind == EXTENT_DATA || e.kind == EXTENT_PACKED)
        n->copied += e.len;
    return 0;
}

static int count(struct platter_migration *m, struct counts *n, struct platter_error *err)
{
    uint64_t size = disk_size(m->disk), len;
    int r = 0;
    for (goff off = 0; off < size && r == 0; off += len) {
        struct range_hold hold;
        len = size - off;
        disk_pin(m->disk, &hold);
        r = count_first(m, off, &len, n, err);
        disk_unpin(m->disk, &hold);
    }
    return r;
}

/* With the lock. */
static json_t *tell(const struct platter_migration *m, const struct counts *n, bool lost)
{
    const struct migrate_state *s = &m->state;
    const char *source = json_string_value(json_object_get(s->source, "name"));
    auto_free char *shown = source ? place_shown(source) : NULL;
    const char *phase = migrate_phase_name(
        s->phase == MIGRATE_EXECUTING && !m->executing ? MIGRATE_PREPARED : s->phase);
    bool failed =
        s->phase < MIGRATE_EXECUTED && !m->executing && (lost || json_is_string(s->error));
    json_t *error = lost && m->reason ? json_string(m->reason) : json_incref(s->error);
    return json_pack(
        "{s:s, s:s, s:s?, s:s, s:I, s:I, s:o, s:I, s:b, s:o, s:I, s:o, s:O, s:I, s:b, s:I, s:I}",
        "target", m->target, "state", failed ? "failed" : phase, "source",
        source && place_is_spec(source) ? "source-spec" : shown, "format", s->format,
        "virtual-size", (json_int_t)s->size, "copied", (json_int_t)n->copied, "left",
        lost ? json_null() : json_integer((json_int_t)n->left), "rate", (json_int_t)m->rate,
        "written", s->written, "owner", m->look ? json_null() : json_integer(getpid()),
        "failed-reads", (json_int_t)atomic_load(&m->filling.failed_reads), "error", error,
        "missing", n->list, "missing-ranges", (json_int_t)n->ranges, "executing", m->executing,
        "done", (json_int_t)m->done, "total", (json_int_t)m->total);
}

int migration_status(struct platter_migration *m, json_t **ret, struct platter_error *err)
{
    struct counts n = {.list = json_array()};
    pthread_mutex_lock(&m->lock);
    n.lost = m->lost;
    n.failed = !m->executing && json_is_string(m->state.error);
    pthread_mutex_unlock(&m->lock);
    int r = count(m, &n, err);
    if (r == 0) {
        WITH_LOCK(&m->lock);
        *ret = tell(m, &n, n.lost);
    }
    json_decref(n.list);
    return r == 0 && !*ret ? fail_memory(err, "a status") : r;
}
