/* SPDX-License-Identifier: MIT */
/* platter cp: files out of a disk. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "files_copy.h"

/* ---- IMAGE:PATH ------------------------------------------------------------------------------ */

/* The colon in front of a path: ":/", which the "://" of a URI is not. */
static const char *next_colon(const char *text)
{
    const char *at = strstr(text, ":/");
    while (at && at[2] == '/')
        at = strstr(at + 2, ":/");
    return at;
}

static bool is_there(const char *image)
{
    const char *view;
    if (access(image, F_OK) == 0)
        return true;
    char *file = image_of_view(image, &view);
    free(file);
    return file != NULL;
}

/* The image, to be freed, and the path in it. A path may have a ":/" as well, and so may a URI: the
 * first file that is there is taken, or else all up to the last one. */
static char *split(const char *operand, const char **ret_path)
{
    char *last = NULL;
    for (const char *at = next_colon(operand); at; at = next_colon(at + 1)) {
        if (at == operand)
            continue;
        free(last);
        last = strndup(operand, (size_t)(at - operand));
        *ret_path = at + 1;
        if (!last || is_there(last))
            break;
    }
    return last;
}

/* ---- the target ------------------------------------------------------------------------------ */

struct target {
    const char *name; /* as it was given */
    int folder;       /* -1: standard output */
    char *base;       /* the name in it; NULL: what is copied keeps its own */
};

static void target_close(struct target *t)
{
    if (t->folder >= 0)
        close(t->folder);
    free(t->base);
}

