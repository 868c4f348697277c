/* SPDX-License-Identifier: MIT */
/*
 * An object of S3 that is written front to back. What comes is cut into parts, a few of which are
 * on their way at a time, each by a thread with a buffer of its own; the object is there when it is
 * published, in one step. One that is not longer than a part is sent as it is.
 *
 * The first part is sent last, so that a header can be written when all else is known.
 *
 * Closed before that, or ended by a signal, the upload is aborted and its parts go. A program that
 * is killed leaves them: nobody sees them, but they take room until the upload is aborted, by a
 * rule of the bucket or by hand (platter-places(7)).
 */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "base/signals.h"
#include "stream/inside.h"
#include "stream/s3.h"
#include "stream/unfinished.h"

enum {
    MOST_PARTS = 10000,     /* what S3 takes, and ... */
    GROWING_PARTS = 2000,   /* ... after so many each has twice the size: there is always room */
    COUNTED_ON = 8000,      /* parts of what is known not to get larger */
    LEAST_PART = 8 << 20,   /* 5 MiB is what S3 takes */
    USUAL_PART = 16 << 20,  /* of what may become large: 968 GiB */
    USUAL_MOST = 64 << 20,  /* of the first, unless that is too little: 3.8 TiB */
    MOST_MEMORY = 64 << 20, /* in buffers; two there are always */
    MOST_SLOTS = 8,
    UNDO_PAUSE_NS = 20 * 1000 * 1000, /* 3 seconds in all */
    UNDO_PAUSES = 150
};

#define LARGEST_PART (UINT64_C(5) << 30) /* what S3 takes */

enum slot_state { SLOT_FREE, SLOT_FILLING, SLOT_KEPT, SLOT_READY };

/* A part, the buffer it is in and the thread that sends it. */
struct slot {
    struct upload *upload;
    enum slot_state state;
    uint8_t *bytes;
    size_t room, len;
    unsigned number; /* of the part, from 1 */
    pthread_t thread;
    bool running;
};

struct upload {
    struct stream head;
    struct s3_object *object;
    bool exclusive;     /* there must be none */
    char *before;       /* what is there, and is replaced; or NULL */
    uint64_t part_size; /* of the first ones */
    struct slot *first; /* of part 1, which is kept to the end: it can be written again */
    char *_Atomic id;   /* NULL: all that came fits into one part */
    struct unfinished unfinished;
    atomic_bool stop;

    pthread_mutex_t turn; /* of who writes */
    uint64_t written;
    bool published, given_up;

    pthread_mutex_t lock; /* everything below */
    pthread_cond_t changed;
    struct slot slots[MOST_SLOTS];
    unsigned n_slots;
    char *etags[MOST_PARTS];
    unsigned n_parts;
    bool quitting;
    int result; /* the first failure */
    struct platter_error error;
};

static struct upload *upload_of(struct stream *s)
{
    return (struct upload *)s;
}

/* ---- sizes of parts ----------------------------------------------------------------------------
 */

uint64_t s3_part_size(uint64_t first, unsigned number)
{
    return min_u64(first << (number - 1) / GROWING_PARTS, LARGEST_PART);
}

/* Bytes that all parts have together. */
static uint64_t room_of(uint64_t first)
{
    uint64_t room = 0;
    for (unsigned number = 1; number <= MOST_PARTS; number += GROWING_PARTS)
        room += GROWING_PARTS * s3_part_size(first, number);
    return room;
}

uint64_t s3_first_part(uint64_t wanted, uint64_t size)
{
    uint64_t part = USUAL_PART;
    if (wanted > 0)
        part = wanted;
    else if (size > 0)
        part = min_u64(max_u64((size / COUNTED_ON / (1 << 20) + 1) << 20, LEAST_PART), USUAL_MOST);
    while (room_of(part) < size && part < LARGEST_PART)
        part += 1 << 20;
    return min_u64(part, LARGEST_PART);
}

/* ---- parts that are sent -----------------------------------------------------------------------
 */

