/* SPDX-License-Identifier: MIT */
/*
 * What the fuzz targets share. Each target is one LLVMFuzzerTestOneInput(); with libFuzzer (option
 * `fuzz`) it becomes a fuzzer, without it replay.c runs it over the files of its corpus. A finding
 * is a sanitizer's report, an abort() here, or a time out.
 */
#ifndef FUZZ_TARGET_H
#define FUZZ_TARGET_H

#include "disk/disk.h"
#include "support/buffer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_MEMORY = 8 << 20 }; /* memory limit of a disk: hostile tables must not take more */

/* A disk over a copy of the bytes in *file, which must live longer. NULL: the format refuses it. */
struct platter_disk *fuzz_open(const struct format *format, struct buffer *file, bool writable);

/*
 * Maps and reads a disk from its start, and at its end, but only so much that a disk of exabytes
 * takes no longer than a small one. What cannot be read is fine; it must only say so.
 */
void fuzz_read(struct platter_disk *disk);

/* Ends the program as a finding; printf. */
_Noreturn void fuzz_found(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
