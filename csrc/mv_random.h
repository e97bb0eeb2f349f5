/* Counter-based random numbers: value i of a stream depends on (seed, purpose, step, i) alone, in any order. */
#ifndef MV_RANDOM_H
#define MV_RANDOM_H

#include <stddef.h>
#include <stdint.h>

typedef enum mv_purpose { MV_RANDOM_INIT, MV_RANDOM_MIX, MV_RANDOM_NOISE, MV_RANDOM_DROPOUT } mv_purpose;

typedef struct mv_stream {
    uint64_t key;
} mv_stream;

mv_stream mv_stream_open(uint64_t seed, mv_purpose purpose, uint64_t step);

/* 64 random bits: number `index` of splitmix64 started at the key. */
static inline uint64_t
mv_random_bits(mv_stream stream, uint64_t index)
{
    uint64_t x = stream.key + (index + 1) * UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

/* Uniform in [0, 1), 53 bits. */
static inline double
mv_random_uniform(mv_stream stream, uint64_t index)
{
    return (double)(mv_random_bits(stream, index) >> 11) * 0x1p-53;
}

/* values[i] += deviation * N(0, 1) for i < count (Box-Muller, two values from each 64 bits). */
void mv_random_add_normal(mv_stream stream, float deviation, size_t count, float *values);

#endif
