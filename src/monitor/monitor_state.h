/* A monitor, for the files that are its methods: monitor.c and stop.c. */
#ifndef MONITOR_MONITOR_STATE_H
#define MONITOR_MONITOR_STATE_H

#include "base/thread.h"
#include "monitor/machine.h"
#include "monitor/monitor_internal.h"
#include "store/config.h"
#include "vm/vm.h"

#include <time.h>

struct monitor {
    struct instance *instance;      /* [init] */
    struct instance_config config;  /* [init], but for restart: [lock] */
    struct monitor_options options; /* [init] */
    struct machine machine;         /* [init], but for monitor_rebuild() */
    char *runtime;                  /* [init] its runtime folder */
    char *vsock_dir;                /* [init] */
    struct loop *loop;              /* [init] */
    struct hub *hub;                /* [init] */
    struct keeper *keeper;          /* [init] */
    struct guest *guest;            /* [init] */
    struct idle *idle;              /* [init] */
    struct api_server *server;      /* [init] */
    time_t started_s;               /* [init] */
    struct mutex lock;
    bool goes_on; /* [owner] the machine has a saved state, so its guest has booted */
    struct cond changed;
    struct vm *vm;           /* [lock] */
    unsigned holders;        /* [lock] of vm */
    uint64_t memory;         /* [lock] that the guest is to do with; at most config.memory */
    bool stopping;           /* [lock] */
    char no_space[256];      /* [lock] why it is paused; "" = as somebody wished */
    bool ended;              /* [lock] nothing runs any more */
    unsigned restarts;       /* [lock] */
    bool shares_memory;      /* [lock] with processes forked from it, or that it was forked from */
    uint64_t used_bytes;     /* [loop] as counted last */
    int64_t used_until_ns;   /* [loop] when that is to be done again */
    struct vm_result result; /* [lock] of the last machine */
};

#endif
