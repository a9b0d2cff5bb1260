/* Which vector kernels to use on an x86-64 host, and floating point on its unit.
 *
 * SSE's flags and the detection of tininess after rounding are RISC-V's; there is no rounding to
 * nearest with ties away from zero. NaN results differ: kernels report them.
 * Any thread. Spec: Intel SDM volume 1, §10.2.3, §11.5. */
#include "base/macros.h"
#include "cpu/guest/riscv/vec_kernels.h"

#include <xmmintrin.h>

const struct rv_vk_table *rv_vk_best(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
        __builtin_cpu_supports("popcnt"))
        return &rv_vk_avx2;
    return &rv_vk_any;
}

enum { MXCSR_MASKED = 0x1f80, MXCSR_RC_SHIFT = 13 };
enum { MXCSR_IE = 1, MXCSR_ZE = 4, MXCSR_OE = 8, MXCSR_UE = 16, MXCSR_PE = 32 };

bool rv_vk_run_float(rv_vk_fn *fn, void *d, const void *a, const void *b, size_t n, unsigned rm,
                     struct rv_vk_env *env, uint8_t *ret_flags)
{
    static const uint8_t modes[] = {[FP_RNE] = 0, [FP_RTZ] = 3, [FP_RDN] = 1, [FP_RUP] = 2};
    unsigned old, after;

    if (!fn || rm >= ARRAY_SIZE(modes))
        return false;
    old = _mm_getcsr();
    _mm_setcsr(MXCSR_MASKED | (unsigned)modes[rm] << MXCSR_RC_SHIFT);
    fn(d, a, b, n, env);
    after = _mm_getcsr();
    _mm_setcsr(old);
    *ret_flags = (uint8_t)((after & MXCSR_IE ? FP_NV : 0) | (after & MXCSR_ZE ? FP_DZ : 0) |
                           (after & MXCSR_OE ? FP_OF : 0) | (after & MXCSR_UE ? FP_UF : 0) |
                           (after & MXCSR_PE ? FP_NX : 0));
    return true;
}
