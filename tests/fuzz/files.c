/* SPDX-License-Identifier: MIT */
/*
 * Takes the input as a disk, with a partition table or without, and goes through the file systems
 * in it as platter ls and platter cp do: folders, names, links, the pieces of files. A failure has
 * a sentence; what is told of a file stays inside of it, in ascending order.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../../cli/files.h"
#include "base/memory.h"
#include "fuzz/target.h"

enum { MOST_NODES = 300, MOST_DEPTH = 6, MOST_READ = 64 << 10, MOST_PARTS = 8 };

struct look {
    struct fs fs;
    unsigned nodes;
    uint64_t at; /* where the last piece of a file ended */
    uint64_t size;
    unsigned pieces;
};

/* A failure, which says why. */
static bool failed(int r, const struct platter_error *err)
{
    if (r > 0 || (r < 0 && (err->code <= 0 || !err->message[0])))
        fuzz_found("%d without a sentence", r);
    return r < 0;
}

static int on_run(void *opaque, const struct run *run, struct platter_error *err)
{
    static uint8_t bytes[MOST_READ];
    struct look *l = opaque;
    size_t n = run->length < MOST_READ ? (size_t)run->length : (size_t)MOST_READ;
    if (!run->length || run->at < l->at || run->length > l->size || run->at > l->size - run->length)
        fuzz_found("a piece of %llu bytes at %llu, after %llu, of %llu",
                   (unsigned long long)run->length, (unsigned long long)run->at,
                   (unsigned long long)l->at, (unsigned long long)l->size);
    l->at = run->at + run->length;
    if (++l->pieces > 1000)
        return files_fail(err, EFBIG, "enough");
    if (!run->bytes)
        return volume_read(&l->fs.volume, bytes, n, run->offset, err);
    memcpy(bytes, run->bytes, n);
    return 0;
}

static void look_at(struct look *l, uint64_t id, unsigned depth)
{
    struct platter_error err = {0};
    struct node n;
    struct listing entries = {0};
    auto_free char *target = NULL;
    if (++l->nodes > MOST_NODES || failed(l->fs.ops->node(l->fs.own, id, &n, &err), &err))
        return;
    if (S_ISLNK(n.mode) && !failed(l->fs.ops->target(l->fs.own, &n, &target, &err), &err) &&
        !target[0])
        fuzz_found("a link to nothing");
    if (S_ISREG(n.mode)) {
        l->at = l->pieces = 0;
        l->size = n.size;
        failed(l->fs.ops->runs(l->fs.own, &n, on_run, l, &err), &err);
    }
    if (!S_ISDIR(n.mode) || depth == MOST_DEPTH ||
        failed(l->fs.ops->list(l->fs.own, &n, &entries, &err), &err))
        return;
    listing_sort(&entries);
    for (size_t i = 0; i < entries.n; i++)
        look_at(l, entries.entries[i].id, depth + 1);
    listing_free(&entries);
}

static void look_into(struct platter_disk *disk, const struct partition *p)
{
    struct platter_error err = {0};
    struct look l = {0};
    struct node n;
    if (failed(volume_open(&l.fs.volume, disk, "fuzz", p->start, p->length, &err), &err))
        return;
    if (!failed(p->kind.ops->open(&l.fs.volume, &l.fs.own, &err), &err)) {
        l.fs.ops = p->kind.ops;
        look_at(&l, l.fs.ops->root, 0);
        for (const char *const *path =
                 (const char *const[]){"/etc/../a/./b/", "/link", "//a/c", NULL};
             *path; path++)
            failed(path_find(&l.fs, *path, true, &n, &err), &err);
        l.fs.ops->close(l.fs.own);
    }
    volume_close(&l.fs.volume);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buffer file = {.bytes = (uint8_t *)data, .size = size, .capacity = size};
    struct platter_error err = {0};
    struct table *table = NULL;
    struct platter_disk *disk = fuzz_open(format_find("raw"), &file, false);
    if (disk && !failed(table_read(disk, "fuzz", &table, &err), &err)) {
        for (unsigned i = 0, n = 0; i < table->n && n < MOST_PARTS; i++)
            if (table->parts[i].kind.ops) {
                look_into(disk, &table->parts[i]);
                n++;
            }
        free(table);
    }
    platter_close(disk, NULL);
    return 0;
}
