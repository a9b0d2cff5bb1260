/* Code memory: two aliases of the same bytes, bounds, reset. */
#include "base/test.h"
#include "cpu/host/codebuf.h"

#include <errno.h>
#include <stdio.h>

TEST(aliases_show_the_same_bytes)
{
    struct codebuf b;
    uint8_t *w;
    const uint8_t *x;

    ASSERT_EQ(codebuf_init(&b, 8192, NULL), 0);
    w = codebuf_begin(&b, 100);
    ASSERT_TRUE(w != NULL);
    memcpy(w, "\xb8\x2a\x00\x00\x00\xc3", 6); /* mov eax, 42; ret */
    x = codebuf_commit(&b, 6);
    EXPECT_MEM(x, w, 6);
    EXPECT_EQ(((int (*)(void))(uintptr_t)x)(), 42);
    EXPECT_EQ(b.used, 16);
    codebuf_patch32(&b, x, 0x2bb8);
    EXPECT_EQ(x[1], 0x2b);
    codebuf_done(&b);
}

TEST(refuses_when_full)
{
    struct codebuf b;

    EXPECT_EQ(codebuf_init(&b, (size_t)2 << 30, NULL), -EINVAL);
    ASSERT_EQ(codebuf_init(&b, 4096, NULL), 0);
    EXPECT_TRUE(codebuf_begin(&b, 4096) != NULL);
    codebuf_commit(&b, 4000);
    EXPECT_TRUE(codebuf_begin(&b, 97) == NULL);
    EXPECT_TRUE(codebuf_begin(&b, 96) != NULL);
    codebuf_reset(&b, 16);
    EXPECT_TRUE(codebuf_begin(&b, 4080) != NULL);
    codebuf_done(&b);
}

TEST(no_mapping_is_writable_and_executable)
{
    struct codebuf b;
    char line[512];
    FILE *f;
    unsigned seen = 0;

    ASSERT_EQ(codebuf_init(&b, 4096, NULL), 0);
    f = fopen("/proc/self/maps", "re");
    ASSERT_TRUE(f != NULL);
    while (fgets(line, sizeof(line), f)) {
        if (!strstr(line, "posada-code"))
            continue;
        seen++;
        EXPECT_TRUE(strstr(line, " rw-s") || strstr(line, " r-xs"));
    }
    fclose(f);
    EXPECT_EQ(seen, 2);
    codebuf_done(&b);
}
