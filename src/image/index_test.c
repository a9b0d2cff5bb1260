/* Control files, versions, the package index and the resolver. */
#include "image/resolve.h"

#include "base/fd.h"
#include "base/test.h"
#include "image/version.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TEST(control_stanzas_and_fields)
{
    struct slice text =
        slice_of("\n\nA: 1\nB:two\n more\n\tlines\n# c: no\nnofield\n :x\n\n\nC: 3");
    struct slice stanza, name, value;

    ASSERT_TRUE(control_stanza(&text, &stanza));
    ASSERT_TRUE(control_find(stanza, "a", &value));
    EXPECT_TRUE(slice_is(value, "1"));
    ASSERT_TRUE(control_find(stanza, "B", &value));
    EXPECT_TRUE(slice_is(value, "two\n more\n\tlines"));
    EXPECT_TRUE(!control_find(stanza, "c", &value));
    EXPECT_TRUE(!control_find(stanza, "# c", &value));
    ASSERT_TRUE(control_stanza(&text, &stanza));
    ASSERT_TRUE(control_field(&stanza, &name, &value));
    EXPECT_TRUE(slice_is(name, "C") && slice_is(value, "3"));
    EXPECT_TRUE(!control_field(&stanza, &name, &value));
    EXPECT_TRUE(!control_stanza(&text, &stanza));
}

/* Debian Policy §5.6.12, and the cases of deb-version(7). */
TEST(version_order)
{
    static const char *const rising[] = {
        "~~",         "~~a",    "~",        "0",
        "0.1~rc1-1",  "0.1-1",  "0.1-1+b1", "0.1-2",
        "0.1a-1",     "0.1+-1", "0.9",      "0.10",
        "1.0-1~bpo1", "1.0-1",  "1.0-1-1",  "99999999999999999999999",
        "1:0",        "2:0~",
    };

    for (size_t i = 0; i < ARRAY_SIZE(rising); i++) {
        for (size_t j = 0; j < ARRAY_SIZE(rising); j++) {
            int d = version_compare(slice_of(rising[i]), slice_of(rising[j]));

            if ((d < 0) != (i < j) || (d > 0) != (i > j))
                test_fail(__FILE__, __LINE__, "'%s' against '%s' gives %d", rising[i], rising[j],
                          d);
        }
    }
    EXPECT_EQ(version_compare(slice_of("1.0"), slice_of("1.0-0")), 0);
    EXPECT_EQ(version_compare(slice_of("0:01.00"), slice_of("1.0")), 0);
    EXPECT_TRUE(version_satisfies(slice_of("1.2"), slice_of(">="), slice_of("1.2~")));
    EXPECT_TRUE(!version_satisfies(slice_of("1.2"), slice_of("<<"), slice_of("1.2")));
    EXPECT_TRUE(!version_satisfies(slice_of("1.2"), slice_of("?"), slice_of("1.2")));
}

#define SUM "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define PACKAGE(name, version, more)                                                               \
    "Package: " name "\nVersion: " version "\nFilename: pool/" name ".deb\nSize: 10\nSHA256: " SUM \
    "\n" more "\n"

static struct index *index_of(const char *text)
{
    struct index *index = NULL;
    struct error err = {0};

    if (index_new(strdup(text), strlen(text), &index, &err)) {
        test_fail(__FILE__, __LINE__, "%s", error_text(&err));
        test_abort();
    }
    return index;
}

static void expect_set(const struct package_set *set, const char *want)
{
    char got[512] = "";

    for (size_t i = 0; i < set->count; i++)
        (void)snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%.*s", i ? " " : "",
                       (int)set->list[i]->name.n, set->list[i]->name.p);
    EXPECT_STR(got, want);
}

TEST(index_takes_the_newest_and_skips_the_unsafe)
{
    struct index *index = index_of(
        PACKAGE("a", "1.9", "") PACKAGE("a", "1.10", "") PACKAGE("a", "1.2", "")
            PACKAGE("../evil", "1", "") PACKAGE(
                "$(reboot)", "1",
                "") "Package: b\nVersion: 1\nFilename: pool/../../etc/passwd\nSize: 1\nSHA256: " SUM
                    "\n\nPackage: c\nVersion: 1\nFilename: c.deb\nSize: x\nSHA256: " SUM "\n");

    EXPECT_EQ(index_count(index), 3u);
    struct package *p = index_find(index, slice_of("a"));
    ASSERT_TRUE(p != NULL);
    EXPECT_TRUE(slice_is(p->version, "1.10"));
    EXPECT_TRUE(!index_find(index, slice_of("b")));
    index_free(index);
}

TEST(index_without_packages_is_an_error)
{
    struct index *index = NULL;
    struct error err = {0};

    EXPECT_EQ(index_new(strdup("garbage"), 7, &index, &err), -EINVAL);
    EXPECT_EQ(index_new(strdup(""), 0, &index, &err), -EINVAL);
}

TEST(resolve_closure)
{
    struct index *index = index_of(
        PACKAGE("base", "1", "Priority: required\nPre-Depends: libc (>= 2)\n")
            PACKAGE("ess", "1", "Essential: yes\nDepends: base\n")
                PACKAGE("libc", "2.41-1", "Depends: loop\n") PACKAGE("loop", "1", "Depends: libc\n")
                    PACKAGE("unused", "1", "Depends: nowhere\n")
                        PACKAGE("app", "1",
                                "Depends: missing | tool:any (>> 0) [riscv64] <!x>,\n"
                                " libc (= 2.41-1)\n") PACKAGE("tool", "3", ""));
    const char *names[] = {"app", NULL};
    struct package_set set = {0};

    ASSERT_EQ(package_set_resolve(&set, index, names, true, NULL), 0);
    expect_set(&set, "app base ess tool libc loop");
    EXPECT_EQ(set.size_bytes, 60u);
    package_set_done(&set);
    index_free(index);
}

/* Policy §7.1, §7.5: alternatives and virtual packages. */
TEST(resolve_virtual_packages)
{
    struct index *index =
        index_of(PACKAGE("app", "1", "Depends: mta, awk (>= 2), x | chosen\n")
                     PACKAGE("big-mta", "1", "Provides: mta\n")
                         PACKAGE("std-mta", "1", "Provides: mta\nPriority: important\n")
                             PACKAGE("gawk", "9", "Provides: awk\n")
                                 PACKAGE("mawk", "1", "Provides: other, awk (= 2.1)\n")
                                     PACKAGE("chosen", "1", "") PACKAGE("x", "1", ""));
    const char *names[] = {"chosen", "app", NULL};
    struct package_set set = {0};

    ASSERT_EQ(package_set_resolve(&set, index, names, false, NULL), 0);
    expect_set(&set, "chosen app std-mta mawk");
    package_set_done(&set);
    index_free(index);
}

TEST(resolve_names_what_is_missing)
{
    struct index *index =
        index_of(PACKAGE("app", "1", "Depends: lib (>= 3)\n") PACKAGE("lib", "2", ""));
    const char *names[] = {"app", NULL}, *none[] = {"nope", NULL};
    struct package_set set = {0};
    struct error err = {0}, err2 = {0};

    EXPECT_EQ(package_set_resolve(&set, index, names, false, &err), -ENOENT);
    EXPECT_TRUE(strstr(error_text(&err), "'app' needs 'lib (>= 3)'") != NULL);
    EXPECT_EQ(package_set_resolve(&set, index, none, false, &err2), -ENOENT);
    EXPECT_TRUE(strstr(error_text(&err2), "'nope'") != NULL);
    package_set_done(&set);
    index_free(index);
}
