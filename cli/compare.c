/* SPDX-License-Identifier: MIT */
/* platter compare: what two guests would see; sentences and exit codes of qemu-img compare. */
#include <inttypes.h>

#include "cli.h"

static int tell(const struct args *args, enum platter_difference difference, uint64_t offset,
                bool sizes_differ)
{
    if (!args->quiet && sizes_differ && !args->strict &&
        (difference == PLATTER_SAME || difference == PLATTER_TAIL_DIFFERS))
        puts("Warning: Image size mismatch!");
    if (!args->quiet)
        switch (difference) {
        case PLATTER_SAME:
            puts("Images are identical.");
            break;
        case PLATTER_SIZE_DIFFERS:
            puts("Strict mode: Image size mismatch!");
            break;
        case PLATTER_ALLOCATION_DIFFERS:
            printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n", offset);
            break;
        case PLATTER_CONTENT_DIFFERS:
        case PLATTER_TAIL_DIFFERS:
            printf("Content mismatch at offset %" PRIu64 "!\n", offset);
            break;
        }
    return difference == PLATTER_SAME ? EXIT_FINE : EXIT_DIFFERS;
}

static int compare_disks(const struct args *args, struct platter_disk *a, struct platter_disk *b)
{
    struct platter_error err = {0};
    struct progress progress;
    enum platter_difference difference = PLATTER_SAME;
    uint64_t offset = 0;
    progress_start(&progress, args, false);
    struct platter_compare_options options = {.size = sizeof options,
                                              .flags = args->strict ? PLATTER_COMPARE_STRICT : 0,
                                              .workers = (unsigned)args->workers,
                                              .progress = progress_tick,
                                              .opaque = &progress};
    int r = platter_compare(a, b, &options, &difference, &offset, NULL, &err);
    progress_end(&progress, !r && difference == PLATTER_SAME);
    if (!r)
        return tell(args, difference, offset, platter_size(a) != platter_size(b));
    say_error(&err);
    return err.code == PLATTER_ECORRUPT ? EXIT_COMPARE_DAMAGED : EXIT_COMPARE_READ;
}

static int compare_run(const struct args *args)
{
    struct platter_disk *a = NULL, *b = NULL;
    int code = EXIT_COMPARE_OPEN;
    if (args->n_operands != 2)
        return usage_error(&verb_compare, "Expecting two image file names");
    if (image_open(args, args->operands[0], args->format, PLATTER_OPEN_IN_ORDER, &a) == 0 &&
        image_open(args, args->operands[1], args->format2, PLATTER_OPEN_IN_ORDER, &b) == 0)
        code = compare_disks(args, a, b);
    platter_close(a, NULL);
    platter_close(b, NULL);
    return output_end(code);
}

static const struct opt compare_opts[] = {
    OPT_TEXT('f', NULL, "FMT", OPT_FORMAT, format, "format of the first image"),
    OPT_TEXT('F', NULL, "FMT", OPT_FORMAT, format2, "format of the second image"),
    OPT_SOURCE_CACHE,
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_FLAG_AT('s', NULL, strict, "sizes and allocation must be equal as well"),
    OPT_WORKERS,
    OPT_SALVAGE,
    OPT_SHARE,
    OPT_ALLOWED,
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_compare = {.name = "compare",
                                  .summary = "tell whether two disks have the same content",
                                  .operands = "IMAGE1 IMAGE2",
                                  .opts = compare_opts,
                                  .examples = "platter compare vm.raw vm.qcow2\n"
                                              "platter compare -s -f raw -F raw a.raw b.raw\n"
                                              "platter compare vm.qcow2 vm.qcow2@before-upgrade\n",
                                  .long_work = true,
                                  .run = compare_run};
