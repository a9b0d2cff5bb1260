/* What a guest says of itself, and what it is told of itself, by its agent.
 *
 * An instance that was copied, imported or just made has a note in its folder of what its guest
 * does not know yet (store.h). The guest is told at the next start, as soon as its agent answers,
 * and the note goes when the guest has it on disk: killed in between, it is told again.
 *
 * Addresses: the agent knows all, but asking costs the guest time; the network card's backend knows
 * one, at no cost. So what the agent has said counts as long as it names what the network sees.
 *
 * Threads: `guest`, one at a time; calls of the API that wait; the monitor's owner. */
#include "monitor/guest.h"

#include "agent/agent.h"
#include "agent/wire.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "monitor/monitor_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#define NS_PER_S    1000000000LL
#define TRY_NS      (100LL * 1000000)
#define PAUSE_NS    (500LL * 1000000)
#define PATIENCE_NS (900 * NS_PER_S) /* the slowest of engines boots in this time */
#define ANSWER_NS   (2 * NS_PER_S)
#define IDENTITY_NS (300 * NS_PER_S) /* with new keys for SSH */

enum { RANDOM_BYTES = 64 };

struct guest {
    struct monitor *monitor; /* [init] */
    struct mutex lock;
    struct cond changed;
    pthread_t thread; /* [owner] to be joined if has_thread */
    bool has_thread;  /* [owner] */
    bool ask;         /* [init] of the thread */
    bool stop;        /* [lock] */
    int talk_fd;      /* [lock] the thread's connection, to be broken off; -1 = none */
    json_t *said;     /* [lock] addresses, as the agent has said last; NULL = it has not */
};

int guest_new(struct monitor *m, struct guest **ret, struct error *err)
{
    struct guest *g = calloc(1, sizeof(*g));

    if (!g)
        return error_set(err, ENOMEM, "out of memory");
    g->monitor = m;
    g->talk_fd = -1;
    mutex_init(&g->lock);
    cond_init(&g->changed);
    *ret = g;
    return 0;
}

void guest_stop(struct guest *g)
{
    mutex_lock(&g->lock);
    g->stop = true;
    if (g->talk_fd >= 0)
        (void)shutdown(g->talk_fd, SHUT_RDWR); /* nobody is to wait for a guest that is gone */
    cond_broadcast(&g->changed);
    mutex_unlock(&g->lock);
    if (g->has_thread)
        thread_join(g->thread);
    g->has_thread = false;
    mutex_lock(&g->lock);
    json_decref(ptr_take(&g->said)); /* the next machine's guest may have others */
    mutex_unlock(&g->lock);
}

void guest_free(struct guest *g)
{
    if (!g)
        return;
    guest_stop(g);
    cond_done(&g->changed);
    mutex_done(&g->lock);
    free(g);
}

/* --- Asking --- */

/** An address without its prefix's length; NULL: one that says nothing to anybody else. */
static json_t *address_json(const struct agent_address *a)
{
    size_t n = strcspn(a->address, "/");

    return strncmp(a->address, "fe80:", 5) != 0 && strncmp(a->address, "127.", 4) != 0 &&
                   strcmp(a->address, "::1/128") != 0
               ? json_stringn(a->address, n)
               : NULL;
}

static json_t *info_json(const struct agent_info *i)
{
    json_t *addresses = json_array();

    for (size_t k = 0; k < i->address_count; k++) {
        json_t *one = address_json(&i->addresses[k]);

        if (one)
            (void)json_array_append_new(addresses, one); /* out of memory: it says less */
    }
    return json_pack("{s:s, s:s, s:s, s:f, s:o}", "hostname", i->hostname, "os", i->os_name,
                     "kernel", i->kernel, "uptime_seconds", (double)i->uptime_ms / 1000,
                     "addresses", addresses);
}

static int ask(struct guest *g, struct agent *a, json_t **ret, struct error *err)
{
    struct agent_info *i = malloc(sizeof(*i)); /* some 25 KiB */
    int rc = i ? agent_get_info(a, host_now_ns() + ANSWER_NS, i, err)
               : error_set(err, ENOMEM, "out of memory");
    json_t *all = rc ? NULL : info_json(i);

    free(i);
    if (!rc && !all)
        rc = error_set(err, ENOMEM, "out of memory");
    if (rc)
        return rc;
    mutex_lock(&g->lock);
    json_decref(g->said);
    g->said = json_incref(json_object_get(all, "addresses"));
    mutex_unlock(&g->lock);
    *ret = all;
    return 0;
}

