/* SPDX-License-Identifier: MIT */
/* NBD exports by name: URIs, keys, and how an export is opened. See nbd.h. */
#include <ctype.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "stream/inside.h"
#include "stream/nbd.h"
#include "stream/place.h"

enum {
    DEPTH = 16,              /* requests that keep a server on this network busy */
    MOST_PAYLOAD = 32 << 20, /* what a server that says nothing takes at least */
    MOST_BLOCK = 64 << 10
};

static const char *const prefixes[] = {"nbd://", "nbds://", "nbd+unix://", "nbds+unix://", NULL};

static const struct option_def nbd_keys[] = {
    {"uri", OPTION_STRING, NULL, NULL, 0, 0,
     "the server and the export: nbd://HOST:PORT/EXPORT, nbd+unix:///EXPORT?socket=PATH, or nbds "
     "for TLS"},
    {"export", OPTION_STRING, NULL, NULL, 0, 0, "the export, where it is not in the URI"},
    {"tls_certificates", OPTION_STRING, NULL, NULL, 0, 0,
     "folder of ca-cert.pem and, if we have them, client-cert.pem and client-key.pem"},
    {"tls_psk_file", OPTION_STRING, NULL, NULL, 0, 0, "file of USER:KEY lines, instead"},
    {"tls_username", OPTION_STRING, NULL, NULL, 0, 0, "which of its users we are"},
    {"tls_verify_peer", OPTION_BOOL, "on", NULL, 0, 0,
     "whether the server must prove that it is who it says"},
    {"connections", OPTION_NUMBER, "4", NULL, 1, NBD_MOST_WIRES,
     "most connections, where the server allows several"},
    {"timeout", OPTION_NUMBER, "60", NULL, 1, 86400,
     "seconds until a server that does not move is given up; ten times that while it makes durable "
     "what was written"},
    {0},
};

/* ---- URIs ------------------------------------------------------------------------------------ */

static int hex(char c)
{
    return isdigit((unsigned char)c)    ? c - '0'
           : isxdigit((unsigned char)c) ? tolower(c) - 'a' + 10
                                        : -1;
}

/* Puts %XX right, in place. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from; to++) {
        bool escaped = from[0] == '%' && hex(from[1]) >= 0 && hex(from[2]) >= 0 &&
                       (hex(from[1]) || hex(from[2]));
        *to = escaped ? (char)((hex(from[1]) * 16 + hex(from[2])) & 0xff) : *from;
        from += escaped ? 3 : 1;
    }
    *to = '\0';
}

/* A parameter of the URI that is a key of ours: libnbd does not take names of files out of URIs. */
static int take_parameter(const char *text, size_t len, char **keys, bool *ret_taken,
                          struct platter_error *err)
{
    static const struct {
        const char *parameter, *key;
    } own[] = {{"tls-certificates=", "tls_certificates"}, {"tls-psk-file=", "tls_psk_file"},
               {"tls-verify-peer=", "tls_verify_peer"},   {"tls-username=", "tls_username"},
               {"connections=", "connections"},           {"timeout=", "timeout"}};
    *ret_taken = false;
    for (size_t i = 0; i < sizeof own / sizeof *own && !*ret_taken; i++) {
        size_t n = strlen(own[i].parameter);
        if (len < n || strncmp(text, own[i].parameter, n) != 0)
            continue;
        auto_free char *value = string_format("%.*s", (int)(len - n), text + n);
        if (!value)
            return fail_memory(err, "a URI");
        unescape(value);
        *ret_taken = true;
        return option_text(keys, own[i].key, value, err);
    }
    return 0;
}

/* Cuts user:password down to user. Nothing in NBD takes a password. */
static void drop_password(char *uri)
{
    char *host = strstr(uri, "://");
    if (!host)
        return;
    host += 3;
    char *end = host + strcspn(host, "/?#"), *at = memrchr(host, '@', (size_t)(end - host));
    char *colon = at ? memchr(host, ':', (size_t)(at - host)) : NULL;
    if (colon)
        memmove(colon, at, strlen(at) + 1);
}

static int keys_of(const char *uri, char **ret_keys, struct platter_error *err)
{
    size_t path = strcspn(uri, "?");
    auto_free char *rest = string_format("%.*s", (int)path, uri);
    bool taken;
    int r = rest ? 0 : fail_memory(err, "a URI");
    for (const char *p = uri + path; r == 0 && *p;) {
        size_t len = strcspn(++p, "&");
        r = take_parameter(p, len, ret_keys, &taken, err);
        if (r == 0 && !taken && len) {
            char *more =
                string_format("%s%c%.*s", rest, strchr(rest, '?') ? '&' : '?', (int)len, p);
            free(rest);
            rest = more;
            r = rest ? 0 : fail_memory(err, "a URI");
        }
        p += len;
    }
    if (r == 0) {
        drop_password(rest);
        r = option_text(ret_keys, "uri", rest, err);
    }
    if (r < 0)
        free(TAKE(*ret_keys));
    return r;
}

