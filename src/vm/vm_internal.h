/* What the files of vm share. */
#ifndef VM_VM_INTERNAL_H
#define VM_VM_INTERNAL_H

#include "base/clock.h"
#include "base/loop.h"
#include "base/thread.h"
#include "board/virt_riscv.h"
#include "boot/sbi.h"
#include "cpu/engine/engine.h"
#include "device/virtio/virtio.h"
#include "gdb/gdb.h"
#include "vm/console.h"
#include "vm/vm.h"

#define VM_MAX_DEVICES (6 + VM_MAX_DISKS + VM_MAX_SHARES)

struct vm_hart {
    struct vm *vm;       /* [init] */
    unsigned index;      /* [init] */
    struct vcpu *vcpu;   /* [init] */
    pthread_t thread;    /* [init] */
    bool started;        /* [init] thread is to be joined */
    uint32_t wake_count; /* [atomic] changes when the hart is to look around */
    uint32_t waiting;    /* [atomic] the thread sleeps, or is about to, on wake_count */
};

struct vm {
    struct vm_config config; /* [init] */
    struct mem *mem;         /* [init] */
    struct vclock clock;
    struct loop *loop; /* [init] timers, console, GDB */
    struct loop *io;   /* [init] virtio */
    struct engine *engine;
    struct virt_config board_config; /* [init] */
    struct virt_board *board;
    struct sbi *sbi; /* [init] NULL with firmware */
    struct vm_console *console;
    struct gdb_server *gdb;
    struct vcpu *vcpus[VM_MAX_CPUS]; /* [init] */
    struct vm_hart harts[VM_MAX_CPUS];
    struct virtio_transport *transports[VM_MAX_DEVICES]; /* [init] */
    size_t transport_count;
    struct virtio_device *console_device; /* [init] NULL = none; transports' */
    struct virtio_device *ports_device;   /* [init] likewise */
    bool abandon; /* [atomic] relaxed: a stop was asked for while output drains */

    int64_t
        sbi_read_ns; /* [atomic] when the guest last asked the SBI console for input, 0 = never */
    uint32_t attention; /* [atomic] something below asks harts to stand still */
    struct mutex lock;
    struct cond changed;
    enum vm_state state;     /* [lock] */
    unsigned running;        /* [lock] hart threads alive */
    unsigned parked;         /* [lock] hart threads standing still in vm_park() */
    bool stop_wanted;        /* [lock] */
    bool reset_wanted;       /* [lock] */
    bool resetting;          /* [lock] one parked hart performs the reset, the lock free */
    bool pause_wanted;       /* [lock] */
    uint64_t held;           /* [lock] harts that the debugger keeps */
    struct vm_result result; /* [lock] reason, status and error: set by who stops first */
    int64_t started_ns;      /* [lock] */
};

/* vm.c */

/** The guest resets its machine: struct vm. Any thread. */
void vm_guest_reset(void *arg);

/* vm_boot.c */

/** Check that what config names can be booted, without keeping it. */
must_check int vm_boot_check(struct vm *vm, struct error *err);
/** Put kernel, firmware, initrd and device tree into RAM and every hart into its first state. Harts
 * stand still. */
must_check int vm_boot(struct vm *vm, struct error *err);
/** The device tree as a boot would have it, to config.dump_dtb. */
must_check int vm_dump_dtb(struct vm *vm, struct error *err);

/* vm_devices.c */

must_check int vm_add_devices(struct vm *vm, struct error *err);
void vm_remove_devices(struct vm *vm);
/** What the guest has written reaches the host before the machine is said to have stopped. */
void vm_drain_devices(struct vm *vm, int64_t deadline_ns);

/* vm_run.c */

must_check int vm_start_harts(struct vm *vm, struct error *err);
void vm_join_harts(struct vm *vm);
/** Have hart @index's thread look around. Any thread. */
void vm_wake_hart(struct vm *vm, unsigned index);
/** One of the wishes in struct vm changed. */
void vm_attend_locked(struct vm *vm) REQUIRES(vm->lock);
/** The machine is to stop; the first reason stays. Any thread. */
void vm_stop_with(struct vm *vm, enum vm_stop_reason reason, int status, const struct error *err);
/** Guest time runs only while some hart may. */
void vm_update_clock_locked(struct vm *vm) REQUIRES(vm->lock);

#endif
