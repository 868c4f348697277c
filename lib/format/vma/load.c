/* SPDX-License-Identifier: MIT */
/*
 * An archive is opened by its header, and by looking at the headers of all its extents, one after
 * the other (section 10), unless an index is kept beside it.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/archive.h"
#include "format/vma/archive.h"

/* ---- the header --------------------------------------------------------------------------------
 */

/* The next bytes of the header, of which `off` were read. */
static int read_header(struct image *img, void *buf, size_t len, uint64_t off,
                       struct platter_error *err)
{
    size_t got;

    if (!img->stream->sequential)
        return stream_pread(img->stream, buf, len, off, err);
    int r = stream_read(img->stream, buf, len, &got, err);
    if (r == 0 && got < len)
        r = fail(err, PLATTER_ECORRUPT,
                 "%s: the archive ends at %" PRIu64 ", inside of its header: it was cut short",
                 img->stream->name, off + got);
    return r;
}

/* Nothing is known of the size of what comes front to back. */
static int check_room(const struct image *img, const struct vma_archive *a, uint32_t size,
                      struct platter_error *err)
{
    if (img->stream->sequential || size <= a->size)
        return 0;
    return fail(err, PLATTER_ECORRUPT,
                "%s: a VMA archive has a header of %" PRIu32
                " bytes or more, but the file ends at %" PRIu64 ": it was cut short",
                img->stream->name, size, a->size);
}

static int load_header(struct image *img, struct vma_archive *a, struct platter_error *err)
{
    const char *name = img->stream->name;
    uint8_t fixed[VMA_FIXED];
    uint32_t size = 0;

    int r = check_room(img, a, VMA_FIXED, err);
    if (r == 0)
        r = read_header(img, fixed, sizeof fixed, 0, err);
    if (r == 0)
        r = vma_header_size(name, fixed, &size, err);
    if (r == 0)
        r = check_room(img, a, size, err);
    if (r == 0)
        r = budget_alloc(a->budget, size, "the header of an archive", &a->bytes, err);
    if (r < 0)
        return r;
    a->bytes_len = size;
    memcpy(a->bytes, fixed, sizeof fixed);
    r = read_header(img, a->bytes + VMA_FIXED, size - VMA_FIXED, VMA_FIXED, err);
    return r < 0 ? r : vma_header_decode(name, a->bytes, size, &a->header, err);
}

int vma_archive_load(struct image *img, struct vma_archive **ret, struct platter_error *err)
{
    struct vma_archive *a = calloc(1, sizeof *a);

    if (!a)
        return fail_memory(err, "an archive");
    atomic_init(&a->owners, 1);
    pthread_mutex_init(&a->building, NULL);
    pthread_mutex_init(&a->lock, NULL);
    a->budget = budget_ref(img->budget);
    *ret = a;
    int r = img->stream->sequential ? 0 : stream_size(img->stream, &a->size, err);
    return r < 0 ? r : load_header(img, a, err);
}

