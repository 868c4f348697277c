/* SPDX-License-Identifier: MIT */
/*
 * VMDK inside: what its files share.
 *
 * A disk is one text descriptor and one or more extents, laid end to end (vmdk.md section 1). An
 * extent is flat (bytes of a file as they are), zero (no file), or sparse: a file of grains behind
 * a two-level table (grain directory, grain tables). Everything above extents is indifferent to
 * what the descriptor calls the whole.
 *
 *   vmdk.c        the table of operations, probe
 *   header.c      header and footer of a sparse file
 *   descriptor.c  the text, read
 *   text.c        the text, composed
 *   open.c        file -> descriptor -> extents; close
 *   sparse.c      a sparse file as a whole: directories, what may stand where
 *   tables.c      grain tables, loaded on demand and written back
 *   map.c         guest range -> extent
 *   write.c       reserve, commit, mark, flush
 *   unpack.c      compressed grains
 *   writer.c      streamOptimized, front to back
 *   layout.c      a new sparse file
 *   create.c      new images, measure
 *   info.c        what is told about an image
 *
 * Locks: `slow` of an image before image->lock; `slow` is held over I/O (the first write, new grain
 * tables, write-back), image->lock never.
 */
#ifndef FORMAT_VMDK_VMDK_H
#define FORMAT_VMDK_VMDK_H

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/format.h"

enum {
    VMDK_SECTOR = 512, /* of every field, whatever the guest's sectors are: section 0 */
    VMDK_GRAIN = 128,  /* sectors of a grain in new images: 64 KiB, what all readers know */
    VMDK_GTES = 512,   /* entries of a grain table in new images */
    VMDK_DESCRIPTOR_SECTOR = 1, /* where new images have their descriptor, and how long: */
    VMDK_DESCRIPTOR_SECTORS = 20
};

/* Limits on what a file may ask for: section 15. */
enum {
    VMDK_MAX_DESCRIPTOR = 1 << 20, /* bytes of text */
    VMDK_MAX_LINES = 1 << 16,
    VMDK_MAX_EXTENTS = 4096,
    VMDK_MAX_GRAIN = 32768, /* sectors: 16 MiB, so that a record can be held in memory */
    VMDK_MIN_GTES = 128,    /* one sector of entries */
    VMDK_MAX_GTES = 4096,
    VMDK_MAX_DIRECTORY = 1 << 25 /* entries: what other readers take */
};
#define VMDK_MAX_SECTORS ((UINT64_C(1) << 54) - 1) /* of a disk: its bytes then fit an off_t */

#define VMDK_NO_CID   UINT32_C(0xffffffff) /* as parentCID: has no parent */
#define VMDK_LONG_CID UINT32_C(0xfffffffe) /* look at ddb.longContentID: section 3.3 */

/* ---- header.c -------------------------------------------------------------------------------- */

enum {
    HOSTED_NEWLINES = 1 << 0,
    HOSTED_REDUNDANT = 1 << 1,
    HOSTED_ZEROED = 1 << 2,
    HOSTED_COMPRESSED = 1 << 16,
    HOSTED_MARKERS = 1 << 17
};
#define HOSTED_GD_AT_END UINT64_MAX

/* A hosted sparse file's header, also its footer: section 4.1. Sectors, where not said otherwise.
 */
struct hosted_header {
    uint32_t version;
    uint32_t flags; /* HOSTED_* */
    uint64_t capacity;
    uint64_t grain_size;
    uint64_t descriptor_offset, descriptor_size;
    uint32_t gtes_per_gt;
    uint64_t rgd_offset, gd_offset;
    uint64_t overhead;
    uint8_t unclean;
    uint8_t newlines[4];
    uint16_t compression;
};

enum { HOSTED_UNCLEAN_AT = 72 }; /* offset of the byte `unclean` in the file */

