/* SPDX-License-Identifier: MIT */
/* The header of an archive that comes front to back, or what is left of it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/vma/mend.h"
#include "format/vma/reader.h"
#include "format/vma/resync.h"

/* ---- the header --------------------------------------------------------------------------------
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

/* Reads the header and checks it. What was read is in r->bytes, on failure as well: *ret_got. */
static int read_header(struct vma_reader *r, size_t *ret_got, struct platter_error *err)
{
    uint8_t fixed[VMA_FIXED];
    uint32_t size = 0;
    size_t n = 0, more = 0;

    int e = vma_read(r, fixed, sizeof fixed, &n, err);
    int bad = e == 0 && n < sizeof fixed ? fail_short(r, fixed, n, VMA_FIXED, err) : 0;
    if (e == 0 && bad == 0)
        bad = vma_header_size(r->file, fixed, &size, err);
    if (e < 0)
        return e;
    r->bytes_len = bad < 0 ? n : size;
    e = r->bytes_len ? budget_alloc(r->request.budget, r->bytes_len, "the header of an archive",
                                    &r->bytes, err)
                     : 0;
    if (e < 0)
        return e;
    *ret_got = n;
    if (n)
        memcpy(r->bytes, fixed, n);
    if (bad < 0)
        return bad;
    e = vma_read(r, r->bytes + n, size - n, &more, err);
    *ret_got += more;
    if (e == 0 && *ret_got < size)
        e = fail_short(r, fixed, *ret_got, size, err);
    return e < 0 ? e : vma_header_decode(r->file, r->bytes, size, &r->header, err);
}

enum {
    MD5_AT = 32,
/* Bytes that are hashed to mend it: about a second, which a fuzzer has not. */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    MEND_BYTES = 1 << 20
#else
    MEND_BYTES = 512 << 20
#endif
};

/* ---- without it --------------------------------------------------------------------------------
 */

/* Whether one bit can be all that is wrong with what every header says: "VMA", a zero, that it is
 * version 1, and its size. */
static bool may_be_mended(const uint8_t *bytes, uint32_t size)
{
    const uint64_t begin = get_be(bytes, 8) ^ UINT64_C(0x564d410000000001);
    return __builtin_popcountll(begin) + __builtin_popcountll(get_be(bytes + 56, 4) ^ size) <= 1;
}

/* Whether the header in r->bytes is right but for one bit, which is mended. */
static bool mend_header(struct vma_reader *r)
{
    const uint32_t size = (uint32_t)r->bytes_len;
    return size > VMA_FIXED && size <= VMA_MOST_HEADER && may_be_mended(r->bytes, size) &&
           vma_mend(r->bytes, size, MD5_AT, MEND_BYTES) &&
           vma_header_decode(r->file, r->bytes, size, &r->header, NULL) == 0;
}

static int tell_mended(struct vma_reader *r, struct platter_error *err)
{
    const struct archive_fault note = {.kind = ARCHIVE_FAULT_NOTE};
    r->head.lost_header = false;
    return vma_tell(r, &note, err,
                    "%s: the checksum of the header is right with one bit of it changed: that is "
                    "used",
                    r->file);
}

/* The first extent stands at `at` in these bytes: what is in front of it is the header, if it is
 * one still. */
static int use_window(struct vma_reader *r, const uint8_t *window, size_t len, size_t at,
                      const uint8_t *uuid, struct platter_error *err)
{
    uint8_t own[VMA_UUID];
    memcpy(own, uuid, sizeof own);
    int e =
        at ? budget_alloc(r->request.budget, at, "the header of an archive", &r->bytes, err) : 0;
    if (e < 0)
        return e;
    r->bytes_len = at;
    if (at)
        memcpy(r->bytes, window, at);
    if (mend_header(r))
        e = tell_mended(r, err);
    else
        vma_header_rescue(r->file, r->bytes, (uint32_t)at, &r->header);
    if (e < 0)
        return e;
    memcpy(r->header.uuid, own, sizeof own);
    return vma_input_put_back(&r->in, window + at, len - at, err);
}

