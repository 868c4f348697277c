/* SPDX-License-Identifier: MIT */
/*
 * How reading goes on where an extent is damaged. Extents follow each other without gaps, and only
 * their headers have checksums. So where the next header is not at its place, either it is damaged
 * itself, or bytes came or went in front of it: then the data of the extent before it has moved
 * somewhere, and nobody knows where. It is used only where that can be ruled out, as far as it can.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/vma/mend.h"
#include "format/vma/reader.h"
#include "format/vma/resync.h"

enum {
    WINDOW = 256 << 10, /* most bytes that are searched at once */
    LEAST_WINDOW = 4 << 10,
    MOST_EXTENT = VMA_EXTENT + VMA_MOST_BLOCKS * VMA_BLOCK,
    MD5_AT = 24,
    MEND_BYTES = 4 << 20, /* that are hashed to mend a header: it takes half of that */
    MOST_MENDED = 1000    /* headers: some seconds, and hostile archives take no longer */
};

int vma_recognize(struct vma_reader *r, uint8_t *bytes, hoff off, bool *ret,
                  struct platter_error *err)
{
    const struct archive_fault f = {.kind = ARCHIVE_FAULT_EXTENT, .off = off};

    *ret = vma_extent_probe(bytes, r->header.uuid);
    if (*ret || !vma_was_extent(bytes, VMA_EXTENT, r->header.uuid) || r->n_mended == MOST_MENDED)
        return 0;
    r->n_mended++;
    uint8_t mended[VMA_EXTENT];
    memcpy(mended, bytes, sizeof mended);
    if (!vma_mend(mended, sizeof mended, MD5_AT, MEND_BYTES) ||
        !vma_extent_probe(mended, r->header.uuid))
        return 0;
    memcpy(bytes, mended, sizeof mended);
    *ret = true;
    return vma_tell(r, &f, err,
                    "%s: the extent at %" PRIu64
                    ": the checksum of its header is wrong, but right with one bit of it changed: "
                    "that is used",
                    r->file, off);
}

/* ---- looking for the next one ------------------------------------------------------------------
 */

/* What is searched at once: small at first, for most gaps are. */
struct window {
    uint8_t *bytes;
    size_t size;
};

/* Room for twice as much, with the first `have` bytes of it as they were. */
static int widen(struct vma_reader *r, struct window *w, size_t have, struct platter_error *err)
{
    struct window wide = {.size = w->size ? 2 * w->size : LEAST_WINDOW};
    if (w->size == WINDOW)
        return 0;
    int e =
        budget_alloc(r->request.budget, wide.size, "the search for an extent", &wide.bytes, err);
    if (e < 0)
        return e;
    if (have)
        memcpy(wide.bytes, w->bytes, have);
    budget_free(r->request.budget, w->bytes, w->size);
    *w = wide;
    return 0;
}

static bool is_unreadable(const struct vma_reader *r, hoff off, size_t len)
{
    hoff start;
    return vma_input_unreadable(&r->in, off, off + len, &start) != 0;
}

static int search_windows(struct vma_reader *r, const uint8_t *uuid, uint64_t limit,
                          struct window *w, bool *ret_found, bool *ret_zeros,
                          struct platter_error *err)
{
    size_t have = 0, n = 1;
    uint64_t passed = 0;
    int e = 0;

    *ret_found = false;
    *ret_zeros = true;
    while (e == 0 && (n > 0 || r->broken) && !*ret_found && passed <= limit) {
        e = widen(r, w, have, err);
        if (e < 0)
            return e;
        r->broken = false;
        uint64_t unread = vma_input_pass_unreadable(&r->in);
        have = unread ? 0 : have; /* a header that goes on there is none */
        const hoff from = r->in.pos - have;
        e = vma_read(r, w->bytes + have, w->size - have, &n, err);
        size_t len = have + n, at = vma_find_extent(w->bytes, len, uuid);
        *ret_found = at < len;
        *ret_zeros = *ret_zeros && !unread && is_zero(w->bytes, at) && !is_unreadable(r, from, len);
        if (*ret_found)
            return e < 0 ? e : vma_input_put_back(&r->in, w->bytes + at, len - at, err);
        /* A header may begin in the last bytes. */
        have = len < VMA_EXTENT - 1 ? len : VMA_EXTENT - 1;
        memmove(w->bytes, w->bytes + len - have, have);
        passed += n + unread;
    }
    return e;
}

