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

const struct verb *const verbs[] = {
    &verb_info,
    &verb_create,
    &verb_convert,
    &verb_dd,
    &verb_map,
    &verb_compare,
    &verb_digest,
    &verb_measure,
    &verb_check,
    &verb_resize,
    &verb_commit,
    &verb_rebase,
    &verb_amend,
    &verb_compact,
    &verb_key,
    &verb_snapshot,
    &verb_bitmap,
    &verb_bench,
    &verb_formats,
    &verb_extract,
    &verb_verify,
    &verb_archive_create,
    &verb_archive_index,
    &verb_vma_list,
    &verb_vma_config,
    &verb_vma_create,
    &verb_vma_extract,
    &verb_vma_verify,
    &verb_vma_repack,
    &verb_serve,
    &verb_mount,
    &verb_ls,
    &verb_cp,
    &verb_migrate_prepare,
    &verb_migrate_serve,
    &verb_migrate_execute,
    &verb_migrate_status,
    &verb_migrate_commit,
    &verb_migrate_abort,
    NULL,
};

const struct verb *verb_find(const char *name)
{
    for (int i = 0; verbs[i]; i++)
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    return NULL;
}

const struct group groups[] = {
    {"migrate", "use a disk at its new place while it is copied there"},
    {"archive", "make an archive of disks, or the index of one"},
    {"vma", "archives of disks, with the words of Proxmox's program of that name"},
    {NULL, NULL}};

const struct group *group_find(const char *name)
{
    for (const struct group *g = groups; g->name; g++)
        if (strcmp(g->name, name) == 0)
            return g;
    return NULL;
}

const char *group_word(const struct group *group, const struct verb *verb)
{
    const char *space = strchr(verb->name, ' ');
    if (!group)
        return space ? NULL : verb->name;
    size_t len = strlen(group->name);
    return space && strncmp(verb->name, group->name, len) == 0 && verb->name + len == space
               ? space + 1
               : NULL;
}

static bool as_vma;

bool called_as_vma(void)
{
    return as_vma;
}

static int verb_run(const struct verb *verb, int argc, char **argv)
{
    struct args args = {0};
    int code = args_parse(verb, argc, argv, &args) - 1;
    if (code < 0)
        code = images_named(verb, &args) || secrets_check(verb, &args) ? EXIT_FAILED : -1;
    if (code < 0) {
        signals_catch(verb->long_work);
        signals_end_at_once(!verb->in_place);
        code = verb->run(&args);
    }
    free(args.creation);
    free(args.place);
    free(args.target_place);
    free(args.source_place);
    images_forget(&args);
    signals_raise();
    return code;
}

static const struct verb *group_verb(const struct group *group, const char *word)
{
    for (int i = 0; verbs[i]; i++) {
        const char *own = group_word(group, verbs[i]);
        if (own && strcmp(own, word) == 0)
            return verbs[i];
    }
    return NULL;
}

static bool is_help(const char *word)
{
    return strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* argv[0] is the name of the group, or the program that was called by that name. */
static int group_run(const struct group *group, int argc, char **argv)
{
    const struct verb *verb = argc > 1 ? group_verb(group, argv[1]) : NULL;
    if (verb)
        return verb_run(verb, argc - 1, argv + 1);
    if (argc > 1 && !is_help(argv[1]))
        return usage_error(NULL, "Command not found: %s %s", group->name, argv[1]);
    help_group(group, stdout);
    return output_end(argc > 1 && !called_as_vma() ? EXIT_FINE : EXIT_FAILED);
}

static int help_run(int argc, char **argv)
{
    const struct group *group = argc > 0 ? group_find(argv[0]) : NULL;
    const struct verb *verb =
        argc > 0 ? group_verb(group && argc > 1 ? group : NULL, argv[group && argc > 1 ? 1 : 0])
                 : NULL;
    if (verb)
        help_verb(verb, stdout);
    else if (group && argc == 1)
        help_group(group, stdout);
    else if (argc > 0)
        return usage_error(NULL, "Command not found: %s%s%s", argv[0], group ? " " : "",
                           group ? argv[1] : "");
    else
        help_overview(stdout);
    return output_end(EXIT_FINE);
}

/* A descriptor below 3 that is closed would be given to the next file opened, which then gets
 * whatever is printed. To read from the first of them, or to write to the second, is a failure as
 * before: a copy into nothing is none. */
static void keep_standard_descriptors(void)
{
    static const int modes[] = {O_WRONLY, O_RDONLY, O_RDWR};
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", modes[fd]) < 0)
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

static int program_run(int argc, char **argv)
{
    if (argc < 2)
        return usage_error(NULL, "Not enough arguments");
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        printf("platter %s\n", platter_version());
        return output_end(EXIT_FINE);
    }
    if (is_help(name))
        return help_run(argc - 2, argv + 2);
    if (strcmp(name, "__man") == 0 && argc == 4)
        return man_page(argv[2], argv[3]);
    if (strcmp(name, "__places") == 0 && argc == 3)
        return places_page(argv[2]);
    if (strcmp(name, "__tables") == 0)
        return tables_markdown();
    if (strcmp(name, "__completion") == 0)
        return completion_bash();
    if (group_find(name))
        return group_run(group_find(name), argc - 1, argv + 1);
    const struct verb *verb = group_verb(NULL, name);
    if (!verb)
        return usage_error(
            NULL, name[0] == '-' ? "unrecognized option '%s'" : "Command not found: %s", name);
    return verb_run(verb, argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    keep_standard_descriptors();
    allow_many_files();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* ulimit -f: the write fails, and what it was for is taken away */
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    as_vma = argc > 0 && strcmp(slash ? slash + 1 : argv[0], "vma") == 0;
    if (as_vma)
        return group_run(group_find("vma"), argc, argv);
    return program_run(argc, argv);
}
