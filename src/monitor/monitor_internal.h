/* What the files of monitor share. */
#ifndef MONITOR_MONITOR_INTERNAL_H
#define MONITOR_MONITOR_INTERNAL_H

#include "api/api.h"
#include "monitor/monitor.h"

/** The calls of the API; their arg is the monitor. methods.c */
extern const struct api_method monitor_methods[];

/** Ask the guest to power off by what it hears: its agent, or SysRq on its console. -ENOTSUP:
 * nothing. power.c */
must_check int power_ask(struct vm *vm, const struct vm_config *config, struct error *err);

/* save.c; the instance's lock is held */

/** Has its next start a state to go on from? */
must_check int save_is_there(const struct instance *in, bool *ret, struct error *err);
/** Give @vm, made with no_boot, that state, which is used up. */
must_check int save_load(const struct instance *in, struct vm *vm, struct error *err);
/** Save the state of @vm, which is paused, for the next start. */
must_check int save_write(const struct instance *in, struct vm *vm, struct api_call *call,
                          struct error *err);

/* Calls: keeper.c */
void keeper_serve_take(struct api_call *call, json_t *args, void *arg);
void keeper_serve_clean(struct api_call *call, json_t *args, void *arg);
void keeper_serve_promote(struct api_call *call, json_t *args, void *arg);
void keeper_serve_break(struct api_call *call, json_t *args, void *arg);

/* clone.c */
void clone_serve(struct api_call *call, json_t *args, void *arg);

struct keeper *monitor_keeper(struct monitor *m);
/* usage.c */

/** The process's anonymous memory: its share of the pages that it has in common with processes it
 * was forked from or has forked, and all of its own; 0: not known. Takes milliseconds. */
uint64_t usage_shared_bytes(void);
/** The same with all pages counted whole; at once. */
uint64_t usage_private_bytes(void);

/** What it was paused for by itself is to be tried again. */
void monitor_has_space(struct monitor *m);

/** From now on its memory is in part another machine's, too. */
void monitor_shares_memory(struct monitor *m);
bool monitor_is_sharing(struct monitor *m);
struct guest *monitor_guest(struct monitor *m);

const struct vm_config *monitor_vm_config(const struct monitor *m);

#endif
