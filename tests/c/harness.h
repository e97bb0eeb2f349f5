/* The smallest test harness that serves: checks count, the last line sums up. */
#ifndef METAV_TEST_HARNESS_H
#define METAV_TEST_HARNESS_H

#include <stdio.h>

static int passed, failed;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (condition) {                                                                                               \
            passed++;                                                                                                  \
        }                                                                                                              \
        else {                                                                                                         \
            failed++;                                                                                                  \
            printf("%s:%d: %s: not true: %s\n", __FILE__, __LINE__, __func__, #condition);                             \
        }                                                                                                              \
    } while (0)

#endif
