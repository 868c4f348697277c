/* SPDX-License-Identifier: MIT */
/* Changes of snapshots, and what may become of them: snapshots.h. Sections are those of qcow2.md.
 */
#include "support/snapshots.h"

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/memory.h"
#include "support/imagecheck.h"
#include "support/must.h"

enum { SPARE = 4 << 20, SPARE_LATER = 2 << 20 };

const char *const change_names[CHANGES] = {"create", "apply", "delete", "compact", "uncover"};

/* ---- reading without the library --------------------------------------------------------------
 */

/* Makes a copy show a snapshot as the disk: false if there is none of that name (section 9.1). */
static bool show_snapshot(struct buffer *b, const char *name)
{
    uint64_t at = get_be(b->bytes + 64, 8), start = at;
    for (uint64_t n = get_be(b->bytes + 60, 4); n > 0; n--) {
        const uint8_t *entry = b->bytes + at;
        uint64_t id = get_be(entry + 12, 2), len = get_be(entry + 14, 2);
        uint64_t extra = get_be(entry + 36, 4);
        if (len == strlen(name) && memcmp(entry + 40 + extra + id, name, len) == 0) {
            put_be(b->bytes + 24, 8, get_be(entry + 48, 8));
            put_be(b->bytes + 36, 4, get_be(entry + 8, 4));
            put_be(b->bytes + 40, 8, get_be(entry, 8));
            return true;
        }
        at = start + round_up(at - start + 40 + extra + id + len, 8);
    }
    return false;
}

static struct disk_content content_new(uint64_t size)
{
    struct disk_content c = {.size = size, .bytes = calloc(1, size)};
    MUST(c.bytes);
    return c;
}

static struct disk_content content_copy(const struct disk_content *of)
{
    struct disk_content c = content_new(of->size);
    memcpy(c.bytes, of->bytes, of->size);
    return c;
}

/* 1: there is such a snapshot (NULL: the disk), and *ret its content, in c->scratch; 0: there is
 * none. */
static int read_view(const struct snapshot_case *c, struct buffer *image, const char *name,
                     struct disk_content *ret, struct platter_error *err)
{
    struct platter_disk *disk;
    struct stream *top;
    uint8_t header[72];
    memcpy(header, image->bytes, sizeof header);
    if (name && !show_snapshot(image, name))
        return 0;
    MUST(stream_buffer_open(image, "top", false, &top, NULL) == 0);
    int r = specimen_open(&c->specimen, top, false, &disk, err);
    if (r == 0) {
        *ret = (struct disk_content){.size = disk_size(disk), .bytes = c->scratch};
        r = disk_read(disk, ret->bytes, ret->size, 0, err);
        disk_close(disk, NULL);
    }
    memcpy(image->bytes, header, sizeof header);
    return r < 0 ? r : 1;
}

static bool same(const struct disk_content *a, const struct disk_content *b)
{
    return a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0;
}

/* Each sector is that of one or of the other. */
static bool mixed(const struct disk_content *of, const struct disk_content *a,
                  const struct disk_content *b)
{
    for (uint64_t at = 0; at < of->size; at += SECTOR)
        if (memcmp(of->bytes + at, a->bytes + at, SECTOR) != 0 &&
            memcmp(of->bytes + at, b->bytes + at, SECTOR) != 0)
            return false;
    return of->size == a->size;
}

/* ---- the change --------------------------------------------------------------------------------
 */

static void stamp(struct platter_disk *disk, uint32_t op, uint64_t first, uint64_t n)
{
    uint64_t end = min_u64((first + n) * SECTOR, disk_size(disk)) / SECTOR;
    auto_free uint8_t *data = malloc(n * SECTOR);
    MUST(data && first < end);
    ledger_stamp(data, op, first, end - first);
    MUST(disk_write(disk, data, (end - first) * SECTOR, first * SECTOR, NULL) == 0);
}

