#include "mv_view.h"

#include "mv_finite.h"
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

/* One row on its way through a view. */
typedef struct mv_row {
    size_t outputs;
    bool given; /* the row holds probabilities, not logits */
    const float *r;
    double normalizer; /* sum(r) of probabilities, log sum exp(r) of logits */
    double *p;         /* probabilities (outputs) */
    double *gradient;  /* d loss / d log p or d loss / d p (outputs) */
    bool *top;         /* member of the top set (outputs) */
} mv_row;

/* Names ---------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    mv_view_kind kind;
    int least, most; /* range of the parameter; none where least > most */
} views[] = {
    {"identity", MV_VIEW_IDENTITY, 1, 0}, {"identity_round", MV_VIEW_IDENTITY_ROUND, 0, MAX_DECIMALS},
    {"logprob", MV_VIEW_LOGPROB, 1, 0},   {"round", MV_VIEW_ROUND, 0, MAX_DECIMALS},
    {"topk", MV_VIEW_TOPK, 1, MAX_TOP},   {"label", MV_VIEW_LABEL, 1, 0},
};

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
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        if (strlen(views[i].name) != length || strncmp(views[i].name, text, length) != 0) {
            continue;
        }
        int parameter = 0;
        const bool has_parameter = views[i].least <= views[i].most;
        if (has_parameter ? !parse_parameter(text + length, &parameter) : text[length] != '\0') {
            return MV_ERROR_VIEW_NAME;
        }
        if (has_parameter && (parameter < views[i].least || parameter > views[i].most)) {
            return MV_ERROR_VIEW_PARAMETER;
        }
        *view = (mv_view){views[i].kind, parameter};
        return MV_OK;
    }
    return MV_ERROR_VIEW_NAME;
}

static bool
is_identity(mv_view view)
{
    return view.kind == MV_VIEW_IDENTITY || view.kind == MV_VIEW_IDENTITY_ROUND;
}

mv_status
mv_view_check(mv_view view, size_t outputs)
{
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        if (views[i].kind == view.kind) {
            const bool has_parameter = views[i].least <= views[i].most;
            if (has_parameter && (view.parameter < views[i].least || view.parameter > views[i].most)) {
                return MV_ERROR_VIEW_PARAMETER;
            }
            return is_identity(view) || outputs >= 2 ? MV_OK : MV_ERROR_VIEW_OUTPUTS;
        }
    }
    return MV_ERROR_VIEW_NAME;
}

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
identity_round_features(const float *r, size_t outputs, int decimals, float *f)
{
    const double unit = pow(10.0, decimals);
    for (size_t j = 0; j < outputs; j++) {
        f[j] = (float)(rint(r[j] * unit) / unit);
    }
}

static void
logprob_features(mv_row *row, float *f)
{
    find_probabilities(row);
    const double least = log(MV_PROBABILITY_FLOOR);
    for (size_t j = 0; j < row->outputs; j++) {
        if (row->given) {
            f[j] = logf((float)larger(row->p[j], MV_PROBABILITY_FLOOR));
        }
        else {
            f[j] = (float)larger(row->r[j] - row->normalizer, least);
        }
    }
}

static void
logprob_gradient(mv_row *row, const float *g, double floor, float *response_gradient)
{
    find_probabilities(row);
    for (size_t j = 0; j < row->outputs; j++) {
        row->gradient[j] = g[j];
    }
    log_gradient(row, floor, response_gradient);
}

static double
rounding_floor(int decimals)
{
    return 0.5 * pow(10.0, -decimals);
}

