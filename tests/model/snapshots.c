/* SPDX-License-Identifier: MIT */
/*
 * Random writes, zeros, discards, resizes, compactions, snapshots that are made, applied and
 * deleted, and dirty bitmaps that record it, beside flat arrays. After each hundred steps the image
 * is judged, and everything is read.
 *
 * snapshots SEED STEPS [specimen ...]
 */
#include "base/ckd.h"
#include "base/memory.h"
#include "ops/ops.h"
#include "support/imagecheck.h"
#include "support/must.h"
#include "support/specimen.h"

enum { MAX_SNAPSHOTS = 6, BITMAPS = 2, ROOM = 48 << 20 };

struct flat {
    uint64_t size;
    uint8_t *bytes; /* NULL: there is no such snapshot */
};

/* A byte for each granule: whether it must be dirty, whether it may be. */
struct flat_bits {
    const char *name;
    unsigned granule;
    bool enabled;
    uint8_t *must, *may;
};

struct model {
    struct specimen specimen;
    struct platter_disk *disk;
    struct buffer file;
    struct prng prng;
    uint64_t max; /* bytes a disk has at most */
    struct flat now, snapshots[MAX_SNAPSHOTS];
    struct flat_bits bits[BITMAPS];
    unsigned n_bits; /* none in version 2 */
    uint8_t *scratch;
    uint32_t op;
};

static struct flat flat_copy(const struct model *m, const struct flat *f)
{
    struct flat copy = {.size = f->size, .bytes = malloc(m->max)};
    MUST(copy.bytes);
    memcpy(copy.bytes, f->bytes, f->size);
    return copy;
}

static void name_of(unsigned i, char name[8])
{
    snprintf(name, 8, "s%u", i);
}

/* ---- bitmaps ----------------------------------------------------------------------------------
 */

static void bits_touch(struct model *m, uint64_t off, uint64_t len, bool surely)
{
    for (unsigned k = 0; k < m->n_bits; k++) {
        struct flat_bits *b = &m->bits[k];
        uint64_t first = off / b->granule, n = div_up(off + len, b->granule) - first;
        if (!b->enabled || len == 0)
            continue;
        memset(b->may + first, 1, n);
        if (surely)
            memset(b->must + first, 1, n);
    }
}

static void bits_resize(struct model *m, uint64_t size)
{
    for (unsigned k = 0; k < m->n_bits; k++) {
        struct flat_bits *b = &m->bits[k];
        uint64_t old = div_up(m->now.size, b->granule), n = div_up(size, b->granule);
        if (n <= old)
            continue;
        memset(b->may + old, 0, n - old);
        memset(b->must + old, 0, n - old);
    }
}

static void bits_clear(const struct model *m, struct flat_bits *b)
{
    memset(b->may, 0, m->max / b->granule + 1);
    memset(b->must, 0, m->max / b->granule + 1);
}

static int change_bitmap(const struct model *m, const struct flat_bits *b,
                         enum platter_bitmap_action action, struct platter_error *err)
{
    const struct platter_bitmap_change c = {.size = sizeof c,
                                            .action = action,
                                            .name = b->name,
                                            .granularity =
                                                action == PLATTER_BITMAP_ADD ? b->granule : 0};
    return ops_bitmap_change(m->disk, &c, 1, err);
}

static int open_disk(struct model *m, struct platter_error *err)
{
    struct stream *top;
    MUST(stream_buffer_open(&m->file, "top", true, &top, NULL) == 0);
    return specimen_open(&m->specimen, top, true, &m->disk, err);
}

