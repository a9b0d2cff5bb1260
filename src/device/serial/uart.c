/* 16550A UART. Spec: National Semiconductor PC16550D data sheet (June 1995).
 *
 * Invariants:
 *  1. Bytes leave as soon as the backend takes them; while it does not, they stay in the transmit
 *     FIFO and LSR says so, which is how a guest sees any slow line. A guest that ignores LSR
 *     loses bytes, as on hardware.
 *  2. Nothing is received without room for it, so the line never overruns; only loopback can.
 *  3. The interrupt output is up if and only if interrupt_id() names a cause.
 *
 * Threads: vCPUs (registers), loop (timeout), backend's; one lock, taken before the interrupt
 * controller's. */
#include "device/serial/uart.h"
#include "base/clock.h"
#include "base/log.h"
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIFO_SIZE 16

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

enum { IER_RX = 1, IER_TX = 2, IER_LINE = 4, IER_MODEM = 8 };
enum {
    IIR_NONE = 1,
    IIR_MODEM = 0,
    IIR_TX = 2,
    IIR_RX = 4,
    IIR_LINE = 6,
    IIR_TIMEOUT = 0xc,
    IIR_FIFO = 0xc0,
};
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 0x10 };
enum { LSR_DATA = 1, LSR_OVERRUN = 2, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

struct fifo {
    uint8_t bytes[FIFO_SIZE];
    unsigned head, count;
};

struct uart {
    struct uart_config config; /* [init] */
    struct mutex lock;
    struct loop_timer timeout;
    struct fifo rx, tx;              /* [lock] */
    uint8_t ier, fcr, lcr, mcr, scr; /* [lock] */
    uint8_t msr_delta;               /* [lock] low four bits of MSR */
    uint8_t modem;                   /* [lock] high four bits of MSR at the last look */
    uint16_t divisor;                /* [lock] */
    bool overrun;                    /* [lock] */
    bool tx_pending;                 /* [lock] transmitter-empty interrupt not yet seen */
    bool timed_out;                  /* [lock] character timeout */
    bool starved;                    /* [lock] uart_receive() had to refuse bytes */
};

static bool fifo_push(struct fifo *f, unsigned size, uint8_t byte)
{
    if (f->count >= size)
        return false;
    f->bytes[(f->head + f->count++) % FIFO_SIZE] = byte;
    return true;
}

static uint8_t fifo_pop(struct fifo *f)
{
    uint8_t byte = f->bytes[f->head];

    f->head = (f->head + 1) % FIFO_SIZE;
    f->count--;
    return byte;
}

/* Without FIFOs there is one holding register each way. */
static unsigned fifo_size(const struct uart *u)
{
    return u->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned rx_trigger(const struct uart *u)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};

    return u->fcr & FCR_ENABLE ? levels[u->fcr >> 6] : 1;
}

