#include "mv_verifier.h"

#include "mv_augment.h"
#include "mv_cpu.h"
#include "mv_finite.h"
#include "mv_pool.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* A scale is at least this share of the overall one, plus a little. */
#define SCALE_FLOOR_SHARE 1e-3
#define SCALE_FLOOR 1e-6

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

/* The table of kinds, in the order in which callers try them. A new one is a file that fills an mv_kind, a declaration
 * and a row here. */
extern const mv_kind mv_kind_mlp;
extern const mv_kind mv_kind_local;
extern const mv_kind mv_kind_matched;

static const mv_kind *const KINDS[] = {
    &mv_kind_mlp,     /* a hidden layer over all queries */
    &mv_kind_local,   /* a linear unit for each query */
    &mv_kind_matched, /* a matched filter */
};

enum { KIND_COUNT = sizeof KINDS / sizeof *KINDS };

static_assert((int)KIND_COUNT <= (int)MV_MAX_KINDS, "mv_kind_list has no room for all kinds");

size_t
mv_kind_list(const char *names[MV_MAX_KINDS])
{
    for (size_t i = 0; i < KIND_COUNT; i++) {
        names[i] = KINDS[i]->name;
    }
    return KIND_COUNT;
}

const mv_kind *
mv_kind_find(const char *name)
{
    for (size_t i = 0; i < KIND_COUNT; i++) {
        if (strcmp(KINDS[i]->name, name) == 0) {
            return KINDS[i];
        }
    }
    return NULL;
}

const char *
mv_kind_get_name(const mv_kind *kind)
{
    return kind->name;
}

mv_kind_traits
mv_kind_get_traits(const mv_kind *kind)
{
    return (mv_kind_traits){
        .closed_form = kind->fit_closed_form != NULL,
        .preferred = kind->preferred,
        .pairs_with_owner = kind->pairs_with_owner,
    };
}

mv_status
mv_verifier_check_sizes(const mv_verifier_config *config, size_t *features, size_t *trainable_count)
{
    if (!config->kind) {
        return MV_ERROR_KIND;
    }
    const bool fits = config->queries && config->outputs && config->hidden &&
                      mv_multiply(config->queries, config->outputs, features) && *features <= PTRDIFF_MAX / 64 &&
                      config->kind->count(config, trainable_count);
    return fits ? MV_OK : MV_ERROR_SIZE;
}