void vma_archive_unref(struct vma_archive *a)
{
    if (!a || atomic_fetch_sub(&a->owners, 1) > 1)
        return;
    vma_index_free(atomic_load(&a->index));
    vma_kept_free(a->kept);
    budget_free(a->budget, a->bytes, a->bytes_len);
    if (a->rescuer)
        a->rescuer->ops->close(a->rescuer);
    budget_unref(a->budget);
    pthread_mutex_destroy(&a->building);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

/* ---- extents -----------------------------------------------------------------------------------
 */

/* A look at all extents. */
struct survey {
    struct image *img;
    const struct vma_archive *a;
    struct vma_index *index;
    uint64_t n_extents;
    bool extra[VMA_DEVICES]; /* a cluster of zeros just past its end was passed over */
};

static int read_zeros(const struct survey *s, uint64_t off, unsigned blocks, bool *ret_zero,
                      struct platter_error *err)
{
    uint8_t block[VMA_BLOCK];
    int r = 0;

    *ret_zero = true;
    for (; r == 0 && *ret_zero && blocks > 0; blocks--, off += VMA_BLOCK) {
        r = stream_pread(s->img->stream, block, sizeof block, off, err);
        *ret_zero = r == 0 && is_zero(block, sizeof block);
    }
    return r;
}

/* A writer of 2013 left one cluster of zeros just past the end of a disk (section 7.3). */
static int is_extra(struct survey *s, const struct vma_slot *slot, uint64_t off, bool *ret,
                    struct platter_error *err)
{
    const struct vma_device *d = &s->a->header.devices[slot->device];

    *ret = false;
    if (!d->name || d->state || slot->cluster != vma_clusters(d->size) || s->extra[slot->device])
        return 0;
    int r = read_zeros(s, off, vma_slot_blocks(slot), ret, err);
    s->extra[slot->device] = r == 0 && *ret;
    return r;
}

/* Whether the slot, whose blocks stand at `off`, is fit to be entered: else it is emptied. */
static int judge_slot(struct survey *s, uint64_t extent, struct vma_slot *slot, uint64_t off,
                      struct platter_error *err)
{
    bool extra = false;

    int r = vma_slot_check(s->img->stream->name, extent, &s->a->header, slot, err);
    if (r == -PLATTER_ECORRUPT) {
        int e = is_extra(s, slot, off, &extra, err);
        r = e < 0 ? e : extra ? 0 : r;
    }
    if (extra)
        *slot = (struct vma_slot){0};
    return r;
}

static int fail_to_enter(int r, const char *name, uint64_t off, struct platter_error *err)
{
    if (r == -ENOMEM)
        return fail(err, ENOMEM,
                    "%s: to index an archive whose clusters are in such disorder takes more memory "
                    "than is allowed: raise the limit, or have its index written once (platter "
                    "archive index %s), which is read bit by bit",
                    name, name);
    return r < 0 ? fail_in(err, r, "%s: the extent at %" PRIu64, name, off) : r;
}

/* So few bytes at the end of the file that they are no extent. */
static int fail_scrap(const struct survey *s, uint64_t off, size_t len, struct platter_error *err)
{
    const char *name = s->img->stream->name;
    uint8_t bytes[VMA_EXTENT];
    int r = stream_pread(s->img->stream, bytes, len, off, err);

    if (r < 0)
        return r;
    if (vma_extent_begins(bytes, len, s->a->header.uuid))
        return fail(err, PLATTER_ECORRUPT, VMA_CUT_HEADER, name, off, len);
    return fail(err, PLATTER_ECORRUPT,
                "%s: %zu bytes at %" PRIu64
                " are too few for an extent: the archive was cut short, or something follows it",
                name, len, off);
}

static int enter_extent(struct survey *s, uint64_t off, uint64_t *ret_len,
                        struct platter_error *err)
{
    const char *name = s->img->stream->name;
    uint64_t left = s->a->size - off, at = off + VMA_EXTENT;
    uint8_t bytes[VMA_EXTENT];
    struct vma_extent e;

    if (left < VMA_EXTENT)
        return fail_scrap(s, off, (size_t)left, err);
    int r = stream_pread(s->img->stream, bytes, sizeof bytes, off, err);
    if (r == 0)
        r = vma_extent_decode(name, off, bytes, s->a->header.uuid, &e, err);
    if (r < 0)
        return r;
    *ret_len = VMA_EXTENT + e.blocks * (uint64_t)VMA_BLOCK;
    if (*ret_len > left)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the extent at %" PRIu64 " has %" PRIu64
                    " bytes, but the file ends at %" PRIu64 ": it was cut short",
                    name, off, *ret_len, s->a->size);
    for (unsigned i = 0; r == 0 && i < VMA_SLOTS; i++) {
        uint64_t len = vma_slot_blocks(&e.slots[i]) * (uint64_t)VMA_BLOCK;
        r = judge_slot(s, off, &e.slots[i], at, err);
        at += len;
    }
    if (r == 0) {
        r = vma_index_add(s->index, off, &e, err);
        r = fail_to_enter(r, name, off, err);
    }
    s->n_extents += r == 0;
    return r;
}

/* ---- all of them -------------------------------------------------------------------------------
 */

static int look_at_all(struct survey *s, struct platter_error *err)
{
    int r = 0;
    for (uint64_t off = s->a->header.size, len; r == 0 && off < s->a->size; off += len)
        r = enter_extent(s, off, &len, err);
    return r;
}

/* What was found becomes known. `open` runs, so that nobody reads it meanwhile. */
static void take_survey(struct vma_archive *a, const struct survey *s)
{
    a->known = true;
    a->n_extents = s->n_extents;
    for (unsigned i = 0; i < VMA_DEVICES; i++) {
        a->counts[i] = vma_index_count(s->index, i);
        a->extra |= s->extra[i];
    }
}

int vma_archive_survey(struct image *img, struct vma_archive *a, struct platter_error *err)
{
    struct survey s = {.img = img, .a = a};
    WITH_LOCK(&a->building);

    if (atomic_load(&a->index))
        return 0;
    if (img->stream->sequential)
        return fail(err, ENOTSUP,
                    "%s: can only be read front to back, and a disk of an archive is read at any "
                    "place: unpack it first",
                    img->stream->name);
    int r = vma_index_new(a->budget, &s.index, err);
    if (r == 0)
        r = img->salvage ? vma_salvage_index(img, s.index, &s.n_extents, err)
                         : look_at_all(&s, err);
    if (r < 0) {
        vma_index_free(s.index);
        return r;
    }
    if (!a->known)
        take_survey(a, &s);
    atomic_store(&a->index, s.index);
    return 0;
}
