/* SPDX-License-Identifier: MIT */
/* Configurations out of an archive become files: under names that a stranger chose (section 9.3 of
 * vma.md). */
#include <string.h>

#include "ops/extract.h"

enum { MOST_NAME = 255 /* bytes; what file systems take */ };

bool platter_archive_name_is_safe(const char *name, size_t room)
{
    size_t len = strlen(name);
    if (len == 0 || len > room || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return false;
    for (const unsigned char *c = (const unsigned char *)name; *c; c++)
        if (*c < 0x20 || *c == 0x7f || *c == '/' || *c == '\\')
            return false;
    return true;
}

/* Under a temporary name first, in a folder that is held open; then under its own, if that is free.
 */
static int write_new_file(const char *path, const void *bytes, size_t len, bool durable,
                          struct platter_error *err)
{
    struct stream *s;
    int r = stream_file_open(
        path, STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY | STREAM_FILE_EXCLUSIVE, &s, err);
    if (r < 0)
        return r;
    r = len > 0 ? stream_pwrite(s, bytes, len, 0, err) : 0;
    if (r == 0)
        r = stream_publish(s, durable, err);
    stream_close(s);
    return r;
}

int archive_save_config(struct platter_archive *a, unsigned index, const char *folder,
                        unsigned flags, struct platter_error *err)
{
    const char *name;
    const void *bytes;
    size_t len;
    int r = archive_config(a, index, &name, &bytes, &len, err);
    if (r < 0)
        return r;
    if (!platter_archive_name_is_safe(name, MOST_NAME))
        return fail(err, EINVAL,
                    "%s: the configuration \"%s\" has a name that is not safe as that of a file: "
                    "read it by its name, and choose another one for the file",
                    a->stream->name, name);
    auto_free char *path = string_format("%s/%s", *folder ? folder : ".", name);
    if (!path)
        return fail_memory(err, "a path");
    return write_new_file(path, bytes, len, !(flags & PLATTER_EXTRACT_UNSAFE), err);
}
