#include "tensor.h"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include <stdalign.h>
#include <string.h>

#include "dlpack.h"

/* A tensor as its framework describes it, before any check. */
typedef struct description {
    void *data;
    uint64_t offset;
    int32_t device_type, device_id;
    int code, bits, lanes;
    bool native; /* byte order */
    int dimensions;
    const int64_t *shape;
    const int64_t *strides; /* in units of stride_unit; NULL: dense */
    int64_t stride_unit;    /* bytes */
    bool read_only;
    bool copied;
} description;

/* The validator --------------------------------------------------------------------------------------------------- */

static const char *
name_of_dtype(const description *d, char buffer[32])
{
    static const char *const families[] = {
        [DLPACK_INT] = "int",       [DLPACK_UINT] = "uint",       [DLPACK_FLOAT] = "float",
        [DLPACK_BFLOAT] = "bfloat", [DLPACK_COMPLEX] = "complex", [DLPACK_BOOL] = "bool",
    };
    const int count = (int)(sizeof families / sizeof *families);
    const char *family = d->code >= 0 && d->code < count && families[d->code] ? families[d->code] : "dtype-";
    PyOS_snprintf(buffer, 32, "%s%d%s", family, d->bits, d->lanes == 1 ? "" : " vectors");
    return buffer;
}

static int
check_type(const description *d, const tensor_spec *spec)
{
    char buffer[32];
    const bool on_cpu =
        d->device_type == DLPACK_CPU || d->device_type == DLPACK_CUDA_HOST || d->device_type == DLPACK_ROCM_HOST;
    if (!on_cpu) {
        PyErr_Format(PyExc_BufferError, "%s is on %s %d, expected the CPU; use tensor.cpu()", spec->name,
                     d->device_type == DLPACK_CUDA ? "CUDA device" : "a device of DLPack type",
                     d->device_type == DLPACK_CUDA ? d->device_id : d->device_type);
        return -1;
    }
    if (d->code != DLPACK_FLOAT || d->bits != 32 || d->lanes != 1) {
        PyErr_Format(PyExc_TypeError,
                     "%s has dtype %s, expected float32; use tensor.float() or array.astype(\"float32\")", spec->name,
                     name_of_dtype(d, buffer));
        return -1;
    }
    if (!d->native) {
        PyErr_Format(PyExc_TypeError,
                     "%s has a foreign byte order, expected native float32; use array.astype(\"float32\")", spec->name);
        return -1;
    }
    return 0;
}

/* "(2, 3)" of a shape, shortened where it is long. */
static const char *
text_of_shape(int dimensions, const int64_t *shape, char *buffer, size_t size)
{
    size_t used = (size_t)PyOS_snprintf(buffer, size, "(");
    for (int i = 0; i < dimensions && used + 32 < size; i++) {
        used += (size_t)PyOS_snprintf(buffer + used, size - used, i ? ", %lld" : "%lld", (long long)shape[i]);
    }
    PyOS_snprintf(buffer + used, size - used, dimensions == 1 ? ",)" : ")");
    return buffer;
}

static int
raise_shape(const description *d, const tensor_spec *spec)
{
    char found[256];
    char wanted[128];
    size_t used = 0;
    for (int i = 0; i < spec->dimensions; i++) {
        const char *separator = i ? ", " : "";
        if (spec->shape[i] == TENSOR_ANY) {
            used += (size_t)PyOS_snprintf(wanted + used, sizeof wanted - used, "%s*", separator);
        }
        else {
            used += (size_t)PyOS_snprintf(wanted + used, sizeof wanted - used, "%s%lld", separator,
                                          (long long)spec->shape[i]);
        }
    }
    wanted[used] = '\0';
    text_of_shape(d->dimensions, d->shape, found, sizeof found);
    if (spec->dimensions == TENSOR_ANY) {
        PyErr_Format(PyExc_ValueError, "%s has shape %s, expected %s", spec->name, found, spec->layout);
    }
    else {
        PyErr_Format(PyExc_ValueError, "%s has shape %s, expected %s = (%s%s)", spec->name, found, spec->layout, wanted,
                     spec->dimensions == 1 ? "," : "");
    }
    return -1;
}

