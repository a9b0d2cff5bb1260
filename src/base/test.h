/* Test harness: TAP on stdout, one process per test, so that a crash is one failed test.
 *
 *     TEST(queue_pops_in_order)          (in x_test.c, which links test_main.c)
 *     {
 *         EXPECT_EQ(vq_pop(&q), 3u);     continues after a failure
 *         ASSERT_TRUE(q.ready);          ends this test
 *         test_skip("no /dev/kvm");      ends this test as skipped
 *     }
 *
 * `x_test NAME...` runs the tests whose names match a shell pattern; `x_test -l` lists; `x_test -1`
 * does not fork. */
#ifndef BASE_TEST_H
#define BASE_TEST_H

#include "base/macros.h"

#include <string.h>

struct test_case {
    const char *name;
    void (*fn)(void);
    struct test_case *next;
};

void test_register(struct test_case *t);
void test_fail(const char *file, int line, const char *fmt, ...) printf_like(3, 4);
_Noreturn void test_abort(void);
_Noreturn void test_skip(const char *fmt, ...) printf_like(1, 2);

#define TEST(test_name)                                                                   \
    static void test_##test_name(void);                                                   \
    static struct test_case test_case_##test_name = {#test_name, test_##test_name, NULL}; \
    __attribute__((constructor)) static void test_register_##test_name(void)              \
    {                                                                                     \
        test_register(&test_case_##test_name);                                            \
    }                                                                                     \
    static void test_##test_name(void)

#define EXPECT_TRUE(cond) \
    ((cond) ? true : (test_fail(__FILE__, __LINE__, "expected: %s", #cond), false))
#define ASSERT_TRUE(cond)       \
    do {                        \
        if (!EXPECT_TRUE(cond)) \
            test_abort();       \
    } while (0)

/** Integers (compared as 64-bit patterns; shown in both bases). */
#define EXPECT_EQ(got, want)                                                                    \
    ({                                                                                          \
        uint64_t test_got_ = (uint64_t)(got);                                                   \
        uint64_t test_want_ = (uint64_t)(want);                                                 \
        if (test_got_ != test_want_)                                                            \
            test_fail(__FILE__, __LINE__, "%s is 0x%llx (%lld), want %s = 0x%llx (%lld)", #got, \
                      (unsigned long long)test_got_, (long long)test_got_, #want,               \
                      (unsigned long long)test_want_, (long long)test_want_);                   \
        test_got_ == test_want_;                                                                \
    })
#define ASSERT_EQ(got, want)       \
    do {                           \
        if (!EXPECT_EQ(got, want)) \
            test_abort();          \
    } while (0)
#define EXPECT_STR(got, want)                                            \
    ({                                                                   \
        const char *test_got_ = (got);                                   \
        const char *test_want_ = (want);                                 \
        bool test_same_ = test_got_ && !strcmp(test_got_, test_want_);   \
        if (!test_same_)                                                 \
            test_fail(__FILE__, __LINE__, "%s is '%s', want '%s'", #got, \
                      test_got_ ? test_got_ : "(null)", test_want_);     \
        test_same_;                                                      \
    })
#define EXPECT_MEM(got, want, size)     \
    (memcmp((got), (want), (size)) == 0 \
         ? true                         \
         : (test_fail(__FILE__, __LINE__, "%s differs from %s", #got, #want), false))

#endif
