/* Asking a guest to power off. Linux takes SysRq from the virtio console as Ctrl-O and a key. The
 * kernel does each on its own time, so we give it some between sync, read-only, and off.
 * (Documentation/admin-guide/sysrq.rst; Debian allows these three.) */
#include "monitor/monitor_internal.h"

#include <errno.h>
#include <unistd.h>

static const struct {
    char key;
    unsigned pause_us;
} power_keys[] = {
    {'s', 300000},
    {'u', 500000},
    {'o', 0     }
};

int power_ask(struct vm *vm, const struct vm_config *config, struct error *err)
{
    if (!config->kernel || config->console_uart)
        return error_set(err, ENOTSUP,
                         "this guest cannot be asked to power off: do it inside, or use --force");
    if (vm_get_state(vm) == VM_PAUSED)
        vm_resume(vm);
    for (size_t i = 0; i < ARRAY_SIZE(power_keys); i++) {
        const char keys[] = {0x0f, power_keys[i].key};
        (void)vm_console_input(vm, keys, sizeof(keys)); /* no room: the guest does not listen */
        (void)usleep(power_keys[i].pause_us);
    }
    return 0;
}
