/* SPDX-License-Identifier: MIT */
/* Packing one frame of zstd (RFC 8878), or member of gzip (RFC 1952); and the table of frames. */
#include <libdeflate.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "config.h"
#include "stream/unzip.h"
#include "stream/zip.h"

#if HAVE_ZSTD
#include <zstd.h>
#endif

enum {
    /* On a disk with the files of a Linux system frames of 2 MiB are 1.1 % larger than one frame of
     * all; those of 4 MiB, 0.5 %, but then memory is short for the threads, and reading anywhere is
     * slower. Members of gzip lose nothing to speak of from 1 MiB on. */
    ZSTD_BYTES = 2 << 20,
    GZIP_BYTES = 1 << 20,
    ZSTD_LEVEL = 3, /* that of the program */
    /* What gzip is without a level (6), within 0.5 %, in a third of its time. */
    GZIP_LEVEL = 5,
    GZIP_LEVEL_MOST = 12,
    GZIP_CONTEXT = 1 << 20 /* memory of a compressor, about */
};

#if HAVE_ZSTD

static int zstd_least(void)
{
    return ZSTD_minCLevel();
}

static int zstd_most(void)
{
    return ZSTD_maxCLevel();
}

static size_t zstd_bound(size_t n)
{
    return ZSTD_compressBound(n);
}

static int zstd_open(struct packer *p, int level, struct platter_error *err)
{
    ZSTD_CCtx *c = p->context = ZSTD_createCCtx();
    if (!c)
        return fail_memory(err, "compression");
    ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
    return 0;
}

static int zstd_pack(struct packer *p, const void *in, size_t n, void *out, size_t cap,
                     size_t *ret_len, struct platter_error *err)
{
    ZSTD_CCtx *c = p->context;
    *ret_len = ZSTD_compress2(c, out, cap, in, n);
    if (ZSTD_isError(*ret_len))
        return fail(err, ENOMEM, "cannot compress: %s", ZSTD_getErrorName(*ret_len));
    /* What it takes is known when it has worked. */
    uint64_t size = ZSTD_sizeof_CCtx(c);
    if (size <= p->taken)
        return 0;
    int r = budget_take(p->budget, size - p->taken, "compressing with zstd at this level", err);
    p->taken = r < 0 ? p->taken : size;
    return r;
}

static void zstd_close(struct packer *p)
{
    ZSTD_freeCCtx(p->context);
}

#else

static int zstd_least(void)
{
    return 0;
}

static int zstd_most(void)
{
    return 0;
}

static size_t zstd_bound(size_t n)
{
    return n;
}

static int zstd_open(struct packer *p, int level, struct platter_error *err)
{
    (void)level;
    return unzip_check(p->wrapper, err);
}

static int zstd_pack(struct packer *p, const void *in, size_t n, void *out, size_t cap,
                     size_t *ret_len, struct platter_error *err)
{
    (void)in, (void)n, (void)out, (void)cap, (void)ret_len;
    return unzip_check(p->wrapper, err);
}

static void zstd_close(struct packer *p)
{
    (void)p;
}

#endif

/* ---- gzip ------------------------------------------------------------------------------------ */

static int gzip_open(struct packer *p, int level, struct platter_error *err)
{
    p->context = libdeflate_alloc_compressor(level);
    return p->context ? 0 : fail_memory(err, "compression");
}

static int gzip_pack(struct packer *p, const void *in, size_t n, void *out, size_t cap,
                     size_t *ret_len, struct platter_error *err)
{
    *ret_len = libdeflate_gzip_compress(p->context, in, n, out, cap);
    return *ret_len ? 0 : fail(err, ENOMEM, "cannot compress");
}

/* ---- either ---------------------------------------------------------------------------------- */

int packer_check(enum wrapper w, int *level, struct platter_error *err)
{
    int r = unzip_check(w, err);
    if (r < 0)
        return r;
    if (w != WRAP_ZSTD && w != WRAP_GZIP)
        return fail(err, ENOTSUP, "nothing is written with %s: there are zstd and gzip",
                    wrapper_name(w));
    int least = w == WRAP_ZSTD ? zstd_least() : 1;
    int most = w == WRAP_ZSTD ? zstd_most() : GZIP_LEVEL_MOST;
    if (*level == 0)
        *level = w == WRAP_ZSTD ? ZSTD_LEVEL : GZIP_LEVEL;
    if (*level < least || *level > most)
        return fail(err, EINVAL, "%s has no level %d: there are 1 to %d", wrapper_name(w), *level,
                    most);
    return 0;
}

