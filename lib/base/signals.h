/* SPDX-License-Identifier: MIT */
/*
 * Moments in which files change their names one after the other. A signal that ends the program
 * then would leave some with the old names and some with the new, so it waits, as far as this
 * thread is whom it comes to.
 */
#ifndef BASE_SIGNALS_H
#define BASE_SIGNALS_H

#include <signal.h>

static inline void hold_signals(sigset_t *ret_before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, ret_before);
}

static inline void release_signals(const sigset_t *before)
{
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

#endif
