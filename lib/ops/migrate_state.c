/* SPDX-License-Identifier: MIT */
/*
 * The state of a migration, beside its target. Two slots take turns, so that a write that is cut
 * off leaves the one before; behind them is the map of presence, where there is one.
 *
 *     0            slot A
 *     256 KiB      slot B
 *     512 KiB      the map (format/partial.h), as long as the disk makes it
 *
 * A slot begins with a sector of 512 bytes: "PLATTER MIGRATE\n", then in little endian: version 1
 * (4), bytes of the text (4), a number that each write makes greater by one (8), CRC-32 of the text
 * (4); zeros; in the last 4 bytes the CRC-32 of the rest. The text, a JSON object, follows it.
 *
 * It may hold secrets: a file can be read by its owner alone.
 */
#include <inttypes.h>
#include <libdeflate.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cursor.h"
#include "base/memory.h"
#include "format/partial.h"
#include "ops/migrate.h"
#include "stream/place.h"

enum {
    SECTOR = 512,
    SLOT = 256 << 10, /* a chain of 200 images with long names fits */
    MAP_START = 2 * SLOT,
    VERSION = 1,
    PATIENCE = 20 /* times that one waits for others who are about to end */
};

static const char magic[16] = "PLATTER MIGRATE\n";
static const char *const phases[] = {"preparing", "prepared", "executing", "executed",
                                     "committing"};

const char *migrate_phase_name(enum migrate_phase phase)
{
    return phases[phase];
}

char *migrate_place_of(const char *target, bool part)
{
    const char *path = target;
    return part && place_is_file(target, &path) ? string_format("%s.part", path)
                                                : string_copy(target);
}

char *migrate_state_name(const char *target, const char *state)
{
    return state ? string_copy(state) : place_beside(target, ".migration");
}

/* ---- one slot -------------------------------------------------------------------------------- */

static void slot_encode(uint8_t header[SECTOR], const char *text, size_t len, uint64_t sequence)
{
    struct writer w = writer_over(header, SECTOR);
    write_bytes(&w, magic, sizeof magic);
    write_le32(&w, VERSION);
    write_le32(&w, (uint32_t)len);
    write_le64(&w, sequence);
    write_le32(&w, libdeflate_crc32(0, text, len));
    write_pad_to(&w, SECTOR - 4);
    write_le32(&w, libdeflate_crc32(0, header, SECTOR - 4));
}

/* Whether a slot holds a state; *ret_text is malloc'ed then. */
static bool slot_read(struct stream *s, unsigned slot, uint64_t *ret_sequence, char **ret_text)
{
    uint8_t header[SECTOR];
    hoff at = (hoff)slot * SLOT;
    if (stream_pread_tail(s, header, sizeof header, at, NULL) < 0)
        return false;
    struct reader r = reader_over(header, SECTOR);
    const uint8_t *found = read_bytes(&r, sizeof magic);
    uint32_t version = read_le32(&r), len = read_le32(&r);
    *ret_sequence = read_le64(&r);
    uint32_t crc = read_le32(&r);
    if (memcmp(found, magic, sizeof magic) != 0 || version != VERSION || len > SLOT - SECTOR ||
        get_le(header + SECTOR - 4, 4) != libdeflate_crc32(0, header, SECTOR - 4))
        return false;
    char *text = malloc((size_t)len + 1);
    bool good = text && stream_pread(s, text, len, at + SECTOR, NULL) == 0 &&
                libdeflate_crc32(0, text, len) == crc;
    if (good)
        text[len] = '\0';
    else
        free(text);
    *ret_text = good ? text : NULL;
    return good;
}

/* ---- what it says ---------------------------------------------------------------------------- */

