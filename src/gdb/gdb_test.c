/* Tests of the GDB server: a client on a unix socket, fake vCPUs. */
#include "base/test.h"
#include "gdb/gdb.h"
#include "gdb/gdb_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct fake {
    struct vcpu vcpu;
    uint64_t regs[64];
    struct vcpu_debug debug;
};

static struct fake fakes[2];
static struct vcpu *vcpus[2] = {&fakes[0].vcpu, &fakes[1].vcpu};
static uint64_t resumed_mask;
static unsigned stops;
static unsigned kills;
static struct mem *memory;
static struct gdb_server *server;
static struct loop *loop;
static int client = -1;

static int fake_get(struct vcpu *v, unsigned id, uint64_t *ret)
{
    if (id > 32)
        return -ENOENT;
    *ret = ((struct fake *)v)->regs[id];
    return 0;
}

static int fake_set(struct vcpu *v, unsigned id, uint64_t value)
{
    if (id > 32)
        return -ENOENT;
    ((struct fake *)v)->regs[id] = value;
    return 0;
}

static const struct vcpu_reg *fake_registers(struct vcpu *v, size_t *ret_count)
{
    static struct vcpu_reg regs[33];
    static char names[33][8];

    for (unsigned i = 0; i < 33; i++) {
        (void)snprintf(names[i], sizeof(names[i]), i == 32 ? "pc" : "x%u", i);
        regs[i] = (struct vcpu_reg){.name = names[i],
                                    .group = "general",
                                    .feature = "org.gnu.gdb.riscv.cpu",
                                    .bits = 64,
                                    .id = (uint16_t)i};
    }
    *ret_count = 33;
    return regs;
}

static int fake_translate(struct vcpu *v, gva_t va, enum vcpu_access access, gpa_t *ret)
{
    *ret = GPA(va.v);
    return 0;
}

static void fake_debug(struct vcpu *v, const struct vcpu_debug *debug)
{
    ((struct fake *)v)->debug = *debug;
}

/** Registers of an x86-64 processor, as far as the test looks: rax and st0. */
static const struct vcpu_reg *x86_registers(struct vcpu *v, size_t *ret_count)
{
    static const struct vcpu_reg regs[] = {
        {.name = "rax",     .group = "general",                 .feature = "org.gnu.gdb.i386.core", .bits = 64},
        { .name = "st0", .group = "float", .feature = "org.gnu.gdb.i386.core",                         .bits = 80,   .id = 24},
    };

    *ret_count = ARRAY_SIZE(regs);
    return regs;
}

static int x86_get(struct vcpu *v, unsigned id, uint64_t *ret)
{
    *ret = ((struct fake *)v)->regs[id & VCPU_REG_HIGH ? 1 : 0];
    return 0;
}

static int x86_set(struct vcpu *v, unsigned id, uint64_t value)
{
    ((struct fake *)v)->regs[id & VCPU_REG_HIGH ? 1 : 0] = value;
    return 0;
}

static const struct vcpu_ops x86_ops = {.name = "x86",
                                        .get_reg = x86_get,
                                        .set_reg = x86_set,
                                        .registers = x86_registers,
                                        .translate = fake_translate,
                                        .set_debug = fake_debug};

static const struct vcpu_ops fake_ops = {.name = "fake",
                                         .get_reg = fake_get,
                                         .set_reg = fake_set,
                                         .registers = fake_registers,
                                         .translate = fake_translate,
                                         .set_debug = fake_debug};

static void on_stop(void *arg)
{
    stops++;
}

static void on_resume(void *arg, uint64_t mask)
{
    resumed_mask = mask;
}

static void on_kill(void *arg)
{
    kills++;
}

/* Send @text as a packet; the payload of the answer, which may be "". NULL: none came. */
static const char *ask(const char *text)
{
    static char answer[GDB_PACKET_MAX];
    char frame[4096];
    uint8_t sum = 0;
    size_t n = 0;

    for (const char *p = text; *p; p++)
        sum = (uint8_t)(sum + (uint8_t)*p);
    int len = snprintf(frame, sizeof(frame), "$%s#%02x", text, sum);
    ASSERT_EQ(write(client, frame, (size_t)len), len);
    while (n < sizeof(answer) - 1) {
        if (read(client, answer + n, 1) != 1)
            return NULL;
        n++;
        if (n >= 3 && answer[n - 3] == '#')
            break;
    }
    answer[n - 3] = '\0';
    char *start = strchr(answer, '$');
    return start ? start + 1 : NULL;
}

