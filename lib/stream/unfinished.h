/* SPDX-License-Identifier: MIT */
/*
 * What is half done on a server when a signal ends the program: an image under a temporary name, an
 * upload. A handler of signals cannot speak to a server, so a thread waits to do it then.
 */
#ifndef STREAM_UNFINISHED_H
#define STREAM_UNFINISHED_H

#include "base/error.h"

struct unfinished {
    /* Takes back what was done, on that thread, while all others may be at work, and the one that
     * got the signal stands still, whatever it holds. The process ends after that. */
    void (*undo)(struct unfinished *u);
    struct unfinished *next, **link; /* of unfinished_add() */
};

/* From now on it is undone if need be. */
int unfinished_add(struct unfinished *u, struct platter_error *err);
/* Not any more; waits for an undo that is under way. One that was never added: nothing. */
void unfinished_remove(struct unfinished *u);

/* Undoes all and waits for that, as long as is bearable; async-signal-safe. Part of
 * stream_file_remove_temporaries(). */
void unfinished_undo_all(void);

#endif
