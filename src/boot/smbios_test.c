/* Tests of the SMBIOS tables: their chain, what they say, and what is refused. With
 * $POSADA_SMBIOS_FILE set, they are left there as `dmidecode --from-dump` reads them. */
#include "base/bits.h"
#include "base/test.h"
#include "boot/smbios.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const struct smbios_config config = {
    .name = "inn",
    .uuid = {0x00,  0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
             0xee, 0xff},
    .version = "1.2",
    .cpus = 3,
    .ranges = {{0, 2ULL << 30}, {4ULL << 30, 62ULL << 30}},
    .range_count = 2,
    .oem = (const char *const[]){"first", "", "third"},
    .oem_count = 3,
};

static uint8_t tables[SMBIOS_MAX];
static size_t size;

static void build(const struct smbios_config *c)
{
    struct error err = {0};
    int n = smbios_build(c, tables, &err);

    if (n < 0) {
        test_fail(__FILE__, __LINE__, "%s", err.text);
        test_abort();
    }
    size = (size_t)n;
}

/** Behind the structure at @at: its fields, its strings, two NULs (DSP0134 §6.1.3). */
static size_t next(size_t at)
{
    at += tables[at + 1];
    while (at + 1 < size && (tables[at] || tables[at + 1]))
        at++;
    return at + 2;
}

static size_t find(unsigned type)
{
    size_t at = 0;

    while (at < size && tables[at] != type)
        at = next(at);
    if (at >= size) {
        test_fail(__FILE__, __LINE__, "no structure of type %u", type);
        test_abort();
    }
    return at;
}

static const char *text(size_t at, unsigned field)
{
    const char *p = (const char *)tables + at + tables[at + 1];

    for (unsigned n = tables[at + field]; n > 1; n--)
        p += strlen(p) + 1;
    return tables[at + field] ? p : NULL;
}

static void leave(const char *path)
{
    uint8_t entry[32] = {0};
    FILE *f = fopen(path, "wb");

    ASSERT_TRUE(f);
    smbios_entry(sizeof(entry), size, entry);
    ASSERT_EQ(fwrite(entry, 1, sizeof(entry), f), sizeof(entry));
    ASSERT_EQ(fwrite(tables, 1, size, f), size);
    ASSERT_EQ(fclose(f), 0);
}

TEST(structures_follow_one_another_to_the_last)
{
    static const uint8_t types[] = {0, 1, 2, 3, 4, 11, 16, 17, 19, 19, 32, 127};
    unsigned n = 0;

    build(&config);
    for (size_t at = 0; at < size; at = next(at)) {
        ASSERT_TRUE(n < ARRAY_SIZE(types));
        EXPECT_EQ(tables[at], types[n++]);
    }
    EXPECT_EQ(n, ARRAY_SIZE(types));
    EXPECT_EQ(next(find(127)), size);
    if (getenv("POSADA_SMBIOS_FILE"))
        leave(getenv("POSADA_SMBIOS_FILE"));
}

TEST(the_machine_says_its_name_identity_and_size)
{
    static const uint8_t uuid[16] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
                                     0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

    build(&config);
    size_t at = find(1);
    EXPECT_STR(text(at, 7), "inn");
    EXPECT_MEM(tables + at + 8, uuid, sizeof(uuid)); /* §7.2.1 */
    EXPECT_EQ(tables[find(4) + 0x23], 3);
    at = find(16);
    EXPECT_EQ(load_le32(tables + at + 7), 64u << 20); /* KiB */
    at = find(17);
    EXPECT_EQ(load_le16(tables + at + 0xc), 0x7fff); /* §7.18.5: 64 GiB do not fit */
    EXPECT_EQ(load_le32(tables + at + 0x1c), 64u << 10);
    at = find(19);
    EXPECT_EQ(load_le32(tables + at + 8), (2u << 20) - 1);
    at = next(at);
    EXPECT_EQ(load_le32(tables + at + 4), UINT32_MAX);
    EXPECT_EQ(load_le64(tables + at + 0xf), 4ULL << 30);
    EXPECT_EQ(load_le64(tables + at + 0x17), (66ULL << 30) - 1);
    at = find(11);
    EXPECT_EQ(tables[at + 4], 3);
    EXPECT_MEM(tables + at + 5, "first\0 \0third\0", 15);
}

TEST(what_is_not_given_is_not_there)
{
    static const struct smbios_config none = {
        .cpus = 1, .ranges = {{0, 128 << 20}}, .range_count = 1};

    build(&none);
    EXPECT_TRUE(text(find(1), 7) == NULL);
    for (size_t at = 0; at < size; at = next(at))
        EXPECT_TRUE(tables[at] != 11);
    size_t at = find(17);
    EXPECT_EQ(load_le16(tables + at + 0xc), 128);
    EXPECT_EQ(load_le32(tables + at + 0x1c), 0);
}

TEST(too_many_strings_are_refused)
{
    static char big[SMBIOS_MAX];
    const char *const strings[1] = {big};
    struct smbios_config c = config;
    struct error err = {0};

    memset(big, 'x', sizeof(big) - 1);
    c.oem = strings;
    c.oem_count = 1;
    EXPECT_EQ(smbios_build(&c, tables, &err), -E2BIG);
    c.oem_count = 256;
    EXPECT_EQ(smbios_build(&c, tables, &err), -E2BIG);
}

TEST(the_entry_point_points_there_and_sums_to_zero)
{
    uint8_t e[SMBIOS_ENTRY_SIZE];
    uint8_t sum = 0;

    smbios_entry(0xf0020, 1000, e);
    for (unsigned i = 0; i < sizeof(e); i++)
        sum = (uint8_t)(sum + e[i]);
    EXPECT_EQ(sum, 0);
    EXPECT_MEM(e, "_SM3_", 5);
    EXPECT_EQ(e[6], sizeof(e));
    EXPECT_EQ(load_le32(e + 12), 1000);
    EXPECT_EQ(load_le64(e + 16), 0xf0020);
}
