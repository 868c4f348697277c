/* SPDX-License-Identifier: MIT */
#include "support/dirty.h"

#include "base/ckd.h"
#include "base/memory.h"
#include "ops/ops.h"
#include "support/must.h"
#include "support/process.h"

static const char *const names[DIRTY_NAMES] = {"sectors", "a bitmap", "z"};
static const unsigned granularities[DIRTY_NAMES] = {512, 4096, 65536};

struct buffer dirty_image(unsigned cluster)
{
    auto_free char *path = scratch_path("dirty.qcow2");
    char options[64];
    struct platter_error err = {0};
    snprintf(options, sizeof options, "cluster_size=%u", cluster);
    struct platter_create_options o = {.size = sizeof o,
                                       .format = "qcow2",
                                       .options = options,
                                       .has_disk_size = true,
                                       .disk_size = DIRTY_SIZE};
    MUST(platter_create(path, &o, &err) == 0);
    return buffer_load(path, 16 << 20);
}

void dirty_init(struct dirty *d, uint64_t seed)
{
    *d = (struct dirty){.prng = {seed}};
    d->store = calloc(1, sizeof *d->store);
    MUST(d->store && (d->store[0] = calloc(1, sizeof **d->store)));
    d->n_stored = 1; /* none */
}

void dirty_free(struct dirty *d)
{
    for (unsigned i = 0; i < d->n_stored; i++)
        free(d->store[i]);
    free(d->store);
}

static size_t position(const struct dirty *d)
{
    return d->log ? write_log_length(d->log) : 0;
}

/* ---- what is done ------------------------------------------------------------------------------
 */

/* The model as it is to be stored by what begins now. */
static void begin_store(struct dirty *d)
{
    struct dirty_state *s = malloc(sizeof *s);
    d->store = reallocarray(d->store, d->n_stored + 1, sizeof *d->store);
    MUST(s && d->store);
    d->now.begun = position(d);
    d->now.stored = SIZE_MAX;
    *s = d->now;
    d->store[d->n_stored++] = s;
}

static void end_store(struct dirty *d, bool done)
{
    if (done) {
        d->store[d->n_stored - 1]->stored = position(d);
        d->recording = false;
    }
}

/* What is there now, after a failure or before anything is done. */
static void look_again(struct dirty *d)
{
    d->now.blurred = disk_read(d->disk, d->now.content, DIRTY_SIZE, 0, NULL) < 0;
}

int dirty_open(struct dirty *d, struct stream *s, struct platter_error *err)
{
    const struct format *format = &format_qcow2;
    d->recording = false;
    int r = disk_assemble(&s, &format, 1, true, true, 0, NULL, &d->disk, err);
    if (r == 0)
        look_again(d);
    return r;
}

int dirty_close(struct dirty *d, struct platter_error *err)
{
    bool stores = d->recording;
    if (stores)
        begin_store(d);
    int r = disk_close(d->disk, err);
    d->disk = NULL;
    if (stores)
        end_store(d, r == 0);
    return r;
}

static void set_range(struct dirty_bitmap *b, unsigned granularity, goff off, uint64_t len)
{
    for (uint64_t i = off / granularity; i * granularity < off + len; i++)
        b->bits[i] = 1;
}

/* Writes, zeros or discards; what a discard leaves is read. */
static int guest_step(struct dirty *d, struct platter_error *err)
{
    uint8_t *content = d->now.content;
    goff off = prng_below(&d->prng, DIRTY_SIZE / 512) * 512;
    uint64_t len = min_u64((1 + prng_below(&d->prng, 24)) * 512, DIRTY_SIZE - off);
    unsigned what = (unsigned)prng_below(&d->prng, 8);
    int r;

    d->recording = true;
    if (what == 1) { /* reaches whole clusters only */
        uint64_t unit = disk_top(d->disk)->unit, end = off + len;
        off = round_up(off, unit);
        end = end == DIRTY_SIZE ? end : round_down(end, unit);
        len = end > off ? end - off : 0;
    }
    for (int i = 0; len && i < DIRTY_NAMES; i++)
        if (d->now.of[i].enabled)
            set_range(&d->now.of[i], granularities[i], off, len);
    if (what == 0) {
        memset(content + off, 0, len);
        return disk_zero(d->disk, off, len, prng_chance(&d->prng, 50), err);
    }
    if (what == 1) {
        r = disk_discard(d->disk, off, len, err);
        look_again(d);
        return r;
    }
    for (uint64_t i = 0; i < len; i++)
        content[off + i] = (uint8_t)prng_next(&d->prng);
    return disk_write(d->disk, content + off, len, off, err);
}

