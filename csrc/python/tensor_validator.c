/* What every tensor has to be, whichever way it came: device, dtype, shape, layout, memory. */
#include "tensor_parts.h"

#include <stdalign.h>

#include "dlpack.h"

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

int
check_description(const description *d, const tensor_spec *spec, tensor *out)
{
    out->name = spec->name;
    return check_type(d, spec) < 0 || check_shape(d, spec, out) < 0 || check_memory(d, spec, out) < 0 ? -1 : 0;
}
