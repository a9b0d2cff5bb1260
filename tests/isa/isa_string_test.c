/* The ISA string names exactly the extensions whose tables exist. */
#include "base/bits.h"
#include "base/test.h"
#include "cpu/guest/riscv/rows.h"
#include "tests/isa/bare.h"

#include <stdio.h>

/** Does the ISA string have @name between underscores? */
static bool announced(const char *name)
{
    char want[32];
    char isa[RV_ISA_BYTES];

    (void)snprintf(want, sizeof(want), "_%s", name);
    rv_isa_string(RV_PROFILE_MAX, isa, sizeof(isa));
    for (const char *at = isa; (at = strstr(at, want)); at++)
        if (at[strlen(want)] == '_' || !at[strlen(want)])
            return true;
    return false;
}

TEST(tables_are_announced)
{
    for (unsigned n = 0; n < rv_row_count; n++) {
        const char *e = rv_rows[n].extension;

        if (!strcmp(e, "priv"))
            continue;
        if (!e[1])
            EXPECT_TRUE(strchr("imafdcv", *e));
        else if (!announced(e))
            test_fail(__FILE__, __LINE__, "%s has a table and is not announced", e);
    }

    char isa[RV_ISA_BYTES];

    rv_isa_string(RV_PROFILE_MAX, isa, sizeof(isa));
    EXPECT_TRUE(!strncmp(isa, "rv64imafdcv_", 12));
}

TEST(what_is_announced_has_a_table)
{
    /* Those without instructions of their own. */
    static const char *const bare[] = {
        "zicntr", "zihpm",  "zfhmin",  "zca",     "zcd",    "zkr",    "smstateen", "sscofpmf",
        "sstc",   "svadu",  "svnapot", "svpbmt",  "svvptc", "zve32f", "zve32x",    "zve64d",
        "zve64f", "zve64x", "zvfh",    "zvfhmin", "zvkb",   "zvknha"};
    char text[RV_ISA_BYTES], *save = NULL;

    rv_isa_string(RV_PROFILE_MAX, text, sizeof(text));
    (void)strtok_r(text, "_", &save);
    for (char *e; (e = strtok_r(NULL, "_", &save));) {
        bool found = false;

        for (unsigned n = 0; n < rv_row_count && !found; n++)
            found = !strcmp(rv_rows[n].extension, e);
        for (unsigned n = 0; n < ARRAY_SIZE(bare) && !found; n++)
            found = !strcmp(bare[n], e);
        if (!found)
            test_fail(__FILE__, __LINE__, "%s is announced and has no table", e);
    }
}

/** Does a hart of @profile have the instruction @w? */
static bool decodes(enum rv_profile profile, uint32_t w)
{
    struct bare *b = bare_new(0x80000000, 0x1000);
    struct insn insn;
    uint8_t bytes[4];

    b->h.profile = profile;
    b->h.mstatus |= 3 << 9; /* VS */
    rv_update_mode(&b->h);
    store_le32(bytes, w);
    (void)rv_decode(&b->h.cpu, bytes, 4, &insn); /* four bytes always decode */
    bare_free(b);
    return insn.op != RV_OP_ILLEGAL;
}

TEST(what_a_profile_lacks_is_illegal)
{
    static const struct {
        const char *name, *extension;
    } some[] = {
        {"add",       "i"     },
        {"sh1add",    "zba"   },
        {"clmul",     "zbc"   },
        {"czero.eqz", "zicond"},
        {"vadd.vv",   "v"     },
        {"vclz.v",    "zvbb"  },
        {"vclmul.vv", "zvbc"  },
        {"amocas.d",  "zacas" },
        {"fli.d",     "zfa"   },
    };

    for (enum rv_profile profile = RV_PROFILE_MAX; profile <= RV_PROFILE_RVA22; profile++) {
        char isa[RV_ISA_BYTES];

        rv_isa_string(profile, isa, sizeof(isa));
        for (unsigned n = 0; n < ARRAY_SIZE(some); n++) {
            const char *e = some[n].extension;
            bool told =
                e[1] ? strstr(isa, e) != NULL : memchr(isa + 4, *e, strcspn(isa + 4, "_")) != NULL;
            const struct rv_row *row = rv_find_row(some[n].name);

            if (decodes(profile, rv_encode(row, &(struct insn){.rd = 2, .rs1 = 4, .rs3 = 1})) !=
                told)
                test_fail(__FILE__, __LINE__, "%s of %s in profile %d: announced %d", some[n].name,
                          e, (int)profile, told);
        }
    }
}
