/* SPDX-License-Identifier: MIT */
/*
 * The state of a machine (section 10): as if it were guest data behind the disk, in the tables of
 * the disk while it is written, and then in those of the snapshot alone. Encrypted like guest data.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "format/qcow2/snapshot.h"

/* It begins at the first L1 entry that the disk does not need. */
static goff state_start(const struct qcow2 *q, uint64_t disk_size)
{
    return round_up(disk_size, UINT64_C(1) << q->l1_bits);
}

bool qcow2_state_fits(const struct image *img, uint64_t disk_size, uint64_t len)
{
    const struct qcow2 *q = qcow2_of(img);
    return len == 0 || range_inside(state_start(q, disk_size), len, (goff)q->l1.n << q->l1_bits);
}

int qcow2_state(const struct image *img, goff *ret_start, uint64_t *ret_len,
                struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    const struct qcow2_snapshot *s = img->view ? qcow2_snapshot_get(img, img->view, 0, NULL) : NULL;
    uint64_t disk_size = s ? s->disk_size : q->header.size;

    *ret_start = state_start(q, disk_size);
    *ret_len = s ? s->vm_state_size : 0;
    if (!qcow2_state_fits(img, disk_size, *ret_len))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: snapshot \"%s\": a machine state of %" PRIu64
                    " bytes does not fit into what its L1 table of %" PRIu32
                    " entries has behind the disk",
                    img->stream->name, s->name, *ret_len, q->l1.n);
    return 0;
}

int qcow2_state_room(struct image *img, uint64_t len, goff *ret_start, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    goff end = 0;

    *ret_start = state_start(q, q->header.size);
    int r = qcow2_snapshots_possible(img, err);
    if (r == 0 && (ckd_add(&end, *ret_start, len) || end > QCOW2_MAX_SIZE ||
                   div_up(end, UINT64_C(1) << q->l1_bits) * 8 > QCOW2_MAX_L1_BYTES))
        r = fail(err, EFBIG,
                 "%s: a machine state of %" PRIu64 " bytes does not fit behind the disk",
                 img->stream->name, len);
    if (r == 0)
        r = qcow2_enter_quietly(img, err);
    if (r < 0)
        return r;
    r = qcow2_l1_grow(img, (uint32_t)div_up(end, UINT64_C(1) << q->l1_bits), err);
    qcow2_leave(img);
    return r;
}

/* Behind the disk goes all there is, be it of a longer state from before. */
int qcow2_state_drop(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);

    int r = qcow2_enter_quietly(img, err);
    if (r < 0)
        return r;
    r = qcow2_l1_cut(img, (uint32_t)min_u64(state_start(q, q->header.size) >> q->l1_bits, q->l1.n),
                     err);
    qcow2_leave(img);
    return r;
}
