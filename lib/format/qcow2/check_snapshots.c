/* SPDX-License-Identifier: MIT */
/*
 * The check of the snapshot table (sections 9.1, 18). Entries are kept as they stand in the file;
 * where one must go or change, the others are copied, byte by byte, into a new table behind the end
 * of the file, and one write of the header takes it over (section 9.2).
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/check.h"
#include "format/qcow2/snapshot.h"

enum { ENTRY_SIZE = 40, EXTRA_LEAST = 16, EXTRA_WRITTEN = 24 };

/* ---- reading the table -------------------------------------------------------------------------
 */

/* Where it is not recorded it is that of the disk now. */
static int read_disk_size(struct qcow2_check *k, struct check_snapshot *s,
                          struct platter_error *err)
{
    uint8_t bytes[8];
    s->disk_size = k->q->header.size;
    if (s->extra < EXTRA_LEAST)
        return 0;
    int r = qcow2_check_read(k, bytes, sizeof bytes, s->at + ENTRY_SIZE + 8, err);
    s->disk_size = get_be(bytes, 8);
    return r;
}

/* The entry at `off`; 1: it could not be read, NULL in *ret_why: it is complete. */
static int read_entry(struct qcow2_check *k, hoff off, struct check_snapshot *ret,
                      const char **ret_why, struct platter_error *err)
{
    const struct qcow2 *q = k->q;
    uint8_t bytes[ENTRY_SIZE];
    struct reader r = reader_over(bytes, sizeof bytes);
    hoff most = min_u64(q->file_size, q->header.snapshots_offset + QCOW2_MAX_SNAPSHOT_TABLE);

    *ret_why = "the table ends before it";
    if (off + ENTRY_SIZE > most)
        return 0;
    int result = qcow2_check_read(k, bytes, sizeof bytes, off, err);
    if (result)
        return result;
    *ret = (struct check_snapshot){.at = off};
    ret->l1_offset = read_be64(&r);
    ret->l1_size = read_be32(&r);
    uint32_t names = read_be16(&r);
    names += read_be16(&r);
    read_seek(&r, 36);
    ret->extra = read_be32(&r);
    if (is_zero(bytes, sizeof bytes))
        return 0;
    uint64_t len = UINT64_C(40) + ret->extra + names;
    if (off + len > most)
        return 0;
    ret->len = (uint32_t)len;
    *ret_why = NULL;
    return read_disk_size(k, ret, err);
}

static int grow(struct qcow2_check *k, struct platter_error *err)
{
    uint32_t room = k->room_snapshots ? k->room_snapshots * 2 : 64;
    struct check_snapshot *more;
    if (k->n_snapshots < k->room_snapshots)
        return 0;
    int r = budget_alloc(k->img->budget, room * sizeof *more, "the snapshot table", &more, err);
    if (r < 0)
        return r;
    if (k->n_snapshots)
        memcpy(more, k->snapshots, k->n_snapshots * sizeof *more);
    budget_free(k->img->budget, k->snapshots, k->room_snapshots * sizeof *more);
    k->snapshots = more;
    k->room_snapshots = room;
    return 0;
}

/* What of the table cannot be read as one is given up: from entry `from` on. */
static void give_up(struct qcow2_check *k, uint32_t from, const char *why)
{
    CHECK_ERROR(k, k->mend,
                "%s: header fields nb_snapshots %" PRIu32 " and snapshots_offset %" PRIu64
                ": %s%s; snapshots from the number %" PRIu32 " on %s",
                k->name, k->q->header.n_snapshots, k->q->header.snapshots_offset, why,
                from ? " (those before it are whole)" : "", from + 1,
                k->mend ? "are given up" : "cannot be used");
}

/* Walks the table, as its length is stored nowhere. */
int qcow2_check_snapshots(struct qcow2_check *k, struct platter_error *err)
{
    const struct qcow2_header *h = &k->q->header;
    hoff off = h->snapshots_offset;
    uint32_t n = h->n_snapshots < QCOW2_MAX_SNAPSHOTS ? h->n_snapshots : QCOW2_MAX_SNAPSHOTS;
    const char *why = n ? qcow2_check_place(k, off, ENTRY_SIZE) : NULL;
    int r = 0;

    while (!why && r == 0 && k->n_snapshots < n) {
        r = grow(k, err);
        if (r == 0)
            r = read_entry(k, off, &k->snapshots[k->n_snapshots], &why, err);
        if (r == 0 && !why)
            off += round_up(k->snapshots[k->n_snapshots++].len, 8);
    }
    k->snapshots_size = off - h->snapshots_offset;
    if (r)
        return r < 0 ? r : 0;
    if (!why && h->n_snapshots > n)
        why = "more than 65536 snapshots are impossible";
    if (why)
        give_up(k, k->n_snapshots, why);
    return 0;
}

/* ---- judging the entries -----------------------------------------------------------------------
 */

