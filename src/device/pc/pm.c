/* Power management, reset and reports of a PC.
 *
 * Spec: ACPI 6.5 §4.8.3 (fixed hardware), §4.8.3.6 (reset); Intel ICH9 data sheet §13.8 (where the
 * registers lie), IBM PC/AT Technical Reference (keyboard controller).
 *
 * Invariant: the SCI is up if and only if a status bit and its enable bit are set, of the fixed
 * events or of the general ones.
 *
 * The keyboard controller has no keyboard: it knows the commands that reset the processor and
 * switch A20, and answers its self-test, so that firmware and kernels go on at once.
 *
 * Threads: vCPUs; pm_press_power() any. One lock, taken before the interrupt controller's. */
#include "device/pc/pm.h"
#include "base/bits.h"
#include "base/log.h"
#include "base/thread.h"
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TIMER_HZ 3579545LL

enum { STS_TIMER = 1 << 0, STS_GLOBAL = 1 << 5, STS_POWER = 1 << 8, STS_RTC = 1 << 10 };
enum { CNT_SCI = 1, CNT_SLEEP_SHIFT = 10, CNT_SLEEP = 1 << 13 };
enum { SMI_PORT = 0x30, SMI_SET_UP = 0x20 }; /* "somebody has set up system management already" */
enum { KBD_RESET = 0xfe, KBD_SELF_TEST = 0xaa, KBD_TEST_OK = 0x55, KBD_OUTPUT = 1, KBD_SYSTEM = 4 };

struct pm {
    struct pm_config config; /* [init] */
    struct mutex lock;
    uint16_t status, enable, control; /* [lock] */
    uint8_t gpe[PM_GPE_BYTES];        /* [lock] half status, half enable */
    uint8_t port92;                   /* [lock] */
    uint8_t kbd_output;               /* [lock] */
    bool kbd_full;                    /* [lock] */
};

static uint32_t timer_value(const struct pm *p)
{
    int64_t ns = vclock_now_ns(p->config.clock);

    return (uint32_t)(ns / 1000000000 * TIMER_HZ + ns % 1000000000 * TIMER_HZ / 1000000000);
}

static void drive_locked(struct pm *p) REQUIRES(p->lock)
{
    bool up = p->status & p->enable;

    for (unsigned i = 0; i < PM_GPE_BYTES / 2; i++)
        up |= p->gpe[i] & p->gpe[PM_GPE_BYTES / 2 + i];
    irq_set(&p->config.sci, up);
}

static uint32_t read_word_locked(struct pm *p, uint64_t offset) REQUIRES(p->lock)
{
    switch (offset) {
    case PM_EVENT:
        return p->status | (uint32_t)p->enable << 16;
    case PM_CONTROL:
        return p->control | CNT_SCI; /* always in ACPI mode: there is no other */
    case PM_TIMER:
        return timer_value(p);
    case SMI_PORT:
        return SMI_SET_UP;
    default:
        return 0;
    }
}

static enum bus_result pm_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    struct pm *p = dev;

    mutex_lock(&p->lock);
    if (offset >= PM_GPE && offset < PM_GPE + PM_GPE_BYTES) {
        *ret = 0;
        for (unsigned i = 0; i < size; i++)
            *ret |= (uint64_t)p->gpe[offset - PM_GPE + i] << 8 * i;
    } else {
        *ret = read_word_locked(p, offset & ~3ULL) >> 8 * (offset & 3);
    }
    mutex_unlock(&p->lock);
    return BUS_OK;
}

/** Sleeping: the only state there is, is off (\_S5's type is 0). */
static void write_control_locked(struct pm *p, uint16_t value, bool *ret_off) REQUIRES(p->lock)
{
    *ret_off = value & CNT_SLEEP && !(value >> CNT_SLEEP_SHIFT & 7);
    if (value & CNT_SLEEP && !*ret_off)
        guest_error("pm", "sleep type %u is not there", value >> CNT_SLEEP_SHIFT & 7);
    p->control = value & (uint16_t)~CNT_SLEEP;
}

/** §4.8.4.1: ones clear status bits. */
static void write_gpe_locked(struct pm *p, unsigned at, unsigned size, uint64_t value)
    REQUIRES(p->lock)
{
    for (unsigned i = at; i < at + size; i++, value >>= 8) {
        if (i < PM_GPE_BYTES / 2)
            p->gpe[i] &= (uint8_t)~value;
        else
            p->gpe[i] = (uint8_t)value;
    }
}

static enum bus_result pm_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pm *p = dev;
    bool off = false;

    mutex_lock(&p->lock);
    if (size == 4 && offset == PM_EVENT) {
        p->status &= (uint16_t)~value;
        p->enable = (uint16_t)(value >> 16);
    } else if (size == 2 && offset == PM_EVENT) {
        p->status &= (uint16_t)~value;
    } else if (size == 2 && offset == PM_EVENT + 2) {
        p->enable = (uint16_t)value;
    } else if (size >= 2 && offset == PM_CONTROL) {
        write_control_locked(p, (uint16_t)value, &off);
    } else if (offset >= PM_GPE && offset < PM_GPE + PM_GPE_BYTES) {
        write_gpe_locked(p, (unsigned)offset - PM_GPE, size, value);
    }
    drive_locked(p);
    mutex_unlock(&p->lock);
    if (off)
        p->config.poweroff(p->config.arg, 0);
    return BUS_OK;
}

/* --- Keyboard controller and port 0x92 --- */

