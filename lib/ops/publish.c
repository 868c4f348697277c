/* SPDX-License-Identifier: MIT */
/* See publish.h. */
#include "ops/publish.h"

#include <time.h>

#include "base/memory.h"
#include "base/signals.h"
#include "base/teller.h"

struct publishing {
    struct stream *stream;
    platter_progress_fn progress;
    void *opaque;
    struct platter_progress now;

    pthread_mutex_t lock; /* everything below */
    pthread_cond_t changed;
    bool ended;
};

/* Whether it ended before the next time that somebody is to be asked. */
static bool wait_for_end(struct publishing *p)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    long ns = until.tv_nsec + TELL_NS;
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    WITH_LOCK(&p->lock);
    if (!p->ended)
        pthread_cond_timedwait(&p->changed, &p->lock, &until);
    return p->ended;
}

static void *watch_main(void *arg)
{
    struct publishing *p = arg;
    int stop = 0;
    while (!stop && !wait_for_end(p))
        stop = p->progress(p->opaque, &p->now);
    if (stop)
        stream_interrupt(p->stream);
    return NULL;
}

static bool can_be_interrupted(const struct stream *s)
{
    while (s && !s->ops->interrupt)
        s = s->base;
    return s;
}

int publish_watched(struct stream *s, bool durable, platter_progress_fn progress, void *opaque,
                    uint64_t total, struct platter_error *err)
{
    struct publishing p = {.stream = s,
                           .progress = progress,
                           .opaque = opaque,
                           .now = {.size = sizeof p.now, .done = total, .total = total},
                           .lock = PTHREAD_MUTEX_INITIALIZER,
                           .changed = PTHREAD_COND_INITIALIZER};
    pthread_t watch;
    if (!progress || !can_be_interrupted(s) || stream_size(s, &p.now.moved, NULL) < 0 ||
        thread_start(&watch, watch_main, &p) != 0)
        return stream_publish(s, durable, err);
    int r = stream_publish(s, durable, err);
    pthread_mutex_lock(&p.lock);
    p.ended = true;
    pthread_cond_signal(&p.changed);
    pthread_mutex_unlock(&p.lock);
    pthread_join(watch, NULL);
    return r;
}
