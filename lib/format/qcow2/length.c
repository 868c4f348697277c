/* SPDX-License-Identifier: MIT */
/*
 * Whether a file that is to be written to was cut short. What is missing is an error for as long as
 * the file ends before it (map.c); once the file has grown, it would be zeros that nobody can tell
 * from data. So this is asked before the first write, of images that count clusters as used where
 * their file has none. A crash leaves such as well, which no table points at: only the tables can
 * tell, those of snapshots too, and are walked.
 */
#include "base/ckd.h"
#include "format/qcow2/snapshot.h"

/* Whether some cluster from `first` on has a count, looking at the one block that counts it. Lock
 * held; drops it. */
static int is_counted(struct image *img, uint64_t first, bool *ret, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    uint32_t order = q->header.refcount_order;
    uint64_t per_slice = (uint64_t)q->blocks.slice * 8 >> order;
    uint64_t end = round_up(first + 1, q->cluster_size * 8 >> order);
    struct slice *slot;
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

static int walk_tables(struct image *img, goff end, struct platter_error *err)
{
    struct extent e;
    uint64_t len;
    int r = 0;

    for (goff off = 0; r == 0 && off < end; off += e.len) {
        r = qcow2_map(img, off, end - off, &e, err);
        if (r == 0 && e.kind == EXTENT_PACKED)
            r = qcow2_packed_there(img, &e, &len, err);
    }
    return r;
}

/* A snapshot is looked at as a view of it would: nobody else uses an image that is being opened. */
static int walk_snapshot(struct image *img, const struct qcow2_snapshot *s,
                         struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct pointers active = q->l1;
    uint64_t size = img->size;

    int r = qcow2_snapshot_check(img, s, err);
    q->l1 = (struct pointers){0};
    if (r == 0)
        r = pointers_load(img, &q->l1, s->l1_offset, s->l1_size, "the L1 table", err);
    img->size = round_down(s->disk_size, 512);
    if (r == 0) /* with the state of a machine behind the disk */
        r = walk_tables(img, (goff)s->l1_size << q->l1_bits, err);
    pointers_free(img, &q->l1);
    q->l1 = active;
    img->size = size;
    return r < 0 ? fail_in(err, r, "snapshot \"%s\"", s->name) : 0;
}

int qcow2_check_length(struct image *img, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    bool suspect;

    pthread_mutex_lock(&img->lock);
    int r = may_be_cut(img, &suspect, err);
    pthread_mutex_unlock(&img->lock);
    if (r == 0 && suspect)
        r = walk_tables(img, img->size, err);
    for (uint32_t i = 0; r == 0 && suspect && i < q->header.n_snapshots; i++)
        r = walk_snapshot(img, &q->snapshots[i], err);
    return r < 0 ? fail_in(err, r, "cannot be opened for writing") : 0;
}