static int step_bitmap(struct model *m, struct platter_error *err)
{
    unsigned kind = (unsigned)prng_below(&m->prng, 8);
    struct flat_bits *b = &m->bits[prng_below(&m->prng, BITMAPS)];
    int r;
    if (kind >= 5 || m->n_bits == 0) { /* stored, and read again */
        r = disk_close(TAKE(m->disk), err);
        return r < 0 ? r : open_disk(m, err);
    }
    if (kind < 2) {
        b->enabled = !b->enabled;
        return change_bitmap(m, b, b->enabled ? PLATTER_BITMAP_ENABLE : PLATTER_BITMAP_DISABLE,
                             err);
    }
    bits_clear(m, b);
    if (kind < 4)
        return change_bitmap(m, b, PLATTER_BITMAP_CLEAR, err);
    b->enabled = true;
    r = change_bitmap(m, b, PLATTER_BITMAP_REMOVE, err);
    return r < 0 ? r : change_bitmap(m, b, PLATTER_BITMAP_ADD, err);
}

static int judge_bits(struct model *m, const struct flat_bits *b, struct platter_error *err)
{
    const struct bitmap_ops *ops = disk_top(m->disk)->format->bitmaps;
    uint64_t len;
    bool dirty;
    for (uint64_t off = 0; off < m->now.size; off += len) {
        int r = ops->map(disk_top(m->disk), b->name, off, m->now.size - off, &len, &dirty, err);
        if (r < 0)
            return r;
        uint64_t end = div_up(off + len, b->granule);
        for (uint64_t i = off / b->granule; i < end; i++)
            if (dirty ? !b->may[i] : b->must[i])
                return fail(err, EIO, "bitmap \"%s\": granule %llu is%s dirty", b->name,
                            (unsigned long long)i, dirty ? "" : " not");
    }
    return 0;
}

/* ---- steps ------------------------------------------------------------------------------------
 */

static int step_discard(struct model *m, uint64_t off, uint64_t n, struct platter_error *err)
{
    uint8_t *bytes = m->now.bytes + off;
    int r = disk_discard(m->disk, off, n, err);
    if (r == 0)
        r = disk_read(m->disk, m->scratch, n, off, err);
    bits_touch(m, off, n, false);
    for (uint64_t at = 0; r == 0 && at < n; at += SECTOR)
        if (memcmp(bytes + at, m->scratch + at, SECTOR) != 0)
            bits_touch(m, off + at, SECTOR, true);
    memcpy(bytes, m->scratch, n);
    return r;
}

static int step_write(struct model *m, struct platter_error *err)
{
    uint64_t all = m->now.size / SECTOR, first = prng_below(&m->prng, all);
    uint64_t n = min_u64(1 + prng_below(&m->prng, all / 16 + 2), all - first);
    uint8_t *bytes = m->now.bytes + first * SECTOR;
    unsigned kind = (unsigned)prng_below(&m->prng, 8);
    if (kind < 7)
        bits_touch(m, first * SECTOR, n * SECTOR, true);
    if (kind < 5) {
        ledger_stamp(bytes, ++m->op, first, n);
        return disk_write(m->disk, bytes, n * SECTOR, first * SECTOR, err);
    }
    if (kind < 7) {
        memset(bytes, 0, n * SECTOR);
        return disk_zero(m->disk, first * SECTOR, n * SECTOR, kind == 6, err);
    }
    return step_discard(m, first * SECTOR, n * SECTOR, err);
}

static int step_resize(struct model *m, struct platter_error *err)
{
    uint64_t size = (1 + prng_below(&m->prng, m->max / SECTOR)) * SECTOR;
    if (strstr(m->specimen.spec->name, "v2"))
        return 0;
    bits_resize(m, size);
    if (size > m->now.size)
        memset(m->now.bytes + m->now.size, 0, size - m->now.size);
    m->now.size = size;
    return disk_resize(m->disk, size, PLATTER_RESIZE_SHRINK, PLATTER_PREALLOCATION_OFF, NULL, err);
}

