/* The owner of one running instance.
 *
 * Invariants:
 *  1. `vm` changes only on the owner's thread, while nobody holds it.
 *  2. The API is served from before the machine starts until monitor_free(): who can connect finds
 *     an instance that is running, or about to be, or that has just ended.
 *  3. last.json is "running" while the process lives, so that a killed one is told from one that
 *     ended.
 *
 * Threads: the owner's (new, start, end, rebuild, free); the loop `api`; calls that wait. */
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/paths.h"
#include "monitor/guest.h"
#include "monitor/hub.h"
#include "monitor/idle.h"
#include "monitor/keeper.h"
#include "monitor/monitor_state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define DRAIN_NS  (2LL * 1000000000)
#define NS_PER_MS 1000000LL
#define USED_NS   (1000 * NS_PER_MS)

struct vm *monitor_hold(struct monitor *m)
{
    mutex_lock(&m->lock);
    struct vm *vm = m->vm;
    m->holders += vm != NULL;
    mutex_unlock(&m->lock);
    return vm;
}

void monitor_release(struct monitor *m)
{
    mutex_lock(&m->lock);
    m->holders--;
    cond_broadcast(&m->changed);
    mutex_unlock(&m->lock);
}

struct instance *monitor_instance(struct monitor *m)
{
    return m->instance;
}

const struct instance_config *monitor_config(const struct monitor *m)
{
    return &m->config;
}

const struct vm_config *monitor_vm_config(const struct monitor *m)
{
    return &m->machine.config;
}

struct loop *monitor_loop(struct monitor *m)
{
    return m->loop;
}

struct guest *monitor_guest(struct monitor *m)
{
    return m->guest;
}

struct keeper *monitor_keeper(struct monitor *m)
{
    return m->keeper;
}

struct hub *monitor_hub(struct monitor *m)
{
    return m->hub;
}

void monitor_event(struct monitor *m, const char *name, json_t *body)
{
    json_t *all =
        json_pack("{s:s, s:I}", "name", m->instance->name, "time", (json_int_t)time(NULL));

    if (all && body)
        (void)json_object_update_missing(all, body); /* out of memory: it says less */
    json_decref(body);
    api_server_event(m->server, name, all);
}

const char *monitor_state(struct monitor *m)
{
    static const char *const states[] = {[VM_CREATED] = "starting",
                                         [VM_RUNNING] = "running",
                                         [VM_PAUSED] = "paused",
                                         [VM_STOPPED] = "stopping"};

    mutex_lock(&m->lock);
    enum vm_state state = m->vm ? vm_get_state(m->vm) : VM_STOPPED;
    const char *name = !m->vm        ? (m->stopping ? "stopping" : "restarting")
                       : m->stopping ? "stopping"
                       : state == VM_PAUSED && *m->no_space ? "no-space"
                                                            : states[state];
    mutex_unlock(&m->lock);
    return name;
}

/** The memory of the host's that it uses. Counting shared pages takes milliseconds, so it is done
 * where there are any, and not again and again. */
static uint64_t used_bytes(struct monitor *m)
{
    int64_t now_ns = host_now_ns();
    bool shares = monitor_is_sharing(m);

    if (shares && now_ns >= m->used_until_ns) {
        m->used_bytes = usage_shared_bytes();
        m->used_until_ns = now_ns + USED_NS;
    }
    return shares && m->used_bytes ? m->used_bytes : usage_private_bytes();
}

void monitor_shares_memory(struct monitor *m)
{
    mutex_lock(&m->lock);
    m->shares_memory = true;
    mutex_unlock(&m->lock);
}

bool monitor_is_sharing(struct monitor *m)
{
    mutex_lock(&m->lock);
    bool shares = m->shares_memory;
    mutex_unlock(&m->lock);
    return shares;
}