static enum bus_result kbd_status(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    struct pm *p = dev;

    mutex_lock(&p->lock);
    *ret = KBD_SYSTEM | (p->kbd_full ? KBD_OUTPUT : 0);
    mutex_unlock(&p->lock);
    return BUS_OK;
}

static enum bus_result kbd_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    struct pm *p = dev;

    mutex_lock(&p->lock);
    *ret = p->kbd_output;
    p->kbd_full = false;
    mutex_unlock(&p->lock);
    return BUS_OK;
}

static enum bus_result kbd_command(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pm *p = dev;

    if (value == KBD_RESET) {
        p->config.reset(p->config.arg);
    } else if (value == KBD_SELF_TEST) {
        mutex_lock(&p->lock);
        p->kbd_output = KBD_TEST_OK;
        p->kbd_full = true;
        mutex_unlock(&p->lock);
    }
    return BUS_OK;
}

static enum bus_result port92_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    struct pm *p = dev;

    mutex_lock(&p->lock);
    *ret = p->port92 | 2; /* A20 is always on */
    mutex_unlock(&p->lock);
    return BUS_OK;
}

static enum bus_result port92_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pm *p = dev;

    mutex_lock(&p->lock);
    bool reset = value & 1 && !(p->port92 & 1);
    p->port92 = (uint8_t)value;
    mutex_unlock(&p->lock);
    if (reset)
        p->config.reset(p->config.arg);
    return BUS_OK;
}

void pm_reset_control(struct pm *p, uint8_t value)
{
    if (value & 4) /* ICH9 §13.7.5: RST_CPU */
        p->config.reset(p->config.arg);
}

/** The status a guest ends with: 0 is a clean power-off. */
static enum bus_result exit_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pm *p = dev;

    p->config.poweroff(p->config.arg, (unsigned)value & 0xff);
    return BUS_OK;
}

static const struct mmio_ops pm_ops = {
    .name = "pm", .read = pm_read, .write = pm_write, .max_size = 4};
static enum bus_result kbd_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    return BUS_OK; /* there is no keyboard to take it */
}

static const struct mmio_ops kbd_data_ops = {
    .name = "i8042-data", .read = kbd_read, .write = kbd_write, .max_size = 1};
static const struct mmio_ops kbd_command_ops = {
    .name = "i8042", .read = kbd_status, .write = kbd_command, .max_size = 1};
static const struct mmio_ops port92_ops = {
    .name = "port-92", .read = port92_read, .write = port92_write, .max_size = 1};
static const struct mmio_ops exit_ops = {.name = "exit", .write = exit_write, .max_size = 4};

int pm_new(struct mem *ports, const struct pm_config *config, struct pm **ret, struct error *err)
{
    struct pm *p = calloc(1, sizeof(*p));

    if (!p)
        return error_set(err, ENOMEM, "out of memory");
    p->config = *config;
    mutex_init(&p->lock);
    int rc = mem_add_mmio(ports, GPA(PM_PORT), PM_PORTS, &pm_ops, p, err);
    if (!rc)
        rc = mem_add_mmio(ports, GPA(0x60), 1, &kbd_data_ops, p, err);
    if (!rc)
        rc = mem_add_mmio(ports, GPA(0x64), 1, &kbd_command_ops, p, err);
    if (!rc)
        rc = mem_add_mmio(ports, GPA(0x92), 1, &port92_ops, p, err);
    if (!rc)
        rc = mem_add_mmio(ports, GPA(PM_EXIT_PORT), 4, &exit_ops, p, err);
    if (rc) {
        pm_free(p);
        return rc;
    }
    *ret = p;
    return 0;
}

void pm_free(struct pm *p)
{
    if (!p)
        return;
    mutex_done(&p->lock);
    free(p);
}

void pm_reset(struct pm *p)
{
    mutex_lock(&p->lock);
    p->status = p->enable = p->control = 0;
    memset(p->gpe, 0, sizeof(p->gpe));
    p->port92 = p->kbd_output = 0;
    p->kbd_full = false;
    drive_locked(p);
    mutex_unlock(&p->lock);
}

bool pm_press_power(struct pm *p)
{
    mutex_lock(&p->lock);
    bool heard = p->enable & STS_POWER;
    p->status |= STS_POWER;
    drive_locked(p);
    mutex_unlock(&p->lock);
    return heard;
}

void pm_event(struct pm *p, unsigned gpe)
{
    assert(gpe < PM_GPE_BYTES / 2 * 8);
    mutex_lock(&p->lock);
    p->gpe[gpe / 8] |= (uint8_t)(1u << gpe % 8);
    drive_locked(p);
    mutex_unlock(&p->lock);
}

static const struct state_field pm_fields[] = {
    STATE_FIELD(struct pm, status),   STATE_FIELD(struct pm, enable),
    STATE_FIELD(struct pm, control),  STATE_ARRAY(struct pm, gpe),
    STATE_FIELD(struct pm, port92),   STATE_FIELD(struct pm, kbd_output),
    STATE_FIELD(struct pm, kbd_full), {0},
};

void pm_save(struct pm *p, struct state_out *out)
{
    mutex_lock(&p->lock);
    state_save(out, "pm", 0, 1, pm_fields, p);
    mutex_unlock(&p->lock);
}

int pm_load(struct pm *p, const struct state_in *in, struct error *err)
{
    mutex_lock(&p->lock);
    int rc = state_load(in, "pm", 0, 1, pm_fields, p, err);
    if (!rc)
        drive_locked(p);
    mutex_unlock(&p->lock);
    return rc;
}
