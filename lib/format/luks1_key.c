/* SPDX-License-Identifier: MIT */
/* Key slots of LUKS 1: open one, fill one, clear one. */
#include <inttypes.h>
#include <nettle/memops.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/luks1.h"

enum {
    SLOTS_AT = 208, /* in the header */
    SLOT_SIZE = 48,
    LEAST_ITERATIONS = 1000, /* of a slot or digest that we make */
    DEFAULT_MILLISECONDS = 2000
};

/* ---- the anti-forensic split ----------------------------------------------------------------- */

/* Makes each byte of a stripe depend on all of its chunk: chunk i becomes the hash of i and itself.
 */
static void diffuse(const struct hash *h, uint8_t *bytes, size_t n)
{
    uint8_t number[4], digest[HASH_MAX];

    for (uint32_t i = 0; n > 0; i++) {
        size_t len = (size_t)min_u64(n, hash_size(h));
        put_be(number, sizeof number, i);
        hash_bytes(h, number, sizeof number, bytes, len, digest);
        memcpy(bytes, digest, len);
        bytes += len;
        n -= len;
    }
    explicit_bzero(digest, sizeof digest);
}

static void mix(uint8_t *into, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        into[i] ^= bytes[i];
}

/* What all stripes but the last add up to: with the last one it gives the key, with the key the
 * last one. */
static void fold(const struct luks1 *l, const uint8_t *stripes, uint8_t *ret)
{
    const struct hash *h = hash_find(l->hash);

    memset(ret, 0, l->key_len);
    for (unsigned i = 0; i < LUKS1_STRIPES - 1; i++) {
        mix(ret, stripes + (size_t)i * l->key_len, l->key_len);
        diffuse(h, ret, l->key_len);
    }
}

/* ---- opening --------------------------------------------------------------------------------- */

static size_t material_len(const struct luks1 *l)
{
    return (size_t)round_up(l->key_len * (uint64_t)LUKS1_STRIPES, CIPHER_SECTOR);
}

/* The cipher of a slot's material: keyed by what the secret becomes. */
static int slot_cipher(const struct luks1 *l, const struct luks1_slot *s,
                       const struct secret *secret, struct cipher **ret, struct platter_error *err)
{
    uint8_t key[CIPHER_MAX_KEY];
    int r = pbkdf2_derive(hash_find(l->hash), secret->bytes, secret->len, s->salt, LUKS1_SALT,
                          s->iterations, key, l->key_len, err);
    if (r == 0)
        r = cipher_new(l->cipher, l->mode, key, l->key_len, ret, err);
    explicit_bzero(key, sizeof key);
    return r;
}

static int digest_key(const struct luks1 *l, const uint8_t *key, uint8_t ret[LUKS1_DIGEST],
                      struct platter_error *err)
{
    return pbkdf2_derive(hash_find(l->hash), key, l->key_len, l->salt, LUKS1_SALT, l->iterations,
                         ret, LUKS1_DIGEST, err);
}

/* 1: the secret opens the slot, and *key is the data's key; 0: it does not. */
static int try_slot(const struct luks1_area *area, const struct luks1 *l, unsigned slot,
                    const struct secret *secret, uint8_t *key, struct platter_error *err)
{
    const struct luks1_slot *s = &l->slots[slot];
    size_t len = material_len(l);
    uint8_t digest[LUKS1_DIGEST];
    struct cipher *cipher = NULL;

    uint8_t *material = secret_alloc(len);
    if (!material)
        return fail_memory(err, "the material of a key slot");
    int r = stream_pread(area->stream, material, len, area->off + s->material * UINT64_C(512), err);
    if (r == 0)
        r = slot_cipher(l, s, secret, &cipher, err);
    if (r == 0) {
        cipher_decrypt(cipher, 0, material, material, len);
        fold(l, material, key);
        mix(key, material + (size_t)(LUKS1_STRIPES - 1) * l->key_len, l->key_len);
        r = digest_key(l, key, digest, err);
    }
    cipher_free(cipher);
    secret_free(material, len);
    if (r < 0)
        return fail_in(err, r, "key slot %u", slot);
    return memeql_sec(digest, l->digest, LUKS1_DIGEST);
}

static int check_limit(const struct luks1_area *area, const char *what, uint32_t iterations,
                       uint64_t limit, struct platter_error *err)
{
    if (iterations <= limit)
        return 0;
    return fail(err, EOVERFLOW,
                "%s: %s takes %" PRIu32 " iterations of PBKDF2, more than the limit of %" PRIu64
                ": raise it if you trust the image (--kdf-limit)",
                area->stream->name, what, iterations, limit);
}

