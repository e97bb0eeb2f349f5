#include "mv_random.h"
#include "mv_verifier.h"

#include <math.h>

/* Where the tensors lie in the block of trainable parameters (or of their gradients). */
typedef struct layout {
    float *weight1, *bias1, *weight2, *bias2;
} layout;

static layout
layout_of(const mv_verifier *self, float *block)
{
    const size_t hidden = self->config.hidden;
    float *bias1 = block + self->features * hidden;
    return (layout){block, bias1, bias1 + hidden, bias1 + 2 * hidden};
}

static size_t
mlp_width(const mv_verifier *self)
{
    return self->config.hidden;
}

static bool
mlp_count(const mv_verifier_config *config, size_t *count)
{
    size_t product;
    /* weight1, bias1, weight2 together are hidden columns of D + 2. */
    if (!mv_multiply(config->queries * config->outputs + 2, config->hidden, &product)) {
        return false;
    }
    *count = product + 1;
    return true;
}

static void
mlp_initialize(mv_verifier *self)
{
    const layout at = layout_of(self, self->parameters);
    const size_t hidden = self->config.hidden;
    const mv_stream stream = mv_stream_open(self->config.seed, MV_RANDOM_INIT, 0);
    const mv_stream stream2 = mv_stream_open(self->config.seed, MV_RANDOM_INIT, 1);
    mv_random_add_normal(stream, (float)sqrt(2.0 / (double)self->features), self->features * hidden, at.weight1);
    mv_random_add_normal(stream2, (float)sqrt(2.0 / (double)hidden), hidden, at.weight2);
}

static size_t
mlp_list(const mv_verifier *self, mv_parameter *list)
{
    const layout at = layout_of(self, self->parameters);
    const size_t hidden = self->config.hidden;
    list[0] = (mv_parameter){"weight1", 2, self->features, hidden, at.weight1};
    list[1] = (mv_parameter){"bias1", 1, hidden, 1, at.bias1};
    list[2] = (mv_parameter){"weight2", 1, hidden, 1, at.weight2};
    list[3] = (mv_parameter){"bias2", 1, 1, 1, at.bias2};
    return 4;
}

static void
mlp_forward(mv_verifier *self, mv_workspace *work, size_t models)
{
    const layout at = layout_of(self, self->parameters);
    const size_t hidden = self->config.hidden;
    self->gemm->forward(models, self->features, hidden, work->z, at.weight1, work->hidden);
    for (size_t m = 0; m < models; m++) {
        float *h = work->hidden + m * hidden;
        double logit = *at.bias2;
        for (size_t j = 0; j < hidden; j++) {
            const float sum = h[j] + at.bias1[j];
            h[j] = sum < 0.0f ? 0.0f : sum; /* NaN stays NaN: an overflow must not pass for a quiet unit */
            logit += (double)at.weight2[j] * h[j];
        }
        work->logits[m] = (float)logit;
    }
}

static void
mlp_backward(mv_verifier *self, mv_workspace *work, size_t models, bool with_parameters, bool with_input)
{
    const layout at = layout_of(self, self->parameters);
    const layout gradient = layout_of(self, self->gradient);
    const size_t hidden = self->config.hidden;
    double bias2 = 0.0;
    for (size_t j = 0; j < hidden; j++) {
        double bias1 = 0.0;
        double weight2 = 0.0;
        for (size_t m = 0; m < models; m++) {
            const float h = work->hidden[m * hidden + j];
            const float g = work->logits_gradient[m];
            const float gradient1 = h > 0.0f ? g * at.weight2[j] : 0.0f;
            work->hidden_gradient[m * hidden + j] = gradient1;
            bias1 += gradient1;
            weight2 += (double)g * h;
        }
        gradient.bias1[j] = (float)bias1;
        gradient.weight2[j] = (float)weight2;
    }
    for (size_t m = 0; m < models; m++) {
        bias2 += work->logits_gradient[m];
    }
    *gradient.bias2 = (float)bias2;
    if (with_parameters) {
        self->gemm->weight_gradient(models, self->features, hidden, work->z, work->hidden_gradient, gradient.weight1);
    }
    if (with_input) {
        self->gemm->input_gradient(models, self->features, hidden, work->hidden_gradient, at.weight1, work->z_gradient);
    }
}

const mv_kind mv_kind_mlp = {
    .name = "mlp",
    .unit_per_query = false,
    .width = mlp_width,
    .count = mlp_count,
    .initialize = mlp_initialize,
    .list = mlp_list,
    .forward = mlp_forward,
    .backward = mlp_backward,
};
