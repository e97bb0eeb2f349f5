#include "mv_view_kind.h"

#include <string.h>

/* Slope of the soft label whose gradient stands in for that of the hard one. */
#define LABEL_SLOPE 3.0

static void
label_features(mv_row *row, float *f)
{
    memset(f, 0, row->outputs * sizeof *f);
    f[mv_largest(row->r, row->outputs)] = 1.0f;
}

/* softmax(3 log p) = p^3 / sum(p^3), its gradient with respect to log p. */
static void
label_gradient(mv_row *row, const float *feature_gradient, float *response_gradient)
{
    mv_find_probabilities(row);
    const double floor = row->is_distribution ? MV_PROBABILITY_FLOOR : 0.0;
    double sum = 0.0;
    double mean = 0.0;
    for (size_t j = 0; j < row->outputs; j++) {
        const double p = mv_larger(row->p[j], floor);
        row->gradient[j] = p * p * p;
        sum += row->gradient[j];
        mean += row->gradient[j] * feature_gradient[j];
    }
    mean /= sum;
    for (size_t j = 0; j < row->outputs; j++) {
        row->gradient[j] *= LABEL_SLOPE * (feature_gradient[j] - mean) / sum;
    }
    mv_log_gradient(row, floor, response_gradient);
}

const mv_view_kind mv_view_label = {
    .name = "label",
    .reads_classes = true,
    .reads_labels = true,
    .features = label_features,
    .gradient = label_gradient,
};
