#include "mv_pool.h"

#include "metav.h"
#include "mv_cpu.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(MV_HAS_X86)
#include <immintrin.h>
#endif

/* A thread is woken for at least this many operations: some 30 microseconds of them. */
#define OPERATIONS_PER_THREAD 3e6

static atomic_size_t chosen_threads; /* 0: not set yet */

size_t
mv_get_threads(void)
{
    size_t threads = atomic_load(&chosen_threads);
    if (!threads) {
        const size_t found = mv_cpu_count();
        threads = found < MV_MAX_THREADS ? found : MV_MAX_THREADS;
        size_t unset = 0;
        if (!atomic_compare_exchange_strong(&chosen_threads, &unset, threads)) {
            threads = unset;
        }
    }
    return threads;
}

mv_status
mv_set_threads(size_t threads)
{
    if (!threads || threads > MV_MAX_THREADS) {
        return MV_ERROR_OPTION;
    }
    atomic_store(&chosen_threads, threads);
    return MV_OK;
}

size_t
mv_pool_pays(size_t available, double operations)
{
    const double paid = operations / OPERATIONS_PER_THREAD;
    return paid >= (double)available ? available : paid < 1.0 ? 1 : (size_t)paid;
}

/* Numbers below 1.2e-38 count as zero during the work: they would cost a hundred times the others. */
#if defined(MV_HAS_X86)
enum { FLUSH_TO_ZERO = 0x8000, DENORMALS_ARE_ZERO = 0x0040 };
typedef unsigned flush_mode;
static flush_mode
flush_denormals(void)
{
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO);
    return mode;
}
#define restore_denormals(mode) _mm_setcsr(mode)
#elif defined(__aarch64__) && defined(__GNUC__)
typedef uint64_t flush_mode;
static flush_mode
flush_denormals(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode | UINT64_C(0x1000000)));
    return mode;
}
#define restore_denormals(mode) __asm__ volatile("msr fpcr, %0" : : "r"(mode))
#else
typedef unsigned flush_mode;
#define flush_denormals() 0U
#define restore_denormals(mode) ((void)(mode))
#endif

/* Part `index` of `parts` equal ones. */
static void
run_part(mv_work work, void *context, size_t count, size_t parts, size_t index)
{
    const size_t each = count / parts;
    const size_t more = count % parts;
    const size_t start = index * each + (index < more ? index : more);
    const size_t end = start + each + (index < more);
    if (start < end) {
        const flush_mode mode = flush_denormals();
        work(context, start, end, index);
        restore_denormals(mode);
    }
}

#if defined(_WIN32)

void
mv_pool_run(size_t threads, size_t count, mv_work work, void *context)
{
    (void)threads;
    run_part(work, context, count, 1, 0);
}

void
mv_pool_stop(void)
{
}

#else

#include <pthread.h>

#if defined(__x86_64__)
#define relax() _mm_pause()
#elif defined(__aarch64__)
#define relax() __asm__ volatile("yield")
#else
#define relax() ((void)0)
#endif

/* Rounds that a thread looks for news before it sleeps, some 100 microseconds; none where threads share CPUs. */
enum { SPIN_ROUNDS = 3000 };

/* A worker sleeps until its ticket changes; the mutex of the pool guards the sleep. */
typedef struct worker {
    pthread_t thread;
    pthread_cond_t wake;
    atomic_size_t ticket;
} worker;

/* With the chosen kernels the only state that the whole process shares. `busy` gives it to one caller at a time. */
static struct {
    atomic_flag busy;
    atomic_size_t remaining; /* workers that have not finished the job */
    pthread_mutex_t mutex;
    pthread_cond_t finished;
    worker workers[MV_MAX_THREADS];
    size_t worker_count;
    int spin_rounds;
    bool forks_watched;
    /* the job */
    bool stop;
    size_t parts, count;
    mv_work work;
    void *context;
} pool = {
    .busy = ATOMIC_FLAG_INIT,
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .finished = PTHREAD_COND_INITIALIZER,
};

