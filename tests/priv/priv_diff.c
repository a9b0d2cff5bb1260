/* Runs a bare-metal guest under every engine and compares what it prints: priv_diff IMAGE [COUNT
 * [SEED]]. The machine is one hart in M-mode, RAM, a transmitter where `virt` has its UART, a
 * register to stop it, and one that is only stored to (mtimecmp). */
#include "base/bits.h"
#include "boot/boot_image.h"
#include "cpu/engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAM_BASE      0x80000000ULL
#define RAM_BYTES     (4ULL << 20)
#define UART_BASE     0x10000000ULL
#define POWER_BASE    0x100000ULL
#define MTIMECMP_BASE 0x2004000ULL
#define LINE_STATUS   5
#define SEED_OFFSET   8 /* in the image: see guest/lib/start.S */
#define COUNT_OFFSET  16

static const char *const engine_names[] = {"interp", "jit", "check"};

struct machine {
    struct vcpu *vcpu;
    char *text;
    size_t size, capacity;
    bool done;
};

static _Noreturn void die(const char *what, const struct error *err)
{
    fprintf(stderr, "%s: %s\n", what, error_text(err));
    exit(1);
}

static enum bus_result uart_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    *ret = offset == LINE_STATUS ? 0x60 : 0;
    return BUS_OK;
}

static enum bus_result uart_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct machine *m = dev;

    if (m->size == m->capacity) {
        m->capacity = m->capacity ? m->capacity * 2 : 1 << 16;
        m->text = realloc(m->text, m->capacity);
        if (!m->text)
            abort();
    }
    m->text[m->size++] = (char)value;
    return BUS_OK;
}

static enum bus_result power_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct machine *m = dev;

    m->done = true;
    vcpu_kick(m->vcpu);
    return BUS_OK;
}

static enum bus_result ignore_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    return BUS_OK;
}

static const struct mmio_ops uart_ops = {.name = "uart", .read = uart_read, .write = uart_write};
static const struct mmio_ops power_ops = {.name = "power", .write = power_write};
static const struct mmio_ops timer_ops = {.name = "timer", .write = ignore_write};

struct guest {
    struct boot_image image;
    uint64_t count, seed; /* 0 = as the image has it */
};

static struct mem *new_mem(struct machine *m, const struct guest *guest)
{
    struct error err = {0};
    struct mem *mem = mem_new();
    gpa_t entry;
    gpa_t end;
    void *ram;

    if (!mem || mem_add_ram(mem, GPA(RAM_BASE), RAM_BYTES, 0, "ram", NULL, NULL, &ram, &err) ||
        mem_add_mmio(mem, GPA(UART_BASE), 0x1000, &uart_ops, m, &err) ||
        mem_add_mmio(mem, GPA(POWER_BASE), 0x1000, &power_ops, m, &err) ||
        mem_add_mmio(mem, GPA(MTIMECMP_BASE), 0x1000, &timer_ops, m, &err) ||
        boot_image_load(&guest->image, mem, GPA(RAM_BASE), &entry, &end, &err))
        die("memory", &err);
    if (guest->count)
        store_le64((char *)ram + COUNT_OFFSET, guest->count);
    if (guest->seed)
        store_le64((char *)ram + SEED_OFFSET, guest->seed);
    return mem;
}

/* Run @guest under @kind; what it printed is in @ret, whose text is the caller's. */
static void run(enum engine_kind kind, const struct guest *guest, struct machine *ret)
{
    struct error err = {0};
    struct vclock clock;
    struct engine *engine;
    struct vcpu_exit exit;

    *ret = (struct machine){0};
    vclock_init(&clock, 0);
    struct engine_config config = {.kind = kind,
                                   .mem = new_mem(ret, guest),
                                   .clock = &clock,
                                   .timebase_hz = 10000000,
                                   .max_vcpus = 1,
                                   .reset_pc = RAM_BASE,
                                   .dump_fd = 2};
    if (engine_new(&config, &engine, &err) || engine_new_vcpu(engine, 0, &ret->vcpu, &err))
        die(engine_names[kind], &err);
    mem_freeze(config.mem);
    do {
        vcpu_run(ret->vcpu, &exit);
        if (exit.reason == VCPU_EXIT_ERROR)
            die(engine_names[kind], &exit.error);
    } while (!ret->done);
    vcpu_free(ret->vcpu);
    engine_free(engine);
    mem_free(config.mem);
}

/* The line of @m around @at, for a message. */
static void print_line(const char *name, const struct machine *m, size_t at)
{
    size_t first = at;
    size_t end = at;

    while (first > 0 && m->text[first - 1] != '\n')
        first--;
    while (end < m->size && m->text[end] != '\n')
        end++;
    printf("  %-6s %.*s\n", name, (int)(end - first), m->text + first);
}

static bool same(const struct machine *a, const struct machine *b, const char *name)
{
    size_t n = MIN(a->size, b->size);
    size_t at = 0;
    size_t line = 1;

    while (at < n && a->text[at] == b->text[at])
        line += a->text[at++] == '\n';
    if (at == n && a->size == b->size)
        return true;
    printf("line %zu differs:\n", line);
    print_line(engine_names[ENGINE_INTERP], a, at);
    print_line(name, b, at);
    return false;
}

int main(int argc, char **argv)
{
    struct error err = {0};
    struct guest guest = {.count = argc > 2 ? strtoull(argv[2], NULL, 0) : 0,
                          .seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 0};
    struct machine reference;

    if (argc < 2) {
        fprintf(stderr, "usage: priv_diff IMAGE [COUNT [SEED]]\n");
        return 2;
    }
    if (boot_image_open(argv[1], false, &guest.image, &err))
        die("image", &err);
    run(ENGINE_INTERP, &guest, &reference);
    /* a guest that stops early would compare equal, without having done its work */
    bool ok = reference.size > 4 && !memcmp(reference.text + reference.size - 4, "end\n", 4);
    for (enum engine_kind kind = ENGINE_JIT; ok && kind <= ENGINE_CHECK; kind++) {
        struct machine m;

        run(kind, &guest, &m);
        ok = same(&reference, &m, engine_names[kind]);
        free(m.text);
    }
    printf("%s: %zu bytes of results\n", ok ? "equal" : "failed", reference.size);
    free(reference.text);
    boot_image_done(&guest.image);
    return ok ? 0 : 1;
}
