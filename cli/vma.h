/* SPDX-License-Identifier: MIT */
/* What the verbs of the group vma have in common: the interface of Proxmox's program of that name
 * (section 8 of vma.md). */
#ifndef CLI_VMA_H
#define CLI_VMA_H

#include "cli.h"

/* Opens the archive of the first operand, "-" being standard input, and says what is unusual with
 * it; prints what fails. 0 or negative. `fault` may be NULL: notes are passed over then. */
int vma_open(const struct args *args, platter_fault_fn fault, void *opaque,
             struct platter_archive **ret);

/* The lines that tell what is in an archive, which other programs read, and a flush. 0 or
 * negative. */
int vma_print_listing(struct platter_archive *archive);

/* The lines of -v, one for each percent. */
struct vma_progress {
    bool shown; /* -v was given */
    int percent;
    double started;
};
void vma_progress_start(struct vma_progress *p, bool shown);
/* A platter_progress_fn over a struct vma_progress. */
int vma_progress_tick(void *opaque, const struct platter_progress *now);
double vma_progress_seconds(const struct vma_progress *p);

#endif
