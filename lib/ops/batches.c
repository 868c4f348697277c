/* SPDX-License-Identifier: MIT */
#include "ops/batches.h"

#include "base/ckd.h"

int batches_open(struct batches *b, const struct archive_reader *reader, struct budget *budget,
                 unsigned asked, struct platter_error *err)
{
    /* The other half is for what is to be known of disks. */
    uint64_t most = budget_limit(budget) / 2 / reader->batch_bytes;

    *b = (struct batches){.budget = budget, .each = reader->batch_bytes};
    b->n = (unsigned)max_u64(1, min_u64(walk_workers(asked, 0), most));
    pthread_mutex_init(&b->lock, NULL);
    int r = budget_alloc_buffer(budget, b->n * b->each, "parts of an archive", &b->rooms, err);
    for (unsigned i = 0; r == 0 && i < b->n; i++) {
        b->all[i].room = b->rooms + i * b->each;
        b->idle[b->n_idle++] = &b->all[i];
    }
    return r;
}

void batches_close(struct batches *b)
{
    if (!b->budget)
        return;
    budget_free(b->budget, b->rooms, b->n * b->each);
    pthread_mutex_destroy(&b->lock);
}

struct archive_batch *batch_take(struct batches *b)
{
    WITH_LOCK(&b->lock);
    return b->idle[--b->n_idle];
}

void batch_give(struct batches *b, struct archive_batch *batch)
{
    WITH_LOCK(&b->lock);
    b->idle[b->n_idle++] = batch;
}
