/* SPDX-License-Identifier: MIT */
/*
 * Tables that stay whole in memory, as numbers. Changes are kept by 512 bytes of the table, and
 * those written at once.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/tables.h"

enum { SECTOR_ENTRIES = 64 };

int image_meta_write(struct image *img, const void *bytes, size_t len, hoff off,
                     struct platter_error *err)
{
    pthread_mutex_unlock(&img->lock);
    int r = stream_pwrite(img->stream, bytes, len, off, err);
    pthread_mutex_lock(&img->lock);
    return r < 0 ? image_poison(img, r) : 0;
}

static uint64_t dirty_bytes(uint32_t n)
{
    return div_up(div_up(n, SECTOR_ENTRIES), 8);
}

int pointers_new(struct image *img, struct pointers *p, hoff off, uint32_t n, const char *what,
                 struct platter_error *err)
{
    int r = budget_alloc(img->budget, n * UINT64_C(8), what, &p->entries, err);
    if (r < 0)
        return r;
    p->n = n;
    p->off = off;
    return budget_alloc(img->budget, dirty_bytes(n), what, &p->dirty, err);
}

int pointers_load(struct image *img, struct pointers *p, hoff off, uint32_t n, const char *what,
                  struct platter_error *err)
{
    if (n == 0)
        return 0;
    int r = pointers_new(img, p, off, n, what, err);
    if (r == 0)
        r = stream_pread(img->stream, p->entries, n * (size_t)8, off, err);
    if (r < 0)
        return fail_in(err, r, "%s", what);
    const uint8_t *bytes = (const void *)p->entries;
    for (uint32_t i = 0; i < n; i++)
        p->entries[i] = get_be(bytes + i * (size_t)8, 8);
    return 0;
}

void pointers_free(struct image *img, struct pointers *p)
{
    budget_free(img->budget, p->entries, p->n * UINT64_C(8));
    budget_free(img->budget, p->dirty, dirty_bytes(p->n));
    *p = (struct pointers){0};
}

void pointers_set(struct pointers *p, uint32_t i, uint64_t value)
{
    p->entries[i] = value;
    p->dirty[i / SECTOR_ENTRIES / 8] |= (uint8_t)(1u << i / SECTOR_ENTRIES % 8);
    p->any_dirty = true;
}

/* Writes 512 bytes of the table, or what is left of it, as part of a table at `off`. */
static int write_sector(struct image *img, const struct pointers *p, uint32_t sector, hoff off,
                        struct platter_error *err)
{
    uint8_t bytes[SECTOR_ENTRIES * 8];
    uint32_t first = sector * SECTOR_ENTRIES;
    uint32_t n = p->n - first < SECTOR_ENTRIES ? p->n - first : SECTOR_ENTRIES;

    for (uint32_t i = 0; i < n; i++)
        put_be(bytes + i * 8, 8, p->entries[first + i]);
    return image_meta_write(img, bytes, n * (size_t)8, off + first * UINT64_C(8), err);
}

int pointers_copy(struct image *img, const struct pointers *p, hoff off, struct platter_error *err)
{
    int r = 0;
    for (uint32_t sector = 0; r == 0 && sector * UINT64_C(64) < p->n; sector++)
        r = write_sector(img, p, sector, off, err);
    return r;
}

int pointers_write(struct image *img, struct pointers *p, struct platter_error *err)
{
    if (!p->any_dirty)
        return 0;
    for (uint32_t sector = 0; sector * UINT64_C(64) < p->n; sector++) {
        if (!(p->dirty[sector / 8] >> sector % 8 & 1))
            continue;
        int r = write_sector(img, p, sector, p->off, err);
        if (r < 0)
            return r;
        p->dirty[sector / 8] &= (uint8_t) ~(1u << sector % 8);
    }
    p->any_dirty = false;
    return 0;
}
