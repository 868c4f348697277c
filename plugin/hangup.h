/* SPDX-License-Identifier: MIT */
/*
 * The end of a server that has clients. nbdkit by itself waits, when it is told to end, until the
 * last of them has left, and a machine that has the disk attached never does.
 *
 * Whoever started us holds the other end of a socket. When that is closed, or its process has
 * ended, clients are hung up on: what they have asked for by then is done, and nbdkit ends as it
 * does without them.
 */
#ifndef PLUGIN_HANGUP_H
#define PLUGIN_HANGUP_H

/* From now on. Of what is no socket nobody takes notice. 0 or -1, told by nbdkit_error(). */
int hangup_watch(int fd);
/* Never again. */
void hangup_end(void);

#endif
