/* SPDX-License-Identifier: MIT */
/* platter ls: the partitions of a disk, or the files of a folder in it. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "files.h"

/* ---- partitions ------------------------------------------------------------------------------ */

static json_t *text_or_null(const char *text)
{
    return text && text[0] ? json_text(text) : json_null();
}

static json_t *describe_partition(const struct partition *p)
{
    json_t *o = json_object();
    json_object_set_new(o, "number", json_integer(p->number));
    json_object_set_new(o, "start", json_integer((json_int_t)p->start));
    json_object_set_new(o, "length", json_integer((json_int_t)p->length));
    json_object_set_new(o, "type", text_or_null(p->type));
    json_object_set_new(o, "type-id", text_or_null(p->type_id));
    json_object_set_new(o, "name", text_or_null(p->name));
    json_object_set_new(o, "partition-uuid", text_or_null(p->uuid));
    json_object_set_new(o, "file-system", text_or_null(p->kind.name));
    json_object_set_new(o, "label", text_or_null(p->kind.label));
    json_object_set_new(o, "uuid", text_or_null(p->kind.uuid));
    json_object_set_new(o, "readable", json_boolean(p->kind.ops != NULL));
    return o;
}

static void print_table_json(const struct browse *b)
{
    json_t *o = json_object(), *list = json_array();
    json_object_set_new(o, "filename", json_text(b->title));
    json_object_set_new(o, "size", json_integer((json_int_t)platter_size(b->disk)));
    json_object_set_new(o, "table", text_or_null(b->table->scheme));
    json_object_set_new(o, "sector-size", json_integer(b->table->sector_size));
    for (unsigned i = 0; i < b->table->n; i++)
        json_array_append_new(list, describe_partition(&b->table->parts[i]));
    json_object_set_new(o, "partitions", list);
    print_json(o);
}

static void put_column(const char *text, int width)
{
    put_text(stdout, text);
    printf("%*s", width > (int)strlen(text) ? width - (int)strlen(text) : 0, "");
}

static void print_table(const struct table *t)
{
    char start[32], length[32];
    printf("%3s %12s %12s  %-18s%-12s%-18s%s\n", "#", "START", "SIZE", "TYPE", "FILES", "LABEL",
           "UUID");
    for (unsigned i = 0; i < t->n; i++) {
        const struct partition *p = &t->parts[i];
        const char *label = p->kind.label[0] ? p->kind.label : p->name;
        printf("%3u %12s %12s  ", p->number, human_size(p->start, start),
               human_size(p->length, length));
        put_column(p->type, 17);
        putchar(' ');
        put_column(p->kind.name ? p->kind.name : "-", 11);
        putchar(' ');
        put_column(label[0] ? label : "-", 17);
        printf(" ");
        put_text(stdout, p->kind.uuid[0] ? p->kind.uuid : "-");
        putchar('\n');
    }
}

/* ---- files ----------------------------------------------------------------------------------- */

struct listed {
    struct fs *fs;
    struct platter_error err; /* of what failed last; not on the stack of each folder */
    bool json, recursive;
    unsigned long long n; /* printed */
    struct seen seen;
    size_t depth;
    int code;
};

enum { MAX_DEPTH = 2048 };

static void mode_text(uint32_t mode, char ret[11])
{
    static const char bits[] = "rwxrwxrwx";
    for (unsigned i = 0; i < 9; i++)
        ret[i + 1] = mode & 0400u >> i ? bits[i] : '-';
    if (mode & S_ISUID)
        ret[3] = mode & S_IXUSR ? 's' : 'S';
    if (mode & S_ISGID)
        ret[6] = mode & S_IXGRP ? 's' : 'S';
    if (mode & S_ISVTX)
        ret[9] = mode & S_IXOTH ? 't' : 'T';
    ret[10] = '\0';
    ret[0] = S_ISDIR(mode)    ? 'd'
             : S_ISLNK(mode)  ? 'l'
             : S_ISCHR(mode)  ? 'c'
             : S_ISBLK(mode)  ? 'b'
             : S_ISFIFO(mode) ? 'p'
             : S_ISSOCK(mode) ? 's'
                              : '-';
}

static const char *type_name(uint32_t mode)
{
    return S_ISDIR(mode)    ? "folder"
           : S_ISLNK(mode)  ? "link"
           : S_ISCHR(mode)  ? "character-device"
           : S_ISBLK(mode)  ? "block-device"
           : S_ISFIFO(mode) ? "fifo"
           : S_ISSOCK(mode) ? "socket"
                            : "file";
}

