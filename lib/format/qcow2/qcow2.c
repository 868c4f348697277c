/* SPDX-License-Identifier: MIT */
/* qcow2 as a format: the table of its operations, and the probe. */
#include <string.h>

#include "base/cursor.h"
#include "format/qcow2/check.h"
#include "format/qcow2/compact.h"
#include "format/qcow2/snapshot.h"

/* The magic alone decides, but for version 1, which is another format: what is cut short behind it,
 * or of a version we do not know, is for open to refuse, and never a raw disk. */
static enum probe qcow2_probe(const uint8_t *prefix, size_t len, uint64_t file_size)
{
    (void)file_size;
    bool one = len >= 8 && get_be(prefix + 4, 4) == 1;
    return len >= 4 && memcmp(prefix, "QFI\xfb", 4) == 0 && !one ? PROBE_SURE : PROBE_NO;
}

static bool qcow2_file(const struct image *img, unsigned i, struct stream **ret)
{
    *ret = i == 0 ? qcow2_of(img)->data : NULL;
    return i == 0;
}

const struct format format_qcow2 = {
    .name = "qcow2",
    .title = "QEMU copy-on-write, version 2 and 3",
    .probe = qcow2_probe,
    .open = qcow2_open,
    .close = qcow2_close,
    .file = qcow2_file,
    .map = qcow2_map,
    .crypt = qcow2_crypt,
    .key_area = qcow2_key_area,
    .unpack = qcow2_unpack,
    .reserve = qcow2_reserve,
    .commit = qcow2_commit,
    .abandon = qcow2_abandon,
    .pack = qcow2_pack,
    .reserve_packed = qcow2_reserve_packed,
    .mark = qcow2_mark,
    .uncover = qcow2_uncover,
    .flush = qcow2_flush,
    .check = qcow2_check,
    .amend_options = qcow2_amend_options,
    .amend = qcow2_amend,
    .compact = qcow2_compact,
    .resize = qcow2_resize,
    .may_set_backing = qcow2_may_set_backing,
    .set_backing = qcow2_set_backing,
    .make_empty = qcow2_make_empty,
    .create_options = qcow2_create_options,
    .create = qcow2_create,
    .writer_open = qcow2_writer_open,
    .header_last = true,
    .measure = qcow2_measure,
    .create_unit = qcow2_create_unit,
    .info = qcow2_info,
    .info_top = qcow2_info_top,
    .views = qcow2_views,
    .bitmaps = &qcow2_bitmap_ops,
    .snapshots = &qcow2_snapshot_ops,
};
