/* SPDX-License-Identifier: MIT */
/* New images: header, name, an L1 table of zeros (section 9). The header goes last. */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/secret.h"
#include "format/qcow1/qcow1.h"

static const char *const encryption_values[] = {"aes", NULL};

/* Those of qemu-img. */
const struct option_def qcow1_create_options[] = {
    {.name = "encrypt.format",
     .type = OPTION_ENUM,
     .values = encryption_values,
     .help = "encrypt the data with the AES of old, which protects little"},
    {.name = "encrypt.key-secret",
     .type = OPTION_STRING,
     .help = "id of the --object secret that is the passphrase"},
    {.name = "encryption",
     .type = OPTION_BOOL,
     .value = "off",
     .help = "the same as encrypt.format=aes"},
    {.name = NULL},
};

/* The smallest tables that hold a disk of that size, from the usual ones on; clusters stay as they
 * are, for QEMU loses data when it writes a part of a larger one over a backing file. */
static int choose_tables(struct qcow1_header *h, const char *name, struct platter_error *err)
{
    while (qcow1_l1_entries(h, h->size) * 8 > QCOW1_MAX_L1_BYTES && h->l2_bits < QCOW1_MAX_L2_BITS)
        h->l2_bits++;
    if (qcow1_l1_entries(h, h->size) * 8 <= QCOW1_MAX_L1_BYTES)
        return 0;
    return fail(err, EFBIG,
                "%s: a disk of %" PRIu64 " bytes is too large for qcow, which can have %" PRIu64
                " with clusters of %" PRIu32 " bytes: qcow2 can have more",
                name, h->size, (uint64_t)QCOW1_MAX_L1_BYTES / 8 << qcow1_l1_bits(h),
                UINT32_C(1) << h->cluster_bits);
}

static int choose(uint64_t size, const char *backing, const struct option_values *options,
                  const char *name, struct qcow1_header *ret, struct platter_error *err)
{
    bool sealed = options_given(options, "encrypt.format") || options_bool(options, "encryption");
    size_t name_len = backing ? strlen(backing) : 0;

    if (size < QCOW1_SECTOR || size % QCOW1_SECTOR)
        return fail(err, EINVAL,
                    "%s: the size %" PRIu64 " is not a multiple of 512, and at least that", name,
                    size);
    if (name_len > QCOW1_MAX_NAME)
        return fail(err, EINVAL, "%s: the name of the backing file is longer than %d bytes", name,
                    QCOW1_MAX_NAME);
    if (options_given(options, "encrypt.key-secret") && !sealed)
        return fail(err, EINVAL, "encrypt.key-secret needs encrypt.format=aes");
    *ret = (struct qcow1_header){
        .version = 1,
        .backing_offset = backing ? QCOW1_HEADER : 0,
        .backing_size = (uint32_t)name_len,
        .size = size,
        .cluster_bits = backing ? QCOW1_OVERLAY_CLUSTER_BITS : QCOW1_CLUSTER_BITS,
        .l2_bits = backing ? QCOW1_OVERLAY_L2_BITS : QCOW1_L2_BITS,
        .crypt_method = sealed,
        .l1_offset = round_up(QCOW1_HEADER + name_len, 8),
    };
    return choose_tables(ret, name, err);
}

/* Nothing in the image tells the passphrase, but who makes one without any cannot read it. */
static int ask_for_key(const struct create_request *request, struct platter_error *err)
{
    const struct platter_secret question = {
        .size = sizeof question,
        .kind = PLATTER_SECRET_NEW,
        .image = request->name,
        .id = options_string(request->options, "encrypt.key-secret")};
    struct secret secret;
    int r = secret_new(&secret, err);
    if (r == 0)
        r = ask_secret(request->opener, &question, &secret, err);
    secret_wipe(&secret);
    return r;
}

int qcow1_create(const struct create_request *request, struct platter_error *err)
{
    uint8_t bytes[QCOW1_HEADER + QCOW1_MAX_NAME];
    struct qcow1_header h;

    int r = choose(request->size, request->backing_name, request->options, request->name, &h, err);
    if (r == 0 && h.crypt_method)
        r = ask_for_key(request, err);
    if (r < 0)
        return r;
    qcow1_header_encode(&h, bytes);
    if (request->backing_name)
        memcpy(bytes + QCOW1_HEADER, request->backing_name, h.backing_size);
    /* In units of 512 bytes, as QEMU has it. */
    uint64_t l1 = round_up(qcow1_l1_entries(&h, h.size) * 8, QCOW1_SECTOR);
    r = stream_resize(request->stream, 0, err);
    if (r == 0)
        r = stream_resize(request->stream, h.l1_offset + l1, err);
    return r < 0 ? r : stream_pwrite(request->stream, bytes, QCOW1_HEADER + h.backing_size, 0, err);
}

uint32_t qcow1_create_unit(const struct option_values *options)
{
    (void)options;
    return UINT32_C(1) << QCOW1_CLUSTER_BITS;
}

int qcow1_measure(uint64_t size, uint64_t data, const struct option_values *options,
                  struct platter_measurement *ret, struct platter_error *err)
{
    struct qcow1_header h;

    int r = choose(round_up(size, QCOW1_SECTOR), NULL, options, "measure", &h, err);
    if (r < 0)
        return r;
    uint64_t cluster = UINT64_C(1) << h.cluster_bits, tables = qcow1_l1_entries(&h, size);
    uint64_t all = round_up(size, cluster);
    uint64_t meta = round_up(h.l1_offset + round_up(tables * 8, QCOW1_SECTOR), cluster) +
                    tables * round_up(UINT64_C(8) << h.l2_bits, cluster);
    ret->fully_allocated = meta + all;
    ret->required = meta + min_u64(data, all);
    return 0;
}
