/* SPDX-License-Identifier: MIT */
/* platter bitmap: the dirty bitmaps of an image, with the options of qemu-img bitmap. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* ---- listing --------------------------------------------------------------------------------- */

static bool is_true(const json_t *bitmap, const char *key)
{
    return json_is_true(json_object_get(bitmap, key));
}

static void print_bitmap(const json_t *bitmap)
{
    char granularity[32], dirty[32];
    const json_t *count = json_object_get(bitmap, "count");
    const char *problem = json_string_value(json_object_get(bitmap, "problem"));
    human_size((uint64_t)json_integer_value(json_object_get(bitmap, "granularity")), granularity);
    printf("%-12s%-11s%-12s", granularity, is_true(bitmap, "recording") ? "yes" : "no",
           count ? human_size((uint64_t)json_integer_value(count), dirty) : "-");
    put_text(stdout, json_string_value(json_object_get(bitmap, "name")));
    if (problem) {
        fputs(": ", stdout);
        put_text(stdout, problem);
    }
    putchar('\n');
}

static int list_bitmaps(const struct args *args)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL;
    char *text = NULL;
    const json_t *bitmap;
    size_t i;

    if (args->n_operands != 2)
        return usage_error(&verb_bitmap, "Expecting one image file name");
    if (image_open(args, args->operands[1], args->format,
                   PLATTER_OPEN_QUERY | PLATTER_OPEN_NO_BACKING, &disk))
        return EXIT_FAILED;
    int r = platter_bitmaps(disk, &text, &err);
    platter_close(disk, NULL);
    if (r)
        return say_error(&err);
    json_t *list = json_loads(text, 0, NULL);
    platter_free(text);
    if (wants_json(args)) {
        print_json(list);
        return EXIT_FINE;
    }
    if (json_array_size(list))
        printf("%-12s%-11s%-12s%s\n", "Granularity", "Recording", "Dirty", "Name");
    json_array_foreach (list, i, bitmap) {
        print_bitmap(bitmap);
    }
    json_decref(list);
    return EXIT_FINE;
}

/* ---- changing -------------------------------------------------------------------------------- */

static bool has_action(const struct args *args, int action)
{
    for (unsigned i = 0; i < args->n_actions; i++)
        if (args->actions[i].action == action)
            return true;
    return false;
}

static int check_arguments(const struct args *args)
{
    if (args->n_actions == 0)
        return usage_error(&verb_bitmap, "Need at least one of --add, --remove, --clear, --enable, "
                                         "--disable, or --merge; or 'list'");
    if (args->has_granularity && !has_action(args, PLATTER_BITMAP_ADD))
        return usage_error(&verb_bitmap, "granularity only supported with --add");
    if (args->source && !has_action(args, PLATTER_BITMAP_MERGE))
        return usage_error(&verb_bitmap, "Merge bitmap source file only supported with --merge");
    if (args->format2 && !args->source)
        return usage_error(&verb_bitmap, "-F only supported with -b");
    if (args->n_operands != 2)
        return usage_error(&verb_bitmap, "Expecting filename and bitmap name");
    return EXIT_FINE;
}

static int change(const struct args *args, struct platter_disk *disk, struct platter_disk *source)
{
    struct platter_error err = {0};
    struct platter_bitmap_change changes[MAX_ACTIONS] = {0};
    for (unsigned i = 0; i < args->n_actions; i++) {
        const struct action *a = &args->actions[i];
        changes[i] = (struct platter_bitmap_change){
            .size = sizeof *changes,
            .action = (enum platter_bitmap_action)a->action,
            .name = args->operands[1],
            .granularity = a->action == PLATTER_BITMAP_ADD ? args->granularity : 0,
            .source = a->action == PLATTER_BITMAP_MERGE ? source : NULL,
            .source_name = a->value};
    }
    if (args->has_granularity && args->granularity == 0) {
        say("the granularity of a bitmap must be a power of 2 from 512 bytes to 2 GiB");
        return EXIT_FAILED;
    }
    return platter_bitmap_change(disk, changes, args->n_actions, &err) ? say_error(&err)
                                                                       : EXIT_FINE;
}

static int bitmap_run(const struct args *args)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL, *source = NULL;
    if (args->n_actions == 0 && args->n_operands && strcmp(args->operands[0], "list") == 0)
        return output_end(list_bitmaps(args));
    if (check_arguments(args))
        return EXIT_FAILED;
    if (image_open(args, args->operands[0], args->format,
                   PLATTER_OPEN_WRITE | PLATTER_OPEN_NO_BACKING, &disk))
        return EXIT_FAILED;
    int code = EXIT_FINE;
    if (args->source &&
        image_open(args, args->source, args->format2, PLATTER_OPEN_NO_BACKING, &source))
        code = EXIT_FAILED;
    if (code == EXIT_FINE)
        code = change(args, disk, source);
    platter_close(source, NULL);
    if (platter_close(disk, code ? NULL : &err) && code == EXIT_FINE)
        code = say_error(&err);
    return output_end(code);
}

#define OPT_ACTION_AT(n, a, number, text)                                                          \
    {                                                                                              \
        0, n, a, OPT_ACTION, number, 0, text                                                       \
    }

static const struct opt bitmap_opts[] = {
    OPT_ACTION_AT("add", NULL, PLATTER_BITMAP_ADD, "make a bitmap, which records writes"),
    OPT_ACTION_AT("remove", NULL, PLATTER_BITMAP_REMOVE, "remove it, also one that is not valid"),
    OPT_ACTION_AT("clear", NULL, PLATTER_BITMAP_CLEAR, "nothing is dirty in it any more"),
    OPT_ACTION_AT("enable", NULL, PLATTER_BITMAP_ENABLE, "it records writes from now on"),
    OPT_ACTION_AT("disable", NULL, PLATTER_BITMAP_DISABLE, "it stays as it is"),
    OPT_ACTION_AT("merge", "SOURCE", PLATTER_BITMAP_MERGE,
                  "what is dirty in the bitmap SOURCE is dirty in it as well"),
    OPT_TEXT('b', NULL, "FILE", OPT_FILE, source, "take the bitmaps to merge from this image"),
    OPT_TEXT('F', NULL, "FMT", OPT_FORMAT, format2, "format of that image"),
    {'g', NULL, "SIZE", OPT_SIZE, offsetof(struct args, granularity),
     offsetof(struct args, has_granularity),
     "bytes of the disk that a bit of a new bitmap stands for: a power of 2 from 512 to 2G"},
    OPT_INPUT_FORMAT,
    OPT_OUTPUT,
    OPT_SHARE,
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_bitmap = {
    .name = "bitmap",
    .summary = "list and change the dirty bitmaps of an image",
    .operands = "IMAGE BITMAP | list IMAGE",
    .opts = bitmap_opts,
    .examples = "platter bitmap --add vm.qcow2 monday\n"
                "platter bitmap --disable vm.qcow2 monday\n"
                "platter bitmap --merge monday -b overlay.qcow2 -F qcow2 vm.qcow2 week\n"
                "platter bitmap list vm.qcow2\n"
                "platter map --bitmap monday vm.qcow2\n",
    .run = bitmap_run};
