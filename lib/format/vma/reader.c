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

/* Reads as much as there is. Where the stream fails, a damaged wrapper ends the archive early, if
 * that is to be told; *ret_len is what came before. */
static int read_input(struct vma_reader *r, void *buf, size_t len, size_t *ret_len,
                      struct platter_error *err)
{
    struct archive_fault f = {.kind = ARCHIVE_FAULT_WRAPPER};
    struct platter_error why = {0};
    size_t n = 1;
    int e = 0;

    for (*ret_len = 0; e == 0 && n && *ret_len < len; *ret_len += n) {
        n = 0;
        e = vma_input_read(&r->in, (uint8_t *)buf + *ret_len, len - *ret_len, &n, &why);
    }
    if (e == 0)
        return 0;
    f.off = r->in.pos;
    r->ended = true;
    if (e == -PLATTER_ECORRUPT && vma_goes_on(r))
        return vma_tell(r, &f, err, "%s", why.message);
    return fail(err, -e, "%s", why.message);
}

/* ---- the beginning -----------------------------------------------------------------------------
 */

static int fail_short(const struct vma_reader *r, const uint8_t *fixed, uint64_t got, uint64_t size,
                      struct platter_error *err)
{
    if (got < 4 || memcmp(fixed, "VMA", 4) != 0)
        return fail(err, PLATTER_ENOFORMAT, "%s: is no VMA archive: it does not begin with VMA",
                    r->file);
    return fail(err, PLATTER_ECORRUPT,
                "%s: a VMA archive has a header of %s%" PRIu64
                " bytes, but this one ends at %" PRIu64 ": it was cut short",
                r->file, size == VMA_FIXED ? "more than " : "", size, got);
}

static int read_header(struct vma_reader *r, struct platter_error *err)
{
    uint8_t fixed[VMA_FIXED];
    uint32_t size = 0;
    size_t n, more = 0;

    int e = read_input(r, fixed, sizeof fixed, &n, err);
    if (e == 0 && n < sizeof fixed)
        e = fail_short(r, fixed, n, VMA_FIXED, err);
    if (e == 0)
        e = vma_header_size(r->file, fixed, &size, err);
    if (e == 0)
        e = budget_alloc(r->request.budget, size, "the header of an archive", &r->bytes, err);
    if (e < 0)
        return e;
    r->header.size = size;
    memcpy(r->bytes, fixed, sizeof fixed);
    e = read_input(r, r->bytes + sizeof fixed, size - sizeof fixed, &more, err);
    if (e == 0 && more < size - sizeof fixed)
        e = fail_short(r, fixed, n + more, size, err);
    return e < 0 ? e : vma_header_decode(r->file, r->bytes, size, &r->header, err);
}

static int add_disk(struct vma_reader *r, unsigned device, const struct archive_disk *disk,
                    struct platter_error *err)
{
    unsigned n = r->head.listing.n_disks++;
    r->disks[n] = *disk;
    r->disk_of[device] = n + 1;
    return coverage_new(r->request.budget, &r->coverage[device], err);
}

static int list_disks(struct vma_reader *r, struct platter_error *err)
{
    int e = 0;
    for (unsigned i = 1; e == 0 && i < VMA_DEVICES; i++) {
        const struct vma_device *d = &r->header.devices[i];
        struct archive_disk disk = {.name = d->name, .size = d->size, .id = i, .state = d->state};
        if (d->name)
            e = add_disk(r, i, &disk, err);
    }
    return e;
}

static int list_configs(struct vma_reader *r, struct platter_error *err)
{
    const struct archive_fault note = {.kind = ARCHIVE_FAULT_NOTE};
    int e = 0;
    for (unsigned i = 0; e == 0 && i < r->header.n_configs; i++) {
        const struct vma_config *c = &r->header.configs[i];
        r->configs[i] = (struct archive_config){c->name, c->bytes, c->size, c->displaced};
        if (c->displaced)
            e = vma_tell(r, &note, err,
                         "%s: the content of the configuration %s stands where a writer of 2013 "
                         "put it: behind its name",
                         r->file, c->name);
    }
    r->head.listing.n_configs = r->header.n_configs;
    return e;
}

static int open_reader(struct vma_reader *r, struct platter_error *err)
{
    struct archive_listing *l = &r->head.listing;

    int e = read_header(r, err);
    l->format = &format_vma;
    l->configs = r->configs;
    l->disks = r->disks;
    if (e == 0)
        e = list_disks(r, err);
    if (e == 0)
        e = list_configs(r, err);
    memcpy(l->uuid, r->header.uuid, sizeof l->uuid);
    l->ctime = r->header.ctime;
    return e;
}

