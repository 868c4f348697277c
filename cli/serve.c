/* SPDX-License-Identifier: MIT */
/*
 * platter serve: a disk over NBD, by nbdkit and the plugin.
 *
 * nbdkit is a child in the foreground. What it says about the disk comes by a socket (status-fd of
 * the plugin): that it is open, and in the end that all is durable. When we close it the plugin
 * hangs up on its clients, and nbdkit ends; so it does when we end, whatever ends us.
 *
 * The command beside it is a process group, for what ends us ends all that the command started.
 * Where we have the terminal the command gets it, with its keys, and we do for it what shells do
 * for a job.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "cli.h"

#ifndef PLUGIN_FILE
#define PLUGIN_FILE NULL /* a build without the plugin */
#endif

enum {
    MAX_WORDS = 2 * MAX_ALLOW + MAX_KEYS + 64,
    BY_SIGNAL = 128 /* added to it: the exit code of what a signal ended, as shells have it */
};

/* A server and what watches it. */
struct serving {
    const struct args *args;
    const char *image, *view;
    char *split;                /* owns `image` where it was given together with its view */
    char *words[MAX_WORDS + 1]; /* the command of nbdkit, allocated */
    unsigned n_words;
    bool too_many; /* words, or no memory for one */
    char folder[64], socket[108];
    bool bound; /* the socket is our server's */
    char uri[512];
    int status, signals; /* what to read from */
    int terminal;        /* that we were started at, if a command has to share it with us, or -1 */
    int keys[MAX_KEYS];  /* files in memory, which nbdkit inherits */
    unsigned n_keys;
    pid_t nbdkit, command;
    char said[256]; /* lines of the plugin */
    size_t n_said;
    int code;             /* of the command, once it has ended */
    bool failed;          /* nbdkit has, or a command could not be started */
    bool may_be_told;     /* a command that we told to end has ended well */
    bool hurried;         /* a signal came */
    bool stopped, closed; /* nbdkit was told to end; all is durable */
};

/* ---- the command of nbdkit ------------------------------------------------------------------- */

static void __attribute__((format(printf, 2, 3))) word(struct serving *s, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    if (s->n_words == MAX_WORDS || vasprintf(&s->words[s->n_words], format, list) < 0)
        s->too_many = true;
    else
        s->n_words++;
    va_end(list);
}

static void parameter(struct serving *s, const char *key, const char *value)
{
    if (value)
        word(s, "%s=%s", key, value);
}

static bool is_tcp(const struct args *args)
{
    return args->tcp || args->port || args->bind;
}

/* Who brings what TLS needs does not want to be served without. */
static bool is_tls(const struct args *args)
{
    return args->tls || args->tls_certificates || args->tls_psk || args->tls_verify_peer;
}

static void say_place(struct serving *s)
{
    const struct args *args = s->args;
    if (is_tcp(args)) {
        word(s, "--port=%s", args->port ? args->port : "10809");
        word(s, "--ipaddr=%s", args->bind ? args->bind : "localhost");
    } else {
        word(s, "--unix=%s", s->socket);
    }
    if (is_tls(args))
        word(s, "--tls=require");
    if (args->tls_certificates)
        word(s, "--tls-certificates=%s", args->tls_certificates);
    if (args->tls_psk)
        word(s, "--tls-psk=%s", args->tls_psk);
    if (args->tls_verify_peer)
        word(s, "--tls-verify-peer");
}

static void say_migration(struct serving *s)
{
    const struct args *args = s->args;
    parameter(s, "migration", "true");
    parameter(s, "state", args->state);
    parameter(s, "target-place", args->target_place);
    parameter(s, "source", args->source);
    parameter(s, "source-place", args->source_place);
    parameter(s, "copy-on-read", args->no_copy_on_read ? "false" : NULL);
    parameter(s, "execute", args->execute ? "true" : NULL);
    if (args->rate)
        word(s, "rate=%llu", (unsigned long long)args->rate);
}

