/* SPDX-License-Identifier: MIT */
/* What can be done with an archive front to back. */
#include "format/archive.h"
#include "format/vma/kept.h"
#include "format/vma/reader.h"
#include "format/vma/writer.h"

const struct archive_ops vma_archive_ops = {
    .reader_open = vma_reader_open,
    .writer_open = vma_writer_open,
    .may_write = vma_may_write,
    .keep_index = vma_keep_index,
    .is_index = vma_is_index,
};