/* Sends what is in a slot; its lock is held before and after. */
static void send_slot(struct upload *u, struct slot *slot)
{
    struct platter_error error = {0};
    char *etag = NULL;
    pthread_mutex_unlock(&u->lock);
    int r = s3_put_part(u->object, u->id, slot->number, slot->bytes, slot->len, &u->stop, &etag,
                        &error);
    pthread_mutex_lock(&u->lock);
    u->etags[slot->number - 1] = etag;
    slot->len = 0;
    slot->number = 0;
    slot->state = SLOT_FREE;
    if (r < 0 && u->result == 0) {
        u->result = r;
        u->error = error;
    }
    pthread_cond_broadcast(&u->changed);
}

static void *sender_main(void *arg)
{
    struct slot *slot = arg;
    struct upload *u = slot->upload;
    WITH_LOCK(&u->lock);
    while (!u->quitting) {
        if (slot->state == SLOT_READY && u->result == 0)
            send_slot(u, slot);
        else
            pthread_cond_wait(&u->changed, &u->lock);
    }
    return NULL;
}

/* Under the lock. */
static int failure(const struct upload *u, struct platter_error *err)
{
    if (u->result < 0)
        return fail(err, -u->result, "%s", u->error.message);
    return atomic_load(&u->stop) ? fail(err, ECANCELED, "%s: writing was given up", u->head.name)
                                 : 0;
}

/* ---- parts that are filled ---------------------------------------------------------------------
 */

/* A slot that is free, of those that may be used for parts of a size; the rest give back what they
 * have. */
static struct slot *free_slot(struct upload *u, size_t room)
{
    size_t most = max_u64(3, MOST_MEMORY / room); /* one is kept */
    struct slot *found = NULL;
    for (size_t i = u->n_slots; i-- > 0;) {
        struct slot *s = &u->slots[i];
        if (s->state == SLOT_FILLING)
            return s;
        if (s->state == SLOT_FREE && i < most)
            found = s;
        else if (s->state == SLOT_FREE)
            free(TAKE(s->bytes));
    }
    return found;
}

/* The slot that is filled now; waits for one. */
static int filling_slot(struct upload *u, struct slot **ret, struct platter_error *err)
{
    if (u->n_parts == MOST_PARTS)
        return fail(err, EFBIG,
                    "%s: %d parts do not do for what is written: give a larger part_size",
                    u->head.name, MOST_PARTS);
    size_t room = (size_t)s3_part_size(u->part_size, u->n_parts + 1);
    struct slot *s = NULL;
    WITH_LOCK(&u->lock);
    int r = failure(u, err);
    while (r == 0 && !(s = free_slot(u, room))) {
        pthread_cond_wait(&u->changed, &u->lock);
        r = failure(u, err);
    }
    if (r < 0)
        return r;
    if (!s->bytes || s->room != room) {
        free(s->bytes);
        s->bytes = malloc(room);
        s->room = room;
    }
    if (!s->bytes)
        return fail_memory(err, "a part of an upload");
    s->state = SLOT_FILLING;
    if (!u->first)
        u->first = s;
    *ret = s;
    return 0;
}

/* From now on there is something on the server. */
static int begin(struct upload *u, struct platter_error *err)
{
    char *id;
    int r = unfinished_add(&u->unfinished, err);
    if (r == 0)
        r = s3_begin(u->object, &u->stop, &id, err);
    if (r == 0)
        u->id = id;
    return r;
}

/* What was filled is a part, and is sent. */
static int submit(struct upload *u, struct slot *s, struct platter_error *err)
{
    int r = u->id ? 0 : begin(u, err);
    if (r < 0)
        return r;
    WITH_LOCK(&u->lock);
    int code = s->running ? 0 : thread_start(&s->thread, sender_main, s);
    if (code)
        return fail_errno(err, code, "no thread for what is written over the network");
    s->running = true;
    if (s->number == 0)
        s->number = ++u->n_parts;
    s->state = SLOT_READY;
    pthread_cond_broadcast(&u->changed);
    return 0;
}

static void keep(struct upload *u, struct slot *s)
{
    WITH_LOCK(&u->lock);
    s->number = ++u->n_parts;
    s->state = SLOT_KEPT;
}

static int fill_up(struct upload *u, struct slot *s, struct platter_error *err)
{
    if (s != u->first)
        return submit(u, s, err);
    keep(u, s);
    return 0;
}

