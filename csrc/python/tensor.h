/* Tensors of any framework in, NumPy arrays out. tensor.c is the only file that knows DLPack and NumPy. */
#ifndef METAV_TENSOR_H
#define METAV_TENSOR_H

#include "module.h"

enum { TENSOR_MAX_DIMENSIONS = 32, TENSOR_ANY = -1 };

/* A float32, dense, row-major tensor on the CPU. It owns a reference to the framework's tensor until tensor_release, so
 * that dropping the Python object frees nothing. Replacing the storage of a tensor (torch's set_ and resize_) while a
 * call reads it is the caller's mistake, like any change by another thread. A zeroed one is empty, may be released. */
typedef struct tensor {
    float *data;
    int dimensions;
    size_t shape[TENSOR_MAX_DIMENSIONS];
    size_t count; /* product of the shape */
    const char *name;
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

/* -1 with ValueError if `output` shares memory with one of the inputs. */
int tensor_check_overlap(const tensor *output, const tensor *const *inputs, size_t count);

/* A new ndarray (float32, zeroed), a new reference, and its tensor, which lives as long as the array. */
PyObject *tensor_create(int dimensions, const size_t *shape, tensor *out);

/* `out` itself if given and not None, else a new ndarray; a new reference. The spec's shape must be complete. */
PyObject *tensor_output(module_state *state, PyObject *out, const tensor_spec *spec, tensor *result);

/* Once per module. */
int tensor_import_numpy(void);

#endif
