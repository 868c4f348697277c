/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "shelf.h"

enum { LONGEST_NAME = 4096 /* bytes of a string in the protocol */ };

static struct {
    pthread_mutex_t lock; /* held while something is opened, too: who comes second finds it open */
    struct served *served;
    struct shelf_views views;
    bool has_views;
    bool tried; /* to open the disk itself */
} shelf = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The image as it stands while the disk itself may be open for writing: its header, its list of
 * views and what they hold do not change under us. */
static int open_beside(const struct shelf_options *options, unsigned flags, const char *view,
                       struct platter_disk **ret, struct platter_error *err)
{
    struct platter_open_options open = options->open;
    open.flags |= flags;
    for (const struct served *s = shelf.served; s; s = s->next)
        if (s->writable)
            open.flags |= PLATTER_OPEN_FORCE_SHARE;
    open.view = view;
    return platter_open(options->file, &open, ret, err);
}

/* Tells what failed. -1. */
static int tell(const struct platter_error *err)
{
    nbdkit_error("%s", err->message);
    nbdkit_set_error(err->code == ENOENT || err->code == ENOMEM ? err->code : EIO);
    return -1;
}

static const struct platter_error no_memory = {ENOMEM, "out of memory"};

/* Whether there is a migration of that target. */
static int try_migration(const struct shelf_options *options)
{
    char *status = NULL;
    struct platter_error err = {0};
    int r = platter_migrate_status(options->file, &options->migrate, &status, &err);
    platter_free(status);
    return r < 0 ? tell(&err) : 0;
}

int shelf_try(const struct shelf_options *options)
{
    struct platter_disk *disk = NULL;
    struct platter_error err = {0};
    if (options->is_migration)
        return try_migration(options);
    pthread_mutex_lock(&shelf.lock);
    int r = open_beside(options, PLATTER_OPEN_QUERY, options->view, &disk, &err);
    pthread_mutex_unlock(&shelf.lock);
    platter_close(disk, NULL);
    return r < 0 ? tell(&err) : 0;
}

/* ---- views ----------------------------------------------------------------------------------- */

static void views_clear(struct shelf_views *views)
{
    for (size_t i = 0; i < views->n; i++) {
        free(views->v[i].name);
        free(views->v[i].about);
    }
    free(views->v);
    *views = (struct shelf_views){0};
}

/* Snapshots know how large the state of their machine is, disks of an archive have none. */
static int views_add(struct shelf_views *views, const json_t *view)
{
    const char *name = json_string_value(json_object_get(view, "name"));
    bool snapshot = json_object_get(view, "vm-state-size") != NULL;
    if (!name || !*name || strlen(name) > LONGEST_NAME) /* no name that a client could send */
        return 0;
    char *about = NULL;
    if (asprintf(&about, "%s, %" JSON_INTEGER_FORMAT " bytes", snapshot ? "snapshot" : "disk",
                 json_integer_value(json_object_get(view, "size"))) < 0)
        return -1;
    views->v[views->n].about = about;
    views->v[views->n].name = strdup(name);
    views->only |= !snapshot;
    return views->v[views->n++].name ? 0 : -1;
}

static int views_read(struct platter_disk *disk, struct shelf_views *views,
                      struct platter_error *err)
{
    char *text = NULL;
    int got = platter_views(disk, &text, err);
    if (got < 0)
        return got;
    json_t *list = json_loads(text, 0, NULL);
    platter_free(text);
    views->v = calloc(json_array_size(list) + 1, sizeof *views->v);
    int r = list && views->v ? 0 : -1;
    for (size_t i = 0; r == 0 && i < json_array_size(list); i++)
        r = views_add(views, json_array_get(list, i));
    views->only &= json_array_size(list) > 1;
    json_decref(list);
    if (r < 0) {
        views_clear(views);
        *err = no_memory;
    }
    return r;
}

/* Called with the lock. */
static int views_find(const struct shelf_options *options, struct platter_error *err)
{
    struct platter_disk *disk = NULL;
    if (shelf.has_views || options->is_migration)
        return 0;
    int r = open_beside(options, PLATTER_OPEN_QUERY, NULL, &disk, err);
    if (r == 0)
        r = views_read(disk, &shelf.views, err);
    shelf.has_views = r == 0;
    platter_close(disk, NULL);
    return r;
}

const struct shelf_views *shelf_views(const struct shelf_options *options)
{
    struct platter_error err = {0};
    pthread_mutex_lock(&shelf.lock);
    int r = views_find(options, &err);
    pthread_mutex_unlock(&shelf.lock);
    if (r < 0)
        tell(&err);
    return r < 0 ? NULL : &shelf.views;
}

/* ---- disks ----------------------------------------------------------------------------------- */

/* Whether an error of opening for writing says that this cannot be written to, whoever asks. */
static bool is_for_reading(int r)
{
    return r == -EROFS || r == -EACCES || r == -EPERM || r == -ENOTSUP;
}

static int open_migration(const struct shelf_options *options, struct served *s,
                          struct platter_error *err)
{
    int r = platter_migrate_open(options->file, &options->migrate, &s->migration, err);
    s->disk = r == 0 ? platter_migrate_disk(s->migration) : NULL;
    s->writable = r == 0;
    return r;
}