static int take_bytes(struct upload *u, const uint8_t *bytes, size_t len, struct platter_error *err)
{
    while (len > 0) {
        struct slot *s = NULL;
        int r = filling_slot(u, &s, err);
        if (r < 0)
            return r;
        size_t n = (size_t)min_u64(len, s->room - s->len);
        memcpy(s->bytes + s->len, bytes, n);
        s->len += n;
        u->written += n;
        bytes += n;
        len -= n;
        r = s->len == s->room ? fill_up(u, s, err) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

static int upload_pwrite(struct stream *stream, const void *buf, size_t len, hoff off,
                         struct platter_error *err)
{
    struct upload *u = upload_of(stream);
    WITH_LOCK(&u->turn);
    if (u->first && !u->published && off < u->written && range_inside(off, len, u->first->len)) {
        memcpy(u->first->bytes + off, buf, len);
        return 0;
    }
    if (off != u->written || u->published)
        return fail(err, ESPIPE,
                    "%s: cannot write at offset %" PRIu64
                    ": an object is written front to back, and goes on at %" PRIu64,
                    stream->name, off, u->written);
    return take_bytes(u, buf, len, err);
}

static int upload_size(struct stream *stream, uint64_t *ret_size, struct platter_error *err)
{
    (void)err;
    struct upload *u = upload_of(stream);
    WITH_LOCK(&u->turn);
    *ret_size = u->written;
    return 0;
}

/* Growing is writing zeros; what went out cannot be taken back. */
static int upload_resize(struct stream *stream, uint64_t size, struct platter_error *err)
{
    uint64_t written;
    upload_size(stream, &written, err);
    if (size < written)
        return fail(err, ESPIPE, "%s: cannot be cut to %" PRIu64 " bytes, %" PRIu64 " are written",
                    stream->name, size, written);
    return stream_write_zeros(stream, written, size - written, err);
}

/* ---- the end -----------------------------------------------------------------------------------
 */

static void wake_all(struct upload *u)
{
    http_client_wake(u->object->server->client);
    WITH_LOCK(&u->lock);
    pthread_cond_broadcast(&u->changed);
}

static void upload_interrupt(struct stream *stream)
{
    struct upload *u = upload_of(stream);
    atomic_store(&u->stop, true);
    wake_all(u);
}

/* The part that is not full; NULL: there is none. */
static struct slot *last_slot(struct upload *u)
{
    WITH_LOCK(&u->lock);
    for (unsigned i = 0; i < u->n_slots; i++)
        if (u->slots[i].state == SLOT_FILLING)
            return &u->slots[i];
    return NULL;
}

static int wait_for_parts(struct upload *u, struct platter_error *err)
{
    WITH_LOCK(&u->lock);
    int r = failure(u, err);
    for (unsigned i = 0; i < u->n_slots && r == 0; i++)
        while (u->slots[i].state == SLOT_READY && r == 0) {
            pthread_cond_wait(&u->changed, &u->lock);
            r = failure(u, err);
        }
    return r;
}

static int finish(struct upload *u, struct platter_error *err)
{
    struct slot *s = last_slot(u), *first = u->first;
    if (u->written <= u->part_size)
        return s3_put(u->object, first ? first->bytes : NULL, first ? first->len : 0, u->exclusive,
                      &u->stop, err);
    int r = s && s->len > 0 ? submit(u, s, err) : 0;
    if (r == 0)
        r = submit(u, first, err);
    if (r == 0)
        r = wait_for_parts(u, err);
    const struct s3_end end = {.id = u->id,
                               .etags = u->etags,
                               .n = u->n_parts,
                               .size = u->written,
                               .before = u->before,
                               .exclusive = u->exclusive};
    return r < 0 ? r : s3_complete(u->object, &end, &u->stop, err);
}

static int upload_publish(struct stream *stream, bool durable, struct platter_error *err)
{
    struct upload *u = upload_of(stream);
    (void)durable; /* a server that answers keeps it */
    WITH_LOCK(&u->turn);
    int r = u->published ? 0 : finish(u, err);
    if (r == 0)
        unfinished_remove(&u->unfinished);
    u->published = r == 0;
    return r;
}

static const char *upload_url(const struct stream *s)
{
    return ((const struct upload *)s)->object->url;
}

/* What was there before is gone for good: then what is there now stays. */
static int upload_withdraw(struct stream *stream, bool back, struct platter_error *err)
{
    struct upload *u = upload_of(stream);
    struct platter_error error = {0};
    if (!u->published)
        return 0;
    if (u->before && back)
        return fail_in(err, -EIO, "%s is there already, in place of what was there before",
                       stream->name);
    int r = s3_delete(u->object, &error);
    return r < 0 ? fail_in(err, r, "%s", error.message) : 0;
}

/* The program ends by a signal, perhaps while the server says what the upload is called. Threads
 * may still send parts, to an upload that is no more. */
static void undo(struct unfinished *unfinished)
{
    struct upload *u = container_of(unfinished, struct upload, unfinished);
    const struct timespec pause = {.tv_nsec = UNDO_PAUSE_NS};
    for (unsigned i = 0; i < UNDO_PAUSES && !u->id; i++)
        nanosleep(&pause, NULL);
    if (u->id)
        s3_abort(u->object, u->id, NULL);
}

static void end_threads(struct upload *u)
{
    pthread_mutex_lock(&u->lock);
    u->quitting = true;
    pthread_mutex_unlock(&u->lock);
    wake_all(u);
    for (unsigned i = 0; i < u->n_slots; i++) {
        if (u->slots[i].running)
            pthread_join(u->slots[i].thread, NULL);
        u->slots[i].running = false;
    }
}

/* Once: a server that does not listen is not waited for twice. */
static int upload_give_up(struct stream *stream, struct platter_error *err)
{
    struct upload *u = upload_of(stream);
    struct platter_error error = {0};
    if (u->published || u->given_up)
        return 0;
    u->given_up = true;
    upload_interrupt(stream);
    WITH_LOCK(&u->turn);
    end_threads(u);
    int r = u->id ? s3_abort(u->object, u->id, &error) : 0;
    return r < 0 ? fail(err, -r,
                        "the upload %s is still there (%s), and its parts take room until it is "
                        "aborted: platter-places(7) tells how",
                        u->id, error.message)
                 : 0;
}

static void upload_close(struct stream *stream)
{
    struct upload *u = upload_of(stream);
    upload_give_up(stream, NULL);
    end_threads(u);
    unfinished_remove(&u->unfinished);
    for (unsigned i = 0; i < u->n_slots; i++)
        free(u->slots[i].bytes);
    for (unsigned i = 0; i < u->n_parts; i++)
        free(u->etags[i]);
    free(u->id);
    free(u->before);
    s3_object_free(u->object);
    pthread_cond_destroy(&u->changed);
    pthread_mutex_destroy(&u->lock);
    pthread_mutex_destroy(&u->turn);
}

static const struct stream_ops upload_ops = {
    .name = "s3",
    .pwrite = upload_pwrite,
    .interrupt = upload_interrupt,
    .size = upload_size,
    .resize = upload_resize,
    .publish = upload_publish,
    .withdraw = upload_withdraw,
    .give_up = upload_give_up,
    .url = upload_url,
    .close = upload_close,
};

/* ---- opening -----------------------------------------------------------------------------------
 */

int s3_upload_open(struct s3_object *o, unsigned flags, uint64_t size, struct stream **ret,
                   struct platter_error *err)
{
    bool exclusive = flags & STREAM_FILE_EXCLUSIVE;
    auto_free char *before = NULL;
    int r = s3_look(o, &before, err);
    if (r == 0 && before && exclusive)
        r = fail(err, EEXIST, "%s: exists already", o->name);
    struct upload *u = r == 0 ? stream_new(sizeof *u, &upload_ops, o->name, err) : NULL;
    if (!u)
        return r < 0 ? r : -ENOMEM;
    u->head.writable = true;
    u->head.sequential = true;
    u->head.depth = 1; /* more at once come by themselves, but who waits is interrupted */
    u->object = o;
    u->exclusive = exclusive;
    u->before = TAKE(before);
    u->part_size = s3_first_part(o->server->part_size, size);
    u->head.rewritable = u->part_size;
    u->n_slots = (unsigned)min_u64(o->server->connections + 2, MOST_SLOTS);
    for (unsigned i = 0; i < u->n_slots; i++)
        u->slots[i].upload = u;
    u->unfinished.undo = undo;
    pthread_mutex_init(&u->turn, NULL);
    pthread_mutex_init(&u->lock, NULL);
    pthread_cond_init(&u->changed, NULL);
    *ret = &u->head;
    return 0;
}
