/* SPDX-License-Identifier: MIT */
/*
 * An archive that is read front to back (section 5), an extent at a time.
 *
 *   reader.c    the beginning, the extents one by one, the end
 *   runs.c      what an extent's slots say: checked, and made into runs
 *   coverage.c  which clusters came
 *   input.c     bytes that can be put back
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
    VMA_ROOM = VMA_ROOM_RUNS + VMA_MOST_BLOCKS * VMA_BLOCK
};

struct vma_reader {
    struct archive_reader head;
    struct archive_request request;
    struct vma_input in;
    const char *file;
    uint8_t *bytes; /* of the header, header.size of them */
    struct vma_header header;
    struct archive_config configs[VMA_CONFIGS];
    struct archive_disk disks[VMA_DEVICES]; /* of the listing */
    unsigned disk_of[VMA_DEVICES];          /* one more than its place there; 0: there is none */
    struct coverage *coverage[VMA_DEVICES]; /* by number of the device */
    bool ended;                             /* nothing more is read */
    bool finished;                          /* and what is missing was told */

    /* The extent in hand. */
    hoff off;
    struct vma_extent extent;
    uint8_t *data;   /* in the batch's room */
    size_t data_len; /* bytes of it that are there; fewer than it has: the archive ends */
    bool passed;     /* they were passed over, and can be read still */
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

/* Checks the slots of the extent in hand, enters their clusters, and makes runs of them. */
int vma_take_slots(struct vma_reader *r, struct archive_batch *batch, struct platter_error *err);

extern const struct archive_reader_ops vma_reader_ops;
int vma_reader_open(const struct archive_request *request, struct archive_reader **ret,
                    struct platter_error *err);

#endif
