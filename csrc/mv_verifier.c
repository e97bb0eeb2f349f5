#include "mv_verifier.h"

#include "mv_adam.h"
#include "mv_augment.h"
#include "mv_finite.h"
#include "mv_view.h"

#include <math.h>
#include <string.h>

/* A scale is at least this share of the overall one, plus a little. */
#define LEAST_SCALE_SHARE 1e-3
#define LEAST_SCALE 1e-6

/* The mean score of `local` stays this far from 0 and 1 where its logit is asked for. */
#define SCORE_MARGIN 1e-7

double
mv_softplus(double x)
{
    return fmax(x, 0.0) + log1p(exp(-fabs(x)));
}

double
mv_sigmoid(double x)
{
    const double e = exp(-fabs(x));
    return x >= 0.0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
}

/* Life ------------------------------------------------------------------------------------------------------------ */

static const mv_kind *
find_kind(mv_verifier_kind kind)
{
    switch (kind) {
    case MV_VERIFIER_MLP:
        return &mv_kind_mlp;
    case MV_VERIFIER_LOCAL:
        return &mv_kind_local;
    case MV_VERIFIER_MATCHED:
        return &mv_kind_matched;
    }
    return NULL;
}

static mv_status
check_config(const mv_verifier_config *config, const mv_kind *kind, size_t *features, size_t *count)
{
    if (!kind) {
        return MV_ERROR_KIND;
    }
    if (!config->queries || !config->outputs || !config->hidden ||
        !mv_multiply(config->queries, config->outputs, features) || *features > PTRDIFF_MAX / 64 ||
        !kind->count(config, count)) {
        return MV_ERROR_SIZE;
    }
    return mv_view_check(config->view, config->outputs);
}

mv_status
mv_verifier_create(const mv_verifier_config *config, mv_verifier **verifier)
{
    mv_verifier *self = NULL;
    const mv_kind *kind = find_kind(config->kind);
    size_t features;
    size_t count;
    mv_status status = check_config(config, kind, &features, &count);
    if (status) {
        goto done;
    }
    status = MV_ERROR_MEMORY;
    self = mv_alloc(sizeof *self);
    if (!self) {
        goto done;
    }
    self->config = *config;
    self->kind = kind;
    self->gemm = mv_gemm_select();
    self->features = features;
    self->units = kind->unit_per_query ? config->queries : 1;
    self->count = count;
    self->parameters = mv_alloc_floats(count);
    self->gradient = mv_alloc_floats(count);
    self->first = mv_alloc_floats(count);
    self->second = mv_alloc_floats(count);
    self->shift = mv_alloc_floats(features);
    self->scale = mv_alloc_floats(config->outputs);
    if (!self->parameters || !self->gradient || !self->first || !self->second || !self->shift || !self->scale) {
        goto done;
    }
    if (kind == &mv_kind_matched && mv_matched_create(features, &self->matched) != MV_OK) {
        goto done;
    }
    for (size_t k = 0; k < config->outputs; k++) {
        self->scale[k] = 1.0f;
    }
    kind->initialize(self);
    *verifier = self;
    self = NULL;
    status = MV_OK;
done:
    mv_verifier_destroy(self);
    return status;
}

mv_status
mv_verifier_copy(const mv_verifier *verifier, mv_verifier **copy)
{
    mv_verifier *self = NULL;
    mv_status status = mv_verifier_create(&verifier->config, &self);
    if (status) {
        goto done;
    }
    if (verifier->kind == &mv_kind_matched) {
        mv_matched_free(&self->matched);
        status = mv_matched_copy(&verifier->matched, verifier->features, &self->matched);
        if (status) {
            goto done;
        }
    }
    self->steps = verifier->steps;
    self->adam_steps = verifier->adam_steps;
    memcpy(self->parameters, verifier->parameters, verifier->count * sizeof *self->parameters);
    memcpy(self->first, verifier->first, verifier->count * sizeof *self->first);
    memcpy(self->second, verifier->second, verifier->count * sizeof *self->second);
    memcpy(self->shift, verifier->shift, verifier->features * sizeof *self->shift);
    memcpy(self->scale, verifier->scale, verifier->config.outputs * sizeof *self->scale);
    *copy = self;
    self = NULL;
done:
    mv_verifier_destroy(self);
    return status;
}

void
mv_verifier_destroy(mv_verifier *verifier)
{
    if (!verifier) {
        return;
    }
    mv_free(verifier->parameters);
    mv_free(verifier->gradient);
    mv_free(verifier->first);
    mv_free(verifier->second);
    mv_free(verifier->shift);
    mv_free(verifier->scale);
    mv_matched_free(&verifier->matched);
    mv_arena_free(&verifier->arena);
    mv_free(verifier);
}

const mv_verifier_config *
mv_verifier_get_config(const mv_verifier *verifier)
{
    return &verifier->config;
}

uint64_t
mv_verifier_get_steps(const mv_verifier *verifier)
{
    return verifier->steps;
}

/* Scratch --------------------------------------------------------------------------------------------------------- */

