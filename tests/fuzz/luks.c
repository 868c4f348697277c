/* SPDX-License-Identifier: MIT */
/*
 * Decodes the input as a LUKS header. What is accepted must come out again as it went in (but for
 * bytes behind the end of a text, which say nothing), with all key material inside the volume; and
 * is opened and checked, if that is not too much work. Where the key fits the disk is read, and its
 * slot emptied.
 */
#include <string.h>

#include "fuzz/target.h"

#include "format/luks1.h"

enum { WORK = 20 /* iterations that are tried */ };

static void check_inside(const struct luks1 *l, uint64_t len)
{
    for (unsigned i = 0; i < LUKS1_SLOTS; i++)
        if ((l->slots[i].material + (uint64_t)l->key_len * LUKS1_STRIPES / 512) * 512 > len)
            fuzz_found("key slot %u is not in the volume", i);
}

static void check_again(const struct luks1 *l, uint64_t len)
{
    uint8_t bytes[LUKS1_HEADER], same[LUKS1_HEADER];
    struct luks1 again;
    luks1_encode(l, bytes);
    if (luks1_decode("fuzz", 0, bytes, len, &again, NULL) < 0)
        fuzz_found("what was encoded is not accepted");
    luks1_encode(&again, same);
    if (memcmp(bytes, same, sizeof bytes) != 0)
        fuzz_found("what was encoded is decoded as something else");
    json_decref(luks1_info(l, true));
}

/* Some headers of the corpus open with this. */
static int tell(const struct name_opener *opener, const struct platter_secret *question,
                struct secret *ret, struct platter_error *err)
{
    (void)opener;
    if (question->attempt > 0)
        return fail(err, ENOKEY, "there is one key");
    memcpy(ret->bytes, "open", ret->len = 4);
    return 0;
}

static const struct name_opener opener = {.secret = tell, .kdf_limit = WORK};

static void clear_slot(const struct luks1_area *area, struct luks1 *l)
{
    uint8_t key[CIPHER_MAX_KEY];
    unsigned slot, same;
    struct secret secret;
    if (secret_new(&secret, NULL) < 0)
        return;
    if (luks1_ask(area, l, &opener, &secret, key, &slot, NULL) == 0) {
        if (slot >= LUKS1_SLOTS || !l->slots[slot].active)
            fuzz_found("a slot that is none");
        if (luks1_slot_clear(area, l, slot, NULL) < 0 || luks1_load(area, l, NULL) < 0 ||
            l->slots[slot].active)
            fuzz_found("key slot %u cannot be emptied", slot);
        if (luks1_unlock(area, l, &secret, WORK, 0, key, &same, NULL) == 0 && same <= slot)
            fuzz_found("key slot %u opens again", slot);
    }
    secret_wipe(&secret);
}

static void open_disk(struct stream *s)
{
    const struct format *format = &format_luks;
    struct platter_disk *disk;
    struct check check = {.mend_all = true, .mend_leaks = true};
    struct stream *own = stream_share(s);
    if (disk_assemble(&own, &format, 1, false, true, FUZZ_MEMORY, &opener, &disk, NULL) == 0) {
        fuzz_read(disk);
        disk_close(disk, NULL);
    }
    if (disk_assemble_for_check(stream_share(s), format, true, FUZZ_MEMORY, &opener, &disk, NULL) <
        0)
        return;
    if (format->check(disk_top(disk), &check, NULL) < 0)
        fuzz_found("a check ended");
    disk_close(disk, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct luks1_area area = {.len = 4 << 20};
    struct luks1 l;
    if (size < LUKS1_HEADER || stream_memory_open("fuzz", area.len, &area.stream, NULL) < 0)
        return 0;
    if (stream_pwrite(area.stream, data, size < area.len ? size : area.len, 0, NULL) == 0 &&
        stream_resize(area.stream, area.len, NULL) == 0 && luks1_load(&area, &l, NULL) == 0) {
        check_inside(&l, area.len);
        check_again(&l, area.len);
        open_disk(area.stream);
        clear_slot(&area, &l);
    }
    stream_close(area.stream);
    return 0;
}
