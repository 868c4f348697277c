/* SPDX-License-Identifier: MIT */
/* Other programs, and a folder to meet them in: process.h. */
#include "support/process.h"

#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "support/must.h"

static char folder[256];
static pid_t folder_owner;

static void show_output(const char *command, const char *path, int status)
{
    fprintf(stderr, "%s: exit status %d\n", command, status);
    FILE *f = fopen(path, "r");
    char line[512];
    while (f && fgets(line, sizeof line, f))
        fputs(line, stderr);
    if (f)
        fclose(f);
}

int run_command(int fine, const char *format, ...)
{
    auto_free char *command = NULL;
    va_list args;
    va_start(args, format);
    MUST(vasprintf(&command, format, args) >= 0);
    va_end(args);
    auto_free char *output = scratch_path("output");
    auto_free char *whole = string_format("( %s ) >'%s' 2>&1", command, output);
    MUST(whole);
    int status = system(whole);
    MUST(status != -1);
    status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    if (status != 0 && status != fine)
        show_output(command, output, status);
    return status;
}

static void remove_folder(void)
{
    if (getpid() != folder_owner)
        return;
    auto_free char *command = string_format("rm -rf '%s'", folder);
    if (command && system(command) != 0)
        fprintf(stderr, "%s was not removed\n", folder);
}

const char *scratch_folder(void)
{
    if (folder[0])
        return folder;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/platter-test-XXXXXX", base ? base : "/tmp");
    MUST(mkdtemp(folder));
    folder_owner = getpid();
    atexit(remove_folder);
    return folder;
}

char *scratch_path(const char *name)
{
    char *path = string_format("%s/%s", scratch_folder(), name);
    MUST(path);
    return path;
}
