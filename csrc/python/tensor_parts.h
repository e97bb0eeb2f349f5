/* Inside of tensor.c: its parts, one file each. tensor_numpy.c alone knows NumPy, tensor_dlpack.c what DLPack's
 * structures look like, tensor_torch.c what torch's tensors are besides. */
#ifndef METAV_TENSOR_PARTS_H
#define METAV_TENSOR_PARTS_H

#include "tensor.h"

/* A tensor as its framework describes it, before any check. */
typedef struct description {
    void *data;
    uint64_t offset;
    int32_t device_type, device_id;
    int code, bits, lanes; /* DLPack's numbers; code -1 for types that it does not have */
    bool native;           /* byte order */
    int dimensions;
    const int64_t *shape;
    const int64_t *strides; /* in units of stride_unit; NULL: dense */
    int64_t stride_unit;    /* bytes */
    bool read_only;
    bool copied;
} description;

/* The validator (tensor_validator.c): fills name, data, shape and count, or -1 with an exception. */
int check_description(const description *d, const tensor_spec *spec, tensor *out);

/* Ways in. All fill *out, which the caller has zeroed but for `object` and `writable`; -1 with an exception. */

/* NumPy (tensor_numpy.c): exact arrays only. */
bool is_ndarray(PyObject *object);
int import_ndarray(PyObject *array, const tensor_spec *spec, tensor *out);
/* Does an array still have the memory that was imported? */
bool is_unchanged_ndarray(const tensor *self);

/* DLPack (tensor_dlpack.c). The exchange table of the object's type, found once for each import; NULL, perhaps with an
 * exception, if there is none that we can read. */
const void *find_exchange(module_state *state, PyObject *object);
int import_by_exchange(const void *exchange, PyObject *object, const tensor_spec *spec, tensor *out);
int import_by_method(module_state *state, PyObject *object, const tensor_spec *spec, tensor *out);
/* The same for a tensor that came by its type's table; true where the table cannot tell. */
bool is_unchanged_export(const tensor *self);
/* Turns a producer's exception into ours, unless it is not about the tensor (Ctrl-C, no memory). Returns -1. */
int replace_exception(const tensor_spec *spec);

/* torch's guards (tensor_torch.c). What the exporters forget to refuse: -1 with an exception for a tensor that requires
 * grad, or has its negative bit set. */
int check_torch_flags(module_state *state, PyObject *object, const tensor_spec *spec);
/* Holds the storage of a torch tensor: its owning export does not survive set_ and assignments to .data. */
int hold_storage(module_state *state, PyObject *object, const tensor_spec *spec, tensor *out);
/* Tells autograd of a tensor that will be written, if torch is loaded and it is one of its tensors. */
int mark_written(module_state *state, const tensor *self);

/* The attribute, or NULL without an exception if the object has none (tensor.c). */
int get_optional(PyObject *object, PyObject *name, PyObject **value);

#endif
