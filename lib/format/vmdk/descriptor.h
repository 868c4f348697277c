/* SPDX-License-Identifier: MIT */
/* The text descriptor of a VMDK: read, changed, composed anew (vmdk.md sections 3 and 11). */
#ifndef FORMAT_VMDK_DESCRIPTOR_H
#define FORMAT_VMDK_DESCRIPTOR_H

#include "format/format.h"

/* ---- descriptor.c ---------------------------------------------------------------------------- */

enum access { ACCESS_NONE, ACCESS_READ, ACCESS_WRITE };
enum extent_type {
    TYPE_FLAT,
    TYPE_SPARSE,
    TYPE_ZERO,
    TYPE_VMFS,
    TYPE_VMFSSPARSE,
    TYPE_SESPARSE,
    TYPE_VMFSRDM,
    TYPE_VMFSRAW,
    TYPE_OTHER
};
extern const char *const access_words[]; /* of enum access */
extern const char *const type_words[];   /* of enum extent_type but OTHER */

/* key = value. Strings belong to the descriptor, and are bytes in its encoding. */
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

/* Whether it places the bytes of a file as they are. */
static inline bool line_is_flat(const struct descriptor_extent *line)
{
    return line->type == TYPE_FLAT || line->type == TYPE_VMFS;
}

/* Where something stands in a text; len 0: it is not there, or empty. */
struct text_span {
    size_t at, len;
};

enum text_kind { TEXT_BLANK, TEXT_KEY, TEXT_EXTENT, TEXT_NONSENSE };

/* One line of a text, taken apart: section 3.2. */
struct text_line {
    size_t start, end; /* without what ends the line, and blanks in front of that */
    size_t next;       /* where the next line begins */
    enum text_kind kind;
    struct text_span key, value;                          /* KEY; the value without its quotes */
    bool quoted;                                          /* the value is */
    struct text_span access, sectors, type, file, offset; /* EXTENT; the file without quotes */
};

/* Where the first line of a text begins: behind the mark that editors of Windows put in front of
 * UTF-8, if it has one. Pure. */
size_t text_begin(const void *text, size_t len);

/* The line that begins at `at`; false: the text has ended. Pure. */
bool text_line_at(const char *text, size_t len, size_t at, struct text_line *ret);

/* The text, taken apart; unknown keys are kept among the lines. */
struct descriptor {
    struct budget *budget;
    char *words; /* the text with NULs put in: what lines and extents point into */
    size_t words_size;
    struct descriptor_line *lines;
    struct descriptor_extent *extents;
    unsigned n_lines, max_lines, n_extents, max_extents;
    uint32_t cid, parent_cid;
    struct descriptor *older; /* the text before it was changed: its strings may be in use */
};

/* Parses `len` bytes. `embedded`: whatever stands behind the first NUL is ignored. */
int descriptor_parse(struct budget *budget, const char *name, const uint8_t *bytes, size_t len,
                     bool embedded, struct descriptor **ret, struct platter_error *err);
void descriptor_free(struct descriptor *d); /* with all that are older; NULL is fine */
/* The first line with that key, whatever its case, or NULL. */
const struct descriptor_line *descriptor_find(const struct descriptor *d, const char *key);
const char *descriptor_value(const struct descriptor *d, const char *key); /* or NULL */

/* ---- edit.c: the text, changed --------------------------------------------------------------- */

/*
 * Changes the descriptor of an image that is open for writing: by token, so that all else (unknown
 * lines, comments, order, line ends, spelling) stays as it is, byte for byte.
 *
 *     struct descriptor_edit *e;
 *     int r = descriptor_edit_begin(img, &e, err);
 *     if (r < 0)
 *         return r;
 *     descriptor_edit_set(e, "parentCID", "0123abcd");
 *     descriptor_edit_set(e, "parentFileNameHint", "base.vmdk");
 *     descriptor_edit_remove(e, "changeTrackPath");
 *     descriptor_edit_sectors(e, 0, sectors);
 *     return descriptor_edit_store(img, e, err);
 *
 * A change that cannot be made is remembered, and store() fails with it. Texts are given in UTF-8
 * and stored in the descriptor's encoding. The caller sees to it that nothing else goes on in the
 * image meanwhile: `slow` is held, or the whole disk.
 */
