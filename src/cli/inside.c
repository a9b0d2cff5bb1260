/* Where a running guest's sockets are. See cli/inside.h. The main thread. */
#include "cli/inside.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/paths.h"
#include "store/store.h"

#include <errno.h>
#include <string.h>

/** The folder of a running instance's sockets (docs/design/instances.md). */
static char *sockets_of_instance(const char *name, struct error *err)
{
    struct instance *in;

    if (instance_open(name, 0, &in, err))
        return NULL;
    bool runs = instance_is_running(in);
    instance_close(in);
    if (!runs) {
        (void)error_set(err, ENOTCONN, "'%s' is not running; 'posada start %s' starts it", name,
                        name);
        return NULL;
    }
    cleanup(freep) char *runtime = paths_runtime("", err);
    return runtime ? paths_format(err, "%s%s/vsock", runtime, name) : NULL;
}

char *inside_sockets(const char *name, struct error *err)
{
    if (!strchr(name, '/'))
        return sockets_of_instance(name, err);
    cleanup(freep) char *socket = paths_format(err, "%s/vsock.sock", name);
    if (!socket)
        return NULL;
    if (!access(socket, F_OK))
        return paths_format(err, "%s", name);
    (void)error_set(err, ENOENT, "no guest has its sockets in '%s'", name);
    return NULL;
}

int inside_connect(const char *name, int64_t wait_ms, struct agent **ret, struct error *err)
{
    cleanup(freep) char *dir = inside_sockets(name, err);

    return dir ? agent_connect(dir, host_now_ns() + wait_ms * 1000000, ret, err) : -err->code;
}