static const char *judge_l1(const struct qcow2_check *k, const struct check_snapshot *s)
{
    const char *why = NULL;
    uint64_t bytes = s->l1_size * UINT64_C(8);
    if (s->stray)
        return "it stands in another table";
    if (k->q->data_file)
        return "an image with an external data file has no snapshots";
    if (bytes > QCOW2_MAX_L1_BYTES)
        return "its L1 table has more than 4194304 entries";
    if (bytes)
        why = qcow2_check_place(k, s->l1_offset, bytes);
    if (!why && bytes &&
        counts_any(&k->counts, s->l1_offset >> k->q->cluster_bits,
                   qcow2_check_clusters(k, s->l1_offset, bytes)))
        why = "its L1 table stands where another table is";
    return why;
}

/* Extra data that must be there in version 3, or that is longer than anybody reads. */
static const char *judge_extra(const struct qcow2_check *k, const struct check_snapshot *s)
{
    if (s->extra > QCOW2_MAX_SNAPSHOT_EXTRA)
        return "its extra data has more than 1024 bytes";
    if (k->q->header.version >= 3 && s->extra < EXTRA_LEAST)
        return "its extra data has less than the 16 bytes of version 3";
    return NULL;
}

/* A size that the L1 table does not reach cannot be right; what the table maps is there all the
 * same. */
static void judge_size(struct qcow2_check *k, uint32_t i)
{
    struct check_snapshot *s = &k->snapshots[i];
    uint64_t most = (uint64_t)s->l1_size << k->q->l1_bits, size = min_u64(k->q->header.size, most);
    if (s->disk_size <= most)
        return;
    CHECK_ERROR(k, k->mend,
                "%s: snapshot table entry %" PRIu32 ": its disk has %" PRIu64
                " bytes, but its L1 table of %" PRIu32 " entries maps %" PRIu64 " at most%s",
                k->name, i, s->disk_size, s->l1_size, most,
                k->mend ? "; it becomes as large as the disk is now, or as the table allows" : "");
    s->disk_size = size;
    s->rewrite = true;
}

static void judge(struct qcow2_check *k, uint32_t i)
{
    struct check_snapshot *s = &k->snapshots[i];
    const char *why = judge_l1(k, s);
    s->drop = why != NULL;
    if (why)
        CHECK_ERROR(k, k->mend,
                    "%s: snapshot table entry %" PRIu32 " (an L1 table at %" PRIu64 " of %" PRIu32
                    " entries): %s%s",
                    k->name, i, s->l1_offset, s->l1_size, why,
                    k->mend ? "; the snapshot is given up" : "");
    why = s->drop ? NULL : judge_extra(k, s);
    s->rewrite = why != NULL;
    if (why)
        CHECK_ERROR(k, k->mend, "%s: snapshot table entry %" PRIu32 ": %s (%" PRIu32 ")", k->name,
                    i, why, s->extra);
    if (!s->drop)
        judge_size(k, i);
}

/* ---- a new table -------------------------------------------------------------------------------
 */

static uint32_t new_extra(const struct check_snapshot *s)
{
    if (!s->rewrite)
        return s->extra;
    return s->extra < EXTRA_LEAST ? EXTRA_WRITTEN
                                  : (uint32_t)min_u64(s->extra, QCOW2_MAX_SNAPSHOT_EXTRA);
}

static uint64_t new_len(const struct check_snapshot *s)
{
    return round_up(s->len - s->extra + new_extra(s), 8);
}

/* The entry as it will be, from `old` into `bytes`, zeroed. */
static void make_entry(const struct check_snapshot *s, const uint8_t *old, uint8_t *bytes)
{
    uint32_t extra = new_extra(s), names = s->len - ENTRY_SIZE - s->extra;
    memcpy(bytes, old, ENTRY_SIZE);
    put_be(bytes + 36, 4, extra);
    memcpy(bytes + ENTRY_SIZE, old + ENTRY_SIZE, min_u64(extra, s->extra));
    if (s->rewrite && s->extra < 8)
        put_be(bytes + ENTRY_SIZE, 8, get_be(old + 32, 4));
    if (s->rewrite)
        put_be(bytes + ENTRY_SIZE + 8, 8, s->disk_size);
    if (s->rewrite && s->extra < EXTRA_LEAST)
        put_be(bytes + ENTRY_SIZE + 16, 8, UINT64_MAX);
    memcpy(bytes + ENTRY_SIZE + extra, old + ENTRY_SIZE + s->extra, names);
}

static int copy_entry(struct qcow2_check *k, struct check_snapshot *s, hoff to,
                      struct platter_error *err)
{
    uint64_t len = new_len(s);
    uint8_t *old = NULL, *bytes = NULL;
    int r = budget_alloc(k->img->budget, s->len, "a snapshot table entry", &old, err);
    if (r == 0)
        r = budget_alloc(k->img->budget, len, "a snapshot table entry", &bytes, err);
    if (r == 0)
        r = stream_pread_tail(k->img->stream, old, s->len, s->at, err);
    if (r == 0) {
        make_entry(s, old, bytes);
        r = qcow2_repair_write(k, bytes, len, to, err);
    }
    budget_free(k->img->budget, old, s->len);
    budget_free(k->img->budget, bytes, len);
    return r;
}