static void merge_model(const struct dirty_state *s, int from, struct dirty_state *ret, int to)
{
    for (unsigned i = 0; i < DIRTY_SIZE / granularities[from]; i++)
        if (s->of[from].bits[i])
            set_range(&ret->of[to], granularities[to], (goff)i * granularities[from],
                      granularities[from]);
}

static struct platter_bitmap_change change_of(struct dirty *d, struct dirty_state *s)
{
    int i = (int)prng_below(&d->prng, DIRTY_NAMES), from = (int)prng_below(&d->prng, DIRTY_NAMES);
    struct platter_bitmap_change c = {.size = sizeof c, .name = names[i]};
    struct dirty_bitmap *b = &s->of[i];

    c.action =
        b->there
            ? (enum platter_bitmap_action)(PLATTER_BITMAP_REMOVE + (int)prng_below(&d->prng, 5))
            : PLATTER_BITMAP_ADD;
    if (c.action == PLATTER_BITMAP_MERGE && !s->of[from].there)
        c.action = PLATTER_BITMAP_CLEAR;
    if (c.action == PLATTER_BITMAP_ADD || c.action == PLATTER_BITMAP_CLEAR) {
        b->enabled = c.action == PLATTER_BITMAP_ADD || b->enabled;
        memset(b->bits, 0, sizeof b->bits);
        memcpy(b->base, s->content, DIRTY_SIZE);
        b->sure = b->enabled && !s->blurred;
        b->there = true;
    }
    if (c.action == PLATTER_BITMAP_ADD)
        c.granularity = granularities[i];
    if (c.action == PLATTER_BITMAP_REMOVE)
        *b = (struct dirty_bitmap){0};
    if (c.action == PLATTER_BITMAP_ENABLE)
        b->enabled = true;
    if (c.action == PLATTER_BITMAP_DISABLE)
        b->enabled = b->sure = false;
    if (c.action == PLATTER_BITMAP_MERGE) {
        c.source_name = names[from];
        merge_model(s, from, s, i);
    }
    return c;
}

static int change_step(struct dirty *d, struct platter_error *err)
{
    struct platter_bitmap_change changes[3];
    size_t n = 1 + prng_below(&d->prng, 3);
    struct dirty_state *before = malloc(sizeof *before);

    MUST(before);
    *before = d->now;
    for (size_t i = 0; i < n; i++)
        changes[i] = change_of(d, &d->now);
    begin_store(d);
    int r = ops_bitmap_change(d->disk, changes, n, err);
    end_store(d, r == 0);
    if (r < 0)
        d->now = *before;
    free(before);
    return r;
}

int dirty_step(struct dirty *d, struct platter_error *err)
{
    unsigned what = (unsigned)prng_below(&d->prng, 16);
    if (what < 3)
        return change_step(d, err);
    if (what == 3 && !d->recording) /* all of it moves, and says what it said */
        return disk_compact(d->disk, &(struct compact_request){0}, err);
    if (what == 3)
        return disk_flush(d->disk, err);
    int r = guest_step(d, err);
    if (r < 0)
        look_again(d);
    return r;
}

/* ---- what came of it ---------------------------------------------------------------------------
 */

struct found {
    bool there[DIRTY_NAMES], in_use[DIRTY_NAMES];
    struct dirty_bitmap of[DIRTY_NAMES];
    uint8_t content[DIRTY_SIZE];
};

static int look_at(struct image *img, const struct bitmap_info *info, struct found *f,
                   struct platter_error *err)
{
    int i = 0, r = 0;
    uint64_t len;
    bool dirty;

