/* The remote protocol's requests. On the loop's thread; the vCPUs stand still for all but Ctrl-C
 * and status. */
#include "gdb/gdb_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** Numbers of what the protocol singles out; general ones, those of the 'g' packet, begin at 0. */
static const struct {
    unsigned pc, general;
} special[] = {
    [GDB_RISCV64] = {.pc = 32, .general = 33}, /* x0..x31, pc */
    [GDB_X86_64] = {.pc = 16, .general = 24}, /* rax..r15, rip, eflags, selectors */
};

static bool starts(const char *s, const char *prefix)
{
    return !strncmp(s, prefix, strlen(prefix));
}

static struct vcpu *current(struct gdb_server *g)
{
    return g->target.vcpus[g->general];
}

void gdb_report_stop(struct gdb_server *g)
{
    const struct vcpu_exit *exit = &g->last_exit;

    g->out.size = 0;
    if (g->interrupted) {
        gdb_put(&g->out, "T02thread:%x;", g->last_stop + 1);
    } else if (exit->reason == VCPU_EXIT_DEBUG && exit->debug.cause == VCPU_DEBUG_WATCH) {
        const char *kind = exit->debug.watch == VCPU_WATCH_WRITE  ? "watch"
                           : exit->debug.watch == VCPU_WATCH_READ ? "rwatch"
                                                                  : "awatch";
        gdb_put(&g->out, "T05thread:%x;%s:%llx;", g->last_stop + 1, kind,
                (unsigned long long)exit->debug.addr.v);
    } else {
        gdb_put(&g->out, "T05thread:%x;", g->last_stop + 1);
    }
    gdb_send(g);
}

static const struct vcpu_reg *find_reg(struct gdb_server *g, uint64_t id)
{
    size_t count;
    const struct vcpu_reg *regs = vcpu_registers(current(g), &count);

    for (size_t i = 0; i < count; i++) {
        if (regs[i].id == id)
            return &regs[i];
    }
    return NULL;
}

static void put_reg(struct gdb_server *g, uint64_t id)
{
    const struct vcpu_reg *r = find_reg(g, id);
    uint64_t v[2] = {0};

    if (!r || vcpu_get_reg(current(g), r->id, &v[0]) ||
        (r->bits > 64 && vcpu_get_reg(current(g), VCPU_REG_HIGH | r->id, &v[1])))
        gdb_put(&g->out, "E01");
    else
        gdb_put_hex(&g->out, v, r->bits / 8); /* guest and host are both little-endian */
}

static void read_registers(struct gdb_server *g)
{
    for (unsigned id = 0; id < special[g->target.arch].general; id++)
        put_reg(g, id);
}

static void write_registers(struct gdb_server *g, const char *p)
{
    for (unsigned id = 0; id < special[g->target.arch].general; id++) {
        const struct vcpu_reg *r = find_reg(g, id);
        size_t size = r ? r->bits / 8 : 0;
        uint64_t v = 0;

        if (!size || gdb_unhex(p, &v, size) != size)
            break;
        p += 2 * size;
        if (id || g->target.arch != GDB_RISCV64)   /* x0 is 0 */
            (void)vcpu_set_reg(current(g), id, v); /* these all exist */
    }
    gdb_put(&g->out, "OK");
}

static void write_register(struct gdb_server *g, const char *p)
{
    uint64_t id;
    uint64_t v[2] = {0};
    const struct vcpu_reg *r =
        gdb_number(&p, &id) && *p++ == '=' && gdb_unhex(p, v, sizeof(v)) ? find_reg(g, id) : NULL;

    if (r && !vcpu_set_reg(current(g), r->id, v[0]) &&
        (r->bits <= 64 || !vcpu_set_reg(current(g), VCPU_REG_HIGH | r->id, v[1])))
        gdb_put(&g->out, "OK");
    else
        gdb_put(&g->out, "E01");
}

/* Copy guest memory at virtual address @va, page by page: how many bytes could be. */
static size_t copy_memory(struct gdb_server *g, uint64_t va, uint8_t *buf, size_t size, bool write)
{
    size_t done = 0;

    while (done < size) {
        size_t n = MIN(size - done, (size_t)(MEM_PAGE_SIZE - ((va + done) & (MEM_PAGE_SIZE - 1))));
        gpa_t gpa;

        /* A debugger may write what the guest may only read (breakpoints in text). */
        if (vcpu_translate(current(g), GVA(va + done), VCPU_READ, &gpa) &&
            vcpu_translate(current(g), GVA(va + done), VCPU_FETCH, &gpa))
            break;
        if (write ? mem_copy_out(g->target.mem, gpa, buf + done, n)
                  : mem_copy_in(g->target.mem, gpa, buf + done, n))
            break;
        done += n;
    }
    return done;
}