bool hosted_magic(const uint8_t *sector); /* whether four bytes are the magic */
void hosted_decode(const uint8_t sector[VMDK_SECTOR], struct hosted_header *ret);
void hosted_encode(const struct hosted_header *h, uint8_t sector[VMDK_SECTOR]);
/* Reads and checks the header, and the footer where the header sends us there. */
int hosted_read(struct stream *s, uint64_t file_size, struct hosted_header *ret,
                struct platter_error *err);
uint64_t hosted_directory_entries(const struct hosted_header *h);
/* What hosted_check() takes: the header of an image as a whole makes sense for a file of that size.
 */
int hosted_check(const char *name, const struct hosted_header *h, uint64_t file_size,
                 struct platter_error *err);

enum { RECORD_HEAD = 12 }; /* of a compressed grain: LBA and length, where the file has markers */

/* A marker of a stream, one sector: section 5.2. */
enum marker { MARKER_EOS = 0, MARKER_GT = 1, MARKER_GD = 2, MARKER_FOOTER = 3 };
void marker_encode(enum marker type, uint64_t sectors, uint8_t sector[VMDK_SECTOR]);

/* ---- descriptor.c ---------------------------------------------------------------------------- */

enum access { ACCESS_NONE, ACCESS_READ, ACCESS_WRITE };
enum extent_type { TYPE_FLAT, TYPE_SPARSE, TYPE_ZERO, TYPE_VMFS, TYPE_OTHER };

/* key = value. Strings belong to the descriptor. */
struct descriptor_line {
    const char *key;
    const char *value; /* without quotes */
    size_t pos;        /* where the value stands in the text */
};

/* ACCESS SECTORS TYPE "FILE" OFFSET: section 3.5. */
struct descriptor_extent {
    enum access access;
    enum extent_type type;
    const char *word; /* the type as it is written */
    uint64_t sectors;
    const char *file; /* NULL: none */
    uint64_t offset;
};

/* The text, taken apart; unknown keys are kept among the lines. */
struct descriptor {
    struct budget *budget;
    char *words; /* the text with NULs put in: what lines and extents point into */
    size_t words_size;
    struct descriptor_line *lines;
    struct descriptor_extent *extents;
    unsigned n_lines, max_lines, n_extents, max_extents;
    uint32_t cid, parent_cid;
};

/* Parses `len` bytes. `embedded`: whatever stands behind the first NUL is ignored. */
int descriptor_parse(struct budget *budget, const char *name, const uint8_t *bytes, size_t len,
                     bool embedded, struct descriptor **ret, struct platter_error *err);
void descriptor_free(struct descriptor *d); /* NULL is fine */
/* The first line with that key, whatever its case, or NULL. */
const struct descriptor_line *descriptor_find(const struct descriptor *d, const char *key);
const char *descriptor_value(const struct descriptor *d, const char *key); /* or NULL */

/* ---- text.c ---------------------------------------------------------------------------------- */

/* What a new descriptor says. */
struct descriptor_plan {
    const char *create_type;
    const char *access; /* of the one extent */
    const char *extent; /* its file's name */
    uint64_t sectors;
    uint32_t cid, parent_cid;
    const char *parent; /* parentFileNameHint, or NULL */
    const char *hw_version, *adapter, *tools_version;
};

/* Fills what the request and its options say; the caller adds create_type, access, extent, cid. */
int descriptor_plan(const struct create_request *request, struct descriptor_plan *ret,
                    struct platter_error *err);
/* Composes the text into `area` of VMDK_DESCRIPTOR_SECTORS, padded with NULs. */
int descriptor_compose(const struct descriptor_plan *plan, const char *name, uint8_t *area,
                       struct platter_error *err);
uint32_t descriptor_new_cid(void);

/* ---- sparse.c -------------------------------------------------------------------------------- */

/* In a directory in memory: the file says 0, but there was a table. */
#define VMDK_LOST_TABLE UINT32_MAX

