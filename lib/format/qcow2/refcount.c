/* SPDX-License-Identifier: MIT */
/* Reference counts of host clusters (section 3). Token and lock are held throughout. */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/qcow2.h"

uint64_t qcow2_count_max(uint32_t order)
{
    return order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << order)) - 1;
}

uint64_t qcow2_count_get(const uint8_t *bytes, uint32_t order, uint64_t k)
{
    if (order == 4)
        return get_be(bytes + 2 * k, 2);
    if (order >= 3) {
        unsigned n = 1u << (order - 3);
        return get_be(bytes + k * n, n);
    }
    /* Below a byte the lowest-numbered cluster has the least significant bits. */
    uint64_t bit = k << order;
    return bytes[bit / 8] >> bit % 8 & qcow2_count_max(order);
}

void qcow2_count_put(uint8_t *bytes, uint32_t order, uint64_t k, uint64_t value)
{
    if (order >= 3) {
        unsigned n = 1u << (order - 3);
        put_be(bytes + k * n, n, value);
        return;
    }
    uint64_t bit = k << order;
    unsigned mask = (unsigned)qcow2_count_max(order) << bit % 8;
    bytes[bit / 8] = (uint8_t)((bytes[bit / 8] & ~mask) | ((unsigned)value << bit % 8 & mask));
}

static int check_block(const struct image *img, uint64_t i, uint64_t raw, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    const char *why = NULL;

    if (raw & QCOW2_RB_RESERVED)
        why = "reserved bits are set";
    else if (raw & (q->cluster_size - 1))
        why = "it is not a multiple of the cluster size";
    else if (raw >= QCOW2_MAX_OFFSET || qcow2_hits_tables(q, raw, q->cluster_size))
        why = "it points into the header or a table";
    if (!why)
        return 0;
    return fail(err, PLATTER_ECORRUPT,
                "%s: the refcount table's entry %" PRIu64 " is 0x%" PRIx64 ": %s",
                img->stream->name, i, raw, why);
}

int qcow2_count_slot(struct image *img, uint64_t cluster, struct slice **ret, uint64_t *ret_k,
                     struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t order = q->header.refcount_order;
    unsigned block_bits = q->cluster_bits + 3 - order; /* log2 of a block's entries */
    uint64_t i = cluster >> block_bits;
    uint64_t k = cluster & ((UINT64_C(1) << block_bits) - 1);

    *ret = NULL;
    if (i >= q->reftable.n || q->reftable.entries[i] == 0)
        return 0;
    int r = check_block(img, i, q->reftable.entries[i], err);
    /* One write, or one flush, may change more blocks than the cache holds. They can go to the disk
     * at any time: counts that went up harm nobody, and one only goes down when nothing on the disk
     * refers to the cluster any more. */
    if (r == 0 && slices_full(&q->blocks))
        r = slices_write(img, &q->blocks, err);
    if (r < 0)
        return r;
    uint64_t per_slice = (uint64_t)q->blocks.slice * 8 >> order;
    *ret_k = k % per_slice;
    return slices_get(img, &q->blocks, q->reftable.entries[i] + k / per_slice * q->blocks.slice,
                      ret, err);
}

enum direction { DOWN, UP, UP_FROM_1 };

static int fail_overflow(const struct image *img, uint64_t cluster, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    return fail(err, EOVERFLOW,
                "%s: the cluster at %" PRIu64 " would have more references than a count of %u "
                "bits can hold (refcount_bits of the image)",
                img->stream->name, cluster << q->cluster_bits, 1u << q->header.refcount_order);
}

/* One step along a run of clusters, all up or all down by 1: as many from the first on as one slice
 * counts and, on the way down, as become free all alike. *ret_n is 0 only on failure. */
static int count_step(struct image *img, uint64_t cluster, uint64_t n, enum direction direction,
                      uint64_t *ret_n, bool *ret_free, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t order = q->header.refcount_order;
    uint64_t per_slice = (uint64_t)q->blocks.slice * 8 >> order, k, i, count = 0;
    bool up = direction != DOWN;
    uint64_t last = up ? qcow2_count_max(order) : 0;
    struct slice *slot;

    *ret_n = 0;
    int r = qcow2_count_slot(img, cluster, &slot, &k, err);
    if (r < 0)
        return r;
    for (i = 0; slot && i < n && k + i < per_slice; i++) {
        count = qcow2_count_get(slot->bytes, order, k + i);
        if (count == last || (direction == UP_FROM_1 && count == 0) ||
            (i && !up && *ret_free != (count == 1)))
            break;
        *ret_free = !up && count == 1;
        qcow2_count_put(slot->bytes, order, k + i, up ? count + 1 : count - 1);
    }
    if (slot && i) {
        *ret_n = i;
        slices_dirty(&q->blocks, slot);
        return 0;
    }
    if (slot && up && count)
        return fail_overflow(img, cluster, err);
    return fail(err, PLATTER_ECORRUPT,
                "%s: the reference count of the cluster at %" PRIu64
                " is 0 and cannot go %s: the image must be repaired",
                img->stream->name, cluster << q->cluster_bits, up ? "up" : "down");
}

