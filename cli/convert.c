/* SPDX-License-Identifier: MIT */
/* platter convert: copies whole disks into a new image, with the options of qemu-img convert. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum { MAX_SPARSE = 16 << 20 }; /* the largest -S that qemu-img takes */

struct convert_job {
    struct progress progress;
    struct platter_disk **sources;
    size_t n_sources;
    const char *target;
    struct platter_convert_options options;
};

static int job_tick(void *opaque, const struct platter_progress *now)
{
    struct convert_job *job = opaque;
    return progress_tick(&job->progress, now);
}

static void job_hole(void *opaque, uint64_t offset, uint64_t length, const char *reason)
{
    struct convert_job *job = opaque;
    progress_clear(&job->progress);
    say("hole at offset %" PRIu64 ", length %" PRIu64 ": %s", offset, length, reason);
}

/* What does not go together. */
static int check_args(const struct args *args)
{
    const struct verb *verb = &verb_convert;
    if (args->n_operands < 2)
        return usage_error(verb, "Must specify image file name: SOURCE... TARGET");
    if (args->snapshot && args->view)
        return usage_error(verb, "-l and --view name the same thing: give one of them");
    if ((args->snapshot || args->view) && args->n_operands > 2)
        return usage_error(verb, "No support for concatenating multiple snapshot");
    if (args->skip_broken_bitmaps && !args->bitmaps)
        return usage_error(verb, "Use of --skip-broken-bitmaps requires --bitmaps");
    if (args->target_is_zero && !args->existing)
        return usage_error(verb, "--target-is-zero requires use of -n flag");
    if (args->existing && args->creation)
        return usage_error(verb, "-o has no effect when skipping image creation");
    if (args->offload && (args->salvage || args->has_sparse_size))
        return usage_error(verb, args->salvage ? "Cannot use copy offloading in salvaging mode"
                                               : "Cannot enable copy offloading when -S is used");
    if (args->sparse_size % 512 || args->sparse_size > MAX_SPARSE)
        return usage_error(verb,
                           "Invalid buffer size for sparse output specified. Valid sizes are "
                           "multiples of 512 up to %d. Select 0 to disable sparse detection (fully "
                           "allocates output).",
                           MAX_SPARSE);
    return cache_check(verb, args->cache, "cache") &&
                   cache_check(verb, args->source_cache, "source cache")
               ? EXIT_FINE
               : EXIT_FAILED;
}

static int check_stdout(const struct args *args)
{
    if (args->existing)
        return usage_error(&verb_convert, "-n cannot be used with target -");
    if (isatty(STDOUT_FILENO))
        return usage_error(&verb_convert,
                           "target -: standard output is a terminal: lead it to a file or a pipe");
    return EXIT_FINE;
}

/* qemu-img takes -n without -O for raw, and writes over the header of whatever is there. */
static int check_existing(const struct args *args, const char *target)
{
    struct platter_open_options o = {.size = sizeof o,
                                     .flags = PLATTER_OPEN_QUERY | PLATTER_OPEN_NO_BACKING,
                                     .place = args->target_place};
    struct platter_disk *disk;
    int code = EXIT_FINE;
    if (!args->existing || args->out_format || platter_open(target, &o, &disk, NULL))
        return EXIT_FINE;
    const char *format = platter_format(disk);
    if (strcmp(format, "raw") != 0) {
        say("%s is a %s image, and without -O a raw disk would be written over it: give -O %s, or "
            "-O raw if that is meant",
            target, format, format);
        code = EXIT_FAILED;
    }
    platter_close(disk, NULL);
    return code;
}

static unsigned flags_of(const struct args *args, bool to_stdout)
{
    bool unsafe = args->cache && strcmp(args->cache, "unsafe") == 0;
    return (args->compress ? PLATTER_CONVERT_COMPRESS : 0u) |
           (args->existing ? PLATTER_CONVERT_EXISTING : 0u) |
           (args->target_is_zero ? PLATTER_CONVERT_TARGET_IS_ZERO : 0u) |
           (args->salvage ? PLATTER_CONVERT_SALVAGE : 0u) |
           (args->unordered ? PLATTER_CONVERT_UNORDERED : 0u) |
           (unsafe ? PLATTER_CONVERT_UNSAFE : 0u) | (args->bitmaps ? PLATTER_CONVERT_BITMAPS : 0u) |
           (args->snapshots ? PLATTER_CONVERT_SNAPSHOTS : 0u) |
           (args->no_vm_state ? PLATTER_CONVERT_NO_VM_STATE : 0u) |
           (args->skip_broken_bitmaps ? PLATTER_CONVERT_SKIP_BROKEN_BITMAPS : 0u) |
           (args->probe_backing ? PLATTER_CONVERT_PROBE_BACKING : 0u) |
           (to_stdout ? PLATTER_CONVERT_TO_FD : 0u);
}