/* A file of grains. */
struct sparse {
    struct stream *stream;
    struct hosted_header header;
    struct budget *budget;
    uint32_t grain;      /* bytes */
    uint64_t grains;     /* that it has room for */
    uint32_t gt_sectors; /* of one grain table */
    uint32_t gd_count;
    uint32_t *gd;  /* sectors of the grain tables, 0: none, or VMDK_LOST_TABLE; image->lock */
    uint32_t *rgd; /* of their second copies, or NULL; image->lock */
    bool packed;   /* grains are compressed records */
    bool was_unclean;
    hoff end; /* nothing is handed out or looked for behind this; image->lock */
};

/* Opens a file of grains; the stream stays the caller's. */
int sparse_open(struct image *img, struct stream *s, bool writable, struct sparse **ret,
                struct platter_error *err);
void sparse_free(struct sparse *s);
/* Checks an entry of the directory (not 0) / of a table (not 0 or 1): what it points to must stand
 * in the file and outside of metadata. `need` is how many bytes of the grain must be there. */
bool sparse_table_fits(const struct sparse *s, uint32_t gde);
int sparse_check_table(const struct sparse *s, uint64_t gt, struct platter_error *err);
int sparse_check_grain(const struct sparse *s, uint64_t grain, uint32_t gte, uint64_t need,
                       struct platter_error *err);
/* Room for n sectors at the end, aligned to grains. image->lock is held. */
int sparse_extend(struct sparse *s, uint64_t sectors, uint32_t *ret_sector,
                  struct platter_error *err);

/* ---- layout.c -------------------------------------------------------------------------------- */

/* A sparse file as it is made, with all its grain tables. */
struct sparse_layout {
    struct hosted_header header;
    uint64_t tables;     /* in each copy */
    uint64_t gd_sectors; /* of each copy */
};

/* Fails where the file could not be filled: section 9. `zeroed`: tables may mark zeros. */
int layout_plan(const char *name, uint64_t sectors, bool zeroed, struct sparse_layout *ret,
                struct platter_error *err);
/* Writes it into an empty file. `descriptor`: the VMDK_DESCRIPTOR_SECTORS of its text, or NULL: the
 * text is elsewhere. */
int layout_write(struct stream *s, const struct sparse_layout *l, const uint8_t *descriptor,
                 struct platter_error *err);

/* ---- tables.c -------------------------------------------------------------------------------- */

enum {
    PAGE_ENTRIES =
        8192, /* grain table entries that are cached together: 512 MiB of 64 KiB grains */
    PAGE_SECTORS = PAGE_ENTRIES * 4 / VMDK_SECTOR, /* bits of a mask */
    PAGE_TABLES = PAGE_ENTRIES / VMDK_MIN_GTES,
    CACHE_PAGES = 128 /* 4 MiB */
};

enum page_state { PAGE_EMPTY, PAGE_LOADING, PAGE_READY };

/* Consecutive grain tables of a sparse file. All fields: image->lock; but `entries` belong to the
 * loader while LOADING, and nobody changes them while `writing`. */
struct page {
    struct sparse *sparse;
    uint64_t number; /* of the page: its first grain / PAGE_ENTRIES */
    enum page_state state;
    uint64_t used;    /* when, for choosing what to drop */
    uint64_t dirty;   /* a bit for each sector of entries */
    uint64_t writing; /* the same, being written back */
    uint32_t *entries;
};

struct table_cache {
    struct page pages[CACHE_PAGES];
    unsigned n_pages; /* that have entries allocated */
    struct page *last;
    uint64_t clock;
    pthread_cond_t changed; /* a page was loaded or written back */
    uint8_t *bounce;        /* a page as it is written; under `slow` */
};

int tables_init(struct image *img, struct platter_error *err);
void tables_destroy(struct image *img);
/* The page with the entry of `grain`. On success image->lock is HELD, and the page stays what it is
 * until the caller gives the lock back. `change`: entries are going to be changed. */
int tables_enter(struct image *img, struct sparse *s, uint64_t grain, bool change,
                 struct page **ret, struct platter_error *err);
