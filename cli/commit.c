/* SPDX-License-Identifier: MIT */
/* platter commit: an image's data into its backing file, with the options of qemu-img commit. */
#include "cli.h"

static int commit_image(const struct args *args)
{
    struct platter_error err = {0};
    struct progress progress;
    struct platter_open_options open = image_options(args, args->format, 0);
    image_warn_snapshots(args, args->operands[0],
                         "where one of them stores nothing it will show what is committed: only "
                         "the disk as it is now stays the same");
    progress_start(&progress, args, false);
    struct platter_commit_options options = {.size = sizeof options,
                                             .flags = args->keep ? PLATTER_COMMIT_KEEP : 0,
                                             .open = &open,
                                             .base = args->backing,
                                             .workers = (unsigned)args->workers,
                                             .rate = args->rate,
                                             .progress = progress_tick,
                                             .opaque = &progress};
    int r = platter_commit(args->operands[0], &options, &err);
    progress_end(&progress, !r);
    if (r && signals_caught())
        say(args->backing
                ? "interrupted: the image has all its data still; where the base is a VMDK, it "
                  "opens with --ignore-cid, also to be committed again"
                : "interrupted: the image has all its data still, and shows the same disk");
    else if (r)
        say_error(&err);
    if (r)
        return EXIT_FAILED;
    if (!args->quiet)
        puts("Image committed.");
    return EXIT_FINE;
}

static int commit_run(const struct args *args)
{
    if (args->n_operands != 1)
        return usage_error(&verb_commit, "Expecting one image file name");
    if (!cache_check(&verb_commit, args->cache, "cache"))
        return EXIT_FAILED;
    return output_end(commit_image(args));
}

static const struct opt commit_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_TEXT('b', NULL, "BASE", OPT_FILE, backing,
             "commit into this image of the chain; those between are of no use after that, and "
             "the image is not emptied"),
    OPT_FLAG_AT('d', NULL, keep, "do not empty the image: it is going to be thrown away"),
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_WORKERS,
    OPT_RATE,
    OPT_CACHE_IGNORED,
    OPT_ALLOWED,
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_commit = {.name = "commit",
                                 .summary = "write an image's data into its backing file",
                                 .operands = "IMAGE",
                                 .opts = commit_opts,
                                 .examples = "platter commit -p vm-000001.vmdk\n"
                                             "platter commit -d overlay.qcow2\n"
                                             "platter commit -b base.qcow2 top.qcow2\n",
                                 .long_work = true,
                                 .in_place = true,
                                 .run = commit_run};