/* Whether something may be missing that no hole tells of; it was said when the sources were opened.
 */
static bool has_doubts(const struct convert_job *job)
{
    for (size_t i = 0; i < job->n_sources; i++)
        for (unsigned k = 0; k < platter_depth(job->sources[i]); k++)
            if (platter_doubt(job->sources[i], k))
                return true;
    return false;
}

static int job_run(struct convert_job *job, const struct args *args)
{
    struct platter_error err = {0};
    uint64_t holes = 0;
    progress_start(&job->progress, args, job->target == NULL);
    int r = platter_convert(job->sources, job->n_sources, job->target, &job->options, &holes, &err);
    progress_end(&job->progress, !r);
    if (r)
        return say_end(&err, args->existing ? "the target is incomplete"
                                            : "the unfinished target was taken away");
    if (holes == 0)
        return args->salvage && has_doubts(job) ? EXIT_HOLES : EXIT_FINE;
    say("%" PRIu64 " range%s could not be read and %s left as zeros", holes, holes == 1 ? "" : "s",
        holes == 1 ? "was" : "were");
    return EXIT_HOLES;
}

/* Tells which bitmaps are left out. */
static void tell_broken(const struct convert_job *job)
{
    struct platter_error err = {0};
    char *text = NULL;
    const json_t *bitmap;
    size_t i;
    if (platter_bitmaps(job->sources[0], &text, &err))
        return; /* the work itself will say why */
    json_t *list = json_loads(text, 0, NULL);
    json_array_foreach (list, i, bitmap) {
        if (json_object_get(bitmap, "problem"))
            say("warning: bitmap \"%s\" is left out: %s",
                json_string_value(json_object_get(bitmap, "name")),
                json_string_value(json_object_get(bitmap, "problem")));
    }
    json_decref(list);
    platter_free(text);
}

static int open_and_run(struct convert_job *job, const struct args *args)
{
    int code = EXIT_FINE;
    for (size_t i = 0; i < job->n_sources && code == EXIT_FINE; i++)
        if (image_open(args, args->operands[i], args->format, PLATTER_OPEN_IN_ORDER,
                       &job->sources[i]))
            code = EXIT_FAILED;
    if (code == EXIT_FINE && args->skip_broken_bitmaps)
        tell_broken(job);
    if (code == EXIT_FINE)
        code = job_run(job, args);
    for (size_t i = 0; i < job->n_sources; i++)
        platter_close(job->sources[i], NULL);
    return code;
}

static int convert_to(const struct args *args, const char *backing, const char *backing_format)
{
    const char *target = args->operands[args->n_operands - 1];
    bool to_stdout = strcmp(target, "-") == 0;
    struct convert_job job = {.n_sources = (size_t)args->n_operands - 1,
                              .target = to_stdout ? NULL : target};
    if (backing && !backing_format)
        return usage_error(&verb_convert,
                           "Use of backing file requires explicit backing format: give -F");
    if (to_stdout ? check_stdout(args) : check_existing(args, target))
        return EXIT_FAILED;
    job.options = (struct platter_convert_options){.size = sizeof job.options,
                                                   .flags = flags_of(args, to_stdout),
                                                   .format = args->out_format,
                                                   .options = args->creation,
                                                   .target_place = args->target_place,
                                                   .backing = backing,
                                                   .backing_format = backing_format,
                                                   .below_format = args->unnamed_format,
                                                   .has_sparse_size = args->has_sparse_size,
                                                   .sparse_size = args->sparse_size,
                                                   .workers = (unsigned)args->workers,
                                                   .rate = args->rate,
                                                   .fd = STDOUT_FILENO,
                                                   .memory_limit = args->memory / 2,
                                                   .progress = job_tick,
                                                   .hole = job_hole,
                                                   .opaque = &job,
                                                   .allow = args->n_allow ? args->allow : NULL,
                                                   .secret = secrets_tell,
                                                   .secret_opaque = (void *)(uintptr_t)args};
    job.sources = calloc(job.n_sources, sizeof *job.sources);
    if (!job.sources)
        return usage_error(NULL, "out of memory");
    int code = open_and_run(&job, args);
    free(job.sources);
    return code;
}