json_t *monitor_info(struct monitor *m)
{
    const struct instance_config *c = &m->config;
    struct timespec cpu;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    const char *state = monitor_state(m);
    mutex_lock(&m->lock);
    unsigned restarts = m->restarts;
    uint64_t memory = m->memory;
    json_t *error = strcmp(state, "no-space") ? NULL : json_string(m->no_space);
    mutex_unlock(&m->lock);
    json_t *s =
        json_pack("{s:s, s:s, s:i, s:s, s:I, s:I, s:I, s:I, s:f, s:I, s:i, s:b, s:o}", "name",
                  m->instance->name, "state", state, "pid", (int)getpid(), "engine", c->engine,
                  "cpus", (json_int_t)c->cpus, "memory_bytes", (json_int_t)memory, "resident_bytes",
                  (json_int_t)used_bytes(m), "started", (json_int_t)m->started_s, "cpu_seconds",
                  (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9, "guest_errors",
                  (json_int_t)guest_error_count(), "restarts", (int)restarts, "foreground",
                  (int)(m->options.terminal_fd >= 0), "addresses", guest_addresses(m->guest));
    if (s && error)
        (void)json_object_set(s, "error", error); /* out of memory: it says less */
    json_decref(error);
    return s;
}

/** Replace last.json; it informs, and nothing depends on it. */
static void write_last(const struct monitor *m, json_t *last)
{
    cleanup(freep) char *path = instance_path(m->instance, NULL, "last.json");
    cleanup(freep) char *text = last ? json_dumps(last, JSON_INDENT(1)) : NULL;
    struct error err = {0};

    if (path && text && paths_write(path, text, strlen(text), &err))
        log_warn("%s", error_text(&err));
    json_decref(last);
}

/** The machine has just been paused. */
static void disk_full(void *arg, size_t index, int code)
{
    struct monitor *m = arg;
    char text[sizeof(m->no_space)];

    (void)snprintf(
        text, sizeof(text),
        "the host has no room for what the guest writes to disk %zu (%s): make room, then "
        "'posada resume %s'",
        index, strerror(code), m->instance->name);
    mutex_lock(&m->lock);
    memcpy(m->no_space, text, sizeof(text));
    mutex_unlock(&m->lock);
    log_error("'%s' is paused: %s", m->instance->name, text);
    monitor_event(m, "no-space", json_pack("{s:s}", "error", text));
}

void monitor_has_space(struct monitor *m)
{
    mutex_lock(&m->lock);
    *m->no_space = '\0';
    mutex_unlock(&m->lock);
}

static size_t type_into(void *arg, const void *data, size_t size)
{
    return vm_console_input(arg, data, size);
}

/** The guest is to do with less memory than it has, if that was set since its start. */
static void apply_memory(struct monitor *m, struct vm *vm)
{
    mutex_lock(&m->lock);
    uint64_t bytes = m->memory;
    mutex_unlock(&m->lock);
    if (!vm_set_memory(vm, bytes)) {
        mutex_lock(&m->lock);
        m->memory = m->config.memory; /* no balloon: it keeps all until its next start */
        mutex_unlock(&m->lock);
    }
}

/** Make the machine from the configuration. */
static int build(struct monitor *m, struct error *err)
{
    const struct monitor_options *o = &m->options;
    struct vm *vm = NULL;
    int r = machine_init(&m->machine, m->instance->name, &m->config, m->instance,
                         *m->config.image != '\0', err);

    if (r)
        return r;
    struct vm_config *c = &m->machine.config;
    c->console_out = hub_console_fd(m->hub);
    c->disk_full = disk_full;
    c->disk_full_arg = m;
    c->vsock_cid = 3;
    c->vsock_dir = m->vsock_dir;
    bool saved = false;
    if (!m->restarts && !o->build)
        r = save_is_there(m->instance, &saved, err);
    c->no_boot = saved;
    if (o->adjust)
        o->adjust(o->arg, c);
    if (!r)
        r = o->build ? o->build(o->arg, c, &vm, err) : vm_new(c, &vm, err);
    if (!r && saved) {
        r = save_load(m->instance, vm, err);
        if (r)
            vm_free(vm);
    }
    if (r)
        return r;
    m->goes_on = saved;
    hub_set_input(m->hub, type_into, vm);
    mutex_lock(&m->lock);
    m->vm = vm;
    mutex_unlock(&m->lock);
    return 0;
}

/** Free the machine, when nobody holds it any more. */
static void unbuild(struct monitor *m)
{
    hub_set_input(m->hub, NULL, NULL);
    keeper_break(m->keeper);
    guest_stop(m->guest);
    mutex_lock(&m->lock);
    while (m->holders)
        cond_wait(&m->changed, &m->lock);
    struct vm *vm = m->vm;
    m->vm = NULL;
    mutex_unlock(&m->lock);
    vm_free(vm);
    machine_done(&m->machine);
}

int monitor_rebuild(struct monitor *m, struct error *err)
{
    unbuild(m);
    mutex_lock(&m->lock);
    m->restarts++;
    *m->no_space = '\0';
    mutex_unlock(&m->lock);
    return build(m, err);
}

/** Folders, loop, console, API. */
static int open_all(struct monitor *m, struct error *err)
{
    m->runtime = instance_runtime(m->instance->name, err);
    m->vsock_dir = m->runtime ? paths_format(err, "%s/vsock", m->runtime) : NULL;
    cleanup(freep) char *log = instance_path(m->instance, err, "console.log");
    cleanup(freep) char *socket =
        m->runtime ? paths_format(err, "%s/monitor.sock", m->runtime) : NULL;

    if (!m->vsock_dir || !log || !socket)
        return -EIO;
    (void)paths_remove(m->vsock_dir); /* sockets of an earlier machine */
    int r = paths_make(m->vsock_dir, err);
    m->loop = loop_new("api");
    if (!r && !m->loop)
        r = error_set(err, ENOMEM, "out of memory or file descriptors");
    if (!r)
        r = hub_new(m->loop, log, m->options.terminal_fd, &m->hub, err);
    if (!r)
        r = keeper_new(m, &m->keeper, err);
    if (!r)
        r = guest_new(m, &m->guest, err);
    if (!r)
        r = idle_new(m, &m->idle, err);
    if (!r)
        r = api_server_new(m->loop, socket, monitor_methods, m, &m->server, err);
    if (!r && (r = loop_start(m->loop)))
        (void)error_set(err, -r, "cannot start a thread: %s", strerror(-r));
    return r;
}

int monitor_new(struct instance *in, const struct monitor_options *options, struct monitor **ret,
                struct error *err)
{
    struct monitor *m = calloc(1, sizeof(*m));

    if (!m)
        return error_set(err, ENOMEM, "out of memory");
    m->instance = in;
    m->options = *options;
    m->shares_memory = options->build != NULL; /* a clone's */
    m->started_s = time(NULL);
    mutex_init(&m->lock);
    cond_init(&m->changed);
    int r = options->config ? config_copy(options->config, &m->config, err)
                            : instance_config(in, &m->config, err);
    m->memory = m->config.memory;
    if (!r) {
        write_last(m, json_pack("{s:s, s:i, s:I}", "state", "running", "pid", (int)getpid(),
                                "started", (json_int_t)m->started_s));
        r = open_all(m, err);
    }
    if (!r)
        r = build(m, err);
    if (r) {
        write_last(m, json_pack("{s:s, s:s, s:i, s:s, s:I}", "state", "off", "reason", "error",
                                "status", 1, "error", error_text(err), "ended",
                                (json_int_t)time(NULL)));
        monitor_free(m);
        return r;
    }
    *ret = m;
    return 0;
}

int monitor_start(struct monitor *m, struct error *err)
{
    int r = vm_start(m->vm, err); /* the owner's thread: nobody changes it */

    if (!r) {
        monitor_event(m, "started", NULL);
        keeper_clean(m->keeper);
        if (m->memory < m->config.memory)
            apply_memory(m, m->vm);
        guest_start(m->guest, m->goes_on);
        idle_start(m->idle);
    }
    return r;
}

static const char *reason_name(enum vm_stop_reason reason)
{
    static const char *const names[] = {[VM_STOP_POWEROFF] = "poweroff",
                                        [VM_STOP_REQUEST] = "stopped",
                                        [VM_STOP_PANIC] = "panic",
                                        [VM_STOP_ERROR] = "error"};

    return names[reason];
}

void monitor_end(struct monitor *m, const struct vm_result *result)
{
    const char *reason = reason_name(result->reason);
    json_t *last =
        json_pack("{s:s, s:s, s:i, s:I, s:b}", "state", "off", "reason", reason, "status",
                  result->status, "ended", (json_int_t)time(NULL), "asked", (int)m->stopping);

    if (result->reason == VM_STOP_ERROR)
        (void)json_object_set_new(last, "error", json_string(error_text(&result->error)));
    hub_drain(m->hub, host_now_ns() + DRAIN_NS);
    write_last(m, last);
    monitor_event(m, "stopped",
                  json_pack("{s:s, s:i}", "reason", reason, "status", result->status));
    mutex_lock(&m->lock);
    m->ended = true;
    cond_broadcast(&m->changed);
    mutex_unlock(&m->lock);
}

static void free_server(void *arg)
{
    struct monitor *m = arg;

    api_server_free(m->server);
    m->server = NULL;
    hub_free(m->hub);
    m->hub = NULL;
}

void monitor_free(struct monitor *m)
{
    if (!m)
        return;
    mutex_lock(&m->lock);
    m->ended = true;
    m->stopping = true;
    cond_broadcast(&m->changed);
    mutex_unlock(&m->lock);
    if (m->vm)
        vm_stop(m->vm); /* calls that wait for it end */
    idle_free(m->idle);
    if (m->keeper)
        keeper_break(m->keeper);
    if (m->guest)
        guest_stop(m->guest);
    if (m->hub)
        hub_set_input(m->hub, NULL, NULL);
    if (m->loop) {
        if (loop_post(m->loop, free_server, m)) {
            loop_stop(m->loop); /* out of memory: then here */
            loop_sync(m->loop);
        }
        loop_sync(m->loop);
        if (m->server || m->hub)
            free_server(m);
    }
    mutex_lock(&m->lock);
    struct vm *vm = m->vm;
    m->vm = NULL;
    mutex_unlock(&m->lock);
    guest_free(m->guest); /* the server's calls are over */
    keeper_free(m->keeper);
    vm_free(vm);
    loop_free(m->loop);
    machine_done(&m->machine);
    if (m->vsock_dir)
        (void)paths_remove(m->vsock_dir);
    if (m->runtime)
        (void)rmdir(m->runtime); /* unless somebody put something there */
    config_done(&m->config);
    cond_done(&m->changed);
    mutex_done(&m->lock);
    free(m->vsock_dir);
    free(m->runtime);
    free(m);
}

int monitor_reload(struct monitor *m, uint64_t *ret_memory, struct error *err)
{
    struct instance_config fresh;
    int r = instance_config(m->instance, &fresh, err);

    if (r)
        return r;
    mutex_lock(&m->lock);
    char *old = m->config.restart;
    m->config.restart = fresh.restart;
    fresh.restart = old;
    m->memory = MIN(fresh.memory, m->config.memory);
    mutex_unlock(&m->lock);
    config_done(&fresh);
    struct vm *vm = monitor_hold(m);
    if (vm) {
        apply_memory(m, vm);
        monitor_release(m);
    }
    mutex_lock(&m->lock);
    *ret_memory = m->memory;
    mutex_unlock(&m->lock);
    return 0;
}

enum restart_policy monitor_policy(struct monitor *m, unsigned *ret_max)
{
    enum restart_policy policy = RESTART_NO;

    mutex_lock(&m->lock);
    *ret_max = 0;
    (void)config_restart(m->config.restart, &policy, ret_max); /* checked when it was read */
    mutex_unlock(&m->lock);
    return policy;
}
