/* SPDX-License-Identifier: MIT */
/*
 * Creating and converting where call N of the new file fails, allocation N fails, or the disk is
 * full from some byte on. A failure says why and leaves no file behind; a success is a whole image.
 *
 * fault-ops [case ...]
 */
#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/memory.h"
#include "support/alloc.h"
#include "support/fault.h"
#include "support/imagecheck.h"
#include "support/must.h"
#include "support/process.h"
#include "support/specimen.h"

enum { MAX_RUNS = 1 << 20, SOURCE_SIZE = 640 << 10 };

struct ops_case {
    const char *name, *format, *options;
    unsigned flags;
    const char *extent; /* what a second file adds to the name of the image; NULL: there is none */
};

static const struct ops_case cases[] = {
    {"raw", "raw", NULL, 0},
    {"qcow2", "qcow2", "cluster_size=4k", 0},
    {"qcow2-packed", "qcow2", "cluster_size=4k", PLATTER_CONVERT_COMPRESS},
    {"qcow2-512", "qcow2", "cluster_size=512,preallocation=metadata", 0},
    {"vmdk", "vmdk", "subformat=monolithicSparse", 0},
    {"vmdk-stream", "vmdk", "subformat=streamOptimized", 0},
    {"vmdk-flat", "vmdk", "subformat=monolithicFlat", 0, "-flat"},
    {"vmdk-split", "vmdk", "subformat=twoGbMaxExtentSparse", 0, "-s001"},
};

/* The disk that is converted: a pattern with holes, in a qcow2 with some of it compressed. */
static const struct specimen_spec source_spec = {.name = "source",
                                                 .format = "qcow2",
                                                 .options = "cluster_size=4k",
                                                 .size = SOURCE_SIZE,
                                                 .filled = SOURCE_SIZE / 2,
                                                 .packed = true};

struct ops {
    const struct ops_case *of;
    const struct specimen *source;
    char *folder, *target, *extent;
};

/* The files of an image in memory. */
struct made {
    struct buffer main, extent;
    struct file_maker maker;
    struct name_opener opener;
    struct fault_plan *plan;
    struct stream *stream; /* of the extent while it is made */
};

static int complain(const struct ops *o, const char *what, uint64_t at, const char *why)
{
    fprintf(stderr, "%s, %s, number %llu: %s\n", o->of->name, what, (unsigned long long)at, why);
    return -1;
}

static unsigned files_in(const char *path)
{
    DIR *folder = opendir(path);
    MUST(folder);
    unsigned n = 0;
    while (readdir(folder))
        n++;
    closedir(folder);
    return n - 2;
}

static int open_extent(const struct name_opener *opener, const struct image *img, const char *name,
                       enum platter_name_kind kind, bool writable, struct stream **ret,
                       struct platter_error *err)
{
    (void)img, (void)name, (void)kind, (void)writable;
    struct made *m = container_of(opener, struct made, opener);
    return stream_buffer_open(&m->extent, "extent", false, ret, err);
}

/* Whether an image in memory is sound and holds `content` (NULL: zeros). */
static int judge(const struct ops *o, struct made *made, const uint8_t *content)
{
    struct platter_error err = {0};
    struct image_report report = {0};
    struct stream *s;
    struct platter_disk *disk;
    const struct format *format = format_find(o->of->format);
    const char *options = o->of->options ? o->of->options : "";
    const struct buffer *tables = o->of->extent ? &made->extent : &made->main;
    if (!strstr(options, "streamOptimized") && !strstr(options, "Flat"))
        image_check(o->of->format, tables->bytes, tables->size, &report);
    if (report.errors)
        return complain(o, "the checker", 0, report.first);
    MUST(stream_buffer_open(&made->main, "made", false, &s, NULL) == 0);
    made->opener.open = open_extent;
    if (disk_assemble(&s, &format, 1, false, true, 0, &made->opener, &disk, &err) != 0)
        return complain(o, "opening it", 0, err.message);
    auto_free uint8_t *bytes = malloc(SOURCE_SIZE);
    MUST(bytes);
    int r = disk_size(disk) == SOURCE_SIZE ? disk_read(disk, bytes, SOURCE_SIZE, 0, &err) : -1;
    disk_close(disk, NULL);
    if (r != 0)
        return complain(o, "reading it", 0, err.message);
    bool same = content ? memcmp(bytes, content, SOURCE_SIZE) == 0 : is_zero(bytes, SOURCE_SIZE);
    return same ? 0 : complain(o, "reading it", 0, "wrong bytes");
}

/* ---- create over a stream that fails ------------------------------------------------------------
 */

static int open_faulty(struct buffer *b, struct fault_plan *plan, struct stream **ret,
                       struct platter_error *err)
{
    MUST(stream_buffer_open(b, "made", true, ret, err) == 0);
    MUST(stream_fault_open(*ret, plan, ret, err) == 0);
    return 0;
}

static int make_extent(const struct file_maker *maker, const char *name, struct stream **ret,
                       struct platter_error *err)
{
    (void)name;
    struct made *m = container_of(maker, struct made, maker);
    MUST(!m->stream);
    int r = open_faulty(&m->extent, m->plan, &m->stream, err);
    *ret = m->stream;
    return r;
}

