/* Saved state of a hart: what is saved loads into another one, and nothing that software could not
 * have made. */
#include "base/test.h"
#include "state/test_state.h"
#include "tests/isa/bare.h"

#include <errno.h>

static uint64_t seed = 0x1234567;

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/** Some value in every register that takes one. */
static void scramble(struct bare *e)
{
    size_t count;
    const struct vcpu_reg *regs = rv_cpu_ops.registers(&e->h.cpu, &count);

    for (size_t i = 0; i < count; i++) {
        bool locks = !strncmp(regs[i].name, "pmpcfg",
                              6); /* a locked entry could not be set again by the next round */
        uint64_t value = next_random() & next_random();

        if (strcmp(regs[i].name, "satp") != 0) /* changes what is mapped */
            EXPECT_EQ(rv_cpu_ops.set_reg(&e->h.cpu, regs[i].id,
                                         locks ? value & ~0x8080808080808080ULL : value),
                      strcmp(regs[i].name, "seed") ? 0 : -ENOENT);
    }
    rv_set_vtype(&e->h, next_random() & 0xff, next_random() & 0xff); /* some are not legal */
    for (size_t i = 0; i < ARRAY_SIZE(e->h.vec.v); i++)
        e->h.vec.v[i] = next_random();
}

static struct state_in *save(struct bare *e)
{
    struct state_out *out = state_out_new();

    rv_cpu_ops.save(&e->h.cpu, out);
    return test_state_turn(out);
}

TEST(loads_into_another_hart)
{
    for (int round = 0; round < 200; round++) {
        struct bare *a = bare_new(0x80000000, 0x1000), *b = bare_new(0x80000000, 0x1000);
        struct error err = {0};
        char text[128] = "";

        scramble(a);
        a->h.priv = round & 1 ? RV_U : RV_S;
        rv_update_mode(&a->h);
        if (round % 3 == 0) /* locked entries load too */
            (void)rv_csr_poke(&a->h, 0x3a0, next_random());
        struct state_in *in = save(a);
        if (rv_cpu_ops.load(&b->h.cpu, in, &err))
            test_fail(__FILE__, __LINE__, "%s", err.text);
        b->h.cpu.instret =
            a->h.cpu.instret; /* the engine's own count; minstret is compared below */
        if (rv_cpu_ops.diff(&a->h.cpu, &b->h.cpu, text, sizeof(text)))
            test_fail(__FILE__, __LINE__, "round %d: %s", round, text);
        EXPECT_MEM(a->h.pmpaddr, b->h.pmpaddr, sizeof(a->h.pmpaddr));
        EXPECT_MEM(a->h.pmpcfg, b->h.pmpcfg, sizeof(a->h.pmpcfg));
        EXPECT_MEM(a->h.event, b->h.event, sizeof(a->h.event));
        EXPECT_MEM(a->h.mstateen, b->h.mstateen, sizeof(a->h.mstateen));
        EXPECT_EQ(a->h.mip, b->h.mip);
        EXPECT_EQ(a->h.mcountinhibit, b->h.mcountinhibit);
        EXPECT_EQ(a->h.mseccfg, b->h.mseccfg);
        state_in_free(in);
        bare_free(a);
        bare_free(b);
    }
}

TEST(interrupt_inputs_are_not_the_harts_own)
{
    struct bare *a = bare_new(0x80000000, 0x1000), *b = bare_new(0x80000000, 0x1000);
    struct error err = {0};

    a->h.cpu.irqs = 1u << RV_IRQ_SEI | 1u << RV_IRQ_SSI | 1u << RV_IRQ_MTI;
    struct state_in *in = save(a);
    ASSERT_EQ(rv_cpu_ops.load(&b->h.cpu, in, &err), 0);
    EXPECT_EQ(rv_mip(&b->h), 1u << RV_IRQ_SSI); /* the others are driven anew */
    state_in_free(in);
    bare_free(a);
    bare_free(b);
}

TEST(refuses_vectors_of_another_width)
{
    struct bare *a = bare_new(0x80000000, 0x1000), *b = bare_new(0x80000000, 0x1000);
    struct error err = {0};
    struct state_in *in = save(a);

    b->h.vec.vlenb = 16;
    EXPECT_EQ(rv_cpu_ops.load(&b->h.cpu, in, &err), -EINVAL);
    EXPECT_STR(err.text, "saved state of riscv-vector 0: vector registers of 256 bits, the "
                         "processor has 128");
    b->h.vec.vlenb = 32;
    b->h.profile = RV_PROFILE_RVA22;
    EXPECT_EQ(rv_cpu_ops.load(&b->h.cpu, in, &err), -EINVAL);
    state_in_free(in);
    bare_free(a);
    bare_free(b);
}

TEST(refuses_a_mode_that_is_none)
{
    struct bare *a = bare_new(0x80000000, 0x1000), *b = bare_new(0x80000000, 0x1000);
    struct error err = {0};

    a->h.priv = 2;
    struct state_in *in = save(a);
    EXPECT_EQ(rv_cpu_ops.load(&b->h.cpu, in, &err), -EINVAL);
    EXPECT_STR(err.text, "saved state of riscv-hart 0: privilege mode 2");
    state_in_free(in);
    bare_free(a);
    bare_free(b);
}
