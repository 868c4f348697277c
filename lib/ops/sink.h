/* SPDX-License-Identifier: MIT */
/*
 * Where a whole-disk copy ends: a disk (written in parallel, laid out in guest order) or an ordered
 * writer (streamOptimized, a pipe). Both take a parcel, what a worker of the copy has in hand, in
 * three steps: prepare (side by side: pack), place (in guest order: reserve room, or append), store
 * (side by side: write and commit).
 */
#ifndef OPS_SINK_H
#define OPS_SINK_H

#include "disk/disk.h"

enum piece_kind { PIECE_ZERO, PIECE_DATA, PIECE_PACKED };

/* A run of a parcel that is treated in one way. */
struct piece {
    enum piece_kind kind;
    goff off;             /* a multiple of the sink's unit */
    uint64_t len;         /* guest bytes; ends at a unit or at the end of the disk */
    const uint8_t *bytes; /* DATA: len of them; PACKED: packed_len */
    size_t packed_len;
    struct disk_write write; /* between place and store of a disk sink */
    bool placed;
};

struct parcel {
    uint8_t *in;  /* chunk bytes: the data */
    uint8_t *out; /* out_len bytes: what prepare made of it; NULL where the sink packs nothing */
    size_t in_len, out_len, out_used;
    struct piece *pieces;
    size_t n_pieces, room_for;
};

int parcel_add(struct parcel *p, const struct piece *piece, struct platter_error *err);

struct sink;
struct sink_ops {
    int (*prepare)(struct sink *s, struct parcel *p, struct platter_error *err);
    int (*place)(struct sink *s, struct parcel *p, struct platter_error *err);
    /* Called after place() whatever it returned; `failed`: give back what was taken. */
    int (*store)(struct sink *s, struct parcel *p, bool failed, struct platter_error *err);
    size_t (*out_len)(const struct sink *s, size_t chunk); /* bytes of parcel.out for a chunk */
    int (*finish)(struct sink *s, struct platter_error *err);
    void (*interrupt)(struct sink *s); /* NULL: it waits for nobody */
    void (*close)(struct sink *s);
};

struct sink {
    const struct sink_ops *ops;
    uint32_t unit;     /* pieces are whole units */
    unsigned requests; /* how many at once are worth their while, as disk_requests() has it */
};

/* Over a writable disk, which stays the caller's; `compress`: pack units where that saves room. */
int sink_disk_open(struct platter_disk *disk, bool compress, struct sink **ret,
                   struct platter_error *err);
/* The same, of which only what its top image lacks is stored (disk_fill_begin()). */
int sink_fill_open(struct platter_disk *disk, struct sink **ret, struct platter_error *err);
/* Over an ordered writer, which the sink takes. */
int sink_writer_open(struct image_writer *w, struct sink **ret, struct platter_error *err);

#endif
