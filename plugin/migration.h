/* SPDX-License-Identifier: MIT */
/* The copy of a migration that is served, in a thread of its own. */
#ifndef PLUGIN_MIGRATION_H
#define PLUGIN_MIGRATION_H

#include "shelf.h"

/* Begins to copy what is missing; what comes of it is told by nbdkit_error(). 0 or -1. */
int migration_copy_start(const struct shelf_options *options);
/* Ends that, for which the migration must still be open. What was copied is kept. */
void migration_copy_end(void);

#endif
