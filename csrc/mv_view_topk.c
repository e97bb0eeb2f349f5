#include "mv_view_kind.h"

#include <math.h>
#include <string.h>

/* Marks the `count` largest probabilities; returns what each of the others gets, 0 if there are none. */
static double
find_top(mv_row *row, size_t count)
{
    memset(row->top, 0, row->outputs * sizeof *row->top);
    for (size_t found = 0; found < count && found < row->outputs; found++) {
        size_t best = row->outputs;
        for (size_t j = 0; j < row->outputs; j++) {
            if (!row->top[j] && (best == row->outputs || row->r[j] > row->r[best])) {
                best = j;
            }
        }
        row->top[best] = true;
    }
    if (count >= row->outputs) {
        return 0.0;
    }
    double rest = 0.0; /* 1 - sum over the top set, without the cancellation */
    for (size_t j = 0; j < row->outputs; j++) {
        rest += row->top[j] ? 0.0 : row->p[j];
    }
    return rest / (double)(row->outputs - count);
}

static void
topk_features(mv_row *row, float *f)
{
    const size_t count = (size_t)row->parameter;
    mv_find_probabilities(row);
    const double share = find_top(row, count);
    for (size_t j = 0; j < row->outputs; j++) {
        f[j] = (float)log(mv_larger(row->top[j] ? row->p[j] : share, MV_PROBABILITY_FLOOR));
    }
}

static void
topk_gradient(mv_row *row, const float *feature_gradient, float *response_gradient)
{
    const size_t count = (size_t)row->parameter;
    mv_find_probabilities(row);
    const double share = find_top(row, count);
    double others = 0.0; /* d loss / d (sum of the rest) */
    if (share > MV_PROBABILITY_FLOOR) {
        for (size_t j = 0; j < row->outputs; j++) {
            others += row->top[j] ? 0.0 : feature_gradient[j];
        }
        others /= share * (double)(row->outputs - count);
    }
    for (size_t j = 0; j < row->outputs; j++) {
        const bool active = row->p[j] > MV_PROBABILITY_FLOOR;
        row->gradient[j] = row->top[j] ? (active ? feature_gradient[j] / row->p[j] : 0.0) - others : 0.0;
    }
    mv_probability_gradient(row, response_gradient);
}

const mv_view_kind mv_view_topk = {
    .name = "topk",
    .parameter = "k",
    .minimum = 1,
    .maximum = MV_MAX_VIEW_PARAMETER,
    .reads_classes = true,
    .features = topk_features,
    .gradient = topk_gradient,
};
