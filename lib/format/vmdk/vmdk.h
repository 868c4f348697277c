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
 *   edit.c        the text, changed
 *   store.c       the text, written over the old one
 *   encoding.c    names in other encodings than UTF-8
 *   identity.c    content IDs: changed, compared with a parent's
 *   open.c        file -> descriptor -> extents; close
 *   extents.c     the lines of a descriptor, and the files they name
 *   sparse.c      a sparse file as a whole: directories, what may stand where
 *   cowd.c        what is other in the sparse files of ESX
 *   sesparse.c    the header and directory of a space-efficient sparse file, its entries
 *   sesparse_write.c  where such a file may be written
 *   tables.c      grain tables, loaded on demand and written back
 *   map.c         guest range -> extent
 *   write.c       reserve, commit, mark, flush
 *   unpack.c      compressed grains
 *   stream.c      tables of streams, against their markers and grains
 *   scan.c        the grains of a stream, without its tables
 *   salvage.c     reading what is damaged
 *   writer.c      streamOptimized, front to back
 *   layout.c      a new sparse file
 *   grow.c        a sparse file gets room for more
 *   resize.c      the image does
 *   relink.c      a child and its parent: commit and rebase
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
#include "format/vmdk/descriptor.h"

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
    bool at_end; /* this is a footer: tables stand behind their grains */
};

enum { HOSTED_UNCLEAN_AT = 72 }; /* offset of the byte `unclean` in the file */

bool hosted_magic(const uint8_t *sector); /* whether four bytes are the magic */
void hosted_decode(const uint8_t sector[VMDK_SECTOR], struct hosted_header *ret);
void hosted_encode(const struct hosted_header *h, uint8_t sector[VMDK_SECTOR]);
/* Reads and checks the header, and the footer where the header sends us there. */
int hosted_read(struct stream *s, uint64_t file_size, struct hosted_header *ret,
                struct platter_error *err);
/* For a salvage: the header or, where that is lost, the footer, with all numbers bounded; and then,
 * when the capacity is known, what does not stand in the file is taken out of it: gd_offset becomes
 * HOSTED_GD_AT_END where there is no directory at all. */
int hosted_find(struct stream *s, uint64_t file_size, struct hosted_header *ret,
                struct platter_error *err);
void hosted_forget_lost(struct stream *s, uint64_t file_size, struct hosted_header *h);
uint64_t hosted_directory_entries(const struct hosted_header *h);
/* The parts of hosted_read(). *ret_at is 0 where there is no footer; only reading can fail. */
int hosted_find_footer(struct stream *s, uint64_t file_size, struct hosted_header *ret,
                       hoff *ret_at, struct platter_error *err);
bool hosted_is_footer_of(const struct hosted_header *f, const struct hosted_header *h);
void hosted_forget_second(struct hosted_header *h);
/* Of a header that passed hosted_check(). */
int hosted_check_marker(struct stream *s, const struct hosted_header *h, struct platter_error *err);
/* What hosted_check() takes: the header of an image as a whole makes sense for a file of that size.
 */
int hosted_check(const char *name, const struct hosted_header *h, uint64_t file_size,
                 struct platter_error *err);

enum {
    RECORD_HEAD = 12, /* of a compressed grain: LBA and length, where the file has markers */
    RECORD_LOOK = 14  /* what tells that it is one */
};

/* A marker of a stream, one sector: section 5.2. */
enum marker { MARKER_EOS = 0, MARKER_GT = 1, MARKER_GD = 2, MARKER_FOOTER = 3 };
void marker_encode(enum marker type, uint64_t sectors, uint8_t sector[VMDK_SECTOR]);
bool marker_is(const uint8_t sector[VMDK_SECTOR], enum marker type);
/* The same, and what it says of the length of its payload can be: section 5.2. */
bool marker_leads(const uint8_t sector[VMDK_SECTOR], enum marker type, uint64_t payload);

/* ---- scan.c ---------------------------------------------------------------------------------- */

/* What stands in a stream of compressed grains, found without its tables: section 5.6. */
enum stream_item_kind {
    ITEM_RECORD,   /* a compressed grain */
    ITEM_TABLE,    /* a grain table behind its marker */
    ITEM_DIRECTORY /* what stands behind the marker of a grain directory */
};

struct stream_item {
    enum stream_item_kind kind;
    uint64_t sector; /* where the record begins, or what stands behind the marker */
    uint64_t grain;  /* the record's; the first that the table is for */
    uint32_t bytes;  /* RECORD: head and data as the head has it, without the padding */
    bool sound;      /* RECORD: it inflates, to no more than a grain */
};

