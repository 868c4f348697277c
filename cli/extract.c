/* SPDX-License-Identifier: MIT */
/* platter extract: disks and configurations out of an archive. */
#include "extract.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned unsafe_flag(const struct args *args)
{
    return args->cache && strcmp(args->cache, "unsafe") == 0 ? PLATTER_EXTRACT_UNSAFE : 0;
}

/* ---- configurations -------------------------------------------------------------------------- */

/* To the file that was named, which must be new, or to standard output. */
static int write_config(const struct extract_config *c, const void *bytes)
{
    bool to_stdout = strcmp(c->path, "-") == 0;
    FILE *f = to_stdout ? stdout : fopen(c->path, "wxe");
    if (f)
        fwrite(bytes, 1, c->length, f);
    bool good = f && !ferror(f) && fflush(f) == 0;
    int code = errno;
    if (f && !to_stdout && fclose(f) && good) {
        code = errno;
        good = false;
    }
    if (good)
        return 0;
    say("%s: cannot write the configuration: %s", c->path, strerror(code));
    if (f && !to_stdout)
        unlink(c->path);
    return -1;
}

static int save_configs(struct extract_job *job)
{
    struct platter_error err = {0};
    const char *name;
    const void *bytes;
    size_t len;
    for (unsigned i = 0; i < job->n_configs; i++) {
        struct extract_config *c = &job->configs[i];
        int r;
        if (job->args->n_operands > 1) {
            r = platter_archive_config(job->archive, c->index, &name, &bytes, &len, &err);
            r = r ? say_error(&err) : write_config(c, bytes);
        } else {
            r = platter_archive_save_config(job->archive, c->index, job->folder,
                                            unsafe_flag(job->args), &err);
            if (r)
                say_error(&err);
        }
        if (r)
            return -1;
        c->written = strcmp(c->path, "-") != 0;
    }
    return 0;
}

/* ---- one disk to standard output ------------------------------------------------------------- */

/* An archive has clusters in any order: it has to be one that can be read anywhere. */
static int disk_to_stdout(const struct args *args, const char *name)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL;
    struct progress progress;
    struct platter_open_options open = image_options(args, NULL, 0);
    struct platter_convert_options convert = {
        .size = sizeof convert,
        .flags = PLATTER_CONVERT_TO_FD | (args->compress ? PLATTER_CONVERT_COMPRESS : 0u),
        .format = args->out_format,
        .options = args->creation,
        .workers = (unsigned)args->workers,
        .rate = args->rate,
        .fd = STDOUT_FILENO,
        .progress = progress_tick,
        .opaque = &progress};
    open.view = name;
    if (platter_open(args->operands[0], &open, &disk, &err))
        return say_error(&err);
    progress_start(&progress, args, true);
    int r = platter_convert(&disk, 1, NULL, &convert, NULL, &err);
    progress_end(&progress, !r);
    if (r && !signals_caught())
        say_error(&err);
    platter_close(disk, NULL);
    return r ? EXIT_FAILED : EXIT_FINE;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int make_folder(struct extract_job *job)
{
    if (job->args->n_operands > 1)
        return 0;
    job->folder = job->args->folder ? job->args->folder : ".";
    if (mkdir(job->folder, 0777) == 0) {
        job->made_folder = true;
        return 0;
    }
    if (errno == EEXIST)
        return 0; /* what is no folder will be told when a file is made in it */
    say("%s: cannot make the folder: %s", job->folder, strerror(errno));
    return -1;
}

/* Takes away what was made when the rest failed. */
static void withdraw(const struct extract_job *job)
{
    for (unsigned i = 0; i < job->n_configs; i++)
        if (job->configs[i].written)
            unlink(job->configs[i].path);
    if (job->made_folder)
        rmdir(job->folder);
}

