/* SPDX-License-Identifier: MIT */
/*
 * Encryption (section 17). Data clusters are, in sectors of 512 bytes: with LUKS by where they
 * stand in the file, with the AES of old by where the guest has them. Tables and what is packed are
 * not.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/luks1.h"
#include "format/old_aes.h"
#include "format/qcow2/qcow2.h"

static struct luks1_area area_of(const struct image *img)
{
    const struct qcow2_extensions *x = &qcow2_of(img)->extensions;
    return (struct luks1_area){
        .stream = img->stream, .off = x->crypto_offset, .len = x->crypto_len};
}

static int check_area(const struct image *img, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    const struct qcow2_extensions *x = &q->extensions;

    if (x->crypto_offset == 0 || x->crypto_offset % q->cluster_size ||
        !range_inside(x->crypto_offset, x->crypto_len, q->file_size))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the crypto extension puts the LUKS header at %" PRIu64 " with %" PRIu64
                    " bytes, but it must begin at a cluster and lie in the file, which has %" PRIu64
                    " bytes",
                    img->stream->name, x->crypto_offset, x->crypto_len, q->file_size);
    if (qcow2_hits_tables(q, x->crypto_offset, x->crypto_len))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the crypto extension puts the LUKS header at %" PRIu64
                    ", where tables of the image stand",
                    img->stream->name, x->crypto_offset);
    return 0;
}

static int load_luks(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    const struct luks1_area area = area_of(img);

    int r = check_area(img, err);
    if (r < 0)
        return r;
    auto_free struct luks1 *l = calloc(1, sizeof *l);
    if (!l)
        return fail_memory(err, "the LUKS header");
    r = luks1_load(&area, l, err);
    if (r == 0)
        q->luks = TAKE(l);
    return r;
}

static int unlock_aes(struct image *img, struct platter_error *err)
{
    if (img->writable)
        return fail(err, EROFS,
                    "%s: is encrypted with the AES of old, which protects little: such images are "
                    "only read; convert it to one with encrypt.format=luks",
                    img->stream->name);
    return old_aes_open(img, &qcow2_of(img)->cipher, err);
}

static int unlock_luks(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    const struct luks1_area area = area_of(img);
    return luks1_open_cipher(&area, q->luks, img->opener, &q->cipher, err);
}

/* The key that another view of the file was opened with. */
static int share_key(struct image *img, struct platter_error *err)
{
    struct cipher *cipher = qcow2_of(img->sibling)->cipher;
    if (!cipher)
        return fail(err, ENOKEY, "%s: is encrypted, and was opened without its key",
                    img->stream->name);
    qcow2_of(img)->cipher = cipher_share(cipher);
    return 0;
}

int qcow2_crypt_open(struct image *img, struct platter_error *err)
{
    const uint32_t method = qcow2_of(img)->header.crypt_method;

    img->sealed = method != QCOW2_CRYPT_NONE;
    int r = method == QCOW2_CRYPT_LUKS ? load_luks(img, err) : 0;
    if (r < 0 || !img->sealed || img->query)
        return r;
    if (img->sibling)
        return share_key(img, err);
    return method == QCOW2_CRYPT_AES ? unlock_aes(img, err) : unlock_luks(img, err);
}

void qcow2_crypt_close(struct image *img)
{
    struct qcow2 *q = qcow2_of(img);
    cipher_free(TAKE(q->cipher));
    free(TAKE(q->luks));
}

void qcow2_crypt(const struct image *img, bool encrypt, void *out, const void *in, size_t len,
                 goff guest, hoff host)
{
    const struct qcow2 *q = qcow2_of(img);
    uint64_t sector = (q->header.crypt_method == QCOW2_CRYPT_AES ? guest : host) / CIPHER_SECTOR;

    if (encrypt)
        cipher_encrypt(q->cipher, sector, out, in, len);
    else
        cipher_decrypt(q->cipher, sector, out, in, len);
}

bool qcow2_key_area(const struct image *img, struct luks1_area *ret,
                    const struct luks1 **ret_header)
{
    *ret = area_of(img);
    *ret_header = qcow2_of(img)->luks;
    return *ret_header != NULL;
}

json_t *qcow2_crypt_info(const struct image *img)
{
    const struct qcow2 *q = qcow2_of(img);
    if (q->luks)
        return luks1_info(q->luks, true);
    return json_pack("{s:s}", "format", q->header.crypt_method == QCOW2_CRYPT_AES ? "aes" : "luks");
}