/* Finds the archive's uuid and its first extent within so many bytes; *ret_found. All of them are
 * read again where it does not. */
static int look_in_window(struct vma_reader *r, size_t size, bool *ret_found,
                          struct platter_error *err)
{
    uint8_t *window = NULL;
    size_t len = 0, at = 0;

    int e = budget_alloc(r->request.budget, size, "the search for extents", &window, err);
    if (e == 0)
        e = vma_read(r, window, size, &len, err);
    const uint8_t *uuid = r->request.uuid;
    if (e == 0 && !uuid)
        uuid = vma_vote_uuid(window, len, len >= 24 ? window + 8 : NULL);
    if (e == 0)
        at = uuid ? vma_find_extent(window, len, uuid) : len;
    *ret_found = at < len;
    if (e == 0)
        e = *ret_found ? use_window(r, window, len, at, uuid, err)
                       : vma_input_put_back(&r->in, window, len, err);
    budget_free(r->request.budget, window, size);
    return e;
}

/* Behind the longest header that there can be: whatever extent comes. */
static int look_further(struct vma_reader *r, struct platter_error *err)
{
    uint8_t bytes[VMA_EXTENT];
    bool found = false, zeros;
    size_t n;

    r->header = (struct vma_header){0};
    int e = vma_search(r, r->request.uuid, UINT64_MAX, &found, &zeros, err);
    if (e == 0 && !found)
        e = fail(err, PLATTER_ENOFORMAT, "%s: no part of a VMA archive was found in it", r->file);
    if (e == 0)
        e = vma_read(r, bytes, sizeof bytes, &n, err);
    if (e < 0)
        return e;
    memcpy(r->header.uuid, bytes + 8, VMA_UUID);
    return vma_input_put_back(&r->in, bytes, sizeof bytes, err);
}

/* The header is damaged: `why`. The first extents tell which archive it is. */
static int rescue(struct vma_reader *r, size_t got, const struct platter_error *why,
                  struct platter_error *err)
{
    const struct archive_fault f = {.kind = ARCHIVE_FAULT_HEADER};
    bool found = false;
    hoff unread;

    r->head.lost_header = true;
    int e = vma_tell(r, &f, err, "%s", why->message);
    if (e == 0 && got == r->bytes_len && !vma_input_unreadable(&r->in, 0, got, &unread) &&
        mend_header(r))
        return tell_mended(r, err);
    if (e == 0)
        e = vma_input_put_back(&r->in, r->bytes, got, err);
    budget_free(r->request.budget, TAKE(r->bytes), r->bytes_len);
    for (size_t size = 1 << 20; e == 0 && !found && size <= VMA_MOST_HEADER; size *= 4)
        e = look_in_window(r, size, &found, err);
    return e < 0 || found ? e : look_further(r, err);
}

/* ---- the listing -------------------------------------------------------------------------------
 */

static int add_disk(struct vma_reader *r, const struct archive_disk *disk,
                    struct platter_error *err)
{
    unsigned n = r->head.listing.n_disks++;
    r->disks[n] = *disk;
    r->disk_of[disk->id] = n + 1;
    return coverage_new(r->request.budget, &r->coverage[disk->id], err);
}

static const char *name_device(struct vma_reader *r, unsigned device)
{
    snprintf(r->names[device], sizeof r->names[device], "device-%u", device);
    return r->names[device];
}

int vma_add_unsized(struct vma_reader *r, unsigned device, struct platter_error *err)
{
    const struct archive_disk disk = {
        .name = name_device(r, device), .id = device, .unsized = true};
    return add_disk(r, &disk, err);
}

