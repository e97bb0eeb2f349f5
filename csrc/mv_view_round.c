#include "mv_view_kind.h"

#include <math.h>

static double
rounding_floor(int decimals)
{
    return 0.5 * pow(10.0, -decimals);
}

static void
round_features(mv_row *row, float *f)
{
    mv_find_probabilities(row);
    const double unit = pow(10.0, row->parameter);
    const double floor = rounding_floor(row->parameter);
    for (size_t j = 0; j < row->outputs; j++) {
        f[j] = (float)log(mv_larger(rint(row->p[j] * unit) / unit, floor));
    }
}

static void
round_gradient(mv_row *row, const float *feature_gradient, float *response_gradient)
{
    mv_clamped_gradient(row, feature_gradient, rounding_floor(row->parameter), response_gradient);
}

const mv_view_kind mv_view_round = {
    .name = "round",
    .parameter = "d",
    .maximum = MV_MAX_DECIMALS,
    .reads_classes = true,
    .features = round_features,
    .gradient = round_gradient,
};
