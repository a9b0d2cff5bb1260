/* What a running machine's guest says of itself, and what it is told of itself, by its agent. */
#ifndef MONITOR_GUEST_H
#define MONITOR_GUEST_H

#include "base/error.h"

#include <jansson.h>

struct guest;
struct monitor;

/** *@ret is the monitor's, for guest_free(). */
must_check int guest_new(struct monitor *m, struct guest **ret, struct error *err);
void guest_free(struct guest *g); /* as after guest_stop(); takes NULL */

/** The machine has started: when its agent answers, the guest is told who it is if it does not know
 * yet (instance_introduction()), and, with @ask, asked what guest_ask() asks: in a thread, which
 * gives up after some minutes. The owner's thread, as guest_stop(). */
void guest_start(struct guest *g, bool ask);
/** The machine is to go: waits until the thread has ended. */
void guest_stop(struct guest *g);

/** Ask the guest about itself: hostname, os, kernel, uptime_seconds, addresses. *@ret is the
 * caller's. -ECONNREFUSED: no agent answers, and others of agent_get_info(). May wait. */
must_check int guest_ask(struct guest *g, json_t **ret, struct error *err);

/** The guest's addresses, as it has said last or as the network has seen them: an array, the
 * caller's. At once; any thread. */
json_t *guest_addresses(struct guest *g);

#endif
