/* SPDX-License-Identifier: MIT */
/*
 * Owning a migration: the target, opened over its source. The owner has the target locked as any
 * writer has; whoever has not only looks.
 *
 * A source that cannot be opened, or is another one, keeps nobody from the target: what comes from
 * it fails, with the reason, until it is back.
 */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/awake.h"
#include "disk/inside.h"
#include "format/partial.h"
#include "ops/migrate.h"
#include "stream/place.h"

enum { CHECK_EVERY_S = 1 }; /* how long a look at the source's identity is good for */

char *migrate_mark(const struct migrate_state *state)
{
    return string_format(DISK_MIGRATION_MARK "%s", state->id);
}

int migration_enter(struct platter_migration *m, enum migrate_phase phase, const char *error,
                    struct platter_error *err)
{
    json_t *text = error ? json_string(error) : json_null();
    WITH_LOCK(&m->lock);
    enum migrate_phase before = m->state.phase;
    m->state.phase = phase;
    json_decref(m->state.error);
    m->state.error = text ? text : json_string("an error whose words are no UTF-8");
    int r = m->ended ? 0 : migrate_state_write(&m->state, err);
    if (r < 0)
        m->state.phase = before; /* what is not durable is not so */
    return r;
}

/* ---- what the disk asks -----------------------------------------------------------------------
 */

/* A guest changes something, which abort must not lose unasked. */
static int touched(void *opaque, struct platter_error *err)
{
    struct platter_migration *m = opaque;
    WITH_LOCK(&m->lock);
    if (m->state.written || m->ended)
        return 0;
    m->state.written = true;
    int r = migrate_state_write(&m->state, err);
    m->state.written = r == 0;
    return r;
}

static int fail_lost(const struct platter_migration *m, struct platter_error *err)
{
    return fail(err, m->changed ? ESTALE : EIO,
                "%s: this part of it is still in the source alone: %s", m->target,
                m->reason ? m->reason : "which cannot be read");
}

/* With the lock. */
static void lose(struct platter_migration *m, const struct platter_error *why)
{
    m->lost = true;
    m->changed = why->code == ESTALE;
    free(m->reason);
    m->reason = string_copy(why->message);
}

int migration_check_source(struct platter_migration *m, struct platter_error *err)
{
    struct platter_error why = {0};
    WITH_LOCK(&m->lock);
    uint64_t now = now_ns();
    if (!m->lost && now - m->checked_at > CHECK_EVERY_S * UINT64_C(1000000000)) {
        m->checked_at = now;
        if (disk_identity_check(m->disk, 1, m->state.identity, &why) == -ESTALE)
            lose(m, &why);
    }
    return m->lost ? fail_lost(m, err) : 0;
}

static int may_read(void *opaque, struct platter_error *err)
{
    return migration_check_source(opaque, err);
}

/* ---- the source ------------------------------------------------------------------------------ */

/* Another name for it was given, and it is the same: that is the name from now on. */
static int rename_source(struct platter_migration *m, struct platter_error *err)
{
    const struct platter_migrate_options *o = &m->options;
    json_t *kept = NULL;
    if (m->look || !(o->source || o->source_place))
        return 0;
    const char *name = json_string_value(json_object_get(m->state.source, "name"));
    struct platter_open_options open = {.size = sizeof open, .place = o->source_place};
    int r = migrate_source_keep(o->source ? o->source : name, &open, &kept, err);
    if (r < 0)
        return r;
    WITH_LOCK(&m->lock);
    json_object_set(m->state.source, "name", json_object_get(kept, "name"));
    if (o->source_place)
        json_object_set(m->state.source, "place", json_object_get(kept, "place"));
    json_decref(kept);
    return migrate_state_write(&m->state, err);
}

/* The state says what is opened, and what that may name in turn (rule 6). So nobody may have
 * written it who could not ask for that anyhow. */
static int check_author(const struct migrate_state *state, struct platter_error *err)
{
    struct stat st;
    struct stream *s = state->stream;
    int fd = s->ops->descriptor ? s->ops->descriptor(s) : -1;
    if (fd < 0 || fstat(fd, &st) < 0 ||
        ((st.st_uid == geteuid() || st.st_uid == 0) && (st.st_mode & 022) == 0))
        return 0;
    return fail(err, EPERM,
                "%s: belongs to another user, or others can write to it: what it says of the "
                "source is not opened. Do this as the user it belongs to, or, if you know what is "
                "in it, make it yours alone (chown, chmod 600)",
                s->name);
}

static int attach(struct platter_migration *m, struct platter_error *err)
{
    struct platter_disk *source;
    int r = check_author(&m->state, err);
    if (r < 0)
        return r;
    r = migrate_source_open(m->state.source, &m->options, &source, err);
    if (r < 0)
        return r;
    disk_persist(source);
    r = disk_identity_check(source, 0, m->state.identity, err);
    if (r == 0)
        r = rename_source(m, err);
    if (r < 0)
        disk_close(source, NULL);
    return r < 0 ? r : disk_stack_live(m->disk, source, err);
}

