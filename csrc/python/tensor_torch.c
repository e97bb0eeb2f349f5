/* torch's tensors: what their exporters forget to refuse, and what autograd has to be told. torch is never imported. */
#include "tensor_parts.h"

static int
check_autograd(module_state *state, PyObject *object, const tensor_spec *spec)
{
    PyObject *flag;
    if (get_optional(object, state->grad_name, &flag) < 0) {
        return replace_exception(spec);
    }
    const int truth = flag ? PyObject_IsTrue(flag) : 0;
    Py_XDECREF(flag);
    if (truth < 0) {
        return replace_exception(spec);
    }
    if (truth) {
        PyErr_Format(PyExc_BufferError, "%s requires grad, which would be lost; use tensor.detach()", spec->name);
    }
    return truth ? -1 : 0;
}

/* A tensor with the negative bit is exported with the wrong sign. */
static int
check_negative_bit(module_state *state, PyObject *object, const tensor_spec *spec)
{
    PyObject *method;
    if (get_optional(object, state->is_neg_name, &method) < 0) {
        return replace_exception(spec);
    }
    PyObject *flag = method && PyCallable_Check(method) ? PyObject_CallNoArgs(method) : NULL;
    const bool failed = PyErr_Occurred() != NULL;
    Py_XDECREF(method);
    const int truth = failed ? -1 : flag ? PyObject_IsTrue(flag) : 0;
    Py_XDECREF(flag);
    if (truth < 0) {
        return replace_exception(spec);
    }
    if (truth) {
        PyErr_Format(PyExc_BufferError, "%s has its negative bit set; use tensor.resolve_neg()", spec->name);
    }
    return truth ? -1 : 0;
}

int
check_torch_flags(module_state *state, PyObject *object, const tensor_spec *spec)
{
    return check_autograd(state, object, spec) < 0 || check_negative_bit(state, object, spec) < 0 ? -1 : 0;
}

int
hold_storage(module_state *state, PyObject *object, const tensor_spec *spec, tensor *out)
{
    PyObject *method;
    if (get_optional(object, state->storage_name, &method) < 0) {
        return replace_exception(spec);
    }
    if (!method) {
        return 0;
    }
    out->storage = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    return out->storage ? 0 : replace_exception(spec);
}

/* Calls torch.autograd.graph.increment_version, so that a later backward() does not use overwritten values silently.
 * Tensors of inference mode have no version. */
static int
increment_version(module_state *state, PyObject *object)
{
    PyObject *inference = PyObject_CallMethodNoArgs(object, state->is_inference_name);
    const int truth = inference ? PyObject_IsTrue(inference) : -1;
    Py_XDECREF(inference);
    if (truth) {
        return truth < 0 ? -1 : 0;
    }
    PyObject *graph = PyImport_GetModule(state->torch_graph_name);
    if (!graph) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *done = PyObject_CallMethodOneArg(graph, state->increment_name, object);
    Py_DECREF(graph);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

int
mark_written(module_state *state, const tensor *self)
{
    if (!self->object || !self->writable || is_ndarray(self->object)) {
        return 0;
    }
    PyObject *torch = PyImport_GetModule(state->torch_name);
    if (!torch) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *type;
    int is_torch = get_optional(torch, state->tensor_name, &type);
    Py_DECREF(torch);
    if (is_torch == 0 && type) {
        is_torch = PyObject_IsInstance(self->object, type);
        Py_DECREF(type);
    }
    return is_torch > 0 ? increment_version(state, self->object) : is_torch;
}
