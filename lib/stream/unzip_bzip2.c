/* SPDX-License-Identifier: MIT */
/* bzip2, front to back: streams that follow one another. */
#include "config.h"
#include "stream/unzip.h"

#if HAVE_BZIP2

#include <bzlib.h>
#include <string.h>

enum {
    LEVEL_BYTES = 400 << 10, /* of memory for each step of the level, */
    BASE_BYTES = 100 << 10   /* and what is needed besides */
};

struct bzip2 {
    bz_stream decoder;
    bool open;
    uint64_t taken; /* of the budget */
};

static void end(struct bzip2 *d)
{
    if (d->open)
        BZ2_bzDecompressEnd(&d->decoder);
    d->open = false;
}

static int begin(struct unzip *z, void *state, const uint8_t *prefix, size_t len,
                 struct platter_error *err)
{
    struct bzip2 *d = state;
    if (len >= 4 && (memcmp(prefix, "BZh", 3) != 0 || prefix[3] < '1' || prefix[3] > '9'))
        return unzip_damaged(z, NULL, "a stream should begin there, or the file end", err);
    uint64_t want = BASE_BYTES + (uint64_t)LEVEL_BYTES * (len < 4 ? 0 : prefix[3] - '0');
    int r = unzip_take(z, &d->taken, want, err);
    if (r < 0)
        return r;
    end(d);
    memset(&d->decoder, 0, sizeof d->decoder);
    if (BZ2_bzDecompressInit(&d->decoder, 0, 0) != BZ_OK)
        return fail_memory(err, "unpacking bzip2");
    d->open = true;
    return 1;
}

static int step(struct unzip *z, void *state, struct unzip_step *s, struct platter_error *err)
{
    bz_stream *d = &((struct bzip2 *)state)->decoder;
    d->next_in = (char *)s->in;
    d->avail_in = (unsigned)s->in_len;
    d->next_out = (char *)s->out;
    d->avail_out = (unsigned)s->out_len;
    int r = BZ2_bzDecompress(d);
    s->in_used = s->in_len - d->avail_in;
    s->out_used = s->out_len - d->avail_out;
    if (r == BZ_MEM_ERROR)
        return fail_memory(err, "unpacking bzip2");
    if (r != BZ_OK && r != BZ_STREAM_END)
        return unzip_damaged(z, s, "it makes no sense, or its checksum does not fit", err);
    return r == BZ_STREAM_END;
}

int unzip_bzip2(struct unzip *z, struct platter_error *err)
{
    static const struct unzip_ops ops = {.part = "stream", .begin = begin, .step = step};
    struct bzip2 d = {.open = false};

    int r = unzip_parts(z, &ops, &d, err);
    end(&d);
    budget_give(z->budget, d.taken);
    return r;
}

#else

int unzip_bzip2(struct unzip *z, struct platter_error *err)
{
    return unzip_check(z->wrapper, err);
}

#endif
