/* One access, or one instruction, in a chosen privilege, and what it came to. */
#ifndef GUEST_PRIV_PROBE_H
#define GUEST_PRIV_PROBE_H

#include <stdint.h>

#define PROBE_NO_TRAP UINT64_MAX

struct probe {
    uint64_t cause; /* mcause, or PROBE_NO_TRAP */
    uint64_t tval;  /* mtval, or the value loaded */
    uint64_t epc;
    uint64_t status; /* mstatus in the handler */
    uint64_t scause; /* if a trap went to S-mode first, which ECALLs on */
    uint64_t value;  /* a5 at the end of probe_run() */
};

/** Route traps to the probes. */
void probe_init(void);

/** Load or store 8 bytes at @va in M-mode with mstatus = @status (MPRV...). */
void probe_load(uint64_t va, uint64_t status, struct probe *ret);
void probe_store(uint64_t va, uint64_t status, struct probe *ret, uint64_t value);

/** MRET with mstatus = @status to @pc, a5 and a6 = @arg; ends with the first trap to M-mode. */
void probe_run(uint64_t pc, uint64_t status, struct probe *ret, uint64_t arg);

#endif
