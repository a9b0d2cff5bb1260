/* Interpreter handlers: vector cryptography on element groups of four elements: AES (Zvkned), SHA-2
 * (Zvknha, Zvknhb), SM4 (Zvksed), SM3 (Zvksh), GHASH (Zvkg). See vector.h.
 *
 * 1. vl and vstart are multiples of the group's elements, else the instruction is illegal; there is
 *    no mask.
 * 2. A group never straddles registers of less than its size: LMUL * VLEN is at least its bits.
 *
 * The tables of substitution are computed once, from what defines them.
 * Spec: Vector Cryptography 1.0 (Unprivileged ISA 20240411, §34); FIPS 197, FIPS 180-4,
 * GB/T 32905-2016, GB/T 32907-2016, NIST SP 800-38D. */
#include "cpu/guest/riscv/vec_crypto.h"
#include "cpu/guest/riscv/vector.h"

#include <pthread.h>

/* --- Groups --- */

enum { GROUP = 4 }; /* elements of a group */

/** The rules; @scalar: vs2 is one group, the same for all. */
static bool groups_ok(const struct rv_hart *h, const struct insn *i, unsigned width, bool scalar)
{
    const struct rv_vector *v = &h->vec;

    if (!rv_v_legal_vtype(h) || v->sew != width || (v->vl | v->vstart) % GROUP ||
        v->vlmax < GROUP || !rv_v_aligned(i->rd, v->lmul))
        return false;
    if (!scalar)
        return rv_v_aligned(i->rs2, v->lmul);
    return !rv_v_overlap(i->rd, v->lmul, i->rs2, 0);
}

static bool run_groups(struct rv_hart *h, const struct insn *i, unsigned width, bool scalar,
                       rv_vc_fn *fn)
{
    size_t bytes = (size_t)GROUP << width;
    const uint8_t *a = rv_v_reg(h, i->rs2), *b = rv_v_reg(h, i->rs1);
    uint8_t *d = rv_v_reg(h, i->rd);
    bool copy = i->rd == i->rs2 || i->rd == i->rs1;
    uint64_t operands[2][GROUP];

    if (!groups_ok(h, i, width, scalar))
        return false;
    for (size_t n = h->vec.vstart / GROUP; n < h->vec.vl / GROUP; n++) {
        const void *an = scalar ? a : a + n * bytes, *bn = b + n * bytes;

        if (copy) {
            an = memcpy(operands[0], an, bytes);
            bn = memcpy(operands[1], bn, bytes);
        }
        fn(d + n * bytes, an, bn, (unsigned)i->imm);
    }
    rv_v_done(h);
    return true;
}

/** The three operands are groups of their own: vd is neither vs1 nor vs2, nor overlaps them. */
static bool apart(const struct rv_hart *h, const struct insn *i)
{
    return rv_v_aligned(i->rs1, h->vec.lmul) &&
           !rv_v_overlap(i->rd, h->vec.lmul, i->rs1, h->vec.lmul) &&
           !rv_v_overlap(i->rd, h->vec.lmul, i->rs2, h->vec.lmul);
}

/* --- Substitution boxes --- */

static uint8_t aes_box[256], aes_inverse[256], sm4_box[256];
static pthread_once_t boxes_once = PTHREAD_ONCE_INIT;

static uint8_t multiply(unsigned a, unsigned b, unsigned polynomial)
{
    unsigned r = 0;

    for (; b; b >>= 1) {
        if (b & 1)
            r ^= a;
        a <<= 1;
        if (a & 0x100)
            a ^= polynomial;
    }
    return (uint8_t)r;
}

static uint8_t invert(uint8_t a, unsigned polynomial)
{
    uint8_t r = 1;

    for (unsigned n = 0; n < 254; n++) /* a^254 = 1/a, and 0 for 0 */
        r = multiply(r, a, polynomial);
    return r;
}

static uint8_t rotate8(uint8_t v, unsigned n)
{
    return (uint8_t)(v << n | v >> (8 - n));
}

/** SM4's affine map: a circulant matrix and a constant. */
static uint8_t sm4_affine(uint8_t v)
{
    return (uint8_t)(v ^ rotate8(v, 1) ^ rotate8(v, 3) ^ rotate8(v, 6) ^ rotate8(v, 7) ^ 0xd3);
}

