/* SPDX-License-Identifier: MIT */
/* platter serve beside us, for who reads disks over NBD. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "files_guest.h"

static void __attribute__((noreturn))
serve(const struct args *args, const char *image, int out, pid_t parent)
{
    struct args own = *args;
    char *operands[] = {(char *)(uintptr_t)image, NULL};
    own.operands = operands;
    own.n_operands = 1;
    own.n_actions = 0;
    own.read_only = true;
    own.quiet = false; /* it prints where it is */
    own.output = NULL;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null >= 0)
        dup2(null, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    close(out);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    _exit(getppid() == parent ? serve_image(&own, false) : EXIT_FAILED);
}

/* The path in "nbd+unix:///?socket=...", of which bytes may be %XX. */
static bool socket_of(const char *uri, char *ret, size_t size)
{
    const char *at = strstr(uri, "?socket=");
    size_t n = 0;
    for (at = at ? at + 8 : ""; *at && *at != '\n' && n + 1 < size; at++) {
        char hex[3] = {0};
        if (*at == '%' && at[1] && at[2]) {
            memcpy(hex, at + 1, 2);
            at += 2;
        }
        ret[n++] = hex[0] ? (char)strtol(hex, NULL, 16) : *at;
    }
    ret[n] = '\0';
    return n > 0;
}

int disk_server_start(const struct args *args, const char *image, struct disk_server *ret,
                      struct platter_error *err)
{
    int ends[2];
    char line[512] = "";
    pid_t parent = getpid();
    *ret = (struct disk_server){0};
    fflush(NULL);
    if (pipe(ends) < 0 || (ret->pid = fork()) < 0)
        return files_fail(err, errno, "cannot start a server of the disk: %s", strerror(errno));
    if (ret->pid == 0) {
        close(ends[0]);
        serve(args, image, ends[1], parent);
    }
    close(ends[1]);
    FILE *said = fdopen(ends[0], "r");
    bool ready =
        said && fgets(line, sizeof line, said) && socket_of(line, ret->socket, sizeof ret->socket);
    if (said)
        fclose(said);
    if (ready)
        return 0;
    disk_server_stop(ret);
    return files_fail(err, EIO, "%s: cannot be served to libguestfs: see platter-serve(1)",
                      name_title(image));
}

void disk_server_stop(struct disk_server *s)
{
    if (s->pid <= 0)
        return;
    kill(s->pid, SIGTERM);
    while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    s->pid = 0;
}
