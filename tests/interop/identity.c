/* SPDX-License-Identifier: MIT */
/*
 * identity IMAGE FORMAT: opens a disk and prints by what its files are known again, as JSON on one
 * line. For each line of standard input, which is such JSON or empty (what was printed first), the
 * answer is "same", or the sentence that says what changed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/disk.h"

static int complain(const char *what, const char *why)
{
    fprintf(stderr, "identity: %s: %s\n", what, why);
    return 1;
}

static int answer(struct platter_disk *disk, const json_t *first, const char *line)
{
    struct platter_error err = {0};
    json_t *given = *line == '\n' ? NULL : json_loads(line, 0, NULL);
    if (!given && *line != '\n')
        return complain("input", "is no JSON");
    int r = disk_identity_check(disk, 0, given ? given : first, &err);
    puts(r < 0 ? err.message : "same");
    fflush(stdout);
    json_decref(given);
    return 0;
}

int main(int argc, char **argv)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL;
    json_t *first = NULL;
    if (argc != 3)
        return complain("usage", "identity IMAGE FORMAT");
    const struct platter_open_options options = {.size = sizeof options, .format = argv[2]};
    if (disk_open(argv[1], &options, &disk, &err) < 0)
        return complain("open", err.message);
    int code = 0;
    char *text = NULL, *line = NULL;
    size_t room = 0;
    if (disk_identity(disk, 0, &first, &err) < 0)
        code = complain("disk_identity", err.message);
    else if ((text = json_dumps(first, JSON_COMPACT)))
        puts(text);
    fflush(stdout);
    while (code == 0 && getline(&line, &room, stdin) > 0)
        code = answer(disk, first, line);
    free(text);
    free(line);
    json_decref(first);
    disk_close(disk, NULL);
    return code;
}
