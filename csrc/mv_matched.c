#include "mv_verifier.h"

#include <math.h>
#include <string.h>

#define INITIAL_GAIN 10.0f
#define INITIAL_BIAS (-3.0f)

/* Keeps the cosine finite at x = 0. */
#define LENGTH_EPSILON 1e-6
/* Below this share of its positive part, x^T C^-1 x is rounding error. */
#define ROUNDING_SHARE 1e-10
/* Added to every variance. */
#define VARIANCE_EPSILON 1e-9

/* The closed form's memory ---------------------------------------------------------------------------------------- */

/* What the kind keeps; factor is NULL while rank is 0. */
typedef struct mv_matched {
    bool fitted;
    size_t rank;
    float *mean, *precision, *filter; /* (D) */
    float *factor;                    /* (D, rank) */
} mv_matched;

static mv_matched *
matched_of(const mv_verifier *self)
{
    return self->extra;
}

static void
release(mv_matched *matched)
{
    mv_free(matched->mean);
    mv_free(matched->precision);
    mv_free(matched->filter);
    mv_free(matched->factor);
    *matched = (mv_matched){0};
}

/* Vectors of D zeros, precision 1, rank 0. */
static mv_status
allocate(size_t features, mv_matched *matched)
{
    *matched = (mv_matched){0};
    matched->mean = mv_alloc_floats(features);
    matched->precision = mv_alloc_floats(features);
    matched->filter = mv_alloc_floats(features);
    if (!matched->mean || !matched->precision || !matched->filter) {
        release(matched);
        return MV_ERROR_MEMORY;
    }
    for (size_t i = 0; i < features; i++) {
        matched->precision[i] = 1.0f;
    }
    return MV_OK;
}

static mv_status
matched_create(mv_verifier *self)
{
    self->extra = mv_alloc(sizeof(mv_matched));
    return self->extra ? allocate(self->features, self->extra) : MV_ERROR_MEMORY;
}

static void
matched_destroy(mv_verifier *self)
{
    if (self->extra) {
        release(self->extra);
        mv_free(self->extra);
        self->extra = NULL;
    }
}

/* Gives a factor of `columns` columns. */
static mv_status
resize_factor(mv_verifier *self, size_t columns)
{
    float *factor = NULL;
    size_t size;
    if (columns) {
        if (!mv_multiply(self->features, columns, &size)) {
            return MV_ERROR_SIZE;
        }
        factor = mv_alloc_floats(size);
        if (!factor) {
            return MV_ERROR_MEMORY;
        }
    }
    mv_free(matched_of(self)->factor);
    matched_of(self)->factor = factor;
    matched_of(self)->rank = columns;
    return MV_OK;
}

static mv_status
matched_copy(const mv_verifier *self, mv_verifier *copy)
{
    const mv_matched *from = matched_of(self);
    mv_matched *to = matched_of(copy);
    const size_t features = self->features;
    const mv_status status = resize_factor(copy, from->rank);
    if (status) {
        return status;
    }
    if (from->rank) {
        memcpy(to->factor, from->factor, features * from->rank * sizeof *to->factor);
    }
    to->fitted = from->fitted;
    memcpy(to->mean, from->mean, features * sizeof *to->mean);
    memcpy(to->precision, from->precision, features * sizeof *to->precision);
    memcpy(to->filter, from->filter, features * sizeof *to->filter);
    return MV_OK;
}

static mv_status
matched_check(const mv_verifier *self)
{
    return matched_of(self)->fitted ? MV_OK : MV_ERROR_NOT_FITTED;
}

static mv_status
matched_prepare_load(mv_verifier *self, size_t free_columns)
{
    const mv_status status = resize_factor(self, free_columns);
    if (!status) {
        matched_of(self)->fitted = true;
    }
    return status;
}

/* The kind -------------------------------------------------------------------------------------------------------- */

static size_t
matched_hidden_width(const mv_verifier *self)
{
    return matched_of(self)->rank;
}

static bool
matched_count(const mv_verifier_config *config, size_t *count)
{
    (void)config;
    *count = 2;
    return true;
}

static void
matched_initialize(mv_verifier *self)
{
    self->parameters[0] = INITIAL_GAIN;
    self->parameters[1] = INITIAL_BIAS;
}