/** The folder of the agent's sockets; NULL: there is no machine, which may otherwise go meanwhile.
 */
static const char *sockets(struct guest *g)
{
    struct vm *vm = monitor_hold(g->monitor);
    const char *dir = vm ? monitor_vm_config(g->monitor)->vsock_dir : NULL;

    if (vm)
        monitor_release(g->monitor);
    return dir; /* the monitor's, or the command line's: both outlive us */
}

int guest_ask(struct guest *g, json_t **ret, struct error *err)
{
    const char *dir = sockets(g);
    struct agent *a = NULL;
    int rc = dir ? agent_connect(dir, host_now_ns() + 3 * TRY_NS, &a, err)
                 : error_set(err, ECONNREFUSED, "the guest has no socket for its agent");

    if (!rc)
        rc = ask(g, a, ret, err);
    agent_close(a);
    return rc;
}

json_t *guest_addresses(struct guest *g)
{
    struct vm *vm = monitor_hold(g->monitor);
    char seen[16] = "";
    json_t *all = NULL;

    if (vm && !vm_guest_address(vm, seen))
        *seen = '\0';
    if (vm)
        monitor_release(g->monitor);
    mutex_lock(&g->lock);
    for (size_t i = 0; i < json_array_size(g->said) && !all; i++) {
        if (!*seen || !strcmp(json_string_value(json_array_get(g->said, i)), seen))
            all = json_copy(g->said);
    }
    mutex_unlock(&g->lock);
    return all ? all : *seen ? json_pack("[s]", seen) : json_array();
}

/* --- Telling --- */

/** Tell the guest who it is now. */
static int introduce(struct guest *g, struct agent *a, unsigned what, struct error *err)
{
    struct instance *in = monitor_instance(g->monitor);
    struct agent_identity id = {
        .hostname = what & INSTANCE_NEW_NAME ? in->name : NULL,
        .machine_id = what & INSTANCE_NEW_IDENTITY ? "" : NULL,
        .ssh_keys = what & INSTANCE_NEW_IDENTITY,
    };
    uint8_t bytes[RANDOM_BYTES];
    int rc = 0;

    if (id.ssh_keys && getrandom(bytes, sizeof(bytes), 0) == sizeof(bytes))
        rc = agent_reseed(a, bytes, sizeof(bytes), host_now_ns() + ANSWER_NS, err);
    if (!rc)
        rc = agent_set_identity(a, &id, host_now_ns() + IDENTITY_NS, err);
    return rc ? rc : instance_introduced(in, err);
}

static bool pause_or_stop(struct guest *g, int64_t until_ns)
{
    bool in_time = true;

    mutex_lock(&g->lock);
    while (!g->stop && in_time)
        in_time = cond_wait_until(&g->changed, &g->lock, until_ns);
    bool stop = g->stop;
    mutex_unlock(&g->lock);
    return stop;
}

/** The thread talks over @fd from now on; false: it is to stop. */
static bool talk(struct guest *g, int fd)
{
    mutex_lock(&g->lock);
    g->talk_fd = fd;
    bool stop = g->stop;
    mutex_unlock(&g->lock);
    return !stop;
}

static void *guest_main(void *arg)
{
    struct guest *g = arg;
    const char *dir = sockets(g);
    unsigned what = instance_introduction(monitor_instance(g->monitor));
    int64_t deadline_ns = host_now_ns() + PATIENCE_NS;
    struct agent *a = NULL;
    json_t *said = NULL;
    int rc = -ECONNREFUSED;
    struct error err;

    while (dir && rc == -ECONNREFUSED && host_now_ns() < deadline_ns &&
           !pause_or_stop(g, host_now_ns() + PAUSE_NS)) {
        err = (struct error){0};
        rc = agent_connect(dir, host_now_ns() + TRY_NS, &a, &err);
    }
    if (!rc && !talk(g, agent_wire(a)->fd))
        rc = -ECONNREFUSED;
    if (!rc && what)
        rc = introduce(g, a, what, &err);
    if (!rc && g->ask)
        rc = ask(g, a, &said, &err);
    if (rc && rc != -ECONNREFUSED && !pause_or_stop(g, 0))
        log_warn("the guest's agent: %s", error_text(&err));
    json_decref(said);
    (void)talk(g, -1);
    agent_close(a);
    return NULL;
}

void guest_start(struct guest *g, bool ask_too)
{
    guest_stop(g);
    g->stop = false;
    g->ask = ask_too;
    if (ask_too || instance_introduction(monitor_instance(g->monitor)))
        g->has_thread = !thread_start(&g->thread, "guest", guest_main, g);
}