struct descriptor_edit;
int descriptor_edit_begin(struct image *img, struct descriptor_edit **ret,
                          struct platter_error *err);
/* The same for a text without an image, which cannot be stored; `name` for sentences. */
int descriptor_edit_text(struct budget *budget, const char *name, const void *text, size_t len,
                         struct descriptor_edit **ret, struct platter_error *err);
/* Gives a key a value, in its first line; a new key comes where its like stand (section 3.2). */
void descriptor_edit_set(struct descriptor_edit *e, const char *key, const char *value);
void descriptor_edit_set_cid(struct descriptor_edit *e, const char *key, uint32_t cid);
/* Removes all lines with that key. */
void descriptor_edit_remove(struct descriptor_edit *e, const char *key);
/* Changes the nominal size, the file of extent i, as the lines count; adds one behind the last
 * (`word` is not looked at); removes one. */
void descriptor_edit_sectors(struct descriptor_edit *e, unsigned i, uint64_t sectors);
void descriptor_edit_file(struct descriptor_edit *e, unsigned i, const char *file);
void descriptor_edit_add_extent(struct descriptor_edit *e, const struct descriptor_extent *x);
void descriptor_edit_remove_extent(struct descriptor_edit *e, unsigned i);
/* The text as it is now, and whether all went well so far. */
int descriptor_edit_result(const struct descriptor_edit *e, const char **ret_text, size_t *ret_len,
                           struct platter_error *err);
/* Writes the text, durably, and makes it the image's; a crash leaves the old text or the new. If
 * the file has no room for it nothing is changed. The edit is gone, whatever is returned. */
int descriptor_edit_store(struct image *img, struct descriptor_edit *e, struct platter_error *err);
/* Whether that would work: nothing is written. The edit stays. */
int descriptor_edit_try(struct image *img, const struct descriptor_edit *e,
                        struct platter_error *err);
void descriptor_edit_drop(struct descriptor_edit *e); /* instead of storing; NULL is fine */

/* ---- store.c --------------------------------------------------------------------------------- */

/* Replaces the text of a descriptor in its file; see descriptor_edit_store(). */
int descriptor_write(struct image *img, const char *text, size_t len, struct platter_error *err);
/* Whether there is room for it. */
int descriptor_fits(struct image *img, const char *text, size_t len, struct platter_error *err);

/* ---- encoding.c ------------------------------------------------------------------------------ */

/* A text of a descriptor in UTF-8, or the other way round; `encoding` is the value of that key, or
 * NULL: bytes are taken as they are. Plain ASCII needs no encoding. *ret is malloc'ed. */
int encoding_decode(const char *encoding, const char *bytes, char **ret, struct platter_error *err);
int encoding_encode(const char *encoding, const char *utf8, char **ret, struct platter_error *err);

/* ---- identity.c ------------------------------------------------------------------------------ */

/* Another content ID: section 11. Durable with the next flush of the file. `slow` is held. */
int vmdk_new_identity(struct image *img, struct platter_error *err);
/* A CID that the image does not have, and can get whatever room there is for it. */
uint32_t vmdk_other_cid(const struct image *img);

/* ---- text.c ---------------------------------------------------------------------------------- */

/* What a new descriptor says. */
struct descriptor_plan {
    const char *create_type;
    const char *access, *type; /* words of all extent lines */
    const char *const *files;  /* the extents' names */
    unsigned n_files;
    uint64_t sectors; /* of the disk */
    uint64_t piece;   /* sectors of each extent but the last, which has the rest */
    uint32_t cid, parent_cid;
    const char *parent; /* parentFileNameHint, or NULL */
    const char *hw_version, *adapter, *tools_version;
};

/* Fills what the request and its options say, and a CID; the caller adds create_type, extents. */
int descriptor_plan(const struct create_request *request, struct descriptor_plan *ret,
                    struct platter_error *err);
/* Composes the text: *ret is malloc'ed. `name`: of the image, for sentences. */
int descriptor_compose(const struct descriptor_plan *plan, const char *name, char **ret,
                       struct platter_error *err);
/* The same into `area` of VMDK_DESCRIPTOR_SECTORS, padded with NULs. */
int descriptor_compose_embedded(const struct descriptor_plan *plan, const char *name, uint8_t *area,
                                struct platter_error *err);
uint32_t descriptor_new_cid(void);

#endif
