/* SPDX-License-Identifier: MIT */
#include "format/vma/reader.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/ckd.h"

/* ---- telling -----------------------------------------------------------------------------------
 */

int vma_tell(struct vma_reader *r, const struct archive_fault *fault, struct platter_error *err,
             const char *format, ...)
{
    struct archive_fault f = *fault;
    char text[sizeof err->message];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    f.text = text;
    if (f.kind != ARCHIVE_FAULT_NOTE && !vma_goes_on(r))
        return fail(err, PLATTER_ECORRUPT, "%s", text);
    if (r->request.fault)
        r->request.fault(r->request.opaque, &f);
    return 0;
}

const struct archive_disk *vma_disk_of(const struct vma_reader *r, unsigned device)
{
    unsigned i = r->disk_of[device];
    return i ? &r->disks[i - 1] : NULL;
}

bool vma_is_wanted(const struct vma_reader *r, const struct archive_disk *disk)
{
    return !r->head.wanted || r->head.wanted(r->head.wanted_opaque, disk);
}

/* ---- bytes -------------------------------------------------------------------------------------
 */

/* A damaged wrapper is told, if that is wanted: then what can be read behind the damage comes next,
 * or nothing more. */
static int stream_failed(struct vma_reader *r, int code, const struct platter_error *why,
                         struct platter_error *err)
{
    const struct archive_fault f = {.kind = ARCHIVE_FAULT_WRAPPER, .off = r->in.pos};
    bool told = code == -PLATTER_ECORRUPT && vma_goes_on(r);
    r->broken = true;
    if (told)
        vma_note_damage(r);
    r->failed = !told || !stream_resume(r->in.stream);
    return told ? vma_tell(r, &f, err, "%s", why->message) : fail(err, -code, "%s", why->message);
}

int vma_read(struct vma_reader *r, void *buf, size_t len, size_t *ret_len,
             struct platter_error *err)
{
    struct platter_error why = {0};
    size_t n = 1;
    int e = 0;

    for (*ret_len = 0; e == 0 && n && *ret_len < len; *ret_len += n) {
        n = 0;
        if (r->failed && !r->in.back)
            break;
        e = vma_input_read(&r->in, (uint8_t *)buf + *ret_len, len - *ret_len, &n, &why);
    }
    return e == 0 ? 0 : stream_failed(r, e, &why, err);
}

int vma_skip(struct vma_reader *r, uint64_t len, uint64_t *ret_len, struct platter_error *err)
{
    struct platter_error why = {0};
    *ret_len = 0;
    if (r->failed && !r->in.back)
        return 0;
    int e = vma_input_skip(&r->in, len, ret_len, &why);
    return e == 0 ? 0 : stream_failed(r, e, &why, err);
}

/* What salvaging cannot read is told, and is zeros. */
static int tell_unreadable(void *opaque, hoff start, hoff end, int code, struct platter_error *err)
{
    struct vma_reader *r = opaque;
    const struct archive_fault f = {
        .kind = ARCHIVE_FAULT_UNREADABLE, .off = start - r->in.start, .span = end - start};
    return vma_tell(r, &f, err, "%s: %" PRIu64 " bytes at %" PRIu64 " cannot be read: %s", r->file,
                    f.span, f.off, strerrordesc_np(code));
}

/* ---- extents -----------------------------------------------------------------------------------
 */

/* The header of the next extent: 1, 0 where there is none. */
static int read_extent(struct vma_reader *r, struct platter_error *err)
{
    struct archive_fault f = {.kind = ARCHIVE_FAULT_EXTENT, .off = r->in.pos};
    struct platter_error why = {0};
    uint8_t bytes[VMA_EXTENT];
    struct vma_gap gap;
    size_t n = 0;

    int e = vma_tell_unchecked(r, err);
    if (e < 0)
        return e;
    r->off = r->in.pos;
    r->broken = false;
    e = vma_read(r, bytes, sizeof bytes, &n, err);
    r->ended = n == 0 && !r->broken;
    if (e < 0 || n == 0)
        return e;
    if (n < sizeof bytes)
        return vma_cross_gap(r, bytes, n, &gap, err);
    bool known = false;
    e = vma_goes_on(r) ? vma_recognize(r, bytes, r->off, &known, err) : 0;
    if (e < 0)
        return e;
    r->doubt = NULL;
    if (vma_extent_decode(r->file, r->off, bytes, r->header.uuid, &r->extent, &why) == 0)
        return 1;
    if (vma_goes_on(r) && !known)
        return vma_cross_gap(r, bytes, n, &gap, err);
    /* Only its numbers do not fit each other: what follows will show whether they can be used. */
    r->doubt = VMA_CONTRADICTS;
    vma_extent_slots(bytes, &r->extent);
    e = vma_tell(r, &f, err, "%s", why.message);
    return e < 0 ? e : 1;
}

