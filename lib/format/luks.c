/* SPDX-License-Identifier: MIT */
/*
 * luks: a volume of LUKS 1 as a disk. Behind header and key material (luks1.h) the disk stands as
 * it is, but encrypted; sectors count from there. There are no holes: zeros are encrypted as well,
 * and what nobody wrote reads as noise.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/luks1.h"

struct luks {
    struct luks1 header;
    struct cipher *cipher; /* NULL: only tables are wanted */
    hoff payload;
};

static struct luks *luks_of(const struct image *img)
{
    return img->state;
}

static enum probe luks_probe(const uint8_t *prefix, size_t len, uint64_t file_size)
{
    (void)file_size;
    return luks1_magic(prefix, len) ? PROBE_SURE : PROBE_NO;
}

static int unlock(struct image *img, const struct luks1_area *area, struct platter_error *err)
{
    struct luks *l = luks_of(img);
    uint8_t *key = secret_alloc(CIPHER_MAX_KEY);
    if (!key)
        return fail_memory(err, "a key");
    unsigned slot;
    int r = luks1_ask(area, &l->header, img->opener, key, &slot, err);
    if (r == 0)
        r = luks1_cipher(&l->header, key, &l->cipher, err);
    secret_free(key, CIPHER_MAX_KEY);
    return r;
}

static int luks_open(struct image *img, struct platter_error *err)
{
    struct luks1_area area = {.stream = img->stream};
    struct luks *l = calloc(1, sizeof *l);

    if (!l)
        return fail_memory(err, "an image");
    img->state = l;
    img->unit = CIPHER_SECTOR;
    img->sealed = true;
    int r = stream_size(img->stream, &area.len, err);
    if (r == 0)
        r = luks1_load(&area, &l->header, err);
    if (r < 0)
        return r;
    l->payload = l->header.payload * (hoff)CIPHER_SECTOR;
    if (l->payload > area.len)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the LUKS header puts the data at %" PRIu64
                    ", but the file ends at %" PRIu64 ": it was cut short",
                    img->stream->name, l->payload, area.len);
    img->size = round_down(area.len - l->payload, CIPHER_SECTOR);
    return img->query || img->checking ? 0 : unlock(img, &area, err);
}

static int luks_close(struct image *img, struct platter_error *err)
{
    struct luks *l = luks_of(img);
    (void)err;
    if (l)
        cipher_free(l->cipher);
    free(TAKE(img->state));
    return 0;
}

static int luks_map(struct image *img, goff off, uint64_t len, struct extent *ret,
                    struct platter_error *err)
{
    (void)err;
    *ret = (struct extent){.kind = EXTENT_DATA,
                           .len = len,
                           .in_place = img->writable,
                           .stream = img->stream,
                           .off = luks_of(img)->payload + off};
    return 0;
}

static void luks_crypt(const struct image *img, bool encrypt, void *out, const void *in, size_t len,
                       goff guest, hoff host)
{
    const struct luks *l = luks_of(img);
    (void)host;
    if (encrypt)
        cipher_encrypt(l->cipher, guest / CIPHER_SECTOR, out, in, len);
    else
        cipher_decrypt(l->cipher, guest / CIPHER_SECTOR, out, in, len);
}

static int luks_flush(struct image *img, struct platter_error *err)
{
    return img->ordered ? stream_flush(img->stream, err) : 0;
}

static bool luks_area(const struct image *img, struct luks1_area *ret, const struct luks1 **header)
{
    const struct luks *l = luks_of(img);
    *ret = (struct luks1_area){.stream = img->stream, .len = l->payload};
    *header = &l->header;
    return true;
}

/* ---- creating -------------------------------------------------------------------------------- */

enum { OFF, FALLOC };

static const char *const preallocations[] = {"off", "falloc", NULL};

static const struct option_def luks_options[] = {
    LUKS1_OPTIONS(""),
    {.name = "preallocation",
     .type = OPTION_ENUM,
     .value = "off",
     .values = preallocations,
     .help = "reserve space (falloc)"},
    {0},
};

static int write_volume(const struct create_request *q, const struct luks1_choice *choice,
                        const struct secret *secret, struct platter_error *err)
{
    const struct luks1_area area = {.stream = q->stream, .len = luks1_area_len(choice)};
    uint64_t end;

    if (ckd_add(&end, area.len, q->size) || end > INT64_MAX)
        return fail(err, EFBIG, "%s: a disk of %" PRIu64 " bytes is too large for a file", q->name,
                    q->size);
    int r = stream_zero(q->stream, 0, area.len, STREAM_ZERO_UNMAP, err);
    if (r == 0)
        r = stream_resize(q->stream, end, err);
    if (r == 0 && options_enum(q->options, "preallocation") == FALLOC)
        r = stream_allocate(q->stream, area.len, q->size, err);
    return r == 0 ? luks1_create(choice, &area, secret, err) : r;
}

static int luks_create(const struct create_request *q, struct platter_error *err)
{
    struct luks1_choice choice;
    struct secret secret;
    const struct platter_secret question = {.size = sizeof question,
                                            .kind = PLATTER_SECRET_NEW,
                                            .image = q->name,
                                            .id = options_string(q->options, "key-secret")};

    int r = luks1_choose(q->options, "", &choice, err);
    if (r < 0)
        return fail_in(err, r, "%s", q->name);
    r = secret_new(&secret, err);
    if (r == 0)
        r = ask_secret(q->opener, &question, &secret, err);
    if (r == 0)
        r = write_volume(q, &choice, &secret, err);
    secret_wipe(&secret);
    return r;
}

static uint32_t luks_create_unit(const struct option_values *options)
{
    (void)options;
    return CIPHER_SECTOR;
}

static int luks_measure(uint64_t size, uint64_t data, const struct option_values *options,
                        struct platter_measurement *ret, struct platter_error *err)
{
    struct luks1_choice choice;
    (void)data; /* zeros are stored like all else */
    int r = luks1_choose(options, "", &choice, err);
    if (r < 0)
        return r;
    ret->required = ret->fully_allocated = luks1_area_len(&choice) + size;
    return 0;
}

static json_t *luks_info(struct image *img)
{
    return luks1_info(&luks_of(img)->header, false);
}

static int luks_info_top(struct image *img, json_t *info)
{
    (void)img;
    return json_object_set_new(info, "encrypted", json_true()) < 0 ? -ENOMEM : 0;
}

const struct format format_luks = {
    .name = "luks",
    .title = "LUKS volume, version 1",
    .no_backing = true,
    .not_zero = true,
    .probe = luks_probe,
    .open = luks_open,
    .close = luks_close,
    .map = luks_map,
    .crypt = luks_crypt,
    .key_area = luks_area,
    .flush = luks_flush,
    .create_options = luks_options,
    .create = luks_create,
    .measure = luks_measure,
    .create_unit = luks_create_unit,
    .info = luks_info,
    .info_top = luks_info_top,
};
