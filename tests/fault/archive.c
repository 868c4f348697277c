/* SPDX-License-Identifier: MIT */
/*
 * Archives that are verified, extracted and created while allocation N fails, and read while call N
 * of their file fails. What fails says why, and leaves no file behind; what succeeds is right: no
 * verification says that all is well without having seen all, and no disk comes out changed.
 */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "format/archive.h"
#include "platter/platter.h"
#include "support/alloc.h"
#include "support/fault.h"
#include "support/must.h"
#include "support/process.h"
#include "support/vmaimage.h"

enum { MAX_RUNS = 100000, DISKS = 2 };

struct work {
    struct vmaimage v;
    char *archive, *hurt;
    /* The folder, which has nothing else in it, and what is made there. */
    char *folder, *target, *digest, *config, *disks[DISKS];
    uint64_t seen; /* faults */
};

/* One attempt: 0, or negative and a sentence; and what is looked at where it succeeded, when
 * nothing fails any more. */
struct attempt {
    const char *name;
    int (*work)(struct work *w, struct platter_error *err);
    void (*check)(struct work *w);
};

static void see(void *opaque, const struct platter_fault *f)
{
    MUST(f->text && f->text[0]);
    ((struct work *)opaque)->seen += f->kind != PLATTER_FAULT_NOTE;
}

static int open_archive(struct work *w, struct platter_archive **ret, struct platter_error *err)
{
    struct platter_archive_options options = {.size = sizeof options, .fault = see, .opaque = w};
    w->seen = 0;
    return platter_archive_open(w->archive, &options, ret, err);
}

/* The same archive with a header whose checksum is wrong, and an extent that does not begin where
 * it should. */
static int open_hurt(struct work *w, struct platter_archive **ret, struct platter_error *err)
{
    struct platter_archive_options options = {
        .size = sizeof options, .flags = PLATTER_ARCHIVE_SALVAGE, .fault = see, .opaque = w};
    w->seen = 0;
    return platter_archive_open(w->hurt, &options, ret, err);
}

/* ---- what is tried -----------------------------------------------------------------------------
 */

static int try_verify(struct work *w, struct platter_error *err)
{
    struct platter_verify_options options = {
        .size = sizeof options, .flags = PLATTER_VERIFY_DATA, .workers = 2};
    struct platter_verification result = {.size = sizeof result};
    struct platter_archive *a;
    int r = open_archive(w, &a, err);
    if (r < 0)
        return r;
    r = platter_archive_verify(a, &options, &result, err);
    platter_archive_close(a);
    if (r < 0)
        return r;
    MUST(w->seen == 0 && result.faults == 0 && result.missing == 0);
    MUST(result.extents == w->v.n_extents && result.clusters == w->v.n_slots);
    return 0;
}

static int try_salvage(struct work *w, struct platter_error *err)
{
    struct platter_verify_options options = {
        .size = sizeof options, .flags = PLATTER_VERIFY_DATA, .workers = 2};
    struct platter_verification result = {.size = sizeof result};
    struct platter_archive *a;
    int r = open_hurt(w, &a, err);
    if (r < 0)
        return r;
    r = platter_archive_verify(a, &options, &result, err);
    platter_archive_close(a);
    if (r < 0)
        return r;
    MUST(w->seen > 1 && result.faults == w->seen && result.missing == 0);
    MUST(result.extents == w->v.n_extents && result.clusters == w->v.n_slots);
    return 0;
}

static void check_disk(const char *path, const struct vmaimage_disk *d)
{
    struct buffer b = buffer_load(path, 0);
    MUST(b.size == d->size && memcmp(b.bytes, d->content, d->size) == 0);
    buffer_free(&b);
    MUST(unlink(path) == 0);
}

static int try_extract(struct work *w, struct platter_error *err)
{
    struct platter_extract_target targets[DISKS] = {
        {.size = sizeof targets[0], .disk = w->v.disks[0].name, .target = w->disks[0]},
        {.size = sizeof targets[0], .disk = w->v.disks[1].name, .target = w->disks[1]}};
    const struct platter_extract_target *list[DISKS] = {&targets[0], &targets[1]};
    struct platter_extract_options options = {.size = sizeof options,
                                              .flags = PLATTER_EXTRACT_UNSAFE,
                                              .targets = list,
                                              .n_targets = DISKS,
                                              .workers = 2};
    struct platter_archive *a;
    uint64_t holes = 0;
    int r = open_archive(w, &a, err);
    if (r < 0)
        return r;
    r = platter_archive_extract(a, &options, &holes, err);
    platter_archive_close(a);
    if (r < 0)
        return r;
    MUST(holes == 0 && w->seen == 0);
    return 0;
}

static void check_extracted(struct work *w)
{
    for (unsigned i = 0; i < DISKS; i++)
        check_disk(w->disks[i], &w->v.disks[i]);
}

