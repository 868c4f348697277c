/* SPDX-License-Identifier: MIT */
/*
 * Reads the input as a VMA archive, front to back. Its first byte says how: which flags, over what
 * can be read anywhere or not, with a uuid to go by, and whether the checksums are made right
 * first.
 */
#include "base/ckd.h"
#include "format/archive.h"
#include "fuzz/target.h"
#include "fuzz/vma_seal.h"

enum {
    MOST = 1 << 20,
    SEAL = 1 << 3,
    PIPE = 1 << 4,
    GIVE_UUID = 1 << 5,
    ONE_DISK = 1 << 6,
    MOST_DISKS = 256
};

struct reading {
    uint64_t size; /* of the input */
    uint64_t came[MOST_DISKS];
    uint64_t faults;
};

static void take_fault(void *opaque, const struct archive_fault *f)
{
    struct reading *g = opaque;
    if (!f->text || !f->text[0])
        fuzz_found("a fault without a word");
    /* Each has a place of its own: a slot, or a run of bytes or of clusters that are there. */
    if (++g->faults > 600 + g->size)
        fuzz_found("faults without end");
}

static bool is_wanted(void *opaque, const struct archive_disk *disk)
{
    return disk->id == *(const unsigned *)opaque;
}

static void check_run(struct reading *g, const struct archive_batch *b, size_t room,
                      const struct archive_run *run)
{
    const struct archive_disk *d = run->disk;
    uint64_t end;
    if (run->len == 0 || ckd_add(&end, run->off, run->len))
        fuzz_found("a run of nothing, or past 2^64");
    if (!d->state && !d->unsized && end > d->size)
        fuzz_found("a run past the end of its disk");
    if (run->bytes && (run->zero || run->bytes < b->room || run->len > room ||
                       run->bytes > b->room + room - run->len))
        fuzz_found("bytes of a run that are not in the room");
    g->came[d->id] += run->len;
    for (uint64_t i = 0; run->bytes && i < run->len; i += 512)
        (void)*(const volatile uint8_t *)(run->bytes + i);
}

static int read_all(struct archive_reader *r, struct reading *g, struct platter_error *err)
{
    static uint8_t *room; /* one for all runs */
    static size_t room_size;
    struct archive_batch batch = {0};
    uint64_t batches = 0;
    int e;

    if (room_size < r->batch_bytes) {
        free(room);
        room_size = r->batch_bytes;
        if (!(room = aligned_alloc(4096, round_up(room_size, 4096))))
            abort();
    }
    batch.room = room;
    while ((e = r->ops->next(r, &batch, err)) > 0) {
        if (++batches > 2 + g->size / 512)
            fuzz_found("batches without end");
        for (unsigned i = 0; i < batch.n_runs; i++)
            check_run(g, &batch, r->batch_bytes, &batch.runs[i]);
    }
    return e;
}

/* What came is what the reader says that it has. */
static void check_have(struct archive_reader *r, const struct reading *g, int wanted)
{
    for (unsigned i = 0; i < r->listing.n_disks; i++) {
        const struct archive_disk *d = &r->listing.disks[i];
        uint64_t have = r->ops->have(r, d);
        if (wanted >= 0 && d->id != (unsigned)wanted)
            continue;
        if (have < g->came[d->id] || (have > g->came[d->id] && !d->state && !d->unsized))
            fuzz_found("%s has other bytes than came", d->name);
    }
}

static void read_archive(struct stream *s, unsigned how, const uint8_t *bytes, uint64_t size)
{
    struct reading g = {.size = size};
    struct platter_error err = {0};
    struct budget *budget = budget_new(4 * FUZZ_MEMORY);
    struct archive_request request = {.stream = s,
                                      .flags = how &
                                               (ARCHIVE_HEADERS | ARCHIVE_VERIFY | ARCHIVE_SALVAGE),
                                      .budget = budget,
                                      .fault = take_fault,
                                      .opaque = &g};
    struct archive_reader *r = NULL;
    unsigned wanted = 1;

    if (how & GIVE_UUID && size >= 24)
        request.uuid = bytes + 8;
    int e = format_find("vma")->archive->reader_open(&request, &r, &err);
    if (e == 0) {
        if (how & ONE_DISK) {
            r->wanted = is_wanted;
            r->wanted_opaque = &wanted;
        }
        e = read_all(r, &g, &err);
        if (e == 0)
            check_have(r, &g, how & ONE_DISK ? (int)wanted : -1);
        r->ops->close(r);
    }
    if (e < 0 && !err.message[0])
        fuzz_found("failed without a word");
    budget_unref(budget);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[MOST];
    struct stream *s;
    if (size == 0 || size > MOST)
        return 0;
    struct buffer file = {.bytes = bytes, .size = size - 1, .capacity = size - 1};
    memcpy(bytes, data + 1, file.size);
    if (data[0] & SEAL)
        vma_seal_all(bytes, file.size);
    int r = data[0] & PIPE ? stream_buffer_input_open(&file, "fuzz", &s, NULL)
                           : stream_buffer_open(&file, "fuzz", false, &s, NULL);
    if (r != 0)
        abort();
    read_archive(s, data[0], bytes, file.size);
    stream_close(s);
    return 0;
}
