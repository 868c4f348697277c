/* SPDX-License-Identifier: MIT */
/*
 * Writing what is compressed on its way. Bytes fill one slot after the other; threads pack slots
 * side by side; and whichever of them has packed the one that comes next in the file writes it, and
 * those behind it that are packed too. So the file is the same with any number of threads, and
 * memory is bounded by the slots.
 */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/signals.h"
#include "stream/inside.h"
#include "stream/zip.h"

enum {
    MOST_WORKERS = 16,
    MOST_SLOTS = MOST_WORKERS + 2, /* one is filled, one is written */
    BUDGET_SHARE = 3,
    LEAST_FRAME = 4 << 10,
    MOST_FRAME = 1 << 30
};

struct slot {
    uint8_t *in, *out;
    size_t in_len, out_len;
    bool packed;
};

struct zip {
    struct stream head; /* its base is what is written to */
    enum wrapper wrapper;
    int level;
    size_t frame, bound; /* bytes of a slot's in and out */
    struct budget *budget;

    pthread_mutex_t fill_lock; /* around the calls of who writes; before `lock` */
    uint64_t size;             /* bytes that came */
    bool finished;

    pthread_mutex_t lock; /* everything below */
    pthread_cond_t changed;
    struct slot slots[MOST_SLOTS];
    unsigned n_slots;
    uint64_t filled, begun, written; /* slots ever: given to the threads, taken by one, in base */
    hoff base_size;                  /* of what is written */
    bool writing;                    /* a thread is at it: it owns base_size and table */
    struct seek_table table;
    bool stopping;
    bool measuring;   /* a thread packs the first slot, and the others wait: then is known */
    uint64_t context; /* how much memory each takes for it; 0: not yet known */
    int result;       /* of the first failure */
    struct platter_error error;
    pthread_t workers[MOST_WORKERS];
    unsigned n_workers;
};

static struct zip *zip_of(struct stream *s)
{
    return (struct zip *)s;
}

static struct slot *slot_at(struct zip *z, uint64_t number)
{
    return &z->slots[number % z->n_slots];
}

/* ---- threads that pack ----------------------------------------------------------------------- */

/* Held under lock. */
static void note(struct zip *z, int r, const struct platter_error *error)
{
    if (r < 0 && z->result == 0) {
        z->result = r;
        z->error = *error;
    }
}

/* Writes the next slot. Held under lock, but not while it writes. */
static void write_next(struct zip *z)
{
    struct slot *s = slot_at(z, z->written);
    struct platter_error error = {0};

    z->writing = true;
    pthread_mutex_unlock(&z->lock);
    int r = stream_pwrite(z->head.base, s->out, s->out_len, z->base_size, &error);
    if (r == 0 && z->wrapper == WRAP_ZSTD)
        seek_table_add(&z->table, s->out_len, s->in_len);
    z->base_size += s->out_len;
    pthread_mutex_lock(&z->lock);
    z->writing = false;
    note(z, r, &error);
    s->in_len = 0;
    s->packed = false;
    z->written++;
}

/* The same of packing. */
static void pack_next(struct zip *z, struct packer *p)
{
    struct slot *s = slot_at(z, z->begun++);
    struct platter_error error = {0};

    pthread_mutex_unlock(&z->lock);
    int r = packer_pack(p, s->in, s->in_len, s->out, z->bound, &s->out_len, &error);
    pthread_mutex_lock(&z->lock);
    note(z, r, &error);
    s->packed = true;
    z->context = max_u64(z->context, p->taken);
}

static bool can_write(struct zip *z)
{
    return z->written < z->begun && !z->writing && slot_at(z, z->written)->packed;
}

/* Packs and writes until there is nothing more to do, or it failed. Held under lock. */
static void work_on(struct zip *z, struct packer *p)
{
    while (!z->stopping && z->result == 0) {
        if (can_write(z)) {
            write_next(z);
        } else if (z->begun < z->filled) {
            pack_next(z, p);
        } else {
            pthread_cond_wait(&z->changed, &z->lock);
            continue;
        }
        pthread_cond_broadcast(&z->changed);
    }
}

static void *work(void *arg)
{
    struct zip *z = arg;
    struct platter_error error = {0};
    struct packer packer = {0};

    WITH_LOCK(&z->lock);
    while (z->measuring && z->context == 0 && !z->stopping && z->result == 0)
        pthread_cond_wait(&z->changed, &z->lock);
    bool first = !z->measuring;
    z->measuring = true;
    int r = packer_open(&packer, z->wrapper, z->level, z->context, z->budget, &error);
    /* Fewer threads do it as well, if there is no memory for all. */
    if (first)
        note(z, r, &error);
    if (r == 0)
        work_on(z, &packer);
    pthread_cond_broadcast(&z->changed);
    packer_close(&packer);
    return NULL;
}

