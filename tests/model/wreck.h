/* SPDX-License-Identifier: MIT */
/* What a damaged archive still holds, by the tests' own book: of each byte it is known where it
 * stood in the whole archive. */
#ifndef MODEL_WRECK_H
#define MODEL_WRECK_H

#include "support/vmaimage.h"

enum { WRECK_DISKS = 4 };

struct remains {
    const struct vmaimage_disk *of;
    uint32_t end;  /* clusters that it has; of a state: one more than the highest that is there */
    bool *have;    /* each */
    bool *shifted; /* it is there, but not as it was, and what stands there shows it */
    uint8_t *content; /* as the damaged file has it: what nobody can see is part of it */
};

struct oracle {
    bool header;    /* it is as it was */
    bool sound;     /* nothing that matters is wrong */
    size_t extents; /* that can be found */
    struct remains disks[WRECK_DISKS];
    unsigned n_disks;
};

void oracle_make(struct oracle *o, const struct vmaimage *v, const struct vmaimage_wreck *w);
void oracle_free(struct oracle *o);

/* Damages the archive at random, once; what was done, for sentences. `foreign`: extents of other
 * archives may be strewn in. */
const char *wreck_something(struct vmaimage_wreck *w, const struct vmaimage *v, struct prng *p,
                            bool *ret_foreign);

#endif
