/* SPDX-License-Identifier: MIT */
/* Finding extents in bytes of which nobody knows where they begin: by magic, uuid and checksum, at
 * any offset (section 5). */
#ifndef FORMAT_VMA_RESYNC_H
#define FORMAT_VMA_RESYNC_H

#include "format/vma/vma.h"

/* Where the first header of an extent begins that stands in these bytes as a whole; `len`: there is
 * none. uuid NULL: of any archive. */
size_t vma_find_extent(const uint8_t *bytes, size_t len, const uint8_t *uuid);

/* Whether these bytes were the header of an extent of that archive, before something happened to
 * them, and stand where it stood: magic or uuid are where they should be. */
bool vma_was_extent(const uint8_t *bytes, size_t len, const uint8_t *uuid);

/* The archive that most extents in these bytes are of, where they stand one behind the other: of
 * `likely` (or NULL) if there is any. Its uuid, which stands in the bytes; NULL: there is none. */
const uint8_t *vma_vote_uuid(const uint8_t *bytes, size_t len, const uint8_t *likely);

#endif
