#if defined(__linux__)
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "mv_cpu.h"

#include "metav.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(_WIN32)
#include <windows.h>
#else
#include <unistd.h>
#endif
#if defined(MV_HAS_X86) && defined(_MSC_VER)
#include <intrin.h>
#endif

/* Instruction sets ------------------------------------------------------------------------------------------------ */

#if defined(MV_HAS_X86) && defined(_MSC_VER)

/* The registers' state must be saved by the system too: bits of XCR0. */
enum { XCR0_AVX = 0x06, XCR0_AVX512 = 0xE6 };

static bool
has_avx2(void)
{
    int leaf[4];
    __cpuidex(leaf, 1, 0);
    const int needed = (1 << 12) | (1 << 27) | (1 << 28); /* FMA, OSXSAVE, AVX */
    if ((leaf[2] & needed) != needed || (_xgetbv(0) & XCR0_AVX) != XCR0_AVX) {
        return false;
    }
    __cpuidex(leaf, 7, 0);
    return (leaf[1] >> 5) & 1;
}

static bool
has_avx512(void)
{
    int leaf[4];
    __cpuidex(leaf, 7, 0);
    const unsigned needed = (1U << 16) | (1U << 17) | (1U << 30) | (1U << 31); /* F, DQ, BW, VL */
    return has_avx2() && ((unsigned)leaf[1] & needed) == needed && (_xgetbv(0) & XCR0_AVX512) == XCR0_AVX512;
}

#elif defined(MV_HAS_X86)

/* The builtins ask cpuid and xgetbv. */
static bool
has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool
has_avx512(void)
{
    __builtin_cpu_init();
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

#endif

static bool
always(void)
{
    return true;
}

/* Best first. */
static const struct {
    const mv_kernels *kernels;
    bool (*available)(void);
} levels[] = {
#ifdef MV_HAS_X86
    {&mv_kernels_avx512, has_avx512},
    {&mv_kernels_avx2, has_avx2},
#endif
#ifdef MV_HAS_NEON
    {&mv_kernels_neon, always},
#endif
    {&mv_kernels_generic, always},
};

enum { LEVELS = sizeof levels / sizeof *levels };

static _Atomic(const mv_kernels *) chosen;

size_t
mv_isa_list(const char *names[MV_MAX_ISAS])
{
    size_t count = 0;
    for (size_t i = 0; i < LEVELS; i++) {
        if (levels[i].available()) {
            names[count++] = levels[i].kernels->name;
        }
    }
    return count;
}

mv_status
mv_set_isa(const char *name)
{
    for (size_t i = 0; i < LEVELS; i++) {
        if ((!name || !strcmp(name, levels[i].kernels->name)) && levels[i].available()) {
            atomic_store(&chosen, levels[i].kernels);
            return MV_OK;
        }
    }
    return MV_ERROR_ISA;
}

const mv_kernels *
mv_kernels_get(void)
{
    const mv_kernels *kernels = atomic_load_explicit(&chosen, memory_order_acquire);
    if (!kernels) { /* two threads may both get here: they store the same */
        (void)mv_set_isa(NULL);
        kernels = atomic_load(&chosen);
    }
    return kernels;
}

const char *
mv_get_isa(void)
{
    return mv_kernels_get()->name;
}

/* CPUs ------------------------------------------------------------------------------------------------------------ */

static size_t
scheduled_cpus(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        return (size_t)CPU_COUNT(&set);
    }
#endif
#if defined(_WIN32)
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwNumberOfProcessors;
#else
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (size_t)online : 1;
#endif
}

/* quota / period of a control group, rounded up; 0 where there is no limit. */
static size_t
control_group_cpus(void)
{
    double quota = 0.0;
    double period = 0.0;
#if defined(__linux__)
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re"); /* version 2 */
    if (file) {
        if (fscanf(file, "%lf %lf", &quota, &period) != 2) { /* "max 100000" */
            quota = 0.0;
        }
        (void)fclose(file);
    }
    else {
        FILE *quota_file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re");
        FILE *period_file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re");
        if (!quota_file || !period_file || fscanf(quota_file, "%lf", &quota) != 1 ||
            fscanf(period_file, "%lf", &period) != 1) {
            quota = 0.0;
        }
        if (quota_file) {
            (void)fclose(quota_file);
        }
        if (period_file) {
            (void)fclose(period_file);
        }
    }
#endif
    if (!(quota > 0.0) || !(period > 0.0) || quota / period > 1e6) {
        return 0;
    }
    const size_t whole = (size_t)(quota / period);
    return whole + ((double)whole < quota / period);
}

size_t
mv_cpu_count(void)
{
    const size_t scheduled = scheduled_cpus();
    const size_t limit = control_group_cpus();
    const size_t count = limit && limit < scheduled ? limit : scheduled;
    return count ? count : 1;
}
