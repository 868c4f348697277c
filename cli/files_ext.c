/* SPDX-License-Identifier: MIT */
/*
 * ext2, ext3 and ext4, read by libext2fs, which is loaded when it is first needed. It reads the
 * volume through an I/O manager of ours; what is in files we read ourselves, in long pieces, from
 * where it says they are.
 *
 * A failed read of the disk is kept until the operation ends, and fails that whatever the library
 * made of it.
 */
#include "files_ext.h"

#include <dlfcn.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#if HAVE_EXT2FS

/* ---- the library ----------------------------------------------------------------------------- */

struct ext_library ext_lib;

static const struct {
    const char *name;
    void *ret;
} symbols[] = {
    {"ext2fs_open2", &ext_lib.open2},
    {"ext2fs_close_free", &ext_lib.close_free},
    {"ext2fs_read_inode_full", &ext_lib.read_inode_full},
    {"ext2fs_dir_iterate2", &ext_lib.dir_iterate2},
    {"ext2fs_block_iterate3", &ext_lib.block_iterate3},
    {"ext2fs_extent_open2", &ext_lib.extent_open2},
    {"ext2fs_extent_get", &ext_lib.extent_get},
    {"ext2fs_extent_free", &ext_lib.extent_free},
    {"ext2fs_inline_data_size", &ext_lib.inline_data_size},
    {"ext2fs_inline_data_get", &ext_lib.inline_data_get},
    {"ext2fs_crc32c_le", &ext_lib.crc32c},
    {"initialize_ext2_error_table", &ext_lib.initialize_errors},
    {"error_message", &ext_lib.error_message}, /* of libcom_err, which it brings */
};

