/* SPDX-License-Identifier: MIT */
/* The lines that tell `vma extract -r` where disks go (section 8.2 of vma.md). No I/O here. */
#ifndef CLI_VMA_MAP_H
#define CLI_VMA_MAP_H

#include <stdbool.h>
#include <stdint.h>

enum { MAP_LINE_MOST = 8191 /* bytes without the newline */ };

/* skip=NAME, or {format=FMT:|throttling.bps=N:|throttling.group=G:|cache=MODE:}FLAG:NAME=PATH */
struct map_line {
    bool skip;
    bool write_zeros;   /* FLAG: the target may not read as zeros */
    const char *name;   /* of the disk */
    const char *path;   /* NULL with skip */
    const char *format; /* this and those below: NULL where they are not given */
    const char *group;
    const char *cache;
    uint64_t bps; /* 0: no limit */
};

/* Parses a line without its newline, in place: what is found stays in `line`, which is cut up.
 * 0, or -EINVAL and a static text that says what is wrong. */
int map_line_parse(char *line, struct map_line *ret, const char **ret_why);

#endif
