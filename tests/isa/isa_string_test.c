/* The ISA string names exactly the extensions whose tables exist. */
#include "base/test.h"
#include "cpu/guest/riscv/hart.h"
#include "cpu/guest/riscv/rows.h"

#include <stdio.h>

/** Does the ISA string have @name between underscores? */
static bool announced(const char *name)
{
    char want[32];

    (void)snprintf(want, sizeof(want), "_%s", name);
    for (const char *at = rv_isa_string(); (at = strstr(at, want)); at++)
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
            EXPECT_TRUE(strchr("imafdc", *e));
        else if (!announced(e))
            test_fail(__FILE__, __LINE__, "%s has a table and is not announced", e);
    }
    EXPECT_TRUE(!strncmp(rv_isa_string(), "rv64imafdc_", 11));
}

TEST(what_is_announced_has_a_table)
{
    /* Those without instructions of their own. */
    static const char *const bare[] = {"zicntr",  "zihpm",     "zfhmin",   "zca",  "zcd",
                                       "zkr",     "smstateen", "sscofpmf", "sstc", "svadu",
                                       "svnapot", "svpbmt",    "svvptc"};
    char text[512], *save = NULL;

    (void)snprintf(text, sizeof(text), "%s", rv_isa_string());
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
