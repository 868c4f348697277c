/* SPDX-License-Identifier: MIT */
/* platter rebase: another backing file for an image, with the options of qemu-img rebase. */
#include "cli.h"

static int rebase_image(const struct args *args)
{
    struct platter_error err = {0};
    struct progress progress;
    struct platter_open_options open = image_options(args, args->format, 0);
    if (!args->unsafe)
        image_warn_snapshots(args, args->operands[0],
                             "where one of them stores nothing it will show the new backing file: "
                             "only the disk as it is now stays the same");
    progress_start(&progress, args, false);
    struct platter_rebase_options options = {.size = sizeof options,
                                             .flags = args->unsafe ? PLATTER_REBASE_UNSAFE : 0,
                                             .open = &open,
                                             .backing = args->backing,
                                             .backing_format = args->backing_format,
                                             .workers = (unsigned)args->workers,
                                             .rate = args->rate,
                                             .progress = progress_tick,
                                             .opaque = &progress};
    int r = platter_rebase(args->operands[0], &options, &err);
    progress_end(&progress, !r);
    if (r && signals_caught())
        say("interrupted: the image has the backing file it had, and shows the same disk");
    else if (r)
        say_error(&err);
    else if (args->backing && *args->backing)
        image_warn_gated(args, args->operands[0], args->format);
    return r ? EXIT_FAILED : EXIT_FINE;
}

static int rebase_run(const struct args *args)
{
    if (args->n_operands != 1)
        return usage_error(&verb_rebase, "Expecting one image file name");
    if (!args->backing && !args->unsafe)
        return usage_error(&verb_rebase, "Must specify backing file (-b) or use unsafe mode (-u)");
    if (!cache_check(&verb_rebase, args->cache, "cache") ||
        !cache_check(&verb_rebase, args->source_cache, "source cache"))
        return EXIT_FAILED;
    return output_end(rebase_image(args));
}

static const struct opt rebase_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_TEXT('b', NULL, "FILE", OPT_FILE, backing,
             "name of the new backing file; an empty one for none"),
    OPT_TEXT('F', NULL, "FMT", OPT_FORMAT, backing_format, "format of that backing file"),
    OPT_FLAG_AT('u', NULL, unsafe,
                "change the name alone: the disk is another one if the files differ"),
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_WORKERS,
    OPT_RATE,
    OPT_CACHE_IGNORED,
    OPT_SOURCE_CACHE,
    OPT_TEXT('U', "force-share", NULL, OPT_REFUSED, format,
             "-U cannot be used for rebase: the image is written, and nobody else may write to it"),
    OPT_ALLOWED,
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_rebase = {.name = "rebase",
                                 .summary = "give an image another backing file",
                                 .operands = "IMAGE",
                                 .opts = rebase_opts,
                                 .examples =
                                     "platter rebase -p -b base2.vmdk vm-000001.vmdk\n"
                                     "platter rebase -b '' vm-000001.vmdk\n"
                                     "platter rebase -u -b moved/base.vmdk vm-000001.vmdk\n",
                                 .long_work = true,
                                 .in_place = true,
                                 .run = rebase_run};