static int count_all_up(struct image *img, uint64_t cluster, uint64_t n, enum direction direction,
                        struct platter_error *err)
{
    bool freed;
    for (uint64_t done = 0, step; done < n; done += step) {
        int r = count_step(img, cluster + done, n - done, direction, &step, &freed, err);
        if (r < 0) {
            qcow2_count_down(img, cluster, done, false, NULL);
            return r;
        }
    }
    return 0;
}

int qcow2_count_up(struct image *img, uint64_t cluster, uint64_t n, struct platter_error *err)
{
    return count_all_up(img, cluster, n, UP, err);
}

int qcow2_count_more(struct image *img, uint64_t cluster, uint64_t n, struct platter_error *err)
{
    return count_all_up(img, cluster, n, UP_FROM_1, err);
}

static void cluster_is_free(struct qcow2 *q, uint64_t cluster)
{
    if (cluster < q->next_free)
        q->next_free = cluster;
    /* The next to take it may be no packed record: none may begin there any more. */
    if (q->packed_cursor >> q->cluster_bits == cluster)
        q->packed_cursor = 0;
}

/* A count, and where it stands; no slot: no block counts the cluster. */
struct counted {
    struct slice *slot;
    uint64_t k, count;
};

static int look_up(struct image *img, uint64_t cluster, struct counted *ret,
                   struct platter_error *err)
{
    *ret = (struct counted){0};
    int r = qcow2_count_slot(img, cluster, &ret->slot, &ret->k, err);
    if (r == 0 && ret->slot)
        ret->count =
            qcow2_count_get(ret->slot->bytes, qcow2_of(img)->header.refcount_order, ret->k);
    return r;
}

static void change_count(struct qcow2 *q, const struct counted *c, uint64_t count)
{
    qcow2_count_put(c->slot->bytes, q->header.refcount_order, c->k, count);
    slices_dirty(&q->blocks, c->slot);
}

int qcow2_count_add(struct image *img, uint64_t cluster, uint64_t by, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct counted c;

    int r = look_up(img, cluster, &c, err);
    if (r < 0)
        return r;
    if (!c.slot || by > qcow2_count_max(q->header.refcount_order) - c.count)
        return fail_overflow(img, cluster, err);
    change_count(q, &c, c.count + by);
    return 0;
}

int qcow2_count_take(struct image *img, uint64_t cluster, uint64_t by, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct counted c;

    int r = look_up(img, cluster, &c, err);
    if (r < 0)
        return r;
    if (!c.slot || by > c.count)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the reference count of the cluster at %" PRIu64 " is %" PRIu64
                    " and cannot go down by %" PRIu64 ": the image must be repaired",
                    img->stream->name, cluster << q->cluster_bits, c.count, by);
    change_count(q, &c, c.count - by);
    if (c.count == by && by)
        cluster_is_free(q, cluster);
    return 0;
}

int qcow2_count_read(struct image *img, uint64_t cluster, uint64_t *ret, struct platter_error *err)
{
    struct counted c;
    int r = look_up(img, cluster, &c, err);
    *ret = c.count;
    return r;
}

static int punch_hole(struct image *img, uint64_t cluster, uint64_t n, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    if (n == 0)
        return 0;
    if (qcow2_hits_lists(q, cluster << q->cluster_bits, n << q->cluster_bits))
        return qcow2_mark_corrupt(img, cluster << q->cluster_bits, err);
    pthread_mutex_unlock(&img->lock);
    int r = stream_discard(img->stream, cluster << q->cluster_bits, n << q->cluster_bits, err);
    pthread_mutex_lock(&img->lock);
    return r == -ENOTSUP ? 0 : r;
}

int qcow2_count_down(struct image *img, uint64_t cluster, uint64_t n, bool punch,
                     struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    bool freed = false;
    int r = 0;

    for (uint64_t done = 0, step; r == 0 && done < n; done += step) {
        r = count_step(img, cluster + done, n - done, DOWN, &step, &freed, err);
        for (uint64_t i = 0; freed && i < step; i++)
            cluster_is_free(q, cluster + done + i);
        if (r == 0 && freed && punch)
            r = punch_hole(img, cluster + done, step, err);
    }
    return r;
}