static void make_boxes(void)
{
    for (unsigned n = 0; n < 256; n++) {
        uint8_t v = invert((uint8_t)n, 0x11b);

        v = (uint8_t)(v ^ rotate8(v, 1) ^ rotate8(v, 2) ^ rotate8(v, 3) ^ rotate8(v, 4) ^ 0x63);
        aes_box[n] = v;
        aes_inverse[v] = (uint8_t)n;
        sm4_box[n] = sm4_affine(invert(sm4_affine((uint8_t)n), 0x1f5));
    }
}

static const uint8_t *box(const uint8_t *which)
{
    (void)pthread_once(&boxes_once, make_boxes); /* cannot fail */
    return which;
}

/* --- AES: a group is a state, or a round key, of 16 bytes in columns --- */

static void substitute(uint8_t s[16], const uint8_t *table)
{
    for (unsigned n = 0; n < 16; n++)
        s[n] = table[s[n]];
}

/** Row r moves by r columns, to the left or, with @direction 1, to the right. */
static void shift_rows(uint8_t s[16], unsigned direction)
{
    uint8_t t[16];

    for (unsigned n = 0; n < 16; n++) {
        unsigned row = n % 4, column = n / 4;

        t[n] = s[(column + (direction ? 4 - row : row)) % 4 * 4 + row];
    }
    memcpy(s, t, 16);
}

static void mix_columns(uint8_t s[16], const uint8_t factors[4])
{
    uint8_t t[16];

    for (unsigned n = 0; n < 16; n++) {
        t[n] = 0;
        for (unsigned k = 0; k < 4; k++)
            t[n] ^= multiply(s[n / 4 * 4 + (n + k) % 4], factors[k], 0x11b);
    }
    memcpy(s, t, 16);
}

static void add_key(uint8_t s[16], const uint8_t key[16])
{
    for (unsigned n = 0; n < 16; n++)
        s[n] ^= key[n];
}

static const uint8_t forward[4] = {2, 3, 1, 1}, backward[4] = {14, 11, 13, 9};

static void aesem(void *d, const void *a, const void *b, unsigned imm)
{
    substitute(d, box(aes_box));
    shift_rows(d, 0);
    mix_columns(d, forward);
    add_key(d, a);
}

static void aesef(void *d, const void *a, const void *b, unsigned imm)
{
    substitute(d, box(aes_box));
    shift_rows(d, 0);
    add_key(d, a);
}

static void aesdf(void *d, const void *a, const void *b, unsigned imm)
{
    shift_rows(d, 1);
    substitute(d, box(aes_inverse));
    add_key(d, a);
}

static void aesdm(void *d, const void *a, const void *b, unsigned imm)
{
    aesdf(d, a, b, imm);
    mix_columns(d, backward);
}

static void aes_z(void *d, const void *a, const void *b, unsigned imm)
{
    add_key(d, a);
}

RV_VECTOR(vaesem_vv, run_groups(h, i, 2, false, h->vec.crypto->aesem))
RV_VECTOR(vaesem_vs, run_groups(h, i, 2, true, h->vec.crypto->aesem))
RV_VECTOR(vaesef_vv, run_groups(h, i, 2, false, h->vec.crypto->aesef))
RV_VECTOR(vaesef_vs, run_groups(h, i, 2, true, h->vec.crypto->aesef))
RV_VECTOR(vaesdm_vv, run_groups(h, i, 2, false, h->vec.crypto->aesdm))
RV_VECTOR(vaesdm_vs, run_groups(h, i, 2, true, h->vec.crypto->aesdm))
RV_VECTOR(vaesdf_vv, run_groups(h, i, 2, false, h->vec.crypto->aesdf))
RV_VECTOR(vaesdf_vs, run_groups(h, i, 2, true, h->vec.crypto->aesdf))
RV_VECTOR(vaesz_vs, run_groups(h, i, 2, true, aes_z))

static uint32_t rotate32(uint32_t v, unsigned left)
{
    return v << left | v >> (32 - left);
}

static uint32_t substitute_word(uint32_t w, const uint8_t *table)
{
    return (uint32_t)table[w & 255] | (uint32_t)table[w >> 8 & 255] << 8 |
           (uint32_t)table[w >> 16 & 255] << 16 | (uint32_t)table[w >> 24] << 24;
}

/** Elements of a group, as host numbers, in and out of memory. */
static void get4(uint32_t w[4], const void *p)
{
    for (unsigned n = 0; n < 4; n++)
        w[n] = load_le32((const uint8_t *)p + 4 * n);
}

static void put4(void *p, const uint32_t w[4])
{
    for (unsigned n = 0; n < 4; n++)
        store_le32((uint8_t *)p + 4 * n, w[n]);
}

