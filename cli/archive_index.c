/* SPDX-License-Identifier: MIT */
/* platter archive index: the file beside an archive that makes it open at once. */
#include "cli.h"

static int archive_index_run(const struct args *args)
{
    struct platter_error err = {0};
    if (args->n_operands != 1)
        return usage_error(&verb_archive_index, "Expecting one archive file name");
    const char *name = args->operands[0];
    if (platter_archive_index(name, args->index_file, &err))
        return say_error(&err);
    if (!args->quiet) {
        fputs("Index written to ", stdout);
        put_text(stdout, args->index_file ? args->index_file : name);
        puts(args->index_file ? "." : ".index.");
    }
    return output_end(EXIT_FINE);
}

static const struct opt archive_index_opts[] = {
    OPT_TEXT('o', NULL, "FILE", OPT_FILE, index_file,
             "write it there instead of beside the archive, where alone it is looked for"),
    OPT_QUIET, OPT_END};

const struct verb verb_archive_index = {
    .name = "archive index",
    .summary = "write the index of an archive, with which it opens at once",
    .operands = "ARCHIVE",
    .opts = archive_index_opts,
    .examples = "platter archive index backup.vma\n",
    .run = archive_index_run};
