/* Snapshots of a running instance, for its monitor: the calls of the API, and the thread that
 * merges in the background the layers that nobody wants any more. */
#ifndef MONITOR_KEEPER_H
#define MONITOR_KEEPER_H

#include "base/error.h"

struct api_call;
struct keeper;
struct monitor;

/** *@ret is the monitor's, for keeper_free(). Nothing is merged yet. */
must_check int keeper_new(struct monitor *m, struct keeper **ret, struct error *err);
void keeper_free(struct keeper *k); /* as after keeper_break(); takes NULL */

/** Look whether there is something to merge, in a thread. */
void keeper_clean(struct keeper *k);

/** Break merging off, wait until it has ended, and do not begin again until keeper_clean(). */
void keeper_break(struct keeper *k);

/** Nobody merges, saves the machine, or exchanges its disks, from one to the other but the caller,
 * who does not hold the instance's lock when he enters. keeper_leave() has what is left merged. */
void keeper_enter(struct keeper *k);
void keeper_leave(struct keeper *k);

/** Is it merging now? */
bool keeper_is_busy(struct keeper *k);

#endif
