/* The calls of the API. docs/api.md describes them. On the loop, or a thread of their own. */
#include "base/fd.h"
#include "base/log.h"
#include "monitor/guest.h"
#include "monitor/hub.h"
#include "monitor/monitor_internal.h"

#include <errno.h>
#include <string.h>

enum { STOP_TIMEOUT_MS = 60000, SIZE_MAX_CELLS = 10000 };

static void fail(struct api_call *call, int code, const char *text)
{
    struct error err = {0};

    (void)error_set(&err, code, "%s", text);
    api_fail(call, &err);
}

static void serve_info(struct api_call *call, json_t *args, void *arg)
{
    api_reply(call, monitor_info(arg));
}

static void serve_guest(struct api_call *call, json_t *args, void *arg)
{
    struct error err = {0};
    json_t *said = NULL;

    if (guest_ask(monitor_guest(arg), &said, &err))
        api_fail(call, &err);
    else
        api_reply(call, said);
}

/** The machine, or NULL with @call failed. */
static struct vm *hold(struct monitor *m, struct api_call *call)
{
    struct vm *vm = monitor_hold(m);

    if (!vm)
        fail(call, EAGAIN, "the machine is being made anew");
    return vm;
}

static void serve_pause(struct api_call *call, json_t *args, void *arg)
{
    struct vm *vm = hold(arg, call);

    if (!vm)
        return;
    bool was = vm_get_state(vm) == VM_PAUSED;
    if (!was)
        vm_pause(vm);
    monitor_release(arg);
    if (!was)
        monitor_event(arg, "paused", NULL);
    api_reply(call, NULL);
}

static void serve_resume(struct api_call *call, json_t *args, void *arg)
{
    struct vm *vm = hold(arg, call);

    if (!vm)
        return;
    bool was = vm_get_state(vm) == VM_PAUSED;
    monitor_has_space(arg);
    if (was)
        vm_resume(vm);
    monitor_release(arg);
    if (was)
        monitor_event(arg, "resumed", NULL);
    api_reply(call, NULL);
}

static void serve_reset(struct api_call *call, json_t *args, void *arg)
{
    struct vm *vm = hold(arg, call);

    if (!vm)
        return;
    vm_reset(vm);
    monitor_release(arg);
    monitor_event(arg, "reset", NULL);
    api_reply(call, NULL);
}

static void serve_stop(struct api_call *call, json_t *args, void *arg)
{
    struct error err = {0};
    json_int_t timeout_ms = STOP_TIMEOUT_MS;
    int force = 0;

    if (json_unpack(args, "{s?I, s?b}", "timeout_ms", &timeout_ms, "force", &force) ||
        timeout_ms < 0 || timeout_ms > INT32_MAX) {
        fail(call, EINVAL, "expected {\"timeout_ms\": number, \"force\": bool}");
        return;
    }
    if (monitor_stop(arg, timeout_ms, force, call, &err))
        api_fail(call, &err);
    else
        api_reply(call, NULL);
}

static void serve_save(struct api_call *call, json_t *args, void *arg)
{
    struct error err = {0};

    if (monitor_save(arg, call, &err))
        api_fail(call, &err);
    else
        api_reply(call, NULL);
}

static void serve_reload(struct api_call *call, json_t *args, void *arg)
{
    struct error err = {0};
    uint64_t memory = 0;

    if (monitor_reload(arg, &memory, &err))
        api_fail(call, &err);
    else
        api_reply(call, json_pack("{s:I}", "memory_bytes", (json_int_t)memory));
}

static void serve_console(struct api_call *call, json_t *args, void *arg)
{
    int fd = api_take_fd(call, NULL);

    if (fd >= 0)
        hub_attach(monitor_hub(arg), fd);
}

static void serve_resize(struct api_call *call, json_t *args, void *arg)
{
    int columns, rows;
    struct vm *vm;

    if (json_unpack(args, "{s:i, s:i}", "columns", &columns, "rows", &rows) || columns < 1 ||
        rows < 1 || columns > SIZE_MAX_CELLS || rows > SIZE_MAX_CELLS) {
        fail(call, EINVAL, "expected {\"columns\": number, \"rows\": number}");
        return;
    }
    vm = hold(arg, call);
    if (!vm)
        return;
    vm_console_resize(vm, (unsigned)columns, (unsigned)rows);
    monitor_release(arg);
    api_reply(call, NULL);
}

/* clang-format off */
const struct api_method monitor_methods[] = {
    {.name = "info", .fn = serve_info},
    {.name = "guest", .fn = serve_guest, .may_wait = true},
    {.name = "pause", .fn = serve_pause, .may_wait = true},
    {.name = "resume", .fn = serve_resume},
    {.name = "reset", .fn = serve_reset},
    {.name = "stop", .fn = serve_stop, .may_wait = true},
    {.name = "save", .fn = serve_save, .may_wait = true},
    {.name = "reload", .fn = serve_reload},
    {.name = "console", .fn = serve_console},
    {.name = "resize", .fn = serve_resize},
    {.name = "snapshot", .fn = keeper_serve_take, .may_wait = true},
    {.name = "clean", .fn = keeper_serve_clean, .may_wait = true},
    {.name = "break", .fn = keeper_serve_break, .may_wait = true},
    {.name = "promote", .fn = keeper_serve_promote, .may_wait = true},
    {.name = "clone", .fn = clone_serve, .may_wait = true},
    {0},
};
/* clang-format on */