/** AES-128's next round key. Round 0 and those over 10 are taken with bit 3 flipped. */
static void aes_key1(void *d, const void *a, const void *b, unsigned imm)
{
    unsigned round = (imm & 15) > 10 || !(imm & 15) ? (imm & 15) ^ 8 : imm & 15;
    uint8_t constant = 1;
    uint32_t w[4], k[4];

    while (--round)
        constant = multiply(constant, 2, 0x11b);
    get4(k, a);
    w[0] = k[0] ^ substitute_word(rotate32(k[3], 24), box(aes_box)) ^ constant;
    for (unsigned n = 1; n < 4; n++)
        w[n] = w[n - 1] ^ k[n];
    put4(d, w);
}

/** AES-256's. Rounds under 2 and over 14 are taken with bit 3 flipped. */
static void aes_key2(void *d, const void *a, const void *b, unsigned imm)
{
    unsigned round = (imm & 15) < 2 || (imm & 15) > 14 ? (imm & 15) ^ 8 : imm & 15;
    uint8_t constant = 1;
    uint32_t w[4], k[4], old[4];

    for (unsigned n = 1; n < round / 2; n++)
        constant = multiply(constant, 2, 0x11b);
    get4(k, a);
    get4(old, d);
    w[0] = old[0] ^ (round & 1 ? substitute_word(k[3], box(aes_box))
                               : substitute_word(rotate32(k[3], 24), box(aes_box)) ^ constant);
    for (unsigned n = 1; n < 4; n++)
        w[n] = w[n - 1] ^ old[n];
    put4(d, w);
}

RV_VECTOR(vaeskf1_vi, run_groups(h, i, 2, false, aes_key1))
RV_VECTOR(vaeskf2_vi, run_groups(h, i, 2, false, aes_key2))

/* --- SHA-2: by SEW, of 32-bit or 64-bit words --- */

