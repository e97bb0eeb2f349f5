/* The inner loops, one table of functions for each instruction set. All of them are written once, in
 * mv_kernels_template.h, over a handful of vector operations that mv_kernels_<isa>.c defines. */
#ifndef MV_KERNELS_H
#define MV_KERNELS_H

#include "mv_adam.h"
#include "mv_random.h"

#include <stdbool.h>
#include <stddef.h>

/* A product c (rows, columns) = a (rows, length) . b (length, columns), or c += it. Element (i, k) of a lies at
 * a[i * a_row + k * a_step], row k of b at b + k * b_row, row i of c at c + i * c_row. Every element of c is one chain
 * of sums in the order of k, so that its value does not depend on how a product is cut into tiles. */
typedef struct mv_product {
    size_t rows, columns, length;
    const float *a;
    size_t a_row, a_step;
    const float *b;
    size_t b_row;
    float *c;
    size_t c_row;
    bool accumulate;
} mv_product;

/* One query on its way through its update; every pointer is to `features` numbers. */
typedef struct mv_query {
    size_t features;
    const float *natural, *lower, *upper, *gradient;
    float *master, *first_moment, *second_moment;
    float radius; /* in units of upper - lower; INFINITY for none */
} mv_query;

typedef struct mv_kernels {
    const char *name;
    size_t tile_rows; /* rows of a that multiply() takes at once */

    /* rows <= tile_rows, columns >= 1, length >= 1; c may not overlap a or b. */
    void (*multiply)(const mv_product *product);
    /* out[j * out_row + i] = in[i * in_row + j] for i < rows, j < columns */
    void (*transpose)(size_t rows, size_t columns, const float *in, size_t in_row, float *out, size_t out_row);
    /* y = max(y + bias, 0), NaN stays NaN; returns weight . y */
    double (*rectify)(size_t count, const float *bias, const float *weight, float *y);

    /* The way back through that for one row: dh = h > 0 ? g * weight : 0, and adds dh to bias_gradient and g * h to
     * weight_gradient */
    void (*rectify_gradient)(size_t count, float g, const float *weight, const float *h, float *dh,
                             float *bias_gradient, float *weight_gradient);

    bool (*all_finite)(size_t count, const float *values);
    /* z = (f - shift) * inverse; f and z may be the same. Returns whether every f is finite. */
    bool (*standardize)(size_t count, const float *f, const float *shift, const float *inverse, float *z);
    /* out = z * inverse; the same may be both */
    void (*scale)(size_t count, const float *z, const float *inverse, float *out);
    /* f = max(log softmax(r), log_floor) of every row of (rows, outputs) */
    void (*log_softmax)(size_t rows, size_t outputs, float log_floor, const float *r, float *f);
    /* response_gradient of log max(p, probability_floor), p = softmax(r): own - p * sum(own) with
     * own = p > probability_floor ? g : 0 */
    void (*log_softmax_gradient)(size_t rows, size_t outputs, float probability_floor, const float *r, const float *g,
                                 float *response_gradient);

    /* c = share * (r - its row's mean) of (rows, outputs); the same may be both */
    void (*centre)(size_t rows, size_t outputs, double share, const float *r, float *c);
    /* values *= factor */
    void (*scale_by)(size_t count, double factor, float *values);
    /* sum a * b */
    double (*dot)(size_t count, const float *a, const float *b);
    /* c = own * (g - its row's mean) - others * c of (rows, outputs) */
    void (*project)(size_t rows, size_t outputs, double own, double others, const float *g, float *c);

    /* AdamW in place */
    void (*adam)(const mv_adam_step *step, size_t count, const float *gradient, float *parameters, float *first_moment,
                 float *second_moment);
    /* Adam on one query, clamped to bounds and radius (metav.h, mv_query_config) */
    void (*update_query)(const mv_adam_step *step, const mv_query *query);
    /* values[i] += deviation * e, e number start + i of the stream: the sum of four uniform numbers, scaled to mean 0
     * and variance 1; bell-shaped, within 3.5 deviations, without the logarithm and cosine of a normal one */
    void (*add_noise)(mv_stream stream, float deviation, size_t start, size_t count, float *values);
} mv_kernels;

extern const mv_kernels mv_kernels_generic;
#if defined(__x86_64__) || defined(_M_X64)
#define MV_HAS_X86 1
extern const mv_kernels mv_kernels_avx2, mv_kernels_avx512;
#endif
#if defined(__aarch64__) || defined(_M_ARM64)
#define MV_HAS_NEON 1
extern const mv_kernels mv_kernels_neon;
#endif

#endif
