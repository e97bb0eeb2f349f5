#include "mv_adam.h"

#include <math.h>

mv_adam_step
mv_adam_prepare(uint64_t step, double learning_rate, double weight_decay)
{
    return (mv_adam_step){
        .beta1 = (float)MV_ADAM_BETA1,
        .beta2 = (float)MV_ADAM_BETA2,
        .first_correction = (float)(1.0 / (1.0 - pow(MV_ADAM_BETA1, (double)step))),
        .second_correction = (float)(1.0 / sqrt(1.0 - pow(MV_ADAM_BETA2, (double)step))),
        .rate = (float)learning_rate,
        .decay = (float)(1.0 - learning_rate * weight_decay),
    };
}
