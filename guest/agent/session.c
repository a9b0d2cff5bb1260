/* One connection of the host's: request, answer, again. See guest_agent.h, docs/agent.md.
 *
 * Invariants:
 *  1. What the host sends is bounded by the wire; a message that is no request where one is
 *     expected is dropped if it is late input for a program that has ended, else it ends the
 *     session.
 *  2. While this session has frozen file systems it serves nothing but thaw and ping, and thaws
 *     when its time is up. */
#include "base/clock.h"
#include "base/fd.h"
#include "guest_agent.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

struct verb {
    const char *name;
    int (*serve)(struct session *s, const struct wire_frame *f, struct error *err);
    bool when_frozen;
    bool lasts; /* for as long as the host likes: then the guest's own work has its share */
};

void hurry(bool on)
{
    const struct sched_param p = {.sched_priority = on};

    (void)sched_setscheduler(0, on ? SCHED_FIFO : SCHED_OTHER, &p); /* root alone may */
}

int session_reply(struct session *s)
{
    wire_begin(&s->wire, WIRE_REPLY);
    return wire_end(&s->wire);
}

static int ping_serve(struct session *s, const struct wire_frame *f, struct error *err)
{
    wire_begin(&s->wire, WIRE_REPLY);
    wire_field_int(&s->wire, "protocol", WIRE_VERSION);
    return wire_end(&s->wire);
}

static const struct verb verbs[] = {
    {"ping",     ping_serve,     true,  false},
    {"exec",     exec_serve,     false, true },
    {"put",      files_put,      false, true },
    {"get",      files_get,      false, true },
    {"info",     info_serve,     false, false},
    {"freeze",   freeze_serve,   false, false},
    {"thaw",     thaw_serve,     true,  false},
    {"identity", identity_serve, false, false},
    {"shutdown", shutdown_serve, false, false},
    {"set-time", set_time_serve, false, false},
    {"reseed",   reseed_serve,   false, false},
};

/** Is @name one of the words of @list? */
static bool is_allowed(const char *list, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = list; p; p = strchr(p, ','), p += p != NULL) {
        if (!strncmp(p, name, n) && (!p[n] || p[n] == ','))
            return true;
    }
    return !list;
}

static int serve_request(struct session *s, const struct wire_frame *f, struct error *err)
{
    const char *name = wire_has_fields(f) ? wire_find(f, "verb") : NULL;

    if (!name)
        return error_set(err, EPROTO, "a request without a verb");
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
        if (strcmp(verbs[i].name, name))
            continue;
        if (!is_allowed(s->allow, name))
            return error_set(err, ENOSYS, "the guest's agent is not allowed to do '%s'", name);
        if (s->thaw_at_ns != INT64_MAX && !verbs[i].when_frozen)
            return error_set(err, EBUSY, "file systems are frozen by this connection");
        if (verbs[i].lasts)
            hurry(false);
        return verbs[i].serve(s, f, err);
    }
    return error_set(err, ENOSYS, "the guest's agent cannot do '%.40s'", name);
}

/** What may still be on its way to a program that has ended. */
static bool is_late(const struct wire_frame *f)
{
    return f->kind == WIRE_IN || f->kind == WIRE_SIGNAL || f->kind == WIRE_RESIZE;
}

/** One message; false ends the session. */
static bool serve_frame(struct session *s, const struct wire_frame *f)
{
    struct error err = {0};

    if (f->kind != WIRE_REQUEST)
        return is_late(f);
    int rc = serve_request(s, f, &err);
    if (rc == -ECONNRESET)
        return false;
    if (rc)
        rc = wire_error_send(&s->wire, &err, INT64_MAX);
    return !rc && !wire_flush_all(&s->wire, INT64_MAX);
}

void session_run(int fd, struct shared *shared, const char *allow)
{
    struct session s = {.shared = shared, .allow = allow, .thaw_at_ns = INT64_MAX};
    struct error unheard = {0};
    struct wire_frame f;
    sigset_t set;
    int rc;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    s.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    wire_init(&s.wire, fd);
    while (s.signal_fd >= 0) {
        rc = wire_recv(&s.wire, s.thaw_at_ns, &f);
        if (rc == -ETIMEDOUT) {
            (void)thaw_serve(&s, NULL, &unheard); /* the host hears of it when it says thaw */
            s.thawed_late = true;
        } else if (rc || !serve_frame(&s, &f)) {
            break;
        }
    }
    if (s.thaw_at_ns != INT64_MAX)
        (void)thaw_serve(&s, NULL, &unheard);
    fd_close(s.signal_fd);
    wire_done(&s.wire);
}