mv_status
mv_verifier_create(const mv_verifier_config *config, mv_verifier **verifier)
{
    mv_verifier *self = NULL;
    const mv_kind *kind = config->kind;
    size_t features;
    size_t count;
    mv_status status = mv_verifier_check_sizes(config, &features, &count);
    if (!status) {
        status = mv_view_check(config->view, config->outputs);
    }
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
    self->kernels = mv_kernels_get();
    self->features = features;
    self->units = kind->unit_per_query ? config->queries : 1;
    self->trainable_count = count;
    self->parameters = mv_alloc_floats(count);
    self->first_moment = mv_alloc_floats(count);
    self->second_moment = mv_alloc_floats(count);
    self->shift = mv_alloc_floats(features);
    self->scale = mv_alloc_floats(config->outputs);
    self->inverse_scale = mv_alloc_floats(features);
    if (!self->parameters || !self->first_moment || !self->second_moment || !self->shift || !self->scale ||
        !self->inverse_scale) {
        goto done;
    }
    if (kind->create && kind->create(self) != MV_OK) {
        goto done;
    }
    for (size_t k = 0; k < config->outputs; k++) {
        self->scale[k] = 1.0f;
    }
    mv_verifier_invert_scale(self);
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
    if (verifier->kind->copy) {
        status = verifier->kind->copy(verifier, self);
        if (status) {
            goto done;
        }
    }
    self->steps = verifier->steps;
    self->adam_steps = verifier->adam_steps;
    memcpy(self->parameters, verifier->parameters, verifier->trainable_count * sizeof *self->parameters);
    memcpy(self->first_moment, verifier->first_moment, verifier->trainable_count * sizeof *self->first_moment);
    memcpy(self->second_moment, verifier->second_moment, verifier->trainable_count * sizeof *self->second_moment);
    memcpy(self->shift, verifier->shift, verifier->features * sizeof *self->shift);
    memcpy(self->scale, verifier->scale, verifier->config.outputs * sizeof *self->scale);
    mv_verifier_invert_scale(self);
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
    mv_free(verifier->first_moment);
    mv_free(verifier->second_moment);
    mv_free(verifier->shift);
    mv_free(verifier->scale);
    mv_free(verifier->inverse_scale);
    if (verifier->kind->destroy) {
        verifier->kind->destroy(verifier);
    }
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

void
mv_verifier_invert_scale(mv_verifier *self)
{
    for (size_t i = 0; i < self->features; i++) {
        self->inverse_scale[i] = 1.0f / self->scale[i % self->config.outputs];
    }
}

/* Scratch --------------------------------------------------------------------------------------------------------- */

/* Takes every part from the arena, or only counts if the arena has no memory yet. */
static void
carve(const mv_verifier *self, size_t models, mv_arena *arena, mv_workspace *work)
{
    const size_t width = self->kind->hidden_width(self);
    const size_t dense = models * self->features * sizeof(float);
    const size_t logits = models * self->units * sizeof(float);
    const size_t hidden = models * width * sizeof(float);
    work->z = mv_arena_take(arena, dense);
    work->z_gradient = mv_arena_take(arena, dense);
    work->logits = mv_arena_take(arena, logits);
    work->logits_gradient = mv_arena_take(arena, logits);
    work->hidden = mv_arena_take(arena, hidden);
    work->hidden_gradient = mv_arena_take(arena, hidden);
    work->carried = mv_arena_take(arena, models * 2 * sizeof *work->carried);
    work->dropout_factor = mv_arena_take(arena, models * self->config.queries * sizeof *work->dropout_factor);
    work->mix_share = mv_arena_take(arena, models * sizeof *work->mix_share);
    work->mix_partner = mv_arena_take(arena, models * sizeof *work->mix_partner);
    work->view_scratch =
        mv_arena_take(arena, work->threads * mv_view_scratch(self->config.outputs) * sizeof *work->view_scratch);
    work->finite = mv_arena_take(arena, work->threads * sizeof *work->finite);
    work->gradient = mv_arena_take(arena, self->kind->gradient_count(self) * sizeof *work->gradient);
    work->product_scratch =
        mv_arena_take(arena, mv_gemm_scratch(work->threads, models, width) * sizeof *work->product_scratch);
}

mv_status
mv_workspace_prepare(mv_verifier *self, size_t models, mv_workspace *work)
{
    const size_t width = self->kind->hidden_width(self);
    const size_t widest = self->features > width ? self->features : width;
    size_t product;
    /* No part is larger than 2^18 * models * (widest + 2) bytes, the scratch of all threads, and there are 14. */
    if (!models || !mv_multiply(models, widest + 2, &product) || product > (size_t)PTRDIFF_MAX >> 22) {
        return MV_ERROR_SIZE;
    }
    mv_arena measure = {0};
    work->threads = mv_get_threads();
    work->gradient_scale = NULL;
    carve(self, models, &measure, work);
    work->has_arena = !atomic_exchange_explicit(&self->arena_taken, true, memory_order_acquire);
    mv_arena *arena = work->has_arena ? &self->arena : &work->own;
    if (!mv_arena_reserve(arena, measure.used)) {
        return MV_ERROR_MEMORY;
    }
    carve(self, models, arena, work);
    return MV_OK;
}

void
mv_workspace_release(mv_verifier *self, mv_workspace *work)
{
    mv_arena_free(&work->own);
    if (work->has_arena) {
        work->has_arena = false;
        atomic_store_explicit(&self->arena_taken, false, memory_order_release);
    }
}

/* Responses to logits --------------------------------------------------------------------------------------------- */

/* Raw responses on their way to z, or z's gradient on its way back to theirs. */
typedef struct response_job {
    const mv_verifier *self;
    const float *responses;
    float *result; /* (M, D) */
    mv_workspace *work;
} response_job;

/* One model after the other, so that its numbers stay in the cache from the check to z. */
static void
find_features(void *context, size_t start, size_t end, size_t thread)
{
    const response_job *job = context;
    const mv_verifier *self = job->self;
    const mv_kernels *kernels = self->kernels;
    const size_t features = self->features;
    double *scratch = job->work->view_scratch + thread * mv_view_scratch(self->config.outputs);
    bool finite = true;
    for (size_t m = start; m < end && finite; m++) { /* (M, D) */
        const float *responses = job->responses + m * features;
        float *z = job->result + m * features;
        if (mv_view_is_identity(self->config.view)) {
            finite = kernels->standardize(features, responses, self->shift, self->inverse_scale, z);
            continue;
        }
        finite = kernels->all_finite(features, responses);
        if (finite) {
            mv_view_features(kernels, self->config.view, self->config.queries, self->config.outputs, responses, z,
                             scratch);
            (void)kernels->standardize(features, z, self->shift, self->inverse_scale, z);
        }
    }
    job->work->finite[thread] = finite;
}

/* Operations of one response in a view, on the scale of mv_pool_pays. */
enum { VIEW_OPERATIONS = 64 };

mv_status
mv_verifier_features(const mv_verifier *self, size_t models, const float *responses, float *z, mv_workspace *work)
{
    response_job job = {self, responses, z, work};
    const double operations = (double)models * (double)self->features * (double)VIEW_OPERATIONS;
    memset(work->finite, true, work->threads * sizeof *work->finite);
    mv_pool_run(mv_pool_pays(work->threads, operations), models, find_features, &job);
    for (size_t t = 0; t < work->threads; t++) {
        if (!work->finite[t]) {
            return MV_ERROR_RESPONSES;
        }
    }
    return MV_OK;
}

mv_status
mv_verifier_standardize(mv_verifier *self, size_t models, const float *responses)
{
    mv_workspace work = {0};
    const size_t features = self->features;
    const size_t outputs = self->config.outputs;
    mv_status status = mv_workspace_prepare(self, models, &work);
    if (!status && !mv_all_finite(responses, models * features)) {
        status = MV_ERROR_RESPONSES;
    }
    if (status) {
        goto done;
    }
    for (size_t m = 0; m < models; m++) {
        mv_view_features(self->kernels, self->config.view, self->config.queries, outputs, responses + m * features,
                         work.z + m * features, work.view_scratch);
    }
    double *squares = work.view_scratch; /* (K): the view is done with it */
    memset(squares, 0, outputs * sizeof *squares);
    double total = 0.0;
    for (size_t i = 0; i < features; i++) { /* (D, M): each feature over the models */
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
    const double scale_floor = SCALE_FLOOR_SHARE * sqrt(total / ((double)models * (double)features)) + SCALE_FLOOR;
    const double count = (double)models * (double)self->config.queries;
    for (size_t k = 0; k < outputs; k++) {
        self->scale[k] = (float)fmax(sqrt(squares[k] / count), scale_floor);
    }
    mv_verifier_invert_scale(self);
done:
    mv_workspace_release(self, &work);
    return status;
}

static mv_status
check_use(const mv_verifier *self)
{
    return self->kind->check ? self->kind->check(self) : MV_OK;
}

/* work->logits (models, units) of raw responses; the caller gives the workspace back. */
static mv_status
find_logits(mv_verifier *self, size_t models, const float *responses, mv_workspace *work)
{
    mv_status status = check_use(self);
    if (!status) {
        status = mv_workspace_prepare(self, models, work);
    }
    if (!status) {
        status = mv_verifier_features(self, models, responses, work->z, work);
    }
    if (status) {
        return status;
    }
    self->kind->forward(self, work, models);
    return mv_all_finite(work->logits, models * self->units) ? MV_OK : MV_ERROR_LOSS;
}

/* Of logits (units) of one model. */
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
    mv_workspace work = {0};
    const mv_status status = find_logits(self, models, responses, &work);
    for (size_t m = 0; !status && m < models; m++) {
        if (!self->kind->unit_per_query) {
            logits[m] = work.logits[m];
            continue;
        }
        const double score = mean_score(work.logits + m * self->units, self->units);
        const double inside = fmin(fmax(score, SCORE_MARGIN), 1.0 - SCORE_MARGIN);
        logits[m] = (float)log(inside / (1.0 - inside));
    }
    mv_workspace_release(self, &work);
    return status;
}

mv_status
mv_verifier_scores(mv_verifier *self, size_t models, const float *responses, float *scores)
{
    mv_workspace work = {0};
    const mv_status status = find_logits(self, models, responses, &work);
    for (size_t m = 0; !status && m < models; m++) {
        scores[m] = (float)mean_score(work.logits + m * self->units, self->units);
    }
    mv_workspace_release(self, &work);
    return status;
}

/* The closed form ------------------------------------------------------------------------------------------------- */

mv_status
mv_verifier_fit_closed_form(mv_verifier *self, const float *owner, size_t models, const float *negatives,
                            double shrinkage, double floor)
{
    if (!self->kind->fit_closed_form) {
        return MV_ERROR_NO_CLOSED_FORM;
    }
    if (models < 2) {
        return MV_ERROR_FEW_NEGATIVES;
    }
    if (!(shrinkage > 0.0 && shrinkage <= 1.0) || !(floor >= 0.0) || !isfinite(floor)) {
        return MV_ERROR_OPTION;
    }
    if (!mv_all_finite(owner, self->features)) {
        return MV_ERROR_OWNER_RESPONSES;
    }
    if (!mv_all_finite(negatives, models * self->features)) {
        return MV_ERROR_NEGATIVE_RESPONSES;
    }
    return self->kind->fit_closed_form(self, owner, models, negatives, shrinkage, floor);
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

/* The three-term loss; fills work->logits_gradient (M, units). */
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
    for (size_t m = 0; m < models; m++) { /* (M, units) */
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

static void
backpropagate_models(void *context, size_t start, size_t end, size_t thread)
{
    const response_job *job = context;
    const mv_verifier *self = job->self;
    const size_t features = self->features;
    double *scratch = job->work->view_scratch + thread * mv_view_scratch(self->config.outputs);
    for (size_t m = start; m < end; m++) { /* (M, D) */
        float *z_gradient = job->work->z_gradient + m * features;
        float *gradient = job->result + m * features;
        const bool identity = mv_view_is_identity(self->config.view);
        self->kernels->scale(features, z_gradient, self->inverse_scale, identity ? gradient : z_gradient);
        if (!identity) {
            mv_view_response_gradient(self->kernels, self->config.view, self->config.queries, self->config.outputs,
                                      job->responses + m * features, z_gradient, gradient, scratch);
        }
    }
}

/* gradient (M, D) with respect to the raw responses from work->z_gradient (M, D) */
static void
find_response_gradient(const mv_verifier *self, size_t models, const float *responses, const mv_step_options *options,
                       mv_workspace *work, float *gradient)
{
    response_job job = {self, responses, gradient, work};
    const double operations = (double)models * (double)self->features * (double)VIEW_OPERATIONS;
    mv_augment_backward(self, models, options, work);
    mv_pool_run(mv_pool_pays(work->threads, operations), models, backpropagate_models, &job);
}

/* Is the response gradient d loss / d z * 1 / scale, and nothing else? Then backward can write it itself. */
static bool
is_only_scaled(const mv_verifier *self, const mv_step_options *options)
{
    return self->kind->fuses_scale && mv_view_is_identity(self->config.view) && options->mix <= 0.0 &&
           options->dropout <= 0.0;
}

void
mv_verifier_update(mv_verifier *self, const mv_adam_step *adam, size_t start, size_t count, const float *gradient)
{
    self->kernels->adam(adam, count, gradient, self->parameters + start, self->first_moment + start,
                        self->second_moment + start);
}

mv_status
mv_verifier_step(mv_verifier *self, size_t models, const float *responses, const uint8_t *roles,
                 const mv_step_options *options, float *gradient, double *loss)
{
    mv_workspace work = {0};
    mv_adam_step adam;
    mv_status status = check_step(self, models, roles, options);
    if (!status) {
        status = mv_workspace_prepare(self, models, &work);
    }
    if (!status) {
        status = mv_verifier_features(self, models, responses, work.z, &work);
    }
    if (status) {
        goto done;
    }
    mv_augment(self, models, roles, options, &work);
    self->kind->forward(self, &work, models);
    const double value = find_loss(self, models, roles, options, &work);
    if (!isfinite(value)) {
        status = MV_ERROR_LOSS;
        goto done;
    }
    const bool by_backward = gradient && is_only_scaled(self, options);
    if (by_backward) {
        work.z_gradient = gradient;
        work.gradient_scale = self->inverse_scale;
    }
    adam = mv_adam_prepare(self->adam_steps + 1, options->learning_rate, options->weight_decay);
    self->kind->backward(self, &work, models, options->update ? &adam : NULL, gradient != NULL);
    if (gradient && !by_backward) {
        find_response_gradient(self, models, responses, options, &work, gradient);
    }
    if (options->update) {
        self->steps++;
        self->adam_steps++;
    }
    *loss = value;
done:
    mv_workspace_release(self, &work);
    return status;
}