/* What a guest does between two snapshots, as `op` in all stamps. */
static void work(const struct snapshot_case *c, struct platter_disk *disk, uint32_t op)
{
    uint64_t cluster = max_u64(c->specimen.cluster / SECTOR, 1), all = disk_size(disk) / SECTOR;
    stamp(disk, op, op * 7 % all, 3 * cluster + 1);
    for (uint64_t at = op * cluster; at < all; at += all / 9)
        stamp(disk, op, at, 1 + at % (2 * cluster));
    MUST(disk_zero(disk, all / 3 / cluster * cluster * SECTOR, 2 * cluster * SECTOR, op % 2,
                   NULL) == 0);
    MUST(disk_discard(disk, all / 2 / cluster * cluster * SECTOR, op * cluster * SECTOR, NULL) ==
         0);
}

/* Compressed clusters behind each other, in every ninth place, of sizes that differ. */
static void pack(struct platter_disk *disk, uint32_t op)
{
    struct image *top = disk_top(disk);
    size_t unit = top->unit, len;
    auto_free uint8_t *bytes = malloc(unit), *packed = malloc(unit);
    struct prng noise = {op};
    MUST(bytes && packed);
    for (goff off = op * unit; off + unit <= disk_size(disk); off += 9 * unit) {
        struct disk_write w;
        memset(bytes, (int)op, unit);
        for (size_t i = 0; i < off / unit % 7 * unit / 8; i++)
            bytes[i] = (uint8_t)prng_below(&noise, 256);
        if (top->format->pack(top, bytes, packed, unit, &len, NULL) < 0)
            return; /* too small to be worth it */
        MUST(disk_write_packed_begin(disk, off, len, &w, NULL) == 0);
        MUST(disk_write_packed_end(&w, packed, len, NULL) == 0);
    }
}

static int make_snapshot(struct platter_disk *disk, const char *name, struct platter_error *err)
{
    struct snapshot_request request = {
        .name = name, .unique = true, .date_sec = 1, .icount = UINT64_MAX};
    int r = disk_snapshot_create(disk, &request, NULL, err);
    free(request.ret_id);
    return r;
}

/* The parts that are given up, out to whole clusters: of what is stored, what is not, and the end.
 */
static bool uncovered(uint64_t size, unsigned i, goff *ret_off, uint64_t *ret_len)
{
    const uint64_t ninth = size / SECTOR / 9;
    const uint64_t parts[][2] = {
        {1, 3}, {ninth, ninth + 1}, {3 * ninth + 1, 2 * ninth}, {size / SECTOR - 3, 3}};
    if (i >= sizeof parts / sizeof *parts)
        return false;
    *ret_off = parts[i][0] * SECTOR;
    *ret_len = parts[i][1] * SECTOR;
    return true;
}

static int uncover(struct platter_disk *disk, struct platter_error *err)
{
    uint64_t len;
    goff off;
    int r = 0;
    for (unsigned i = 0; r == 0 && uncovered(disk_size(disk), i, &off, &len); i++)
        r = disk_uncover(disk, off, len, err);
    return r == 0 ? disk_flush(disk, err) : r;
}

static int change(const struct snapshot_case *c, struct platter_disk *disk,
                  struct platter_error *err)
{
    switch (c->change) {
    case CHANGE_CREATE:
        return make_snapshot(disk, "third", err);
    case CHANGE_APPLY:
        return disk_snapshot_apply(disk, "first", 0, NULL, err);
    case CHANGE_DELETE:
        return disk_snapshot_delete(disk, "first", 0, NULL, err);
    case CHANGE_COMPACT:
        return disk_compact(disk, &(struct compact_request){0}, err);
    case CHANGE_UNCOVER:
        return uncover(disk, err);
    case CHANGES:
        break;
    }
    return -EINVAL;
}

/* Writes that follow: into what is shared now, and what no longer is. */
static int write_after(const struct snapshot_case *c, struct platter_disk *disk,
                       struct platter_error *err)
{
    uint64_t all = disk_size(disk) / SECTOR, cluster = max_u64(c->specimen.cluster / SECTOR, 1);
    uint8_t data[SECTOR];
    int r = 0;
    for (uint64_t at = 1; r == 0 && at < all; at += max_u64(all / 11, cluster)) {
        ledger_stamp(data, 99, at, 1);
        r = disk_write(disk, data, SECTOR, at * SECTOR, err);
    }
    return r;
}

