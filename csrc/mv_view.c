#include "mv_view.h"

#include "mv_memory.h"

#include <math.h>
#include <string.h>

/* A row's sum may differ from 1 by this, plus this per output, but never by more than the cap. */
#define SUM_SLACK 1e-3
#define SUM_SLACK_PER_OUTPUT 0.005
#define SUM_SLACK_CAP 0.5

/* Slope of the soft label whose gradient stands in for that of the hard one. */
#define LABEL_SLOPE 3.0

enum { MAX_DECIMALS = 8, MAX_TOP = 1000000000 };

/* All rows of one model. */
typedef struct mv_rows {
    const mv_kernels *kernels;
    size_t queries, outputs;
} mv_rows;

/* One row on its way through a view. */
typedef struct mv_row {
    int parameter; /* the view's d or k */
    size_t outputs;
    bool given; /* the row holds probabilities, not logits */
    const float *r;
    double normalizer; /* sum(r) of probabilities, log sum exp(r) of logits */
    double *p;         /* probabilities (outputs) */
    double *gradient;  /* d loss / d log p or d loss / d p (outputs) */
    bool *top;         /* member of the top set (outputs) */
} mv_row;

/* Probabilities -------------------------------------------------------------------------------------------------- */

static double
sum_of(const float *r, size_t outputs)
{
    double sum = 0.0;
    for (size_t j = 0; j < outputs; j++) {
        sum += r[j];
    }
    return sum;
}

static bool
are_probabilities(const float *responses, size_t queries, size_t outputs)
{
    const double slack = fmin(SUM_SLACK + SUM_SLACK_PER_OUTPUT * (double)outputs, SUM_SLACK_CAP);
    for (size_t n = 0; n < queries; n++) {
        const float *r = responses + n * outputs;
        for (size_t j = 0; j < outputs; j++) {
            if (r[j] < 0.0f) {
                return false;
            }
        }
        if (fabs(sum_of(r, outputs) - 1.0) > slack) {
            return false;
        }
    }
    return true;
}

/* The lower index on ties. */
static size_t
largest(const float *r, size_t outputs)
{
    size_t best = 0;
    for (size_t j = 1; j < outputs; j++) {
        best = r[j] > r[best] ? j : best;
    }
    return best;
}

/* fmax without its rules for NaN, which keep it from being inlined. */
static double
larger(double a, double b)
{
    return a > b ? a : b;
}

/* Fills p and the normalizer. */
static void
find_probabilities(mv_row *row)
{
    const size_t outputs = row->outputs;
    if (row->given) {
        row->normalizer = sum_of(row->r, outputs);
        for (size_t j = 0; j < outputs; j++) {
            row->p[j] = row->r[j] / row->normalizer;
        }
        return;
    }
    const float most = row->r[largest(row->r, outputs)];
    double sum = 0.0;
    for (size_t j = 0; j < outputs; j++) {
        row->p[j] = expf(row->r[j] - most);
        sum += row->p[j];
    }
    for (size_t j = 0; j < outputs; j++) {
        row->p[j] /= sum;
    }
    row->normalizer = most + log(sum);
}

/* response_gradient of a gradient with respect to log p (log max(p, floor) where it is clamped). */
static void
log_gradient(const mv_row *row, double floor, float *response_gradient)
{
    double total = 0.0;
    for (size_t j = 0; j < row->outputs; j++) {
        if (row->p[j] > floor) {
            total += row->gradient[j];
        }
    }
    for (size_t j = 0; j < row->outputs; j++) {
        const double own = row->p[j] > floor ? row->gradient[j] : 0.0;
        const double value = row->given ? (row->p[j] > floor ? own / row->r[j] : 0.0) - total / row->normalizer
                                        : own - row->p[j] * total;
        response_gradient[j] = (float)value;
    }
}

/* response_gradient of a gradient with respect to p itself. */
static void
probability_gradient(const mv_row *row, float *response_gradient)
{
    double mean = 0.0;
    for (size_t j = 0; j < row->outputs; j++) {
        mean += row->p[j] * row->gradient[j];
    }
    for (size_t j = 0; j < row->outputs; j++) {
        const double centred = row->gradient[j] - mean;
        response_gradient[j] = (float)(row->given ? centred / row->normalizer : row->p[j] * centred);
    }
}

/* The views, one row each ---------------------------------------------------------------------------------------- */

