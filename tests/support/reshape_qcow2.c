/* SPDX-License-Identifier: MIT */
/* The qcow2 images of reshape.h: made empty by qemu-img, filled by us. */
#include <inttypes.h>

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

bool reshape_qcow2_judge(const struct buffer *b, char *why, size_t why_size)
{
    struct image_report report;
    qcow2_judge(b->bytes, b->size, &report);
    if (report.errors)
        snprintf(why, why_size, "%.200s", report.first);
    return report.errors == 0;
}
