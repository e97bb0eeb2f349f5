/* f = r^k, 1 <= k <= 3: the view that test_core_extension_points.py adds. */
#include "mv_view_kind.h"

#include <math.h>

static void
power_features(mv_row *row, float *f)
{
    for (size_t j = 0; j < row->outputs; j++) {
        f[j] = (float)pow(row->r[j], row->parameter);
    }
}

static void
power_gradient(mv_row *row, const float *feature_gradient, float *response_gradient)
{
    const int k = row->parameter;
    for (size_t j = 0; j < row->outputs; j++) {
        response_gradient[j] = (float)(k * pow(row->r[j], k - 1) * feature_gradient[j]);
    }
}

const mv_view_kind mv_view_power = {
    .name = "power",
    .parameter = "k",
    .minimum = 1,
    .maximum = 3,
    .features = power_features,
    .gradient = power_gradient,
};
