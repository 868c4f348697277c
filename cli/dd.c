/* SPDX-License-Identifier: MIT */
/* platter dd: a part of a disk into a new image, with the operands of qemu-img dd. */
#include <string.h>

#include "cli.h"

enum { BLOCK = 512 };

struct order {
    const char *in, *out;
    uint64_t block, count, skip;
    bool has_count;
};

static int take_number(const char *key, const char *text, uint64_t *ret)
{
    if (size_parse(text, ret) == 0)
        return EXIT_FINE;
    return usage_error(&verb_dd,
                       "Invalid %s specified: '%s' is no number; suffixes k, M, G, T, P and E are "
                       "powers of 1024",
                       key, text);
}

static int take_operand(const char *operand, struct order *o)
{
    static const char *const keys[] = {"if=", "of=", "bs=", "count=", "skip="};
    size_t i = 0, n = sizeof keys / sizeof *keys;
    while (i < n && strncmp(operand, keys[i], strlen(keys[i])) != 0)
        i++;
    const char *value = i < n ? operand + strlen(keys[i]) : NULL;
    switch (i) {
    case 0:
        o->in = value;
        return EXIT_FINE;
    case 1:
        o->out = value;
        return EXIT_FINE;
    case 2:
        return take_number("bs", value, &o->block);
    case 3:
        o->has_count = true;
        return take_number("count", value, &o->count);
    case 4:
        return take_number("skip", value, &o->skip);
    default:
        return usage_error(&verb_dd, "unrecognized operand %.*s", (int)strcspn(operand, "="),
                           operand);
    }
}

static int parse_order(const struct args *args, struct order *o)
{
    *o = (struct order){.block = BLOCK};
    for (int i = 0; i < args->n_operands; i++)
        if (take_operand(args->operands[i], o))
            return EXIT_FAILED;
    if (!o->in || !o->out)
        return usage_error(&verb_dd, "Must specify both input and output files");
    if (o->block < 1 || o->block > INT32_MAX)
        return usage_error(&verb_dd, "Invalid bs specified. Must be between 1 and 2147483647.");
    return EXIT_FINE;
}

/* n blocks in bytes: what is too many for a number is more than any disk has. */
static uint64_t bytes_of(uint64_t n, uint64_t block)
{
    return n > UINT64_MAX / block ? UINT64_MAX : n * block;
}

static int copy_part(const struct args *args, const struct order *o, struct platter_disk *disk)
{
    struct platter_error err = {0};
    struct progress progress;
    uint64_t skip = bytes_of(o->skip, o->block);
    if (skip > platter_size(disk))
        say("%s: cannot skip to specified offset", o->in);
    progress_start(&progress, args, false);
    struct platter_convert_options options = {
        .size = sizeof options,
        .format = args->out_format ? args->out_format : "raw",
        .progress = progress_tick,
        .opaque = &progress,
        .secret = secrets_tell, /* -O luks */
        .secret_opaque = (void *)(uintptr_t)args,
        .has_range = true,
        .range_offset = skip,
        .range_length = o->has_count ? bytes_of(o->count, o->block) : UINT64_MAX,
        .target_place = args->target_place};
    int r = platter_convert(&disk, 1, o->out, &options, NULL, &err);
    progress_end(&progress, !r);
    return r ? say_end(&err, "the unfinished target was taken away") : EXIT_FINE;
}

static int dd_run(const struct args *args)
{
    struct order order;
    struct platter_disk *disk = NULL;
    if (parse_order(args, &order) || image_open(args, order.in, args->format, 0, &disk))
        return EXIT_FAILED;
    int code = copy_part(args, &order, disk);
    platter_close(disk, NULL);
    return output_end(code);
}

static const struct opt dd_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_TEXT('O', NULL, "FMT", OPT_FORMAT, out_format, "format of the new image; raw if not given"),
    OPT_PROGRESS,
    OPT_SHARE,
    OPT_VIEW,
    OPT_WHERE_TO,
    OPT_ALLOWED,
    OPT_KEYS,
    OPT_TEXT(0, "image-opts", NULL, OPT_REFUSED, format,
             "--image-opts is not supported: give a path, and its format with -f"),
    OPT_END};

const struct verb verb_dd = {.name = "dd",
                             .summary = "copy a part of a disk into a new image",
                             .operands = "[bs=SIZE] [count=N] [skip=N] if=IMAGE of=TARGET",
                             .opts = dd_opts,
                             .examples = "platter dd bs=1M count=1 if=vm.qcow2 of=first.raw\n"
                                         "platter dd -O qcow2 bs=512 skip=2048 if=vm.vmdk "
                                         "of=partition.qcow2\n",
                             .long_work = true,
                             .run = dd_run};
