/* SPDX-License-Identifier: MIT */
/* New headers of LUKS 1. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/ckd.h"
#include "format/luks1.h"

const char *const luks1_ciphers[] = {"aes-128",     "aes-192",     "aes-256",     "serpent-128",
                                     "serpent-192", "serpent-256", "twofish-128", "twofish-192",
                                     "twofish-256", "cast5-128",   NULL};
const char *const luks1_modes[] = {"xts", "cbc", "ctr", "ecb", NULL};
const char *const luks1_vectors[] = {"plain", "plain64", "essiv", NULL};
const char *const luks1_hashes[] = {"md5",    "sha1",   "sha224",    "sha256",
                                    "sha384", "sha512", "ripemd160", NULL};

static unsigned choice_of(const struct option_values *options, const char *prefix, const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "%s%s", prefix, name);
    return options_enum(options, key);
}

static bool was_given(const struct option_values *options, const char *prefix, const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "%s%s", prefix, name);
    return options_given(options, key);
}

int luks1_choose(const struct option_values *options, const char *prefix, struct luks1_choice *ret,
                 struct platter_error *err)
{
    const char *cipher = luks1_ciphers[choice_of(options, prefix, "cipher-alg")];
    const char *mode = luks1_modes[choice_of(options, prefix, "cipher-mode")];
    const char *vector = luks1_vectors[choice_of(options, prefix, "ivgen-alg")];
    const char *hash = luks1_hashes[choice_of(options, prefix, "hash-alg")];
    const char *vector_hash = strcmp(vector, "essiv") == 0 ? "sha256" : "", *dash;
    char key[64];

    *ret = (struct luks1_choice){0};
    if (was_given(options, prefix, "ivgen-hash-alg")) {
        if (!*vector_hash)
            return fail(err, EINVAL, "%sivgen-hash-alg needs %sivgen-alg=essiv", prefix, prefix);
        vector_hash = luks1_hashes[choice_of(options, prefix, "ivgen-hash-alg")];
    }
    dash = strchr(cipher, '-');
    snprintf(ret->cipher, sizeof ret->cipher, "%.*s", (int)(dash - cipher), cipher);
    snprintf(ret->mode, sizeof ret->mode, "%s-%s%s%s", mode, vector, *vector_hash ? ":" : "",
             vector_hash);
    snprintf(ret->hash, sizeof ret->hash, "%s", hash);
    ret->key_len = (uint32_t)strtoul(dash + 1, NULL, 10) / 8 * (strcmp(mode, "xts") == 0 ? 2 : 1);
    snprintf(key, sizeof key, "%siter-time", prefix);
    ret->milliseconds = options_number(options, key);
    return cipher_check(ret->cipher, ret->mode, ret->key_len, err);
}

uint64_t luks1_area_len(const struct luks1_choice *choice)
{
    return (LUKS1_FIRST_MATERIAL +
            LUKS1_SLOTS * (uint64_t)luks1_material_sectors(choice->key_len)) *
           CIPHER_SECTOR;
}

/* A random UUID (RFC 4122, version 4). */
static int make_uuid(char ret[41], struct platter_error *err)
{
    uint8_t b[16];
    int r = random_bytes(b, sizeof b, err);
    if (r < 0)
        return r;
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    for (size_t i = 0, at = 0; i < sizeof b; i++) {
        snprintf(ret + at, 41 - at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                 b[i]);
        at += strlen(ret + at);
    }
    return 0;
}

/* A header with a new key and no active slot. */
static int make_header(const struct luks1_choice *c, const struct luks1_area *area, struct luks1 *l,
                       uint8_t *key, struct platter_error *err)
{
    uint32_t sectors = luks1_material_sectors(c->key_len), slot_work;
    const struct hash *h = hash_find(c->hash);

    *l = (struct luks1){.key_len = c->key_len,
                        .payload = (uint32_t)(luks1_area_len(c) / CIPHER_SECTOR)};
    memcpy(l->cipher, c->cipher, sizeof l->cipher);
    memcpy(l->mode, c->mode, sizeof l->mode);
    memcpy(l->hash, c->hash, sizeof l->hash);
    for (unsigned i = 0; i < LUKS1_SLOTS; i++)
        l->slots[i] = (struct luks1_slot){.material = LUKS1_FIRST_MATERIAL + i * sectors,
                                          .stripes = LUKS1_STRIPES};
    int r = luks1_slot_work(area, l, c->milliseconds, &slot_work, err); /* which may be too much */
    if (r == 0)
        r = make_uuid(l->uuid, err);
    if (r == 0)
        r = random_bytes(key, c->key_len, err);
    if (r == 0)
        r = random_bytes(l->salt, sizeof l->salt, err);
    if (r == 0)
        r = pbkdf2_iterations(h, LUKS1_DIGEST, c->milliseconds / 8, 1000, &l->iterations, err);
    return r < 0 ? r
                 : pbkdf2_derive(h, key, l->key_len, l->salt, LUKS1_SALT, l->iterations, l->digest,
                                 LUKS1_DIGEST, err);
}

int luks1_create(const struct luks1_choice *choice, const struct luks1_area *area,
                 const struct secret *secret, struct platter_error *err)
{
    struct luks1 l;
    uint8_t bytes[LUKS1_HEADER];

    uint8_t *key = secret_alloc(CIPHER_MAX_KEY);
    if (!key)
        return fail_memory(err, "a key");
    int r = make_header(choice, area, &l, key, err);
    if (r == 0) {
        luks1_encode(&l, bytes);
        r = stream_pwrite(area->stream, bytes, sizeof bytes, area->off, err);
    }
    if (r == 0)
        r = luks1_slot_fill(area, &l, 0, key, secret, choice->milliseconds, err);
    secret_free(key, CIPHER_MAX_KEY);
    return r;
}
