/* The table of views, their texts, and a view of all rows of a model. */
#include "mv_view.h"

#include "mv_memory.h"
#include "mv_view_kind.h"

#include <assert.h>
#include <string.h>

/* The table ------------------------------------------------------------------------------------------------------- */

/* A new view is a file that fills an mv_view_kind, a declaration and a row here. */
extern const mv_view_kind mv_view_identity;
extern const mv_view_kind mv_view_identity_round;
extern const mv_view_kind mv_view_logprob;
extern const mv_view_kind mv_view_round;
extern const mv_view_kind mv_view_topk;
extern const mv_view_kind mv_view_label;
extern const mv_view_kind mv_view_relative;
extern const mv_view_kind mv_view_tempered;

static const mv_view_kind *const VIEWS[] = {
    &mv_view_identity,       /* answers as they are */
    &mv_view_identity_round, /* to some decimals */
    &mv_view_logprob,        /* log-probabilities */
    &mv_view_round,          /* of rounded probabilities */
    &mv_view_topk,           /* of the best few alone */
    &mv_view_label,          /* the best class */
    &mv_view_relative,       /* log-probabilities, whatever the temperature */
    &mv_view_tempered,       /* probabilities, all models at one confidence */
};

enum { VIEW_COUNT = sizeof VIEWS / sizeof *VIEWS };

static_assert((int)VIEW_COUNT <= (int)MV_MAX_VIEWS, "mv_view_list has no room for all views");

size_t
mv_view_list(mv_view_traits list[MV_MAX_VIEWS])
{
    for (size_t i = 0; i < VIEW_COUNT; i++) {
        list[i] = (mv_view_traits){
            .name = VIEWS[i]->name,
            .parameter = VIEWS[i]->parameter,
            .reads_classes = VIEWS[i]->reads_classes,
            .reads_labels = VIEWS[i]->reads_labels,
        };
    }
    return VIEW_COUNT;
}

static bool
accepts(const mv_view_kind *kind, int parameter)
{
    return !kind->parameter || (parameter >= kind->minimum && parameter <= kind->maximum);
}

/* Reads "(digits)" up to the end of the text; false if it is not that. Numbers that are too large for
 * any view become MV_MAX_VIEW_PARAMETER + 1. */
static bool
parse_parameter(const char *text, int *parameter)
{
    if (*text != '(') {
        return false;
    }
    const char *digit = text + 1;
    long value = 0;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        value = value > MV_MAX_VIEW_PARAMETER / 10 ? MV_MAX_VIEW_PARAMETER + 1L : value * 10 + (*digit - '0');
    }
    *parameter = (int)(value > MV_MAX_VIEW_PARAMETER ? MV_MAX_VIEW_PARAMETER + 1L : value);
    return digit > text + 1 && digit[0] == ')' && digit[1] == '\0';
}

mv_status
mv_view_parse(const char *text, mv_view *view)
{
    const size_t length = strcspn(text, "(");
    for (size_t i = 0; i < VIEW_COUNT; i++) {
        const mv_view_kind *kind = VIEWS[i];
        if (strlen(kind->name) != length || strncmp(kind->name, text, length) != 0) {
            continue;
        }
        int parameter = 0;
        if (kind->parameter ? !parse_parameter(text + length, &parameter) : text[length] != '\0') {
            return MV_ERROR_VIEW_NAME;
        }
        if (!accepts(kind, parameter)) {
            return MV_ERROR_VIEW_PARAMETER;
        }
        *view = (mv_view){kind, parameter};
        return MV_OK;
    }
    return MV_ERROR_VIEW_NAME;
}

bool
mv_view_is_identity(mv_view view)
{
    return view.kind == &mv_view_identity;
}

mv_status
mv_view_check(mv_view view, size_t outputs)
{
    const mv_view_kind *kind = view.kind;
    if (!kind) {
        return MV_ERROR_VIEW_NAME;
    }
    if (!accepts(kind, view.parameter)) {
        return MV_ERROR_VIEW_PARAMETER;
    }
    return !kind->reads_classes || outputs >= 2 ? MV_OK : MV_ERROR_VIEW_OUTPUTS;
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
    const mv_view_kind *kind = view.kind;
    mv_row row = make_row(view, outputs, scratch);
    row.is_distribution = kind->reads_classes && mv_are_probabilities(responses, queries, outputs);
    const mv_rows rows = {kernels, queries, outputs, row.is_distribution};
    if (kind->model_features) {
        kind->model_features(&rows, responses, features);
        return;
    }
    if (!row.is_distribution && kind->logit_features) {
        kind->logit_features(&rows, responses, features);
        return;
    }
    for (size_t n = 0; n < queries; n++) { /* (N, K) */
        row.r = responses + n * outputs;
        kind->features(&row, features + n * outputs);
    }
}

void
mv_view_response_gradient(const mv_kernels *kernels, mv_view view, size_t queries, size_t outputs,
                          const float *responses, const float *feature_gradient, float *response_gradient,
                          double *scratch)
{
    const mv_view_kind *kind = view.kind;
    mv_row row = make_row(view, outputs, scratch);
    row.is_distribution = kind->reads_classes && mv_are_probabilities(responses, queries, outputs);
    const mv_rows rows = {kernels, queries, outputs, row.is_distribution};
    if (kind->model_gradient) {
        kind->model_gradient(&rows, responses, feature_gradient, response_gradient);
        return;
    }
    if (!row.is_distribution && kind->logit_gradient) {
        kind->logit_gradient(&rows, responses, feature_gradient, response_gradient);
        return;
    }
    for (size_t n = 0; n < queries; n++) { /* (N, K) */
        row.r = responses + n * outputs;
        kind->gradient(&row, feature_gradient + n * outputs, response_gradient + n * outputs);
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
    for (size_t at = 0; at < count; at += size) { /* (M, N * K) */
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
    for (size_t at = 0; at < count; at += size) { /* (M, N * K) */
        mv_view_response_gradient(mv_kernels_get(), view, shape.queries, shape.outputs, responses + at,
                                  feature_gradient + at, response_gradient + at, scratch);
    }
    mv_free(scratch);
    return MV_OK;
}
