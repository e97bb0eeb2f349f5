#include "call.h"

#if !defined(_WIN32)
#include <pthread.h>
#endif

/* How many forks lie between this process and the first one, shared by the whole process: tells its threads from a parent's. */
static atomic_uint forks;

static uint64_t
own_process(void)
{
    return (uint64_t)atomic_load_explicit(&forks, memory_order_relaxed) << 32;
}

#if defined(_WIN32)

int
call_watch_forks(void)
{
    return 0;
}

#else

static void
count_fork(void)
{
    atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed);
}

int
call_watch_forks(void)
{
    if (pthread_atfork(NULL, NULL, count_fork) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

#endif

void
call_open(core_call *call, module_state *state, handle_guard *guard, call_access access, const char *type_name)
{
    call->state = state;
    call->guard = guard;
    call->access = access;
    call->type_name = type_name;
    call->entered = false;
    call->thread = NULL;
    call->output = NULL;
    call->count = 0; /* tensors beyond it stay as they are: to clear them all would cost more than the rest */
}

const tensor *
call_take(core_call *call, PyObject *object, const tensor_spec *spec)
{
    tensor *taken = call->tensors + call->count;
    if (tensor_import(call->state, object, spec, taken) < 0) {
        return NULL;
    }
    call->count++;
    return taken;
}

const tensor *
call_take_output(core_call *call, PyObject *out, const tensor_spec *spec)
{
    tensor *taken = call->tensors + call->count;
    call->output = tensor_output(call->state, out, spec, taken);
    if (!call->output) {
        return NULL;
    }
    call->count++;
    return taken;
}

/* Low half of a guard: one call changes the handle. So many readers there never are. */
#define HANDLE_CHANGING UINT32_MAX
#define HANDLE_USERS(state) ((uint32_t)(state))

static bool
refuse(const core_call *call, const char *reason)
{
    PyErr_Format(PyExc_RuntimeError, "this %s %s", call->type_name, reason);
    return false;
}

bool
call_enter(core_call *call)
{
    const uint64_t own = own_process();
    uint64_t found = atomic_load_explicit(&call->guard->state, memory_order_relaxed);
    uint64_t wanted;
    do {
        uint32_t users = HANDLE_USERS(found);
        if (found - users != own) {
            /* Of the process that was forked: its readers are gone, and have changed nothing. */
            if (users == HANDLE_CHANGING) {
                return refuse(call, "was being changed by another thread when this process was forked; make a new one");
            }
            users = 0;
        }
        if (users == HANDLE_CHANGING || (users && call->access == CALL_CHANGES)) {
            return refuse(call, "is in use by another thread; give each thread its own, or guard it with a lock");
        }
        wanted = own | (call->access == CALL_CHANGES ? HANDLE_CHANGING : users + 1);
    } while (!atomic_compare_exchange_weak_explicit(&call->guard->state, &found, wanted, memory_order_acquire,
                                                    memory_order_relaxed));
    call->entered = true;
    return true;
}

static void
leave(core_call *call)
{
    if (!call->entered) {
        return;
    }
    const uint64_t own = own_process();
    uint64_t found = atomic_load_explicit(&call->guard->state, memory_order_relaxed);
    uint64_t wanted;
    do {
        /* Not of this process: the call's own Python code forked, and the child has this thread alone. */
        const bool is_last = found - HANDLE_USERS(found) != own || call->access == CALL_CHANGES;
        wanted = is_last ? own : found - 1;
    } while (!atomic_compare_exchange_weak_explicit(&call->guard->state, &found, wanted, memory_order_release,
                                                    memory_order_relaxed));
    call->entered = false;
}

bool
call_check(core_call *call)
{
    return tensor_check_overlaps(call->tensors, call->count) == 0 &&
           tensor_begin(call->state, call->tensors, call->count) == 0;
}

bool
call_begin(core_call *call)
{
    if (!call_check(call) || (call->guard && !call->entered && !call_enter(call))) {
        return false;
    }
    call->thread = PyEval_SaveThread();
    return true;
}

bool
call_end(core_call *call, mv_status status, const char *subject)
{
    PyEval_RestoreThread(call->thread);
    leave(call);
    if (status) {
        raise_status(status, subject);
        return false;
    }
    return tensor_end(call->tensors, call->count) == 0;
}

void
call_close(core_call *call)
{
    leave(call);
    for (size_t i = 0; i < call->count; i++) {
        tensor_release(call->tensors + i);
    }
    Py_CLEAR(call->output);
}