/* Whether the source has failed since it was opened: then it may be of use only when that is done
 * anew. */
static bool has_failed(struct platter_migration *m)
{
    WITH_LOCK(&m->lock);
    return m->lost || json_is_string(m->state.error) ||
           atomic_load(&m->filling.failed_reads) != m->failed_before;
}

int migration_attach(struct platter_migration *m, struct platter_error *err)
{
    struct platter_error why = {0};
    bool open = m->disk->depth > 1;
    if (m->state.phase >= MIGRATE_EXECUTED)
        return 0; /* nothing of it is needed */
    if (open && !has_failed(m))
        return migration_check_source(m, err);
    int r = attach(m, &why);
    if (open && r < 0 && r != -ESTALE) /* what can be read of it is */
        return migration_check_source(m, err);
    WITH_LOCK(&m->lock);
    m->lost = false;
    m->checked_at = now_ns();
    m->failed_before = atomic_load(&m->filling.failed_reads);
    if (r < 0)
        lose(m, &why);
    return r < 0 ? fail(err, -r, "%s", why.message) : 0;
}

/* ---- the target ------------------------------------------------------------------------------ */

/* Gives the target what belongs to it. */
struct target_opener {
    struct name_opener opener;
    struct platter_migration *m;
};

static int open_part(const struct name_opener *base, const struct image *image, const char *name,
                     enum platter_name_kind kind, bool writable, struct stream **ret,
                     struct platter_error *err)
{
    struct platter_migration *m = container_of(base, const struct target_opener, opener)->m;
    (void)kind;
    (void)writable;
    if (strcmp(m->state.format, "raw") != 0 || strcmp(name, PARTIAL_PRESENCE) != 0)
        return fail(err, PLATTER_EGATE, "%s: names \"%s\", which no target of a migration does",
                    image->stream->name, name);
    int r = migrate_state_presence(&m->state, ret, err);
    if (r == 0)
        *ret = stream_share(*ret);
    return r;
}

static int tell_secret(const struct name_opener *base, const struct platter_secret *question,
                       struct secret *ret, struct platter_error *err)
{
    const struct platter_migrate_options *o =
        &container_of(base, const struct target_opener, opener)->m->options;
    return call_secret(o->secret, o->secret_opaque, question, ret, err);
}

static int lock_target(const struct platter_migration *m, struct stream *s,
                       struct platter_error *err)
{
    const unsigned change = STREAM_LOCK_WRITE | STREAM_LOCK_RESIZE;
    return m->look ? 0 : stream_lock(s, STREAM_LOCK_READ | change, change, err);
}

/* A qcow2 says itself which migration it belongs to; of a raw one only its name does. */
static int check_mark(const struct platter_migration *m, struct platter_error *err)
{
    const struct image *top = disk_top(m->disk);
    auto_free char *mark = migrate_mark(&m->state);
    bool cut = !top->backing_name && m->state.phase == MIGRATE_COMMITTING;
    if (strcmp(m->state.format, "qcow2") != 0)
        return migrate_state_check_target(&m->state, err);
    if (cut)
        return 0;
    if (!mark)
        return fail_memory(err, "a name");
    return top->backing_name && strcmp(top->backing_name, mark) == 0
               ? 0
               : fail(err, ESTALE,
                      "%s: is not the image that %s is the state of: that one has \"%s\" for its "
                      "backing file",
                      top->stream->name, m->state.stream->name, mark);
}

static int assemble(struct platter_migration *m, struct stream *s, struct platter_error *err)
{
    struct target_opener opener = {.opener = {.open = open_part, .secret = tell_secret}, .m = m};
    const struct format *format =
        strcmp(m->state.format, "raw") == 0 ? &format_partial : format_find(m->state.format);
    int r = disk_assemble(&s, &format, 1, !m->look, true, m->options.memory_limit, &opener.opener,
                          &m->disk, err);
    if (r == 0)
        r = check_mark(m, err);
    if (r == 0 && disk_size(m->disk) != m->state.size)
        r = fail(err, ESTALE, "%s: is not the image that %s is the state of: it has another size",
                 disk_top(m->disk)->stream->name, m->state.stream->name);
    return r;
}

/* Once it is locked nobody else writes the state: what it says now is what is true. */
static int open_target(struct platter_migration *m, struct platter_error *err)
{
    const struct platter_migrate_options *o = &m->options;
    struct stream *s;
    int r = stream_open_with(m->state.place, o->target_place, m->look ? 0 : STREAM_FILE_WRITE, 0,
                             &s, err);
    if (r < 0)
        return r;
    r = lock_target(m, s, err);
    if (r == 0 && !m->look) {
        migrate_state_close(&m->state);
        r = migrate_state_open(m->target, o->state, o->target_place, true, &m->state, err);
    }
    if (r < 0) {
        stream_close(s);
        return r;
    }
    return assemble(m, s, err);
}

