/* SPDX-License-Identifier: MIT */
/*
 * The AES of old, of qcow and qcow2: AES-128-CBC of whole sectors, with the guest's number of the
 * sector as initial vector, and the passphrase as key. It protects little, and nothing tells a
 * wrong key: qcow.md section 6.
 */
#ifndef FORMAT_OLD_AES_H
#define FORMAT_OLD_AES_H

#include "base/cipher.h"
#include "format/format.h"

/* Asks for the passphrase of an image that opens, and notes as a doubt what such images are. */
int old_aes_open(struct image *img, struct cipher **ret, struct platter_error *err);

#endif
