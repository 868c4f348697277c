/* SPDX-License-Identifier: MIT */
/* Archives that are strange, and sound all the same (vma.md sections 7.3 and 11): nobody may find a
 * fault with them, however they are read. And that the tests' own writer is right itself. */
#include "unit.h"

#include <nettle/sha2.h>
#include <stdlib.h>

#include "archives.h"
#include "base/memory.h"
#include "support/process.h"

static void stay(struct vmaimage *v)
{
    (void)v;
}
static void reserved_in_slot(struct vmaimage *v)
{
    for (unsigned i = 0; i < VI_SLOTS; i++)
        v->extents[1].slots[i].reserved = 0xee;
    vmaimage_write(v);
}
static void header_of_any_length(struct vmaimage *v)
{
    v->align = 1;
    v->blob_gap = 3;
    vmaimage_write(v);
}
static void full_masks(struct vmaimage *v)
{
    vmaimage_arrange(v, VI_SHUFFLED, 100);
    vmaimage_pack(v, VI_SLOTS, 0);
    vmaimage_write(v);
}
static void empty_slots(struct vmaimage *v)
{
    vmaimage_arrange(v, VI_TURNS, 0);
    vmaimage_pack(v, 2, 70);
    vmaimage_write(v);
}
static void names_of_configs(struct vmaimage *v)
{
    static uint8_t largest[65535];
    vmaimage_add_config(v, "../x", "y", 1);
    vmaimage_add_config(v, "empty", "", 0);
    vmaimage_add_config(v, "largest", largest, sizeof largest);
    vmaimage_write(v);
}
static void state_with_zeros(struct vmaimage *v)
{
    memset(v->disks[2].content + VI_CLUSTER, 0, VI_CLUSTER + 3 * VI_BLOCK);
    vmaimage_arrange(v, VI_TURNS, 0);
    vmaimage_pack(v, 3, 0);
    vmaimage_write(v);
}
static void state_of_other_size(struct vmaimage *v)
{
    v->disks[2].size = 1;
    vmaimage_write(v);
}
static void blobs_rounded(struct vmaimage *v)
{
    in_header(v, VI_BLOBS_SIZE_AT, 4, v->header_size - VI_FIXED);
}
static void other_ids(struct vmaimage *v)
{
    v->disks[0].id = 7;
    v->disks[1].id = 255;
    v->disks[2].id = 254;
    vmaimage_arrange(v, VI_TURNS, 0);
    vmaimage_pack(v, 3, 0);
    vmaimage_write(v);
}
static void drop_disks(struct vmaimage *v)
{
    while (v->n_disks)
        free(v->disks[--v->n_disks].content);
}
static void no_disks(struct vmaimage *v)
{
    drop_disks(v);
    v->n_extents = 1;
    v->extents[0] = (struct vmaimage_extent){0};
    vmaimage_write(v);
}
static void header_only(struct vmaimage *v)
{
    drop_disks(v);
    v->n_extents = 0;
    vmaimage_write(v);
}
/* Section 7.3: pointers to the names, and a cluster of zeros behind the end. */
static void displaced(struct vmaimage *v)
{
    v->displaced = true;
    vmaimage_write(v);
}
static void zeros_behind_the_end(struct vmaimage *v)
{
    static const uint8_t zeros[VI_CLUSTER];
    *last_slot(v) =
        (struct vmaimage_slot){.device = VIRTIO, .mask = VI_FULL, .cluster = 2, .data = zeros};
    vmaimage_write(v);
}

struct sound_case {
    const char *name;
    void (*change)(struct vmaimage *v);
    bool note; /* it is told that this is unusual */
};

static const struct sound_case sound[] = {
    {"as it is", stay},
    {"reserved bytes in slots", reserved_in_slot},
    {"header of any length", header_of_any_length},
    {"full masks, rubbish behind the end, 59 slots", full_masks},
    {"empty slots and extents", empty_slots},
    {"configurations", names_of_configs},
    {"zeros in a state", state_with_zeros},
    {"size of a state", state_of_other_size},
    {"rounded blobs", blobs_rounded},
    {"device numbers", other_ids},
    {"no disks", no_disks},
    {"header only", header_only},
    {"displaced configuration", displaced, true},
    {"zeros behind the end", zeros_behind_the_end, true},
};

static void test_sound(void **state)
{
    (void)state;
    static const unsigned modes[] = {0,
                                     ARCHIVE_HEADERS,
                                     ARCHIVE_VERIFY,
                                     ARCHIVE_VERIFY | ARCHIVE_HEADERS,
                                     ARCHIVE_SALVAGE,
                                     PIPE,
                                     PIPE | ARCHIVE_HEADERS,
                                     PIPE | ARCHIVE_SALVAGE};
    auto_free char *path = scratch_path("archive.vma");
    for (size_t i = 0; i < sizeof sound / sizeof *sound; i++) {
        struct vmaimage v;
        make_plain(&v);
        sound[i].change(&v);
        for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
            struct platter_error why = {0};
            struct told told = {0};
            /* Whether data behind the end is zeros only who reads data can see. */
            bool headers = modes[m] & ARCHIVE_HEADERS;
            int r = read_through(&v, modes[m], &told, &why);
            if (r != 0 || told.n)
                fail_msg("%s, flags %u: %d, %s, %s", sound[i].name, modes[m], r, why.message,
                         told.last);
            if (!headers && (told.notes > 0) != sound[i].note)
                fail_msg("%s, flags %u: %u notes: %s", sound[i].name, modes[m], told.notes,
                         told.last);
        }
        struct platter_error why = {0};
        buffer_save(&v.file, path);
        if (v.n_disks && read_anywhere(path, &why) != 0)
            fail_msg("%s, anywhere: %s", sound[i].name, why.message);
        vmaimage_free(&v);
    }
}

/* ---- the archive of section 11 ------------------------------------------------------------------
 */

/* By the tests' own writer: so that one is known to be right. */
static void test_vector(void **state)
{
    (void)state;
    static const uint8_t expected[] = {0x9d, 0x8b, 0xc7, 0xcd, 0xe7, 0x3c, 0x7e, 0x8e,
                                       0x79, 0xe1, 0xaf, 0x2f, 0x0b, 0x2e, 0x79, 0xfb,
                                       0x63, 0x0b, 0xf9, 0xfe, 0x65, 0xa1, 0x85, 0x58,
                                       0xba, 0x54, 0xe2, 0x40, 0xf3, 0x9f, 0xef, 0x5d};
    uint8_t got[SHA256_DIGEST_SIZE];
    struct sha256_ctx sha;
    struct vmaimage v;
    vmaimage_start(&v, 1);
    memset(v.uuid, 0x11, sizeof v.uuid);
    vmaimage_add_config(&v, "qemu-server.conf", "memory: 512\n", 12);
    struct vmaimage_disk *d = vmaimage_add_disk(&v, 1, "drive-scsi0", 66048, false);
    memset(d->content + VI_CLUSTER, 0x78, 512);
    vmaimage_arrange(&v, VI_ASCENDING, 0);
    vmaimage_pack(&v, 58, 0);
    vmaimage_write(&v);
    assert_int_equal(v.file.size, 17408);
    sha256_init(&sha);
    sha256_update(&sha, v.file.size, v.file.bytes);
    sha256_digest(&sha, sizeof got, got);
    assert_memory_equal(got, expected, sizeof got);
    vmaimage_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vector), cmocka_unit_test(test_sound)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