/* A new name: the folder it is in, and its last component. */
static int split_name(const char *path, struct target *t)
{
    char *copy = strdup(path);
    size_t len = copy ? strlen(copy) : 0;
    while (len > 1 && copy[len - 1] == '/')
        copy[--len] = '\0';
    char *slash = copy ? strrchr(copy, '/') : NULL;
    t->base = copy ? strdup(slash ? slash + 1 : copy) : NULL;
    if (slash)
        slash[slash == copy] = '\0';
    t->folder = t->base ? open(slash ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int r = t->folder < 0 ? put_failed(t->name, "cannot open the folder it is to be in", errno) : 0;
    free(copy);
    return r;
}

static int target_open(const struct args *args, const char *name, unsigned n, struct target *t)
{
    struct stat st;
    size_t len = strlen(name);
    *t = (struct target){.name = name, .folder = -1};
    if (strcmp(name, "-") == 0)
        return 0;
    if (stat(name, &st) == 0 && S_ISDIR(st.st_mode)) {
        t->folder = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return t->folder < 0 ? put_failed(name, "cannot open the folder", errno) : 0;
    }
    if (n > 1 || (len && name[len - 1] == '/' && !args->recursive)) {
        say("%s: is no folder", name);
        return -ENOTDIR;
    }
    if (lstat(name, &st) < 0 || !S_ISLNK(st.st_mode))
        return split_name(name, t);
    /* Where the user's own link leads to is what is meant. */
    char *full = realpath(name, NULL);
    int r = full ? split_name(full, t) : put_failed(name, "is a symbolic link", errno);
    free(full);
    return r;
}

/* ---- copying --------------------------------------------------------------------------------- */

static int add_own(struct copy *c, const struct stat *st)
{
    if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
        return 0;
    return stat_keep(&c->own, &c->n_own, st);
}

/* Files that the disk is made of: all that is open here, as extents and data files have names that
 * only their format knows; and the images of the chain, should the list of what is open be missing.
 */
static int know_own(struct copy *c, struct platter_disk *disk)
{
    struct stat st;
    int r = 0;
    c->n_own = 0;
    DIR *open_files = opendir("/proc/self/fd");
    for (struct dirent *e; open_files && r == 0 && (e = readdir(open_files));)
        if (atoi(e->d_name) > STDERR_FILENO && fstat(atoi(e->d_name), &st) == 0)
            r = add_own(c, &st);
    if (open_files)
        closedir(open_files);
    for (unsigned i = 0; r == 0 && i < platter_depth(disk); i++) {
        char *text = NULL;
        if (platter_info(disk, i, &text, NULL))
            continue;
        json_t *info = json_loads(text, 0, NULL);
        const char *name = json_string_value(json_object_get(info, "filename"));
        if (name && stat(name, &st) == 0)
            r = add_own(c, &st);
        json_decref(info);
        platter_free(text);
    }
    return r;
}

/* The last component of a path, to be freed; NULL where it has none of its own. */
static char *own_name(const char *path)
{
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    char *name = strndup(path + start, end - start);
    if (name && !name_is_sound(name)) {
        free(name);
        name = NULL;
    }
    return name;
}

static int to_output(struct copy *c, const struct node *n, const char *path)
{
    if (!S_ISREG(n->mode)) {
        say("%s: %s: is no regular file: only such a one can go to standard output",
            c->fs->volume.title, path);
        return -EINVAL;
    }
    return copy_to_pipe(c, n, STDOUT_FILENO);
}

/* What the path is goes to its target. */
static int copy_path(struct copy *c, const char *path, const struct target *t)
{
    struct node n;
    if (path_find(c->fs, path, !c->recursive || t->folder < 0, &n, &c->err) < 0) {
        say_error(&c->err);
        return -1;
    }
    if (t->folder < 0)
        return to_output(c, &n, path);
    char *own = t->base ? NULL : own_name(path);
    c->in_tree = S_ISDIR(n.mode);
    int r;
    if (t->base || own)
        r = copy_node(c, &n, t->folder, t->base ? t->base : own, path);
    else if (c->recursive && S_ISDIR(n.mode)) /* "/" into a folder */
        r = copy_entries(c, &n, t->folder, path);
    else
        r = copy_node(c, &n, t->folder, "", path);
    if (r == 0 && c->in_tree && syncfs(t->folder) < 0)
        r = put_failed(t->name, "cannot make what was copied durable", errno);
    free(own);
    return r;
}

struct work {
    const struct args *args;
    struct browse browse;
    char *image; /* that is open */
    struct copy copy;
    struct target target;
    int code;
};

/* Opens the image, unless it is the one that is open. */
static int work_open(struct work *w, const char *image)
{
    if (w->image && strcmp(w->image, image) == 0)
        return 0;
    if (w->image)
        browse_close(&w->browse);
    free(w->image);
    w->image = NULL;
    if (browse_open(w->args, image, &w->browse) < 0)
        return -1;
    w->image = strdup(image);
    if (!w->image || know_own(&w->copy, w->browse.disk) < 0 ||
        browse_choose(w->args, &w->browse) < 0) {
        browse_close(&w->browse);
        free(w->image);
        w->image = NULL;
        return -1;
    }
    w->copy.fs = &w->browse.fs;
    return 0;
}

/* Whether to go on; what fails was printed. */
static bool work_on(struct work *w, const char *image, const char *path)
{
    if (work_open(w, image) < 0) {
        w->code = EXIT_FAILED;
        return true;
    }
    int r = copy_path(&w->copy, path, &w->target);
    if (r < 0 || w->copy.failed)
        w->code = EXIT_FAILED;
    w->copy.depth = 0;
    seen_free(&w->copy.seen);
    return !signals_caught();
}

static int work_all(struct work *w)
{
    const struct args *args = w->args;
    char **names = args->operands;
    bool on = true;
    for (unsigned i = 0; on && args->n_actions && i < args->n_actions; i++)
        on = work_on(w, names[0], args->actions[i].value);
    for (int i = 0; on && !args->n_actions && i < args->n_operands - 1; i++) {
        const char *path = NULL;
        char *image = split(names[i], &path);
        on = work_on(w, image, path);
        free(image);
    }
    if (w->code == EXIT_FINE && w->copy.skipped)
        w->code = EXIT_SKIPPED;
    return w->code;
}

/* What is wrong with the operands, before anything is opened. */
static int check_usage(const struct args *args)
{
    int n = args->n_operands;
    unsigned sources = args->n_actions ? args->n_actions : (unsigned)(n > 0 ? n - 1 : 0);
    if (args->n_actions ? n != 2 : n < 2)
        return usage_error(&verb_cp, args->n_actions
                                         ? "With --path: expecting an image and a target"
                                         : "Expecting IMAGE:PATH, once or more, and a target");
    if (sources > 1 && strcmp(args->operands[n - 1], "-") == 0)
        return usage_error(&verb_cp, "Only one file can go to standard output");
    for (unsigned i = 0; i < args->n_actions; i++)
        if (args->actions[i].value[0] != '/')
            return usage_error(&verb_cp, "%s: a path in an image begins with /",
                               args->actions[i].value);
    for (int i = 0; !args->n_actions && i < n - 1; i++) {
        const char *path;
        char *image = split(args->operands[i], &path);
        free(image);
        if (!image)
            return usage_error(&verb_cp,
                               "%s: is not of the form IMAGE:PATH, with a path that "
                               "begins with /",
                               args->operands[i]);
    }
    return EXIT_FINE;
}

static int cp_run(const struct args *args)
{
    int code = check_usage(args);
    if (code)
        return code;
    struct work w = {.args = args, .target = {.folder = -1}};
    struct copy *c = &w.copy;
    unsigned n = args->n_actions ? args->n_actions : (unsigned)args->n_operands - 1;
    c->recursive = args->recursive;
    c->preserve = args->preserve;
    c->owner = args->owner;
    c->mask = umask(0);
    umask(c->mask);
    c->buffer = malloc(COPY_BUFFER);
    signals_end_at_once(true);
    code = EXIT_FAILED;
    if (!c->buffer)
        say("out of memory");
    else if (target_open(args, args->operands[args->n_operands - 1], n, &w.target) == 0)
        code = work_all(&w);
    if (w.image)
        browse_close(&w.browse);
    free(w.image);
    free(c->buffer);
    free(c->own);
    free(c->made);
    target_close(&w.target);
    return output_end(code);
}

static const struct opt cp_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_FLAG_AT('r', "recursive", recursive, "copy folders with all that is in them"),
    OPT_FLAG_AT('p', "preserve", preserve, "keep modes and times"),
    OPT_FLAG_AT(0, "owner", owner, "keep owners and groups, by number, which only root may"),
    OPT_PARTITION,
    {0, "path", "PATH", OPT_ACTION, 0, 0,
     "a path in the image, which is then given alone; may be repeated"},
    OPT_VIEW,
    OPT_SHARE,
    OPT_SALVAGE,
    OPT_ALLOWED,
    OPT_QUIET,
    OPT_KEYS,
    OPT_END};

const struct verb verb_cp = {.name = "cp",
                             .summary = "copy files out of a disk",
                             .operands = "IMAGE:PATH... TARGET",
                             .opts = cp_opts,
                             .examples =
                                 "platter cp vm.qcow2:/etc/fstab .\n"
                                 "platter cp -rp backup.vma.zst@drive-scsi0:/var/lib/app restored\n"
                                 "platter cp vm.qcow2@before-upgrade:/etc/hosts -\n"
                                 "platter cp --path /EFI/BOOT --partition 1 -r vm.vmdk .\n",
                             .long_work = true,
                             .run = cp_run};
