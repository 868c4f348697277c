/* SPDX-License-Identifier: MIT */
/* archive_run.h: ways to an archive, what is told of it, and whether that is so. */
#include "model/archive_run.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/memory.h"
#include "support/must.h"
#include "support/process.h"

static const char *const way_names[WAYS] = {"file", "pipe", "zstd", "gzip", "zstd in a pipe"};

unsigned complaints;

int complain(const struct run *r, const char *what, const char *why)
{
    complaints++;
    fprintf(stderr, "seed %" PRIu64 ", %s, from a %s: %s: %s\n", r->seed, r->what,
            way_names[r->way], what, why);
    return -1;
}

/* ---- how it comes ------------------------------------------------------------------------------
 */

/* In pieces of 64 KiB, each packed on its own, or all in one. */
enum { PIECE = 64 << 10 };

static size_t pack(enum way way, uint8_t *out, size_t room, const uint8_t *bytes, size_t len)
{
    if (way != WAY_GZIP) {
        size_t n = ZSTD_compress(out, room, bytes, len, 1);
        MUST(!ZSTD_isError(n));
        return n;
    }
    z_stream z = {.next_in = (Bytef *)(uintptr_t)bytes,
                  .avail_in = (uInt)len,
                  .next_out = out,
                  .avail_out = (uInt)room};
    MUST(deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    MUST(deflate(&z, Z_FINISH) == Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

static void wrap(const struct run *r, const struct buffer *b)
{
    size_t piece = r->seed % 3 ? PIECE : b->size;
    struct buffer out = buffer_new(b->size + b->size / 8 + (1 << 20));
    for (uint64_t at = 0; at < b->size; at += piece) {
        size_t len = piece < b->size - at ? piece : b->size - at;
        out.size += pack(r->way, out.bytes + out.size, out.capacity - out.size, b->bytes + at, len);
    }
    buffer_save(&out, r->path);
    buffer_free(&out);
}

/* Pours the file into the FIFO, in pieces of all lengths, as long as somebody reads. */
static void *feed(void *opaque)
{
    const struct feeder *f = opaque;
    struct prng p = {f->run->seed};
    struct buffer b = buffer_load(f->run->path, 0);
    int fd = open(f->run->fifo, O_WRONLY | O_CLOEXEC);
    MUST(fd >= 0);
    for (uint64_t at = 0; at < b.size;) {
        uint64_t len = 1 + prng_below(&p, prng_chance(&p, 10) ? 7 : 200000);
        ssize_t n = write(fd, b.bytes + at, len < b.size - at ? len : b.size - at);
        if (n < 0)
            break;
        at += (uint64_t)n;
    }
    close(fd);
    buffer_free(&b);
    return NULL;
}

void run_lay_out(const struct run *r, const struct buffer *b)
{
    if (r->way == WAY_FILE || r->way == WAY_PIPE)
        buffer_save(b, r->path);
    else
        wrap(r, b);
}

const char *run_begin(const struct run *r, struct feeder *f)
{
    *f = (struct feeder){.run = r};
    if (r->way != WAY_PIPE && r->way != WAY_ZSTD_PIPE)
        return r->path;
    unlink(r->fifo);
    MUST(mkfifo(r->fifo, 0600) == 0);
    MUST(pthread_create(&f->thread, NULL, feed, f) == 0);
    return r->fifo;
}

void run_end(const struct run *r, struct feeder *f)
{
    if (r->way == WAY_PIPE || r->way == WAY_ZSTD_PIPE)
        pthread_join(f->thread, NULL);
}

/* ---- what is told ------------------------------------------------------------------------------
 */

static const json_t *device_of(const struct told *t, unsigned id)
{
    size_t i;
    const json_t *d;
    json_array_foreach (t->devices, i, d) {
        if (json_integer_value(json_object_get(d, "id")) == id)
            return d;
    }
    return NULL;
}

static const char *name_of(const struct told *t, unsigned id)
{
    return json_string_value(json_object_get(device_of(t, id), "name"));
}

static int id_of(const struct told *t, const char *name)
{
    for (unsigned i = 1; i < 256; i++)
        if (name_of(t, i) && strcmp(name_of(t, i), name) == 0)
            return (int)i;
    return 0;
}

enum { MOST_CLUSTERS = 4096 };

/* The clusters of a range. What is not at the end of its disk is whole clusters; that its end is
 * not passed is checked where the listing tells of it. */
static void take_range(struct told *t, const struct platter_fault *f, bool *clusters[256])
{
    int id = f->disk ? id_of(t, f->disk) : 0;
    const json_t *d = device_of(t, (unsigned)id);
    uint64_t size = (uint64_t)json_integer_value(json_object_get(d, "size"));
    bool sized = size && !json_is_true(json_object_get(d, "vmstate"));
    uint64_t first = f->offset / VI_CLUSTER, end = f->offset + f->length;
    uint64_t last = (end + VI_CLUSTER - 1) / VI_CLUSTER;

    if (f->offset % VI_CLUSTER || f->length == 0 || last > MOST_CLUSTERS ||
        (end % VI_CLUSTER && (!sized || end != size)) || (sized && end > size)) {
        t->bad = "a range that cannot be";
        return;
    }
    if (!clusters[id])
        MUST((clusters[id] = calloc(MOST_CLUSTERS, sizeof(bool))));
    for (uint64_t c = first; c < last; c++) {
        if (clusters[id][c])
            t->bad = "a range is told twice";
        clusters[id][c] = true;
    }
}

static void take_fault(void *opaque, const struct platter_fault *f)
{
    struct told *t = opaque;
    if (f->kind == PLATTER_FAULT_NOTE)
        return;
    if (t->faults++ == 0)
        snprintf(t->first, sizeof t->first, "kind %d: %s", (int)f->kind, f->text);
    if (!f->text || !f->text[0])
        t->bad = "a fault without a word";
    if (f->kind == PLATTER_FAULT_DOUBT)
        take_range(t, f, t->doubted);
    if (f->kind == PLATTER_FAULT_MISSING) {
        take_range(t, f, t->missing);
        t->holes++;
    }
}

void told_free(struct told *t)
{
    for (unsigned i = 0; i < 256; i++) {
        free(t->missing[i]);
        free(t->doubted[i]);
    }
    json_decref(t->devices);
}

/* ---- opening -----------------------------------------------------------------------------------
 */

int run_open(const struct run *r, const char *name, unsigned flags, bool give_uuid, struct told *t,
             struct platter_archive **ret, struct platter_error *err)
{
    struct platter_archive_options options = {
        .size = sizeof options, .flags = flags, .format = "vma", .fault = take_fault, .opaque = t};
    char uuid[2 * VI_UUID + 1], *json = NULL;
    for (unsigned i = 0; i < VI_UUID; i++)
        sprintf(uuid + 2 * (size_t)i, "%02x", r->v.uuid[i]);
    options.uuid = give_uuid ? uuid : NULL;
    int e = platter_archive_open(name, &options, ret, err);
    if (e < 0)
        return e;
    MUST(platter_archive_info(*ret, &json, err) == 0);
    json_t *info = json_loads(json, 0, NULL);
    MUST(info);
    t->devices = json_incref(json_object_get(info, "devices"));
    json_decref(info);
    platter_free(json);
    return 0;
}

int run_verify(struct run *r, unsigned flags, struct told *t, struct platter_error *err)
{
    struct platter_verify_options options = {
        .size = sizeof options,
        .flags = prng_chance(&r->prng, 50) ? PLATTER_VERIFY_DATA : 0,
        .workers = (unsigned)prng_below(&r->prng, 4)};
    struct platter_verification result = {.size = sizeof result};
    struct platter_archive *a;
    struct feeder f;
    int e = run_open(r, run_begin(r, &f), flags, false, t, &a, err);
    if (e == 0) {
        e = platter_archive_verify(a, &options, &result, err);
        platter_archive_close(a);
        if (e == 0 && result.faults != t->faults)
            e = complain(r, "verify", "counts other faults than it tells");
    }
    run_end(r, &f);
    return e;
}

/* ---- extracting --------------------------------------------------------------------------------
 */

static char *target_of(unsigned device)
{
    auto_free char *name = string_format("%u.out", device);
    return scratch_path(name);
}

int run_extract(struct run *r, struct platter_archive *a, const struct told *t, uint64_t *holes,
                struct platter_error *err)
{
    struct platter_extract_target targets[256] = {0};
    const struct platter_extract_target *list[256];
    struct platter_extract_options options = {.size = sizeof options,
                                              .flags = PLATTER_EXTRACT_UNSAFE,
                                              .targets = list,
                                              .workers = (unsigned)prng_below(&r->prng, 5)};
    char *paths[256] = {0};
    for (unsigned i = 1; i < 256; i++) {
        const char *name = name_of(t, i);
        if (!name)
            continue;
        paths[i] = target_of(i);
        unlink(paths[i]);
        targets[i] = (struct platter_extract_target){
            .size = sizeof targets[i], .disk = name, .target = paths[i]};
        list[options.n_targets++] = &targets[i];
    }
    int e = platter_archive_extract(a, &options, holes, err);
    for (unsigned i = 1; i < 256; i++) {
        if (e < 0 && paths[i] && access(paths[i], F_OK) == 0)
            complain(r, "extract", "failed and left a target"), e = 1;
        free(paths[i]);
    }
    return e;
}

/* What a target holds must be what the book says is left; where nothing is left there are zeros. */
static int judge_disk(const struct run *r, const struct remains *d, uint64_t size)
{
    auto_free char *path = target_of(d->of->id);
    struct buffer b = buffer_load(path, size);
    char where[64];
    int e = 0;
    if (b.size != size)
        e = complain(r, d->of->name, "the target is not as long as its disk");
    for (uint64_t i = 0; e == 0 && i < size; i++)
        if (b.bytes[i] != (i / VI_CLUSTER < d->of->clusters ? d->content[i] : 0)) {
            snprintf(where, sizeof where, "differs at %" PRIu64, i);
            e = complain(r, d->of->name, where);
        }
    buffer_free(&b);
    return e;
}

/* How long a disk is. Where the header is damaged, it is as long as what is left of that says; or,
 * like a state, as long as what there is of it. */
static uint64_t size_of(const struct oracle *o, const struct told *t, const struct remains *d,
                        uint32_t *ret_clusters)
{
    const json_t *device = device_of(t, d->of->id);
    bool state = json_is_true(json_object_get(device, "vmstate"));
    uint64_t said = (uint64_t)json_integer_value(json_object_get(device, "size"));
    uint32_t n = d->end;

    while ((!o->header || d->of->state) && n && !d->have[n - 1])
        n--;
    if (o->header ? d->of->state : state || said == 0) {
        *ret_clusters = n;
        return (uint64_t)n * VI_CLUSTER;
    }
    said = o->header ? d->of->size : said;
    *ret_clusters = (uint32_t)((said + VI_CLUSTER - 1) / VI_CLUSTER);
    return said;
}

static int judge_holes(const struct run *r, const struct told *t, const struct remains *d,
                       uint32_t clusters)
{
    const bool *missing = t->missing[d->of->id];
    char where[64];
    for (uint32_t c = 0; c < MOST_CLUSTERS; c++) {
        bool is = c < clusters && (c >= d->of->clusters || !d->have[c]);
        if (is == (missing && missing[c]))
            continue;
        snprintf(where, sizeof where, "cluster %u %s", c,
                 is ? "is missing, which is not told" : "is told to be missing");
        return complain(r, d->of->name, where);
    }
    return 0;
}

/* Where data is known to stand elsewhere, it must not be passed off as right. */
static int judge_doubts(const struct run *r, const struct told *t, const struct remains *d)
{
    const bool *doubted = t->doubted[d->of->id];
    char where[64];
    for (uint32_t c = 0; c < d->of->clusters; c++) {
        if (!d->shifted[c] || (doubted && doubted[c]))
            continue;
        snprintf(where, sizeof where, "cluster %u is wrong, which could be known", c);
        return complain(r, d->of->name, where);
    }
    return 0;
}

int run_judge(const struct run *r, const struct oracle *o, const struct told *t, bool extracted)
{
    int e = t->bad ? complain(r, "faults", t->bad) : 0;
    for (unsigned i = 0; e == 0 && i < o->n_disks; i++) {
        const struct remains *d = &o->disks[i];
        uint32_t n;
        uint64_t size = size_of(o, t, d, &n);
        if (!name_of(t, d->of->id)) {
            /* What comes out of a pipe tells of such disks only when it has come. */
            if (o->header || (n && r->way == WAY_FILE))
                e = complain(r, d->of->name, "is not in the listing");
            continue;
        }
        e = judge_holes(r, t, d, n);
        if (e == 0)
            e = judge_doubts(r, t, d);
        if (e == 0 && extracted)
            e = judge_disk(r, d, size);
    }
    return e;
}
