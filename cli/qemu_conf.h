/* SPDX-License-Identifier: MIT */
/*
 * qemu-server.conf, the configuration of a machine in an archive, as far as a restore by Proxmox VE
 * depends on it (section 9.3 of vma.md): for each disk it has a line that says which drive it is,
 * "#qmdump#map:VIRTDEV:DISK:STORAGE:FORMAT:".
 */
#ifndef QEMU_CONF_H
#define QEMU_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QEMU_CONF "qemu-server.conf"

/* A disk of the archive; the state of a machine is none. */
struct conf_disk {
    const char *name;
    uint64_t size; /* bytes */
};

/* What is asked for, in the words of the options. */
struct conf_request {
    const struct conf_disk *disks;
    unsigned n_disks;
    const char *const *maps; /* VIRTDEV:DISK[:STORAGE[:FORMAT]] */
    unsigned n_maps;
    const char *const *settings; /* KEY=VALUE, of a configuration that is made */
    unsigned n_settings;
    const char *vmid; /* or NULL */
};

/* `text` with a line for each map. *ret_text is the caller's. 0, or an exit code (printed). */
int conf_add_maps(const struct conf_request *q, const char *text, size_t len, char **ret_text,
                  size_t *ret_len);
/* A configuration of its own with a drive, and a map line, for each disk. Drives without a map have
 * the names of their disks: "drive-scsi0" is scsi0. 0, or an exit code (printed). */
int conf_generate(const struct conf_request *q, char **ret_text, size_t *ret_len);
/* Prints what a restore would miss, with the lines to add. */
void conf_warn(const struct conf_request *q, const char *text, size_t len);

#endif
