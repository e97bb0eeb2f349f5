/* The view `tempered`: all models brought to one mean confidence, then roots of their probabilities (metav.h). */
#include "mv_view_kind.h"

#include <math.h>

/* Mean of the largest probability of a row, above the least that it can be, as a share of the way to 1. */
#define SHARPNESS 0.65

/* The root that is taken of probabilities: between the doubts of the runners-up, which their logarithms tell, and those
 * of the best, which they tell themselves. */
#define POWER 0.25

/* Largest factor of C / max(s, 1e-6). */
#define LARGEST_FACTOR 64.0

/* How near to the wanted mean is near enough, and after how many steps it is given up: halving alone takes 50. */
#define TOLERANCE 1e-12
enum { MOST_STEPS = 100 };

/* One row u (K) at a factor: q = exp(factor * (u - largest)) / sum. */
typedef struct tempered_row {
    size_t largest; /* the lower index on ties */
    double sum;
    double rise; /* of the sum with the factor */
} tempered_row;

static tempered_row
read_row(const float *u, size_t outputs, double factor)
{
    tempered_row row = {.largest = mv_largest(u, outputs)};
    for (size_t k = 0; k < outputs; k++) {
        const double below = (double)u[k] - u[row.largest];
        const double e = exp(factor * below);
        row.sum += e;
        row.rise += below * e;
    }
    return row;
}

/* Mean over all rows of the largest q; `rise` is its derivative by the factor. */
static double
mean_largest(const mv_rows *rows, const float *u, double factor, double *rise)
{
    double mean = 0.0;
    *rise = 0.0;
    for (size_t n = 0; n < rows->queries; n++) { /* (N, K) */
        const tempered_row row = read_row(u + n * rows->outputs, rows->outputs, factor);
        mean += 1.0 / row.sum;
        *rise -= row.rise / (row.sum * row.sum);
    }
    *rise /= (double)rows->queries;
    return mean / (double)rows->queries;
}

/* The factor of u at which the mean is as wanted, and the derivative there; LARGEST_FACTOR and 0 where it is not
 * reached. The mean rises with the factor: Newton's steps, halvings where one leaves the bracket. */
static double
find_factor(const mv_rows *rows, const float *u, double *rise)
{
    const double least = 1.0 / (double)rows->outputs, wanted = least + SHARPNESS * (1.0 - least);
    double low = 0.0, high = LARGEST_FACTOR, factor = 1.0;
    if (mean_largest(rows, u, high, rise) <= wanted) {
        *rise = 0.0;
        return high;
    }
    for (int step = 0; step < MOST_STEPS; step++) {
        const double missing = wanted - mean_largest(rows, u, factor, rise);
        if (fabs(missing) <= TOLERANCE) {
            break;
        }
        *(missing > 0.0 ? &low : &high) = factor;
        const double next = factor + missing / *rise; /* not finite where the mean is flat */
        factor = next > low && next < high ? next : 0.5 * (low + high);
    }
    return factor;
}

static void
tempered_features(const mv_rows *rows, const float *r, float *f)
{
    const size_t outputs = rows->outputs;
    double rise;
    mv_unit_logs(rows, r, f);
    const double factor = find_factor(rows, f, &rise);
    for (size_t n = 0; n < rows->queries; n++) { /* (N, K) */
        float *u = f + n * outputs;
        const tempered_row row = read_row(u, outputs, factor);
        const double largest = u[row.largest], root = pow(row.sum, -POWER);
        for (size_t k = 0; k < outputs; k++) {
            u[k] = (float)(exp(POWER * factor * (u[k] - largest)) * root);
        }
    }
}

/* d loss / d log q = POWER * g * f of one class. */
static double
log_gradient(const tempered_row *row, double factor, double below, float g)
{
    return POWER * (double)g * exp(POWER * factor * below) * pow(row->sum, -POWER);
}

/* d loss / d factor of one row: sum over k of h (u - its mean under q), h = d loss / d log q; `total` is the sum of h. */
static double
factor_gradient(const tempered_row *row, const float *u, const float *g, size_t outputs, double factor, double *total)
{
    double own = 0.0;
    *total = 0.0;
    for (size_t k = 0; k < outputs; k++) {
        const double below = (double)u[k] - u[row->largest], h = log_gradient(row, factor, below, g[k]);
        own += h * below;
        *total += h;
    }
    return own - *total * row->rise / row->sum;
}

/* With u fixed by r up to s, and the factor by u (implicit function theorem):
 *   d loss / d u = factor * (h - q * sum(h)) - d loss / d factor * (d mean / d u) / (d mean / d factor)
 * C = s u moves neither by its own size, which the factor takes back, nor along a row, so that d loss / d C is this
 * divided by s. */
static void
tempered_gradient(const mv_rows *rows, const float *r, const float *g, float *response_gradient)
{
    const size_t outputs = rows->outputs;
    float *logs = response_gradient; /* until the gradient takes its place, class by class */
    double rise, slope = 0.0, total;
    const double inverse = mv_unit_logs(rows, r, logs);
    const double factor = find_factor(rows, logs, &rise);
    for (size_t n = 0; rise > 0.0 && n < rows->queries; n++) { /* (N, K) */
        const float *u = logs + n * outputs;
        const tempered_row row = read_row(u, outputs, factor);
        slope += factor_gradient(&row, u, g + n * outputs, outputs, factor, &total);
    }
    const double through = rise > 0.0 ? slope * factor / (rise * (double)rows->queries) : 0.0;
    for (size_t n = 0; n < rows->queries; n++) { /* (N, K) */
        float *u = logs + n * outputs;
        const tempered_row row = read_row(u, outputs, factor);
        const double largest = u[row.largest];
        factor_gradient(&row, u, g + n * outputs, outputs, factor, &total);
        for (size_t k = 0; k < outputs; k++) {
            const double below = u[k] - largest, q = exp(factor * below) / row.sum;
            const double own = log_gradient(&row, factor, below, g[n * outputs + k]) - q * total;
            const double mean = ((k == row.largest ? 1.0 : 0.0) - q) / row.sum;
            u[k] = (float)(inverse * (factor * own - through * mean));
        }
    }
    mv_through_logs(rows, r, response_gradient);
}

const mv_view_kind mv_view_tempered = {
    .name = "tempered",
    .reads_classes = true,
    .model_features = tempered_features,
    .model_gradient = tempered_gradient,
};
