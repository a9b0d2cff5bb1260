/* The guest's agent with a host that says anything. Only what changes nothing is allowed; what a
 * request for a program is read as comes first. */
#include "base/fd.h"
#include "guest_agent.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SENT_MAX = 100 << 10 }; /* what a socket holds */

static void read_spec(const uint8_t *data, size_t size)
{
    struct wire_frame f = {.kind = WIRE_REQUEST, .body = data, .size = size};
    struct exec_spec e;
    struct error err = {0};

    if (!wire_has_fields(&f))
        return;
    int rc = exec_spec_parse(&e, &f, &err);
    assert(!rc == !err.code);
    assert(rc || (e.program && *e.program && e.argv[0] && !e.env[e.env_count]));
    exec_spec_done(&e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct shared shared;
    int pair[2];

    if (size > SENT_MAX)
        return 0;
    if (size > WIRE_HEADER_BYTES)
        read_spec(data + WIRE_HEADER_BYTES, size - WIRE_HEADER_BYTES);
    assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    assert(send(pair[1], data, size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size);
    (void)shutdown(pair[1], SHUT_WR);
    session_run(pair[0], &shared, "ping,info,thaw");
    assert(!shared.frozen_by);
    fd_close(pair[1]);
    return 0;
}
