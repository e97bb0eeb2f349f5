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

#include <stdint.h>

enum { CALL_TENSORS = MV_MAX_PARAMETERS };

/* What a call does to its handle: many may read it at once, one alone may change it. */
typedef enum call_access { CALL_READS, CALL_CHANGES } call_access;

/* Who is inside of a handle: the low half counts the readers, or is HANDLE_CHANGING; the high half tells which process
 * they belong to, since a child of fork has none of the other threads. A zeroed one is free. */
typedef struct handle_guard {
    _Atomic uint64_t state;
} handle_guard;

typedef struct core_call {
    module_state *state;
    handle_guard *guard;   /* of the handle that is worked on; NULL: there is none */
    call_access access;
    const char *type_name; /* of that handle, for messages */
    bool entered;          /* the handle is open to this call */
    PyThreadState *thread; /* of the caller, while the interpreter lock is released */
    PyObject *output;      /* what call_take_output found or made; NULL */
    size_t count;
    tensor tensors[CALL_TENSORS]; /* the first `count` */
} core_call;

/* Once per module; -1 with an exception. */
int call_watch_forks(void);

void call_open(core_call *call, module_state *state, handle_guard *guard, call_access access, const char *type_name);

/* Imports a tensor, which lives until call_close; NULL with an exception. */
const tensor *call_take(core_call *call, PyObject *object, const tensor_spec *spec);

/* The same for a result: `out` itself if given and not None, else a new array of the spec's shape. */
const tensor *call_take_output(core_call *call, PyObject *out, const tensor_spec *spec);

/* False with RuntimeError if another thread is inside, unless both only read. call_begin does it, unless it has been
 * done. */
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
