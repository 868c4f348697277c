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
    uint8_t *key; /* of the data; CIPHER_MAX_KEY bytes */
    unsigned own; /* the slot that what was asked first opens */
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

/* ---- adding ---------------------------------------------------------------------------------- */

static int choose_free(const struct job *job, unsigned *ret, struct platter_error *err)
{
    if (job->o->has_slot) {
        *ret = job->o->slot;
        return 0;
    }
    for (*ret = 0; *ret < LUKS1_SLOTS; ++*ret)
        if (!job->luks.slots[*ret].active)
            return 0;
    return fail(err, ENOSPC, "%s: all eight key slots are in use: remove one first", job->name);
}

/* What stands in a slot that is in use goes first: it may be all that opens the image, so a crash
 * may lose it. */
static int make_free(struct job *job, unsigned slot, struct platter_error *err)
{
    if (!job->luks.slots[slot].active)
        return 0;
    if (!(job->o->flags & PLATTER_KEY_FORCE))
        return fail(err, EEXIST,
                    "%s: key slot %u is in use: name another one, or force it to be overwritten",
                    job->name, slot);
    return luks1_slot_clear(&job->area, &job->luks, slot, err);
}

static int add(struct job *job, unsigned *ret_slot, struct platter_error *err)
{
    struct secret secret = {0};
    int r = choose_free(job, ret_slot, err);
    if (r == 0 && job->luks.slots[*ret_slot].active && !(job->o->flags & PLATTER_KEY_FORCE))
        r = make_free(job, *ret_slot, err); /* which fails, before anybody types a new key */
    if (r == 0)
        r = ask(job, PLATTER_SECRET_NEW, job->o->new_secret, &secret, err);
    if (r == 0)
        r = make_free(job, *ret_slot, err);
    if (r == 0)
        r = luks1_slot_fill(&job->area, &job->luks, *ret_slot, job->key, &secret, job->o->iter_time,
                            err);
    secret_wipe(&secret);
    return r;
}

/* The new key opens the image before the old one does not any more. */
static int change(struct job *job, unsigned *ret_slot, struct platter_error *err)
{
    int r = add(job, ret_slot, err);
    if (r == 0 && *ret_slot != job->own)
        r = luks1_slot_clear(&job->area, &job->luks, job->own, err);
    return r;
}

/* ---- removing -------------------------------------------------------------------------------- */

/* The slots that go, as bits. */
static int choose_removed(struct job *job, unsigned *ret, struct platter_error *err)
{
    struct secret secret = {0};
    uint8_t *key = secret_alloc(CIPHER_MAX_KEY);
    unsigned slot;

    *ret = 0;
    int r = key ? ask(job, PLATTER_SECRET_REMOVE, job->o->old_secret, &secret, err)
                : fail_memory(err, "a key");
    for (unsigned from = 0; r == 0 && from < LUKS1_SLOTS; from = slot + 1) {
        r = luks1_unlock(&job->area, &job->luks, &secret, job->open->kdf_limit, from, key, &slot,
                         err);
        if (r == 0)
            *ret |= 1u << slot;
    }
    secret_wipe(&secret);
    secret_free(key, CIPHER_MAX_KEY);
    return r == -EACCES && *ret ? 0 : r;
}

static int remove_keys(struct job *job, unsigned *ret_slot, struct platter_error *err)
{
    unsigned slots = 1u << job->o->slot;
    int r = job->o->has_slot ? 0 : choose_removed(job, &slots, err);
    if (r == 0 && job->o->has_slot && !job->luks.slots[job->o->slot].active)
        r = fail(err, ENOENT, "%s: key slot %u is not in use", job->name, job->o->slot);
    if (r < 0)
        return r;
    if (count_active(&job->luks) == (unsigned)__builtin_popcount(slots) &&
        !(job->o->flags & PLATTER_KEY_FORCE))
        return fail(err, EBUSY,
                    "%s: nothing would open it any more, and all its data be lost: add another key "
                    "first, or force it",
                    job->name);
    *ret_slot = (unsigned)__builtin_ctz(slots);
    for (unsigned i = 0; i < LUKS1_SLOTS && r == 0; i++)
        if (slots >> i & 1)
            r = luks1_slot_clear(&job->area, &job->luks, i, err);
    return r;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int run(struct job *job, unsigned *ret_slot, struct platter_error *err)
{
    const struct platter_key_options *o = job->o;
    /* Who forces a slot to go need not know a key: the data may be meant to be lost. */
    bool blind = o->action == PLATTER_KEY_REMOVE && o->has_slot && o->flags & PLATTER_KEY_FORCE;
    int r = blind ? 0 : luks1_ask(&job->area, &job->luks, &job->opener, job->key, &job->own, err);
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
        r = fail(err, ENOTSUP, "%s: is not encrypted with LUKS, and has no key slots", name);
    else
        job.luks = *luks;
    job.key = secret_alloc(CIPHER_MAX_KEY);
    if (r == 0 && !job.key)
        r = fail_memory(err, "a key");
    if (r == 0)
        r = run(&job, ret_slot, err);
    secret_free(job.key, CIPHER_MAX_KEY);
    disk_close(disk, NULL);
    return r;
}
