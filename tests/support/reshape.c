/* SPDX-License-Identifier: MIT */
/* Cases of resize, commit and rebase: reshape.h. Images are laid out after vmdk.md section 4.5. */
#include "support/reshape.h"

#include <inttypes.h>

#include "base/cursor.h"
#include "ops/ops.h"
#include "support/ledger.h"
#include "support/must.h"

enum {
    GRAIN = 8,         /* sectors, and 128 entries a table: a directory's sector is for 64 MiB */
    PIECE_GRAIN = 128, /* sectors, as new pieces have */
    GTES = 128,
    GT_SECTORS = 1,
    PIECE = RESHAPE_PIECE,
    SPARE = 4 << 20 /* room for a file to grow */
};

static const struct format *format = &format_vmdk; /* of the case at hand */

static const char *const names[RESHAPE_FILES] = {
    "child.vmdk",      "base.vmdk",       "other.vmdk",     "child-s001.vmdk",
    "child-s002.vmdk", "child-s003.vmdk", "child-s004.vmdk"};

/* ---- laying images out ----------------------------------------------------------------------- */

static void put_directory(uint8_t *image, uint64_t sector, uint64_t tables, uint64_t gd_sectors)
{
    for (uint64_t i = 0; i < tables; i++)
        put_le(image + sector * SECTOR + i * 4, 4, sector + gd_sectors + i * GT_SECTORS);
}

