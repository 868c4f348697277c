/* SPDX-License-Identifier: MIT */
/* The header of LUKS 1: decode, check, encode, describe. */
#include "format/luks1.h"

#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"

#define SLOT_ON  0x00AC71F3u
#define SLOT_OFF 0x0000DEADu

static const uint8_t magic[6] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

bool luks1_magic(const uint8_t *bytes, size_t len)
{
    return len >= sizeof magic && memcmp(bytes, magic, sizeof magic) == 0;
}

uint32_t luks1_material_sectors(uint32_t key_len)
{
    return (uint32_t)round_up(div_up(key_len * (uint64_t)LUKS1_STRIPES, CIPHER_SECTOR), 8);
}

/* ---- decode ---------------------------------------------------------------------------------- */

struct decoding {
    const char *name;
    hoff off;
    struct platter_error *err;
};

static int corrupt(const struct decoding *d, unsigned at, const char *field, uint64_t value,
                   const char *expected)
{
    return fail(d->err, PLATTER_ECORRUPT,
                "%s: LUKS header at %" PRIu64 ": %s at %" PRIu64 " is %" PRIu64 ", but must be %s",
                d->name, d->off, field, d->off + at, value, expected);
}

static int take_text(const struct decoding *d, struct reader *r, size_t n, const char *field,
                     char *ret)
{
    hoff at = d->off + r->pos;
    const uint8_t *bytes = read_bytes(r, n);
    if (!bytes || !memchr(bytes, 0, n))
        return fail(d->err, PLATTER_ECORRUPT,
                    "%s: LUKS header: %s at %" PRIu64 " does not end with a zero byte", d->name,
                    field, at);
    memcpy(ret, bytes, n);
    return 0;
}

static int take_slot(const struct decoding *d, struct reader *r, unsigned i, struct luks1_slot *s)
{
    unsigned at = (unsigned)r->pos;
    char field[64];

    uint32_t state = read_be32(r);
    s->active = state == SLOT_ON;
    s->iterations = read_be32(r);
    const uint8_t *salt = read_bytes(r, LUKS1_SALT);
    if (salt)
        memcpy(s->salt, salt, LUKS1_SALT);
    s->material = read_be32(r);
    s->stripes = read_be32(r);
    snprintf(field, sizeof field, "the state of key slot %u", i);
    if (state != SLOT_ON && state != SLOT_OFF)
        return corrupt(d, at, field, state, "11301363 (active) or 57005 (not)");
    snprintf(field, sizeof field, "the iterations of key slot %u", i);
    if (s->active && s->iterations == 0)
        return corrupt(d, at + 4, field, 0, "more");
    snprintf(field, sizeof field, "the stripes of key slot %u", i);
    if (s->stripes != LUKS1_STRIPES)
        return corrupt(d, at + 44, field, s->stripes, "4000");
    return 0;
}

/* Key material behind the header, before the payload, and nobody else's. */
static int check_material(const struct decoding *d, const struct luks1 *l, uint64_t area_len)
{
    uint64_t sectors = div_up(l->key_len * (uint64_t)LUKS1_STRIPES, CIPHER_SECTOR);

    for (unsigned i = 0; i < LUKS1_SLOTS; i++) {
        uint64_t start = l->slots[i].material, end = start + sectors;
        if (start < LUKS1_FIRST_MATERIAL || end > l->payload || end * CIPHER_SECTOR > area_len)
            return fail(d->err, PLATTER_ECORRUPT,
                        "%s: LUKS header at %" PRIu64 ": key slot %u has its material in sectors "
                        "%" PRIu64 " .. %" PRIu64 ", but must have it in 8 .. %" PRIu64,
                        d->name, d->off, i, start, end,
                        min_u64(l->payload, area_len / CIPHER_SECTOR));
        for (unsigned k = 0; k < i; k++)
            if (start < l->slots[k].material + sectors && l->slots[k].material < end)
                return fail(d->err, PLATTER_ECORRUPT,
                            "%s: LUKS header at %" PRIu64
                            ": key slots %u and %u have their material in the same sectors",
                            d->name, d->off, k, i);
    }
    return 0;
}

static int take_fields(const struct decoding *d, struct reader *r, struct luks1 *l)
{
    int result = take_text(d, r, 32, "the cipher", l->cipher);
    if (result == 0)
        result = take_text(d, r, 32, "the cipher mode", l->mode);
    if (result == 0)
        result = take_text(d, r, 32, "the hash", l->hash);
    if (result < 0)
        return result;
    l->payload = read_be32(r);
    l->key_len = read_be32(r);
    const uint8_t *digest = read_bytes(r, LUKS1_DIGEST), *salt = read_bytes(r, LUKS1_SALT);
    memcpy(l->digest, digest, LUKS1_DIGEST);
    memcpy(l->salt, salt, LUKS1_SALT);
    l->iterations = read_be32(r);
    result = take_text(d, r, 40, "the UUID", l->uuid);
    for (unsigned i = 0; i < LUKS1_SLOTS && result == 0; i++)
        result = take_slot(d, r, i, &l->slots[i]);
    if (result == 0 && l->iterations == 0)
        result = corrupt(d, 164, "the iterations of the key's digest", 0, "more");
    return result;
}

