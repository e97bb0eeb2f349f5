#include "metav.h"
#include "mv_cpu.h"
#include "mv_finite.h"
#include "mv_memory.h"
#include "mv_pool.h"

#include <math.h>
#include <string.h>

struct mv_query_optimizer {
    mv_query_config config;
    const mv_kernels *kernels;
    uint64_t steps;
    float *natural, *first_moment, *second_moment; /* (queries, features) */
    float *master;        /* (queries, features) with levels; NULL without: the caller's queries are it */
    float *lower, *upper; /* (features) */
    bool *refused;        /* (queries) whose gradient was not finite in this update */
};

typedef struct interval {
    double lower, upper;
} interval;

static mv_status
check_config(const mv_query_config *config, size_t *count)
{
    if (!config->queries || !config->features || !mv_multiply(config->queries, config->features, count)) {
        return MV_ERROR_SIZE;
    }
    const bool levels_fit = config->levels == 0 || (config->levels >= 2 && config->levels <= 65536);
    return config->radius >= 0.0 && levels_fit ? MV_OK : MV_ERROR_OPTION;
}

static mv_status
check_tensors(const mv_query_config *config, const float *natural, const float *lower, const float *upper)
{
    const size_t features = config->features;
    if (!mv_all_finite(lower, features) || !mv_all_finite(upper, features)) {
        return MV_ERROR_BOUNDS;
    }
    for (size_t j = 0; j < features; j++) {
        if (lower[j] > upper[j]) {
            return MV_ERROR_BOUNDS;
        }
    }
    if (!mv_all_finite(natural, config->queries * features)) {
        return MV_ERROR_NATURAL;
    }
    for (size_t i = 0; i < config->queries; i++) { /* (queries, features) */
        for (size_t j = 0; j < features; j++) {
            const float value = natural[i * features + j];
            if (value < lower[j] || value > upper[j]) {
                return MV_ERROR_NATURAL;
            }
        }
    }
    return MV_OK;
}

