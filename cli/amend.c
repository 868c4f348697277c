/* SPDX-License-Identifier: MIT */
/* platter amend: other properties of an image, with the options of qemu-img amend. */
#include "cli.h"

static int amend_image(const struct args *args)
{
    struct platter_error err = {0};
    struct progress progress;
    struct platter_open_options open = image_options(args, args->format, 0);
    progress_start(&progress, args, false);
    struct platter_amend_options options = {.size = sizeof options,
                                            .flags = args->force ? PLATTER_AMEND_FORCE : 0,
                                            .open = &open,
                                            .options = args->creation,
                                            .progress = progress_tick,
                                            .opaque = &progress};
    int r = platter_amend(args->operands[0], &options, &err);
    progress_end(&progress, !r);
    if (r && signals_caught())
        say("interrupted: the image shows the same disk, and can be amended again");
    else if (r)
        say_error(&err);
    else
        image_warn_gated(args, args->operands[0], args->format);
    return r ? EXIT_FAILED : EXIT_FINE;
}

/* The format that -o help is about: the one that is named, or that of the image. */
static int amend_help(const struct args *args)
{
    struct platter_disk *disk = NULL;
    const char *format = args->format;
    if (!format && args->n_operands == 1) {
        if (image_open(args, args->operands[0], NULL, PLATTER_OPEN_QUERY | PLATTER_OPEN_NO_BACKING,
                       &disk))
            return EXIT_FAILED;
        format = platter_format(disk);
    }
    int code = amendment_help(format ? format : "raw");
    platter_close(disk, NULL);
    return code;
}

static int amend_run(const struct args *args)
{
    if (!args->creation)
        return usage_error(&verb_amend, "Must specify options (-o)");
    if (creation_wants_help(args->creation))
        return amend_help(args);
    if (args->n_operands != 1)
        return usage_error(&verb_amend, "Expecting one image file name");
    if (!cache_check(&verb_amend, args->cache, "cache"))
        return EXIT_FAILED;
    struct args own = *args;
    bool keys = false;
    int code = key_amend(&own, &keys);
    return output_end(keys ? code : amend_image(&own));
}

static const struct opt amend_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_TEXT('o', NULL, "OPTIONS", OPT_CREATION, creation,
             "what to change, key=value,...; -o help lists what the format can"),
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_CACHE_IGNORED,
    OPT_ALLOWED,
    OPT_IMAGE_OPTS,
    OPT_FLAG_AT(0, "force", force,
                "overwrite a key slot that is in use; remove the last one; give up dirty bitmaps "
                "for compat=0.10"),
    OPT_END};

const struct verb verb_amend = {.name = "amend",
                                .summary = "change the properties of an image",
                                .operands = "IMAGE",
                                .opts = amend_opts,
                                .examples = "platter amend -o compat=1.1 old.qcow2\n"
                                            "platter amend -o refcount_bits=64 vm.qcow2\n"
                                            "platter amend -f qcow2 -o help\n",
                                .long_work = true,
                                .in_place = true,
                                .run = amend_run};
