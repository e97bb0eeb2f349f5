#if defined(__linux__)
#define _DEFAULT_SOURCE /* madvise */
#endif
#include "mv_memory.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

/* From this size on, pages of this size where the system has them: large matrices are read with long strides. */
enum { HUGE_PAGE = 1 << 21 };

#ifdef MV_TEST_ALLOCATIONS
static long test_countdown;

void
mv_test_fail_allocation(long n)
{
    test_countdown = n;
}

static bool
test_fails(void)
{
    if (test_countdown > 1) {
        test_countdown--;
        return false;
    }
    return test_countdown == 1;
}
#endif

void *
mv_alloc(size_t bytes)
{
#ifdef MV_TEST_ALLOCATIONS
    if (test_fails()) {
        return NULL;
    }
#endif
    if (bytes > PTRDIFF_MAX - HUGE_PAGE) {
        return NULL;
    }
    const size_t alignment = bytes < HUGE_PAGE ? MV_ALIGNMENT : HUGE_PAGE;
    const size_t size = ((bytes ? bytes : 1) + alignment - 1) / alignment * alignment;
#ifdef _WIN32
    void *memory = _aligned_malloc(size, alignment);
#else
    void *memory = aligned_alloc(alignment, size);
#endif
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (memory && alignment == HUGE_PAGE) {
        (void)madvise(memory, size, MADV_HUGEPAGE); /* advice: refused, it changes nothing */
    }
#endif
    if (memory) {
        memset(memory, 0, size);
    }
    return memory;
}

void
mv_free(void *memory)
{
#ifdef _WIN32
    _aligned_free(memory);
#else
    free(memory);
#endif
}

bool
mv_multiply(size_t a, size_t b, size_t *product)
{
    if (b && a > (size_t)PTRDIFF_MAX / b) {
        return false;
    }
    *product = a * b;
    return true;
}

float *
mv_alloc_floats(size_t count)
{
    size_t bytes;
    return mv_multiply(count, sizeof(float), &bytes) ? mv_alloc(bytes) : NULL;
}

size_t
mv_arena_rounded(size_t bytes)
{
    return (bytes + MV_ALIGNMENT - 1) / MV_ALIGNMENT * MV_ALIGNMENT;
}

bool
mv_arena_reserve(mv_arena *arena, size_t bytes)
{
    arena->used = 0;
    if (bytes <= arena->size) {
        return true;
    }
    char *memory = mv_alloc(bytes);
    if (!memory) {
        return false;
    }
    /* In this order: the child of a fork in between must not find memory that has been given back. */
    char *old = arena->memory;
    arena->memory = memory;
    arena->size = bytes;
    mv_free(old);
    return true;
}

void *
mv_arena_take(mv_arena *arena, size_t bytes)
{
    void *memory = arena->memory ? arena->memory + arena->used : NULL;
    arena->used += mv_arena_rounded(bytes);
    assert(!memory || arena->used <= arena->size);
    return memory;
}

void
mv_arena_free(mv_arena *arena)
{
    mv_free(arena->memory);
    *arena = (mv_arena){0};
}
