/* SPDX-License-Identifier: MIT */
/*
 * A file of several disks, and of small files beside them, that is read and written front to back.
 * (Of one that can be read anywhere, each disk is also a view: struct format.)
 */
#ifndef FORMAT_ARCHIVE_H
#define FORMAT_ARCHIVE_H

#include "base/memory.h"
#include "format/format.h"
#include "stream/stream.h"

struct archive_config {
    const char *name; /* as it stands there: not fit to be a file name as it is */
    const uint8_t *bytes;
    uint32_t size;
    bool displaced; /* found where a writer of old put it by mistake */
};

struct archive_disk {
    const char *name;
    uint64_t size; /* bytes; of a state only a guess */
    unsigned id;   /* as the archive numbers it */
    bool state;    /* of a machine's memory: as long as what there is of it */
    /* Of an archive whose beginning is lost, and that could not be looked through beforehand: as
     * long as what comes of it, like a state; size is 0. */
    bool unsized;
};

/* What an archive begins with. */
struct archive_listing {
    const struct format *format;
    uint8_t uuid[16];
    int64_t ctime; /* seconds since 1970 */
    const struct archive_config *configs;
    unsigned n_configs;
    const struct archive_disk *disks; /* by ascending id; unsized ones as they come */
    unsigned n_disks;
};

/* ---- what can be wrong -------------------------------------------------------------------------
 */

enum archive_fault_kind {
    ARCHIVE_FAULT_HEADER,    /* of the archive */
    ARCHIVE_FAULT_EXTENT,    /* the header of a part of it: magic, checksum, uuid, counts */
    ARCHIVE_FAULT_TRUNCATED, /* the archive ends inside of something */
    ARCHIVE_FAULT_TRAILING,  /* something follows the end */
    ARCHIVE_FAULT_LOST,      /* bytes that no part of the archive was found in */
    ARCHIVE_FAULT_UNKNOWN,   /* data of a disk that is none of the archive's */
    ARCHIVE_FAULT_DUPLICATE, /* data that was there before */
    ARCHIVE_FAULT_BEYOND,    /* data behind the end of its disk */
    ARCHIVE_FAULT_ORDER,     /* of a state */
    ARCHIVE_FAULT_MISSING,   /* a range of a disk is not there */
    ARCHIVE_FAULT_DIGEST,    /* a range is there, but not what its digest says */
    ARCHIVE_FAULT_WRAPPER,   /* the compressed file around it */
    ARCHIVE_FAULT_NOTE,      /* unusual, and understood */
    ARCHIVE_FAULT_DOUBT,     /* a range is there, but where it stands something is wrong */
    ARCHIVE_FAULT_UNREADABLE /* the disk that the archive is on does not give these bytes */
};

struct archive_fault {
    enum archive_fault_kind kind;
    hoff off;                        /* in the archive as it is unpacked; of MISSING: its end, or
                                        that of a part that has something of it */
    uint64_t span;                   /* bytes of the archive from there on; 0: not known */
    const struct archive_disk *disk; /* NULL: none */
    goff start;                      /* guest range, where there is a disk */
    uint64_t len;
    const char *text; /* a whole sentence: file, offset, disk, cluster, what was expected */
};

/* ---- reading -----------------------------------------------------------------------------------
 */

enum {
    ARCHIVE_HEADERS = 1u << 0, /* data is passed over: runs have no bytes */
    ARCHIVE_VERIFY = 1u << 1,  /* a fault is told, and reading goes on where that makes sense: where
                                  the next part is known to begin */
    ARCHIVE_SALVAGE = 1u << 2  /* ... and where it is not, it is looked for; also without a header,
                                  and behind what cannot be read, where it can be read anywhere */
};

struct archive_request {
    struct stream *stream; /* stays the caller's; read front to back from where it stands */
    unsigned flags;
    struct budget *budget;
    const uint8_t *uuid; /* SALVAGE: what parts belong to it where the header is lost, or NULL */
    /* Faults; only notes without VERIFY and SALVAGE, where the first other one is the error. */
    void (*fault)(void *opaque, const struct archive_fault *fault);
    void *opaque;
    /* SALVAGE: the disks of an archive whose beginning is lost, as another reader found them that
     * came to its end; used only then. */
    const struct archive_listing *found;
};

