/* SPDX-License-Identifier: MIT */
/*
 * The check of L2 entries (sections 4, 4.1, 5, 18). Nearly all of them are plain data in clusters
 * that follow each other: those are taken a run at a time. All others are judged one by one.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/check.h"

/* What an entry should be, and which clusters it refers to then. */
struct verdict {
    const char *why; /* what is wrong with it; NULL: nothing */
    bool always;     /* that depends on what is counted: told in each pass */
    bool lost;       /* guest data goes with it */
    uint64_t raw, bitmap;
    bool packed, placed; /* it has a cluster of its own, which may be the first of a data file */
    hoff off;
    uint64_t first, n; /* clusters of the file; n 0: none */
};

static void wrong(struct verdict *v, const char *why)
{
    if (!v->why)
        v->why = why;
}

/* What is lost for good reads as zeros (section 4); version 2 has no such entry. */
static void lose(const struct qcow2_check *k, struct verdict *v, const char *why, bool held_data)
{
    const struct qcow2 *q = k->q;
    wrong(v, why);
    v->lost = held_data;
    v->packed = v->placed = false;
    v->off = v->n = 0;
    if (q->n_sub > 1) {
        v->bitmap |= v->bitmap << 32; /* what was allocated is zero now */
        v->bitmap &= UINT64_C(0xFFFFFFFF00000000);
        v->raw = 0;
        if (held_data && v->bitmap == 0)
            v->bitmap = UINT64_C(0xFFFFFFFF00000000);
    } else {
        v->raw = q->header.version >= 3 ? QCOW2_ZERO : 0;
    }
}

static void judge_packed(const struct qcow2_check *k, struct verdict *v)
{
    const struct qcow2 *q = k->q;
    unsigned x = 62 - (q->cluster_bits - 8);
    if (v->raw & QCOW2_COPIED)
        wrong(v, "a compressed entry must not have bit 63 set");
    if (v->bitmap)
        wrong(v, "the bitmap of a compressed entry must be 0");
    v->raw &= ~QCOW2_COPIED;
    v->bitmap = 0;
    v->packed = true;
    v->off = v->raw & ((UINT64_C(1) << x) - 1);
    uint64_t len = ((v->raw & ~QCOW2_PACKED) >> x) * 512 + 512 - v->off % 512;
    v->first = v->off >> q->cluster_bits;
    v->n = ((v->off + len - 1) >> q->cluster_bits) - v->first + 1;
    if (q->data_file)
        lose(k, v, "with an external data file nothing is compressed", true);
    else if (v->off >= QCOW2_MAX_OFFSET || v->first == 0)
        lose(k, v, "the compressed data cannot stand there", true);
    else if (v->first + v->n > k->made_at)
        lose(k, v, "the compressed data reaches behind the end of the file", true);
}

/* Section 4.1. What is said to be both is data: that is what was there. */
static void judge_subclusters(struct verdict *v)
{
    uint64_t alloc = v->bitmap & UINT32_MAX, zero = v->bitmap >> 32;
    if (alloc & zero || (alloc && !v->placed))
        wrong(v, "its subcluster bitmap contradicts itself");
    if (!v->placed) {
        v->lost = alloc & ~zero;
        zero |= alloc;
        alloc = 0;
    }
    v->bitmap = (zero & ~alloc) << 32 | alloc;
}

static void judge_place(const struct qcow2_check *k, struct verdict *v, goff guest, bool held_data)
{
    const struct qcow2 *q = k->q;
    if (q->data_file) {
        if (v->off != guest) {
            wrong(v, "with an external data file its offset must be the guest offset");
            v->raw = (v->raw & ~QCOW2_OFFSET_MASK) | guest;
            v->off = guest;
        }
        return;
    }
    const char *why = qcow2_check_place(k, v->off, q->cluster_size);
    v->first = v->off >> q->cluster_bits;
    v->n = 1;
    if (why)
        lose(k, v, why, held_data);
}

static void judge_plain(const struct qcow2_check *k, struct verdict *v, goff guest)
{
    const struct qcow2 *q = k->q;
    uint64_t reserved = QCOW2_L2_RESERVED;
    if (q->n_sub > 1 || q->header.version < 3)
        reserved |= QCOW2_ZERO;
    if (v->raw & reserved)
        wrong(v, "reserved bits are set");
    v->raw &= ~reserved;
    v->off = v->raw & QCOW2_OFFSET_MASK;
    /* Offset 0 means nowhere, but for the first cluster of a data file. */
    v->placed = v->off || (q->data_file && v->raw & QCOW2_COPIED && !(v->raw & QCOW2_ZERO));
    if (q->n_sub > 1)
        judge_subclusters(v);
    if (v->placed)
        judge_place(k, v, guest, q->n_sub > 1 ? v->bitmap & UINT32_MAX : !(v->raw & QCOW2_ZERO));
}