static int decode(struct migrate_state *state, const json_t *o, struct platter_error *err)
{
    const char *id = NULL, *phase = NULL, *format = NULL, *place = NULL;
    json_int_t size = 0;
    int part = 0, written = 0, made = 0;
    json_t *source = NULL, *identity = NULL, *error = NULL, *snapshots = NULL;
    json_error_t why;
    if (json_unpack_ex((json_t *)(uintptr_t)o, &why, 0,
                       "{s:s, s:s, s:s, s:s, s:I, s:b, s:b, s?b, s:o, s:o, s:o, s?o}", "id", &id,
                       "state", &phase, "format", &format, "place", &place, "size", &size, "part",
                       &part, "written", &written, "made", &made, "source", &source, "identity",
                       &identity, "error", &error, "snapshots", &snapshots) < 0)
        return fail(err, PLATTER_ECORRUPT, "%s: is no state of a migration: %s",
                    state->stream->name, why.text);
    size_t n = 0;
    while (n < sizeof phases / sizeof *phases && strcmp(phase, phases[n]) != 0)
        n++;
    bool known = strcmp(format, "qcow2") == 0 || strcmp(format, "raw") == 0;
    if (n == sizeof phases / sizeof *phases || size < 0 || !known || !json_is_object(source) ||
        !json_is_array(identity))
        return fail(err, PLATTER_ECORRUPT, "%s: is no state of a migration that this version knows",
                    state->stream->name);
    state->phase = (enum migrate_phase)n;
    state->size = (uint64_t)size;
    state->part = part;
    state->written = written;
    state->made = made;
    state->id = string_copy(id);
    state->format = string_copy(format);
    state->place = string_copy(place);
    state->source = json_incref(source);
    state->identity = json_incref(identity);
    state->error = json_incref(error);
    state->snapshots = json_incref(snapshots);
    return state->id && state->format && state->place ? 0 : fail_memory(err, "a migration");
}

static json_t *encode(const struct migrate_state *state)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:b, s:b, s:b, s:O, s:O, s:O?, s:O*}", "id",
                     state->id, "state", phases[state->phase], "format", state->format, "place",
                     state->place, "size", (json_int_t)state->size, "part", state->part, "written",
                     state->written, "made", state->made, "source", state->source, "identity",
                     state->identity, "error", state->error, "snapshots", state->snapshots);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Whether two names of places end alike: folders may have been moved. What is described by a
 * source-spec cannot be told apart. */
static bool same_end(const char *a, const char *b)
{
    if (place_is_spec(a) || place_is_spec(b))
        return true;
    size_t a_len = place_is_file(a, NULL) ? strlen(a) : strcspn(a, "?");
    size_t b_len = place_is_file(b, NULL) ? strlen(b) : strcspn(b, "?");
    const char *a_slash = memrchr(a, '/', a_len), *b_slash = memrchr(b, '/', b_len);
    const char *a_end = a_slash ? a_slash + 1 : a, *b_end = b_slash ? b_slash + 1 : b;
    a_len -= (size_t)(a_end - a);
    b_len -= (size_t)(b_end - b);
    return a_len == b_len && memcmp(a_end, b_end, a_len) == 0;
}

/* The target is beside its state, wherever it was when it was prepared; and a state that has come
 * from elsewhere leads to no other file. */
static int take_place(struct migrate_state *state, const char *target, struct platter_error *err)
{
    auto_free char *written = state->place;
    state->place = migrate_place_of(target, state->part);
    if (!state->place)
        return fail_memory(err, "a name");
    state->foreign = !same_end(written, state->place);
    return 0;
}

int migrate_state_check_target(const struct migrate_state *state, struct platter_error *err)
{
    return !state->foreign ? 0
                           : fail(err, ESTALE,
                                  "%s: is the state of another target, which was not called %s "
                                  "when it was prepared",
                                  state->stream->name, state->place);
}

static int state_read(struct migrate_state *state, struct platter_error *err)
{
    char *texts[2] = {NULL, NULL};
    uint64_t sequences[2] = {0, 0};
    for (unsigned i = 0; i < 2; i++)
        if (!slot_read(state->stream, i, &sequences[i], &texts[i]))
            sequences[i] = 0;
    unsigned newer = texts[0] && (!texts[1] || sequences[0] > sequences[1]) ? 0 : 1;
    state->sequence = sequences[newer];
    json_t *o = texts[newer] ? json_loads(texts[newer], 0, NULL) : NULL;
    int r = o ? decode(state, o, err)
              : fail(err, PLATTER_ECORRUPT,
                     "%s: is no state of a migration: neither of its two slots can be read",
                     state->stream->name);
    json_decref(o);
    free(texts[0]);
    free(texts[1]);
    return r;
}