/* Whether these bytes, which begin a sector, begin a record. */
bool stream_is_record(const struct hosted_header *h, const uint8_t bytes[RECORD_LOOK]);

/* Non-zero ends the scan, and is its result. */
typedef int (*stream_item_fn)(void *opaque, const struct stream_item *item,
                              struct platter_error *err);

/*
 * Walks a stream with markers (HOSTED_MARKERS) of `size` bytes from front to back, whatever its
 * directory says, and calls fn for each item in the order of the file. What makes no sense is
 * passed over, a sector at a time, up to the next record or table that does. Of the header, grain
 * size, entries of a table and capacity count; a capacity of 0 is unknown: any grain is taken.
 */
int stream_scan(struct stream *s, const struct hosted_header *h, uint64_t size,
                struct budget *budget, stream_item_fn fn, void *opaque, struct platter_error *err);

/* ---- sparse.c -------------------------------------------------------------------------------- */

/* In a directory in memory: what the file says names no table that can be. Hosted: it says 0, but
 * there was a table. */
#define VMDK_LOST_TABLE UINT32_MAX
/* The same: what it names is no table, or another range's. */
#define VMDK_WRONG_TABLE (UINT32_MAX - 1)

/* The three kinds of sparse files. Their magic tells them apart, never the line that names them. */
enum sparse_kind {
    SPARSE_HOSTED, /* KDMV: section 4 */
    SPARSE_COWD,   /* of ESX: section 6 */
    SPARSE_SE      /* space-efficient: section 7 */
};

/* A file of grains. What is other in COWD and seSparse files is translated where it can be: their
 * header stands in `header`, and `gd` always holds sectors. */
struct sparse {
    enum sparse_kind kind;
    struct stream *stream;
    struct hosted_header header;
    struct budget *budget;
    uint32_t grain;        /* bytes; a COWD's need not be a power of two */
    uint64_t grains;       /* that it has room for */
    uint32_t gt_sectors;   /* of one grain table */
    uint32_t entry_size;   /* of a grain table, in bytes: 4, or 8 (seSparse) */
    uint32_t page_entries; /* grains whose entries are cached together */
    uint32_t gd_count;
    uint32_t *gd;  /* sectors of the grain tables, 0: none, or VMDK_LOST_TABLE; image->lock */
    uint32_t *rgd; /* of their second copies, or NULL; image->lock */
    /* Tables that do not stand in front of the overhead, or all, ascending; image->lock. */
    uint32_t *strays;
    uint32_t n_strays, max_strays;
    bool packed; /* grains are compressed records */
    bool was_unclean;
    hoff end; /* nothing is handed out or looked for behind this; image->lock */
    struct {
        uint32_t free_sector; /* as it stands in the file; `slow` */
        uint32_t generation;
    } cowd;
    struct sesparse *se;     /* seSparse only */
    struct salvage *salvage; /* NULL: tables are believed */
    /* Tables of these pages are known to be empty, from the directory or from a hole of the file,
     * as long as nothing was written; image->lock. */
    uint64_t empty_from, empty_to;
};

/* Opens a file of grains; the stream stays the caller's. */
int sparse_open(struct image *img, struct stream *s, bool writable, struct sparse **ret,
                struct platter_error *err);
void sparse_free(struct sparse *s);
/* Checks an entry of the directory (not 0) / of a table (not 0 or 1): what it points to must stand
 * in the file and outside of metadata. `need` is how many bytes of the grain must be there. */
bool sparse_table_fits(const struct sparse *s, uint32_t gde);
int sparse_check_table(const struct sparse *s, uint64_t gt, struct platter_error *err);
int sparse_check_grain(const struct sparse *s, uint64_t grain, uint64_t gte, uint64_t need,
                       struct platter_error *err);
/* What an entry of a grain table says; *ret_sector is where the grain stands (DATA, PACKED). */
enum extent_kind sparse_entry(const struct sparse *s, uint64_t gte, uint64_t *ret_sector);
/* Room for n sectors at the end, aligned to grains. image->lock is held. */
int sparse_extend(struct sparse *s, uint64_t sectors, uint64_t *ret_sector,
                  struct platter_error *err);
/* Notes a table that stands behind the overhead, at the end of the file. image->lock is held. */
int sparse_add_stray(struct sparse *s, uint32_t sector, struct platter_error *err);

/* ---- stream.c -------------------------------------------------------------------------------- */

