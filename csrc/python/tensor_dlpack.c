/* DLPack: the exchange table of the object's type, or its __dlpack__. */
#include "tensor_parts.h"

#include "dlpack.h"

/* Errors ---------------------------------------------------------------------------------------------------------- */

static int
raise_no_export(const tensor_spec *spec)
{
    PyErr_Format(PyExc_BufferError,
                 "%s cannot be exported (sparse, meta and quantised tensors cannot); pass a dense CPU tensor",
                 spec->name);
    return -1;
}

/* The text of a BufferError is kept; that of others may be a page of C++. */
int
replace_exception(const tensor_spec *spec)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return -1;
    }
    if (!PyErr_ExceptionMatches(PyExc_BufferError)) {
        PyErr_Clear();
        return raise_no_export(spec);
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_Format(PyExc_BufferError, "%s cannot be exported: %S; pass a dense float32 CPU tensor", spec->name,
                 value ? value : Py_None);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return -1;
}

/* What is exported ------------------------------------------------------------------------------------------------ */

static void
release_versioned(void *owner)
{
    dlpack_managed_versioned *managed = owner;
    if (managed->deleter) {
        managed->deleter(managed);
    }
}

static void
release_legacy(void *owner)
{
    dlpack_managed *managed = owner;
    if (managed->deleter) {
        managed->deleter(managed);
    }
}

static description
describe_dlpack(const dlpack_tensor *given, uint64_t flags)
{
    return (description){
        .data = given->data,
        .offset = given->byte_offset,
        .device_type = given->device.type,
        .device_id = given->device.id,
        .code = given->dtype.code,
        .bits = given->dtype.bits,
        .lanes = given->dtype.lanes,
        .native = true,
        .dimensions = given->ndim,
        .shape = given->shape,
        .strides = given->strides,
        .stride_unit = (int64_t)sizeof(float),
        .read_only = (flags & DLPACK_FLAG_READ_ONLY) != 0,
        .copied = (flags & DLPACK_FLAG_IS_COPIED) != 0,
    };
}

/* Takes `managed` over: *out owns it on success, it is released on failure. */
static int
accept(const dlpack_tensor *given, uint64_t flags, void *managed, void (*release)(void *), const tensor_spec *spec,
       tensor *out)
{
    const description d = describe_dlpack(given, flags);
    if (check_description(&d, spec, out) < 0) {
        PyObject *type, *value, *traceback; /* a deleter may run Python code */
        PyErr_Fetch(&type, &value, &traceback);
        release(managed);
        PyErr_Restore(type, value, traceback);
        return -1;
    }
    out->owner = managed;
    out->release = release;
    return 0;
}

static int
raise_version(uint32_t major, const tensor_spec *spec)
{
    PyErr_Format(PyExc_BufferError, "%s is exported as DLPack version %u, expected %d; convert it to numpy.ndarray",
                 spec->name, (unsigned)major, DLPACK_MAJOR);
    return -1;
}

const void *
find_exchange(module_state *state, PyObject *object)
{
    PyObject *capsule = PyObject_GetAttr((PyObject *)Py_TYPE(object), state->exchange_name);
    if (!capsule) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear();
        }
        return NULL;
    }
    const dlpack_exchange_header *header = NULL;
    if (PyCapsule_IsValid(capsule, DLPACK_EXCHANGE_CAPSULE)) {
        header = PyCapsule_GetPointer(capsule, DLPACK_EXCHANGE_CAPSULE);
    }
    Py_DECREF(capsule); /* the table lives as long as the process */
    while (header && header->version.major > DLPACK_MAJOR) {
        header = header->previous;
    }
    return header && header->version.major == DLPACK_MAJOR ? (const dlpack_exchange *)header : NULL;
}

int
import_by_exchange(const void *table, PyObject *object, const tensor_spec *spec, tensor *out)
{
    const dlpack_exchange *exchange = table;
    out->exchange = table;
    dlpack_managed_versioned *managed = NULL;
    if (exchange->from_object(object, &managed) != 0 || !managed) {
        return PyErr_Occurred() ? replace_exception(spec) : raise_no_export(spec);
    }
    if (managed->version.major != DLPACK_MAJOR) {
        const uint32_t major = managed->version.major;
        release_versioned(managed);
        return raise_version(major, spec);
    }
    return accept(&managed->tensor, managed->flags, managed, release_versioned, spec, out);
}

/* A capsule of the object; the keyword first, as all producers since DLPack 1.0 know it. */
static PyObject *
call_dlpack(module_state *state, PyObject *object)
{
    PyObject *arguments[] = {object, state->dlpack_version};
    PyObject *capsule = PyObject_VectorcallMethod(state->dlpack_name, arguments, 1, state->dlpack_keywords);
    if (!capsule && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        capsule = PyObject_VectorcallMethod(state->dlpack_name, arguments, 1, NULL);
    }
    return capsule;
}

static int
import_capsule(PyObject *capsule, const tensor_spec *spec, tensor *out)
{
    if (PyCapsule_IsValid(capsule, DLPACK_CAPSULE_VERSIONED)) {
        dlpack_managed_versioned *managed = PyCapsule_GetPointer(capsule, DLPACK_CAPSULE_VERSIONED);
        if (managed->version.major != DLPACK_MAJOR) {
            return raise_version(managed->version.major, spec);
        }
        if (PyCapsule_SetName(capsule, DLPACK_CAPSULE_VERSIONED_USED) < 0) {
            return -1;
        }
        return accept(&managed->tensor, managed->flags, managed, release_versioned, spec, out);
    }
    if (PyCapsule_IsValid(capsule, DLPACK_CAPSULE)) {
        dlpack_managed *managed = PyCapsule_GetPointer(capsule, DLPACK_CAPSULE);
        if (PyCapsule_SetName(capsule, DLPACK_CAPSULE_USED) < 0) {
            return -1;
        }
        /* The old form cannot say whether it may be written to. */
        return accept(&managed->tensor, DLPACK_FLAG_READ_ONLY, managed, release_legacy, spec, out);
    }
    PyErr_Format(PyExc_TypeError,
                 "%s: __dlpack__ returned %s, expected an unused DLPack capsule; convert it to numpy.ndarray",
                 spec->name, Py_TYPE(capsule)->tp_name);
    return -1;
}

int
import_by_method(module_state *state, PyObject *object, const tensor_spec *spec, tensor *out)
{
    PyObject *capsule = call_dlpack(state, object);
    if (!capsule) {
        return replace_exception(spec);
    }
    const int result = import_capsule(capsule, spec, out);
    Py_DECREF(capsule);
    return result;
}

static bool
has_shape_of(const tensor *self, int dimensions, const int64_t *shape)
{
    bool same = dimensions == self->dimensions;
    for (int i = 0; same && i < dimensions; i++) {
        same = shape[i] == (int64_t)self->shape[i];
    }
    return same;
}

bool
is_unchanged_export(const tensor *self)
{
    const dlpack_exchange *exchange = self->exchange;
    if (!exchange || !exchange->borrow) {
        return true;
    }
    dlpack_tensor now;
    if (exchange->borrow(self->object, &now) != 0) {
        PyErr_Clear();
        return false;
    }
    return has_shape_of(self, now.ndim, now.shape) &&
           (!self->count || (uintptr_t)now.data + (uintptr_t)now.byte_offset == (uintptr_t)self->data);
}