static void say_image(struct serving *s)
{
    const struct args *args = s->args;
    parameter(s, "file", s->image);
    parameter(s, "format", args->format);
    parameter(s, "view", s->view);
    parameter(s, "place", args->place);
    parameter(s, "backing-format", args->unnamed_format);
    parameter(s, "spool", args->spool);
    for (unsigned i = 0; i < args->n_allow; i++)
        parameter(s, "allow", args->allow[i]);
    parameter(s, "read-only", args->read_only ? "true" : NULL);
    parameter(s, "force-share", args->force_share ? "true" : NULL);
    parameter(s, "probe-backing", args->probe_backing ? "true" : NULL);
    parameter(s, "ignore-cid", args->ignore_cid ? "true" : NULL);
    parameter(s, "salvage", args->salvage ? "true" : NULL);
    if (args->migration)
        say_migration(s);
    if (args->memory)
        word(s, "memory=%llu", (unsigned long long)args->memory);
    for (unsigned i = 0; i < s->n_keys; i++)
        word(s, "key-file=/proc/self/fd/%d", s->keys[i]);
}

static int say_command(struct serving *s, int status)
{
    const char *plugin = getenv("PLATTER_NBDKIT_PLUGIN");
    if (!plugin)
        plugin = PLUGIN_FILE;
    if (!plugin) {
        say("this build has no plugin of nbdkit (-Dnbdkit=enabled makes it)");
        return EXIT_FAILED;
    }
    word(s, "nbdkit");
    word(s, "--foreground");
    word(s, "--exit-with-parent");
    if (s->args->read_only)
        word(s, "--readonly");
    say_place(s);
    word(s, "%s", plugin);
    say_image(s);
    word(s, "status-fd=%d", status);
    if (s->too_many)
        say("too many arguments for one server");
    return s->too_many ? EXIT_FAILED : EXIT_FINE;
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* The keys that were given, each as a file in memory, which only who can look into our processes
 * can read. */
static int keep_keys(struct serving *s)
{
    const struct args *args = s->args;
    uint8_t *buffer = malloc(PLATTER_MAX_SECRET);
    int r = buffer ? 0 : -1;
    bool any = args->n_key_files || args->key_env || args->n_objects;
    while (r == 0 && any && s->n_keys < MAX_KEYS) {
        size_t length = 0;
        struct platter_secret q = {sizeof q, PLATTER_SECRET_OPEN, s->image, NULL, s->n_keys};
        int told = secrets_tell((void *)(uintptr_t)args, &q, buffer, &length);
        if (told == -ENOKEY)
            break;
        int fd = told < 0 ? -1 : memfd_create("key", 0);
        if (fd >= 0)
            s->keys[s->n_keys++] = fd;
        if (told == 0 && (fd < 0 || write(fd, buffer, length) != (ssize_t)length))
            say("a key cannot be kept in memory: %s", strerror(errno));
        else if (told == 0)
            continue;
        r = -1;
    }
    if (buffer)
        explicit_bzero(buffer, PLATTER_MAX_SECRET);
    free(buffer);
    return r;
}

static void forget_keys(struct serving *s)
{
    while (s->n_keys > 0)
        close(s->keys[--s->n_keys]);
}

/* ---- where it is ----------------------------------------------------------------------------- */

/* A socket that a server left which was killed is in nobody's way. */
static void clear_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat st;
    int fd = lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) ? socket(AF_UNIX, SOCK_STREAM, 0) : -1;
    if (fd < 0)
        return;
    strcpy(address.sun_path, path);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0 && errno == ECONNREFUSED)
        unlink(path);
    close(fd);
}

