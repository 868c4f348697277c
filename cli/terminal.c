/* SPDX-License-Identifier: MIT */
/*
 * Typing what nobody is to see. Whatever ends or stops the program meanwhile finds a terminal that
 * shows again what is typed.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "cli.h"

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
enum { SIGNALS = sizeof signals / sizeof *signals };

static volatile sig_atomic_t came; /* the signal that ended the typing, or 0 */

static void note(int signal_number)
{
    came = signal_number;
}

/* What was there before. */
struct silence {
    struct termios terminal;
    struct sigaction actions[SIGNALS];
    sigset_t mask;
};

static void silence_end(const struct silence *s)
{
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &s->terminal);
    sigprocmask(SIG_SETMASK, &s->mask, NULL);
    for (int i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &s->actions[i], NULL);
}

static int silence_begin(struct silence *s)
{
    const struct sigaction noting = {.sa_handler = note};
    struct termios silent;
    sigset_t all;
    if (tcgetattr(STDIN_FILENO, &s->terminal) < 0)
        return -errno;
    sigemptyset(&all);
    for (int i = 0; i < SIGNALS; i++) {
        sigaddset(&all, signals[i]);
        sigaction(signals[i], NULL, &s->actions[i]);
        if (s->actions[i].sa_handler != SIG_IGN)
            sigaction(signals[i], &noting, NULL);
    }
    sigprocmask(SIG_BLOCK, &all, &s->mask); /* but for ppoll() */
    silent = s->terminal;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    int r = tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent) < 0 ? -errno : 0;
    if (r < 0)
        silence_end(s);
    return r;
}

/* 1, 0 at the end of the input, or negative; signals come in here only. */
static int read_byte(const struct silence *s, uint8_t *ret)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    while (ppoll(&input, 1, NULL, &s->mask) < 0)
        if (errno != EINTR || came)
            return -errno;
    ssize_t n = read(STDIN_FILENO, ret, 1);
    return n < 0 ? -errno : (int)n;
}

static int read_line(const char *prompt, const char *image, uint8_t *buffer, size_t *ret_length)
{
    struct silence s;
    size_t n = 0;
    int r = silence_begin(&s);
    if (r < 0)
        return r;
    fprintf(stderr, "%s ", prompt);
    put_text(stderr, image);
    fputs(": ", stderr);
    while (n < PLATTER_MAX_SECRET && (r = read_byte(&s, buffer + n)) > 0 && buffer[n] != '\n')
        n++;
    silence_end(&s);
    fputc('\n', stderr);
    *ret_length = n;
    return r < 0 ? r : n > 0 ? 0 : -ECANCELED;
}

int terminal_ask(const char *prompt, const char *image, uint8_t *buffer, size_t *ret_length)
{
    int r;
    do {
        came = 0;
        r = read_line(prompt, image, buffer, ret_length);
        if (came)
            raise(came); /* now it does what it does elsewhere */
    } while (came == SIGTSTP);
    return came ? -ECANCELED : r;
}
