/* SPDX-License-Identifier: MIT */
/*
 * Changes of key slots, cut off at every point, and with each call to the file failing once. What
 * is left must be a header that makes sense, and open with what opened it before or with what opens
 * it after; with both where the change only adds, and never with what was removed once that is
 * durable.
 */
#include "base/ckd.h"
#include "base/memory.h"
#include "format/luks1.h"
#include "support/fault.h"
#include "support/log.h"
#include "support/must.h"

enum {
    SUBSETS = 2, /* of what was not flushed, at each point */
    ONE = 1,     /* secrets that open a volume, as bits */
    TWO = 2
};

static const uint8_t data_key[CIPHER_MAX_KEY] = {1, 2, 3, 5, 8, 13};
static struct secret secrets[2];

struct change {
    const char *name;
    unsigned slot_one, slot_two; /* the slots of the two secrets */
    int (*run)(const struct luks1_area *area, struct luks1 *l, const struct change *c,
               struct platter_error *err);
    unsigned before, always; /* secrets that open it before, and at every point */
    unsigned after;
};

static int add(const struct luks1_area *area, struct luks1 *l, const struct change *c,
               struct platter_error *err)
{
    return luks1_slot_fill(area, l, c->slot_two, data_key, &secrets[1], 1, err);
}

static int remove_two(const struct luks1_area *area, struct luks1 *l, const struct change *c,
                      struct platter_error *err)
{
    return luks1_slot_clear(area, l, c->slot_two, err);
}

static int change_key(const struct luks1_area *area, struct luks1 *l, const struct change *c,
                      struct platter_error *err)
{
    int r = add(area, l, c, err);
    return r < 0 ? r : luks1_slot_clear(area, l, c->slot_one, err);
}

static int replace(const struct luks1_area *area, struct luks1 *l, const struct change *c,
                   struct platter_error *err)
{
    return luks1_slot_replace(area, l, c->slot_one, data_key, &secrets[1], 1, err);
}

/* Slot 6 lies in two sectors of the header. */
static const struct change changes[] = {
    {"add 1", 0, 1, add, ONE, ONE, ONE | TWO},
    {"add 6", 0, 6, add, ONE, ONE, ONE | TWO},
    {"remove 6", 0, 6, remove_two, ONE | TWO, ONE, ONE},
    {"change 6 to 7", 6, 7, change_key, ONE, 0, TWO},
    {"change 7 to 6", 7, 6, change_key, ONE, 0, TWO},
    {"replace 6", 6, 1, replace, ONE, 0, TWO},
    {NULL},
};

static unsigned failures, states;

static void complain(const struct change *c, size_t at, const char *what)
{
    fprintf(stderr, "%s, at %zu: %s\n", c->name, at, what);
    failures++;
}

/* ---- volumes --------------------------------------------------------------------------------- */

/* Small keys, for little material. The digest is that of data_key. */
static struct luks1 empty_header(void)
{
    struct luks1 l = {.cipher = "aes", .mode = "cbc-plain64", .hash = "sha256", .key_len = 16};
    uint32_t sectors = luks1_material_sectors(l.key_len);
    l.payload = LUKS1_FIRST_MATERIAL + LUKS1_SLOTS * sectors;
    l.iterations = 10;
    for (unsigned i = 0; i < LUKS1_SLOTS; i++)
        l.slots[i] = (struct luks1_slot){.material = LUKS1_FIRST_MATERIAL + i * sectors,
                                         .stripes = LUKS1_STRIPES};
    MUST(pbkdf2_derive(hash_find(l.hash), data_key, l.key_len, l.salt, LUKS1_SALT, l.iterations,
                       l.digest, LUKS1_DIGEST, NULL) == 0);
    return l;
}

static struct luks1_area area_over(struct stream *s, const struct luks1 *l)
{
    return (struct luks1_area){.stream = s, .len = l->payload * UINT64_C(512)};
}

/* A volume before the change. */
static struct stream *make_volume(const struct change *c, struct luks1 *ret)
{
    struct stream *s;
    uint8_t bytes[LUKS1_HEADER];
    *ret = empty_header();
    luks1_encode(ret, bytes);
    MUST(stream_memory_open("volume", 4 << 20, &s, NULL) == 0);
    struct luks1_area area = area_over(s, ret);
    MUST(stream_resize(s, area.len, NULL) == 0);
    MUST(stream_pwrite(s, bytes, sizeof bytes, 0, NULL) == 0);
    MUST(luks1_slot_fill(&area, ret, c->slot_one, data_key, &secrets[0], 1, NULL) == 0);
    if (c->before & TWO)
        MUST(luks1_slot_fill(&area, ret, c->slot_two, data_key, &secrets[1], 1, NULL) == 0);
    return s;
}

