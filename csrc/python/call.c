#include "call.h"

void
call_open(core_call *call, module_state *state, atomic_bool *busy, const char *type_name)
{
    call->state = state;
    call->busy = busy;
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

bool
call_enter(core_call *call)
{
    if (atomic_exchange_explicit(call->busy, true, memory_order_acquire)) {
        PyErr_Format(PyExc_RuntimeError,
                     "this %s is in use by another thread; give each thread its own, or guard it with a lock",
                     call->type_name);
        return false;
    }
    call->entered = true;
    return true;
}

static void
leave(core_call *call)
{
    if (call->entered) {
        atomic_store_explicit(call->busy, false, memory_order_release);
        call->entered = false;
    }
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
    if (!call_check(call) || (call->busy && !call->entered && !call_enter(call))) {
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