static int extract_disks(struct extract_job *job, uint64_t *ret_holes)
{
    struct platter_error err = {0};
    struct platter_extract_options options = {.size = sizeof options,
                                              .flags = unsafe_flag(job->args),
                                              .targets = job->list,
                                              .n_targets = job->n_disks,
                                              .workers = (unsigned)job->args->workers,
                                              .progress = progress_tick,
                                              .opaque = &job->progress,
                                              .secret = secrets_tell,
                                              .secret_opaque = (void *)(uintptr_t)job->args,
                                              .target_place = job->args->target_place,
                                              .spool = job->args->spool};
    if (job->n_disks == 0)
        return 0;
    progress_start(&job->progress, job->args, wants_json(job->args));
    signals_catch(true);
    int r = platter_archive_extract(job->archive, &options, ret_holes, &err);
    progress_end(&job->progress, !r);
    if (r)
        say_end(&err, job->args->existing ? "the target is incomplete"
                                          : "unfinished targets were taken away");
    return r;
}

static int extract(struct extract_job *job)
{
    const struct args *args = job->args;
    uint64_t holes = 0;
    if (make_folder(job))
        return EXIT_FAILED;
    if (extract_choose(job) || save_configs(job) || extract_disks(job, &holes)) {
        withdraw(job);
        return EXIT_FAILED;
    }
    fault_log_end(&job->log);
    bool printed = args->n_operands > 1 && strcmp(args->operands[1], "-") == 0;
    if (!printed)
        extract_report(job, holes);
    return job->log.n_faults ? EXIT_HOLES : EXIT_FINE;
}

static int open_and_extract(struct extract_job *job)
{
    struct platter_error err = {0};
    struct platter_archive_options options = {.size = sizeof options,
                                              .flags =
                                                  job->args->salvage ? PLATTER_ARCHIVE_SALVAGE : 0,
                                              .uuid = job->args->uuid,
                                              .memory_limit = job->args->memory / 2,
                                              .fault = extract_fault,
                                              .opaque = job,
                                              .place = job->args->place};
    if (platter_archive_open(job->args->operands[0], &options, &job->archive, &err))
        return say_error(&err);
    int code = extract(job);
    platter_archive_close(job->archive);
    return code;
}

static int run_job(const struct args *args)
{
    struct extract_job *job = calloc(1, sizeof *job);
    if (!job)
        return usage_error(NULL, "out of memory");
    job->args = args;
    job->log = (struct fault_log){.args = args,
                                  .progress = &job->progress,
                                  .silent = wants_json(args) || args->quiet,
                                  .faults = wants_json(args) ? json_array() : NULL};
    int code = open_and_extract(job);
    fault_log_end(&job->log);
    for (unsigned i = 0; i < job->n_disks; i++) {
        free(job->disks[i].name);
        free(job->disks[i].path);
        json_decref(job->disks[i].holes.list);
        json_decref(job->disks[i].doubts.list);
    }
    for (unsigned i = 0; i < job->n_configs; i++)
        free(job->configs[i].path);
    json_decref(job->log.faults);
    free(job);
    return code;
}

static unsigned count_chosen(const struct args *args, int kind)
{
    unsigned n = 0;
    for (unsigned i = 0; i < args->n_actions; i++)
        n += args->actions[i].action == kind;
    return n;
}

/* What does not go together. */
static int check_args(const struct args *args)
{
    const struct verb *verb = &verb_extract;
    unsigned disks = count_chosen(args, CHOOSE_DISK), configs = count_chosen(args, CHOOSE_CONFIG);
    if (args->n_operands < 1 || args->n_operands > 2)
        return usage_error(verb, "Expecting an archive, and at most one target");
    if (args->n_operands == 2 && args->folder)
        return usage_error(verb, "-o says where everything goes: a target cannot be given as well");
    if (args->n_operands == 2 && (disks + configs != 1 || args->configs))
        return usage_error(verb, "a target is for one disk (-d) or one configuration (-c): for "
                                 "more of them give a folder (-o)");
    if (args->existing && (args->n_operands < 2 || disks != 1))
        return usage_error(verb, "-n is for one disk (-d) and its target");
    if (args->target_is_zero && !args->existing)
        return usage_error(verb, "--target-is-zero requires use of -n flag");
    if (args->existing && args->creation)
        return usage_error(verb, "--options has no effect when skipping image creation");
    if (args->uuid && !args->salvage)
        return usage_error(verb, "--uuid is for archives that are salvaged (--salvage)");
    return cache_check(verb, args->cache, "cache") ? EXIT_FINE : EXIT_FAILED;
}