static size_t
matched_describe(const mv_verifier_config *config, mv_parameter *list)
{
    const size_t queries = config->queries;
    const size_t outputs = config->outputs;
    list[0] = mv_matrix("mean", queries, outputs);
    list[1] = mv_matrix("precision", queries, outputs);
    list[1].must_be_positive = true;
    list[2] = mv_matrix("factor", queries * outputs, 0);
    list[2].free_columns = true;
    list[3] = mv_matrix("filter", queries, outputs);
    list[4] = mv_vector("gain", 1);
    list[5] = mv_vector("bias", 1);
    return 6;
}

static void
matched_locate(const mv_verifier *self, mv_parameter *list)
{
    const mv_matched *matched = matched_of(self);
    list[0].data = matched->mean;
    list[1].data = matched->precision;
    list[2].data = matched->factor;
    list[2].columns = matched->rank;
    list[3].data = matched->filter;
    list[4].data = self->parameters;
    list[5].data = self->parameters + 1;
}

/* parts[0] = filter . x, parts[1] = sqrt(x^T C^-1 x), 0 where that is rounding error; hidden = factor^T x */
static void
measure(const mv_matched *matched, size_t features, const float *x, const float *hidden, double parts[2])
{
    double along = 0.0;
    double length = 0.0;
    for (size_t i = 0; i < features; i++) {
        along += (double)matched->filter[i] * x[i];
        length += (double)matched->precision[i] * x[i] * x[i];
    }
    double explained = 0.0;
    for (size_t j = 0; j < matched->rank; j++) {
        explained += (double)hidden[j] * hidden[j];
    }
    const double rest = length - explained;
    parts[0] = along;
    parts[1] = rest > ROUNDING_SHARE * length ? sqrt(rest) : 0.0;
}

static void
matched_forward(mv_verifier *self, mv_workspace *work, size_t models)
{
    const mv_matched *matched = matched_of(self);
    for (size_t m = 0; m < models; m++) { /* (M, D) */
        for (size_t i = 0; i < self->features; i++) {
            work->z[m * self->features + i] -= matched->mean[i];
        }
    }
    if (matched->rank) {
        mv_gemm_forward(self->kernels, work->threads, models, self->features, matched->rank, work->z, matched->factor,
                        work->hidden);
    }
    for (size_t m = 0; m < models; m++) {
        double *parts = work->carried + 2 * m;
        measure(matched, self->features, work->z + m * self->features, work->hidden + m * matched->rank, parts);
        const double cosine = parts[0] / (parts[1] + LENGTH_EPSILON);
        work->logits[m] = (float)(self->parameters[0] * cosine + self->parameters[1]);
    }
}

/* z_gradient (M, D) = factor factor^T x of each model */
static void
explained_part(const mv_verifier *self, mv_workspace *work, size_t models)
{
    if (!matched_of(self)->rank) {
        memset(work->z_gradient, 0, models * self->features * sizeof *work->z_gradient);
        return;
    }
    mv_gemm_backward job = {
        .kernels = self->kernels,
        .rows = models,
        .inputs = self->features,
        .outputs = matched_of(self)->rank,
        .dy = work->hidden,
        .dx = work->z_gradient,
        .w = matched_of(self)->factor,
        .scratch = work->product_scratch,
    };
    mv_gemm_run_backward(&job, work->threads);
}

/* z_gradient (M, D), while z is x */
static void
input_gradient(const mv_verifier *self, mv_workspace *work, size_t models)
{
    const mv_matched *matched = matched_of(self);
    explained_part(self, work, models);
    for (size_t m = 0; m < models; m++) {
        const double along = work->carried[2 * m];
        const double length = work->carried[2 * m + 1];
        const double outer = work->logits_gradient[m] * (double)self->parameters[0];
        const double by_filter = outer / (length + LENGTH_EPSILON);
        const double by_length = length > 0.0 ? by_filter * along / ((length + LENGTH_EPSILON) * length) : 0.0;
        const float *x = work->z + m * self->features;
        float *gradient = work->z_gradient + m * self->features;
        for (size_t i = 0; i < self->features; i++) {
            const double whitened = (double)matched->precision[i] * x[i] - gradient[i];
            gradient[i] = (float)(by_filter * matched->filter[i] - by_length * whitened);
        }
    }
}