/* Fills shape and count. */
static int
check_shape(const description *d, const tensor_spec *spec, tensor *out)
{
    if (d->dimensions < 0 || d->dimensions > TENSOR_MAX_DIMENSIONS) {
        PyErr_Format(PyExc_ValueError, "%s has %d dimensions, expected %s", spec->name, d->dimensions, spec->layout);
        return -1;
    }
    if (d->dimensions && !d->shape) {
        PyErr_Format(PyExc_BufferError, "%s is exported without a shape; convert it to numpy.ndarray", spec->name);
        return -1;
    }
    if (spec->dimensions == TENSOR_ANY ? d->dimensions < 1 : d->dimensions != spec->dimensions) {
        return raise_shape(d, spec);
    }
    size_t count = 1;
    size_t extent = 1; /* the product without zeros, so that (0, 2^62, 2^62) is refused as well */
    for (int i = 0; i < d->dimensions; i++) {
        const int64_t size = d->shape[i];
        if (size < 0 || (size && extent > (size_t)PTRDIFF_MAX / sizeof(float) / (size_t)size)) {
            PyErr_Format(PyExc_ValueError, "%s has an impossible shape: dimension %d is %lld; expected %s", spec->name,
                         i, (long long)size, spec->layout);
            return -1;
        }
        if (spec->dimensions != TENSOR_ANY && spec->shape[i] != TENSOR_ANY && spec->shape[i] != size) {
            return raise_shape(d, spec);
        }
        extent *= size ? (size_t)size : 1;
        count *= (size_t)size;
        out->shape[i] = (size_t)size;
    }
    out->dimensions = d->dimensions;
    out->count = count;
    return 0;
}

/* Strides of dimensions of size 1, and of tensors without elements, mean nothing. */
static bool
is_dense(const description *d, size_t count)
{
    if (!d->strides || count == 0) {
        return true;
    }
    int64_t expected = (int64_t)sizeof(float) / d->stride_unit;
    for (int i = d->dimensions - 1; i >= 0; i--) {
        if (d->shape[i] != 1 && d->strides[i] != expected) {
            return false;
        }
        expected *= d->shape[i];
    }
    return true;
}

static int
check_memory(const description *d, const tensor_spec *spec, tensor *out)
{
    if (!is_dense(d, out->count)) {
        const char *remedy = spec->writable ? "results are written to it, so pass a new tensor of this shape"
                                            : "use tensor.contiguous() or numpy.ascontiguousarray(array)";
        PyErr_Format(PyExc_ValueError, "%s is not contiguous in row-major order; %s", spec->name, remedy);
        return -1;
    }
    if (out->count && !d->data) {
        PyErr_Format(PyExc_BufferError, "%s has no memory (a fake, meta or wrapped tensor); pass a dense CPU tensor",
                     spec->name);
        return -1;
    }
    if (d->data && (d->offset > PTRDIFF_MAX || (uintptr_t)d->data > UINTPTR_MAX - (uintptr_t)d->offset)) {
        PyErr_Format(PyExc_BufferError, "%s starts outside of memory; convert it to numpy.ndarray", spec->name);
        return -1;
    }
    out->data = d->data ? (float *)((uintptr_t)d->data + (uintptr_t)d->offset) : NULL;
    if ((uintptr_t)out->data % alignof(float) != 0) {
        PyErr_Format(PyExc_BufferError, "%s is not aligned to %zu bytes; pass a copy", spec->name, alignof(float));
        return -1;
    }
    if (spec->writable && (d->read_only || d->copied)) {
        PyErr_Format(PyExc_BufferError, "%s is %s, but results are written to it; pass a writable tensor", spec->name,
                     d->read_only ? "read-only" : "exported as a copy");
        return -1;
    }
    return 0;
}

