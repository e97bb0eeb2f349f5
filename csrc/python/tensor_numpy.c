/* NumPy's arrays, in and out. The only file that knows NumPy. */
#include "tensor_parts.h"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include "dlpack.h"

/* NumPy's own text says what does not fit, but not what to do. */
static void
explain_numpy(void)
{
    PyObject *type;
    PyObject *cause;
    PyObject *trace;
    PyErr_Fetch(&type, &cause, &trace);
    PyObject *numpy = PyImport_ImportModule("numpy");
    PyObject *version = numpy ? PyObject_GetAttrString(numpy, "__version__") : NULL;
    PyErr_Clear();
    PyObject *text = PyUnicode_FromFormat("the C core of metav needs NumPy 2.0 or later with the C interface of 2.x, "
                                          "found %S; pip install --upgrade 'numpy>=2'",
                                          version ? version : Py_None);
    PyErr_Restore(type, cause, trace);
    if (text) {
        raise_import_error(text);
        Py_DECREF(text);
    }
    Py_XDECREF(version);
    Py_XDECREF(numpy);
}

int
tensor_import_numpy(void)
{
    if (_import_array() == 0) { /* import_array() prints what is wrong, and leaves it out of the exception */
        return 0;
    }
    explain_numpy();
    return -1;
}

bool
is_ndarray(PyObject *object)
{
    return PyArray_CheckExact(object);
}

static void
release_object(void *owner)
{
    Py_DECREF((PyObject *)owner);
}

static void
describe_dtype(int type_number, int item_size, description *d)
{
    d->bits = 8 * item_size;
    d->lanes = 1;
    d->code = -1;
    if (PyTypeNum_ISBOOL(type_number)) {
        d->code = DLPACK_BOOL;
    }
    else if (PyTypeNum_ISFLOAT(type_number)) {
        d->code = DLPACK_FLOAT;
    }
    else if (PyTypeNum_ISCOMPLEX(type_number)) {
        d->code = DLPACK_COMPLEX;
    }
    else if (PyTypeNum_ISUNSIGNED(type_number)) {
        d->code = DLPACK_UINT;
    }
    else if (PyTypeNum_ISSIGNED(type_number)) {
        d->code = DLPACK_INT;
    }
}

int
import_ndarray(PyObject *object, const tensor_spec *spec, tensor *out)
{
    PyArrayObject *array = (PyArrayObject *)object;
    int64_t shape[NPY_MAXDIMS];
    int64_t strides[NPY_MAXDIMS];
    description d = {
        .data = PyArray_DATA(array),
        .device_type = DLPACK_CPU,
        .native = PyArray_ISNOTSWAPPED(array),
        .dimensions = PyArray_NDIM(array),
        .shape = shape,
        .strides = strides,
        .stride_unit = 1,
        .read_only = !PyArray_ISWRITEABLE(array),
    };
    for (int i = 0; i < d.dimensions; i++) {
        shape[i] = PyArray_DIM(array, i);
        strides[i] = PyArray_STRIDE(array, i);
    }
    describe_dtype(PyArray_TYPE(array), (int)PyArray_ITEMSIZE(array), &d);
    if (check_description(&d, spec, out) < 0) {
        return -1;
    }
    out->owner = Py_NewRef(object);
    out->release = release_object;
    return 0;
}

bool
is_unchanged_ndarray(const tensor *self)
{
    PyArrayObject *array = (PyArrayObject *)self->object;
    return PyArray_DATA(array) == (void *)self->data && (size_t)PyArray_SIZE(array) == self->count;
}

PyObject *
tensor_create(int dimensions, const size_t *shape, tensor *out)
{
    npy_intp dims[TENSOR_MAX_DIMENSIONS];
    *out = (tensor){.dimensions = dimensions, .count = 1, .name = "out"};
    for (int i = 0; i < dimensions; i++) {
        dims[i] = (npy_intp)shape[i];
        out->shape[i] = shape[i];
        out->count *= shape[i];
    }
    PyObject *array = PyArray_ZEROS(dimensions, dims, NPY_FLOAT32, 0);
    if (array) {
        out->data = PyArray_DATA((PyArrayObject *)array);
    }
    return array;
}