static int try_info(struct work *w, struct platter_error *err)
{
    struct platter_archive *a;
    char *json = NULL;
    int r = open_archive(w, &a, err);
    if (r < 0)
        return r;
    r = platter_archive_info(a, &json, err);
    if (r == 0)
        r = platter_archive_save_config(a, 0, w->folder, 0, err);
    platter_archive_close(a);
    if (r < 0) {
        platter_free(json);
        return r;
    }
    MUST(strstr(json, "drive-scsi0") && strstr(json, "drive-efidisk0") &&
         strstr(json, "qemu-server.conf"));
    platter_free(json);
    return 0;
}

/* The disks of one archive to another, with digests beside it and in it. */
static int create_from(struct work *w, struct platter_disk **disks, struct platter_error *err)
{
    struct platter_archive_source sources[DISKS] = {0};
    const struct platter_archive_source *list[DISKS];
    struct platter_archive_plan plan = {.size = sizeof plan,
                                        .flags = PLATTER_ARCHIVE_REPRODUCIBLE |
                                                 PLATTER_ARCHIVE_EMBED_DIGEST |
                                                 PLATTER_ARCHIVE_UNSAFE,
                                        .compression = "gzip",
                                        .disks = list,
                                        .n_disks = DISKS,
                                        .digest = w->digest,
                                        .workers = 2};
    for (unsigned i = 0; i < DISKS; i++) {
        sources[i] = (struct platter_archive_source){
            .size = sizeof sources[i], .name = w->v.disks[i].name, .disk = disks[i]};
        list[i] = &sources[i];
    }
    return platter_archive_create(w->target, &plan, NULL, err);
}

static int try_create(struct work *w, struct platter_error *err)
{
    struct platter_disk *disks[DISKS] = {0};
    int r = 0;
    for (unsigned i = 0; r == 0 && i < DISKS; i++) {
        struct platter_open_options options = {
            .size = sizeof options, .format = "vma", .view = w->v.disks[i].name};
        r = platter_open(w->archive, &options, &disks[i], err);
    }
    if (r == 0)
        r = create_from(w, disks, err);
    for (unsigned i = 0; i < DISKS; i++)
        platter_close(disks[i], NULL);
    return r;
}

/* What was made is read as it is meant to be. */
static void check_created(struct work *w)
{
    struct work made = *w;
    struct platter_error err = {0};
    made.archive = w->target;
    MUST(try_extract(&made, &err) == 0);
    check_extracted(&made);
    MUST(unlink(w->target) == 0 && unlink(w->digest) == 0);
}

static void check_nothing(struct work *w)
{
    (void)w;
}

static void check_config(struct work *w)
{
    MUST(unlink(w->config) == 0);
}

static const struct attempt attempts[] = {{"info", try_info, check_config},
                                          {"verify", try_verify, check_nothing},
                                          {"salvage", try_salvage, check_nothing},
                                          {"extract", try_extract, check_extracted},
                                          {"create", try_create, check_created}};

/* ---- failing allocations ------------------------------------------------------------------------
 */

static unsigned files_in(const char *path)
{
    unsigned n = 0;
    DIR *folder = opendir(path);
    MUST(folder);
    while (readdir(folder))
        n++;
    closedir(folder);
    return n - 2;
}

static void fail_allocations(struct work *w, const struct attempt *a, bool lasting)
{
    unsigned failed = 0;
    for (uint64_t at = 1;; at++) {
        struct platter_error err = {0};
        MUST(at < MAX_RUNS);
        alloc_fail_at(at, lasting);
        int r = a->work(w, &err);
        bool struck = alloc_failed() > 0;
        alloc_fail_at(0, false);
        if (r == 0)
            a->check(w);
        if (r < 0 && (!err.message[0] || r != -err.code)) {
            fprintf(stderr, "%s, allocation %" PRIu64 ": %d without a word\n", a->name, at, r);
            exit(1);
        }
        if (files_in(w->folder)) {
            fprintf(stderr, "%s, allocation %" PRIu64 ": left a file behind\n", a->name, at);
            exit(1);
        }
        failed += r < 0;
        if (!struck)
            break;
    }
    printf("%s, %s: %u failed\n", a->name, lasting ? "no allocation works any more" : "one fails",
           failed);
    MUST(failed > 0);
}

/* ---- failing reads ------------------------------------------------------------------------------
 */

static void count_fault(void *opaque, const struct archive_fault *f)
{
    MUST(f->text && f->text[0]);
    *(unsigned *)opaque += f->kind != ARCHIVE_FAULT_NOTE;
}

