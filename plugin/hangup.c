/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "hangup.h"

enum {
    MAX_PLACES = 16,
    ROUND = 20,   /* milliseconds between two looks: who came in just now is found the next time */
    PATIENCE = 5, /* rounds: nbdkit itself leaves who is at work, a few requests later */
    ALL_OF_IT = 250 /* rounds: whoever has taken no answers by then will not */
};

struct place {
    struct sockaddr_storage address;
    socklen_t length;
};

static struct {
    int fd;
    pthread_t thread;
    bool runs;
    atomic_bool ended;
    struct place places[MAX_PLACES]; /* that nbdkit listens at */
    unsigned n_places;
} watch;

static bool place_of(int fd, struct place *ret)
{
    *ret = (struct place){.length = sizeof ret->address};
    return getsockname(fd, (struct sockaddr *)&ret->address, &ret->length) == 0;
}

/* Of an address of the network the port is enough: one may listen at all addresses. */
static bool is_same(const struct place *a, const struct place *b)
{
    if (a->address.ss_family != b->address.ss_family)
        return false;
    if (a->address.ss_family == AF_INET)
        return ((const struct sockaddr_in *)&a->address)->sin_port ==
               ((const struct sockaddr_in *)&b->address)->sin_port;
    if (a->address.ss_family == AF_INET6)
        return ((const struct sockaddr_in6 *)&a->address)->sin6_port ==
               ((const struct sockaddr_in6 *)&b->address)->sin6_port;
    return a->length == b->length && memcmp(&a->address, &b->address, a->length) == 0;
}

static void note_listener(int fd)
{
    int listens = 0;
    socklen_t length = sizeof listens;
    if (watch.n_places < MAX_PLACES &&
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens &&
        place_of(fd, &watch.places[watch.n_places]))
        watch.n_places++;
}

static bool is_client(int fd)
{
    struct place here;
    if (place_of(fd, &here))
        for (unsigned i = 0; i < watch.n_places; i++)
            if (is_same(&here, &watch.places[i]))
                return true;
    return false; /* a socket of the disk itself, as likely as not */
}

/* No requests any more; answers still go out, for nbdkit 1.32 ends where it cannot send them. */
static void hang_up(int fd)
{
    if (is_client(fd))
        shutdown(fd, SHUT_RD);
}

static void cut_off(int fd)
{
    if (is_client(fd))
        shutdown(fd, SHUT_RDWR);
}

static int each_socket(void (*work)(int fd))
{
    DIR *list = opendir("/proc/self/fd");
    if (!list)
        return -1;
    for (struct dirent *entry; (entry = readdir(list));)
        if (entry->d_name[0] != '.')
            work(atoi(entry->d_name));
    closedir(list);
    return 0;
}

static void *wait_for_end(void *unused)
{
    char byte;
    ssize_t n;
    (void)unused;
    do
        n = read(watch.fd, &byte, 1);
    while (n > 0 || (n < 0 && errno == EINTR));
    if (n < 0)
        return NULL;
    if (!watch.ended)
        nbdkit_shutdown();
    for (unsigned round = 0; !watch.ended; round++) {
        if (round >= PATIENCE)
            each_socket(round < ALL_OF_IT ? hang_up : cut_off);
        nanosleep(&(struct timespec){.tv_nsec = ROUND * 1000000L}, NULL);
    }
    return NULL;
}

int hangup_watch(int fd)
{
    sigset_t all, before;
    watch.fd = fd;
    if (each_socket(note_listener) < 0) {
        nbdkit_error("/proc/self/fd: %s", strerror(errno));
        return -1;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are nbdkit's */
    int code = pthread_create(&watch.thread, NULL, wait_for_end, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code)
        nbdkit_error("no thread: %s", strerror(code));
    watch.runs = code == 0;
    return code ? -1 : 0;
}

void hangup_end(void)
{
    if (!watch.runs)
        return;
    watch.ended = true;
    shutdown(watch.fd, SHUT_RD);
    pthread_join(watch.thread, NULL);
    watch.runs = false;
}