/* Looks for grains of ranges that a directory at the end has no table for: such an entry becomes
 * VMDK_LOST_TABLE. */
int stream_search_strays(struct sparse *s, struct platter_error *err);
/* Whether the table at `sector`, whose entries these are, is the one of entry `gt` of the
 * directory, as far as markers and records tell. Files without them: it is. */
int stream_check_table(struct image *img, const struct sparse *s, uint64_t gt, uint32_t sector,
                       const uint32_t *entries, bool *ret, struct platter_error *err);

/* What stands at `off`, between a record and what the table knows to follow it, must be no grain
 * that the table has lost. */
int stream_check_gap(struct image *img, struct sparse *s, hoff off, struct platter_error *err);

/* ---- salvage.c: with image->salvage ---------------------------------------------------------- */

struct salvage;
/* In place of hosted_read(), and when the directories, of those there are, have been read. */
int salvage_header(struct sparse *s, struct platter_error *err);
int salvage_directory(struct image *img, struct sparse *s, struct platter_error *err);
void salvage_free(struct sparse *s);
/* Mends the entries of a table that were read, or are zeros if it is not `there`. */
int salvage_table(struct image *img, struct sparse *s, uint64_t gt, bool there, uint32_t *entries,
                  struct platter_error *err);
/* Where the record of a grain really stands, of all there are in the file; 0: nowhere. */
int salvage_find(struct image *img, struct sparse *s, uint64_t grain, uint32_t *ret_sector,
                 struct platter_error *err);

/* ---- cowd.c ---------------------------------------------------------------------------------- */

enum {
    COWD_HEADER_SECTORS = 4,
    COWD_GTES = 4096,
    COWD_UNCLEAN_AT = 1648 /* offset of uncleanShutdown in the file */
};

bool cowd_magic(const uint8_t *sector);
/* Reads and checks the header of a COWD file: fills in s->header and s->cowd. */
int cowd_read(struct sparse *s, struct platter_error *err);
/* Marks the file as being written, with a new generation, or as closed. */
int cowd_set_unclean(struct sparse *s, bool unclean, struct platter_error *err);
/* What freeSector says of a file that is used up to `end`. */
uint32_t cowd_free_sector(hoff end);
/* freeSector of the header moves up to the end. Not durable by that. `slow` is held. */
int cowd_write_free_sector(struct image *img, struct sparse *s, struct platter_error *err);

/* ---- sesparse.c, sesparse_write.c ------------------------------------------------------------ */

enum {
    SE_GRAIN = 8, /* sectors */
    SE_GTES = 4096,
    SE_GT_SECTORS = 64,
    SE_FREE_TABLE_AT = 8 /* offset of freeGTNumber in the volatile header */
};

/* A part of a seSparse file, in sectors. */
struct se_area {
    uint64_t at, size;
};

struct sesparse {
    struct se_area volatile_header, journal_header, journal, directory, tables, free_bitmap,
        back_map, grains;
    uint64_t n_grains;   /* that the area has room for */
    uint64_t free_table; /* freeGTNumber as it stands in the file; `slow` */
    /* Found by the first write (se_judge()): */
    uint64_t next_grain; /* behind every index that an entry names; image->lock */
    const char *kept;    /* why no new grain can be given out, or NULL */
};

bool se_magic(const uint8_t *sector);
/* Reads and checks both headers: fills in s->header and s->se; the directory: fills in s->gd. */
int se_read(struct sparse *s, struct platter_error *err);
int se_read_directory(struct sparse *s, struct platter_error *err);
int se_write_gde(struct sparse *s, uint64_t gt, uint32_t sector, struct platter_error *err);
void se_free(struct sparse *s);
enum extent_kind se_entry(const struct sparse *s, uint64_t gte, uint64_t *ret_sector);
/* The entry of a grain at `sector`. */
uint64_t se_entry_of(const struct sparse *s, uint64_t sector);
#define SE_ZERO_ENTRY (UINT64_C(2) << 60)
/* Looks whether new grains can be given out. Every table was looked at: used_end is the first index
 * that no entry names. */
int se_judge(struct sparse *s, uint64_t used_end, struct platter_error *err);
uint64_t se_used_end(uint64_t gte); /* behind the index of an entry, or 0 */
/* Room for new grains, and back. image->lock is held. */
int se_extend(struct sparse *s, uint64_t sectors, uint64_t *ret_sector, struct platter_error *err);
void se_give_back(struct sparse *s, uint64_t sector, uint64_t grains);
/* 0, or why entries may not be changed. */
int se_check_allocating(const struct sparse *s, struct platter_error *err);
/* Makes a grain table that the directory lacks; *ret is its sector. `slow` is held. */
int se_add_table(struct image *img, struct sparse *s, uint64_t gt, uint32_t *ret,
                 struct platter_error *err);