static void begin_arch(enum gdb_arch arch, const struct vcpu_ops *ops)
{
    char path[64];
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct timeval timeout = {.tv_sec = 5};
    struct error err = {0};

    (void)snprintf(path, sizeof(path), "/tmp/posada-gdb-test.%d", getpid());
    memory = mem_new();
    ASSERT_EQ(mem_add_ram(memory, GPA(0x80000000), 0x10000, 0, "ram", NULL, NULL, NULL, NULL), 0);
    for (unsigned i = 0; i < 2; i++)
        fakes[i].vcpu = (struct vcpu){.ops = ops, .index = i};
    struct gdb_target target = {.arch = arch,
                                .mem = memory,
                                .vcpus = vcpus,
                                .vcpu_count = 2,
                                .stop = on_stop,
                                .resume = on_resume,
                                .kill = on_kill,
                                .reset = on_stop};
    loop = loop_new("gdb");
    ASSERT_TRUE(loop);
    ASSERT_EQ(gdb_new(loop, path, &target, &server, &err), 0);
    ASSERT_EQ(loop_start(loop), 0);
    client = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    ASSERT_EQ(connect(client, (struct sockaddr *)&sa, sizeof(sa)), 0);
    ASSERT_EQ(setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)), 0);
}

static void begin(void)
{
    begin_arch(GDB_RISCV64, &fake_ops);
}

static void end(void)
{
    loop_stop(loop);
    loop_sync(loop);
    gdb_free(server);
    loop_free(loop);
    mem_free(memory);
    close(client);
}

TEST(registers_and_memory)
{
    begin();
    EXPECT_STR(ask("QStartNoAckMode"), "OK");
    fakes[0].regs[5] = 0x1122334455667788;
    EXPECT_STR(ask("p5"), "8877665544332211");
    EXPECT_STR(ask("P5=0100000000000000"), "OK");
    EXPECT_EQ(fakes[0].regs[5], 1);
    EXPECT_STR(ask("p99"), "E01");
    EXPECT_STR(ask("M80000010,4:deadbeef"), "OK");
    EXPECT_STR(ask("m80000010,4"), "deadbeef");
    EXPECT_STR(ask("mffff0000,4"), "E0e");
    EXPECT_STR(ask("m8000fffe,4"), "0000"); /* as much as there is */
    EXPECT_STR(ask("mffffffffffffffffff,4"), "E01");
    const char *g = ask("g");
    EXPECT_EQ(g ? strlen(g) : 0, 33 * 16);
    const char *xml = ask("qXfer:features:read:target.xml:0,100");
    EXPECT_TRUE(xml && xml[0] == 'm' && strstr(xml, "riscv:rv64"));
    EXPECT_STR(ask("vMustReplyEmpty"), "");
    end();
}

TEST(wide_registers_of_an_x86_processor)
{
    begin_arch(GDB_X86_64, &x86_ops);
    EXPECT_STR(ask("QStartNoAckMode"), "OK");
    EXPECT_STR(ask("P18=0102030405060708090a"), "OK");
    EXPECT_EQ(fakes[0].regs[0], 0x0807060504030201);
    EXPECT_EQ(fakes[0].regs[1], 0x0a09);
    EXPECT_STR(ask("p18"), "0102030405060708090a");
    EXPECT_STR(ask("p0"), "0102030405060708");
    const char *xml = ask("qXfer:features:read:target.xml:0,200");
    EXPECT_TRUE(xml && strstr(xml, "i386:x86-64") && strstr(xml, "i387_ext"));
    end();
}

TEST(threads_are_vcpus)
{
    begin();
    EXPECT_STR(ask("qfThreadInfo"), "m1,2");
    fakes[1].regs[3] = 7;
    EXPECT_STR(ask("Hg2"), "OK");
    EXPECT_STR(ask("p3"), "0700000000000000");
    EXPECT_STR(ask("T2"), "OK");
    EXPECT_STR(ask("T3"), "E01");
    end();
}

TEST(stops_are_reported)
{
    begin();
    EXPECT_STR(ask("?"), "T05thread:1;");
    EXPECT_STR(ask("Z0,80000000,2"), "OK");
    EXPECT_STR(ask("Z2,80001000,8"), "OK");
    EXPECT_STR(ask("Z9,80001000,8"), "");
    ASSERT_EQ(write(client, "$vCont;s:2;c#b1", 15), 15); /* wrong checksum: asked to repeat */
    struct vcpu_exit exit = {
        .reason = VCPU_EXIT_DEBUG,
        .debug = {.cause = VCPU_DEBUG_WATCH, .addr = GVA(0x80001000), .watch = VCPU_WATCH_WRITE}
    };
    gdb_stopped(server, 1, &exit); /* nothing runs: no report */
    EXPECT_STR(ask("vCont?"), "vCont;c;C;s;S");
    ASSERT_EQ(write(client, "$vCont;c#a8", 11), 11);
    for (int i = 0; i < 1000 && !resumed_mask; i++)
        usleep(1000);
    EXPECT_EQ(resumed_mask, 3);
    EXPECT_EQ(fakes[0].debug.breakpoint_count, 1);
    EXPECT_EQ(fakes[1].debug.watchpoint_count, 1);
    gdb_stopped(server, 1, &exit);
    char text[64] = "";
    ssize_t n = read(client, text, sizeof(text) - 1);
    if (n == 1) /* the acknowledgement came apart */
        n += read(client, text + 1, sizeof(text) - 2);
    EXPECT_TRUE(strstr(text, "T05thread:2;watch:80001000;"));
    EXPECT_STR(ask("D"), "OK");
    loop_sync(loop);
    EXPECT_EQ(fakes[0].debug.breakpoint_count, 0);
    end();
}
