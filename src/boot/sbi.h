/* Built-in supervisor binary interface: what M-mode firmware does for RISC-V guests, done by the
 * monitor. Spec: RISC-V SBI 3.0 (base, TIME, IPI, RFENCE, HSM, SRST, DBCN, PMU, SUSP; of the legacy
 * calls: timer, console, shutdown).
 *
 * A hart's thread:   for (;;) { if (sbi_hart_ready()) { vcpu_run(); on VCPU_EXIT_SBI: sbi_call(); }
 *                               else wait for host->wake or the deadline; } */
#ifndef BOOT_SBI_H
#define BOOT_SBI_H

#include "base/clock.h"
#include "mem/mem.h"
#include "vcpu/vcpu.h"

#define SBI_MAX_HARTS 16

enum sbi_reset { SBI_RESET_SHUTDOWN, SBI_RESET_COLD, SBI_RESET_WARM };

/** What the machine does for the SBI. Called on vCPU threads, without the SBI's lock. */
struct sbi_host {
    /** Stop or restart the machine; @failure: the guest calls it a system failure. */
    void (*reset)(void *arg, enum sbi_reset kind, bool failure);
    /** Console bytes from the guest: returns how many are taken. Never blocks. */
    size_t (*console_write)(void *arg, const void *data, size_t size);
    /** Console bytes for the guest: returns how many. Never blocks. */
    size_t (*console_read)(void *arg, void *data, size_t size);
    /** Have hart @index's thread ask sbi_hart_ready() again. */
    void (*wake)(void *arg, unsigned index);
    void *arg;
};

struct sbi_config {
    struct mem *mem;
    struct vcpu *const *vcpus; /* by hart ID; borrowed */
    unsigned count;
    const struct vclock *clock;
    uint64_t timebase_hz;
    struct sbi_host host;
};

struct sbi;
struct state_in;
struct state_out;

/** *@ret is the caller's, freed before the vCPUs. All harts are stopped. */
must_check int sbi_new(const struct sbi_config *config, struct sbi **ret, struct error *err);
void sbi_free(struct sbi *s);

/** Machine reset: every hart is stopped but hart 0, which will start at @entry with its ID in a0
 * and @opaque in a1. The harts stand still. */
void sbi_reset(struct sbi *s, gpa_t entry, uint64_t opaque);

/** Is hart @index to execute now? Enters and leaves states that were asked for, so that registers
 * are right when it returns true. False: ask again after host->wake, an interrupt, or when
 * CLOCK_MONOTONIC reads *@ret_deadline_ns. The hart's own thread. */
bool sbi_hart_ready(struct sbi *s, unsigned index, int64_t *ret_deadline_ns);

/** State for a snapshot: the harts stand still. A failed load (-EINVAL) leaves any state: reset. */
void sbi_save(struct sbi *s, struct state_out *out);
must_check int sbi_load(struct sbi *s, const struct state_in *in, struct error *err);

/** Perform the call that hart @index's registers hold. Its own thread. */
void sbi_call(struct sbi *s, unsigned index);

#endif
