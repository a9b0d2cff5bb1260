/* A machine that has nothing to do gives memory back. */
#ifndef MONITOR_IDLE_H
#define MONITOR_IDLE_H

#include "base/error.h"

struct idle;
struct monitor;

/** *@ret is the monitor's, for idle_free(). */
must_check int idle_new(struct monitor *m, struct idle **ret, struct error *err);
/** Watch, from the machine's first start on. The owner's thread. */
void idle_start(struct idle *i);
void idle_free(struct idle *i); /* waits for its thread; takes NULL */

#endif