static size_t
matched_gradient_count(const mv_verifier *self)
{
    return self->trainable_count;
}

static void
matched_backward(mv_verifier *self, mv_workspace *work, size_t models, const mv_adam_step *adam, bool with_input)
{
    if (with_input) {
        input_gradient(self, work, models);
    }
    if (!adam) {
        return;
    }
    double gain = 0.0;
    double bias = 0.0;
    for (size_t m = 0; m < models; m++) {
        const double *parts = work->carried + 2 * m;
        gain += work->logits_gradient[m] * parts[0] / (parts[1] + LENGTH_EPSILON);
        bias += work->logits_gradient[m];
    }
    work->gradient[0] = (float)gain;
    work->gradient[1] = (float)bias;
    mv_verifier_update(self, adam, 0, self->trainable_count, work->gradient);
}

/* The closed form ------------------------------------------------------------------------------------------------- */

/* mean and, in `precision`, the variance over the rows of z (models, features). Returns the mean variance. */
static double
find_moments(const mv_matched *fit, size_t models, size_t features, const float *z)
{
    double total = 0.0;
    for (size_t i = 0; i < features; i++) { /* (D, M): each feature over the models */
        double sum = 0.0;
        for (size_t m = 0; m < models; m++) {
            sum += z[m * features + i];
        }
        const double mean = sum / (double)models;
        double squares = 0.0;
        for (size_t m = 0; m < models; m++) {
            const double x = z[m * features + i] - mean;
            squares += x * x;
        }
        fit->mean[i] = (float)mean;
        fit->precision[i] = (float)(squares / (double)models);
        total += squares / (double)models;
    }
    return total / (double)features;
}

/* gram (models, models) = I + U^T diag(1/d) U, lower triangle */
static void
find_gram(const mv_matched *fit, size_t features, double *gram)
{
    const size_t rank = fit->rank;
    memset(gram, 0, rank * rank * sizeof *gram);
    for (size_t i = 0; i < features; i++) { /* (D, rank, rank) */
        const float *u = fit->factor + i * rank;
        for (size_t a = 0; a < rank; a++) {
            const double scaled = (double)fit->precision[i] * u[a];
            for (size_t b = 0; b <= a; b++) {
                gram[a * rank + b] += scaled * u[b];
            }
        }
    }
    for (size_t a = 0; a < rank; a++) {
        gram[a * rank + a] += 1.0;
    }
}

/* In place, lower triangle; the matrix is at least the identity, so that every pivot is >= 1 up to rounding. */
static void
factor_cholesky(size_t size, double *matrix)
{
    for (size_t a = 0; a < size; a++) {
        for (size_t b = 0; b <= a; b++) {
            double sum = matrix[a * size + b];
            for (size_t c = 0; c < b; c++) {
                sum -= matrix[a * size + c] * matrix[b * size + c];
            }
            matrix[a * size + b] = a == b ? sqrt(fmax(sum, 1e-12)) : sum / matrix[b * size + b];
        }
    }
}

/* factor = diag(1/d) U L^-T: forward substitution with L on each row of U. `row` is scratch (rank). */
static void
whiten_factor(const mv_matched *fit, size_t features, const double *cholesky, double *row)
{
    const size_t rank = fit->rank;
    for (size_t i = 0; i < features; i++) { /* (D, rank) */
        float *u = fit->factor + i * rank;
        for (size_t a = 0; a < rank; a++) {
            double sum = u[a];
            for (size_t b = 0; b < a; b++) {
                sum -= cholesky[a * rank + b] * row[b];
            }
            row[a] = sum / cholesky[a * rank + a];
        }
        for (size_t a = 0; a < rank; a++) {
            u[a] = (float)(row[a] * fit->precision[i]);
        }
    }
}

