/* SPDX-License-Identifier: MIT */
/* Opening images as all verbs do it: IMAGE@VIEW, and the notice about raw. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* A source-spec, which may hold secrets, and says itself what it is. */
static bool is_spec(const char *name)
{
    return name[strspn(name, " \t\r\n")] == '{' || strncmp(name, "json:", 5) == 0;
}

char *image_of_view(const char *name, const char **ret_view)
{
    if (access(name, F_OK) == 0 || strstr(name, "://") || is_spec(name))
        return NULL;
    char *copy = strdup(name);
    for (char *at = copy ? strrchr(copy, '@') : NULL; at; at = strrchr(copy, '@')) {
        *at = '\0';
        if (at > copy && name[at - copy + 1] && access(copy, F_OK) == 0) {
            *ret_view = name + (at - copy) + 1;
            return copy;
        }
    }
    free(copy);
    return NULL;
}

char *uri_of_view(const char *name, const char **ret_view)
{
    const char *at = strrchr(name, '@'), *slash = strrchr(name, '/');
    if (is_spec(name) || !strstr(name, "://") || !at || !at[1] || at < slash)
        return NULL;
    *ret_view = at + 1;
    return strndup(name, (size_t)(at - name));
}

/* The view that -l asks for, in any of qemu-img's spellings. */
static const char *view_of_snapshot(const char *snapshot)
{
    static const char *const prefixes[] = {"snapshot.name=", "snapshot.id="};
    for (int i = 0; i < 2; i++)
        if (strncmp(snapshot, prefixes[i], strlen(prefixes[i])) == 0)
            return snapshot + strlen(prefixes[i]);
    return snapshot;
}

struct platter_open_options image_options(const struct args *args, const char *format,
                                          unsigned flags)
{
    return (struct platter_open_options){
        .size = sizeof(struct platter_open_options),
        .flags = flags | (args->force_share ? PLATTER_OPEN_FORCE_SHARE : 0) |
                 (args->probe_backing ? PLATTER_OPEN_PROBE_BACKING : 0) |
                 (args->ignore_cid ? PLATTER_OPEN_IGNORE_CID : 0) |
                 (args->salvage ? PLATTER_OPEN_SALVAGE : 0),
        .format = format,
        .memory_limit = args->memory / 2, /* the other half is for the buffers of the work */
        .allow = args->n_allow ? args->allow : NULL,
        .spool = args->spool,
        .place = args->place,
        .backing_format = args->unnamed_format,
        .secret = secrets_tell,
        .secret_opaque = (void *)(uintptr_t)args,
        .kdf_limit = args->kdf_limit};
}

const char *name_title(const char *name)
{
    return is_spec(name) ? "source-spec" : name;
}

const char *image_title(struct platter_disk *disk, const char *name, char buf[4096])
{
    char *text = NULL;
    if (!is_spec(name) && !strchr(name, ':') && strcmp(name, "-") != 0)
        return name;
    if (platter_info(disk, 0, &text, NULL))
        return name_title(name);
    json_t *info = json_loads(text, 0, NULL);
    const char *title = json_string_value(json_object_get(info, "filename"));
    snprintf(buf, 4096, "%s", title ? title : "source-spec");
    json_decref(info);
    platter_free(text);
    return buf;
}

/* Whether the bytes of the file are those of the disk. */
static bool is_compressed(struct platter_disk *disk)
{
    char *text = NULL;
    if (platter_info(disk, 0, &text, NULL))
        return false;
    json_t *info = json_loads(text, 0, NULL);
    bool ret = json_object_get(info, "compression") != NULL;
    json_decref(info);
    platter_free(text);
    return ret;
}

/* Shows how far opening has come, where that takes long: on standard error, where -p or a terminal
 * wants it. */
struct opening {
    struct progress progress;
    const struct args *args;
    bool at_once; /* a signal ends the program, as nothing is written */
    bool begun;
};

static int opening_tick(void *opaque, const struct platter_progress *now)
{
    struct opening *o = opaque;
    if (!o->begun) {
        progress_start(&o->progress, o->args, true);
        if (!o->progress.out && !o->args->quiet && isatty(STDERR_FILENO))
            o->progress.out = stderr;
    }
    o->begun = true;
    int r = progress_tick(&o->progress, now);
    signals_end_at_once(o->at_once);
    return r;
}

/* On a terminal nothing is left of it. */
static void opening_end(struct opening *o)
{
    if (!o->begun)
        return;
    if (o->progress.shown && !isatty(fileno(o->progress.out)))
        progress_end(&o->progress, false);
    progress_clear(&o->progress);
}

int image_open(const struct args *args, const char *name, const char *format, unsigned flags,
               struct platter_disk **ret)
{
    struct platter_error err = {0};
    struct opening opening = {.args = args, .at_once = !(flags & PLATTER_OPEN_WRITE)};
    const char *view = args->view;
    if (!view && args->snapshot)
        view = view_of_snapshot(args->snapshot);
    char *file = view ? NULL : image_of_view(name, &view);
    struct platter_open_options options =
        image_options(args, format, flags | (format ? 0 : PLATTER_OPEN_ALLOW_RAW));
    options.view = view;
    options.progress = opening_tick;
    options.progress_opaque = &opening;
    bool before = signals_end_at_once(opening.at_once);
    int r = platter_open(file ? file : name, &options, ret, &err);
    if (r == -ENOENT && !view && (file = uri_of_view(name, &options.view)))
        r = platter_open(file, &options, ret, &err);
    signals_end_at_once(before);
    opening_end(&opening);
    if (r && signals_caught())
        say("interrupted");
    else if (r)
        say_error(&err);
    char title[4096];
    bool notice = !r && !format && !args->quiet && !(flags & PLATTER_OPEN_QUERY) && !is_spec(name);
    if (notice && strcmp(platter_format(*ret), "raw") == 0)
        say("%s: no known format%s", image_title(*ret, file ? file : name, title),
            is_compressed(*ret) ? " in what is compressed in it: taken as raw"
                                : ": taken as raw; give -f raw if that is what it is");
    for (unsigned i = 0; !r && i < platter_depth(*ret); i++)
        if (platter_doubt(*ret, i))
            say("%s", platter_doubt(*ret, i));
    free(file);
    return r;
}

void image_warn_gated(const struct args *args, const char *name, const char *format)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL;
    struct platter_open_options options = image_options(args, format, PLATTER_OPEN_QUERY);
    if (!options.backing_format) /* what the command was told does not have to be in the image */
        options.backing_format = args->backing_format;
    if (!args->quiet && platter_open(name, &options, &disk, &err) && err.code == PLATTER_EGATE)
        say("warning: as it is now it does not open: %s", err.message);
    platter_close(disk, NULL);
}

void image_warn_snapshots(const struct args *args, const char *name, const char *why)
{
    struct platter_disk *disk = NULL;
    char *text = NULL;
    struct platter_open_options options =
        image_options(args, args->format, PLATTER_OPEN_QUERY | PLATTER_OPEN_NO_BACKING);
    if (args->quiet || platter_open(name, &options, &disk, NULL))
        return; /* the work itself will tell */
    if (platter_info(disk, 0, &text, NULL) == 0) {
        json_t *info = json_loads(text, 0, NULL);
        size_t n = json_array_size(json_object_get(info, "snapshots"));
        if (n)
            say("warning: %s: has %zu internal snapshot%s: %s", name, n, n > 1 ? "s" : "", why);
        json_decref(info);
    }
    platter_free(text);
    platter_close(disk, NULL);
}
