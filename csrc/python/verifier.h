/* Inside of the type Verifier: verifier.c, verifier_step.c, verifier_parameters.c. */
#ifndef METAV_VERIFIER_H
#define METAV_VERIFIER_H

#include "call.h"

typedef struct verifier_object {
    PyObject_HEAD
    mv_verifier *handle;
    PyObject *view;      /* its text, str */
    handle_guard guard;
    atomic_ullong steps; /* of the handle, readable while it is changed */
} verifier_object;

/* A call on this verifier. */
void verifier_open_call(core_call *call, verifier_object *self, call_access access);

/* Of responses to this verifier, with so many models or TENSOR_ANY. */
tensor_spec verifier_responses_spec(const verifier_object *self, const char *name, int64_t models);

/* Methods; their documentation is in verifier.c. */
PyObject *verifier_step(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords);
PyObject *verifier_parameters(PyObject *self, PyObject *ignored);
PyObject *verifier_load_parameters(PyObject *self, PyObject *mapping);

#endif
