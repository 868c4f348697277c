/* SPDX-License-Identifier: MIT */
/*
 * A range of a disk, read in small pieces again and again: tables, folders. The last few lines of
 * it stay in memory. Long reads, which are those of files, go by.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

enum {
    LINE = 32 << 10,
    LINES = 128 /* 4 MiB: folders, and the tables that lead from one to the next */
};

struct line {
    uint64_t at; /* offset on the volume */
    size_t len;  /* 0: nothing is in it */
    uint64_t used_at;
    uint8_t *bytes;
};

struct volume_cache {
    struct line lines[LINES], *last;
    uint64_t clock;
    uint8_t bytes[LINES][LINE];
};

int files_fail(struct platter_error *err, int code, const char *format, ...)
{
    va_list args;
    if (!err)
        return -code;
    err->code = code;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return -code;
}

int volume_open(struct volume *v, struct platter_disk *disk, const char *title, uint64_t start,
                uint64_t length, struct platter_error *err)
{
    *v = (struct volume){.disk = disk, .start = start, .length = length};
    snprintf(v->title, sizeof v->title, "%s", title);
    uint64_t size = platter_size(disk);
    if (start > size)
        return files_fail(err, PLATTER_ECORRUPT, "%s: begins at %llu, behind the end of the disk",
                          title, (unsigned long long)start);
    if (length > size - start)
        v->length = size - start;
    v->cache = malloc(sizeof *v->cache);
    if (!v->cache)
        return files_fail(err, ENOMEM, "%s: no memory for a cache", title);
    v->cache->clock = 0;
    v->cache->last = NULL;
    for (unsigned i = 0; i < LINES; i++)
        v->cache->lines[i] = (struct line){.bytes = v->cache->bytes[i]};
    return 0;
}

void volume_close(struct volume *v)
{
    free(v->cache);
    free(v->patches);
    *v = (struct volume){0};
}

/* ---- newer blocks ---------------------------------------------------------------------------- */

void volume_patch(struct volume *v, struct patch *patches, size_t n, uint32_t size)
{
    free(v->patches);
    v->patches = patches;
    v->n_patches = n;
    v->patch_size = size;
    for (unsigned i = 0; i < LINES; i++)
        v->cache->lines[i].len = 0;
    v->cache->last = NULL;
}

/* Index of the first patch of this block or a later one. */
static size_t first_patch(const struct volume *v, uint64_t block)
{
    size_t low = 0, high = v->n_patches;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (v->patches[middle].block < block)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The part of a newer block that lies in [offset, offset + len). */
static int put_patch(struct volume *v, const struct patch *p, uint8_t *buffer, size_t len,
                     uint64_t offset, struct platter_error *err)
{
    static const uint8_t magic[4] = {0xc0, 0x3b, 0x39, 0x98}; /* what is escaped by zeros */
    uint64_t block = p->block * v->patch_size;
    uint64_t from = block > offset ? block : offset;
    uint64_t to = block + v->patch_size;
    if (to > offset + len)
        to = offset + len;
    int r = platter_pread(v->disk, buffer + (from - offset), (size_t)(to - from),
                          v->start + p->at + (from - block), err);
    for (uint64_t i = from; p->escaped && r == 0 && i < to && i < block + 4; i++)
        buffer[i - offset] = magic[i - block];
    return r;
}

/* Bytes as they are now, patches and all. */
static int read_through(struct volume *v, uint8_t *buffer, size_t len, uint64_t offset,
                        struct platter_error *err)
{
    int r = platter_pread(v->disk, buffer, len, v->start + offset, err);
    if (!v->n_patches)
        return r;
    for (size_t i = first_patch(v, offset / v->patch_size);
         r == 0 && i < v->n_patches && v->patches[i].block * v->patch_size < offset + len; i++)
        r = put_patch(v, &v->patches[i], buffer, len, offset, err);
    return r;
}

/* ---- lines ----------------------------------------------------------------------------------- */

/* The line that begins there; NULL if it cannot be read as a whole. */
static struct line *line_at(struct volume *v, uint64_t at)
{
    struct volume_cache *c = v->cache;
    struct line *oldest = c->lines;
    if (c->last && c->last->len && c->last->at == at)
        return c->last;
    for (struct line *l = c->lines; l < c->lines + LINES; l++) {
        if (l->len && l->at == at) {
            l->used_at = ++c->clock;
            return c->last = l;
        }
        if (l->used_at < oldest->used_at)
            oldest = l;
    }
    size_t len = v->length - at < LINE ? (size_t)(v->length - at) : LINE;
    oldest->len = 0;
    if (read_through(v, oldest->bytes, len, at, NULL))
        return NULL;
    *oldest = (struct line){at, len, ++c->clock, oldest->bytes};
    return c->last = oldest;
}

int volume_read(struct volume *v, void *buffer, size_t len, uint64_t offset,
                struct platter_error *err)
{
    uint8_t *to = buffer;
    if (offset > v->length || len > v->length - offset)
        return files_fail(err, PLATTER_ECORRUPT,
                          "%s: %zu bytes at %llu are to be read, which is behind its end at %llu",
                          v->title, len, (unsigned long long)offset, (unsigned long long)v->length);
    if (len >= LINE)
        return read_through(v, to, len, offset, err);
    while (len > 0) {
        uint64_t at = offset / LINE * LINE;
        struct line *l = line_at(v, at);
        if (!l) /* what is asked may be readable all the same */
            return read_through(v, to, len, offset, err);
        size_t skip = (size_t)(offset - at), n = l->len - skip < len ? l->len - skip : len;
        memcpy(to, l->bytes + skip, n);
        to += n;
        offset += n;
        len -= n;
    }
    return 0;
}
