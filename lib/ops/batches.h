/* SPDX-License-Identifier: MIT */
/* The batches of an archive that is read by a walk: next() takes one and fills it, and the worker
 * gives it back when it is done with it. Each worker has one at most. */
#ifndef OPS_BATCHES_H
#define OPS_BATCHES_H

#include "format/archive.h"
#include "ops/walk.h"

struct batches {
    struct budget *budget;
    size_t each; /* bytes of one */
    uint8_t *rooms;
    unsigned n; /* how many there are, and workers that there can be */
    pthread_mutex_t lock;
    struct archive_batch all[WALK_MAX_WORKERS], *idle[WALK_MAX_WORKERS];
    unsigned n_idle;
};

/* One for each worker of those that were asked for, as far as half of the budget goes. */
int batches_open(struct batches *b, const struct archive_reader *reader, struct budget *budget,
                 unsigned asked, struct platter_error *err);
void batches_close(struct batches *b); /* zeroed is fine */

struct archive_batch *batch_take(struct batches *b);
void batch_give(struct batches *b, struct archive_batch *batch);

#endif
