#include "mv_pool.h"
#include "mv_random.h"
#include "mv_verifier.h"

#include <math.h>
#include <string.h>

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
mlp_hidden_width(const mv_verifier *self)
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
mlp_describe(const mv_verifier_config *config, mv_parameter *list)
{
    list[0] = mv_matrix("weight1", config->queries * config->outputs, config->hidden);
    list[1] = mv_vector("bias1", config->hidden);
    list[2] = mv_vector("weight2", config->hidden);
    list[3] = mv_vector("bias2", 1);
    return 4;
}

static void
mlp_locate(const mv_verifier *self, mv_parameter *list)
{
    const layout at = layout_of(self, self->parameters);
    list[0].data = at.weight1;
    list[1].data = at.bias1;
    list[2].data = at.weight2;
    list[3].data = at.bias2;
}

static void
mlp_forward(mv_verifier *self, mv_workspace *work, size_t models)
{
    const layout at = layout_of(self, self->parameters);
    const size_t hidden = self->config.hidden;
    mv_gemm_forward(self->kernels, work->threads, models, self->features, hidden, work->z, at.weight1, work->hidden);
    for (size_t m = 0; m < models; m++) { /* (M, hidden) */
        float *h = work->hidden + m * hidden;
        work->logits[m] = (float)(self->kernels->rectify(hidden, at.bias1, at.weight2, h) + *at.bias2);
    }
}

static size_t
mlp_gradient_count(const mv_verifier *self)
{
    return 2 * self->config.hidden + 1;
}

typedef struct hidden_job {
    const mv_verifier *self;
    mv_workspace *work;
    size_t models;
} hidden_job;

/* Of hidden units [start, end): hidden_gradient, and in work->gradient those of bias1 (hidden) and weight2 (hidden). */
static void
backpropagate_hidden_units(void *context, size_t start, size_t end, size_t thread)
{
    const hidden_job *job = context;
    const size_t hidden = job->self->config.hidden;
    const float *weight2 = layout_of(job->self, job->self->parameters).weight2;
    float *gradient = job->work->gradient;
    (void)thread;
    memset(gradient + start, 0, (end - start) * sizeof *gradient);
    memset(gradient + hidden + start, 0, (end - start) * sizeof *gradient);
    for (size_t m = 0; m < job->models; m++) { /* (M, end - start) of (M, hidden) */
        const size_t at = m * hidden + start;
        job->self->kernels->rectify_gradient(end - start, job->work->logits_gradient[m], weight2 + start,
                                             job->work->hidden + at, job->work->hidden_gradient + at, gradient + start,
                                             gradient + hidden + start);
    }
}

/* What a hidden unit of a model costs there, on the scale of mv_pool_pays. */
enum { HIDDEN_OPERATIONS = 16 };

/* hidden_gradient (M, hidden), and in work->gradient those of bias1, weight2 and bias2, as the parameters lie. */
static void
find_hidden_layer_gradients(const mv_verifier *self, mv_workspace *work, size_t models)
{
    const size_t hidden = self->config.hidden;
    hidden_job job = {self, work, models};
    const double operations = (double)models * (double)hidden * (double)HIDDEN_OPERATIONS;
    mv_pool_run(mv_pool_pays(work->threads, operations), hidden, backpropagate_hidden_units, &job);
    double bias2_gradient = 0.0;
    for (size_t m = 0; m < models; m++) { /* (M) */
        bias2_gradient += work->logits_gradient[m];
    }
    work->gradient[2 * hidden] = (float)bias2_gradient;
}

static void
mlp_backward(mv_verifier *self, mv_workspace *work, size_t models, const mv_adam_step *adam, bool with_input)
{
    const size_t weights = self->features * self->config.hidden;
    find_hidden_layer_gradients(self, work, models);
    mv_gemm_backward job = {
        .kernels = self->kernels,
        .rows = models,
        .inputs = self->features,
        .outputs = self->config.hidden,
        .dy = work->hidden_gradient,
        .dx = with_input ? work->z_gradient : NULL,
        .dx_scale = work->gradient_scale,
        .adam = adam,
        .x = work->z,
        .w = self->parameters,
        .first_moment = self->first_moment,
        .second_moment = self->second_moment,
        .scratch = work->product_scratch,
    };
    mv_gemm_run_backward(&job, work->threads);
    if (adam) {
        mv_verifier_update(self, adam, weights, self->trainable_count - weights, work->gradient);
    }
}

const mv_kind mv_kind_mlp = {
    .name = "mlp",
    .preferred = true,
    .pairs_with_owner = true,
    .fuses_scale = true,
    .describe = mlp_describe,
    .locate = mlp_locate,
    .count = mlp_count,
    .initialize = mlp_initialize,
    .hidden_width = mlp_hidden_width,
    .gradient_count = mlp_gradient_count,
    .forward = mlp_forward,
    .backward = mlp_backward,
};
