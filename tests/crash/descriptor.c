/* SPDX-License-Identifier: MIT */
/*
 * Cuts the power at every point of a change to a VMDK's descriptor. Whatever is left must open, say
 * all of the old text or all of the new one, show the same guest bytes, and be fit for another
 * change, after which the text stands where QEMU looks for it.
 */
#include "base/cursor.h"
#include "base/memory.h"
#include "format/vmdk/vmdk.h"

#include "disk/disk.h"
#include "support/buffer.h"
#include "support/log.h"
#include "support/must.h"
#include "support/process.h"
#include "support/seen.h"

enum {
    SIZE = 1 << 20, /* of the disk */
    TEXT = 1 << 16, /* the longest text that is compared */
    SUBSETS = 40,   /* of what was not flushed, at each point */
    DESCRIPTOR_AT = 28,
    DESCRIPTOR_SIZE_AT = 36
};

/* One change: a comment of `before` bytes makes the old text long, a value of `after` the new one.
 */
struct change {
    const char *name;
    bool embedded;
    unsigned area; /* sectors of the descriptor's room, 0: as it is */
    size_t before, after;
};

static const struct change changes[] = {
    {"within a sector", true, 0, 0, 20},
    {"one sector becomes three", true, 0, 0, 1000},
    {"three sectors become one", true, 0, 1000, 1},
    {"five and five", true, 0, 2000, 2000},
    {"more than half of the room", true, 0, 3000, 4000},
    {"all of the room", true, 0, 0, 9860},
    {"a room of one sector grows", true, 1, 0, 700},
    {"a room of one sector grows to the tables", true, 1, 0, 9000},
    {"a file within a sector", false, 0, 0, 20},
    {"a file that grows", false, 0, 0, 1000},
    {"a file that shrinks", false, 0, 4000, 1},
    {NULL},
};

static unsigned failures, states;

static void complain(const struct change *c, size_t position, uint64_t seed, const char *what,
                     const char *why)
{
    fprintf(stderr, "%s, after %zu log entries, subset %llu: %s: %s\n", c->name, position,
            (unsigned long long)seed, what, why);
    failures++;
}

/* ---- images ---------------------------------------------------------------------------------- */

/* The second file of a flat disk, which is in all cases the same. */
static struct buffer flat_file;

static int open_flat_file(const struct name_opener *opener, const struct image *image,
                          const char *name, enum platter_name_kind kind, bool writable,
                          struct stream **ret, struct platter_error *err)
{
    (void)opener, (void)image, (void)kind;
    return stream_buffer_open(&flat_file, name, writable, ret, err);
}

static int open_disk(struct stream *s, bool writable, struct platter_disk **ret,
                     struct platter_error *err)
{
    static const struct name_opener opener = {open_flat_file};
    const struct format *format = &format_vmdk;
    return disk_assemble(&s, &format, 1, writable, true, 0, &opener, ret, err);
}

/* A comment that makes the text longer, behind its first line. */
static void lengthen(char *text, size_t by)
{
    char *second = strchr(text, '\n') + 1;
    memmove(second + by, second, strlen(second) + 1);
    memset(second, 'x', by);
    memcpy(second, "# ", 2);
    second[by - 1] = '\n';
}

static struct buffer make_image(const struct change *c)
{
    auto_free char *path = scratch_path("disk.vmdk");
    MUST(run_command(0, "qemu-img create -q -f vmdk -o subformat=%s '%s' %d",
                     c->embedded ? "monolithicSparse" : "monolithicFlat", path, SIZE) == 0);
    MUST(run_command(0, "qemu-io -f vmdk -c 'write -P 7 64k 200k' '%s' >/dev/null", path) == 0);
    if (!c->embedded) {
        auto_free char *flat = scratch_path("disk-flat.vmdk");
        flat_file = buffer_load(flat, 0);
    }
    struct buffer b = buffer_load(path, (uint64_t)4 << 20);
    char text[TEXT] = {0};
    size_t at = c->embedded ? VMDK_SECTOR : 0;
    size_t room = c->embedded ? VMDK_DESCRIPTOR_SECTORS * VMDK_SECTOR : TEXT / 2;
    memcpy(text, b.bytes + at, min_u64(room, b.size - at));
    if (c->before > 0)
        lengthen(text, c->before);
    if (!c->embedded)
        b.size = strlen(text);
    memcpy(b.bytes + at, text, c->embedded ? room : b.size);
    if (c->area) {
        put_le(b.bytes + DESCRIPTOR_SIZE_AT, 8, c->area);
        memset(b.bytes + at + c->area * VMDK_SECTOR, 0, room - c->area * VMDK_SECTOR);
    }
    return b;
}

