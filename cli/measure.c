/* SPDX-License-Identifier: MIT */
/* platter measure: how large a file a new image would be. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static void print_result(const struct args *args, const struct platter_measurement *m)
{
    if (wants_json(args)) {
        json_t *result = json_object();
        if (m->has_bitmaps)
            json_object_set_new(result, "bitmaps", json_integer((json_int_t)m->bitmaps));
        json_object_set_new(result, "required", json_integer((json_int_t)m->required));
        json_object_set_new(result, "fully-allocated",
                            json_integer((json_int_t)m->fully_allocated));
        print_json(result);
        return;
    }
    printf("required size: %" PRIu64 "\n", m->required);
    printf("fully allocated size: %" PRIu64 "\n", m->fully_allocated);
    if (m->has_bitmaps)
        printf("bitmaps size: %" PRIu64 "\n", m->bitmaps);
}

/* `backing`: the new image is to have a backing file, and nobody knows how much of the disk it has
 * in common with that. */
static int measure_disk(struct args *args, struct platter_disk *disk, bool backing)
{
    struct platter_error err = {0};
    struct platter_measurement m = {.size = sizeof m};
    if (platter_measure(disk, args->disk_size, args->out_format ? args->out_format : "raw",
                        args->creation, &m, &err))
        return say_error(&err);
    if (backing && disk)
        m.required = m.fully_allocated;
    print_result(args, &m);
    return EXIT_FINE;
}

static int check_args(const struct args *args)
{
    const struct verb *verb = &verb_measure;
    if (args->n_operands > 1)
        return usage_error(verb, "At most one filename argument is allowed.");
    if (args->n_operands == 0 && (args->format || args->snapshot || args->view))
        return usage_error(verb, "-f, -l and --view require a filename argument.");
    if (args->n_operands == 0 && !args->has_disk_size)
        return usage_error(verb, "Either --size N or one filename must be specified.");
    if (args->n_operands == 1 && args->has_disk_size)
        return usage_error(verb, "--size N cannot be used together with a filename.");
    return EXIT_FINE;
}

static int measure_run(const struct args *given)
{
    struct args args = *given;
    struct platter_disk *disk = NULL;
    if (creation_wants_help(args.creation))
        return creation_help(args.out_format ? args.out_format : "raw", true);
    if (check_args(&args))
        return EXIT_FAILED;
    creation_drop_size(&args.creation);
    char *backing = creation_take(&args.creation, "backing_file");
    free(creation_take(&args.creation, "backing_fmt"));
    int code = EXIT_FAILED;
    if (!args.n_operands || image_open(&args, args.operands[0], args.format, 0, &disk) == 0)
        code = measure_disk(&args, disk, backing);
    free(backing);
    platter_close(disk, NULL);
    return output_end(code);
}

static const struct opt measure_opts[] = {
    OPT_TEXT('O', NULL, "FMT", OPT_FORMAT, out_format, "format of the new image; raw if not given"),
    OPT_TEXT('o', NULL, "OPTIONS", OPT_CREATION, creation,
             "its creation options, key=value,...; -o help lists them"),
    {0, "size", "SIZE", OPT_SIZE, offsetof(struct args, disk_size),
     offsetof(struct args, has_disk_size),
     "measure an empty disk of this size instead of an image"},
    OPT_INPUT_FORMAT,
    OPT_OUTPUT,
    OPT_TEXT('l', NULL, "VIEW", OPT_STRING, snapshot,
             "measure this snapshot: a name, snapshot.id=ID or snapshot.name=NAME"),
    OPT_VIEW,
    OPT_SHARE,
    OPT_ALLOWED,
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_measure = {.name = "measure",
                                  .summary = "tell how large a file a new image would be",
                                  .operands = "[IMAGE]",
                                  .opts = measure_opts,
                                  .examples = "platter measure -O qcow2 vm.raw\n"
                                              "platter measure -O qcow2 --size 40G\n"
                                              "platter measure -O vmdk --output=json vm.qcow2\n",
                                  .run = measure_run};
