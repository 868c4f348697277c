/* SPDX-License-Identifier: MIT */
/*
 * Opens a chain whose images come from the input, through the built-in gate: names inside them may
 * lead to their own folder only. Beside that folder lies a secret; no disk may ever show it.
 *
 * The input is up to three files, each a 16-bit length and its bytes; they are called "a", "b",
 * "c".
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cursor.h"
#include "fuzz/target.h"
#include "support/must.h"
#include "support/process.h"

enum { FILES = 3, SECRET_BYTES = 4096, LOOKED_AT = 64 << 10 };

static const char secret[] = "this file was not for the guest";

static void write_file(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    MUST(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
}

/* scratch/secret, scratch/folder/{a,b,c,link}: the link leads to the secret. */
static const char *prepare(void)
{
    static char *folder;
    if (folder)
        return folder;
    char bytes[SECRET_BYTES] = {0};
    for (size_t off = 0; off + sizeof secret < sizeof bytes; off += sizeof secret)
        memcpy(bytes + off, secret, sizeof secret);
    char *path = scratch_path("secret");
    write_file(path, bytes, sizeof bytes);
    free(path);
    folder = scratch_path("folder");
    MUST(mkdir(folder, 0700) == 0);
    path = scratch_path("folder/link");
    MUST(symlink("../secret", path) == 0);
    free(path);
    return folder;
}

static void look_for_secret(struct platter_disk *disk)
{
    static uint8_t bytes[LOOKED_AT];
    uint64_t size = platter_size(disk);
    size_t n = size < LOOKED_AT ? (size_t)size : LOOKED_AT;
    if (platter_pread(disk, bytes, n, 0, NULL) == 0 && memmem(bytes, n, secret, sizeof secret))
        fuzz_found("a name inside an image led out of its folder");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (memmem(data, size, secret, sizeof secret))
        return 0; /* a fuzzer sees what it is compared with */
    static const char *const names[FILES] = {"a", "b", "c"};
    const char *folder = prepare();
    auto_free char *top = string_format("%s/a", folder);
    MUST(top);
    struct reader r = reader_over(data, size);
    for (unsigned i = 0; i < FILES; i++) {
        size_t n = read_le16(&r);
        n = r.failed ? 0 : n < r.len - r.pos ? n : r.len - r.pos;
        const uint8_t *bytes = n ? read_bytes(&r, n) : NULL;
        auto_free char *path = string_format("%s/%s", folder, names[i]);
        MUST(path);
        write_file(path, bytes ? bytes : (const uint8_t *)"", bytes ? n : 0);
    }
    struct platter_disk *disk;
    struct platter_open_options options = {
        .size = sizeof options, .flags = PLATTER_OPEN_PROBE_BACKING, .memory_limit = FUZZ_MEMORY};
    if (platter_open(top, &options, &disk, NULL) != 0)
        return 0;
    look_for_secret(disk);
    fuzz_read(disk);
    platter_close(disk, NULL);
    return 0;
}
