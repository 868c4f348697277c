/* SPDX-License-Identifier: MIT */
/*
 * platter mount: a disk as a file, by FUSE. One line on top of serve: the command beside the server
 * is nbdfuse, which ends when it is unmounted, and the server with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"

enum { LOOK = 10 /* milliseconds between two looks whether it is mounted */ };

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

/* Passes on what was said, if there is anything within `patience` milliseconds. */
static bool pass_on(int said, int patience)
{
    char text[4096];
    struct pollfd news = {.fd = said, .events = POLLIN};
    if (poll(&news, 1, patience) <= 0)
        return false;
    ssize_t n = read(said, text, sizeof text);
    if (n > 0 && fwrite(text, 1, (size_t)n, stderr) < (size_t)n)
        return false;
    if (n == 0) /* nobody is left who could say more */
        poll(NULL, 0, patience);
    return n > 0;
}

/* Until the file is there, or the process that is to mount it has ended. */
static int wait_for_mount(pid_t child, const char *file, int said)
{
    bool told = false, ended = false;
    while (!ended && access(file, F_OK) < 0) {
        pass_on(said, LOOK);
        if (!told && signals_caught())
            told = kill(child, SIGTERM) == 0;
        ended = waitpid(child, NULL, WNOHANG) == child;
    }
    while (pass_on(said, 0))
        continue;
    return ended ? EXIT_FAILED : EXIT_FINE;
}

/* In a process of its own, which goes on when we end. What it and its children say comes to us, for
 * whoever reads our standard error waits until nobody has it any more. Later nobody listens. */
static int mount_and_leave(const struct args *args, const char *file)
{
    int said[2];
    fflush(NULL);
    pid_t child = pipe2(said, O_CLOEXEC) < 0 ? -1 : fork();
    if (child < 0) {
        say("cannot start a process: %s", strerror(errno));
        return EXIT_FAILED;
    }
    if (child == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        setsid();
        signal(SIGPIPE, SIG_IGN);
        if (null >= 0) {
            dup2(null, STDIN_FILENO);
            dup2(null, STDOUT_FILENO);
        }
        dup2(said[1], STDERR_FILENO);
        close(said[0]);
        _exit(mount_and_stay(args));
    }
    close(said[1]);
    int code = wait_for_mount(child, file, said[0]);
    close(said[0]);
    return code;
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
