/* NEON, which every 64-bit ARM processor has. */
#include "mv_kernels.h"

#ifdef MV_HAS_NEON

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

typedef float32x4_t vec;

enum { LANES = 4, BLOCK = 4 };
#define FREE_MASKS 0
#define TILE_ROWS 12
#define REGISTERS 24
#define NAME "neon"
#define TABLE mv_kernels_neon
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 24")
#else
#define UNROLL
#endif

#define v_zero() vdupq_n_f32(0.0f)
#define v_set(x) vdupq_n_f32(x)
#define v_load(p) vld1q_f32(p)
#define v_store(p, v) vst1q_f32(p, v)
#define v_add(a, b) vaddq_f32(a, b)
#define v_sub(a, b) vsubq_f32(a, b)
#define v_mul(a, b) vmulq_f32(a, b)
#define v_div(a, b) vdivq_f32(a, b)
#define v_fma(a, b, c) vfmaq_f32(c, a, b)
#define v_round(a) vrndnq_f32(a)
#define v_if_greater(a, b, x, y) vbslq_f32(vcgtq_f32(a, b), x, y)
#define v_sum(a) vaddvq_f32(a)
#define v_largest(a) vmaxvq_f32(a)
#define v_adam(m, v, epsilon) vdivq_f32(m, vaddq_f32(vsqrtq_f32(v), epsilon))

/* vmaxq and vminq give NaN where either is one. */
static inline vec
v_max(vec a, vec b)
{
    return v_if_greater(a, b, a, b);
}

static inline vec
v_min(vec a, vec b)
{
    return v_if_greater(b, a, a, b);
}

static inline vec
v_power_of_two(vec a)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(a), vdupq_n_s32(127)), 23));
}

static inline vec
v_split(vec a, vec *exponent)
{
    const int32x4_t bits = vreinterpretq_s32_f32(a);
    const int32x4_t fraction = vandq_s32(bits, vdupq_n_s32(0x007FFFFF));
    *exponent = vcvtq_f32_s32(vsubq_s32(vshrq_n_s32(bits, 23), vdupq_n_s32(127)));
    return vreinterpretq_f32_s32(vorrq_s32(fraction, vdupq_n_s32(0x3F800000)));
}

static inline vec
v_load_part(const float *p, size_t n, float fill)
{
    float lanes[4] = {fill, fill, fill, fill};
    memcpy(lanes, p, n * sizeof *p);
    return vld1q_f32(lanes);
}

static inline void
v_store_part(float *p, size_t n, vec v)
{
    float lanes[4];
    vst1q_f32(lanes, v);
    memcpy(p, lanes, n * sizeof *p);
}

static inline void
v_transpose(const float *in, size_t in_row, float *out, size_t out_row)
{
    const float32x4x2_t low = vtrnq_f32(vld1q_f32(in), vld1q_f32(in + in_row));
    const float32x4x2_t high = vtrnq_f32(vld1q_f32(in + 2 * in_row), vld1q_f32(in + 3 * in_row));
    vst1q_f32(out, vcombine_f32(vget_low_f32(low.val[0]), vget_low_f32(high.val[0])));
    vst1q_f32(out + out_row, vcombine_f32(vget_low_f32(low.val[1]), vget_low_f32(high.val[1])));
    vst1q_f32(out + 2 * out_row, vcombine_f32(vget_high_f32(low.val[0]), vget_high_f32(high.val[0])));
    vst1q_f32(out + 3 * out_row, vcombine_f32(vget_high_f32(low.val[1]), vget_high_f32(high.val[1])));
}

#include "mv_kernels_template.h"

#endif
