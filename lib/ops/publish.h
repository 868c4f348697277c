/* SPDX-License-Identifier: MIT */
/* The last step of new images, which is long where a server is slow to take what is still under
 * way, or to put it together. */
#ifndef OPS_PUBLISH_H
#define OPS_PUBLISH_H

#include "stream/stream.h"

/* As stream_publish(); `progress` (or NULL) is asked meanwhile whether to go on, if the stream can
 * be interrupted. `total`: bytes of the disk, all of which are behind us. */
int publish_watched(struct stream *s, bool durable, platter_progress_fn progress, void *opaque,
                    uint64_t total, struct platter_error *err);

#endif
