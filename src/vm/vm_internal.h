/* What the files of vm share. */
#ifndef VM_VM_INTERNAL_H
#define VM_VM_INTERNAL_H

#include "base/clock.h"
#include "base/loop.h"
#include "base/thread.h"
#include "board/pc.h"
#include "board/virt_riscv.h"
#include "boot/sbi.h"
#include "cpu/engine/engine.h"
#include "device/ata/ahci.h"
#include "device/virtio/virtio.h"
#include "gdb/gdb.h"
#include "hv/kvm/kvm.h"
#include "vm/console.h"
#include "vm/vm.h"

#define VM_MAX_MEMORY  (1ULL << 40)
#define VM_MAX_DEVICES (6 + VM_MAX_DISKS + VM_MAX_SHARES)

/** What differs between machines of different processors. Hooks are called by the thread that makes
 * or frees the machine, or while its vCPUs stand still. */
struct vm_arch {
    const char *name; /* Debian's: "riscv64" */
    /** What executes instructions, before the board and its memory. */
    int (*new_processors)(struct vm *vm, struct error *err);
    /** vm->board and its RAM, in vm->mem. */
    int (*new_board)(struct vm *vm, struct error *err);
    /** With memory frozen. */
    int (*new_vcpu)(struct vm *vm, unsigned index, struct vcpu **ret, struct error *err);
    int (*vcpus_made)(struct vm *vm, struct error *err); /* may be NULL */
    void (*trim)(struct vm *vm);                         /* see vm_trim(); NULL: there is nothing */
    /** For vm_fork() and config.adopt: what executes hands on what it knows. @share before the
     * fork, @shared after it in the parent, @inherit in the child with memory frozen. All NULL:
     * nothing. */
    int (*share)(struct vm *vm, struct error *err);
    void (*shared)(struct vm *vm);
    int (*inherit)(struct vm *vm, struct vm *from, struct error *err);
    /** Load what config names, and put vCPUs and memory into their first state. */
    int (*boot)(struct vm *vm, struct error *err);
    int (*dump_dtb)(struct vm *vm, struct error *err);
    /** Does the guest take input from the serial console, although there is another? May be NULL.
     * Any thread. */
    bool (*reads_serial)(const struct vm *vm);
    /** State that is neither a vCPU's, nor the board's, nor a virtio device's. */
    void (*save)(struct vm *vm, struct state_out *out);
    int (*load)(struct vm *vm, const struct state_in *in, struct error *err);
    /** What new_processors() and vcpus_made() made; after vCPUs, board and loops. */
    void (*free)(struct vm *vm);
};

extern const struct vm_arch vm_arch_riscv64, vm_arch_amd64;

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
    struct loop *loop;          /* [init] timers, console, GDB */
    struct loop *io;            /* [init] virtio */
    const struct vm_arch *arch; /* [init] */
    struct board *board;        /* [init] */
    /* riscv64 */
    struct engine *engine;          /* [init] */
    struct virt_config virt_config; /* [init] */
    struct virt_board *virt;        /* [init] it is board */
    struct sbi *sbi;                /* [init] NULL with firmware */
    /* amd64 */
    struct kvm *kvm;     /* [init] */
    struct mem *ports;   /* [init] I/O space */
    struct pc_board *pc; /* [init] it is board */
    /* all */
    struct vm_console *console;
    struct gdb_server *gdb;
    struct vcpu *vcpus[VM_MAX_CPUS]; /* [init] */
    struct vm_hart harts[VM_MAX_CPUS];
    struct virtio_transport *transports[VM_MAX_DEVICES]; /* [init] */
    size_t transport_count;
    /** A disk's device: virtio's (transports'), or a port of the controller. */
    struct vm_disk {
        struct vm *vm; /* its way back */
        size_t index;
        struct virtio_device *virtio; /* NULL = a port */
        unsigned port;
        unsigned slot;                    /* its PCI function's */
    } disks[VM_MAX_DISKS];                /* [init] */
    struct ahci *ahci;                    /* [init] NULL = none */
    struct virtio_device *console_device; /* [init] NULL = none; transports' */
    struct virtio_device *ports_device;   /* [init] likewise */
    struct virtio_device *balloon_device; /* [init] likewise */
    struct net_backend *net;              /* [init] the card's; NULL = none */
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

/** The guest resets its machine or powers it off, with a failure code if not 0: @arg is the vm. Any
 * thread. */
void vm_guest_reset(void *arg);
void vm_guest_poweroff(void *arg, unsigned code);

/* vm_devices.c */

/** Have the disks carry out again what the host had no room for. */
void vm_retry_disks(struct vm *vm);

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