static void
identity_features(mv_row *row, float *f)
{
    memcpy(f, row->r, row->outputs * sizeof *f);
}

static void
identity_gradient(mv_row *row, const float *g, float *response_gradient)
{
    memcpy(response_gradient, g, row->outputs * sizeof *g);
}

static void
identity_round_features(mv_row *row, float *f)
{
    const double unit = pow(10.0, row->parameter);
    for (size_t j = 0; j < row->outputs; j++) {
        f[j] = (float)(rint(row->r[j] * unit) / unit);
    }
}

/* log max(p, floor) of all rows of a model that answers logits, and its gradient. */
static void
logit_features(const mv_rows *rows, const float *r, float *f)
{
    rows->kernels->log_softmax(rows->queries, rows->outputs, (float)log(MV_PROBABILITY_FLOOR), r, f);
}

static void
logit_gradient(const mv_rows *rows, const float *r, const float *g, float *response_gradient)
{
    rows->kernels->log_softmax_gradient(rows->queries, rows->outputs, (float)MV_PROBABILITY_FLOOR, r, g,
                                        response_gradient);
}

static void
logprob_features(mv_row *row, float *f)
{
    find_probabilities(row);
    for (size_t j = 0; j < row->outputs; j++) {
        f[j] = logf((float)larger(row->p[j], MV_PROBABILITY_FLOOR));
    }
}

/* The gradient of log max(p, floor). */
static void
clamped_gradient(mv_row *row, const float *g, double floor, float *response_gradient)
{
    find_probabilities(row);
    for (size_t j = 0; j < row->outputs; j++) {
        row->gradient[j] = g[j];
    }
    log_gradient(row, floor, response_gradient);
}

static void
logprob_gradient(mv_row *row, const float *g, float *response_gradient)
{
    clamped_gradient(row, g, MV_PROBABILITY_FLOOR, response_gradient);
}

static double
rounding_floor(int decimals)
{
    return 0.5 * pow(10.0, -decimals);
}

static void
round_features(mv_row *row, float *f)
{
    find_probabilities(row);
    const double unit = pow(10.0, row->parameter);
    const double floor = rounding_floor(row->parameter);
    for (size_t j = 0; j < row->outputs; j++) {
        f[j] = (float)log(larger(rint(row->p[j] * unit) / unit, floor));
    }
}

static void
round_gradient(mv_row *row, const float *g, float *response_gradient)
{
    clamped_gradient(row, g, rounding_floor(row->parameter), response_gradient);
}

/* Marks the `count` largest probabilities; returns what each of the others gets, 0 if there are none. */
static double
find_top(mv_row *row, size_t count)
{
    memset(row->top, 0, row->outputs * sizeof *row->top);
    for (size_t found = 0; found < count && found < row->outputs; found++) {
        size_t best = row->outputs;
        for (size_t j = 0; j < row->outputs; j++) {
            if (!row->top[j] && (best == row->outputs || row->r[j] > row->r[best])) {
                best = j;
            }
        }
        row->top[best] = true;
    }
    if (count >= row->outputs) {
        return 0.0;
    }
    double rest = 0.0; /* 1 - sum over the top set, without the cancellation */
    for (size_t j = 0; j < row->outputs; j++) {
        rest += row->top[j] ? 0.0 : row->p[j];
    }
    return rest / (double)(row->outputs - count);
}

static void
topk_features(mv_row *row, float *f)
{
    const size_t count = (size_t)row->parameter;
    find_probabilities(row);
    const double share = find_top(row, count);
    for (size_t j = 0; j < row->outputs; j++) {
        f[j] = (float)log(larger(row->top[j] ? row->p[j] : share, MV_PROBABILITY_FLOOR));
    }
}

static void
topk_gradient(mv_row *row, const float *g, float *response_gradient)
{
    const size_t count = (size_t)row->parameter;
    find_probabilities(row);
    const double share = find_top(row, count);
    double others = 0.0; /* d loss / d (sum of the rest) */
    if (share > MV_PROBABILITY_FLOOR) {
        for (size_t j = 0; j < row->outputs; j++) {
            others += row->top[j] ? 0.0 : g[j];
        }
        others /= share * (double)(row->outputs - count);
    }
    for (size_t j = 0; j < row->outputs; j++) {
        const bool active = row->p[j] > MV_PROBABILITY_FLOOR;
        row->gradient[j] = row->top[j] ? (active ? g[j] / row->p[j] : 0.0) - others : 0.0;
    }
    probability_gradient(row, response_gradient);
}

