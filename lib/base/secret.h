/* SPDX-License-Identifier: MIT */
/*
 * Memory for keys and passphrases: kept out of swap and core files as far as the system lets us,
 * and wiped before it is given back. Random bytes for keys come from the kernel.
 */
#ifndef BASE_SECRET_H
#define BASE_SECRET_H

#include <stdint.h>

#include "base/error.h"

/* n zeroed bytes in pages of their own; NULL when out of memory. */
void *secret_alloc(size_t n);
/* Wipes and gives back; n as asked then. NULL is fine. */
void secret_free(void *memory, size_t n);

/* A passphrase or the content of a key file. */
struct secret {
    uint8_t *bytes; /* room for PLATTER_MAX_SECRET; NULL: none yet */
    size_t len;
};
int secret_new(struct secret *s, struct platter_error *err);
void secret_wipe(struct secret *s);

/* Fills with bytes nobody can guess. */
int random_bytes(void *bytes, size_t n, struct platter_error *err);

#endif
