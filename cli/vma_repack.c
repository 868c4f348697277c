/* SPDX-License-Identifier: MIT */
/* platter vma repack: a compressed archive that can be read anywhere. */
#include <string.h>
#include <unistd.h>

#include "cli.h"

static int vma_repack_run(const struct args *args)
{
    struct platter_error err = {0};
    struct progress progress;
    if (args->n_operands != 2)
        return usage_error(&verb_vma_repack, "Expecting two file names: an archive, and a new one");
    if (!cache_check(&verb_vma_repack, args->cache, "cache"))
        return EXIT_FAILED;
    const char *target = args->operands[1];
    bool to_stdout = strcmp(target, "-") == 0;
    bool unsafe = args->cache && strcmp(args->cache, "unsafe") == 0;
    struct platter_repack_options options = {
        .size = sizeof options,
        .flags = (to_stdout ? PLATTER_ARCHIVE_TO_FD : 0u) |
                 (args->exclusive ? PLATTER_ARCHIVE_EXCLUSIVE : 0u) |
                 (unsafe ? PLATTER_ARCHIVE_UNSAFE : 0u),
        .compression = args->compression,
        .level = (int)args->level,
        .memory_limit = args->memory,
        .workers = (unsigned)args->workers,
        .fd = STDOUT_FILENO,
        .progress = progress_tick,
        .opaque = &progress,
        .place = args->place,
        .target_place = args->target_place};
    if (to_stdout && isatty(STDOUT_FILENO)) {
        say("a compressed archive is not written to a terminal");
        return EXIT_FAILED;
    }
    progress_start(&progress, args, to_stdout);
    int r = platter_archive_repack(args->operands[0], to_stdout ? "standard output" : target,
                                   &options, &err);
    progress_end(&progress, !r);
    if (!r)
        return EXIT_FINE;
    return say_end(&err, to_stdout ? "what was written is incomplete"
                                   : "the unfinished target was taken away");
}

static const struct opt vma_repack_opts[] = {
    OPT_TEXT(0, "compression", "zstd|gzip", OPT_CHOICE, compression,
             "what to compress with, zstd if not given"),
    OPT_TEXT(0, "level", "N", OPT_NUMBER, level, "of the compression: 1 to 19, of gzip 1 to 12"),
    OPT_FLAG_AT(0, "exclusive", exclusive, "fail where the target exists"),
    OPT_TEXT('t', NULL, "CACHE", OPT_STRING, cache,
             "unsafe: do not wait until the target is durable; other modes are accepted"),
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_WORKERS,
    {0, "memory", "SIZE", OPT_SIZE, offsetof(struct args, memory), 0,
     "most memory for buffers, 64M if not given"},
    OPT_WHERE,
    OPT_WHERE_TO,
    OPT_END};

const struct verb verb_vma_repack = {
    .name = "vma repack",
    .summary = "write a compressed archive again, so that it can be read at any place",
    .operands = "ARCHIVE TARGET",
    .opts = vma_repack_opts,
    .examples = "platter vma repack backup.vma.zst again.vma.zst\n"
                "zcat backup.vma.gz | platter vma repack - backup.vma.zst\n",
    .long_work = true,
    .run = vma_repack_run};