static int check_stdout(const struct args *args)
{
    if (args->existing || args->salvage || wants_json(args))
        return usage_error(&verb_extract,
                           "target -: -n, --salvage and --output=json need a file as target");
    if (isatty(STDOUT_FILENO))
        return usage_error(&verb_extract,
                           "target -: standard output is a terminal: lead it to a file or a pipe");
    if (strcmp(args->operands[0], "-") == 0)
        return usage_error(&verb_extract, "target -: a disk whose archive comes out of a pipe can "
                                          "only go to a file, for its data comes in any order");
    return EXIT_FINE;
}

static int extract_run(const struct args *given)
{
    struct args args = *given;
    if (creation_wants_help(args.creation))
        return creation_help(args.out_format ? args.out_format : "raw", args.n_operands < 1);
    if (check_args(&args))
        return EXIT_FAILED;
    creation_drop_size(&args.creation);
    bool to_stdout = args.n_operands == 2 && strcmp(args.operands[1], "-") == 0;
    if (!to_stdout || args.actions[0].action == CHOOSE_CONFIG)
        return output_end(run_job(&args));
    if (check_stdout(&args))
        return EXIT_FAILED;
    signals_catch(true);
    return output_end(disk_to_stdout(&args, args.actions[0].value));
}

static const struct opt extract_opts[] = {
    OPT_TEXT('o', NULL, "FOLDER", OPT_FILE, folder,
             "where files go, under their names in the archive; made if it is not there"),
    {'d', NULL, "NAME", OPT_ACTION, CHOOSE_DISK, 0,
     "extract this disk, not everything; may be repeated"},
    {'c', NULL, "NAME", OPT_ACTION, CHOOSE_CONFIG, 0,
     "extract this configuration, not everything; may be repeated"},
    OPT_FLAG_AT(0, "config", configs, "extract all configurations, and of disks those of -d"),
    OPT_TEXT('O', NULL, "FMT", OPT_FORMAT, out_format, "format of the targets; raw if not given"),
    OPT_TEXT(0, "options", "OPTIONS", OPT_CREATION, creation,
             "creation options of the targets, key=value,...; --options=help lists them"),
    OPT_FLAG_AT(0, "compress", compress, "compress the targets"),
    OPT_FLAG_AT('n', NULL, existing, "write into an existing target instead of making one"),
    OPT_FLAG_AT(0, "target-is-zero", target_is_zero, "the existing target reads as zeros already"),
    OPT_FLAG_AT(0, "salvage", salvage,
                "go on after damage: what is lost is zeros, each hole listed"),
    OPT_TEXT(0, "uuid", "UUID", OPT_STRING, uuid,
             "with --salvage: of an archive whose beginning is lost; found out if not given"),
    OPT_OUTPUT,
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_WORKERS,
    OPT_RATE,
    {0, "memory", "SIZE", OPT_SIZE, offsetof(struct args, memory), 0,
     "most memory for tables and buffers, 128M if not given"},
    OPT_TEXT(
        't', NULL, "CACHE", OPT_STRING, cache,
        "unsafe: do not wait until the targets are durable; other modes of qemu-img are accepted"),
    OPT_TEXT(0, "spool", "DIR", OPT_FILE, spool,
             "folder for a temporary copy of what goes to a server, or is compressed"),
    OPT_NEW_KEY,
    OPT_WHERE,
    OPT_WHERE_TO,
    OPT_END};

const struct verb verb_extract = {
    .name = "extract",
    .summary = "get disks and configurations out of an archive",
    .operands = "ARCHIVE [TARGET]",
    .opts = extract_opts,
    .examples = "platter extract -p -o restored vzdump-qemu-100.vma.zst\n"
                "platter extract -d drive-scsi0 -O qcow2 backup.vma vm.qcow2\n"
                "platter extract -d drive-scsi0 -n backup.vma /dev/vg0/vm\n"
                "platter extract -c qemu-server.conf backup.vma -\n"
                "platter extract --salvage --output=json -o rescued damaged.vma\n"
                "ssh host cat backup.vma.zst | platter extract -o restored -\n",
    .run = extract_run};
