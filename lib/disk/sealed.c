/* SPDX-License-Identifier: MIT */
/*
 * Data that stands encrypted (image->sealed): it is turned on its way from and to the file, in
 * whole sectors of 512 bytes. Host and guest offsets agree in where sectors begin. What is written
 * in part is read before; whoever writes holds the range, out to whole units.
 */
#include <string.h>

#include "base/ckd.h"
#include "disk/inside.h"

enum {
    SECTOR = 512,
    BOUNCE = 256 << 10 /* what is turned and written at once */
};

static int read_whole(const struct image *img, struct stream *s, void *buf, size_t len, hoff host,
                      goff guest, struct platter_error *err)
{
    int r = len ? stream_pread(s, buf, len, host, err) : 0;
    if (r == 0 && len)
        img->format->crypt(img, false, buf, buf, len, guest, host);
    return r;
}

/* A part of one sector. */
static int read_part(const struct image *img, struct stream *s, void *buf, size_t len, hoff host,
                     goff guest, struct platter_error *err)
{
    uint8_t sector[SECTOR];
    size_t before = (size_t)(guest % SECTOR);
    int r = read_whole(img, s, sector, SECTOR, host - before, guest - before, err);
    if (r == 0)
        memcpy(buf, sector + before, len);
    return r;
}

int sealed_read(const struct image *img, struct stream *s, void *buf, size_t len, hoff host,
                goff guest, struct platter_error *err)
{
    uint8_t *p = buf;
    size_t head = guest % SECTOR ? (size_t)min_u64(len, SECTOR - guest % SECTOR) : 0;
    size_t tail = (len - head) % SECTOR, whole = len - head - tail;

    int r = head ? read_part(img, s, p, head, host, guest, err) : 0;
    if (r == 0)
        r = read_whole(img, s, p + head, whole, host + head, guest + head, err);
    if (r == 0 && tail)
        r = read_part(img, s, p + head + whole, tail, host + head + whole, guest + head + whole,
                      err);
    return r;
}

/* The sectors of [guest, guest + len) that the caller writes in part, as they are now. */
static int read_edges(const struct image *img, struct stream *s, uint8_t *whole, size_t whole_len,
                      size_t head, size_t tail, hoff host, goff guest, struct platter_error *err)
{
    size_t last = whole_len - SECTOR;
    int r = head ? read_whole(img, s, whole, SECTOR, host, guest, err) : 0;
    if (r == 0 && tail && (last > 0 || !head))
        r = read_whole(img, s, whole + last, SECTOR, host + last, guest + last, err);
    return r;
}

int sealed_write(const struct image *img, struct stream *s, const void *buf, size_t len, hoff host,
                 goff guest, struct platter_error *err)
{
    const uint8_t *p = buf;
    size_t room = (size_t)min_u64(round_up(guest % SECTOR + len, SECTOR), BOUNCE);
    auto_free uint8_t *whole = malloc(room);
    if (!whole)
        return fail_memory(err, "an encrypted write");
    int r = 0;
    for (size_t n; len > 0 && r == 0; len -= n, p += n, host += n, guest += n) {
        size_t head = (size_t)(guest % SECTOR);
        n = (size_t)min_u64(len, room - head);
        size_t all = (size_t)round_up(head + n, SECTOR);
        r = read_edges(img, s, whole, all, head, (head + n) % SECTOR, host - head, guest - head,
                       err);
        if (r < 0)
            break;
        memcpy(whole + head, p, n);
        img->format->crypt(img, true, whole, whole, all, guest - head, host - head);
        r = stream_pwrite(s, whole, all, host - head, err);
    }
    return r;
}

/* What a piece of reserved room is to show: the caller's bytes, and around them what is there. */
static int compose(struct platter_disk *disk, const struct new_data *new, goff at, uint8_t *out,
                   size_t len, struct platter_error *err)
{
    goff from = min_u64(max_u64(new->off, at), at + len);
    goff to = max_u64(min_u64(new->off + new->len, at + len), from);
    int r = disk_read_held(disk, out, (size_t)(from - at), at, err);
    if (r == 0 && to > from)
        memcpy(out + (from - at), new->bytes + (from - new->off), (size_t)(to - from));
    return r < 0 ? r : disk_read_held(disk, out + (to - at), (size_t)(at + len - to), to, err);
}

int sealed_fill(struct platter_disk *disk, const struct reservation *room,
                const struct new_data *new, struct platter_error *err)
{
    const struct image *top = disk_top(disk);
    size_t n = (size_t)min_u64(room->len, BOUNCE);
    auto_free uint8_t *piece = malloc(n);
    if (!piece)
        return fail_memory(err, "an encrypted cluster");
    int r = 0;
    for (uint64_t done = 0; done < room->len && r == 0; done += n) {
        n = (size_t)min_u64(room->len - done, n);
        r = compose(disk, new, room->start + done, piece, n, err);
        if (r < 0)
            break;
        top->format->crypt(top, true, piece, piece, n, room->start + done, room->off + done);
        r = stream_pwrite(room->stream, piece, n, room->off + done, err);
    }
    return r;
}