/* Whether somebody wants the data of a slot. */
static bool wants_slot(const struct vma_reader *r, const struct vma_slot *s)
{
    const struct archive_disk *d = vma_disk_of(r, s->device);
    return vma_slot_blocks(s) && (d ? vma_is_wanted(r, d) : r->head.lost_header);
}

/* How much of the extent's data is read, where what is not wanted need not be. */
static void choose_data(struct vma_reader *r)
{
    uint32_t wanted = 0;

    for (unsigned i = 0; i < VMA_SLOTS; i++)
        if (wants_slot(r, &r->extent.slots[i]))
            wanted += vma_slot_blocks(&r->extent.slots[i]);
    bool anywhere = vma_input_anywhere(&r->in);
    r->passed = anywhere && (wanted == 0 || r->head.flags & ARCHIVE_HEADERS);
    r->partial = anywhere && !r->passed && wanted < r->extent.blocks;
}

/* Reads what is wanted of the extent, of which `len` bytes are there: what stands together at once.
 */
static int read_wanted(struct vma_reader *r, uint64_t len, struct platter_error *err)
{
    uint64_t from = 0, at = 0;
    int e = 0;

    for (unsigned i = 0; e == 0 && i <= VMA_SLOTS && from <= len; i++) {
        const struct vma_slot *s = i < VMA_SLOTS ? &r->extent.slots[i] : NULL;
        if (s && (wants_slot(r, s) || vma_slot_blocks(s) == 0)) {
            at += vma_slot_blocks(s) * (uint64_t)VMA_BLOCK;
            continue;
        }
        uint64_t n = min_u64(at, len) - from;
        if (n)
            e = vma_input_pread(&r->in, r->data + from, (size_t)n, r->off + VMA_EXTENT + from, err);
        from = at += s ? vma_slot_blocks(s) * (uint64_t)VMA_BLOCK : 0;
    }
    return e;
}

static int tell_truncated(struct vma_reader *r, struct platter_error *err)
{
    struct archive_fault f = {.kind = ARCHIVE_FAULT_TRUNCATED, .off = r->off};
    r->ended = true;
    return vma_tell(r, &f, err,
                    "%s: the extent at %" PRIu64 " has %" PRIu32
                    " bytes, but the archive ends at %" PRIu64 ": it was cut short",
                    r->file, r->off, VMA_EXTENT + r->extent.blocks * (uint32_t)VMA_BLOCK,
                    r->in.pos);
}

static int read_data(struct vma_reader *r, struct platter_error *err)
{
    size_t len = r->extent.blocks * (size_t)VMA_BLOCK;
    uint64_t n = 0;
    int e;

    choose_data(r);
    if (r->passed || r->partial) {
        e = vma_skip(r, len, &n, err);
        r->data_len = (size_t)n;
        if (e == 0 && r->partial)
            e = read_wanted(r, n, err);
    } else {
        e = vma_read(r, r->data, len, &r->data_len, err);
    }
    const size_t came = r->data_len;
    if (e == 0 && vma_goes_on(r))
        e = vma_judge(r, err);
    /* Where the next one stands in its midst, or the wrapper is damaged, which was told, it is not
     * the archive that ends. */
    return e < 0 || r->data_len == len || r->data_len < came || r->broken ? e
                                                                          : tell_truncated(r, err);
}

/* ---- the end -----------------------------------------------------------------------------------
 */

static uint64_t clusters_of(const struct vma_reader *r, const struct archive_disk *d)
{
    return d->state || d->unsized ? coverage_end(r->coverage[d->id]) : vma_clusters(d->size);
}

static int tell_missing(struct vma_reader *r, const struct archive_disk *d, uint64_t first,
                        uint64_t n, struct platter_error *err)
{
    uint64_t end = (first + n) * VMA_CLUSTER;
    struct archive_fault f = {
        .kind = ARCHIVE_FAULT_MISSING, .off = r->in.pos, .disk = d, .start = first * VMA_CLUSTER};

    if (!d->state && !d->unsized)
        end = min_u64(end, d->size);
    f.len = end - f.start;
    if (n == 1)
        return vma_tell(r, &f, err,
                        "%s: cluster %" PRIu64
                        " of device %u (%s) is not in the archive: it is damaged or was cut short",
                        r->file, first, d->id, d->name);
    return vma_tell(r, &f, err,
                    "%s: clusters %" PRIu64 " to %" PRIu64
                    " of device %u (%s) are not in the archive: it is damaged or was cut short",
                    r->file, first, first + n - 1, d->id, d->name);
}

