/* SPDX-License-Identifier: MIT */
/*
 * Connections to clusters. One costs dozens of threads and a round of the monitors, so all streams
 * that are told the same share one, which ends with the last of them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/signals.h"
#include "stream/rbd.h"

enum { HURRY_S = 5 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct rbd_cluster *clusters;

/* What is told before the user's own words: no other's threads print on our terminal, bytes are
 * cached nowhere else than in our own buffers, and what is read is not written to for that. */
static const char *const defaults[][2] = {{"log_to_stderr", "false"},
                                          {"err_to_stderr", "false"},
                                          {"rbd_cache", "false"},
                                          {"rbd_atime_update_interval", "0"}};

/* ---- being told ------------------------------------------------------------------------------ */

static int set(struct rbd_cluster *c, const char *option, const char *value,
               struct platter_error *err)
{
    int r = value ? librados.conf_set(c->handle, option, value) : 0;
    return r < 0 ? fail(err, -r, "Ceph does not take the option %s%s%s: %s", option,
                        strcmp(option, "key") ? " = " : "", strcmp(option, "key") ? value : "",
                        strerror(-r))
                 : 0;
}

/* "name=value,name=value", with the commas of a value doubled. */
static int set_each(struct rbd_cluster *c, const char *text, struct platter_error *err)
{
    auto_free char *copy = string_copy(text ? text : "");
    int r = copy ? 0 : fail_memory(err, "options");
    for (char *from = copy, *next; r == 0 && *from; from = next) {
        char *to = from, *value;
        for (next = from; *next && (*next != ',' || next[1] == ','); *to++ = *next++)
            next += *next == ',';
        next += *next == ',';
        *to = '\0';
        value = strchr(from, '=');
        if (!value || value == from)
            return fail(err, EINVAL, "config: NAME=VALUE is expected, not \"%s\"", from);
        *value++ = '\0';
        r = set(c, from, value, err);
    }
    return r;
}

static int set_key(struct rbd_cluster *c, const char *written, struct platter_error *err)
{
    auto_free char *key = NULL;
    int r = written ? place_secret(written, "key", &key, err) : 0;
    if (r < 0 || !key)
        return r;
    r = set(c, "key", key, err);
    explicit_bzero(key, strlen(key));
    return r;
}

static int read_conf(struct rbd_cluster *c, const struct option_values *keys,
                     struct platter_error *err)
{
    const char *conf = options_string(keys, "conf");
    int r = librados.conf_read_file(c->handle, conf);
    if (r == -ENOENT && !conf) /* the monitors may be told in another way */
        return 0;
    return r < 0 ? fail(err, -r, "Ceph's configuration file %s cannot be read: %s",
                        conf ? conf : "(that of CEPH_CONF, or /etc/ceph/ceph.conf)", strerror(-r))
                 : 0;
}

void rbd_hurry(struct rbd_cluster *c, bool hurry)
{
    char text[24];
    if (atomic_exchange(&c->hurries, hurry) == hurry)
        return;
    snprintf(text, sizeof text, "%" PRIu64, hurry ? HURRY_S : c->io_timeout);
    librados.conf_set(c->handle, "rados_osd_op_timeout", text);
}

static int set_seconds(struct rbd_cluster *c, const char *option, uint64_t seconds,
                       struct platter_error *err)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, seconds);
    return set(c, option, text, err);
}

static int configure(struct rbd_cluster *c, const struct option_values *keys,
                     struct platter_error *err)
{
    uint64_t timeout = options_number(keys, "timeout");
    c->io_timeout = options_number(keys, "io_timeout");
    int r = read_conf(c, keys, err);
    if (r == 0)
        librados.conf_parse_env(c->handle, NULL);
    for (size_t i = 0; r == 0 && i < sizeof defaults / sizeof *defaults; i++)
        r = set(c, defaults[i][0], defaults[i][1], err);
    if (r == 0)
        r = set_seconds(c, "client_mount_timeout", timeout, err);
    if (r == 0)
        r = set_seconds(c, "rados_mon_op_timeout", timeout, err);
    if (r == 0)
        r = set_seconds(c, "rados_osd_op_timeout", c->io_timeout, err);
    if (r == 0)
        r = set(c, "mon_host", options_string(keys, "mon_host"), err);
    if (r == 0)
        r = set(c, "keyring", options_string(keys, "keyring"), err);
    if (r == 0)
        r = set_key(c, options_string(keys, "key"), err);
    return r < 0 ? r : set_each(c, options_string(keys, "config"), err);
}

/* ---- connecting ------------------------------------------------------------------------------ */

