/* SPDX-License-Identifier: MIT */
#include "base/cipher.h"

#include <endian.h>
#include <nettle/cast128.h>
#include <nettle/cbc.h>
#include <nettle/ctr.h>
#include <nettle/memxor.h>
#include <nettle/nettle-meta.h>
#include <nettle/serpent.h>
#include <nettle/twofish.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "base/secret.h"

enum {
    BLOCK = 16, /* bytes of the largest block */
    BATCH = 8,  /* sectors that are worked on at once */
    PER_SECTOR = CIPHER_SECTOR / BLOCK,
    CONTEXT = 8192 /* bytes of the largest context */
};

enum mode { MODE_XTS, MODE_CBC, MODE_ECB, MODE_CTR };
enum vector { VECTOR_PLAIN, VECTOR_PLAIN64, VECTOR_ESSIV, VECTOR_NONE };

/* nettle leaves serpent, twofish and CAST out of what it describes for all lengths of key. */
static const struct algorithm {
    const char *name;
    const struct nettle_cipher *nettle;
} algorithms[] = {
    {"aes", &nettle_aes128},           {"aes", &nettle_aes192},
    {"aes", &nettle_aes256},           {"serpent", &nettle_serpent128},
    {"serpent", &nettle_serpent192},   {"serpent", &nettle_serpent256},
    {"twofish", &nettle_twofish128},   {"twofish", &nettle_twofish192},
    {"twofish", &nettle_twofish256},   {"camellia", &nettle_camellia128},
    {"camellia", &nettle_camellia192}, {"camellia", &nettle_camellia256},
    {"cast5", &nettle_cast128},
};

/* A mode string, taken apart. */
struct scheme {
    const struct nettle_cipher *data, *iv; /* iv: of essiv, or NULL */
    const struct hash *hash;               /* of essiv, or NULL */
    enum mode mode;
    enum vector vector;
};

struct cipher {
    struct scheme scheme;
    atomic_uint shared; /* how many owners there are beside the first */
    alignas(16) uint8_t encrypt[CONTEXT];
    alignas(16) uint8_t decrypt[CONTEXT];
    alignas(16) uint8_t tweak[CONTEXT]; /* XTS: the second half of the key */
    alignas(16) uint8_t iv[CONTEXT];    /* essiv */
};

static const struct nettle_cipher *algorithm_find(const char *name, size_t key_len)
{
    for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++)
        if (strcmp(algorithms[i].name, name) == 0 && algorithms[i].nettle->key_size == key_len)
            return algorithms[i].nettle;
    return NULL;
}

/* ---- mode strings ---------------------------------------------------------------------------- */

static bool mode_find(const char *text, size_t len, enum mode *ret)
{
    static const char *const names[] = {
        [MODE_XTS] = "xts", [MODE_CBC] = "cbc", [MODE_ECB] = "ecb", [MODE_CTR] = "ctr"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == len && memcmp(names[i], text, len) == 0) {
            *ret = (enum mode)i;
            return true;
        }
    return false;
}

/* "plain", "plain64" or "essiv:HASH"; with ECB it has no effect, and may be left out. */
static bool vector_find(const char *text, struct scheme *ret)
{
    if (!*text && ret->mode == MODE_ECB)
        ret->vector = VECTOR_NONE;
    else if (strcmp(text, "plain") == 0)
        ret->vector = VECTOR_PLAIN;
    else if (strcmp(text, "plain64") == 0)
        ret->vector = VECTOR_PLAIN64;
    else if (strncmp(text, "essiv:", 6) == 0 && (ret->hash = hash_find(text + 6)))
        ret->vector = VECTOR_ESSIV;
    else
        return false;
    if (ret->mode == MODE_ECB)
        ret->vector = VECTOR_NONE;
    return true;
}

static int scheme_find(const char *name, const char *mode, size_t key_len, struct scheme *ret,
                       struct platter_error *err)
{
    const char *dash = strchrnul(mode, '-');

