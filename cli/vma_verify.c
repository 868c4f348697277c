/* SPDX-License-Identifier: MIT */
/* platter vma verify: silent where an archive is whole, as Proxmox's program vma is; but this one
 * finds what is missing as well. */
#include "vma.h"

static void print_fault(void *opaque, const struct platter_fault *fault)
{
    struct fault_log *log = opaque;
    if (fault->kind != PLATTER_FAULT_NOTE || log->args->verbose)
        fault_log_take(log, fault);
}

static int verify(const struct args *args, struct platter_archive *archive)
{
    struct platter_error err = {0};
    struct vma_progress progress;
    struct platter_verification result = {.size = sizeof result};
    struct platter_verify_options options = {
        .size = sizeof options, .progress = vma_progress_tick, .opaque = &progress};
    if (args->verbose && vma_print_listing(archive))
        return EXIT_FAILED;
    vma_progress_start(&progress, args->verbose);
    if (platter_archive_verify(archive, &options, &result, &err))
        return say_error(&err);
    return result.faults ? EXIT_CORRUPT : EXIT_FINE;
}

static int verify_run(const struct args *args)
{
    struct platter_archive *archive = NULL;
    struct fault_log log = {.args = args};
    if (args->n_operands != 1)
        return usage_error(&verb_vma_verify, "Expecting one archive");
    if (vma_open(args, print_fault, &log, &archive))
        return EXIT_FAILED;
    int code = verify(args, archive);
    fault_log_end(&log);
    platter_archive_close(archive);
    return output_end(code);
}

static const struct opt verify_opts[] = {
    OPT_FLAG_AT('v', NULL, verbose, "list what is in it, and show how far the work has come"),
    OPT_WHERE, OPT_END};

const struct verb verb_vma_verify = {.name = "vma verify",
                                     .summary =
                                         "tell whether an archive is whole: nothing if it is",
                                     .operands = "ARCHIVE",
                                     .opts = verify_opts,
                                     .examples = "platter vma verify vzdump-qemu-100.vma.zst\n",
                                     .long_work = true,
                                     .run = verify_run};
