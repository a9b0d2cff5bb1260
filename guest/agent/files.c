/* Files to and from the host, and small files of the guest's own. See guest_agent.h, agent/tree.h.
 */
#include "base/fd.h"
#include "guest_agent.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { SILENCE_MS = 3600 * 1000 }; /* a host that says nothing for so long is gone */

static bool is_lost(int rc)
{
    return rc == -ECONNRESET || rc == -EPROTO || rc == -ETIMEDOUT;
}

/** After a failure, take the rest of the tree and drop it, so that the host, which may be writing
 * to us and not reading, hears the answer. */
static int skip_tree(struct session *s)
{
    unsigned depth = 0;
    struct wire_frame f;

    for (;;) {
        int rc = wire_recv(&s->wire, INT64_MAX, &f);

        if (rc || f.kind == WIRE_ERROR)
            return -ECONNRESET;
        const char *type = f.kind == WIRE_ENTRY && wire_has_fields(&f) ? wire_find(&f, "type") : "";
        depth += type && *type && strcmp(type, "link") != 0;
        if (f.kind == WIRE_END && depth <= 1)
            return 0;
        depth -= f.kind == WIRE_END;
    }
}

int files_put(struct session *s, const struct wire_frame *f, struct error *err)
{
    const char *path = wire_find(f, "path"), *name = wire_find(f, "name");
    struct tree_options o = {.silence_ms = SILENCE_MS};
    struct tree_target target;
    struct tree_result result;
    int64_t keep_owners;

    if (!path || !name || wire_find_int(f, "keep_owners", 0, 1, 0, &keep_owners))
        return error_set(err, EPROTO, "a request to put nothing anywhere");
    o.keep_owners = keep_owners;
    int rc = tree_target_open(&target, path, name, err);
    if (rc)
        return rc;
    rc = session_reply(s);
    if (!rc)
        rc = wire_flush_all(&s->wire, INT64_MAX);
    rc = rc ? -ECONNRESET : tree_receive(&s->wire, &target, &o, &result, err);
    tree_target_close(&target);
    if (rc == -EREMOTEIO || is_lost(rc))
        return -ECONNRESET;
    if (rc) { /* the host hears of it now, and may stop sending */
        rc = wire_error_send(&s->wire, err, INT64_MAX);
        return rc ? -ECONNRESET : skip_tree(s);
    }
    return session_reply(s);
}

int files_get(struct session *s, const struct wire_frame *f, struct error *err)
{
    const char *path = wire_find(f, "path");
    const struct tree_options o = {.silence_ms = SILENCE_MS};
    struct tree_result result;

    if (!path || !*path)
        return error_set(err, EPROTO, "a request to get nothing");
    if (access(path, R_OK)) /* the most usual reason, as an answer */
        return error_set(err, errno, "cannot open '%s': %s", path, strerror(errno));
    int rc = session_reply(s);
    if (!rc)
        rc = tree_send(&s->wire, path, &o, &result, err);
    if (rc == -EPIPE || is_lost(rc))
        return -ECONNRESET;
    if (rc)
        return rc;
    wire_begin(&s->wire, WIRE_REPLY);
    wire_field_int(&s->wire, "left_out", (int64_t)result.left_out);
    return wire_end(&s->wire);
}

int file_write(const char *path, const char *text, unsigned mode, bool flush, struct error *err)
{
    char temp[PATH_MAX];

    (void)snprintf(temp, sizeof(temp), "%s.posada-new", path);
    (void)unlink(temp); /* of an attempt that broke off */
    cleanup(fd_closep) int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    int rc = fd < 0 ? -errno : fd_write_all(fd, text, strlen(text));
    if (!rc && ((flush && fsync(fd)) || rename(temp, path)))
        rc = -errno;
    if (rc)
        (void)unlink(temp); /* if it is there */
    return rc ? error_set(err, -rc, "cannot write '%s': %s", path, strerror(-rc)) : 0;
}

bool file_read(const char *path, char *buf, size_t room)
{
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, room - 1);

    buf[MAX(n, (ssize_t)0)] = '\0';
    while (n > 0 && buf[n - 1] == '\n')
        buf[--n] = '\0';
    return n >= 0;
}
