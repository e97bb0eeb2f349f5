/* The part of DLPack 1.3 that metav reads. Layouts are those of the DLPack specification (dmlc.github.io/dlpack); names
 * are our own, so that another copy of the header in the same program does no harm. */
#ifndef METAV_DLPACK_H
#define METAV_DLPACK_H

#include <stdint.h>

#define DLPACK_CAPSULE "dltensor"
#define DLPACK_CAPSULE_USED "used_dltensor"
#define DLPACK_CAPSULE_VERSIONED "dltensor_versioned"
#define DLPACK_CAPSULE_VERSIONED_USED "used_dltensor_versioned"
#define DLPACK_EXCHANGE_CAPSULE "dlpack_exchange_api"

enum { DLPACK_MAJOR = 1, DLPACK_MINOR = 3 };

enum { DLPACK_CPU = 1, DLPACK_CUDA = 2, DLPACK_CUDA_HOST = 3, DLPACK_ROCM_HOST = 11 };

enum { DLPACK_INT = 0, DLPACK_UINT = 1, DLPACK_FLOAT = 2, DLPACK_BFLOAT = 4, DLPACK_COMPLEX = 5, DLPACK_BOOL = 6 };

#define DLPACK_FLAG_READ_ONLY UINT64_C(1)
#define DLPACK_FLAG_IS_COPIED UINT64_C(2)

typedef struct dlpack_version {
    uint32_t major, minor;
} dlpack_version;

typedef struct dlpack_tensor {
    void *data;
    struct {
        int32_t type, id;
    } device;
    int32_t ndim;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape;
    int64_t *strides; /* in elements; NULL before 1.2 means dense and row-major */
    uint64_t byte_offset;
} dlpack_tensor;

typedef struct dlpack_managed {
    dlpack_tensor tensor;
    void *manager;
    void (*deleter)(struct dlpack_managed *self); /* may be NULL */
} dlpack_managed;

typedef struct dlpack_managed_versioned {
    dlpack_version version; /* only version, manager and deleter may be read if the major version is unknown */
    void *manager;
    void (*deleter)(struct dlpack_managed_versioned *self); /* may be NULL */
    uint64_t flags;
    dlpack_tensor tensor;
} dlpack_managed_versioned;

typedef struct dlpack_exchange_header {
    dlpack_version version;
    struct dlpack_exchange_header *previous;
} dlpack_exchange_header;

/* Function table of a tensor type; functions that metav does not call are declared as plain pointers. */
typedef struct dlpack_exchange {
    dlpack_exchange_header header;
    void (*allocate)(void);
    int (*from_object)(void *object, dlpack_managed_versioned **out); /* owning; -1 with a Python exception */
    void (*to_object)(void);
    int (*borrow)(void *object, dlpack_tensor *out); /* may be NULL; *out is valid until the object changes */
    void (*current_stream)(void);
} dlpack_exchange;

#endif
