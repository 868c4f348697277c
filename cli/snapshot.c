/* SPDX-License-Identifier: MIT */
/* platter snapshot: the options of qemu-img snapshot, and commands for people. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* ---- list ------------------------------------------------------------------------------------ */

/* The disks of an archive are views as well: only a snapshot may have a machine's state. */
static void keep_snapshots(json_t *views)
{
    for (size_t i = json_array_size(views); i-- > 0;)
        if (!json_object_get(json_array_get(views, i), "vm-state-size"))
            json_array_remove(views, i);
}

static int list_run(const struct args *args, const char *image)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL;
    char *text = NULL;
    if (image_open(args, image, args->format, PLATTER_OPEN_QUERY | PLATTER_OPEN_NO_BACKING, &disk))
        return EXIT_FAILED;
    int r = platter_views(disk, &text, &err);
    platter_close(disk, NULL);
    if (r)
        return say_error(&err);
    json_error_t where;
    json_t *list = json_loads(text, 0, &where);
    platter_free(text);
    if (!list) {
        say("the list of snapshots cannot be read: %s", where.text);
        return EXIT_FAILED;
    }
    keep_snapshots(list);
    if (wants_json(args)) {
        print_json(list);
    } else {
        print_snapshots(list);
        json_decref(list);
    }
    return output_end(EXIT_FINE);
}

/* ---- create, apply, delete ------------------------------------------------------------------- */

static int open_to_change(const struct args *args, const char *image, struct platter_disk **ret)
{
    return image_open(args, image, args->format, PLATTER_OPEN_WRITE | PLATTER_OPEN_NO_BACKING, ret);
}

int snapshot_end(struct progress *progress, int r, const struct platter_error *err)
{
    progress_end(progress, !r);
    if (!r)
        return EXIT_FINE;
    if (err->code != ECANCELED || !signals_caught())
        return say_error(err);
    say("interrupted: nothing was changed");
    return EXIT_FAILED;
}

/* Closes what was changed; `r` and err are what the change gave. */
static int close_changed(struct platter_disk *disk, struct progress *progress, int r,
                         struct platter_error *err)
{
    int e = platter_close(disk, r ? NULL : err);
    return output_end(snapshot_end(progress, r ? r : e, err));
}

static int create_run(const struct args *args, const char *image, const char *name, bool unique)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL;
    struct progress progress;
    struct platter_snapshot_options options = {.size = sizeof options,
                                               .flags = unique ? PLATTER_SNAPSHOT_UNIQUE : 0,
                                               .name = name,
                                               .id = args->id,
                                               .progress = progress_tick,
                                               .opaque = &progress};
    if (open_to_change(args, image, &disk))
        return EXIT_FAILED;
    progress_start(&progress, args, false);
    return close_changed(disk, &progress, platter_snapshot_create(disk, &options, NULL, &err),
                         &err);
}

static int apply_run(const struct args *args, const char *image, const char *name)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL;
    struct progress progress;
    if (open_to_change(args, image, &disk))
        return EXIT_FAILED;
    progress_start(&progress, args, false);
    return close_changed(disk, &progress,
                         platter_snapshot_apply(disk, name, 0, progress_tick, &progress, &err),
                         &err);
}

static int delete_run(const struct args *args, const char *image, const char *name, unsigned by)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL;
    struct progress progress;
    if (open_to_change(args, image, &disk))
        return EXIT_FAILED;
    progress_start(&progress, args, false);
    return close_changed(disk, &progress,
                         platter_snapshot_delete(disk, name, by, progress_tick, &progress, &err),
                         &err);
}

/* ---- diff ------------------------------------------------------------------------------------ */

struct diff_job {
    bool json, summary;
    uint64_t ranges, bytes, data, zeros;
};

static void diff_begin(const struct diff_job *job)
{
    if (job->json)
        fputs(job->summary ? "{" : "{\n    \"extents\": [", stdout);
    else if (!job->summary)
        printf("%-16s%-16s%s\n", "Offset", "Length", "Is now");
}