static int make_change(struct platter_disk *disk, size_t length, struct platter_error *err)
{
    char value[TEXT] = {0};
    memset(value, 'y', length);
    struct descriptor_edit *e;
    int r = descriptor_edit_begin(disk_top(disk), &e, err);
    if (r < 0)
        return r;
    descriptor_edit_set(e, "ddb.comment", value);
    return descriptor_edit_store(disk_top(disk), e, err);
}

/* The text as the image has it, and the guest's bytes. */
static void look(struct platter_disk *disk, char text[TEXT], uint8_t *content)
{
    const struct vmdk *v = vmdk_of(disk_top(disk));
    memset(text, 0, TEXT);
    MUST(v->descriptor_len < TEXT);
    MUST(stream_pread(disk_top(disk)->stream, text, (size_t)v->descriptor_len, v->descriptor_off,
                      NULL) == 0);
    MUST(disk_read(disk, content, SIZE, 0, NULL) == 0);
}

/* ---- states ---------------------------------------------------------------------------------- */

struct expected {
    char old[TEXT], new[TEXT];
    uint8_t content[SIZE];
};

/* Another change, to what a crash left. */
static void recover(const struct change *c, const struct expected *right, struct log_state *state,
                    size_t position, uint64_t seed)
{
    struct platter_error err = {0};
    struct platter_disk *disk;
    static char text[TEXT];
    static uint8_t content[SIZE];
    struct buffer left = {.bytes = state->bytes, .size = state->size};
    struct buffer file = buffer_copy(&left, left.size + TEXT);
    struct stream *s;
    MUST(stream_buffer_open(&file, "disk.vmdk", true, &s, NULL) == 0);
    int r = open_disk(s, true, &disk, &err);
    if (r == 0) {
        r = make_change(disk, c->after, &err);
        look(disk, text, content);
        int closed = disk_close(disk, r < 0 ? NULL : &err);
        r = r < 0 ? r : closed;
    }
    if (r < 0)
        complain(c, position, seed, "going on", err.message);
    else if (strcmp(text, right->new) != 0 || memcmp(content, right->content, SIZE) != 0)
        complain(c, position, seed, "going on", "another text or other bytes");
    else if (c->embedded && get_le(file.bytes + DESCRIPTOR_AT, 8) != VMDK_DESCRIPTOR_SECTOR)
        complain(c, position, seed, "going on", "the text is not in sector 1");
    buffer_free(&file);
}

static void judge(const struct change *c, const struct expected *right, struct log_state *state,
                  size_t position, uint64_t seed)
{
    struct platter_error err = {0};
    struct platter_disk *disk;
    static char text[TEXT];
    static uint8_t content[SIZE];
    if (open_disk(log_state_open(state, "disk.vmdk"), false, &disk, &err) < 0) {
        complain(c, position, seed, "open", err.message);
        return;
    }
    look(disk, text, content);
    if (strcmp(text, right->old) != 0 && strcmp(text, right->new) != 0)
        complain(c, position, seed, "neither the old text nor the new one", text);
    if (memcmp(content, right->content, SIZE) != 0)
        complain(c, position, seed, "content", "other bytes");
    disk_close(disk, NULL);
    recover(c, right, state, position, seed);
}

static void judge_all(const struct change *c, const struct expected *right, struct write_log *log)
{
    struct log_state state = {0};
    struct seen seen = {0};
    for (size_t position = 0; position <= write_log_length(log); position++)
        for (uint64_t seed = 0; seed <= SUBSETS; seed++) {
            if (seed)
                write_log_crash(log, 0, position, seed, &state);
            else
                write_log_prefix(log, 0, position, &state);
            states++;
            if (seen_add(&seen, seen_hash(state.bytes, state.size, 0)))
                judge(c, right, &state, position, seed);
        }
    seen_free(&seen);
    log_state_free(&state);
}

static void run(const struct change *c)
{
    static struct expected right;
    struct platter_error err = {0};
    struct platter_disk *disk;
    struct buffer b = make_image(c);
    struct write_log *log = write_log_new();
    struct stream *s;
    MUST(stream_buffer_open(&b, "disk.vmdk", true, &s, NULL) == 0);
    MUST(stream_log_open(log, s, &s, NULL) == 0);
    int r = open_disk(s, true, &disk, &err);
    if (r == 0) {
        look(disk, right.old, right.content);
        r = make_change(disk, c->after, &err);
        look(disk, right.new, right.content);
        disk_close(disk, NULL);
    }
    if (r < 0)
        complain(c, 0, 0, "the change", err.message);
    else if (strcmp(right.old, right.new) == 0)
        complain(c, 0, 0, "the change", "there is none");
    else
        judge_all(c, &right, log);
    write_log_free(log);
    buffer_free(&b);
    if (!c->embedded)
        buffer_free(&flat_file);
}

int main(void)
{
    for (const struct change *c = changes; c->name; c++)
        run(c);
    printf("%u states, %u failures\n", states, failures);
    return failures > 0;
}
