/* SPDX-License-Identifier: MIT */
/*
 * An archive that is read front to back (section 5), an extent at a time.
 *
 *   opening.c   the header, or what is left of it
 *   reader.c    the extents one by one, and the end
 *   salvage.c   how it goes on where one is damaged; resync.c finds extents anywhere
 *   runs.c      what an extent's slots say: checked, and made into runs
 *   coverage.c  which clusters came
 *   unchecked.c what a damaged wrapper puts in doubt
 *   input.c     bytes that can be put back; unreadable.c those that cannot be read
 */
#ifndef FORMAT_VMA_READER_H
#define FORMAT_VMA_READER_H

#include "format/archive.h"
#include "format/vma/coverage.h"
#include "format/vma/input.h"
#include "format/vma/vma.h"

enum {
    /* The room of a batch: runs, then the data of an extent. */
    VMA_MOST_RUNS = VMA_SLOTS * VMA_BLOCKS,
    VMA_ROOM_RUNS = (VMA_MOST_RUNS * (int)sizeof(struct archive_run) + 4095) & ~4095,
    /* ... and the header behind it, which shows whether the data is whole. */
    VMA_ROOM = VMA_ROOM_RUNS + VMA_MOST_BLOCKS * VMA_BLOCK + VMA_EXTENT
};

/* A doubt: the extent's numbers do not fit each other. */
#define VMA_CONTRADICTS "the header in front of them contradicts itself"

struct vma_reader {
    struct archive_reader head;
    struct archive_request request;
    struct vma_input in;
    const char *file;
    uint8_t *bytes; /* of the header */
    size_t bytes_len;
    struct vma_header header;
    struct archive_config configs[VMA_CONFIGS];
    struct archive_disk disks[VMA_DEVICES]; /* of the listing */
    unsigned disk_of[VMA_DEVICES];          /* one more than its place there; 0: there is none */
    struct coverage *coverage[VMA_DEVICES]; /* by number of the device */
    uint64_t unread[VMA_DEVICES];           /* bytes of clusters that came and could not be read */
    /* Clusters out of a part of a compressed file whose checksum is still to come. */
    struct coverage *unchecked[VMA_DEVICES];
    hoff checked;                /* up to where it came: no cluster in front of it is among them */
    bool damaged;                /* their part is */
    char names[VMA_DEVICES][16]; /* of those that have lost theirs */
    char *config_names[VMA_CONFIGS]; /* of those whose own another one has; owned */
    bool broken;                     /* the wrapper is, in the extent in hand */
    bool failed;                     /* ... and nothing more can be read */
    bool ended;                      /* nothing more is read */
    bool finished;                   /* and what is missing was told */

    /* The extent in hand. */
    hoff off;
    struct vma_extent extent;
    uint8_t *data;   /* in the batch's room */
    size_t data_len; /* bytes of it that are there; fewer than it has: the archive ends */
    bool passed;     /* they were passed over, and can be read still */
    bool partial;    /* those that nobody wants were */
    /* Why the data may be wrong, where it may, for sentences: "its header ..."; or NULL. */
    const char *doubt;
    unsigned n_mended; /* headers that it was tried with */
};

static inline struct vma_reader *vma_reader_of(struct archive_reader *head)
{
    return container_of(head, struct vma_reader, head);
}

/* Whether what is wrong is told, and reading goes on. */
static inline bool vma_goes_on(const struct vma_reader *r)
{
    return r->head.flags & (ARCHIVE_VERIFY | ARCHIVE_SALVAGE);
}

/* Tells of something: 0, or, where it is more than a note and reading does not go on after it, the
 * error. fault->text is made here. */
int vma_tell(struct vma_reader *r, const struct archive_fault *fault, struct platter_error *err,
             const char *format, ...) __attribute__((format(printf, 4, 5)));

const struct archive_disk *vma_disk_of(const struct vma_reader *r, unsigned device);
/* Whether anybody wants to know of a disk. */
bool vma_is_wanted(const struct vma_reader *r, const struct archive_disk *disk);

/* Reads all of `len`, as far as there is so much. A wrapper that is damaged is told, and the end,
 * where that is told at all; what came before it is there. */
int vma_read(struct vma_reader *r, void *buf, size_t len, size_t *ret_len,
             struct platter_error *err);
int vma_skip(struct vma_reader *r, uint64_t len, uint64_t *ret_len, struct platter_error *err);

int vma_reader_open(const struct archive_request *request, struct archive_reader **ret,
                    struct platter_error *err);

/* ---- opening.c ---------------------------------------------------------------------------------
 */

/* Reads the header, and fills the listing. */
int vma_open_header(struct vma_reader *r, struct platter_error *err);
/* A disk that no header tells of. */
int vma_add_unsized(struct vma_reader *r, unsigned device, struct platter_error *err);

/* ---- runs.c ------------------------------------------------------------------------------------
 */

/* Checks the slots of the extent in hand, enters their clusters, and makes runs of them. */
int vma_take_slots(struct vma_reader *r, struct archive_batch *batch, struct platter_error *err);

/* ---- unchecked.c -------------------------------------------------------------------------------
 */

/* A cluster with data was taken from the extent in hand. */
int vma_add_unchecked(struct vma_reader *r, const struct archive_disk *disk, uint32_t cluster,
                      struct platter_error *err);
/* Reading failed for damage, just now. */
void vma_note_damage(struct vma_reader *r);
/* Tells what that puts in doubt, once the extent in hand was taken. */
int vma_tell_unchecked(struct vma_reader *r, struct platter_error *err);
void vma_forget_unchecked(struct vma_reader *r);

/* ---- salvage.c ---------------------------------------------------------------------------------
 */

/* A place where an extent should begin, and does not. */
struct vma_gap {
    hoff off;
    bool crossed; /* the next one begins here: */
    hoff next;
    bool blank; /* there are zeros up to the end */
};

/*
 * Goes on behind the last `n` bytes that were read, which are not the header of an extent: tells
 * what is wrong, and looks for the next one, which is read next. Always 0 where it succeeds.
 * Without SALVAGE it is looked for as far as an extent can reach.
 */
int vma_cross_gap(struct vma_reader *r, const uint8_t *bytes, size_t n, struct vma_gap *ret,
                  struct platter_error *err);
/* Of a reader that goes on: whether VMA_EXTENT bytes, which stand at `off`, are the header of an
 * extent of this archive: *ret. Where that is so but for one bit, it is told and mended. */
int vma_recognize(struct vma_reader *r, uint8_t *bytes, hoff off, bool *ret,
                  struct platter_error *err);
/* Finds out by what follows whether there is doubt about the data of the extent in hand, and how
 * much of it there is. Where nothing sound follows, the gap is crossed. */
int vma_judge(struct vma_reader *r, struct platter_error *err);
/* Reads on to the next extent: whether there is one, which is read next then; and whether all bytes
 * in front of it were zeros. `limit`: no further than that. uuid NULL: of any archive. */
int vma_search(struct vma_reader *r, const uint8_t *uuid, uint64_t limit, bool *ret_found,
               bool *ret_zeros, struct platter_error *err);

#endif
