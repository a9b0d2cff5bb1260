/* Code memory: two aliases of the same bytes, bounds, reset. */
#include "base/bits.h"
#include "base/test.h"
#include "cpu/host/codebuf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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

static size_t resident(const uint8_t *p, size_t size)
{
    unsigned char pages[256];
    size_t n = 0;

    ASSERT_TRUE(size / 4096 <= sizeof(pages));
    ASSERT_EQ(mincore((void *)(uintptr_t)p, size, pages), 0);
    for (size_t i = 0; i < size / 4096; i++)
        n += pages[i] & 1;
    return n;
}

TEST(what_is_free_is_given_back)
{
    struct codebuf b;

    ASSERT_EQ(codebuf_init(&b, 1 << 20, NULL), 0);
    memset(codebuf_begin(&b, 1 << 20), 1, 1 << 20);
    (void)codebuf_commit(&b, 20000);
    codebuf_trim(&b);
    EXPECT_EQ(resident(b.rx, b.size), align_up(20000, b.chunk) / 4096);
    EXPECT_EQ(b.rx[19999], 1);
    EXPECT_EQ(*codebuf_begin(&b, b.size - b.used), 1); /* of the chunk in use */
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
    codebuf_reset(&b);
    EXPECT_TRUE(codebuf_begin(&b, 4096) != NULL);
    codebuf_done(&b);
}

/** Mappings of generated code in /proc/self/maps; fails if one is writable and executable. */
static unsigned count_mappings(void)
{
    char line[512];
    FILE *f = fopen("/proc/self/maps", "re");
    unsigned seen = 0;

    ASSERT_TRUE(f != NULL);
    while (fgets(line, sizeof(line), f)) {
        if (!strstr(line, "posada-code"))
            continue;
        seen++;
        EXPECT_TRUE(strstr(line, " rw-s") || strstr(line, " r-xs"));
    }
    fclose(f);
    return seen;
}

TEST(no_mapping_is_writable_and_executable)
{
    struct codebuf b;

    ASSERT_EQ(codebuf_init(&b, 1 << 20, NULL), 0);
    EXPECT_EQ(count_mappings(), 2);
    ASSERT_TRUE(codebuf_begin(&b, 100000) != NULL);
    (void)codebuf_commit(&b, 100000);
    ASSERT_EQ(codebuf_share(&b, NULL), 0);
    codebuf_patch32(&b, b.rx + 50000, 1);
    EXPECT_TRUE(count_mappings() > 2); /* what is shared, what was patched, what is free */
    codebuf_done(&b);
}

/* mov eax, VALUE; ret */
static const uint8_t *add_function(struct codebuf *b, uint8_t value)
{
    const uint8_t code[8] = {0xb8, value, 0, 0, 0, 0xc3};
    uint8_t *w = codebuf_begin(b, sizeof(code));

    ASSERT_TRUE(w != NULL);
    memcpy(w, code, sizeof(code));
    return codebuf_commit(b, sizeof(code));
}

static int call(const uint8_t *code)
{
    return ((int (*)(void))(uintptr_t)code)();
}

/* Two functions in chunks of their own, a third after the fork: each side changes and adds what the
 * other does not see. */
static bool child_side(struct codebuf *b, const uint8_t *first, const uint8_t *second, int fd)
{
    char word;
    bool ok = true;

    ok &= EXPECT_EQ(codebuf_inherit(b, NULL), 0);
    ok &= EXPECT_EQ(call(first), 1);
    codebuf_patch32(b, first, 0x0bb8); /* 11 */
    ok &= EXPECT_EQ(call(first), 11);
    ok &= EXPECT_EQ(b->copied, 1);
    const uint8_t *third = add_function(b, 13);
    ok &= EXPECT_EQ(read(fd, &word, 1), 1); /* the parent has written, too */
    ok &= EXPECT_EQ(call(first), 11);
    ok &= EXPECT_EQ(call(second), 2);
    ok &= EXPECT_EQ(call(third), 13);
    codebuf_reset(b);
    ok &= EXPECT_EQ(call(add_function(b, 21)), 21);
    codebuf_done(b);
    return ok;
}

static void share_with_child(bool descriptors)
{
    struct codebuf b;
    struct rlimit old, none = {0};
    int fds[2];
    int status = -1;

    ASSERT_EQ(codebuf_init(&b, 1 << 20, NULL), 0);
    ASSERT_EQ(pipe(fds), 0);
    const uint8_t *first = add_function(&b, 1);
    (void)codebuf_commit(&b, 3 * b.chunk);
    const uint8_t *second = add_function(&b, 2);
    ASSERT_EQ(codebuf_share(&b, NULL), 0);
    EXPECT_TRUE(codebuf_is_frozen(&b, first) && codebuf_is_frozen(&b, second));
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    none.rlim_max = old.rlim_max;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, descriptors ? &old : &none), 0);
    pid_t child = fork();
    if (!child) {
        bool ok = child_side(&b, first, second, fds[0]);
        (void)fflush(stdout); /* what it says is wrong */
        _exit(!ok);
    }
    codebuf_patch32(&b, second, 0x0cb8); /* 12 */
    EXPECT_TRUE(!codebuf_is_frozen(&b, second));
    const uint8_t *third = add_function(&b, 3);
    EXPECT_EQ(write(fds[1], "g", 1), 1);
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(call(first), 1);
    EXPECT_EQ(call(second), 12);
    EXPECT_EQ(call(third), 3);
    ASSERT_EQ(codebuf_share(&b, NULL), 0); /* for another one */
    codebuf_patch32(&b, first, 0x1fb8);
    EXPECT_EQ(call(first), 31);
    EXPECT_EQ(call(second), 12);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    close(fds[0]);
    close(fds[1]);
    codebuf_done(&b);
}

TEST(a_forked_process_goes_on_with_it)
{
    share_with_child(true);
}

TEST(it_needs_no_descriptor_for_that)
{
    share_with_child(false);
}
