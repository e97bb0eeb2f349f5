#include "mv_view_kind.h"

#include <math.h>

static void
logprob_features(mv_row *row, float *f)
{
    mv_find_probabilities(row);
    for (size_t j = 0; j < row->outputs; j++) {
        f[j] = logf((float)mv_larger(row->p[j], MV_PROBABILITY_FLOOR));
    }
}

static void
logprob_gradient(mv_row *row, const float *feature_gradient, float *response_gradient)
{
    mv_clamped_gradient(row, feature_gradient, MV_PROBABILITY_FLOOR, response_gradient);
}

/* All rows of a model that answers logits, by the kernels of this processor. */
static void
logit_features(const mv_rows *rows, const float *r, float *f)
{
    rows->kernels->log_softmax(rows->queries, rows->outputs, (float)log(MV_PROBABILITY_FLOOR), r, f);
}

static void
logit_gradient(const mv_rows *rows, const float *r, const float *feature_gradient, float *response_gradient)
{
    rows->kernels->log_softmax_gradient(rows->queries, rows->outputs, (float)MV_PROBABILITY_FLOOR, r, feature_gradient,
                                        response_gradient);
}

const mv_view_kind mv_view_logprob = {
    .name = "logprob",
    .reads_classes = true,
    .features = logprob_features,
    .gradient = logprob_gradient,
    .logit_features = logit_features,
    .logit_gradient = logit_gradient,
};