/* ---- who writes ------------------------------------------------------------------------------ */

/* The first failure, as the answer to every call after it. Held under lock. */
static int failure(const struct zip *z, struct platter_error *err)
{
    if (z->result < 0 && err)
        *err = z->error;
    return z->result;
}

/* Waits until at most `most` slots are not yet in base. */
static int wait_until(struct zip *z, uint64_t most, struct platter_error *err)
{
    WITH_LOCK(&z->lock);
    while (z->result == 0 && z->filled - z->written > most)
        pthread_cond_wait(&z->changed, &z->lock);
    return failure(z, err);
}

static void hand_over(struct zip *z)
{
    WITH_LOCK(&z->lock);
    z->filled++;
    pthread_cond_broadcast(&z->changed);
}

static int zip_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                      struct platter_error *err)
{
    struct zip *z = zip_of(s);
    WITH_LOCK(&z->fill_lock);
    if (z->finished)
        return fail(err, EBADF, "%s: is finished", s->name);
    if (off != z->size)
        return fail(err, ESPIPE,
                    "%s: cannot write at offset %" PRIu64
                    ": what is compressed goes on at %" PRIu64,
                    s->name, off, z->size);
    for (size_t done = 0; done < len;) {
        int r = wait_until(z, z->n_slots - 1, err);
        if (r < 0)
            return r;
        struct slot *slot = slot_at(z, z->filled);
        size_t n = (size_t)min_u64(len - done, z->frame - slot->in_len);
        memcpy(slot->in + slot->in_len, (const uint8_t *)buf + done, n);
        slot->in_len += n;
        done += n;
        z->size += n;
        if (slot->in_len == z->frame)
            hand_over(z);
    }
    return 0;
}

static int zip_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    struct zip *z = zip_of(s);
    (void)err;
    WITH_LOCK(&z->fill_lock);
    *ret_size = z->size;
    return 0;
}

/* Growing is writing zeros. */
static int zip_resize(struct stream *s, uint64_t size, struct platter_error *err)
{
    uint64_t now = 0;
    zip_size(s, &now, err);
    if (size < now)
        return fail(err, ESPIPE, "%s: what was compressed cannot be cut to %" PRIu64 " bytes",
                    s->name, size);
    return stream_write_zeros(s, now, size - now, err);
}

/* All that came is in base, but for a frame that is not full. */
static int zip_flush(struct stream *s, struct platter_error *err)
{
    struct zip *z = zip_of(s);
    WITH_LOCK(&z->fill_lock);
    int r = wait_until(z, 0, err);
    return r < 0 ? r : stream_flush(z->head.base, err);
}

/* The last frame, which of nothing is an empty one, and the table. */
static int finish(struct zip *z, struct platter_error *err)
{
    const void *table;
    size_t len = 0;

    int r = wait_until(z, z->n_slots - 1, err);
    if (r == 0 && (slot_at(z, z->filled)->in_len || z->size == 0))
        hand_over(z);
    if (r == 0)
        r = wait_until(z, 0, err);
    if (r == 0)
        seek_table_finish(&z->table, &table, &len);
    return r < 0 || len == 0 ? r : stream_pwrite(z->head.base, table, len, z->base_size, err);
}

static int zip_publish(struct stream *s, bool durable, struct platter_error *err)
{
    struct zip *z = zip_of(s);
    WITH_LOCK(&z->fill_lock);
    int r = z->finished ? 0 : finish(z, err);
    if (r < 0) {
        WITH_LOCK(&z->lock);
        note(z, r, err ? err : &(struct platter_error){.code = -r});
        return r;
    }
    z->finished = true;
    return stream_publish(z->head.base, durable, err);
}

static int zip_make_way(struct stream *s, bool durable, struct platter_error *err)
{
    return stream_make_way(s->base, durable, err);
}

static int zip_withdraw(struct stream *s, bool back, struct platter_error *err)
{
    return stream_withdraw(s->base, back, err);
}

static void stop_workers(struct zip *z)
{
    pthread_mutex_lock(&z->lock);
    z->stopping = true;
    pthread_cond_broadcast(&z->changed);
    pthread_mutex_unlock(&z->lock);
    for (unsigned i = 0; i < z->n_workers; i++)
        pthread_join(z->workers[i], NULL);
    z->n_workers = 0;
}

