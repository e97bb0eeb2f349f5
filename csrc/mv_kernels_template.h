/* Every kernel, once. The including file has defined the instruction set:
 *
 *   vec, LANES                      a vector of LANES floats
 *   TILE_ROWS                       rows of one tile of a product; TILE_ROWS * 2 sums and 3 more must fit the registers
 *   REGISTERS                       sums that a tile may keep
 *   v_zero() v_set(x)               all lanes 0, all lanes x
 *   v_load(p) v_store(p, v)         any alignment
 *   v_load_part(p, n, fill)         the first n <= LANES lanes, the others `fill`
 *   v_store_part(p, n, v)
 *   FREE_MASKS                      1 where these two cost no more than v_load and v_store
 *   v_add v_sub v_mul v_div v_max v_min (a, b);  v_max and v_min give b where a is NaN
 *   v_fma(a, b, c)                  a * b + c
 *   v_round(a)                      to the nearest integer
 *   v_power_of_two(a)               2^a of integers in [-126, 127]
 *   v_split(a, &exponent)           a = mantissa * 2^exponent with the mantissa, returned, in [1, 2); a is normal
 *   v_if_greater(a, b, x, y)        a > b ? x : y, lane by lane
 *   v_adam(m, v, epsilon)           m / (sqrt(v) + epsilon) for v in [1e-36, 1e38], within 3e-7 of it
 *   v_sum(a) v_largest(a)           over the lanes
 *   v_transpose(in, in_row, out, out_row)   a block of BLOCK x BLOCK floats
 *   UNROLL                          unrolls the next loop fully
 *   NAME                            the table's name
 */
#include "mv_finite.h"
#include "mv_kernels.h"

#include <math.h>
#include <string.h>

/* Inlined even where the compiler would not, so that the number of rows is a constant. */
#if defined(_MSC_VER)
#define INLINED static __forceinline
#else
#define INLINED static inline __attribute__((always_inline))
#endif

/* Parts ----------------------------------------------------------------------------------------------------------- */

/* n <= LANES lanes from p. */
INLINED vec
load_upto(const float *p, size_t n, float fill)
{
    return !FREE_MASKS && n >= LANES ? v_load(p) : v_load_part(p, n, fill);
}

INLINED void
store_upto(float *p, size_t n, vec v)
{
    if (!FREE_MASKS && n >= LANES) {
        v_store(p, v);
    }
    else {
        v_store_part(p, n, v);
    }
}

INLINED size_t
upto(size_t n, size_t limit)
{
    return n < limit ? n : limit;
}

/* Products -------------------------------------------------------------------------------------------------------- */

/* One tile of `rows` x (vectors * LANES), the last vector with `last` lanes; both numbers are constants here. */
INLINED void
multiply_tile(const int rows, const int vectors, size_t last, const mv_product *at, size_t column)
{
    vec sum[REGISTERS];
    const float *a = at->a;
    const float *b = at->b + column;
    float *c = at->c + column;
    UNROLL
    for (int i = 0; i < rows * vectors; i++) {
        sum[i] = v_zero();
    }
    for (size_t k = 0; k < at->length; k++) {
        vec row[8];
        UNROLL
        for (int v = 0; v < vectors - 1; v++) {
            row[v] = v_load(b + v * LANES);
        }
        row[vectors - 1] = load_upto(b + (vectors - 1) * LANES, last, 0.0f);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const vec factor = v_set(a[(size_t)r * at->a_row]);
            UNROLL
            for (int v = 0; v < vectors; v++) {
                sum[r * vectors + v] = v_fma(factor, row[v], sum[r * vectors + v]);
            }
        }
        a += at->a_step;
        b += at->b_row;
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        float *out = c + (size_t)r * at->c_row;
        UNROLL
        for (int v = 0; v < vectors; v++) {
            const size_t lanes = v < vectors - 1 ? LANES : last;
            vec value = sum[r * vectors + v];
            if (at->accumulate) {
                value = v_add(load_upto(out + v * LANES, lanes, 0.0f), value);
            }
            store_upto(out + v * LANES, lanes, value);
        }
    }
}

