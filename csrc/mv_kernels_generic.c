/* Any processor: vectors of four floats where the compiler has them, else one float at a time. */
#include "mv_kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define FREE_MASKS 0
#define TILE_ROWS 4
#define REGISTERS 8
#define NAME "generic"
#define TABLE mv_kernels_generic

#if defined(__GNUC__) && !defined(MV_WITHOUT_VECTORS)

typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_int __attribute__((vector_size(16)));
enum { LANES = 4 };
#define lane(a, i) ((a)[i])
#define v_set(x) ((vec){(x), (x), (x), (x)})
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

static inline vec
v_if_greater(vec a, vec b, vec x, vec y)
{
    const vec_int mask = a > b;
    return (vec)(((vec_int)x & mask) | ((vec_int)y & ~mask));
}

#else

typedef float vec;
enum { LANES = 1 };
#define lane(a, i) (*((void)(i), &(a)))
#define v_set(x) (x)
#define v_if_greater(a, b, x, y) ((a) > (b) ? (x) : (y))
#define UNROLL

#endif

enum { BLOCK = 4 };

#define v_zero() v_set(0.0f)
#define v_add(a, b) ((a) + (b))
#define v_sub(a, b) ((a) - (b))
#define v_mul(a, b) ((a) * (b))
#define v_div(a, b) ((a) / (b))
#define v_fma(a, b, c) ((a) * (b) + (c))
#define v_max(a, b) v_if_greater(a, b, a, b)
#define v_min(a, b) v_if_greater(b, a, a, b)

static inline vec
v_load(const float *p)
{
    vec a;
    memcpy(&a, p, sizeof a);
    return a;
}

static inline void
v_store(float *p, vec a)
{
    memcpy(p, &a, sizeof a);
}

static inline vec
v_load_part(const float *p, size_t n, float fill)
{
    vec a = v_set(fill);
    memcpy(&a, p, n * sizeof *p);
    return a;
}

static inline void
v_store_part(float *p, size_t n, vec a)
{
    memcpy(p, &a, n * sizeof *p);
}

static inline vec
v_round(vec a)
{
    for (int i = 0; i < LANES; i++) {
        lane(a, i) = rintf(lane(a, i));
    }
    return a;
}

static inline vec
v_power_of_two(vec a)
{
    for (int i = 0; i < LANES; i++) {
        const uint32_t bits = (uint32_t)((int32_t)lane(a, i) + 127) << 23;
        float power;
        memcpy(&power, &bits, sizeof power);
        lane(a, i) = power;
    }
    return a;
}

static inline vec
v_split(vec a, vec *exponent)
{
    for (int i = 0; i < LANES; i++) {
        uint32_t bits;
        float x = lane(a, i);
        memcpy(&bits, &x, sizeof bits);
        lane(*exponent, i) = (float)((int32_t)(bits >> 23) - 127);
        bits = (bits & UINT32_C(0x007FFFFF)) | UINT32_C(0x3F800000);
        memcpy(&x, &bits, sizeof x);
        lane(a, i) = x;
    }
    return a;
}

static inline float
v_sum(vec a)
{
    float sum = 0.0f;
    for (int i = 0; i < LANES; i++) {
        sum += lane(a, i);
    }
    return sum;
}

static inline float
v_largest(vec a)
{
    float maximum = lane(a, 0);
    for (int i = 1; i < LANES; i++) {
        maximum = lane(a, i) > maximum ? lane(a, i) : maximum;
    }
    return maximum;
}

static inline vec
v_adam(vec m, vec v, vec epsilon)
{
    for (int i = 0; i < LANES; i++) {
        lane(v, i) = sqrtf(lane(v, i));
    }
    return m / (v + epsilon);
}

static inline void
v_transpose(const float *in, size_t in_row, float *out, size_t out_row)
{
    for (size_t i = 0; i < BLOCK; i++) {
        for (size_t j = 0; j < BLOCK; j++) {
            out[j * out_row + i] = in[i * in_row + j];
        }
    }
}

#include "mv_kernels_template.h"