static void memory_command(struct gdb_server *g, const char *packet, size_t packet_size)
{
    static uint8_t buf[GDB_PACKET_MAX / 2]; /* loop thread only */
    const char *p = packet + 1;
    uint64_t va;
    uint64_t size;

    if (!gdb_number(&p, &va) || *p++ != ',' || !gdb_number(&p, &size)) {
        gdb_put(&g->out, "E01");
        return;
    }
    size = MIN(size, (uint64_t)sizeof(buf) - 16);
    if (packet[0] == 'm') {
        size_t n = copy_memory(g, va, buf, size, false);

        if (!n && size)
            gdb_put(&g->out, "E0e");
        gdb_put_hex(&g->out, buf, n);
        return;
    }
    size_t have = 0;
    if (*p++ == ':') {
        size_t left = packet_size - (size_t)(p - packet);

        if (packet[0] == 'X') {
            have = MIN(left, (size_t)size);
            memcpy(buf, p, have);
        } else {
            have = gdb_unhex(p, buf, size);
        }
    }
    gdb_put(&g->out, have == size && copy_memory(g, va, buf, size, true) == size ? "OK" : "E0e");
}

static void resume(struct gdb_server *g, int step, uint64_t mask)
{
    g->running = true;
    g->interrupted = false;
    g->last_exit = (struct vcpu_exit){.reason = VCPU_EXIT_KICK};
    gdb_apply_points(g, step);
    g->target.resume(g->target.arg, mask);
}

/* A thread ID: a vCPU's index, -1 for all (0 or -1), -2 for none such. */
static int thread_index(const struct gdb_server *g, const char **p)
{
    uint64_t id;

    if (starts(*p, "-1")) {
        *p += 2;
        return -1;
    }
    if (!gdb_number(p, &id) || id > g->target.vcpu_count)
        return -2;
    return (int)id - 1;
}

static void vcont(struct gdb_server *g, const char *p)
{
    uint64_t all = g->target.vcpu_count == 64 ? ~0ULL : (1ULL << g->target.vcpu_count) - 1;
    uint64_t mask = 0;
    uint64_t named = 0;
    int step = -1;

    while (*p == ';') {
        char action = p[1];
        int index = -1;

        p += 2;
        if (action == 'S' || action == 'C') {
            uint64_t signal;

            (void)gdb_number(&p, &signal); /* signals mean nothing to a machine */
        }
        if (*p == ':') {
            p++;
            index = thread_index(g, &p);
        }
        if (index == -2)
            break;
        uint64_t which = index < 0 ? all & ~named : 1ULL << index;
        named |= which;
        mask |= which;
        if (action == 's' || action == 'S')
            step = index < 0 ? (int)g->general : index;
    }
    resume(g, step, mask ? mask : all);
}

static void query_features(struct gdb_server *g, const char *p)
{
    uint64_t offset;
    uint64_t size;

    if (!gdb_number(&p, &offset) || *p++ != ',' || !gdb_number(&p, &size)) {
        gdb_put(&g->out, "E01");
        return;
    }
    char *xml = gdb_target_xml(g);
    size_t total = xml ? strlen(xml) : 0;
    size = MIN(size, (uint64_t)GDB_PACKET_MAX - 16);
    if (offset >= total) {
        gdb_put(&g->out, "l");
    } else {
        size_t n = MIN((size_t)size, total - (size_t)offset);

        gdb_put(&g->out, "%c%.*s", offset + n < total ? 'm' : 'l', (int)n, xml + offset);
    }
    free(xml);
}

static void monitor_command(struct gdb_server *g, const char *hex)
{
    char text[64] = "";
    const char *answer = "commands: reset\n";

    (void)gdb_unhex(hex, text, sizeof(text) - 1); /* shorter is fine: it is compared below */
    if (!strcmp(text, "reset")) {
        g->target.reset(g->target.arg);
        answer = "reset\n";
    }
    gdb_put_hex(&g->out, answer, strlen(answer));
}

