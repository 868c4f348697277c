/* SPDX-License-Identifier: MIT */
/*
 * Looks at all objects of a QCOW version 1 image, and at what stands where (qcow.md sections 2 to 5
 * and 12). An error is an entry that cannot be true, or a byte that two of them use. A leak is what
 * stands between them and is not zero.
 */
#include "support/imagecheck.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/memory.h"
#include "support/must.h"

struct place {
    uint64_t from, end;
};

struct checker {
    const uint8_t *bytes;
    uint64_t size, disk;
    unsigned cluster_bits, l2_bits;
    struct image_report *report;
    struct place *places;
    size_t n, room;
};

static void use(struct checker *c, const char *what, uint64_t index, uint64_t off, uint64_t len)
{
    if (!range_inside(off, len, c->size)) {
        report_error(c->report, "%s %llu at %llu with %llu bytes is not in the file of %llu", what,
                     (unsigned long long)index, (unsigned long long)off, (unsigned long long)len,
                     (unsigned long long)c->size);
        return;
    }
    if (c->n == c->room) {
        c->room = c->room ? c->room * 2 : 1024;
        c->places = reallocarray(c->places, c->room, sizeof *c->places);
        MUST(c->places);
    }
    c->places[c->n++] = (struct place){off, off + len};
}

static void check_entry(struct checker *c, uint64_t guest, uint64_t raw)
{
    uint64_t cluster = (uint64_t)1 << c->cluster_bits;
    unsigned bits = 63 - c->cluster_bits;
    if (raw == 0)
        return;
    if (guest >= c->disk) {
        report_leak(c->report, "an entry behind the end of the disk");
    } else if (raw >> 63) {
        uint64_t len = raw >> bits & (cluster - 1);
        if (len == 0)
            report_error(c->report, "an empty compressed cluster at %llu",
                         (unsigned long long)guest);
        use(c, "compressed cluster", guest, raw & (((uint64_t)1 << bits) - 1), len);
    } else {
        if (raw % 512)
            report_error(c->report, "a misaligned cluster at %llu", (unsigned long long)guest);
        use(c, "cluster", guest, raw, cluster);
    }
}

static void check_table(struct checker *c, uint64_t i, uint64_t off)
{
    uint64_t n = (uint64_t)1 << c->l2_bits;
    if (off == 0)
        return;
    size_t before = c->n;
    use(c, "L2 table", i, off, n * 8);
    if (c->n == before)
        return;
    for (uint64_t k = 0; k < n; k++)
        check_entry(c, (i * n + k) << c->cluster_bits, get_be(c->bytes + off + k * 8, 8));
}

static int compare(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return (x->from > y->from) - (x->from < y->from);
}

static void check_places(struct checker *c)
{
    uint64_t end = 0;
    qsort(c->places, c->n, sizeof *c->places, compare);
    for (size_t i = 0; i < c->n; i++) {
        const struct place *p = &c->places[i];
        if (p->from < end)
            report_error(c->report, "bytes at %llu are used twice", (unsigned long long)p->from);
        else if (!is_zero(c->bytes + end, p->from - end))
            report_leak(c->report, "nobody uses %llu .. %llu", (unsigned long long)end,
                        (unsigned long long)p->from);
        end = max_u64(end, p->end);
    }
    if (!is_zero(c->bytes + end, c->size - end))
        report_leak(c->report, "nobody uses what is behind %llu", (unsigned long long)end);
}

void qcow_judge(const uint8_t *bytes, uint64_t size, struct image_report *ret)
{
    struct checker c = {.bytes = bytes, .size = size, .report = ret};
    if (size < 48 || get_be(bytes, 8) != UINT64_C(0x514649fb00000001)) {
        report_error(ret, "no header");
        return;
    }
    c.disk = get_be(bytes + 24, 8);
    c.cluster_bits = bytes[32];
    c.l2_bits = bytes[33];
    if (c.cluster_bits < 9 || c.cluster_bits > 16 || c.l2_bits < 6 || c.l2_bits > 13 ||
        c.disk < 2 || c.disk > UINT64_C(1) << 40 || get_be(bytes + 36, 4) > 1) {
        report_error(ret, "an impossible header");
        return;
    }
    uint64_t l1 = get_be(bytes + 40, 8),
             n = div_up(c.disk, UINT64_C(1) << (c.cluster_bits + c.l2_bits));
    use(&c, "header", 0, 0, 48);
    if (get_be(bytes + 8, 8))
        use(&c, "name", 0, get_be(bytes + 8, 8), get_be(bytes + 16, 4));
    if (l1 % 8)
        report_error(ret, "entries of the L1 table at %llu may be torn", (unsigned long long)l1);
    if (range_inside(l1, n * 8, size))
        for (uint64_t i = 0; i < n; i++)
            check_table(&c, i, get_be(bytes + l1 + i * 8, 8));
    use(&c, "L1 table", 0, l1, n * 8);
    check_places(&c);
    free(c.places);
}