/* ---- grow.c ---------------------------------------------------------------------------------- */

struct vmdk_extent;
/* Room in the file for an extent of so many sectors, durably; x->len is changed later. What lies
 * behind the old end reads as unallocated, or as zeros in the grain that it is in. x->sparse is
 * another one after it. The whole disk is held. */
int sparse_grow(struct image *img, struct vmdk_extent *x, uint64_t sectors,
                struct platter_error *err);
/* Takes the file as it is now for what it was; what only was in memory goes over. */
int sparse_reopen(struct image *img, struct vmdk_extent *x, struct platter_error *err);
/* Makes the grains that begin in [from, to) of a file zeros that hide what is below, durably. */
int sparse_hide(struct image *img, struct sparse *s, uint64_t from, uint64_t to,
                struct platter_error *err);

/* ---- relink.c -------------------------------------------------------------------------------- */

/* Whether a child is one of a parent with that CID. */
bool relink_accepts(const struct descriptor *d, uint32_t cid);

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
    PAGE_BYTES = 32 << 10, /* of grain tables that are cached together: 512 MiB of 64 KiB grains */
    PAGE_SECTORS = PAGE_BYTES / VMDK_SECTOR, /* bits of a mask */
    PAGE_TABLES = PAGE_BYTES / (VMDK_MIN_GTES * 4),
    CACHE_PAGES = 128 /* 4 MiB */
};

enum page_state { PAGE_EMPTY, PAGE_LOADING, PAGE_READY };

/* Consecutive grain tables of a sparse file. All fields: image->lock; but `entries` belong to the
 * loader while LOADING, and nobody changes them while `writing`. */
struct page {
    struct sparse *sparse;
    uint64_t number; /* of the page: its first grain / sparse->page_entries */
    enum page_state state;
    uint64_t used;    /* when, for choosing what to drop */
    uint64_t dirty;   /* a bit for each sector of entries */
    uint64_t writing; /* the same, being written back */
    union {           /* as they stand in the file, in our order of bytes */
        uint32_t *entries;
        uint64_t *wide; /* entry_size 8 */
    };
};

struct table_cache {
    struct page pages[CACHE_PAGES];
    unsigned n_pages; /* that have entries allocated */
    struct page *last;
    uint64_t clock;
    pthread_cond_t changed; /* a page was loaded or written back, or a record unpacked */
    uint8_t *bounce;        /* a page as it is written; under `slow` */
};

int tables_init(struct image *img, struct platter_error *err);
void tables_destroy(struct image *img);
/* The page with the entry of `grain`. On success image->lock is HELD, and the page stays what it is
 * until the caller gives the lock back. `change`: entries are going to be changed. */
int tables_enter(struct image *img, struct sparse *s, uint64_t grain, bool change,
                 struct page **ret, struct platter_error *err);
/* The entry of a grain, as it stands in the file. */
static inline uint64_t page_entry(const struct page *p, uint64_t grain)
{
    uint64_t i = grain % p->sparse->page_entries;
    return p->sparse->entry_size == 8 ? p->wide[i] : p->entries[i];
}
/* Changes n entries from that of `grain` on, none beyond the page: to grains in a row from `sector`
 * on, or to zeros. */
void page_set_grains(struct page *p, uint64_t grain, uint64_t n, uint64_t sector);
void page_set_zero(struct page *p, uint64_t grain, uint64_t n);
void page_clear(struct page *p, uint64_t grain, uint64_t n); /* ... or to nothing */
/* Drops all that is known of the tables of a file, changes as well: the file was changed, or goes.
 * Nobody else uses them. */
void tables_forget(struct image *img, struct sparse *s);
/* How many grains from `grain` on (at most `max`) are known to be unallocated without looking at
 * tables; 0: look. */
uint64_t tables_empty_run(struct image *img, struct sparse *s, uint64_t grain, uint64_t max);
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
    enum extent_type type;
    const char *word;      /* its type in the descriptor; "" where that is embedded */
    const char *unfit;     /* why it is not writable although the descriptor says so, or NULL */
    struct stream *stream; /* NULL: zeros, or NOACCESS */
    bool shares;           /* an extent before this one owns the stream */
    hoff off;              /* flat: where the data begins in the stream */
    hoff end;              /* flat: where the stream ended at open */
    struct sparse *sparse; /* NULL: flat or zeros */
};

