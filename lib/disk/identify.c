/* SPDX-License-Identifier: MIT */
/* What a file is: compressed or not, and which format the file, or what is inside of it, has. */
#include <time.h>

#include "base/ckd.h"
#include "disk/inside.h"
#include "stream/window.h"
#include "stream/wrapper.h"

enum {
    PROBE_MAGIC = 4096,            /* of a file, where most formats have their magic */
    PROBE_BYTES = STREAM_MOST_PEEK /* the most that formats may look at: vmdk.md section 2 */
};

/* ---- formats -----------------------------------------------------------------------------------
 */

/* Which format is surest that a file that begins with `prefix` is its own; NULL if none is. */
static const struct format *surest(const uint8_t *prefix, size_t len, uint64_t file_size)
{
    const struct format *ret = NULL;
    enum probe best = PROBE_NO;
    for (const struct format *const *f = formats; *f; f++) {
        enum probe sure = (*f)->probe ? (*f)->probe(prefix, len, file_size) : PROBE_NO;
        if (sure > best) {
            best = sure;
            ret = *f;
        }
    }
    return ret;
}

static int fail_unknown(const struct stream *s, const char *foreign, bool packed,
                        struct platter_error *err)
{
    if (foreign && packed)
        return fail(err, PLATTER_ENOFORMAT,
                    "%s: holds, compressed, %s, a format that cannot be read yet", s->name,
                    foreign);
    if (foreign)
        return fail(
            err, PLATTER_ENOFORMAT,
            "%s: is %s, a format that cannot be read yet; -f raw takes the bytes of the file "
            "as the disk",
            s->name, foreign);
    if (packed)
        return fail(err, PLATTER_ENOFORMAT,
                    "%s: no format recognised in what is compressed in it: if that is a raw disk, "
                    "unpack it first",
                    s->name);
    return fail(err, PLATTER_ENOFORMAT,
                "%s: no format recognised: if it is a raw disk, say so (-f raw)", s->name);
}

static int probe(struct stream *s, bool allow_raw, struct image_setup *setup,
                 struct platter_error *err)
{
    static const size_t lengths[] = {PROBE_MAGIC, PROBE_BYTES};
    uint64_t size = UINT64_MAX;
    size_t n = 0;
    auto_free uint8_t *prefix = malloc(PROBE_BYTES);
    if (!prefix)
        return fail_memory(err, "the first bytes of a file");
    int r = s->sequential ? 0 : stream_size(s, &size, err);
    const struct format *found = NULL;
    for (size_t i = 0; r == 0 && !found && i < sizeof lengths / sizeof *lengths; i++) {
        r = stream_peek(s, prefix, lengths[i], &n, err);
        if (r == 0)
            found = surest(prefix, n, size);
    }
    if (r < 0)
        return r;
    const char *foreign = found ? NULL : format_foreign(prefix, n);
    if (!found && (foreign || !allow_raw))
        return fail_unknown(s, foreign, setup->compression, err);
    setup->format = found ? found : &format_raw;
    return 0;
}

/* ---- compressed files --------------------------------------------------------------------------
 */

/* A raw disk may begin with anything. */
static int fail_damaged(int r, const struct image_choice *choice, struct platter_error *err)
{
    auto_free char *said = err ? string_copy(err->message) : NULL;
    if (r != -PLATTER_ECORRUPT || choice->format || !said)
        return r;
    return fail(err, -r, "%s; if it is a raw disk that only looks compressed, say so (-f raw)",
                said);
}

/* Who is told how far the opening of a compressed file has come. */
struct opening {
    const struct image_choice *choice;
    struct timespec last;
};

static int tell_progress(void *opaque, uint64_t done, uint64_t total)
{
    static const int64_t second = 1000000000;
    struct opening *o = opaque;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t passed = (now.tv_sec - o->last.tv_sec) * second + now.tv_nsec - o->last.tv_nsec;
    if (passed < second / 10)
        return 0;
    o->last = now;
    return o->choice->progress(
        o->choice->progress_opaque,
        &(struct platter_progress){sizeof(struct platter_progress), done, total, done});
}

static struct unpack_policy policy_of(const struct image_choice *choice, bool query,
                                      struct opening *o)
{
    *o = (struct opening){.choice = choice};
    clock_gettime(CLOCK_MONOTONIC, &o->last);
    return (struct unpack_policy){.spool = choice->spool,
                                  .query = query,
                                  .tick = choice->progress ? tell_progress : NULL,
                                  .tick_opaque = o};
}