static char *name_of(const struct option_values *keys)
{
    const char *uri = options_string(keys, "uri"), *export = options_string(keys, "export");
    char *name = export && uri ? string_format("%s (export \"%s\")", uri, export)
                               : string_copy(uri ? uri : "nbd:");
    if (name)
        drop_password(name);
    return name;
}

/* ---- opening --------------------------------------------------------------------------------- */

void nbd_way_done(struct nbd_way *way)
{
    free(way->name);
    free(way->uri);
    free(way->export);
    free(way->certificates);
    free(way->psk_file);
    free(way->username);
    *way = (struct nbd_way){0};
}

static int copy_key(const struct option_values *keys, const char *key, char **ret,
                    struct platter_error *err)
{
    const char *value = options_string(keys, key);
    *ret = string_copy(value);
    return *ret || !value ? 0 : fail_memory(err, "a URI");
}

/* Where libnbd looks for certificates if it is told nothing. */
static int find_certificates(char **ret, struct platter_error *err)
{
    const char *home = getenv("HOME");
    char *const folders[] = {string_copy("/etc/pki/libnbd"),
                             string_format("%s/.pki/libnbd", home ? home : ""),
                             string_format("%s/.config/pki/libnbd", home ? home : "")};
    struct stat st;
    int r = 0;
    *ret = NULL;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char *folder = folders[i];
        if (!folder)
            r = fail_memory(err, "the folder of certificates");
        if (folder && !*ret && stat(folder, &st) == 0 && S_ISDIR(st.st_mode))
            *ret = folder;
        else
            free(folder);
    }
    return r;
}

/* libnbd takes any certificate where there is no folder of those that are trusted: that is not what
 * who says nbds expects. */
static int check_trust(struct nbd_way *way, struct platter_error *err)
{
    if (strncasecmp(way->uri, "nbds", 4) != 0 || way->psk_file || way->certificates)
        return 0;
    int r = find_certificates(&way->certificates, err);
    if (r < 0 || way->certificates || way->no_verify)
        return r;
    return fail(err, EINVAL,
                "%s: nothing says which certificate the server must have: name a folder with the "
                "ca-cert.pem that is trusted, which may be a link to that of the system "
                "(tls-certificates=DIR), or a file of keys (tls-psk-file=FILE), or do without "
                "(tls-verify-peer=off)",
                way->name);
}

/* What is left in a URI is for libnbd, which passes over what it does not know, and would end the
 * export's name at a NUL. Its scheme is in small letters there. */
static int check_uri(char *uri, struct platter_error *err)
{
    for (char *p = uri; *p && *p != ':'; p++)
        *p = (char)tolower((unsigned char)*p);
    if (strstr(uri, "%00"))
        return fail(err, EINVAL, "an NBD URI has a NUL character (%%00)");
    for (const char *p = strchr(uri, '?'); p && *p;) {
        size_t len = strcspn(++p, "&");
        if (len > 0 && strncmp(p, "socket=", strlen("socket=")) != 0)
            return fail(
                err, EINVAL,
                "an NBD URI has a parameter \"%.*s\", which is not known: socket is, and in "
                "a name also tls-certificates, tls-psk-file, tls-username, tls-verify-peer, "
                "connections and timeout, with a value each; beside a uri these are keys of "
                "their own",
                (int)min_u64(len, strcspn(p, "=")), p);
        p += len;
    }
    return 0;
}

static int find_way(const struct place *p, struct nbd_way *ret, struct platter_error *err)
{
    const struct option_values *keys = p->keys;
    ret->name = string_copy(p->name);
    ret->timeout_ns = options_number(keys, "timeout") * 1000000000;
    ret->no_verify = !options_bool(keys, "tls_verify_peer");
    ret->export_given = options_given(keys, "export");
    int r = ret->name ? copy_key(keys, "uri", &ret->uri, err) : fail_memory(err, "a URI");
    if (r == 0)
        r = copy_key(keys, "export", &ret->export, err);
    if (r == 0)
        r = copy_key(keys, "tls_certificates", &ret->certificates, err);
    if (r == 0)
        r = copy_key(keys, "tls_psk_file", &ret->psk_file, err);
    if (r == 0)
        r = copy_key(keys, "tls_username", &ret->username, err);
    if (r == 0 && !ret->uri)
        r = fail(err, EINVAL, "a place of type nbd needs a uri");
    for (const char *const *prefix = prefixes; r == 0; prefix++) {
        if (!*prefix)
            return fail(err, EINVAL,
                        "\"%s\" as the uri of a place of type nbd must begin with nbd://, nbds://, "
                        "nbd+unix:// or nbds+unix://",
                        ret->uri);
        if (strncasecmp(ret->uri, *prefix, strlen(*prefix)) == 0)
            break;
    }
    if (r == 0 && (r = check_uri(ret->uri, err)) < 0)
        return fail_in(err, r, "%s", ret->name);
    return r < 0 ? r : check_trust(ret, err);
}

