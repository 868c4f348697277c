/* SPDX-License-Identifier: MIT */
#include "unit.h"

#include "archives.h"

#include <stdlib.h>

#include "base/memory.h"
#include "support/must.h"

void make_plain(struct vmaimage *v)
{
    static const char config[] = "memory: 512\n";
    vmaimage_start(v, 1);
    vmaimage_add_config(v, "qemu-server.conf", config, sizeof config - 1);
    vmaimage_add_disk(v, SCSI, "drive-scsi0", 3 * VI_CLUSTER + 512, true);
    vmaimage_add_disk(v, VIRTIO, "drive-virtio1", 2 * VI_CLUSTER, true);
    vmaimage_add_disk(v, STATE, "vmstate", 3 * VI_CLUSTER, true);
    /* Something is stored of each cluster, so that nothing is passed over. */
    for (unsigned i = 0; i < v->n_disks; i++)
        for (uint32_t c = 0; c < v->disks[i].clusters; c++)
            v->disks[i].content[(size_t)c * VI_CLUSTER] = 7;
    vmaimage_arrange(v, VI_ASCENDING, 0);
    vmaimage_pack(v, 3, 0);
    vmaimage_write(v);
    assert_int_equal(v->n_extents, 3);
}

void in_header(struct vmaimage *v, uint64_t at, unsigned n, uint64_t value)
{
    vmaimage_put(v, at, n, value);
    vmaimage_seal_header(v);
}

struct vmaimage_slot *last_slot(struct vmaimage *v)
{
    return &v->extents[1].slots[VI_SLOTS - 1];
}

static void take_fault(void *opaque, const struct archive_fault *f)
{
    struct told *t = opaque;
    snprintf(t->last, sizeof t->last, "kind %d: %s", (int)f->kind, f->text);
    if (f->kind == ARCHIVE_FAULT_NOTE) {
        t->notes++;
        return;
    }
    t->n++;
    t->right +=
        t->said && f->kind == t->kind && strstr(f->text, t->said) && strstr(f->text, "archive.vma");
}

int read_through(struct vmaimage *v, unsigned flags, struct told *told, struct platter_error *err)
{
    struct budget *budget = budget_new(32 << 20);
    struct archive_request request = {
        .flags = flags & ~PIPE, .budget = budget, .fault = take_fault, .opaque = told};
    struct archive_reader *reader = NULL;
    struct archive_batch batch = {0};
    MUST((flags & PIPE
              ? stream_buffer_input_open(&v->file, "archive.vma", &request.stream, NULL)
              : stream_buffer_open(&v->file, "archive.vma", false, &request.stream, NULL)) == 0);
    int r = format_find("vma")->archive->reader_open(&request, &reader, err);
    if (r == 0) {
        batch.room = malloc(reader->batch_bytes);
        MUST(batch.room);
        while ((r = reader->ops->next(reader, &batch, err)) > 0)
            told->batches++;
        reader->ops->close(reader);
        free(batch.room);
    }
    stream_close(request.stream);
    budget_unref(budget);
    return r;
}

int read_anywhere(const char *path, struct platter_error *err)
{
    struct platter_open_options options = {
        .size = sizeof options, .format = "vma", .view = "drive-scsi0"};
    static uint8_t bytes[4 * VI_CLUSTER];
    struct platter_disk *disk;
    int r = platter_open(path, &options, &disk, err);
    if (r < 0)
        return r;
    if (platter_size(disk) != 3 * VI_CLUSTER + 512)
        fail_msg("its size is %llu", (unsigned long long)platter_size(disk));
    r = platter_pread(disk, bytes, 3 * VI_CLUSTER + 512, 0, err);
    platter_close(disk, NULL);
    return r;
}
