/* SPDX-License-Identifier: MIT */
/* Other properties for an image that is there: the format's own, and those that other verbs change.
 */
#include <string.h>

#include "ops/ops.h"

/* Options of every format that can be amended, which other verbs know better. */
static const struct option_def common[] = {
    {.name = "backing_file", .type = OPTION_STRING, .help = "only what it is: see rebase"},
    {.name = "backing_fmt", .type = OPTION_STRING, .help = "only what it is: see rebase"},
    {.name = "size",
     .type = OPTION_SIZE,
     .min = 1,
     .max = INT64_MAX,
     .help = "a larger size of the disk; see resize"},
    {.name = NULL}};

enum { N_COMMON = sizeof common / sizeof *common };

static unsigned count(const struct option_def *defs)
{
    unsigned n = 0;
    while (defs[n].name)
        n++;
    return n;
}

/* The format's own and the common ones; to be freed. */
static struct option_def *all_options(const struct format *f)
{
    unsigned n = count(f->amend_options);
    struct option_def *defs = calloc(n + N_COMMON, sizeof *defs);
    if (!defs)
        return NULL;
    memcpy(defs, f->amend_options, n * sizeof *defs);
    memcpy(defs + n, common, sizeof common);
    return defs;
}

static bool is_other(const struct option_values *v, const char *key, const char *now)
{
    const char *asked = options_given(v, key) ? options_string(v, key) : NULL;
    return asked && strcmp(asked, now ? now : "") != 0;
}

/* What other verbs do, and better. */
static int check_common(const struct platter_disk *disk, const struct option_values *v,
                        struct platter_error *err)
{
    const struct image *top = disk_top(disk);
    if (is_other(v, "backing_file", top->backing_name) ||
        is_other(v, "backing_fmt", top->backing_format))
        return fail(err, EINVAL, "%s: Cannot amend the backing file: rebase changes it",
                    top->stream->name);
    if (options_given(v, "size") && options_number(v, "size") < disk_size(disk))
        return fail(err, EINVAL,
                    "%s: is larger than that, and what lies behind its new end would be lost: "
                    "resize --shrink does that",
                    top->stream->name);
    return 0;
}

int amend_disk(struct platter_disk *disk, const struct platter_amend_options *o,
               struct platter_error *err)
{
    struct image *top = disk_top(disk);
    const struct format *f = top->format;
    if (!f->amend)
        return fail(err, ENOTSUP, "%s: Format driver '%s' does not support option amendment",
                    top->stream->name, f->name);
    auto_free struct option_def *defs = all_options(f);
    struct option_values *v = NULL;
    int r = defs ? options_parse(defs, o->options, &v, err) : fail_memory(err, "options");
    if (r < 0)
        return r;
    struct amend_request request = {.options = v,
                                    .force = o->flags & PLATTER_AMEND_FORCE,
                                    .progress = o->progress,
                                    .opaque = o->opaque};
    r = check_common(disk, v, err);
    if (r == 0)
        r = disk_flush(disk, err);
    if (r == 0)
        r = f->amend(top, &request, err);
    if (r == 0 && options_given(v, "size") && options_number(v, "size") > disk_size(disk))
        r = ops_resize(disk, options_number(v, "size"), 0, PLATTER_PREALLOCATION_OFF, err);
    options_free(v);
    return r;
}

int ops_amend(const char *name, const struct platter_amend_options *o,
              const struct platter_open_options *open, struct platter_error *err)
{
    struct platter_open_options writable = *open;
    struct platter_disk *disk;
    writable.flags |= PLATTER_OPEN_WRITE;
    if (!strstr(o->options, "size")) /* only for a size it matters what is below */
        writable.flags |= PLATTER_OPEN_NO_BACKING;
    int r = disk_open(name, &writable, &disk, err);
    if (r < 0)
        return r;
    r = amend_disk(disk, o, err);
    int e = disk_close(disk, r < 0 ? NULL : err);
    return r < 0 ? r : e;
}