    while (i < DIRTY_NAMES && strcmp(info->name, names[i]) != 0)
        i++;
    if (i == DIRTY_NAMES || f->there[i] || info->granularity != granularities[i])
        return fail(err, EIO, "there is a bitmap \"%s\"", info->name);
    f->there[i] = true;
    f->in_use[i] = info->in_use;
    f->of[i].enabled = info->enabled;
    if (info->problem && !info->in_use)
        return fail(err, EIO, "bitmap \"%s\": %s", info->name, info->problem);
    for (goff off = 0; r == 0 && !info->in_use && off < DIRTY_SIZE; off += len) {
        r = img->format->bitmaps->map(img, names[i], off, DIRTY_SIZE - off, &len, &dirty, err);
        if (r == 0 && dirty)
            set_range(&f->of[i], granularities[i], off, len);
    }
    return r;
}

static int look(struct buffer *file, struct found *f, struct platter_error *err)
{
    const struct format *format = &format_qcow2;
    auto_free struct bitmap_info *all = NULL;
    struct platter_disk *disk;
    struct stream *s;
    size_t n = 0;

    memset(f, 0, sizeof *f);
    MUST(stream_buffer_open(file, "image", false, &s, NULL) == 0);
    int r = disk_assemble(&s, &format, 1, false, true, 0, NULL, &disk, err);
    if (r < 0)
        return r;
    r = disk_read(disk, f->content, DIRTY_SIZE, 0, err);
    if (r == 0)
        r = format->bitmaps->list(disk_top(disk), &all, &n, err);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = look_at(disk_top(disk), &all[i], f, err);
    disk_close(disk, NULL);
    return r;
}

/* Whether what was found is state s; where it is in use its bits do not count. */
static bool is_state(const struct found *f, const struct dirty_state *s, char *why, size_t size)
{
    for (int i = 0; i < DIRTY_NAMES; i++) {
        const struct dirty_bitmap *b = &s->of[i];
        if (f->there[i] != b->there || (b->there && f->of[i].enabled != b->enabled)) {
            snprintf(why, size, "bitmap \"%s\" is%s there%s", names[i], f->there[i] ? "" : " not",
                     f->of[i].enabled ? ", enabled" : "");
            return false;
        }
        if (b->there && !f->in_use[i] && memcmp(b->bits, f->of[i].bits, DIRTY_BITS) != 0) {
            snprintf(why, size, "bitmap \"%s\" has other bits", names[i]);
            return false;
        }
    }
    return true;
}

/* Whether valid bitmaps know of all that changed since the bases of state s. */
static bool knows_all(const struct found *f, const struct dirty_state *s, char *why, size_t size)
{
    for (int i = 0; i < DIRTY_NAMES; i++)
        for (unsigned k = 0; s->of[i].sure && !f->in_use[i] && k < DIRTY_SIZE / granularities[i];
             k++)
            if (!f->of[i].bits[k] && memcmp(s->of[i].base + k * granularities[i],
                                            f->content + k * granularities[i], granularities[i])) {
                snprintf(why, size, "valid bitmap \"%s\" does not know that granule %u changed",
                         names[i], k);
                return false;
            }
    return true;
}

bool dirty_allows(const struct dirty *d, struct buffer *file, size_t at, char *why, size_t size)
{
    struct platter_error err = {0};
    struct found *f = calloc(1, sizeof *f);
    bool good = false;
    MUST(f);
    if (look(file, f, &err) < 0) {
        snprintf(why, size, "%.200s", err.message);
        free(f);
        return false;
    }
    for (unsigned i = d->n_stored; !good && i-- > 0;) {
        const struct dirty_state *s = d->store[i];
        if (s->begun > at)
            continue;
        good = is_state(f, s, why, size) && knows_all(f, s, why, size);
        if (s->stored <= at)
            break; /* what was before is gone */
    }
    free(f);
    return good;
}

bool dirty_matches(const struct dirty *d, struct buffer *file, char *why, size_t size)
{
    struct platter_error err = {0};
    struct found *f = calloc(1, sizeof *f);
    const struct dirty_state *last = d->store[d->n_stored - 1];
    MUST(f);
    int r = look(file, f, &err);
    if (r < 0)
        snprintf(why, size, "%.200s", err.message);
    bool good = r == 0 && is_state(f, last, why, size) && knows_all(f, last, why, size);
    for (int i = 0; good && i < DIRTY_NAMES; i++)
        if (f->in_use[i]) {
            snprintf(why, size, "bitmap \"%s\" is in use", names[i]);
            good = false;
        }
    free(f);
    return good;
}
