/* SPDX-License-Identifier: MIT */
/*
 * Whether a file that is to be written to was cut short. What is missing is an error for as long as
 * the file ends before it (map.c); once the file has grown, it would be zeros that nobody can tell
 * from data. So this is asked before the first write, of images that count clusters as used where
 * their file has none. A crash leaves such as well, which no table points at: only the tables can
 * tell, and are walked.
 *
 * Tables of snapshots are not walked.
 */
#include "base/ckd.h"
#include "format/qcow2/qcow2.h"

/* Whether some cluster from `first` on has a count, looking at the one block that counts it. Lock
 * held; drops it. */
static int is_counted(struct image *img, uint64_t first, bool *ret, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    uint32_t order = q->header.refcount_order;
    uint64_t per_slice = (uint64_t)q->blocks.slice * 8 >> order;
    uint64_t end = round_up(first + 1, q->cluster_size * 8 >> order);
    struct qcow2_slot *slot;
    uint64_t k;

    *ret = false;
    while (!*ret && first < end) {
        int r = qcow2_count_slot(img, first, &slot, &k, err);
        if (r < 0 || !slot)
            return r;
        for (; !*ret && k < per_slice; k++, first++)
            *ret = qcow2_count_get(slot->bytes, order, k) != 0;
    }
    return 0;
}

/* Whether the image may need more than the files have. Lock held; drops it. */
static int may_be_cut(struct image *img, bool *ret, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    uint64_t whole = q->file_size >> q->cluster_bits; /* the last one may be there in part */
    uint64_t block = whole >> (q->cluster_bits + 3 - q->header.refcount_order);

    *ret = q->data_file && q->data_size < img->size;
    /* Blocks for what is far behind the end must not be there at all. */
    for (uint64_t i = block + 1; !*ret && i < q->reftable.n; i++)
        *ret = q->reftable.entries[i] != 0;
    return *ret ? 0 : is_counted(img, whole, ret, err);
}

static int walk_tables(struct image *img, struct platter_error *err)
{
    struct extent e;
    uint64_t len;
    int r = 0;

    for (goff off = 0; r == 0 && off < img->size; off += e.len) {
        r = qcow2_map(img, off, img->size - off, &e, err);
        if (r == 0 && e.kind == EXTENT_PACKED)
            r = qcow2_packed_there(img, &e, &len, err);
    }
    return r;
}

int qcow2_check_length(struct image *img, struct platter_error *err)
{
    bool suspect;

    pthread_mutex_lock(&img->lock);
    int r = may_be_cut(img, &suspect, err);
    pthread_mutex_unlock(&img->lock);
    if (r == 0 && suspect)
        r = walk_tables(img, err);
    return r < 0 ? fail_in(err, r, "cannot be opened for writing") : 0;
}
