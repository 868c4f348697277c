/* SPDX-License-Identifier: MIT */
/*
 * Decodes the input as a LUKS header. What is accepted must come out again as it went in (but for
 * bytes behind the end of a text, which say nothing), with all key material inside the volume; and
 * is opened with a wrong key, if that is not too much work.
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

static void try_key(const struct luks1_area *area, const struct luks1 *l)
{
    uint8_t key[CIPHER_MAX_KEY];
    unsigned slot;
    struct secret secret;
    if (secret_new(&secret, NULL) < 0)
        return;
    memcpy(secret.bytes, "wrong", secret.len = 5);
    if (luks1_unlock(area, l, &secret, WORK, 0, key, &slot, NULL) == 0 && slot >= LUKS1_SLOTS)
        fuzz_found("a slot that is none");
    secret_wipe(&secret);
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
        try_key(&area, &l);
    }
    stream_close(area.stream);
    return 0;
}