/* What is sound, as far as anybody can tell. */
static int tell_no_checksums(struct vma_reader *r, struct platter_error *err)
{
    const struct archive_fault f = {.kind = ARCHIVE_FAULT_NOTE, .off = r->in.pos};
    if (!vma_goes_on(r) || !stream_lacks_checksums(r->in.stream))
        return 0;
    return vma_tell(r, &f, err,
                    "%s: the compressed file has no checksums: damage in it may go unnoticed",
                    r->file);
}

/* All that is wanted is there, exactly once. */
static int finish(struct vma_reader *r, struct platter_error *err)
{
    uint64_t first = 0, n;
    int e = vma_tell_unchecked(r, err);

    if (e == 0)
        e = tell_no_checksums(r, err);
    r->finished = true;
    for (unsigned i = 0; e == 0 && i < r->head.listing.n_disks; i++) {
        const struct archive_disk *d = &r->disks[i];
        uint64_t at = 0, end = clusters_of(r, d);
        if (!vma_is_wanted(r, d))
            continue;
        while (e == 0 && (n = coverage_missing(r->coverage[d->id], at, end, &first)) > 0) {
            e = tell_missing(r, d, first, n, err);
            at = first + n;
        }
    }
    return e;
}

static int reader_next(struct archive_reader *head, struct archive_batch *batch,
                       struct platter_error *err)
{
    struct vma_reader *r = vma_reader_of(head);

    r->data = batch->room + VMA_ROOM_RUNS;
    while (!r->ended) {
        int e = read_extent(r, err);
        if (e < 0)
            return e;
        if (e == 0)
            continue;
        e = read_data(r, err);
        if (e == 0)
            e = vma_take_slots(r, batch, err);
        batch->off = r->off;
        batch->len = VMA_EXTENT + r->data_len;
        return e < 0 ? e : 1;
    }
    return r->finished ? 0 : finish(r, err);
}

static uint64_t reader_have(const struct archive_reader *head, const struct archive_disk *disk)
{
    const struct vma_reader *r = container_of(head, const struct vma_reader, head);
    const struct coverage *c = r->coverage[disk->id];
    uint64_t n = vma_clusters(disk->size);

    if (disk->state || disk->unsized)
        return coverage_end(c) * VMA_CLUSTER;
    /* The last cluster is as long as the disk has it. */
    bool last = n && coverage_has(c, (uint32_t)(n - 1));
    return (coverage_count(c) - last) * VMA_CLUSTER +
           (last ? disk->size - (n - 1) * VMA_CLUSTER : 0) - r->unread[disk->id];
}

/* ---- open and close ----------------------------------------------------------------------------
 */

static void reader_close(struct archive_reader *head)
{
    struct vma_reader *r = head ? vma_reader_of(head) : NULL;
    if (!r)
        return;
    for (unsigned i = 0; i < VMA_DEVICES; i++)
        coverage_free(r->coverage[i]);
    for (unsigned i = 0; i < VMA_CONFIGS; i++)
        free(r->config_names[i]);
    vma_forget_unchecked(r);
    budget_free(r->request.budget, r->bytes, r->bytes_len);
    vma_input_close(&r->in);
    free(r);
}

static const struct archive_reader_ops ops = {
    .next = reader_next, .have = reader_have, .close = reader_close};

int vma_reader_open(const struct archive_request *request, struct archive_reader **ret,
                    struct platter_error *err)
{
    struct vma_reader *r = calloc(1, sizeof *r);
    if (!r)
        return fail_memory(err, "an archive");
    r->head.ops = &ops;
    r->head.batch_bytes = VMA_ROOM;
    r->head.flags = request->flags;
    r->request = *request;
    r->file = request->stream->name;
    vma_input_open(&r->in, request->stream, request->budget);
    r->in.tell = request->flags & ARCHIVE_SALVAGE ? tell_unreadable : NULL;
    r->in.opaque = r;
    int e = vma_open_header(r, err);
    r->request.uuid = NULL; /* they are the caller's */
    r->request.found = NULL;
    if (e < 0)
        reader_close(&r->head);
    else
        *ret = &r->head;
    return e;
}
