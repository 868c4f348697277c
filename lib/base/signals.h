/* SPDX-License-Identifier: MIT */
/*
 * Moments in which files change their names one after the other. A signal that ends the program
 * then would leave some with the old names and some with the new, so it waits, as far as this
 * thread is whom it comes to.
 */
#ifndef BASE_SIGNALS_H
#define BASE_SIGNALS_H

#include <pthread.h>
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

/* As pthread_create(): a thread that no signal comes to but those of its own mistakes. They are for
 * the threads of who uses the library; and a pipe that nobody reads is an error there, whatever
 * SIGPIPE is set to. */
static inline int thread_start(pthread_t *thread, void *(*main)(void *), void *arg)
{
    static const int mistakes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t held, before;
    sigfillset(&held);
    for (unsigned i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
        sigdelset(&held, mistakes[i]);
    pthread_sigmask(SIG_BLOCK, &held, &before);
    int code = pthread_create(thread, NULL, main, arg);
    release_signals(&before);
    return code;
}

#endif
