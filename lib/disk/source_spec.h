/* SPDX-License-Identifier: MIT */
/* The document of a source-spec: see source.h. */
#ifndef DISK_SOURCE_SPEC_H
#define DISK_SOURCE_SPEC_H

#include "disk/source.h"

enum {
    SPEC_MOST_BYTES = 1 << 20, /* of a document: a list of a thousand snapshots takes a third */
    SPEC_MOST_SNAPSHOTS = 1000 /* all of which are open at once */
};

/* "json:{...}", "{...}", "json:FILE", each with "@VIEW" behind. Fills what it finds into *ret,
 * which is zeroed, and its caller's to be freed also on failure. */
int spec_parse(const char *name, const char *keys, struct source *ret, struct platter_error *err);

#endif
