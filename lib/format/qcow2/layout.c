/* SPDX-License-Identifier: MIT */
/* Creation options, the layout of a new image (sections 1, 11, 12), and what it measures (section
 * 15). */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/codec.h"
#include "format/qcow2/layout.h"

static const char *const compat_values[] = {"0.10", "1.1", "v2", "v3", NULL};
static const char *const compression_values[] = {"zlib", "zstd", NULL};
static const char *const encryption_values[] = {"aes", "luks", NULL};
static const char *const preallocation_values[] = {"off", "metadata", "falloc", "full", NULL};

const struct option_def qcow2_create_options[] = {
    {.name = "cluster_size",
     .type = OPTION_SIZE,
     .value = "65536",
     .min = 0,
     .max = UINT64_MAX,
     .help = "bytes of a cluster, a power of two from 512 to 2M"},
    {.name = "compat",
     .type = OPTION_ENUM,
     .value = "1.1",
     .values = compat_values,
     .help = "version of the format: 0.10 is version 2, 1.1 is version 3"},
    {.name = "compression_type",
     .type = OPTION_ENUM,
     .value = "zlib",
     .values = compression_values,
     .help = "how compressed clusters are compressed"},
    {.name = "data_file",
     .type = OPTION_STRING,
     .help = "keep the data in a file of this name, beside the image"},
    {.name = "data_file_raw",
     .type = OPTION_BOOL,
     .value = NULL,
     .help = "keep that file the disk as it is, byte by byte"},
    {.name = "encrypt.format",
     .type = OPTION_ENUM,
     .values = encryption_values,
     .help = "encrypt the data; aes is only read, and refused here"},
    LUKS1_OPTIONS("encrypt."),
    {.name = "extended_l2",
     .type = OPTION_BOOL,
     .value = "off",
     .help = "allocate parts of clusters; needs clusters of 16K or more"},
    {.name = "lazy_refcounts",
     .type = OPTION_BOOL,
     .value = "off",
     .help = "let programs postpone the update of reference counts"},
    {.name = "preallocation",
     .type = OPTION_ENUM,
     .value = "off",
     .values = preallocation_values,
     .help = "what to allocate at once"},
    {.name = "refcount_bits",
     .type = OPTION_NUMBER,
     .value = "16",
     .min = 0,
     .max = UINT64_MAX,
     .help = "bits of a reference count, a power of two from 1 to 64"},
    {.name = NULL},
};

static int check_version_2(const struct qcow2_choice *c, struct platter_error *err)
{
    const char *what = NULL;

    if (c->version >= 3)
        return 0;
    if (c->refcount_order != 4)
        what = "refcount_bits other than 16";
    else if (c->lazy)
        what = "lazy_refcounts";
    else if (c->extended)
        what = "extended_l2";
    else if (c->zstd)
        what = "compression_type=zstd";
    else if (c->data_file)
        what = "data_file";
    return what ? fail(err, EINVAL, "%s needs compat=1.1 (version 3)", what) : 0;
}

static int choose_data_file(const struct option_values *options, struct qcow2_choice *ret,
                            struct platter_error *err)
{
    ret->data_file = options_string(options, "data_file");
    ret->data_raw = options_bool(options, "data_file_raw");
    if (ret->data_raw && !ret->data_file)
        return fail(err, EINVAL, "data-file-raw requires data-file");
    if (ret->data_file && (!*ret->data_file || strlen(ret->data_file) > QCOW2_MAX_NAME))
        return fail(err, EINVAL, "the name of a data file has 1 to %d bytes", QCOW2_MAX_NAME);
    if (ret->data_raw && options_given(options, "encrypt.format"))
        return fail(err, EINVAL,
                    "data_file_raw says that the data file is the disk as it is, which it is not "
                    "where it is encrypted");
    if (ret->data_raw && ret->preallocation == PREALLOCATION_OFF)
        ret->preallocation = PREALLOCATION_METADATA; /* section 19: the file alone is the disk */
    return 0;
}

static int choose_encryption(const struct option_values *options, struct qcow2_choice *ret,
                             struct platter_error *err)
{
    const struct option_def *def = qcow2_create_options;

    if (options_given(options, "encrypt.format")) {
        if (options_enum(options, "encrypt.format") == 0)
            return fail(err, ENOTSUP,
                        "encrypt.format=aes protects little, and new images are not made with it: "
                        "use encrypt.format=luks");
        ret->sealed = true;
        if (ret->version < 3 && ret->preallocation)
            return fail(err, EINVAL, "preallocation of an encrypted image needs compat=1.1");
        return luks1_choose(options, "encrypt.", &ret->luks, err);
    }
    for (; def->name; def++)
        if (strncmp(def->name, "encrypt.", 8) == 0 && options_given(options, def->name))
            return fail(err, EINVAL, "%s needs encrypt.format=luks", def->name);
    return 0;
}

int qcow2_choose(const struct option_values *options, struct qcow2_choice *ret,
                 struct platter_error *err)
{
    uint64_t cluster = options_number(options, "cluster_size");
    uint64_t bits = options_number(options, "refcount_bits");

