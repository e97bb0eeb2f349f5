/* Random changes to standardised responses, and their way back for gradients (metav.h, mv_verifier_step). */
#ifndef MV_AUGMENT_H
#define MV_AUGMENT_H

#include "mv_verifier.h"

/* Changes work->z in place; fills mix_partner, mix_share and dropout_factor. */
void mv_augment(const mv_verifier *self, size_t models, const uint8_t *roles, const mv_step_options *options,
                mv_workspace *work);

/* Turns work->z_gradient into the gradient with respect to z before mv_augment. */
void mv_augment_backward(const mv_verifier *self, size_t models, const mv_step_options *options, mv_workspace *work);

#endif
