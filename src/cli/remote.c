/* Instances as the commands see them. The main thread. */
#include "cli/remote.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/paths.h"
#include "monitor/daemon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS 1000000LL

enum { POLL_US = 5000, LAST_MAX = 65536, STOP_SLACK_MS = 10000 };

static char *socket_path(const char *name, struct error *err)
{
    cleanup(freep) char *runtime = paths_runtime("", err);

    return runtime ? paths_format(err, "%s%s/monitor.sock", runtime, name) : NULL;
}

int remote_open(const char *name, struct api_client **ret, struct error *err)
{
    struct instance *in;
    struct error why = {0};
    int r = instance_open(name, 0, &in, err);

    if (r)
        return r;
    instance_close(in);
    cleanup(freep) char *path = socket_path(name, err);
    if (!path)
        return -EIO;
    r = api_client_open(path, ret, &why);
    if (r == -ENOENT || r == -ECONNREFUSED)
        return error_set(err, ENOTCONN, "'%s' is not running; 'posada start %s' starts it", name,
                         name);
    return r ? error_set(err, -r, "%s", error_text(&why)) : 0;
}

int remote_call(const char *name, const char *call, json_t *args, int64_t timeout_ms, json_t **ret,
                struct error *err)
{
    int64_t deadline_ns = timeout_ms < 0 ? INT64_MAX : host_now_ns() + timeout_ms * NS_PER_MS;
    struct api_client *c;
    int r = remote_open(name, &c, err);

    if (r) {
        json_decref(args);
        return r;
    }
    r = api_client_call(c, call, args, deadline_ns, NULL, NULL, ret, err);
    api_client_close(c);
    return r;
}

int remote_start(struct instance *in, struct error *err)
{
    if (instance_is_running(in))
        return error_set(err, EBUSY, "'%s' is running already", in->name);
    return daemon_start(in->name, err);
}

void remote_ask_stop(struct remote_ending *e, const char *name, int64_t timeout_ms, bool force,
                     bool save)
{
    *e = (struct remote_ending){.name = name, .save = save};
    json_t *args =
        save ? NULL
             : json_pack("{s:I, s:b}", "timeout_ms", (json_int_t)timeout_ms, "force", (int)force);
    if (remote_open(name, &e->client, &e->error)) {
        json_decref(args);
    } else if (api_client_send(e->client, save ? "save" : "stop", args, NULL, &e->error)) {
        api_client_close(e->client);
        e->client = NULL;
    }
}

/** The call's end: 0, or the monitor's error. */
static int await_end(struct remote_ending *e, int64_t deadline_ns, struct error *err)
{
    for (;;) {
        struct api_message m;
        int r = api_client_receive(e->client, deadline_ns, &m, err);
        if (r)
            return r;
        bool done = m.kind == API_RESULT || m.kind == API_ERROR;
        if (m.kind == API_ERROR)
            r = api_error_of(&m, err);
        api_message_done(&m);
        if (done)
            return r;
    }
}

int remote_await_stop(struct remote_ending *e, int64_t timeout_ms, struct error *err)
{
    int64_t deadline_ns =
        e->save ? INT64_MAX : host_now_ns() + (timeout_ms + STOP_SLACK_MS) * NS_PER_MS;
    struct instance *in;

    if (!e->client)
        return error_set(err, e->error.code, "%s", error_text(&e->error));
    int r = await_end(e, deadline_ns, err);
    api_client_close(e->client);
    if (r == -ECONNRESET) {
        *err = (struct error){0}; /* it ended before it could say so */
        r = 0;
    }
    if (!r)
        r = instance_open(e->name, 0, &in, err);
    if (r)
        return r;
    while (instance_is_running(in))
        (void)usleep(POLL_US); /* its process frees what it has: milliseconds */
    instance_close(in);
    return 0;
}

int remote_stop(const char *name, int64_t timeout_ms, bool force, struct error *err)
{
    struct remote_ending e;

    remote_ask_stop(&e, name, timeout_ms, force, false);
    return remote_await_stop(&e, timeout_ms, err);
}

