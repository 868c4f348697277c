/* SPDX-License-Identifier: MIT */
/* platter map: which ranges are stored, and where; the entries of qemu-img map. */
#include <inttypes.h>
#include <string.h>

#include "cli.h"

/* What an entry tells of an extent; whether the bytes are packed is not told. */
static unsigned told(const struct platter_extent *e)
{
    return e->flags & ~(unsigned)PLATTER_EXTENT_PACKED;
}

static bool extents_merge(const struct platter_extent *a, const struct platter_extent *b)
{
    if (told(a) != told(b) || a->depth != b->depth)
        return false;
    if (!(a->flags & PLATTER_EXTENT_OFFSET))
        return true;
    return a->host_offset + a->length == b->host_offset && strcmp(a->file, b->file) == 0;
}

static int print_human(uint64_t start, const struct platter_extent *e)
{
    if (!(e->flags & PLATTER_EXTENT_DATA) || (e->flags & PLATTER_EXTENT_ZERO))
        return EXIT_FINE;
    if (!(e->flags & PLATTER_EXTENT_OFFSET)) {
        say("File contains external, encrypted or compressed clusters.");
        return EXIT_FAILED;
    }
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64, start, e->length, e->host_offset);
    put_text(stdout, e->file);
    putchar('\n');
    return EXIT_FINE;
}

static const char *yes(const struct platter_extent *e, unsigned flag)
{
    return e->flags & flag ? "true" : "false";
}

static void print_entry(uint64_t start, const struct platter_extent *e, bool last)
{
    printf("{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, \"present\": %s, "
           "\"zero\": %s, \"data\": %s",
           start, e->length, e->depth, yes(e, PLATTER_EXTENT_PRESENT), yes(e, PLATTER_EXTENT_ZERO),
           yes(e, PLATTER_EXTENT_DATA));
    if (e->flags & PLATTER_EXTENT_OFFSET)
        printf(", \"offset\": %" PRIu64, e->host_offset);
    fputs(last ? "}]\n" : "},\n", stdout);
}

static int print_extent(bool json, uint64_t start, const struct platter_extent *e, bool last)
{
    if (!json)
        return print_human(start, e);
    print_entry(start, e, last);
    return EXIT_FINE;
}

/* Prints [start, end), neighbours that tell the same as one entry. */
static int map_range(struct platter_disk *disk, uint64_t start, uint64_t end, bool json)
{
    struct platter_error err = {0};
    struct platter_extent run = {.size = sizeof run};
    for (uint64_t at = start; at < end;) {
        struct platter_extent next = {.size = sizeof next};
        if (platter_map(disk, at, end - at, &next, &err))
            return say_error(&err);
        if (run.length && extents_merge(&run, &next)) {
            run.length += next.length;
        } else {
            if (run.length && print_extent(json, start, &run, false))
                return EXIT_FAILED;
            run = next;
            start = at;
        }
        at += next.length;
    }
    return print_extent(json, start, &run, true);
}

static void begin_bitmap(bool json)
{
    if (json)
        putchar('[');
    else
        printf("%-16s%s\n", "Offset", "Length");
}

/* The ranges of [start, end) as a bitmap has them; people want those that are dirty. */
static int map_bitmap(struct platter_disk *disk, uint64_t start, uint64_t end,
                      const struct args *args)
{
    struct platter_error err = {0};
    bool json = wants_json(args), dirty;
    uint64_t length;
    for (uint64_t at = start; at < end; at += length) {
        if (platter_bitmap_map(disk, args->bitmap, at, end - at, &length, &dirty, &err))
            return say_error(&err);
        if (at == start)
            begin_bitmap(json);
        if (json)
            printf("{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"dirty\": %s}%s", at,
                   length, dirty ? "true" : "false", at + length < end ? ",\n" : "");
        else if (dirty)
            printf("%#-16" PRIx64 "%#" PRIx64 "\n", at, length);
    }
    if (start >= end)
        begin_bitmap(json);
    if (json)
        puts("]");
    return EXIT_FINE;
}

static int map_run(const struct args *args)
{
    struct platter_disk *disk = NULL;
    bool json = wants_json(args);
    if (args->n_operands != 1)
        return usage_error(&verb_map, "Expecting one image file name");
    if (image_open(args, args->operands[0], args->format, 0, &disk))
        return EXIT_FAILED;
    uint64_t end = platter_size(disk);
    if (args->has_length && args->start < end && args->length < end - args->start)
        end = args->start + args->length;
    if (args->bitmap) {
        int code = map_bitmap(disk, args->start, end, args);
        platter_close(disk, NULL);
        return output_end(code);
    }
    if (json)
        putchar('[');
    else
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    int code = map_range(disk, args->start, end, json);
    platter_close(disk, NULL);
    return output_end(code);
}

static const struct opt map_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_OUTPUT,
    {'s', "start-offset", "OFFSET", OPT_SIZE, offsetof(struct args, start), 0,
     "start at this offset of the disk"},
    {'l', "max-length", "LENGTH", OPT_SIZE, offsetof(struct args, length),
     offsetof(struct args, has_length), "stop after this many bytes"},
    OPT_TEXT(0, "bitmap", "NAME", OPT_STRING, bitmap,
             "tell which ranges are dirty in this bitmap of the image"),
    OPT_SALVAGE,
    OPT_SHARE,
    OPT_VIEW,
    OPT_ALLOWED,
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_map = {.name = "map",
                              .summary = "tell which ranges of a disk are stored, and where",
                              .operands = "IMAGE",
                              .opts = map_opts,
                              .examples = "platter map vm.qcow2\n"
                                          "platter map --output=json -s 1G -l 64M vm.qcow2\n"
                                          "platter map --bitmap monday vm.qcow2\n",
                              .run = map_run};
