/* SPDX-License-Identifier: MIT */
/* The functions of librados and librbd that are used. */
#include "base/library.h"
#include "stream/rbd.h"

struct rados_functions librados;
struct rbd_functions librbd;

#define SYMBOL(library, name) {#library "_" #name, &lib##library.name},

static const struct library_symbol rados_symbols[] = {RBD_RADOS_FUNCTIONS(SYMBOL){0}};
static const struct library_symbol rbd_symbols[] = {RBD_FUNCTIONS(SYMBOL){0}};

static struct library rados_library = {"librados.so.2", "rbd", rados_symbols, false};
static struct library rbd_library = {"librbd.so.1", "rbd", rbd_symbols, false};

int rbd_load(struct platter_error *err)
{
    int r = library_load(&rados_library, err);
    return r < 0 ? r : library_load(&rbd_library, err);
}
