/* SPDX-License-Identifier: MIT */
/* Disks out of images: put together from streams, from parts of other disks; taken apart at the
 * end. */
#include <string.h>

#include "disk/inside.h"

enum { DEFAULT_MEMORY = 64 << 20 };

int disk_new(uint64_t memory_limit, struct platter_disk **ret, struct platter_error *err)
{
    struct platter_disk *disk = calloc(1, sizeof *disk);
    if (!disk)
        return fail_memory(err, "a disk");
    range_lock_init(&disk->ranges);
    disk->budget = budget_new(memory_limit ? memory_limit : DEFAULT_MEMORY);
    int r = disk->budget ? unit_cache_new(disk->budget, &disk->cache, err)
                         : fail_memory(err, "a memory budget");
    if (r < 0) {
        disk_close(disk, NULL);
        return r;
    }
    *ret = disk;
    return 0;
}

/* Room for n more images. There is some for the longest chain at once: others look at the first
 * image of a disk to which some are added (disk_stack_live()), so the chain must not move. */
static int give_room(struct platter_disk *disk, unsigned n, struct platter_error *err)
{
    if (disk->depth + n <= disk->room)
        return 0;
    unsigned room = disk->depth + n > DISK_MAX_DEPTH + 1 ? disk->depth + n : DISK_MAX_DEPTH + 1;
    struct image **chain = reallocarray(disk->chain, room, sizeof *chain);
    if (!chain)
        return fail_memory(err, "a chain of images");
    disk->chain = chain;
    disk->room = room;
    return 0;
}

/* Appends an image at the base. Takes it, on failure as well. */
int disk_append(struct platter_disk *disk, struct image *img, struct platter_error *err)
{
    int r = give_room(disk, 1, err);
    if (r < 0) {
        image_free(img);
        return r;
    }
    disk->chain[disk->depth++] = img;
    return 0;
}

static unsigned image_requests(const struct image *img)
{
    struct stream *file;
    unsigned most = img->stream->depth;
    for (unsigned i = 0; img->format->file && img->format->file(img, i, &file); i++)
        if (file && file->depth > most)
            most = file->depth;
    return most;
}

unsigned disk_requests(const struct platter_disk *disk)
{
    unsigned most = 0;
    for (unsigned i = 0; i < disk->depth; i++) {
        unsigned n = image_requests(disk->chain[i]);
        most = n > most ? n : most;
    }
    return most;
}

static void tell_streams(const struct platter_disk *disk, void (*tell)(struct stream *s))
{
    struct stream *file;
    for (unsigned n = 0; n < disk->depth; n++) {
        const struct image *img = disk->chain[n];
        tell(img->stream);
        for (unsigned i = 0; img->format->file && img->format->file(img, i, &file); i++)
            if (file)
                tell(file);
    }
}

void disk_interrupt(const struct platter_disk *disk)
{
    tell_streams(disk, stream_interrupt);
}

void disk_persist(const struct platter_disk *disk)
{
    tell_streams(disk, stream_persist);
}

int disk_unchanged(const struct platter_disk *disk, struct platter_error *err)
{
    struct stream *file;
    int r = 0;
    for (unsigned n = 0; n < disk->depth && r == 0; n++) {
        const struct image *img = disk->chain[n];
        r = stream_unchanged(img->stream, err);
        for (unsigned i = 0; r == 0 && img->format->file && img->format->file(img, i, &file); i++)
            r = stream_unchanged(file, err);
    }
    return r;
}

uint64_t disk_window(const struct platter_disk *disk)
{
    return disk->depth > 0 ? disk_top(disk)->stream->window : 0;
}

int disk_reach(struct platter_disk *disk, goff off, bool *ret_known, struct platter_error *err)
{
    uint64_t size;
    *ret_known = true;
    if (disk_window(disk) == 0)
        return 0;
    int r = stream_reach(disk_top(disk)->stream, off, &size, err);
    *ret_known = r == 0 && size != UINT64_MAX;
    if (*ret_known)
        disk_top(disk)->size = size;
    return r;
}

/* Whether all is open that its bytes may come from. */
void disk_note_base(struct platter_disk *disk)
{
    disk->cut = disk->depth > 0 && disk->chain[disk->depth - 1]->has_backing;
}

/* Names found by streams that came without a path are refused. */
static int refuse_named(const struct name_opener *opener, const struct image *image,
                        const char *name, enum platter_name_kind kind, bool writable,
                        struct stream **ret, struct platter_error *err)
{
    (void)opener, (void)kind, (void)writable, (void)ret;
    return fail(err, PLATTER_EGATE, "%s: the file \"%s\" that it names is not opened here",
                image->stream->name, name);
}