static int diff_print(void *opaque, const struct platter_snapshot_difference *d)
{
    struct diff_job *job = opaque;
    if (job->ranges == 0)
        diff_begin(job);
    bool zero = d->flags & PLATTER_EXTENT_ZERO, data = d->flags & PLATTER_EXTENT_DATA;
    if (job->json && !job->summary)
        printf("%s\n        { \"start\": %" PRIu64 ", \"length\": %" PRIu64
               ", \"present\": %s, \"zero\": %s, \"data\": %s }",
               job->ranges ? "," : "", d->offset, d->length, zero || data ? "true" : "false",
               zero ? "true" : "false", data ? "true" : "false");
    else if (!job->summary)
        printf("%#-16" PRIx64 "%#-16" PRIx64 "%s\n", d->offset, d->length,
               zero   ? "zero"
               : data ? "data"
                      : "backing");
    job->ranges++;
    job->bytes += d->length;
    job->data += data ? d->length : 0;
    job->zeros += zero ? d->length : 0;
    return signals_caught();
}

static void diff_end(const struct diff_job *job, const uint64_t sizes[2])
{
    char changed[32], from[32], to[32];
    if (job->json) {
        if (!job->summary)
            fputs(job->ranges ? "\n    ]," : "],", stdout);
        printf("\n    \"from-size\": %" PRIu64 ",\n    \"to-size\": %" PRIu64
               ",\n    \"ranges\": %" PRIu64 ",\n    \"bytes\": %" PRIu64
               ",\n    \"data-bytes\": %" PRIu64 ",\n    \"zero-bytes\": %" PRIu64 "\n}\n",
               sizes[0], sizes[1], job->ranges, job->bytes, job->data, job->zeros);
        return;
    }
    printf("%s differ in %" PRIu64 " ranges, of disks of %s and %s\n",
           human_size(job->bytes, changed), job->ranges, human_size(sizes[0], from),
           human_size(sizes[1], to));
}

static int diff_run(const struct args *args, const char *image, const char *from, const char *to)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL;
    struct diff_job job = {.json = wants_json(args), .summary = args->summary};
    uint64_t sizes[2];
    if (image_open(args, image, args->format, PLATTER_OPEN_QUERY | PLATTER_OPEN_NO_BACKING, &disk))
        return EXIT_FAILED;
    int r = platter_snapshot_diff(disk, from, to, diff_print, &job, sizes, &err);
    if (r == 0 && job.ranges == 0)
        diff_begin(&job);
    if (r == 0)
        diff_end(&job, sizes);
    platter_close(disk, NULL);
    return r ? say_error(&err) : output_end(EXIT_FINE);
}

/* ---- read ------------------------------------------------------------------------------------ */

int view_open(const struct args *args, const char *image, const char *view, unsigned flags,
              struct platter_disk **ret)
{
    struct args named = *args;
    named.view = view;
    return image_open(&named, image, args->format, flags, ret);
}

static int read_run(const struct args *args, const char *image, const char *view,
                    const char *target)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL;
    bool to_stdout = strcmp(target, "-") == 0;
    struct platter_convert_options options = {.size = sizeof options,
                                              .flags = to_stdout ? PLATTER_CONVERT_TO_FD : 0,
                                              .format = args->out_format,
                                              .fd = to_stdout ? STDOUT_FILENO : -1};
    struct progress progress;
    if (to_stdout && isatty(STDOUT_FILENO))
        return usage_error(&verb_snapshot, "read: standard output is a terminal: lead it to a file "
                                           "or a pipe, or name a file");
    if (view_open(args, image, view, 0, &disk))
        return EXIT_FAILED;
    progress_start(&progress, args, to_stdout);
    options.progress = progress_tick;
    options.opaque = &progress;
    int r = platter_convert(&disk, 1, to_stdout ? NULL : target, &options, NULL, &err);
    progress_end(&progress, !r);
    platter_close(disk, NULL);
    return r ? say_error(&err) : output_end(EXIT_FINE);
}

/* ---- the commands ---------------------------------------------------------------------------- */

static int create_named(const struct args *args)
{
    return create_run(args, args->operands[1], args->operands[2], true);
}

static int apply_named(const struct args *args)
{
    return apply_run(args, args->operands[1], args->operands[2]);
}

static int delete_named(const struct args *args)
{
    return delete_run(args, args->operands[1], args->operands[2], 0);
}

static int list_named(const struct args *args)
{
    return list_run(args, args->operands[1]);
}

static int diff_named(const struct args *args)
{
    return diff_run(args, args->operands[1], args->operands[2],
                    args->n_operands > 3 ? args->operands[3] : NULL);
}

