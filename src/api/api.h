/* The monitor's API: JSON objects, one a line, over a unix socket. docs/api.md has the calls.
 *
 *   {"id":1,"call":"pause","args":{}}
 *   {"id":1,"progress":{...}}            any number of times
 *   {"id":1,"result":{...}}  or  {"id":1,"error":{"code":"EBUSY","text":"..."}}
 *   {"event":"stopped",...}              for who called "events"
 *
 * Both ends are of one user, and check that. A line is at most API_LINE_MAX bytes. */
#ifndef API_API_H
#define API_API_H

#include "base/error.h"

#include <jansson.h>

enum { API_LINE_MAX = 1 << 20 };

struct loop;

/* --- codec.c --- */

struct api_message {
    int64_t id; /* -1: an event */
    enum api_kind { API_CALL, API_PROGRESS, API_RESULT, API_ERROR, API_EVENT } kind;
    const char *name; /* API_CALL, API_EVENT: which; lives in root */
    json_t *body;     /* args, progress, result, or the whole event; borrowed from root */
    json_t *root;     /* owned */
};

/** Parse one line, hostile, without its newline. *@ret is for api_message_done(). -EINVAL with a
 * sentence; -ENOMEM. */
must_check int api_parse(const char *line, size_t size, struct api_message *ret, struct error *err);
void api_message_done(struct api_message *m);

/** The error of an API_ERROR message, into @err; its -errno, -EPROTO if it has none. */
int api_error_of(const struct api_message *m, struct error *err);

/** {"code": "EBUSY", "text": "..."} */
json_t *api_error_json(const struct error *err);

/* --- client.c: one thread at a time --- */

struct api_client;

/** Connect to socket @path. *@ret is the caller's. -ENOENT, -ECONNREFUSED: nobody serves it;
 * -EPERM: another user does. */
must_check int api_client_open(const char *path, struct api_client **ret, struct error *err);
void api_client_close(struct api_client *c); /* takes NULL */

/** Send a call; @args (may be NULL) is taken. *@ret_id (may be NULL) is its id. */
must_check int api_client_send(struct api_client *c, const char *call, json_t *args,
                               int64_t *ret_id, struct error *err);

/** The next message, by CLOCK_MONOTONIC @deadline_ns (INT64_MAX: no limit). -ETIMEDOUT;
 * -ECONNRESET: the server has gone; -EPROTO. */
must_check int api_client_receive(struct api_client *c, int64_t deadline_ns,
                                  struct api_message *ret, struct error *err);

/** Send a call and wait for its end. @progress (may be NULL) is called for each report. *@ret (may
 * be NULL) is the caller's. Errors: the server's, and those of api_client_receive(). Events that
 * come in between are lost. */
must_check int api_client_call(struct api_client *c, const char *call, json_t *args,
                               int64_t deadline_ns, void (*progress)(json_t *p, void *arg),
                               void *arg, json_t **ret, struct error *err);

/** Its descriptor, to poll() for messages; borrowed. */
int api_client_fd(const struct api_client *c);

/** After a call whose result says so, the connection is a stream of bytes: its descriptor, which
 * the caller closes; @c is closed. */
must_check int api_client_take_fd(struct api_client *c);

/* --- server.c --- */

struct api_server;
struct api_call;

struct api_method {
    const char *name; /* NULL ends a table */
    /** Serve @call, now or later, by exactly one of api_reply(), api_fail(), api_take_fd(). @args
     * is an object, borrowed until then. */
    void (*fn)(struct api_call *call, json_t *args, void *arg);
    bool may_wait; /* it has a thread of its own; else it is on the loop and must return at once */
};

/** Serve socket @path (replaced if it is there; 0600) on @loop. @methods and @arg live as long. The
 * method "events" is the server's own. *@ret is the caller's. */
must_check int api_server_new(struct loop *loop, const char *path, const struct api_method *methods,
                              void *arg, struct api_server **ret, struct error *err);

/** Close all; waits for methods that have threads of their own. From the loop's thread, or when it
 * runs no more. Takes NULL. */
void api_server_free(struct api_server *s);

/** Send {"event": @name, ...} to all who asked. @body (an object, may be NULL) is taken. Any
 * thread. */
void api_server_event(struct api_server *s, const char *name, json_t *body);

/** End a call. @result (an object; NULL: {}) is taken. Any thread. */
void api_reply(struct api_call *call, json_t *result);
void api_fail(struct api_call *call, const struct error *err);
/** Report; @progress is taken. Any thread. */
void api_progress(struct api_call *call, json_t *progress);
/** Has the caller gone? A hint, for long work that nobody else wants. Any thread. */
bool api_call_is_gone(const struct api_call *call);

/** End a call by {"result": @result} and take over its connection: the descriptor is the caller's,
 * non-blocking. -errno: it is gone, or more had been sent. On the loop's thread. */
must_check int api_take_fd(struct api_call *call, json_t *result);

#endif
