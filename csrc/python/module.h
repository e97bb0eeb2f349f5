/* What the files of the binding share: module state, arguments, errors, tables. */
#ifndef METAV_MODULE_H
#define METAV_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdatomic.h>

#include "../metav.h"

typedef struct module_state {
    PyTypeObject *verifier_type;
    PyTypeObject *query_optimizer_type;
    PyObject *dlpack_name;   /* "__dlpack__" */
    PyObject *exchange_name; /* "__dlpack_c_exchange_api__" */
    PyObject *grad_name;     /* "requires_grad" */
    PyObject *is_neg_name;
    PyObject *is_inference_name;
    PyObject *storage_name;     /* "untyped_storage" */
    PyObject *increment_name;   /* "increment_version" */
    PyObject *tensor_name;      /* "Tensor" */
    PyObject *torch_name;       /* "torch" */
    PyObject *torch_graph_name; /* "torch.autograd.graph" */
    PyObject *dlpack_keywords;  /* ("max_version",) */
    PyObject *dlpack_version;   /* (1, 3) */
} module_state;

module_state *get_state(PyObject *module);

/* Arguments ------------------------------------------------------------------------------------------------------- */

/* A function's parameters: the first `positional` are positional-only and required, the others keyword-only. */
typedef struct call_signature {
    const char *name; /* of the function, for messages */
    Py_ssize_t positional;
    Py_ssize_t count;
    const char *const *parameters;
} call_signature;

/* Borrowed references into `values` (count); NULL where not given. -1 with TypeError. */
int parse_arguments(const call_signature *signature, PyObject *const *arguments, Py_ssize_t positional,
                    PyObject *keywords, PyObject **values);

/* A number into *value, which keeps its default if object is NULL. -1 with an exception naming the argument. */
int parse_double(PyObject *object, const char *name, double *value);
int parse_bool(PyObject *object, bool *value);
/* A size >= minimum. */
int parse_size(PyObject *object, const char *name, size_t minimum, size_t *value);

/* "a, b or c", each between two of `quote`; a new reference. */
PyObject *join_names(const char *const *names, size_t count, const char *quote);

/* Errors ---------------------------------------------------------------------------------------------------------- */

/* Sets the exception of a failed status; `subject`, if any, precedes the text. Returns NULL. */
PyObject *raise_status(mv_status status, const char *subject);

/* Views and kinds ------------------------------------------------------------------------------------------------- */

/* A view of its text, a str; -1 with ValueError. */
int parse_view(PyObject *text, mv_view *view);

/* The kind and the sizes of a verifier; `hidden` may be NULL. -1 with an exception naming the argument. */
int parse_sizes(const char *kind, PyObject *queries, PyObject *outputs, PyObject *hidden, mv_verifier_config *config);

typedef struct trait {
    const char *name;
    bool value;
} trait;

/* table[name] = {trait: bool} */
int add_traits(PyObject *table, const char *name, const trait *traits, size_t count);

/* Types and functions --------------------------------------------------------------------------------------------- */

extern PyType_Spec verifier_spec;
extern PyType_Spec query_optimizer_spec;
extern PyMethodDef view_methods[];
extern PyMethodDef verifier_kind_methods[];
extern PyMethodDef processor_methods[];

/* Sets ImportError with a text, which the exception that is set, if any, caused. */
void raise_import_error(PyObject *text);

/* Follows METAV_ISA and METAV_NUM_THREADS; -1 with ImportError if they make no sense here. */
int read_environment(void);

#endif
