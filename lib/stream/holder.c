/* SPDX-License-Identifier: MIT */
/*
 * Who has the lock that is in our way. Of locks that belong to open files the kernel does not tell
 * (F_OFD_GETLK answers process -1), but /proc/PID/fdinfo shows those of each open file: proc(5). So
 * the open files of all processes are looked through for ours. Processes we may not look into are
 * not named, and when there are so many that it takes too long nobody is.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/awake.h"
#include "base/memory.h"
#include "stream/file.h"

#define LOOK_NS UINT64_C(1000000000) /* what a name in a sentence may cost */

struct search {
    int fd; /* of our own, which is not meant */
    struct stat file;
    uint64_t byte;
    uint64_t until; /* as now_ns() */
};

/* Whether a line of fdinfo is a lock on that byte:
 * "lock:  1: OFDLCK  ADVISORY  READ -1 08:01:1234 100 103", or "... 100 EOF". */
static bool line_locks(const char *line, uint64_t byte)
{
    char kind[16], last[24];
    uint64_t first;
    if (sscanf(line, "lock: %*u: %15s %*s %*s %*d %*s %" SCNu64 " %23s", kind, &first, last) != 3)
        return false;
    if (strcmp(kind, "OFDLCK") != 0 && strcmp(kind, "POSIX") != 0)
        return false;
    return first <= byte && (strcmp(last, "EOF") == 0 || strtoull(last, NULL, 10) >= byte);
}

static bool has_lock(int process, const char *number, uint64_t byte)
{
    char path[32], line[256];
    snprintf(path, sizeof path, "fdinfo/%.20s", number);
    int fd = openat(process, path, O_RDONLY | O_CLOEXEC);
    FILE *info = fd >= 0 ? fdopen(fd, "r") : NULL;
    bool found = false;
    while (info && !found && fgets(line, sizeof line, info))
        found = line_locks(line, byte);
    if (info)
        fclose(info);
    else if (fd >= 0)
        close(fd);
    return found;
}

/* Asks no server: a file system that does not answer must not keep us waiting. */
static bool is_file(int folder, const char *number, const struct stat *file)
{
    struct statx x;
    return statx(folder, number, AT_STATX_DONT_SYNC, STATX_INO, &x) == 0 &&
           x.stx_ino == file->st_ino && x.stx_dev_major == major(file->st_dev) &&
           x.stx_dev_minor == minor(file->st_dev);
}

/* Whether the process has the file open, and that lock with it. */
static bool process_holds(int process, bool own, const struct search *s)
{
    int folder = openat(process, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = folder >= 0 ? fdopendir(folder) : NULL;
    bool found = false;
    for (const struct dirent *e; dir && !found && now_ns() < s->until && (e = readdir(dir));)
        found = isdigit((unsigned char)e->d_name[0]) &&
                !(own && strtol(e->d_name, NULL, 10) == s->fd) &&
                is_file(folder, e->d_name, &s->file) && has_lock(process, e->d_name, s->byte);
    if (dir)
        closedir(dir);
    else if (folder >= 0)
        close(folder);
    return found;
}

/* The name of its command, as ps has it. */
static char *process_name(int process, const char *number)
{
    char name[64];
    int fd = openat(process, "comm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, name, sizeof name - 1) : 0;
    if (fd >= 0)
        close(fd);
    name[n > 0 ? n : 0] = '\0';
    name[strcspn(name, "\n")] = '\0';
    return string_format("%s%sprocess %s%s", name, *name ? " (" : "", number, *name ? ")" : "");
}

/* NULL: not that one. */
static char *name_if_holder(int proc, const char *number, const struct search *s)
{
    bool own = strcmp(number, "self") == 0;
    int process = openat(proc, number, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (process < 0)
        return NULL;
    char *name = process_holds(process, own, s) ? process_name(process, number) : NULL;
    close(process);
    return name;
}

/* Others first: who has the file open twice, and is in its own way, can do the least about it. */
char *file_lock_holder(int fd, off_t byte)
{
    struct search s = {.fd = fd, .byte = (uint64_t)byte, .until = now_ns() + LOOK_NS};
    DIR *proc = fstat(fd, &s.file) == 0 ? opendir("/proc") : NULL;
    char *name = NULL;
    for (const struct dirent *e; proc && !name && now_ns() < s.until && (e = readdir(proc));)
        if (isdigit((unsigned char)e->d_name[0]) && strtol(e->d_name, NULL, 10) != getpid())
            name = name_if_holder(dirfd(proc), e->d_name, &s);
    if (proc && !name) {
        auto_free char *own = name_if_holder(dirfd(proc), "self", &s);
        name = own ? string_copy("this program itself") : NULL;
    }
    if (proc)
        closedir(proc);
    return name;
}
