/* Instances as the commands see them: calls to their monitors, and what is known about each. */
#ifndef CLI_REMOTE_H
#define CLI_REMOTE_H

#include "api/api.h"
#include "store/store.h"

enum { REMOTE_TIMEOUT_MS = 5000 };

/** Connect to the monitor of @name. *@ret is for api_client_close(). -ENOENT: there is no such
 * instance; -ENOTCONN: it does not run. */
must_check int remote_open(const char *name, struct api_client **ret, struct error *err);

/** One call; @args is taken; *@ret (may be NULL) is the caller's. @timeout_ms < 0: no limit. */
must_check int remote_call(const char *name, const char *call, json_t *args, int64_t timeout_ms,
                           json_t **ret, struct error *err);

/** Start @in, whose lock is held, in the background. -EBUSY: it runs already. */
must_check int remote_start(struct instance *in, struct error *err);

/** Stop @name and wait until its monitor has ended; see monitor_stop(). -ENOTCONN: it does not
 * run. */
must_check int remote_stop(const char *name, int64_t timeout_ms, bool force, struct error *err);

/** The same for several at once: each is asked, with @save to save its state, and then awaited,
 * which ends the struct. */
struct remote_ending {
    const char *name;
    struct api_client *client; /* NULL: `error` says why */
    bool save;
    struct error error;
};
void remote_ask_stop(struct remote_ending *e, const char *name, int64_t timeout_ms, bool force,
                     bool save);
must_check int remote_await_stop(struct remote_ending *e, int64_t timeout_ms, struct error *err);

/** All that is known about each of @names, an array of objects; docs/api.md has the keys. All
 * monitors are asked at once; one that does not answer is "unresponsive". NULL with @err set. One
 * that has gone in between is left out. */
json_t *remote_status(char *const *names, size_t n, struct error *err);

/** The names in @args, or with @all those of all instances; both NULL-terminated, and for
 * remote_free_names(). */
must_check int remote_names(const char *const *args, size_t n, bool all, char ***ret, size_t *ret_n,
                            struct error *err);
void remote_free_names(char **names, size_t n);

#endif