static int step_snapshot(struct model *m, struct platter_error *err)
{
    unsigned i = (unsigned)prng_below(&m->prng, MAX_SNAPSHOTS);
    struct flat *s = &m->snapshots[i];
    char name[8];
    name_of(i, name);
    if (!s->bytes) {
        struct snapshot_request request = {.name = name, .icount = UINT64_MAX};
        int r = disk_snapshot_create(m->disk, &request, NULL, err);
        free(request.ret_id);
        *s = flat_copy(m, &m->now);
        return r;
    }
    if (prng_chance(&m->prng, 50)) {
        bits_resize(m, s->size);
        bits_touch(m, 0, s->size, true);
        m->now.size = s->size;
        memcpy(m->now.bytes, s->bytes, s->size);
        return disk_snapshot_apply(m->disk, name, PLATTER_SNAPSHOT_BY_NAME, NULL, err);
    }
    free(TAKE(s->bytes));
    return disk_snapshot_delete(m->disk, name, PLATTER_SNAPSHOT_BY_NAME, NULL, err);
}

/* A unit that is stored compressed, if that is worth it. */
static int step_pack(struct model *m, struct platter_error *err)
{
    struct image *top = disk_top(m->disk);
    size_t unit = top->unit, len;
    goff off = prng_below(&m->prng, div_up(m->now.size, unit)) * unit;
    auto_free uint8_t *packed = malloc(unit);
    struct disk_write w;
    MUST(packed);
    if (off + unit > m->now.size)
        return 0;
    memset(m->scratch, (int)++m->op, unit);
    for (uint64_t i = prng_below(&m->prng, unit); i-- > 0;)
        m->scratch[i] = (uint8_t)prng_below(&m->prng, 256);
    int r = top->format->pack(top, m->scratch, packed, unit, &len, err);
    if (r < 0)
        return r == -E2BIG ? 0 : r;
    bits_touch(m, off, unit, true);
    memcpy(m->now.bytes + off, m->scratch, unit);
    r = disk_write_packed_begin(m->disk, off, len, &w, err);
    int e = disk_write_packed_end(&w, r < 0 ? NULL : packed, len, r < 0 ? NULL : err);
    return r < 0 ? r : e;
}

/* Where that moved nothing in, there is nothing to win any more. */
static int step_compact(struct model *m, struct platter_error *err)
{
    struct compact_request request = {.zeros = prng_chance(&m->prng, 50)},
                           again = {.dry_run = true};
    int r = disk_close(TAKE(m->disk), err); /* bitmaps are stored first */
    if (r == 0)
        r = open_disk(m, err);
    if (r == 0)
        r = disk_compact(m->disk, &request, err);
    if (r == 0)
        r = disk_compact(m->disk, &again, err);
    if (r == 0 && again.result.new_size < again.result.file_size && !m->specimen.spec->packed)
        return fail(err, EIO, "it was compacted, and %llu of %llu bytes can still be won",
                    (unsigned long long)(again.result.file_size - again.result.new_size),
                    (unsigned long long)again.result.file_size);
    return r;
}

static bool reads(struct model *m, struct platter_disk *disk, const struct flat *want)
{
    return disk_size(disk) == want->size && disk_read(disk, m->scratch, want->size, 0, NULL) == 0 &&
           memcmp(m->scratch, want->bytes, want->size) == 0;
}

/* Everything is what it must be, to the last reference. */
static int judge(struct model *m, struct platter_error *err)
{
    struct image_report report;
    char name[8];
    int r = disk_flush(m->disk, err);
    if (r < 0)
        return r;
    image_check("qcow2", m->file.bytes, m->file.size, &report);
    if (report.errors || report.leaks)
        return fail(err, EIO, "%llu errors, %llu leaks: %s", (unsigned long long)report.errors,
                    (unsigned long long)report.leaks, report.first);
    if (!reads(m, m->disk, &m->now))
        return fail(err, EIO, "the disk has other content");
    for (unsigned i = 0; i < m->n_bits && r == 0; i++)
        r = judge_bits(m, &m->bits[i], err);
    for (unsigned i = 0; i < MAX_SNAPSHOTS && r == 0; i++) {
        struct disk_view view;
        name_of(i, name);
        if (!m->snapshots[i].bytes)
            continue;
        r = disk_view_open(m->disk, name, &view, err);
        if (r < 0)
            return r;
        if (!reads(m, view.disk, &m->snapshots[i]))
            r = fail(err, EIO, "snapshot %s has other content", name);
        disk_view_close(&view);
    }
    return r;
}

