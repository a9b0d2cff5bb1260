/* Opening, locking and listing instances.
 *
 * Invariants:
 *  1. INSTANCES/NAME exists whole or not at all: it comes by rename from .NAME.new and goes by
 *     rename to .NAME.gone, both only touched under the lock of NAME; who holds that may delete
 *     them, and does.
 *  2. A file or folder `*.part` in an instance's folder is the rest of a killed writer: likewise.
 *  3. .NAME.lock holds "PID COMMAND" of who holds it, a hint for messages. It is deleted by its
 *     holder when there is no instance NAME; so is .NAME.run.
 *
 * Any thread; processes exclude each other by OFD locks. */
#include "store/store_internal.h"

#include "base/fd.h"
#include "base/paths.h"
#include "store/recover.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { NAME_MAX_BYTES = 63, HOLDER_MAX = 128, POLL_US = 20000 };

static void (*wait_say)(const char *sentence); /* [init] by the main thread, before others */

void instance_on_wait(void (*say)(const char *sentence))
{
    wait_say = say;
}

bool instance_name_is_valid(const char *name)
{
    size_t n = strlen(name);

    if (!n || n > NAME_MAX_BYTES || !isalnum((unsigned char)name[0]) ||
        !isalnum((unsigned char)name[n - 1]))
        return false;
    for (; *name; name++) {
        if (!isalnum((unsigned char)*name) && *name != '-' && *name != '.')
            return false;
    }
    return true;
}

char *instance_path(const struct instance *in, struct error *err, const char *fmt, ...)
{
    cleanup(freep) char *rest = NULL;
    va_list ap;

    va_start(ap, fmt);
    int n = vasprintf(&rest, fmt, ap);
    va_end(ap);
    if (n < 0) {
        rest = NULL;
        (void)error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    return paths_format(err, "%s/%s", in->dir, rest);
}

char *instance_runtime(const char *name, struct error *err)
{
    return paths_runtime(name, err);
}

/** INSTANCES/.NAME.@suffix */
static char *beside(const struct instance *in, const char *suffix, struct error *err)
{
    size_t n = strlen(in->dir) - strlen(in->name);

    return paths_format(err, "%.*s.%s.%s", (int)n, in->dir, in->name, suffix);
}

/** Tell others who holds the lock: a hint, so that nothing is done about an error. */
static void sign_lock(int fd)
{
    char text[HOLDER_MAX];
    int n = snprintf(text, sizeof(text), "%d %s\n", (int)getpid(), program_invocation_short_name);

    if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)MIN(n, HOLDER_MAX - 1), 0) < 0) {
        /* a message will say less */
    }
}

/** "process 12 (posada)", of whoever holds the lock file @path. */
static void describe_holder(const char *path, char ret[HOLDER_MAX])
{
    char text[HOLDER_MAX] = "";
    char name[64];
    int pid;
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && sscanf(text, "%d %63s", &pid, name) == 2)
        (void)snprintf(ret, HOLDER_MAX, "process %d (%s)", pid, name);
    else
        (void)snprintf(ret, HOLDER_MAX, "another process");
}

static int lock_change(struct instance *in, bool wait, struct error *err)
{
    cleanup(freep) char *path = beside(in, "lock", err);
    char holder[HOLDER_MAX];
    char sentence[HOLDER_MAX + 128];
    int rounds = 0;

    if (!path)
        return -ENOMEM;
    while ((in->lock_fd = fd_lock_file(path)) < 0) {
        int r = in->lock_fd;
        in->lock_fd = -1;
        if (r != -EWOULDBLOCK)
            return error_set(err, -r, "cannot lock '%s': %s", path, strerror(-r));
        describe_holder(path, holder);
        if (!wait)
            return error_set(err, EBUSY, "'%s' is being changed by %s", in->name, holder);
        if (++rounds == 10 && wait_say) {
            (void)snprintf(sentence, sizeof(sentence), "waiting for %s, which changes '%s'", holder,
                           in->name);
            wait_say(sentence);
        }
        (void)usleep(POLL_US); /* woken early by a signal: just looks again */
    }
    sign_lock(in->lock_fd);
    return 0;
}

