/* SPDX-License-Identifier: MIT */
/* The command: finds the verb and runs it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli.h"

const struct verb *const verbs[] = {&verb_info,   &verb_create,  &verb_convert, &verb_dd,
                                    &verb_map,    &verb_compare, &verb_digest,  &verb_measure,
                                    &verb_check,  &verb_resize,  &verb_commit,  &verb_rebase,
                                    &verb_amend,  &verb_compact, &verb_key,     &verb_snapshot,
                                    &verb_bitmap, &verb_bench,   &verb_formats, NULL};

const struct verb *verb_find(const char *name)
{
    for (int i = 0; verbs[i]; i++)
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    return NULL;
}

static int verb_run(const struct verb *verb, int argc, char **argv)
{
    struct args args = {0};
    int code = args_parse(verb, argc, argv, &args) - 1;
    if (code < 0)
        code = images_named(verb, &args) || secrets_check(verb, &args) ? EXIT_FAILED : -1;
    if (code < 0) {
        signals_catch(verb->long_work);
        code = verb->run(&args);
    }
    free(args.creation);
    images_forget(&args);
    signals_raise();
    return code;
}

static int help_run(const char *name)
{
    const struct verb *verb = name ? verb_find(name) : NULL;
    if (name && !verb)
        return usage_error(NULL, "Command not found: %s", name);
    if (verb)
        help_verb(verb, stdout);
    else
        help_overview(stdout);
    return output_end(EXIT_FINE);
}

/* A descriptor below 3 that is closed would be given to the next file opened, which then gets
 * whatever is printed. */
static void keep_standard_descriptors(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) < 0)
            _exit(EXIT_FAILED);
}

/* One image may be thousands of files. */
static void allow_many_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    keep_standard_descriptors();
    allow_many_files();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* ulimit -f: the write fails, and what it was for is taken away */
    if (argc < 2)
        return usage_error(NULL, "Not enough arguments");
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        printf("platter %s\n", platter_version());
        return output_end(EXIT_FINE);
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return help_run(argv[2]);
    if (strcmp(name, "__man") == 0 && argc == 4)
        return man_page(argv[2], argv[3]);
    if (strcmp(name, "__completion") == 0)
        return completion_bash();
    const struct verb *verb = verb_find(name);
    if (!verb)
        return usage_error(
            NULL, name[0] == '-' ? "unrecognized option '%s'" : "Command not found: %s", name);
    return verb_run(verb, argc - 1, argv + 1);
}
