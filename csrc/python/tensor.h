/* Tensors of any framework in, NumPy arrays out. Who includes this needs to know neither DLPack nor NumPy. */
#ifndef METAV_TENSOR_H
#define METAV_TENSOR_H

#include "module.h"

enum { TENSOR_MAX_DIMENSIONS = 32, TENSOR_ANY = -1 };

/* A float32, dense, row-major tensor on the CPU. Until tensor_release it owns references to the framework's tensor and
 * to its storage, so that neither dropping the Python object nor giving it another storage (torch's set_ and .data)
 * frees anything. Growing a torch storage in place (resize_) does free the old memory: tensor_begin refuses that before
 * any work, tensor_end reports it afterwards; in between it is a race in the caller's program, as for torch's own
 * functions. A zeroed one is empty, may be released. */
typedef struct tensor {
    float *data;
    int dimensions;
    size_t shape[TENSOR_MAX_DIMENSIONS];
    size_t count; /* product of the shape */
    const char *name;
    bool writable;
    PyObject *object;     /* as given; NULL for a new array */
    PyObject *storage;    /* of a torch tensor */
    const void *exchange; /* its type's table, if it came that way */
    void *owner;
    void (*release)(void *owner);
} tensor;

/* What a function expects of an argument. */
typedef struct tensor_spec {
    const char *name;   /* of the argument, for messages */
    const char *layout; /* e.g. "(models, queries, outputs)" */
    int dimensions;     /* TENSOR_ANY: at least one */
    int64_t shape[3];   /* TENSOR_ANY where any size >= 0 will do; read if dimensions is 0 to 3 */
    bool writable;
} tensor_spec;

/* 0, or -1 with TypeError (dtype, no tensor), ValueError (shape, layout) or BufferError (device, memory, read-only). */
int tensor_import(module_state *state, PyObject *object, const tensor_spec *spec, tensor *out);
void tensor_release(tensor *self);

/* -1 with ValueError if a writable one shares memory with another. */
int tensor_check_overlaps(const tensor *tensors, size_t count);

/* Before the work: tells autograd of the torch tensors that will be written, then checks that no tensor has changed
 * since its import. -1 with an exception, BufferError for a change. */
int tensor_begin(module_state *state, const tensor *tensors, size_t count);

/* After the work: -1 with BufferError if another thread changed a tensor meanwhile. */
int tensor_end(const tensor *tensors, size_t count);

/* A new ndarray (float32, zeroed), a new reference, and its tensor, which lives as long as the array. */
PyObject *tensor_create(int dimensions, const size_t *shape, tensor *out);

/* `out` itself if given and not None, else a new ndarray; a new reference. The spec's shape must be complete. */
PyObject *tensor_output(module_state *state, PyObject *out, const tensor_spec *spec, tensor *result);

/* Once per module. */
int tensor_import_numpy(void);

#endif
