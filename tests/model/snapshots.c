/* SPDX-License-Identifier: MIT */
/*
 * Random writes, zeros, discards, resizes, and snapshots that are made, applied and deleted, beside
 * flat arrays. After each hundred steps the image is judged, and everything is read.
 *
 * snapshots SEED STEPS [specimen ...]
 */
#include "base/ckd.h"
#include "base/memory.h"
#include "support/imagecheck.h"
#include "support/must.h"
#include "support/specimen.h"

enum { MAX_SNAPSHOTS = 6, ROOM = 48 << 20 };

struct flat {
    uint64_t size;
    uint8_t *bytes; /* NULL: there is no such snapshot */
};

struct model {
    struct specimen specimen;
    struct platter_disk *disk;
    struct buffer file;
    struct prng prng;
    uint64_t max; /* bytes a disk has at most */
    struct flat now, snapshots[MAX_SNAPSHOTS];
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

static int step_write(struct model *m, struct platter_error *err)
{
    uint64_t all = m->now.size / SECTOR, first = prng_below(&m->prng, all);
    uint64_t n = min_u64(1 + prng_below(&m->prng, all / 16 + 2), all - first);
    uint8_t *bytes = m->now.bytes + first * SECTOR;
    unsigned kind = (unsigned)prng_below(&m->prng, 8);
    if (kind < 5) {
        ledger_stamp(bytes, ++m->op, first, n);
        return disk_write(m->disk, bytes, n * SECTOR, first * SECTOR, err);
    }
    if (kind < 7) {
        memset(bytes, 0, n * SECTOR);
        return disk_zero(m->disk, first * SECTOR, n * SECTOR, kind == 6, err);
    }
    int r = disk_discard(m->disk, first * SECTOR, n * SECTOR, err);
    return r < 0 ? r : disk_read(m->disk, bytes, n * SECTOR, first * SECTOR, err);
}

static int step_resize(struct model *m, struct platter_error *err)
{
    uint64_t size = (1 + prng_below(&m->prng, m->max / SECTOR)) * SECTOR;
    if (strstr(m->specimen.spec->name, "v2"))
        return 0;
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
        m->now.size = s->size;
        memcpy(m->now.bytes, s->bytes, s->size);
        return disk_snapshot_apply(m->disk, name, PLATTER_SNAPSHOT_BY_NAME, NULL, err);
    }
    free(TAKE(s->bytes));
    return disk_snapshot_delete(m->disk, name, PLATTER_SNAPSHOT_BY_NAME, NULL, err);
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
    int r = dice < 90   ? step_write(m, err)
            : dice < 93 ? step_resize(m, err)
                        : step_snapshot(m, err);
    return r == 0 && number % 100 == 99 ? judge(m, err) : r;
}

static int run(const struct specimen_spec *spec, uint64_t seed, unsigned steps)
{
    struct model m = {.specimen = specimen_make(spec), .prng = {seed}, .max = spec->size * 2};
    struct platter_error err = {0};
    struct stream *top;
    m.file = buffer_copy(&m.specimen.top, m.specimen.top.size + ROOM);
    m.scratch = malloc(m.max);
    m.now = (struct flat){.size = spec->size, .bytes = malloc(m.max)};
    MUST(m.scratch && m.now.bytes);
    memcpy(m.now.bytes, m.specimen.content, spec->size);
    MUST(stream_buffer_open(&m.file, "top", true, &top, NULL) == 0);
    int r = specimen_open(&m.specimen, top, true, &m.disk, &err);
    MUST(r == 0);
    unsigned i = 0;
    for (; r == 0 && i < steps; i++)
        r = step(&m, i, &err);
    printf("%-28s seed %llu: %u steps%s%s\n", spec->name, (unsigned long long)seed, i,
           r ? ": FAILED: " : "", r ? err.message : "");
    fflush(stdout);
    disk_close(m.disk, NULL);
    for (i = 0; i < MAX_SNAPSHOTS; i++)
        free(m.snapshots[i].bytes);
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
