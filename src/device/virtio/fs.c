/* virtio file system device. Spec: VIRTIO 1.2 §5.11. The FUSE server behind it: fs_internal.h.
 *
 * Queues: 0 is for what must not wait (forgets), 1 for requests.
 *
 * Threads: the device has a loop of its own and some helpers. A kick is served on the loop's thread
 * at once, which costs no switch to another; a helper is woken only when more requests wait than
 * there are threads at work, so that a slow one does not hold up the others. The device's lock is
 * free while a request is served.
 *
 * Invariants:
 *  1. `busy` counts requests taken from a queue and not yet given back; reset waits for 0.
 *  2. The last thread to find a queue empty has asked the driver for its next kick.
 */
#include "device/virtio/fs.h"
#include "base/fd.h"
#include "device/virtio/fs_internal.h"
#include "device/virtio/virtio.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE_FORGET, QUEUE_REQUEST, QUEUE_COUNT };

/** §5.11.4 */
#define CONFIG_BYTES  40u
#define CONFIG_QUEUES 36

#define HELPERS 3

struct worker {
    struct fs *fs;
    struct vq_chain chain;
    struct fs_work work;
};

struct fs {
    struct virtio_device dev;
    struct loop *loop;            /* [init] */
    struct fs_server *server;     /* [init] */
    uint8_t config[CONFIG_BYTES]; /* [init] */
    struct worker *workers;       /* [init] the loop's thread is number 0 */
    pthread_t helpers[HELPERS];   /* [init] */
    unsigned helper_count;        /* [init] */
    unsigned busy;                /* [lock] */
    unsigned idle;                /* [lock] helpers waiting for work */
    bool stop;                    /* [lock] */
    struct cond work;             /* [lock] for helpers: there is some, or stop */
    struct cond quiet;            /* [lock] busy is 0 */
};

static struct fs *to_fs(struct virtio_device *dev)
{
    return container_of(dev, struct fs, dev);
}

/** Serve the request in @w->chain. */
static void serve(struct fs *fs, struct worker *w, unsigned index) REQUIRES(fs->dev.lock)
{
    const struct vq_chain *c = &w->chain;

    fs->busy++;
    mutex_unlock(&fs->dev.lock);
    size_t written =
        fs_serve(fs->server, &w->work, c->iov, c->out_count, c->iov + c->out_count, c->in_count);
    mutex_lock(&fs->dev.lock);
    vq_push(&fs->dev.queues[index], c, written); /* nothing, if the device broke meanwhile */
    virtio_notify(&fs->dev, index);
    if (!--fs->busy)
        cond_broadcast(&fs->quiet);
}

/** Serve queue @index until it is empty. */
static void serve_queue(struct fs *fs, struct worker *w, unsigned index) REQUIRES(fs->dev.lock)
{
    struct vq *q = &fs->dev.queues[index];

    vq_set_notify(q, false);
    for (;;) {
        if (vq_pop(q, &w->chain) > 0) {
            if (fs->idle && vq_has_work(q))
                cond_signal(&fs->work);
            serve(fs, w, index);
            continue;
        }
        vq_set_notify(q, true);
        if (!vq_has_work(q))
            return;
        vq_set_notify(q, false);
    }
}

/** With the lock held; clang does not see that fs->dev is *dev. */
static void kick(struct virtio_device *dev, unsigned index) NO_THREAD_SAFETY
{
    struct fs *fs = to_fs(dev);

    serve_queue(fs, &fs->workers[0], index);
}

/** The umask is the guest's affair: be without one, on this thread alone. Some sandboxes do not
 * allow that. */
static void drop_umask(void *arg)
{
    struct worker *w = arg;

    w->work.masked = unshare(CLONE_FS) != 0;
    if (!w->work.masked)
        (void)umask(0);
}

static void *help(void *arg)
{
    struct worker *w = arg;
    struct fs *fs = w->fs;

    drop_umask(w);
    mutex_lock(&fs->dev.lock);
    while (!fs->stop) {
        fs->idle++;
        cond_wait(&fs->work, &fs->dev.lock);
        fs->idle--;
        if (!fs->stop)
            serve_queue(fs, w, QUEUE_REQUEST);
    }
    mutex_unlock(&fs->dev.lock);
    return NULL;
}

