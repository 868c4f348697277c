/* SPDX-License-Identifier: MIT */
/*
 * Another snapshot table (section 9.2): written whole, somewhere else, and then named by one write
 * of twelve bytes of the header. A crash leaves the old list or the new one, and the other table
 * leaked.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/snapshot.h"

enum { ENTRY_SIZE = 40, SNAPSHOTS_AT = 60 };

static uint64_t entry_len(const struct qcow2_snapshot *s)
{
    return round_up(
        ENTRY_SIZE + QCOW2_SNAPSHOT_EXTRA + s->unknown_len + strlen(s->id) + strlen(s->name), 8);
}

static void encode_entry(const struct qcow2_snapshot *s, struct writer *w)
{
    size_t end = w->pos + entry_len(s);

    write_be64(w, s->l1_offset);
    write_be32(w, s->l1_size);
    write_be16(w, (uint16_t)strlen(s->id));
    write_be16(w, (uint16_t)strlen(s->name));
    write_be32(w, s->date_sec);
    write_be32(w, s->date_nsec);
    write_be64(w, s->clock_nsec);
    write_be32(w, s->vm_state_size > UINT32_MAX ? 0 : (uint32_t)s->vm_state_size);
    write_be32(w, QCOW2_SNAPSHOT_EXTRA + s->unknown_len);
    write_be64(w, s->vm_state_size);
    write_be64(w, s->disk_size);
    write_be64(w, s->icount);
    if (s->unknown)
        write_bytes(w, s->unknown, s->unknown_len);
    write_bytes(w, s->id, strlen(s->id));
    write_bytes(w, s->name, strlen(s->name));
    write_pad_to(w, end);
}

/* Puts a list into new clusters; *ret_off is 0 where there is none to put. */
static int write_table(struct image *img, const struct qcow2_snapshot *list, uint32_t n,
                       uint64_t len, hoff *ret_off, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    uint64_t room = round_up(len, q->cluster_size);
    uint8_t *bytes = NULL;
    hoff off;

    *ret_off = 0;
    if (n == 0)
        return 0;
    int r = budget_alloc(img->budget, room, "the snapshot table", &bytes, err);
    if (r == 0)
        r = qcow2_alloc_table(img, room >> q->cluster_bits, &off, err);
    if (r == 0) {
        struct writer w = writer_over(bytes, room);
        for (uint32_t i = 0; i < n; i++)
            encode_entry(&list[i], &w);
        *ret_off = off;
        r = image_meta_write(img, bytes, room, off, err);
    }
    budget_free(img->budget, bytes, room);
    return r;
}

int qcow2_snapshots_switch(struct image *img, uint32_t n, hoff off, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint8_t field[12];

    put_be(field, 4, n);
    put_be(field + 4, 8, off);
    int r = qcow2_barrier(img, err);
    if (r == 0)
        r = image_meta_write(img, field, sizeof field, SNAPSHOTS_AT, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    if (r < 0)
        return r;
    q->header.n_snapshots = n;
    q->header.snapshots_offset = off;
    return 0;
}

int qcow2_snapshots_copy(struct image *img, uint32_t n, struct qcow2_snapshot **ret,
                         struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);

    *ret = NULL;
    if (n == 0)
        return 0;
    int r = budget_alloc(img->budget, n * sizeof **ret, "the snapshot table", ret, err);
    if (r == 0 && q->header.n_snapshots)
        memcpy(*ret, q->snapshots, min_u64(n, q->header.n_snapshots) * sizeof **ret);
    return r;
}

int qcow2_snapshots_write(struct image *img, struct qcow2_snapshot **list, uint32_t n,
                          struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t old_n = q->header.n_snapshots;
    hoff old_off = q->header.snapshots_offset, off = 0;
    uint64_t old_clusters = div_up(q->snapshots_size, q->cluster_size), len = 0;

    for (uint32_t i = 0; i < n; i++)
        len += entry_len(&(*list)[i]);
    if (len > QCOW2_MAX_SNAPSHOT_TABLE)
        return fail(err, EFBIG, "%s: the snapshot table would take more than 64 MiB",
                    img->stream->name);
    int r = write_table(img, *list, n, len, &off, err);
    if (r == 0)
        r = qcow2_flush_locked(img, err); /* the counts of the new table */
    if (r == 0)
        r = qcow2_snapshots_switch(img, n, off, err);
    if (r < 0) {
        if (off && atomic_load(&img->poison) == 0)
            qcow2_count_down(img, off >> q->cluster_bits, div_up(len, q->cluster_size), false,
                             NULL);
        return r;
    }
    budget_free(img->budget, q->snapshots, old_n * sizeof *q->snapshots);
    q->snapshots = TAKE(*list);
    q->snapshots_size = len;
    return old_n ? qcow2_count_down(img, old_off >> q->cluster_bits, old_clusters, false, err) : 0;
}

void qcow2_snapshot_free(struct image *img, struct qcow2_snapshot *s)
{
    if (s->id && s->name) {
        uint64_t memory = strlen(s->id) + strlen(s->name) + s->unknown_len + 2;
        qcow2_of(img)->snapshots_memory -= memory;
        budget_give(img->budget, memory);
    }
    free(s->id);
    free(s->name);
    free(s->unknown);
    *s = (struct qcow2_snapshot){0};
}

int qcow2_snapshot_check(const struct image *img, const struct qcow2_snapshot *s,
                         struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    uint64_t needed = div_up(s->disk_size, UINT64_C(1) << q->l1_bits);
    uint64_t bytes = s->l1_size * UINT64_C(8);

    if (s->l1_offset % q->cluster_size || s->l1_offset >= QCOW2_MAX_OFFSET ||
        bytes > QCOW2_MAX_L1_BYTES || (bytes && qcow2_hits_tables(q, s->l1_offset, bytes)) ||
        s->disk_size > QCOW2_MAX_SIZE || s->l1_size < needed)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: snapshot \"%s\": an L1 table at %" PRIu64 " with %" PRIu32
                    " entries is impossible for a disk of %" PRIu64 " bytes",
                    img->stream->name, s->name, s->l1_offset, s->l1_size, s->disk_size);
    return 0;
}