/* All columns of `rows` rows, `vectors` vectors at a time and then what is left in one tile. */
INLINED void
multiply_rows(const int rows, const int vectors, const mv_product *product)
{
    const size_t width = (size_t)vectors * LANES;
    size_t column = 0;
    for (; column + width <= product->columns; column += width) {
        multiply_tile(rows, vectors, LANES, product, column);
    }
    const size_t rest = product->columns - column;
    const size_t whole = rest ? (rest - 1) / LANES : 0;
    const size_t last = rest - whole * LANES;
#define LEFT(count)                                                                                                    \
    if (vectors >= (count) && rest && whole == (count) - 1) {                                                          \
        multiply_tile(rows, count, last, product, column);                                                             \
    }
    LEFT(1)
    LEFT(2)
    LEFT(3)
    LEFT(4)
    LEFT(5)
    LEFT(6)
    LEFT(7)
    LEFT(8)
#undef LEFT
}

/* Few rows take many columns at once: a chain of sums alone would wait for itself. */
static void
multiply(const mv_product *product)
{
    switch (product->rows) {
#define ROWS(rows)                                                                                                     \
    case rows:                                                                                                         \
        multiply_rows(rows, REGISTERS / rows >= 8 ? 8 : REGISTERS / rows >= 4 ? 4 : 2, product);                       \
        break;
        ROWS(1)
        ROWS(2)
        ROWS(3)
        ROWS(4)
#if TILE_ROWS > 4
        ROWS(5)
        ROWS(6)
#endif
#if TILE_ROWS > 6
        ROWS(7)
        ROWS(8)
        ROWS(9)
        ROWS(10)
        ROWS(11)
        ROWS(12)
#endif
#undef ROWS
    }
}

static void
transpose(size_t rows, size_t columns, const float *in, size_t in_row, float *out, size_t out_row)
{
    const size_t whole_rows = rows - rows % BLOCK;
    const size_t whole_columns = columns - columns % BLOCK;
    for (size_t i = 0; i < whole_rows; i += BLOCK) {
        for (size_t j = 0; j < whole_columns; j += BLOCK) {
            v_transpose(in + i * in_row + j, in_row, out + j * out_row + i, out_row);
        }
    }
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = i < whole_rows ? whole_columns : 0; j < columns; j++) {
            out[j * out_row + i] = in[i * in_row + j];
        }
    }
}

static double
rectify(size_t count, const float *bias, const float *weight, float *y)
{
    vec total = v_zero();
    for (size_t j = 0; j < count; j += LANES) {
        const size_t n = upto(count - j, LANES);
        const vec sum = v_add(load_upto(y + j, n, 0.0f), load_upto(bias + j, n, 0.0f));
        const vec h = v_max(v_zero(), sum); /* the second argument where one is NaN: an overflow must be seen */
        store_upto(y + j, n, h);
        total = v_fma(load_upto(weight + j, n, 0.0f), h, total);
    }
    return v_sum(total);
}

static void
rectify_gradient(size_t count, float g, const float *weight, const float *h, float *dh, float *bias_gradient,
                 float *weight_gradient)
{
    for (size_t j = 0; j < count; j += LANES) {
        const size_t n = upto(count - j, LANES);
        const vec unit = load_upto(h + j, n, 0.0f);
        const vec through = v_mul(v_set(g), load_upto(weight + j, n, 0.0f));
        const vec change = v_if_greater(unit, v_zero(), through, v_zero());
        store_upto(dh + j, n, change);
        store_upto(bias_gradient + j, n, v_add(load_upto(bias_gradient + j, n, 0.0f), change));
        store_upto(weight_gradient + j, n, v_fma(v_set(g), unit, load_upto(weight_gradient + j, n, 0.0f)));
    }
}

/* Features -------------------------------------------------------------------------------------------------------- */

static bool
all_finite(size_t count, const float *values)
{
    return mv_all_finite(values, count); /* compiled here, for this instruction set */
}

static bool
standardize(size_t count, const float *f, const float *shift, const float *inverse, float *z)
{
    vec doubt = v_zero(); /* f - f is 0 of finite numbers and NaN of the others */
    for (size_t i = 0; i < count; i += LANES) {
        const size_t n = upto(count - i, LANES);
        const vec value = load_upto(f + i, n, 0.0f);
        const vec centred = v_sub(value, load_upto(shift + i, n, 0.0f));
        doubt = v_add(doubt, v_sub(value, value));
        store_upto(z + i, n, v_mul(centred, load_upto(inverse + i, n, 0.0f)));
    }
    return v_sum(doubt) == 0.0f;
}

