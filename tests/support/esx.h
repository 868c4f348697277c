/* SPDX-License-Identifier: MIT */
/*
 * The sparse files of ESX, which no peer makes: laid out by hand (vmdk.md sections 6 and 7), and
 * opened through a descriptor in memory, which such a file needs to be written.
 */
#ifndef SUPPORT_ESX_H
#define SUPPORT_ESX_H

#include "disk/disk.h"
#include "support/buffer.h"

enum esx_kind { ESX_NONE, ESX_COWD, ESX_SESPARSE };

/* Which of them a file is, by its magic. */
enum esx_kind esx_kind_of(const uint8_t *bytes, uint64_t size);
/* Its capacity in sectors, as the header says. */
uint64_t esx_sectors(const uint8_t *bytes, uint64_t size);

/* A file for a disk of `size` bytes that holds the first `filled` bytes of content. A seSparse file
 * takes new grains only if it holds some. Grains of a COWD have `grain` sectors. */
struct buffer esx_make(enum esx_kind kind, uint64_t size, uint32_t grain, const uint8_t *content,
                       uint64_t filled);

/* What a VMDK in memory has as its CID. */
uint32_t esx_cid_of(const struct buffer *vmdk);
/* The descriptor of a disk with one such extent; `parent` may be NULL. The caller frees it. */
char *esx_descriptor(enum esx_kind kind, uint64_t sectors, const char *extent, const char *parent,
                     uint32_t parent_cid);

/* The disk of such an extent, over a VMDK or nothing (NULL). Consumes both streams, on failure as
 * well. */
int esx_open(enum esx_kind kind, uint64_t sectors, struct stream *extent, struct stream *backing,
             uint32_t parent_cid, bool writable, uint64_t memory_limit, struct platter_disk **ret,
             struct platter_error *err);

#endif
