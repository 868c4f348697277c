/* SPDX-License-Identifier: MIT */
/*
 * Unpacks the input front to back. Its first byte says by which wrapper (but not by lzop, which is
 * another program), and in what pieces it is read.
 */
#include "base/ckd.h"
#include "fuzz/target.h"
#include "stream/wrapper.h"

enum { MOST_BYTES = 4 << 20 /* of what may be endless */ };

static const enum wrapper wrappers[] = {WRAP_ZSTD, WRAP_GZIP, WRAP_BZIP2, WRAP_XZ};
static const size_t pieces[] = {1 << 20, 4096, 65537, 512};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[1 << 20];
    if (size == 0)
        return 0;
    struct buffer packed = {.bytes = (uint8_t *)data + 1, .size = size - 1, .capacity = size - 1};
    size_t piece = pieces[data[0] >> 2 & 3], n = 1;
    struct budget *budget = budget_new(2 * FUZZ_MEMORY);
    struct stream *base, *s = NULL;
    struct platter_error err = {0};

    if (!budget || stream_buffer_open(&packed, "fuzz", false, &base, NULL) != 0)
        abort();
    int r = stream_unzip_open(base, wrappers[data[0] & 3], budget, &s, &err);
    for (uint64_t total = 0; r == 0 && n && total < MOST_BYTES; total += n) {
        r = stream_read(s, bytes, piece, &n, &err);
        if (n > piece || (r < 0 && (err.code <= 0 || !err.message[0])))
            fuzz_found("a read of %zu gave %zu, or failed without a word", piece, n);
        if (s->position != total + n)
            fuzz_found("%zu bytes came, but the position is wrong", n);
    }
    stream_close(s);
    if (budget_take(budget, 2 * FUZZ_MEMORY, "all of it", NULL) != 0)
        fuzz_found("memory was not given back");
    budget_unref(budget);
    return 0;
}
