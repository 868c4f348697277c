/* SPDX-License-Identifier: MIT */
/*
 * A program that was started once and runs many times: it is linked with the objects of another and
 * with -Wl,--wrap=main. What a start costs under sanitizers, which is most of what a short run
 * does, is paid once; each run is a fork of it, ends as it would alone, and is looked through for
 * leaks.
 *
 *     PROGRAM [ARGUMENT...]            runs as the other would
 *     PROGRAM --served-by DESCRIPTOR   takes requests from this socket until its end
 *
 * A request, one message (SOCK_SEQPACKET): strings that end with a zero byte, of which the first is
 * the number of arguments, the second the folder to run in; then the arguments, the program's name
 * first, and the environment. With it come three descriptors, which are its standard ones. The
 * answer, when the run has ended: one line with the status of wait(), the microseconds of processor
 * time, and the KiB of memory it took at most.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_REQUEST (1 << 17)
#define MAX_STRINGS 4096

int __real_main(int argc, char **argv); /* NOLINT: the linker's names */
int __wrap_main(int argc, char **argv);
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

extern char **environ;

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "forked: %s: %s\n", what, strerror(errno));
    _exit(120);
}

/* The request's length, 0 at the end. */
static size_t take_request(int from, char *request, int ret_standard[static 3])
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(3 * sizeof(int))];
    } control;
    struct iovec into = {request, MAX_REQUEST};
    struct msghdr message = {.msg_iov = &into,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    ssize_t len = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
    if (len == 0)
        return 0;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (len < 0 || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || !header ||
        header->cmsg_len != CMSG_LEN(3 * sizeof(int)) || request[len - 1] != '\0')
        give_up("a request is not right");
    memcpy(ret_standard, CMSG_DATA(header), 3 * sizeof(int));
    return (size_t)len;
}

/* In the child: becomes the program. */
static _Noreturn void run(const char *request, size_t len, const int standard[static 3])
{
    static char *strings[MAX_STRINGS];
    static char *argv[MAX_STRINGS];
    int count = 0;
    for (const char *s = request; s < request + len && count < MAX_STRINGS - 1; s += strlen(s) + 1)
        strings[count++] = (char *)s;
    int argc = atoi(strings[0]);
    if (count == MAX_STRINGS - 1 || count < 3 || argc < 1 || argc > count - 2)
        give_up("a request is not right");
    memcpy(argv, strings + 2, (size_t)argc * sizeof(*argv));
    environ = strings + 2 + argc;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int fd = 0; fd < 3; fd++)
        if (dup2(standard[fd], fd) < 0)
            give_up("a descriptor");
    if (chdir(strings[1]) < 0)
        give_up(strings[1]);
    exit(__real_main(argc, argv));
}

static void answer(int to, pid_t child)
{
    int status;
    struct rusage used;
    while (wait4(child, &status, 0, &used) < 0)
        if (errno != EINTR)
            give_up("wait");
    char line[100];
    int len = snprintf(line, sizeof(line), "%d %ld %ld\n", status,
                       1000000 * (used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                           used.ru_utime.tv_usec + used.ru_stime.tv_usec,
                       used.ru_maxrss);
    if (send(to, line, (size_t)len, MSG_NOSIGNAL) < 0)
        give_up("an answer");
}

static _Noreturn void serve(int socket)
{
    static char request[MAX_REQUEST];
    int standard[3];
    size_t len;
    /* What this looks through is in memory then, for all that are forked. */
    if (__lsan_do_recoverable_leak_check)
        __lsan_do_recoverable_leak_check();
    while ((len = take_request(socket, request, standard)) > 0) {
        pid_t child = fork();
        if (child < 0)
            give_up("fork");
        if (child == 0) {
            close(socket);
            run(request, len, standard);
        }
        for (int fd = 0; fd < 3; fd++)
            close(standard[fd]);
        answer(socket, child);
    }
    _exit(0);
}

int __wrap_main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--served-by") == 0)
        serve(atoi(argv[2]));
    return __real_main(argc, argv);
}
