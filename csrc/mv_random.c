#include "mv_random.h"

#include <math.h>

mv_stream
mv_stream_open(uint64_t seed, mv_purpose purpose, uint64_t step)
{
    /* Hash each ingredient in turn: neighbouring seeds and steps give unrelated keys. */
    mv_stream stream = {seed};
    stream.key = mv_random_bits(stream, (uint64_t)purpose);
    stream.key = mv_random_bits(stream, step);
    return stream;
}

void
mv_random_add_normal(mv_stream stream, float deviation, size_t count, float *values)
{
    for (size_t i = 0; i < count; i += 2) {
        const uint64_t bits = mv_random_bits(stream, i / 2);
        /* (0, 1]: the logarithm stays finite. */
        const float uniform = ((float)(bits >> 40) + 1.0f) * 0x1p-24f;
        const float angle = (float)(bits & 0xFFFFFF) * (0x1p-24f * 6.28318530718f);
        const float radius = deviation * sqrtf(-2.0f * logf(uniform));
        values[i] += radius * cosf(angle);
        if (i + 1 < count) {
            values[i + 1] += radius * sinf(angle);
        }
    }
}
