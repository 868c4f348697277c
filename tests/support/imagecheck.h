/* SPDX-License-Identifier: MIT */
/*
 * Checkers of whole images in memory, written for the tests from the format references alone: they
 * share no code with the library's formats, so that one mistake cannot hide another.
 */
#ifndef SUPPORT_IMAGECHECK_H
#define SUPPORT_IMAGECHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct image_report {
    uint64_t errors; /* what may lose or mix up data, now or at the next write */
    /* Those of them that are COPIED flags on what is referred to once, but counted more often: no
     * danger, and what a crash may leave while a snapshot is made (qcow2.md section 9.3). */
    uint64_t overcounted;
    uint64_t leaks;  /* space that nothing refers to */
    char first[256]; /* the first error, or the first leak where there is no error */
};

/* qcow2.md sections 2-5, 9, 16 and 18. Not for images with encryption. */
void qcow2_judge(const uint8_t *bytes, uint64_t size, struct image_report *ret);

/* qcow.md sections 2 to 5 and 12. */
void qcow_judge(const uint8_t *bytes, uint64_t size, struct image_report *ret);

/* vmdk.md section 4, for monolithicSparse. */
void vmdk_judge(const uint8_t *bytes, uint64_t size, struct image_report *ret);

/* Sections 6 and 7: COWD and seSparse. */
void esx_judge(const uint8_t *bytes, uint64_t size, struct image_report *ret);

/* By the name of the format, and a VMDK's magic; raw has nothing to check. */
void image_check(const char *format, const uint8_t *bytes, uint64_t size, struct image_report *ret);

/* For the checkers: counts an error, or a leak. */
void report_error(struct image_report *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void report_leak(struct image_report *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