#define SHA2(w, s0, s0b, s0c, s1, s1b, s1c, g0, g0b, g0c, g1, g1b, g1c)                           \
    static uint##w##_t turn##w(uint##w##_t v, unsigned right)                                     \
    {                                                                                             \
        return (uint##w##_t)(v >> right | v << ((w)-right));                                      \
    }                                                                                             \
    /** Four words of message schedule: vd W0..3, vs2 W4 W9 W10 W11, vs1 W12..15. */              \
    static void sha2ms##w(void *d_, const void *a_, const void *b_, unsigned imm)                 \
    {                                                                                             \
        uint##w##_t *d = d_;                                                                      \
        const uint##w##_t *a = a_, *b = b_;                                                       \
        const uint##w##_t next[5] = {d[1], d[2], d[3], a[0]}, ninth[] = {a[1], a[2], a[3], b[0]}; \
                                                                                                  \
        for (unsigned n = 0; n < 4; n++) {                                                        \
            uint##w##_t x = n < 2 ? b[n + 2] : d[n - 2], y = next[n];                             \
                                                                                                  \
            d[n] = (uint##w##_t)((turn##w(x, s1) ^ turn##w(x, s1b) ^ x >> (s1c)) + ninth[n] +     \
                                 (turn##w(y, s0) ^ turn##w(y, s0b) ^ y >> (s0c)) + d[n]);         \
        }                                                                                         \
    }                                                                                             \
    /** Two rounds: vs2 = F E B A, vd = H G D C, words of message plus constant from @m. */       \
    static void sha2c##w(uint##w##_t *d, const uint##w##_t *a, const uint##w##_t *m)              \
    {                                                                                             \
        uint##w##_t A = a[3], B = a[2], E = a[1], F = a[0], C = d[3], D = d[2], G = d[1],         \
                    H = d[0];                                                                     \
                                                                                                  \
        for (unsigned n = 0; n < 2; n++) {                                                        \
            uint##w##_t t1 = H + (turn##w(E, g1) ^ turn##w(E, g1b) ^ turn##w(E, g1c)) +           \
                             ((E & F) ^ (~E & G)) + m[n];                                         \
            uint##w##_t t2 = (turn##w(A, g0) ^ turn##w(A, g0b) ^ turn##w(A, g0c)) +               \
                             ((A & B) ^ (A & C) ^ (B & C));                                       \
                                                                                                  \
            H = G;                                                                                \
            G = F;                                                                                \
            F = E;                                                                                \
            E = D + t1;                                                                           \
            D = C;                                                                                \
            C = B;                                                                                \
            B = A;                                                                                \
            A = t1 + t2;                                                                          \
        }                                                                                         \
        d[0] = F;                                                                                 \
        d[1] = E;                                                                                 \
        d[2] = B;                                                                                 \
        d[3] = A;                                                                                 \
    }                                                                                             \
    static void sha2ch##w(void *d, const void *a, const void *b, unsigned imm)                    \
    {                                                                                             \
        sha2c##w(d, a, (const uint##w##_t *)b + 2);                                               \
    }                                                                                             \
    static void sha2cl##w(void *d, const void *a, const void *b, unsigned imm)                    \
    {                                                                                             \
        sha2c##w(d, a, b);                                                                        \
    }
SHA2(32, 7, 18, 3, 17, 19, 10, 2, 13, 22, 6, 11, 25)
SHA2(64, 1, 8, 7, 19, 61, 6, 28, 34, 39, 14, 18, 41)

static bool sha2(struct rv_hart *h, const struct insn *i, rv_vc_fn *narrow, rv_vc_fn *wide)
{
    return apart(h, i) &&
           run_groups(h, i, h->vec.sew == 3 ? 3 : 2, false, h->vec.sew == 3 ? wide : narrow);
}

RV_VECTOR(vsha2ms_vv, sha2(h, i, h->vec.crypto->sha2ms32, sha2ms64))
RV_VECTOR(vsha2ch_vv, sha2(h, i, h->vec.crypto->sha2ch32, sha2ch64))
RV_VECTOR(vsha2cl_vv, sha2(h, i, h->vec.crypto->sha2cl32, sha2cl64))

/* --- SM4 --- */

static uint32_t sm4_constant(unsigned n)
{
    uint32_t v = 0;

    for (unsigned byte = 0; byte < 4; byte++)
        v = v << 8 | (uint8_t)((4 * n + byte) * 7);
    return v;
}

/** Four rounds on @w, with four round keys or constants. */
static void sm4_rounds(uint32_t w[4], const uint32_t keys[4], bool schedule)
{
    for (unsigned n = 0; n < 4; n++) {
        uint32_t s = substitute_word(w[1] ^ w[2] ^ w[3] ^ keys[n], box(sm4_box));
        uint32_t t = schedule
                         ? s ^ rotate32(s, 13) ^ rotate32(s, 23)
                         : s ^ rotate32(s, 2) ^ rotate32(s, 10) ^ rotate32(s, 18) ^ rotate32(s, 24);

        t ^= w[0];
        w[0] = w[1];
        w[1] = w[2];
        w[2] = w[3];
        w[3] = t;
    }
}

static void sm4_k(void *d, const void *a, const void *b, unsigned imm)
{
    uint32_t w[4], constants[4];

    for (unsigned n = 0; n < 4; n++)
        constants[n] = sm4_constant(4 * (imm & 7) + n);
    get4(w, a);
    sm4_rounds(w, constants, true);
    put4(d, w);
}

static void sm4_r(void *d, const void *a, const void *b, unsigned imm)
{
    uint32_t w[4], keys[4];

    get4(w, d);
    get4(keys, a);
    sm4_rounds(w, keys, false);
    put4(d, w);
}

RV_VECTOR(vsm4k_vi, run_groups(h, i, 2, false, sm4_k))
RV_VECTOR(vsm4r_vv, run_groups(h, i, 2, false, sm4_r))
RV_VECTOR(vsm4r_vs, run_groups(h, i, 2, true, sm4_r))

/* --- SM3: groups of eight 32-bit words, big-endian --- */

static void get8(uint32_t w[8], const void *p)
{
    for (unsigned n = 0; n < 8; n++)
        w[n] = load_be32((const uint8_t *)p + 4 * n);
}

static uint32_t sm3_p1(uint32_t v)
{
    return v ^ rotate32(v, 15) ^ rotate32(v, 23);
}

/** Message expansion: vs1 = W0..7, vs2 = W8..15, vd = W16..23. */
static void sm3_me(uint8_t *d, const uint8_t *a, const uint8_t *b)
{
    uint32_t w[24];

    get8(w, b);
    get8(w + 8, a);
    for (unsigned n = 16; n < 24; n++)
        w[n] = sm3_p1(w[n - 16] ^ w[n - 9] ^ rotate32(w[n - 3], 15)) ^ rotate32(w[n - 13], 7) ^
               w[n - 6];
    for (unsigned n = 0; n < 8; n++)
        store_be32(d + 4 * n, w[16 + n]);
}

/** Two rounds of compression: vd = H G F E D C B A, vs2 = w7..w0, of which 0, 1, 4, 5 count. */
static void sm3_c(uint8_t *d, const uint8_t *a, unsigned rounds)
{
    uint32_t s[8], m[8];

    get8(s, d);
    get8(m, a);
    for (unsigned n = 0; n < 2; n++) {
        unsigned j = 2 * rounds + n;
        uint32_t t = j < 16 ? 0x79cc4519 : 0x7a879d8a;
        uint32_t turned = j % 32 ? rotate32(t, j % 32) : t;
        uint32_t ss1 = rotate32(rotate32(s[0], 12) + s[4] + turned, 7);
        uint32_t ss2 = ss1 ^ rotate32(s[0], 12);
        uint32_t ff = j < 16 ? s[0] ^ s[1] ^ s[2] : (s[0] & s[1]) | (s[0] & s[2]) | (s[1] & s[2]);
        uint32_t gg = j < 16 ? s[4] ^ s[5] ^ s[6] : (s[4] & s[5]) | (~s[4] & s[6]);
        uint32_t tt1 = ff + s[3] + ss2 + (m[n] ^ m[n + 4]);
        uint32_t tt2 = gg + s[7] + ss1 + m[n];

        s[3] = s[2];
        s[2] = rotate32(s[1], 9);
        s[1] = s[0];
        s[0] = tt1;
        s[7] = s[6];
        s[6] = rotate32(s[5], 19);
        s[5] = s[4];
        s[4] = tt2 ^ rotate32(tt2, 9) ^ rotate32(tt2, 17);
    }
    for (unsigned n = 0; n < 8; n++)
        store_be32(d + 4 * n, s[n]);
}

static bool sm3(struct rv_hart *h, const struct insn *i, bool expand)
{
    const struct rv_vector *v = &h->vec;
    int lmul = v->lmul;

    if (!rv_v_legal_vtype(h) || v->sew != 2 || (v->vl | v->vstart) % 8 || v->vlmax < 8 ||
        !rv_v_aligned(i->rd, lmul) || !rv_v_aligned(i->rs2, lmul) ||
        rv_v_overlap(i->rd, lmul, i->rs2, lmul) || (expand && !rv_v_aligned(i->rs1, lmul)))
        return false;
    for (size_t n = v->vstart / 8; n < v->vl / 8; n++) {
        uint8_t *d = rv_v_reg(h, i->rd) + 32 * n;
        const uint8_t *a = rv_v_reg(h, i->rs2) + 32 * n;

        if (expand)
            sm3_me(d, a, rv_v_reg(h, i->rs1) + 32 * n);
        else
            sm3_c(d, a, (unsigned)i->imm);
    }
    rv_v_done(h);
    return true;
}

RV_VECTOR(vsm3me_vv, sm3(h, i, true))
RV_VECTOR(vsm3c_vi, sm3(h, i, false))

/* --- GHASH: multiplication in GF(2^128), the bits of each byte in reverse --- */

static uint8_t reverse8(uint8_t v)
{
    v = (uint8_t)((v & 0x55) << 1 | (v >> 1 & 0x55));
    v = (uint8_t)((v & 0x33) << 2 | (v >> 2 & 0x33));
    return (uint8_t)(v << 4 | v >> 4);
}

static unsigned __int128 get_reversed(const uint8_t *p)
{
    unsigned __int128 v = 0;

    for (unsigned n = 16; n-- > 0;)
        v = v << 8 | reverse8(p[n]);
    return v;
}

static void multiply_128(uint8_t *d, unsigned __int128 s, unsigned __int128 m)
{
    unsigned __int128 z = 0;

    for (unsigned bit = 0; bit < 128; bit++) {
        if (s >> bit & 1)
            z ^= m;
        m = m << 1 ^ (m >> 127 ? 0x87 : 0);
    }
    for (unsigned n = 0; n < 16; n++)
        d[n] = reverse8((uint8_t)(z >> 8 * n));
}

/** vd = (vd ^ vs1) * vs2, and vd = vd * vs2. */
static void ghsh(void *d, const void *a, const void *b, unsigned imm)
{
    multiply_128(d, get_reversed(d) ^ get_reversed(b), get_reversed(a));
}

static void gmul(void *d, const void *a, const void *b, unsigned imm)
{
    multiply_128(d, get_reversed(d), get_reversed(a));
}

RV_VECTOR(vghsh_vv,
          rv_v_aligned(i->rs1, h->vec.lmul) && run_groups(h, i, 2, false, h->vec.crypto->ghsh))
RV_VECTOR(vgmul_vv, run_groups(h, i, 2, false, h->vec.crypto->gmul))

#define NAMED(name) .name = name,
const struct rv_vc_table rv_vc_any = {RV_VC_ALL(NAMED)};
#undef NAMED