int migrate_state_open(const char *target, const char *name, const char *keys, bool writable,
                       struct migrate_state *ret, struct platter_error *err)
{
    auto_free char *path = migrate_state_name(target, name);
    *ret = (struct migrate_state){0};
    if (!path)
        return fail_memory(err, "a name");
    int r = stream_open_with(path, keys, writable ? STREAM_FILE_WRITE : 0, 0, &ret->stream, err);
    if (r == -ENOENT)
        return fail(err, ENOENT,
                    "%s: is not being migrated: there is no state of it at %s (where it was put "
                    "elsewhere, say so: --state)",
                    target, path);
    if (r == 0)
        r = state_read(ret, err);
    if (r == 0)
        r = take_place(ret, target, err);
    if (r < 0)
        migrate_state_close(ret);
    return r;
}

void migrate_state_close(struct migrate_state *state)
{
    stream_close(state->stream);
    stream_close(state->map);
    free(state->id);
    free(state->format);
    free(state->place);
    json_decref(state->source);
    json_decref(state->identity);
    json_decref(state->error);
    json_decref(state->snapshots);
    *state = (struct migrate_state){0};
}

/* ---- writing --------------------------------------------------------------------------------- */

int migrate_state_write(struct migrate_state *state, struct platter_error *err)
{
    json_t *o = encode(state);
    auto_free char *text = o ? json_dumps(o, JSON_INDENT(1) | JSON_ENCODE_ANY) : NULL;
    json_decref(o);
    if (!text)
        return fail_memory(err, "the state of a migration");
    size_t len = strlen(text);
    if (len > SLOT - SECTOR)
        return fail(err, EFBIG,
                    "%s: what there is to say of the source has no room here (%d bytes)",
                    state->stream->name, SLOT - SECTOR);
    uint8_t header[SECTOR];
    hoff at = (hoff)((state->sequence + 1) % 2) * SLOT;
    slot_encode(header, text, len, state->sequence + 1);
    /* The header last: it is a sector, so the slot is all there or not at all. */
    int r = stream_pwrite(state->stream, text, len, at + SECTOR, err);
    if (r == 0)
        r = stream_flush(state->stream, err);
    if (r == 0)
        r = stream_pwrite(state->stream, header, sizeof header, at, err);
    if (r == 0)
        r = stream_flush(state->stream, err);
    state->sequence += r == 0;
    return r;
}

/* Nobody else may read a file that may hold secrets. */
static int hide(struct stream *s, struct platter_error *err)
{
    int fd = s->ops->descriptor ? s->ops->descriptor(s) : -1;
    return fd < 0 || fchmod(fd, 0600) == 0
               ? 0
               : fail_errno(err, errno, "%s: cannot be kept from others", s->name);
}

static bool is_file(const struct stream *s)
{
    return s->ops->descriptor && s->ops->descriptor(s) >= 0;
}

/* With the lock that a prepare has until its target is there. Who only looks whether there is one
 * has it for a moment. */
static int be_alone(struct stream *s, struct platter_error *err)
{
    const struct timespec moment = {.tv_nsec = 50 * 1000 * 1000};
    int r = stream_lock(s, STREAM_LOCK_WRITE, STREAM_LOCK_WRITE, err);
    for (unsigned i = 0; i < PATIENCE && r == -EBUSY; i++) {
        nanosleep(&moment, NULL);
        r = stream_lock(s, STREAM_LOCK_WRITE, STREAM_LOCK_WRITE, err);
    }
    return r != -EBUSY ? r
                       : fail(err, EBUSY,
                              "%s: a migration is being prepared, or given up, by another program: "
                              "wait until it has ended",
                              s->name);
}

/* ---- what is left of a preparation ------------------------------------------------------------
 */

/* Whether the file that is open is what its name means. */
static bool is_there(const struct stream *s)
{
    struct stat open, now;
    const char *path;
    return place_is_file(s->name, &path) && fstat(s->ops->descriptor(s), &open) == 0 &&
           stat(path, &now) == 0 && open.st_dev == now.st_dev && open.st_ino == now.st_ino;
}

