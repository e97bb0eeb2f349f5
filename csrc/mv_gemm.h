/* The three matrix products of a dense layer, behind one table of functions so that faster kernels can be chosen. */
#ifndef MV_GEMM_H
#define MV_GEMM_H

#include <stddef.h>

/* Sums over the inner dimension are split into blocks of this length, which keeps the rounding error of a short sum. */
enum { MV_GEMM_BLOCK = 384 };

/* All matrices are row-major and dense; the product overwrites its last argument, which may not overlap the others.
 * rows is the batch (models), inputs the long side (features), outputs the short one (hidden units). */
typedef struct mv_gemm_kernels {
    const char *name;
    /* y (rows, outputs) = x (rows, inputs) . w (inputs, outputs) */
    void (*forward)(size_t rows, size_t inputs, size_t outputs, const float *x, const float *w, float *y);
    /* dw (inputs, outputs) = x (rows, inputs)^T . dy (rows, outputs) */
    void (*weight_gradient)(size_t rows, size_t inputs, size_t outputs, const float *x, const float *dy, float *dw);
    /* dx (rows, inputs) = dy (rows, outputs) . w (inputs, outputs)^T */
    void (*input_gradient)(size_t rows, size_t inputs, size_t outputs, const float *dy, const float *w, float *dx);
} mv_gemm_kernels;

/* The best table for this processor. */
const mv_gemm_kernels *mv_gemm_select(void);

#endif
