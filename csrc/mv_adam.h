/* Adam with decoupled weight decay (Loshchilov and Hutter, 2019), as torch.optim.AdamW. */
#ifndef MV_ADAM_H
#define MV_ADAM_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define MV_ADAM_BETA1 0.9
#define MV_ADAM_BETA2 0.999
#define MV_ADAM_EPSILON 1e-8

/* The bias corrections of step number `step` (1 = the first). */
typedef struct mv_adam_step {
    float beta1, beta2;
    float first;  /* 1 / (1 - beta1^step) */
    float second; /* 1 / sqrt(1 - beta2^step) */
} mv_adam_step;

mv_adam_step mv_adam_prepare(uint64_t step);

/* Updates both moments; returns what Adam subtracts at learning rate 1. */
static inline float
mv_adam_direction(const mv_adam_step *step, float gradient, float *first, float *second)
{
    *first = step->beta1 * *first + (1.0f - step->beta1) * gradient;
    *second = step->beta2 * *second + (1.0f - step->beta2) * gradient * gradient;
    return *first * step->first / (sqrtf(*second) * step->second + (float)MV_ADAM_EPSILON);
}

/* One update of `count` parameters in place; step = 1 for the first. */
void mv_adam_update(uint64_t step, double learning_rate, double weight_decay, size_t count, float *parameters,
                    const float *gradient, float *first, float *second);

#endif
