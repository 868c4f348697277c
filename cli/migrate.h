/* SPDX-License-Identifier: MIT */
/* What the verbs of the group migrate have in common. */
#ifndef CLI_MIGRATE_H
#define CLI_MIGRATE_H

#include "cli.h"

#define OPT_STATE                                                                                  \
    OPT_TEXT(0, "state", "FILE", OPT_FILE, state,                                                  \
             "where the state is kept, TARGET.migration if not given")
#define OPT_COPY_RATE                                                                              \
    OPT_TEXT('r', "rate", "RATE", OPT_SIZE, rate, "most bytes a second that are copied")
/* Of all verbs but prepare. */
#define OPT_MIGRATION                                                                              \
    OPT_STATE,                                                                                     \
        OPT_TEXT(0, "source", "NAME", OPT_FILE, source,                                            \
                 "another name of the same source, which is kept if it is the same"),              \
        OPT_TEXT(0, "source-place", "KEY=VALUE", OPT_PLACE, source_place,                          \
                 "more about a URI of the source, instead of what was prepared"),                  \
        OPT_TEXT(0, "target-place", "KEY=VALUE", OPT_PLACE, target_place,                          \
                 "more about a URI of the target, as --place"),                                    \
        OPT_ALLOW_PATH

/* What the arguments say of going on with a migration. */
struct platter_migrate_options migrate_options(const struct args *args);
/* Tells what failed, or, where a signal ended it, `half_done` if that is not NULL. An exit code. */
int migrate_failed(const struct platter_error *err, const char *half_done);

#endif
