/* Snapshots of a running instance.
 *
 * The tree is changed by who holds the instance's lock: commands do most of it by themselves, and
 * call "clean" afterwards. What needs the machine is done here: taking a snapshot, and merging into
 * the layers that it has open. A merge gives the lock back while it copies, and is broken off by
 * "break" for a command that is about to let another instance lie on a layer, and before a
 * snapshot.
 *
 * Threads: `clean`, one at a time; calls of the API that wait; the monitor's owner. */
#include "monitor/keeper.h"
#include "agent/agent.h"
#include "api/api.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "monitor/monitor_internal.h"
#include "snapshot/instance.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AGENT_CONNECT_NS 300000000LL
#define FREEZE_MS        10000 /* the guest thaws by itself then */
#define FREEZE_NS        20000000000LL

struct keeper {
    struct monitor *monitor; /* [init] */
    struct mutex lock;
    struct cond changed;
    pthread_t thread; /* [lock] of the last run; to be joined if has_thread */
    bool has_thread;  /* [lock] */
    bool busy;        /* [lock] the thread is not at its end */
    bool again;       /* [lock] look once more when it is */
    bool stop;        /* [lock] break off */
    bool taken;       /* [lock] between keeper_enter() and keeper_leave() */
    bool promoting;   /* [lock] a merge is under way that is not broken off */
};

static bool is_to_stop(struct keeper *k)
{
    mutex_lock(&k->lock);
    bool stop = k->stop;
    mutex_unlock(&k->lock);
    return stop;
}

static int watch(void *arg, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return is_to_stop(arg);
}

static void clean_once(struct keeper *k)
{
    struct monitor *m = k->monitor;
    struct vm *vm = monitor_hold(m);
    struct error err = {0};
    struct snapshots_clean c = {
        .instance = monitor_instance(m)->name,
        .vm = vm,
        .progress = watch,
        .arg = k,
    };

    if (!vm)
        return;
    int rc = snapshots_clean(&c, &err);
    monitor_release(m);
    if (rc && rc != -ECANCELED)
        log_warn("%s", error_text(&err));
    if (c.done)
        monitor_event(m, "merged", json_pack("{s:I}", "layers", (json_int_t)c.done));
}

static void *clean_main(void *arg)
{
    struct keeper *k = arg;
    bool more = true;

    while (more) {
        clean_once(k);
        mutex_lock(&k->lock);
        more = k->again && !k->stop;
        k->again = false;
        if (!more) {
            k->busy = false;
            cond_broadcast(&k->changed);
        }
        mutex_unlock(&k->lock);
    }
    return NULL;
}

void keeper_clean(struct keeper *k)
{
    mutex_lock(&k->lock);
    k->stop = false;
    k->again = k->busy;
    if (!k->busy) {
        if (k->has_thread)
            thread_join(k->thread); /* it has nothing left to do */
        k->has_thread = k->busy = !thread_start(&k->thread, "clean", clean_main, k);
    }
    mutex_unlock(&k->lock);
}

void keeper_break(struct keeper *k)
{
    mutex_lock(&k->lock);
    k->stop = true;
    while (k->busy)
        cond_wait(&k->changed, &k->lock);
    mutex_unlock(&k->lock);
}

bool keeper_is_busy(struct keeper *k)
{
    mutex_lock(&k->lock);
    bool busy = k->busy;
    mutex_unlock(&k->lock);
    return busy;
}

void keeper_enter(struct keeper *k)
{
    mutex_lock(&k->lock);
    while (k->taken)
        cond_wait(&k->changed, &k->lock);
    k->taken = true;
    mutex_unlock(&k->lock);
    keeper_break(k);
}

void keeper_leave(struct keeper *k)
{
    mutex_lock(&k->lock);
    k->taken = k->promoting = false;
    cond_broadcast(&k->changed);
    mutex_unlock(&k->lock);
    keeper_clean(k);
}

int keeper_new(struct monitor *m, struct keeper **ret, struct error *err)
{
    struct keeper *k = calloc(1, sizeof(*k));

    if (!k)
        return error_set(err, ENOMEM, "out of memory");
    k->monitor = m;
    mutex_init(&k->lock);
    cond_init(&k->changed);
    *ret = k;
    return 0;
}

void keeper_free(struct keeper *k)
{
    if (!k)
        return;
    keeper_break(k);
    if (k->has_thread)
        thread_join(k->thread);
    mutex_done(&k->lock);
    cond_done(&k->changed);
    free(k);
}

/* --- Calls --- */

/** A snapshot being taken for a call. */
struct taking {
    struct api_call *call;
    const char *vsock_dir;
    struct agent *agent; /* while it has the guest's file systems frozen */
    unsigned frozen;     /* how many were, the whole time */
};