static struct verdict judge(const struct qcow2_check *k, const uint8_t *bytes, goff guest)
{
    struct verdict v = {.raw = get_be(bytes, 8)};
    if (k->q->n_sub > 1)
        v.bitmap = get_be(bytes + 8, 8);
    if (v.raw & QCOW2_PACKED)
        judge_packed(k, &v);
    else
        judge_plain(k, &v, guest);
    if (v.n && counts_table(&k->counts, v.first, v.n)) {
        v.always = !v.why;
        lose(k, &v, "a table of the image stands there", true);
    }
    return v;
}

/* How many entries from i on are data in clusters that follow each other, with nothing wrong. */
static uint64_t run_length(const struct qcow2_check *k, uint64_t i, uint64_t end, uint64_t *ret)
{
    const uint8_t *at = k->table + i * 8;
    uint64_t raw = get_be(at, 8), flags = raw & ~QCOW2_OFFSET_MASK, step = k->q->cluster_size;
    uint64_t first = (raw & QCOW2_OFFSET_MASK) >> k->q->cluster_bits, n = 1;
    uint64_t whole = k->q->file_size >> k->q->cluster_bits; /* clusters of the file */

    *ret = first;
    if (flags & ~QCOW2_COPIED || first == 0 || raw & (step - 1) & QCOW2_OFFSET_MASK ||
        first >= whole)
        return 0;
    uint64_t most = min_u64(end - i, whole - first);
    while (n < most && get_be(at + n * 8, 8) == raw + n * step)
        n++;
    return n;
}

/* ---- is it a table? ----------------------------------------------------------------------------
 */

/* Whether nobody would write such an entry. That a file was cut short before its target is no
 * reason to think so; that it points to where no file of this disk would ever reach is one. */
static bool is_nonsense(const struct qcow2_check *k, const uint8_t *bytes)
{
    const struct qcow2 *q = k->q;
    uint64_t raw = get_be(bytes, 8), off = raw & QCOW2_OFFSET_MASK;
    uint64_t far = max_u64(min_u64(q->header.size, QCOW2_MAX_OFFSET), k->end) * 2 + (1 << 30);
    unsigned x = 62 - (q->cluster_bits - 8);

    if (raw & QCOW2_PACKED) {
        off = raw & ((UINT64_C(1) << x) - 1);
        return raw & QCOW2_COPIED || off < q->cluster_size || off > far;
    }
    return raw & QCOW2_L2_RESERVED || off & (q->cluster_size - 1) || off > far;
}

bool qcow2_check_is_table(const struct qcow2_check *k)
{
    enum { FEW = 8 }; /* so many may be wrong by themselves */
    const struct qcow2 *q = k->q;
    uint64_t used = 0, bad = 0, end = q->cluster_size / q->entry_size, n, first;
    for (uint64_t i = 0; i < end; i += n) {
        const uint8_t *bytes = k->table + i * q->entry_size;
        n = 1;
        if (is_zero(bytes, q->entry_size))
            continue;
        uint64_t run = q->n_sub == 1 ? run_length(k, i, end, &first) : 0;
        n = run ? run : 1;
        used += n;
        bad += !run && is_nonsense(k, bytes);
    }
    return bad < FEW || bad <= used / 2;
}

/* ---- counting ----------------------------------------------------------------------------------
 */

/* An L2 table that is being walked. */
struct walk {
    const struct check_tree *tree;
    uint64_t index; /* of its L1 entry */
    hoff off;
    uint64_t by;
    bool tell; /* the table is part of this pass: in others it may be walked more than once */
    hoff next; /* where the next cluster would stand, were it all in a row; 0: unknown */
    bool changed;
};

static bool stats_of(const struct qcow2_check *k, const struct walk *w)
{
    return w->tree->snapshot < 0 && k->first_pass;
}

/* Section 18: what is not contiguous with the cluster before, inside of one table. */
static void note_place(struct qcow2_check *k, struct walk *w, hoff off)
{
    if (w->next && off != w->next)
        k->check->result.fragmented_clusters++;
    w->next = off + k->q->cluster_size;
}

static void note_entry(struct qcow2_check *k, struct walk *w, const struct verdict *v)
{
    struct platter_check_result *result = &k->check->result;
    if (!stats_of(k, w))
        return;
    if (v->packed) {
        result->allocated_clusters++;
        result->compressed_clusters++;
        result->fragmented_clusters++;
    } else if (v->placed) {
        result->allocated_clusters++;
        note_place(k, w, v->off);
        if (!(v->raw & QCOW2_COPIED))
            k->unowned = true;
    }
}

static void tell(struct qcow2_check *k, const struct walk *w, uint64_t i, goff guest, uint64_t raw,
                 const struct verdict *v)
{
    char whose[40] = "";
    if (w->tree->snapshot >= 0)
        snprintf(whose, sizeof whose, "snapshot %d: ", w->tree->snapshot + 1);
    CHECK_ERROR(k, k->mend,
                "%s: %sentry %" PRIu64 " of the L2 table at %" PRIu64 " (guest offset %" PRIu64
                ") is 0x%" PRIx64 ": %s%s",
                k->name, whose, i, w->off, guest, raw, v->why,
                !k->mend || !v->lost        ? ""
                : v->raw || k->q->n_sub > 1 ? "; its data is lost, and reads as zeros"
                                            : "; its data is lost, and reads as never written");
}

