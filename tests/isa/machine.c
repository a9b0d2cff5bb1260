/* A hart under an engine and flat RAM. See machine.h. One thread. */
#include "tests/isa/machine.h"

#include <stdio.h>
#include <unistd.h>

bool machine_init(struct machine *m, enum engine_kind kind, uint64_t base, uint64_t size,
                  unsigned dump)
{
    struct error err = {0};
    void *ram = NULL;
    const struct vcpu_debug debug = {.trap_ebreak = true};

    *m = (struct machine){.mem = mem_new(), .loop = loop_new("timers")};
    if (!m->mem || !m->loop ||
        mem_add_ram(m->mem, GPA(base), size, 0, "ram", NULL, NULL, &ram, &err)) {
        fprintf(stderr, "no memory for a machine\n");
        return false;
    }
    m->ram = ram;
    vclock_init(&m->clock, 0);
    struct engine_config config = {
        .kind = kind,
        .mem = m->mem,
        .clock = &m->clock,
        .loop = m->loop,
        .timebase_hz = 10000000,
        .max_vcpus = 1,
        .reset_pc = base,
        .dump = dump,
        .dump_fd = STDERR_FILENO,
    };
    if (engine_new(&config, &m->engine, &err) || engine_new_vcpu(m->engine, 0, &m->vcpu, &err)) {
        fprintf(stderr, "no machine: %s\n", error_text(&err));
        return false;
    }
    mem_freeze(m->mem);
    vcpu_set_debug(m->vcpu, &debug);
    return true;
}

void machine_done(struct machine *m)
{
    vcpu_free(m->vcpu);
    engine_free(m->engine);
    loop_free(m->loop);
    mem_free(m->mem);
}

void machine_run(struct machine *m, struct vcpu_exit *ret)
{
    do
        vcpu_run(m->vcpu, ret);
    while (ret->reason == VCPU_EXIT_KICK);
}
