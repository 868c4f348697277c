/* SPDX-License-Identifier: MIT */
/* Other programs, and a folder to meet them in. */
#ifndef SUPPORT_PROCESS_H
#define SUPPORT_PROCESS_H

#include <stddef.h>

/* Runs a command line through the shell, made as by printf; its output goes to our stderr where the
 * exit status is neither 0 nor `fine`. Returns the exit status. */
int run_command(int fine, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A new empty folder under $TMPDIR; removed with all in it when the test exits. */
const char *scratch_folder(void);

/* "folder/name" of the scratch folder, in memory the caller frees. */
char *scratch_path(const char *name);

#endif
