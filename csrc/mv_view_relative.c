#include "mv_view_kind.h"

#include <math.h>

/* Probabilities below this count as this: far below the floor of the other views, which a temperature would move entries
 * across, and far enough above the smallest float that 1 / p is one, too. */
#define LOG_FLOOR 1e-30f

/* A model whose spread is below this answers alike everywhere: what is left in float32 is mostly rounding. */
#define SPREAD_FLOOR 1e-6

/* What is stored of C, so that the difference of the largest floats is a float. */
#define STORED_SHARE 0.25

/* Writes log-probabilities of one row, up to a number that all of them share: the centring takes it away. Relative to
 * the first, equal ones are exactly 0, and small differences keep their digits. */
static void
read_logs(const float *r, size_t outputs, float *logs)
{
    const float first = r[0] > LOG_FLOOR ? r[0] : LOG_FLOOR;
    for (size_t j = 0; j < outputs; j++) {
        logs[j] = logf((r[j] > LOG_FLOOR ? r[j] : LOG_FLOOR) / first);
    }
}

/* Writes STORED_SHARE * C (N, K); returns the spread s. */
static double
centre(const mv_rows *rows, const float *r, float *c)
{
    const size_t count = rows->queries * rows->outputs;
    if (rows->is_distribution) {
        for (size_t at = 0; at < count; at += rows->outputs) { /* (N, K) */
            read_logs(r + at, rows->outputs, c + at);
        }
    }
    const float *logs = rows->is_distribution ? c : r;
    rows->kernels->centre(rows->queries, rows->outputs, STORED_SHARE, logs, c);
    return sqrt(rows->kernels->dot(count, c, c) / (double)count) / STORED_SHARE;
}

double
mv_unit_logs(const mv_rows *rows, const float *r, float *u)
{
    const double inverse = 1.0 / mv_larger(centre(rows, r, u), SPREAD_FLOOR);
    rows->kernels->scale_by(rows->queries * rows->outputs, inverse / STORED_SHARE, u);
    return inverse;
}

void
mv_through_logs(const mv_rows *rows, const float *r, float *gradient)
{
    for (size_t i = 0; rows->is_distribution && i < rows->queries * rows->outputs; i++) {
        gradient[i] = r[i] > LOG_FLOOR ? gradient[i] / r[i] : 0.0f;
    }
}

static void
relative_features(const mv_rows *rows, const float *r, float *f)
{
    mv_unit_logs(rows, r, f);
}

/* (g - mean of the row - f * mean(g f)) / s, f = C / s; the last term is that of s, which does not move at its floor. */
static void
relative_gradient(const mv_rows *rows, const float *r, const float *g, float *response_gradient)
{
    const size_t count = rows->queries * rows->outputs;
    float *c = response_gradient; /* until it is projected */
    const double spread = centre(rows, r, c);
    const double s = mv_larger(spread, SPREAD_FLOOR);
    const double mean = rows->kernels->dot(count, g, c) / ((double)count * s * STORED_SHARE);
    const double others = spread > SPREAD_FLOOR ? mean / (s * s * STORED_SHARE) : 0.0;
    rows->kernels->project(rows->queries, rows->outputs, 1.0 / s, others, g, c);
    mv_through_logs(rows, r, response_gradient);
}

const mv_view_kind mv_view_relative = {
    .name = "relative",
    .reads_classes = true,
    .model_features = relative_features,
    .model_gradient = relative_gradient,
};
