/* Compiler attributes and tiny helpers that every folder uses. Header only. */
#ifndef BASE_MACROS_H
#define BASE_MACROS_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define must_check             __attribute__((warn_unused_result))
#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))
#define hot_path               __attribute__((hot))
#define cold_path              __attribute__((cold, noinline))
#define unused_arg             __attribute__((unused))
#define likely(x)              __builtin_expect(!!(x), 1)
#define unlikely(x)            __builtin_expect(!!(x), 0)

/** Run @fn on the variable's address when it leaves its scope. */
#define cleanup(fn) __attribute__((cleanup(fn)))

#define ARRAY_SIZE(a)                   (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/** The smaller and the larger of two values of one type; arguments are evaluated once. */
#define MIN(a, b)                          \
    ({                                     \
        __typeof__(a) min_a_ = (a);        \
        __typeof__(b) min_b_ = (b);        \
        min_a_ < min_b_ ? min_a_ : min_b_; \
    })
#define MAX(a, b)                          \
    ({                                     \
        __typeof__(a) max_a_ = (a);        \
        __typeof__(b) max_b_ = (b);        \
        max_a_ > max_b_ ? max_a_ : max_b_; \
    })

/** An assertion for hot paths: on in debug and sanitizer builds only. assert() stays on everywhere.
 */
#ifdef POSADA_DCHECK
#define dcheck(cond) assert(cond)
#else
#define dcheck(cond) ((void)sizeof(!(cond)))
#endif

/** Arithmetic on lengths that come from outside: false when the true result does not fit. */
#define checked_add(a, b, ret) (!__builtin_add_overflow((a), (b), (ret)))
#define checked_sub(a, b, ret) (!__builtin_sub_overflow((a), (b), (ret)))
#define checked_mul(a, b, ret) (!__builtin_mul_overflow((a), (b), (ret)))

#endif
