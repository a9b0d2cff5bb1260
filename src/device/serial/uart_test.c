/* Tests of the UART, through its registers. Section and table numbers: PC16550D data sheet. */
#include "base/test.h"
#include "device/serial/uart.h"
#include "state/test_state.h"

#include <errno.h>
#include <unistd.h>

#define BASE 0x10000000ULL

static struct mem *mem;
static struct loop *loop;
static struct uart *uart;
static int irq; /* [atomic] */
static char out[256];
static size_t out_size, out_room = sizeof(out);
static int can_receive_calls;

static void set_irq(void *controller, unsigned input, bool level)
{
    __atomic_store_n(&irq, level, __ATOMIC_SEQ_CST);
}

static size_t backend_write(void *arg, const void *data, size_t size)
{
    size_t n = MIN(size, out_room);

    memcpy(out + out_size, data, n);
    out_size += n;
    out_room -= n;
    return n;
}

static void can_receive(void *arg)
{
    can_receive_calls++;
}

static void setup(void)
{
    struct uart_config c = {
        .irq = {.set = set_irq             },
        .backend = { .write = backend_write, .can_receive = can_receive},
    };

    mem = mem_new();
    c.loop = loop = loop_new("test");
    ASSERT_TRUE(mem && loop);
    ASSERT_EQ(loop_start(loop), 0);
    ASSERT_EQ(uart_new(mem, GPA(BASE), &c, &uart, NULL), 0);
}

static uint8_t rd(unsigned reg)
{
    uint64_t v = 0;

    EXPECT_EQ(mem_read(mem, GPA(BASE + reg), 1, &v), BUS_OK);
    return (uint8_t)v;
}

static void wr(unsigned reg, uint8_t v)
{
    EXPECT_EQ(mem_write(mem, GPA(BASE + reg), 1, v), BUS_OK);
}

TEST(reset_state)
{
    setup();
    EXPECT_EQ(rd(5), 0x60);
    EXPECT_EQ(rd(2), 1);
    EXPECT_EQ(rd(6), 0xb0);
    EXPECT_EQ(rd(1), 0);
    wr(7, 0xa5);
    EXPECT_EQ(rd(7), 0xa5);
    wr(3, 0x80);
    wr(0, 0x34);
    wr(1, 0x12);
    EXPECT_EQ(rd(0), 0x34);
    EXPECT_EQ(rd(1), 0x12);
    wr(3, 3);
    EXPECT_EQ(rd(1), 0);
    EXPECT_EQ(out_size, 0);
}

TEST(transmitter_interrupts_when_empty)
{
    setup();
    wr(1, 2);
    EXPECT_TRUE(irq);
    EXPECT_EQ(rd(2), 2);
    EXPECT_TRUE(!irq); /* reading IIR clears this cause */
    EXPECT_EQ(rd(2), 1);
    wr(0, 'x');
    EXPECT_TRUE(irq);
    EXPECT_EQ(out_size, 1);
    EXPECT_EQ(out[0], 'x');
}

TEST(slow_backend_shows_in_lsr_and_loses_nothing)
{
    setup();
    wr(2, 1);
    wr(1, 2);
    out_room = 2;
    for (int i = 0; i < 10; i++)
        wr(0, (uint8_t)('0' + i));
    EXPECT_EQ(out_size, 2);
    EXPECT_EQ(rd(5) & 0x60, 0);
    EXPECT_EQ(rd(2) & 0xf, 1);
    out_room = 100;
    uart_can_write(uart);
    EXPECT_EQ(out_size, 10);
    EXPECT_MEM(out, "0123456789", 10);
    EXPECT_EQ(rd(5) & 0x60, 0x60);
    EXPECT_TRUE(irq);
}