/* *stream becomes what is inside of it, if it is compressed. */
static int unwrap(struct stream **stream, const struct image_choice *choice,
                  struct image_setup *setup, struct platter_error *err)
{
    struct opening opening;
    const struct unpack_policy policy = policy_of(choice, setup->query, &opening);
    uint8_t prefix[WRAP_PROBE];
    size_t len;
    int r = stream_peek(*stream, prefix, sizeof prefix, &len, err);
    enum wrapper w = r == 0 ? wrapper_probe(prefix, len) : WRAP_NONE;
    if (w == WRAP_NONE)
        return r;
    setup->compression = wrapper_name(w);
    if ((*stream)->writable)
        return fail(err, ENOTSUP,
                    "%s: is compressed (%s), and what is inside cannot be written to: unpack it "
                    "first; -f raw takes the bytes of the file as the disk",
                    (*stream)->name, setup->compression);
    return stream_unpacked_open(TAKE(*stream), w, &policy, setup->budget, stream, err);
}

/* A query of a format that is not read front to back takes what anybody else takes. */
static int unwrap_again(struct stream **stream, const struct image_choice *choice,
                        struct image_setup *setup, struct platter_error *err)
{
    struct opening opening;
    const struct unpack_policy policy = policy_of(choice, false, &opening);
    struct stream *file = stream_share((*stream)->base);
    stream_close(TAKE(*stream));
    file->position = 0;
    return stream_unpacked_open(file, wrapper_find(setup->compression), &policy, setup->budget,
                                stream, err);
}

/* ---- what is read front to back ----------------------------------------------------------------
 */

/* Makes a stream of it that can be read anywhere, or at least within a window. */
static int settle(struct stream **s, const struct image_choice *choice, bool unpack,
                  struct image_setup *setup, struct platter_error *err)
{
    struct opening opening;
    const struct unpack_policy policy = policy_of(choice, false, &opening);
    enum wrapper w = WRAP_NONE;
    if (choice->spool)
        return stream_spool_open(TAKE(*s), &policy, setup->budget, s, err);
    int r = unpack ? stream_unwrap(TAKE(*s), setup->budget, s, &w, err) : 0;
    setup->compression = w == WRAP_NONE ? NULL : wrapper_name(w);
    return r < 0 ? r : stream_window_open(TAKE(*s), setup->budget, s, err);
}

int image_check_window(struct stream *s, const struct image_setup *setup, unsigned flags,
                       struct platter_error *err)
{
    uint64_t size = 0;
    if (s->window == 0)
        return 0;
    if (setup->format != &format_raw)
        return fail(err, ENOTSUP,
                    "%s: can only be read front to back, and what an image of the %s format has "
                    "stands anywhere in its file: allow a temporary copy (--spool FOLDER)",
                    s->name, setup->format->name);
    if (flags & PLATTER_OPEN_IN_ORDER)
        return 0;
    int r = stream_reach(s, 0, &size, err);
    if (r < 0 || (setup->query && size != UINT64_MAX))
        return r;
    return fail(err, ENOTSUP,
                "%s: can only be read once, front to back, which is enough to convert, digest or "
                "compare it; for anything else allow a temporary copy (--spool FOLDER)",
                s->name);
}

static int check_qcow(const struct stream *s, const struct format *format,
                      struct platter_error *err)
{
    if (format == &format_qcow || format == &format_qcow2)
        return 0;
    return fail(err, PLATTER_ENOFORMAT, "%s: is said to be a QCOW image, but is of the format %s",
                s->name, format->name);
}

int image_identify(struct stream **stream, const struct image_choice *choice,
                   struct image_setup *setup, struct platter_error *err)
{
    int r = 0;
    setup->format = choice->format ? format_find(choice->format) : NULL;
    if (choice->format && !setup->format)
        return fail(err, ENOTSUP, "%s: no format is called \"%s\"", (*stream)->name,
                    choice->format);
    bool unpack = !setup->format || setup->format->probe || choice->unpack;
    bool in_order = (*stream)->sequential;
    if (in_order)
        r = settle(stream, choice, unpack, setup, err);
    if (r == 0 && unpack && (!in_order || choice->spool))
        r = unwrap(stream, choice, setup, err);
    if (r == 0 && !setup->format)
        r = probe(*stream, choice->allow_raw, setup, err);
    if (r == 0 && choice->qcow)
        r = check_qcow(*stream, setup->format, err);
    if (r == 0 && (*stream)->sequential && !setup->format->in_order)
        r = unwrap_again(stream, choice, setup, err);
    return r < 0 && setup->compression ? fail_damaged(r, choice, err) : r;
}