int snapshot_case_run(const struct snapshot_case *c, struct stream *top, void (*done)(void *opaque),
                      void *opaque, struct platter_error *err)
{
    struct platter_disk *disk;
    int r = specimen_open(&c->specimen, top, true, &disk, err);
    if (r < 0)
        return r;
    r = change(c, disk, err);
    if (r == 0 && done)
        done(opaque);
    if (r == 0)
        r = write_after(c, disk, err);
    int e = disk_close(disk, r < 0 ? NULL : err);
    return r < 0 ? r : e;
}

/* ---- cases -------------------------------------------------------------------------------------
 */

/* Two snapshots with work around them, and another size of the disk since the first. For a
 * compaction there was one more that held all that stands in front. */
static bool prepare(struct snapshot_case *c)
{
    struct platter_error err = {0};
    struct platter_disk *disk;
    struct stream *top;
    uint64_t size = c->specimen.spec->size;
    MUST(stream_buffer_open(&c->before, "top", true, &top, NULL) == 0);
    MUST(specimen_open(&c->specimen, top, true, &disk, &err) == 0);
    bool holes = c->change == CHANGE_COMPACT;
    int r = 0;
    if (holes) {
        stamp(disk, 5, 0, size / SECTOR);
        r = make_snapshot(disk, "gone", &err);
    }
    if (holes && r == 0) {
        stamp(disk, 6, 0, size / SECTOR / 2);
        pack(disk, 7);
    }
    if (r == 0)
        work(c, disk, 1);
    if (r == 0)
        r = make_snapshot(disk, "first", &err);
    if (r == -EOVERFLOW) { /* one reference is all that its counts can hold */
        disk_close(disk, NULL);
        return false;
    }
    MUST(r == 0);
    if (!strstr(c->specimen.spec->name, "v2"))
        MUST(disk_resize(disk, size / 2 * 3, 0, PLATTER_PREALLOCATION_OFF, NULL, &err) == 0);
    work(c, disk, 2);
    r = make_snapshot(disk, "second", &err);
    if (r == -EOVERFLOW && holes) {
        disk_close(disk, NULL);
        return false;
    }
    MUST(r == 0);
    work(c, disk, 3);
    if (holes)
        pack(disk, 8);
    if (holes)
        MUST(disk_snapshot_delete(disk, "gone", 0, NULL, &err) == 0);
    MUST(disk_close(disk, &err) == 0);
    return true;
}

static void must_read(const struct snapshot_case *c, struct buffer *image, const char *name,
                      struct disk_content *ret)
{
    struct platter_error err = {0};
    struct disk_content content;
    int r = read_view(c, image, name, &content, &err);
    if (r != 1)
        fprintf(stderr, "%s: %s: %s\n", c->specimen.spec->name, name ? name : "the disk",
                err.message);
    MUST(r == 1);
    *ret = content_copy(&content);
}

/* What the images below have is to be seen instead, and zeros behind their end. */
static void show_below(struct snapshot_case *c)
{
    struct platter_disk *disk, *below = NULL;
    struct stream *top;
    uint64_t len, size = c->changed.size;
    goff off;
    MUST(stream_buffer_open(&c->before, "top", false, &top, NULL) == 0);
    MUST(specimen_open(&c->specimen, top, false, &disk, NULL) == 0);
    if (disk->depth > 1)
        MUST(disk_borrow(disk, 1, disk->depth - 1, &below, NULL) == 0);
    for (unsigned i = 0; uncovered(size, i, &off, &len); i++) {
        goff end = min_u64(round_up(off + len, disk_top(disk)->unit), size);
        off = round_down(off, disk_top(disk)->unit);
        memset(c->changed.bytes + off, 0, end - off);
        uint64_t there = below ? min_u64(end, disk_size(below)) : 0;
        if (off < there)
            MUST(disk_read(below, c->changed.bytes + off, there - off, off, NULL) == 0);
    }
    disk_close(below, NULL);
    disk_close(disk, NULL);
}

