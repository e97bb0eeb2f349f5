/* A malloc for LD_PRELOAD that fails on request and counts what is alive. Linux with glibc. */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *memory);

static __thread long before, failing, denied; /* of this thread, so that others go on undisturbed */
static atomic_long alive;

/* The allocations n ... n + count - 1 of this thread from now on fail; 0, 0: none. */
void
fail_allocations(long n, long count)
{
    before = n - 1;
    failing = n ? count : 0;
    denied = 0;
}

/* How many were refused since then. */
long
denied_allocations(void)
{
    return denied;
}

long
live_allocations(void)
{
    return atomic_load(&alive);
}

static int
fails(void)
{
    if (failing == 0) {
        return 0;
    }
    if (before > 0) {
        before--;
        return 0;
    }
    failing--;
    denied++;
    errno = ENOMEM;
    return 1;
}

static void *
count(void *memory)
{
    if (memory) {
        atomic_fetch_add(&alive, 1);
    }
    return memory;
}

void *
malloc(size_t size)
{
    return fails() ? NULL : count(__libc_malloc(size));
}

void *
calloc(size_t number, size_t size)
{
    return fails() ? NULL : count(__libc_calloc(number, size));
}

void *
realloc(void *memory, size_t size)
{
    if (fails()) {
        return NULL;
    }
    void *moved = __libc_realloc(memory, size);
    if (!memory) {
        return count(moved);
    }
    if (!moved && size == 0) {
        atomic_fetch_sub(&alive, 1);
    }
    return moved;
}

void *
memalign(size_t alignment, size_t size)
{
    return fails() ? NULL : count(__libc_memalign(alignment, size));
}

void *
aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int
posix_memalign(void **memory, size_t alignment, size_t size)
{
    void *block = memalign(alignment, size);
    if (!block) {
        return ENOMEM;
    }
    *memory = block;
    return 0;
}

void
free(void *memory)
{
    if (memory) {
        atomic_fetch_sub(&alive, 1);
        __libc_free(memory);
    }
}
