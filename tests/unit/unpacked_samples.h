/* SPDX-License-Identifier: MIT */
/* Ways to pack a file that unpacked.c unpacks again. */
#ifndef UNIT_UNPACKED_SAMPLES_H
#define UNIT_UNPACKED_SAMPLES_H

#include "stream/wrapper.h"

/* A way to pack the file $P into $T. */
struct sample {
    const char *name;
    enum wrapper wrapper;
    const char *command;
    bool spooled; /* it cannot be read anywhere */
};

static const struct sample samples[] = {
    {"zstd, a frame", WRAP_ZSTD, "zstd -q --zstd=wlog=19 -f $P -o $T", false},
    {"zstd, frames that tell their size", WRAP_ZSTD,
     "split -b 700001 $P $T.; for p in $T.*; do zstd -q -c $p; rm $p; done > $T", false},
    {"zstd, small frames", WRAP_ZSTD,
     "split -b 70001 $P $T.; for p in $T.*; do zstd -q -1 -c $p; rm $p; done > $T", false},
    {"zstd, frames that do not tell their size", WRAP_ZSTD,
     "split -b 700001 $P $T.; for p in $T.*; do zstd -q -c < $p; rm $p; done > $T", false},
    {"zstd, not compressed", WRAP_ZSTD,
     "split -b 999999 $P $T.; for p in $T.*; do zstd -q --fast=50 -c < $p; rm $p; done > $T",
     false},
    {"zstd, skippable frames", WRAP_ZSTD,
     "split -b 700002 $P $T.; for p in $T.*; do printf '\\120\\052\\115\\030\\005\\0\\0\\0abcde'; "
     "zstd -q -c $p; rm $p; done > $T",
     false},
    {"zstd, frames and skippable ones that hold nothing", WRAP_ZSTD,
     "split -b 700003 $P $T.; for p in $T.*; do zstd -q -c </dev/null; zstd -q -c $p; rm $p; "
     "printf '\\120\\052\\115\\030\\0\\0\\0\\0'; done > $T; zstd -q -c </dev/null >> $T",
     false},
    {"pzstd", WRAP_ZSTD, "pzstd -q -p 4 -c $P > $T", false},
    {"gzip", WRAP_GZIP, "gzip -c $P > $T", false},
    {"gzip -1", WRAP_GZIP, "gzip -1 -c < $P > $T", false},
    {"gzip, members", WRAP_GZIP,
     "split -b 333333 $P $T.; for p in $T.*; do gzip -c $p; rm $p; done > $T", false},
    {"gzip, members that hold nothing", WRAP_GZIP,
     "split -b 333334 $P $T.; for p in $T.*; do gzip -c </dev/null; gzip -c < $p; rm $p; done > "
     "$T; "
     "gzip -c </dev/null >> $T",
     false},
    {"gzip, not compressed", WRAP_GZIP, "pigz -0 -p 1 -c $P > $T", false},
    {"gzip, all fields of a header, flushed at odd places", WRAP_GZIP,
     "python3 -c 'import struct, sys, zlib\n"
     "d = sys.stdin.buffer.read()\n"
     "h = bytes([31, 139, 8, 31, 0, 0, 0, 0, 0, 3]) + struct.pack(\"<H\", 40000) + bytes([31]) * "
     "40000\n"
     "h += b\"name\\0comment\\0\"\n"
     "h += struct.pack(\"<H\", zlib.crc32(h) & 65535)\n"
     "for p in range(0, len(d), 1234567):\n"
     "    part, c, o = d[p:p + 1234567], zlib.compressobj(9, 8, -15), h\n"
     "    for i in range(0, len(part), 70001):\n"
     "        o += c.compress(part[i:i + 70001]) + c.flush(1 + i % 3)\n"
     "    o += c.flush() + struct.pack(\"<II\", zlib.crc32(part), len(part))\n"
     "    sys.stdout.buffer.write(o)' < $P > $T",
     false},
    {"gzip, zeros behind it", WRAP_GZIP, "gzip -c $P > $T; head -c 100000 /dev/zero >> $T", false},
    {"pigz", WRAP_GZIP, "pigz -p 3 -c $P > $T", false},
    {"pigz -i", WRAP_GZIP, "pigz -p 3 -i -c $P > $T", false},
    {"lzop", WRAP_LZOP, "lzop -c $P > $T", false},
    {"lzop -1 of a pipe", WRAP_LZOP, "lzop -1 < $P > $T", false},
    {"lzop -7", WRAP_LZOP, "lzop -7 -c $P > $T", false},
    {"lzop --no-checksum", WRAP_LZOP, "lzop --no-checksum -c $P > $T", false},
    {"lzop --crc32 -CC", WRAP_LZOP, "lzop --crc32 -CC -c $P > $T", false},
    {"lzop, two parts", WRAP_LZOP, "split -n 2 $P $T.; lzop -c $T.aa $T.ab > $T; rm $T.*", true},
    {"bzip2", WRAP_BZIP2, "bzip2 -1 -c $P > $T", true},
    {"xz", WRAP_XZ, "xz -0 -c $P > $T", true},
};

enum { PLAIN = (4 << 20) + 12345 };

/* What is packed: text, zeros and noise, in runs of many lengths. */
static struct buffer plain;

enum { SAMPLES = sizeof samples / sizeof *samples, FRAMES_SAMPLE = 1 };

static struct buffer packed[SAMPLES];

static int make_samples(void **state)
{
    (void)state;
    struct prng prng = (struct prng){1};
    plain = buffer_new(PLAIN);
    plain.size = PLAIN;
    for (uint64_t off = 0, len; off < PLAIN; off += len) {
        len = min_u64(prng_below(&prng, 200000) + 1, PLAIN - off);
        uint64_t kind = prng_below(&prng, 4);
        for (uint64_t i = 0; i < len && kind > 0; i++)
            plain.bytes[off + i] = kind == 1 ? (uint8_t)prng_next(&prng)
                                             : (uint8_t) "image of a disk "[prng_below(&prng, 16)];
    }
    char *from = scratch_path("plain"), *to = scratch_path("packed");
    buffer_save(&plain, from);
    setenv("P", from, 1);
    setenv("T", to, 1);
    for (size_t i = 0; i < SAMPLES; i++) {
        assert_int_equal(run_command(0, "%s", samples[i].command), 0);
        packed[i] = buffer_load(to, 0);
        unlink(to);
    }
    free(from);
    free(to);
    return 0;
}

static int free_samples(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++)
        buffer_free(&packed[i]);
    buffer_free(&plain);
    return 0;
}

#endif