struct unpack_buffer;

struct vmdk {
    struct descriptor *descriptor;
    hoff descriptor_off;     /* where the text stands in image->stream, */
    uint64_t descriptor_len; /* and the bytes it has there at most */
    bool embedded;           /* it stands in a sparse file, behind the header */
    bool bare;               /* there is none: a lone extent was opened, to be read */
    struct vmdk_extent *extents;
    unsigned n_extents;
    unsigned max_extents;
    pthread_mutex_t slow;
    bool looked;        /* all tables were, and say nothing against a write; `slow` */
    atomic_bool begun;  /* the image is another disk than it was: its first write has come */
    atomic_bool marked; /* its files are marked as being written */
    uint32_t next_cid;  /* what the first write makes of the CID; 0: whatever is new */
    struct table_cache tables;
    struct unpack_buffer *buffers; /* idle ones; image->lock */
    unsigned n_buffers;            /* that there are; image->lock */
    struct checkup *checkup;       /* check.h; of an image that is checked alone */
};

static inline struct vmdk *vmdk_of(const struct image *img)
{
    return img->state;
}

/* Whether the first bytes of a file are a text descriptor. Pure. */
bool descriptor_probe(const uint8_t *prefix, size_t len);
/* The descriptor as it is now: a change replaces it, and keeps the old one until close. */
const struct descriptor *vmdk_descriptor(struct image *img);

struct vmdk_extent *vmdk_extent_at(const struct vmdk *v, goff off);

int vmdk_open(struct image *img, struct platter_error *err);
int vmdk_close(struct image *img, struct platter_error *err);
bool vmdk_file(const struct image *img, unsigned i, struct stream **ret);
/* Checks the CID of the image below against what this one remembers: section 11. */
int vmdk_accept_backing(struct image *img, const struct image *backing, struct platter_error *err);

/* Memory for the extents of the descriptor, */
int vmdk_make_extents(struct image *img, struct platter_error *err);
/* ... one of them, appended, whose file is not opened yet, */
int vmdk_add_extent(struct image *img, const struct descriptor_extent *line,
                    struct platter_error *err);
/* ... and all of them, with their files. */
int vmdk_open_extents(struct image *img, struct platter_error *err);
/* Whether a file of grains has room for the sectors that its line says. */
int vmdk_check_capacity(const struct image *img, const struct sparse *s, uint64_t sectors,
                        struct platter_error *err);
/* Reads the text at off: fills in descriptor*, embedded, and bare where there is room but no text.
 */
int vmdk_read_descriptor(struct image *img, hoff off, uint64_t len, bool embedded,
                         struct platter_error *err);
/* Opens a file by the name it has in UTF-8, which is what it is called here, or else by the bytes
 * of the descriptor. */
int vmdk_open_named(struct image *img, const char *bytes, bool writable, struct stream **ret,
                    struct platter_error *err);
/* Instead of the rest of open, for an image that is to be checked: takes what it finds. */
int vmdk_open_for_check(struct image *img, struct platter_error *err);
void vmdk_close_checked(struct image *img);
int vmdk_check(struct image *img, struct check *c, struct platter_error *err);

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
/* Whatever the first write is preceded by. With image->same_content the CID stays, until a write
 * without it comes. */
int vmdk_begin(struct image *img, struct platter_error *err);
/* Whether anything may have been written, of whatever kind. */
bool vmdk_has_begun(const struct image *img);
/* Takes the mark of the first write back. */
int vmdk_end(struct image *img, struct platter_error *err);

int vmdk_resize(struct image *img, const struct resize_request *q, struct platter_error *err);
int vmdk_set_backing(struct image *img, const char *name, const char *backing_format,
                     const struct image *backing, struct platter_error *err);
int vmdk_follow_backing(struct image *img, struct image *backing, struct platter_error *err);
int vmdk_make_empty(struct image *img, struct platter_error *err);
int vmdk_may_set_backing(struct image *img, const char *name, const char *backing_format,
                         const struct image *backing, struct platter_error *err);
int vmdk_may_commit(struct image *img, bool follow, bool empty, struct platter_error *err);

/* The controller that a new descriptor names. */
const char *vmdk_adapter(const struct option_values *options);
extern const struct option_def vmdk_options[];
/* Says all of a new image's descriptor but the names of its files, and fails where no such image
 * can be: what create, the writer and measure ask first. */
int vmdk_plan(const struct create_request *request, struct descriptor_plan *ret,
              struct platter_error *err);
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
