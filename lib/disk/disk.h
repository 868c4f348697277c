/* SPDX-License-Identifier: MIT */
/*
 * The engine: images stacked top to base, fixed at open. Read, write, zero, discard, flush and map
 * for every format alike. Formats say where bytes live (map) and may go (reserve); only this layer
 * moves them, splits requests, fills the heads and tails of copied units, and locks ranges.
 *
 * Rule 1, the write order: lock the guest range; map; in place if the extent allows; else reserve,
 * write the data with its copied head and tail, then commit. On failure abandon.
 */
#ifndef DISK_DISK_H
#define DISK_DISK_H

#include "base/rangelock.h"
#include "format/format.h"

enum {
    DISK_MAX_DEPTH = 200 /* images in a chain: qcow2.md section 22 */
};

/* What the backing file of a qcow2 is called, with an ID behind it, that is the target of a live
 * migration. */
#define DISK_MIGRATION_MARK "platter-migration:"

struct unit_cache;
struct filling;

struct platter_disk {
    struct image **chain; /* [0] is the top; owned, but for the first `borrowed` */
    unsigned depth, borrowed;
    unsigned room; /* of chain, images */
    bool writable;
    bool cut;                 /* the lowest image has a backing file that was not opened */
    struct range_lock ranges; /* taken only on writable disks */
    struct budget *budget;
    struct unit_cache *cache; /* inflated units that were read in part */
    struct filling *filling;  /* what is below is moving into the top image; or NULL */
    struct kept_name *names;  /* of files that callers know; under the lock of the top image */
};

/* An extent of the whole chain: which image decides. Never EXTENT_BACKING: what nobody stores is
 * EXTENT_ZERO with present == false. */
struct disk_extent {
    struct extent e;
    unsigned depth;
    bool present;
};

/* Whether files of the format called so hold several disks: where none is called FILE@DISK as it
 * stands, that names one of them as a backing file. NULL: no. */
bool format_has_disks(const char *name);

/* platter_open() without argument checks. */
int disk_open(const char *name, const struct platter_open_options *options,
              struct platter_disk **ret, struct platter_error *err);

/* Opens an image alone and as a query, but its file for writing: format->key_area() may be changed.
 */
int disk_open_for_keys(const char *name, const struct platter_open_options *options,
                       struct platter_disk **ret, struct platter_error *err);

/* Opens an image alone, with image->checking, to be given to format->check() and to be closed;
 * `repair` opens it for writing. Its format may have no check. */
int disk_open_for_check(const char *name, const struct platter_open_options *options, bool repair,
                        struct platter_disk **ret, struct platter_error *err);
/* The same over a stream (consumed, on failure as well), as disk_assemble() opens. */
int disk_assemble_for_check(struct stream *stream, const struct format *format, bool repair,
                            uint64_t memory_limit, const struct name_opener *opener,
                            struct platter_disk **ret, struct platter_error *err);

/*
 * Builds a disk from open streams, top first, each with its format: how new images (under temporary
 * names) and tests open. Takes ownership of the streams, on failure as well. `ordered` is
 * image->ordered of the top; memory_limit 0 is the default; `opener` gives the files that images
 * name, NULL: none. No locks are taken.
 */
int disk_assemble(struct stream **streams, const struct format **formats_of, unsigned n,
                  bool writable, bool ordered, uint64_t memory_limit,
                  const struct name_opener *opener, struct platter_disk **ret,
                  struct platter_error *err);

/* disk_open() of a chain in which the image `base` (not 0, counted from the top) is open for
 * writing as well, to be committed to. */
int disk_open_with_base(const char *name, const struct platter_open_options *options, unsigned base,
                        struct platter_disk **ret, struct platter_error *err);

/*
 * A second disk of the images first .. first + n - 1 of another one, which must outlive it. A unit
 * must not be written by one disk while it is read or written by the other.
 */
int disk_borrow(const struct platter_disk *from, unsigned first, unsigned n,
                struct platter_disk **ret, struct platter_error *err);
/* ... and all images of a third one below them. */
int disk_borrow_below(struct platter_disk *disk, const struct platter_disk *from,
                      struct platter_error *err);

/* Adds the backing chain of `backing` (consumed, on failure as well) below the images of disk. */
int disk_stack(struct platter_disk *disk, struct platter_disk *backing, struct platter_error *err);

int disk_close(struct platter_disk *disk, struct platter_error *err);

/* The path that a name inside `image_name` means, malloc'ed; *ret NULL: it is no plain path. */
int gate_resolve(const char *image_name, const char *name, char **ret, struct platter_error *err);

static inline struct image *disk_top(const struct platter_disk *disk)
{
    return disk->chain[0];
}

/* How many requests at once its slowest stream is worth, as stream->depth has it; 0: all is local.
 */
unsigned disk_requests(const struct platter_disk *disk);
/* From any thread: whoever waits for a server of its streams comes back with ECANCELED, now and
 * from then on. What is local goes on. */
