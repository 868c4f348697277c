/* SPDX-License-Identifier: MIT */
/* What the model of archives does with one of them: archive.c says in which order. */
#ifndef MODEL_ARCHIVE_RUN_H
#define MODEL_ARCHIVE_RUN_H

#include <jansson.h>
#include <platter/platter.h>
#include <pthread.h>

#include "model/wreck.h"

/* How an archive comes to who reads it. */
enum way { WAY_FILE, WAY_PIPE, WAY_ZSTD, WAY_GZIP, WAY_ZSTD_PIPE, WAYS };

struct run {
    uint64_t seed;
    enum way way;
    const char *what; /* was done to it */
    struct prng prng;
    struct vmaimage v;
    char *path, *fifo;
};

/* Says what is wrong; -1. */
int complain(const struct run *r, const char *what, const char *why);
/* How often that was done. */
extern unsigned complaints;

struct feeder {
    const struct run *run;
    pthread_t thread;
};

/* Puts the archive where it is to be read from. */
void run_lay_out(const struct run *r, const struct buffer *b);
/* The name to open; where it is a pipe, it is filled until run_end(). */
const char *run_begin(const struct run *r, struct feeder *f);
void run_end(const struct run *r, struct feeder *f);

/* What is told while an archive is open. */
struct told {
    uint64_t faults;
    bool *missing[256], *doubted[256]; /* of each device: its clusters */
    uint64_t holes;
    char first[400];
    const char *bad; /* a fault that cannot be */
    json_t *devices; /* as info has them */
};

void told_free(struct told *t);

int run_open(const struct run *r, const char *name, unsigned flags, bool give_uuid, struct told *t,
             struct platter_archive **ret, struct platter_error *err);
/* Opens and verifies. */
int run_verify(struct run *r, unsigned flags, struct told *t, struct platter_error *err);
/* All disks that the archive knows, raw, each to a file. */
int run_extract(struct run *r, struct platter_archive *a, const struct told *t, uint64_t *holes,
                struct platter_error *err);
/* Whether what was told, and extracted, is what the book says. */
int run_judge(const struct run *r, const struct oracle *o, const struct told *t, bool extracted);

#endif