/* The socket that a URI names; servers may have given it a name relative to a folder of theirs. */
static bool find_socket(const char *uri, struct stat *ret)
{
    const char *query = strchr(uri, '?'), *p = query ? strstr(query, "socket=") : NULL;
    if (!p || (p[-1] != '?' && p[-1] != '&'))
        return false;
    p += strlen("socket=");
    auto_free char *path = string_format("%.*s", (int)strcspn(p, "&#"), p);
    if (!path)
        return false;
    unescape(path);
    return stat(path, ret) == 0;
}

/* Which server and export: its address, and the export's name. */
static void identify(struct nbd_export *x)
{
    struct nbd_wire *w = x->wires[0];
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof peer;
    struct stat st;
    char address[2 * sizeof(struct sockaddr_in6) + 1] = "";
    int fd = libnbd.aio_get_fd(w->h);
    if (fd < 0 || strlen(x->export) > 90 || getpeername(fd, (struct sockaddr *)&peer, &len) < 0)
        return;
    if (peer.ss_family == AF_UNIX && find_socket(x->way.uri, &st))
        snprintf(address, sizeof address, "unix %jx %jx", (uintmax_t)st.st_dev,
                 (uintmax_t)st.st_ino);
    for (socklen_t i = 0; peer.ss_family != AF_UNIX && i < len && 2 * i + 2 < sizeof address; i++)
        snprintf(address + 2 * i, 3, "%02x", ((const uint8_t *)&peer)[i]);
    if (address[0])
        snprintf(x->identity, sizeof x->identity, "%s %s", address, x->export);
}

/* How the server wants its requests. */
static int learn_limits(struct nbd_export *x, struct platter_error *err)
{
    struct nbd_handle *h = x->wires[0]->h;
    int64_t block = libnbd.get_block_size(h, LIBNBD_SIZE_MINIMUM);
    int64_t most = libnbd.get_block_size(h, LIBNBD_SIZE_MAXIMUM);
    x->block = block > 0 && block <= MOST_BLOCK ? (uint32_t)block : 1;
    x->most = most > 0 ? (uint32_t)min_u64((uint64_t)most, MOST_PAYLOAD) : MOST_PAYLOAD;
    if (block > MOST_BLOCK || !is_power_of_2(x->block) || x->most < x->block)
        return fail(err, EPROTO,
                    "%s: the server wants requests in blocks of %" PRIi64 " up to %" PRIi64
                    " bytes, which the protocol does not allow",
                    x->head.name, block, most);
    return 0;
}

static int learn(struct nbd_export *x, struct platter_error *err)
{
    struct nbd_handle *h = x->wires[0]->h;
    int64_t size = libnbd.get_size(h);
    if (size < 0)
        return fail(err, EPROTO, "%s: the server does not tell a size that makes sense",
                    x->head.name);
    x->size = (uint64_t)size;
    atomic_store(&x->size_now, x->size);
    x->export = libnbd.get_export_name(h);
    if (!x->export)
        return fail_memory(err, "the name of an export");
    x->can_flush = libnbd.can_flush(h) == 1;
    x->can_fua = libnbd.can_fua(h) == 1;
    x->can_trim = libnbd.can_trim(h) == 1;
    x->can_zero = libnbd.can_zero(h) == 1;
    x->can_status = libnbd.can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
    if (libnbd.can_multi_conn(h) != 1)
        x->allowed_wires = 1;
    x->most_wires = x->allowed_wires;
    if (x->head.writable && libnbd.is_read_only(h) == 1)
        return fail(err, EROFS, "%s: the server lets this export only be read", x->head.name);
    identify(x);
    return learn_limits(x, err);
}

static int open_export(struct nbd_export *x, const struct place *p, unsigned flags,
                       struct platter_error *err)
{
    x->head.writable = flags & (STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY);
    x->head.depth = DEPTH;
    x->allowed_wires = (unsigned)options_number(p->keys, "connections");
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&x->laying, &attr);
    pthread_rwlockattr_destroy(&attr);
    pthread_mutex_init(&x->dialing, NULL);
    pthread_mutex_init(&x->grow, NULL);
    pthread_mutex_init(&x->partial, NULL);
    pthread_mutex_init(&x->known, NULL);
    int r = find_way(p, &x->way, err);
    if (r == 0)
        r = nbd_wire_open(&x->way, &x->interrupted, x->way.timeout_ns, &x->wires[0], err);
    if (r < 0)
        return r;
    x->n_wires = 1;
    return learn(x, err);
}

static int nbd_open(const struct place *p, unsigned flags, struct stream **ret,
                    struct platter_error *err)
{
    int r = nbd_load(err);
    if (r < 0)
        return r;
    struct nbd_export *x = stream_new(sizeof *x, &nbd_export_ops, p->name, err);
    if (!x)
        return -ENOMEM;
    r = open_export(x, p, flags, err);
    if (r < 0) {
        stream_close(&x->head);
        return r;
    }
    *ret = &x->head;
    return 0;
}

const struct place_kind place_nbd = {
    .name = "nbd",
    .prefixes = prefixes,
    .keys_behind = "?",
    .keys = nbd_keys,
    .keys_of = keys_of,
    .name_of = name_of,
    .open = nbd_open,
    .needs = "uri",
    .can = PLACE_WRITE | PLACE_EXTENTS,
};
