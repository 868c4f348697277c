/* SPDX-License-Identifier: MIT */
/* An access list of POSIX as the attribute system.posix_acl_access holds it. */
#ifndef UNIT_ACCESS_LIST_H
#define UNIT_ACCESS_LIST_H

#include <stdint.h>

/* The owner and user 12345 may read and write, nobody else may anything. */
static const uint8_t access_list[] = {2,    0, 0, 0,                          /* version */
                                      1,    0, 6, 0, 0xff, 0xff, 0xff, 0xff,  /* owner */
                                      2,    0, 6, 0, 0x39, 0x30, 0,    0,     /* 12345 */
                                      4,    0, 0, 0, 0xff, 0xff, 0xff, 0xff,  /* group */
                                      0x10, 0, 6, 0, 0xff, 0xff, 0xff, 0xff,  /* mask */
                                      0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}; /* others */

#endif
