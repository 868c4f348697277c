/* SPDX-License-Identifier: MIT */
#include "vma_map.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static int refuse(const char **ret_why, const char *why)
{
    *ret_why = why;
    return -EINVAL;
}

/* The part of a text up to the first `c`, which is overwritten; *text is what is behind it. NULL:
 * there is none. */
static char *cut(char **text, char c)
{
    char *start = *text, *at = strchr(start, c);
    if (!at)
        return NULL;
    *at = '\0';
    *text = at + 1;
    return start;
}

static bool parse_number(const char *text, uint64_t *ret)
{
    *ret = 0;
    for (const char *c = text; *c; c++)
        if (*c < '0' || *c > '9' || __builtin_mul_overflow(*ret, 10u, ret) ||
            __builtin_add_overflow(*ret, (uint64_t)(*c - '0'), ret))
            return false;
    return *text != '\0';
}

/* One option at the start of *line: 1, or 0 where there is none. */
static int parse_option(char **line, struct map_line *ret, const char **bps, const char **ret_why)
{
    const struct {
        const char *name;
        const char **value;
    } options[] = {{"format=", &ret->format},
                   {"throttling.bps=", bps},
                   {"throttling.group=", &ret->group},
                   {"cache=", &ret->cache}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        size_t len = strlen(options[i].name);
        if (strncmp(*line, options[i].name, len) != 0)
            continue;
        if (*options[i].value)
            return refuse(ret_why, "an option is there twice");
        *line += len;
        *options[i].value = cut(line, ':');
        if (!*options[i].value)
            return refuse(ret_why, "the value of an option does not end with a colon");
        return **options[i].value ? 1 : refuse(ret_why, "the value of an option is empty");
    }
    return 0;
}

static int parse_target(char *line, struct map_line *ret, const char **ret_why)
{
    if ((line[0] != '0' && line[0] != '1') || line[1] != ':')
        return refuse(ret_why, "it begins neither with skip=, an option, 0: nor 1:");
    ret->write_zeros = line[0] == '1';
    line += 2;
    ret->name = cut(&line, '=');
    if (!ret->name || !*ret->name)
        return refuse(ret_why, "there is no name of a disk and = behind the first colon");
    ret->path = line;
    return *line ? 0 : refuse(ret_why, "there is no path behind the =");
}

int map_line_parse(char *line, struct map_line *ret, const char **ret_why)
{
    const char *bps = NULL;
    *ret = (struct map_line){0};
    if (strncmp(line, "skip=", 5) == 0) {
        ret->skip = true;
        ret->name = line + 5;
        return *ret->name ? 0 : refuse(ret_why, "there is no name behind skip=");
    }
    int r;
    do {
        r = parse_option(&line, ret, &bps, ret_why);
    } while (r == 1);
    if (r == 0 && bps && !parse_number(bps, &ret->bps))
        r = refuse(ret_why, "throttling.bps is no number");
    return r < 0 ? r : parse_target(line, ret, ret_why);
}