static int fail_connect(int code, const char *client, const struct option_values *keys,
                        struct platter_error *err)
{
    switch (-code) {
    case ETIMEDOUT:
        return fail(err, ETIMEDOUT,
                    "no monitor of the cluster answered within %" PRIu64
                    " seconds: is it up, and is mon_host right (timeout=SECONDS waits longer)",
                    options_number(keys, "timeout"));
    case ENOENT:
        return fail(err, ENOENT,
                    "the cluster's monitors, or the key of %s, are not known: give conf=FILE, or "
                    "mon_host and keyring",
                    client);
    case EACCES:
    case EPERM:
    case EINVAL: /* a key that is none */
        return fail(err, EACCES,
                    "the cluster does not let %s in (%s): is the key in its keyring right", client,
                    strerror(-code));
    }
    return fail(err, -code, "cannot connect to the cluster as %s: %s", client, strerror(-code));
}

static char *client_of(const struct option_values *keys)
{
    const char *name = options_string(keys, "client_name"), *id = options_string(keys, "id");
    if (name)
        return strchr(name, '.') ? string_copy(name) : string_format("client.%s", name);
    return string_format("client.%s", id ? id : "admin");
}

struct connecting {
    struct rbd_cluster *c;
    const char *client;
    const struct option_values *keys;
    struct platter_error *err;
    int r;
};

static int connect_as(struct rbd_cluster *c, const char *client, const struct option_values *keys,
                      struct platter_error *err)
{
    const char *cluster = options_string(keys, "cluster_name");
    int r = librados.create2(&c->handle, cluster ? cluster : "ceph", client, 0);
    if (r < 0) {
        c->handle = NULL;
        r = fail(err, -r, "cannot be a client of Ceph called %s: %s", client, strerror(-r));
    }
    if (r == 0)
        r = configure(c, keys, err);
    if (r == 0 && (r = librados.connect(c->handle)) < 0)
        r = fail_connect(r, client, keys, err);
    if (r == 0 && librados.cluster_fsid(c->handle, c->id, sizeof c->id) < 0)
        c->id[0] = '\0';
    return r;
}

static void *connect_aside(void *arg)
{
    struct connecting *a = arg;
    a->r = connect_as(a->c, a->client, a->keys, a->err);
    return NULL;
}

void rbd_aside(void *(*call)(void *), void *arg)
{
    pthread_t thread;
    sigset_t before;
    if (thread_start(&thread, call, arg) == 0) {
        pthread_join(thread, NULL);
        return;
    }
    hold_signals(&before);
    call(arg);
    release_signals(&before);
}

/* ---- sharing --------------------------------------------------------------------------------- */

static void cluster_free(struct rbd_cluster *c)
{
    if (c->handle)
        librados.shutdown(c->handle);
    free(c->keys);
    free(c);
}

/* All that makes a difference for a connection, as text. */
static char *describe(const struct option_values *keys)
{
    static const char *const words[] = {"cluster_name", "client_name", "id",  "conf",
                                        "keyring",      "mon_host",    "key", "config"};
    char *text = string_format("%" PRIu64 " %" PRIu64, options_number(keys, "timeout"),
                               options_number(keys, "io_timeout"));
    for (size_t i = 0; text && i < sizeof words / sizeof *words; i++) {
        const char *value = options_string(keys, words[i]);
        char *more = string_format("%s\n%s%s", text, value ? "=" : "", value ? value : "");
        free(text);
        text = more;
    }
    return text;
}

static int connect_new(char *described, const struct option_values *keys, struct rbd_cluster **ret,
                       struct platter_error *err)
{
    auto_free char *client = client_of(keys);
    struct rbd_cluster *c = calloc(1, sizeof *c);
    if (!c || !client) {
        free(described);
        free(c);
        return fail_memory(err, "a connection to a cluster");
    }
    c->keys = described;
    c->users = 1;
    struct connecting a = {.c = c, .client = client, .keys = keys, .err = err};
    rbd_aside(connect_aside, &a);
    if (a.r < 0) {
        cluster_free(c);
        return a.r;
    }
    c->next = clusters;
    *ret = clusters = c;
    return 0;
}

int rbd_cluster_get(const struct option_values *keys, const char *name, struct rbd_cluster **ret,
                    struct platter_error *err)
{
    int r = rbd_load(err);
    if (r < 0)
        return r;
    char *described = describe(keys);
    if (!described)
        return fail_memory(err, "a connection to a cluster");
    WITH_LOCK(&lock);
    for (struct rbd_cluster *c = clusters; c; c = c->next)
        if (strcmp(c->keys, described) == 0) {
            free(described);
            c->users++;
            *ret = c;
            return 0;
        }
    r = connect_new(described, keys, ret, err);
    return r < 0 ? fail_in(err, r, "%s", name) : 0;
}

struct rbd_cluster *rbd_cluster_share(struct rbd_cluster *c)
{
    WITH_LOCK(&lock);
    c->users++;
    return c;
}

void rbd_cluster_put(struct rbd_cluster *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&lock);
    struct rbd_cluster **link = &clusters;
    bool last = --c->users == 0;
    while (last && *link != c)
        link = &(*link)->next;
    if (last)
        *link = c->next;
    pthread_mutex_unlock(&lock);
    if (last)
        cluster_free(c);
}
