/* SPDX-License-Identifier: MIT */
/* What `platter extract` has in hand: what was chosen (extract_choose.c), and what it
 * tells of it (extract_report.c). */
#ifndef CLI_EXTRACT_H
#define CLI_EXTRACT_H

#include "cli.h"

enum { MOST_DISKS = 256, MOST_CONFIGS = 256 /* of an archive */ };

/* What -d and -c are as actions. */
enum { CHOOSE_DISK = 1, CHOOSE_CONFIG };

struct extract_disk {
    char *name;
    char *path; /* where it goes */
    uint64_t length;
    bool unsized;
    struct fault_ranges holes;  /* that are missing */
    struct fault_ranges doubts; /* that may be wrong */
    struct platter_extract_target target;
};

struct extract_config {
    unsigned index;
    const char *name; /* the archive's */
    size_t length;
    char *path;
    bool written;
};

struct extract_job {
    const struct args *args;
    struct progress progress;
    struct platter_archive *archive;
    const char *folder;
    bool made_folder;
    bool lost_header; /* its disks may not be known beforehand */
    struct extract_disk disks[MOST_DISKS];
    const struct platter_extract_target *list[MOST_DISKS];
    struct extract_config configs[MOST_CONFIGS];
    unsigned n_disks, n_configs;
    struct fault_log log;
};

/* Finds what the arguments ask for, with a place for each; prints what fails. 0 or negative. */
int extract_choose(struct extract_job *job);
/* A platter_fault_fn over a struct extract_job: tells it, and keeps it for the report. */
void extract_fault(void *opaque, const struct platter_fault *fault);
/* What was extracted. */
void extract_report(const struct extract_job *job, uint64_t holes);

#endif
