/* SPDX-License-Identifier: MIT */
/*
 * What follows the header in cluster 0 (section 2.1): extensions, among them the words an image has
 * for its features, and the name of the backing file.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/qcow2.h"

#define EXTENSION_END            0u
#define EXTENSION_BACKING_FORMAT 0xE2792ACAu
#define EXTENSION_DATA_FILE      0x44415441u
#define EXTENSION_CRYPTO         0x0537BE77u
#define EXTENSION_FEATURES       0x6803F857u
#define EXTENSION_BITMAPS        0x23852875u

enum { FEATURE_SIZE = 48, FEATURE_NAME = 46, BITMAPS_SIZE = 24, CRYPTO_SIZE = 16 };

static const struct feature {
    uint8_t class, bit;
    char name[FEATURE_NAME];
} features[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

enum { N_FEATURES = sizeof features / sizeof features[0] };

/* One extension as it stands in cluster 0. */
struct extension {
    uint32_t type, len;
    const uint8_t *bytes;
};

static int corrupt(const struct image *img, const char *what, uint64_t value,
                   struct platter_error *err)
{
    return fail(err, PLATTER_ECORRUPT, "%s: header extension: %s (%" PRIu64 ")", img->stream->name,
                what, value);
}

/* Reads the extension at the cursor, which ends before `end`: 1, or 0 at the list's end. */
static int extension_next(const struct image *img, struct reader *r, size_t end,
                          struct extension *ret, struct platter_error *err)
{
    if (end - r->pos < 8)
        return 0;
    ret->type = read_be32(r);
    ret->len = read_be32(r);
    if (r->failed)
        return -ERANGE;
    if (ret->type == EXTENSION_END)
        return 0;
    if (ret->len > end - r->pos)
        return corrupt(img, "the length is more than the space that is left", ret->len, err);
    ret->bytes = read_bytes(r, ret->len);
    if (r->failed)
        return -ERANGE;
    size_t next = round_up(r->pos, 8);
    read_seek(r, min_u64(next, end));
    return r->failed ? -ERANGE : 1;
}

static int decode_text(const struct image *img, const struct extension *x, uint32_t max, char **ret,
                       struct platter_error *err)
{
    if (x->len > max)
        return corrupt(img, "a name is too long", x->len, err);
    if (memchr(x->bytes, 0, x->len))
        return corrupt(img, "a name has a zero byte inside; length", x->len, err);
    free(*ret);
    *ret = strndup((const char *)x->bytes, x->len);
    return *ret ? 0 : fail_memory(err, "a name in the header");
}

static int decode_bitmaps(const struct image *img, const struct extension *x,
                          struct qcow2_extensions *ret, struct platter_error *err)
{
    struct reader r = reader_over(x->bytes, x->len);
    if (x->len != BITMAPS_SIZE)
        return corrupt(img, "the bitmaps extension must have 24 bytes", x->len, err);
    ret->has_bitmaps = true;
    ret->n_bitmaps = read_be32(&r);
    uint32_t reserved = read_be32(&r);
    ret->bitmap_directory_size = read_be64(&r);
    ret->bitmap_directory = read_be64(&r);
    if (reserved)
        return corrupt(img, "the bitmaps extension's reserved field is not 0", reserved, err);
    if (ret->n_bitmaps == 0 || ret->n_bitmaps > QCOW2_MAX_BITMAPS)
        return corrupt(img, "the number of bitmaps must be 1 to 65535", ret->n_bitmaps, err);
    if (ret->bitmap_directory_size > QCOW2_MAX_BITMAP_DIRECTORY)
        return corrupt(img, "the bitmap directory is too long", ret->bitmap_directory_size, err);
    return 0;
}

static int decode_crypto(const struct image *img, const struct extension *x,
                         struct qcow2_extensions *ret, struct platter_error *err)
{
    if (x->len != CRYPTO_SIZE)
        return corrupt(img, "the crypto extension must have 16 bytes", x->len, err);
    ret->has_crypto = true;
    ret->crypto_offset = get_be(x->bytes, 8);
    ret->crypto_len = get_be(x->bytes + 8, 8);
    return 0;
}

/* What we do not know stays in the image (section 2.1). */
static int keep(const struct extension *x, struct qcow2_extensions *ret, struct platter_error *err)
{
    size_t more = 8 + (size_t)round_up(x->len, 8);
    uint8_t *bytes = realloc(ret->unknown, ret->unknown_len + more);
    if (!bytes)
        return fail_memory(err, "a header extension");
    struct writer w = writer_over(bytes + ret->unknown_len, more);
    ret->unknown = bytes;
    ret->unknown_len += more;
    write_be32(&w, x->type);
    write_be32(&w, x->len);
    write_bytes(&w, x->bytes, x->len);
    write_pad_to(&w, more);
    return 0;
}

static int decode_one(const struct image *img, const struct extension *x,
                      struct qcow2_extensions *ret, struct platter_error *err)
{
    switch (x->type) {
    case EXTENSION_BACKING_FORMAT:
        return decode_text(img, x, QCOW2_MAX_FORMAT_NAME, &ret->backing_format, err);
    case EXTENSION_DATA_FILE:
        return decode_text(img, x, QCOW2_MAX_NAME, &ret->data_file, err);
    case EXTENSION_BITMAPS:
        return decode_bitmaps(img, x, ret, err);
    case EXTENSION_CRYPTO:
        return decode_crypto(img, x, ret, err);
    case EXTENSION_FEATURES:
        return 0;
    default:
        return keep(x, ret, err);
    }
}