static void time_text(const struct timespec *t, bool json, char ret[48])
{
    struct tm parts;
    if (!(json ? gmtime_r : localtime_r)(&t->tv_sec, &parts) ||
        strftime(ret, 48, json ? "%Y-%m-%dT%H:%M:%S" : "%Y-%m-%d %H:%M", &parts) == 0)
        snprintf(ret, 48, "@%lld", (long long)t->tv_sec);
    else if (json)
        sprintf(ret + strlen(ret), ".%09ldZ", t->tv_nsec);
}

static void print_line(const struct node *n, const char *name, const char *target)
{
    char mode[11], when[48], size[32];
    mode_text(n->mode, mode);
    time_text(&n->mtime, false, when);
    if (S_ISCHR(n->mode) || S_ISBLK(n->mode))
        snprintf(size, sizeof size, "%u, %u", n->major, n->minor);
    else
        snprintf(size, sizeof size, "%" PRIu64, n->size);
    printf("%s %2u %5u %5u %12s %s ", mode, n->links, n->uid, n->gid, size, when);
    put_text(stdout, name);
    if (target) {
        fputs(" -> ", stdout);
        put_text(stdout, target);
    }
    putchar('\n');
}

/* One object a line: there may be millions of files. */
static void print_object(struct listed *l, const struct node *n, const char *path,
                         const char *target)
{
    char mode[16], when[48];
    json_t *o = json_object();
    snprintf(mode, sizeof mode, "%04o", n->mode & 07777);
    time_text(&n->mtime, true, when);
    json_object_set_new(o, "path", json_text(path));
    json_object_set_new(o, "type", json_string(type_name(n->mode)));
    json_object_set_new(o, "mode", json_string(mode));
    json_object_set_new(o, "uid", json_integer(n->uid));
    json_object_set_new(o, "gid", json_integer(n->gid));
    json_object_set_new(o, "links", json_integer(n->links));
    json_object_set_new(o, "size", json_integer((json_int_t)n->size));
    json_object_set_new(o, "mtime", json_string(when));
    json_object_set_new(o, "inode", json_integer((json_int_t)n->id));
    if (target)
        json_object_set_new(o, "target", json_text(target));
    if (S_ISCHR(n->mode) || S_ISBLK(n->mode)) {
        json_object_set_new(o, "major", json_integer(n->major));
        json_object_set_new(o, "minor", json_integer(n->minor));
    }
    fputs(l->n ? ",\n    " : "\n    ", stdout);
    json_dumpf(o, stdout, JSON_ENSURE_ASCII);
    json_decref(o);
}

static void print_node(struct listed *l, const struct node *n, const char *path, const char *name)
{
    char *target = NULL;
    if (S_ISLNK(n->mode) && l->fs->ops->target(l->fs->own, n, &target, &l->err) < 0)
        l->code = say_error(&l->err);
    if (l->json)
        print_object(l, n, path, target);
    else
        print_line(n, name, target);
    l->n++;
    free(target);
}

static void list_folder(struct listed *l, const struct node *dir, const char *path);

/* The folders of a listing, each with its own, behind it. */
static void list_below(struct listed *l, const struct listing *entries, const char *path)
{
    for (size_t i = 0; i < entries->n; i++) {
        struct node n;
        char *below = NULL;
        if (!name_is_sound(entries->entries[i].name) ||
            l->fs->ops->node(l->fs->own, entries->entries[i].id, &n, NULL) < 0 || !S_ISDIR(n.mode))
            continue;
        if (asprintf(&below, "%s%s%s", path, path[1] ? "/" : "", entries->entries[i].name) < 0) {
            l->code = EXIT_FAILED;
            return;
        }
        list_folder(l, &n, below);
        free(below);
    }
}

static bool enter(struct listed *l, const struct node *dir, const char *path)
{
    int r = l->depth < MAX_DEPTH ? seen_add(&l->seen, dir->place, &l->err)
                                 : files_fail(&l->err, ENAMETOOLONG, "is in too many folders");
    if (r < 0) {
        say("%s: %s: %s", l->fs->volume.title, path, l->err.message);
        l->code = EXIT_FAILED;
        return false;
    }
    l->depth++;
    return true;
}

