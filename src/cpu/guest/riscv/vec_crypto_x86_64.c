/* Vector cryptography by the instructions of an x86-64 host: AES-NI, SHA-NI, PCLMULQDQ. A group
 * lies in memory as these take it in a register. Any thread. Spec: Intel SDM volume 2 (AESENC ff.,
 * PCLMULQDQ, SHA256RNDS2 ff.); Vector Cryptography 1.0 (Unprivileged ISA 20240411, §34). */
#include "base/macros.h"
#include "cpu/guest/riscv/vec_crypto.h"

#include <cpuid.h>
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#define TARGET __attribute__((target("aes,pclmul,sha,sse4.1,ssse3")))

/* --- AES. AESENC and AESENCLAST are vaesem and vaesef; AESDEC has the key added after the columns
 * are mixed, vaesdm before --- */

TARGET static void aesem(void *d, const void *a, const void *b, unsigned imm)
{
    _mm_storeu_si128(d, _mm_aesenc_si128(_mm_loadu_si128(d), _mm_loadu_si128(a)));
}

TARGET static void aesef(void *d, const void *a, const void *b, unsigned imm)
{
    _mm_storeu_si128(d, _mm_aesenclast_si128(_mm_loadu_si128(d), _mm_loadu_si128(a)));
}

TARGET static void aesdf(void *d, const void *a, const void *b, unsigned imm)
{
    _mm_storeu_si128(d, _mm_aesdeclast_si128(_mm_loadu_si128(d), _mm_loadu_si128(a)));
}

TARGET static void aesdm(void *d, const void *a, const void *b, unsigned imm)
{
    __m128i v = _mm_aesdeclast_si128(_mm_loadu_si128(d), _mm_loadu_si128(a));

    _mm_storeu_si128(d, _mm_aesimc_si128(v));
}

/* --- SHA-256: C D G H and A B E F are SHA256RNDS2's operands, highest first as in vd and vs2 ---
 */

TARGET static void sha2cl32(void *d, const void *a, const void *b, unsigned imm)
{
    _mm_storeu_si128(
        d, _mm_sha256rnds2_epu32(_mm_loadu_si128(d), _mm_loadu_si128(a), _mm_loadu_si128(b)));
}

TARGET static void sha2ch32(void *d, const void *a, const void *b, unsigned imm)
{
    __m128i words = _mm_unpackhi_epi64(_mm_loadu_si128(b), _mm_loadu_si128(b));

    _mm_storeu_si128(d, _mm_sha256rnds2_epu32(_mm_loadu_si128(d), _mm_loadu_si128(a), words));
}

/* vd W0..3, vs2 W4 W9 W10 W11, vs1 W12..15 */
TARGET static void sha2ms32(void *d, const void *a_, const void *b_, unsigned imm)
{
    __m128i a = _mm_loadu_si128(a_), b = _mm_loadu_si128(b_);
    __m128i sum = _mm_sha256msg1_epu32(_mm_loadu_si128(d), a);

    sum = _mm_add_epi32(sum, _mm_alignr_epi8(b, a, 4));
    _mm_storeu_si128(d, _mm_sha256msg2_epu32(sum, b));
}

/* --- GHASH: with the bits of each byte reversed, bit i is the factor of x^i --- */

TARGET static __m128i reverse_bits(__m128i v)
{
    const __m128i low = _mm_set1_epi8(15);
    const __m128i table =
        _mm_setr_epi8(0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15); /* of four bits */
    __m128i l = _mm_shuffle_epi8(table, _mm_and_si128(v, low));
    __m128i h = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(v, 4), low));

    return _mm_or_si128(_mm_slli_epi16(l, 4), h);
}

/* x * y modulo x^128 + x^7 + x^2 + x + 1 */
TARGET static __m128i multiply(__m128i x, __m128i y)
{
    const __m128i rest = _mm_set_epi64x(0, 0x87);
    __m128i low = _mm_clmulepi64_si128(x, y, 0x00), high = _mm_clmulepi64_si128(x, y, 0x11);
    __m128i middle =
        _mm_xor_si128(_mm_clmulepi64_si128(x, y, 0x01), _mm_clmulepi64_si128(x, y, 0x10));

    low = _mm_xor_si128(low, _mm_slli_si128(middle, 8));
    high = _mm_xor_si128(high, _mm_srli_si128(middle, 8));
    /* x^128 is 0x87, for the upper half of `high` first, some bits of which go round once more */
    __m128i top = _mm_clmulepi64_si128(high, rest, 0x01);

    high = _mm_xor_si128(high, _mm_srli_si128(top, 8));
    low = _mm_xor_si128(low, _mm_slli_si128(top, 8));
    return _mm_xor_si128(low, _mm_clmulepi64_si128(high, rest, 0x00));
}

TARGET static void ghsh(void *d, const void *a, const void *b, unsigned imm)
{
    __m128i x = _mm_xor_si128(_mm_loadu_si128(d), _mm_loadu_si128(b));

    x = multiply(reverse_bits(x), reverse_bits(_mm_loadu_si128(a)));
    _mm_storeu_si128(d, reverse_bits(x));
}

TARGET static void gmul(void *d, const void *a, const void *b, unsigned imm)
{
    __m128i x = multiply(reverse_bits(_mm_loadu_si128(d)), reverse_bits(_mm_loadu_si128(a)));

    _mm_storeu_si128(d, reverse_bits(x));
}

static bool host_has_all(void)
{
    unsigned eax, ebx, ecx, edx;
    const unsigned wanted = bit_AES | bit_PCLMUL | bit_SSSE3 | bit_SSE4_1;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & wanted) != wanted)
        return false;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ebx & bit_SHA;
}

const struct rv_vc_table *rv_vc_best(void)
{
#define NAMED(name) .name = name,
    static const struct rv_vc_table table = {RV_VC_ALL(NAMED)};
#undef NAMED

    return host_has_all() ? &table : &rv_vc_any;
}
