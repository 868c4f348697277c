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
    int code; /* opened for a check: what is wrong with the header, which is not to be used then */
    struct platter_error why;
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

static int load_header(struct image *img, const struct luks1_area *file, struct platter_error *err)
{
    struct luks *l = luks_of(img);
    int r = luks1_load(file, &l->header, err);
    if (r < 0)
        return r;
    l->payload = l->header.payload * (hoff)CIPHER_SECTOR;
    if (l->payload > file->len)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the LUKS header puts the data at %" PRIu64
                    ", but the file ends at %" PRIu64 ": it was cut short",
                    img->stream->name, l->payload, file->len);
    img->size = round_down(file->len - l->payload, CIPHER_SECTOR);
    return 0;
}

static int luks_open(struct image *img, struct platter_error *err)
{
    struct luks1_area file = {.stream = img->stream};
    struct luks *l = calloc(1, sizeof *l);

    if (!l)
        return fail_memory(err, "an image");
    img->state = l;
    img->unit = CIPHER_SECTOR;
    img->sealed = true;
    int r = stream_size(img->stream, &file.len, err);
    if (r < 0)
        return r;
    if (img->checking) {
        l->code = load_header(img, &file, &l->why);
        return l->code < 0 && l->code != -PLATTER_ECORRUPT
                   ? fail(err, -l->code, "%s", l->why.message)
                   : 0;
    }
    r = load_header(img, &file, err);
    return r < 0 || img->query ? r
                               : luks1_open_cipher(&file, &l->header, img->opener, &l->cipher, err);
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

/* ---- resizing -------------------------------------------------------------------------------- */

/* New space is noise, as in a new volume, unless zeros are asked for, which are written then. */
static int grow(struct image *img, const struct resize_request *q, hoff old_end, hoff end,
                struct platter_error *err)
{
    switch (q->preallocation) {
    case PLATTER_PREALLOCATION_OFF:
        return stream_resize(img->stream, end, err);
    case PLATTER_PREALLOCATION_FALLOC:
        return stream_allocate(img->stream, old_end, end - old_end, err);
    case PLATTER_PREALLOCATION_FULL:
        return q->zero(q, img->size, q->size - img->size, err);
    case PLATTER_PREALLOCATION_METADATA:
        break;
    }
    return fail(err, ENOTSUP, "%s: the luks format has no metadata that could be preallocated",
                img->stream->name);
}

static int luks_resize(struct image *img, const struct resize_request *q, struct platter_error *err)
{
    struct stream *s = img->stream;
    hoff payload = luks_of(img)->payload, old_end = payload + img->size, end;
    uint64_t now;

    if (q->size % CIPHER_SECTOR)
        return fail(err, EINVAL, "%s: The new size must be a multiple of 512", s->name);
    if (ckd_add(&end, payload, q->size) || end > INT64_MAX)
        return fail(err, EFBIG, "%s: a disk of %" PRIu64 " bytes is too large for a file", s->name,
                    q->size);
    int r = q->size > img->size ? grow(img, q, old_end, end, err) : stream_resize(s, end, err);
    if (r == 0)
        r = stream_size(s, &now, err);
    if (r == 0 && now != end)
        r = fail(err, ENOTSUP,
                 "%s: has %" PRIu64 " bytes and cannot be made to have %" PRIu64 ": it is no file",
                 s->name, now, end);
    if (r == 0)
        r = stream_flush(s, err);
    if (r < 0 && q->size > img->size)
        stream_resize(s, old_end, NULL); /* what is half grown has no use */
    if (r == 0)
        img->size = q->size;
    return r;
}

/* ---- check ----------------------------------------------------------------------------------- */

/* Somebody began to remove a key, or to add one: with the salt that is still there the material may
 * open the volume for whoever puts the slot back. */
static bool half_gone(const struct luks1_slot *s)
{
    return !s->active && (s->iterations || !is_zero(s->salt, sizeof s->salt));
}

static int check_slots(struct image *img, struct check *c, struct platter_error *err)
{
    struct luks *l = luks_of(img);
    const struct luks1_area area = {.stream = img->stream, .len = l->payload};
    const char *name = img->stream->name;
    unsigned active = 0;
    int r = 0;

    for (unsigned i = 0; i < LUKS1_SLOTS && r == 0; i++) {
        const struct luks1_slot *s = &l->header.slots[i];
        active += s->active;
        if (s->active && s->iterations > LUKS1_KDF_LIMIT)
            check_found(c, PLATTER_FINDING_NOTE, false, 1,
                        "%s: key slot %u takes %" PRIu32
                        " iterations of PBKDF2, more than is tried unasked (--kdf-limit)",
                        name, i, s->iterations);
        if (!half_gone(s))
            continue;
        if (c->mend_leaks)
            r = luks1_slot_clear(&area, &l->header, i, err);
        if (r == 0)
            check_found(c, PLATTER_FINDING_NOTE, c->mend_leaks, 1,
                        "%s: key slot %u is not in use, but was not emptied: a change of keys was "
                        "cut off",
                        name, i);
    }
    if (active == 0)
        check_found(c, PLATTER_FINDING_ERROR, false, 1,
                    "%s: no key slot is in use: nothing opens it any more", name);
    return r;
}

/* The data has no checksum, and its tables are the header. */
static int luks_check(struct image *img, struct check *c, struct platter_error *err)
{
    const struct luks *l = luks_of(img);
    uint64_t size;

    if (l->code < 0) {
        check_failed(c, l->code, &l->why);
        return 0;
    }
    int r = stream_size(img->stream, &size, err);
    if (r == 0 && size % CIPHER_SECTOR)
        check_found(c, PLATTER_FINDING_NOTE, false, 1,
                    "%s: ends with %u bytes that are no whole sector, and not part of the disk",
                    img->stream->name, (unsigned)(size % CIPHER_SECTOR));
    c->result.image_end_offset = l->payload + img->size;
    return r < 0 ? r : check_slots(img, c, err);
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
    .resize = luks_resize,
    .check = luks_check,
    .create_options = luks_options,
    .create = luks_create,
    .measure = luks_measure,
    .create_unit = luks_create_unit,
    .info = luks_info,
    .info_top = luks_info_top,
};