static int load(struct platter_error *err)
{
    static bool loaded;
    if (loaded)
        return 0;
    void *handle = dlopen("libext2fs.so.2", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    for (size_t i = 0; handle && i < sizeof symbols / sizeof *symbols; i++) {
        void *address = dlsym(handle, symbols[i].name);
        if (!address)
            return files_fail(err, ENOTSUP, "the library libext2fs.so.2 lacks %s(): it is too old",
                              symbols[i].name);
        memcpy(symbols[i].ret, &address, sizeof address);
    }
    if (!handle)
        return files_fail(err, ENOTSUP,
                          "ext2, ext3 and ext4 need the library libext2fs.so.2, which is not "
                          "installed (Debian: libext2fs2)");
    ext_lib.initialize_errors();
    loaded = true;
    return 0;
}

int ext_failed(struct ext *e, errcode_t code, const char *what, uint64_t id,
               struct platter_error *err)
{
    if (e->read_error.code) {
        if (err)
            *err = e->read_error;
        return -e->read_error.code;
    }
    int mine = code == ENOMEM || code == EXT2_ET_NO_MEMORY ? ENOMEM
               : code == EXT2_ET_UNSUPP_FEATURE            ? ENOTSUP
                                                           : PLATTER_ECORRUPT;
    if (!id)
        return files_fail(err, mine, "%s: %s: %s", e->volume->title, what,
                          ext_lib.error_message(code));
    return files_fail(err, mine, "%s: %s, inode %llu: %s", e->volume->title, what,
                      (unsigned long long)id, ext_lib.error_message(code));
}

/* ---- its I/O manager ------------------------------------------------------------------------- */

static struct ext *opening; /* what the next channel is of: its name cannot tell */

static errcode_t channel_read(io_channel c, unsigned long long block, int count, void *data)
{
    struct ext *e = c->private_data;
    size_t len = count < 0 ? (size_t) - (long)count : (size_t)count * (size_t)c->block_size;
    if (block > UINT64_MAX / (unsigned)c->block_size)
        return EXT2_ET_BAD_BLOCK_NUM;
    struct platter_error err = {0};
    if (++e->reads > e->most_reads)
        files_fail(&err, PLATTER_ECORRUPT, "%s: its blocks lead to one another without end",
                   e->volume->title);
    else if (volume_read(e->volume, data, len, block * (unsigned)c->block_size, &err) == 0)
        return 0;
    if (!e->read_error.code)
        e->read_error = err;
    return EXT2_ET_SHORT_READ;
}

static errcode_t channel_read_32(io_channel c, unsigned long block, int count, void *data)
{
    return channel_read(c, block, count, data);
}

static errcode_t channel_set_size(io_channel c, int size)
{
    c->block_size = size;
    return 0;
}

static errcode_t channel_close(io_channel c)
{
    if (--c->refcount > 0)
        return 0;
    free(c->name);
    free(c);
    return 0;
}

static errcode_t channel_write(io_channel c, unsigned long block, int count, const void *data)
{
    (void)c, (void)block, (void)count, (void)data;
    return EXT2_ET_RO_FILSYS;
}

static errcode_t channel_flush(io_channel c)
{
    (void)c;
    return 0;
}

static errcode_t channel_open(const char *name, int flags, io_channel *ret);

static struct struct_io_manager manager = {.magic = EXT2_ET_MAGIC_IO_MANAGER,
                                           .name = "platter",
                                           .open = channel_open,
                                           .close = channel_close,
                                           .set_blksize = channel_set_size,
                                           .read_blk = channel_read_32,
                                           .read_blk64 = channel_read,
                                           .write_blk = channel_write,
                                           .flush = channel_flush};

static errcode_t channel_open(const char *name, int flags, io_channel *ret)
{
    io_channel c = calloc(1, sizeof *c);
    (void)flags;
    if (c)
        c->name = strdup(name);
    if (!c || !c->name) {
        free(c);
        return EXT2_ET_NO_MEMORY;
    }
    c->magic = EXT2_ET_MAGIC_IO_CHANNEL;
    c->manager = &manager;
    c->block_size = 1024;
    c->refcount = 1;
    c->private_data = opening;
    *ret = c;
    return 0;
}

/* ---- open ------------------------------------------------------------------------------------ */

enum { MAX_DESCRIPTORS = 256 << 20 }; /* bytes of them: those of 512 TiB */

/* What the superblock says has to fit the volume, and the memory: the library takes as much as it
 * is told. */
static int check_size(struct ext *e, struct platter_error *err)
{
    struct ext2_super_block s;
    int r = volume_read(e->volume, &s, sizeof s, SUPERBLOCK_OFFSET, err);
    if (r < 0)
        return r;
    bool wide = le32toh(s.s_feature_incompat) & EXT4_FEATURE_INCOMPAT_64BIT;
    uint64_t blocks =
        le32toh(s.s_blocks_count) | (wide ? (uint64_t)le32toh(s.s_blocks_count_hi) << 32 : 0);
    uint32_t shift = le32toh(s.s_log_block_size), group = le32toh(s.s_blocks_per_group);
    if (shift > 6 || group < 8)
        return files_fail(err, PLATTER_ECORRUPT,
                          "%s: its superblock has blocks of 2^%u bytes, %u in a group: not valid",
                          e->volume->title, shift + 10, group);
    uint64_t size = 1024ull << shift;
    if (blocks > e->volume->length / size)
        return files_fail(
            err, PLATTER_ECORRUPT,
            "%s: its file system has %llu blocks of %llu bytes, which do not fit into "
            "%llu bytes: is something of the disk missing?",
            e->volume->title, (unsigned long long)blocks, (unsigned long long)size,
            (unsigned long long)e->volume->length);
    uint64_t each = wide && le16toh(s.s_desc_size) > 64 ? le16toh(s.s_desc_size) : 64;
    if (blocks / group > MAX_DESCRIPTORS / each)
        return files_fail(err, EFBIG, "%s: its tables of groups would take more than %d MiB",
                          e->volume->title, MAX_DESCRIPTORS >> 20);
    return 0;
}

enum { SLACK_READS = 4096 };

static int open_library(struct ext *e, struct platter_error *err)
{
    opening = e;
    e->reads = 0;
    e->most_reads = e->volume->length / 1024 + SLACK_READS;
    errcode_t code = ext_lib.open2("volume", NULL, EXT2_FLAG_64BITS, 0, 0, &manager, &e->fs);
    if (code || e->read_error.code)
        return ext_failed(e, code, "its superblock", 0, err);
    e->most_reads = 2 * (e->volume->length / e->fs->blocksize) + SLACK_READS;
    return 0;
}

/* With a journal that has something the file system is another one afterwards. */
static int open_as_mounted(struct ext *e, struct platter_error *err)
{
    int r = open_library(e, err);
    if (r < 0 || !(e->fs->super->s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER))
        return r;
    ext_journal_apply(e);
    ext_lib.close_free(&e->fs);
    e->read_error.code = 0;
    r = check_size(e, err);
    return r < 0 ? r : open_library(e, err);
}

static void ext_close(void *fs)
{
    struct ext *e = fs;
    if (e && e->fs)
        ext_lib.close_free(&e->fs);
    free(e);
}

static int ext_open(struct volume *v, void **ret, struct platter_error *err)
{
    struct ext *e = calloc(1, sizeof *e);
    if (!e)
        return files_fail(err, ENOMEM, "%s: no memory to open it", v->title);
    e->volume = v;
    int r = load(err);
    if (r == 0)
        r = check_size(e, err);
    if (r == 0)
        r = open_as_mounted(e, err);
    if (r < 0) {
        ext_close(e);
        return r;
    }
    *ret = e;
    return 0;
}

/* ---- inodes ---------------------------------------------------------------------------------- */

int ext_inode(struct ext *e, uint64_t id, struct ext2_inode_large *ret, struct platter_error *err)
{
    memset(ret, 0, sizeof *ret);
    e->read_error.code = 0;
    e->reads = 0;
    errcode_t code =
        id > UINT32_MAX
            ? EXT2_ET_BAD_INODE_NUM
            : ext_lib.read_inode_full(e->fs, (ext2_ino_t)id, (struct ext2_inode *)ret, sizeof *ret);
    if (code || e->read_error.code)
        return ext_failed(e, code, "a file or folder", id, err);
    return 0;
}

/* Seconds have 34 bits, where the inode has room for more than 32. */
static struct timespec time_of(uint32_t seconds, uint32_t extra, bool has_extra)
{
    struct timespec t = {.tv_sec = (int32_t)seconds};
    if (has_extra) {
        t.tv_sec += (time_t)(extra & 3) << 32;
        t.tv_nsec = extra >> 2 < 1000000000 ? extra >> 2 : 0;
    }
    return t;
}

static bool has_field(const struct ext2_inode_large *i, size_t end)
{
    return EXT2_GOOD_OLD_INODE_SIZE + (size_t)i->i_extra_isize >= end;
}

static void device_of(const struct ext2_inode_large *i, struct node *n)
{
    uint32_t old = i->i_block[0], new = i->i_block[1];
    if (!S_ISCHR(n->mode) && !S_ISBLK(n->mode))
        return;
    n->major = old ? old >> 8 & 0xff : (new & 0xfff00) >> 8;
    n->minor = old ? old & 0xff : (new & 0xff) | (new >> 12 & 0xfff00);
}

static bool is_type(uint32_t mode)
{
    return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) ||
           S_ISFIFO(mode) || S_ISSOCK(mode);
}