static void
label_features(mv_row *row, float *f)
{
    memset(f, 0, row->outputs * sizeof *f);
    f[largest(row->r, row->outputs)] = 1.0f;
}

/* softmax(3 log p) = p^3 / sum(p^3), its gradient with respect to log p. */
static void
label_gradient(mv_row *row, const float *g, float *response_gradient)
{
    find_probabilities(row);
    const double floor = row->given ? MV_PROBABILITY_FLOOR : 0.0;
    double sum = 0.0;
    double mean = 0.0;
    for (size_t j = 0; j < row->outputs; j++) {
        const double p = larger(row->p[j], floor);
        row->gradient[j] = p * p * p;
        sum += row->gradient[j];
        mean += row->gradient[j] * g[j];
    }
    mean /= sum;
    for (size_t j = 0; j < row->outputs; j++) {
        row->gradient[j] *= LABEL_SLOPE * (g[j] - mean) / sum;
    }
    log_gradient(row, floor, response_gradient);
}

/* The table ------------------------------------------------------------------------------------------------------ */

/* A view is one row here: its name, the range of its parameter (none where least > most), whether it reads a row as a
 * distribution, and its
 * two functions on one row. */
static const struct mv_view_rules {
    const char *name;
    int least, most;
    bool distribution;
    void (*features)(mv_row *row, float *f);
    void (*gradient)(mv_row *row, const float *g, float *response_gradient);
    /* the same of all rows at once, where they are logits; may be NULL */
    void (*logit_features)(const mv_rows *rows, const float *r, float *f);
    void (*logit_gradient)(const mv_rows *rows, const float *r, const float *g, float *response_gradient);
} views[] = {
    {"identity", 1, 0, false, identity_features, identity_gradient, NULL, NULL},
    {"identity_round", 0, MAX_DECIMALS, false, identity_round_features, identity_gradient, NULL, NULL},
    {"logprob", 1, 0, true, logprob_features, logprob_gradient, logit_features, logit_gradient},
    {"round", 0, MAX_DECIMALS, true, round_features, round_gradient, NULL, NULL},
    {"topk", 1, MAX_TOP, true, topk_features, topk_gradient, NULL, NULL},
    {"label", 1, 0, true, label_features, label_gradient, NULL, NULL},
};

enum { VIEWS = sizeof views / sizeof *views };

static bool
has_parameter(const struct mv_view_rules *rules)
{
    return rules->least <= rules->most;
}

static bool
accepts(const struct mv_view_rules *rules, int parameter)
{
    return !has_parameter(rules) || (parameter >= rules->least && parameter <= rules->most);
}

/* Reads "(digits)" up to the end of the text; false if it is not that. Values too large become MAX_TOP + 1. */
static bool
parse_parameter(const char *text, int *parameter)
{
    if (*text != '(') {
        return false;
    }
    const char *digit = text + 1;
    long value = 0;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        value = value > MAX_TOP / 10 ? MAX_TOP + 1L : value * 10 + (*digit - '0');
    }
    *parameter = (int)(value > MAX_TOP ? MAX_TOP + 1L : value);
    return digit > text + 1 && digit[0] == ')' && digit[1] == '\0';
}

mv_status
mv_view_parse(const char *text, mv_view *view)
{
    const size_t length = strcspn(text, "(");
    for (size_t i = 0; i < VIEWS; i++) {
        if (strlen(views[i].name) != length || strncmp(views[i].name, text, length) != 0) {
            continue;
        }
        int parameter = 0;
        if (has_parameter(&views[i]) ? !parse_parameter(text + length, &parameter) : text[length] != '\0') {
            return MV_ERROR_VIEW_NAME;
        }
        if (!accepts(&views[i], parameter)) {
            return MV_ERROR_VIEW_PARAMETER;
        }
        *view = (mv_view){&views[i], parameter};
        return MV_OK;
    }
    return MV_ERROR_VIEW_NAME;
}

bool
mv_view_is_identity(mv_view view)
{
    return view.rules->features == identity_features;
}

mv_status
mv_view_check(mv_view view, size_t outputs)
{
    const struct mv_view_rules *rules = view.rules;
    if (!rules) {
        return MV_ERROR_VIEW_NAME;
    }
    if (!accepts(rules, view.parameter)) {
        return MV_ERROR_VIEW_PARAMETER;
    }
    return !rules->distribution || outputs >= 2 ? MV_OK : MV_ERROR_VIEW_OUTPUTS;
}