static int switch_table(struct qcow2_check *k, uint32_t n, hoff off, struct platter_error *err)
{
    int r = qcow2_repair_settle(k, err);
    if (r < 0)
        return r;
    WITH_LOCK(&k->img->lock);
    return qcow2_snapshots_switch(k->img, n, off, err);
}

static int write_table(struct qcow2_check *k, struct platter_error *err)
{
    uint64_t size = 0;
    uint32_t n = 0;
    hoff at = 0;
    for (uint32_t i = 0; i < k->n_snapshots; i++)
        size += k->snapshots[i].drop ? 0 : new_len(&k->snapshots[i]);
    int r = size ? qcow2_repair_append(k, size, &at, err) : 0;
    hoff to = at;
    for (uint32_t i = 0; r == 0 && i < k->n_snapshots; i++) {
        struct check_snapshot s = k->snapshots[i];
        if (s.drop)
            continue;
        r = copy_entry(k, &s, to, err);
        to += new_len(&s);
        k->snapshots[n++] = s;
    }
    if (r == 0)
        r = switch_table(k, n, at, err);
    k->n_snapshots = n;
    k->snapshots_size = size;
    return r;
}

/* Whether the table as it stands must not stay. */
static bool must_change(const struct qcow2_check *k, bool alone)
{
    bool change = k->n_snapshots != k->q->header.n_snapshots || (k->n_snapshots && !alone);
    for (uint32_t i = 0; i < k->n_snapshots; i++)
        change = change || k->snapshots[i].drop || k->snapshots[i].rewrite;
    return change;
}

/* ---- counting ----------------------------------------------------------------------------------
 */

static int count_fixed(struct qcow2_check *k, hoff off, uint64_t bytes, struct platter_error *err)
{
    uint64_t first = off >> k->q->cluster_bits, n = qcow2_check_clusters(k, off, bytes);
    int r = bytes ? counts_add(&k->counts, first, n, 1, err) : 0;
    return r < 0 || !bytes ? r : counts_mark(&k->counts, MARK_FIXED, first, n, err);
}

static int count_l1s(struct qcow2_check *k, struct platter_error *err)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < k->n_snapshots; i++) {
        struct check_snapshot *s = &k->snapshots[i];
        if (k->first_pass)
            judge(k, i);
        if (!s->drop)
            r = qcow2_check_whole(k, k->first_pass, "the L1 table of a snapshot", s->l1_offset,
                                  s->l1_size * UINT64_C(8), err);
        if (r == 0 && !s->drop)
            r = count_fixed(k, s->l1_offset, s->l1_size * UINT64_C(8), err);
    }
    return r;
}

/* Without snapshots nothing is read from there; but QEMU refuses an offset that cannot be one. */
static int judge_unused(struct qcow2_check *k, struct platter_error *err)
{
    hoff off = k->q->header.snapshots_offset;
    if (off % k->q->cluster_size == 0 && off < QCOW2_MAX_OFFSET)
        return 0;
    if (k->first_pass)
        CHECK_ERROR(k, k->mend,
                    "%s: header field snapshots_offset is %" PRIu64
                    ", but must be 0, as there are no snapshots",
                    k->name, off);
    return k->mend && !k->failed && k->first_pass ? switch_table(k, 0, 0, err) : 0;
}

int qcow2_check_snapshot_tables(struct qcow2_check *k, struct platter_error *err)
{
    const struct qcow2_header *h = &k->q->header;
    if (h->n_snapshots == 0)
        return judge_unused(k, err);
    uint64_t size = k->n_snapshots ? k->snapshots_size : 0;
    bool alone = !size || !counts_any(&k->counts, h->snapshots_offset >> k->q->cluster_bits,
                                      qcow2_check_clusters(k, h->snapshots_offset, size));
    int r = alone ? count_fixed(k, h->snapshots_offset, size, err) : 0;
    for (uint32_t i = 0; i < k->n_snapshots && k->first_pass; i++)
        k->snapshots[i].stray = !alone;
    if (!alone && k->first_pass)
        CHECK_ERROR(k, k->mend,
                    "%s: the snapshot table at %" PRIu64 " stands where another table is", k->name,
                    h->snapshots_offset);
    if (r == 0)
        r = count_l1s(k, err);
    if (r < 0 || !k->mend || k->failed || !k->first_pass || !must_change(k, alone))
        return r;
    if (alone && size)
        counts_take(&k->counts, h->snapshots_offset >> k->q->cluster_bits,
                    qcow2_check_clusters(k, h->snapshots_offset, size));
    r = write_table(k, err);
    return r < 0 ? r : count_fixed(k, h->snapshots_offset, k->snapshots_size, err);
}
