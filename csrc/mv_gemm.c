#include "mv_gemm.h"

#include <string.h>

/* Columns that one pass of the inner loop keeps in registers. */
enum { TILE = 32 };

static size_t
smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* y[0..TILE) += sum over i < length of x[i * x_stride] * w[i * w_stride + (0..TILE)] */
static void
accumulate_tile(size_t length, const float *x, size_t x_stride, const float *w, size_t w_stride, float *restrict y)
{
    float sum[TILE] = {0};
    for (size_t i = 0; i < length; i++) {
        const float factor = x[i * x_stride];
        const float *row = w + i * w_stride;
        for (size_t j = 0; j < TILE; j++) {
            sum[j] += factor * row[j];
        }
    }
    for (size_t j = 0; j < TILE; j++) {
        y[j] += sum[j];
    }
}

/* The same for a last tile of fewer columns. */
static void
accumulate_edge(size_t length, size_t columns, const float *x, size_t x_stride, const float *w, size_t w_stride,
                float *restrict y)
{
    float sum[TILE] = {0};
    for (size_t i = 0; i < length; i++) {
        const float factor = x[i * x_stride];
        const float *row = w + i * w_stride;
        for (size_t j = 0; j < columns; j++) {
            sum[j] += factor * row[j];
        }
    }
    for (size_t j = 0; j < columns; j++) {
        y[j] += sum[j];
    }
}

static void
accumulate_row(size_t length, size_t columns, const float *x, size_t x_stride, const float *w, float *y)
{
    size_t j = 0;
    for (; j + TILE <= columns; j += TILE) {
        accumulate_tile(length, x, x_stride, w + j, columns, y + j);
    }
    if (j < columns) {
        accumulate_edge(length, columns - j, x, x_stride, w + j, columns, y + j);
    }
}

static void
generic_forward(size_t rows, size_t inputs, size_t outputs, const float *x, const float *w, float *y)
{
    memset(y, 0, rows * outputs * sizeof *y);
    for (size_t start = 0; start < inputs; start += MV_GEMM_BLOCK) {
        const size_t length = smaller(MV_GEMM_BLOCK, inputs - start);
        for (size_t row = 0; row < rows; row++) {
            accumulate_row(length, outputs, x + row * inputs + start, 1, w + start * outputs, y + row * outputs);
        }
    }
}

static void
generic_weight_gradient(size_t rows, size_t inputs, size_t outputs, const float *x, const float *dy, float *dw)
{
    memset(dw, 0, inputs * outputs * sizeof *dw);
    for (size_t start = 0; start < rows; start += MV_GEMM_BLOCK) {
        const size_t length = smaller(MV_GEMM_BLOCK, rows - start);
        for (size_t input = 0; input < inputs; input++) {
            accumulate_row(length, outputs, x + start * inputs + input, inputs, dy + start * outputs,
                           dw + input * outputs);
        }
    }
}

/* packed[o * TILE + r] = dy[r][start + o], zero beyond the last row: rows become the lanes of a tile. */
static void
pack_rows(size_t rows, size_t length, const float *dy, size_t stride, float *packed)
{
    memset(packed, 0, length * TILE * sizeof *packed);
    for (size_t row = 0; row < rows; row++) {
        for (size_t o = 0; o < length; o++) {
            packed[o * TILE + row] = dy[row * stride + o];
        }
    }
}

/* Lanes are rows, not products of one sum: the compiler may not reorder a float sum by itself. */
static void
generic_input_gradient(size_t rows, size_t inputs, size_t outputs, const float *dy, const float *w, float *dx)
{
    float packed[MV_GEMM_BLOCK * TILE];
    memset(dx, 0, rows * inputs * sizeof *dx);
    for (size_t first = 0; first < rows; first += TILE) {
        const size_t used = smaller(TILE, rows - first);
        for (size_t start = 0; start < outputs; start += MV_GEMM_BLOCK) {
            const size_t length = smaller(MV_GEMM_BLOCK, outputs - start);
            pack_rows(used, length, dy + first * outputs + start, outputs, packed);
            for (size_t input = 0; input < inputs; input++) {
                float sum[TILE] = {0};
                accumulate_tile(length, w + input * outputs + start, 1, packed, TILE, sum);
                for (size_t row = 0; row < used; row++) {
                    dx[(first + row) * inputs + input] += sum[row];
                }
            }
        }
    }
}

static const mv_gemm_kernels generic_kernels = {
    .name = "generic",
    .forward = generic_forward,
    .weight_gradient = generic_weight_gradient,
    .input_gradient = generic_input_gradient,
};

const mv_gemm_kernels *
mv_gemm_select(void)
{
    return &generic_kernels;
}
