/* Copying files to and from the guest: the host's side. See agent/agent.h, agent/tree.h. One thread
 * per connection. */
#include "agent/agent_internal.h"
#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int64_t deadline(const struct tree_options *o)
{
    return host_now_ns() + o->silence_ms * 1000000;
}

/** The last component of @path without slashes at its end; "" for none. The caller's; NULL = no
 * memory. */
static char *name_of(const char *path)
{
    size_t end = strlen(path), at;

    while (end && path[end - 1] == '/')
        end--;
    for (at = end; at && path[at - 1] != '/'; at--)
        ;
    return strndup(path + at, end - at);
}

static bool is_proper(const char *name)
{
    return *name && strcmp(name, ".") && strcmp(name, "..");
}

/** Under what name the host's @path is to arrive: "." has that of the folder. */
static char *name_of_local(const char *path)
{
    char *name = name_of(path);

    if (!name || is_proper(name))
        return name;
    cleanup(freep) char *real = realpath(path, NULL);
    if (!real)
        return name;
    free(name);
    return name_of(real);
}

/** The guest's last word about what it was sent. */
static int take_result(struct agent *a, const struct tree_options *o, struct error *err)
{
    struct wire_frame f;
    int rc = wire_recv(&a->wire, deadline(o), &f);

    if (rc)
        return agent_lost(rc, err);
    if (f.kind == WIRE_ERROR)
        return wire_error_take(&f, "the guest's agent", err);
    return f.kind == WIRE_REPLY ? 0 : agent_lost(-EPROTO, err);
}

int agent_put(struct agent *a, const char *path, const char *guest_path,
              const struct tree_options *o, struct tree_result *ret, struct error *err)
{
    cleanup(freep) char *name = name_of_local(path);
    struct tree_result result = {0};
    struct wire_frame f;

    if (!name)
        return error_set(err, ENOMEM, "out of memory");
    agent_begin(a, "put");
    wire_field(&a->wire, "path", guest_path);
    wire_field(&a->wire, "name", name);
    wire_field_int(&a->wire, "keep_owners", o->keep_owners);
    int rc = agent_call(a, deadline(o), &f, err);
    if (rc)
        return rc;
    struct error own = {0};
    rc = tree_send(&a->wire, path, o, &result, &own);
    if (rc && rc != -EPIPE) {
        /* So that the guest takes away what is incomplete; it does so at the connection's end,
         * too. */
        (void)!wire_error_send(&a->wire, &own, deadline(o));
        return error_set(err, own.code, "%s", own.text);
    }
    rc = take_result(a, o, err);
    if (!rc)
        *ret = result;
    return rc;
}

int agent_get(struct agent *a, const char *guest_path, const char *path,
              const struct tree_options *o, struct tree_result *ret, struct error *err)
{
    cleanup(freep) char *name = name_of(guest_path);
    struct tree_target target = {.dir_fd = -1};
    struct tree_result result = {0};
    struct wire_frame f;
    int64_t left_out = 0;

    if (!name)
        return error_set(err, ENOMEM, "out of memory");
    int rc = tree_target_open(&target, path, name, err);
    if (rc)
        return rc;
    agent_begin(a, "get");
    wire_field(&a->wire, "path", guest_path);
    rc = agent_call(a, deadline(o), &f, err);
    if (!rc)
        rc = tree_receive(&a->wire, &target, o, &result, err);
    tree_target_close(&target);
    if (!rc) {
        rc = wire_recv(&a->wire, deadline(o), &f);
        if (rc || f.kind != WIRE_REPLY || !wire_has_fields(&f) ||
            wire_find_int(&f, "left_out", 0, INT64_MAX, 0, &left_out))
            rc = agent_lost(rc ? rc : -EPROTO, err);
    }
    if (!rc) {
        result.left_out = (uint64_t)left_out;
        *ret = result;
    }
    return rc;
}
