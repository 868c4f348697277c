/* SPDX-License-Identifier: MIT */
/* New archives: format->archive->writer_open() and may_write(). */
#ifndef FORMAT_VMA_WRITER_H
#define FORMAT_VMA_WRITER_H

#include "format/archive.h"

int vma_writer_open(const struct archive_plan *plan, struct archive_writer **ret,
                    struct platter_error *err);
int vma_may_write(const struct archive_plan *plan, struct platter_error *err);

#endif
