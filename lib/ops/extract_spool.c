/* SPDX-License-Identifier: MIT */
/* Images that can only be written front to back, or that are compressed: from a temporary raw file.
 */
#include "ops/copy.h"
#include "ops/extract_inside.h"

static int open_sink(const struct extraction *job, struct exit *x, struct sink **ret,
                     struct platter_error *err)
{
    struct image_writer *w;
    int r;
    if (target_is_ordered(&x->target)) {
        r = target_writer(&x->target, &w, err);
        return r < 0 ? r : sink_writer_open(w, ret, err);
    }
    r = target_create(&x->target, err);
    if (r == 0)
        r = target_disk(&x->target, job->memory, &x->to, err);
    return r < 0 ? r : sink_disk_open(x->to, x->q.flags & PLATTER_EXTRACT_COMPRESS, ret, err);
}

static int copy_spooled(struct extraction *job, struct exit *x, struct platter_disk *from,
                        struct platter_error *err)
{
    struct sources sources = {0};
    struct copy copy = {.sources = &sources,
                        .budget = budget_new(job->memory),
                        .gaps = COPY_GAPS_SKIP, /* no device takes such images */
                        .sparse = COPY_SPARSE,
                        .workers = job->o->workers,
                        .rate = x->q.rate,
                        .progress = job->restore.progress,
                        .opaque = job};
    uint64_t holes;
    int r = copy.budget ? sources_open(&sources, &from, 1, err) : fail_memory(err, "a copy");
    if (r == 0 && !x->has_target)
        r = extract_target(job, x, sources.size, err);
    if (r == 0)
        r = open_sink(job, x, &copy.sink, err);
    if (r == 0) {
        sources.size = x->request.size;
        r = copy_run(&copy, &holes, err);
        copy.sink->ops->close(copy.sink);
    }
    sources_close(&sources);
    budget_unref(copy.budget);
    job->told += x->request.size;
    return r;
}

int extract_spooled(struct extraction *job, struct platter_error *err)
{
    int r = 0;
    for (size_t i = 0; i < job->o->n_targets && r == 0; i++) {
        struct exit *x = &job->exits[i];
        const struct format *raw = &format_raw;
        struct platter_disk *from;
        if (!x->spool)
            continue;
        struct stream *s = stream_share(x->spool);
        r = disk_assemble(&s, &raw, 1, false, true, job->memory, NULL, &from, err);
        if (r == 0) {
            r = copy_spooled(job, x, from, err);
            disk_close(from, NULL);
            stream_close(TAKE(x->spool));
        }
    }
    return r;
}
