/* logit = weight . z + bias: the verifier kind that test_core_extension_points.py adds. */
#include "mv_verifier.h"

#include <string.h>

static size_t
linear_describe(const mv_verifier_config *config, mv_parameter *list)
{
    list[0] = mv_matrix("weight", config->queries, config->outputs);
    list[1] = mv_vector("bias", 1);
    return 2;
}

static void
linear_locate(const mv_verifier *self, mv_parameter *list)
{
    list[0].data = self->parameters;
    list[1].data = self->parameters + self->features;
}

static bool
linear_count(const mv_verifier_config *config, size_t *count)
{
    *count = config->queries * config->outputs + 1;
    return true;
}

static void
linear_initialize(mv_verifier *self)
{
    self->parameters[self->features] = 0.5f;
}

static size_t
linear_hidden_width(const mv_verifier *self)
{
    (void)self;
    return 0;
}

static size_t
linear_gradient_count(const mv_verifier *self)
{
    return self->trainable_count;
}

static void
linear_forward(mv_verifier *self, mv_workspace *work, size_t models)
{
    for (size_t m = 0; m < models; m++) {
        double logit = self->parameters[self->features];
        for (size_t i = 0; i < self->features; i++) {
            logit += (double)self->parameters[i] * work->z[m * self->features + i];
        }
        work->logits[m] = (float)logit;
    }
}

static void
linear_backward(mv_verifier *self, mv_workspace *work, size_t models, const mv_adam_step *adam, bool with_input)
{
    memset(work->gradient, 0, self->trainable_count * sizeof *work->gradient);
    for (size_t m = 0; m < models; m++) {
        const float g = work->logits_gradient[m];
        for (size_t i = 0; i < self->features; i++) {
            work->gradient[i] += g * work->z[m * self->features + i];
            if (with_input) {
                work->z_gradient[m * self->features + i] = g * self->parameters[i];
            }
        }
        work->gradient[self->features] += g;
    }
    if (adam) {
        mv_verifier_update(self, adam, 0, self->trainable_count, work->gradient);
    }
}

const mv_kind mv_kind_linear = {
    .name = "linear",
    .pairs_with_owner = true,
    .describe = linear_describe,
    .locate = linear_locate,
    .count = linear_count,
    .initialize = linear_initialize,
    .hidden_width = linear_hidden_width,
    .gradient_count = linear_gradient_count,
    .forward = linear_forward,
    .backward = linear_backward,
};
