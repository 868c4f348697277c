/* SPDX-License-Identifier: MIT */
/* Key slots of an image that is encrypted with LUKS 1. */
#include <string.h>

#include "format/luks1.h"
#include "ops/ops.h"

/* A change under way. */
struct job {
    struct name_opener opener; /* first: asks for secrets */
    const struct platter_key_options *o;
    const struct platter_open_options *open;
    struct luks1_area area;
    struct luks1 luks;
    uint8_t *key;         /* of the data; CIPHER_MAX_KEY bytes */
    struct secret secret; /* what was asked first; none where no key is needed */
    unsigned own;         /* the first slot that it opens */
    const char *name;
};

static int job_secret(const struct name_opener *opener, const struct platter_secret *question,
                      struct secret *ret, struct platter_error *err)
{
    const struct job *job = container_of(opener, struct job, opener);
    return call_secret(job->open->secret, job->open->secret_opaque, question, ret, err);
}

static int ask(const struct job *job, enum platter_secret_kind kind, const char *id,
               struct secret *ret, struct platter_error *err)
{
    const struct platter_secret question = {
        .size = sizeof question, .kind = kind, .image = job->name, .id = id};
    int r = secret_new(ret, err);
    return r < 0 ? r : job_secret(&job->opener, &question, ret, err);
}

static unsigned count_active(const struct luks1 *l)
{
    unsigned n = 0;
    for (unsigned i = 0; i < LUKS1_SLOTS; i++)
        n += l->slots[i].active;
    return n;
}

/* The slots, number `first` and later, that a secret opens, as bits; EACCES: none. */
static int find_slots(const struct job *job, const struct secret *secret, unsigned first,
                      unsigned *ret, struct platter_error *err)
{
    uint8_t *key = secret_alloc(CIPHER_MAX_KEY);
    unsigned slot;

    *ret = 0;
    int r = key ? 0 : fail_memory(err, "a key");
    for (; r == 0 && first < LUKS1_SLOTS; first = slot + 1) {
        r = luks1_unlock(&job->area, &job->luks, secret, job->open->kdf_limit, first, key, &slot,
                         err);
        if (r == 0)
            *ret |= 1u << slot;
    }
    secret_free(key, CIPHER_MAX_KEY);
    return r == -EACCES && *ret ? 0 : r;
}

static int clear_slots(struct job *job, unsigned slots, struct platter_error *err)
{
    int r = 0;
    for (unsigned i = 0; i < LUKS1_SLOTS && r == 0; i++)
        if (slots >> i & 1)
            r = luks1_slot_clear(&job->area, &job->luks, i, err);
    return r;
}

/* ---- adding ---------------------------------------------------------------------------------- */

static int choose_slot(const struct job *job, unsigned *ret, struct platter_error *err)
{
    *ret = job->o->has_slot ? job->o->slot : luks1_free_slot(&job->luks);
    if (*ret == LUKS1_SLOTS)
        return fail(err, ENOSPC, "%s: all eight key slots are in use: remove one first", job->name);
    if (job->luks.slots[*ret].active && !(job->o->flags & PLATTER_KEY_FORCE))
        return fail(err, EEXIST,
                    "%s: key slot %u is in use: name another one, or force it to be overwritten",
                    job->name, *ret);
    return 0;
}

static int add(struct job *job, unsigned *ret_slot, struct platter_error *err)
{
    struct secret secret = {0};
    int r = choose_slot(job, ret_slot, err); /* before anybody types a new key */
    if (r == 0)
        r = ask(job, PLATTER_SECRET_NEW, job->o->new_secret, &secret, err);
    if (r == 0)
        r = (job->luks.slots[*ret_slot].active ? luks1_slot_replace : luks1_slot_fill)(
            &job->area, &job->luks, *ret_slot, job->key, &secret, job->o->iter_time, err);
    secret_wipe(&secret);
    return r;
}

/* The new key opens the image before the old one does not any more: by no slot at all. */
static int change(struct job *job, unsigned *ret_slot, struct platter_error *err)
{
    unsigned old;
    int r = find_slots(job, &job->secret, job->own, &old, err);
    if (r == 0)
        r = add(job, ret_slot, err);
    return r < 0 ? r : clear_slots(job, old & ~(1u << *ret_slot), err);
}

/* ---- removing -------------------------------------------------------------------------------- */

/* The slots that go, as bits. */
static int choose_removed(const struct job *job, unsigned *ret, struct platter_error *err)
{
    struct secret secret = {0};
    const unsigned slot = job->o->slot;

    if (job->o->has_slot) {
        *ret = 1u << slot;
        return job->luks.slots[slot].active
                   ? 0
                   : fail(err, ENOENT, "%s: key slot %u is not in use", job->name, slot);
    }
    int r = ask(job, PLATTER_SECRET_REMOVE, job->o->old_secret, &secret, err);
    if (r == 0)
        r = find_slots(job, &secret, 0, ret, err);
    secret_wipe(&secret);
    return r;
}

static int remove_keys(struct job *job, unsigned *ret_slot, struct platter_error *err)
{
    unsigned slots;
    int r = choose_removed(job, &slots, err);
    if (r < 0)
        return r;
    if (count_active(&job->luks) == (unsigned)__builtin_popcount(slots) &&
        !(job->o->flags & PLATTER_KEY_FORCE))
        return fail(err, EBUSY,
                    "%s: nothing would open it any more, and all its data be lost: add another key "
                    "first, or force it",
                    job->name);
    *ret_slot = (unsigned)__builtin_ctz(slots);
    return clear_slots(job, slots, err);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int run(struct job *job, unsigned *ret_slot, struct platter_error *err)
{
    const struct platter_key_options *o = job->o;
    /* Who forces a slot to go need not know a key: the data may be meant to be lost. */
    bool blind = o->action == PLATTER_KEY_REMOVE && o->has_slot && o->flags & PLATTER_KEY_FORCE;
    int r = blind ? 0 : secret_new(&job->secret, err);
    if (r == 0 && !blind)
        r = luks1_ask(&job->area, &job->luks, &job->opener, &job->secret, job->key, &job->own, err);
    if (r < 0)
        return r;
    switch (o->action) {
    case PLATTER_KEY_ADD:
        return add(job, ret_slot, err);
    case PLATTER_KEY_CHANGE:
        return change(job, ret_slot, err);
    case PLATTER_KEY_REMOVE:
        return remove_keys(job, ret_slot, err);
    }
    return fail(err, EINVAL, "platter_key() knows no action %d", (int)o->action);
}

int ops_key(const char *name, const struct platter_key_options *o,
            const struct platter_open_options *open, unsigned *ret_slot, struct platter_error *err)
{
    struct platter_disk *disk;
    const struct luks1 *luks;
    struct job job = {.opener = {.secret = job_secret, .kdf_limit = open->kdf_limit},
                      .o = o,
                      .open = open,
                      .name = name};

    int r = disk_open_for_keys(name, open, &disk, err);
    if (r < 0)
        return r;
    const struct image *top = disk_top(disk);
    if (!top->format->key_area || !top->format->key_area(top, &job.area, &luks))
        r = fail(err, ENOTSUP, "%s: is not encrypted with LUKS, and has no key slots",
                 top->stream->name);
    else
        job.luks = *luks;
    job.key = secret_alloc(CIPHER_MAX_KEY);
    if (r == 0 && !job.key)
        r = fail_memory(err, "a key");
    if (r == 0)
        r = run(&job, ret_slot, err);
    secret_wipe(&job.secret);
    secret_free(job.key, CIPHER_MAX_KEY);
    disk_close(disk, NULL);
    return r;
}
