/* SPDX-License-Identifier: MIT */
/* QCOW version 1 as a format: the table of its operations, probe and info. */
#include <string.h>

#include "base/cursor.h"
#include "format/qcow1/check.h"

/* All other versions, and what is cut short behind the magic, are qcow2's to refuse. */
static enum probe qcow1_probe(const uint8_t *prefix, size_t len, uint64_t file_size)
{
    (void)file_size;
    return len >= 8 && memcmp(prefix, "QFI\xfb", 4) == 0 && get_be(prefix + 4, 4) == 1 ? PROBE_SURE
                                                                                       : PROBE_NO;
}

static void qcow1_crypt(const struct image *img, bool encrypt, void *out, const void *in,
                        size_t len, goff guest, hoff host)
{
    const struct qcow1 *q = qcow1_of(img);
    (void)host;
    if (encrypt)
        cipher_encrypt(q->cipher, guest / CIPHER_SECTOR, out, in, len);
    else
        cipher_decrypt(q->cipher, guest / CIPHER_SECTOR, out, in, len);
}

/* The fields of qemu-img, which has none that are the format's own. */
static int qcow1_info_top(struct image *img, json_t *info)
{
    int r = json_object_set_new(info, "cluster-size", json_integer(img->unit));
    if (r == 0 && img->sealed)
        r = json_object_set_new(info, "encrypted", json_true());
    return r;
}

const struct format format_qcow = {
    .name = "qcow",
    .title = "QEMU copy-on-write, version 1",
    .unnamed_backing = true,
    .needs_file = true, /* the end of the file is where new room is */
    .probe = qcow1_probe,
    .open = qcow1_open,
    .close = qcow1_close,
    .map = qcow1_map,
    .unpack = qcow1_unpack,
    .crypt = qcow1_crypt,
    .reserve = qcow1_reserve,
    .commit = qcow1_commit,
    .abandon = qcow1_abandon,
    .pack = qcow1_pack,
    .reserve_packed = qcow1_reserve_packed,
    .mark = qcow1_mark,
    .flush = qcow1_flush,
    .check = qcow1_check,
    .resize = qcow1_resize,
    .may_set_backing = qcow1_may_set_backing,
    .set_backing = qcow1_set_backing,
    .make_empty = qcow1_make_empty,
    .create_options = qcow1_create_options,
    .create = qcow1_create,
    .measure = qcow1_measure,
    .create_unit = qcow1_create_unit,
    .info_top = qcow1_info_top,
};
