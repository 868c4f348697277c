/* SPDX-License-Identifier: MIT */
/*
 * platter mount: a disk as a file, by FUSE. One line on top of serve: the command beside the server
 * is nbdfuse, which ends when it is unmounted, and the server with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"

enum { LOOK = 10000 /* microseconds between two looks whether it is mounted */ };

#define FILE_NAME "disk.raw"

/* The file that the disk will be: one that is not there yet. */
static int choose_file(const char *folder, char **ret)
{
    struct stat st;
    if (stat(folder, &st) < 0 || !S_ISDIR(st.st_mode)) {
        say("%s: is no folder to mount at", folder);
        return EXIT_FAILED;
    }
    char *full = realpath(folder, NULL);
    if (!full || asprintf(ret, "%s/" FILE_NAME, full) < 0)
        *ret = NULL;
    free(full);
    if (!*ret) {
        say("%s: %s", folder, strerror(errno));
        return EXIT_FAILED;
    }
    if (access(*ret, F_OK) == 0) {
        say("%s: is there already: unmount what is mounted there, or take an empty folder", *ret);
        return EXIT_FAILED;
    }
    return EXIT_FINE;
}

static int mount_and_stay(const struct args *args)
{
    struct args own = *args;
    own.exec = args->read_only ? "exec nbdfuse --readonly \"$mountpoint\" \"$uri\""
                               : "exec nbdfuse \"$mountpoint\" \"$uri\"";
    own.n_operands = 1;
    return serve_image(&own, true) == EXIT_FINE ? EXIT_FINE : EXIT_FAILED;
}

/* Until the file is there, or the process that is to mount it has ended. */
static int wait_for_mount(pid_t child, const char *file)
{
    int how = 0;
    while (access(file, F_OK) < 0) {
        if (waitpid(child, &how, WNOHANG) == child)
            return EXIT_FAILED;
        if (signals_caught()) {
            kill(child, SIGTERM);
            waitpid(child, &how, 0);
            return EXIT_FAILED;
        }
        usleep(LOOK);
    }
    return EXIT_FINE;
}

/* In a process of its own, which goes on when we end. */
static int mount_and_leave(const struct args *args, const char *file)
{
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        say("cannot start a process: %s", strerror(errno));
        return EXIT_FAILED;
    }
    if (child == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        setsid();
        if (null >= 0) {
            dup2(null, STDIN_FILENO);
            dup2(null, STDOUT_FILENO);
        }
        _exit(mount_and_stay(args));
    }
    return wait_for_mount(child, file);
}

static int mount_run(const struct args *args)
{
    char *file = NULL;
    if (args->n_operands != 2)
        return usage_error(&verb_mount, "Expecting an image and a folder");
    int code = choose_file(args->operands[1], &file);
    if (code == EXIT_FINE && setenv("mountpoint", file, 1) < 0) {
        say("out of memory");
        code = EXIT_FAILED;
    }
    if (code == EXIT_FINE)
        code = args->foreground ? mount_and_stay(args) : mount_and_leave(args, file);
    if (code == EXIT_FINE && !args->foreground && !args->quiet)
        printf("%s\n", file);
    free(file);
    return output_end(code);
}

static const struct opt mount_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_FLAG_AT('r', "read-only", read_only, "take no writes"),
    OPT_FLAG_AT(0, "foreground", foreground, "stay until it is unmounted, and tell what fails"),
    OPT_VIEW,
    OPT_SHARE,
    OPT_SALVAGE,
    OPT_ALLOWED,
    {0, "memory", "SIZE", OPT_SIZE, offsetof(struct args, memory), 0,
     "most memory for tables, 64M if not given"},
    OPT_QUIET,
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_mount = {
    .name = "mount",
    .summary = "show a disk as a raw file in a folder",
    .operands = "IMAGE DIR",
    .opts = mount_opts,
    .examples = "platter mount -r backup.vma@drive-scsi0 /mnt\n"
                "platter mount vm.vmdk /mnt; fdisk -l /mnt/disk.raw; umount /mnt\n",
    .run = mount_run};
