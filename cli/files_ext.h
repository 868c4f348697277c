/* SPDX-License-Identifier: MIT */
/* What the files about ext2, ext3 and ext4 share: the library's functions, and an open one. */
#ifndef FILES_EXT_H
#define FILES_EXT_H

#include "config.h"
#include "files.h"

#if HAVE_EXT2FS

/* Its header has conversions of its own. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#pragma GCC diagnostic pop

struct ext_library {
    typeof(ext2fs_open2) *open2;
    typeof(ext2fs_close_free) *close_free;
    typeof(ext2fs_read_inode_full) *read_inode_full;
    typeof(ext2fs_dir_iterate2) *dir_iterate2;
    typeof(ext2fs_block_iterate3) *block_iterate3;
    typeof(ext2fs_extent_open2) *extent_open2;
    typeof(ext2fs_extent_get) *extent_get;
    typeof(ext2fs_extent_free) *extent_free;
    typeof(ext2fs_inline_data_size) *inline_data_size;
    typeof(ext2fs_inline_data_get) *inline_data_get;
    typeof(ext2fs_crc32c_le) *crc32c;
    void (*initialize_errors)(void);
    const char *(*error_message)(long code);
};
extern struct ext_library ext_lib; /* once a volume was opened */

struct ext {
    struct volume *volume;
    ext2_filsys fs;
    struct platter_error read_error; /* the first one of the operation that goes on */
    uint64_t reads, most_reads;      /* calls of it, and how many there are at most: nothing that is
                                        sound asks for much more blocks than there are */
};

/* The sentence of a failed call: what the disk says, or else the library. */
int ext_failed(struct ext *e, errcode_t code, const char *what, uint64_t id,
               struct platter_error *err);
int ext_inode(struct ext *e, uint64_t id, struct ext2_inode_large *ret, struct platter_error *err);
/* The pieces of a file or a link (files_ext_runs.c). */
int ext_runs(struct ext *e, const struct node *file, run_fn fn, void *opaque,
             struct platter_error *err);

/* Has the volume read what the journal of the file system has; if not, that is its doubt. */
void ext_journal_apply(struct ext *e);

#endif
#endif