/* Takes every part from the arena, or only counts if the arena has no memory yet. */
static void
carve(const mv_verifier *self, size_t models, mv_arena *arena, mv_workspace *work)
{
    const size_t dense = models * self->features * sizeof(float);
    const size_t logits = models * self->units * sizeof(float);
    const size_t hidden = models * self->kind->width(self) * sizeof(float);
    work->z = mv_arena_take(arena, dense);
    work->z_gradient = mv_arena_take(arena, dense);
    work->logits = mv_arena_take(arena, logits);
    work->logits_gradient = mv_arena_take(arena, logits);
    work->hidden = mv_arena_take(arena, hidden);
    work->hidden_gradient = mv_arena_take(arena, hidden);
    work->inner = mv_arena_take(arena, models * 2 * sizeof *work->inner);
    work->keep = mv_arena_take(arena, models * self->config.queries * sizeof *work->keep);
    work->share = mv_arena_take(arena, models * sizeof *work->share);
    work->partner = mv_arena_take(arena, models * sizeof *work->partner);
    work->row = mv_arena_take(arena, mv_view_scratch(self->config.outputs) * sizeof *work->row);
}

mv_status
mv_workspace_prepare(mv_verifier *self, size_t models, mv_workspace *work)
{
    const size_t width = self->kind->width(self);
    const size_t widest = self->features > width ? self->features : width;
    size_t product;
    /* No part exceeds 64 * models * (widest + 2) bytes and there are 11: their sum fits where this does. */
    if (!models || !mv_multiply(models, widest + 2, &product) || product > PTRDIFF_MAX / 1024) {
        return MV_ERROR_SIZE;
    }
    mv_arena measure = {0};
    carve(self, models, &measure, work);
    if (!mv_arena_reserve(&self->arena, measure.used)) {
        return MV_ERROR_MEMORY;
    }
    carve(self, models, &self->arena, work);
    return MV_OK;
}

/* Responses to logits --------------------------------------------------------------------------------------------- */

static mv_shape
shape_of(const mv_verifier *self, size_t models)
{
    return (mv_shape){models, self->config.queries, self->config.outputs};
}

static void
standardize_features(const mv_verifier *self, size_t models, float *z)
{
    const size_t outputs = self->config.outputs;
    for (size_t m = 0; m < models; m++) {
        for (size_t n = 0; n < self->config.queries; n++) {
            float *row = z + (m * self->config.queries + n) * outputs;
            const float *shift = self->shift + n * outputs;
            for (size_t k = 0; k < outputs; k++) {
                row[k] = (row[k] - shift[k]) / self->scale[k];
            }
        }
    }
}

void
mv_verifier_features(const mv_verifier *self, size_t models, const float *responses, float *z, double *row)
{
    mv_view_features(self->config.view, shape_of(self, models), responses, z, row);
    standardize_features(self, models, z);
}

mv_status
mv_verifier_standardize(mv_verifier *self, size_t models, const float *responses)
{
    mv_workspace work;
    const size_t features = self->features;
    const size_t outputs = self->config.outputs;
    const mv_status status = mv_workspace_prepare(self, models, &work);
    if (status) {
        return status;
    }
    if (!mv_all_finite(responses, models * features)) {
        return MV_ERROR_RESPONSES;
    }
    mv_view_features(self->config.view, shape_of(self, models), responses, work.z, work.row);
    double *squares = work.row; /* (K): the view is done with it */
    memset(squares, 0, outputs * sizeof *squares);
    double total = 0.0;
    for (size_t i = 0; i < features; i++) {
        double sum = 0.0;
        for (size_t m = 0; m < models; m++) {
            sum += work.z[m * features + i];
        }
        const double mean = sum / (double)models;
        self->shift[i] = (float)mean;
        for (size_t m = 0; m < models; m++) {
            const double x = work.z[m * features + i] - mean;
            squares[i % outputs] += x * x;
            total += x * x;
        }
    }
    const double least = LEAST_SCALE_SHARE * sqrt(total / ((double)models * (double)features)) + LEAST_SCALE;
    const double count = (double)models * (double)self->config.queries;
    for (size_t k = 0; k < outputs; k++) {
        self->scale[k] = (float)fmax(sqrt(squares[k] / count), least);
    }
    return MV_OK;
}

static mv_status
check_use(const mv_verifier *self)
{
    return self->kind == &mv_kind_matched && !self->matched.fitted ? MV_ERROR_NOT_FITTED : MV_OK;
}

/* work->logits (models, units) of raw responses */
static mv_status
find_logits(mv_verifier *self, size_t models, const float *responses, mv_workspace *work)
{
    mv_status status = check_use(self);
    if (!status) {
        status = mv_workspace_prepare(self, models, work);
    }
    if (status) {
        return status;
    }
    if (!mv_all_finite(responses, models * self->features)) {
        return MV_ERROR_RESPONSES;
    }
    mv_verifier_features(self, models, responses, work->z, work->row);
    self->kind->forward(self, work, models);
    return mv_all_finite(work->logits, models * self->units) ? MV_OK : MV_ERROR_LOSS;
}

static double
mean_score(const float *logits, size_t units)
{
    double sum = 0.0;
    for (size_t u = 0; u < units; u++) {
        sum += mv_sigmoid(logits[u]);
    }
    return sum / (double)units;
}

