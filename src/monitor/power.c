/* Asking a guest to power off: its agent, if it has one that answers at once, so that its services
 * are stopped in order; else its kernel. Linux takes SysRq from the virtio console as Ctrl-O and a
 * key. The kernel does each on its own time, so we give it some between sync, read-only, and off.
 * (Documentation/admin-guide/sysrq.rst; Debian allows these three.) */
#include "agent/agent.h"
#include "base/clock.h"
#include "monitor/monitor_internal.h"

#include <errno.h>
#include <unistd.h>

#define AGENT_CONNECT_NS 300000000LL
#define AGENT_ANSWER_NS  3000000000LL

static const struct {
    char key;
    unsigned pause_us;
} power_keys[] = {
    {'s', 300000},
    {'u', 500000},
    {'o', 0     }
};

/** False: there is no agent, or it cannot. */
static bool ask_agent(const char *vsock_dir)
{
    struct error unheard = {0};
    struct agent *a;

    if (agent_connect(vsock_dir, host_now_ns() + AGENT_CONNECT_NS, &a, &unheard))
        return false;
    bool asked =
        !agent_shutdown(a, AGENT_POWER_OFF, false, host_now_ns() + AGENT_ANSWER_NS, &unheard);
    agent_close(a);
    return asked;
}

int power_ask(struct vm *vm, const struct vm_config *config, struct error *err)
{
    if (vm_get_state(vm) == VM_PAUSED)
        vm_resume(vm);
    if (config->vsock_dir && ask_agent(config->vsock_dir))
        return 0;
    if (!config->kernel || config->console_uart)
        return error_set(err, ENOTSUP,
                         "this guest cannot be asked to power off: do it inside, or use --force");
    for (size_t i = 0; i < ARRAY_SIZE(power_keys); i++) {
        const char keys[] = {0x0f, power_keys[i].key};
        (void)vm_console_input(vm, keys, sizeof(keys)); /* no room: the guest does not listen */
        (void)usleep(power_keys[i].pause_us);
    }
    return 0;
}
