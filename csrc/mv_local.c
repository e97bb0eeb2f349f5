#include "mv_random.h"
#include "mv_verifier.h"

/* Small: the scores start near 1/2. */
#define INITIAL_DEVIATION 0.01f

static size_t
local_width(const mv_verifier *self)
{
    (void)self;
    return 0;
}

static bool
local_count(const mv_verifier_config *config, size_t *count)
{
    return mv_multiply(config->queries, config->outputs + 1, count);
}

static void
local_initialize(mv_verifier *self)
{
    const mv_stream stream = mv_stream_open(self->config.seed, MV_RANDOM_INIT, 0);
    mv_random_add_normal(stream, INITIAL_DEVIATION, self->features, self->parameters);
}

static size_t
local_list(const mv_verifier *self, mv_parameter *list)
{
    const size_t queries = self->config.queries;
    list[0] = (mv_parameter){"weight", 2, queries, self->config.outputs, self->parameters};
    list[1] = (mv_parameter){"bias", 1, queries, 1, self->parameters + self->features};
    return 2;
}

static void
local_forward(mv_verifier *self, mv_workspace *work, size_t models)
{
    const size_t queries = self->config.queries;
    const size_t outputs = self->config.outputs;
    const float *bias = self->parameters + self->features;
    for (size_t m = 0; m < models; m++) {
        for (size_t n = 0; n < queries; n++) {
            const float *w = self->parameters + n * outputs;
            const float *z = work->z + (m * queries + n) * outputs;
            double logit = bias[n];
            for (size_t k = 0; k < outputs; k++) {
                logit += (double)w[k] * z[k];
            }
            work->logits[m * queries + n] = (float)logit;
        }
    }
}

static void
local_weight_gradient(mv_verifier *self, const mv_workspace *work, size_t models)
{
    const size_t queries = self->config.queries;
    const size_t outputs = self->config.outputs;
    for (size_t i = 0; i < self->count; i++) {
        self->gradient[i] = 0.0f;
    }
    for (size_t m = 0; m < models; m++) {
        for (size_t n = 0; n < queries; n++) {
            const float g = work->logits_gradient[m * queries + n];
            const float *z = work->z + (m * queries + n) * outputs;
            float *weight = self->gradient + n * outputs;
            for (size_t k = 0; k < outputs; k++) {
                weight[k] += g * z[k];
            }
            self->gradient[self->features + n] += g;
        }
    }
}

static void
local_backward(mv_verifier *self, mv_workspace *work, size_t models, bool with_parameters, bool with_input)
{
    const size_t queries = self->config.queries;
    const size_t outputs = self->config.outputs;
    if (with_parameters) {
        local_weight_gradient(self, work, models);
    }
    if (!with_input) {
        return;
    }
    for (size_t m = 0; m < models; m++) {
        for (size_t n = 0; n < queries; n++) {
            const float g = work->logits_gradient[m * queries + n];
            for (size_t k = 0; k < outputs; k++) {
                work->z_gradient[(m * queries + n) * outputs + k] = g * self->parameters[n * outputs + k];
            }
        }
    }
}

const mv_kind mv_kind_local = {
    .name = "local",
    .unit_per_query = true,
    .width = local_width,
    .count = local_count,
    .initialize = local_initialize,
    .list = local_list,
    .forward = local_forward,
    .backward = local_backward,
};