static int
check_description(const description *d, const tensor_spec *spec, tensor *out)
{
    out->name = spec->name;
    return check_type(d, spec) < 0 || check_shape(d, spec, out) < 0 || check_memory(d, spec, out) < 0 ? -1 : 0;
}

/* Route 1: NumPy -------------------------------------------------------------------------------------------------- */

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

static int
import_ndarray(PyArrayObject *array, const tensor_spec *spec, tensor *out)
{
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
    out->owner = Py_NewRef((PyObject *)array);
    out->release = release_object;
    return 0;
}

/* Routes 2 and 3: DLPack ------------------------------------------------------------------------------------------ */

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
raise_no_export(const tensor_spec *spec)
{
    PyErr_Format(PyExc_BufferError,
                 "%s cannot be exported (sparse, meta and quantised tensors cannot); pass a dense CPU tensor",
                 spec->name);
    return -1;
}

/* Turns a producer's exception into ours, unless it is not about the tensor (Ctrl-C, no memory). The text of a
 * BufferError is kept; that of others may be a page of C++. */
static int
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

static int
raise_version(uint32_t major, const tensor_spec *spec)
{
    PyErr_Format(PyExc_BufferError, "%s is exported as DLPack version %u, expected %d; convert it to numpy.ndarray",
                 spec->name, (unsigned)major, DLPACK_MAJOR);
    return -1;
}

/* The exchange table of the object's type; NULL, perhaps with an exception, if there is none that we can read. */
static const dlpack_exchange *
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

static int
import_by_exchange(const dlpack_exchange *exchange, PyObject *object, const tensor_spec *spec, tensor *out)
{
    out->exchange = exchange;
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

static int
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

/* What the exporters forget to refuse ------------------------------------------------------------------------------ */

/* The attribute, or NULL without an exception if the object has none. */
static int
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

/* Holds the storage of a torch tensor: its owning export does not survive set_ and assignments to .data. */
static int
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

/* Interface ------------------------------------------------------------------------------------------------------- */

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
    if (PyArray_CheckExact(object)) {
        return import_ndarray((PyArrayObject *)object, spec, out);
    }
    const dlpack_exchange *exchange = find_exchange(state, object);
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
    if (check_autograd(state, object, spec) < 0 || check_negative_bit(state, object, spec) < 0) {
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

static bool
has_shape_of(const tensor *self, int dimensions, const int64_t *shape)
{
    bool same = dimensions == self->dimensions;
    for (int i = 0; same && i < dimensions; i++) {
        same = shape[i] == (int64_t)self->shape[i];
    }
    return same;
}

/* Whether the object still has the memory that was imported, as far as its framework tells without running Python. */
static bool
is_unchanged(const tensor *self)
{
    if (!self->object) {
        return true;
    }
    if (PyArray_CheckExact(self->object)) {
        PyArrayObject *array = (PyArrayObject *)self->object;
        return PyArray_DATA(array) == (void *)self->data && (size_t)PyArray_SIZE(array) == self->count;
    }
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

int
tensor_end(const tensor *const *tensors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_unchanged(tensors[i])) {
            PyErr_Format(PyExc_BufferError,
                         "%s was resized or got other memory during the call; pass a copy, or guard it with a lock",
                         tensors[i]->name);
            return -1;
        }
    }
    return 0;
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

/* Nothing to do unless torch is loaded and the object is one of its tensors. */
static int
mark_written(module_state *state, const tensor *self)
{
    if (!self->object || !self->writable || PyArray_CheckExact(self->object)) {
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

int
tensor_begin(module_state *state, const tensor *const *tensors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (mark_written(state, tensors[i]) < 0) {
            return -1;
        }
    }
    return tensor_end(tensors, count);
}

/* Results ---------------------------------------------------------------------------------------------------------- */

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

int
tensor_import_numpy(void)
{
    return PyArray_ImportNumPyAPI();
}