static uint8_t modem_lines(const struct uart *u)
{
    if (!(u->mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    return (uint8_t)((u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
                     (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0));
}

/* Table IV: the most urgent enabled cause. */
static uint8_t interrupt_id(const struct uart *u)
{
    if (u->ier & IER_LINE && u->overrun)
        return IIR_LINE;
    if (u->ier & IER_RX && u->rx.count >= rx_trigger(u))
        return IIR_RX;
    if (u->ier & IER_RX && u->timed_out)
        return IIR_TIMEOUT;
    if (u->ier & IER_TX && u->tx_pending)
        return IIR_TX;
    if (u->ier & IER_MODEM && u->msr_delta)
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_locked(struct uart *u) REQUIRES(u->lock)
{
    irq_set(&u->config.irq, interrupt_id(u) != IIR_NONE);
}

/* The time of four characters: 10 bits each of 16 clocks times the divisor. */
static void arm_timeout_locked(struct uart *u) REQUIRES(u->lock)
{
    int64_t ns = 640LL * 1000000000 / UART_CLOCK_HZ * MAX(u->divisor, (uint16_t)1);

    u->timed_out = false;
    if (u->rx.count && u->fcr & FCR_ENABLE)
        loop_timer_set(u->config.loop, &u->timeout, host_now_ns() + ns);
}

static void timeout_fired(struct loop_timer *t)
{
    struct uart *u = t->arg;

    mutex_lock(&u->lock);
    u->timed_out = u->rx.count && u->fcr & FCR_ENABLE;
    update_locked(u);
    mutex_unlock(&u->lock);
}

static void drain_locked(struct uart *u) REQUIRES(u->lock)
{
    const struct uart_backend *b = &u->config.backend;
    bool was_empty = !u->tx.count;

    while (u->tx.count) {
        size_t run = MIN(u->tx.count, FIFO_SIZE - u->tx.head);
        size_t taken = b->write ? b->write(b->arg, u->tx.bytes + u->tx.head, run) : run;

        u->tx.head = (u->tx.head + (unsigned)taken) % FIFO_SIZE;
        u->tx.count -= (unsigned)taken;
        if (taken < run)
            break;
    }
    if (!was_empty && !u->tx.count)
        u->tx_pending = true;
}

static void transmit_locked(struct uart *u, uint8_t byte) REQUIRES(u->lock)
{
    u->tx_pending = false;
    if (u->mcr & MCR_LOOP) {
        if (!fifo_push(&u->rx, fifo_size(u), byte))
            u->overrun = true;
        arm_timeout_locked(u);
        u->tx_pending = true;
        return;
    }
    if (!fifo_push(&u->tx, fifo_size(u), byte))
        guest_error("uart", "transmit FIFO overrun");
    drain_locked(u);
}

/* Room was made: fetch what was refused. */
static void refill_locked(struct uart *u) REQUIRES(u->lock)
{
    if (!u->starved || u->rx.count || u->mcr & MCR_LOOP)
        return;
    u->starved = false;
    if (u->config.backend.can_receive)
        u->config.backend.can_receive(u->config.backend.arg);
}

static uint8_t receive_locked(struct uart *u) REQUIRES(u->lock)
{
    if (!u->rx.count)
        return 0;
    uint8_t byte = fifo_pop(&u->rx);
    arm_timeout_locked(u);
    refill_locked(u);
    return byte;
}

static uint8_t read_iir_locked(struct uart *u) REQUIRES(u->lock)
{
    uint8_t id = interrupt_id(u);

    if (id == IIR_TX)
        u->tx_pending = false;
    return (uint8_t)(id | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0));
}

static uint8_t read_lsr_locked(struct uart *u) REQUIRES(u->lock)
{
    uint8_t lsr = (uint8_t)((u->rx.count ? LSR_DATA : 0) | (u->overrun ? LSR_OVERRUN : 0) |
                            (u->tx.count ? 0 : LSR_THRE | LSR_TEMT));

    u->overrun = false;
    return lsr;
}

static uint8_t read_locked(struct uart *u, unsigned reg) REQUIRES(u->lock)
{
    bool dlab = u->lcr & LCR_DLAB;

    switch (reg) {
    case REG_DATA:
        return dlab ? (uint8_t)u->divisor : receive_locked(u);
    case REG_IER:
        return dlab ? (uint8_t)(u->divisor >> 8) : u->ier;
    case REG_IIR_FCR:
        return read_iir_locked(u);
    case REG_LCR:
        return u->lcr;
    case REG_MCR:
        return u->mcr;
    case REG_LSR:
        return read_lsr_locked(u);
    case REG_MSR: {
        uint8_t msr = u->modem | u->msr_delta;

        u->msr_delta = 0;
        return msr;
    }
    case REG_SCR:
        return u->scr;
    default:
        return 0;
    }
}

static void write_fcr_locked(struct uart *u, uint8_t value) REQUIRES(u->lock)
{
    if ((value ^ u->fcr) & FCR_ENABLE)
        value |= FCR_CLEAR_RX | FCR_CLEAR_TX; /* changing the mode empties both */
    u->fcr = value & (FCR_ENABLE | 0xc0);
    if (value & FCR_CLEAR_RX) {
        u->rx.count = 0;
        u->timed_out = false;
        refill_locked(u);
    }
    if (value & FCR_CLEAR_TX && u->tx.count) {
        u->tx.count = 0;
        u->tx_pending = true;
    }
}

static void write_mcr_locked(struct uart *u, uint8_t value) REQUIRES(u->lock)
{
    u->mcr = value & 0x1f;
    refill_locked(u);
    uint8_t modem = modem_lines(u);
    uint8_t changed = modem ^ u->modem;
    /* RI has a trailing-edge indicator only. */
    if (changed & MSR_RI && modem & MSR_RI)
        changed &= (uint8_t)~MSR_RI;
    u->msr_delta |= changed >> 4;
    u->modem = modem;
}

static void write_locked(struct uart *u, unsigned reg, uint8_t value) REQUIRES(u->lock)
{
    bool dlab = u->lcr & LCR_DLAB;

    switch (reg) {
    case REG_DATA:
        if (dlab)
            u->divisor = (uint16_t)((u->divisor & 0xff00) | value);
        else
            transmit_locked(u, value);
        break;
    case REG_IER:
        if (dlab) {
            u->divisor = (uint16_t)((u->divisor & 0xff) | value << 8);
        } else {
            if (value & ~u->ier & IER_TX && !u->tx.count)
                u->tx_pending = true; /* enabling while empty interrupts at once */
            u->ier = value & 0xf;
        }
        break;
    case REG_IIR_FCR:
        write_fcr_locked(u, value);
        break;
    case REG_LCR:
        u->lcr = value;
        break;
    case REG_MCR:
        write_mcr_locked(u, value);
        break;
    case REG_SCR:
        u->scr = value;
        break;
    default: /* LSR and MSR are read-only */
        break;
    }
}

static enum bus_result uart_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    struct uart *u = dev;

    mutex_lock(&u->lock);
    *ret = read_locked(u, (unsigned)offset);
    update_locked(u);
    mutex_unlock(&u->lock);
    return BUS_OK;
}

static enum bus_result uart_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct uart *u = dev;

    mutex_lock(&u->lock);
    write_locked(u, (unsigned)offset, (uint8_t)value);
    update_locked(u);
    mutex_unlock(&u->lock);
    return BUS_OK;
}

static const struct mmio_ops uart_ops = {
    .name = "uart",
    .read = uart_read,
    .write = uart_write,
    .max_size = 1,
};

static void reset_locked(struct uart *u) REQUIRES(u->lock)
{
    u->rx = (struct fifo){0};
    u->tx = (struct fifo){0};
    u->ier = u->fcr = u->lcr = u->mcr = u->scr = u->msr_delta = 0;
    u->divisor = 12;
    u->overrun = u->tx_pending = u->timed_out = false;
    u->modem = modem_lines(u);
    refill_locked(u);
    update_locked(u);
}

int uart_new(struct mem *mem, gpa_t base, const struct uart_config *config, struct uart **ret,
             struct error *err)
{
    struct uart *u = calloc(1, sizeof(*u));

    if (!u)
        return error_set(err, ENOMEM, "out of memory");
    u->config = *config;
    u->timeout = (struct loop_timer){.fn = timeout_fired, .arg = u};
    mutex_init(&u->lock);
    int rc = mem_add_mmio(mem, base, config->size ? config->size : UART_SIZE, &uart_ops, u, err);
    if (rc) {
        uart_free(u);
        return rc;
    }
    uart_reset(u);
    *ret = u;
    return 0;
}

void uart_free(struct uart *u)
{
    if (!u)
        return;
    loop_timer_cancel(u->config.loop, &u->timeout);
    mutex_done(&u->lock);
    free(u);
}

void uart_reset(struct uart *u)
{
    mutex_lock(&u->lock);
    reset_locked(u);
    mutex_unlock(&u->lock);
}

size_t uart_receive(struct uart *u, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    size_t taken = 0;

    mutex_lock(&u->lock);
    while (taken < size && !(u->mcr & MCR_LOOP) && fifo_push(&u->rx, fifo_size(u), bytes[taken]))
        taken++;
    u->starved = taken < size;
    if (taken)
        arm_timeout_locked(u);
    update_locked(u);
    mutex_unlock(&u->lock);
    return taken;
}

void uart_can_write(struct uart *u)
{
    mutex_lock(&u->lock);
    drain_locked(u);
    update_locked(u);
    mutex_unlock(&u->lock);
}

static const struct state_field uart_fields[] = {
    STATE_FIELD(struct uart, ier),       STATE_FIELD(struct uart, fcr),
    STATE_FIELD(struct uart, lcr),       STATE_FIELD(struct uart, mcr),
    STATE_FIELD(struct uart, scr),       STATE_FIELD(struct uart, msr_delta),
    STATE_FIELD(struct uart, modem),     STATE_FIELD(struct uart, divisor),
    STATE_FIELD(struct uart, overrun),   STATE_FIELD(struct uart, tx_pending),
    STATE_FIELD(struct uart, timed_out), {0},
};

/** The bytes that wait, in order. */
static void put_fifo(struct state_out *out, const char *name, const struct fifo *f)
{
    uint8_t bytes[FIFO_SIZE];

    for (unsigned i = 0; i < f->count; i++)
        bytes[i] = f->bytes[(f->head + i) % FIFO_SIZE];
    state_put_bytes(out, name, bytes, f->count);
}

static int get_fifo(const struct state_section *s, const char *name, struct fifo *f,
                    struct error *err)
{
    const uint8_t *bytes;
    size_t n;
    int rc = state_get_bytes(s, name, FIFO_SIZE, &bytes, &n, err);

    if (rc)
        return rc;
    *f = (struct fifo){.count = (unsigned)n};
    memcpy(f->bytes, bytes, n);
    return 0;
}

void uart_save(struct uart *u, struct state_out *out)
{
    mutex_lock(&u->lock);
    state_begin(out, "uart", 0, 1);
    state_put(out, uart_fields, u);
    put_fifo(out, "rx", &u->rx);
    put_fifo(out, "tx", &u->tx);
    state_end(out);
    mutex_unlock(&u->lock);
}

int uart_load(struct uart *u, const struct state_in *in, struct error *err)
{
    const struct state_section *s;
    int rc = state_find(in, "uart", 0, 1, &s, err);

    if (rc)
        return rc;
    mutex_lock(&u->lock);
    rc = state_get(s, uart_fields, u, err);
    if (!rc)
        rc = get_fifo(s, "rx", &u->rx, err);
    if (!rc)
        rc = get_fifo(s, "tx", &u->tx, err);
    if (!rc)
        rc = state_check_all_read(s, err);
    u->fcr &= FCR_ENABLE | 0xc0;
    u->mcr &= 0x1f;
    u->ier &= 0xf;
    u->starved = true; /* the backend may have what it could not give before */
    if (!u->timed_out)
        arm_timeout_locked(u);
    drain_locked(u);
    refill_locked(u);
    update_locked(u);
    mutex_unlock(&u->lock);
    return rc;
}
