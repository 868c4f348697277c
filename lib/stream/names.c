/* SPDX-License-Identifier: MIT */
/* Names of files that nobody has open for it: given, and taken away. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "stream/stream.h"

/* What was changed in the folder of a file is durable after it. */
static int flush_folder(const char *path, struct platter_error *err)
{
    const char *slash = strrchr(path, '/');
    auto_free char *folder =
        slash ? string_format("%.*s", (int)(slash - path) + 1, path) : string_copy(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    bool good = fd >= 0 && fsync(fd) == 0;
    int code = errno;
    if (fd >= 0)
        close(fd);
    return good ? 0 : fail_errno(err, folder ? code : ENOMEM, "%s: cannot flush its folder", path);
}

/* By a hard link where the file system does not know the flag. */
static int rename_new(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    if (link(from, to) < 0)
        return -errno;
    unlink(from);
    return 0;
}

int stream_file_rename(const char *from, const char *to, struct platter_error *err)
{
    int r = rename_new(from, to);
    if (r == -EEXIST)
        return fail(err, EEXIST, "%s: exists, so %s cannot get that name: move it away", to, from);
    return r < 0 ? fail_errno(err, -r, "%s: cannot be renamed to %s", from, to)
                 : flush_folder(to, err);
}

int stream_file_remove(const char *path, struct platter_error *err)
{
    if (unlink(path) < 0)
        return fail_errno(err, errno, "%s: cannot be removed", path);
    return flush_folder(path, err);
}

bool stream_is_device(struct stream *s)
{
    struct stat st;
    int fd = s->ops->descriptor ? s->ops->descriptor(s) : -1;
    return fd >= 0 && fstat(fd, &st) == 0 && S_ISBLK(st.st_mode);
}