TEST(receive_trigger_and_timeout)
{
    setup();
    wr(2, 0x41); /* FIFO, trigger at 4 */
    wr(1, 1);
    EXPECT_EQ(uart_receive(uart, "ab", 2), 2);
    for (int i = 0; i < 2000 && !__atomic_load_n(&irq, __ATOMIC_SEQ_CST); i++)
        usleep(1000);
    EXPECT_EQ(rd(2), 0xcc);
    EXPECT_EQ(uart_receive(uart, "cd", 2), 2);
    EXPECT_EQ(rd(2), 0xc4);
    EXPECT_EQ(rd(0), 'a');
    EXPECT_EQ(rd(0), 'b');
    EXPECT_EQ(rd(5) & 1, 1);
    EXPECT_EQ(rd(0), 'c');
    EXPECT_EQ(rd(0), 'd');
    EXPECT_EQ(rd(5) & 1, 0);
    EXPECT_EQ(rd(2), 0xc1);
    EXPECT_EQ(rd(0), 0);
}

TEST(receive_has_back_pressure)
{
    setup();
    EXPECT_EQ(uart_receive(uart, "abc", 3), 1);
    EXPECT_EQ(uart_receive(uart, "bc", 2), 0);
    EXPECT_EQ(rd(0), 'a');
    EXPECT_EQ(can_receive_calls, 1);
    wr(2, 1);
    EXPECT_EQ(uart_receive(uart, "0123456789abcdefgh", 18), 16);
    wr(2, 3); /* clear it */
    EXPECT_EQ(can_receive_calls, 2);
    EXPECT_EQ(rd(5) & 1, 0);
}

TEST(loopback)
{
    setup();
    wr(4, 0x1f);
    EXPECT_EQ(rd(6) & 0xf0, 0xf0);
    wr(4, 0x10);
    EXPECT_EQ(rd(6), 0x0f); /* all lines down, each with its delta */
    EXPECT_EQ(rd(6), 0x00);
    wr(0, 'z');
    EXPECT_EQ(out_size, 0);
    EXPECT_EQ(rd(5), 0x61);
    wr(0, 'y');
    EXPECT_EQ(rd(5) & 2, 2); /* overrun: no FIFO */
    EXPECT_EQ(rd(5) & 2, 0);
    EXPECT_EQ(rd(0), 'z');
}

TEST(reset_and_free)
{
    setup();
    wr(2, 1);
    wr(1, 3);
    (void)uart_receive(uart, "abc", 3);
    uart_reset(uart);
    EXPECT_TRUE(!irq);
    EXPECT_EQ(rd(5), 0x60);
    loop_sync(loop);
    mem_free(mem);
    uart_free(uart);
    loop_free(loop);
}

TEST(saved_state_loads)
{
    struct state_out *saved = state_out_new();
    struct error err = {0};

    setup();
    wr(2, 1);    /* FIFOs */
    wr(3, 0x83); /* DLAB */
    wr(0, 0x34);
    wr(1, 0x12);
    wr(3, 3);
    wr(1, 1); /* interrupt on data */
    wr(7, 0x5a);
    out_room = 0;
    wr(0, 'x'); /* the backend does not take it */
    EXPECT_EQ(uart_receive(uart, "abc", 3), 3);
    EXPECT_EQ(rd(0), 'a');
    uart_save(uart, saved);
    struct state_in *in = test_state_turn(saved);
    uart_reset(uart);
    out_room = sizeof(out);
    EXPECT_TRUE(!__atomic_load_n(&irq, __ATOMIC_SEQ_CST));
    if (uart_load(uart, in, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    EXPECT_TRUE(__atomic_load_n(&irq, __ATOMIC_SEQ_CST));
    EXPECT_TRUE(out_size == 1 && out[0] == 'x');
    EXPECT_EQ(rd(7), 0x5a);
    EXPECT_EQ(rd(0), 'b');
    EXPECT_EQ(rd(0), 'c');
    EXPECT_EQ(rd(5) & 1, 0);
    wr(3, 0x83);
    EXPECT_EQ(rd(0), 0x34);
    EXPECT_EQ(rd(1), 0x12);
    state_in_free(in);
}

TEST(saved_state_with_too_long_a_fifo_is_refused)
{
    struct state_out *saved = state_out_new();
    uint8_t bytes[17] = {0};
    struct error err = {0};

    setup();
    state_begin(saved, "uart", 0, 1);
    state_put_bytes(saved, "rx", bytes, sizeof(bytes));
    state_end(saved);
    struct state_in *in = test_state_turn(saved);
    EXPECT_EQ(uart_load(uart, in, &err), -EINVAL);
    state_in_free(in);
}
