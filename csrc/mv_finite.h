/* Is every number finite? */
#ifndef MV_FINITE_H
#define MV_FINITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline bool
mv_all_finite(const float *values, size_t count)
{
    const uint32_t exponent = UINT32_C(0x7F800000);
    uint32_t found = 0;
    for (size_t i = 0; i < count; i++) { /* no early exit: the loop vectorises */
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        found |= (uint32_t)((bits & exponent) == exponent);
    }
    return !found;
}

#endif
