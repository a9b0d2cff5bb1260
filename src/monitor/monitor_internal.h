/* What the files of monitor share. */
#ifndef MONITOR_MONITOR_INTERNAL_H
#define MONITOR_MONITOR_INTERNAL_H

#include "api/api.h"
#include "monitor/monitor.h"

/** The calls of the API; their arg is the monitor. methods.c */
extern const struct api_method monitor_methods[];

/** Ask the guest to power off by what it hears: SysRq on its console. -ENOTSUP: nothing. power.c */
must_check int power_ask(struct vm *vm, const struct vm_config *config, struct error *err);

const struct vm_config *monitor_vm_config(const struct monitor *m);

#endif
