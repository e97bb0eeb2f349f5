#include "mv_gemm.h"

#include "mv_pool.h"

#include <string.h>

/* Sums are cut into parts of this length, which keeps the rounding error of a short sum and the operands in cache. */
enum { SUM_LENGTH = 128 };

/* Inputs that go back together, multiples of every tile's rows and columns: more where rows of inputs span pages. */
enum { INPUT_BLOCK = 192, SMALL_INPUT_BLOCK = 96, MANY_INPUTS = 20000 };

/* What Adam costs a weight, in multiply-adds. */
#define ADAM_OPERATIONS 16.0

static size_t
smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t
ceiling(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* Asks for the rows of a that the next part of the sums reads: they lie too far apart for the processor to foresee. */
static void
prefetch_rows(const mv_product *part)
{
#if defined(__GNUC__)
    enum { LINE = 16 }; /* floats */
    for (size_t row = 0; row < part->rows; row++) {
        for (size_t k = 0; k < SUM_LENGTH; k += LINE) {
            __builtin_prefetch(part->a + row * part->a_row + SUM_LENGTH + k);
        }
    }
#else
    (void)part;
#endif
}

/* All rows of a product with a sum of any length, in blocks of rows as equal as the tile allows. */
static void
multiply(const mv_kernels *kernels, const mv_product *whole)
{
    const size_t blocks = ceiling(whole->rows, kernels->tile_rows);
    const size_t each = ceiling(whole->rows, blocks);
    for (size_t k = 0; k < whole->length; k += SUM_LENGTH) {
        mv_product part = *whole;
        part.length = smaller(SUM_LENGTH, whole->length - k);
        part.b = whole->b + k * whole->b_row;
        part.accumulate = whole->accumulate || k > 0;
        for (size_t row = 0; row < whole->rows; row += each) {
            part.rows = smaller(each, whole->rows - row);
            part.a = whole->a + row * whole->a_row + k * whole->a_step;
            part.c = whole->c + row * whole->c_row;
            if (whole->a_step == 1 && k + 2 * SUM_LENGTH <= whole->length) {
                prefetch_rows(&part);
            }
            kernels->multiply(&part);
        }
    }
}

/* Forward --------------------------------------------------------------------------------------------------------- */

/* The result as a grid of `across` pieces in each of `down` blocks of rows. */
typedef struct forward_job {
    const mv_kernels *kernels;
    size_t rows, inputs, outputs, across, down;
    const float *x, *w;
    float *y;
} forward_job;

/* The rectangle of pieces [start, end), which lie in one block of rows or are whole blocks. */
static void
forward_pieces(void *context, size_t start, size_t end, size_t thread)
{
    const forward_job *job = context;
    (void)thread;
    while (start < end) {
        const size_t first_piece = start % job->across;
        const bool whole = !first_piece && end - start >= job->across;
        const size_t down = whole ? (end - start) / job->across : 1;
        const size_t across = whole ? job->across : smaller(end - start, job->across - first_piece);
        const size_t block = start / job->across;
        const size_t row = block * job->rows / job->down;
        const size_t column = first_piece * job->outputs / job->across;
        multiply(job->kernels, &(mv_product){
                                   .rows = (block + down) * job->rows / job->down - row,
                                   .columns = (first_piece + across) * job->outputs / job->across - column,
                                   .length = job->inputs,
                                   .a = job->x + row * job->inputs,
                                   .a_row = job->inputs,
                                   .a_step = 1,
                                   .b = job->w + column,
                                   .b_row = job->outputs,
                                   .c = job->y + row * job->outputs + column,
                                   .c_row = job->outputs,
                               });
        start += down * across;
    }
}

void
mv_gemm_forward(const mv_kernels *kernels, size_t threads, size_t rows, size_t inputs, size_t outputs, const float *x,
                const float *w, float *y)
{
    const size_t used = mv_pool_pays(threads, (double)rows * (double)inputs * (double)outputs);
    const size_t down = ceiling(rows, kernels->tile_rows);
    /* Few blocks of rows are cut across too, into pieces of at least 32 columns. */
    const size_t across = down >= 4 * used ? 1 : smaller(ceiling(4 * used, down), ceiling(outputs, 32));
    forward_job job = {kernels, rows, inputs, outputs, used > 1 ? across : 1, down, x, w, y};
    mv_pool_run(used, job.across * job.down, forward_pieces, &job);
}

/* Backward -------------------------------------------------------------------------------------------------------- */

size_t
mv_gemm_scratch(size_t threads, size_t rows, size_t outputs)
{
    return threads * INPUT_BLOCK * (rows + 2 * outputs);
}

/* dx of inputs [start, start + count) */
static void
input_gradient(const mv_gemm_backward *job, size_t start, size_t count, float *transposed)
{
    job->kernels->transpose(count, job->outputs, job->w + start * job->outputs, job->outputs, transposed, INPUT_BLOCK);
    multiply(job->kernels, &(mv_product){
                               .rows = job->rows,
                               .columns = count,
                               .length = job->outputs,
                               .a = job->dy,
                               .a_row = job->outputs,
                               .a_step = 1,
                               .b = transposed,
                               .b_row = INPUT_BLOCK,
                               .c = job->dx + start,
                               .c_row = job->inputs,
                           });
    for (size_t row = 0; job->dx_scale && row < job->rows; row++) {
        float *dx = job->dx + row * job->inputs + start;
        job->kernels->scale(count, dx, job->dx_scale + start, dx);
    }
}

/* Adam on the weights of inputs [start, start + count) */
static void
update_weights(const mv_gemm_backward *job, size_t start, size_t count, float *gradient, float *packed)
{
    /* The columns of x lie far apart: without a copy each would be a page of its own. */
    for (size_t row = 0; row < job->rows; row++) {
        memcpy(packed + row * INPUT_BLOCK, job->x + row * job->inputs + start, count * sizeof *packed);
    }
    multiply(job->kernels, &(mv_product){
                               .rows = count,
                               .columns = job->outputs,
                               .length = job->rows,
                               .a = packed,
                               .a_row = 1,
                               .a_step = INPUT_BLOCK,
                               .b = job->dy,
                               .b_row = job->outputs,
                               .c = gradient,
                               .c_row = job->outputs,
                           });
    const size_t at = start * job->outputs;
    job->kernels->adam(job->adam, count * job->outputs, gradient, job->w + at, job->first_moment + at,
                       job->second_moment + at);
}

static void
backward_inputs(void *context, size_t start, size_t end, size_t thread)
{
    const mv_gemm_backward *job = context;
    float *transposed = job->scratch + thread * mv_gemm_scratch(1, job->rows, job->outputs);
    float *gradient = transposed + INPUT_BLOCK * job->outputs;
    float *packed = gradient + INPUT_BLOCK * job->outputs;
    const size_t block = job->inputs < MANY_INPUTS ? SMALL_INPUT_BLOCK : INPUT_BLOCK;
    for (size_t input = start; input < end; input += block) {
        const size_t count = smaller(block, end - input);
        if (job->dx) {
            input_gradient(job, input, count, transposed);
        }
        if (job->adam) {
            update_weights(job, input, count, gradient, packed);
        }
    }
}

void
mv_gemm_run_backward(mv_gemm_backward *job, size_t threads)
{
    const double by_input = job->dx ? (double)job->rows : 0.0;
    const double by_weight = job->adam ? (double)job->rows + ADAM_OPERATIONS : 0.0;
    const double operations = (by_input + by_weight) * (double)job->inputs * (double)job->outputs;
    mv_pool_run(mv_pool_pays(threads, operations), job->inputs, backward_inputs, job);
}
