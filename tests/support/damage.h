/* SPDX-License-Identifier: MIT */
/* VMDK images that are broken in ways that a repair mends, for tests of the repair itself. */
#ifndef SUPPORT_DAMAGE_H
#define SUPPORT_DAMAGE_H

#include "disk/disk.h"
#include "support/buffer.h"

struct damage {
    const char *name;
    bool stream;                    /* of a streamOptimized image; else of a monolithicSparse one */
    void (*harm)(struct buffer *b); /* has some room to grow */
};

/* A list that ends with .name = NULL. */
extern const struct damage damages[];

enum { DAMAGE_SEEN = 2 << 20 }; /* bytes that damage_read() gives */

/* The images before they are broken, made once by each call. */
struct buffer damage_base(bool stream);
/* A broken copy of the base, with room to grow. */
struct buffer damage_make(const struct buffer *base, const struct damage *d);
/* Checks, or repairs, what is in a stream (consumed, on failure as well). */
int damage_check(struct stream *s, bool repair, struct platter_check_result *ret,
                 struct platter_error *err);
/* Reads the parts of the disk that hold something: the first MiB, and that behind 32 MiB. */
int damage_read(struct buffer *b, uint8_t ret_content[DAMAGE_SEEN], struct platter_error *err);

#endif