/* Changes n entries from that of `grain` on, none beyond the page. */
void page_set(struct page *p, uint64_t grain, uint64_t n, uint32_t value, uint32_t step);
/* Makes a grain table that the directory lacks. */
int tables_add(struct image *img, struct sparse *s, uint64_t gt, struct platter_error *err);
/* Data durable, then changed entries to both copies. They are not durable by that. */
int tables_write_back(struct image *img, struct platter_error *err);

/* ---- the image ------------------------------------------------------------------------------- */

/* One extent of the disk. */
struct vmdk_extent {
    goff start;
    uint64_t len;
    enum access access;
    const char *word;      /* its type in the descriptor; "" where that is embedded */
    struct stream *stream; /* NULL: zeros */
    bool shares;           /* an extent before this one owns the stream */
    hoff off;              /* flat: where the data begins in the stream */
    hoff end;              /* flat: where the stream ended at open */
    struct sparse *sparse; /* NULL: flat or zeros */
};

struct unpack_buffer;

struct vmdk {
    struct descriptor *descriptor;
    hoff descriptor_off; /* where the text stands in image->stream */
    struct vmdk_extent *extents;
    unsigned n_extents;
    unsigned max_extents;
    pthread_mutex_t slow;
    atomic_bool begun; /* the image is marked as being written: its first write has come */
    struct table_cache tables;
    struct unpack_buffer *buffers; /* idle ones; image->lock */
};

static inline struct vmdk *vmdk_of(const struct image *img)
{
    return img->state;
}

/* Whether the first bytes of a file are a text descriptor. Pure. */
bool descriptor_probe(const uint8_t *prefix, size_t len);

struct vmdk_extent *vmdk_extent_at(const struct vmdk *v, goff off);

int vmdk_open(struct image *img, struct platter_error *err);
int vmdk_close(struct image *img, struct platter_error *err);
/* Checks the CID of the image below against what this one remembers: section 11. */
int vmdk_accept_backing(struct image *img, const struct image *backing, struct platter_error *err);

int vmdk_map(struct image *img, goff off, uint64_t len, struct extent *ret,
             struct platter_error *err);
/* How many entries from that of `grain` on (of at most `max`, none beyond the page) are alike: all
 * unallocated, all zero, or grains in a row. The lock is held. */
uint64_t vmdk_run(const struct sparse *s, const struct page *p, uint64_t grain, uint64_t max);

int vmdk_unpack(struct image *img, const struct extent *e, void *out, struct platter_error *err);
void vmdk_free_buffers(struct image *img);

int vmdk_reserve(struct image *img, goff off, uint64_t len, struct reservation *ret,
                 struct platter_error *err);
int vmdk_commit(struct image *img, const struct reservation *r, struct platter_error *err);
void vmdk_abandon(struct image *img, const struct reservation *r);
int vmdk_mark(struct image *img, goff off, uint64_t len, enum mark mark, bool unmap,
              struct platter_error *err);
int vmdk_flush(struct image *img, struct platter_error *err);
/* Takes the mark of the first write back. */
int vmdk_end(struct image *img, struct platter_error *err);

enum vmdk_subformat { SUBFORMAT_MONOLITHIC_SPARSE, SUBFORMAT_STREAM_OPTIMIZED };
extern const char *const vmdk_adapters[]; /* values of adapter_type */
extern const struct option_def vmdk_options[];
int vmdk_create(const struct create_request *request, struct platter_error *err);
bool vmdk_ordered(const struct option_values *options);
int vmdk_writer_open(const struct create_request *request, struct image_writer **ret,
                     struct platter_error *err);
int vmdk_measure(uint64_t size, uint64_t data, const struct option_values *options,
                 struct platter_measurement *ret, struct platter_error *err);
uint32_t vmdk_create_unit(const struct option_values *options);

json_t *vmdk_info(struct image *img);
int vmdk_info_top(struct image *img, json_t *info);

#endif
