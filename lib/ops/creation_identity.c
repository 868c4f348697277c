/* SPDX-License-Identifier: MIT */
/* The uuid and the date of a new archive. */
#include <nettle/sha2.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/cursor.h"
#include "disk/disk.h"
#include "ops/creation.h"

enum { UUID = 16 };

static void hash_text(struct sha256_ctx *ctx, const char *text)
{
    sha256_update(ctx, strlen(text) + 1, (const uint8_t *)text);
}

/* A uuid that is the same for the same machine: every extent repeats it, so one that came out of
 * the data would leave nothing of two archives the same. Of version 8 (RFC 9562): our own way. */
static void derive_uuid(const struct platter_archive_plan *o, uint8_t ret[UUID])
{
    struct sha256_ctx ctx;
    uint8_t digest[SHA256_DIGEST_SIZE], size[8];
    sha256_init(&ctx);
    hash_text(&ctx, "platter archive uuid 1");
    for (size_t i = 0; i < o->n_disks; i++) {
        put_le(size, sizeof size, disk_size(o->disks[i]->disk));
        hash_text(&ctx, o->disks[i]->name);
        sha256_update(&ctx, sizeof size, size);
    }
    hash_text(&ctx, "");
    for (size_t i = 0; i < o->n_files; i++)
        hash_text(&ctx, o->files[i]->name);
    sha256_digest(&ctx, sizeof digest, digest);
    memcpy(ret, digest, UUID);
    ret[6] = (uint8_t)((ret[6] & 0x0f) | 0x80);
    ret[8] = (uint8_t)((ret[8] & 0x3f) | 0x80);
}

static int random_uuid(uint8_t ret[UUID], struct platter_error *err)
{
    if (getrandom(ret, UUID, 0) != UUID)
        return fail_errno(err, errno, "no random uuid for the archive");
    ret[6] = (uint8_t)((ret[6] & 0x0f) | 0x40);
    ret[8] = (uint8_t)((ret[8] & 0x3f) | 0x80);
    return 0;
}

/* What reproducible builds take for the time, or 1970. */
static int epoch(int64_t *ret, struct platter_error *err)
{
    const char *text = getenv("SOURCE_DATE_EPOCH");
    *ret = 0;
    if (!text || !*text)
        return 0;
    errno = 0;
    long long value = strtoll(text, NULL, 10);
    if (errno || strspn(text, "0123456789") != strlen(text))
        return fail(err, EINVAL,
                    "SOURCE_DATE_EPOCH is \"%s\", which is no number of seconds since 1970", text);
    *ret = value;
    return 0;
}

int creation_identify(struct creation *c, struct platter_error *err)
{
    const struct platter_archive_plan *o = c->o;
    bool same = o->flags & PLATTER_ARCHIVE_REPRODUCIBLE;
    int r = 0;
    if (o->has_uuid)
        memcpy(c->plan.uuid, o->uuid, UUID);
    else if (same)
        derive_uuid(o, c->plan.uuid);
    else
        r = random_uuid(c->plan.uuid, err);
    if (r == 0 && o->has_ctime)
        c->plan.ctime = o->ctime;
    else if (r == 0 && same)
        r = epoch(&c->plan.ctime, err);
    else
        c->plan.ctime = (int64_t)time(NULL);
    return r;
}
