/* SPDX-License-Identifier: MIT */
/*
 * LUKS version 1: a header with the encrypted key of a volume, in a file of its own (luks.c) or
 * inside a qcow2. qcow2.md section 17.
 *
 * The data's key is stored eight times at most, each time encrypted with what a passphrase becomes
 * (a key slot), and spread over so many sectors that losing one of them loses the slot.
 */
#ifndef FORMAT_LUKS1_H
#define FORMAT_LUKS1_H

#include "base/cipher.h"
#include "base/hash.h"
#include "base/secret.h"
#include "format/format.h"

enum {
    LUKS1_HEADER = 592, /* bytes */
    LUKS1_SLOTS = 8,
    LUKS1_STRIPES = 4000,
    LUKS1_SALT = 32,
    LUKS1_DIGEST = 20,
    LUKS1_FIRST_MATERIAL = 8, /* sectors */
    LUKS1_KDF_LIMIT = 100 * 1000 * 1000
};

struct luks1_slot {
    bool active;
    uint32_t iterations;
    uint8_t salt[LUKS1_SALT];
    uint32_t material; /* sectors from the header */
    uint32_t stripes;
};

struct luks1 {
    char cipher[33], mode[33], hash[33], uuid[41];
    uint32_t payload; /* sectors from the header */
    uint32_t key_len;
    uint8_t digest[LUKS1_DIGEST], salt[LUKS1_SALT];
    uint32_t iterations; /* of the digest */
    struct luks1_slot slots[LUKS1_SLOTS];
};

/* Where a header and its key material stand. */
struct luks1_area {
    struct stream *stream;
    hoff off;
    uint64_t len; /* bytes they may take */
};

/* Whether a file begins like one, of whatever version. */
bool luks1_magic(const uint8_t *bytes, size_t len);
/* Decodes a header and checks all of it; `name` and `off` are for sentences. */
int luks1_decode(const char *name, hoff off, const uint8_t bytes[LUKS1_HEADER], uint64_t area_len,
                 struct luks1 *ret, struct platter_error *err);
void luks1_encode(const struct luks1 *l, uint8_t bytes[LUKS1_HEADER]);
int luks1_load(const struct luks1_area *area, struct luks1 *ret, struct platter_error *err);
/* Sectors that the key material of a slot takes in what we make. */
uint32_t luks1_material_sectors(uint32_t key_len);

/* ---- keys (luks1_key.c) ---------------------------------------------------------------------- */

/* Finds the slot that a secret opens, from number `first` on; key has room for CIPHER_MAX_KEY
 * bytes. EACCES: none of them. kdf_limit: the most iterations, 0: LUKS1_KDF_LIMIT. */
int luks1_unlock(const struct luks1_area *area, const struct luks1 *l, const struct secret *secret,
                 uint64_t kdf_limit, unsigned first, uint8_t *key, unsigned *ret_slot,
                 struct platter_error *err);
/* Asks the caller for secrets until one fits, which *secret (made by secret_new()) holds then. */
int luks1_ask(const struct luks1_area *area, const struct luks1 *l,
              const struct name_opener *opener, struct secret *secret, uint8_t *key,
              unsigned *ret_slot, struct platter_error *err);
/* The same, for the cipher of the data with its key. */
int luks1_open_cipher(const struct luks1_area *area, const struct luks1 *l,
                      const struct name_opener *opener, struct cipher **ret,
                      struct platter_error *err);

/* How many iterations of a slot take that long here (0: 2 seconds); EINVAL where nobody would open
 * such a slot unasked. */
int luks1_slot_work(const struct luks1_area *area, const struct luks1 *l, uint64_t milliseconds,
                    uint32_t *ret, struct platter_error *err);
/*
 * Fills an inactive slot, durably; a crash leaves it inactive, or complete.
 * `milliseconds` is how long a secret is to take to be tried; 0: 2 seconds.
 */
int luks1_slot_fill(const struct luks1_area *area, struct luks1 *l, unsigned slot,
                    const uint8_t *key, const struct secret *secret, uint64_t milliseconds,
                    struct platter_error *err);
/* The first slot that is not in use; LUKS1_SLOTS: there is none. */
unsigned luks1_free_slot(const struct luks1 *l);
/* Fills a slot that is in use, durably. A crash leaves one that the old secret opens, or one that
 * the new one does; where no slot is free, perhaps neither. */
int luks1_slot_replace(const struct luks1_area *area, struct luks1 *l, unsigned slot,
                       const uint8_t *key, const struct secret *secret, uint64_t milliseconds,
                       struct platter_error *err);
/* Makes a slot inactive, durably, and then its key material unreadable. */
int luks1_slot_clear(const struct luks1_area *area, struct luks1 *l, unsigned slot,
                     struct platter_error *err);

/* ---- new headers (luks1_create.c) ------------------------------------------------------------ */

struct luks1_choice {
    char cipher[33], mode[33], hash[33];
    uint32_t key_len;
    uint64_t milliseconds;
};

extern const char *const luks1_ciphers[], *const luks1_modes[], *const luks1_vectors[],
                                                                    *const luks1_hashes[];

/* The creation options of qemu-img, with "encrypt." or nothing before their names. */
#define LUKS1_OPTIONS(prefix)                                                                      \
    {.name = prefix "cipher-alg",                                                                  \
     .type = OPTION_ENUM,                                                                          \
     .value = "aes-256",                                                                           \
     .values = luks1_ciphers,                                                                      \
     .help = "cipher of LUKS and the bits of its key"},                                            \
        {.name = prefix "cipher-mode",                                                             \
         .type = OPTION_ENUM,                                                                      \
         .value = "xts",                                                                           \
         .values = luks1_modes,                                                                    \
         .help = "mode of that cipher"},                                                           \
        {.name = prefix "hash-alg",                                                                \
         .type = OPTION_ENUM,                                                                      \
         .value = "sha256",                                                                        \
         .values = luks1_hashes,                                                                   \
         .help = "hash that makes keys of passphrases"},                                           \
        {.name = prefix "iter-time",                                                               \
         .type = OPTION_NUMBER,                                                                    \
         .value = "2000",                                                                          \
         .min = 1,                                                                                 \
         .max = 3600000,                                                                           \
         .help = "milliseconds that trying a passphrase is to take"},                              \
        {.name = prefix "ivgen-alg",                                                               \
         .type = OPTION_ENUM,                                                                      \
         .value = "plain64",                                                                       \
         .values = luks1_vectors,                                                                  \
         .help = "what the number of a sector becomes for the cipher"},                            \
        {.name = prefix "ivgen-hash-alg",                                                          \
         .type = OPTION_ENUM,                                                                      \
         .values = luks1_hashes,                                                                   \
         .help = "hash of ivgen-alg=essiv"},                                                       \
    {                                                                                              \
        .name = prefix "key-secret", .type = OPTION_STRING,                                        \
        .help = "name of the secret that opens the image"                                          \
    }

int luks1_choose(const struct option_values *options, const char *prefix, struct luks1_choice *ret,
                 struct platter_error *err);
/* Bytes that header and key material take. */
uint64_t luks1_area_len(const struct luks1_choice *choice);
/* Writes a header with a new key, of which slot 0 opens with the secret, where zeros stand. */
int luks1_create(const struct luks1_choice *choice, const struct luks1_area *area,
                 const struct secret *secret, struct platter_error *err);

/* What info says of it, with the field names of qemu-img; `format`: "format": "luks" as well. */
json_t *luks1_info(const struct luks1 *l, bool format);

#endif
