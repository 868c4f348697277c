/* SPDX-License-Identifier: MIT */
/*
 * Amending: another version, counts of another width, other features and names (section 14). Each
 * step is complete by itself, and ends with one write of the header's first sector.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/qcow2/amend.h"
#include "format/qcow2/bitmap.h"

static const char *const compat_values[] = {"0.10", "1.1", "v2", "v3", NULL};

const struct option_def qcow2_amend_options[] = {
    {.name = "compat",
     .type = OPTION_ENUM,
     .values = compat_values,
     .help = "version of the format: 0.10 is version 2, 1.1 is version 3"},
    {.name = "data_file",
     .type = OPTION_STRING,
     .help = "another name for the external data file it has"},
    {.name = "data_file_raw",
     .type = OPTION_BOOL,
     .help = "off: the external data file need not be the disk as it is any more"},
    {.name = "lazy_refcounts",
     .type = OPTION_BOOL,
     .help = "let programs postpone the update of reference counts"},
    {.name = "refcount_bits",
     .type = OPTION_NUMBER,
     .min = 0,
     .max = UINT64_MAX,
     .help = "bits of a reference count, a power of two from 1 to 64"},
    {.name = NULL},
};

/* What the header is to say. */
struct plan {
    uint32_t version, order;
    uint64_t compatible, autoclear;
    const char *data_file; /* NULL: as it is */
};

/* ---- what is asked for -------------------------------------------------------------------------
 */

static int plan_counts(const struct image *img, const struct option_values *v, struct plan *p,
                       struct platter_error *err)
{
    const char *name = img->stream->name;

    if (options_given(v, "refcount_bits")) {
        uint64_t bits = options_number(v, "refcount_bits");
        if (bits == 0 || bits > 64 || bits & (bits - 1))
            return fail(err, EINVAL,
                        "%s: Refcount width must be a power of two and may not exceed 64 bits",
                        name);
        p->order = (uint32_t)__builtin_ctzll(bits);
    }
    if (p->version < 3 && p->order != 4)
        return fail(err, EINVAL,
                    "%s: Refcount widths other than 16 bits require compatibility level 1.1 or "
                    "above (use compat=1.1 or greater)",
                    name);
    return 0;
}

static int plan_data_file(const struct image *img, const struct option_values *v, struct plan *p,
                          struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    const char *name = img->stream->name;

    if (options_given(v, "data_file"))
        p->data_file = options_string(v, "data_file");
    if (p->data_file && !q->data_file)
        return fail(err, EINVAL,
                    "%s: data-file can only be set for images that use an external data file",
                    name);
    if (p->data_file && (!*p->data_file || strlen(p->data_file) > QCOW2_MAX_NAME))
        return fail(err, EINVAL, "%s: the name of a data file has 1 to %d bytes", name,
                    QCOW2_MAX_NAME);
    if (!options_given(v, "data_file_raw"))
        return 0;
    if (options_bool(v, "data_file_raw") && !q->data_raw)
        return fail(err, EINVAL, "%s: data-file-raw cannot be set on existing images", name);
    if (!options_bool(v, "data_file_raw"))
        p->autoclear &= ~(uint64_t)QCOW2_AUTOCLEAR_RAW;
    return 0;
}

static int plan_all(const struct image *img, const struct option_values *v, struct plan *p,
                    struct platter_error *err)
{
    const struct qcow2_header *h = &qcow2_of(img)->header;

    *p = (struct plan){.version = h->version,
                       .order = h->refcount_order,
                       .compatible = h->compatible,
                       .autoclear = h->autoclear};
    if (options_given(v, "compat"))
        p->version = options_enum(v, "compat") % 2 ? 3 : 2;
    if (options_given(v, "lazy_refcounts")) {
        bool lazy = options_bool(v, "lazy_refcounts");
        if (lazy && p->version < 3)
            return fail(err, EINVAL,
                        "%s: Lazy refcounts only supported with compatibility level 1.1 and above "
                        "(use compat=1.1 or greater)",
                        img->stream->name);
        p->compatible &= ~(uint64_t)QCOW2_COMPATIBLE_LAZY;
        p->compatible |= lazy ? QCOW2_COMPATIBLE_LAZY : 0;
    }
    int r = plan_counts(img, v, p, err);
    return r < 0 ? r : plan_data_file(img, v, p, err);
}

