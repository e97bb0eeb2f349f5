/* Verifier.parameters and Verifier.load_parameters. */
#include "verifier.h"

#include <string.h>

static int
add_parameter(PyObject *result, const mv_parameter *parameter)
{
    const size_t shape[2] = {parameter->rows, parameter->columns};
    tensor copy;
    PyObject *array = tensor_create(parameter->dimensions, shape, &copy);
    if (!array) {
        return -1;
    }
    if (copy.count) {
        memcpy(copy.data, parameter->data, copy.count * sizeof *copy.data);
    }
    const int failed = PyDict_SetItemString(result, parameter->name, array);
    Py_DECREF(array);
    return failed;
}

PyObject *
verifier_parameters(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    verifier_object *self = (verifier_object *)object;
    mv_parameter list[MV_MAX_PARAMETERS];
    PyObject *result = NULL;
    core_call call;
    verifier_open_call(&call, self, CALL_READS);
    if (!call_enter(&call)) {
        goto done;
    }
    result = PyDict_New();
    const size_t count = mv_verifier_parameters(self->handle, list);
    for (size_t i = 0; result && i < count; i++) {
        if (add_parameter(result, list + i) < 0) {
            Py_CLEAR(result);
        }
    }
done:
    call_close(&call);
    return result;
}

/* Tensors on their way into the handle. */
typedef struct parameter_load {
    core_call call;
    mv_parameter own[MV_MAX_PARAMETERS];
    size_t own_count;
    mv_parameter given[MV_MAX_PARAMETERS]; /* of the call's tensors */
} parameter_load;

static const mv_parameter *
find_own(const parameter_load *load, const char *name)
{
    for (size_t i = 0; i < load->own_count; i++) {
        if (strcmp(load->own[i].name, name) == 0) {
            return load->own + i;
        }
    }
    return NULL;
}

/* A name and its tensor. */
static int
add_item(PyObject *item, parameter_load *load)
{
    const char *name;
    PyObject *value;
    if (!PyTuple_Check(item) || !PyArg_ParseTuple(item, "sO", &name, &value)) {
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_SetString(PyExc_TypeError, "parameters must be a mapping from names (str) to tensors");
        }
        return -1;
    }
    const mv_parameter *own = find_own(load, name);
    if (!own || load->call.count == MV_MAX_PARAMETERS) {
        raise_status(MV_ERROR_PARAMETER_NAME, name);
        return -1;
    }
    const tensor_spec spec = {
        .name = own->name,
        .layout = own->free_columns ? "(rows, any number of columns)" : "the shape that parameters() gives",
        .dimensions = own->dimensions,
        .shape = {(int64_t)own->rows, own->free_columns ? TENSOR_ANY : (int64_t)own->columns},
    };
    mv_parameter *given = load->given + load->call.count;
    const tensor *taken = call_take(&load->call, value, &spec);
    if (!taken) {
        return -1;
    }
    *given = (mv_parameter){
        .name = own->name,
        .dimensions = own->dimensions,
        .rows = taken->shape[0],
        .columns = own->dimensions == 2 ? taken->shape[1] : 1,
        .data = taken->data,
    };
    return 0;
}

static int
add_items(PyObject *mapping, parameter_load *load)
{
    PyObject *items = PyMapping_Items(mapping);
    if (!items) {
        if (PyErr_ExceptionMatches(PyExc_TypeError) || PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Format(PyExc_TypeError, "parameters must be a mapping from names to tensors, got %s",
                         Py_TYPE(mapping)->tp_name);
        }
        return -1;
    }
    PyObject *iterator = PyObject_GetIter(items);
    Py_DECREF(items);
    if (!iterator) {
        return -1;
    }
    int failed = 0;
    PyObject *item;
    while (!failed && (item = PyIter_Next(iterator))) {
        failed = add_item(item, load);
        Py_DECREF(item);
    }
    Py_DECREF(iterator);
    return failed || PyErr_Occurred() ? -1 : 0;
}

PyObject *
verifier_load_parameters(PyObject *object, PyObject *mapping)
{
    verifier_object *self = (verifier_object *)object;
    const char *culprit = NULL;
    PyObject *result = NULL;
    parameter_load load;
    verifier_open_call(&load.call, self, CALL_CHANGES);
    /* Entered before the tensors are taken: their shapes are compared with the handle's. */
    if (!call_enter(&load.call)) {
        goto done;
    }
    load.own_count = mv_verifier_parameters(self->handle, load.own);
    if (add_items(mapping, &load) < 0 || !call_check(&load.call)) {
        goto done;
    }
    const mv_status status = mv_verifier_load(self->handle, load.given, load.call.count, &culprit);
    result = status ? raise_status(status, culprit) : Py_NewRef(Py_None);
done:
    call_close(&load.call);
    return result;
}
