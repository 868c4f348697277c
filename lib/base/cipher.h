/* SPDX-License-Identifier: MIT */
/*
 * Disk encryption: sectors of 512 bytes, each by itself, with an initial vector made of its number.
 * Ciphers and modes have the names that LUKS has for them ("aes", "xts-plain64"). qcow2.md section
 * 17.
 */
#ifndef BASE_CIPHER_H
#define BASE_CIPHER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { CIPHER_SECTOR = 512, CIPHER_MAX_KEY = 64 };

struct cipher; /* with its key; used by any number of threads at once */

/* Whether there is a cipher of that name, mode and length of key; a sentence if not. */
int cipher_check(const char *name, const char *mode, size_t key_len, struct platter_error *err);
int cipher_new(const char *name, const char *mode, const void *key, size_t key_len,
               struct cipher **ret, struct platter_error *err);
/* One more owner, who frees it like the first. */
struct cipher *cipher_share(struct cipher *c);
void cipher_free(struct cipher *c); /* the last owner's wipes it; NULL is fine */

/* `len` bytes, whole sectors, of which the first has this number. in and out may be the same. */
void cipher_encrypt(const struct cipher *c, uint64_t sector, void *out, const void *in, size_t len);
void cipher_decrypt(const struct cipher *c, uint64_t sector, void *out, const void *in, size_t len);

#endif
