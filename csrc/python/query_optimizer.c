/* The type QueryOptimizer. */
#include "call.h"

#include <math.h>

typedef struct query_optimizer_object {
    PyObject_HEAD
    mv_query_optimizer *handle;
    handle_guard guard;
    int dimensions;   /* of the queries; the shape is one allocation behind the object */
    size_t *shape;
} query_optimizer_object;

static module_state *
state_of(PyTypeObject *type)
{
    return (module_state *)PyType_GetModuleState(type);
}

/* The tensor has the shape of `like`, without its first `skipped` dimensions; -1 with ValueError. */
static int
check_same_shape(const tensor *given, int dimensions, const size_t *like, const char *what)
{
    bool same = given->dimensions == dimensions;
    for (int i = 0; same && i < dimensions; i++) {
        same = given->shape[i] == like[i];
    }
    if (!same) {
        PyErr_Format(PyExc_ValueError, "%s must have %s", given->name, what);
    }
    return same ? 0 : -1;
}

/* radius and levels; None and NULL leave the default. */
static int
parse_limits(PyObject *radius, PyObject *levels, mv_query_config *config)
{
    size_t number = 0;
    const bool has_radius = radius && radius != Py_None;
    const bool has_levels = levels && levels != Py_None;
    if ((has_radius && parse_double(radius, "radius", &config->radius) < 0) ||
        (has_levels && parse_size(levels, "levels", 2, &number) < 0)) {
        return -1;
    }
    if (has_radius && !(config->radius >= 0.0)) {
        PyErr_Format(PyExc_ValueError, "radius must be None or a number >= 0, got %R", radius);
        return -1;
    }
    if (number > 65536) {
        PyErr_Format(PyExc_ValueError, "levels must be None or in 2 ... 65536, got %R", levels);
        return -1;
    }
    config->levels = (int)number;
    return 0;
}

static tensor_spec
any_spec(const char *name, const char *layout, bool writable)
{
    return (tensor_spec){.name = name, .layout = layout, .dimensions = TENSOR_ANY, .writable = writable};
}

/* Owns `handle` from now on, even on failure. */
static PyObject *
wrap(PyTypeObject *type, mv_query_optimizer *handle, const tensor *natural)
{
    query_optimizer_object *self = (query_optimizer_object *)type->tp_alloc(type, 0);
    if (!self) {
        mv_query_optimizer_destroy(handle);
        return NULL;
    }
    self->handle = handle;
    atomic_init(&self->guard.state, 0);
    self->shape = PyMem_New(size_t, (size_t)natural->dimensions);
    if (!self->shape) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->dimensions = natural->dimensions;
    for (int i = 0; i < natural->dimensions; i++) {
        self->shape[i] = natural->shape[i];
    }
    return (PyObject *)self;
}

/* The handle for imported tensors; NULL with an exception. */
static mv_query_optimizer *
create_handle(const tensor *natural, const tensor *lower, const tensor *upper, mv_query_config *config)
{
    static const char *const one_query = "the shape of one query, that of natural without its first dimension";
    if (check_same_shape(lower, natural->dimensions - 1, natural->shape + 1, one_query) < 0 ||
        check_same_shape(upper, natural->dimensions - 1, natural->shape + 1, one_query) < 0) {
        return NULL;
    }
    if (!natural->count) {
        PyErr_SetString(PyExc_ValueError, "natural is empty; give at least one query");
        return NULL;
    }
    mv_query_optimizer *handle = NULL;
    config->queries = natural->shape[0];
    config->features = natural->count / natural->shape[0];
    const mv_status status = mv_query_optimizer_create(config, natural->data, lower->data, upper->data, &handle);
    if (status) {
        raise_status(status, NULL);
    }
    return handle;
}

