/* SPDX-License-Identifier: MIT */
/* What can be done with an archive front to back. */
#include "format/archive.h"
#include "format/vma/kept.h"
#include "format/vma/reader.h"

const struct archive_ops vma_archive_ops = {
    .reader_open = vma_reader_open,
    .keep_index = vma_keep_index,
    .is_index = vma_is_index,
};
