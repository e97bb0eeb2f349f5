/* AVX-512: foundation, DQ, BW and VL, as in every server processor since Skylake and Zen 4. */
#include "mv_kernels.h"

#ifdef MV_HAS_X86

#include <stdint.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))),                   \
                             apply_to = function)
#define UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
#define UNROLL _Pragma("GCC unroll 24")
#else
#define UNROLL
#endif

#include <immintrin.h>

typedef __m512 vec;

enum { LANES = 16, BLOCK = 16 };
#define FREE_MASKS 1
#define TILE_ROWS 12
#define REGISTERS 24
#define NAME "avx512"
#define TABLE mv_kernels_avx512

#define v_zero() _mm512_setzero_ps()
#define v_set(x) _mm512_set1_ps(x)
#define v_load(p) _mm512_loadu_ps(p)
#define v_store(p, v) _mm512_storeu_ps(p, v)
#define v_add(a, b) _mm512_add_ps(a, b)
#define v_sub(a, b) _mm512_sub_ps(a, b)
#define v_mul(a, b) _mm512_mul_ps(a, b)
#define v_div(a, b) _mm512_div_ps(a, b)
#define v_max(a, b) _mm512_max_ps(a, b)
#define v_min(a, b) _mm512_min_ps(a, b)
#define v_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define v_round(a) _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define v_power_of_two(a) _mm512_scalef_ps(_mm512_set1_ps(1.0f), a)
#define v_if_greater(a, b, x, y) _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x)
#define v_sum(a) _mm512_reduce_add_ps(a)
#define v_largest(a) _mm512_reduce_max_ps(a)

static inline vec
v_split(vec a, vec *exponent)
{
    *exponent = _mm512_getexp_ps(a);
    return _mm512_getmant_ps(a, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src);
}

static inline __mmask16
first_lanes(size_t n)
{
    return (__mmask16)((1U << n) - 1U);
}

static inline vec
v_load_part(const float *p, size_t n, float fill)
{
    return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first_lanes(n), p);
}

static inline void
v_store_part(float *p, size_t n, vec v)
{
    _mm512_mask_storeu_ps(p, first_lanes(n), v);
}

/* Estimates of 14 bits, refined once by Newton's rule: three times faster than the exact square root and quotient. */
static inline vec
v_adam(vec m, vec v, vec epsilon)
{
    const vec guess = _mm512_rsqrt14_ps(v);
    const vec root = _mm512_mul_ps(v, guess);
    const vec error = _mm512_fnmadd_ps(root, _mm512_mul_ps(guess, _mm512_set1_ps(0.5f)), _mm512_set1_ps(0.5f));
    const vec below = _mm512_add_ps(_mm512_fmadd_ps(root, error, root), epsilon);
    const vec inverse = _mm512_rcp14_ps(below);
    const vec quotient = _mm512_mul_ps(m, inverse);
    const vec rest = _mm512_fnmadd_ps(below, quotient, m);
    return _mm512_fmadd_ps(rest, inverse, quotient);
}

static inline void
v_transpose(const float *in, size_t in_row, float *out, size_t out_row)
{
    vec a[16];
    vec b[16];
    UNROLL
    for (int i = 0; i < 16; i++) {
        a[i] = _mm512_loadu_ps(in + (size_t)i * in_row);
    }
    UNROLL
    for (int i = 0; i < 16; i += 2) { /* pairs of rows */
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 16; i += 4) { /* fours: a[i + j] has column j of every group of four columns */
        a[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[i]), _mm512_castps_pd(b[i + 2])));
        a[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[i]), _mm512_castps_pd(b[i + 2])));
        a[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[i + 1]), _mm512_castps_pd(b[i + 3])));
        a[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[i + 1]), _mm512_castps_pd(b[i + 3])));
    }
    UNROLL
    for (int j = 0; j < 4; j++) { /* quarters of 128 bits: rows 0-7 and rows 8-15 */
        b[j] = _mm512_shuffle_f32x4(a[j], a[4 + j], 0x88);
        b[4 + j] = _mm512_shuffle_f32x4(a[j], a[4 + j], 0xDD);
        b[8 + j] = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0x88);
        b[12 + j] = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0xDD);
    }
    UNROLL
    for (int j = 0; j < 4; j++) {
        _mm512_storeu_ps(out + (size_t)j * out_row, _mm512_shuffle_f32x4(b[j], b[8 + j], 0x88));
        _mm512_storeu_ps(out + (size_t)(8 + j) * out_row, _mm512_shuffle_f32x4(b[j], b[8 + j], 0xDD));
        _mm512_storeu_ps(out + (size_t)(4 + j) * out_row, _mm512_shuffle_f32x4(b[4 + j], b[12 + j], 0x88));
        _mm512_storeu_ps(out + (size_t)(12 + j) * out_row, _mm512_shuffle_f32x4(b[4 + j], b[12 + j], 0xDD));
    }
}

#include "mv_kernels_template.h"

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#endif