static void
scale(size_t count, const float *z, const float *inverse, float *out)
{
    for (size_t i = 0; i < count; i += LANES) {
        const size_t n = upto(count - i, LANES);
        store_upto(out + i, n, v_mul(load_upto(z + i, n, 0.0f), load_upto(inverse + i, n, 0.0f)));
    }
}

/* exp(x) for x <= 0, within 1 ulp above -87; below that almost 0 (Cephes' polynomial). */
INLINED vec
v_exp(vec x)
{
    x = v_max(x, v_set(-87.0f));
    const vec n = v_round(v_mul(x, v_set(1.44269504f)));
    vec r = v_fma(n, v_set(-0.693359375f), x);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    vec p = v_set(1.9875691500e-4f);
    p = v_fma(p, r, v_set(1.3981999507e-3f));
    p = v_fma(p, r, v_set(8.3334519073e-3f));
    p = v_fma(p, r, v_set(4.1665795894e-2f));
    p = v_fma(p, r, v_set(1.6666665459e-1f));
    p = v_fma(p, r, v_set(5.0000001201e-1f));
    p = v_fma(p, v_mul(r, r), v_add(r, v_set(1.0f)));
    return v_mul(p, v_power_of_two(n));
}

/* log(x) of normal x > 0, within 1 ulp (Cephes' polynomial). */
INLINED vec
v_log(vec x)
{
    vec exponent;
    vec m = v_split(x, &exponent);
    const vec root = v_set(1.41421356f);
    exponent = v_if_greater(m, root, v_add(exponent, v_set(1.0f)), exponent);
    m = v_sub(v_if_greater(m, root, v_mul(m, v_set(0.5f)), m), v_set(1.0f));
    vec p = v_set(7.0376836292e-2f);
    p = v_fma(p, m, v_set(-1.1514610310e-1f));
    p = v_fma(p, m, v_set(1.1676998740e-1f));
    p = v_fma(p, m, v_set(-1.2420140846e-1f));
    p = v_fma(p, m, v_set(1.4249322787e-1f));
    p = v_fma(p, m, v_set(-1.6668057665e-1f));
    p = v_fma(p, m, v_set(2.0000714765e-1f));
    p = v_fma(p, m, v_set(-2.4999993993e-1f));
    p = v_fma(p, m, v_set(3.3333331174e-1f));
    const vec square = v_mul(m, m);
    p = v_mul(v_mul(p, m), square);
    p = v_fma(exponent, v_set(-2.12194440e-4f), p);
    p = v_fma(square, v_set(-0.5f), p);
    return v_fma(exponent, v_set(0.693359375f), v_add(m, p));
}

/* Short rows are worked on LANES at a time, one per lane, in a tile of (outputs, LANES): no sum across lanes. */
enum { TILE_OUTPUTS = 64 };

INLINED bool
fits_tile(size_t outputs)
{
    return (int)LANES == (int)BLOCK && outputs <= TILE_OUTPUTS;
}

/* tile of `rows` rows at r; the lanes of rows that are not there hold zeros. */
INLINED void
load_tile(size_t rows, size_t outputs, const float *r, float *tile)
{
    float block[LANES * LANES];
    for (size_t j = 0; j < outputs; j += LANES) {
        const size_t n = upto(outputs - j, LANES);
        for (size_t i = 0; i < LANES; i++) {
            v_store(block + i * LANES, i < rows ? load_upto(r + i * outputs + j, n, 0.0f) : v_zero());
        }
        v_transpose(block, LANES, tile + j * LANES, LANES);
    }
}

INLINED void
store_tile(size_t rows, size_t outputs, const float *tile, float *f)
{
    float block[LANES * LANES];
    for (size_t j = 0; j < outputs; j += LANES) {
        const size_t n = upto(outputs - j, LANES);
        v_transpose(tile + j * LANES, LANES, block, LANES);
        for (size_t i = 0; i < rows; i++) {
            store_upto(f + i * outputs + j, n, v_load(block + i * LANES));
        }
    }
}

/* Replaces a tile by exp(tile - maximum), maximum the largest of a row. */
INLINED void
exponentiate_tile(size_t outputs, float *tile, vec *maximum, vec *sum)
{
    *maximum = v_set(-INFINITY);
    for (size_t j = 0; j < outputs; j++) {
        *maximum = v_max(*maximum, v_load(tile + j * LANES));
    }
    *sum = v_zero();
    for (size_t j = 0; j < outputs; j++) {
        const vec e = v_exp(v_sub(v_load(tile + j * LANES), *maximum));
        v_store(tile + j * LANES, e);
        *sum = v_add(*sum, e);
    }
}