static int make_socket_name(struct serving *s)
{
    const struct args *args = s->args;
    const char *base = getenv("XDG_RUNTIME_DIR");
    if (is_tcp(args))
        return EXIT_FINE;
    if (args->socket) {
        char *full = args->socket[0] == '/' ? strdup(args->socket) : NULL, here[4096];
        if (!full && getcwd(here, sizeof here) && asprintf(&full, "%s/%s", here, args->socket) < 0)
            full = NULL;
        bool fits = full && strlen(full) < sizeof s->socket;
        if (fits)
            clear_socket(strcpy(s->socket, full));
        else
            say("%s: a socket's path has at most %zu bytes", args->socket, sizeof s->socket - 1);
        free(full);
        return fits ? EXIT_FINE : EXIT_FAILED;
    }
    if (!base || strlen(base) > 32)
        base = "/tmp";
    snprintf(s->folder, sizeof s->folder, "%s/platter-serve.XXXXXX", base);
    if (!mkdtemp(s->folder)) {
        say("%s: cannot make a folder for the socket: %s", s->folder, strerror(errno));
        s->folder[0] = '\0';
        return EXIT_FAILED;
    }
    snprintf(s->socket, sizeof s->socket, "%s/nbd.sock", s->folder);
    return EXIT_FINE;
}

/* Bytes that a URI has as they are; of a path, slashes as well. */
static void uri_add(struct serving *s, const char *text, const char *also)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    size_t n = strlen(s->uri);
    for (; *text && n + 4 < sizeof s->uri; text++) {
        if (strchr(plain, *text) || strchr(also, *text))
            s->uri[n++] = *text;
        else
            n += (size_t)snprintf(s->uri + n, 4, "%%%02X", (unsigned char)*text);
        s->uri[n] = '\0';
    }
}

static void make_uri(struct serving *s)
{
    const struct args *args = s->args;
    const char *scheme = is_tls(args) ? "nbds" : "nbd";
    if (!is_tcp(args)) {
        snprintf(s->uri, sizeof s->uri, "%s+unix:///?socket=", scheme);
        uri_add(s, s->socket, "/");
        return;
    }
    const char *host = args->bind ? args->bind : "localhost";
    snprintf(s->uri, sizeof s->uri, "%s://", scheme);
    uri_add(s, strchr(host, ':') && host[0] != '[' ? "[" : "", "[");
    uri_add(s, host, "[:]");
    uri_add(s, strchr(host, ':') && host[0] != '[' ? "]" : "", "]");
    if (args->port && strcmp(args->port, "10809") != 0)
        snprintf(s->uri + strlen(s->uri), sizeof s->uri - strlen(s->uri), ":%s", args->port);
}

/* ---- processes ------------------------------------------------------------------------------- */

static int start_nbdkit(struct serving *s)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0) {
        say("no socket: %s", strerror(errno));
        return EXIT_FAILED;
    }
    s->status = ends[0];
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    int code = say_command(s, ends[1]);
    if (code == EXIT_FINE)
        code = child_start(s->words, -1, &s->nbdkit);
    close(ends[1]);
    forget_keys(s); /* what else is started has no business with them */
    return code;
}

/* The terminal goes from one group to the other, if that is who has it. */
static void hand_terminal(const struct serving *s, pid_t from, pid_t to)
{
    if (s->terminal >= 0 && tcgetpgrp(s->terminal) == from)
        tcsetpgrp(s->terminal, to);
}

static void command_signal(const struct serving *s, int signal)
{
    if (s->command > 0)
        kill(-s->command, signal);
}

/* When we were continued. Where it has asked for the terminal before, it stands. */
static void command_go_on(const struct serving *s)
{
    if (s->command > 0)
        hand_terminal(s, getpgrp(), s->command);
    command_signal(s, SIGCONT);
}

static int start_command(struct serving *s)
{
    char *words[] = {(char[]){"sh"}, (char[]){"-c"}, (char *)(uintptr_t)s->args->exec, NULL};
    if (setenv("uri", s->uri, 1) < 0 || setenv("unixsocket", s->socket, 1) < 0) {
        say("out of memory");
        return EXIT_FAILED;
    }
    if (!s->may_be_told) /* what is to end well by a signal leaves the keys to us */
        s->terminal = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    int code = child_start(words, s->terminal, &s->command);
    if (code == EXIT_FINE && !CHILD_HAS_TERMINAL)
        command_go_on(s);
    return code;
}

