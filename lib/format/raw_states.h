/* SPDX-License-Identifier: MIT */
/* Raw disks whose stream knows older states of its bytes (struct stream_states): each is a view,
 * and is copied as a snapshot is. */
#ifndef FORMAT_RAW_STATES_H
#define FORMAT_RAW_STATES_H

#include "format/format.h"

/* img->stream becomes that of img->view. */
int raw_states_open(struct image *img, struct platter_error *err);
int raw_states_info(struct image *img, json_t *info);
/* Those that are other files. */
bool raw_states_file(const struct image *img, unsigned i, struct stream **ret);
json_t *raw_states_views(struct image *img);
extern const struct snapshot_ops raw_states_ops;

#endif