void disk_interrupt(const struct platter_disk *disk);
/* stream_persist() of all that it reads. */
void disk_persist(const struct platter_disk *disk);
/* stream_unchanged() of all its files, when all of it was read that is wanted. */
int disk_unchanged(const struct platter_disk *disk, struct platter_error *err);

/*
 * stream_identity() of all its files, for a state that is kept: of each image from `first` down to
 * the base "name", "format", "size" and, if it is one, "view", and of each of its files "name" and
 * "identity". The names are for who reads it: they may be others another time.
 */
int disk_identity(const struct platter_disk *disk, unsigned first, json_t **ret,
                  struct platter_error *err);
/* Whether that is still so: ESTALE, and a sentence that says which file changed and how. */
int disk_identity_check(const struct platter_disk *disk, unsigned first, const json_t *before,
                        struct platter_error *err);

/* Of a disk that is read front to back, and whose size is not known before its end is reached:
 * reads on to `off`, as far as that is kept. *ret_known: whether its size is, which disk_size() has
 * then. Others: at once. */
int disk_reach(struct platter_disk *disk, goff off, bool *ret_known, struct platter_error *err);
/* Of the same: how far behind the furthest byte that was read others can still be; 0: anywhere. */
uint64_t disk_window(const struct platter_disk *disk);

static inline uint64_t disk_size(const struct platter_disk *disk)
{
    return atomic_load(&disk->chain[0]->size);
}

int disk_read(struct platter_disk *disk, void *buf, size_t len, goff off,
              struct platter_error *err);
int disk_write(struct platter_disk *disk, const void *buf, size_t len, goff off,
               struct platter_error *err);
int disk_zero(struct platter_disk *disk, goff off, uint64_t len, bool unmap,
              struct platter_error *err);
int disk_discard(struct platter_disk *disk, goff off, uint64_t len, struct platter_error *err);
int disk_flush(struct platter_disk *disk, struct platter_error *err);
/* Another size, durably; `flags` are PLATTER_RESIZE_*. `maker` makes further files where the image
 * needs some, NULL: it can have none. */
int disk_resize(struct platter_disk *disk, uint64_t size, unsigned flags,
                enum platter_preallocation preallocation, const struct file_maker *maker,
                struct platter_error *err);

/* Moves what the file of the top image holds towards its front. A dry run needs no disk that is
 * open for writing. */
int disk_compact(struct platter_disk *disk, struct compact_request *request,
                 struct platter_error *err);

/* Snapshots inside the top image: struct snapshot_ops. A disk that is open for writing. */
int disk_snapshot_create(struct platter_disk *disk, struct snapshot_request *request,
                         struct teller *teller, struct platter_error *err);
int disk_snapshot_apply(struct platter_disk *disk, const char *name, unsigned by,
                        struct teller *teller, struct platter_error *err);
int disk_snapshot_delete(struct platter_disk *disk, const char *name, unsigned by,
                         struct teller *teller, struct platter_error *err);

/* A comparison of two of them, during which the disk does not change. Close what was opened. */
struct disk_diff {
    struct platter_disk *disk;
    const struct snapshot_ops *ops;
    struct snapshot_diff *diff;
    struct range_hold hold;
    uint64_t sizes[2];
};
int disk_snapshot_diff_open(struct platter_disk *disk, const char *from, const char *to,
                            struct disk_diff *d, struct platter_error *err);
int disk_snapshot_diff_next(struct disk_diff *d, goff off, struct snapshot_difference *ret,
                            struct platter_error *err);
void disk_snapshot_diff_close(struct disk_diff *d);

/* The state of a machine: that of the view that is open is read, the next snapshot's written, or
 * forgotten. */
int disk_state_size(struct platter_disk *disk, uint64_t *ret, struct platter_error *err);
int disk_state_read(struct platter_disk *disk, void *buf, size_t len, uint64_t off,
                    struct platter_error *err);
int disk_state_write(struct platter_disk *disk, const void *buf, size_t len, uint64_t off,
                     struct platter_error *err);
int disk_state_drop(struct platter_disk *disk, struct platter_error *err);

/* A view of the file of an open disk, read-only, over the same images below; the disk must outlive
 * it. */
struct disk_view {
    struct platter_disk *disk;
    struct platter_disk *own; /* keeps the view itself */
};
int disk_view_open(const struct platter_disk *of, const char *view, struct disk_view *ret,
                   struct platter_error *err);
void disk_view_close(struct disk_view *view);

/* Changes its bitmaps, which its format has; `sources` are the other disks that they come from. */
int disk_change_bitmaps(struct platter_disk *disk, const struct bitmap_change *changes, size_t n,
                        struct platter_disk *const *sources, size_t n_sources,
                        struct platter_error *err);