int luks1_decode(const char *name, hoff off, const uint8_t bytes[LUKS1_HEADER], uint64_t area_len,
                 struct luks1 *ret, struct platter_error *err)
{
    struct decoding d = {.name = name, .off = off, .err = err};
    struct reader r = reader_over(bytes, LUKS1_HEADER);

    *ret = (struct luks1){0};
    if (!luks1_magic(bytes, LUKS1_HEADER))
        return fail(err, PLATTER_ECORRUPT, "%s: no LUKS header at %" PRIu64, name, off);
    read_skip(&r, sizeof magic);
    uint16_t version = read_be16(&r);
    if (version != 1)
        return fail(err, ENOTSUP,
                    "%s: the LUKS header at %" PRIu64
                    " has version %u, but only version 1 is known",
                    name, off, version);
    int result = take_fields(&d, &r, ret);
    if (result < 0)
        return result;
    if (!hash_find(ret->hash))
        return fail(err, ENOTSUP, "%s: LUKS header: the hash \"%s\" is not known: known are %s",
                    name, ret->hash, hash_names());
    if (ret->key_len > CIPHER_MAX_KEY)
        return corrupt(&d, 108, "the length of the key", ret->key_len, "64 at most");
    result = cipher_check(ret->cipher, ret->mode, ret->key_len, err);
    if (result < 0)
        return fail_in(err, result, "%s: LUKS header", name);
    return check_material(&d, ret, area_len);
}

int luks1_load(const struct luks1_area *area, struct luks1 *ret, struct platter_error *err)
{
    uint8_t bytes[LUKS1_HEADER];
    const char *name = area->stream->name;

    if (area->len < sizeof bytes)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the LUKS header at %" PRIu64 " has %" PRIu64 " bytes, but takes %d", name,
                    area->off, area->len, LUKS1_HEADER);
    int r = stream_pread(area->stream, bytes, sizeof bytes, area->off, err);
    return r < 0 ? r : luks1_decode(name, area->off, bytes, area->len, ret, err);
}

/* ---- encode ---------------------------------------------------------------------------------- */

void luks1_encode(const struct luks1 *l, uint8_t bytes[LUKS1_HEADER])
{
    struct writer w = writer_over(bytes, LUKS1_HEADER);

    write_bytes(&w, magic, sizeof magic);
    write_be16(&w, 1);
    write_bytes(&w, l->cipher, 32);
    write_bytes(&w, l->mode, 32);
    write_bytes(&w, l->hash, 32);
    write_be32(&w, l->payload);
    write_be32(&w, l->key_len);
    write_bytes(&w, l->digest, LUKS1_DIGEST);
    write_bytes(&w, l->salt, LUKS1_SALT);
    write_be32(&w, l->iterations);
    write_bytes(&w, l->uuid, 40);
    for (const struct luks1_slot *s = l->slots; s < l->slots + LUKS1_SLOTS; s++) {
        write_be32(&w, s->active ? SLOT_ON : SLOT_OFF);
        write_be32(&w, s->iterations);
        write_bytes(&w, s->salt, LUKS1_SALT);
        write_be32(&w, s->material);
        write_be32(&w, s->stripes);
    }
}

/* ---- info ------------------------------------------------------------------------------------ */

static json_t *slot_info(const struct luks1_slot *s)
{
    json_t *slot = json_pack("{s:b}", "active", s->active);
    if (s->active)
        json_object_set_new(slot, "iters", json_integer(s->iterations));
    json_object_set_new(slot, "key-offset", json_integer(s->material * (json_int_t)CIPHER_SECTOR));
    if (s->active)
        json_object_set_new(slot, "stripes", json_integer(s->stripes));
    return slot;
}

/* The order of the fields is qemu-img's. */
json_t *luks1_info(const struct luks1 *l, bool format)
{
    json_t *info = json_object(), *slots = json_array();
    size_t mode = strcspn(l->mode, "-");
    const char *vector = l->mode + mode + (l->mode[mode] == '-');
    size_t len = strcspn(vector, ":");
    bool xts = strncmp(l->mode, "xts", mode) == 0;

    if (len)
        json_object_set_new(info, "ivgen-alg", json_stringn(vector, len));
    if (vector[len])
        json_object_set_new(info, "ivgen-hash-alg", json_string(vector + len + 1));
    json_object_set_new(info, "hash-alg", json_name(l->hash));
    json_object_set_new(info, "cipher-alg",
                        json_sprintf("%s-%" PRIu32, l->cipher, l->key_len * 8 / (xts ? 2 : 1)));
    json_object_set_new(info, "uuid", json_name(l->uuid));
    if (format)
        json_object_set_new(info, "format", json_string("luks"));
    json_object_set_new(info, "cipher-mode", json_stringn(l->mode, mode));
    for (unsigned i = 0; i < LUKS1_SLOTS; i++)
        json_array_append_new(slots, slot_info(&l->slots[i]));
    json_object_set_new(info, "slots", slots);
    json_object_set_new(info, "payload-offset",
                        json_integer(l->payload * (json_int_t)CIPHER_SECTOR));
    json_object_set_new(info, "master-key-iters", json_integer(l->iterations));
    return info;
}
