/* SPDX-License-Identifier: MIT */
/*
 * What is served: one image, as the disk itself and as each of its views, every one opened when its
 * first client comes and shared by all of its clients.
 *
 * Errors are told by nbdkit_error(). Every call may come from any thread.
 */
#ifndef PLUGIN_SHELF_H
#define PLUGIN_SHELF_H

#include <platter/migrate.h>
#include <platter/platter.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How the image is to be opened; strings live as long as the program. */
struct shelf_options {
    const char *file;
    const char *view; /* the only one that is served, or NULL */
    struct platter_open_options open;
    bool read_only;
    bool is_migration; /* the file is its target, and `migrate` counts instead of `open` */
    bool executes;     /* ... which is copied meanwhile */
    struct platter_migrate_options migrate;
};

/* An open disk with the clients that have it. */
struct served {
    char *view; /* NULL: the disk itself */
    struct platter_disk *disk;
    struct platter_migration *migration; /* whose disk it is, or NULL */
    bool writable;
    unsigned clients;
    struct served *next;
};

/* What clients may name beside the disk itself. */
struct shelf_views {
    bool only; /* the image is several disks, none of which is the disk itself */
    size_t n;
    struct {
        char *name, *about;
    } * v;
};

/* Whether it can be served at all: opens it as a query. 0 or -1. */
int shelf_try(const struct shelf_options *options);
/* Opens the disk itself, or the view that is served, unless only views can be. 0 or -1. */
int shelf_ready(const struct shelf_options *options, bool *ret_writable);
/* The disk that the name of an export means, for one more client; NULL: it cannot be had.
 * `read_only`: nbdkit serves nothing to be written. */
struct served *shelf_take(const struct shelf_options *options, const char *name, bool read_only);
/* One client less. A view that has none is closed, the disk itself stays open. */
void shelf_give_back(struct served *served);
/* All views, until shelf_close(); NULL: they cannot be found out. */
const struct shelf_views *shelf_views(const struct shelf_options *options);
/* Makes all durable and closes it. 0 or -1. */
int shelf_close(void);

#endif