static int create_once(const struct ops *o, struct fault_plan *plan, struct made *made,
                       struct platter_error *err)
{
    const struct format *format = format_find(o->of->format);
    struct option_values *values = NULL;
    struct stream *s;
    made->plan = plan;
    made->maker.make = make_extent;
    MUST(options_parse(format->create_options, o->of->options, &values, err) == 0);
    MUST(open_faulty(&made->main, plan, &s, err) == 0);
    struct create_request request = {.name = "made",
                                     .stream = s,
                                     .size = SOURCE_SIZE,
                                     .options = values,
                                     .maker = &made->maker,
                                     .budget = budget_new(64 << 20)};
    MUST(request.budget);
    int r = format->create(&request, err);
    stream_close(s);
    stream_close(TAKE(made->stream));
    options_free(values);
    budget_unref(request.budget);
    return r;
}

static int create_faults(const struct ops *o)
{
    const struct format *format = format_find(o->of->format);
    if (o->of->options && strstr(o->of->options, "streamOptimized"))
        return 0; /* is only ever written front to back */
    MUST(format->create);
    for (uint64_t at = 1; at < MAX_RUNS; at++) {
        struct fault_plan plan = {.kinds = FAULT_ALL, .at = at, .code = ENOSPC};
        struct platter_error err = {0};
        struct made made = {.main = buffer_new(16 << 20), .extent = buffer_new(16 << 20)};
        int r = create_once(o, &plan, &made, &err);
        bool struck = atomic_load(&plan.failed) > 0;
        int bad = r == 0 ? judge(o, &made, NULL) : 0;
        if (r != 0 && (!struck || !err.message[0]))
            bad = complain(o, "create", at, "failed for no reason, or without a word");
        buffer_free(&made.main);
        buffer_free(&made.extent);
        if (bad || !struck)
            return bad;
    }
    return complain(o, "create", MAX_RUNS, "never ends");
}

/* ---- convert ------------------------------------------------------------------------------------
 */

static int open_source(const struct ops *o, struct platter_disk **ret)
{
    struct stream *s;
    MUST(stream_buffer_open((struct buffer *)&o->source->top, "source", false, &s, NULL) == 0);
    return specimen_open(o->source, s, false, ret, NULL);
}

/* Converts; 1 where it failed as it may, with a word and without a file. *ret_struck: an allocation
 * failed. */
static int convert_once(const struct ops *o, struct platter_disk *source, const char *what,
                        uint64_t at, bool *ret_struck)
{
    struct platter_error err = {0};
    struct platter_convert_options options = {.size = sizeof options,
                                              .format = o->of->format,
                                              .options = o->of->options,
                                              .flags = o->of->flags,
                                              .workers = 2};
    int r = platter_convert(&source, 1, o->target, &options, NULL, &err);
    *ret_struck = alloc_failed() > 0;
    alloc_fail_at(0, false);
    if (r != 0 && !err.message[0])
        return complain(o, what, at, "failed without a word");
    if (r != 0 && files_in(o->folder) != 0)
        return complain(o, what, at, "left a file behind");
    return r != 0;
}

static int judge_target(const struct ops *o)
{
    struct made made = {.main = buffer_load(o->target, 0)};
    if (o->extent)
        made.extent = buffer_load(o->extent, 0);
    int r = judge(o, &made, o->source->content);
    buffer_free(&made.main);
    buffer_free(&made.extent);
    unlink(o->target);
    if (o->extent)
        unlink(o->extent);
    return r == 0 && files_in(o->folder) != 0 ? complain(o, "convert", 0, "made another file") : r;
}

static int convert_allocations(const struct ops *o)
{
    for (uint64_t at = 1; at < MAX_RUNS; at++) {
        struct platter_disk *source;
        MUST(open_source(o, &source) == 0);
        alloc_fail_at(at, false);
        bool struck;
        int r = convert_once(o, source, "allocation", at, &struck);
        disk_close(source, NULL);
        if (r == 1 && !struck)
            return complain(o, "allocation", at, "failed though nothing was made to fail");
        if (r == 0)
            r = judge_target(o);
        if (r < 0 || !struck)
            return r;
    }
    return complain(o, "allocation", MAX_RUNS, "never ends");
}

static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;
    MUST(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    MUST(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

/* A file that cannot grow beyond some size stands for a full disk. */
static int convert_full_disk(const struct ops *o)
{
    enum { STEP = 20000 };
    struct platter_disk *source;
    MUST(open_source(o, &source) == 0);
    bool struck;
    int r = 1;
    for (uint64_t limit = 0; r == 1 && limit < (uint64_t)STEP * 1000; limit += STEP) {
        limit_file_size(limit);
        r = convert_once(o, source, "a full disk", limit, &struck);
        limit_file_size(RLIM_INFINITY);
    }
    disk_close(source, NULL);
    return r == 0 ? judge_target(o) : complain(o, "a full disk", 0, "never ends");
}

int main(int argc, char **argv)
{
    struct specimen source = specimen_make(&source_spec);
    struct ops o = {.source = &source, .folder = scratch_path("made")};
    o.target = string_format("%s/target", o.folder);
    MUST(o.target && run_command(0, "mkdir '%s'", o.folder) == 0);
    signal(SIGXFSZ, SIG_IGN);
    int failed = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (argc > 1 && strcmp(argv[1], cases[i].name) != 0)
            continue;
        o.of = &cases[i];
        o.extent = cases[i].extent ? string_format("%s%s", o.target, cases[i].extent) : NULL;
        int r = create_faults(&o) | convert_allocations(&o) | convert_full_disk(&o);
        printf("%-16s %s\n", cases[i].name, r ? "FAILED" : "ok");
        fflush(stdout);
        failed |= r;
        free(o.extent);
    }
    free(o.folder);
    free(o.target);
    specimen_free(&source);
    return failed != 0;
}