/** What the files say. NULL: it has gone. */
static json_t *status_of_files(const char *name)
{
    struct instance *in;
    struct instance_config c;
    struct error err = {0};

    if (instance_open(name, 0, &in, NULL))
        return NULL;
    bool running = instance_is_running(in);
    json_t *s = json_pack("{s:s, s:s}", "name", name, "state", running ? "starting" : "off");
    int r = instance_config(in, &c, &err);
    if (r) {
        (void)json_object_set_new(s, "error", json_string(error_text(&err)));
    } else {
        json_t *config = config_json(&c);
        json_t *update = json_pack(
            "{s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:O}", "image", c.image, "arch", c.arch, "engine",
            c.engine, "cpus", (json_int_t)c.cpus, "memory_bytes", (json_int_t)c.memory, "restart",
            c.restart, "description", c.description, "publish", json_object_get(config, "publish"));
        (void)json_object_update_missing(s, update);
        json_decref(update);
        json_decref(config);
        config_done(&c);
    }
    cleanup(freep) char *last_path = instance_path(in, NULL, "last.json");
    json_t *last = last_path ? json_load_file(last_path, 0, NULL) : NULL;
    const char *last_state = json_string_value(json_object_get(last, "state"));
    if (!running && last_state && !strcmp(last_state, "running"))
        (void)json_object_set_new(s, "state", json_string("crashed"));
    else if (!running && last)
        (void)json_object_update_missing(s, last); /* out of memory: it says less */
    const char *reason = json_string_value(json_object_get(s, "reason"));
    if (!running && reason && !strcmp(reason, "panic"))
        (void)json_object_set_new(s, "state", json_string("panicked"));
    json_decref(last);
    struct tree *t;
    if (!running && !instance_tree(in, &t, NULL)) {
        if (*t->current.state)
            (void)json_object_set_new(s, "state", json_string("saved"));
        tree_free(t);
    }
    instance_close(in);
    return s;
}

struct asked {
    struct api_client *client; /* NULL: nobody answers */
    json_t *status;
};

/** Ask @a's monitor, without waiting. */
static void ask(struct asked *a, const char *runtime, const char *name)
{
    cleanup(freep) char *path = paths_format(NULL, "%s%s/monitor.sock", runtime, name);

    if (!path || api_client_open(path, &a->client, NULL))
        return;
    if (api_client_send(a->client, "info", NULL, NULL, NULL)) {
        api_client_close(a->client);
        a->client = NULL;
    }
}

/** Its answer goes over what the files say. */
static void take_answer(struct asked *a, int64_t deadline_ns)
{
    struct api_message m;
    int r = api_client_receive(a->client, deadline_ns, &m, NULL);

    if (!r && m.kind == API_RESULT)
        (void)json_object_update(a->status, m.body); /* out of memory: it says less */
    if (!r)
        api_message_done(&m);
    if (r == -ETIMEDOUT)
        (void)json_object_set_new(a->status, "state", json_string("unresponsive"));
    api_client_close(a->client);
}

json_t *remote_status(char *const *names, size_t n, struct error *err)
{
    cleanup(freep) char *runtime = paths_runtime("", err);
    struct asked *asked = calloc(n + 1, sizeof(*asked));
    json_t *all = json_array();

    if (!asked || !all || !runtime) {
        (void)error_set(err, ENOMEM, "out of memory");
        free(asked);
        json_decref(all);
        return NULL;
    }
    for (size_t i = 0; i < n; i++)
        ask(&asked[i], runtime, names[i]);
    for (size_t i = 0; i < n; i++)
        asked[i].status = status_of_files(names[i]);
    int64_t deadline_ns = host_now_ns() + REMOTE_TIMEOUT_MS * NS_PER_MS / 2;
    for (size_t i = 0; i < n; i++) {
        if (asked[i].client)
            take_answer(&asked[i], deadline_ns);
        if (asked[i].status)
            (void)json_array_append_new(all, asked[i].status);
    }
    free(asked);
    return all;
}

int remote_names(const char *const *args, size_t n, bool all, char ***ret, size_t *ret_n,
                 struct error *err)
{
    if (all)
        return store_list(ret, ret_n, err);
    char **names = calloc(n + 1, sizeof(*names));
    for (size_t i = 0; names && i < n; i++) {
        names[i] = strdup(args[i]);
        if (!names[i]) {
            remote_free_names(names, i);
            names = NULL;
        }
    }
    if (!names)
        return error_set(err, ENOMEM, "out of memory");
    *ret = names;
    *ret_n = n;
    return 0;
}

void remote_free_names(char **names, size_t n)
{
    for (size_t i = 0; names && i < n; i++)
        free(names[i]);
    free(names);
}