/* All rows of one model ------------------------------------------------------------------------------------------- */

size_t
mv_view_scratch(size_t outputs)
{
    /* p and gradient as double, top as bool. */
    return 3 * outputs; /* outputs floats are already in memory: no overflow below SIZE_MAX / 24 */
}

static mv_row
make_row(mv_view view, size_t outputs, double *scratch)
{
    return (mv_row){
        .parameter = view.parameter,
        .outputs = outputs,
        .p = scratch,
        .gradient = scratch + outputs,
        .top = (bool *)(scratch + 2 * outputs),
    };
}

void
mv_view_features(const mv_kernels *kernels, mv_view view, size_t queries, size_t outputs, const float *responses,
                 float *features, double *scratch)
{
    const struct mv_view_rules *rules = view.rules;
    mv_row row = make_row(view, outputs, scratch);
    row.given = rules->distribution && are_probabilities(responses, queries, outputs);
    if (!row.given && rules->logit_features) {
        rules->logit_features(&(mv_rows){kernels, queries, outputs}, responses, features);
        return;
    }
    for (size_t n = 0; n < queries; n++) {
        row.r = responses + n * outputs;
        rules->features(&row, features + n * outputs);
    }
}

void
mv_view_response_gradient(const mv_kernels *kernels, mv_view view, size_t queries, size_t outputs,
                          const float *responses, const float *feature_gradient, float *response_gradient,
                          double *scratch)
{
    const struct mv_view_rules *rules = view.rules;
    mv_row row = make_row(view, outputs, scratch);
    row.given = rules->distribution && are_probabilities(responses, queries, outputs);
    if (!row.given && rules->logit_gradient) {
        rules->logit_gradient(&(mv_rows){kernels, queries, outputs}, responses, feature_gradient, response_gradient);
        return;
    }
    for (size_t n = 0; n < queries; n++) {
        row.r = responses + n * outputs;
        rules->gradient(&row, feature_gradient + n * outputs, response_gradient + n * outputs);
    }
}

/* Public --------------------------------------------------------------------------------------------------------- */

static mv_status
check_call(mv_view view, mv_shape shape, const float *responses, size_t *count)
{
    size_t size;
    if (!shape.models || !shape.queries || !shape.outputs || !mv_multiply(shape.queries, shape.outputs, &size) ||
        !mv_multiply(size, shape.models, count)) {
        return MV_ERROR_SIZE;
    }
    const mv_status status = mv_view_check(view, shape.outputs);
    if (status) {
        return status;
    }
    return mv_kernels_get()->all_finite(*count, responses) ? MV_OK : MV_ERROR_RESPONSES;
}

mv_status
mv_view_forward(mv_view view, mv_shape shape, const float *responses, float *features)
{
    size_t count;
    const mv_status status = check_call(view, shape, responses, &count);
    if (status) {
        return status;
    }
    double *scratch = mv_alloc(mv_view_scratch(shape.outputs) * sizeof *scratch);
    if (!scratch) {
        return MV_ERROR_MEMORY;
    }
    const size_t size = shape.queries * shape.outputs;
    for (size_t at = 0; at < count; at += size) {
        mv_view_features(mv_kernels_get(), view, shape.queries, shape.outputs, responses + at, features + at, scratch);
    }
    mv_free(scratch);
    return MV_OK;
}

mv_status
mv_view_backward(mv_view view, mv_shape shape, const float *responses, const float *feature_gradient,
                 float *response_gradient)
{
    size_t count;
    const mv_status status = check_call(view, shape, responses, &count);
    if (status) {
        return status;
    }
    if (!mv_kernels_get()->all_finite(count, feature_gradient)) {
        return MV_ERROR_GRADIENT;
    }
    double *scratch = mv_alloc(mv_view_scratch(shape.outputs) * sizeof *scratch);
    if (!scratch) {
        return MV_ERROR_MEMORY;
    }
    const size_t size = shape.queries * shape.outputs;
    for (size_t at = 0; at < count; at += size) {
        mv_view_response_gradient(mv_kernels_get(), view, shape.queries, shape.outputs, responses + at,
                                  feature_gradient + at, response_gradient + at, scratch);
    }
    mv_free(scratch);
    return MV_OK;
}
