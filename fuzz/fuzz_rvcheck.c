/* Fuzz target: interpreter against translated code, block by block (engine=check), on a hart with
 * all its system registers in reach.
 *
 * Input: a mode byte, initial register values, and code: as it is, or (bit 7 of the mode byte) as
 * records of 6 bytes that each choose a row of the instruction tables and its operands. */
#include "base/bits.h"
#include "cpu/engine/engine.h"
#include "cpu/guest/riscv/rows.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BASE 0x80000000ULL
enum { RAM = 64 << 10, CODE = 0x1000, REGS = 8, HEAD = 1 + 8 * REGS, RUN_US = 2000 };
enum { REG_PC = 32, REG_MSTATUS = 65 + 0x300, REG_MTVEC = 65 + 0x305, REG_STVEC = 65 + 0x105 };
enum { REG_MEDELEG = 65 + 0x302, REG_PMPADDR0 = 65 + 0x3b0, REG_PMPCFG0 = 65 + 0x3a0 };

static struct {
    struct mem *mem;
    struct vclock clock;
    struct loop *loop;
    struct engine *engine;
    struct vcpu *vcpu;
} machine;

/* A guest that loops is stopped by the clock: which input it was does not depend on when. */
static void *kicker(void *arg)
{
    for (;;) {
        (void)usleep(RUN_US);
        vcpu_kick(machine.vcpu);
    }
    return NULL;
}

static void start(void)
{
    struct error err = {0};
    struct engine_config config;
    pthread_t thread;

    machine.mem = mem_new();
    machine.loop = loop_new("timers");
    if (!machine.mem || !machine.loop ||
        mem_add_ram(machine.mem, GPA(BASE), RAM, 0, "ram", NULL, NULL, NULL, &err))
        abort();
    vclock_init(&machine.clock, 0);
    config = (struct engine_config){.kind = ENGINE_CHECK,
                                    .mem = machine.mem,
                                    .clock = &machine.clock,
                                    .loop = machine.loop,
                                    .timebase_hz = 10000000,
                                    .max_vcpus = 1,
                                    .reset_pc = BASE,
                                    .cache_bytes = 16 << 20};
    if (engine_new(&config, &machine.engine, &err) ||
        engine_new_vcpu(machine.engine, 0, &machine.vcpu, &err))
        abort();
    mem_freeze(machine.mem);
    if (loop_start(machine.loop) || pthread_create(&thread, NULL, kicker, NULL))
        abort();
}

static size_t make_code(const uint8_t *data, size_t size, bool rows, uint8_t *code, size_t max)
{
    size_t used = 0;

    if (!rows) {
        used = MIN(size, max);
        memcpy(code, data, used);
        return used;
    }
    for (; size >= 6 && used + 4 <= max; data += 6, size -= 6) {
        const struct rv_row *row = &rv_rows[load_le16(data) % rv_row_count];

        store_le32(code + used, row->match | (load_le32(data + 2) & ~row->mask));
        used += row->size;
    }
    return used;
}

static void set(unsigned id, uint64_t value)
{
    if (vcpu_set_reg(machine.vcpu, id, value))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct vcpu_debug debug = {.trap_ebreak = true};
    static uint8_t ram[RAM];
    struct vcpu_exit exit = {0};

    if (size < HEAD)
        return 0;
    if (!machine.vcpu)
        start();
    memset(ram, 0, sizeof(ram));
    (void)make_code(data + HEAD, size - HEAD, data[0] & 0x80, ram + CODE, RAM - CODE);
    if (mem_copy_out(machine.mem, GPA(BASE), ram, RAM))
        abort();
    vcpu_reset(machine.vcpu);
    for (unsigned r = 1; r < 32; r++)
        set(r, r >= 8 && r < 8 + REGS ? load_le64(data + 1 + 8 * (r - 8)) : 0);
    set(2, BASE + RAM / 2);
    set(REG_PMPADDR0, ~0ULL);
    set(REG_PMPCFG0, 0x1f);
    set(REG_MSTATUS, (uint64_t)(data[0] & 3) << 13 | (uint64_t)(data[0] >> 2 & 3) << 11);
    set(REG_MEDELEG, data[0] & 0x10 ? 0xb3ff : 0);
    set(REG_MTVEC, BASE + CODE);
    set(REG_STVEC, BASE + CODE);
    set(REG_PC, BASE + CODE);
    vcpu_set_debug(machine.vcpu, &debug);
    vcpu_run(machine.vcpu, &exit); /* whatever a kick left over only makes one run shorter */
    if (exit.reason == VCPU_EXIT_ERROR) {
        fprintf(stderr, "%s\n", error_text(&exit.error));
        abort();
    }
    return 0;
}
