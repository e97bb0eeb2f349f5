#include "mv_adam.h"

mv_adam_step
mv_adam_prepare(uint64_t step)
{
    return (mv_adam_step){
        .beta1 = (float)MV_ADAM_BETA1,
        .beta2 = (float)MV_ADAM_BETA2,
        .first = (float)(1.0 / (1.0 - pow(MV_ADAM_BETA1, (double)step))),
        .second = (float)(1.0 / sqrt(1.0 - pow(MV_ADAM_BETA2, (double)step))),
    };
}

void
mv_adam_update(uint64_t step, double learning_rate, double weight_decay, size_t count, float *restrict parameters,
               const float *restrict gradient, float *restrict first, float *restrict second)
{
    const mv_adam_step adam = mv_adam_prepare(step);
    const float rate = (float)learning_rate;
    const float keep = (float)(1.0 - learning_rate * weight_decay);
    for (size_t i = 0; i < count; i++) {
        parameters[i] = keep * parameters[i] - rate * mv_adam_direction(&adam, gradient[i], first + i, second + i);
    }
}