static void list_entries(struct listed *l, const struct listing *entries, const char *path)
{
    for (size_t i = 0; i < entries->n; i++) {
        const struct entry *e = &entries->entries[i];
        struct node n;
        char *full = NULL;
        if (!name_is_sound(e->name)) {
            say("%s: %s: has an entry with a name that cannot be: \"%s\"", l->fs->volume.title,
                path, e->name);
            l->code = EXIT_FAILED;
        } else if (l->fs->ops->node(l->fs->own, e->id, &n, &l->err) < 0) {
            say("%s: %s: \"%s\": %s", l->fs->volume.title, path, e->name, l->err.message);
            l->code = EXIT_FAILED;
        } else if (asprintf(&full, "%s%s%s", path, path[1] ? "/" : "", e->name) >= 0) {
            print_node(l, &n, full, e->name);
        }
        free(full);
    }
}

static void list_folder(struct listed *l, const struct node *dir, const char *path)
{
    struct listing entries = {0};
    if (!enter(l, dir, path))
        return;
    if (l->recursive && !l->json) {
        if (l->n)
            putchar('\n');
        put_text(stdout, path);
        fputs(":\n", stdout);
        l->n++; /* a line is there */
    }
    if (l->fs->ops->list(l->fs->own, dir, &entries, &l->err) < 0) {
        l->code = say_error(&l->err);
    } else {
        listing_sort(&entries);
        list_entries(l, &entries, path);
        if (l->recursive)
            list_below(l, &entries, path);
    }
    listing_free(&entries);
    l->depth--;
}

/* "/etc/" as "/etc". */
static char *neat(const char *path)
{
    char *copy = strdup(path[0] == '/' ? path : "");
    size_t len = copy ? strlen(copy) : 0;
    while (len > 1 && copy[len - 1] == '/')
        copy[--len] = '\0';
    return copy;
}

/* A link to a folder is that folder, and any other is itself. */
static int find_listed(struct listed *l, const char *path, struct node *ret)
{
    struct node folder;
    int r = path_find(l->fs, path, false, ret, &l->err);
    if (r == 0 && S_ISLNK(ret->mode) && path_find(l->fs, path, true, &folder, NULL) == 0 &&
        S_ISDIR(folder.mode))
        *ret = folder;
    return r;
}

static void list_found(struct listed *l, const struct node *node, const char *path)
{
    if (l->json)
        putchar('[');
    if (S_ISDIR(node->mode))
        list_folder(l, node, path);
    else
        print_node(l, node, path, path);
    if (l->json)
        puts(l->n ? "\n]" : "]");
}

static int list_path(const struct args *args, struct browse *b, const char *path)
{
    struct listed l = {&b->fs, .json = wants_json(args), .recursive = args->recursive};
    struct node node;
    char *shown = neat(path);
    if (!shown)
        files_fail(&l.err, ENOMEM, "no memory for a listing");
    else if (find_listed(&l, path, &node) == 0)
        list_found(&l, &node, shown);
    if (l.err.code && l.code == EXIT_FINE)
        l.code = say_error(&l.err);
    free(shown);
    seen_free(&l.seen);
    return l.code;
}

static int ls_run(const struct args *args)
{
    struct browse b;
    const char *path = args->n_operands == 2 ? args->operands[1] : NULL;
    if (args->n_operands < 1 || args->n_operands > 2)
        return usage_error(&verb_ls, "Expecting an image, and perhaps a path in it");
    if (path && path[0] != '/')
        return usage_error(&verb_ls, "%s: a path in an image begins with /", path);
    if (!path && (args->recursive || args->partition))
        path = "/";
    if (browse_open(args, args->operands[0], &b) < 0)
        return EXIT_FAILED;
    int code = EXIT_FINE;
    if (!path && wants_json(args))
        print_table_json(&b);
    else if (!path)
        print_table(b.table);
    if (!path)
        code = browse_check(&b) < 0 ? EXIT_FAILED : EXIT_FINE;
    else
        code = browse_choose(args, &b) < 0 ? EXIT_FAILED : list_path(args, &b, path);
    browse_close(&b);
    return output_end(code);
}

static const struct opt ls_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_FLAG_AT('R', "recursive", recursive, "list the folders in folders as well"),
    OPT_PARTITION,
    OPT_OUTPUT,
    OPT_VIEW,
    OPT_SHARE,
    OPT_SALVAGE,
    OPT_ALLOWED,
    OPT_QUIET,
    OPT_KEYS,
    OPT_END};

const struct verb verb_ls = {.name = "ls",
                             .summary = "list the partitions of a disk, or files in it",
                             .operands = "IMAGE [PATH]",
                             .opts = ls_opts,
                             .examples = "platter ls vm.qcow2\n"
                                         "platter ls vm.qcow2 /var/log\n"
                                         "platter ls -R --partition 1 "
                                         "backup.vma.zst@drive-scsi0 /EFI\n",
                             .run = ls_run};