static int report(void *arg, uint64_t done, uint64_t total)
{
    struct taking *t = arg;

    api_progress(t->call,
                 json_pack("{s:I, s:I}", "done", (json_int_t)done, "total", (json_int_t)total));
    return api_call_is_gone(t->call); /* nobody will know of it */
}

/** Have the guest's agent bring its file systems to rest. Without one, the disks are as after a
 * power cut, at one moment all the same. */
static void quiet(void *arg, bool on)
{
    struct taking *t = arg;
    struct error unheard = {0};
    int64_t now_ns = host_now_ns();

    if (on && t->vsock_dir &&
        !agent_connect(t->vsock_dir, now_ns + AGENT_CONNECT_NS, &t->agent, &unheard) &&
        agent_freeze(t->agent, FREEZE_MS, now_ns + FREEZE_NS, &t->frozen, &unheard)) {
        agent_close(t->agent);
        t->agent = NULL;
    }
    if (!on && t->agent) {
        if (agent_thaw(t->agent, now_ns + FREEZE_NS, &unheard))
            t->frozen = 0; /* they were thawed before */
        agent_close(t->agent);
        t->agent = NULL;
    }
}

static int take(struct monitor *m, struct vm *vm, struct taking *t, json_t *args,
                struct snapshots_report *ret, struct error *err)
{
    struct snapshots_take o = {
        .vm = vm,
        .config = monitor_vm_config(m),
        .started_with = monitor_config(m),
        .progress = report,
        .arg = t,
    };
    struct instance *in = NULL;
    int disk_only = 0;

    if (json_unpack(args, "{s:s, s?s, s?b}", "snapshot", &o.name, "description", &o.description,
                    "disk_only", &disk_only))
        return error_set(err, EINVAL, "expected {\"snapshot\": name, ...}");
    o.disk_only = disk_only;
    t->vsock_dir = o.config->vsock_dir;
    if (disk_only)
        o.quiet = quiet; /* with its memory, the guest goes on from where it was anyway */
    keeper_enter(monitor_keeper(m)); /* before the lock: who is in may need it */
    int rc = instance_open(monitor_instance(m)->name, INSTANCE_CHANGE, &in, err);
    if (!rc)
        rc = snapshots_take(in, &o, ret, err);
    instance_close(in);
    keeper_leave(monitor_keeper(m));
    return rc;
}

void keeper_serve_take(struct api_call *call, json_t *args, void *arg)
{
    struct monitor *m = arg;
    struct vm *vm = monitor_hold(m);
    struct taking t = {.call = call};
    struct snapshots_report r = {0};
    struct error err = {0};

    if (!vm) {
        (void)error_set(&err, EAGAIN, "the machine is being made anew");
        api_fail(call, &err);
        return;
    }
    int rc = take(m, vm, &t, args, &r, &err);
    monitor_release(m);
    if (rc) {
        api_fail(call, &err);
        return;
    }
    monitor_event(m, "snapshot", json_pack("{s:O}", "snapshot", json_object_get(args, "snapshot")));
    api_reply(call,
              json_pack("{s:f, s:I, s:I}", "pause_seconds", (double)r.pause_ns / 1e9, "state_bytes",
                        (json_int_t)r.file_bytes, "frozen", (json_int_t)t.frozen));
}

void keeper_serve_clean(struct api_call *call, json_t *args, void *arg)
{
    keeper_clean(monitor_keeper(arg));
    api_reply(call, NULL);
}

void keeper_serve_break(struct api_call *call, json_t *args, void *arg)
{
    struct keeper *k = monitor_keeper(arg);
    struct error err = {0};

    mutex_lock(&k->lock);
    bool promoting = k->promoting;
    mutex_unlock(&k->lock);
    if (promoting) {
        (void)error_set(&err, EBUSY, "its disks are being made independent: try again after that");
        api_fail(call, &err);
        return;
    }
    keeper_break(k);
    api_reply(call, NULL);
}

void keeper_serve_promote(struct api_call *call, json_t *args, void *arg)
{
    struct monitor *m = arg;
    struct vm *vm = monitor_hold(m);
    struct taking t = {.call = call}; /* for report() */
    struct error err = {0};
    struct snapshots_clean c = {
        .instance = monitor_instance(m)->name,
        .vm = vm,
        .promote = true,
        .progress = report,
        .arg = &t,
    };
    int rc = 0;

    struct keeper *k = monitor_keeper(m);

    keeper_enter(k); /* this merges all that the thread would */
    mutex_lock(&k->lock);
    k->promoting = true;
    mutex_unlock(&k->lock);
    if (vm)
        rc = snapshots_clean(&c, &err);
    else
        rc = error_set(&err, EAGAIN, "the machine is being made anew");
    if (vm)
        monitor_release(m);
    keeper_leave(k);
    if (rc)
        api_fail(call, &err);
    else
        api_reply(call, NULL);
}