static void reader_close(struct archive_reader *head)
{
    struct vma_reader *r = head ? vma_reader_of(head) : NULL;
    if (!r)
        return;
    for (unsigned i = 0; i < VMA_DEVICES; i++)
        coverage_free(r->coverage[i]);
    budget_free(r->request.budget, r->bytes, r->header.size);
    vma_input_close(&r->in);
    free(r);
}

int vma_reader_open(const struct archive_request *request, struct archive_reader **ret,
                    struct platter_error *err)
{
    struct vma_reader *r = calloc(1, sizeof *r);
    if (!r)
        return fail_memory(err, "an archive");
    r->head.ops = &vma_reader_ops;
    r->head.batch_bytes = VMA_ROOM;
    r->head.flags = request->flags;
    r->request = *request;
    r->file = request->stream->name;
    vma_input_open(&r->in, request->stream, request->budget);
    int e = open_reader(r, err);
    if (e < 0)
        reader_close(&r->head);
    else
        *ret = &r->head;
    return e;
}

/* ---- extents -----------------------------------------------------------------------------------
 */

static int tell_scrap(struct vma_reader *r, size_t n, struct platter_error *err)
{
    struct archive_fault f = {.kind = ARCHIVE_FAULT_TRAILING, .off = r->off};
    r->ended = true;
    return vma_tell(
        r, &f, err,
        "%s: %zu bytes at %" PRIu64
        " are too few for an extent: the archive was cut short, or something follows it",
        r->file, n, r->off);
}

/* The rest is not looked at: where the next extent begins, nobody knows. */
static int leave_rest(struct vma_reader *r, struct platter_error *err)
{
    struct archive_fault f = {.kind = ARCHIVE_FAULT_LOST, .off = r->off};
    uint64_t n = 0;

    r->ended = true;
    int e = vma_input_skip(&r->in, UINT64_MAX, &n, err);
    if (e < 0)
        return e;
    return vma_tell(r, &f, err,
                    "%s: from %" PRIu64 " to the end at %" PRIu64
                    " nothing was looked at, for where the next extent begins is not known: "
                    "salvaging finds it",
                    r->file, r->off, r->in.pos);
}

static int tell_damaged(struct vma_reader *r, const struct platter_error *why,
                        struct platter_error *err)
{
    const struct archive_fault f = {.kind = ARCHIVE_FAULT_EXTENT, .off = r->off};
    int e = vma_tell(r, &f, err, "%s", why->message);
    return e < 0 ? e : leave_rest(r, err);
}

/* The header of the next extent: 1, 0 where there is none. */
static int read_extent(struct vma_reader *r, struct platter_error *err)
{
    struct platter_error why = {0};
    uint8_t bytes[VMA_EXTENT];
    size_t n = 0;

    r->off = r->in.pos;
    int e = read_input(r, bytes, sizeof bytes, &n, err);
    if (e < 0 || r->ended)
        return e;
    r->ended = n == 0;
    if (n == 0)
        return 0;
    if (n < sizeof bytes)
        return tell_scrap(r, n, err);
    if (vma_extent_decode(r->file, r->off, bytes, r->header.uuid, &r->extent, &why) == 0)
        return 1;
    return tell_damaged(r, &why, err);
}

/* Whether the data of the extent is to be passed over: nobody wants it, and that is cheaper than
 * reading it. */
static bool may_pass(const struct vma_reader *r)
{
    if (!vma_input_anywhere(&r->in))
        return false;
    if (r->head.flags & ARCHIVE_HEADERS)
        return true;
    for (unsigned i = 0; i < VMA_SLOTS; i++) {
        const struct archive_disk *d = vma_disk_of(r, r->extent.slots[i].device);
        if (d && vma_is_wanted(r, d))
            return false;
    }
    return true;
}

static int tell_truncated(struct vma_reader *r, struct platter_error *err)
{
    struct archive_fault f = {.kind = ARCHIVE_FAULT_TRUNCATED, .off = r->off};
    if (r->ended) /* the reason was told */
        return 0;
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

    r->passed = may_pass(r);
    if (r->passed) {
        e = vma_input_skip(&r->in, len, &n, err);
        r->data_len = (size_t)n;
    } else {
        e = read_input(r, r->data, len, &r->data_len, err);
    }
    return e < 0 || r->data_len == len ? e : tell_truncated(r, err);
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

/* All that is wanted is there, exactly once. */
static int finish(struct vma_reader *r, struct platter_error *err)
{
    uint64_t first = 0, n;
    int e = 0;

    r->finished = true;
    for (unsigned i = 0; i < r->head.listing.n_disks; i++) {
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
           (last ? disk->size - (n - 1) * VMA_CLUSTER : 0);
}

const struct archive_reader_ops vma_reader_ops = {
    .next = reader_next, .have = reader_have, .close = reader_close};
