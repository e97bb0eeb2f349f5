/* Prints the multiply-adds, as two operations each, that one core does in a second on numbers in registers. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__AVX512F__)
enum { BYTES = 64, CHAINS = 24 };
#elif defined(__AVX__)
enum { BYTES = 32, CHAINS = 12 };
#else
enum { BYTES = 16, CHAINS = 12 };
#endif

typedef float vector __attribute__((vector_size(BYTES)));

static double
seconds(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int
main(int count, char **arguments)
{
    const double length = count > 1 ? atof(arguments[1]) : 0.5;
    const long rounds = 1000000;
    vector sum[CHAINS];
    vector factor, term;
    for (int i = 0; i < BYTES / 4; i++) {
        factor[i] = 0.999f;
        term[i] = 0.001f * (float)i;
    }
    for (int c = 0; c < CHAINS; c++) {
        sum[c] = term * (float)c;
    }
    double best = 0.0;
    for (const double end = seconds() + length; seconds() < end;) {
        const double start = seconds();
        for (long r = 0; r < rounds; r++) {
#pragma GCC unroll 24
            for (int c = 0; c < CHAINS; c++) {
                sum[c] = sum[c] * factor + term;
            }
        }
        const double rate = 2.0 * (BYTES / 4) * CHAINS * (double)rounds / (seconds() - start);
        best = rate > best ? rate : best;
    }
    float checksum = 0.0f; /* of every lane, lest the compiler drops one */
    for (int c = 0; c < CHAINS; c++) {
        for (int i = 0; i < BYTES / 4; i++) {
            checksum += sum[c][i];
        }
    }
    printf("%.6g %g\n", best, (double)checksum);
    return 0;
}
