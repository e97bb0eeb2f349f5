#include "mv_random.h"
#include "mv_verifier.h"

#include <string.h>

/* Small: the scores start near 1/2. */
#define INITIAL_DEVIATION 0.01f

static size_t
local_hidden_width(const mv_verifier *self)
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
local_describe(const mv_verifier_config *config, mv_parameter *list)
{
    list[0] = mv_matrix("weight", config->queries, config->outputs);
    list[1] = mv_vector("bias", config->queries);
    return 2;
}

static void
local_locate(const mv_verifier *self, mv_parameter *list)
{
    list[0].data = self->parameters;
    list[1].data = self->parameters + self->features;
}

static void
local_forward(mv_verifier *self, mv_workspace *work, size_t models)
{
    const size_t queries = self->config.queries;
    const size_t outputs = self->config.outputs;
    const float *bias = self->parameters + self->features;
    for (size_t m = 0; m < models; m++) { /* (M, N, K) */
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

/* work->gradient = that of weight (N, K), then that of bias (N) */
static void
local_weight_gradient(const mv_verifier *self, mv_workspace *work, size_t models)
{
    const size_t queries = self->config.queries;
    const size_t outputs = self->config.outputs;
    memset(work->gradient, 0, self->trainable_count * sizeof *work->gradient);
    for (size_t m = 0; m < models; m++) { /* (M, N, K) */
        for (size_t n = 0; n < queries; n++) {
            const float g = work->logits_gradient[m * queries + n];
            const float *z = work->z + (m * queries + n) * outputs;
            float *weight = work->gradient + n * outputs;
            for (size_t k = 0; k < outputs; k++) {
                weight[k] += g * z[k];
            }
            work->gradient[self->features + n] += g;
        }
    }
}

static size_t
local_gradient_count(const mv_verifier *self)
{
    return self->trainable_count;
}

static void
local_backward(mv_verifier *self, mv_workspace *work, size_t models, const mv_adam_step *adam, bool with_input)
{
    const size_t queries = self->config.queries;
    const size_t outputs = self->config.outputs;
    for (size_t m = 0; with_input && m < models; m++) { /* (M, N, K) */
        for (size_t n = 0; n < queries; n++) {
            const float g = work->logits_gradient[m * queries + n];
            for (size_t k = 0; k < outputs; k++) {
                work->z_gradient[(m * queries + n) * outputs + k] = g * self->parameters[n * outputs + k];
            }
        }
    }
    if (adam) {
        local_weight_gradient(self, work, models);
        mv_verifier_update(self, adam, 0, self->trainable_count, work->gradient);
    }
}

const mv_kind mv_kind_local = {
    .name = "local",
    .unit_per_query = true,
    .describe = local_describe,
    .locate = local_locate,
    .count = local_count,
    .initialize = local_initialize,
    .hidden_width = local_hidden_width,
    .gradient_count = local_gradient_count,
    .forward = local_forward,
    .backward = local_backward,
};
