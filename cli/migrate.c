/* SPDX-License-Identifier: MIT */
/*
 * platter migrate: a disk that is used at its new place while it is copied there. Here: what the
 * verbs have in common, prepare and serve.
 */
#include "migrate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SPEC = 1 << 20 /* bytes of a source-spec in a file; more is none */ };

struct platter_migrate_options migrate_options(const struct args *args)
{
    return (struct platter_migrate_options){
        .size = sizeof(struct platter_migrate_options),
        .flags = (args->no_copy_on_read ? PLATTER_MIGRATE_NO_COPY_ON_READ : 0u) |
                 (args->discard_writes ? PLATTER_MIGRATE_DISCARD_WRITES : 0u),
        .target_place = args->target_place,
        .state = args->state,
        .source = args->source,
        .source_place = args->source_place,
        .allow = args->n_allow ? args->allow : NULL,
        .memory_limit = args->memory,
        .secret = secrets_tell,
        .secret_opaque = (void *)(uintptr_t)args,
        .workers = (unsigned)args->workers,
        .rate = args->rate,
        .keep_writes = args->keep_writes};
}

int migrate_failed(const struct platter_error *err, const char *half_done)
{
    if (half_done)
        say_end(err, half_done);
    else
        say_error(err);
    switch (err->code) {
    case EAGAIN:
        return EXIT_NOT_EXECUTED;
    case ESTALE:
        return EXIT_SOURCE_CHANGED;
    default:
        return EXIT_FAILED;
    }
}

/* ---- prepare --------------------------------------------------------------------------------- */

struct prepare_job {
    struct progress progress;
    const struct args *args;
    char *spec;         /* owns what the source is called, if that was read */
    const char *source; /* as it was given */
    const char *target;
};

static int prepare_tick(void *opaque, const struct platter_progress *now)
{
    struct prepare_job *job = opaque;
    return progress_tick(&job->progress, now);
}

/* The text of a source-spec that is in a file, or on standard input. */
static char *spec_read(const char *path)
{
    bool is_input = strcmp(path, "-") == 0;
    FILE *file = is_input ? stdin : fopen(path, "re");
    char *text = file ? malloc(MOST_SPEC + 1) : NULL;
    size_t length = text ? fread(text, 1, MOST_SPEC + 1, file) : 0;
    bool fits = text && !ferror(file) && length <= MOST_SPEC && !memchr(text, '\0', length);
    if (!file || (text && ferror(file)))
        say("%s: cannot be read: %s", path, strerror(errno));
    else if (!fits)
        say("%s: is no source-spec", path);
    if (file && !is_input)
        fclose(file);
    if (fits)
        text[length] = '\0';
    else
        free(text);
    return fits ? text : NULL;
}

/* What the operands and --source-spec mean. An exit code. */
static int prepare_names(struct prepare_job *job)
{
    const struct args *args = job->args;
    const char *spec = args->source_spec;
    if (args->n_operands != (spec ? 1 : 2))
        return usage_error(&verb_migrate_prepare,
                           spec ? "Expecting one target" : "Expecting a source and a target");
    job->source = spec ? spec : args->operands[0];
    job->target = args->operands[args->n_operands - 1];
    if (!spec || spec[strspn(spec, " \t\r\n")] == '{')
        return EXIT_FINE;
    if (spec[0] != '@' && strcmp(spec, "-") != 0)
        return usage_error(&verb_migrate_prepare,
                           "--source-spec is a JSON object, @FILE, or - for standard input");
    job->spec = spec_read(spec[0] == '@' ? spec + 1 : spec);
    job->source = job->spec;
    return job->spec ? EXIT_FINE : EXIT_FAILED;
}

static int prepare_it(struct prepare_job *job, struct platter_error *err)
{
    const struct args *args = job->args;
    struct platter_open_options open = image_options(args, args->format, 0);
    struct platter_migrate_prepare_options options = {
        .size = sizeof options,
        .flags = (args->snapshots ? PLATTER_MIGRATE_SNAPSHOTS : 0u) |
                 (args->native ? PLATTER_MIGRATE_NATIVE : 0u),
        .format = args->out_format,
        .options = args->creation,
        .target_place = args->target_place,
        .state = args->state,
        .has_disk_size = args->has_disk_size,
        .disk_size = args->disk_size,
        .secret = secrets_tell,
        .secret_opaque = (void *)(uintptr_t)args,
        .progress = prepare_tick,
        .opaque = job};
    const char *view = args->view;
    char *file = view ? NULL : image_of_view(job->source, &view);
    open.view = view;
    int r = platter_migrate_prepare(file ? file : job->source, &open, job->target, &options, err);
    if (r == -ENOENT && !view && (file = uri_of_view(job->source, &open.view)))
        r = platter_migrate_prepare(file, &open, job->target, &options, err);
    free(file);
    return r;
}