static int zip_give_up(struct stream *s, struct platter_error *err)
{
    stream_interrupt(s->base);
    stop_workers(zip_of(s));
    return s->base->ops->give_up ? s->base->ops->give_up(s->base, err) : 0;
}

static void zip_close(struct stream *s)
{
    struct zip *z = zip_of(s);

    stop_workers(z);
    for (unsigned i = 0; i < MOST_SLOTS; i++) {
        budget_free(z->budget, z->slots[i].in, z->frame);
        budget_free(z->budget, z->slots[i].out, z->bound);
    }
    seek_table_free(&z->table);
    pthread_cond_destroy(&z->changed);
    pthread_mutex_destroy(&z->lock);
    pthread_mutex_destroy(&z->fill_lock);
    budget_unref(z->budget);
}

static const struct stream_ops zip_ops = {
    .name = "compressing",
    .pwrite = zip_pwrite,
    .flush = zip_flush,
    .size = zip_size,
    .resize = zip_resize,
    .publish = zip_publish,
    .make_way = zip_make_way,
    .withdraw = zip_withdraw,
    .give_up = zip_give_up,
    .close = zip_close,
};

/* ---- opening --------------------------------------------------------------------------------- */

static int alloc_slot(struct zip *z, struct slot *s, struct platter_error *err)
{
    int r = budget_alloc(z->budget, z->frame, "compressing", &s->in, err);
    if (r == 0)
        r = budget_alloc(z->budget, z->bound, "compressing", &s->out, err);
    return r;
}

/* As many slots as the threads want, but at most about half of the budget: others need some, too.
 */
static int alloc_slots(struct zip *z, unsigned workers, struct platter_error *err)
{
    uint64_t some = budget_limit(z->budget) / BUDGET_SHARE / (z->frame + z->bound);
    unsigned most = (unsigned)min_u64(workers + 2, max_u64(some, 2));
    for (; z->n_slots < most; z->n_slots++) {
        int r = alloc_slot(z, &z->slots[z->n_slots], err);
        if (r < 0 && z->n_slots >= 2)
            break;
        if (r < 0)
            return r;
    }
    return 0;
}

static unsigned count_workers(unsigned asked)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned n = asked ? asked : cores < 1 ? 1 : (unsigned)min_u64((uint64_t)cores, MOST_WORKERS);
    return n < MOST_WORKERS ? n : MOST_WORKERS;
}

static int start_workers(struct zip *z, unsigned workers, struct platter_error *err)
{
    int code = 0;
    /* Of two slots one is filled while the other is packed. */
    workers = workers < z->n_slots ? workers : z->n_slots - 1;
    while (code == 0 && z->n_workers < workers) {
        code = thread_start(&z->workers[z->n_workers], work, z);
        z->n_workers += code == 0;
    }
    return z->n_workers ? 0 : fail_errno(err, code, "no thread to compress");
}

static int open_zip(struct zip *z, const struct zip_options *o, struct platter_error *err)
{
    unsigned workers = count_workers(o->workers);

    z->level = o->level;
    int r = packer_check(z->wrapper, &z->level, err);
    if (r < 0)
        return r;
    z->frame = o->frame ? o->frame : packer_frame(z->wrapper);
    if (z->frame < LEAST_FRAME || z->frame > MOST_FRAME)
        return fail(err, EINVAL, "frames of %zu bytes: there are those from 4 KiB to 1 GiB",
                    z->frame);
    z->bound = packer_bound(z->wrapper, z->frame);
    r = alloc_slots(z, workers, err);
    return r < 0 ? r : start_workers(z, workers, err);
}

int stream_zip_open(struct stream *base, enum wrapper w, const struct zip_options *options,
                    struct budget *budget, struct stream **ret, struct platter_error *err)
{
    const struct zip_options usual = {0};
    struct zip *z = stream_new(sizeof *z, &zip_ops, base->name, err);
    if (!z) {
        stream_close(base);
        return -ENOMEM;
    }
    z->head.writable = true;
    z->head.sequential = true;
    z->head.base = base;
    z->wrapper = w;
    z->budget = z->table.budget = budget_ref(budget);
    pthread_mutex_init(&z->fill_lock, NULL);
    pthread_mutex_init(&z->lock, NULL);
    pthread_cond_init(&z->changed, NULL);
    int r = open_zip(z, options ? options : &usual, err);
    if (r < 0) {
        fail_in(err, r, "%s", base->name);
        stream_close(&z->head);
        return r;
    }
    *ret = &z->head;
    return 0;
}