/* A disk that another reader found. */
static void take_found(struct vma_reader *r, unsigned device)
{
    const struct archive_listing *l = r->head.lost_header ? r->request.found : NULL;
    for (unsigned i = 0; l && i < l->n_disks; i++)
        if (l->disks[i].id == device && l->disks[i].size && !r->header.devices[device].name)
            r->header.devices[device] =
                (struct vma_device){.name = name_device(r, device), .size = l->disks[i].size};
}

/* A salvage gets at disks of one name all the same: the first has it, the others their numbers. */
static int rename_twin(struct vma_reader *r, unsigned device, struct platter_error *err)
{
    const struct archive_fault f = {.kind = ARCHIVE_FAULT_DUPLICATE};
    const char *name = r->header.devices[device].name;

    for (unsigned i = 0; name && i < r->head.listing.n_disks; i++) {
        if (strcmp(r->disks[i].name, name) != 0)
            continue;
        r->header.devices[device].name = name_device(r, device);
        return vma_tell(r, &f, err,
                        "%s: devices %u and %u have the same name, %s: the second is called "
                        "device-%u here",
                        r->file, r->disks[i].id, device, name, device);
    }
    return 0;
}

static int list_disks(struct vma_reader *r, struct platter_error *err)
{
    int e = 0;
    for (unsigned i = 1; e == 0 && i < VMA_DEVICES; i++) {
        take_found(r, i);
        if (r->head.flags & ARCHIVE_SALVAGE)
            e = rename_twin(r, i, err);
        const struct vma_device *d = &r->header.devices[i];
        struct archive_disk disk = {.name = d->name, .size = d->size, .id = i, .state = d->state};
        if (e == 0 && d->name)
            e = add_disk(r, &disk, err);
    }
    return e;
}

static bool has_config(const struct vma_reader *r, const char *name, unsigned before)
{
    bool found = false;
    for (unsigned i = 0; !found && i < before; i++)
        found = strcmp(r->header.configs[i].name, name) == 0;
    return found;
}

/* A salvage gets at configurations of one name: others have a number behind it. */
static int rename_config(struct vma_reader *r, unsigned i, struct platter_error *err)
{
    const struct archive_fault f = {.kind = ARCHIVE_FAULT_DUPLICATE};
    const char *name = r->header.configs[i].name;
    char *own = NULL;

    if (!has_config(r, name, i))
        return 0;
    for (unsigned n = 2; !own || has_config(r, own, r->header.n_configs); n++) {
        free(own);
        own = string_format("%s~%u", name, n);
        if (!own)
            return fail_memory(err, "the name of a configuration");
    }
    r->config_names[i] = own;
    r->header.configs[i].name = own;
    return vma_tell(r, &f, err,
                    "%s: has several configurations called %s: number %u of them all is called %s "
                    "here",
                    r->file, name, i + 1, own);
}

static int list_configs(struct vma_reader *r, struct platter_error *err)
{
    const struct archive_fault note = {.kind = ARCHIVE_FAULT_NOTE};
    int e = 0;
    for (unsigned i = 0; e == 0 && i < r->header.n_configs; i++) {
        const struct vma_config *c = &r->header.configs[i];
        if (r->head.flags & ARCHIVE_SALVAGE)
            e = rename_config(r, i, err);
        if (e < 0)
            break;
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

int vma_open_header(struct vma_reader *r, struct platter_error *err)
{
    struct archive_listing *l = &r->head.listing;
    struct platter_error why = {0};
    size_t got = 0;

    int e = read_header(r, &got, &why);
    if (e < 0 && e != -ENOMEM && r->head.flags & ARCHIVE_SALVAGE)
        e = rescue(r, got, &why, err);
    else if (e < 0)
        fail(err, -e, "%s", why.message);
    if (e < 0)
        return e;
    l->format = &format_vma;
    l->configs = r->configs;
    l->disks = r->disks;
    memcpy(l->uuid, r->header.uuid, sizeof l->uuid);
    l->ctime = r->header.ctime;
    e = list_disks(r, err);
    return e < 0 ? e : list_configs(r, err);
}