static int step(struct model *m, unsigned number, struct platter_error *err)
{
    uint64_t dice = prng_below(&m->prng, 100);
    int r = dice < 80   ? step_write(m, err)
            : dice < 88 ? step_pack(m, err)
            : dice < 91 ? step_resize(m, err)
            : dice < 93 ? step_bitmap(m, err)
            : dice < 94 ? step_compact(m, err)
                        : step_snapshot(m, err);
    return r == 0 && number % 100 == 99 ? judge(m, err) : r;
}

static int add_bitmaps(struct model *m, struct platter_error *err)
{
    static const unsigned granules[BITMAPS] = {512, 65536};
    static const char *const names[BITMAPS] = {"fine", "coarse"};
    int r = 0;
    if (strstr(m->specimen.spec->name, "v2"))
        return 0;
    for (; r == 0 && m->n_bits < BITMAPS; m->n_bits++) {
        struct flat_bits *b = &m->bits[m->n_bits];
        *b = (struct flat_bits){
            .name = names[m->n_bits], .granule = granules[m->n_bits], .enabled = true};
        b->must = calloc(1, m->max / b->granule + 1);
        b->may = calloc(1, m->max / b->granule + 1);
        MUST(b->must && b->may);
        r = change_bitmap(m, b, PLATTER_BITMAP_ADD, err);
    }
    return r;
}

static int run(const struct specimen_spec *spec, uint64_t seed, unsigned steps)
{
    struct model m = {.specimen = specimen_make(spec), .prng = {seed}, .max = spec->size * 2};
    struct platter_error err = {0};
    m.file = buffer_copy(&m.specimen.top, m.specimen.top.size + ROOM);
    m.scratch = malloc(m.max);
    m.now = (struct flat){.size = spec->size, .bytes = malloc(m.max)};
    MUST(m.scratch && m.now.bytes);
    memcpy(m.now.bytes, m.specimen.content, spec->size);
    int r = open_disk(&m, &err);
    MUST(r == 0);
    r = add_bitmaps(&m, &err);
    unsigned i = 0;
    for (; r == 0 && i < steps; i++)
        r = step(&m, i, &err);
    printf("%-28s seed %llu: %u steps%s%s\n", spec->name, (unsigned long long)seed, i,
           r ? ": FAILED: " : "", r ? err.message : "");
    fflush(stdout);
    disk_close(m.disk, NULL);
    for (i = 0; i < MAX_SNAPSHOTS; i++)
        free(m.snapshots[i].bytes);
    for (i = 0; i < m.n_bits; i++) {
        free(m.bits[i].must);
        free(m.bits[i].may);
    }
    free(m.now.bytes);
    free(m.scratch);
    buffer_free(&m.file);
    specimen_free(&m.specimen);
    return r;
}

static bool wanted(const char *name, int argc, char **argv)
{
    for (int i = 3; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc < 4;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    unsigned steps = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 1000, failed = 0, ran = 0;
    for (const struct specimen_spec *spec = specimens; spec->name; spec++) {
        /* Counts of 8 bits or more: for all snapshots, and one more while one is applied. */
        if (strcmp(spec->format, "qcow2") != 0 || spec->device || strstr(spec->options, "bits=1") ||
            strstr(spec->options, "bits=2") || !wanted(spec->name, argc, argv))
            continue;
        failed += run(spec, seed, steps) != 0;
        ran++;
    }
    return failed > 0 || ran == 0;
}
