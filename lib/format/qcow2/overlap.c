/* SPDX-License-Identifier: MIT */
/*
 * The overlap check (section 18). A count of 0 may be a lie in a damaged image: before a cluster is
 * overwritten that the file had when it was opened we make sure that no table stands there.
 *
 * Nearly all tables are known by heart. L2 tables of snapshots are not; of those it is enough to
 * know, once, that none is counted less often than snapshots refer to it: from then on counts are
 * ours, and true.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/bitmap.h"

static bool meets(hoff a, uint64_t a_len, hoff b, uint64_t b_len)
{
    return b_len && a < b + b_len && b < a + a_len;
}

static bool hits_pointed(const struct qcow2 *q, const struct pointers *p, hoff off, uint64_t len)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->entries[i] && meets(off, len, p->entries[i] & QCOW2_OFFSET_MASK, q->cluster_size))
            return true;
    return false;
}

int qcow2_check_overlap(struct image *img, uint64_t cluster, uint64_t n, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    hoff off = cluster << q->cluster_bits;
    uint64_t len = n << q->cluster_bits;
    bool hit = false;

    if (cluster >= q->old_clusters)
        return 0;
    hit = qcow2_hits_tables(q, off, len) || qcow2_hits_lists(q, off, len) ||
          hits_pointed(q, &q->l1, off, len) || hits_pointed(q, &q->reftable, off, len);
    for (uint32_t i = 0; !hit && i < q->header.n_snapshots; i++)
        hit = meets(off, len, q->snapshots[i].l1_offset, q->snapshots[i].l1_size * UINT64_C(8));
    for (uint32_t i = 0; !hit && i < q->bitmaps.n; i++)
        hit = q->bitmaps.items[i]->table_off && meets(off, len, q->bitmaps.items[i]->table_off,
                                                      q->bitmaps.items[i]->n_table * UINT64_C(8));
    return hit ? qcow2_mark_corrupt(img, off, err) : 0;
}

/* ---- L2 tables of snapshots --------------------------------------------------------------------
 */

enum {
    PIECE = 512,           /* entries of an L1 table that are read at once */
    MOST_TABLES = 1 << 16, /* that are kept at once: half a MiB */
    MOST_ENTRIES = 1 << 20 /* ... and that are looked at: 8 MiB to read, 512 GiB of a disk with
                              64 KiB clusters in each of a thousand snapshots */
};

/* Clusters that L1 tables of snapshots point at, each as often as it was met. */
struct met {
    uint64_t *clusters;
    uint32_t n, room;
    uint64_t entries;
};

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int fail_count(struct image *img, uint64_t cluster, uint64_t count, uint64_t references,
                      struct platter_error *err)
{
    hoff off = cluster << qcow2_of(img)->cluster_bits;
    qcow2_mark_corrupt(img, off, NULL);
    return fail(err, PLATTER_ECORRUPT,
                "%s: the L2 table at %" PRIu64 " has the reference count %" PRIu64
                ", but snapshots refer to it %" PRIu64 " times: the image is damaged and takes no "
                "more writes until it is repaired (check -r all)",
                img->stream->name, off, count, references);
}

/* Looks at the counts of what was met, and forgets it. */
static int judge_met(struct image *img, struct met *m, struct platter_error *err)
{
    uint64_t count;
    int r = 0;

    qsort(m->clusters, m->n, sizeof *m->clusters, by_number);
    for (uint32_t i = 0, next; r == 0 && i < m->n; i = next) {
        for (next = i + 1; next < m->n && m->clusters[next] == m->clusters[i];)
            next++;
        r = qcow2_count_read(img, m->clusters[i], &count, err);
        if (r == 0 && count < next - i)
            r = fail_count(img, m->clusters[i], count, next - i, err);
    }
    m->n = 0;
    return r;
}

/* The tables of one snapshot, as far as the file had them. What cannot be read cannot be protected:
 * that is for a check. */
static int meet_snapshot(struct image *img, const struct qcow2_snapshot *s, struct met *m,
                         struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    uint8_t bytes[PIECE * 8];
    int r = 0;

    for (uint32_t first = 0, n; first < s->l1_size && m->entries < MOST_ENTRIES; first += n) {
        n = (uint32_t)min_u64(s->l1_size - first, PIECE);
        if (m->n + n > m->room && (r = judge_met(img, m, err)) < 0)
            return r;
        pthread_mutex_unlock(&img->lock);
        r = stream_pread(img->stream, bytes, n * (size_t)8, s->l1_offset + first * UINT64_C(8),
                         NULL);
        pthread_mutex_lock(&img->lock);
        if (r < 0)
            return 0;
        for (uint32_t i = 0; i < n; i++) {
            hoff table = get_be(bytes + i * (size_t)8, 8) & QCOW2_OFFSET_MASK;
            if (table && table >> q->cluster_bits < q->old_clusters)
                m->clusters[m->n++] = table >> q->cluster_bits;
        }
        m->entries += n;
    }
    return 0;
}

int qcow2_check_snapshot_counts(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct met m = {0};
    int r = 0;

    if (q->snapshots_seen || q->header.n_snapshots == 0)
        return 0;
    uint64_t tables = 1;
    for (uint32_t i = 0; i < q->header.n_snapshots; i++)
        tables += q->snapshots[i].l1_size;
    m.room = (uint32_t)min_u64(tables, MOST_TABLES);
    if (budget_alloc(img->budget, m.room * sizeof *m.clusters, "tables of snapshots", &m.clusters,
                     NULL) < 0)
        return 0;
    for (uint32_t i = 0; r == 0 && i < q->header.n_snapshots; i++)
        r = meet_snapshot(img, &q->snapshots[i], &m, err);
    if (r == 0)
        r = judge_met(img, &m, err);
    q->snapshots_seen = r == 0;
    budget_free(img->budget, m.clusters, m.room * sizeof *m.clusters);
    return r;
}
