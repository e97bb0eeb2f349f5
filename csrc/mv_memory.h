/* The only way to the heap: every allocation of the core goes through here. */
#ifndef MV_MEMORY_H
#define MV_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* Vectors of any kernel start on a cache line. */
enum { MV_ALIGNMENT = 64 };

/* At least one byte, aligned, zeroed; NULL if there is none. */
void *mv_alloc(size_t bytes);
void mv_free(void *memory);

/* *product = a * b; false if it does not fit. */
bool mv_multiply(size_t a, size_t b, size_t *product);

/* count floats, zeroed; NULL on failure or if the size does not fit. */
float *mv_alloc_floats(size_t count);

#ifdef MV_TEST_ALLOCATIONS
/* Tests only: the n-th allocation from now (1 = the next) and all later ones fail; 0 = none. */
void mv_test_fail_allocation(long n);
#endif

/* Scratch that grows and is never given back before the handle: a step in the steady state does not allocate.
 * reserve() drops what was taken before; take() after a sufficient reserve() cannot fail. An arena without memory only
 * counts: take() returns NULL and `used` tells what to reserve. */
typedef struct mv_arena {
    char *memory;
    size_t size, used;
} mv_arena;

/* Bytes that take(bytes) really uses. */
size_t mv_arena_rounded(size_t bytes);
bool mv_arena_reserve(mv_arena *arena, size_t bytes);
void *mv_arena_take(mv_arena *arena, size_t bytes);
void mv_arena_free(mv_arena *arena);

#endif
