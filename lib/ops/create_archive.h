/* SPDX-License-Identifier: MIT */
/* platter_archive_create(), whose comment in platter/archive.h is the contract; arguments were
 * checked by lib/api_archive_create.c. */
#ifndef OPS_CREATE_ARCHIVE_H
#define OPS_CREATE_ARCHIVE_H

#include <platter/archive.h>

#include "base/error.h"

/* All structures of the plan are complete; `archived` is an array of one for each disk. */
int archive_create(const char *target, const struct platter_archive_plan *plan,
                   struct platter_archived *archived, struct platter_error *err);

#endif
