/* A running machine: configuration → board → threads. */
#ifndef VM_VM_H
#define VM_VM_H

#include "base/counter.h"
#include "base/error.h"
#include "vm/config.h"

#include <sys/types.h>

struct vm;

enum vm_state { VM_CREATED, VM_RUNNING, VM_PAUSED, VM_STOPPED };

enum vm_stop_reason {
    VM_STOP_POWEROFF, /* the guest asked; status is its code */
    VM_STOP_REQUEST,  /* vm_stop() */
    VM_STOP_PANIC,    /* the guest reported failure (fail code, SBI system failure); status != 0 */
    VM_STOP_ERROR,    /* the monitor's or engine's error: vm_result.error says */
};

struct vm_result {
    enum vm_stop_reason reason;
    int status; /* exit status to pass on: 0 for a clean power-off */
    struct error error;
    uint64_t guest_instructions;
    int64_t cpu_ns; /* host CPU time of the process */
    int64_t wall_ns;
};

/** Build the machine of @config. Opens all files, binds all ports; nothing runs yet. On failure
 * nothing is left.
 *  *@ret is the caller's, for vm_free(). */
must_check int vm_new(const struct vm_config *config, struct vm **ret, struct error *err);

/** Start the vCPUs. 0 or -errno. */
must_check int vm_start(struct vm *vm, struct error *err);

/** Wait until the machine has stopped, or CLOCK_MONOTONIC @deadline_ns (INT64_MAX: none).
 *  0 with *@ret set; -ETIMEDOUT. Any thread but the machine's own. */
must_check int vm_wait(struct vm *vm, int64_t deadline_ns, struct vm_result *ret);

/** Any thread. All return at once, but vm_pause(), which returns when every vCPU stands still. */
void vm_stop(struct vm *vm); /* at once, as by pulling the plug */
void vm_reset(struct vm *vm);
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);
/** For a snapshot: pause, and have the devices finish what they have begun and leave guest memory
 * alone (see virtio_freeze()); until vm_thaw() nothing changes the machine. vm_thaw() leaves it
 * paused. Any thread but the machine's own. */
void vm_freeze(struct vm *vm);
void vm_thaw(struct vm *vm);

/** Give back memory that a machine that has nothing to do can do without: translated code, which is
 * made anew when it runs again, and pages of the guest that are all zeroes. It stands still for
 * some milliseconds. Not by two at a time, and threads as vm_freeze(). */
void vm_trim(struct vm *vm);

/** fork() while no thread of the frozen machine is in the middle of anything, so that the child,
 * which has the calling thread alone, may allocate memory and make machines of its own. It must
 * leave @vm alone but for its memory, and with @adopt for config.adopt. The child's process id, 0
 * in the child, or -errno. */
must_check pid_t vm_fork(struct vm *vm, bool adopt);

/** Disk @index of the configuration, for who changes its chain (disk/chain.h). While it is held, or
 * the machine frozen, it stands still; the machine goes on and waits for it where it must. Not by
 * two at a time, nor while the machine is frozen. Any thread but the machine's own. */
struct disk;
void vm_disk_hold(struct vm *vm, size_t index);
void vm_disk_release(struct vm *vm, size_t index);
struct disk *vm_disk(struct vm *vm, size_t index);
/** While it stands still: another one in its place, which is taken. */
void vm_disk_set(struct vm *vm, size_t index, struct disk *disk);

/** The state of a frozen machine, but for its memory (mem) and disks. -ENOTSUP: a device has a
 * state that cannot be saved; the sentence says which, and what to do. */
struct state_in;
struct state_out;
must_check int vm_save(struct vm *vm, struct state_out *out, struct error *err);

/** Into a machine that was made with the same configuration and config.no_boot, and has not been
 * started; its memory has been filled. -EINVAL: the state is another machine's or damaged; only
 * vm_free() is possible then. */
must_check int vm_load(struct vm *vm, const struct state_in *in, struct error *err);

/** The machine's memory; lives as long as the machine. */
struct mem;
struct mem *vm_mem(struct vm *vm);

/** Press the machine's power key: the guest's system powers off if it likes. False: the machine has
 * none, or the guest does not listen. Any thread. */
bool vm_press_power(struct vm *vm);

/** Can amd64 machines run here, under KVM? 0, or -errno with a sentence of what is missing; and
 * what to do about that. Any thread. */
must_check int vm_kvm_check(struct error *err);
const char *vm_kvm_remedy(int rc);

enum vm_state vm_get_state(struct vm *vm);

/** Ask the guest to do with @bytes of its memory (at most what it has: then with all of it), by the
 * balloon, at its own pace. False: the machine has none. Any thread. */
bool vm_set_memory(struct vm *vm, uint64_t bytes);

/** The guest's IPv4 address as its network card's backend has seen it. False: it has not. Any
 * thread. */
bool vm_guest_address(struct vm *vm, char ret[16]);

/** Tell the guest the size of its console window. Any thread. */
void vm_console_resize(struct vm *vm, unsigned columns, unsigned rows);

/** Feed console input when config.console_in is -1 (the CLI filters its escape key). Any thread;
 * returns bytes taken, 0 when the guest's buffer is full. */
size_t vm_console_input(struct vm *vm, const void *data, size_t size);

/** Statistics of the machine since it was made: at most @max rows; how many. Any thread; after the
 * stop they are final. */
#define VM_MAX_COUNTERS 64
size_t vm_counters(struct vm *vm, struct counter *ret, size_t max);

/** Stops the machine if it runs. NULL is allowed. */
void vm_free(struct vm *vm);

#endif
