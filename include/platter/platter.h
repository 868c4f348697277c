/* SPDX-License-Identifier: MIT */
/*
 * platter: virtual machine disks in any format.
 *
 * The whole public API. Conventions that hold for every function here:
 *
 * - Sizes and offsets are bytes. A guest offset counts from the start of the disk a virtual machine
 *   sees; a host offset counts from the start of a file that stores it.
 * - Functions that can fail return 0 or a negative code: an errno value or one of PLATTER_E*.
 *   `err`, always last, may be NULL; when it is not, a failure leaves the code and one sentence in
 * it. It is never needed to learn *whether* a call failed. Nothing is printed, nothing exits.
 * - Structures start with `size`, which the caller sets to sizeof(the structure); they only ever
 * grow at the end, so that programs built against an older header keep working. All bits and fields
 * not mentioned must be zero: `struct platter_x x = {.size = sizeof x};` is right. What a newer
 * program asks of an older library that does not know it is EINVAL.
 * - Any call on a disk may run beside any other call on it, from any thread, platter_close()
 * excepted.
 * - Strings are UTF-8 or plain bytes, ended by NUL, and copied when they are kept. A `char **`
 * result belongs to the caller, who gives it back with platter_free().
 */
#ifndef PLATTER_H
#define PLATTER_H

#include "archive.h"
#include "change.h"
#include "check.h"
#include "common.h"
#include "copy.h"
#include "disk.h"
#include "migrate.h"

#endif