int vma_search(struct vma_reader *r, const uint8_t *uuid, uint64_t limit, bool *ret_found,
               bool *ret_zeros, struct platter_error *err)
{
    struct window w = {0};
    int e = search_windows(r, uuid, limit, &w, ret_found, ret_zeros, err);
    budget_free(r->request.budget, w.bytes, w.size);
    return e;
}

/* ---- gaps --------------------------------------------------------------------------------------
 */

static int tell_scrap(struct vma_reader *r, const uint8_t *bytes, size_t n,
                      struct platter_error *err)
{
    bool cut = vma_extent_begins(bytes, n, r->header.uuid);
    const struct archive_fault f = {.kind = cut ? ARCHIVE_FAULT_TRUNCATED : ARCHIVE_FAULT_TRAILING,
                                    .off = r->in.pos - n};
    if (r->broken) /* the reason was told, and something may follow */
        return 0;
    r->ended = true;
    if (cut)
        return vma_tell(r, &f, err, VMA_CUT_HEADER, r->file, f.off, n);
    return vma_tell(
        r, &f, err,
        "%s: %zu bytes at %" PRIu64
        " are too few for an extent: the archive was cut short, or something follows it",
        r->file, n, f.off);
}

static int tell_zeros(struct vma_reader *r, hoff off, struct platter_error *err)
{
    const struct archive_fault f = {.kind = ARCHIVE_FAULT_TRAILING, .off = off};
    r->ended = true;
    return vma_tell(r, &f, err,
                    "%s: %" PRIu64 " zero bytes follow the last extent at %" PRIu64
                    ": the archive was filled up, or its end is lost",
                    r->file, r->in.pos - off, off);
}

/* Nothing sound was found: there is nothing more, or it was not looked for any further. */
static int leave_rest(struct vma_reader *r, hoff off, struct platter_error *err)
{
    const struct archive_fault f = {.kind = ARCHIVE_FAULT_LOST, .off = off};
    uint64_t n = 0;
    int e = vma_skip(r, UINT64_MAX, &n, err);

    r->ended = true;
    if (e < 0)
        return e;
    if (n == 0)
        return vma_tell(r, &f, err,
                        "%s: from %" PRIu64 " to the end at %" PRIu64 " there is no sound extent",
                        r->file, off, r->in.pos);
    return vma_tell(r, &f, err,
                    "%s: from %" PRIu64 " to the end at %" PRIu64
                    " nothing was looked at, for where the next extent begins is not known: "
                    "salvaging finds it",
                    r->file, off, r->in.pos);
}

int vma_cross_gap(struct vma_reader *r, const uint8_t *bytes, size_t n, struct vma_gap *ret,
                  struct platter_error *err)
{
    const hoff off = r->in.pos - n;
    struct archive_fault f = {.kind = ARCHIVE_FAULT_EXTENT, .off = off};
    const bool salvage = r->head.flags & ARCHIVE_SALVAGE, unread = is_unreadable(r, off, n);
    bool zeros = is_zero(bytes, n) && !unread, rest = true;
    struct platter_error why = {0};
    struct vma_extent unused;

    *ret = (struct vma_gap){.off = off, .blank = zeros};
    if (n < VMA_EXTENT)
        return tell_scrap(r, bytes, n, err);
    if (unread)
        fail(&why, PLATTER_ECORRUPT, "%s: the extent at %" PRIu64 ": its header cannot be read",
             r->file, off);
    else
        vma_extent_decode(r->file, off, bytes, r->header.uuid, &unused, &why);
    if (!vma_goes_on(r))
        return vma_tell(r, &f, err, "%s", why.message);
    int e = vma_input_put_back(&r->in, bytes + 1, n - 1, err);
    if (e == 0)
        e = vma_search(r, r->header.uuid, salvage ? UINT64_MAX : MOST_EXTENT, &ret->crossed, &rest,
                       err);
    if (e < 0)
        return e;
    ret->blank = !ret->crossed && zeros && rest;
    if (ret->blank)
        return tell_zeros(r, off, err);
    e = vma_tell(r, &f, err, "%s", why.message);
    if (e < 0 || !ret->crossed)
        return e < 0 ? e : leave_rest(r, off, err);
    f.kind = ARCHIVE_FAULT_LOST;
    ret->next = r->in.pos;
    return vma_tell(r, &f, err,
                    "%s: %" PRIu64 " bytes at %" PRIu64
                    " are lost: the next sound extent begins at %" PRIu64,
                    r->file, ret->next - off, off, ret->next);
}