    *ret = (struct scheme){0};
    if (!mode_find(mode, (size_t)(dash - mode), &ret->mode) ||
        !vector_find(*dash ? dash + 1 : dash, ret))
        return fail(err, ENOTSUP,
                    "the cipher mode \"%s\" is not known: known are xts, cbc, ctr and ecb, with "
                    "plain, plain64 or essiv:HASH",
                    mode);
    size_t half = ret->mode == MODE_XTS ? key_len / 2 : key_len;
    ret->data = algorithm_find(name, half);
    if (!ret->data || (ret->mode == MODE_XTS && key_len % 2))
        return fail(err, ENOTSUP,
                    "the cipher \"%s\" with a key of %zu bytes is not known: known are aes, "
                    "serpent, twofish, camellia (16, 24, 32 bytes) and cast5 (16 bytes), twice as "
                    "much in mode xts",
                    name, key_len);
    if (ret->mode == MODE_XTS && ret->data->block_size != BLOCK)
        return fail(err, ENOTSUP, "the cipher \"%s\" has blocks too small for mode xts", name);
    if (ret->vector != VECTOR_ESSIV)
        return 0;
    ret->iv = algorithm_find(name, hash_size(ret->hash));
    if (!ret->iv)
        return fail(err, ENOTSUP,
                    "essiv: the hash makes a key of %zu bytes, which the cipher \"%s\" cannot have",
                    hash_size(ret->hash), name);
    return 0;
}

int cipher_check(const char *name, const char *mode, size_t key_len, struct platter_error *err)
{
    struct scheme scheme;
    return scheme_find(name, mode, key_len, &scheme, err);
}

int cipher_new(const char *name, const char *mode, const void *key, size_t key_len,
               struct cipher **ret, struct platter_error *err)
{
    struct scheme s;
    int r = scheme_find(name, mode, key_len, &s, err);
    if (r < 0)
        return r;
    struct cipher *c = secret_alloc(sizeof *c);
    if (!c || s.data->context_size > CONTEXT) {
        secret_free(c, sizeof *c);
        return fail_memory(err, "a cipher");
    }
    c->scheme = s;
    s.data->set_encrypt_key(c->encrypt, key);
    s.data->set_decrypt_key(c->decrypt, key);
    if (s.mode == MODE_XTS)
        s.data->set_encrypt_key(c->tweak, (const uint8_t *)key + key_len / 2);
    if (s.vector == VECTOR_ESSIV) {
        uint8_t digest[HASH_MAX];
        hash_bytes(s.hash, key, key_len, NULL, 0, digest);
        s.iv->set_encrypt_key(c->iv, digest);
        explicit_bzero(digest, sizeof digest);
    }
    *ret = c;
    return 0;
}

struct cipher *cipher_share(struct cipher *c)
{
    atomic_fetch_add(&c->shared, 1);
    return c;
}

void cipher_free(struct cipher *c)
{
    if (c && atomic_fetch_sub(&c->shared, 1) == 0)
        secret_free(c, sizeof *c);
}

/* ---- sectors --------------------------------------------------------------------------------- */

/* The initial vectors of n sectors, one behind the other. */
static void vectors(const struct cipher *c, uint64_t sector, size_t n, uint8_t *out)
{
    size_t block = c->scheme.data->block_size;
    memset(out, 0, n * block);
    for (size_t i = 0; i < n; i++, sector++)
        if (c->scheme.vector == VECTOR_PLAIN)
            put_le(out + i * block, 4, (uint32_t)sector);
        else if (c->scheme.vector != VECTOR_NONE)
            put_le(out + i * block, 8, sector);
    if (c->scheme.vector == VECTOR_ESSIV)
        c->scheme.iv->encrypt(c->iv, n * block, out, out);
}

/* The tweaks of a sector, of which the first is there: each is the one before times x in GF(2^128)
 * (IEEE 1619). */
static void tweaks_of_sector(uint8_t *tweaks)
{
    uint64_t t[2];
    memcpy(t, tweaks, BLOCK);
    uint64_t low = le64toh(t[0]), high = le64toh(t[1]);
    for (size_t k = 1; k < PER_SECTOR; k++) {
        uint64_t carry = high >> 63;
        high = high << 1 | low >> 63;
        low = low << 1 ^ (-carry & 0x87);
        t[0] = htole64(low);
        t[1] = htole64(high);
        memcpy(tweaks + k * BLOCK, t, BLOCK);
    }
}