size_t packer_frame(enum wrapper w)
{
    return w == WRAP_ZSTD ? ZSTD_BYTES : GZIP_BYTES;
}

size_t packer_bound(enum wrapper w, size_t n)
{
    return w == WRAP_ZSTD ? zstd_bound(n) : libdeflate_gzip_compress_bound(NULL, n);
}

int packer_open(struct packer *p, enum wrapper w, int level, uint64_t memory, struct budget *budget,
                struct platter_error *err)
{
    if (memory == 0 && w == WRAP_GZIP)
        memory = GZIP_CONTEXT;
    int r = budget_take(budget, memory, "compressing", err);
    if (r < 0)
        return r;
    p->wrapper = w;
    p->budget = budget;
    p->taken = memory;
    return w == WRAP_ZSTD ? zstd_open(p, level, err) : gzip_open(p, level, err);
}

int packer_pack(struct packer *p, const void *in, size_t n, void *out, size_t cap, size_t *ret_len,
                struct platter_error *err)
{
    return p->wrapper == WRAP_ZSTD ? zstd_pack(p, in, n, out, cap, ret_len, err)
                                   : gzip_pack(p, in, n, out, cap, ret_len, err);
}

void packer_close(struct packer *p)
{
    if (p->wrapper == WRAP_ZSTD)
        zstd_close(p);
    else if (p->context)
        libdeflate_free_compressor(p->context);
    if (p->budget)
        budget_give(p->budget, p->taken);
}

/* ---- the table ------------------------------------------------------------------------------- */

#define SEEKABLE_MAGIC UINT32_C(0x8F92EAB1)

enum {
    TABLE_HEADER = 8, /* magic of a frame that is skipped, size of the rest */
    TABLE_ENTRY = 8,  /* packed bytes, bytes of content */
    TABLE_FOOTER = 9, /* number of frames, descriptor (0: no checksums), magic */
    TABLE_FIRST = 1024,
    TABLE_MOST = 0x8000000 /* entries that the format allows */
};

static uint64_t table_bytes(size_t entries)
{
    return TABLE_HEADER + (uint64_t)entries * TABLE_ENTRY + TABLE_FOOTER;
}

/* Twice the room. */
static bool grow(struct seek_table *t)
{
    size_t room = t->room ? t->room * 2 : TABLE_FIRST;
    uint8_t *bytes;
    if (t->n == TABLE_MOST ||
        budget_alloc(t->budget, table_bytes(room), "a table of frames", &bytes, NULL) < 0)
        return false;
    if (t->entries)
        memcpy(bytes, t->entries, table_bytes(t->n));
    budget_free(t->budget, t->entries, table_bytes(t->room));
    t->entries = bytes;
    t->room = room;
    return true;
}

void seek_table_add(struct seek_table *t, size_t packed, size_t content)
{
    if (t->given_up || (t->n == t->room && !grow(t))) {
        t->given_up = true;
        return;
    }
    uint8_t *entry = t->entries + TABLE_HEADER + t->n++ * TABLE_ENTRY;
    put_le(entry, 4, packed);
    put_le(entry + 4, 4, content);
}

void seek_table_finish(struct seek_table *t, const void **ret, size_t *ret_len)
{
    *ret_len = 0;
    if (t->given_up || t->n == 0)
        return;
    uint64_t len = table_bytes(t->n);
    uint8_t *footer = t->entries + len - TABLE_FOOTER;
    put_le(t->entries, 4, ZSTD_SKIPPABLE | 0xE);
    put_le(t->entries + 4, 4, len - TABLE_HEADER);
    put_le(footer, 4, t->n);
    footer[4] = 0;
    put_le(footer + 5, 4, SEEKABLE_MAGIC);
    *ret = t->entries;
    *ret_len = (size_t)len;
}

void seek_table_free(struct seek_table *t)
{
    if (t->entries)
        budget_free(t->budget, t->entries, table_bytes(t->room));
    t->entries = NULL;
}
