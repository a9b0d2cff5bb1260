/* What the files of the built-in SBI share. */
#ifndef BOOT_SBI_INTERNAL_H
#define BOOT_SBI_INTERNAL_H

#include "base/bits.h"
#include "base/thread.h"
#include "boot/sbi.h"

/* Errors (SBI 3.0, table "Standard SBI Errors"). */
enum {
    SBI_SUCCESS = 0,
    SBI_FAILED = -1,
    SBI_NOT_SUPPORTED = -2,
    SBI_INVALID_PARAM = -3,
    SBI_DENIED = -4,
    SBI_INVALID_ADDRESS = -5,
    SBI_ALREADY_AVAILABLE = -6,
    SBI_ALREADY_STARTED = -7,
    SBI_ALREADY_STOPPED = -8,
    SBI_NO_SHMEM = -9,
};

/* Extension IDs. */
#define SBI_EID_BASE 0x10
#define SBI_EID_TIME 0x54494d45
#define SBI_EID_IPI  0x735049
#define SBI_EID_RFNC 0x52464e43
#define SBI_EID_HSM  0x48534d
#define SBI_EID_SRST 0x53525354
#define SBI_EID_PMU  0x504d55
#define SBI_EID_DBCN 0x4442434e
#define SBI_EID_SUSP 0x53555350

/* vCPU register numbers: see vcpu/vcpu.h. */
enum { REG_A0 = 10, REG_A1 = 11, REG_A6 = 16, REG_A7 = 17, REG_PC = 32, REG_CSR = 65 };
enum {
    CSR_SIE = 0x104,
    CSR_SIP = 0x144,
    CSR_STIMECMP = 0x14d,
    CSR_SATP = 0x180,
    CSR_MCOUNTINHIBIT = 0x320,
    CSR_MHPMEVENT0 = 0x320,
    CSR_MCYCLE = 0xb00,
    CSR_CYCLE = 0xc00,
    CSR_MVENDORID = 0xf11,
    CSR_MARCHID = 0xf12,
    CSR_MIMPID = 0xf13,
};

/* Firmware events (SBI 3.0 §11.3) that are counted here. */
enum sbi_event {
    SBI_EVENT_SET_TIMER = 5,
    SBI_EVENT_IPI_SENT = 6,
    SBI_EVENT_IPI_RECEIVED = 7,
    SBI_EVENT_FENCE_I_SENT = 8,
    SBI_EVENT_FENCE_I_RECEIVED = 9,
    SBI_EVENT_SFENCE_SENT = 10,
    SBI_EVENT_SFENCE_RECEIVED = 11,
    SBI_EVENT_SFENCE_ASID_SENT = 12,
    SBI_EVENT_SFENCE_ASID_RECEIVED = 13,
    SBI_EVENTS = 22,
};

struct sbi_return {
    int64_t error;
    uint64_t value;
};

static inline struct sbi_return sbi_error(int error)
{
    return (struct sbi_return){.error = error};
}
static inline struct sbi_return sbi_value(uint64_t value)
{
    return (struct sbi_return){.value = value};
}

enum sbi_hart_state { /* numbers: SBI 3.0 table "HSM Hart States" */
                      SBI_HART_STARTED = 0,
                      SBI_HART_STOPPED = 1,
                      SBI_HART_START_PENDING = 2,
                      SBI_HART_SUSPENDED = 4,
};

#define SBI_HW_COUNTERS 32
#define SBI_FW_COUNTERS 16

struct sbi_counter {
    bool configured, started;
    uint32_t event; /* firmware counters: enum sbi_event */
    uint64_t
        value; /* firmware counters: when stopped the count, else count - events at the start */
};

struct sbi_hart {
    struct vcpu *vcpu;           /* [init] */
    int state;                   /* [atomic] enum sbi_hart_state; changed under sbi.lock */
    bool retentive;              /* [lock] a suspended hart resumes behind its call */
    uint64_t start_addr;         /* [lock] */
    uint64_t start_value;        /* [lock] a1 at start_addr */
    uint64_t events[SBI_EVENTS]; /* [atomic] counts since creation */
    uint32_t programmable;       /* [vcpu] which of counters 3..31 the hart has */
    struct sbi_counter hw[SBI_HW_COUNTERS], fw[SBI_FW_COUNTERS]; /* [vcpu] */
};

struct sbi {
    struct sbi_config config; /* [init] */
    struct mutex lock;        /* hart states; nothing is called with it held */
    struct sbi_hart harts[SBI_MAX_HARTS];
};

struct sbi_args {
    unsigned hart; /* who calls */
    uint64_t a[6];
};

static inline void sbi_count_event(struct sbi *s, unsigned hart, enum sbi_event event)
{
    __atomic_fetch_add(&s->harts[hart].events[event], 1, __ATOMIC_RELAXED); /* a statistic */
}

/** May the supervisor execute at @addr? */
static inline bool sbi_can_execute(const struct sbi *s, uint64_t addr)
{
    return !(addr & 1) && mem_ptr(s->config.mem, GPA(addr), 2, false);
}

/** An unsigned long given as two registers of XLEN bits (SBI 3.0 §3: high part for RV32). */
static inline bool sbi_is_high_zero(uint64_t high)
{
    return high == 0;
}

struct sbi_return sbi_hsm(struct sbi *s, const struct sbi_args *args, uint64_t fid);
struct sbi_return sbi_susp(struct sbi *s, const struct sbi_args *args, uint64_t fid);
struct sbi_return sbi_srst(struct sbi *s, const struct sbi_args *args, uint64_t fid);
struct sbi_return sbi_pmu(struct sbi *s, const struct sbi_args *args, uint64_t fid);
void sbi_pmu_reset(struct sbi_hart *h);
struct sbi_return sbi_dbcn(struct sbi *s, const struct sbi_args *args, uint64_t fid);
struct sbi_return sbi_time(struct sbi *s, const struct sbi_args *args, uint64_t fid);

#endif
