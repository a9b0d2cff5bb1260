/* Where a tree goes: as cp does it. And errors on the wire. See agent/tree.h. Any thread. */
#include "agent/tree.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/** The last component of @path, without slashes behind it; false for none, "." and "..". */
static bool last_component(const char *path, const char **ret, size_t *ret_size)
{
    size_t end = strlen(path), at;

    while (end && path[end - 1] == '/')
        end--;
    for (at = end; at && path[at - 1] != '/'; at--)
        ;
    *ret = path + at;
    *ret_size = end - at;
    return end > at && end - at <= 255 && strncmp(*ret, ".", MAX(end - at, (size_t)1)) &&
           strncmp(*ret, "..", MAX(end - at, (size_t)2));
}

static int open_folder(struct tree_target *t, const char *path, const char *name, size_t size,
                       struct error *err)
{
    t->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->dir_fd < 0)
        return error_set(err, errno, "cannot open folder '%s': %s", path, strerror(errno));
    (void)snprintf(t->name, sizeof(t->name), "%.*s", (int)size, name); /* at most 255 */
    return 0;
}

int tree_target_open(struct tree_target *t, const char *path, const char *name, struct error *err)
{
    const char *last;
    size_t size;
    struct stat st;
    char real[PATH_MAX], parent[PATH_MAX];

    *t = (struct tree_target){.dir_fd = -1};
    if (!*path || strlen(path) >= sizeof(parent))
        return error_set(err, EINVAL, "a path is empty or too long");
    int there = stat(path, &st);
    if (!there && S_ISDIR(st.st_mode)) {
        if (!last_component(name, &last, &size))
            return error_set(err, EINVAL, "'%s' is no name for what is copied", name);
        return open_folder(t, path, last, size, err);
    }
    if (!there && !S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "'%s' is neither a file nor a folder", path);
    if (!there && realpath(path, real))
        path = real; /* of a link to a file, the file is replaced */
    if (!last_component(path, &last, &size))
        return error_set(err, ENOENT, "there is no folder '%s'", path);
    (void)snprintf(parent, sizeof(parent), "%.*s", (int)(last - path), path);
    return open_folder(t, *parent ? parent : ".", last, size, err);
}

void tree_target_close(struct tree_target *t)
{
    fd_close(fd_take(&t->dir_fd));
}

int wire_error_take(const struct wire_frame *f, const char *who, struct error *err)
{
    int64_t code;
    const char *text = wire_has_fields(f) ? wire_find(f, "text") : NULL;
    char clean[256];
    size_t n = 0;

    if (!text || wire_find_int(f, "errno", 1, 4095, EIO, &code))
        return error_set(err, EPROTO, "%s has failed, and does not say why", who);
    for (; text[n] && n < sizeof(clean) - 1; n++) /* no control characters on a terminal */
        clean[n] = (unsigned char)text[n] < ' ' || text[n] == 0x7f ? '?' : text[n];
    clean[n] = '\0';
    return error_set(err, (int)code, "%s", clean);
}

int wire_error_send(struct wire *w, const struct error *err, int64_t deadline_ns)
{
    wire_begin(w, WIRE_ERROR);
    wire_field_int(w, "errno", err->code ? err->code : EIO);
    wire_field(w, "text", error_text(err));
    int rc = wire_end(w);
    return rc ? rc : wire_flush_all(w, deadline_ns);
}
