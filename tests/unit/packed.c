/* SPDX-License-Identifier: MIT */
/* What the tests of wrappers share: packed.h. */
#include "unit.h"

#include "packed.h"

#include "base/ckd.h"
#include "support/must.h"
#include "support/prng.h"
#include "support/process.h"

const enum wrapper all_wrappers[] = {WRAP_ZSTD, WRAP_GZIP, WRAP_LZOP, WRAP_BZIP2, WRAP_XZ};

struct buffer content_new(size_t size, uint64_t seed)
{
    static const char *const words[] = {"disk ", "cluster ", "of a ", "machine\n", "0x1000, "};
    struct buffer b = buffer_new(size);
    struct prng p = {.state = seed};

    while (b.size < size) {
        size_t run = (size_t)min_u64(1 + prng_below(&p, 9000), size - b.size);
        unsigned kind = (unsigned)prng_below(&p, 3);
        for (size_t i = 0; i < run;) {
            const char *word = words[prng_below(&p, 5)];
            size_t n = kind == 0 ? min_u64(strlen(word), run - i) : 1;
            uint8_t noise = (uint8_t)prng_next(&p);
            memcpy(b.bytes + b.size + i, kind == 0 ? word : (const char *)&noise, n);
            if (kind == 2)
                b.bytes[b.size + i] = 0;
            i += n;
        }
        b.size += run;
    }
    return b;
}

struct buffer buffers_joined(const struct buffer *a, const struct buffer *b)
{
    struct buffer both = buffer_copy(a, a->size + b->size);
    if (b->size)
        memcpy(both.bytes + both.size, b->bytes, b->size);
    both.size += b->size;
    return both;
}

struct buffer with_behind(const struct buffer *a, const void *bytes, size_t n)
{
    struct buffer behind = {.bytes = (uint8_t *)bytes, .size = n, .capacity = n};
    return buffers_joined(a, &behind);
}

static struct buffer filtered(const char *command, const struct buffer *in)
{
    auto_free char *from = scratch_path("filter.in");
    auto_free char *to = scratch_path("filter.out");
    buffer_save(in, from);
    MUST(run_command(0, "%s <'%s' >'%s'", command, from, to) == 0);
    return buffer_load(to, 0);
}

struct buffer packed_by(enum wrapper w, const char *options, const struct buffer *content)
{
    auto_free char *command = string_format("%s -c %s", wrapper_name(w), options);
    MUST(command);
    return filtered(command, content);
}

struct buffer unpacked_by(enum wrapper w, const struct buffer *packed)
{
    auto_free char *command = string_format("%s -dc", wrapper_name(w));
    MUST(command);
    return filtered(command, packed);
}

int unzip_buffer(struct buffer *packed, enum wrapper w, struct budget *budget, struct stream **ret,
                 struct platter_error *err)
{
    struct stream *base;
    MUST(stream_buffer_open(packed, "packed", false, &base, NULL) == 0);
    return stream_unzip_open(base, w, budget, ret, err);
}

int read_out(struct stream *s, size_t piece, uint64_t capacity, struct buffer *got,
             struct platter_error *err)
{
    size_t n = 1;
    int r = 0;

    *got = buffer_new(capacity + piece);
    while (r == 0 && n) {
        MUST(got->capacity - got->size >= piece);
        r = stream_read(s, got->bytes + got->size, piece, &n, err);
        got->size += n;
        MUST(s->position == got->size);
    }
    stream_close(s);
    return r;
}

int unpack(struct buffer *packed, enum wrapper w, size_t piece, uint64_t capacity,
           struct buffer *got, struct platter_error *err)
{
    struct budget *budget = budget_new(PACKED_MEMORY);
    struct stream *s;
    MUST(budget);
    *got = (struct buffer){0};
    int r = unzip_buffer(packed, w, budget, &s, err);
    if (r == 0)
        r = read_out(s, piece, capacity, got, err);
    MUST(budget_take(budget, PACKED_MEMORY, "all of it", NULL) == 0);
    budget_unref(budget);
    return r;
}

void assert_unpacks(struct buffer *packed, enum wrapper w, const struct buffer *want)
{
    struct buffer got;
    struct platter_error error = {0};
    if (unpack(packed, w, 65536, want->size, &got, &error) != 0)
        fail_msg("%s: %s", wrapper_name(w), error.message);
    assert_same(&got, want);
    buffer_free(&got);
}
