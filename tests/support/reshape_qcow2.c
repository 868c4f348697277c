/* SPDX-License-Identifier: MIT */
/* The qcow2 images of reshape.h: made empty by qemu-img, filled by us; and those of version 1, laid
 * out by hand. */
#include <inttypes.h>
#include <string.h>

#include "base/cursor.h"
#include "base/memory.h"
#include "support/imagecheck.h"
#include "support/must.h"
#include "support/process.h"
#include "support/reshape.h"

enum { SPARE = 4 << 20 }; /* room for a file to grow */

struct buffer reshape_qcow2_new(const char *options, uint64_t sectors, const char *parent)
{
    auto_free char *path = scratch_path("new.qcow2");
    MUST(run_command(0, "cd '%s' && qemu-img create -q -f qcow2 -o '%s' %s%s -u '%s' %" PRIu64,
                     scratch_folder(), options, parent ? "-F qcow2 -b " : "", parent ? parent : "",
                     path, sectors * 512) == 0);
    return buffer_load(path, sectors * 512 + SPARE);
}

void reshape_qcow2_snapshot(struct buffer *b)
{
    auto_free char *path = scratch_path("taken.qcow2");
    uint64_t capacity = b->capacity;
    buffer_save(b, path);
    MUST(run_command(0,
                     "qemu-img snapshot -q -c one 'json:{\"driver\": \"qcow2\", \"backing\": null, "
                     "\"file\": {\"driver\": \"file\", \"filename\": \"%s\"}}'",
                     path) == 0);
    buffer_free(b);
    *b = buffer_load(path, capacity);
}

/* qcow.md section 2: a header, the name, an L1 table. */
struct buffer reshape_qcow_new(const struct reshape_case *of, uint64_t sectors, const char *parent)
{
    size_t name = parent ? strlen(parent) : 0, l1 = (48 + name + 7) / 8 * 8;
    unsigned shift = of->cluster_bits + of->l2_bits;
    struct buffer b = buffer_new(sectors * 512 + SPARE);
    put_be(b.bytes, 4, 0x514649fb);
    put_be(b.bytes + 4, 4, 1);
    put_be(b.bytes + 8, 8, parent ? 48 : 0);
    put_be(b.bytes + 16, 4, name);
    put_be(b.bytes + 24, 8, sectors * 512);
    b.bytes[32] = (uint8_t)of->cluster_bits;
    b.bytes[33] = (uint8_t)of->l2_bits;
    put_be(b.bytes + 40, 8, l1);
    memcpy(b.bytes + 48, parent ? parent : "", name);
    b.size = l1 + ((sectors * 512 + (UINT64_C(1) << shift) - 1) >> shift) * 8;
    return b;
}

void reshape_qcow_move_name(struct buffer *b)
{
    uint64_t off = get_be(b->bytes + 8, 8), len = get_be(b->bytes + 16, 4);
    memcpy(b->bytes + b->size, b->bytes + off, len);
    memset(b->bytes + off, 0, len);
    put_be(b->bytes + 8, 8, b->size);
    b->size += len;
}

bool reshape_image_judge(const char *format, const struct buffer *b, char *why, size_t why_size)
{
    struct image_report report = {0};
    image_check(format, b->bytes, b->size, &report);
    if (report.errors)
        snprintf(why, why_size, "%.200s", report.first);
    return report.errors == 0;
}