/* Reads all; whether all came is to be known from the answer and what was told. */
static int read_through(struct work *w, unsigned flags, struct fault_plan *plan, unsigned *told)
{
    struct platter_error err = {0};
    struct budget *budget = budget_new(32 << 20);
    struct archive_request request = {
        .flags = flags, .budget = budget, .fault = count_fault, .opaque = told};
    struct archive_reader *reader = NULL;
    struct archive_batch batch = {0};
    uint64_t came = 0, all = 0;

    MUST(stream_buffer_open(&w->v.file, "archive", false, &request.stream, NULL) == 0);
    MUST(stream_fault_open(request.stream, plan, &request.stream, NULL) == 0);
    int r = format_find("vma")->archive->reader_open(&request, &reader, &err);
    if (r == 0) {
        MUST((batch.room = malloc(reader->batch_bytes)));
        while ((r = reader->ops->next(reader, &batch, &err)) > 0)
            for (unsigned i = 0; i < batch.n_runs; i++)
                came += batch.runs[i].len;
        reader->ops->close(reader);
        free(batch.room);
    }
    stream_close(request.stream);
    budget_unref(budget);
    for (unsigned i = 0; i < w->v.n_disks; i++)
        all += w->v.disks[i].size;
    MUST(r == 0 || err.message[0]);
    MUST(r < 0 || *told > 0 || came == all);
    return r;
}

/* All reads from one on: a salvage tells what is lost, and ends. */
static void fail_rest(struct work *w)
{
    for (uint64_t at = 1;; at++) {
        struct fault_plan plan = {.kinds = FAULT_PREAD, .at = at, .lasting = true, .code = EIO};
        unsigned told = 0;
        MUST(at < MAX_RUNS);
        int r = read_through(w, ARCHIVE_SALVAGE, &plan, &told);
        if (plan.failed == 0)
            break;
        MUST(told > 0);
        MUST(r == 0 || at <= 2); /* the header is lost, and so are the extents */
        MUST(plan.failed < 300); /* and nobody asks a disk for ever that is gone */
    }
}

static void fail_reads(struct work *w)
{
    static const unsigned modes[] = {0, ARCHIVE_HEADERS, ARCHIVE_VERIFY, ARCHIVE_SALVAGE};
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        unsigned failed = 0;
        for (uint64_t at = 1;; at++) {
            struct fault_plan plan = {.kinds = FAULT_PREAD | FAULT_SIZE, .at = at, .code = EIO};
            unsigned told = 0;
            MUST(at < MAX_RUNS);
            int r = read_through(w, modes[m], &plan, &told);
            bool struck = atomic_load(&plan.failed) > 0;
            /* A salvage tries again, and nothing is lost if it works. */
            if (struck && r == 0 && told == 0 && !(modes[m] & ARCHIVE_SALVAGE)) {
                fprintf(stderr, "flags %u: call %" PRIu64 " failed in silence\n", modes[m], at);
                exit(1);
            }
            if (!struck) {
                MUST(r == 0 && told == 0);
                break;
            }
            failed++;
        }
        printf("reading, flags %u: %u failed\n", modes[m], failed);
        MUST(failed > 2);
    }
}

static void save_hurt(const struct work *w)
{
    struct vmaimage_wreck wreck;
    struct prng p = {5};
    vmaimage_wreck_start(&wreck, &w->v);
    wreck_insert(&wreck, w->v.extents[3].off, NULL, 1000, &p);
    wreck_flip(&wreck, 100, 0);
    buffer_save(&wreck.file, w->hurt);
    vmaimage_wreck_free(&wreck);
}

int main(void)
{
    static const char config[] = "memory: 512\n";
    struct work w = {.archive = scratch_path("archive.vma"),
                     .hurt = scratch_path("hurt.vma"),
                     .folder = scratch_path("out"),
                     .target = scratch_path("out/new.vma.gz"),
                     .digest = scratch_path("out/digest"),
                     .config = scratch_path("out/qemu-server.conf"),
                     .disks = {scratch_path("out/1"), scratch_path("out/2")}};
    run_command(0, "mkdir %s", w.folder);
    vmaimage_start(&w.v, 1);
    vmaimage_add_config(&w.v, "qemu-server.conf", config, sizeof config - 1);
    vmaimage_add_disk(&w.v, 1, "drive-scsi0", 6 * VI_CLUSTER + 512, true);
    vmaimage_add_disk(&w.v, 2, "drive-efidisk0", 540672, true);
    vmaimage_arrange(&w.v, VI_SHUFFLED, 10);
    vmaimage_pack(&w.v, 5, 10);
    vmaimage_write(&w.v);
    buffer_save(&w.v.file, w.archive);
    save_hurt(&w);

    fail_reads(&w);
    fail_rest(&w);
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        fail_allocations(&w, &attempts[i], false);
        fail_allocations(&w, &attempts[i], true);
    }
    vmaimage_free(&w.v);
    free(w.archive);
    free(w.hurt);
    free(w.folder);
    free(w.target);
    free(w.digest);
    free(w.config);
    free(w.disks[0]);
    free(w.disks[1]);
    return 0;
}
