/* The matrix products of a dense layer, cut into the tiles of the kernels and split among the threads.
 *
 * All matrices are row-major and dense. rows is the batch (models), inputs the long side (features), outputs the short
 * one (hidden units). No output may overlap an input. */
#ifndef MV_GEMM_H
#define MV_GEMM_H

#include "mv_kernels.h"

/* y (rows, outputs) = x (rows, inputs) . w (inputs, outputs) */
void mv_gemm_forward(const mv_kernels *kernels, size_t threads, size_t rows, size_t inputs, size_t outputs,
                     const float *x, const float *w, float *y);

/* The way back from dy (rows, outputs), for one block of inputs after the other while it is in the cache:
 *   dx (rows, inputs) = dy . w^T * dx_scale (inputs)         unless dx is NULL; without the factor where that is NULL
 *   w = Adam on w with the gradient x^T . dy                 unless adam is NULL
 */
typedef struct mv_gemm_backward {
    const mv_kernels *kernels;
    size_t rows, inputs, outputs;
    const float *dy;
    float *dx;
    const float *dx_scale;
    const mv_adam_step *adam;
    const float *x;                          /* used with adam */
    float *w, *first_moment, *second_moment; /* (inputs, outputs); w is only read without adam */
    float *scratch;                          /* mv_gemm_scratch(threads, rows, outputs) floats */
} mv_gemm_backward;

size_t mv_gemm_scratch(size_t threads, size_t rows, size_t outputs);
void mv_gemm_run_backward(mv_gemm_backward *job, size_t threads);

#endif