const struct name_opener refuse_names = {refuse_named};

int disk_assemble_for_check(struct stream *stream, const struct format *format, bool repair,
                            uint64_t memory_limit, const struct name_opener *opener,
                            struct platter_disk **ret, struct platter_error *err)
{
    struct platter_disk *disk = NULL;
    int r = disk_new(memory_limit, &disk, err);
    if (r < 0) {
        stream_close(stream);
        return r;
    }
    struct image_setup setup = {.format = format,
                                .writable = repair,
                                .checking = true,
                                .ordered = true,
                                .budget = disk->budget,
                                .opener = opener ? opener : &refuse_names};
    struct image *img;
    r = image_load(stream, &setup, &img, err);
    if (r == 0)
        r = disk_append(disk, img, err);
    if (r < 0) {
        disk_close(disk, NULL);
        return r;
    }
    *ret = disk;
    return 0;
}

int disk_assemble(struct stream **streams, const struct format **formats_of, unsigned n,
                  bool writable, bool ordered, uint64_t memory_limit,
                  const struct name_opener *opener, struct platter_disk **ret,
                  struct platter_error *err)
{
    struct platter_disk *disk = NULL;
    int r = disk_new(memory_limit, &disk, err);
    unsigned i = 0;
    for (; i < n && r == 0; i++) {
        struct image_setup setup = {.format = formats_of[i],
                                    .writable = writable && i == 0,
                                    .ordered = ordered,
                                    .budget = disk->budget,
                                    .opener = opener ? opener : &refuse_names};
        struct image *img;
        r = image_load(streams[i], &setup, &img, err);
        if (r == 0)
            r = disk_append(disk, img, err);
    }
    if (r < 0) {
        for (; i < n; i++)
            stream_close(streams[i]);
        if (disk)
            disk_close(disk, NULL);
        return r;
    }
    disk->writable = writable;
    disk_note_base(disk);
    *ret = disk;
    return 0;
}

static int borrow(struct platter_disk *disk, struct image *const *images, unsigned n,
                  struct platter_error *err)
{
    int r = give_room(disk, n, err);
    if (r < 0)
        return r;
    memcpy(disk->chain + disk->depth, images, n * sizeof *images);
    disk->depth += n;
    disk->borrowed = disk->depth;
    disk_note_base(disk);
    return 0;
}

int disk_borrow(const struct platter_disk *from, unsigned first, unsigned n,
                struct platter_disk **ret, struct platter_error *err)
{
    struct platter_disk *disk;
    int r = disk_new(budget_limit(from->budget), &disk, err);
    if (r < 0)
        return r;
    r = borrow(disk, from->chain + first, n, err);
    if (r < 0) {
        disk_close(disk, NULL);
        return r;
    }
    disk->writable = disk_top(disk)->writable;
    *ret = disk;
    return 0;
}

int disk_borrow_below(struct platter_disk *disk, const struct platter_disk *from,
                      struct platter_error *err)
{
    return borrow(disk, from->chain, from->depth, err);
}

int disk_stack(struct platter_disk *disk, struct platter_disk *backing, struct platter_error *err)
{
    int r = 0;
    unsigned i = 0;
    for (; i < backing->depth && r == 0; i++)
        r = disk_append(disk, backing->chain[i], err);
    for (; i < backing->depth; i++)
        image_free(backing->chain[i]);
    backing->depth = 0;
    disk_close(backing, NULL);
    disk_note_base(disk);
    return r;
}

/* ---- closing --------------------------------------------------------------------------------- */

/* Flushes the top image, and lets the format of each that is open for writing mark it as closed;
 * their streams stay open. */
static int close_images(struct platter_disk *disk, struct platter_error *err)
{
    int r = disk->writable ? disk_flush(disk, err) : 0;
    for (unsigned i = disk->borrowed; i < disk->depth; i++) {
        struct image *img = disk->chain[i];
        if (i > 0 && !img->writable)
            continue;
        int c = img->format->close(img, r < 0 ? NULL : err);
        img->format = NULL;
        r = r < 0 ? r : c;
    }
    return r;
}

int disk_close(struct platter_disk *disk, struct platter_error *err)
{
    if (!disk)
        return 0;
    int r = disk->depth > 0 ? close_images(disk, err) : 0;
    for (unsigned i = disk->borrowed; i < disk->depth; i++)
        image_free(disk->chain[i]);
    free(disk->chain);
    disk_names_free(disk);
    unit_cache_free(disk->cache);
    budget_unref(disk->budget);
    range_lock_destroy(&disk->ranges);
    free(disk);
    return r;
}
