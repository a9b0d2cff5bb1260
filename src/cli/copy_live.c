/* posada copy --live. The main thread. */
#include "cli/copy_live.h"

#include "base/clock.h"
#include "base/fd.h"
#include "cli/inside.h"
#include "cli/remote.h"
#include "snapshot/instance.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum { AGENT_WAIT_MS = 2000, IDENTITY_SECONDS = 20, RANDOM_BYTES = 64 };

/** The network address of an instance; heap. */
static char *mac_of(const char *name, struct error *err)
{
    struct instance_config config;
    struct instance *in = NULL;
    char *mac = NULL;

    if (instance_open(name, 0, &in, err))
        return NULL;
    if (!instance_config(in, &config, err)) {
        mac = strdup(config.mac);
        config_done(&config);
    }
    instance_close(in);
    return mac;
}

/** Tell the guest who it is now. */
static int introduce(const char *from, const char *to, struct error *err)
{
    struct agent *a = NULL;
    uint8_t bytes[RANDOM_BYTES];
    cleanup(freep) char *old = mac_of(from, err);
    cleanup(freep) char *new = old ? mac_of(to, err) : NULL;
    struct agent_identity id = {.hostname = to, .machine_id = "", .later = true};
    int64_t deadline_ns = host_now_ns() + IDENTITY_SECONDS * 1000000000LL;

    if (!new)
        return -EIO;
    id.macs[0].from = old;
    id.macs[0].to = new;
    id.mac_count = *old && *new;
    int rc = inside_connect(to, AGENT_WAIT_MS, &a, err);
    if (!rc && getrandom(bytes, sizeof(bytes), 0) == sizeof(bytes))
        rc = agent_reseed(a, bytes, sizeof(bytes), deadline_ns, err);
    if (!rc)
        rc = agent_set_identity(a, &id, deadline_ns, err);
    agent_close(a);
    return rc;
}

static int copy_running(const char *from, const char *to, struct error *err)
{
    return remote_call(from, "clone", json_pack("{s:s}", "name", to), -1, NULL, err);
}

/** A linked copy that goes on from the snapshot's state. */
static int copy_saved(const struct point *from, const char *to, struct error *err)
{
    const struct snapshots_copy o = {.snapshot = from->snapshot, .linked = true, .state = true};
    struct instance *source = NULL;
    struct instance *in = NULL;
    int rc = instance_open(from->name, INSTANCE_CHANGE, &source, err);

    if (!rc)
        rc = instance_open(to, INSTANCE_CHANGE | INSTANCE_NEW, &in, err);
    if (!rc && in->exists)
        rc = error_set(err, EEXIST, "there is an instance '%s' already", to);
    if (!rc)
        rc = point_copy(source, in, &o, instance_is_running(source), err);
    instance_close(source);
    if (!rc)
        rc = remote_start(in, err);
    instance_close(in);
    return rc;
}

int copy_live(const struct point *from, const char *to, bool quiet, struct error *err)
{
    struct error why = {0};
    int rc = *from->snapshot ? copy_saved(from, to, err) : copy_running(from->name, to, err);

    if (!rc && introduce(from->name, to, &why) && !quiet)
        (void)fprintf(
            stderr,
            "posada copy: '%s' runs, but does not know that it is another: its host name, machine-id "
            "and network address are still the original's (%s)\n",
            to, error_text(&why));
    return rc;
}