/* Which secrets open a volume; complains where the header is none, or the key another one. */
static unsigned opens(const struct change *c, struct stream *s, size_t at)
{
    struct luks1 sound = empty_header(), l;
    const struct luks1_area area = area_over(s, &sound);
    struct platter_error err = {0};
    uint8_t key[CIPHER_MAX_KEY];
    unsigned ret = 0, open = 0;

    if (luks1_load(&area, &l, &err) < 0) {
        complain(c, at, err.message);
        return 0;
    }
    for (unsigned i = 0; i < 2; i++)
        for (unsigned slot = 0; slot < LUKS1_SLOTS; slot++) {
            int r = luks1_unlock(&area, &l, &secrets[i], 0, slot, key, &slot, &err);
            if (r < 0 && r != -EACCES)
                complain(c, at, err.message);
            if (r < 0)
                break;
            if (memcmp(key, data_key, l.key_len) != 0)
                complain(c, at, "another key comes out");
            ret |= 1u << i;
            open |= 1u << slot;
        }
    for (unsigned slot = 0; slot < LUKS1_SLOTS; slot++)
        if (l.slots[slot].active && !(open >> slot & 1))
            complain(c, at, "a slot that is in use opens with nothing");
    return ret;
}

static void judge(const struct change *c, struct stream *s, size_t at, bool over)
{
    unsigned now = opens(c, s, at);
    states++;
    if ((now & c->always) != c->always)
        complain(c, at, "what always opens it does not");
    if (!(now & (c->before | c->after)))
        complain(c, at, "nothing opens it");
    if (over && now != c->after)
        complain(c, at, "it is over, but another secret opens it than should");
}

/* ---- crashes --------------------------------------------------------------------------------- */

static void judge_state(const struct change *c, const struct log_state *state, size_t at, bool over)
{
    struct stream *s = log_state_open(state, "after a crash");
    MUST(s);
    judge(c, s, at, over);
    stream_close(s);
}

static void crash(const struct change *c)
{
    struct write_log *log = write_log_new();
    struct log_state state = {0};
    struct luks1 l;
    struct stream *s = make_volume(c, &l);
    MUST(log && stream_log_open(log, s, &s, NULL) == 0);
    const struct luks1_area area = area_over(s, &l);
    MUST(c->run(&area, &l, c, NULL) == 0);
    if (write_log_loose(log, 0) != 0)
        complain(c, write_log_length(log), "it was told, but is not durable");
    stream_close(s);
    size_t n = write_log_length(log);
    for (size_t i = 0; i <= n; i++) {
        write_log_prefix(log, 0, i, &state);
        judge_state(c, &state, i, i == n);
        for (uint64_t seed = 0; seed < SUBSETS; seed++) {
            write_log_crash(log, 0, i, seed, &state);
            judge_state(c, &state, i, i == n);
        }
    }
    log_state_free(&state);
    write_log_free(log);
}

/* ---- faults ---------------------------------------------------------------------------------- */

/* True while the plan still struck. */
static bool fault(const struct change *c, uint64_t at, bool torn)
{
    struct fault_plan plan = {
        .kinds = FAULT_ALL, .at = at, .lasting = torn, .torn = torn, .code = EIO};
    struct platter_error err = {0};
    struct luks1 l;
    struct stream *volume = make_volume(c, &l), *s;
    MUST(stream_fault_open(stream_share(volume), &plan, &s, NULL) == 0);
    const struct luks1_area area = area_over(s, &l);
    int r = c->run(&area, &l, c, &err);
    bool struck = plan.failed > 0;
    stream_close(s);
    if (struck != (r < 0) || (r < 0 && (err.code != -r || !err.message[0])))
        complain(c, (size_t)at, "a failure was not told, or one was told that was none");
    judge(c, volume, (size_t)at, r == 0);
    stream_close(volume);
    return struck;
}

int main(void)
{
    static const char *const texts[] = {"one", "two"};
    for (unsigned i = 0; i < 2; i++) {
        MUST(secret_new(&secrets[i], NULL) == 0);
        secrets[i].len = strlen(texts[i]);
        memcpy(secrets[i].bytes, texts[i], secrets[i].len);
    }
    for (const struct change *c = changes; c->name; c++) {
        crash(c);
        for (unsigned torn = 0; torn < 2; torn++)
            for (uint64_t at = 1; fault(c, at, torn); at++)
                ;
    }
    printf("%u states, %u failures\n", states, failures);
    secret_wipe(&secrets[0]);
    secret_wipe(&secrets[1]);
    return failures != 0 || states < 100;
}
