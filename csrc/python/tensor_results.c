/* Results: a tensor of the caller's, or a new array. */
#include "tensor_parts.h"

static bool
overlap(const tensor *one, const tensor *other)
{
    const uintptr_t start = (uintptr_t)one->data;
    const uintptr_t other_start = (uintptr_t)other->data;
    return one->count && other->count && start < other_start + other->count * sizeof(float) &&
           other_start < start + one->count * sizeof(float);
}

int
tensor_check_overlaps(const tensor *tensors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; tensors[i].writable && j < count; j++) {
            if (j != i && overlap(tensors + i, tensors + j)) {
                PyErr_Format(PyExc_ValueError, "%s shares memory with %s; pass a tensor of its own", tensors[i].name,
                             tensors[j].name);
                return -1;
            }
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
