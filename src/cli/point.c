/* What the commands on snapshots share. The main thread. */
#include "cli/point.h"

#include "api/api.h"
#include "base/fd.h"
#include "cli/remote.h"
#include "snapshot/instance.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int point_parse(const char *text, bool need, struct point *ret, struct error *err)
{
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);

    *ret = (struct point){.name = ""};
    if (need && !slash)
        return error_set(err, EINVAL, "expected NAME/SNAPSHOT, not '%s'", text);
    if (n < sizeof(ret->name))
        memcpy(ret->name, text, n);
    if (!instance_name_is_valid(ret->name))
        return error_set(err, EINVAL, "'%.*s' cannot be an instance's name",
                         (int)MIN(n, (size_t)80), text);
    if (!slash)
        return 0;
    if (!tree_name_is_valid(slash + 1))
        return error_set(
            err, EINVAL,
            "'%.80s' cannot be a snapshot's name: up to 63 letters, digits, '-', '_' and '.'",
            slash + 1);
    (void)snprintf(ret->snapshot, sizeof(ret->snapshot), "%s", slash + 1);
    return 0;
}

int point_new_name(const char *instance, char ret[TREE_NAME_BYTES], struct error *err)
{
    struct instance *in = NULL;
    struct tree *t = NULL;
    int rc = instance_open(instance, 0, &in, err);

    if (!rc)
        rc = instance_tree(in, &t, err);
    for (unsigned i = 1; !rc; i++) {
        (void)snprintf(ret, TREE_NAME_BYTES, "snap%u", i);
        if (!tree_find_named(t, ret))
            break;
    }
    tree_free(t);
    instance_close(in);
    return rc;
}

int point_progress(void *arg, uint64_t done, uint64_t total)
{
    return arg && total ? progress_bytes(arg, "done", done, total) : 0;
}

/* --- Taking --- */

struct remote_take {
    struct api_client *client;
    struct progress *p;
};

static void on_progress(json_t *report, void *arg)
{
    struct remote_take *r = arg;
    json_int_t done = json_integer_value(json_object_get(report, "done"));
    json_int_t total = json_integer_value(json_object_get(report, "total"));

    if (r->p && total > 0 && progress_bytes(r->p, "saved", (uint64_t)done, (uint64_t)total))
        (void)shutdown(api_client_fd(r->client), SHUT_RDWR); /* it gives up when we are gone */
}

static int take_remote(const char *instance, const char *snapshot, const char *description,
                       bool disk_only, struct progress *p, struct error *err)
{
    struct remote_take r = {.p = p};
    json_t *args = json_pack("{s:s, s:s*, s:b}", "snapshot", snapshot, "description", description,
                             "disk_only", (int)disk_only);
    int rc = remote_open(instance, &r.client, err);

    if (rc) {
        json_decref(args);
        return rc;
    }
    rc = api_client_call(r.client, "snapshot", args, INT64_MAX, on_progress, &r, NULL, err);
    api_client_close(r.client);
    return rc;
}

int point_take(const char *instance, const char *snapshot, const char *description, bool disk_only,
               struct progress *p, struct error *err)
{
    struct snapshots_take o = {
        .name = snapshot,
        .description = description,
        .disk_only = disk_only,
        .progress = point_progress,
        .arg = p,
    };
    struct instance *in = NULL;
    struct error why = {0};
    int rc = take_remote(instance, snapshot, description, disk_only, p, &why);

    if (rc != -ENOTCONN)
        return rc ? error_set(err, -rc, "%s", error_text(&why)) : 0;
    rc = instance_open(instance, INSTANCE_CHANGE, &in, err);
    if (rc)
        return rc;
    /* Held to the end: nobody starts it meanwhile. */
    rc = instance_take_run(in, err);
    if (!rc)
        rc = snapshots_take(in, &o, NULL, err);
    instance_close(in);
    return rc;
}

int point_copy(const struct instance *from, struct instance *to, const struct snapshots_copy *o,
               bool runs, struct error *err)
{
    struct error ignored = {0};
    int rc = runs ? remote_call(from->name, "break", NULL, -1, NULL, err) : 0;

    if (!rc)
        rc = snapshots_copy(from, to, o, err);
    if (runs && remote_call(from->name, "clean", NULL, REMOTE_TIMEOUT_MS, NULL, &ignored)) {
        /* it has ended, and will look when it starts */
    }
    return rc;
}

int point_clean(struct instance *in, struct progress *p, struct error *err)
{
    struct snapshots_clean c = {
        .instance = in->name,
        .in = in,
        .progress = point_progress,
        .arg = p,
    };

    if (in->run_fd < 0 && instance_is_running(in))
        return remote_call(in->name, "clean", NULL, REMOTE_TIMEOUT_MS, NULL, err);
    int rc = snapshots_clean(&c, err);
    if (rc == -ECANCELED) {
        (void)fprintf(stderr,
                      "merging goes on when '%s' starts, or with its next snapshot command\n",
                      in->name);
        *err = (struct error){0};
        rc = 0;
    }
    return rc;
}
