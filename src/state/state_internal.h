/* The format, for both its sides. */
#ifndef STATE_STATE_INTERNAL_H
#define STATE_STATE_INTERNAL_H

#include "state/state.h"

#define STATE_MAGIC      "PSDSTATE"
#define STATE_HEAD_BYTES 16 /* magic, whole size, CRC-32 of the rest */
#define STATE_NAME_MAX   63

size_t state_type_bytes(enum state_type type);

#endif
