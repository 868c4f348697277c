/* SPDX-License-Identifier: MIT */
/* Opening and closing: the header, the name of the backing file, the L1 table. */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/old_aes.h"
#include "format/qcow1/check.h"

static int load_header(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    uint8_t bytes[QCOW1_HEADER];

    int r = stream_size(img->stream, &q->file_size, err);
    if (r < 0)
        return r;
    if (q->file_size < QCOW1_HEADER)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the file has %" PRIu64 " bytes, less than the %d of a header",
                    img->stream->name, q->file_size, QCOW1_HEADER);
    r = stream_pread(img->stream, bytes, sizeof bytes, 0, err);
    if (r == 0 && !qcow1_header_decode(bytes, &q->header))
        r = fail(err, PLATTER_ECORRUPT, "%s: no qcow header at offset 0", img->stream->name);
    return r;
}

static int load_backing(struct image *img, struct platter_error *err)
{
    struct qcow1_header *h = &qcow1_of(img)->header;

    if (h->backing_offset == 0 || h->backing_size == 0) {
        h->backing_offset = 0;
        return 0;
    }
    return image_read_backing_name(img, h->backing_offset, h->backing_size, err);
}

/* QEMU shows whole sectors, and so do we: section 7. */
static int set_geometry(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    uint64_t hidden = q->header.size % QCOW1_SECTOR;

    q->cluster_size = UINT32_C(1) << q->header.cluster_bits;
    q->table_size = UINT32_C(8) << q->header.l2_bits;
    q->l1_bits = qcow1_l1_bits(&q->header);
    img->size = q->header.size - hidden;
    img->unit = q->cluster_size;
    img->sealed = q->header.crypt_method != 0;
    return hidden ? image_doubt(img, err,
                                "%s: has a size of %" PRIu64 " bytes, of which the last %" PRIu64
                                " are no whole sector and cannot be seen",
                                img->stream->name, q->header.size, hidden)
                  : 0;
}

/* ---- tables ---------------------------------------------------------------------------------- */

static int compare_places(const void *a, const void *b)
{
    const hoff *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

int qcow1_list_tables(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    uint32_t n = 0, late = 0;

    for (uint32_t i = 0; i < q->l1.n; i++)
        n += q->l1.entries[i] != 0;
    if (n == 0)
        return 0;
    int r =
        budget_alloc(img->budget, n * sizeof *q->tables, "the list of L2 tables", &q->tables, err);
    if (r < 0)
        return r;
    q->n_room = n;
    for (uint32_t i = 0; i < q->l1.n; i++) {
        hoff off = q->l1.entries[i];
        /* One that is cut off a check makes whole. */
        if (off && range_inside(off, img->checking ? 1 : q->table_size, q->file_size) &&
            !qcow1_hits_header(q, off, q->table_size))
            q->tables[q->n_tables++] = off;
        late += qcow1_is_late(q, off);
    }
    qsort(q->tables, q->n_tables, sizeof *q->tables, compare_places);
    if (late == 0 || !img->salvage)
        return 0;
    return image_doubt(img, err,
                       "%s: %" PRIu32 " of its L2 tables would follow on the end of the file: "
                       "taken for empty, as a crash may leave them; if the file was cut short, "
                       "what they led to is lost",
                       img->stream->name, late);
}

static int load_tables(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);

    int r =
        pointers_load(img, &q->l1, q->header.l1_offset,
                      (uint32_t)qcow1_l1_entries(&q->header, q->header.size), "the L1 table", err);
    if (r == 0 && !img->query)
        r = qcow1_list_tables(img, err);
    if (r == 0)
        r = slices_init(img, &q->l2, &q->changed, "L2 table", q->table_size,
                        budget_limit(img->budget) / 4, err);
    return r;
}

/* For a check nothing is believed but the shape of the tables; what is wrong there is kept. */
static int open_for_check(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    struct qcow1_checkup *k = q->checkup = calloc(1, sizeof *k);
    if (!k)
        return fail_memory(err, "a check");
    int r = load_header(img, err);
    if (r < 0)
        return r;
    k->code = qcow1_header_check(img->stream->name, &q->header, q->file_size, &k->why);
    if (k->code == 0)
        k->code = load_backing(img, &k->why);
    if (k->code < 0)
        return k->code == -PLATTER_ECORRUPT ? 0 : fail(err, -k->code, "%s", k->why.message);
    r = set_geometry(img, err);
    return r < 0 ? r
                 : pointers_load(img, &q->l1, q->header.l1_offset,
                                 (uint32_t)qcow1_l1_entries(&q->header, q->header.size),
                                 "the L1 table", err);
}

/* ---- open and close -------------------------------------------------------------------------- */

int qcow1_open(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = calloc(1, sizeof *q);
    if (!q)
        return fail_memory(err, "an image");
    img->state = q;
    pthread_cond_init(&q->changed, NULL);
    if (img->checking)
        return open_for_check(img, err);

    int r = load_header(img, err);
    if (r == 0)
        r = qcow1_header_check(img->stream->name, &q->header, q->file_size, err);
    if (r == 0)
        r = set_geometry(img, err);
    if (r == 0)
        r = load_backing(img, err);
    if (r == 0)
        r = load_tables(img, err);
    if (r == 0 && img->sealed && !img->query)
        r = old_aes_open(img, &q->cipher, err);
    return r;
}

int qcow1_close(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    (void)err;

    if (!q)
        return 0;
    slices_free(img, &q->l2);
    pointers_free(img, &q->l1);
    budget_free(img->budget, q->tables, q->n_room * sizeof *q->tables);
    cipher_free(q->cipher);
    free(q->checkup);
    pthread_cond_destroy(&q->changed);
    free(q);
    img->state = NULL;
    return 0;
}
