/* Breakpoints and watchpoints: one set, given to every vCPU. */
#include "gdb/gdb_internal.h"

static void remove_breakpoint(struct gdb_server *g, uint64_t addr)
{
    for (size_t i = 0; i < g->breakpoint_count; i++) {
        if (g->breakpoints[i].v == addr) {
            g->breakpoints[i] = g->breakpoints[--g->breakpoint_count];
            return;
        }
    }
}

static void remove_watchpoint(struct gdb_server *g, uint64_t addr, uint64_t size, unsigned kind)
{
    for (size_t i = 0; i < g->watchpoint_count; i++) {
        const struct vcpu_watchpoint *w = &g->watchpoints[i];

        if (w->addr.v == addr && w->size == size && w->kind == kind) {
            g->watchpoints[i] = g->watchpoints[--g->watchpoint_count];
            return;
        }
    }
}

void gdb_point_command(struct gdb_server *g, const char *packet)
{
    static const unsigned kinds[] = {
        [2] = VCPU_WATCH_WRITE, [3] = VCPU_WATCH_READ, [4] = VCPU_WATCH_ACCESS};
    bool insert = packet[0] == 'Z';
    unsigned type = (unsigned)(packet[1] - '0');
    const char *p = packet + 3;
    uint64_t addr;
    uint64_t size;

    if (type > 4)
        return; /* an empty answer says: not supported */
    if (packet[2] != ',' || !gdb_number(&p, &addr) || *p++ != ',' || !gdb_number(&p, &size)) {
        gdb_put(&g->out, "E01");
        return;
    }
    if (type < 2) {
        remove_breakpoint(g, addr);
        if (insert && g->breakpoint_count < GDB_MAX_POINTS)
            g->breakpoints[g->breakpoint_count++] = GVA(addr);
        else if (insert)
            size = 0;
    } else {
        remove_watchpoint(g, addr, size, kinds[type]);
        if (insert && g->watchpoint_count < GDB_MAX_POINTS && size && addr + size > addr)
            g->watchpoints[g->watchpoint_count++] =
                (struct vcpu_watchpoint){.addr = GVA(addr), .size = size, .kind = kinds[type]};
        else if (insert)
            size = 0;
    }
    gdb_put(&g->out, insert && !size ? "E0c" : "OK");
}

void gdb_apply_points(struct gdb_server *g, int step)
{
    bool attached = g->client.fd >= 0;

    for (unsigned i = 0; i < g->target.vcpu_count; i++) {
        struct vcpu_debug debug = {
            .step = step == (int)i,
            .trap_ebreak = attached,
            .breakpoints = g->breakpoints,
            .breakpoint_count = attached ? g->breakpoint_count : 0,
            .watchpoints = g->watchpoints,
            .watchpoint_count = attached ? g->watchpoint_count : 0,
        };

        vcpu_set_debug(g->target.vcpus[i], &debug);
    }
}
