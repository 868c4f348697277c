/* SPDX-License-Identifier: MIT */
/* A code and a sentence. Every fallible function returns 0 or a negative code and takes err last.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <errno.h>
#include <platter/platter.h>

/* Fills err (which may be NULL) with a positive `code` and a sentence; returns -code.
 * Use as `return fail(err, EINVAL, "...")`. */
int fail(struct platter_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As fail(), for a system call that just left `code` in errno: ": strerror" is added. */
int fail_errno(struct platter_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "text: " before the sentence in err; returns `code`, so `return fail_in(err, r, "%s",
 * name)`. */
int fail_in(struct platter_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As fail(), but with "; text" behind the sentence that is in err already. */
int fail_besides(struct platter_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Out of memory while `what` was wanted; returns -ENOMEM. */
int fail_memory(struct platter_error *err, const char *what);

#endif
