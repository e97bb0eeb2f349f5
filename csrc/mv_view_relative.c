#include "mv_view_kind.h"

#include <math.h>

/* Writes log-probabilities of one row, up to a number that all of them share: the centring takes it away. Relative to
 * the first, equal ones are exactly 0, and small differences keep their digits. */
static void
read_logs(const float *r, size_t outputs, float *logs)
{
    const float first = r[0] > MV_LOG_FLOOR ? r[0] : MV_LOG_FLOOR;
    for (size_t j = 0; j < outputs; j++) {
        logs[j] = logf((r[j] > MV_LOG_FLOOR ? r[j] : MV_LOG_FLOOR) / first);
    }
}

double
mv_centred_logs(const mv_rows *rows, const float *r, float *c)
{
    const size_t count = rows->queries * rows->outputs;
    if (rows->is_distribution) {
        for (size_t at = 0; at < count; at += rows->outputs) { /* (N, K) */
            read_logs(r + at, rows->outputs, c + at);
        }
    }
    const float *logs = rows->is_distribution ? c : r;
    rows->kernels->centre(rows->queries, rows->outputs, MV_STORED_SHARE, logs, c);
    return sqrt(rows->kernels->dot(count, c, c) / (double)count) / MV_STORED_SHARE;
}

static void
relative_features(const mv_rows *rows, const float *r, float *f)
{
    const size_t count = rows->queries * rows->outputs;
    const double factor = 1.0 / (mv_larger(mv_centred_logs(rows, r, f), MV_SPREAD_FLOOR) * MV_STORED_SHARE);
    rows->kernels->scale_by(count, factor, f);
}

/* (g - mean of the row - f * mean(g f)) / s, f = C / s; the last term is that of s, which does not move at its floor. */
static void
relative_gradient(const mv_rows *rows, const float *r, const float *g, float *response_gradient)
{
    const size_t count = rows->queries * rows->outputs;
    float *c = response_gradient; /* until it is projected */
    const double spread = mv_centred_logs(rows, r, c);
    const double s = mv_larger(spread, MV_SPREAD_FLOOR);
    const double mean = rows->kernels->dot(count, g, c) / ((double)count * s * MV_STORED_SHARE);
    const double others = spread > MV_SPREAD_FLOOR ? mean / (s * s * MV_STORED_SHARE) : 0.0;
    rows->kernels->project(rows->queries, rows->outputs, 1.0 / s, others, g, c);
    for (size_t i = 0; rows->is_distribution && i < count; i++) {
        response_gradient[i] = r[i] > MV_LOG_FLOOR ? response_gradient[i] / r[i] : 0.0f;
    }
}

const mv_view_kind mv_view_relative = {
    .name = "relative",
    .reads_classes = true,
    .model_features = relative_features,
    .model_gradient = relative_gradient,
};
