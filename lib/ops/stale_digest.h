/* SPDX-License-Identifier: MIT */
/* Digests beside an archive that is replaced: whoever verifies the new one would take it for
 * damaged by them, so they go when it appears. */
#ifndef OPS_STALE_DIGEST_H
#define OPS_STALE_DIGEST_H

#include "stream/stream.h"

/* Looks for TARGET.platter.digest. *ret: what stands for it until it goes, to be closed; NULL where
 * there is none. EEXIST where what is there cannot be removed as a file of digests, or it was moved
 * aside by a program that was killed. */
int stale_digest_open(const char *target, const char *place, struct stream **ret,
                      struct platter_error *err);

/* Publishes the archive s; *stale (or NULL) goes first, and comes back if that fails: an archive
 * without digests is none that could be taken for damaged. Closes *stale. The rest as
 * publish_watched(). */
int stale_digest_publish(struct stream *s, struct stream **stale, bool durable,
                         platter_progress_fn progress, void *opaque, uint64_t total,
                         struct platter_error *err);

#endif