INLINED void
log_softmax_tile(size_t rows, size_t outputs, float log_floor, const float *r, float *f)
{
    float tile[TILE_OUTPUTS * LANES];
    float e[TILE_OUTPUTS * LANES];
    vec maximum;
    vec sum;
    load_tile(rows, outputs, r, tile);
    memcpy(e, tile, outputs * LANES * sizeof *e);
    exponentiate_tile(outputs, e, &maximum, &sum);
    const vec log_sum = v_log(sum);
    for (size_t j = 0; j < outputs; j++) {
        const vec value = v_sub(v_sub(v_load(tile + j * LANES), maximum), log_sum);
        v_store(tile + j * LANES, v_max(value, v_set(log_floor)));
    }
    store_tile(rows, outputs, tile, f);
}

INLINED void
log_softmax_gradient_tile(size_t rows, size_t outputs, float probability_floor, const float *r, const float *g,
                          float *response_gradient)
{
    float e[TILE_OUTPUTS * LANES];
    float own[TILE_OUTPUTS * LANES];
    vec maximum;
    vec sum;
    load_tile(rows, outputs, r, e);
    load_tile(rows, outputs, g, own);
    exponentiate_tile(outputs, e, &maximum, &sum);
    const vec floor = v_mul(v_set(probability_floor), sum);
    vec total = v_zero();
    for (size_t j = 0; j < outputs; j++) {
        const vec kept = v_if_greater(v_load(e + j * LANES), floor, v_load(own + j * LANES), v_zero());
        v_store(own + j * LANES, kept);
        total = v_add(total, kept);
    }
    const vec share = v_div(total, sum);
    for (size_t j = 0; j < outputs; j++) {
        v_store(own + j * LANES, v_sub(v_load(own + j * LANES), v_mul(v_load(e + j * LANES), share)));
    }
    store_tile(rows, outputs, own, response_gradient);
}

/* Long rows: writes exp(r - maximum) to e, which may be NULL; maximum is the largest r. */
INLINED void
exponentiate_row(size_t outputs, const float *r, float *e, float *maximum, float *sum)
{
    vec largest = v_set(-INFINITY);
    for (size_t j = 0; j < outputs; j += LANES) {
        largest = v_max(largest, load_upto(r + j, upto(outputs - j, LANES), -INFINITY));
    }
    *maximum = v_largest(largest);
    vec total = v_zero();
    for (size_t j = 0; j < outputs; j += LANES) {
        const size_t n = upto(outputs - j, LANES);
        /* Lanes beyond the row count for 1e-38 each in a sum of at least 1. */
        const vec value = v_exp(v_sub(load_upto(r + j, n, -INFINITY), v_set(*maximum)));
        total = v_add(total, value);
        if (e) {
            store_upto(e + j, n, value);
        }
    }
    *sum = v_sum(total);
}

static void
log_softmax_row(size_t outputs, float log_floor, const float *r, float *f)
{
    float maximum;
    float sum;
    exponentiate_row(outputs, r, NULL, &maximum, &sum);
    const vec log_sum = v_set(logf(sum));
    for (size_t j = 0; j < outputs; j += LANES) {
        const size_t n = upto(outputs - j, LANES);
        const vec value = v_sub(v_sub(load_upto(r + j, n, 0.0f), v_set(maximum)), log_sum);
        store_upto(f + j, n, v_max(value, v_set(log_floor)));
    }
}

static void
log_softmax_gradient_row(size_t outputs, float probability_floor, const float *r, const float *g,
                         float *response_gradient)
{
    float maximum;
    float sum;
    float *e = response_gradient; /* until the last loop */
    exponentiate_row(outputs, r, e, &maximum, &sum);
    const vec floor = v_set(probability_floor * sum);
    vec total = v_zero();
    for (size_t j = 0; j < outputs; j += LANES) {
        const size_t n = upto(outputs - j, LANES);
        total = v_add(total, v_if_greater(load_upto(e + j, n, 0.0f), floor, load_upto(g + j, n, 0.0f), v_zero()));
    }
    const vec share = v_set(v_sum(total) / sum);
    for (size_t j = 0; j < outputs; j += LANES) {
        const size_t n = upto(outputs - j, LANES);
        const vec value = load_upto(e + j, n, 0.0f);
        const vec own = v_if_greater(value, floor, load_upto(g + j, n, 0.0f), v_zero());
        store_upto(response_gradient + j, n, v_sub(own, v_mul(value, share)));
    }
}

