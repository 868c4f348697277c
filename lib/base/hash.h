/* SPDX-License-Identifier: MIT */
/* Hashes by name, and the derivation of keys from passphrases (RFC 8018). */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stdint.h>

#include "base/error.h"

enum { HASH_MAX = 64 /* bytes of the longest digest */ };

struct hash; /* an algorithm, static */

/* By the names that LUKS has: "sha256", "ripemd160", ...; NULL: not known. */
const struct hash *hash_find(const char *name);
/* What hash_find() knows, for sentences. */
const char *hash_names(void);
size_t hash_size(const struct hash *h);

/* The digest of two runs of bytes, one behind the other; out has room for hash_size(). */
void hash_bytes(const struct hash *h, const void *a, size_t a_len, const void *b, size_t b_len,
                uint8_t *out);

/* PBKDF2-HMAC: `iterations` rounds for each hash_size() bytes of `out`. */
int pbkdf2_derive(const struct hash *h, const void *password, size_t password_len, const void *salt,
                  size_t salt_len, uint32_t iterations, void *out, size_t out_len,
                  struct platter_error *err);
/* How many iterations take about this long here, for a key of key_len bytes; at least `least`. */
int pbkdf2_iterations(const struct hash *h, size_t key_len, uint64_t milliseconds, uint32_t least,
                      uint32_t *ret, struct platter_error *err);

#endif
