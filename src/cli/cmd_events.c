/* posada events: what happens to instances, as it happens. One thread. */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "cli/remote.h"
#include "cli/verbs.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { SCAN_MS = 500 };

struct events_values {
    struct cmd_common common;
    bool json;
};

struct watch {
    char *name;
    struct api_client *client; /* NULL: it does not run */
    bool seen;                 /* in this scan */
};

struct events {
    const struct events_values *v;
    const struct opt_args *args; /* names; none = all */
    struct watch *watches;
    size_t n;
    bool first; /* what is there at the start is no news */
};

static void print_event(const struct events *e, const char *event, json_t *body)
{
    const char *name = json_string_value(json_object_get(body, "name"));
    time_t t = (time_t)json_integer_value(json_object_get(body, "time"));
    char when[32] = "-";
    struct tm tm;
    const char *key;
    json_t *value;

    if (e->v->json) {
        (void)json_dumpf(body, stdout, JSON_COMPACT);
        (void)putchar('\n');
        (void)fflush(stdout);
        return;
    }
    if (localtime_r(&t, &tm))
        (void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
    (void)printf("%s %s %s", when, name ? name : "-", event);
    json_object_foreach(body, key, value)
    {
        if (!strcmp(key, "name") || !strcmp(key, "time") || !strcmp(key, "event"))
            continue;
        cleanup(freep) char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        (void)printf(" %s=%s", key, text ? text : "?");
    }
    (void)putchar('\n');
    (void)fflush(stdout);
}

/** An event that no monitor tells of. */
static void print_own(const struct events *e, const char *name, const char *event)
{
    json_t *body =
        json_pack("{s:s, s:s, s:I}", "event", event, "name", name, "time", (json_int_t)time(NULL));

    if (body && !e->first)
        print_event(e, event, body);
    json_decref(body);
}

static bool is_wanted(const struct events *e, const char *name)
{
    for (size_t i = 0; i < e->args->n; i++) {
        if (!strcmp(e->args->v[i], name))
            return true;
    }
    return !e->args->n;
}

static struct watch *find_watch(struct events *e, const char *name)
{
    for (size_t i = 0; i < e->n; i++) {
        if (!strcmp(e->watches[i].name, name))
            return &e->watches[i];
    }
    struct watch *grown = reallocarray(e->watches, e->n + 1, sizeof(*grown));
    char *copy = grown ? strdup(name) : NULL;
    if (grown)
        e->watches = grown;
    if (!copy)
        return NULL; /* out of memory: the next scan tries again */
    e->watches[e->n] = (struct watch){.name = copy};
    print_own(e, name, "created");
    return &e->watches[e->n++];
}

static void drop_watch(struct events *e, size_t i)
{
    struct watch *w = &e->watches[i];

    api_client_close(w->client);
    free(w->name);
    e->watches[i] = e->watches[--e->n];
}

/** Find instances that came, went or started. */
static int scan(struct events *e, struct error *err)
{
    char **names;
    size_t n;
    int r = store_list(&names, &n, err);

    if (r)
        return r;
    for (size_t i = 0; i < e->n; i++)
        e->watches[i].seen = false;
    for (size_t i = 0; i < n; i++) {
        struct watch *w = is_wanted(e, names[i]) ? find_watch(e, names[i]) : NULL;
        if (!w)
            continue;
        w->seen = true;
        if (!w->client && !remote_open(w->name, &w->client, NULL)) {
            /* what it was told before we asked is not lost but for this: */
            if (api_client_send(w->client, "events", NULL, NULL, NULL)) {
                api_client_close(ptr_take(&w->client));
                continue;
            }
            print_own(e, w->name, "running");
        }
    }
    for (size_t i = e->n; i-- > 0;) {
        if (!e->watches[i].seen && !e->watches[i].client) {
            print_own(e, e->watches[i].name, "deleted");
            drop_watch(e, i);
        }
    }
    remote_free_names(names, n);
    e->first = false;
    return 0;
}

/** All that @w's monitor has sent. */
static void receive(struct events *e, struct watch *w)
{
    struct api_message m;
    int r;

    while (!(r = api_client_receive(w->client, host_now_ns(), &m, NULL))) {
        if (m.kind == API_EVENT)
            print_event(e, m.name, m.root);
        api_message_done(&m);
    }
    if (r != -ETIMEDOUT) {
        api_client_close(ptr_take(&w->client));
        print_own(e, w->name, "ended");
    }
}

static int stream(struct events *e, struct error *err)
{
    for (;;) {
        int r = scan(e, err);
        if (r || ferror(stdout))
            return r;
        int64_t next_ns = host_now_ns() + SCAN_MS * 1000000LL;
        for (int64_t left; (left = next_ns - host_now_ns()) > 0;) {
            cleanup(freep) struct pollfd *p = calloc(e->n + 1, sizeof(*p));
            if (!p)
                return error_set(err, ENOMEM, "out of memory");
            for (size_t i = 0; i < e->n; i++)
                p[i] = (struct pollfd){
                    .fd = e->watches[i].client ? api_client_fd(e->watches[i].client) : -1,
                    .events = POLLIN};
            (void)poll(p, e->n, (int)(left / 1000000) + 1);
            for (size_t i = 0; i < e->n; i++) {
                if (p[i].revents)
                    receive(e, &e->watches[i]);
            }
        }
    }
}

static int run_events(const struct cmd *cmd, void *values, struct opt_args *args)
{
    struct events e = {.v = values, .args = args, .first = true};
    struct error err = {0};
    int r = stream(&e, &err);

    while (e.n)
        drop_watch(&e, 0);
    free(e.watches);
    return r ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

static const struct opt_def events_opts[] = {
    {.name = "json",
     OPT_INTO_FLAG(struct events_values, json),
     .group = "Output",
     .help = "Print JSON, one object a line"},
    CMD_COMMON_ROWS(struct events_values),
};

const struct cmd cmd_events = {
    .path = "events",
    .operands = "[NAME...]",
    .summary = "print what happens to instances",
    .description =
        "Print what happens to these instances, or to all, as it happens, until it is interrupted: created, "
        "running, started, paused, resumed, reset, stopping, saving, stopped, restarting, no-space, snapshot, cloned, merged, ended, deleted.",
    .opts = events_opts,
    .values_size = sizeof(struct events_values),
    .max_operands = CLI_NAMES_MAX,
    .run = run_events,
};
