/* A tensor from its import to its release; its parts are in tensor_*.c. */
#include "tensor_parts.h"

/* Import and release ---------------------------------------------------------------------------------------------- */

int
get_optional(PyObject *object, PyObject *name, PyObject **value)
{
    *value = PyObject_GetAttr(object, name);
    if (*value) {
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

static int
raise_no_tensor(PyObject *object, const tensor_spec *spec)
{
    PyErr_Format(PyExc_TypeError,
                 "%s must be a float32 tensor %s (numpy.ndarray, torch.Tensor or an object with __dlpack__), got %s",
                 spec->name, spec->layout, Py_TYPE(object)->tp_name);
    return -1;
}

static int
import_any(module_state *state, PyObject *object, const tensor_spec *spec, tensor *out)
{
    if (is_ndarray(object)) {
        return import_ndarray(object, spec, out);
    }
    const void *exchange = find_exchange(state, object);
    if (!exchange && PyErr_Occurred()) {
        return replace_exception(spec);
    }
    if (!exchange) {
        PyObject *method;
        if (get_optional((PyObject *)Py_TYPE(object), state->dlpack_name, &method) < 0) {
            return replace_exception(spec);
        }
        if (!method) {
            return raise_no_tensor(object, spec);
        }
        Py_DECREF(method);
    }
    if (check_torch_flags(state, object, spec) < 0) {
        return -1;
    }
    if (!exchange) {
        return import_by_method(state, object, spec, out);
    }
    return hold_storage(state, object, spec, out) < 0 ? -1 : import_by_exchange(exchange, object, spec, out);
}

int
tensor_import(module_state *state, PyObject *object, const tensor_spec *spec, tensor *out)
{
    *out = (tensor){.object = Py_NewRef(object), .writable = spec->writable};
    if (import_any(state, object, spec, out) < 0) {
        tensor_release(out);
        return -1;
    }
    return 0;
}

void
tensor_release(tensor *self)
{
    PyObject *type, *value, *traceback; /* a deleter may run Python code */
    PyErr_Fetch(&type, &value, &traceback);
    if (self->release) {
        self->release(self->owner);
    }
    Py_XDECREF(self->storage);
    Py_XDECREF(self->object);
    PyErr_Restore(type, value, traceback);
    *self = (tensor){0};
}

/* Changes meanwhile ------------------------------------------------------------------------------------------------ */

/* Whether the object still has the memory that was imported, as far as its framework tells without running Python. */
static bool
is_unchanged(const tensor *self)
{
    if (!self->object) {
        return true;
    }
    return is_ndarray(self->object) ? is_unchanged_ndarray(self) : is_unchanged_export(self);
}

int
tensor_end(const tensor *tensors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_unchanged(tensors + i)) {
            PyErr_Format(PyExc_BufferError,
                         "%s was resized or got other memory during the call; pass a copy, or guard it with a lock",
                         tensors[i].name);
            return -1;
        }
    }
    return 0;
}

int
tensor_begin(module_state *state, const tensor *tensors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (mark_written(state, tensors + i) < 0) {
            return -1;
        }
    }
    return tensor_end(tensors, count);
}