mv_status
mv_verifier_logits(mv_verifier *self, size_t models, const float *responses, float *logits)
{
    mv_workspace work;
    const mv_status status = find_logits(self, models, responses, &work);
    if (status) {
        return status;
    }
    for (size_t m = 0; m < models; m++) {
        if (!self->kind->unit_per_query) {
            logits[m] = work.logits[m];
            continue;
        }
        const double score = mean_score(work.logits + m * self->units, self->units);
        const double inside = fmin(fmax(score, SCORE_MARGIN), 1.0 - SCORE_MARGIN);
        logits[m] = (float)log(inside / (1.0 - inside));
    }
    return MV_OK;
}

mv_status
mv_verifier_scores(mv_verifier *self, size_t models, const float *responses, float *scores)
{
    mv_workspace work;
    const mv_status status = find_logits(self, models, responses, &work);
    if (status) {
        return status;
    }
    for (size_t m = 0; m < models; m++) {
        scores[m] = (float)mean_score(work.logits + m * self->units, self->units);
    }
    return MV_OK;
}

/* The step -------------------------------------------------------------------------------------------------------- */

static bool
at_least_zero(double x)
{
    return x >= 0.0 && isfinite(x);
}

static mv_status
check_step(const mv_verifier *self, size_t models, const uint8_t *roles, const mv_step_options *options)
{
    if (!at_least_zero(options->learning_rate) || !at_least_zero(options->weight_decay) ||
        !at_least_zero(options->noise) || !at_least_zero(options->owner) || !at_least_zero(options->positive) ||
        !at_least_zero(options->negative) || !(options->mix >= 0.0 && options->mix <= 1.0) ||
        !(options->dropout >= 0.0 && options->dropout < 1.0)) {
        return MV_ERROR_OPTION;
    }
    for (size_t m = 0; m < models; m++) {
        if (roles[m] >= MV_ROLE_COUNT) {
            return MV_ERROR_ROLES;
        }
    }
    return check_use(self);
}

/* The three-term loss; fills work->logits_gradient. */
static double
find_loss(const mv_verifier *self, size_t models, const uint8_t *roles, const mv_step_options *options,
          mv_workspace *work)
{
    const double weights[MV_ROLE_COUNT] = {
        [MV_ROLE_NEGATIVE] = options->negative,
        [MV_ROLE_POSITIVE] = options->positive,
        [MV_ROLE_OWNER] = options->owner,
    };
    size_t counts[MV_ROLE_COUNT] = {0};
    for (size_t m = 0; m < models; m++) {
        counts[roles[m]]++;
    }
    double loss = 0.0;
    for (size_t m = 0; m < models; m++) {
        const double weight = weights[roles[m]] / ((double)counts[roles[m]] * (double)self->units);
        const double target = roles[m] == MV_ROLE_NEGATIVE ? 0.0 : 1.0;
        for (size_t u = 0; u < self->units; u++) {
            const double logit = work->logits[m * self->units + u];
            loss += weight * (mv_softplus(logit) - target * logit);
            work->logits_gradient[m * self->units + u] = (float)(weight * (mv_sigmoid(logit) - target));
        }
    }
    return loss;
}

/* work->z_gradient to the gradient with respect to the raw responses */
static void
find_response_gradient(const mv_verifier *self, size_t models, const float *responses, const mv_step_options *options,
                       mv_workspace *work, float *gradient)
{
    const size_t outputs = self->config.outputs;
    mv_augment_backward(self, models, options, work);
    for (size_t i = 0; i < models * self->config.queries; i++) {
        for (size_t k = 0; k < outputs; k++) {
            work->z_gradient[i * outputs + k] /= self->scale[k];
        }
    }
    mv_view_response_gradient(self->config.view, shape_of(self, models), responses, work->z_gradient, gradient,
                              work->row);
}

mv_status
mv_verifier_step(mv_verifier *self, size_t models, const float *responses, const uint8_t *roles,
                 const mv_step_options *options, float *gradient, double *loss)
{
    mv_workspace work;
    mv_status status = check_step(self, models, roles, options);
    if (!status) {
        status = mv_workspace_prepare(self, models, &work);
    }
    if (status) {
        return status;
    }
    if (!mv_all_finite(responses, models * self->features)) {
        return MV_ERROR_RESPONSES;
    }
    mv_verifier_features(self, models, responses, work.z, work.row);
    mv_augment(self, models, roles, options, &work);
    self->kind->forward(self, &work, models);
    const double value = find_loss(self, models, roles, options, &work);
    if (!isfinite(value)) {
        return MV_ERROR_LOSS;
    }
    self->kind->backward(self, &work, models, options->update, gradient != NULL);
    if (gradient) {
        find_response_gradient(self, models, responses, options, &work, gradient);
    }
    if (options->update) {
        self->steps++;
        self->adam_steps++;
        mv_adam_update(self->adam_steps, options->learning_rate, options->weight_decay, self->count, self->parameters,
                       self->gradient, self->first, self->second);
    }
    *loss = value;
    return MV_OK;
}