/* Once it is locked, what it says is what is true, if it still has its name. 1: it has not. */
static int lock_remains(const char *target, const char *name, const char *keys,
                        struct migrate_state *state, struct platter_error *err)
{
    struct migrate_state now;
    int r = migrate_state_check_target(state, err);
    if (r < 0 || !is_file(state->stream))
        return r;
    r = be_alone(state->stream, err);
    if (r < 0)
        return r;
    if (!is_there(state->stream))
        return 1;
    r = migrate_state_open(target, name, keys, false, &now, err);
    if (r < 0)
        return r;
    struct stream *locked = TAKE(state->stream);
    migrate_state_close(state);
    *state = now;
    stream_close(state->stream);
    state->stream = locked;
    return 0;
}

int migrate_state_claim(const char *target, const char *name, const char *keys,
                        struct migrate_state *ret, struct platter_error *err)
{
    int r = 1;
    for (unsigned i = 0; i < PATIENCE && r == 1; i++) {
        r = migrate_state_open(target, name, keys, false, ret, err);
        if (r < 0 || ret->phase != MIGRATE_PREPARING)
            return r;
        r = lock_remains(target, name, keys, ret, err);
        if (r != 0)
            migrate_state_close(ret);
    }
    return r <= 0 ? r : fail(err, EBUSY, "%s: other programs prepare it all the time", target);
}

int migrate_state_remove(struct migrate_state *state, const char *target, const char *name,
                         const char *keys, struct platter_error *err)
{
    auto_free char *path = migrate_state_name(target, name);
    stream_close(TAKE(state->map));
    if (!is_file(state->stream)) /* an image of Ceph that is open cannot be removed */
        stream_close(TAKE(state->stream));
    int r = path ? place_remove(path, keys, err) : fail_memory(err, "a name");
    stream_close(TAKE(state->stream));
    return r;
}

/* Makes room for a new one; EEXIST where there is a migration. */
static int clear_place(const char *target, const char *name, const char *keys,
                       struct platter_error *err)
{
    struct migrate_state old;
    int r = migrate_state_claim(target, name, keys, &old, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if (old.phase != MIGRATE_PREPARING)
        r = fail(err, EEXIST,
                 "%s: is being migrated already, as %s says: go on with that, or abort it", target,
                 old.stream->name);
    if (r == 0) /* of a prepare that was killed a moment ago */
        r = migrate_remove_target(&old, keys, err);
    if (r == 0)
        r = migrate_state_remove(&old, target, name, keys, err);
    migrate_state_close(&old);
    return r;
}

/* ---- a new one ------------------------------------------------------------------------------- */

int migrate_state_create(const char *target, const char *name, const char *keys, bool presence,
                         struct migrate_state *state, struct platter_error *err)
{
    auto_free char *path = migrate_state_name(target, name);
    uint64_t size = MAP_START + (presence ? partial_map_size(state->size) : 0);
    if (!path)
        return fail_memory(err, "a name");
    int r = clear_place(target, name, keys, err);
    if (r == 0)
        r = stream_open_with(path, keys,
                             STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY | STREAM_FILE_EXCLUSIVE,
                             size, &state->stream, err);
    if (r < 0)
        return r;
    r = hide(state->stream, err);
    if (r == 0 && is_file(state->stream)) /* until the target is prepared */
        r = be_alone(state->stream, err);
    if (r == 0)
        r = stream_resize(state->stream, size, err);
    struct stream *map;
    if (r == 0 && presence && (r = migrate_state_presence(state, &map, err)) == 0)
        r = partial_create(map, state->size, err);
    if (r == 0)
        r = migrate_state_write(state, err);
    if (r == 0)
        r = stream_publish(state->stream, true, err);
    if (r < 0)
        stream_withdraw(state->stream, true, NULL);
    return r;
}

int migrate_state_presence(struct migrate_state *state, struct stream **ret,
                           struct platter_error *err)
{
    int r = 0;
    if (!state->map)
        r = stream_slice_open(state->stream, MAP_START, partial_map_size(state->size), &state->map,
                              err);
    *ret = state->map;
    return r;
}