/* What the disk is when the change is done, and when all is. */
static void find_after(struct snapshot_case *c)
{
    c->changed = content_copy(c->change == CHANGE_APPLY ? &c->first : &c->now);
    if (c->change == CHANGE_UNCOVER)
        show_below(c);
    const struct disk_content *is = &c->changed;
    uint64_t all = is->size / SECTOR, cluster = max_u64(c->specimen.cluster / SECTOR, 1);
    c->after = content_copy(is);
    for (uint64_t at = 1; at < all; at += max_u64(all / 11, cluster))
        ledger_stamp(c->after.bytes + at * SECTOR, 99, at, 1);
}

bool snapshot_case_make(const struct specimen_spec *spec, enum change change,
                        struct snapshot_case *ret)
{
    struct image_report report;
    *ret = (struct snapshot_case){.specimen = specimen_make(spec), .change = change};
    /* Counts of 2 bits: the disk, two snapshots, and none for a moment more. */
    ret->overflows = change < CHANGE_DELETE && strstr(spec->options, "refcount_bits=2");
    ret->scratch = malloc(spec->size * 2);
    MUST(ret->scratch);
    ret->before = buffer_copy(&ret->specimen.top, ret->specimen.top.size + SPARE);
    if (!prepare(ret)) {
        snapshot_case_free(ret);
        return false;
    }
    image_check("qcow2", ret->before.bytes, ret->before.size, &report);
    if (report.errors)
        fprintf(stderr, "%s, made ready: %s\n", spec->name, report.first);
    MUST(report.errors == 0);
    ret->leaks = report.leaks;
    must_read(ret, &ret->before, NULL, &ret->now);
    must_read(ret, &ret->before, "first", &ret->first);
    must_read(ret, &ret->before, "second", &ret->second);
    find_after(ret);
    return true;
}

void snapshot_case_free(struct snapshot_case *c)
{
    free(TAKE(c->now.bytes));
    free(TAKE(c->first.bytes));
    free(TAKE(c->second.bytes));
    free(TAKE(c->changed.bytes));
    free(TAKE(c->after.bytes));
    free(TAKE(c->scratch));
    buffer_free(&c->before);
    specimen_free(&c->specimen);
}

/* ---- judging ----------------------------------------------------------------------------------
 */

enum presence { ABSENT, MAYBE, PRESENT };

/* Whether a snapshot is there as it must be, with the content it must have. */
static bool judge_view(const struct snapshot_case *c, struct buffer *image, const char *name,
                       enum presence presence, const struct disk_content *want, char *why,
                       size_t why_size)
{
    struct platter_error err = {0};
    struct disk_content content = {0};
    int r = read_view(c, image, name, &content, &err);
    const char *wrong = r < 0                             ? err.message
                        : r == 0 && presence == PRESENT   ? "is gone"
                        : r == 1 && presence == ABSENT    ? "is still there"
                        : r == 1 && !same(&content, want) ? "has other content"
                                                          : NULL;
    if (wrong)
        snprintf(why, why_size, "snapshot \"%s\": %s", name, wrong);
    return !wrong;
}

static bool judge_disk(const struct snapshot_case *c, struct buffer *image, enum change_stage stage,
                       char *why, size_t why_size)
{
    struct platter_error err = {0};
    struct disk_content is = {0};
    bool good = read_view(c, image, NULL, &is, &err) == 1;
    if (good && stage == CHANGE_BEGUN)
        good = same(&is, &c->now) || mixed(&is, &c->changed, &c->after) ||
               (c->change == CHANGE_UNCOVER && mixed(&is, &c->now, &c->changed));
    else if (good && stage == CHANGE_DONE)
        good = mixed(&is, &c->changed, &c->after);
    else if (good)
        good = same(&is, stage == CHANGE_CLOSED ? &c->after : &c->now);
    if (!good)
        snprintf(why, why_size, "the disk: %s", err.code ? err.message : "has other content");
    return good;
}

