/* SPDX-License-Identifier: MIT */
/* Programs beside this one: see child.h. */
#include "child.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static void give_terminal(posix_spawn_file_actions_t *actions, int terminal)
{
#if __GLIBC_PREREQ(2, 35)
    if (terminal >= 0 && tcgetpgrp(terminal) == getpgrp())
        posix_spawn_file_actions_addtcsetpgrp_np(actions, terminal);
#else
    (void)actions, (void)terminal;
#endif
}

int child_start(char *const words[], int terminal, pid_t *ret)
{
    posix_spawnattr_t attr;
    posix_spawn_file_actions_t actions;
    sigset_t none, usual;
    sigemptyset(&none);
    sigfillset(&usual);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &usual);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                        POSIX_SPAWN_SETPGROUP);
    posix_spawn_file_actions_init(&actions);
    give_terminal(&actions, terminal);
    int code = posix_spawnp(ret, words[0], &actions, &attr, words, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    if (code == ENOENT && strcmp(words[0], "nbdkit") == 0)
        say("nbdkit is not installed: it is what speaks NBD (Debian: nbdkit)");
    else if (code)
        say("%s: %s", words[0], strerror(code));
    return code ? EXIT_FAILED : EXIT_FINE;
}