/* Keeps the images of a disk, their sizes and their extents as they are until it is let go. */
void disk_pin(struct platter_disk *disk, struct range_hold *hold);
void disk_unpin(struct platter_disk *disk, struct range_hold *hold);

/* The first extent of [off, off + len). */
int disk_map(struct platter_disk *disk, goff off, uint64_t len, struct disk_extent *ret,
             struct platter_error *err);
/* The same over the images 0 .. depth - 1 only: EXTENT_BACKING where none of them decides. */
int disk_map_above(struct platter_disk *disk, unsigned depth, goff off, uint64_t len,
                   struct disk_extent *ret, struct platter_error *err);

/* What a caller is told of an extent: disk_map() and disk_find_holes(). Its stream may be closed by
 * the time that he looks at it. */
struct disk_told {
    struct disk_extent x;
    bool stored;      /* the format stores it as data, be there a hole of the file or not */
    bool inside;      /* ... inside of a file of another kind, where it has no place */
    const char *file; /* the name of its file, for as long as the disk is open; or NULL */
};
int disk_map_told(struct platter_disk *disk, goff off, uint64_t len, struct disk_told *ret,
                  struct platter_error *err);

/*
 * Looks into the file: where a hole of it stands for data, as preallocated metadata leaves them, *x
 * becomes EXTENT_ZERO with a place; it may become shorter either way. For whoever reads whole
 * disks.
 */
int disk_find_holes(struct disk_extent *x, struct platter_error *err);

/*
 * A write in two steps, so that a copy with several threads can lay data out in guest order:
 * begin() locks the range and reserves room for all of it; end() writes and commits, or gives all
 * back if buf is NULL, and unlocks. end() must follow begin() on the same thread, whatever it
 * returned.
 */
struct disk_write {
    struct platter_disk *disk;
    goff off;
    uint64_t len;
    struct range_hold hold;
    struct disk_write_step *steps;
    unsigned n_steps;
    bool mixed; /* of a fill: some units are there in part */
};
int disk_write_begin(struct platter_disk *disk, goff off, uint64_t len, struct disk_write *w,
                     struct platter_error *err);
int disk_write_end(struct disk_write *w, const void *buf, struct platter_error *err);

/* The same for one packed unit of the top image (format->pack made it). */
int disk_write_packed_begin(struct platter_disk *disk, goff unit, size_t packed_len,
                            struct disk_write *w, struct platter_error *err);
int disk_write_packed_end(struct disk_write *w, const void *packed, size_t packed_len,
                          struct platter_error *err);

/* ---- fill.c: a disk that is filled from below -------------------------------------------------
 */

/*
 * A top image that is to hold all of the disk one day, and shows the images below until then (a
 * live migration). What a guest writes is never written over: a fill stores only what the top image
 * lacks, and looks again with the range locked (rule 4). Of the caller, for as long as the disk has
 * it.
 */
struct filling {
    bool copy_on_read; /* what is read from below is stored */
    /* Before the first change by a guest; it fails if this does. */
    int (*touched)(void *opaque, struct platter_error *err);
    /* Whether what is below can be relied on: asked before each read there. */
    int (*may_read)(void *opaque, struct platter_error *err);
    void *opaque;
    atomic_bool is_touched;
    _Atomic uint64_t failed_reads; /* of guests, below */
    /* Guests go before who fills the disk: filling_wants_way(). */
    atomic_uint reading;      /* guests that read below now */
    _Atomic uint64_t read_at; /* when the last one did, ns */
};

/* Whether guests read from below these days: who fills the disk takes little at a time then. *ret:
 * they do at this moment, so that he had better wait. */
bool filling_wants_way(const struct filling *f, bool *ret_now);

/* As disk_write_begin() and _end(), but of whole units, of which only what the top image lacks is
 * stored. */
int disk_fill_begin(struct platter_disk *disk, goff off, uint64_t len, struct disk_write *w,
                    struct platter_error *err);
int disk_fill_end(struct disk_write *w, const void *buf, struct platter_error *err);
/* What the top image lacks in a range reads as zeros below, and the image says so from now on. */
int disk_fill_zero(struct platter_disk *disk, goff off, uint64_t len, struct platter_error *err);

/* Gives up what the top image has of the units that a range touches: what is below shows there. */
int disk_uncover(struct platter_disk *disk, goff off, uint64_t len, struct platter_error *err);

/* Cuts the chain below the top image, of which it needs nothing any more, while others read and
 * write: flushes, has `cut` change the image so that it knows, durably, and closes what is below.
 */
int disk_stand_alone(struct platter_disk *disk,
                     int (*cut)(struct image *top, void *opaque, struct platter_error *err),
                     void *opaque, struct platter_error *err);
/* The other way: the images of `below` (consumed, on failure as well) show through from now on, in
 * the place of those that did. */
int disk_stack_live(struct platter_disk *disk, struct platter_disk *below,
                    struct platter_error *err);

#endif
