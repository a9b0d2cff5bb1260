/* What this CPU has beyond x86-64's baseline. */
#include "cpu/host/host.h"

#include <cpuid.h>

unsigned host_features(void)
{
    unsigned f = 0;

    __builtin_cpu_init();
    if (__builtin_cpu_supports("popcnt"))
        f |= HOST_POPCNT;
    if (__builtin_cpu_supports("bmi"))
        f |= HOST_BMI1;
    if (__builtin_cpu_supports("bmi2"))
        f |= HOST_BMI2;
    if (__builtin_cpu_supports("fma"))
        f |= HOST_FMA;
    if (__builtin_cpu_supports("sse4.1"))
        f |= HOST_SSE41;
    if (__builtin_cpu_supports("pclmul"))
        f |= HOST_PCLMUL;
    if (__builtin_cpu_supports("avx")) /* the operating system's support included */
        f |= HOST_AVX;

    unsigned a, b, c, d;

    if (__get_cpuid(0x80000001, &a, &b, &c, &d) && (c & bit_LZCNT))
        f |= HOST_LZCNT;
    /* VEX instructions want YMM state enabled */
    return f & HOST_AVX ? f : f & ~(unsigned)(HOST_BMI1 | HOST_BMI2 | HOST_FMA);
}
