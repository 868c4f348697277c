/* SPDX-License-Identifier: MIT */
/* platter resize: another size for a disk; sentences and exit codes of qemu-img resize. */
#include <string.h>

#include "cli.h"

static const char *const preallocations[] = {"off", "metadata", "falloc", "full"};

static int parse_preallocation(const char *word, enum platter_preallocation *ret)
{
    *ret = PLATTER_PREALLOCATION_OFF;
    for (size_t i = 0; word && i < sizeof preallocations / sizeof *preallocations; i++)
        if (strcmp(word, preallocations[i]) == 0) {
            *ret = (enum platter_preallocation)i;
            return EXIT_FINE;
        }
    return word ? usage_error(&verb_resize,
                              "Invalid preallocation mode '%s': it is one of off, metadata, "
                              "falloc, full",
                              word)
                : EXIT_FINE;
}

/* The size that is meant by "2G", "+1G" or "-1G", where there are `now` bytes. */
static int parse_size(const char *text, uint64_t now, uint64_t *ret)
{
    bool more = text[0] == '+', less = text[0] == '-';
    uint64_t number;
    if (size_parse(text + (more || less), &number))
        return usage_error(&verb_resize,
                           "Invalid image size '%s': give bytes, or a number with k, M, G, T, P "
                           "or E, below 8 EiB, with + or - in front to add or take away",
                           text);
    bool positive = less ? number < now : more ? number <= (uint64_t)INT64_MAX - now : number > 0;
    if (!positive)
        return usage_error(&verb_resize, "New image size must be positive, and below 8 EiB");
    *ret = less ? now - number : more ? now + number : number;
    return EXIT_FINE;
}

static int resize_disk(const struct args *args, struct platter_disk *disk,
                       enum platter_preallocation preallocation)
{
    struct platter_error err = {0};
    uint64_t now = platter_size(disk), size = 0;
    if (parse_size(args->operands[1], now, &size))
        return EXIT_FAILED;
    if (size <= now && preallocation != PLATTER_PREALLOCATION_OFF) {
        say("Preallocation can only be used for growing images");
        return EXIT_FAILED;
    }
    if (size < now && !args->shrink) {
        say("Use the --shrink option to perform a shrink operation.");
        say("warning: Shrinking an image will delete all data beyond the shrunken image's end. "
            "Before performing such an operation, make sure there is no important data there.");
        return EXIT_FAILED;
    }
    if (platter_resize(disk, size, args->shrink ? PLATTER_RESIZE_SHRINK : 0, preallocation, &err))
        return say_error(&err);
    return EXIT_FINE;
}

static int resize_run(const struct args *args)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL;
    enum platter_preallocation preallocation;
    if (args->n_operands < 2)
        return usage_error(&verb_resize,
                           "Not enough arguments: expecting image file name and size");
    if (args->n_operands > 2)
        return usage_error(&verb_resize, "Expecting image file name and size");
    if (parse_preallocation(args->preallocation, &preallocation) ||
        image_open(args, args->operands[0], args->format, PLATTER_OPEN_WRITE, &disk))
        return EXIT_FAILED;
    int code = resize_disk(args, disk, preallocation);
    if (platter_close(disk, code ? NULL : &err) && code == EXIT_FINE)
        code = say_error(&err);
    if (code == EXIT_FINE && !args->quiet)
        puts("Image resized.");
    return output_end(code);
}

static const struct opt resize_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_FLAG_AT(0, "shrink", shrink, "make the disk smaller: what lies behind its new end is lost"),
    OPT_TEXT(0, "preallocation", "MODE", OPT_STRING, preallocation,
             "what becomes of new space: off, metadata, falloc or full, as far as the format "
             "knows them"),
    OPT_QUIET,
    OPT_ALLOWED,
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_resize = {.name = "resize",
                                 .summary = "change the size of a disk",
                                 .operands = "IMAGE [+|-]SIZE",
                                 .opts = resize_opts,
                                 .examples = "platter resize vm.vmdk 100G\n"
                                             "platter resize vm.vmdk +20G\n"
                                             "platter resize -f raw --shrink vm.raw -10G\n",
                                 .signed_operand = true,
                                 .run = resize_run};