static int exit_code(int how)
{
    return WIFEXITED(how) ? WEXITSTATUS(how) : BY_SIGNAL + WTERMSIG(how);
}

/* It ends when what was written is durable; who asks twice does not want to wait for that. */
static void stop_nbdkit(struct serving *s)
{
    if (s->nbdkit > 0)
        kill(s->nbdkit, s->stopped ? SIGKILL : SIGTERM);
    if (s->status >= 0)
        shutdown(s->status, SHUT_WR);
    s->stopped = true;
}

/* Takes notice of what ended. */
static void reap(struct serving *s)
{
    int how;
    for (pid_t pid; (pid = waitpid(-1, &how, WNOHANG | WUNTRACED)) > 0;) {
        if (WIFSTOPPED(how) && pid == s->command) {
            hand_terminal(s, pid, getpgrp());
            kill(0, SIGTSTP); /* who waits for us sees a job that has stopped */
        } else if (WIFSTOPPED(how)) {
            continue;
        } else if (pid == s->command) {
            hand_terminal(s, pid, getpgrp());
            s->command = 0;
            s->code = s->hurried && s->may_be_told ? EXIT_FINE : exit_code(how);
            stop_nbdkit(s);
        } else if (pid == s->nbdkit) {
            s->nbdkit = 0;
            s->failed |= how != 0;
        }
    }
}

/* A signal that ends us ends the command, and then the server; a second one does so at once. */
static void take_signal(struct serving *s)
{
    struct signalfd_siginfo info;
    if (read(s->signals, &info, sizeof info) != sizeof info)
        return;
    if (info.ssi_signo == SIGCHLD) {
        reap(s);
        return;
    }
    if (info.ssi_signo == SIGCONT) {
        command_go_on(s);
        return;
    }
    command_signal(s, s->hurried ? SIGKILL : SIGTERM);
    command_signal(s, SIGCONT); /* what stands still takes no notice */
    if (s->command <= 0)
        stop_nbdkit(s);
    s->hurried = true;
}

/* ---- what the plugin says -------------------------------------------------------------------- */

static bool has_said(const struct serving *s, const char *line)
{
    return strstr(s->said, line) != NULL;
}

static void take_status(struct serving *s)
{
    size_t room = sizeof s->said - 1 - s->n_said;
    ssize_t n = room ? read(s->status, s->said + s->n_said, room) : 0;
    if (n > 0) {
        s->n_said += (size_t)n;
        s->said[s->n_said] = '\0';
        return;
    }
    close(s->status);
    s->status = -1;
    s->closed = has_said(s, "closed\n");
}

/* Waits for one thing to happen. */
static void wait_for_news(struct serving *s)
{
    struct pollfd fds[] = {{.fd = s->status, .events = POLLIN},
                           {.fd = s->signals, .events = POLLIN}};
    if (poll(fds, 2, -1) < 0)
        return;
    if (fds[0].revents)
        take_status(s);
    if (fds[1].revents)
        take_signal(s);
}

static void announce(const struct serving *s, bool writable)
{
    if (s->args->exec || s->args->quiet)
        return;
    if (wants_json(s->args))
        print_json(json_pack("{s:s, s:b, s:I}", "uri", s->uri, "read-only", !writable, "pid",
                             (json_int_t)getpid()));
    else
        printf("%s\n", s->uri);
    fflush(stdout);
}

/* From the start of nbdkit to its end. An exit code. */
static int serve(struct serving *s)
{
    bool ready = false, writable = false;
    while (s->nbdkit > 0 || s->status >= 0 || s->command > 0) {
        wait_for_news(s);
        if (ready || !(has_said(s, "writable\n") || has_said(s, "readable\n")))
            continue;
        ready = s->bound = true;
        writable = has_said(s, "writable\n");
        announce(s, writable);
        if (s->args->exec && start_command(s) != EXIT_FINE) {
            s->failed = true;
            stop_nbdkit(s);
        }
    }
    if (ready && writable && !s->closed) {
        say("%s: the server did not end well: what was written last may be lost",
            name_title(s->image));
        return EXIT_FAILED;
    }
    return s->code == EXIT_FINE && (s->failed || !ready) ? EXIT_FAILED : s->code;
}

