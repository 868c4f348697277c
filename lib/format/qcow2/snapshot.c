/* SPDX-License-Identifier: MIT */
/*
 * Internal snapshots (section 9), as they are read: the table is walked at open, entry by entry, as
 * its length is stored nowhere. Each snapshot is a view of the file.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/qcow2.h"

enum { ENTRY_SIZE = 40, TEXT_MAX = 2 * UINT16_MAX };

/* The lengths of what follows the fixed part of an entry. */
struct tail {
    uint32_t extra, id, name;
};

static bool decode_fixed(const uint8_t *bytes, struct qcow2_snapshot *s, struct tail *t)
{
    struct reader r = reader_over(bytes, ENTRY_SIZE);
    s->l1_offset = read_be64(&r);
    s->l1_size = read_be32(&r);
    t->id = read_be16(&r);
    t->name = read_be16(&r);
    s->date_sec = read_be32(&r);
    s->date_nsec = read_be32(&r);
    s->clock_nsec = read_be64(&r);
    s->vm_state_size = read_be32(&r);
    t->extra = read_be32(&r);
    return t->extra <= QCOW2_MAX_SNAPSHOT_EXTRA;
}

/* Each field of the extra data is there only if its length covers it. */
static void decode_extra(const uint8_t *bytes, uint32_t len, uint64_t disk_size,
                         struct qcow2_snapshot *s)
{
    s->disk_size = len >= 16 ? get_be(bytes + 8, 8) : disk_size;
    s->icount = len >= 24 ? get_be(bytes + 16, 8) : UINT64_MAX;
    if (len >= 8)
        s->vm_state_size = get_be(bytes, 8);
}

/* What a newer version put behind the fields we know is kept (section 9.1). */
static int keep_unknown(const uint8_t *extra, uint32_t len, struct qcow2_snapshot *s)
{
    if (len <= QCOW2_SNAPSHOT_EXTRA)
        return 0;
    s->unknown_len = len - QCOW2_SNAPSHOT_EXTRA;
    s->unknown = malloc(s->unknown_len);
    if (s->unknown)
        memcpy(s->unknown, extra + QCOW2_SNAPSHOT_EXTRA, s->unknown_len);
    return s->unknown ? 0 : -ENOMEM;
}

static int damaged(const struct image *img, uint32_t i, const char *what, struct platter_error *err)
{
    return fail(err, PLATTER_ECORRUPT, "%s: snapshot table entry %" PRIu32 ": %s",
                img->stream->name, i, what);
}

/* Reads entry i at *off, and moves *off behind it. `text` holds TEXT_MAX + the extra data. */
static int load_one(struct image *img, uint32_t i, hoff *off, uint8_t *text,
                    struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_snapshot *s = &q->snapshots[i];
    uint8_t fixed[ENTRY_SIZE];
    struct tail t;

    int r = stream_pread(img->stream, fixed, sizeof fixed, *off, err);
    if (r < 0)
        return fail_in(err, r, "snapshot table entry %" PRIu32, i);
    if (!decode_fixed(fixed, s, &t))
        return damaged(img, i, "the extra data must have 1024 bytes at most", err);
    uint32_t len = t.extra + t.id + t.name;
    r = stream_pread(img->stream, text, len, *off + ENTRY_SIZE, err);
    if (r < 0)
        return fail_in(err, r, "snapshot table entry %" PRIu32, i);
    decode_extra(text, t.extra, q->header.size, s);
    r = budget_take(img->budget, len + UINT64_C(2), "snapshot names", err);
    if (r < 0)
        return r;
    q->snapshots_memory += len + UINT64_C(2);
    s->id = strndup((const char *)text + t.extra, t.id);
    s->name = strndup((const char *)text + t.extra + t.id, t.name);
    if (!s->id || !s->name || keep_unknown(text, t.extra, s) < 0)
        return fail_memory(err, "snapshot names");
    *off = round_up(*off - q->header.snapshots_offset + ENTRY_SIZE + len, 8) +
           q->header.snapshots_offset;
    if (*off - q->header.snapshots_offset > QCOW2_MAX_SNAPSHOT_TABLE)
        return damaged(img, i, "the table takes more than 64 MiB", err);
    return 0;
}

int qcow2_snapshots_load(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    hoff off = q->header.snapshots_offset;
    auto_free uint8_t *text = NULL;

    if (q->header.n_snapshots == 0)
        return 0;
    text = malloc(TEXT_MAX + QCOW2_MAX_SNAPSHOT_EXTRA);
    if (!text)
        return fail_memory(err, "the snapshot table");
    int r = budget_alloc(img->budget, q->header.n_snapshots * sizeof *q->snapshots,
                         "the snapshot table", &q->snapshots, err);
    for (uint32_t i = 0; r == 0 && i < q->header.n_snapshots; i++)
        r = load_one(img, i, &off, text, err);
    q->snapshots_size = off - q->header.snapshots_offset;
    return r;
}

void qcow2_snapshots_free(struct image *img)
{
    struct qcow2 *q = qcow2_of(img);
    for (uint32_t i = 0; q->snapshots && i < q->header.n_snapshots; i++) {
        free(q->snapshots[i].id);
        free(q->snapshots[i].name);
        free(q->snapshots[i].unknown);
    }
    budget_free(img->budget, q->snapshots, q->header.n_snapshots * sizeof *q->snapshots);
    budget_give(img->budget, q->snapshots_memory);
    q->snapshots = NULL;
    q->snapshots_memory = 0;
}

json_t *qcow2_views(struct image *img)
{
    const struct qcow2 *q = qcow2_of(img);
    json_t *list = json_array();
    for (uint32_t i = 0; list && i < q->header.n_snapshots; i++) {
        json_t *view = qcow2_snapshot_describe(&q->snapshots[i]);
        json_object_set_new(view, "size", json_integer((json_int_t)q->snapshots[i].disk_size));
        json_array_append_new(list, view);
    }
    return list;
}
