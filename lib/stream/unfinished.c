/* SPDX-License-Identifier: MIT */
/* Taking back what is half done on servers: see unfinished.h. */
#include "stream/unfinished.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/signals.h"

enum { PATIENCE_MS = 10 * 1000 }; /* a server may be what hangs */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct unfinished *first;
static int ask[2] = {-1, -1}, done[2] = {-1, -1}; /* pipes: to the thread, and back */
static atomic_bool waits;                         /* there is a thread */

static void *undo_when_asked(void *arg)
{
    char byte;
    (void)arg;
    while (read(ask[0], &byte, 1) < 0 && errno == EINTR)
        ;
    pthread_mutex_lock(&lock); /* for ever: the process ends */
    for (struct unfinished *u = first; u; u = u->next)
        u->undo(u);
    close(done[1]);
    return NULL;
}

/* Under the lock. */
static int start_thread(struct platter_error *err)
{
    pthread_t thread;
    if (atomic_load(&waits))
        return 0;
    if ((ask[0] < 0 && pipe2(ask, O_CLOEXEC) < 0) || (done[0] < 0 && pipe2(done, O_CLOEXEC) < 0))
        return fail_errno(err, errno, "cannot make a pipe");
    int code = thread_start(&thread, undo_when_asked, NULL);
    if (code)
        return fail_errno(err, code, "cannot start a thread");
    pthread_detach(thread);
    atomic_store(&waits, true);
    return 0;
}

int unfinished_add(struct unfinished *u, struct platter_error *err)
{
    WITH_LOCK(&lock);
    int r = start_thread(err);
    if (r < 0)
        return r;
    u->next = first;
    u->link = &first;
    if (first)
        first->link = &u->next;
    first = u;
    return 0;
}

void unfinished_remove(struct unfinished *u)
{
    if (!u->link)
        return;
    WITH_LOCK(&lock);
    *u->link = u->next;
    if (u->next)
        u->next->link = u->link;
    u->link = NULL;
}

void unfinished_undo_all(void)
{
    int code = errno;
    char byte = 0;
    struct pollfd over = {.fd = done[0]};
    if (atomic_load(&waits) && write(ask[1], &byte, 1) == 1)
        poll(&over, 1, PATIENCE_MS); /* until it is closed */
    errno = code;
}