/* filter = C^-1 v / sqrt(v^T C^-1 v), v = owner - mean. `row` is scratch (rank). */
static mv_status
find_filter(const mv_matched *fit, size_t features, const float *owner, double *row)
{
    const size_t rank = fit->rank;
    memset(row, 0, rank * sizeof *row);
    for (size_t i = 0; i < features; i++) { /* (D, rank) */
        const double v = (double)owner[i] - fit->mean[i];
        for (size_t a = 0; a < rank; a++) {
            row[a] += v * fit->factor[i * rank + a];
        }
    }
    double square = 0.0;
    double scale = 0.0;
    for (size_t i = 0; i < features; i++) { /* (D, rank) */
        const double v = (double)owner[i] - fit->mean[i];
        double w = v * fit->precision[i];
        for (size_t a = 0; a < rank; a++) {
            w -= row[a] * fit->factor[i * rank + a];
        }
        square += v * w;
        scale += v * v * fit->precision[i];
        fit->filter[i] = (float)w;
    }
    if (!(square > ROUNDING_SHARE * scale) || !isfinite(square)) {
        return MV_ERROR_NO_CONTRAST;
    }
    const double length = sqrt(square);
    for (size_t i = 0; i < features; i++) {
        fit->filter[i] = (float)(fit->filter[i] / length);
    }
    return MV_OK;
}

/* Fills *fit, whose vectors are allocated, from standardised responses. scratch (models + 1, models). */
static mv_status
fit_closed_form(mv_matched *fit, size_t features, size_t models, const float *owner, const float *negatives,
                double shrinkage, double floor, double *scratch)
{
    double *gram = scratch;
    double *row = scratch + models * models;
    const double offset = floor * find_moments(fit, models, features, negatives) + VARIANCE_EPSILON;
    const double spread = sqrt((1.0 - shrinkage) / (double)models);
    for (size_t i = 0; i < features; i++) { /* (D, M) */
        fit->precision[i] = (float)(1.0 / (shrinkage * fit->precision[i] + offset));
        for (size_t m = 0; m < models; m++) {
            const double x = (double)negatives[m * features + i] - fit->mean[i];
            fit->factor[i * models + m] = (float)(spread * x);
        }
    }
    find_gram(fit, features, gram);
    factor_cholesky(models, gram);
    whiten_factor(fit, features, gram, row);
    return find_filter(fit, features, owner, row);
}

static mv_status
matched_fit_closed_form(mv_verifier *self, const float *owner, size_t models, const float *negatives, double shrinkage,
                        double floor)
{
    mv_matched fit = {0};
    mv_workspace work = {0};
    double *scratch = NULL; /* (models + 1, models) */
    size_t size;
    mv_status status = mv_workspace_prepare(self, models, &work);
    if (status) {
        goto done;
    }
    status = allocate(self->features, &fit);
    if (status) {
        goto done;
    }
    status = MV_ERROR_MEMORY;
    if (!mv_multiply(models + 1, models * sizeof *scratch, &size)) {
        goto done;
    }
    scratch = mv_alloc(size);
    fit.factor = mv_alloc_floats(self->features * models);
    fit.rank = models;
    fit.fitted = true;
    if (!scratch || !fit.factor) {
        goto done;
    }
    /* The first row of z_gradient serves for the owner's features. */
    status = mv_verifier_features(self, models, negatives, work.z, &work);
    if (!status) {
        status = mv_verifier_features(self, 1, owner, work.z_gradient, &work);
    }
    if (status) {
        goto done;
    }
    status = fit_closed_form(&fit, self->features, models, work.z_gradient, work.z, shrinkage, floor, scratch);
    if (!status) {
        const mv_matched old = *matched_of(self);
        *matched_of(self) = fit;
        fit = old;
    }
done:
    mv_workspace_release(self, &work);
    mv_free(scratch);
    release(&fit);
    return status;
}

const mv_kind mv_kind_matched = {
    .name = "matched",
    .describe = matched_describe,
    .locate = matched_locate,
    .count = matched_count,
    .initialize = matched_initialize,
    .hidden_width = matched_hidden_width,
    .gradient_count = matched_gradient_count,
    .forward = matched_forward,
    .backward = matched_backward,
    .fit_closed_form = matched_fit_closed_form,
    .create = matched_create,
    .destroy = matched_destroy,
    .copy = matched_copy,
    .check = matched_check,
    .prepare_load = matched_prepare_load,
};