/* Refuses incompatible features we do not know, by the names the image has for them. */
static int refuse_unknown(const struct image *img, uint64_t unknown, const struct extension *table,
                          struct platter_error *err)
{
    char text[512] = "";
    size_t used = 0;

    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(unknown >> bit & 1))
            continue;
        char name[FEATURE_NAME + 1] = "";
        for (size_t i = 0; table->bytes && i + FEATURE_SIZE <= table->len; i += FEATURE_SIZE)
            if (table->bytes[i] == 0 && table->bytes[i + 1] == bit)
                memcpy(name, table->bytes + i + 2, FEATURE_NAME);
        for (char *c = name; *c; c++)
            *c = *c < ' ' || *c == 127 ? '?' : *c;
        int n = snprintf(text + used, sizeof text - used, "%sbit %u%s%s%s", used ? ", " : "", bit,
                         *name ? " \"" : "", name, *name ? "\"" : "");
        used = min_u64(used + (size_t)n, sizeof text - 1);
    }
    return fail(
        err, ENOTSUP,
        "%s: the image needs features that this version does not know: incompatible feature %s",
        img->stream->name, text);
}

/* A check tells of it, and goes on. */
static int forgo_bitmaps(const struct image *img, struct qcow2_extensions *ret,
                         const struct platter_error *why)
{
    struct qcow2_checkup *checkup = qcow2_of(img)->checkup;
    checkup->bitmaps_code = -PLATTER_ECORRUPT;
    checkup->bitmaps_why = *why;
    ret->has_bitmaps = false;
    return 0;
}

int qcow2_extensions_decode(const struct image *img, const struct qcow2_header *h,
                            const uint8_t *bytes, size_t len, struct qcow2_extensions *ret,
                            struct platter_error *err)
{
    struct reader r = reader_over(bytes, len);
    struct extension x, table = {0};
    size_t end = h->backing_offset ? h->backing_offset : (size_t)1 << h->cluster_bits;
    uint64_t unknown = h->incompatible & ~(uint64_t)QCOW2_INCOMPATIBLE_KNOWN;
    int result;

    if (end < h->length)
        return corrupt(img, "backing_file_offset lies inside the header", h->backing_offset, err);
    read_seek(&r, h->length);
    if (r.failed)
        return -ERANGE;
    while ((result = extension_next(img, &r, end, &x, err)) > 0) {
        if (x.type == EXTENSION_FEATURES)
            table = x;
        result = decode_one(img, &x, ret, err);
        if (result == -PLATTER_ECORRUPT && x.type == EXTENSION_BITMAPS && img->checking)
            result = forgo_bitmaps(img, ret, err);
        if (result < 0)
            break;
    }
    ret->end = r.pos;
    /* An unknown feature may well change the rest: it is the better thing to say. */
    if (unknown && result != -ERANGE)
        return refuse_unknown(img, unknown, &table, err);
    if (result < 0)
        return result;
    if ((h->crypt_method == QCOW2_CRYPT_LUKS) != ret->has_crypto)
        return corrupt(img, "the crypto extension must be there if and only if crypt_method is 2",
                       h->crypt_method, err);
    return 0;
}

void qcow2_extensions_free(struct qcow2_extensions *x)
{
    free(x->backing_format);
    free(x->data_file);
    free(x->unknown);
    *x = (struct qcow2_extensions){0};
}

/* ---- a new cluster 0 --------------------------------------------------------------------------
 */

static void encode_text(struct writer *w, uint32_t type, const char *text)
{
    uint32_t len = (uint32_t)strlen(text);
    write_be32(w, type);
    write_be32(w, len);
    write_bytes(w, text, len);
    write_pad_to(w, round_up(w->pos, 8));
}

static void encode_features(struct writer *w)
{
    write_be32(w, EXTENSION_FEATURES);
    write_be32(w, N_FEATURES * FEATURE_SIZE);
    for (const struct feature *f = features; f < features + N_FEATURES; f++) {
        write_u8(w, f->class);
        write_u8(w, f->bit);
        write_bytes(w, f->name, FEATURE_NAME);
    }
}

void qcow2_extensions_encode(const struct qcow2_extensions *x, bool with_features, struct writer *w)
{
    if (x->backing_format)
        encode_text(w, EXTENSION_BACKING_FORMAT, x->backing_format);
    if (x->data_file)
        encode_text(w, EXTENSION_DATA_FILE, x->data_file);
    if (x->has_crypto) {
        write_be32(w, EXTENSION_CRYPTO);
        write_be32(w, CRYPTO_SIZE);
        write_be64(w, x->crypto_offset);
        write_be64(w, x->crypto_len);
    }
    if (x->has_bitmaps) {
        write_be32(w, EXTENSION_BITMAPS);
        write_be32(w, BITMAPS_SIZE);
        write_be32(w, x->n_bitmaps);
        write_be32(w, 0);
        write_be64(w, x->bitmap_directory_size);
        write_be64(w, x->bitmap_directory);
    }
    if (x->unknown_len)
        write_bytes(w, x->unknown, x->unknown_len);
    if (with_features)
        encode_features(w);
    encode_text(w, EXTENSION_END, "");
}

bool qcow2_cluster0_encode(struct qcow2_header *h, const char *backing_name,
                           const struct qcow2_extensions *x, uint8_t *bytes, size_t len,
                           size_t *ret_len)
{
    struct writer w = writer_over(bytes, len), head = w;

    write_pad_to(&w, h->length);
    /* The table of names is left out where it would crowd a small cluster. */
    qcow2_extensions_encode(x, h->version >= 3 && h->cluster_bits > 12, &w);
    if (backing_name) {
        h->backing_offset = w.pos;
        h->backing_size = (uint32_t)strlen(backing_name);
        write_bytes(&w, backing_name, h->backing_size);
    }
    qcow2_header_encode(h, &head);
    *ret_len = w.pos;
    return !w.failed && !head.failed;
}
