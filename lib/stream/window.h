/* SPDX-License-Identifier: MIT */
/*
 * What can only be read front to back (a pipe, a server that gives no ranges, what is inside of a
 * compressed one of them), to be read at any place of a window, which moves on with who reads
 * ahead: enough for whole-disk copies, whose workers take chunks in order and read each once.
 *
 * Its beginning is read when it is opened, as much as the window holds. Where that is all there is,
 * it can be read anywhere from then on.
 */
#ifndef STREAM_WINDOW_H
#define STREAM_WINDOW_H

#include "base/memory.h"
#include "stream/stream.h"

/*
 * Takes `from`, on failure as well. stream->window is the bytes that are kept: 0 where that is all,
 * and else reads further back than that fail. Where `from` does not know its size, stream_size() is
 * far beyond its end until that was reached, by a read or stream_reach().
 */
int stream_window_open(struct stream *from, struct budget *budget, struct stream **ret,
                       struct platter_error *err);

#endif
