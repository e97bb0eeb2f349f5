/* One call of the core, from its arguments to its result. Every entry point that works on tensors goes this way:
 *
 *     call_open(&call, ...);
 *     responses = call_take(&call, argument, &spec);       for each tensor; NULL: goto done
 *     if (!call_begin(&call)) {
 *         goto done;
 *     }
 *     status = mv_...(...);                                without the interpreter lock: nothing of Python here
 *     if (call_end(&call, status, NULL)) {
 *         result = ...;
 *     }
 * done:
 *     call_close(&call);
 */
#ifndef METAV_CALL_H
#define METAV_CALL_H

#include "tensor.h"

enum { CALL_TENSORS = MV_MAX_PARAMETERS };

typedef struct core_call {
    module_state *state;
    atomic_bool *busy;     /* guards the handle that is worked on; NULL: there is none */
    const char *type_name; /* of that handle, for messages */
    bool entered;          /* the handle is this call's alone */
    PyThreadState *thread; /* of the caller, while the interpreter lock is released */
    PyObject *output;      /* what call_take_output found or made; NULL */
    size_t count;
    tensor tensors[CALL_TENSORS]; /* the first `count` */
} core_call;

void call_open(core_call *call, module_state *state, atomic_bool *busy, const char *type_name);

/* Imports a tensor, which lives until call_close; NULL with an exception. */
const tensor *call_take(core_call *call, PyObject *object, const tensor_spec *spec);

/* The same for a result: `out` itself if given and not None, else a new array of the spec's shape. */
const tensor *call_take_output(core_call *call, PyObject *out, const tensor_spec *spec);

/* One call at a time on one handle: false with RuntimeError if another thread is inside. call_begin does it, unless it
 * has been done. */
bool call_enter(core_call *call);

/* The last thing before the work, when no more Python code runs; call_begin does it. False with ValueError if a tensor
 * that is written shares memory with another, with BufferError if one has changed since its import (importing a later
 * argument may have run the caller's code). Tells autograd of torch tensors that are written. */
bool call_check(core_call *call);

/* Checks, enters the handle, releases the interpreter lock. False with an exception: then the lock is still held. */
bool call_begin(core_call *call);

/* Takes the lock again and leaves the handle. False with the exception of a failed status, which `subject`, if any,
 * precedes, or with BufferError if another thread changed a tensor meanwhile. */
bool call_end(core_call *call, mv_status status, const char *subject);

/* Gives back all that the call holds. Needed after call_open, whatever failed. */
void call_close(core_call *call);

#endif
