/* SPDX-License-Identifier: MIT */
#include "base/hash.h"

#include <nettle/hmac.h>
#include <nettle/md5.h>
#include <nettle/memxor.h>
#include <nettle/nettle-meta.h>
#include <nettle/ripemd160.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>
#include <string.h>
#include <time.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/secret.h"

struct hash {
    const char *name;
    const struct nettle_hash *nettle;
};

static const struct hash hashes[] = {
    {"md5", &nettle_md5},
    {"sha1", &nettle_sha1},
    {"sha224", &nettle_sha224},
    {"sha256", &nettle_sha256},
    {"sha384", &nettle_sha384},
    {"sha512", &nettle_sha512},
    {"ripemd160", &nettle_ripemd160},
};

union hash_state {
    struct md5_ctx md5;
    struct sha1_ctx sha1;
    struct sha256_ctx sha256;
    struct sha512_ctx sha512;
    struct ripemd160_ctx ripemd160;
};

const struct hash *hash_find(const char *name)
{
    for (size_t i = 0; i < sizeof hashes / sizeof *hashes; i++)
        if (strcmp(hashes[i].name, name) == 0)
            return &hashes[i];
    return NULL;
}

const char *hash_names(void)
{
    return "md5, sha1, sha224, sha256, sha384, sha512, ripemd160";
}

size_t hash_size(const struct hash *h)
{
    return h->nettle->digest_size;
}

void hash_bytes(const struct hash *h, const void *a, size_t a_len, const void *b, size_t b_len,
                uint8_t *out)
{
    union hash_state state;
    h->nettle->init(&state);
    h->nettle->update(&state, a_len, a);
    h->nettle->update(&state, b_len, b);
    h->nettle->digest(&state, hash_size(h), out);
    explicit_bzero(&state, sizeof state);
}

/* ---- PBKDF2 ---------------------------------------------------------------------------------- */

/* All of it is wiped, which nettle's own function does not do with its sums. */
struct mac {
    const struct nettle_hash *hash;
    union hash_state outer, inner, state;
    uint8_t round[HASH_MAX], sum[HASH_MAX];
};

static void mac_round(struct mac *m, const uint8_t *bytes, size_t len)
{
    hmac_update(&m->state, m->hash, len, bytes);
    hmac_digest(&m->outer, &m->inner, &m->state, m->hash, m->hash->digest_size, m->round);
}

/* m->sum becomes block number `i` of the key. */
static void derive_block(struct mac *m, const void *salt, size_t salt_len, uint32_t i,
                         uint32_t iterations)
{
    const size_t size = m->hash->digest_size;
    uint8_t number[4];

    put_be(number, sizeof number, i);
    hmac_update(&m->state, m->hash, salt_len, salt);
    mac_round(m, number, sizeof number);
    memcpy(m->sum, m->round, size);
    for (uint32_t n = 1; n < iterations; n++) {
        mac_round(m, m->round, size);
        memxor(m->sum, m->round, size);
    }
}

int pbkdf2_derive(const struct hash *h, const void *password, size_t password_len, const void *salt,
                  size_t salt_len, uint32_t iterations, void *out, size_t out_len,
                  struct platter_error *err)
{
    uint8_t *p = out;
    struct mac *m = secret_alloc(sizeof *m);
    if (!m)
        return fail_memory(err, "a key");
    m->hash = h->nettle;
    hmac_set_key(&m->outer, &m->inner, &m->state, m->hash, password_len, password);
    for (uint32_t i = 1; out_len > 0; i++) {
        size_t n = (size_t)min_u64(out_len, hash_size(h));
        derive_block(m, salt, salt_len, i, iterations);
        memcpy(p, m->sum, n);
        p += n;
        out_len -= n;
    }
    secret_free(m, sizeof *m);
    return 0;
}

static uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Doubles the work until it takes long enough to be measured: what is to take less itself need not
 * be known that well. */
int pbkdf2_iterations(const struct hash *h, size_t key_len, uint64_t milliseconds, uint32_t least,
                      uint32_t *ret, struct platter_error *err)
{
    const uint64_t enough = max_u64(min_u64(milliseconds, 30), 1) * 1000000; /* nanoseconds */
    uint8_t key[64];
    uint64_t took = 0, n = 1024;

    for (;; n *= 2) {
        uint64_t start = nanoseconds();
        int r = pbkdf2_derive(h, "measure", 7, "salt", 4, (uint32_t)n, key,
                              min_u64(key_len, sizeof key), err);
        took = nanoseconds() - start;
        if (r < 0)
            return r;
        if (took >= enough || n >= 1 << 24)
            break;
    }
    double wanted = (double)n * (double)milliseconds * 1e6 / (double)(took ? took : 1);
    *ret = wanted > INT32_MAX ? INT32_MAX : (uint32_t)wanted;
    *ret = *ret < least ? least : *ret;
    return 0;
}