/* A run of bytes of one disk, as the archive has it. Units are whole, so the last run of a disk may
 * be stored longer than the disk; `len` ends with it. */
struct archive_run {
    const struct archive_disk *disk;
    goff off;
    uint64_t len;
    const uint8_t *bytes; /* in the batch; NULL: zeros (or passed over) */
    bool zero;
};

/* What is read at once. The room is the caller's: reader->batch_bytes of memory. */
struct archive_batch {
    uint8_t *room;
    hoff off;                       /* in the archive, unpacked */
    uint64_t len;                   /* bytes there */
    const struct archive_run *runs; /* in room, until the next batch is read into it */
    unsigned n_runs;
};

struct archive_reader {
    const struct archive_reader_ops *ops;
    struct archive_listing listing; /* valid until close */
    size_t batch_bytes;
    bool lost_header; /* of SALVAGE: the disks are not known from the beginning */
    /* What it is read for is often known only after the listing: these may be set before the first
     * next(). */
    unsigned flags; /* the request's; HEADERS and VERIFY may be added */
    /* Whether the data of a disk is wanted; NULL: of all. Other runs come without bytes. */
    bool (*wanted)(void *opaque, const struct archive_disk *disk);
    void *wanted_opaque;
};

struct archive_reader_ops {
    /* The next part: 1, 0 at the end (everything is there), or negative. One thread at a time;
     * what is done with the batch may be done side by side. */
    int (*next)(struct archive_reader *r, struct archive_batch *batch, struct platter_error *err);
    /* How many bytes of a disk came so far (of a state: how long it is). */
    uint64_t (*have)(const struct archive_reader *r, const struct archive_disk *disk);
    void (*close)(struct archive_reader *r); /* NULL is fine */
};

/* ---- writing -----------------------------------------------------------------------------------
 */

/* What a new archive begins with; all of it is known before the first byte is written, and stays
 * until the writer is closed. */
struct archive_plan {
    struct stream *stream; /* stays the caller's; written front to back */
    uint8_t uuid[16];
    int64_t ctime;
    const struct archive_config *configs;
    unsigned n_configs;
    const struct archive_disk *disks; /* ids are the writer's to give: 1, 2, ... in this order */
    unsigned n_disks;
    struct budget *budget;
};

struct archive_writer {
    const struct archive_writer_ops *ops;
};

struct archive_writer_ops {
    /* An ordered writer for disk number i of the plan, which is finished and closed before the next
     * is begun. */
    int (*disk)(struct archive_writer *w, unsigned i, struct image_writer **ret,
                struct platter_error *err);
    /* Ends the archive: all disks are there. */
    int (*finish)(struct archive_writer *w, struct platter_error *err);
    /* Writes the beginning again, at the end: the configurations of the plan, which is still there,
     * have other bytes now, of the same lengths. Of a stream that is not sequential. */
    int (*begin_again)(struct archive_writer *w, struct platter_error *err);
    void (*close)(struct archive_writer *w);
};

/* ---- what a format of archives does ------------------------------------------------------------
 */

struct archive_ops {
    /* Reads the beginning, and checks it. */
    int (*reader_open)(const struct archive_request *request, struct archive_reader **ret,
                       struct platter_error *err);
    /* Writes the beginning. */
    int (*writer_open)(const struct archive_plan *plan, struct archive_writer **ret,
                       struct platter_error *err);
    /* Whether a plan can be written at all (sizes of configurations, numbers, names), without
     * writing anything. */
    int (*may_write)(const struct archive_plan *plan, struct platter_error *err);
    /* Writes the index of an archive that was opened with img->checking, to be kept in the file
     * NAME.index. NULL: its archives have none. */
    int (*keep_index)(struct image *img, struct stream *out, struct platter_error *err);
    /* Whether a file is such an index, of whatever archive. */
    bool (*is_index)(struct stream *s);
};

#endif
