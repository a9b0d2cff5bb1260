/* Shared between the parts of the host's side of the agent. */
#ifndef AGENT_AGENT_INTERNAL_H
#define AGENT_AGENT_INTERNAL_H

#include "agent/agent.h"

struct agent {
    struct wire wire;
    bool running;   /* a program was started and has not ended */
    size_t in_sent; /* bytes of its input that were not yet consumed */
};

/** Begin a request; fields follow, then agent_call(). */
void agent_begin(struct agent *a, const char *verb);

/** Send the request that was begun and wait for its answer. -errno with the guest's sentence. */
must_check int agent_call(struct agent *a, int64_t deadline_ns, struct wire_frame *ret,
                          struct error *err);

/** Set @err for @rc, a failure of the connection; returns @rc. */
int agent_lost(int rc, struct error *err);

#endif
