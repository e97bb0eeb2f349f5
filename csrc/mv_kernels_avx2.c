/* AVX2 and FMA, as in every x86-64 processor since Haswell and Zen. */
#include "mv_kernels.h"

#ifdef MV_HAS_X86

#include <stdint.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#define UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define UNROLL _Pragma("GCC unroll 12")
#else
#define UNROLL
#endif

#include <immintrin.h>

typedef __m256 vec;

enum { LANES = 8, BLOCK = 8 };
#define FREE_MASKS 0
#define TILE_ROWS 6
#define REGISTERS 12
#define NAME "avx2"
#define TABLE mv_kernels_avx2

#define v_zero() _mm256_setzero_ps()
#define v_set(x) _mm256_set1_ps(x)
#define v_load(p) _mm256_loadu_ps(p)
#define v_store(p, v) _mm256_storeu_ps(p, v)
#define v_add(a, b) _mm256_add_ps(a, b)
#define v_sub(a, b) _mm256_sub_ps(a, b)
#define v_mul(a, b) _mm256_mul_ps(a, b)
#define v_div(a, b) _mm256_div_ps(a, b)
#define v_max(a, b) _mm256_max_ps(a, b)
#define v_min(a, b) _mm256_min_ps(a, b)
#define v_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define v_round(a) _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define v_if_greater(a, b, x, y) _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ))

static inline vec
v_power_of_two(vec a)
{
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}

static inline vec
v_split(vec a, vec *exponent)
{
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x007FFFFF));
    *exponent = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(127)));
    return _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3F800000)));
}

static inline __m256i
first_lanes(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vec
v_load_part(const float *p, size_t n, float fill)
{
    const __m256i lanes = first_lanes(n);
    return _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, lanes), _mm256_castsi256_ps(lanes));
}

static inline void
v_store_part(float *p, size_t n, vec v)
{
    _mm256_maskstore_ps(p, first_lanes(n), v);
}

static inline float
v_sum(vec a)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}

static inline float
v_largest(vec a)
{
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_shuffle_ps(half, half, 1)));
}

/* Estimates of 12 bits, refined once by Newton's rule. */
static inline vec
v_adam(vec m, vec v, vec epsilon)
{
    const vec guess = _mm256_rsqrt_ps(v);
    const vec root = _mm256_mul_ps(v, guess);
    const vec error = _mm256_fnmadd_ps(root, _mm256_mul_ps(guess, _mm256_set1_ps(0.5f)), _mm256_set1_ps(0.5f));
    const vec below = _mm256_add_ps(_mm256_fmadd_ps(root, error, root), epsilon);
    const vec inverse = _mm256_rcp_ps(below);
    const vec quotient = _mm256_mul_ps(m, inverse);
    const vec rest = _mm256_fnmadd_ps(below, quotient, m);
    return _mm256_fmadd_ps(rest, inverse, quotient);
}

static inline void
v_transpose(const float *in, size_t in_row, float *out, size_t out_row)
{
    vec a[8];
    vec b[8];
    UNROLL
    for (int i = 0; i < 8; i++) {
        a[i] = _mm256_loadu_ps(in + (size_t)i * in_row);
    }
    UNROLL
    for (int i = 0; i < 8; i += 2) { /* pairs of rows */
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 8; i += 4) { /* fours */
        a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
        a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xEE);
        a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
        a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xEE);
    }
    UNROLL
    for (int j = 0; j < 4; j++) {
        _mm256_storeu_ps(out + (size_t)j * out_row, _mm256_permute2f128_ps(a[j], a[4 + j], 0x20));
        _mm256_storeu_ps(out + (size_t)(4 + j) * out_row, _mm256_permute2f128_ps(a[j], a[4 + j], 0x31));
    }
}

#include "mv_kernels_template.h"

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#endif