/* ---- the header --------------------------------------------------------------------------------
 */

static int rewrite(struct image *img, const struct plan *p, uint32_t version,
                   struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_rewrite w;
    bool new_enough = version >= 3;

    int r = qcow2_rewrite_begin(img, &w, err);
    if (r < 0)
        return r;
    struct qcow2_header *h = &w.header;
    if (h->version != version)
        h->length = new_enough ? QCOW2_HEADER_NOW : QCOW2_HEADER_V2;
    h->version = version;
    h->incompatible = new_enough ? h->incompatible : 0;
    h->compression = new_enough ? h->compression : QCOW2_DEFLATE;
    h->compatible = new_enough ? p->compatible : 0;
    /* Of what clears itself, only what is asked for goes. */
    h->autoclear = new_enough ? h->autoclear & p->autoclear : 0;
    if (p->data_file)
        r = qcow2_rewrite_text(&w.extensions.data_file, p->data_file, err);
    if (r == 0)
        r = qcow2_flush_locked(img, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    if (r == 0)
        r = qcow2_rewrite_commit(img, &w, err);
    if (r == 0)
        q->data_raw &= (q->header.autoclear & QCOW2_AUTOCLEAR_RAW) != 0;
    qcow2_rewrite_end(&w);
    return r;
}

static bool header_changes(const struct qcow2 *q, const struct plan *p)
{
    return p->version > q->header.version || p->compatible != q->header.compatible ||
           (q->header.autoclear & ~p->autoclear) || p->data_file;
}

/* All but what makes it an older version. */
static int amend_locked(struct image *img, const struct plan *p, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    int r = 0;

    if (p->version > q->header.version)
        r = qcow2_amend_upgrade(img, err);
    if (r == 0 && header_changes(q, p))
        r = rewrite(img, p, (uint32_t)max_u64(p->version, q->header.version), err);
    if (r == 0 && p->order != q->header.refcount_order)
        r = qcow2_amend_counts(img, p->order, err);
    return r == 0 && p->version < q->header.version ? qcow2_amend_check_packed(img, err) : r;
}

/* Takes all bitmaps out of the image, durably. */
static int drop_bitmaps(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    const struct qcow2_bitmap_list none = {0};

    int r = q->extensions.has_bitmaps ? qcow2_bitmaps_store(img, &none, err) : 0;
    if (r == 0)
        qcow2_bitmap_list_free(img, &q->bitmaps);
    return r;
}

static int downgrade(struct image *img, const struct amend_request *request, const struct plan *p,
                     struct platter_error *err)
{
    int r = drop_bitmaps(img, err);
    if (r == 0)
        r = qcow2_enter_quietly(img, err);
    if (r < 0)
        return r;
    r = qcow2_amend_downgrade(img, request, err);
    if (r == 0)
        r = rewrite(img, p, p->version, err);
    qcow2_leave(img);
    return r;
}

int qcow2_amend(struct image *img, const struct amend_request *request, struct platter_error *err)
{
    struct plan plan;

    int r = plan_all(img, request->options, &plan, err);
    bool down = r == 0 && plan.version < qcow2_of(img)->header.version;
    if (down)
        r = qcow2_amend_check_downgrade(img, request->force, err);
    if (r == 0)
        r = qcow2_enter_quietly(img, err);
    if (r < 0)
        return r;
    r = amend_locked(img, &plan, err);
    qcow2_leave(img);
    return r == 0 && down ? downgrade(img, request, &plan, err) : r;
}
