/* SPDX-License-Identifier: MIT */
/* platter migrate execute, commit and abort. */
#include <errno.h>

#include "migrate.h"

/* ---- execute --------------------------------------------------------------------------------- */

static int execute_run(const struct args *args)
{
    struct platter_error err = {0};
    struct progress progress;
    struct platter_migrate_options options = migrate_options(args);
    if (args->n_operands != 1)
        return usage_error(&verb_migrate_execute, "Expecting one target");
    options.progress = progress_tick;
    options.opaque = &progress;
    progress_start(&progress, args, false);
    int r = platter_migrate_execute(args->operands[0], &options, &err);
    progress_end(&progress, r == 0);
    if (r == 0)
        return output_end(EXIT_FINE);
    int code = migrate_failed(&err, "what was copied is kept: execute goes on with the rest");
    return output_end(r == -EIO ? EXIT_UNREADABLE : code);
}

static const struct opt execute_opts[] = {
    OPT_TEXT('r', "rate", "RATE", OPT_SIZE, rate, "most bytes a second that are copied"),
    OPT_WORKERS,
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_MIGRATION,
    {0, "memory", "SIZE", OPT_SIZE, offsetof(struct args, memory), 0,
     "most memory for tables, 64M if not given"},
    OPT_KEYS,
    OPT_END};

const struct verb verb_migrate_execute = {
    .name = "migrate execute",
    .summary = "copy what is missing, also while the target is served",
    .operands = "TARGET",
    .opts = execute_opts,
    .examples = "platter migrate execute -p vm.qcow2\n"
                "platter migrate execute --rate 20M vm.qcow2\n"
                "platter migrate execute --source 'https://server/vm.vmdk?signed=anew' vm.qcow2\n",
    .long_work = true,
    .run = execute_run};

/* ---- commit ---------------------------------------------------------------------------------- */

static int commit_run(const struct args *args)
{
    struct platter_error err = {0};
    struct platter_migrate_options options = migrate_options(args);
    if (args->n_operands != 1)
        return usage_error(&verb_migrate_commit, "Expecting one target");
    int r = platter_migrate_commit(args->operands[0], &options, &err);
    return output_end(r < 0 ? migrate_failed(&err, NULL) : EXIT_FINE);
}

static const struct opt commit_opts[] = {OPT_MIGRATION, OPT_QUIET, OPT_KEYS, OPT_END};

const struct verb verb_migrate_commit = {.name = "migrate commit",
                                         .summary = "cut the link: the target stands alone",
                                         .operands = "TARGET",
                                         .opts = commit_opts,
                                         .examples = "platter migrate commit vm.qcow2\n",
                                         .in_place = true,
                                         .run = commit_run};

/* ---- abort ----------------------------------------------------------------------------------- */

static int abort_run(const struct args *args)
{
    struct platter_error err = {0};
    struct progress progress;
    struct platter_migrate_options options = migrate_options(args);
    if (args->n_operands != 1)
        return usage_error(&verb_migrate_abort, "Expecting one target");
    if (args->keep_writes && args->discard_writes)
        return usage_error(&verb_migrate_abort,
                           "--keep-writes and --discard-writes: give one of them");
    options.progress = progress_tick;
    options.opaque = &progress;
    progress_start(&progress, args, false);
    int r = platter_migrate_abort(args->operands[0], &options, &err);
    progress_end(&progress, r == 0);
    if (r < 0)
        return output_end(migrate_failed(&err, "the migration is as it was"));
    return output_end(EXIT_FINE);
}

static const struct opt abort_opts[] = {
    OPT_TEXT(0, "keep-writes", "FILE", OPT_FILE, keep_writes,
             "a new qcow2 over the source, for what was written to the target"),
    OPT_FLAG_AT(0, "discard-writes", discard_writes, "what was written to the target may be lost"),
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_MIGRATION,
    OPT_KEYS,
    OPT_END};

const struct verb verb_migrate_abort = {
    .name = "migrate abort",
    .summary = "give a migration up: the target goes",
    .operands = "TARGET",
    .opts = abort_opts,
    .examples = "platter migrate abort --keep-writes writes.qcow2 vm.qcow2\n"
                "platter migrate abort --discard-writes vm.qcow2\n",
    .long_work = true,
    .run = abort_run};
