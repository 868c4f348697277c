/* SPDX-License-Identifier: MIT */
/*
 * Reading an archive of which parts cannot be read, as a disk goes bad. They read as zeros, and are
 * remembered. The disk is asked again as little as may be: each such read can take it seconds.
 */
#ifndef FORMAT_VMA_UNREADABLE_H
#define FORMAT_VMA_UNREADABLE_H

#include "stream/stream.h"

struct vma_unreadable; /* what could not be read so far; NULL: nothing */

/* One more part is unreadable, of a stream: [start, end); `code` is why, positive. */
typedef int (*vma_unreadable_fn)(void *opaque, hoff start, hoff end, int code,
                                 struct platter_error *err);

/* Whether a read failed for what it was to read, not for want of memory and the like. */
bool vma_is_unreadable(int code);
/* As stream_pread(). What cannot be read is told, and is zeros. Fails only after very many
 * failures, or for other reasons. */
int vma_unreadable_pread(struct vma_unreadable **all, struct stream *s, void *buf, size_t len,
                         hoff off, vma_unreadable_fn tell, void *opaque, struct platter_error *err);
/* The first part known that touches [start, end): its end, cut to these; 0: none does. */
hoff vma_unreadable_find(const struct vma_unreadable *all, hoff start, hoff end, hoff *ret_start);
void vma_unreadable_free(struct vma_unreadable *all);

#endif