static void quiesce(struct virtio_device *dev) REQUIRES(dev->lock)
{
    struct fs *fs = to_fs(dev);

    while (fs->busy)
        cond_wait(&fs->quiet, &dev->lock);
}

/** The driver is gone, and with it all it knew. The core has stopped the queues. */
static void reset(struct virtio_device *dev) REQUIRES(dev->lock)
{
    quiesce(dev);
    fs_server_reset(to_fs(dev)->server);
}

static int save(struct virtio_device *dev, struct state_out *out, struct error *err)
{
    return fs_server_save(to_fs(dev)->server, out, err);
}

static int load(struct virtio_device *dev, const struct state_section *s, struct error *err)
{
    return fs_server_load(to_fs(dev)->server, s, err);
}

static void config_read(struct virtio_device *dev, unsigned offset, void *buf, unsigned size)
{
    memcpy(buf, to_fs(dev)->config + offset, size);
}

static void fs_free(struct virtio_device *dev)
{
    struct fs *fs = to_fs(dev);

    mutex_lock(&dev->lock);
    fs->stop = true;
    cond_broadcast(&fs->work);
    mutex_unlock(&dev->lock);
    for (unsigned i = 0; i < fs->helper_count; i++)
        thread_join(fs->helpers[i]);
    virtio_done(dev);
    loop_free(fs->loop);
    fs_server_free(fs->server);
    free(fs->workers);
    cond_done(&fs->work);
    cond_done(&fs->quiet);
    free(fs);
}

static const struct virtio_ops fs_ops = {
    .name = "fs",
    .device_id = 26,
    .reset = reset,
    .quiesce = quiesce,
    .kick = kick,
    .config_read = config_read,
    .save = save,
    .load = load,
    .free = fs_free,
};

static int open_folder(const char *path, struct error *err)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return error_set(err, errno, "cannot share folder '%s': %s", path, strerror(errno));
    if (access("/proc/self/fd", X_OK)) {
        fd_close(fd);
        return error_set(err, ENOENT, "cannot share folder '%s': /proc is not mounted", path);
    }
    return fd;
}

/** Start the loop's thread and the helpers. */
static int start(struct fs *fs)
{
    for (unsigned i = 0; i <= HELPERS; i++)
        fs->workers[i].fs = fs;
    int rc = loop_start(fs->loop);
    if (!rc)
        rc = loop_post(fs->loop, drop_umask, &fs->workers[0]);
    while (!rc && fs->helper_count < HELPERS) {
        rc = thread_start(&fs->helpers[fs->helper_count], "fs-helper", help,
                          &fs->workers[fs->helper_count + 1]);
        fs->helper_count += !rc;
    }
    return rc;
}

int virtio_fs_new(struct mem *mem, const struct virtio_fs_config *config,
                  struct virtio_device **ret, struct error *err)
{
    size_t tag_size = strlen(config->tag);
    struct fs_server *server;

    if (!tag_size || tag_size > VIRTIO_FS_TAG_MAX)
        return error_set(err, EINVAL, "the tag '%s' of a shared folder has not 1 to %d bytes",
                         config->tag, VIRTIO_FS_TAG_MAX);
    int fd = open_folder(config->host_path, err);
    if (fd < 0)
        return fd;
    int rc = fs_server_new(fd, config->readonly, &server, err);
    if (rc)
        return rc;
    struct fs *fs = calloc(1, sizeof(*fs));
    struct loop *loop = loop_new("fs");
    struct worker *workers = calloc(HELPERS + 1, sizeof(*workers));
    if (!fs || !loop || !workers) {
        free(fs);
        free(workers);
        loop_free(loop);
        fs_server_free(server);
        return error_set(err, ENOMEM, "out of memory");
    }
    fs->loop = loop;
    fs->server = server;
    fs->workers = workers;
    cond_init(&fs->work);
    cond_init(&fs->quiet);
    memcpy(fs->config, config->tag, tag_size);
    store_le32(fs->config + CONFIG_QUEUES, 1);
    virtio_init(&fs->dev, &fs_ops, mem, loop, 0, QUEUE_COUNT, 512, CONFIG_BYTES);
    fs->dev.queues[QUEUE_FORGET].max_size = 128;
    rc = start(fs);
    if (rc) {
        fs_free(&fs->dev);
        return error_set(err, -rc, "cannot start threads for a shared folder: %s", strerror(-rc));
    }
    *ret = &fs->dev;
    return 0;
}
