/* SPDX-License-Identifier: MIT */
/* platter compact: makes the file of an image as short as what it holds, in place. */
#include <inttypes.h>

#include "cli.h"

/* Fields that are 0 as well: who reads them need not know which may be left out. */
static void print_result_json(const struct platter_compact_result *r, const struct args *args,
                              bool complete)
{
    json_t *o = json_pack("{s:o, s:s, s:b, s:b}", "filename", json_text(args->operands[0]),
                          "format", r->format, "dry-run", args->dry_run, "complete", complete);
    const struct {
        const char *name;
        uint64_t number;
    } fields[] = {{"cluster-size", r->cluster_size}, {"file-size", r->file_size},
                  {"new-size", r->new_size},         {"clusters-moved", r->clusters_moved},
                  {"leaked-clusters", r->leaks},     {"zero-clusters", r->zeros_freed}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        json_object_set_new(o, fields[i].name, json_integer((json_int_t)fields[i].number));
    int64_t saved = (int64_t)(r->file_size - r->new_size);
    json_object_set_new(o, "saved", json_integer(saved));
    print_json(o);
}

static void print_result(const struct platter_compact_result *r, bool dry_run)
{
    char old[32], new[32], won[32], moved[32];
    if (r->new_size >= r->file_size) {
        printf("Nothing %s: what the file holds needs its %s.\n",
               dry_run ? "can be won" : "was won", human_size(r->file_size, old));
        return;
    }
    uint64_t bytes = r->file_size - r->new_size;
    human_size(r->file_size, old);
    human_size(r->new_size, new);
    human_size(r->clusters_moved * r->cluster_size, moved);
    printf("%s %s of %s: %s %s. %s %" PRIu64 " clusters (%s).\n", dry_run ? "Would win" : "Won",
           human_size(bytes, won), old, dry_run ? "the file would have" : "the file has", new,
           dry_run ? "Would move" : "Moved", r->clusters_moved, moved);
    if (r->leaks)
        printf("%s %" PRIu64 " leaked clusters.\n", dry_run ? "Would give back" : "Gave back",
               r->leaks);
    if (r->zeros_freed)
        printf("%" PRIu64 " clusters of zeros %s their place.\n", r->zeros_freed,
               dry_run ? "would give up" : "gave up");
}

static int compact_image(const struct args *args)
{
    struct platter_error err = {0};
    struct progress progress;
    struct platter_compact_result result = {.size = sizeof result};
    struct platter_open_options open = image_options(args, args->format, 0);
    open.memory_limit = args->memory;
    struct platter_compact_options options = {.size = sizeof options,
                                              .flags =
                                                  (args->dry_run ? PLATTER_COMPACT_DRY_RUN : 0) |
                                                  (args->zeros ? PLATTER_COMPACT_ZEROS : 0),
                                              .open = &open,
                                              .progress = progress_tick,
                                              .opaque = &progress};
    progress_start(&progress, args, wants_json(args));
    int r = platter_compact(args->operands[0], &options, &result, &err);
    progress_end(&progress, !r);
    bool interrupted = r && signals_caught();
    if (interrupted)
        say("interrupted: the image is whole, and can be compacted again");
    else if (r)
        say_error(&err);
    if (wants_json(args) && (!r || interrupted) && result.format)
        print_result_json(&result, args, !r);
    else if (!r && !args->quiet && !wants_json(args))
        print_result(&result, args->dry_run);
    return r ? EXIT_FAILED : EXIT_FINE;
}

static int compact_run(const struct args *args)
{
    if (args->n_operands != 1)
        return usage_error(&verb_compact, "Expecting one image file name");
    return output_end(compact_image(args));
}

static const struct opt compact_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_OUTPUT,
    OPT_FLAG_AT('n', "dry-run", dry_run, "change nothing, and tell what would be won"),
    OPT_FLAG_AT(0, "zeros", zeros,
                "clusters that read as zeros give up their place, preallocated ones as well"),
    OPT_PROGRESS,
    OPT_QUIET,
    {0, "memory", "SIZE", OPT_SIZE, offsetof(struct args, memory), 0,
     "most memory for tables and buffers, 64M if not given"},
    OPT_TEXT(
        'U', "force-share", NULL, OPT_REFUSED, format,
        "-U cannot be used for compact: the image is written, and nobody else may write to it"),
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_compact = {.name = "compact",
                                  .summary = "make an image as small as what it holds, in place",
                                  .operands = "IMAGE",
                                  .opts = compact_opts,
                                  .examples = "platter compact --dry-run vm.qcow2\n"
                                              "platter compact -p vm.qcow2\n"
                                              "platter compact --zeros --output=json vm.qcow2\n",
                                  .long_work = true,
                                  .in_place = true,
                                  .run = compact_run};