static int ext_node(void *fs, uint64_t id, struct node *ret, struct platter_error *err)
{
    struct ext2_inode_large i;
    struct ext *e = fs;
    int r = ext_inode(e, id, &i, err);
    if (r < 0)
        return r;
    *ret = (struct node){.id = id, .place = id, .mode = i.i_mode, .links = i.i_links_count};
    ret->uid = inode_uid(i);
    ret->gid = inode_gid(i);
    ret->size = i.i_size | (uint64_t)i.i_size_high << 32;
    size_t end = offsetof(struct ext2_inode_large, i_mtime_extra) + 4;
    ret->mtime = time_of(i.i_mtime, i.i_mtime_extra, has_field(&i, end));
    end = offsetof(struct ext2_inode_large, i_atime_extra) + 4;
    ret->atime = time_of(i.i_atime, i.i_atime_extra, has_field(&i, end));
    device_of(&i, ret);
    if (!i.i_links_count || !is_type(ret->mode))
        return files_fail(err, PLATTER_ECORRUPT,
                          "%s: inode %llu, to which a name leads, is not that of a file or folder",
                          e->volume->title, (unsigned long long)id);
    return 0;
}

/* Names of an encrypted folder, and bytes of an encrypted file, are not what they seem. */
static int refuse_encrypted(struct ext *e, const struct ext2_inode_large *i, uint64_t id,
                            struct platter_error *err)
{
    if (!(i->i_flags & EXT4_ENCRYPT_FL))
        return 0;
    return files_fail(err, ENOTSUP, "%s: inode %llu is encrypted by the file system",
                      e->volume->title, (unsigned long long)id);
}

/* ---- folders --------------------------------------------------------------------------------- */

struct collecting {
    struct listing *listing;
    struct platter_error *err;
    uint64_t blocks; /* that have been there */
    int r;
};

static int on_entry(ext2_ino_t dir, int kind, struct ext2_dir_entry *d, int offset, int size,
                    char *buffer, void *opaque)
{
    struct collecting *c = opaque;
    (void)dir, (void)kind, (void)size, (void)buffer;
    char name[256];
    c->blocks += offset == 0;
    if (!d->inode)
        return 0;
    size_t len = d->name_len & 0xff;
    memcpy(name, d->name, len);
    if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
        return 0;
    /* A zero, which cannot be shown, becomes what no name may have either. */
    for (size_t i = 0; i < len; i++)
        if (!name[i])
            name[i] = '/';
    c->r = listing_add(c->listing, name, len, NULL, d->inode, c->err);
    return c->r ? DIRENT_ABORT : 0;
}