/* ---- open and close -------------------------------------------------------------------------- */

static void own_options_free(struct platter_migrate_options *o)
{
    free((char *)(uintptr_t)o->target_place);
    free((char *)(uintptr_t)o->state);
    free((char *)(uintptr_t)o->source);
    free((char *)(uintptr_t)o->source_place);
    for (size_t i = 0; o->allow && o->allow[i]; i++)
        free((char *)(uintptr_t)o->allow[i]);
    free((void *)(uintptr_t)o->allow);
}

static bool keep_text(const char **text)
{
    bool given = *text;
    *text = string_copy(*text);
    return *text || !given;
}

/* A copy that needs nothing of the caller's any more but functions, and own_options_free(). */
static int own_options_keep(const struct platter_migrate_options *given,
                            struct platter_migrate_options *ret, struct platter_error *err)
{
    size_t n = 0;
    while (given->allow && given->allow[n])
        n++;
    const char **allow = calloc(n + 1, sizeof *allow);
    *ret = *given;
    ret->allow = allow;
    ret->keep_writes = NULL;
    const char **texts[] = {&ret->target_place, &ret->state, &ret->source, &ret->source_place};
    bool good = allow != NULL;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        good = keep_text(texts[i]) && good; /* each, so that none is the caller's */
    for (size_t i = 0; i < n && good; i++)
        good = (allow[i] = string_copy(given->allow[i])) != NULL;
    return good ? 0 : fail_memory(err, "a migration");
}

static int check_phase(const struct platter_migration *m, struct platter_error *err)
{
    const struct platter_migrate_options *o = &m->options;
    struct migrate_state now;
    if (m->state.phase != MIGRATE_PREPARING)
        return 0;
    int r = migrate_state_claim(m->target, o->state, o->target_place, &now, err);
    if (r < 0)
        return r;
    bool over = now.phase == MIGRATE_PREPARING;
    migrate_state_close(&now);
    return over ? fail(err, EINVAL,
                       "%s: its preparation, or an abort, was cut off: prepare it again, which "
                       "replaces what is there, or abort it",
                       m->target)
                : fail(err, EBUSY, "%s: was prepared just now: do that again", m->target);
}

static int open_all(struct platter_migration *m, struct platter_error *err)
{
    const struct platter_migrate_options *o = &m->options;
    struct platter_error why;
    int r = migrate_state_open(m->target, o->state, o->target_place, false, &m->state, err);
    if (r == 0)
        r = check_phase(m, err);
    if (r == 0)
        r = open_target(m, err);
    if (r == 0)
        r = check_phase(m, err);
    if (r < 0)
        return r;
    m->filling = (struct filling){.copy_on_read = !(o->flags & PLATTER_MIGRATE_NO_COPY_ON_READ),
                                  .touched = touched,
                                  .may_read = may_read,
                                  .opaque = m,
                                  .is_touched = m->state.written};
    m->disk->filling = &m->filling;
    if (m->state.phase >= MIGRATE_EXECUTED)
        m->disk->cut = false; /* what it lacks is known to be zeros */
    else if (migration_attach(m, &why) == -ENOMEM)
        return fail(err, ENOMEM, "%s", why.message);
    return m->look ? 0 : control_open(m, &m->control, err);
}

static int migration_new(const char *target, const struct platter_migrate_options *options,
                         bool look, struct platter_migration **ret, struct platter_error *err)
{
    struct platter_migration *m = calloc(1, sizeof *m);
    if (!m)
        return fail_memory(err, "a migration");
    pthread_mutex_init(&m->lock, NULL);
    m->look = look;
    m->target = string_copy(target);
    int r = own_options_keep(options, &m->options, err);
    if (r == 0)
        r = m->target ? open_all(m, err) : fail_memory(err, "a name");
    if (r < 0) {
        migration_close(m, NULL);
        return r;
    }
    *ret = m;
    return 0;
}

int migration_open(const char *target, const struct platter_migrate_options *options,
                   struct platter_migration **ret, struct platter_error *err)
{
    return migration_new(target, options, false, ret, err);
}

int migration_look(const char *target, const struct platter_migrate_options *options,
                   struct platter_migration **ret, struct platter_error *err)
{
    return migration_new(target, options, true, ret, err);
}

int migration_close(struct platter_migration *m, struct platter_error *err)
{
    control_close(m->control);
    int r = disk_close(m->disk, err);
    migrate_state_close(&m->state);
    pthread_mutex_destroy(&m->lock);
    own_options_free(&m->options);
    free(m->reason);
    free(m->target);
    free(m);
    return r;
}
