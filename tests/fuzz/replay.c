/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target over files, or all files of folders, where there is no libFuzzer: what was
 * once found stays mended.
 */
#include <dirent.h>
#include <sys/stat.h>
#include <time.h>

#include "base/memory.h"
#include "fuzz/target.h"
#include "support/must.h"

enum { MOST_SECONDS = 20 }; /* for one file; sanitizers and a loaded machine included */

static unsigned replayed;

static void replay_file(const char *path)
{
    struct buffer b = buffer_load(path, 0);
    time_t start = time(NULL);
    fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(b.bytes, b.size);
    if (time(NULL) - start > MOST_SECONDS)
        fuzz_found("%s took more than %d seconds", path, MOST_SECONDS);
    buffer_free(&b);
    replayed++;
}

static void replay_folder(const char *path)
{
    DIR *folder = opendir(path);
    MUST(folder);
    for (const struct dirent *d; (d = readdir(folder));) {
        auto_free char *file = string_format("%s/%s", path, d->d_name);
        MUST(file);
        if (d->d_name[0] != '.')
            replay_file(file);
    }
    closedir(folder);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct stat st;
        MUST(stat(argv[i], &st) == 0);
        if (S_ISDIR(st.st_mode))
            replay_folder(argv[i]);
        else
            replay_file(argv[i]);
    }
    printf("%u files\n", replayed);
    return replayed == 0;
}
