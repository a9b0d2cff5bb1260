/* The log by which engine=check runs a block twice: the reference run records every data access and
 * non-repeatable value, the second run repeats them in order, so it touches neither memory nor
 * devices, and other CPUs' stores cannot disturb it. */
#ifndef CPU_CORE_REPLAY_H
#define CPU_CORE_REPLAY_H

#include "cpu/core/cpu.h"

#define REPLAY_MAX (250 * 512) /* a region of vector accesses, element by element */

enum replay_kind {
    REPLAY_LOAD,
    REPLAY_STORE,
    REPLAY_ATOMIC,
    REPLAY_CAS,
    REPLAY_PROBE,
    REPLAY_ZERO,
    REPLAY_VALUE
};

struct replay_entry {
    enum replay_kind kind;
    enum cpu_status status;
    unsigned size;
    unsigned mmu;
    uint64_t va;
    uint64_t in[2]; /* store value; operand and op; expected and desired */
    uint64_t out;   /* value loaded */
};

struct replay {
    bool recording;
    unsigned count;
    unsigned next;
    char
        mismatch[256]; /* "" = none: the first access of the second run that differs from the log */
    struct replay_entry entries[REPLAY_MAX];
};

/** Repeat an access in the second run: *@e has kind, size, mmu, va, in; gets out and status. On a
 * mismatch the text is set and the status is CPU_EXIT, which leaves the block. */
void replay_repeat(struct replay *r, struct replay_entry *e);

/** Note an access of the reference run. */
void replay_record(struct replay *r, const struct replay_entry *e);

#endif
