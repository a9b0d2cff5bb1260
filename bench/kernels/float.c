/* Floating point. Built without contraction, so that results agree bit by bit between machines;
 * fused operations have a kernel. */
#include "kernels.h"

#include <math.h>

static uint64_t bits(double v)
{
    uint64_t u;

    memcpy(&u, &v, 8);
    return u;
}

enum { N = 100 };
static double a[N][N], b[N][N], c[N][N];

static void prepare(void)
{
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            a[i][j] = i * j % 7 + 0.25;
            b[i][j] = (i + j) % 5 - 1.5;
            c[i][j] = 0;
        }
    }
}
static uint64_t sum_of_c(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++)
            sum = sum * 31 + bits(c[i][j]);
    }
    return sum;
}

static NOINLINE uint64_t matmul(unsigned scale)
{
    for (unsigned r = 0; r < scale; r++) {
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < N; j++) {
                double t = c[i][j] * 0.5;

                for (int k = 0; k < N; k++)
                    t += a[i][k] * b[k][j];
                c[i][j] = t;
            }
        }
    }
    return sum_of_c();
}

/* Only as fast as the machine's fused multiply-add: natively that is one instruction. */
static NOINLINE
#ifdef __x86_64__
    __attribute__((target("fma")))
#endif
    uint64_t
    fused(unsigned scale)
{
    for (unsigned r = 0; r < scale; r++) {
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < N; j++) {
                double t = c[i][j] * 0.5;

                for (int k = 0; k < N; k++)
                    t = __builtin_fma(a[i][k], b[k][j], t);
                c[i][j] = t;
            }
        }
    }
    return sum_of_c();
}

struct body {
    double x, y, z, vx, vy, vz, m;
};

static void attract(struct body *p, struct body *q)
{
    double dx = p->x - q->x, dy = p->y - q->y, dz = p->z - q->z;
    double d2 = dx * dx + dy * dy + dz * dz + 0.05, m = 0.001 / (d2 * sqrt(d2));

    p->vx -= dx * q->m * m;
    p->vy -= dy * q->m * m;
    p->vz -= dz * q->m * m;
    q->vx += dx * p->m * m;
    q->vy += dy * p->m * m;
    q->vz += dz * p->m * m;
}
static NOINLINE uint64_t nbody(unsigned scale)
{
    struct body s[5];
    uint64_t sum = 0;

    for (int i = 0; i < 5; i++)
        s[i] = (struct body){.x = i * 1.37 - 2,
                             .y = i * 0.71 + 0.3,
                             .z = 0.1 * i * i,
                             .vx = 0.01 * i,
                             .vy = 0.02,
                             .vz = -0.005 * i,
                             .m = 1.0 / (i + 1)};
    for (unsigned r = 0; r < 1000 * scale; r++) {
        for (int i = 0; i < 5; i++) {
            for (int j = i + 1; j < 5; j++)
                attract(&s[i], &s[j]);
        }
        for (int i = 0; i < 5; i++) {
            s[i].x += 0.001 * s[i].vx;
            s[i].y += 0.001 * s[i].vy;
            s[i].z += 0.001 * s[i].vz;
        }
    }
    for (int i = 0; i < 5; i++)
        sum = sum * 31 + bits(s[i].x) + bits(s[i].vz);
    return sum;
}

static NOINLINE uint64_t mandelbrot(unsigned scale)
{
    uint64_t sum = 0;

    for (unsigned r = 0; r < scale; r++) {
        for (int py = 0; py < 32; py++) {
            for (int px = 0; px < 64; px++) {
                float x0 = (float)px / 20.0f - 2.2f, y0 = (float)py / 16.0f - 1.0f, x = 0, y = 0;
                int n = 0;

                for (; n < 100 && x * x + y * y < 4.0f; n++) {
                    float t = x * x - y * y + x0;

                    y = 2 * x * y + y0;
                    x = t;
                }
                sum += (uint64_t)n;
            }
        }
    }
    return sum;
}

const struct kernel float_kernels[] = {
    {"matmul",     matmul,     prepare, 60,  "float"},
    {"fma",        fused,      prepare, 60,  "float"},
    {"nbody",      nbody,      NULL,    300, "float"},
    {"mandelbrot", mandelbrot, NULL,    100, "float"},
    {NULL,         NULL,       NULL,    0,   NULL   },
};