static int convert_run(const struct args *given)
{
    struct args args = *given;
    if (creation_wants_help(args.creation))
        return creation_help(args.out_format ? args.out_format : "raw", args.n_operands < 2);
    if (check_args(&args))
        return EXIT_FAILED;
    creation_drop_size(&args.creation);
    char *backing = creation_take(&args.creation, "backing_file");
    char *backing_format = creation_take(&args.creation, "backing_fmt");
    int code = convert_to(&args, args.backing ? args.backing : backing,
                          args.backing_format ? args.backing_format : backing_format);
    free(backing);
    free(backing_format);
    return output_end(code);
}

static const struct opt convert_opts[] = {
    OPT_TEXT('f', NULL, "FMT", OPT_FORMAT, format,
             "format of the sources; found by content if not given"),
    OPT_TEXT('O', NULL, "FMT", OPT_FORMAT, out_format, "format of the target; raw if not given"),
    OPT_TEXT('o', NULL, "OPTIONS", OPT_CREATION, creation,
             "creation options of the target, key=value,...; -o help lists them"),
    OPT_FLAG_AT('c', NULL, compress, "compress the target"),
    OPT_TEXT('B', NULL, "FILE", OPT_FILE, backing,
             "backing file of the target: only what differs from it is stored"),
    OPT_TEXT('F', NULL, "FMT", OPT_FORMAT, backing_format, "format of that backing file"),
    OPT_FLAG_AT('n', NULL, existing, "write into an existing target instead of making one"),
    OPT_FLAG_AT(0, "target-is-zero", target_is_zero, "the existing target reads as zeros already"),
    {'S', NULL, "SIZE", OPT_SIZE, offsetof(struct args, sparse_size),
     offsetof(struct args, has_sparse_size),
     "shortest run of zeros that is not stored, 4k if not given; 0 stores everything"},
    OPT_FLAG_AT(0, "salvage", salvage,
                "go on after what cannot be read: zeros there, each hole listed"),
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_WORKERS,
    OPT_FLAG_AT('W', NULL, unordered, "the order of data in the target does not matter"),
    OPT_FLAG_AT('C', NULL, offload, "accepted, and without effect"),
    OPT_RATE,
    {0, "memory", "SIZE", OPT_SIZE, offsetof(struct args, memory), 0,
     "most memory for tables and buffers, 128M if not given"},
    OPT_TEXT(
        't', NULL, "CACHE", OPT_STRING, cache,
        "unsafe: do not wait until the target is durable; other modes of qemu-img are accepted"),
    OPT_SOURCE_CACHE,
    OPT_TEXT('l', NULL, "VIEW", OPT_STRING, snapshot,
             "convert this snapshot: a name, snapshot.id=ID or snapshot.name=NAME"),
    OPT_VIEW,
    OPT_SHARE,
    OPT_WHERE_TO,
    OPT_ALLOWED,
    OPT_IMAGE_OPTS,
    OPT_NEW_KEY,
    OPT_TEXT(0, "target-image-opts", NULL, OPT_REFUSED, format,
             "--target-image-opts is not supported: give a path, and its format with -O"),
    OPT_FLAG_AT(0, "snapshots", snapshots,
                "copy all snapshots inside the source as well, sharing what they share there"),
    OPT_FLAG_AT(0, "no-vm-state", no_vm_state,
                "... without the states of machines that were saved with them"),
    OPT_FLAG_AT(0, "bitmaps", bitmaps, "copy the dirty bitmaps of the source as well"),
    OPT_FLAG_AT(0, "skip-broken-bitmaps", skip_broken_bitmaps,
                "leave out bitmaps that are not valid, instead of failing"),
    OPT_END};

const struct verb verb_convert = {
    .name = "convert",
    .summary = "copy disks into a new image",
    .operands = "SOURCE... TARGET",
    .opts = convert_opts,
    .examples = "platter convert -p -O qcow2 vm.vmdk vm.qcow2\n"
                "platter convert -c -O qcow2 -o compression_type=zstd -f raw vm.raw vm.qcow2\n"
                "platter convert -O vmdk -o subformat=streamOptimized vm.qcow2 - | ssh host 'cat > "
                "vm.vmdk'\n"
                "platter convert -O raw vm.qcow2@before-upgrade old.raw\n"
                "platter convert --snapshots -O qcow2 -o cluster_size=128k vm.qcow2 new.qcow2\n"
                "platter convert --salvage -O raw damaged.qcow2 rescued.raw\n"
                "platter convert -n -O raw vm.qcow2 /dev/vg0/vm\n",
    .long_work = true,
    .run = convert_run};
