/* SPDX-License-Identifier: MIT */
/* stream_identity() of files and devices. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "stream/file.h"

/* One line that the kernel tells of a device, if it does. */
static bool device_fact(dev_t dev, const char *fact, char *buf, size_t len)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s", major(dev), minor(dev), fact);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, buf, len - 1);
    close(fd);
    buf[n > 0 ? n : 0] = '\0';
    buf[strcspn(buf, "\n")] = '\0';
    return *buf;
}

/* What is the same after the machine was started again, and another one for another device. Nothing
 * tells whether it was written to: of devices an identity says little. */
static int device_identity(const struct file_stream *f, char **text, struct platter_error *err)
{
    static const char *const facts[] = {"dm/uuid", "wwid",          "device/wwid",      "../wwid",
                                        "serial",  "device/serial", "loop/backing_file"};
    char words[512];
    bool found = false;
    int r = 0;
    for (size_t i = 0; i < sizeof facts / sizeof *facts && !found; i++) {
        found = device_fact(f->dev, facts[i], words, sizeof words);
        r = found ? identity_add(text, err, "device", "%s", words) : 0;
    }
    if (r == 0 && device_fact(f->dev, "start", words, sizeof words)) /* a partition's */
        r = identity_add(text, err, "start", "%s", words);
    return r;
}

/* Without the number of the device that its file system is on, which may change when the machine is
 * started, and without the time at which its owner or rights changed. */
int file_identity(struct stream *s, char **text, struct platter_error *err)
{
    const struct file_stream *f = (const struct file_stream *)s;
    struct stat st;
    int r = identity_add_size(text, s, err);
    if (r < 0 || f->block)
        return r < 0 ? r : device_identity(f, text, err);
    if (fstat(f->fd, &st) < 0)
        return fail_errno(err, errno, "%s: cannot examine the file", s->name);
    r = identity_add(text, err, "inode", "%ju", (uintmax_t)st.st_ino);
    return r < 0 ? r
                 : identity_add(text, err, "modified", "%jd.%09ld", (intmax_t)st.st_mtim.tv_sec,
                                st.st_mtim.tv_nsec);
}
