/* SPDX-License-Identifier: MIT */
/* The index kept beside a VMA archive: docs/vma-index.md. */
#ifndef SUPPORT_VMAKEPT_H
#define SUPPORT_VMAKEPT_H

#include "support/buffer.h"

/* Makes all its checksums right, as far as there is something they can be of. */
void vmakept_seal(struct buffer *index);

#endif