static int check_digest(const struct luks1_area *area, const struct luks1 *l, uint64_t kdf_limit,
                        struct platter_error *err)
{
    return check_limit(area, "the digest of its key", l->iterations,
                       kdf_limit ? kdf_limit : LUKS1_KDF_LIMIT, err);
}

int luks1_unlock(const struct luks1_area *area, const struct luks1 *l, const struct secret *secret,
                 uint64_t kdf_limit, unsigned first, uint8_t *key, unsigned *ret_slot,
                 struct platter_error *err)
{
    uint64_t limit = kdf_limit ? kdf_limit : LUKS1_KDF_LIMIT;
    unsigned skipped = 0, active = 0;

    int r = check_digest(area, l, kdf_limit, err);
    for (unsigned i = first; i < LUKS1_SLOTS && r == 0; i++) {
        const struct luks1_slot *s = &l->slots[i];
        char what[32];
        snprintf(what, sizeof what, "key slot %u", i);
        active += s->active;
        if (s->active && check_limit(area, what, s->iterations, limit, err) < 0)
            skipped++;
        else if (s->active && (r = try_slot(area, l, i, secret, key, err)) > 0)
            *ret_slot = i;
    }
    if (r != 0)
        return r < 0 ? r : 0;
    explicit_bzero(key, CIPHER_MAX_KEY);
    if (skipped)
        return -EOVERFLOW; /* the sentence is the last slot's */
    return fail(err, EACCES,
                active ? "%s: the passphrase or key opens none of its key slots"
                       : "%s: has no active key slot: nothing opens it any more",
                area->stream->name);
}

int luks1_ask(const struct luks1_area *area, const struct luks1 *l,
              const struct name_opener *opener, struct secret *secret, uint8_t *key,
              unsigned *ret_slot, struct platter_error *err)
{
    struct platter_secret question = {
        .size = sizeof question, .kind = PLATTER_SECRET_OPEN, .image = area->stream->name};

    /* Before anybody types what could not be tried. */
    int r = check_digest(area, l, opener->kdf_limit, err);
    if (r < 0)
        return r;
    for (;; question.attempt++) {
        struct platter_error why;
        int asked = ask_secret(opener, &question, secret, &why);
        /* That there is no other one is less to say than why the last one did not open it. */
        if (asked < 0)
            return question.attempt ? r : fail(err, -asked, "%s", why.message);
        r = luks1_unlock(area, l, secret, opener->kdf_limit, 0, key, ret_slot, err);
        /* Where one slot is too much work, another secret may open another one. */
        if (r != -EACCES && r != -EOVERFLOW)
            return r;
    }
}

int luks1_open_cipher(const struct luks1_area *area, const struct luks1 *l,
                      const struct name_opener *opener, struct cipher **ret,
                      struct platter_error *err)
{
    struct secret secret = {0};
    uint8_t *key = secret_alloc(CIPHER_MAX_KEY);
    unsigned slot;

    int r = key ? secret_new(&secret, err) : fail_memory(err, "a key");
    if (r == 0)
        r = luks1_ask(area, l, opener, &secret, key, &slot, err);
    if (r == 0)
        r = cipher_new(l->cipher, l->mode, key, l->key_len, ret, err);
    secret_wipe(&secret);
    secret_free(key, CIPHER_MAX_KEY);
    return r;
}

/* ---- changing -------------------------------------------------------------------------------- */

static hoff slot_at(const struct luks1_area *area, unsigned slot)
{
    return area->off + SLOTS_AT + slot * SLOT_SIZE;
}

/* Writes what a slot says: first all but whether it is active, then, when that and its material are
 * durable, whether it is: in one sector, which no crash tears (slot 6 lies in two). */
static int write_slot(const struct luks1_area *area, const struct luks1 *l, unsigned slot,
                      struct platter_error *err)
{
    const hoff at = slot_at(area, slot);
    uint8_t bytes[LUKS1_HEADER], *s = bytes + SLOTS_AT + slot * SLOT_SIZE;

    luks1_encode(l, bytes);
    int r = 0;
    if (!l->slots[slot].active) {
        r = stream_pwrite(area->stream, s, 8, at, err);
        if (r == 0)
            r = stream_flush(area->stream, err);
        return r == 0 ? stream_pwrite(area->stream, s, SLOT_SIZE, at, err) : r;
    }
    r = stream_pwrite(area->stream, s + 8, SLOT_SIZE - 8, at + 8, err);
    if (r == 0)
        r = stream_flush(area->stream, err);
    return r == 0 ? stream_pwrite(area->stream, s, 8, at, err) : r;
}

