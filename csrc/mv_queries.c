#include "metav.h"
#include "mv_adam.h"
#include "mv_finite.h"
#include "mv_memory.h"

#include <math.h>
#include <string.h>

struct mv_query_optimizer {
    mv_query_config config;
    uint64_t steps;
    float *natural, *master, *first, *second; /* (queries, features) */
    float *lower, *upper;                     /* (features) */
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
    for (size_t i = 0; i < config->queries; i++) {
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
    self->natural = mv_alloc_floats(count);
    self->master = mv_alloc_floats(count);
    self->first = mv_alloc_floats(count);
    self->second = mv_alloc_floats(count);
    self->lower = mv_alloc_floats(config->features);
    self->upper = mv_alloc_floats(config->features);
    if (!self->natural || !self->master || !self->first || !self->second || !self->lower || !self->upper) {
        goto done;
    }
    memcpy(self->natural, natural, count * sizeof *natural);
    memcpy(self->master, natural, count * sizeof *natural);
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
    mv_free(optimizer->first);
    mv_free(optimizer->second);
    mv_free(optimizer->lower);
    mv_free(optimizer->upper);
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

mv_status
mv_query_optimizer_update(mv_query_optimizer *self, const float *gradient, double learning_rate, float *queries)
{
    const mv_query_config *config = &self->config;
    const size_t features = config->features;
    if (!(learning_rate >= 0.0) || !isfinite(learning_rate)) {
        return MV_ERROR_OPTION;
    }
    if (!mv_all_finite(gradient, config->queries * features)) {
        return MV_ERROR_GRADIENT;
    }
    const mv_adam_step adam = mv_adam_prepare(++self->steps);
    for (size_t i = 0; i < config->queries; i++) {
        for (size_t j = 0; j < features; j++) {
            const size_t at = i * features + j;
            const double lower = self->lower[j];
            const double upper = self->upper[j];
            const interval inside = allowed(self->natural[at], lower, upper, config->radius);
            const double move = mv_adam_direction(&adam, gradient[at], self->first + at, self->second + at);
            double x = self->master[at] - learning_rate * (upper - lower) * move;
            x = fmin(fmax(x, inside.lower), inside.upper);
            self->master[at] = (float)x;
            if (config->levels) {
                x = to_level(x, lower, upper, inside, config->levels);
            }
            queries[at] = fminf(fmaxf((float)x, self->lower[j]), self->upper[j]);
        }
    }
    return MV_OK;
}