static void
log_softmax(size_t rows, size_t outputs, float log_floor, const float *r, float *f)
{
    if (!fits_tile(outputs)) {
        for (size_t i = 0; i < rows; i++) {
            log_softmax_row(outputs, log_floor, r + i * outputs, f + i * outputs);
        }
        return;
    }
    for (size_t i = 0; i < rows; i += LANES) {
        log_softmax_tile(upto(rows - i, LANES), outputs, log_floor, r + i * outputs, f + i * outputs);
    }
}

static void
log_softmax_gradient(size_t rows, size_t outputs, float probability_floor, const float *r, const float *g,
                     float *response_gradient)
{
    if (!fits_tile(outputs)) {
        for (size_t i = 0; i < rows; i++) {
            const size_t at = i * outputs;
            log_softmax_gradient_row(outputs, probability_floor, r + at, g + at, response_gradient + at);
        }
        return;
    }
    for (size_t i = 0; i < rows; i += LANES) {
        const size_t at = i * outputs;
        log_softmax_gradient_tile(upto(rows - i, LANES), outputs, probability_floor, r + at, g + at,
                                  response_gradient + at);
    }
}

/* Centring -------------------------------------------------------------------------------------------------------- */

/* Plain loops in double, which the compiler turns into this instruction set's vectors: so many sums are kept side by
 * side. Their order is the same on every processor. */
enum { PARTS = 8 };

INLINED double
sum_parts(const double *parts)
{
    return ((parts[0] + parts[4]) + (parts[1] + parts[5])) + ((parts[2] + parts[6]) + (parts[3] + parts[7]));
}

INLINED double
mean_of(size_t count, const float *values)
{
    double parts[PARTS] = {0};
    size_t j = 0;
    for (; j + PARTS <= count; j += PARTS) {
        for (size_t i = 0; i < PARTS; i++) {
            parts[i] += values[j + i];
        }
    }
    double sum = sum_parts(parts);
    for (; j < count; j++) {
        sum += values[j];
    }
    return sum / (double)count;
}

static void
centre(size_t rows, size_t outputs, double share, const float *r, float *c)
{
    for (size_t at = 0; at < rows * outputs; at += outputs) {
        const double mean = mean_of(outputs, r + at);
        for (size_t j = at; j < at + outputs; j++) {
            c[j] = (float)((r[j] - mean) * share);
        }
    }
}

static void
scale_by(size_t count, double factor, float *values)
{
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)(values[i] * factor);
    }
}

static double
dot(size_t count, const float *a, const float *b)
{
    double parts[PARTS] = {0};
    size_t j = 0;
    for (; j + PARTS <= count; j += PARTS) {
        for (size_t i = 0; i < PARTS; i++) {
            parts[i] += (double)a[j + i] * b[j + i];
        }
    }
    double sum = sum_parts(parts);
    for (; j < count; j++) {
        sum += (double)a[j] * b[j];
    }
    return sum;
}

static void
project(size_t rows, size_t outputs, double own, double others, const float *g, float *c)
{
    for (size_t at = 0; at < rows * outputs; at += outputs) {
        const double mean = mean_of(outputs, g + at);
        for (size_t j = at; j < at + outputs; j++) {
            c[j] = (float)((g[j] - mean) * own - c[j] * others);
        }
    }
}

/* Updates --------------------------------------------------------------------------------------------------------- */

/* Smallest and largest second moment that the direction is computed from: beyond them the result is 0 or absurd. */
#define SMALLEST_SECOND_MOMENT 1e-36f
#define LARGEST_SECOND_MOMENT 1e38f

typedef struct adam_constants {
    vec beta1, beta2, rest1, rate, decay, epsilon;
} adam_constants;

/* The second moment is kept as v / (1 - beta2): one product less. That and the bias corrections move into the rate and
 * epsilon: r m c1 / (sqrt(v (1 - beta2)) c2 + e) = (r c1 / c) m / (sqrt(v) + e / c), c = c2 sqrt(1 - beta2). */
