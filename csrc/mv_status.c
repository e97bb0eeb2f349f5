#include "metav.h"

static const char *const texts[MV_STATUS_COUNT] = {
    [MV_OK] = "no error",
    [MV_ERROR_MEMORY] = "out of memory",
    [MV_ERROR_SIZE] = "models, queries, outputs and hidden must be >= 1 and their product must fit in memory",
    [MV_ERROR_KIND] = "unknown verifier kind",
    [MV_ERROR_VIEW_NAME] = "unknown view",
    [MV_ERROR_VIEW_PARAMETER] = "the view's number is out of range: decimals are 0 to 8, k is at least 1",
    [MV_ERROR_VIEW_OUTPUTS] = "this view needs at least 2 outputs per query; use identity for single outputs",
    [MV_ERROR_RESPONSES] = "responses contain NaN or infinity; leave such a model out",
    [MV_ERROR_OWNER_RESPONSES] = "owner contains NaN or infinity; check the owner model's outputs",
    [MV_ERROR_NEGATIVE_RESPONSES] = "negatives contain NaN or infinity; leave such a model out",
    [MV_ERROR_GRADIENT] = "gradient contains NaN or infinity",
    [MV_ERROR_LOSS] = "the logits overflowed: the responses are too large; call standardize first",
    [MV_ERROR_ROLES] = "roles must be ROLE_NEGATIVE (0), ROLE_POSITIVE (1) or ROLE_OWNER (2)",
    [MV_ERROR_OPTION] = "an option is out of range",
    [MV_ERROR_NO_CLOSED_FORM] = "only a verifier of kind 'matched' can be fitted in closed form",
    [MV_ERROR_NOT_FITTED] =
        "a verifier of kind 'matched' must be fitted first: call fit_closed_form or load_parameters",
    [MV_ERROR_FEW_NEGATIVES] = "at least 2 negatives are needed",
    [MV_ERROR_NO_CONTRAST] = "the owner answers exactly like the mean negative on these queries; use other queries",
    [MV_ERROR_PARAMETER_NAME] = "is not a parameter of this kind of verifier",
    [MV_ERROR_PARAMETER_MISSING] = "is missing",
    [MV_ERROR_PARAMETER_SHAPE] = "has a shape that does not fit this verifier",
    [MV_ERROR_PARAMETER_VALUE] = "must be finite, and scale and precision positive",
    [MV_ERROR_BOUNDS] = "lower and upper must be finite with lower <= upper",
    [MV_ERROR_ISA] = "this processor has no such instruction set, or metav has no kernels for it",
    [MV_ERROR_NATURAL] = "natural must be finite and within lower and upper",
};

const char *
mv_status_text(mv_status status)
{
    const unsigned index = (unsigned)status;
    return index < MV_STATUS_COUNT ? texts[index] : "unknown status";
}