/* Whether the refcount table ends with the cluster that its last entry stands in (section 6). */
static bool table_is_short(const struct snapshot_case *c, const struct buffer *image)
{
    uint64_t at = get_be(image->bytes + 48, 8), n = get_be(image->bytes + 56, 4), last = 0;
    for (uint64_t i = 0; i < n * c->specimen.cluster / 8; i++)
        last = get_be(image->bytes + at + i * 8, 8) ? i : last;
    return n == last * 8 / c->specimen.cluster + 1;
}

bool snapshot_case_judge(const struct snapshot_case *c, struct buffer *image,
                         enum change_stage stage, char *why, size_t why_size)
{
    struct image_report report;
    enum presence done = stage == CHANGE_BEGUN ? MAYBE : stage == CHANGE_REFUSED ? ABSENT : PRESENT;
    enum presence third = c->change == CHANGE_CREATE ? done : ABSENT;
    enum presence first = c->change != CHANGE_DELETE ? PRESENT
                          : done == MAYBE            ? MAYBE
                          : done == ABSENT           ? PRESENT
                                                     : ABSENT;
    image_check("qcow2", image->bytes, image->size, &report);
    bool whole = stage == CHANGE_CLOSED || stage == CHANGE_REFUSED;
    if (report.errors > (whole ? 0 : report.overcounted) || (whole && report.leaks > c->leaks)) {
        snprintf(why, why_size, "%llu leaks; %s", (unsigned long long)report.leaks, report.first);
        return false;
    }
    if (stage == CHANGE_CLOSED && c->change == CHANGE_COMPACT && !table_is_short(c, image)) {
        snprintf(why, why_size, "the refcount table is longer than what it names");
        return false;
    }
    return judge_view(c, image, "first", first, &c->first, why, why_size) &&
           judge_view(c, image, "second", PRESENT, &c->second, why, why_size) &&
           judge_view(c, image, "third", third, &c->now, why, why_size) &&
           judge_disk(c, image, stage, why, why_size);
}

bool snapshot_case_go_on(const struct snapshot_case *c, const struct buffer *image, char *why,
                         size_t why_size)
{
    struct buffer b = buffer_copy(image, image->size + SPARE_LATER);
    struct platter_error err = {0};
    struct image_report report = {0};
    struct platter_disk *disk;
    struct stream *top;
    MUST(stream_buffer_open(&b, "top", true, &top, NULL) == 0);
    int r = specimen_open(&c->specimen, top, true, &disk, &err);
    if (r == 0) {
        r = disk_snapshot_delete(disk, "first", 0, NULL, &err);
        if (r == 0 || r == -ENOENT)
            r = write_after(c, disk, &err);
        if (r == 0)
            r = disk_snapshot_apply(disk, "second", 0, NULL, &err);
        if (r == -EOVERFLOW && strstr(c->specimen.spec->options, "refcount_bits=2"))
            r = 0; /* where "first" is still there */
        if (r == 0)
            r = write_after(c, disk, &err);
        int e = disk_close(disk, r < 0 ? NULL : &err);
        r = r < 0 ? r : e;
    }
    if (r == 0)
        image_check("qcow2", b.bytes, b.size, &report);
    bool good = r == 0 && report.errors <= report.overcounted;
    if (!good)
        snprintf(why, why_size, "going on: %s", r ? err.message : report.first);
    good = good && judge_view(c, &b, "second", PRESENT, &c->second, why, why_size);
    buffer_free(&b);
    return good;
}

static bool wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc < 2;
}

int snapshot_case_main(int argc, char **argv,
                       int (*run_case)(const struct specimen_spec *spec, enum change change))
{
    unsigned failed = 0, ran = 0;
    for (const struct specimen_spec *spec = specimens; spec->name; spec++) {
        if (strcmp(spec->format, "qcow2") != 0 || !wanted(spec->name, argc, argv))
            continue;
        for (enum change change = 0; change < CHANGES; change++, ran++)
            failed += run_case(spec, change) != 0;
    }
    return failed > 0 || ran == 0;
}