/* The key in stripes, encrypted for a slot. */
static int write_material(const struct luks1_area *area, const struct luks1 *l,
                          const struct luks1_slot *s, const uint8_t *key,
                          const struct secret *secret, struct platter_error *err)
{
    size_t len = material_len(l), split = (size_t)l->key_len * LUKS1_STRIPES;
    uint8_t *material = secret_alloc(len), *last;
    struct cipher *cipher = NULL;

    if (!material)
        return fail_memory(err, "the material of a key slot");
    last = material + split - l->key_len;
    int r = random_bytes(material, len, err);
    if (r == 0)
        r = slot_cipher(l, s, secret, &cipher, err);
    if (r == 0) {
        fold(l, material, last);
        mix(last, key, l->key_len);
        cipher_encrypt(cipher, 0, material, material, len);
        r = stream_pwrite(area->stream, material, len, area->off + s->material * UINT64_C(512),
                          err);
    }
    cipher_free(cipher);
    secret_free(material, len);
    return r;
}

int luks1_slot_work(const struct luks1_area *area, const struct luks1 *l, uint64_t milliseconds,
                    uint32_t *ret, struct platter_error *err)
{
    int r = pbkdf2_iterations(hash_find(l->hash), l->key_len,
                              milliseconds ? milliseconds : DEFAULT_MILLISECONDS, LEAST_ITERATIONS,
                              ret, err);
    if (r == 0 && *ret > LUKS1_KDF_LIMIT)
        r = fail(err, EINVAL,
                 "%s: to try the key for that long takes %" PRIu32
                 " iterations of PBKDF2 here, and nobody opens an image with more than %d unasked: "
                 "choose a shorter time (iter-time)",
                 area->stream->name, *ret, LUKS1_KDF_LIMIT);
    return r;
}

int luks1_slot_fill(const struct luks1_area *area, struct luks1 *l, unsigned slot,
                    const uint8_t *key, const struct secret *secret, uint64_t milliseconds,
                    struct platter_error *err)
{
    struct luks1_slot s = l->slots[slot];

    if (s.active)
        return fail(err, EEXIST, "%s: key slot %u is in use", area->stream->name, slot);
    int r = random_bytes(s.salt, sizeof s.salt, err);
    if (r == 0)
        r = luks1_slot_work(area, l, milliseconds, &s.iterations, err);
    if (r == 0)
        r = write_material(area, l, &s, key, secret, err);
    if (r < 0)
        return r;
    s.active = true;
    l->slots[slot] = s;
    r = write_slot(area, l, slot, err);
    return r == 0 ? stream_flush(area->stream, err) : r;
}

/* Random bytes once: what was there is gone from every disk that writes in place; no number of
 * writes reaches the copies that others (flash, file systems with a log) keep elsewhere. */
static int wipe_material(const struct luks1_area *area, const struct luks1 *l,
                         const struct luks1_slot *s, struct platter_error *err)
{
    size_t len = material_len(l);
    auto_free uint8_t *bytes = malloc(len);
    if (!bytes)
        return fail_memory(err, "the material of a key slot");
    int r = random_bytes(bytes, len, err);
    return r == 0 ? stream_pwrite(area->stream, bytes, len, area->off + s->material * UINT64_C(512),
                                  err)
                  : r;
}

int luks1_slot_clear(const struct luks1_area *area, struct luks1 *l, unsigned slot,
                     struct platter_error *err)
{
    struct luks1_slot *s = &l->slots[slot];

    s->active = false;
    s->iterations = 0;
    memset(s->salt, 0, sizeof s->salt);
    int r = write_slot(area, l, slot, err);
    if (r == 0)
        r = stream_flush(area->stream, err);
    if (r == 0)
        r = wipe_material(area, l, s, err);
    return r == 0 ? stream_flush(area->stream, err) : r;
}

unsigned luks1_free_slot(const struct luks1 *l)
{
    unsigned i = 0;
    while (i < LUKS1_SLOTS && l->slots[i].active)
        i++;
    return i;
}

/* What is overwritten may be all that opens the volume: before it goes the new secret opens another
 * slot, until it has its own. Where none is free for that, seven others open the volume. */
int luks1_slot_replace(const struct luks1_area *area, struct luks1 *l, unsigned slot,
                       const uint8_t *key, const struct secret *secret, uint64_t milliseconds,
                       struct platter_error *err)
{
    const unsigned other = luks1_free_slot(l);
    int r = 0;

    if (other < LUKS1_SLOTS)
        r = luks1_slot_fill(area, l, other, key, secret, milliseconds, err);
    if (r == 0)
        r = luks1_slot_clear(area, l, slot, err);
    if (r == 0)
        r = luks1_slot_fill(area, l, slot, key, secret, milliseconds, err);
    if (r == 0 && other < LUKS1_SLOTS)
        r = luks1_slot_clear(area, l, other, err);
    return r;
}