/* ---- data --------------------------------------------------------------------------------------
 */

/* Whether so many bytes are full extents, as the one in hand is: then their headers were written
 * over, for nothing but as many bytes as they have could have come or gone. Of extents that are not
 * full nobody knows how long they were. */
static bool are_extents(const struct vma_reader *r, uint64_t n)
{
    uint32_t full = 0;
    for (unsigned i = 0; i < VMA_SLOTS; i++)
        full += r->extent.slots[i].device ? VMA_BLOCKS : 0;
    return full && r->extent.blocks == full && n % (VMA_EXTENT + full * (uint64_t)VMA_BLOCK) == 0;
}

/* Whether the data in front of a gap, of `n` bytes that were read at first, may have moved. */
static bool may_have_moved(const struct vma_reader *r, const uint8_t *bytes, size_t n,
                           const struct vma_gap *gap)
{
    /* What is left of a header, or cannot be read, tells that it stands where it should. */
    if (gap->blank || vma_extent_begins(bytes, n, r->header.uuid) ||
        vma_was_extent(bytes, n, r->header.uuid) || is_unreadable(r, gap->off, n))
        return false;
    return !gap->crossed || !are_extents(r, gap->next - gap->off);
}

/* The data of the extent stands in memory, with the `n` bytes that follow it. */
static int judge_by(struct vma_reader *r, size_t n, struct platter_error *err)
{
    uint8_t *behind = r->data + r->data_len;
    size_t at = vma_find_extent(r->data, r->data_len + n, r->header.uuid);
    struct archive_fault f = {.kind = ARCHIVE_FAULT_LOST, .off = r->off};
    struct vma_gap gap;

    if (at < r->data_len) {
        int e = vma_input_put_back(&r->in, r->data + at, r->data_len + n - at, err);
        r->data_len = at;
        r->doubt = "bytes are gone from among them";
        if (e < 0)
            return e;
        return vma_tell(r, &f, err,
                        "%s: bytes of the extent at %" PRIu64 " are lost: it has %" PRIu32
                        " of them, but the next one begins at %" PRIu64,
                        r->file, r->off, VMA_EXTENT + r->extent.blocks * (uint32_t)VMA_BLOCK,
                        r->in.pos);
    }
    if (n == 0)
        return 0;
    /* In front of damage of the wrapper there may be a part of anything. */
    const bool broken = r->broken;
    int e = vma_cross_gap(r, behind, n, &gap, err);
    if (e == 0 && !r->doubt && !broken && may_have_moved(r, behind, n, &gap))
        r->doubt = gap.crossed ? "bytes were put in, or are gone, in front of the next extent"
                               : "what follows them is no extent: bytes may have been put in, or "
                                 "be gone";
    return e;
}

int vma_judge(struct vma_reader *r, struct platter_error *err)
{
    const size_t len = r->extent.blocks * (size_t)VMA_BLOCK;
    uint8_t *behind = r->data + r->data_len;
    size_t n = 0;

    int e = r->data_len < len ? 0 : vma_read(r, behind, VMA_EXTENT, &n, err);
    if (e < 0)
        return e;
    bool sound = false;
    if (n == VMA_EXTENT)
        e = vma_recognize(r, behind, r->in.pos - n, &sound, err);
    if (e < 0)
        return e;
    if (sound || (n == 0 && r->data_len == len)) {
        r->doubt = NULL;
        return vma_input_put_back(&r->in, behind, n, err);
    }
    if (r->passed || r->partial)
        e = vma_input_pread(&r->in, r->data, r->data_len, r->off + VMA_EXTENT, err);
    return e < 0 ? e : judge_by(r, n, err);
}