/* An empty sparse file; `text` goes where a descriptor stands. */
static struct buffer sparse_file(uint64_t sectors, uint64_t grain, bool zeroed, const char *text)
{
    uint64_t tables = (sectors + grain * GTES - 1) / (grain * GTES);
    uint64_t gd_sectors = (tables * 4 + SECTOR - 1) / SECTOR, rgd = 21;
    uint64_t gd = rgd + gd_sectors + tables * GT_SECTORS;
    uint64_t end = (2 * gd - rgd + grain - 1) / grain * grain;
    struct buffer b = buffer_new(end * SECTOR + sectors * SECTOR + SPARE);
    b.size = end * SECTOR;
    memcpy(b.bytes, "KDMV", 4);
    const struct {
        unsigned at, bytes;
        uint64_t value;
    } fields[] = {{4, 4, zeroed ? 2 : 1},
                  {8, 4, zeroed ? 7 : 3},
                  {12, 8, sectors},
                  {20, 8, grain},
                  {28, 8, 1},
                  {36, 8, 20},
                  {44, 4, GTES},
                  {48, 8, rgd},
                  {56, 8, gd},
                  {64, 8, end},
                  {73, 4, 0x0a0d200a}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        put_le(b.bytes + fields[i].at, fields[i].bytes, fields[i].value);
    put_directory(b.bytes, rgd, tables, gd_sectors);
    put_directory(b.bytes, gd, tables, gd_sectors);
    if (text)
        memcpy(b.bytes + SECTOR, text, strlen(text));
    return b;
}

/* The text of a descriptor; `lines` are those of its extents. */
static char *descriptor(const char *type, uint32_t cid, const char *parent, uint32_t parent_cid,
                        const char *lines)
{
    char *text = string_format("# Disk DescriptorFile\nversion=1\nCID=%08" PRIx32
                               "\nparentCID=%08" PRIx32 "\ncreateType=\"%s\"\n%s%s%s\n"
                               "# Extent description\n%s\n# The Disk Data Base\n#DDB\n\n"
                               "ddb.adapterType = \"ide\"\n",
                               cid, parent_cid, type, parent ? "parentFileNameHint=\"" : "",
                               parent ? parent : "", parent ? "\"\n" : "", lines);
    MUST(text);
    return text;
}

static struct buffer whole_image(enum reshape_file file, uint64_t sectors, bool zeroed,
                                 uint32_t cid, const char *parent, uint32_t parent_cid)
{
    auto_free char *line = string_format("RW %" PRIu64 " SPARSE \"%s\"\n", sectors, names[file]);
    auto_free char *text = descriptor("monolithicSparse", cid, parent, parent_cid, line);
    return sparse_file(sectors, GRAIN, zeroed, text);
}

/* Pieces of one size, the last one shorter. */
static void make_pieces(struct reshape *r, const char *parent, uint32_t parent_cid)
{
    const struct reshape_case *of = r->of;
    auto_free char *lines = string_copy("");
    uint64_t left = of->size;
    for (unsigned i = FILE_FIRST; left > 0; i++) {
        uint64_t n = left > PIECE && of->split ? PIECE : left;
        char *more = string_format("%sRW %" PRIu64 " %s \"%s\"%s\n", lines, n,
                                   of->flat ? "FLAT" : "SPARSE", names[i], of->flat ? " 0" : "");
        MUST(more);
        free(lines);
        lines = more;
        r->files[i] =
            of->flat ? buffer_new(n * SECTOR) : sparse_file(n, PIECE_GRAIN, of->zeroed, NULL);
        r->files[i].size = of->flat ? n * SECTOR : r->files[i].size;
        left -= n;
    }
    const char *type = !of->split ? "monolithicFlat"
                       : of->flat ? "twoGbMaxExtentFlat"
                                  : "twoGbMaxExtentSparse";
    auto_free char *text = descriptor(type, 0xc411d, parent, parent_cid, lines);
    r->files[FILE_CHILD] = buffer_new(16 << 10);
    r->files[FILE_CHILD].size = strlen(text);
    memcpy(r->files[FILE_CHILD].bytes, text, strlen(text));
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Gives the child its extents, and new ones. */
struct yard {
    struct name_opener opener;
    struct file_maker maker;
    struct reshape_place *place;
    struct stream *made[RESHAPE_FILES];
};

static int file_of(const char *name)
{
    for (int i = 0; i < RESHAPE_FILES; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

static int open_file(struct reshape_place *place, enum reshape_file file, bool writable,
                     struct stream **ret, struct platter_error *err)
{
    int r = stream_buffer_open(&place->files[file], names[file], writable, ret, err);
    return r < 0 || !place->wrap ? r : place->wrap(place, file, *ret, ret, err);
}

static int open_named(const struct name_opener *opener, const struct image *img, const char *name,
                      enum platter_name_kind kind, bool writable, struct stream **ret,
                      struct platter_error *err)
{
    (void)img, (void)kind;
    struct reshape_place *place = container_of(opener, struct yard, opener)->place;
    int file = file_of(name);
    if (file < 0 || !place->there[file])
        return fail(err, ENOENT, "there is no %s", name);
    return open_file(place, (enum reshape_file)file, writable, ret, err);
}

static int make_named(const struct file_maker *maker, const char *name, struct stream **ret,
                      struct platter_error *err)
{
    struct yard *yard = container_of(maker, struct yard, maker);
    int file = file_of(name);
    if (file < 0 || yard->place->there[file])
        return fail(err, EEXIST, "%s exists already", name);
    yard->place->files[file].size = 0;
    int r = open_file(yard->place, (enum reshape_file)file, true, ret, err);
    yard->made[file] = r < 0 ? NULL : *ret;
    return r;
}

static int publish(const struct file_maker *maker, struct platter_error *err)
{
    struct yard *yard = container_of(maker, struct yard, maker);
    int r = 0;
    for (int i = 0; i < RESHAPE_FILES && r == 0; i++) {
        if (!yard->made[i])
            continue;
        r = stream_publish(yard->made[i], true, err);
        yard->place->there[i] |= r == 0;
        if (r == 0 && yard->place->published)
            yard->place->published(yard->place, (enum reshape_file)i);
    }
    return r;
}

static void leave(struct yard *yard, bool failed, bool poisoned)
{
    for (int i = 0; i < RESHAPE_FILES; i++) {
        if (!yard->made[i])
            continue;
        if (failed && !poisoned)
            yard->place->there[i] = false;
        stream_close(yard->made[i]);
    }
}

static int open_image(struct yard *yard, enum reshape_file file, bool writable,
                      struct platter_disk **ret, struct platter_error *err)
{
    struct stream *s;
    int r = open_file(yard->place, file, writable, &s, err);
    return r < 0 ? r : disk_assemble(&s, &format, 1, writable, true, 0, &yard->opener, ret, err);
}

/* Puts the parent below the child, if it is the right one. */
static int stack(struct yard *yard, struct platter_disk *disk, bool writable,
                 struct platter_error *err)
{
    struct platter_disk *base;
    const struct image *top = disk_top(disk);
    if (!top->has_backing)
        return 0;
    int file = top->backing_name ? file_of(top->backing_name) : -1;
    if (file < 0)
        return fail(err, EINVAL, "the child names the parent %s", top->backing_name);
    int r = open_image(yard, (enum reshape_file)file, writable, &base, err);
    if (r < 0)
        return r;
    if (format->accept_backing)
        r = format->accept_backing(disk_top(disk), disk_top(base), err);
    if (r < 0) {
        disk_close(base, NULL);
        return r;
    }
    return disk_stack(disk, base, err);
}

static int open_chain(struct yard *yard, bool writable, bool base_writable,
                      struct platter_disk **ret, struct platter_error *err)
{
    int r = open_image(yard, FILE_CHILD, writable, ret, err);
    if (r < 0)
        return r;
    r = stack(yard, *ret, base_writable, err);
    if (r < 0)
        disk_close(*ret, NULL);
    return r;
}

/* ---- cases ----------------------------------------------------------------------------------- */

/* Runs of `every` sectors out of three times as many are written, grains in part as well; of
 * pieces, which have larger grains, out of forty times as many. */
static void fill(struct reshape *r, enum reshape_file file, bool chain, uint64_t sectors,
                 uint64_t every)
{
    struct platter_error err = {0};
    struct reshape_place place = {.files = r->files};
    struct yard yard = {.opener = {open_named}, .place = &place};
    struct platter_disk *disk;
    uint8_t data[64 * SECTOR];
    for (int i = 0; i < RESHAPE_FILES; i++)
        place.there[i] = r->files[i].bytes != NULL;
    int e = chain ? open_chain(&yard, true, false, &disk, &err)
                  : open_image(&yard, file, true, &disk, &err);
    uint64_t step = file == FILE_CHILD && r->of->split ? 40 * every : 3 * every;
    for (uint64_t at = 0, n; at < sectors && e == 0; at += step) {
        n = sectors - at < every ? sectors - at : every;
        ledger_stamp(data, (uint32_t)file + 1, at, n);
        e = disk_write(disk, data, n * SECTOR, at * SECTOR, &err);
    }
    if (e == 0 && sectors > 200) /* some of it zeros above the parent's data */
        e = disk_zero(disk, 100 * SECTOR, 50 * SECTOR, false, &err);
    if (e == 0 && !r->of->open_end) {
        ledger_stamp(data, (uint32_t)file + 1, sectors - 1, 1);
        e = disk_write(disk, data, SECTOR, (sectors - 1) * SECTOR, &err);
    }
    if (e == 0)
        e = disk_close(disk, &err);
    if (e < 0)
        fprintf(stderr, "%s: %s\n", r->of->name, err.message);
    MUST(e == 0);
}

/* Other programs leave anything behind the last sector, in its grain or file: it must not show. */
static void spoil_end(struct reshape *r)
{
    struct reshape_place place = {.files = r->files};
    struct yard yard = {.opener = {open_named}, .place = &place};
    struct platter_disk *disk;
    struct disk_extent x;
    uint64_t last = (r->of->size - 1) * SECTOR;
    for (int i = 0; i < RESHAPE_FILES; i++)
        place.there[i] = r->files[i].bytes != NULL;
    MUST(open_chain(&yard, false, false, &disk, NULL) == 0);
    MUST(disk_map_above(disk, 1, last, SECTOR, &x, NULL) == 0);
    int file = x.e.kind == EXTENT_DATA ? file_of(x.e.stream->name) : -1;
    disk_close(disk, NULL);
    if (file < 0)
        return;
    struct buffer *b = &r->files[file];
    uint64_t end = r->of->flat ? b->capacity : (x.e.off / SECTOR | 7) * SECTOR + SECTOR;
    b->size = b->size < end ? end : b->size;
    memset(b->bytes + x.e.off + SECTOR, 0xee, end - x.e.off - SECTOR);
}

/* Makes the line of the child shorter than what it has. */
static void shorten_line(struct reshape *r)
{
    char *text = (char *)r->files[FILE_CHILD].bytes + SECTOR;
    auto_free char *now = string_format("RW %" PRIu64 " SPARSE", r->of->to);
    auto_free char *then = string_format("RW %" PRIu64 " SPARSE", r->of->size);
    char *line = now ? strstr(text, now) : NULL;
    MUST(line && then && strlen(now) == strlen(then));
    memcpy(line, then, strlen(then));
}

static uint32_t cid_of(const struct buffer *b)
{
    const char *text = strstr((const char *)b->bytes + SECTOR, "\nCID=");
    MUST(text);
    return (uint32_t)strtoul(text + 5, NULL, 16);
}

static void make_vmdks(struct reshape *r, const char *parent)
{
    const struct reshape_case *of = r->of;
    uint32_t parent_cid = UINT32_MAX;
    uint64_t size = of->leftovers ? of->to : of->size;
    if (parent) {
        r->files[FILE_BASE] =
            whole_image(FILE_BASE, of->base_size, false, 0xba5e, NULL, UINT32_MAX);
        fill(r, FILE_BASE, false, of->base_size, 31);
        parent_cid = cid_of(&r->files[FILE_BASE]);
    }
    if (of->other_size) {
        r->files[FILE_OTHER] =
            whole_image(FILE_OTHER, of->other_size, false, 0x07e4, NULL, UINT32_MAX);
        fill(r, FILE_OTHER, false, of->other_size, 23);
    }
    if (of->split || of->flat)
        make_pieces(r, parent, parent_cid);
    else
        r->files[FILE_CHILD] =
            whole_image(FILE_CHILD, size, of->zeroed, 0xc411d, parent, parent_cid);
    fill(r, FILE_CHILD, true, size, 11);
    if (of->leftovers)
        shorten_line(r);
}

static struct buffer new_qcow(const struct reshape_case *of, const char *options, uint64_t sectors,
                              const char *parent)
{
    return of->qcow2 ? reshape_qcow2_new(options, sectors, parent)
                     : reshape_qcow_new(of, sectors, parent);
}

static void make_qcows(struct reshape *r, const char *parent)
{
    const struct reshape_case *of = r->of;
    if (parent) {
        r->files[FILE_BASE] = new_qcow(of, of->qcow2, of->base_size, NULL);
        fill(r, FILE_BASE, false, of->base_size, 31);
    }
    if (of->other_size) {
        r->files[FILE_OTHER] = new_qcow(of, of->qcow2, of->other_size, NULL);
        fill(r, FILE_OTHER, false, of->other_size, 23);
    }
    auto_free char *options = string_format("%s%s%s", of->qcow2 ? of->qcow2 : "",
                                            of->child ? "," : "", of->child ? of->child : "");
    MUST(options);
    r->files[FILE_CHILD] = new_qcow(of, options, of->size, parent);
    if (of->data_file) {
        r->files[FILE_FIRST] = buffer_new(of->size * SECTOR + SPARE);
        r->files[FILE_FIRST].size = of->size * SECTOR;
    }
    fill(r, FILE_CHILD, true, of->size, 11);
    if (of->late_name)
        reshape_qcow_move_name(&r->files[FILE_CHILD]);
    if (!of->snapshot)
        return;
    reshape_qcow2_snapshot(&r->files[FILE_CHILD]);
    fill(r, FILE_CHILD, true, of->size, 37);
}

static void read_before(struct reshape *r)
{
    struct reshape_place place = {.files = r->files};
    struct yard yard = {.opener = {open_named}, .place = &place};
    struct platter_disk *disk;
    for (int i = 0; i < RESHAPE_FILES; i++)
        place.there[i] = r->files[i].bytes != NULL;
    r->content = malloc(r->of->size * SECTOR);
    MUST(r->content && open_chain(&yard, false, false, &disk, NULL) == 0);
    MUST(disk_read(disk, r->content, r->of->size * SECTOR, 0, NULL) == 0);
    disk_close(disk, NULL);
}

struct reshape reshape_make(const struct reshape_case *of)
{
    struct reshape r = {.of = of};
    const char *parent = of->base_size ? names[FILE_BASE] : NULL;
    format = of->qcow2 ? &format_qcow2 : of->cluster_bits ? &format_qcow : &format_vmdk;
    if (format == &format_vmdk)
        make_vmdks(&r, parent);
    else
        make_qcows(&r, parent);
    spoil_end(&r);
    read_before(&r);
    return r;
}

void reshape_free(struct reshape *r)
{
    for (int i = 0; i < RESHAPE_FILES; i++)
        buffer_free(&r->files[i]);
    free(TAKE(r->content));
}

struct reshape_place reshape_place_of(const struct buffer *files, struct buffer *copies)
{
    struct reshape_place place = {.files = copies};
    for (int i = 0; i < RESHAPE_FILES; i++) {
        copies[i] = (struct buffer){0};
        if (files[i].bytes)
            copies[i] = buffer_copy(&files[i], files[i].size + SPARE);
        else if (i >= FILE_FIRST && files[FILE_FIRST].bytes)
            copies[i] = buffer_copy(&copies[i], SPARE); /* in pieces: there may be one more */
        place.there[i] = files[i].bytes != NULL;
    }
    return place;
}

/* ---- the operation --------------------------------------------------------------------------- */

static int do_rebase(const struct reshape *r, struct yard *yard, struct platter_disk *disk,
                     struct platter_error *err)
{
    struct platter_rebase_options o = {.size = sizeof o, .workers = 1};
    struct platter_disk *below = NULL;
    if (r->of->other_size) {
        o.backing = names[FILE_OTHER];
        int e = open_image(yard, FILE_OTHER, false, &below, err);
        if (e < 0)
            return e;
    }
    int e = rebase_chain(disk, below, format->name, &o, err);
    disk_close(below, NULL);
    return e;
}

static int do_it(const struct reshape *r, struct yard *yard, struct platter_disk *disk,
                 struct platter_error *err)
{
    const struct platter_commit_options commit = {.size = sizeof commit, .workers = 1};
    const struct platter_amend_options amend = {.size = sizeof amend, .options = r->of->amend};
    switch (r->of->kind) {
    case RESHAPE_RESIZE:
        return disk_resize(disk, r->of->to * SECTOR, PLATTER_RESIZE_SHRINK, r->of->preallocation,
                           &yard->maker, err);
    case RESHAPE_COMMIT:
        return commit_chain(disk, 1, &commit, err);
    case RESHAPE_REBASE:
        return do_rebase(r, yard, disk, err);
    case RESHAPE_AMEND:
        return amend_disk(disk, &amend, err);
    }
    return -EINVAL;
}

int reshape_run(const struct reshape *r, struct reshape_place *place, struct platter_error *err)
{
    struct yard yard = {.opener = {open_named}, .maker = {make_named, publish}, .place = place};
    struct platter_disk *disk;
    int e = open_chain(&yard, true, r->of->kind == RESHAPE_COMMIT, &disk, err);
    if (e < 0)
        return e;
    e = do_it(r, &yard, disk, err);
    leave(&yard, e < 0, atomic_load(&disk_top(disk)->poison) < 0);
    int c = disk_close(disk, e < 0 ? NULL : err);
    return e < 0 ? e : c;
}

/* ---- the judgement --------------------------------------------------------------------------- */

static bool judge_sector(const struct reshape *r, const uint8_t *now, uint64_t i)
{
    static const uint8_t zeros[SECTOR];
    const uint8_t *right = i < r->of->size ? r->content + i * SECTOR : zeros;
    return memcmp(now, right, SECTOR) == 0;
}

/* A disk that was made much larger has zeros in the end, which need no reading. */
static bool judge_bytes(const struct reshape *r, struct platter_disk *disk, char *why,
                        size_t why_size)
{
    uint8_t bytes[128 * SECTOR];
    struct platter_error err = {0};
    uint64_t sectors = disk_size(disk) / SECTOR;
    for (uint64_t i = 0, n; i < sectors; i += n) {
        struct disk_extent x = {0};
        int e = disk_map(disk, i * SECTOR, (sectors - i) * SECTOR, &x, &err);
        n = x.e.len / SECTOR;
        if (e == 0 && x.e.kind == EXTENT_ZERO && i >= r->of->size)
            continue;
        n = n < 128 ? n : 128;
        e = e < 0 ? e : disk_read(disk, bytes, n * SECTOR, i * SECTOR, &err);
        if (e < 0) {
            snprintf(why, why_size, "read: %.200s", err.message);
            return false;
        }
        for (uint64_t k = 0; k < n; k++)
            if (!judge_sector(r, bytes + k * SECTOR, i + k)) {
                snprintf(why, why_size, "sector %" PRIu64 " of %" PRIu64 " is another one", i + k,
                         sectors);
                return false;
            }
    }
    return true;
}

static bool judge_size(const struct reshape *r, uint64_t size, bool done, char *why,
                       size_t why_size)
{
    uint64_t old = r->of->size * SECTOR,
             to = r->of->kind == RESHAPE_RESIZE ? r->of->to * SECTOR : old;
    if (size == to || (!done && size == old))
        return true;
    snprintf(why, why_size, "the disk has %" PRIu64 " bytes", size);
    return false;
}

/* What else must be true afterwards. */
static bool judge_done(const struct reshape *r, struct platter_disk *disk, char *why,
                       size_t why_size)
{
    struct disk_extent x = {0};
    const char *parent = disk_top(disk)->backing_name;
    int e = disk_map_above(disk, 1, 0, r->of->size * SECTOR, &x, NULL);
    bool empty = e == 0 && x.e.kind == EXTENT_BACKING && x.e.len >= SECTOR;
    bool good = r->of->kind != RESHAPE_COMMIT || empty;
    if (r->of->kind == RESHAPE_REBASE)
        good = r->of->other_size ? parent && strcmp(parent, names[FILE_OTHER]) == 0 : !parent;
    if (!good)
        snprintf(why, why_size, "it is not done, although it was said to be");
    return good;
}

/* A raw data file is the disk by itself, as far as that goes: a crash may leave it longer. */
static bool judge_raw(const struct reshape *r, const struct buffer *file, uint64_t size, char *why,
                      size_t why_size)
{
    uint64_t i = 0, n = size / SECTOR;
    while (file->size >= size && i < n && judge_sector(r, file->bytes + i * SECTOR, i))
        i++;
    if (i < n)
        snprintf(why, why_size,
                 "the data file of %" PRIu64 " bytes is not the disk of %" PRIu64 ": %" PRIu64
                 " sectors are",
                 file->size, size, i);
    return i == n;
}

bool reshape_judge(const struct reshape *r, struct reshape_place *place, bool done, char *why,
                   size_t why_size)
{
    struct platter_error err = {0};
    struct reshape_place plain = {.files = place->files};
    struct yard yard = {.opener = {open_named}, .place = &plain};
    struct platter_disk *disk;
    memcpy(plain.there, place->there, sizeof plain.there);
    int e = open_chain(&yard, false, false, &disk, &err);
    if (e < 0) {
        snprintf(why, why_size, "open: %.200s", err.message);
        return false;
    }
    bool good =
        judge_size(r, disk_size(disk), done, why, why_size) && judge_bytes(r, disk, why, why_size);
    if (good && done)
        good = judge_done(r, disk, why, why_size);
    if (good && r->of->raw)
        good = judge_raw(r, &place->files[FILE_FIRST], disk_size(disk), why, why_size);
    disk_close(disk, NULL);
    for (int i = FILE_CHILD; good && format != &format_vmdk && i <= FILE_OTHER; i++)
        good = !place->files[i].bytes ||
               reshape_image_judge(format->name, &place->files[i], why, why_size);
    return good;
}

int reshape_main(int argc, char **argv, int (*run_case)(const struct reshape_case *of))
{
    int failed = 0, done = 0;
    for (const struct reshape_case *of = reshape_cases; of->name; of++) {
        bool wanted = argc < 2;
        for (int i = 1; i < argc; i++)
            wanted |= strcmp(argv[i], of->name) == 0;
        if (!wanted)
            continue;
        failed |= run_case(of);
        done++;
    }
    return failed || done == 0;
}
