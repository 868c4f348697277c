/* SPDX-License-Identifier: MIT */
/*
 * The copy goes by the name of the target, as that of another process would, so that there is one
 * way and one copy: whoever asks second is told that it runs.
 */
#include "migration.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

static struct {
    pthread_t thread;
    bool started;
    atomic_bool ending;
    const struct shelf_options *options;
} copy;

static int copy_tick(void *opaque, const struct platter_progress *now)
{
    (void)opaque;
    (void)now;
    return atomic_load(&copy.ending);
}

static void *copy_main(void *arg)
{
    struct platter_migrate_options options = copy.options->migrate;
    struct platter_error err = {0};
    (void)arg;
    options.progress = copy_tick;
    int r = platter_migrate_execute(copy.options->file, &options, &err);
    if (r < 0 && !atomic_load(&copy.ending))
        nbdkit_error("the copy has ended: %s", err.message);
    else
        nbdkit_debug("the copy has ended: %s", r < 0 ? err.message : "all of it is there");
    return NULL;
}

int migration_copy_start(const struct shelf_options *options)
{
    sigset_t all, before;
    sigfillset(&all);
    copy.options = options;
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&copy.thread, NULL, copy_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code)
        nbdkit_error("no thread for the copy: %s", strerror(code));
    copy.started = code == 0;
    return code ? -1 : 0;
}

void migration_copy_end(void)
{
    if (!copy.started)
        return;
    atomic_store(&copy.ending, true);
    pthread_join(copy.thread, NULL);
    copy.started = false;
}
