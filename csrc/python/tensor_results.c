/* Results: a tensor of the caller's, or a new array. */
#include "tensor_parts.h"

int
tensor_check_overlap(const tensor *output, const tensor *const *inputs, size_t count)
{
    const uintptr_t start = (uintptr_t)output->data;
    for (size_t i = 0; i < count && output->count; i++) {
        const uintptr_t other = (uintptr_t)inputs[i]->data;
        if (inputs[i]->count && start < other + inputs[i]->count * sizeof(float) &&
            other < start + output->count * sizeof(float)) {
            PyErr_Format(PyExc_ValueError, "%s shares memory with %s; pass a tensor of its own", output->name,
                         inputs[i]->name);
            return -1;
        }
    }
    return 0;
}

PyObject *
tensor_output(module_state *state, PyObject *out, const tensor_spec *spec, tensor *result)
{
    if (out && out != Py_None) {
        return tensor_import(state, out, spec, result) < 0 ? NULL : Py_NewRef(out);
    }
    size_t shape[3];
    for (int i = 0; i < spec->dimensions; i++) {
        shape[i] = (size_t)spec->shape[i];
    }
    return tensor_create(spec->dimensions, shape, result);
}
