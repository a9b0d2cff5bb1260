/* Requests that are one question and one answer. See agent/agent.h. One thread per connection. */
#include "agent/agent_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { RESEED_MAX = 4096 };

static int simple_call(struct agent *a, int64_t deadline_ns, struct error *err)
{
    struct wire_frame f;

    return agent_call(a, deadline_ns, &f, err);
}

int agent_ping(struct agent *a, int64_t deadline_ns, struct error *err)
{
    agent_begin(a, "ping");
    return simple_call(a, deadline_ns, err);
}

/** Copy @n bytes of what the guest says, without what a terminal would act on. */
static void copy_text(char *to, size_t room, const char *from, size_t n)
{
    size_t i;

    for (i = 0; i < n && i < room - 1; i++)
        to[i] = (unsigned char)from[i] < ' ' || from[i] == 0x7f ? '?' : from[i];
    to[i] = '\0';
}

static void take_text(const struct wire_frame *f, const char *key, char to[AGENT_TEXT_MAX])
{
    const char *value = wire_find(f, key);

    copy_text(to, AGENT_TEXT_MAX, value ? value : "", value ? strlen(value) : 0);
}

/** Cut the next word off *@p. */
static void take_word(const char **p, char *to, size_t room)
{
    size_t n = strcspn(*p, " ");

    copy_text(to, room, *p, n);
    *p += n + ((*p)[n] == ' ');
}

int agent_get_info(struct agent *a, int64_t deadline_ns, struct agent_info *ret, struct error *err)
{
    struct wire_frame f;
    const char *at = NULL, *p;

    agent_begin(a, "info");
    int rc = agent_call(a, deadline_ns, &f, err);
    if (rc)
        return rc;
    int64_t uptime_ms;
    if (wire_find_int(&f, "uptime_ms", 0, INT64_MAX, 0, &uptime_ms))
        return agent_lost(-EPROTO, err);
    *ret = (struct agent_info){.uptime_ms = uptime_ms};
    take_text(&f, "hostname", ret->hostname);
    take_text(&f, "os_name", ret->os_name);
    take_text(&f, "os_id", ret->os_id);
    take_text(&f, "os_version", ret->os_version);
    take_text(&f, "kernel", ret->kernel);
    take_text(&f, "machine", ret->machine);
    take_text(&f, "machine_id", ret->machine_id);
    take_text(&f, "boot_id", ret->boot_id);
    take_text(&f, "version", ret->version);
    while (ret->address_count < AGENT_LIST_MAX && (p = wire_each(&f, "address", &at))) {
        struct agent_address *x = &ret->addresses[ret->address_count++];

        take_word(&p, x->interface, sizeof(x->interface));
        take_word(&p, x->mac, sizeof(x->mac));
        take_word(&p, x->address, sizeof(x->address));
        if (!strcmp(x->mac, "-"))
            x->mac[0] = '\0';
    }
    for (at = NULL; ret->user_count < AGENT_LIST_MAX && (p = wire_each(&f, "user", &at));) {
        struct agent_user *u = &ret->users[ret->user_count++];

        take_word(&p, u->name, sizeof(u->name));
        take_word(&p, u->terminal, sizeof(u->terminal));
    }
    return 0;
}

int agent_shutdown(struct agent *a, enum agent_power how, bool force, int64_t deadline_ns,
                   struct error *err)
{
    agent_begin(a, "shutdown");
    wire_field(&a->wire, "how", how == AGENT_REBOOT ? "reboot" : "poweroff");
    wire_field_int(&a->wire, "force", force);
    return simple_call(a, deadline_ns, err);
}

int agent_freeze(struct agent *a, int64_t timeout_ms, int64_t deadline_ns, unsigned *ret_count,
                 struct error *err)
{
    struct wire_frame f;
    int64_t count;

    agent_begin(a, "freeze");
    wire_field_int(&a->wire, "timeout_ms", timeout_ms);
    int rc = agent_call(a, deadline_ns, &f, err);
    if (rc)
        return rc;
    if (wire_find_int(&f, "count", 0, UINT32_MAX, 0, &count))
        return agent_lost(-EPROTO, err);
    *ret_count = (unsigned)count;
    return 0;
}

int agent_thaw(struct agent *a, int64_t deadline_ns, struct error *err)
{
    agent_begin(a, "thaw");
    return simple_call(a, deadline_ns, err);
}

int agent_set_time(struct agent *a, int64_t time_ns, int64_t deadline_ns, struct error *err)
{
    agent_begin(a, "set-time");
    wire_field_int(&a->wire, "time_ns", time_ns);
    return simple_call(a, deadline_ns, err);
}

int agent_set_identity(struct agent *a, const struct agent_identity *id, int64_t deadline_ns,
                       struct error *err)
{
    agent_begin(a, "identity");
    if (id->hostname)
        wire_field(&a->wire, "hostname", id->hostname);
    if (id->machine_id)
        wire_field(&a->wire, "machine_id", id->machine_id);
    if (id->ssh_keys)
        wire_field_int(&a->wire, "ssh_keys", 1);
    for (size_t i = 0; i < id->mac_count; i++) {
        char pair[64];

        (void)snprintf(pair, sizeof(pair), "%s %s", id->macs[i].from, id->macs[i].to);
        wire_field(&a->wire, "mac", pair);
    }
    if (id->later)
        wire_field_int(&a->wire, "later", 1);
    return simple_call(a, deadline_ns, err);
}

int agent_reseed(struct agent *a, const void *bytes, size_t size, int64_t deadline_ns,
                 struct error *err)
{
    const unsigned char *p = bytes;
    char hex[2 * RESEED_MAX + 1];

    if (size > RESEED_MAX)
        return error_set(err, EINVAL, "at most %d random bytes at once", RESEED_MAX);
    for (size_t i = 0; i < size; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", p[i]);
    hex[2 * size] = '\0';
    agent_begin(a, "reseed");
    wire_field(&a->wire, "bytes", hex);
    return simple_call(a, deadline_ns, err);
}
