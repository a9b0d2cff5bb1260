/* Freezing file systems, so that their disks can be copied at a consistent point. See
 * guest_agent.h.
 *
 * Invariants:
 *  1. One session at a time has them frozen, and shared->frozen_by names it: when it dies, the
 *     process that started it thaws them.
 *  2. While they are frozen nothing here writes to a file.
 *  3. Mounts are frozen from the last to the first: what is mounted on another's files (loop
 *     devices) comes before that other. */
#include "base/clock.h"
#include "base/fd.h"
#include "guest_agent.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/fs.h>

enum { MOUNTS_MAX = 256, TIMEOUT_MS = 10000, TIMEOUT_MAX_MS = 600000 };

struct mount {
    unsigned major, minor;
    char path[512];
};

/** Undo mountinfo's \040 and the like, in place. */
static void unescape(char *s)
{
    char *to = s;

    for (; *s; s++) {
        if (s[0] == '\\' && strspn(s + 1, "01234567") >= 3) {
            *to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 3;
        } else {
            *to++ = *s;
        }
    }
    *to = '\0';
}

/** One line of mountinfo: does it name a file system on a device that can be written to? */
static bool parse_line(const char *line, struct mount *m)
{
    char options[256], type[64], source[256];
    const char *dash = strstr(line, " - ");

    if (!dash ||
        sscanf(line, "%*u %*u %u:%u %*s %511s %255s", &m->major, &m->minor, m->path, options) !=
            4 ||
        sscanf(dash, " - %63s %255s", type, source) != 2)
        return false;
    unescape(m->path);
    /* Of those without a device of their own, btrfs and its kind still name one. */
    return (m->major || !strncmp(source, "/dev/", 5)) && strcmp(type, "autofs") != 0 &&
           strncmp(type, "fuse", 4) != 0 &&
           !(!strncmp(options, "ro", 2) && strchr(",", options[2]));
}

/** Each file system once. The caller frees. */
static struct mount *list_mounts(size_t *ret_count)
{
    struct mount *list = calloc(MOUNTS_MAX, sizeof(*list));
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char line[2048];
    size_t n = 0, i;

    while (list && file && n < MOUNTS_MAX && fgets(line, sizeof(line), file)) {
        if (!parse_line(line, &list[n]))
            continue;
        for (i = 0; i < n && (list[i].major != list[n].major || list[i].minor != list[n].minor);
             i++)
            ;
        n += i == n;
    }
    if (file)
        (void)fclose(file); /* it was read only */
    *ret_count = n;
    return list;
}

unsigned thaw_all(void)
{
    size_t n;
    struct mount *list = list_mounts(&n);
    unsigned count = 0;

    for (size_t i = 0; list && i < n; i++) {
        cleanup(fd_closep) int fd = open(list[i].path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        /* Frozen twice is thawed twice; one that was not frozen says EINVAL. */
        while (fd >= 0 && !ioctl(fd, FITHAW, 0))
            count++;
    }
    free(list);
    return count;
}

/** -errno with @err set when one cannot be frozen that should be. */
static int freeze_all(unsigned *ret_count, struct error *err)
{
    size_t n;
    struct mount *list = list_mounts(&n);
    int rc = list ? 0 : error_set(err, ENOMEM, "out of memory");

    *ret_count = 0;
    while (!rc && n--) {
        cleanup(fd_closep) int fd = open(list[n].path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (fd >= 0 && !ioctl(fd, FIFREEZE, 0))
            (*ret_count)++;
        else if (fd >= 0 && errno != EOPNOTSUPP && errno != ENOTTY && errno != EINVAL &&
                 errno != EBUSY) /* of those that are frozen already, and that cannot be */
            rc = error_set(err, errno, "cannot freeze '%s': %s", list[n].path, strerror(errno));
    }
    free(list);
    return rc;
}

static void release(struct session *s)
{
    s->thaw_at_ns = INT64_MAX;
    __atomic_store_n(&s->shared->frozen_by, 0, __ATOMIC_RELEASE);
}

int freeze_serve(struct session *s, const struct wire_frame *f, struct error *err)
{
    int64_t timeout_ms;
    pid_t nobody = 0;
    unsigned count;

    if (wire_find_int(f, "timeout_ms", 1, TIMEOUT_MAX_MS, TIMEOUT_MS, &timeout_ms))
        return error_set(err, EINVAL, "the timeout must be 1 to %d ms", TIMEOUT_MAX_MS);
    if (!__atomic_compare_exchange_n(&s->shared->frozen_by, &nobody, getpid(), false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return error_set(err, EBUSY, "file systems are frozen by another connection");
    s->thawed_late = false;
    int rc = freeze_all(&count, err);
    if (rc) {
        (void)thaw_all();
        release(s);
        return rc;
    }
    s->thaw_at_ns = host_now_ns() + timeout_ms * 1000000;
    wire_begin(&s->wire, WIRE_REPLY);
    wire_field_int(&s->wire, "count", count);
    return wire_end(&s->wire);
}

int thaw_serve(struct session *s, const struct wire_frame *f, struct error *err)
{
    if (s->thawed_late) {
        s->thawed_late = false;
        return error_set(err, ETIME, "the timeout has thawed the file systems before");
    }
    if (s->thaw_at_ns == INT64_MAX)
        return error_set(err, EINVAL, "nothing is frozen by this connection");
    unsigned count = thaw_all();
    release(s);
    if (!f)
        return 0; /* nobody has asked */
    wire_begin(&s->wire, WIRE_REPLY);
    wire_field_int(&s->wire, "count", count);
    return wire_end(&s->wire);
}
