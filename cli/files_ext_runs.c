/* SPDX-License-Identifier: MIT */
/* Where the bytes of a file of ext2, ext3 or ext4 are: in its inode, in extents, or in blocks. */
#include "files_ext.h"

#if HAVE_EXT2FS

#include <errno.h>
#include <stdlib.h>

/* Gathers what goes on where the last piece ended. */
struct gather {
    struct ext *ext;
    const struct node *file;
    run_fn fn;
    void *opaque;
    struct platter_error *err;
    struct run run; /* not told yet */
    uint64_t next;  /* the first byte of the file that no piece may be before */
    uint64_t total; /* blocks so far */
    int r;
};

static int tell(struct gather *g)
{
    int r = 0;
    if (g->run.length && g->run.at < g->file->size) {
        if (g->run.length > g->file->size - g->run.at)
            g->run.length = g->file->size - g->run.at;
        r = g->fn(g->opaque, &g->run, g->err);
    }
    g->run.length = 0;
    return r;
}

/* Whether there can be such a piece: in order, on the volume, and none of that twice. */
static int check(struct gather *g, uint64_t logical, uint64_t physical, uint64_t count)
{
    struct ext *e = g->ext;
    uint64_t size = e->fs->blocksize, blocks = e->volume->length / size;
    if (count == 0 || physical < e->fs->super->s_first_data_block || physical >= blocks ||
        count > blocks - physical || logical > INT64_MAX / size || logical * size < g->next)
        return files_fail(g->err, PLATTER_ECORRUPT,
                          "%s: inode %llu has its block %llu at %llu, which cannot be",
                          e->volume->title, (unsigned long long)g->file->id,
                          (unsigned long long)logical, (unsigned long long)physical);
    g->next = (logical + count) * size;
    g->total += count;
    if (g->total > blocks)
        return files_fail(g->err, PLATTER_ECORRUPT,
                          "%s: inode %llu has more blocks than the file system: some of them twice",
                          e->volume->title, (unsigned long long)g->file->id);
    return 0;
}

/* Adds `count` blocks of the file, from block `logical`, which stand at block `physical`. */
static int add(struct gather *g, uint64_t logical, uint64_t physical, uint64_t count)
{
    uint64_t size = g->ext->fs->blocksize;
    struct run next = {.at = logical * size, .length = count * size, .offset = physical * size};
    struct run *run = &g->run;
    if (run->length && run->at + run->length == next.at &&
        run->offset + run->length == next.offset) {
        run->length += next.length;
        return 0;
    }
    int r = tell(g);
    *run = next;
    return r;
}

static int extents(struct gather *g)
{
    struct ext *e = g->ext;
    ext2_extent_handle_t handle;
    struct ext2fs_extent x;
    int r = 0;
    errcode_t code = ext_lib.extent_open2(e->fs, (ext2_ino_t)g->file->id, NULL, &handle);
    if (code)
        return ext_failed(e, code, "the extents of a file", g->file->id, g->err);
    code = ext_lib.extent_get(handle, EXT2_EXTENT_ROOT, &x);
    while (r == 0 && !code && !e->read_error.code) {
        bool leaf = x.e_flags & EXT2_EXTENT_FLAGS_LEAF; /* the root may be none */
        leaf = leaf && !(x.e_flags & EXT2_EXTENT_FLAGS_SECOND_VISIT);
        if (leaf)
            r = check(g, x.e_lblk, x.e_pblk, x.e_len);
        if (r == 0 && leaf && !(x.e_flags & EXT2_EXTENT_FLAGS_UNINIT))
            r = add(g, x.e_lblk, x.e_pblk, x.e_len);
        if (r == 0)
            code = ext_lib.extent_get(handle, EXT2_EXTENT_NEXT_LEAF, &x);
    }
    ext_lib.extent_free(handle);
    bool end = code == EXT2_ET_EXTENT_NO_NEXT || code == EXT2_ET_NO_CURRENT_NODE;
    if (r == 0 && (e->read_error.code || (code && !end)))
        r = ext_failed(e, code, "the extents of a file", g->file->id, g->err);
    return r;
}

static int on_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t at, blk64_t in, int offset,
                    void *opaque)
{
    struct gather *g = opaque;
    (void)in, (void)offset;
    if (at < 0)
        return 0;
    if ((uint64_t)at >= (g->file->size + fs->blocksize - 1) / fs->blocksize)
        return BLOCK_ABORT;
    g->r = check(g, (uint64_t)at, *block, 1);
    if (g->r == 0)
        g->r = add(g, (uint64_t)at, *block, 1);
    return g->r ? BLOCK_ABORT : 0;
}

static int blocks(struct gather *g)
{
    errcode_t code =
        ext_lib.block_iterate3(g->ext->fs, (ext2_ino_t)g->file->id,
                               BLOCK_FLAG_READ_ONLY | BLOCK_FLAG_DATA_ONLY, NULL, on_block, g);
    if (g->r)
        return g->r;
    if (code || g->ext->read_error.code)
        return ext_failed(g->ext, code, "the blocks of a file", g->file->id, g->err);
    return 0;
}

static int in_inode(struct gather *g)
{
    struct ext *e = g->ext;
    size_t size = 0;
    errcode_t code = ext_lib.inline_data_size(e->fs, (ext2_ino_t)g->file->id, &size);
    char *bytes = code ? NULL : malloc(size + EXT2_MAX_BLOCK_SIZE);
    if (!code && !bytes)
        return files_fail(g->err, ENOMEM, "no memory for a small file");
    if (!code)
        code = ext_lib.inline_data_get(e->fs, (ext2_ino_t)g->file->id, NULL, bytes, &size);
    int r = 0;
    if (code || e->read_error.code)
        r = ext_failed(e, code, "a small file", g->file->id, g->err);
    else if (size < g->file->size)
        r = files_fail(g->err, PLATTER_ECORRUPT,
                       "%s: inode %llu holds %zu bytes of a file that has %llu", e->volume->title,
                       (unsigned long long)g->file->id, size, (unsigned long long)g->file->size);
    struct run run = {.length = g->file->size, .bytes = bytes};
    if (r == 0 && run.length)
        r = g->fn(g->opaque, &run, g->err);
    free(bytes);
    return r;
}

int ext_runs(struct ext *e, const struct node *file, run_fn fn, void *opaque,
             struct platter_error *err)
{
    struct gather g = {.ext = e, .file = file, .fn = fn, .opaque = opaque, .err = err};
    struct ext2_inode_large i;
    int r = ext_inode(e, file->id, &i, err);
    if (r < 0)
        return r;
    if (i.i_flags & EXT4_INLINE_DATA_FL)
        return in_inode(&g);
    if (file->size > (uint64_t)e->fs->blocksize << 32)
        return files_fail(
            err, PLATTER_ECORRUPT,
            "%s: inode %llu has %llu bytes, which no file has: at most %llu are possible",
            e->volume->title, (unsigned long long)file->id, (unsigned long long)file->size,
            (unsigned long long)e->fs->blocksize << 32);
    r = i.i_flags & EXT4_EXTENTS_FL ? extents(&g) : blocks(&g);
    return r < 0 ? r : tell(&g);
}

#endif
