/* SPDX-License-Identifier: MIT */
/* Programs beside this one. */
#ifndef CLI_CHILD_H
#define CLI_CHILD_H

#include <features.h>
#include <stdbool.h>
#include <sys/types.h>

/* Whether a program has the terminal from its first moment on. Else it is to be given it, and told
 * to go on, behind that; a key that was typed in between is another's. */
#if __GLIBC_PREREQ(2, 35)
enum { CHILD_HAS_TERMINAL = true };
#else
enum { CHILD_HAS_TERMINAL = false };
#endif

/* Starts a program, found as shells find it, as a group of its own and with the signals of a new
 * one. It has `terminal` for its own, if we do; -1: none. An exit code, and the sentence is said.
 */
int child_start(char *const words[], int terminal, pid_t *ret);

#endif