static int read_named(const struct args *args)
{
    return read_run(args, args->operands[1], args->operands[2],
                    args->n_operands > 3 ? args->operands[3] : "-");
}

static int state_named(const struct args *args)
{
    if (!args->export_file == !args->import_file)
        return usage_error(&verb_snapshot, "state: give either --export or --import");
    return snapshot_state(args, args->operands[1], args->operands[2]);
}

static const struct {
    const char *name, *operands;
    int least, most; /* operands, the command and the image included */
    int (*run)(const struct args *args);
} commands[] = {
    {"list", "IMAGE", 2, 2, list_named},
    {"create", "IMAGE NAME", 3, 3, create_named},
    {"apply", "IMAGE SNAPSHOT", 3, 3, apply_named},
    {"delete", "IMAGE SNAPSHOT", 3, 3, delete_named},
    {"diff", "IMAGE FROM [TO]", 3, 4, diff_named},
    {"read", "IMAGE SNAPSHOT [FILE]", 3, 4, read_named},
    {"state", "--export=FILE IMAGE SNAPSHOT, or --import=FILE IMAGE NAME", 3, 3, state_named}};

static int command_run(const struct args *args)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(args->operands[0], commands[i].name) != 0)
            continue;
        if (args->n_operands < commands[i].least || args->n_operands > commands[i].most)
            return usage_error(&verb_snapshot, "%s: expecting %s", commands[i].name,
                               commands[i].operands);
        return commands[i].run(args);
    }
    return usage_error(&verb_snapshot, "Expecting one image file name, or a command: list, create, "
                                       "apply, delete, diff, read or state");
}

/* As qemu-img has it: one of the options, and an image. */
static int snapshot_run(const struct args *args)
{
    int actions =
        args->list + (args->create != NULL) + (args->apply != NULL) + (args->delete != NULL);
    if (actions > 1)
        return usage_error(&verb_snapshot, "Cannot mix '-l', '-a', '-c', '-d'");
    if (actions == 0 && args->n_operands > 1)
        return command_run(args);
    if (args->n_operands != 1)
        return usage_error(&verb_snapshot, "Expecting one image file name");
    const char *image = args->operands[0];
    if (args->create)
        return create_run(args, image, args->create, false);
    if (args->apply)
        return apply_run(args, image, args->apply);
    if (args->delete)
        return delete_run(args, image, args->delete, PLATTER_SNAPSHOT_BY_NAME);
    return list_run(args, image);
}

static const struct opt snapshot_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_FLAG_AT('l', NULL, list, "list the snapshots of the image"),
    OPT_TEXT('c', NULL, "NAME", OPT_STRING, create, "make a snapshot of the disk as it is"),
    OPT_TEXT('a', NULL, "SNAPSHOT", OPT_STRING, apply,
             "make the disk what it was; what it is now is lost"),
    OPT_TEXT('d', NULL, "NAME", OPT_STRING, delete, "delete a snapshot"),
    OPT_TEXT(0, "id", "ID", OPT_STRING, id,
             "the id of a new snapshot; the next number if not given"),
    OPT_FLAG_AT(0, "summary", summary, "diff: tell only how much differs"),
    OPT_TEXT('O', NULL, "FMT", OPT_FORMAT, out_format, "read: format of FILE; raw if not given"),
    OPT_TEXT(0, "export", "FILE", OPT_FILE, export_file,
             "state: write the machine's state to FILE (- is standard output)"),
    OPT_TEXT(0, "import", "FILE", OPT_FILE, import_file,
             "state: make a snapshot with the machine's state out of FILE (- is standard input)"),
    OPT_OUTPUT,
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_SHARE,
    OPT_ALLOWED,
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_snapshot = {
    .name = "snapshot",
    .summary = "list, make, apply, delete, compare and read snapshots inside an image",
    .operands = "[COMMAND] IMAGE [SNAPSHOT...]",
    .opts = snapshot_opts,
    .examples = "platter snapshot -c before-upgrade vm.qcow2\n"
                "platter snapshot -l vm.qcow2\n"
                "platter snapshot apply vm.qcow2 before-upgrade\n"
                "platter snapshot diff --output=json vm.qcow2 monday tuesday\n"
                "platter snapshot read vm.qcow2 monday | sha256sum\n"
                "platter snapshot state --export=vm.state vm.qcow2 suspended\n",
    .long_work = true,
    .in_place = true,
    .run = snapshot_run};