static int watch_signals(struct serving *s)
{
    sigset_t set;
    sigemptyset(&set);
    for (const int *n = (const int[]){SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGCONT, 0}; *n; n++)
        sigaddset(&set, *n);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s->signals = signalfd(-1, &set, SFD_CLOEXEC);
    sigaddset(&set, SIGTTOU); /* we take the terminal back when it is another's */
    sigprocmask(SIG_BLOCK, &set, NULL);
    if (s->signals < 0)
        say("no signals: %s", strerror(errno));
    return s->signals < 0 ? EXIT_FAILED : EXIT_FINE;
}

static void serving_end(struct serving *s)
{
    free(s->split);
    for (unsigned i = 0; i < s->n_words; i++)
        free(s->words[i]);
    forget_keys(s);
    if (s->signals >= 0)
        close(s->signals);
    if (s->status >= 0)
        close(s->status);
    if (s->terminal >= 0)
        close(s->terminal);
    if (s->bound && s->socket[0])
        unlink(s->socket);
    if (s->folder[0]) {
        unlink(s->socket);
        rmdir(s->folder);
    }
}

int serve_image(const struct args *args, bool may_be_told)
{
    struct serving s = {.args = args,
                        .may_be_told = may_be_told,
                        .view = args->view,
                        .status = -1,
                        .signals = -1,
                        .terminal = -1};
    s.split = s.view || args->migration ? NULL : image_of_view(args->operands[0], &s.view);
    s.image = s.split ? s.split : args->operands[0];
    int code = keep_keys(&s) < 0 ? EXIT_FAILED : make_socket_name(&s);
    if (code == EXIT_FINE)
        make_uri(&s);
    if (code == EXIT_FINE)
        code = watch_signals(&s);
    if (code == EXIT_FINE)
        code = start_nbdkit(&s);
    if (code == EXIT_FINE)
        code = serve(&s);
    serving_end(&s);
    return code;
}

bool serve_place_check(const struct verb *verb, const struct args *args)
{
    bool fits = !args->socket || !is_tcp(args);
    if (!fits)
        usage_error(verb, "--socket is a place of its own: without --tcp, -p and -b");
    return fits;
}

static int serve_run(const struct args *args)
{
    if (args->n_operands != 1)
        return usage_error(&verb_serve, "Expecting one image");
    if (!serve_place_check(&verb_serve, args))
        return EXIT_FAILED;
    return output_end(serve_image(args, false));
}

static const struct opt serve_opts[] = {OPT_INPUT_FORMAT,
                                        OPT_FLAG_AT('r', "read-only", read_only, "take no writes"),
                                        OPT_LISTEN,
                                        OPT_VIEW,
                                        OPT_SHARE,
                                        OPT_SALVAGE,
                                        OPT_ALLOWED,
                                        {0, "memory", "SIZE", OPT_SIZE,
                                         offsetof(struct args, memory), 0,
                                         "most memory for tables, 64M if not given"},
                                        OPT_OUTPUT,
                                        OPT_QUIET,
                                        OPT_IMAGE_OPTS,
                                        OPT_END};

const struct verb verb_serve = {
    .name = "serve",
    .summary = "serve a disk over NBD, for machines and programs to attach to",
    .operands = "IMAGE",
    .opts = serve_opts,
    .examples = "platter serve vm.vmdk\n"
                "platter serve --exec 'nbdcopy \"$uri\" copy.raw' http://server/vm.qcow2\n"
                "platter serve --read-only --tcp -p 10810 backup.vma@drive-scsi0\n",
    .run = serve_run};
