/* The thread pool. It splits outputs, never sums: results do not depend on the number of threads. */
#ifndef MV_POOL_H
#define MV_POOL_H

#include <stddef.h>

/* Does items [start, end) as thread number `thread`, 0 being the caller. */
typedef void (*mv_work)(void *context, size_t start, size_t end, size_t thread);

/* How many threads work of this many operations (multiply-adds, or floats moved) pays for; at most `available`. */
size_t mv_pool_pays(size_t available, double operations);

/* Splits `count` items among at most `threads`. While another caller has the pool, the work is done here, alone. */
void mv_pool_run(size_t threads, size_t count, mv_work work, void *context);

#endif
