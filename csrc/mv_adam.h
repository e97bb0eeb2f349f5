/* Adam with decoupled weight decay (Loshchilov and Hutter, 2019), as torch.optim.AdamW. */
#ifndef MV_ADAM_H
#define MV_ADAM_H

#include <stdint.h>

#define MV_ADAM_BETA1 0.9
#define MV_ADAM_BETA2 0.999
#define MV_ADAM_EPSILON 1e-8

/* The numbers of one update. */
typedef struct mv_adam_step {
    float beta1, beta2;
    float first_correction;  /* 1 / (1 - beta1^step) */
    float second_correction; /* 1 / sqrt(1 - beta2^step) */
    float rate;              /* learning rate */
    float decay;             /* 1 - rate * weight decay: what is left of a parameter */
} mv_adam_step;

/* Update number `step`, 1 being the first. */
mv_adam_step mv_adam_prepare(uint64_t step, double learning_rate, double weight_decay);

#endif
