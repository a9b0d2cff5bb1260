/* Live clones: the call "clone" of a running instance's monitor.
 *
 *   this process                                    the clone's monitor
 *   the clone's folder: layers, tree, files
 *   machine at rest: own tree replaced, tops exchanged
 *   fork ─────────────────────────────────────────> waits
 *   machine goes on; the folder gets its name
 *   "go" ─────────────────────────────────────────> takes the run lock, makes its machine around
 * the waits                                           memory it has, starts it
 *   <───────────────────────────────────── answer
 *
 * The clone's disks lie on what were the original's tops, which nobody writes to any more. Killed
 * at any point, the original has at worst a layer more, which is merged some time, and there is a
 * whole clone, perhaps not running any more, or none.
 *
 * Threads: the call's own; the loop, which waits for clones that end. */
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/paths.h"
#include "monitor/daemon.h"
#include "monitor/keeper.h"
#include "monitor/monitor_internal.h"
#include "snapshot/instance.h"
#include "snapshot/snapshot.h"
#include "store/recover.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

struct clone {
    struct monitor *monitor;
    struct vm *vm;
    struct instance *in; /* the original, its lock held */
    struct instance *to; /* the clone, likewise */
    char *dir;           /* its folder, while it has no name; heap */
    int go[2];           /* to the child; -1 = closed */
    int answer[2];       /* from it */
    int keep[2];         /* the child's ends */
    pid_t child;         /* 0 = none */
    int64_t pause_ns;
};

/* --- The clone's process --- */

/** What becomes a machine, once. */
struct seed {
    const struct snapshot_seed *memory; /* NULL: used */
    const char *name;
};

/** The first machine is the clone; who restarts it later gets a new one. */
static int build(void *arg, struct vm_config *config, struct vm **ret, struct error *err)
{
    struct seed *s = arg;
    const struct snapshot_seed *memory = s->memory;

    s->memory = NULL;
    return memory ? snapshot_grow(memory, config, ret, err) : vm_new(config, ret, err);
}

static int clone_main(void *arg, const struct snapshot_seed *memory)
{
    struct clone *c = arg;
    struct seed seed = {.memory = memory};
    struct monitor_options options = {.terminal_fd = -1, .build = build, .arg = &seed};
    char word = 0;

    if (read(c->go[0], &word, 1) != 1) /* the original's monitor has given up, or died */
        return 1;
    fd_close(c->go[0]);
    (void)setsid();
    return daemon_be(c->to->name, c->answer[1], &options);
}

/* --- The original's --- */

/** At rest for as long as a fork takes. */
static int rest(void *arg, int (*at_rest)(void *rest_arg, struct error *err), void *rest_arg,
                struct error *err)
{
    struct clone *c = arg;
    struct snapshot_clone options = {
        .at_rest = at_rest,
        .at_rest_arg = rest_arg,
        .main = clone_main,
        .arg = c,
        .keep_fds = c->keep,
        .keep_count = ARRAY_SIZE(c->keep),
    };

    return snapshot_clone(c->vm, &options, &c->child, &c->pause_ns, err);
}

/** New tops of the clone in its folder, over what the original writes to now. */
static int make_disks(const struct clone *c, struct error *err)
{
    cleanup(fd_closep) int fd = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct tree *from = NULL;
    struct tree *t = tree_new();
    int rc = t ? instance_tree(c->in, &from, err) : error_set(err, ENOMEM, "out of memory");

    if (!rc && (fd < 0 || (mkdirat(fd, "disks", 0700) && errno != EEXIST)))
        rc = error_set(err, errno, "cannot make '%s/disks': %s", c->dir, strerror(errno));
    for (size_t i = 0; !rc && i < from->current.disk_count; i++) {
        struct tree_disk *d = &t->current.disks[t->current.disk_count++];
        struct tree_over over = {.kind = TREE_OVER_INSTANCE, .instance = c->in->name};

        *d = from->current.disks[i];
        memcpy(over.id, d->layer, sizeof(over.id));
        rc = tree_new_id(d->layer, err);
        const struct tree_layer *l = rc ? NULL : tree_add_layer(t, d->layer, &over, err);
        if (!rc)
            rc = l ? snapshots_make_layer(c->dir, l, vm_disk(c->vm, i)->size_bytes, err) : -ENOMEM;
    }
    if (!rc)
        rc = tree_store(fd, t, err);
    tree_free(t);
    tree_free(from);
    return rc;
}

static int set(struct instance_config *config, const char *key, const char *value,
               struct error *err)
{
    const struct config_key *k = config_find(key, err);

    return k ? config_set(config, k, value, err) : -EINVAL;
}

/** The original's configuration but for its identity and its ports, which it has itself. */
static int write_config(const struct clone *c, struct error *err)
{
    struct instance_config config;
    char uuid[37];
    char mac[18];
    int rc = config_copy(monitor_config(c->monitor), &config, err);

    if (rc)
        return rc;
    rc = instance_share_files(c->in, &config, c->dir, c->to->name, err);
    instance_new_uuid(uuid);
    instance_new_mac(mac);
    if (!rc)
        rc = set(&config, "uuid", uuid, err);
    if (!rc)
        rc = set(&config, "mac", mac, err);
    if (!rc)
        rc = set(&config, "publish", "", err);
    cleanup(freep) char *path = paths_format(err, "%s/instance.yaml", c->dir);
    cleanup(freep) char *text = rc ? NULL : config_format(&config, err);
    if (!rc)
        rc = path && text ? paths_write_safe(path, text, strlen(text), err) : -ENOMEM;
    config_done(&config);
    return rc;
}

