/* SPDX-License-Identifier: MIT */
/*
 * poke IMAGE FORMAT [PATTERN]: writes into an image in place, as a script on standard input says,
 * through the public API alone. FORMAT may be followed by a comma and that of the backing file,
 * where the image does not say it. Each line is answered with "ok" or ends the program with a
 * message.
 *
 *     write OFFSET LENGTH FROM     bytes FROM .. FROM + LENGTH of the file PATTERN
 *     zero OFFSET LENGTH           reads as zeros from then on
 *     unmap OFFSET LENGTH          the same, and host space may be given back
 *     discard OFFSET LENGTH        the content is not needed
 *     flush                        what was written is durable
 *
 * The image stays open, and locked, until standard input ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <platter/platter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int complain(const char *what, const char *why)
{
    fprintf(stderr, "poke: %s: %s\n", what, why);
    return 1;
}

static int poke_write(struct platter_disk *disk, int pattern, uint64_t off, uint64_t len,
                      uint64_t from, struct platter_error *err)
{
    char *buf = malloc(len ? len : 1);
    int r = -EIO;
    if (buf && pread(pattern, buf, len, (off_t)from) == (ssize_t)len)
        r = platter_pwrite(disk, buf, len, off, err);
    free(buf);
    return r;
}

static int poke_line(struct platter_disk *disk, int pattern, const char *line)
{
    struct platter_error err = {.message = "the line or the pattern is not right"};
    uint64_t off = 0, len = 0, from = 0;
    char verb[16] = "";
    int n = sscanf(line, "%15s %" SCNu64 " %" SCNu64 " %" SCNu64, verb, &off, &len, &from);
    int r = -EINVAL;
    if (n == 4 && strcmp(verb, "write") == 0)
        r = poke_write(disk, pattern, off, len, from, &err);
    else if (n == 3 && strcmp(verb, "zero") == 0)
        r = platter_zero(disk, off, len, 0, &err);
    else if (n == 3 && strcmp(verb, "unmap") == 0)
        r = platter_zero(disk, off, len, PLATTER_ZERO_UNMAP, &err);
    else if (n == 3 && strcmp(verb, "discard") == 0)
        r = platter_discard(disk, off, len, &err);
    else if (n == 1 && strcmp(verb, "flush") == 0)
        r = platter_flush(disk, &err);
    if (r < 0)
        return complain(line, err.message);
    puts("ok");
    fflush(stdout);
    return 0;
}

int main(int argc, char **argv)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL;
    int pattern = argc == 4 ? open(argv[3], O_RDONLY | O_CLOEXEC) : -1;
    if (argc < 3 || argc > 4 || (argc == 4 && pattern < 0))
        return complain("usage", "poke IMAGE FORMAT [PATTERN]");
    char *comma = strchr(argv[2], ',');
    if (comma)
        *comma++ = '\0';
    struct platter_open_options options = {.size = sizeof options,
                                           .flags = PLATTER_OPEN_WRITE,
                                           .format = argv[2],
                                           .backing_format = comma};
    if (platter_open(argv[1], &options, &disk, &err) < 0)
        return complain("open", err.message);
    puts("open");
    fflush(stdout);
    char line[128];
    int code = 0;
    while (code == 0 && fgets(line, sizeof line, stdin))
        code = poke_line(disk, pattern, line);
    if (platter_close(disk, &err) < 0)
        code = complain("close", err.message);
    if (pattern >= 0)
        close(pattern);
    return code;
}