    if (!is_power_of_2(cluster) || cluster < 512 || cluster > 2 << 20)
        return fail(err, EINVAL,
                    "cluster_size is %" PRIu64 ", but must be a power of two from 512 to 2M",
                    cluster);
    if (!is_power_of_2(bits) || bits > 64)
        return fail(err, EINVAL,
                    "refcount_bits is %" PRIu64 ", but must be a power of two from 1 to 64", bits);
    *ret = (struct qcow2_choice){
        .version = options_enum(options, "compat") % 2 ? 3 : 2,
        .cluster_bits = (uint32_t)__builtin_ctzll(cluster),
        .refcount_order = (uint32_t)__builtin_ctzll(bits),
        .lazy = options_bool(options, "lazy_refcounts"),
        .extended = options_bool(options, "extended_l2"),
        .zstd = options_enum(options, "compression_type") == 1,
        .preallocation = (enum preallocation)options_enum(options, "preallocation"),
    };
    if (ret->extended && ret->cluster_bits < 14)
        return fail(err, EINVAL, "extended_l2 needs a cluster_size of at least 16384 bytes");
    int r = choose_data_file(options, ret, err);
    if (r == 0)
        r = check_version_2(ret, err);
    if (r == 0 && ret->zstd)
        r = codec_check(CODEC_ZSTD, err); /* it could not be opened */
    return r < 0 ? r : choose_encryption(options, ret, err);
}

uint32_t qcow2_create_unit(const struct option_values *options)
{
    return (uint32_t)options_number(options, "cluster_size");
}

/* Clusters of refcount blocks and table for `others` clusters and themselves: the smallest that
 * holds. */
static void count_clusters(const struct qcow2_choice *c, uint64_t others, uint64_t *ret_table,
                           uint64_t *ret_blocks)
{
    uint64_t cluster = UINT64_C(1) << c->cluster_bits;
    uint64_t per_block = cluster * 8 >> c->refcount_order, table = 0, blocks = 0, before;

    do {
        before = blocks + table;
        blocks = div_up(others + before, per_block);
        table = div_up(blocks, cluster / 8);
    } while (blocks + table != before);
    *ret_table = table;
    *ret_blocks = blocks;
}

int qcow2_layout_compute(const struct qcow2_choice *c, uint64_t size, const char *name,
                         struct qcow2_layout *ret, struct platter_error *err)
{
    uint64_t cluster = UINT64_C(1) << c->cluster_bits;
    uint64_t per_l2 = cluster / (c->extended ? 16 : 8);
    uint64_t clusters = div_up(size, cluster), tables = div_up(clusters, per_l2);

    if (size > QCOW2_MAX_SIZE || tables * 8 > QCOW2_MAX_L1_BYTES)
        return fail(err, EFBIG,
                    "%s: a disk of %" PRIu64
                    " bytes is too large for qcow2 with clusters of %" PRIu64
                    " bytes; a larger cluster_size helps",
                    name, size, cluster);
    *ret = (struct qcow2_layout){
        .cluster_size = cluster, .l1_entries = tables, .l1 = div_up(tables * 8, cluster)};
    if (c->preallocation != PREALLOCATION_OFF) {
        ret->l2 = tables;
        ret->data = clusters;
    }
    if (c->sealed)
        ret->luks = div_up(luks1_area_len(&c->luks), cluster);
    uint64_t others = 1 + ret->l1 + ret->luks + ret->l2 + (c->data_file ? 0 : ret->data);
    count_clusters(c, others, &ret->reftable, &ret->blocks);
    ret->total = others + ret->reftable + ret->blocks;
    if (ret->reftable * cluster > QCOW2_MAX_REFTABLE_BYTES ||
        ret->total > QCOW2_MAX_OFFSET / cluster)
        return fail(err, EFBIG,
                    "%s: preallocating %" PRIu64
                    " bytes takes a refcount table of more than 8 MiB; a larger cluster_size helps",
                    name, size);
    return 0;
}

int qcow2_measure(uint64_t size, uint64_t data, const struct option_values *options,
                  struct platter_measurement *ret, struct platter_error *err)
{
    struct qcow2_choice c;
    struct qcow2_layout l;

    int r = qcow2_choose(options, &c, err);
    if (r < 0)
        return r;
    bool reserved = c.preallocation >= PREALLOCATION_FALLOC;
    uint64_t cluster = UINT64_C(1) << c.cluster_bits, per_l2 = cluster / (c.extended ? 16 : 8);
    c.preallocation = PREALLOCATION_OFF;
    r = qcow2_layout_compute(&c, size, "measure", &l, err);
    if (r < 0)
        return r;
    /* Here L2 tables and L1 entries are rounded to whole clusters, as section 15 has it. */
    uint64_t clusters = div_up(size, cluster);
    uint64_t l2 = div_up(clusters, per_l2), l1 = div_up(l2, cluster / 8), table, blocks;
    count_clusters(&c, 1 + l2 + l1 + clusters, &table, &blocks);
    uint64_t meta = (1 + l2 + l1 + table + blocks) * cluster;
    meta += l.luks * cluster; /* whose counts are in what is there already: section 15 */
    ret->fully_allocated = meta + clusters * cluster;
    ret->required = reserved ? ret->fully_allocated : meta + min_u64(data, clusters * cluster);
    return 0;
}
