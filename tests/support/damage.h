/* SPDX-License-Identifier: MIT */
/* Images that are broken in ways that a repair mends, for tests of the repair itself. */
#ifndef SUPPORT_DAMAGE_H
#define SUPPORT_DAMAGE_H

#include "disk/disk.h"
#include "support/buffer.h"

/* What is broken: a monolithicSparse VMDK, a streamOptimized one, extents of ESX, a qcow2 with two
 * snapshots and two bitmaps, a qcow of version 1, and a compressed one. */
enum damage_base {
    DAMAGE_SPARSE,
    DAMAGE_STREAM,
    DAMAGE_COWD,
    DAMAGE_SESPARSE,
    DAMAGE_QCOW2,
    DAMAGE_QCOW,
    DAMAGE_QCOW_PACKED,
    DAMAGE_BASES
};

struct damage {
    const char *name;
    enum damage_base base;
    void (*harm)(struct buffer *b); /* has some room to grow */
};

/* Lists that end with .name = NULL. */
extern const struct damage vmdk_damages[];

enum { DAMAGE_SEEN = 2 << 20 }; /* bytes that damage_read() gives */

/* A part of that list: damage_qcow2.c. Also makes of a plain qcow2 what the list needs. */
extern const struct damage qcow2_damages[];
void damage_prepare_qcow2(const char *path);
/* Another: damage_qcow.c. */
extern const struct damage qcow_damages[];

/* The format of a base, by name. */
const char *damage_format(enum damage_base base);

/* Whether it is the next of them: `for (d = NULL; (d = damage_next(d));)`. */
const struct damage *damage_next(const struct damage *d);

/* The images before they are broken, made once by each call. */
struct buffer damage_base(enum damage_base base);
/* A broken copy of the base, with room to grow. */
struct buffer damage_make(const struct buffer *base, const struct damage *d);
/* Checks, or repairs, what is in a stream (consumed, on failure as well). */
int damage_check(struct stream *s, bool repair, struct platter_check_result *ret,
                 struct platter_error *err);
/* Reads the parts of the disk that hold something: the first MiB, and that behind 32 MiB. */
int damage_read(struct buffer *b, uint8_t ret_content[DAMAGE_SEEN], struct platter_error *err);

/* How many snapshots and bitmaps an image has, in one number; 0 for a VMDK. */
uint64_t damage_kept(struct buffer *b);

#endif
