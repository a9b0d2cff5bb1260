/* The owner of one running instance: its machine, its console, its API. In a process of its own
 * (`posada-monitor`, daemon.h) or, in the foreground, in that of `posada run`.
 *
 *   monitor_new()     builds the machine, serves the API; the instance's run lock is held
 *   monitor_start()   starts it
 *   monitor_end()     it has stopped: says so to all, writes last.json
 *   monitor_free() */
#ifndef MONITOR_MONITOR_H
#define MONITOR_MONITOR_H

#include "monitor/machine.h"
#include "vm/vm.h"

struct monitor;
struct api_call;

struct monitor_options {
    const struct instance_config *config; /* in place of the instance's own; NULL; copied */
    int terminal_fd; /* gets what the console says, besides others; -1 = none; borrowed */
    /** Change what the configuration cannot say; NULL. */
    void (*adjust)(void *arg, struct vm_config *config);
    /** Make the machine; NULL: vm_new(). */
    int (*build)(void *arg, struct vm_config *config, struct vm **ret, struct error *err);
    void *arg;
};

/** @in (borrowed, its run lock held) becomes a machine that does not run yet: one that goes on, if
 * its state was saved. Its change lock is held too, until monitor_start() has returned, by this
 * process or by the one that waits for it. *@ret is the caller's. On failure last.json says why. */
must_check int monitor_new(struct instance *in, const struct monitor_options *options,
                           struct monitor **ret, struct error *err);
must_check int monitor_start(struct monitor *m, struct error *err);

/** The machine has stopped with @result; or, with @err set, could not be made anew. */
void monitor_end(struct monitor *m, const struct vm_result *result);
void monitor_free(struct monitor *m); /* takes NULL */

/** Free the machine when nobody holds it, and make it anew; not started yet. The owner's thread. */
must_check int monitor_rebuild(struct monitor *m, struct error *err);

/** Stop it for good: asked politely if @timeout_ms > 0, waiting for so long; then, or at once, by
 * pulling the plug if @force. -ETIMEDOUT: it did not stop, and goes on. *@m's restart policy does
 * not apply any more. @gone (may be NULL): the call for which it is done, given up with it. Not on
 * the loop. */
must_check int monitor_stop(struct monitor *m, int64_t timeout_ms, bool force,
                            const struct api_call *gone, struct error *err);
/** Save its state, from which its next start goes on, and stop it. @call (may be NULL) is told of
 * the progress, and gives it up by going. -ENOTSUP: a device whose state cannot be saved. Not on
 * the loop. */
must_check int monitor_save(struct monitor *m, struct api_call *call, struct error *err);

/** Take what may change while it runs from instance.yaml: the restart policy, and less memory.
 * *@ret_memory is what the guest is to do with now. */
must_check int monitor_reload(struct monitor *m, uint64_t *ret_memory, struct error *err);

/** The restart policy now. */
enum restart_policy monitor_policy(struct monitor *m, unsigned *ret_max);

/** Did monitor_stop() want it to end? */
bool monitor_is_stopping(struct monitor *m);
/** Wait until that, or until CLOCK_MONOTONIC @deadline_ns; is it so? */
bool monitor_wait_stopping(struct monitor *m, int64_t deadline_ns);

/* For calls of the API and others beside the owner: any thread. */

/** The machine, which then lives until monitor_release(). NULL: there is none now. */
struct vm *monitor_hold(struct monitor *m);
void monitor_release(struct monitor *m);

struct instance *monitor_instance(struct monitor *m);
const struct instance_config *monitor_config(const struct monitor *m);
struct loop *monitor_loop(struct monitor *m);
struct hub *monitor_hub(struct monitor *m);

/** Tell all who listen; @body (an object, NULL) is taken. */
void monitor_event(struct monitor *m, const char *name, json_t *body);

/** What "info" answers; the caller's. On the loop. */
json_t *monitor_info(struct monitor *m);

/** "running", "paused", "no-space" (paused by itself: a disk of the host's is full), "stopping",
 * "restarting", "starting". */
const char *monitor_state(struct monitor *m);

#endif
