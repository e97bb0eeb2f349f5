/* Views of one model's answers, for callers that bring their own scratch (the public functions are in metav.h). */
#ifndef MV_VIEW_H
#define MV_VIEW_H

#include "metav.h"
#include "mv_cpu.h"

/* doubles of scratch that the row functions below need */
size_t mv_view_scratch(size_t outputs);

mv_status mv_view_check(mv_view view, size_t outputs);

/* Does the view leave the answers as they are? */
bool mv_view_is_identity(mv_view view);

/* One model's (queries, outputs) numbers; they are finite, the view has passed mv_view_check. No overlap. */
void mv_view_features(const mv_kernels *kernels, mv_view view, size_t queries, size_t outputs, const float *responses,
                      float *features, double *scratch);
void mv_view_response_gradient(const mv_kernels *kernels, mv_view view, size_t queries, size_t outputs,
                               const float *responses, const float *feature_gradient, float *response_gradient,
                               double *scratch);

#endif
