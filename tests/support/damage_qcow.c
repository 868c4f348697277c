/* SPDX-License-Identifier: MIT */
/* Broken QCOW version 1 images: damage.h. Places are found by qcow.md sections 2 to 4. */
#include "base/cursor.h"
#include "support/damage.h"

enum { L1_AT = 48, CLUSTER = 4096, FAR = 1 << 30 };

/* Entry n of the first L2 table. */
static uint8_t *entry(struct buffer *b, unsigned n)
{
    return b->bytes + get_be(b->bytes + L1_AT, 8) + n * 8;
}

static void set(struct buffer *b, unsigned n, uint64_t raw)
{
    put_be(entry(b, n), 8, raw);
}

static void harm_entries(struct buffer *b)
{
    set(b, 3, get_be(entry(b, 3), 8) + 100);
    set(b, 4, 512);
    set(b, 5, FAR);
    set(b, 6, get_be(b->bytes + L1_AT, 8));
    set(b, 7, UINT64_C(1) << 63 | 48);
    set(b, 8, UINT64_C(1) << 63 | UINT64_C(9) << 51 | FAR);
}

static void harm_shared(struct buffer *b)
{
    set(b, 9, get_be(entry(b, 2), 8));
    set(b, 200, get_be(entry(b, 1), 8));
    set(b, 201, get_be(entry(b, 3), 8) + 512);
}

static void harm_packed_entries(struct buffer *b)
{
    harm_entries(b);
    set(b, 3, get_be(b->bytes + L1_AT, 8) | UINT64_C(1) << 63 | UINT64_C(7) << 51);
}

/* One stream of two clusters, and one that is said to reach into the next. */
static void harm_packed_shared(struct buffer *b)
{
    set(b, 20, get_be(entry(b, 10), 8));
    set(b, 11, get_be(entry(b, 11), 8) + (UINT64_C(20) << 51));
}

/* As a crashed QEMU leaves it: section 10. */
static void harm_tables(struct buffer *b)
{
    put_be(b->bytes + L1_AT + 3 * 8, 8, (b->size + CLUSTER - 1) / CLUSTER * CLUSTER);
    put_be(b->bytes + L1_AT + 4 * 8, 8, UINT64_C(1) << 63 | CLUSTER);
}

static void harm_leaks(struct buffer *b)
{
    for (unsigned n = 10; n < 14; n++)
        set(b, n, 0);
    memset(b->bytes + b->size, 'x', 3 * CLUSTER);
    b->size += 3 * CLUSTER;
}

/* Inside of the last cluster. */
static void harm_cut(struct buffer *b)
{
    uint64_t lost = CLUSTER / 2 + 100;
    harm_entries(b);
    b->size -= lost;
    memset(b->bytes + b->size, 0, lost);
}

const struct damage qcow_damages[] = {
    {"qcow-entries", DAMAGE_QCOW, harm_entries},
    {"qcow-shared", DAMAGE_QCOW, harm_shared},
    {"qcow-tables", DAMAGE_QCOW, harm_tables},
    {"qcow-leaks", DAMAGE_QCOW, harm_leaks},
    {"qcow-cut", DAMAGE_QCOW, harm_cut},
    {"qcow-packed-entries", DAMAGE_QCOW_PACKED, harm_packed_entries},
    {"qcow-packed-shared", DAMAGE_QCOW_PACKED, harm_packed_shared},
    {"qcow-packed-leaks", DAMAGE_QCOW_PACKED, harm_leaks},
    {NULL, DAMAGE_QCOW, NULL},
};