static void
wait_for_ticket(worker *self, size_t seen)
{
    for (int i = 0; i < pool.spin_rounds; i++) {
        if (atomic_load_explicit(&self->ticket, memory_order_acquire) != seen) {
            return;
        }
        relax();
    }
    pthread_mutex_lock(&pool.mutex);
    while (atomic_load_explicit(&self->ticket, memory_order_acquire) == seen) {
        pthread_cond_wait(&self->wake, &pool.mutex);
    }
    pthread_mutex_unlock(&pool.mutex);
}

static void *
serve(void *argument)
{
    worker *self = argument;
    const size_t index = (size_t)(self - pool.workers) + 1;
    for (size_t seen = 0;; seen++) {
        wait_for_ticket(self, seen);
        if (pool.stop) {
            return NULL;
        }
        run_part(pool.work, pool.context, pool.count, pool.parts, index);
        if (atomic_fetch_sub_explicit(&pool.remaining, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&pool.mutex);
            pthread_cond_signal(&pool.finished);
            pthread_mutex_unlock(&pool.mutex);
        }
    }
}

static void
wake_workers(size_t count)
{
    pthread_mutex_lock(&pool.mutex);
    for (size_t i = 0; i < count; i++) {
        atomic_fetch_add_explicit(&pool.workers[i].ticket, 1, memory_order_release);
        pthread_cond_signal(&pool.workers[i].wake);
    }
    pthread_mutex_unlock(&pool.mutex);
}

static void
wait_for_workers(void)
{
    for (int i = 0; i < pool.spin_rounds; i++) {
        if (!atomic_load_explicit(&pool.remaining, memory_order_acquire)) {
            return;
        }
        relax();
    }
    pthread_mutex_lock(&pool.mutex);
    while (atomic_load_explicit(&pool.remaining, memory_order_acquire)) {
        pthread_cond_wait(&pool.finished, &pool.mutex);
    }
    pthread_mutex_unlock(&pool.mutex);
}

/* The child of a fork has none of the threads, and a mutex that one of them may have held. */
static void
forget_pool(void)
{
    pthread_mutex_init(&pool.mutex, NULL);
    pthread_cond_init(&pool.finished, NULL);
    pool.worker_count = 0;
    atomic_store(&pool.remaining, 0);
    atomic_flag_clear(&pool.busy);
}

/* Starts workers up to `wanted`; returns how many there are, fewer where the system refuses. */
static size_t
start_workers(size_t wanted)
{
    if (!pool.forks_watched) {
        pool.forks_watched = pthread_atfork(NULL, NULL, forget_pool) == 0;
    }
    /* A pool that a fork would leave behind broken is worse than none. */
    while (pool.forks_watched && pool.worker_count < wanted) {
        worker *next = &pool.workers[pool.worker_count];
        atomic_store(&next->ticket, 0);
        pthread_cond_init(&next->wake, NULL);
        if (pthread_create(&next->thread, NULL, serve, next) != 0) {
            break;
        }
        pool.worker_count++;
    }
    return pool.worker_count < wanted ? pool.worker_count : wanted;
}

void
mv_pool_run(size_t threads, size_t count, mv_work work, void *context)
{
    const size_t wanted = threads < count ? threads : count;
    if (wanted <= 1 || atomic_flag_test_and_set(&pool.busy)) {
        run_part(work, context, count, 1, 0);
        return;
    }
    /* The spinning of one thread may not keep another one from its CPU. */
    if (!pool.worker_count) {
        pool.spin_rounds = wanted <= mv_cpu_count() ? SPIN_ROUNDS : 0;
    }
    const size_t workers = start_workers(wanted - 1);
    pool.parts = workers + 1;
    pool.count = count;
    pool.work = work;
    pool.context = context;
    atomic_store_explicit(&pool.remaining, workers, memory_order_release);
    wake_workers(workers);
    run_part(work, context, count, workers + 1, 0);
    wait_for_workers();
    atomic_flag_clear(&pool.busy);
}

void
mv_pool_stop(void)
{
    if (atomic_flag_test_and_set(&pool.busy)) {
        return;
    }
    pool.stop = true;
    wake_workers(pool.worker_count);
    for (size_t i = 0; i < pool.worker_count; i++) {
        pthread_join(pool.workers[i].thread, NULL);
        pthread_cond_destroy(&pool.workers[i].wake);
    }
    pool.worker_count = 0;
    pool.stop = false;
    atomic_flag_clear(&pool.busy);
}

#endif
