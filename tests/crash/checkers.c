/* SPDX-License-Identifier: MIT */
/*
 * The proofs of the write path lean on our own checkers of images: these must find sound images
 * sound, and each kind of damage that is planted here.
 */
#include "support/imagecheck.h"

#include "base/cursor.h"
#include "base/memory.h"
#include "support/buffer.h"
#include "support/must.h"
#include "support/process.h"

static unsigned failures;

static void expect(const char *what, const char *format, const struct buffer *b, bool errors,
                   bool leaks)
{
    struct image_report r;
    image_check(format, b->bytes, b->size, &r);
    if ((r.errors > 0) == errors && (r.leaks > 0) == leaks)
        return;
    fprintf(stderr, "%s: %llu errors, %llu leaks: %s\n", what, (unsigned long long)r.errors,
            (unsigned long long)r.leaks, r.first);
    failures++;
}

/* An image with some data, by qemu-img and qemu-io. */
static struct buffer make(const char *format, const char *options, const char *write)
{
    auto_free char *path = scratch_path("image");
    MUST(run_command(0, "qemu-img create -f %s %s '%s' 4M", format, options, path) == 0);
    MUST(run_command(0, "qemu-io -f %s %s '%s'", format, write, path) == 0);
    return buffer_load(path, 0);
}

/* Changes one field of a copy and expects the checker to see it. */
static void plant(const char *what, const char *format, const struct buffer *sound, uint64_t off,
                  unsigned bytes, uint64_t value, bool errors, bool leaks)
{
    struct buffer b = buffer_copy(sound, 0);
    MUST(off + bytes <= b.size);
    if (format[0] == 'q')
        put_be(b.bytes + off, bytes, value);
    else
        put_le(b.bytes + off, bytes, value);
    expect(what, format, &b, errors, leaks);
    buffer_free(&b);
}

static void check_qcow2(void)
{
    /* Where its tables are: qcow2.md sections 2 to 4. */
    struct buffer b = make("qcow2", "-o cluster_size=4k", "-c 'write 0 12k'");
    uint64_t table = get_be(b.bytes + 48, 8), block = get_be(b.bytes + table, 8);
    uint64_t l1 = get_be(b.bytes + 40, 8), entry = get_be(b.bytes + l1, 8);
    uint64_t l2 = entry & ~((uint64_t)1 << 63), data = get_be(b.bytes + l2, 8);
    uint64_t cluster = (data & ~((uint64_t)1 << 63)) / 4096;
    expect("sound qcow2", "qcow2", &b, false, false);
    plant("count 0", "qcow2", &b, block + cluster * 2, 2, 0, true, false);
    plant("count 2 under COPIED", "qcow2", &b, block + cluster * 2, 2, 2, true, true);
    plant("leaked cluster", "qcow2", &b, l2, 8, 0, false, true);
    plant("two on one cluster", "qcow2", &b, l2, 8, get_be(b.bytes + l2 + 8, 8), true, true);
    plant("past the end", "qcow2", &b, l2, 8, data + 4096 * 1000, true, true);
    plant("misaligned", "qcow2", &b, l2, 8, data + 512, true, true);
    plant("into the L1 table", "qcow2", &b, l2, 8, l1 | (uint64_t)1 << 63, true, true);
    plant("reserved bits", "qcow2", &b, l2, 8, data | 2, true, false);
    plant("dirty", "qcow2", &b, 72, 8, 1, true, false);
    plant("no magic", "qcow2", &b, 0, 4, 0, true, false);
    buffer_free(&b);
}

static void check_qcow2_kinds(void)
{
    static const char *const options[] = {"-o compat=0.10",     "-o cluster_size=512",
                                          "-o cluster_size=2M", "-o refcount_bits=1",
                                          "-o refcount_bits=2", "-o refcount_bits=4",
                                          "-o refcount_bits=8", "-o refcount_bits=64",
                                          "-o extended_l2=on",  "-o preallocation=metadata"};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        struct buffer b = make("qcow2", options[i], "-c 'write 0 100k' -c 'write 2M 3k'");
        expect(options[i], "qcow2", &b, false, false);
        buffer_free(&b);
    }
    auto_free char *path = scratch_path("image"), *packed = scratch_path("packed");
    MUST(run_command(0, "qemu-img convert -c -O qcow2 '%s' '%s'", path, packed) == 0);
    MUST(run_command(0, "qemu-img snapshot -c one '%s'", packed) == 0);
    MUST(run_command(0, "qemu-io -c 'write 0 70k' '%s'", packed) == 0);
    struct buffer b = buffer_load(packed, 0);
    expect("packed with a snapshot", "qcow2", &b, false, false);
    buffer_free(&b);
}

static void check_vmdk(void)
{
    struct buffer b = make("vmdk", "", "-c 'write 0 200k' -c 'write 1M 3k'");
    uint64_t gt = get_le(b.bytes + get_le(b.bytes + 56, 8) * 512, 4) * 512;
    uint64_t rgt = get_le(b.bytes + get_le(b.bytes + 48, 8) * 512, 4) * 512;
    uint64_t second = get_le(b.bytes + gt + 4, 4);
    expect("sound vmdk", "vmdk", &b, false, false);
    plant("only one copy", "vmdk", &b, rgt, 4, 0, true, false);
    b.bytes[72] = 1;
    plant("only one copy, not closed", "vmdk", &b, rgt, 4, 0, false, false);
    plant("two copies that differ", "vmdk", &b, rgt, 4, second + 128, true, true);
    plant("two on one grain", "vmdk", &b, gt, 4, second, true, true);
    plant("past the end", "vmdk", &b, gt + 160, 4, 1 << 20, true, false);
    plant("in metadata", "vmdk", &b, gt + 160, 4, 21, true, false);
    plant("zero without the flag", "vmdk", &b, gt + 160, 4, 1, true, false);
    plant("no magic", "vmdk", &b, 0, 4, 0, true, false);
    buffer_free(&b);
}

/* The fixture of qcow.md section 14 and what can be wrong with it. */
static void check_qcow(void)
{
    struct buffer b = make("qcow", "", "-c 'write 64k 8k'");
    expect("sound qcow", "qcow", &b, false, false);
    plant("leaked cluster", "qcow", &b, 0x1080, 8, 0, false, true);
    plant("two on one cluster", "qcow", &b, 0x1080, 8, 0x3000, true, true);
    plant("past the end", "qcow", &b, 0x1080, 8, 0x4000, true, true);
    plant("misaligned", "qcow", &b, 0x1080, 8, 0x2100, true, true);
    plant("into the L2 table", "qcow", &b, 0x1080, 8, 0x1000, true, true);
    plant("into the header", "qcow", &b, 0x1090, 8, 0x8000000000000030, true, false);
    plant("an empty compressed one", "qcow", &b, 0x1090, 8, 0x8000000000002000, true, false);
    plant("lost table", "qcow", &b, 48, 8, 0, false, true);
    plant("table past the end", "qcow", &b, 56, 8, 0x4000, true, false);
    plant("no magic", "qcow", &b, 0, 4, 0, true, false);
    buffer_free(&b);
}

int main(void)
{
    check_qcow();
    check_qcow2();
    check_qcow2_kinds();
    check_vmdk();
    return failures > 0;
}