static int ext_list(void *fs, const struct node *dir, struct listing *ret,
                    struct platter_error *err)
{
    struct ext *e = fs;
    struct ext2_inode_large i;
    struct collecting c = {.listing = ret, .err = err};
    int r = ext_inode(e, dir->id, &i, err);
    if (r == 0)
        r = refuse_encrypted(e, &i, dir->id, err);
    if (r < 0)
        return r;
    errcode_t code = ext_lib.dir_iterate2(e->fs, (ext2_ino_t)dir->id, DIRENT_FLAG_INCLUDE_EMPTY,
                                          NULL, on_entry, &c);
    if (c.r == 0 && (code || e->read_error.code))
        c.r = ext_failed(e, code, "a folder", dir->id, err);
    /* Folders have no holes: what is not there are entries that are lost. */
    if (c.r == 0 && !(i.i_flags & EXT4_INLINE_DATA_FL) && c.blocks * e->fs->blocksize < i.i_size)
        c.r = files_fail(err, PLATTER_ECORRUPT,
                         "%s: the folder of inode %llu has %u bytes, of which %llu are there",
                         e->volume->title, (unsigned long long)dir->id, i.i_size,
                         (unsigned long long)c.blocks * e->fs->blocksize);
    if (c.r < 0)
        listing_free(ret);
    return c.r;
}

/* ---- links ----------------------------------------------------------------------------------- */

enum { MAX_TARGET = 4096 };

struct reading {
    struct volume *volume;
    char *bytes;
};

static int read_run(void *opaque, const struct run *run, struct platter_error *err)
{
    struct reading *r = opaque;
    if (!run->bytes)
        return volume_read(r->volume, r->bytes + run->at, run->length, run->offset, err);
    memcpy(r->bytes + run->at, run->bytes, run->length);
    return 0;
}

static int ext_target(void *fs, const struct node *link, char **ret, struct platter_error *err)
{
    struct ext *e = fs;
    struct ext2_inode_large i;
    int r = ext_inode(e, link->id, &i, err);
    if (r == 0)
        r = refuse_encrypted(e, &i, link->id, err);
    if (r == 0 && (link->size == 0 || link->size >= MAX_TARGET))
        r = files_fail(err, PLATTER_ECORRUPT, "%s: the symbolic link of inode %llu has %llu bytes",
                       e->volume->title, (unsigned long long)link->id,
                       (unsigned long long)link->size);
    if (r < 0)
        return r;
    struct reading reading = {e->volume, calloc(1, (size_t)link->size + 1)};
    if (!reading.bytes)
        return files_fail(err, ENOMEM, "no memory for a symbolic link");
    if (link->size < sizeof i.i_block && !(i.i_flags & (EXT4_INLINE_DATA_FL | EXT4_EXTENTS_FL)))
        memcpy(reading.bytes, i.i_block, link->size);
    else
        r = ext_runs(e, link, read_run, &reading, err);
    if (r == 0 && strlen(reading.bytes) != link->size)
        r = files_fail(err, PLATTER_ECORRUPT, "%s: the symbolic link of inode %llu is damaged",
                       e->volume->title, (unsigned long long)link->id);
    if (r < 0)
        free(reading.bytes);
    else
        *ret = reading.bytes;
    return r;
}

static int ext_file_runs(void *fs, const struct node *file, run_fn fn, void *opaque,
                         struct platter_error *err)
{
    struct ext2_inode_large i;
    int r = ext_inode(fs, file->id, &i, err);
    if (r == 0)
        r = refuse_encrypted(fs, &i, file->id, err);
    return r < 0 ? r : ext_runs(fs, file, fn, opaque, err);
}

const struct fs_ops ext_ops = {.open = ext_open,
                               .close = ext_close,
                               .root = EXT2_ROOT_INO,
                               .node = ext_node,
                               .list = ext_list,
                               .target = ext_target,
                               .runs = ext_file_runs};

#else

static int ext_open(struct volume *v, void **ret, struct platter_error *err)
{
    (void)ret;
    return files_fail(err, ENOTSUP,
                      "%s: has ext2, ext3 or ext4, which this build cannot read "
                      "(-Dext2fs=enabled, with libext2fs, makes one that does)",
                      v->title);
}

static void ext_close(void *fs)
{
    (void)fs;
}

const struct fs_ops ext_ops = {.open = ext_open, .close = ext_close};

#endif
