/* SPDX-License-Identifier: MIT */
/*
 * Takes the input as a file of zstd or gzip, and reads what is inside at several places, and front
 * to back. Where both ways come to the end they must have found the same; the first may refuse
 * what the second one takes (there is no folder for a copy), and neither may believe what is
 * claimed about memory.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "stream/wrapper.h"

enum { MOST = 1 << 20, MOST_INSIDE = 4 << 20, BUDGET = 16 << 20, STEP = 30011 };

/* All of it, front to back: its length, or -1. */
static int64_t read_front_to_back(struct buffer *file, enum wrapper w, struct budget *budget,
                                  uint8_t *out)
{
    struct stream *base, *s;
    size_t len = 0;
    if (stream_buffer_open(file, "fuzz", false, &base, NULL) < 0 ||
        stream_unzip_open(base, w, budget, &s, NULL) < 0)
        return -1;
    int r = stream_read(s, out, MOST_INSIDE, &len, NULL);
    stream_close(s);
    return r < 0 || len == MOST_INSIDE ? -1 : (int64_t)len;
}

/* The same from its end to its beginning. */
static int64_t read_anywhere(struct stream *s, uint8_t *out)
{
    uint64_t size;
    if (stream_size(s, &size, NULL) < 0)
        fuzz_found("a stream without a size");
    if (size >= MOST_INSIDE)
        return -1;
    bool good = true;
    for (uint64_t end = size, n; end > 0; end -= n) {
        n = end < STEP ? end : STEP;
        good &= stream_pread(s, out + end - n, n, end - n, NULL) == 0;
    }
    return good ? (int64_t)size : -1;
}

static void compare(struct buffer *file, enum wrapper w, bool query)
{
    const struct unpack_policy policy = {.query = query};
    struct budget *budget = budget_new(BUDGET);
    struct stream *base, *s = NULL;
    static uint8_t a[MOST_INSIDE], b[MOST_INSIDE];
    if (!budget || stream_buffer_open(file, "fuzz", false, &base, NULL) < 0)
        abort();
    int64_t anywhere = -1;
    if (stream_unpacked_open(base, w, &policy, budget, &s, NULL) == 0 && !s->sequential)
        anywhere = read_anywhere(s, a);
    stream_close(s);
    int64_t front = anywhere < 0 ? -1 : read_front_to_back(file, w, budget, b);
    if (front >= 0 && (front != anywhere || memcmp(a, b, (size_t)front) != 0))
        fuzz_found("%lld bytes front to back, %lld anywhere, or others", (long long)front,
                   (long long)anywhere);
    budget_unref(budget);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[MOST];
    if (size > MOST)
        return 0;
    struct buffer file = {.bytes = bytes, .size = size, .capacity = size};
    enum wrapper w = wrapper_probe(data, size);
    if (w != WRAP_ZSTD && w != WRAP_GZIP)
        return 0;
    memcpy(bytes, data, size);
    compare(&file, w, false);
    compare(&file, w, true);
    return 0;
}
