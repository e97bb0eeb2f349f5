#include "mv_view_kind.h"

#include <math.h>
#include <string.h>

static void
identity_features(mv_row *row, float *f)
{
    memcpy(f, row->r, row->outputs * sizeof *f);
}

static void
identity_gradient(mv_row *row, const float *feature_gradient, float *response_gradient)
{
    memcpy(response_gradient, feature_gradient, row->outputs * sizeof *response_gradient);
}

static void
identity_round_features(mv_row *row, float *f)
{
    const double unit = pow(10.0, row->parameter);
    for (size_t j = 0; j < row->outputs; j++) {
        f[j] = (float)(rint(row->r[j] * unit) / unit);
    }
}

const mv_view_kind mv_view_identity = {
    .name = "identity",
    .features = identity_features,
    .gradient = identity_gradient,
};

const mv_view_kind mv_view_identity_round = {
    .name = "identity_round",
    .parameter = "d",
    .maximum = MV_MAX_DECIMALS,
    .features = identity_round_features,
    .gradient = identity_gradient, /* straight through */
};