/* Nobody writes to several disks at once, and to try would be at odds with those that are open. */
static bool is_several(const struct shelf_options *options)
{
    struct platter_error err = {0};
    return shelf.served && views_find(options, &err) == 0 && shelf.views.only;
}

static int open_itself(const struct shelf_options *options, bool read_only, struct served *s,
                       struct platter_error *err)
{
    struct platter_open_options open = options->open;
    if (options->is_migration)
        return open_migration(options, s, err);
    s->writable = !read_only && !options->read_only && !is_several(options) &&
                  !(open.flags & (PLATTER_OPEN_FORCE_SHARE | PLATTER_OPEN_SALVAGE));
    open.flags |= s->writable ? PLATTER_OPEN_WRITE : 0;
    int r = platter_open(options->file, &open, &s->disk, err);
    if (is_for_reading(r) && s->writable) {
        nbdkit_debug("for reading only: %s", err->message);
        open.flags &= ~PLATTER_OPEN_WRITE;
        s->writable = false;
        r = platter_open(options->file, &open, &s->disk, err);
    }
    return r;
}

static void served_free(struct served *s)
{
    free(s->view);
    free(s);
}

/* Called with the lock. */
static struct served *served_open(const struct shelf_options *options, const char *view,
                                  bool read_only, struct platter_error *err)
{
    struct served *s = calloc(1, sizeof *s);
    if (!s || (view && !(s->view = strdup(view)))) {
        *err = no_memory;
        free(s);
        return NULL;
    }
    int r = view ? open_beside(options, 0, view, &s->disk, err)
                 : open_itself(options, read_only, s, err);
    if (r < 0) {
        served_free(s);
        return NULL;
    }
    for (unsigned i = 0; i < platter_depth(s->disk); i++)
        if (platter_doubt(s->disk, i))
            nbdkit_error("warning: %s", platter_doubt(s->disk, i));
    s->next = shelf.served;
    shelf.served = s;
    return s;
}

static struct served *served_listed(const char *view)
{
    struct served *s = shelf.served;
    while (s && (view ? !s->view || strcmp(s->view, view) != 0 : s->view != NULL))
        s = s->next;
    return s;
}

/* Called with the lock. The disk itself comes first, as it may be for writing: a view that is open
 * would keep it out, but not the other way round. */
static struct served *served_find(const struct shelf_options *options, const char *view,
                                  bool read_only, struct platter_error *err)
{
    struct platter_error other = {0};
    if (view && !options->view && !shelf.tried && !served_listed(NULL))
        served_open(options, NULL, read_only, &other); /* an archive of several disks has none */
    shelf.tried = true;
    struct served *s = served_listed(view);
    return s ? s : served_open(options, view, read_only, err);
}

int shelf_ready(const struct shelf_options *options, bool *ret_writable)
{
    struct platter_error err = {0}, other = {0};
    pthread_mutex_lock(&shelf.lock);
    struct served *s = served_find(options, options->view, false, &err);
    *ret_writable = s && s->writable;
    bool views = !s && !options->view && views_find(options, &other) == 0 && shelf.views.only;
    pthread_mutex_unlock(&shelf.lock);
    return s || views ? 0 : tell(&err);
}

struct served *shelf_take(const struct shelf_options *options, const char *name, bool read_only)
{
    struct platter_error err = {0};
    const char *view = *name ? name : options->view;
    if (*name && options->is_migration) {
        nbdkit_error("export \"%s\": of a migration the disk itself is served alone", name);
        nbdkit_set_error(ENOENT);
        return NULL;
    }
    if (*name && options->view && strcmp(name, options->view) != 0) {
        nbdkit_error("export \"%s\": only the view \"%s\" is served", name, options->view);
        nbdkit_set_error(ENOENT);
        return NULL;
    }
    pthread_mutex_lock(&shelf.lock);
    struct served *s = served_find(options, view, read_only, &err);
    if (s)
        s->clients++;
    pthread_mutex_unlock(&shelf.lock);
    if (!s)
        tell(&err);
    return s;
}

/* Called with the lock, of what is on the list. */
static int served_close(struct served *s)
{
    struct platter_error err = {0};
    struct served **link = &shelf.served;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    int r = s->migration ? platter_migrate_close(s->migration, &err) : platter_close(s->disk, &err);
    if (r < 0)
        nbdkit_error("%s", err.message);
    served_free(s);
    return r;
}

void shelf_give_back(struct served *s)
{
    pthread_mutex_lock(&shelf.lock);
    if (--s->clients == 0 && s->view)
        served_close(s);
    pthread_mutex_unlock(&shelf.lock);
}

int shelf_close(void)
{
    int r = 0;
    pthread_mutex_lock(&shelf.lock);
    while (shelf.served)
        r = served_close(shelf.served) < 0 ? -1 : r;
    views_clear(&shelf.views);
    shelf.has_views = false;
    pthread_mutex_unlock(&shelf.lock);
    return r;
}