INLINED adam_constants
adam_prepare(const mv_adam_step *step)
{
    const double c = (double)step->second_correction * sqrt(1.0 - MV_ADAM_BETA2);
    return (adam_constants){
        .beta1 = v_set(step->beta1),
        .beta2 = v_set(step->beta2),
        .rest1 = v_set((float)(1.0 - MV_ADAM_BETA1)),
        .rate = v_set((float)(-(double)step->rate * (double)step->first_correction / c)),
        .decay = v_set(step->decay),
        .epsilon = v_set((float)(MV_ADAM_EPSILON / c)),
    };
}

/* Updates both moments; returns what Adam adds, divided by the rate of adam_constants. */
INLINED vec
adam_direction(const adam_constants *adam, vec gradient, vec *first_moment, vec *second_moment)
{
    *first_moment = v_fma(adam->beta1, *first_moment, v_mul(adam->rest1, gradient));
    *second_moment = v_fma(adam->beta2, *second_moment, v_mul(gradient, gradient));
    const vec v = v_min(v_max(*second_moment, v_set(SMALLEST_SECOND_MOMENT)), v_set(LARGEST_SECOND_MOMENT));
    return v_adam(*first_moment, v, adam->epsilon);
}

static void
adam(const mv_adam_step *step, size_t count, const float *restrict gradient, float *restrict parameters,
     float *restrict first_moment, float *restrict second_moment)
{
    const adam_constants constants = adam_prepare(step);
    for (size_t i = 0; i < count; i += LANES) {
        const size_t n = upto(count - i, LANES);
        vec m = load_upto(first_moment + i, n, 0.0f);
        vec v = load_upto(second_moment + i, n, 0.0f);
        const vec move = adam_direction(&constants, load_upto(gradient + i, n, 0.0f), &m, &v);
        const vec kept = v_mul(constants.decay, load_upto(parameters + i, n, 0.0f));
        store_upto(first_moment + i, n, m);
        store_upto(second_moment + i, n, v);
        store_upto(parameters + i, n, v_fma(constants.rate, move, kept));
    }
}

static void
update_query(const mv_adam_step *step, const mv_query *query)
{
    const adam_constants constants = adam_prepare(step);
    const bool limited = isfinite(query->radius);
    for (size_t i = 0; i < query->features; i += LANES) {
        const size_t n = upto(query->features - i, LANES);
        vec m = load_upto(query->first_moment + i, n, 0.0f);
        vec v = load_upto(query->second_moment + i, n, 0.0f);
        const vec move = adam_direction(&constants, load_upto(query->gradient + i, n, 0.0f), &m, &v);
        vec lower = load_upto(query->lower + i, n, 0.0f);
        vec upper = load_upto(query->upper + i, n, 0.0f);
        const vec range = v_sub(upper, lower);
        vec x = v_fma(v_mul(constants.rate, range), move, load_upto(query->master + i, n, 0.0f));
        if (limited) {
            const vec natural = load_upto(query->natural + i, n, 0.0f);
            const vec reach = v_mul(v_set(query->radius), range);
            lower = v_max(lower, v_sub(natural, reach));
            upper = v_min(upper, v_add(natural, reach));
        }
        x = v_min(v_max(x, lower), upper);
        store_upto(query->first_moment + i, n, m);
        store_upto(query->second_moment + i, n, v);
        store_upto(query->master + i, n, x);
    }
}

static void
add_noise(mv_stream stream, float deviation, size_t start, size_t count, float *values)
{
    /* Four 16-bit uniforms of variance 1/12 each; their mean sum is 4 * 32767.5. */
    const float unit = deviation * 1.7320508f * 0x1p-16f;
    for (size_t i = 0; i < count; i++) {
        const uint64_t bits = mv_random_bits(stream, start + i);
        const int32_t sum =
            (int32_t)((bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) + ((bits >> 32) & 0xFFFF) + (bits >> 48));
        values[i] += unit * ((float)sum - 131070.0f);
    }
}

const mv_kernels TABLE = {
    .name = NAME,
    .tile_rows = TILE_ROWS,
    .multiply = multiply,
    .transpose = transpose,
    .rectify = rectify,
    .rectify_gradient = rectify_gradient,
    .all_finite = all_finite,
    .standardize = standardize,
    .scale = scale,
    .log_softmax = log_softmax,
    .log_softmax_gradient = log_softmax_gradient,
    .centre = centre,
    .dot = dot,
    .scale_by = scale_by,
    .project = project,
    .adam = adam,
    .update_query = update_query,
    .add_noise = add_noise,
};