/** The clone's folder, and then the moment: nothing can go wrong after it but the folder's name. */
static int fill(struct clone *c, struct error *err)
{
    struct snapshots_take take = {
        .vm = c->vm, .config = monitor_vm_config(c->monitor), .rest = rest, .arg = c};
    int rc = instance_stage(c->to, &c->dir, err);

    if (!rc)
        rc = make_disks(c, err);
    if (!rc)
        rc = write_config(c, err);
    if (!rc)
        rc = snapshots_take(c->in, &take, NULL, err);
    if (!rc)
        rc = instance_commit(c->to, err);
    if (rc && c->dir)
        (void)paths_remove(c->dir); /* else who locks the name next does */
    return rc;
}

/** What would be written to by both, or cannot be. */
static int check(const struct clone *c, struct error *err)
{
    const struct vm_config *v = monitor_vm_config(c->monitor);
    struct tree *t = NULL;
    int rc = instance_tree(c->in, &t, err);

    for (size_t i = rc ? v->disk_count : t->current.disk_count; i < v->disk_count && !rc; i++) {
        if (!v->disks[i].readonly && !v->disks[i].snapshot)
            rc = error_set(err, ENOTSUP,
                           "disk '%s' is a file of its own, which two machines cannot write to",
                           v->disks[i].path);
    }
    tree_free(t);
    return rc;
}

/* --- Clones that end --- */

struct ward {
    struct loop_fd watch;
    struct loop *loop;
    pid_t process;
};

static void ended(struct loop_fd *watch, uint32_t events)
{
    struct ward *w = watch->arg;

    (void)events;
    (void)waitpid(w->process, NULL, WNOHANG); /* it says itself how it went */
    loop_fd_remove(w->loop, watch);
    fd_close(watch->fd);
    free(w);
}

/** Have the loop wait for the child's end. If it cannot, the child stays a zombie for as long as we
 * live: no harm but an entry in a list. */
static void watch_child(const struct clone *c)
{
    struct ward *w = calloc(1, sizeof(*w));
    int fd = (int)syscall(SYS_pidfd_open, c->child, 0);

    if (w && fd >= 0) {
        *w = (struct ward){
            .watch = {.fd = fd, .fn = ended, .arg = w},
            .loop = monitor_loop(c->monitor),
            .process = c->child
        };
        if (!loop_fd_add(w->loop, &w->watch, EPOLLIN))
            return;
    }
    fd_close(fd);
    free(w);
}

/* --- The call --- */

/** The folder is there: let the clone go, and hear whether it runs. */
static int let_go(struct clone *c, struct error *err)
{
    fd_close(fd_take(&c->answer[1]));
    if (write(c->go[1], "g", 1) != 1)
        return error_set(err, EIO, "the clone's process has died");
    return daemon_await(fd_take(&c->answer[0]), err);
}

static int make(struct clone *c, struct error *err)
{
    int rc = check(c, err);

    if (!rc && (pipe2(c->go, O_CLOEXEC) || pipe2(c->answer, O_CLOEXEC)))
        rc = error_set(err, errno, "cannot make a pipe: %s", strerror(errno));
    c->keep[0] = c->go[0];
    c->keep[1] = c->answer[1];
    if (!rc)
        rc = fill(c, err);
    if (!rc)
        rc = let_go(c, err);
    for (size_t i = 0; i < 2; i++) { /* a child that waits gives up */
        fd_close(c->go[i]);
        fd_close(c->answer[i]);
    }
    if (c->child) {
        monitor_shares_memory(c->monitor);
        watch_child(c);
    }
    return rc;
}

static int clone_as(struct clone *c, const char *name, struct error *err)
{
    if (!strcmp(name, monitor_instance(c->monitor)->name)) /* whose lock we are about to hold */
        return error_set(err, EEXIST, "there is an instance '%s' already", name);
    keeper_enter(monitor_keeper(c->monitor)); /* before the lock: who is in may need it */
    int rc = instance_open(monitor_instance(c->monitor)->name, INSTANCE_CHANGE, &c->in, err);
    if (!rc)
        rc = instance_open(name, INSTANCE_CHANGE | INSTANCE_NEW, &c->to, err);
    if (!rc && c->to->exists)
        rc = error_set(err, EEXIST, "there is an instance '%s' already", name);
    if (!rc)
        rc = make(c, err);
    free(c->dir);
    instance_close(c->to);
    instance_close(c->in);
    keeper_leave(monitor_keeper(c->monitor));
    return rc;
}

void clone_serve(struct api_call *call, json_t *args, void *arg)
{
    struct clone c = {
        .monitor = arg, .go = {-1, -1},
             .answer = {-1, -1}
    };
    struct error err = {0};
    const char *name;

    if (json_unpack(args, "{s:s}", "name", &name)) {
        (void)error_set(&err, EINVAL, "expected {\"name\": name}");
        api_fail(call, &err);
        return;
    }
    c.vm = monitor_hold(arg);
    if (!c.vm) {
        (void)error_set(&err, EAGAIN, "the machine is being made anew");
        api_fail(call, &err);
        return;
    }
    int rc = clone_as(&c, name, &err);
    monitor_release(arg);
    if (rc) {
        api_fail(call, &err);
        return;
    }
    monitor_event(arg, "cloned", json_pack("{s:s}", "clone", name));
    api_reply(call, json_pack("{s:f, s:i}", "pause_seconds", (double)c.pause_ns / 1e9, "pid",
                              (int)c.child));
}
