/* SPDX-License-Identifier: MIT */
/* What comes out of an archive: its disks, and its configurations. See ops/archive.h. */
#ifndef OPS_EXTRACT_H
#define OPS_EXTRACT_H

#include "ops/archive.h"
#include "ops/restore.h"

int archive_extract(struct platter_archive *a, const struct platter_extract_options *options,
                    uint64_t *ret_holes, struct platter_error *err);
int archive_device(struct platter_archive *a, unsigned index, struct platter_archive_device *ret,
                   struct platter_error *err);
int archive_save_config(struct platter_archive *a, unsigned index, const char *folder,
                        unsigned flags, struct platter_error *err);

#endif