/* XTS of n sectors: all their blocks pass through the cipher at once, which is where processors
 * have their speed. */
static void xts(const struct cipher *c, bool encrypt, uint64_t sector, uint8_t *out,
                const uint8_t *in, size_t n)
{
    uint8_t first[BATCH * BLOCK], tweaks[BATCH * CIPHER_SECTOR];
    size_t len = n * CIPHER_SECTOR;

    vectors(c, sector, n, first);
    c->scheme.data->encrypt(c->tweak, n * BLOCK, first, first);
    for (size_t i = 0; i < n; i++) {
        memcpy(tweaks + i * CIPHER_SECTOR, first + i * BLOCK, BLOCK);
        tweaks_of_sector(tweaks + i * CIPHER_SECTOR);
    }
    memxor3(out, in, tweaks, len);
    if (encrypt)
        c->scheme.data->encrypt(c->encrypt, len, out, out);
    else
        c->scheme.data->decrypt(c->decrypt, len, out, out);
    memxor(out, tweaks, len);
}

static void cbc(const struct cipher *c, bool encrypt, uint64_t sector, uint8_t *out,
                const uint8_t *in, size_t n)
{
    const struct nettle_cipher *data = c->scheme.data;
    uint8_t ivs[BATCH * BLOCK];

    vectors(c, sector, n, ivs);
    for (size_t i = 0; i < n; i++, in += CIPHER_SECTOR, out += CIPHER_SECTOR) {
        uint8_t *iv = ivs + i * data->block_size;
        if (encrypt)
            cbc_encrypt(c->encrypt, data->encrypt, data->block_size, iv, CIPHER_SECTOR, out, in);
        else
            cbc_decrypt(c->decrypt, data->decrypt, data->block_size, iv, CIPHER_SECTOR, out, in);
    }
}

static void ecb(const struct cipher *c, bool encrypt, uint64_t sector, uint8_t *out,
                const uint8_t *in, size_t n)
{
    (void)sector;
    if (encrypt)
        c->scheme.data->encrypt(c->encrypt, n * CIPHER_SECTOR, out, in);
    else
        c->scheme.data->decrypt(c->decrypt, n * CIPHER_SECTOR, out, in);
}

/* What is added to the data is the same both ways. */
static void ctr(const struct cipher *c, bool encrypt, uint64_t sector, uint8_t *out,
                const uint8_t *in, size_t n)
{
    const struct nettle_cipher *data = c->scheme.data;
    uint8_t counters[BATCH * BLOCK];

    (void)encrypt;
    vectors(c, sector, n, counters);
    for (size_t i = 0; i < n; i++, in += CIPHER_SECTOR, out += CIPHER_SECTOR)
        ctr_crypt(c->encrypt, data->encrypt, data->block_size, counters + i * data->block_size,
                  CIPHER_SECTOR, out, in);
}

static void run(const struct cipher *c, bool encrypt, uint64_t sector, uint8_t *out,
                const uint8_t *in, size_t len)
{
    static void (*const modes[])(const struct cipher *, bool, uint64_t, uint8_t *, const uint8_t *,
                                 size_t) = {
        [MODE_XTS] = xts, [MODE_CBC] = cbc, [MODE_ECB] = ecb, [MODE_CTR] = ctr};

    for (size_t n; len > 0; len -= n * CIPHER_SECTOR) {
        n = (size_t)min_u64(len / CIPHER_SECTOR, BATCH);
        modes[c->scheme.mode](c, encrypt, sector, out, in, n);
        sector += n;
        in += n * CIPHER_SECTOR;
        out += n * CIPHER_SECTOR;
    }
}

void cipher_encrypt(const struct cipher *c, uint64_t sector, void *out, const void *in, size_t len)
{
    run(c, true, sector, out, in, len);
}

void cipher_decrypt(const struct cipher *c, uint64_t sector, void *out, const void *in, size_t len)
{
    run(c, false, sector, out, in, len);
}