/** Remove what killed commands have left; the lock is held. What cannot be removed now stays for
 * the next. */
static void sweep(const struct instance *in)
{
    static const char *const rests[] = {"new", "gone"};
    DIR *d = opendir(in->dir);

    for (size_t i = 0; i < ARRAY_SIZE(rests); i++) {
        cleanup(freep) char *path = beside(in, rests[i], NULL);
        if (path && !access(path, F_OK))
            (void)store_remove_rest(path);
    }
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        cleanup(freep) char *path = n > 5 && !strcmp(e->d_name + n - 5, ".part")
                                        ? instance_path(in, NULL, "%s", e->d_name)
                                        : NULL;
        if (path)
            (void)paths_remove(path);
    }
    if (d)
        closedir(d);
}

static int find(struct instance *in, bool may_be_new, struct error *err)
{
    cleanup(freep) char *config = instance_path(in, err, "instance.yaml");
    cleanup(freep) char *old = instance_path(in, err, "image");

    if (!config || !old)
        return -ENOMEM;
    in->exists = !access(config, F_OK);
    if (in->exists)
        return 0;
    if (!access(old, F_OK))
        return error_set(err, ENOTSUP,
                         "'%s' was made by a Posada before instances had a configuration: its disk "
                         "is '%s/disk', raw; remove the folder to use the name anew",
                         in->name, in->dir);
    if (may_be_new)
        return 0;
    return error_set(err, ENOENT, "there is no instance '%s'; 'posada list' shows them", in->name);
}

int instance_open(const char *name, unsigned flags, struct instance **ret, struct error *err)
{
    if (!instance_name_is_valid(name))
        return error_set(err, EINVAL,
                         "'%s' cannot be an instance's name: expected up to 63 letters, digits, "
                         "dashes and dots",
                         name);
    cleanup(freep) char *base = paths_data("instances", err);
    struct instance *in = base ? calloc(1, sizeof(*in)) : NULL;
    if (!in)
        return error_set(err, ENOMEM, "out of memory");
    in->lock_fd = in->run_fd = -1;
    in->name = strdup(name);
    in->dir = paths_format(err, "%s/%s", base, name);
    int r = in->name && in->dir ? 0 : error_set(err, ENOMEM, "out of memory");
    /* a name that is not there is not worth a lock file */
    if (!r && !(flags & INSTANCE_NEW))
        r = find(in, false, err);
    if (!r && (flags & INSTANCE_CHANGE)) {
        r = lock_change(in, !(flags & INSTANCE_NO_WAIT), err);
        if (!r)
            sweep(in);
        if (!r)
            r = find(in, flags & INSTANCE_NEW, err);
        /* What is wrong with it is told by who needs its tree; it can be deleted all the same. */
        if (!r && in->exists && !instance_is_running(in))
            (void)!instance_recover(in, NULL);
    }
    if (r) {
        instance_close(in);
        return r;
    }
    *ret = in;
    return 0;
}

void instance_unlock(struct instance *in)
{
    if (in->lock_fd >= 0 && access(in->dir, F_OK)) {
        cleanup(freep) char *lock = beside(in, "lock", NULL);
        cleanup(freep) char *run = beside(in, "run", NULL);
        bool runs =
            in->run_fd < 0 && run && fd_is_locked_file(run); /* a temporary one of that name */
        cleanup(freep) char *runtime = runs ? NULL : instance_runtime(in->name, NULL);
        if (runtime)
            (void)paths_remove(runtime); /* sockets of a killed monitor */
        if (run && !runs)
            (void)unlink(run); /* an empty file more does no harm */
        if (lock)
            (void)unlink(lock);
    }
    fd_close(fd_take(&in->lock_fd));
}

void instance_close(struct instance *in)
{
    if (!in)
        return;
    instance_unlock(in);
    fd_close(in->run_fd);
    free(in->name);
    free(in->dir);
    free(in);
}