static void query(struct gdb_server *g, const char *p)
{
    if (starts(p, "qSupported")) {
        gdb_put(
            &g->out,
            "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;hwbreak+;swbreak+",
            GDB_PACKET_MAX);
    } else if (starts(p, "qXfer:features:read:target.xml:")) {
        query_features(g, p + strlen("qXfer:features:read:target.xml:"));
    } else if (starts(p, "qfThreadInfo")) {
        gdb_put(&g->out, "m");
        for (unsigned i = 0; i < g->target.vcpu_count; i++)
            gdb_put(&g->out, "%s%x", i ? "," : "", i + 1);
    } else if (starts(p, "qsThreadInfo")) {
        gdb_put(&g->out, "l");
    } else if (starts(p, "qThreadExtraInfo,")) {
        const char *id = p + strlen("qThreadExtraInfo,");
        int index = thread_index(g, &id);
        char text[64];

        (void)snprintf(text, sizeof(text), "vCPU %d", index);
        gdb_put_hex(&g->out, text, strlen(text));
    } else if (!strcmp(p, "qC")) {
        gdb_put(&g->out, "QC%x", g->general + 1);
    } else if (starts(p, "qAttached")) {
        gdb_put(&g->out, "1");
    } else if (starts(p, "qRcmd,")) {
        monitor_command(g, p + strlen("qRcmd,"));
    } else if (starts(p, "qSymbol")) {
        gdb_put(&g->out, "OK");
    } else if (!strcmp(p, "QStartNoAckMode")) {
        gdb_put(&g->out, "OK");
        g->no_ack = true;
    }
}

static void select_thread(struct gdb_server *g, const char *p)
{
    char kind = *p++;
    int index = thread_index(g, &p);

    if (index == -2) {
        gdb_put(&g->out, "E01");
        return;
    }
    if (kind == 'g' && index >= 0)
        g->general = (unsigned)index;
    gdb_put(&g->out, "OK");
}

static void set_pc(struct gdb_server *g, const char *p)
{
    uint64_t pc;

    if (gdb_number(&p, &pc))
        (void)vcpu_set_reg(current(g), special[g->target.arch].pc, pc); /* it exists */
}

/* Requests that answer at once, into g->out. */
static void answer(struct gdb_server *g, const char *p, size_t size)
{
    const char *rest = p + 1;
    uint64_t id;

    switch (p[0]) {
    case 'g':
        read_registers(g);
        break;
    case 'G':
        write_registers(g, rest);
        break;
    case 'p':
        if (gdb_number(&rest, &id))
            put_reg(g, id);
        else
            gdb_put(&g->out, "E01");
        break;
    case 'P':
        write_register(g, rest);
        break;
    case 'm':
    case 'M':
    case 'X':
        memory_command(g, p, size);
        break;
    case 'Z':
    case 'z':
        gdb_point_command(g, p);
        break;
    case 'H':
        select_thread(g, rest);
        break;
    case 'T':
        gdb_put(&g->out, thread_index(g, &rest) == -2 ? "E01" : "OK");
        break;
    case 'q':
    case 'Q':
        query(g, p);
        break;
    default:
        if (!strcmp(p, "vCont?"))
            gdb_put(&g->out, "vCont;c;C;s;S");
        break; /* an empty answer says: not supported */
    }
    gdb_send(g);
}

void gdb_command(struct gdb_server *g, const char *p, size_t size)
{
    uint64_t all = (1ULL << g->target.vcpu_count) - 1;

    g->out.size = 0;
    g->out.overflow = false;
    switch (p[0]) {
    case '?':
        gdb_report_stop(g);
        return;
    case 'c':
        set_pc(g, p + 1);
        resume(g, -1, all);
        return;
    case 's':
        set_pc(g, p + 1);
        resume(g, (int)g->general, 1ULL << g->general);
        return;
    case 'D':
        gdb_put(&g->out, "OK");
        gdb_send(g);
        gdb_detach(g);
        return;
    case 'k':
        g->target.kill(g->target.arg);
        return;
    default:
        break;
    }
    if (starts(p, "vCont;"))
        vcont(g, p + strlen("vCont"));
    else if (starts(p, "vKill"))
        g->target.kill(g->target.arg);
    else
        answer(g, p, size);
}