static goff guest_of(const struct qcow2_check *k, const struct walk *w, uint64_t i)
{
    return (w->index << k->q->l1_bits) + (i << k->q->cluster_bits);
}

/* How much of its cluster a guest can see. */
static uint64_t visible(const struct qcow2_check *k, const struct walk *w, goff guest)
{
    int snapshot = w->tree->snapshot;
    uint64_t size = snapshot < 0 ? k->q->header.size : k->snapshots[snapshot].disk_size;
    /* Behind the disk stands a machine's state. */
    return guest < size ? min_u64(size - guest, k->q->cluster_size) : k->q->cluster_size;
}

/* Data must be in the file as map.c says on top. */
static int check_data(struct qcow2_check *k, const struct walk *w, const struct verdict *v,
                      goff guest, struct platter_error *err)
{
    const struct qcow2 *q = k->q;
    uint64_t len = v->raw & QCOW2_ZERO ? 0 : q->cluster_size, alloc = v->bitmap & UINT32_MAX;
    char what[64];
    if (q->n_sub > 1)
        len = alloc ? (UINT64_C(64) - (unsigned)__builtin_clzll(alloc)) << q->sub_bits : 0;
    if (q->file_size % 512 == 0)
        len = min_u64(len, visible(k, w, guest));
    snprintf(what, sizeof what, "the data of guest offset %" PRIu64, guest);
    return qcow2_check_whole(k, w->tell, what, v->off, len, err);
}

/* Entry i by itself. */
static int one_entry(struct qcow2_check *k, struct walk *w, uint64_t i, struct platter_error *err)
{
    const struct qcow2 *q = k->q;
    uint8_t *bytes = k->table + i * q->entry_size;
    goff guest = guest_of(k, w, i);
    struct verdict v = judge(k, bytes, guest);
    k->doubtful = k->doubtful || v.why;
    if (v.why && (w->tell || v.always || k->mend))
        tell(k, w, i, guest, get_be(bytes, 8), &v);
    if (v.why && k->mend) {
        put_be(bytes, 8, v.raw);
        if (q->n_sub > 1)
            put_be(bytes + 8, 8, v.bitmap);
        w->changed = true;
    }
    note_entry(k, w, &v);
    int r = v.n && !v.packed ? check_data(k, w, &v, guest, err) : 0;
    return r == 0 && v.n ? counts_add(&k->counts, v.first, v.n, w->by, err) : r;
}

static int count_run(struct qcow2_check *k, struct walk *w, uint64_t first, uint64_t n, bool copied,
                     struct platter_error *err)
{
    if (stats_of(k, w)) {
        k->check->result.allocated_clusters += n;
        note_place(k, w, first << k->q->cluster_bits);
        w->next = (first + n) << k->q->cluster_bits;
        if (!copied)
            k->unowned = true;
    }
    return counts_add(&k->counts, first, n, w->by, err);
}

static int walk_entries(struct qcow2_check *k, struct walk *w, struct platter_error *err)
{
    const struct qcow2 *q = k->q;
    bool plain = q->n_sub == 1 && !q->data_file;
    uint64_t end = q->cluster_size / q->entry_size, first, n;
    int r = 0;

    for (uint64_t i = 0; r == 0 && i < end; i += n) {
        const uint8_t *bytes = k->table + i * q->entry_size;
        n = 1;
        if (get_be(bytes, 8) == 0 && (q->n_sub == 1 || get_be(bytes + 8, 8) == 0))
            continue;
        uint64_t run = plain ? run_length(k, i, end, &first) : 0;
        if (run && !counts_table(&k->counts, first, run)) {
            n = run;
            r = count_run(k, w, first, n, bytes[0] & 0x80, err);
        } else {
            r = one_entry(k, w, i, err);
        }
    }
    return r;
}

int qcow2_check_l2_table(struct qcow2_check *k, const struct check_tree *t, uint64_t index,
                         hoff off, uint64_t by, struct platter_error *err)
{
    struct walk w = {.tree = t, .index = index, .off = off, .by = by};
    w.tell = counts_inside(&k->counts, off >> k->q->cluster_bits);
    if (!qcow2_check_is_table(k)) {
        k->doubtful = true;
        if (w.tell)
            CHECK_ERROR(k, false,
                        "%s: what stands at %" PRIu64
                        ", where the L2 table of guest offset %" PRIu64 " should be, is none",
                        k->name, off, index << k->q->l1_bits);
        return 0;
    }
    int r = walk_entries(k, &w, err);
    /* Another pass may know that this is no table, and which entry that leads here is wrong. */
    bool write = w.changed && !k->failed && (w.tell || !qcow2_check_is_fixed(k, off));
    return r == 0 && write ? qcow2_repair_write(k, k->table, k->q->cluster_size, off, err) : r;
}