int instance_take_run(struct instance *in, struct error *err)
{
    cleanup(freep) char *path = beside(in, "run", err);

    if (!path)
        return -ENOMEM;
    int fd = fd_lock_file(path);
    if (fd == -EWOULDBLOCK)
        return error_set(err, EBUSY, "'%s' is running already", in->name);
    if (fd < 0)
        return error_set(err, -fd, "cannot lock '%s': %s", path, strerror(-fd));
    sign_lock(fd);
    in->run_fd = fd;
    return 0;
}

bool instance_is_running(const struct instance *in)
{
    cleanup(freep) char *path = beside(in, "run", NULL);

    return in->run_fd >= 0 || (path && fd_is_locked_file(path));
}

int instance_config(const struct instance *in, struct instance_config *ret, struct error *err)
{
    cleanup(freep) char *path = instance_path(in, err, "instance.yaml");

    return path ? config_load(path, ret, err) : -ENOMEM;
}

int instance_write_config(const struct instance *in, const char *text, struct error *err)
{
    cleanup(freep) char *path = instance_path(in, err, "instance.yaml");

    return path ? paths_write_safe(path, text, strlen(text), err) : -ENOMEM;
}

/** What a killed creation or removal of @name has left goes, unless somebody is at it. */
static void sweep_name(const char *name)
{
    struct instance *in;

    if (instance_open(name, INSTANCE_CHANGE | INSTANCE_NEW | INSTANCE_NO_WAIT, &in, NULL) == 0)
        instance_close(in);
}

/** ".NAME.new", ".NAME.gone", ".NAME.lock" or ".NAME.run": *@ret = NAME; the latter two, with
 * *@ret_is_lock, are rests only when there is no NAME. */
static bool is_rest(const char *entry, char ret[NAME_MAX_BYTES + 1], bool *ret_is_lock)
{
    static const char *const rests[] = {".new", ".gone", ".lock", ".run"};
    const char *dot = strrchr(entry, '.');
    ptrdiff_t n = dot - entry - 1;
    size_t i = 0;

    if (entry[0] != '.' || n < 1 || n > NAME_MAX_BYTES)
        return false;
    while (i < ARRAY_SIZE(rests) && strcmp(dot, rests[i]) != 0)
        i++;
    if (i == ARRAY_SIZE(rests))
        return false;
    *ret_is_lock = i >= 2;
    memcpy(ret, entry + 1, (size_t)n);
    ret[n] = '\0';
    return instance_name_is_valid(ret);
}

static int is_entry(const struct dirent *e)
{
    char name[NAME_MAX_BYTES + 1];
    bool is_lock;

    return instance_name_is_valid(e->d_name) || is_rest(e->d_name, name, &is_lock);
}

int store_list(char ***ret, size_t *ret_n, struct error *err)
{
    cleanup(freep) char *base = paths_data("instances", err);
    struct dirent **entries;
    char rest[NAME_MAX_BYTES + 1];
    bool is_lock;

    if (!base)
        return -EIO;
    int n = scandir(base, &entries, is_entry, alphasort);
    if (n < 0)
        return error_set(err, errno, "cannot read folder '%s': %s", base, strerror(errno));
    char **names = calloc((size_t)n + 1, sizeof(*names));
    size_t kept = 0;
    for (int i = 0; i < n; i++) {
        if (is_rest(entries[i]->d_name, rest, &is_lock)) {
            cleanup(freep) char *dir = paths_format(NULL, "%s/%s", base, rest);
            if (!is_lock || (dir && access(dir, F_OK)))
                sweep_name(rest);
        } else {
            cleanup(freep) char *config =
                paths_format(NULL, "%s/%s/instance.yaml", base, entries[i]->d_name);
            if (names && config && !access(config, F_OK) &&
                (names[kept] = strdup(entries[i]->d_name)))
                kept++;
        }
        free(entries[i]);
    }
    free(entries);
    if (!names)
        return error_set(err, ENOMEM, "out of memory");
    *ret = names;
    *ret_n = kept;
    return 0;
}