static int prepare_run(const struct args *args)
{
    struct platter_error err = {0};
    struct prepare_job job = {.args = args};
    if (creation_wants_help(args->creation))
        return creation_help(args->out_format ? args->out_format : "qcow2", args->n_operands < 2);
    int code = prepare_names(&job);
    if (code != EXIT_FINE)
        return code;
    progress_start(&job.progress, args, false);
    int r = prepare_it(&job, &err);
    progress_end(&job.progress, r == 0);
    free(job.spec);
    return output_end(r < 0 ? migrate_failed(&err, "nothing was prepared") : EXIT_FINE);
}

static const struct opt prepare_opts[] = {
    OPT_TEXT('f', NULL, "FMT", OPT_FORMAT, format,
             "format of the source; found by content if not given, but for raw"),
    OPT_TEXT('O', NULL, "FMT", OPT_FORMAT, out_format,
             "format of the target: qcow2, or raw; qcow2 in a file, raw elsewhere, if not given"),
    OPT_TEXT('o', NULL, "OPTIONS", OPT_CREATION, creation,
             "options of the new image, KEY=VALUE,...; help lists them"),
    OPT_TEXT(0, "source-spec", "JSON", OPT_STRING, source_spec,
             "the source as a source-spec, in the place of SOURCE; @FILE and - read one"),
    {0, "size", "SIZE", OPT_SIZE, offsetof(struct args, disk_size),
     offsetof(struct args, has_disk_size), "of the target, at least that of the source"},
    OPT_FLAG_AT(0, "snapshots", snapshots, "bring the snapshots along: they are copied at once"),
    OPT_FLAG_AT(0, "native", native, "leave the work to Ceph where that can do it well"),
    OPT_VIEW,
    OPT_SHARE,
    OPT_ALLOWED,
    OPT_WHERE_TO,
    OPT_STATE,
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_KEYS,
    OPT_END};

const struct verb verb_migrate_prepare = {
    .name = "migrate prepare",
    .summary = "make a new image that shows a disk which is elsewhere",
    .operands = "SOURCE TARGET",
    .opts = prepare_opts,
    .examples = "platter migrate prepare http://server/vm.vmdk vm.qcow2\n"
                "platter migrate prepare vzdump-qemu-100.vma@drive-scsi0 vm.qcow2\n"
                "platter migrate prepare -O raw nbd://server/disk -f raw rbd:pool/vm\n"
                "platter migrate prepare --source-spec @vm.json vm.qcow2\n",
    .long_work = true,
    .run = prepare_run};

/* ---- serve ----------------------------------------------------------------------------------- */

static int serve_run(const struct args *args)
{
    struct args own = *args;
    if (args->n_operands != 1)
        return usage_error(&verb_migrate_serve, "Expecting one target");
    if (!serve_place_check(&verb_migrate_serve, args))
        return EXIT_FAILED;
    own.migration = true;
    return output_end(serve_image(&own, false));
}

static const struct opt serve_opts[] = {
    OPT_FLAG_AT(0, "execute", execute, "copy what is missing meanwhile"),
    OPT_COPY_RATE,
    OPT_FLAG_AT(0, "no-copy-on-read", no_copy_on_read,
                "what is read from the source is not stored"),
    OPT_LISTEN,
    OPT_MIGRATION,
    {0, "memory", "SIZE", OPT_SIZE, offsetof(struct args, memory), 0,
     "most memory for tables, 64M if not given"},
    OPT_OUTPUT,
    OPT_QUIET,
    OPT_KEYS,
    OPT_END};

const struct verb verb_migrate_serve = {
    .name = "migrate serve",
    .summary = "serve the target over NBD, for a machine to attach to",
    .operands = "TARGET",
    .opts = serve_opts,
    .examples = "platter migrate serve vm.qcow2\n"
                "platter migrate serve --execute --rate 50M -k vm.sock vm.qcow2\n",
    .run = serve_run};
