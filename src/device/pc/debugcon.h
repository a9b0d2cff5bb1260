/* The port that firmware prints to when it has nothing else (0x402). */
#ifndef DEVICE_PC_DEBUGCON_H
#define DEVICE_PC_DEBUGCON_H

#include "base/error.h"
#include "mem/mem.h"

#define DEBUGCON_PORT 0x402

struct debugcon;

/** Add the port to @ports; lines printed there become trace events. *@ret is the caller's, freed
 * after @ports. */
must_check int debugcon_new(struct mem *ports, struct debugcon **ret, struct error *err);
void debugcon_free(struct debugcon *d);

#endif
