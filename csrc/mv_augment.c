#include "mv_augment.h"

#include "mv_random.h"

/* The index of the n-th row with this role. */
static size_t
find_row(const uint8_t *roles, uint8_t role, size_t n)
{
    size_t m = 0;
    for (;; m++) {
        if (roles[m] == role && n-- == 0) {
            return m;
        }
    }
}

/* Draws mix_partner and mix_share; a share of 0 leaves a row alone. */
static void
draw_partners(const mv_verifier *self, size_t models, const uint8_t *roles, double mix, mv_workspace *work)
{
    const mv_stream stream = mv_stream_open(self->config.seed, MV_RANDOM_MIX, self->steps);
    size_t negatives = 0;
    for (size_t m = 0; m < models; m++) {
        negatives += roles[m] == MV_ROLE_NEGATIVE;
    }
    for (size_t m = 0; m < models; m++) { /* (M) */
        work->mix_share[m] = 0.0f;
        work->mix_partner[m] = m;
        if (!negatives || roles[m] == MV_ROLE_NEGATIVE || mv_random_uniform(stream, 3 * m) < 0.5) {
            continue;
        }
        const size_t chosen = (size_t)(mv_random_uniform(stream, 3 * m + 1) * (double)negatives);
        work->mix_partner[m] = find_row(roles, MV_ROLE_NEGATIVE, chosen);
        work->mix_share[m] = (float)(mix * mv_random_uniform(stream, 3 * m + 2));
    }
}

static void
draw_dropout(const mv_verifier *self, size_t models, double dropout, mv_workspace *work)
{
    const mv_stream stream = mv_stream_open(self->config.seed, MV_RANDOM_DROPOUT, self->steps);
    const float kept = (float)(1.0 / (1.0 - dropout));
    for (size_t i = 0; i < models * self->config.queries; i++) { /* (M, N) */
        work->dropout_factor[i] = mv_random_uniform(stream, i) < dropout ? 0.0f : kept;
    }
}

/* values (M, N, K) *= factor (M, N) */
static void
apply_dropout(const mv_verifier *self, size_t models, const float *factor, float *values)
{
    const size_t outputs = self->config.outputs;
    for (size_t i = 0; i < models * self->config.queries; i++) {
        for (size_t k = 0; k < outputs; k++) {
            values[i * outputs + k] *= factor[i];
        }
    }
}

void
mv_augment(const mv_verifier *self, size_t models, const uint8_t *roles, const mv_step_options *options,
           mv_workspace *work)
{
    const size_t features = self->features;
    if (options->mix > 0.0) {
        draw_partners(self, models, roles, options->mix, work);
        for (size_t m = 0; m < models; m++) {
            const float share = work->mix_share[m];
            const float *other = work->z + work->mix_partner[m] * features; /* a negative: never mixed itself */
            float *own = work->z + m * features;                            /* (D) */
            for (size_t i = 0; share > 0.0f && i < features; i++) {
                own[i] = (1.0f - share) * own[i] + share * other[i];
            }
        }
    }
    if (options->noise > 0.0) {
        const mv_stream stream = mv_stream_open(self->config.seed, MV_RANDOM_NOISE, self->steps);
        self->kernels->add_noise(stream, (float)options->noise, 0, models * features, work->z);
    }
    if (options->dropout > 0.0) {
        draw_dropout(self, models, options->dropout, work);
        apply_dropout(self, models, work->dropout_factor, work->z);
    }
}

void
mv_augment_backward(const mv_verifier *self, size_t models, const mv_step_options *options, mv_workspace *work)
{
    const size_t features = self->features;
    if (options->dropout > 0.0) {
        apply_dropout(self, models, work->dropout_factor, work->z_gradient);
    }
    if (options->mix > 0.0) {
        for (size_t m = 0; m < models; m++) {
            const float share = work->mix_share[m];
            float *other = work->z_gradient + work->mix_partner[m] * features;
            float *own = work->z_gradient + m * features; /* (D) */
            for (size_t i = 0; share > 0.0f && i < features; i++) {
                other[i] += share * own[i];
                own[i] *= 1.0f - share;
            }
        }
    }
}