static PyObject *
query_optimizer_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"", "", "", "radius", "levels", NULL};
    const tensor_spec natural_spec = any_spec("natural", "(queries, ...)", false);
    const tensor_spec lower_spec = any_spec("lower", "(...), that of one query", false);
    const tensor_spec upper_spec = any_spec("upper", "(...), that of one query", false);
    PyObject *objects[3], *radius = NULL, *levels = NULL, *result = NULL;
    mv_query_config config = {.radius = INFINITY};
    const tensor *natural, *lower, *upper;
    core_call call;
    call_open(&call, state_of(type), NULL, CALL_CHANGES, NULL);
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOO|$OO:QueryOptimizer", names, &objects[0], &objects[1],
                                     &objects[2], &radius, &levels) ||
        parse_limits(radius, levels, &config) < 0 || !(natural = call_take(&call, objects[0], &natural_spec)) ||
        !(lower = call_take(&call, objects[1], &lower_spec)) || !(upper = call_take(&call, objects[2], &upper_spec)) ||
        !call_check(&call)) {
        goto done;
    }
    mv_query_optimizer *handle = create_handle(natural, lower, upper, &config);
    if (handle) {
        result = wrap(type, handle, natural);
    }
done:
    call_close(&call);
    return result;
}

static void
query_optimizer_dealloc(PyObject *object)
{
    query_optimizer_object *self = (query_optimizer_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    mv_query_optimizer_destroy(self->handle);
    PyMem_Free(self->shape);
    type->tp_free(object);
    Py_DECREF(type);
}

PyDoc_STRVAR(update_doc,
             "update($self, gradient, queries, /, *, learning_rate=0.01)\n--\n\n"
             "One step of the queries (N, ...) in place. Without levels, what they hold is what moves; with levels,\n"
             "the continuous queries are kept here, and theirs are the nearest levels. Queries whose gradient\n"
             "holds NaN or infinity stay as they are, the others move, and a ValueError is raised.");

static PyObject *
query_optimizer_update(PyObject *object, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"gradient", "queries", "learning_rate"};
    static const call_signature signature = {"update", 2, 3, names};
    static const char *const natural_shape = "the shape of natural";
    query_optimizer_object *self = (query_optimizer_object *)object;
    const tensor_spec gradient_spec = any_spec("gradient", "(queries, ...)", false);
    const tensor_spec queries_spec = any_spec("queries", "(queries, ...)", true);
    PyObject *values[3];
    PyObject *result = NULL;
    const tensor *gradient, *queries;
    double learning_rate = 1e-2;
    core_call call;
    call_open(&call, state_of(Py_TYPE(object)), &self->guard, CALL_CHANGES, "QueryOptimizer");
    if (parse_arguments(&signature, arguments, count, keywords, values) < 0 ||
        parse_double(values[2], "learning_rate", &learning_rate) < 0 ||
        !(gradient = call_take(&call, values[0], &gradient_spec)) ||
        check_same_shape(gradient, self->dimensions, self->shape, natural_shape) < 0 ||
        !(queries = call_take(&call, values[1], &queries_spec)) ||
        check_same_shape(queries, self->dimensions, self->shape, natural_shape) < 0) {
        goto done;
    }
    if (!call_begin(&call)) {
        goto done;
    }
    const mv_status status = mv_query_optimizer_update(self->handle, gradient->data, learning_rate, queries->data);
    const char *subject = status == MV_ERROR_OPTION     ? "learning_rate must be finite and >= 0:"
                          : status == MV_ERROR_GRADIENT ? "the queries concerned stay as they were:"
                                                        : NULL;
    if (call_end(&call, status, subject)) {
        result = Py_NewRef(Py_None);
    }
done:
    call_close(&call);
    return result;
}

static PyMethodDef query_optimizer_methods[] = {
    {"update", (PyCFunction)(void (*)(void))query_optimizer_update, METH_FASTCALL | METH_KEYWORDS, update_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(query_optimizer_doc,
             "QueryOptimizer(natural, lower, upper, /, *, radius=None, levels=None)\n--\n\n"
             "Adam on the fingerprint, followed by the projection onto bounds, radius and levels.");

static PyType_Slot query_optimizer_slots[] = {
    {Py_tp_new, (void *)query_optimizer_new},
    {Py_tp_dealloc, (void *)query_optimizer_dealloc},
    {Py_tp_methods, query_optimizer_methods},
    {Py_tp_doc, (void *)query_optimizer_doc},
    {0, NULL},
};

PyType_Spec query_optimizer_spec = {
    .name = "metav._core.QueryOptimizer",
    .basicsize = sizeof(query_optimizer_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = query_optimizer_slots,
};
