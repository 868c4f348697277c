/* SPDX-License-Identifier: MIT */
/*
 * Files inside of disks: what platter ls and platter cp share.
 *
 *     disk -> table of partitions -> volume (a range of the disk) -> file system -> nodes
 *
 * All of it is read-only, and every byte of the disk is hostile: names, numbers, loops. What cannot
 * be read, or cannot be true, is an error; nothing reads as zeros instead. Fallible functions
 * answer 0 or a negative code and leave a sentence.
 */
#ifndef FILES_H
#define FILES_H

#include <platter/platter.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/* Fills *err (which may be NULL) and answers -code. */
int files_fail(struct platter_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- volumes (files_volume.c) ---------------------------------------------------------------- */

struct volume_cache;

/* A block of which a newer state stands elsewhere: in a journal. */
struct patch {
    uint64_t block;
    uint64_t at;  /* where on the volume its newer bytes are */
    bool escaped; /* ... but for the first four, which are those of a journal's block */
};

/* A range of a disk that holds a file system. */
struct volume {
    struct platter_disk *disk;
    char title[512]; /* for sentences */
    char doubt[256]; /* what may be wrong although it opened; "" if nothing is */
    uint64_t start, length;
    struct volume_cache *cache;
    struct patch *patches; /* sorted by block */
    size_t n_patches;
    uint32_t patch_size; /* bytes of their blocks */
};

int volume_open(struct volume *v, struct platter_disk *disk, const char *title, uint64_t start,
                uint64_t length, struct platter_error *err);
void volume_close(struct volume *v);
/* All of the bytes or an error; what lies past the end is one. */
int volume_read(struct volume *v, void *buffer, size_t len, uint64_t offset,
                struct platter_error *err);
/* From now on reads see the newer blocks, which become the volume's. */
void volume_patch(struct volume *v, struct patch *patches, size_t n, uint32_t size);

/* ---- file systems (files_kind.c) ------------------------------------------------------------- */

/* What is known of a file or folder. */
struct node {
    uint64_t id;    /* the file system's own: an inode, the place of an entry */
    uint64_t place; /* of a folder: the same for whatever leads to the same one */
    uint32_t mode;  /* as in struct stat */
    uint32_t uid, gid, links, major, minor;
    uint64_t size;
    struct timespec mtime, atime;
};

struct entry {
    char *name;  /* any bytes but NUL */
    char *alias; /* a second name under which it is found, or NULL */
    uint64_t id;
};

/* The entries of a folder, without "." and "..". */
struct listing {
    struct entry *entries;
    size_t n, room;
};

/* Adds one; copies the names. ENOMEM, or EFBIG where a folder has more than anybody's. */
int listing_add(struct listing *l, const char *name, size_t len, const char *alias, uint64_t id,
                struct platter_error *err);
void listing_sort(struct listing *l); /* by name, by bytes */
/* A name that is there more than once, or NULL. Sorts them. */
const char *listing_twice(struct listing *l);
void listing_free(struct listing *l);

/* Folders that were gone into, by their places. A folder has one name, but a disk that was damaged,
 * or made for that, leads to a few of them in more ways than can be counted. */
struct seen {
    uint64_t *places; /* each plus one, at a hash of it; 0: free */
    size_t n, room;
};

/* -EEXIST: it was there before. */
int seen_add(struct seen *s, uint64_t place, struct platter_error *err);
void seen_free(struct seen *s);

/* A piece of a file: `length` bytes from `at`. What lies between two of them is a hole. */
struct run {
    uint64_t at, length;
    uint64_t offset;   /* where they are on the volume, unless there are */
    const void *bytes; /* ... these */
};

/* Anything but 0 ends what calls it, which then answers that. */
typedef int (*run_fn)(void *opaque, const struct run *run, struct platter_error *err);

struct fs_ops {
    int (*open)(struct volume *v, void **ret, struct platter_error *err);
    void (*close)(void *fs);
    uint64_t root; /* id of the uppermost folder */
    bool any_case; /* whether "A" and "a" are one name */
    int (*node)(void *fs, uint64_t id, struct node *ret, struct platter_error *err);
    int (*list)(void *fs, const struct node *dir, struct listing *ret, struct platter_error *err);
    /* Where a symbolic link leads to, to be freed. NULL where there are none. */
    int (*target)(void *fs, const struct node *link, char **ret, struct platter_error *err);
    /* The pieces of a regular file in ascending order, none of which goes past its size. */
    int (*runs)(void *fs, const struct node *file, run_fn fn, void *opaque,
                struct platter_error *err);
};

extern const struct fs_ops fat_ops; /* files_fat.c */
extern const struct fs_ops ext_ops; /* files_ext.c */

/* What stands at the beginning of a volume, as far as that is known. */
struct fs_kind {
    const char *name;         /* "ext4"; NULL: nothing known */
    const struct fs_ops *ops; /* NULL: files in it cannot be read here */
    char label[260], uuid[48];
};

/* An error only where the disk cannot be read. */
int fs_identify(struct volume *v, struct fs_kind *ret, struct platter_error *err);

/* Mixed-endian, as GPT has them; 36 characters. */
void guid_text(const uint8_t guid[16], char ret[48]);
/* UTF-16, little-endian, to its first zero; what is no character becomes U+FFFD. */
void utf16_text(const uint8_t *units, size_t n, char *ret, size_t size);

/* An open file system. */
struct fs {
    struct volume volume;
    const struct fs_ops *ops;
    void *own;
};

/* ---- partitions (files_table.c, files_gpt.c) ------------------------------------------------- */

struct partition {
    unsigned number; /* as Linux counts; 0: the whole disk, which has no table */
    uint64_t start, length;
    char type[48];     /* a word for people, or the number or GUID */
    char type_id[48];  /* "0x83", or a GUID */
    char uuid[48];     /* of the partition itself */
    char name[72 * 3]; /* GPT has names */
    bool is_container; /* an extended partition: others are in it */
    bool unread;       /* its beginning cannot be read: what is in it is not known */
    struct fs_kind kind;
};

enum { MAX_PARTITIONS = 1024 }; /* a GPT usually has room for 128 */

struct table {
    const char *scheme; /* "gpt", "mbr", or NULL: none */
    unsigned sector_size;
    struct partition parts[MAX_PARTITIONS];
    unsigned n;
    char doubt[512]; /* what is wrong with a table that was read all the same; "" if nothing is */
};

/* One more, which is looked into. Where it ends past the disk, so does the file system, which is an
 * error as soon as that is read. */
struct partition *table_add(struct table *t, unsigned number, uint64_t start, uint64_t length);
/* Partitions of the disk, to be freed. */
int table_read(struct platter_disk *disk, const char *title, struct table **ret,
               struct platter_error *err);
/* -ENOENT: there is none that is whole. */
int gpt_read(struct platter_disk *disk, struct table *t);
/* Bytes of a disk, which has to have them. */
int table_peek(struct platter_disk *disk, const char *title, void *buffer, size_t len,
               uint64_t offset, struct platter_error *err);

/* ---- paths (files_path.c) -------------------------------------------------------------------- */

/* Follows a path from the uppermost folder, through symbolic links, never out of the file system:
 * ".." of that folder is the folder itself. Whether a link at the end is followed is `follow`. */
int path_find(struct fs *fs, const char *path, bool follow, struct node *ret,
              struct platter_error *err);

/* Whether a name out of a folder can be one of ours: not empty, "." or "..", and no "/" in it. */
bool name_is_sound(const char *name);

/* ---- what both verbs do (files_open.c) ------------------------------------------------------- */

struct args;

/* A disk, its partitions, and a file system of it. */
struct browse {
    const char *name;
    char title[4096];
    struct platter_disk *disk;
    struct table *table;
    struct fs fs;
};

/* Opens a disk and reads its table. Prints what fails, and doubts. 0 or negative. */
int browse_open(const struct args *args, const char *image, struct browse *ret);
/* Whether the beginning of each partition can be read. Prints those that cannot. */
int browse_check(const struct browse *b);
/* Opens the file system that --partition names, or the one that is meant. */
int browse_choose(const struct args *args, struct browse *b);
void browse_close(struct browse *b);

#endif
