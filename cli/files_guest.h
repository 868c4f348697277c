/* SPDX-License-Identifier: MIT */
/* Whatever file system Linux has a driver for, by libguestfs, where that is installed. */
#ifndef FILES_GUEST_H
#define FILES_GUEST_H

#include "cli.h"
#include "files.h"

/* Whether the library is there. */
bool guest_there(void);
/* Opens a file system of the image: that of `device` ("/dev/sda1", "/dev/vg/lv"), or, where that is
 * NULL, those of the system that is on the disk, mounted as it mounts them. */
int guest_open(const struct args *args, const char *image, const char *title, const char *device,
               struct fs *ret, struct platter_error *err);

/* ---- the server of the disk (files_guest_server.c) ------------------------------------------- */

struct disk_server {
    pid_t pid;
    char socket[108];
};

/* Serves the image read-only, as platter serve does, in a process that ends with us. */
int disk_server_start(const struct args *args, const char *image, struct disk_server *ret,
                      struct platter_error *err);
void disk_server_stop(struct disk_server *s);

#endif