static void
round_features(mv_row *row, int decimals, float *f)
{
    find_probabilities(row);
    const double unit = pow(10.0, decimals);
    const double floor = rounding_floor(decimals);
    for (size_t j = 0; j < row->outputs; j++) {
        f[j] = (float)log(larger(rint(row->p[j] * unit) / unit, floor));
    }
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
topk_features(mv_row *row, size_t count, float *f)
{
    find_probabilities(row);
    const double share = find_top(row, count);
    for (size_t j = 0; j < row->outputs; j++) {
        f[j] = (float)log(larger(row->top[j] ? row->p[j] : share, MV_PROBABILITY_FLOOR));
    }
}

static void
topk_gradient(mv_row *row, const float *g, size_t count, float *response_gradient)
{
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
label_features(const mv_row *row, float *f)
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

/* All rows ------------------------------------------------------------------------------------------------------- */

size_t
mv_view_scratch(size_t outputs)
{
    /* p and gradient as double, top as bool. */
    return 3 * outputs; /* outputs floats are already in memory: no overflow below SIZE_MAX / 24 */
}

static mv_row
make_row(size_t outputs, double *scratch)
{
    return (mv_row){
        .outputs = outputs, .p = scratch, .gradient = scratch + outputs, .top = (bool *)(scratch + 2 * outputs)};
}

void
mv_view_features(mv_view view, mv_shape shape, const float *responses, float *features, double *scratch)
{
    const size_t outputs = shape.outputs;
    const size_t size = shape.queries * outputs;
    if (view.kind == MV_VIEW_IDENTITY) {
        memcpy(features, responses, shape.models * size * sizeof *features);
        return;
    }
    mv_row row = make_row(outputs, scratch);
    for (size_t m = 0; m < shape.models; m++) {
        const float *model = responses + m * size;
        row.given = !is_identity(view) && are_probabilities(model, shape.queries, outputs);
        for (size_t n = 0; n < shape.queries; n++) {
            float *f = features + m * size + n * outputs;
            row.r = model + n * outputs;
            switch (view.kind) {
            case MV_VIEW_IDENTITY:
                break;
            case MV_VIEW_IDENTITY_ROUND:
                identity_round_features(row.r, outputs, view.parameter, f);
                break;
            case MV_VIEW_LOGPROB:
                logprob_features(&row, f);
                break;
            case MV_VIEW_ROUND:
                round_features(&row, view.parameter, f);
                break;
            case MV_VIEW_TOPK:
                topk_features(&row, (size_t)view.parameter, f);
                break;
            case MV_VIEW_LABEL:
                label_features(&row, f);
                break;
            }
        }
    }
}

void
mv_view_response_gradient(mv_view view, mv_shape shape, const float *responses, const float *feature_gradient,
                          float *response_gradient, double *scratch)
{
    const size_t outputs = shape.outputs;
    const size_t size = shape.queries * outputs;
    if (is_identity(view)) {
        memcpy(response_gradient, feature_gradient, shape.models * size * sizeof *response_gradient);
        return;
    }
    mv_row row = make_row(outputs, scratch);
    for (size_t m = 0; m < shape.models; m++) {
        const float *model = responses + m * size;
        row.given = are_probabilities(model, shape.queries, outputs);
        for (size_t n = 0; n < shape.queries; n++) {
            const float *g = feature_gradient + m * size + n * outputs;
            float *dr = response_gradient + m * size + n * outputs;
            row.r = model + n * outputs;
            switch (view.kind) {
            case MV_VIEW_IDENTITY:
            case MV_VIEW_IDENTITY_ROUND:
                break;
            case MV_VIEW_LOGPROB:
                logprob_gradient(&row, g, MV_PROBABILITY_FLOOR, dr);
                break;
            case MV_VIEW_ROUND:
                logprob_gradient(&row, g, rounding_floor(view.parameter), dr);
                break;
            case MV_VIEW_TOPK:
                topk_gradient(&row, g, (size_t)view.parameter, dr);
                break;
            case MV_VIEW_LABEL:
                label_gradient(&row, g, dr);
                break;
            }
        }
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
    return mv_all_finite(responses, *count) ? MV_OK : MV_ERROR_RESPONSES;
}

mv_status
mv_view_forward(mv_view view, mv_shape shape, const float *responses, float *features)
{
    size_t count;
    mv_status status = check_call(view, shape, responses, &count);
    if (status) {
        return status;
    }
    double *scratch = mv_alloc(mv_view_scratch(shape.outputs) * sizeof *scratch);
    if (!scratch) {
        return MV_ERROR_MEMORY;
    }
    mv_view_features(view, shape, responses, features, scratch);
    mv_free(scratch);
    return MV_OK;
}

mv_status
mv_view_backward(mv_view view, mv_shape shape, const float *responses, const float *feature_gradient,
                 float *response_gradient)
{
    size_t count;
    mv_status status = check_call(view, shape, responses, &count);
    if (status) {
        return status;
    }
    if (!mv_all_finite(feature_gradient, count)) {
        return MV_ERROR_GRADIENT;
    }
    double *scratch = mv_alloc(mv_view_scratch(shape.outputs) * sizeof *scratch);
    if (!scratch) {
        return MV_ERROR_MEMORY;
    }
    mv_view_response_gradient(view, shape, responses, feature_gradient, response_gradient, scratch);
    mv_free(scratch);
    return MV_OK;
}
