/* SPDX-License-Identifier: MIT */
/* The fixture of qcow.md section 14 in memory, and what tests do with it. */
#ifndef UNIT_QCOW_KIT_H
#define UNIT_QCOW_KIT_H

#include "unit.h"

#include <platter/platter.h>

#include "base/secret.h"
#include "disk/disk.h"
#include "support/buffer.h"
#include "support/must.h"
#include "support/process.h"

enum { CLUSTER = 4096, MIB = 1 << 20, L1_AT = 48, TABLE_AT = 0x1000, DATA_AT = 0x2000 };

static const char passphrase[] = "hello-0123456789-longpass";

static inline int tell_key(const struct name_opener *opener, const struct platter_secret *question,
                           struct secret *ret, struct platter_error *err)
{
    (void)opener, (void)question, (void)err;
    ret->len = strlen(passphrase);
    memcpy(ret->bytes, passphrase, ret->len);
    return 0;
}

static const struct name_opener key_teller = {.secret = tell_key};

static inline int try_open(struct buffer *b, bool writable, struct platter_disk **ret,
                           struct platter_error *err)
{
    const struct format *format = &format_qcow;
    struct stream *s;
    MUST(stream_buffer_open(b, "image", writable, &s, NULL) == 0);
    return disk_assemble(&s, &format, 1, writable, true, 0, &key_teller, ret, err);
}

static inline struct buffer new_image(void)
{
    auto_free char *path = scratch_path("image.qcow");
    struct platter_create_options o = {
        .size = sizeof o, .format = "qcow", .has_disk_size = true, .disk_size = 10 * MIB};
    assert_works(platter_create(path, &o, &err));
    return buffer_load(path, 16 * MIB);
}

static inline void write_filled(struct buffer *b, uint8_t byte, size_t len, goff off)
{
    auto_free uint8_t *bytes = malloc(len);
    struct platter_disk *disk;
    MUST(bytes);
    memset(bytes, byte, len);
    assert_works(try_open(b, true, &disk, &err));
    assert_works(disk_write(disk, bytes, len, off, &err));
    assert_works(disk_close(disk, &err));
}

static inline void assert_filled(struct buffer *b, uint8_t byte, size_t len, goff off)
{
    auto_free uint8_t *bytes = malloc(len);
    struct platter_disk *disk;
    MUST(bytes);
    assert_works(try_open(b, false, &disk, &err));
    assert_works(disk_read(disk, bytes, len, off, &err));
    for (size_t i = 0; i < len; i++)
        assert_int_equal(bytes[i], byte);
    disk_close(disk, NULL);
}

/* The fixture after its write. */
static inline struct buffer fixture(void)
{
    struct buffer b = new_image();
    write_filled(&b, 0x5a, CLUSTER, 64 << 10);
    return b;
}

#endif