mv_status
mv_query_optimizer_create(const mv_query_config *config, const float *natural, const float *lower, const float *upper,
                          mv_query_optimizer **optimizer)
{
    size_t count;
    mv_query_optimizer *self = NULL;
    mv_status status = check_config(config, &count);
    if (!status) {
        status = check_tensors(config, natural, lower, upper);
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
    self->kernels = mv_kernels_get();
    self->natural = mv_alloc_floats(count);
    self->master = config->levels ? mv_alloc_floats(count) : NULL;
    self->first_moment = mv_alloc_floats(count);
    self->second_moment = mv_alloc_floats(count);
    self->lower = mv_alloc_floats(config->features);
    self->upper = mv_alloc_floats(config->features);
    self->refused = mv_alloc(config->queries * sizeof *self->refused);
    if (!self->natural || !self->first_moment || !self->second_moment || !self->lower || !self->upper ||
        !self->refused || (config->levels && !self->master)) {
        goto done;
    }
    memcpy(self->natural, natural, count * sizeof *natural);
    if (self->master) {
        memcpy(self->master, natural, count * sizeof *natural);
    }
    memcpy(self->lower, lower, config->features * sizeof *lower);
    memcpy(self->upper, upper, config->features * sizeof *upper);
    *optimizer = self;
    self = NULL;
    status = MV_OK;
done:
    mv_query_optimizer_destroy(self);
    return status;
}

void
mv_query_optimizer_destroy(mv_query_optimizer *optimizer)
{
    if (!optimizer) {
        return;
    }
    mv_free(optimizer->natural);
    mv_free(optimizer->master);
    mv_free(optimizer->first_moment);
    mv_free(optimizer->second_moment);
    mv_free(optimizer->lower);
    mv_free(optimizer->upper);
    mv_free(optimizer->refused);
    mv_free(optimizer);
}

/* What radius and bounds leave to one feature. */
static interval
allowed(double natural, double lower, double upper, double radius)
{
    const double range = upper - lower;
    if (!isfinite(radius) || range == 0.0) {
        return (interval){lower, upper};
    }
    return (interval){fmax(lower, natural - radius * range), fmin(upper, natural + radius * range)};
}

/* The nearest level inside the interval; x itself if there is none. */
static double
to_level(double x, double lower, double upper, interval inside, int levels)
{
    const double range = upper - lower;
    if (range == 0.0) {
        return x;
    }
    const double last = (double)(levels - 1);
    double index = rint((x - lower) / range * last);
    /* Levels are the float32 values that will be written, so that one equal to a bound counts as inside. */
    double value = (float)(lower + index * range / last);
    if (value > inside.upper) {
        index -= 1.0;
    }
    else if (value < inside.lower) {
        index += 1.0;
    }
    value = (float)(lower + index * range / last);
    return value >= inside.lower && value <= inside.upper ? value : x;
}

/* Writes query number i: its master, clamped, at the nearest level. */
static void
round_to_levels(const mv_query_optimizer *self, size_t i, float *query)
{
    const size_t features = self->config.features;
    const float *natural = self->natural + i * features;
    const float *master = self->master + i * features;
    for (size_t j = 0; j < features; j++) {
        const double lower = self->lower[j];
        const double upper = self->upper[j];
        const interval inside = allowed(natural[j], lower, upper, self->config.radius);
        const double level = to_level(master[j], lower, upper, inside, self->config.levels);
        query[j] = fminf(fmaxf((float)level, self->lower[j]), self->upper[j]);
    }
}

typedef struct update_job {
    mv_query_optimizer *self;
    const float *gradient;
    const mv_adam_step *adam;
    float *queries;
} update_job;

static void
update_queries(void *context, size_t start, size_t end, size_t thread)
{
    const update_job *job = context;
    const mv_query_optimizer *self = job->self;
    const size_t features = self->config.features;
    (void)thread;
    for (size_t i = start; i < end; i++) { /* (queries, features) */
        const size_t at = i * features;
        float *master = self->master ? self->master + at : job->queries + at;
        /* Query by query: the gradient is read from far away once, and from the cache the second time. */
        self->refused[i] = !self->kernels->all_finite(features, job->gradient + at);
        if (self->refused[i]) {
            continue;
        }
        self->kernels->update_query(job->adam, &(mv_query){
                                                   .features = features,
                                                   .natural = self->natural + at,
                                                   .lower = self->lower,
                                                   .upper = self->upper,
                                                   .gradient = job->gradient + at,
                                                   .master = master,
                                                   .first_moment = self->first_moment + at,
                                                   .second_moment = self->second_moment + at,
                                                   .radius = (float)self->config.radius,
                                               });
        if (self->master) {
            round_to_levels(self, i, job->queries + at);
        }
    }
}

/* Operations of one feature, on the scale of mv_pool_pays. */
enum { PLAIN_OPERATIONS = 64, LEVEL_OPERATIONS = 500 };

mv_status
mv_query_optimizer_update(mv_query_optimizer *self, const float *gradient, double learning_rate, float *queries)
{
    const mv_query_config *config = &self->config;
    if (!(learning_rate >= 0.0) || !isfinite(learning_rate)) {
        return MV_ERROR_OPTION;
    }
    const mv_adam_step adam = mv_adam_prepare(self->steps + 1, learning_rate, 0.0);
    update_job job = {self, gradient, &adam, queries};
    const double count = (double)(config->queries * config->features);
    const double operations = count * (config->levels ? LEVEL_OPERATIONS : PLAIN_OPERATIONS);
    mv_pool_run(mv_pool_pays(mv_get_threads(), operations), config->queries, update_queries, &job);
    size_t refused = 0;
    for (size_t i = 0; i < config->queries; i++) {
        refused += self->refused[i];
    }
    self->steps += refused < config->queries; /* an update of no query is none */
    return refused ? MV_ERROR_GRADIENT : MV_OK;
}
