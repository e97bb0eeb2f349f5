/* The type Verifier. */
#include "tensor.h"

#include <string.h>

typedef struct verifier_object {
    PyObject_HEAD
    mv_verifier *handle;
    PyObject *view;      /* its text, str */
    atomic_bool busy;    /* guards handle */
    atomic_ullong steps; /* of the handle, readable while it is busy */
} verifier_object;

static module_state *
state_of(PyObject *self)
{
    return (module_state *)PyType_GetModuleState(Py_TYPE(self));
}

static const mv_verifier_config *
config_of(PyObject *self)
{
    return mv_verifier_get_config(((verifier_object *)self)->handle);
}

static bool
enter(PyObject *self)
{
    return enter_handle(&((verifier_object *)self)->busy, "Verifier");
}

static void
leave(PyObject *self)
{
    leave_handle(&((verifier_object *)self)->busy);
}

/* Specs of arguments ---------------------------------------------------------------------------------------------- */

static tensor_spec
responses_spec(PyObject *self, const char *name, int64_t models)
{
    const mv_verifier_config *config = config_of(self);
    return (tensor_spec){
        .name = name,
        .layout = "(models, queries, outputs)",
        .dimensions = 3,
        .shape = {models, (int64_t)config->queries, (int64_t)config->outputs},
    };
}

/* Life ------------------------------------------------------------------------------------------------------------ */

/* Owns `handle` from now on, even on failure. */
static PyObject *
wrap(PyTypeObject *type, mv_verifier *handle, PyObject *view)
{
    verifier_object *self = (verifier_object *)type->tp_alloc(type, 0);
    if (!self) {
        mv_verifier_destroy(handle);
        return NULL;
    }
    self->handle = handle;
    self->view = Py_NewRef(view);
    atomic_init(&self->busy, false);
    atomic_init(&self->steps, mv_verifier_get_steps(handle));
    return (PyObject *)self;
}

static int
parse_kind(const char *text, const mv_kind **kind)
{
    *kind = mv_kind_find(text);
    if (*kind) {
        return 0;
    }
    const char *names[MV_MAX_KINDS];
    PyObject *known = join_names(names, mv_kind_list(names), "'");
    if (known) {
        PyErr_Format(PyExc_ValueError, "kind must be %U, got '%s'", known, text);
        Py_DECREF(known);
    }
    return -1;
}

static int
parse_seed(PyObject *object, uint64_t *seed)
{
    if (!object) {
        return 0;
    }
    PyObject *index = PyNumber_Index(object);
    if (!index) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "seed must be an integer, got %s", Py_TYPE(object)->tp_name);
        }
        return -1;
    }
    const unsigned long long value = PyLong_AsUnsignedLongLong(index);
    Py_DECREF(index);
    if (value == (unsigned long long)-1 && PyErr_Occurred()) {
        PyErr_Format(PyExc_ValueError, "seed must be in 0 ... 2**64 - 1, got %R", object);
        return -1;
    }
    *seed = value;
    return 0;
}

static PyObject *
verifier_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"kind", "queries", "outputs", "view", "hidden", "seed", NULL};
    const char *kind;
    PyObject *queries, *outputs, *hidden = NULL, *seed = NULL, *view = NULL, *result = NULL;
    mv_verifier_config config = {.hidden = 64};
    mv_verifier *handle = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "sOO|$UOO:Verifier", names, &kind, &queries, &outputs, &view,
                                     &hidden, &seed)) {
        return NULL;
    }
    view = view ? Py_NewRef(view) : PyUnicode_FromString("identity");
    const char *view_text = view ? PyUnicode_AsUTF8AndSize(view, NULL) : NULL;
    if (!view_text || parse_kind(kind, &config.kind) < 0 || parse_size(queries, "queries", 1, &config.queries) < 0 ||
        parse_size(outputs, "outputs", 1, &config.outputs) < 0 || parse_size(hidden, "hidden", 1, &config.hidden) < 0 ||
        parse_seed(seed, &config.seed) < 0) {
        goto done;
    }
    mv_status status = mv_view_parse(view_text, &config.view);
    if (!status) {
        status = mv_verifier_create(&config, &handle);
    }
    if (status) {
        raise_status(status, NULL);
        goto done;
    }
    result = wrap(type, handle, view);
done:
    Py_XDECREF(view);
    return result;
}

static void
verifier_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    mv_verifier_destroy(((verifier_object *)self)->handle);
    Py_XDECREF(((verifier_object *)self)->view);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
verifier_repr(PyObject *self)
{
    const mv_verifier_config *config = config_of(self);
    return PyUnicode_FromFormat("<metav Verifier kind=%s queries=%zu outputs=%zu view=%U>",
                                mv_kind_get_name(config->kind), config->queries, config->outputs,
                                ((verifier_object *)self)->view);
}

PyDoc_STRVAR(copy_doc, "copy($self, /)\n--\n\nAn independent verifier in the same state, Adam's included.");

static PyObject *
verifier_copy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    mv_verifier *copy = NULL;
    if (!enter(self)) {
        return NULL;
    }
    mv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = mv_verifier_copy(((verifier_object *)self)->handle, &copy);
    Py_END_ALLOW_THREADS
    leave(self);
    return status ? raise_status(status, NULL) : wrap(Py_TYPE(self), copy, ((verifier_object *)self)->view);
}

/* Work ------------------------------------------------------------------------------------------------------------ */

PyDoc_STRVAR(standardize_doc,
             "standardize($self, responses, /)\n--\n\n"
             "Sets shift (per feature mean) and scale (per output, pooled over queries) from responses (M, N, K).");

static PyObject *
verifier_standardize(PyObject *self, PyObject *object)
{
    const tensor_spec spec = responses_spec(self, "responses", TENSOR_ANY);
    tensor responses;
    const tensor *const used[] = {&responses};
    if (tensor_import(state_of(self), object, &spec, &responses) < 0) {
        return NULL;
    }
    PyObject *result = NULL;
    if (tensor_begin(state_of(self), used, 1) == 0 && enter(self)) {
        mv_status status;
        Py_BEGIN_ALLOW_THREADS
        status = mv_verifier_standardize(((verifier_object *)self)->handle, responses.shape[0], responses.data);
        Py_END_ALLOW_THREADS
        leave(self);
        if (status) {
            raise_status(status, NULL);
        }
        else if (tensor_end(used, 1) == 0) {
            result = Py_NewRef(Py_None);
        }
    }
    tensor_release(&responses);
    return result;
}

PyDoc_STRVAR(fit_closed_form_doc,
             "fit_closed_form($self, owner, negatives, /, *, shrinkage=0.2, floor=0.01)\n--\n\n"
             "Closed form of the `matched` kind from the owner's (N, K) and M >= 2 negatives' (M, N, K) responses.");

static PyObject *
verifier_fit_closed_form(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"owner", "negatives", "shrinkage", "floor"};
    static const call_signature signature = {"fit_closed_form", 2, 4, names};
    const mv_verifier_config *config = config_of(self);
    const tensor_spec owner_spec = {
        .name = "owner",
        .layout = "(queries, outputs)",
        .dimensions = 2,
        .shape = {(int64_t)config->queries, (int64_t)config->outputs},
    };
    const tensor_spec negatives_spec = responses_spec(self, "negatives", TENSOR_ANY);
    PyObject *values[4];
    PyObject *result = NULL;
    tensor owner = {0};
    tensor negatives = {0};
    const tensor *const used[] = {&owner, &negatives};
    double shrinkage = 0.2;
    double floor = 1e-2;
    if (parse_arguments(&signature, arguments, count, keywords, values) < 0 ||
        parse_double(values[2], "shrinkage", &shrinkage) < 0 || parse_double(values[3], "floor", &floor) < 0 ||
        tensor_import(state_of(self), values[0], &owner_spec, &owner) < 0 ||
        tensor_import(state_of(self), values[1], &negatives_spec, &negatives) < 0 ||
        tensor_begin(state_of(self), used, 2) < 0 || !enter(self)) {
        goto done;
    }
    mv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = mv_verifier_fit_closed_form(((verifier_object *)self)->handle, owner.data, negatives.shape[0],
                                         negatives.data, shrinkage, floor);
    Py_END_ALLOW_THREADS
    leave(self);
    const char *ranges = "0 < shrinkage <= 1 and 0 <= floor are needed:";
    if (status) {
        raise_status(status, status == MV_ERROR_OPTION ? ranges : NULL);
    }
    else if (tensor_end(used, 2) == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    tensor_release(&owner);
    tensor_release(&negatives);
    return result;
}

/* step: its arguments in order. */
enum {
    STEP_RESPONSES,
    STEP_ROLES,
    STEP_GRADIENT,
    STEP_LEARNING_RATE,
    STEP_WEIGHTS,
    STEP_WEIGHT_DECAY,
    STEP_MIX,
    STEP_NOISE,
    STEP_DROPOUT,
    STEP_UPDATE,
    STEP_COUNT
};

static const char *const step_names[STEP_COUNT] = {"responses",    "roles", "gradient", "learning_rate", "weights",
                                                   "weight_decay", "mix",   "noise",    "dropout",       "update"};

static int
parse_weights(PyObject *object, mv_step_options *options)
{
    if (!object) {
        return 0;
    }
    if (!PyTuple_Check(object) ||
        !PyArg_ParseTuple(object, "ddd", &options->owner, &options->positive, &options->negative)) {
        if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_TypeError)) {
            return -1;
        }
        PyErr_Format(PyExc_TypeError, "weights must be a tuple of three numbers (owner, positives, negatives), got %R",
                     object);
        return -1;
    }
    return 0;
}

static int
parse_step(PyObject *const *values, mv_step_options *options)
{
    return parse_double(values[STEP_LEARNING_RATE], "learning_rate", &options->learning_rate) < 0 ||
                   parse_weights(values[STEP_WEIGHTS], options) < 0 ||
                   parse_double(values[STEP_WEIGHT_DECAY], "weight_decay", &options->weight_decay) < 0 ||
                   parse_double(values[STEP_MIX], "mix", &options->mix) < 0 ||
                   parse_double(values[STEP_NOISE], "noise", &options->noise) < 0 ||
                   parse_double(values[STEP_DROPOUT], "dropout", &options->dropout) < 0 ||
                   parse_bool(values[STEP_UPDATE], &options->update) < 0
               ? -1
               : 0;
}

/* The roles as bytes of the right length; NULL with an exception. */
static const uint8_t *
parse_roles(PyObject *object, size_t models)
{
    char *roles;
    Py_ssize_t length;
    if (!PyBytes_Check(object)) {
        PyErr_Format(PyExc_TypeError, "roles must be bytes, one ROLE_* per model, got %s", Py_TYPE(object)->tp_name);
        return NULL;
    }
    if (PyBytes_AsStringAndSize(object, &roles, &length) < 0) {
        return NULL;
    }
    if ((size_t)length != models) {
        PyErr_Format(PyExc_ValueError,
                     "roles has length %zd, expected one byte for each of the %zu models in responses", length, models);
        return NULL;
    }
    return (const uint8_t *)roles;
}

PyDoc_STRVAR(step_doc,
             "step($self, responses, roles, /, *, gradient=None, learning_rate=0.001, weights=(1.0, 1.0, 1.0), "
             "weight_decay=0.0, mix=0.0, noise=0.0, dropout=0.0, update=True)\n--\n\n"
             "One joint step; returns the three-term loss and writes d loss / d responses to `gradient` if given.");

static PyObject *
verifier_step(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const call_signature signature = {"step", 2, STEP_COUNT, step_names};
    verifier_object *object = (verifier_object *)self;
    const tensor_spec spec = responses_spec(self, "responses", TENSOR_ANY);
    mv_step_options options = {.learning_rate = 1e-3, .owner = 1.0, .positive = 1.0, .negative = 1.0, .update = true};
    PyObject *values[STEP_COUNT];
    PyObject *result = NULL;
    tensor responses = {0};
    tensor gradient = {0};
    const tensor *const used[] = {&gradient, &responses};
    if (parse_arguments(&signature, arguments, count, keywords, values) < 0 || parse_step(values, &options) < 0 ||
        tensor_import(state_of(self), values[STEP_RESPONSES], &spec, &responses) < 0) {
        goto done;
    }
    const uint8_t *roles = parse_roles(values[STEP_ROLES], responses.shape[0]);
    if (!roles) {
        goto done;
    }
    if (values[STEP_GRADIENT] && values[STEP_GRADIENT] != Py_None) {
        tensor_spec gradient_spec = responses_spec(self, "gradient", (int64_t)responses.shape[0]);
        gradient_spec.writable = true;
        if (tensor_import(state_of(self), values[STEP_GRADIENT], &gradient_spec, &gradient) < 0 ||
            tensor_check_overlap(&gradient, used + 1, 1) < 0) {
            goto done;
        }
    }
    if (tensor_begin(state_of(self), used, 2) < 0 || !enter(self)) {
        goto done;
    }
    double loss;
    mv_status status;
    Py_BEGIN_ALLOW_THREADS
    status =
        mv_verifier_step(object->handle, responses.shape[0], responses.data, roles, &options, gradient.data, &loss);
    Py_END_ALLOW_THREADS
    atomic_store(&object->steps, mv_verifier_get_steps(object->handle));
    leave(self);
    const char *ranges = "learning_rate, weights, weight_decay and noise must be finite and >= 0, mix in [0, 1], "
                         "dropout in [0, 1):";
    if (status) {
        raise_status(status, status == MV_ERROR_OPTION ? ranges : NULL);
    }
    else if (tensor_end(used, 2) == 0) {
        result = PyFloat_FromDouble(loss);
    }
done:
    tensor_release(&responses);
    tensor_release(&gradient);
    return result;
}

typedef mv_status (*model_function)(mv_verifier *, size_t, const float *, float *);

/* logits and scores: (M, N, K) to (M). */
static PyObject *
call_model_function(PyObject *self, model_function function, const call_signature *signature,
                    PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    const tensor_spec spec = responses_spec(self, "responses", TENSOR_ANY);
    PyObject *values[2];
    PyObject *result = NULL;
    tensor responses = {0};
    tensor out = {0};
    if (parse_arguments(signature, arguments, count, keywords, values) < 0 ||
        tensor_import(state_of(self), values[0], &spec, &responses) < 0) {
        goto done;
    }
    const tensor_spec out_spec = {
        .name = "out",
        .layout = "(models,)",
        .dimensions = 1,
        .shape = {(int64_t)responses.shape[0]},
        .writable = true,
    };
    result = tensor_output(state_of(self), values[1], &out_spec, &out);
    const tensor *const used[] = {&out, &responses};
    if (!result || tensor_check_overlap(&out, used + 1, 1) < 0 || tensor_begin(state_of(self), used, 2) < 0 ||
        !enter(self)) {
        Py_CLEAR(result);
        goto done;
    }
    mv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = function(((verifier_object *)self)->handle, responses.shape[0], responses.data, out.data);
    Py_END_ALLOW_THREADS
    leave(self);
    if (status) {
        Py_CLEAR(result);
        raise_status(status, NULL);
    }
    else if (tensor_end(used, 2) < 0) {
        Py_CLEAR(result);
    }
done:
    tensor_release(&responses);
    tensor_release(&out);
    return result;
}

static const char *const model_function_names[] = {"responses", "out"};

PyDoc_STRVAR(logits_doc, "logits($self, responses, /, *, out=None)\n--\n\nLogits (M,) of responses (M, N, K).");

static PyObject *
verifier_logits(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const call_signature signature = {"logits", 1, 2, model_function_names};
    return call_model_function(self, mv_verifier_logits, &signature, arguments, count, keywords);
}

PyDoc_STRVAR(scores_doc,
             "scores($self, responses, /, *, out=None)\n--\n\nScores (M,) in [0, 1] of responses (M, N, K).");

static PyObject *
verifier_scores(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const call_signature signature = {"scores", 1, 2, model_function_names};
    return call_model_function(self, mv_verifier_scores, &signature, arguments, count, keywords);
}

/* Parameters ------------------------------------------------------------------------------------------------------ */

static int
add_parameter(PyObject *result, const mv_parameter *parameter)
{
    const size_t shape[2] = {parameter->rows, parameter->columns};
    tensor copy;
    PyObject *array = tensor_create(parameter->dimensions, shape, &copy);
    if (!array) {
        return -1;
    }
    if (copy.count) {
        memcpy(copy.data, parameter->data, copy.count * sizeof *copy.data);
    }
    const int failed = PyDict_SetItemString(result, parameter->name, array);
    Py_DECREF(array);
    return failed;
}

PyDoc_STRVAR(parameters_doc, "parameters($self, /)\n--\n\nCopies of all parameters, `shift` and `scale` included.");

static PyObject *
verifier_parameters(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    mv_parameter list[MV_MAX_PARAMETERS];
    if (!enter(self)) {
        return NULL;
    }
    PyObject *result = PyDict_New();
    const size_t count = mv_verifier_parameters(((verifier_object *)self)->handle, list);
    for (size_t i = 0; result && i < count; i++) {
        if (add_parameter(result, list + i) < 0) {
            Py_CLEAR(result);
        }
    }
    leave(self);
    return result;
}

/* Tensors on their way into the handle. */
typedef struct parameter_load {
    mv_parameter own[MV_MAX_PARAMETERS], given[MV_MAX_PARAMETERS];
    tensor tensors[MV_MAX_PARAMETERS];
    size_t own_count, count;
} parameter_load;

static const mv_parameter *
find_own(const parameter_load *load, const char *name)
{
    for (size_t i = 0; i < load->own_count; i++) {
        if (strcmp(load->own[i].name, name) == 0) {
            return load->own + i;
        }
    }
    return NULL;
}

static int
add_item(PyObject *self, PyObject *item, parameter_load *load)
{
    const char *name;
    PyObject *value;
    if (!PyTuple_Check(item) || !PyArg_ParseTuple(item, "sO", &name, &value)) {
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_SetString(PyExc_TypeError, "parameters must be a mapping from names (str) to tensors");
        }
        return -1;
    }
    const mv_parameter *own = find_own(load, name);
    if (!own || load->count == MV_MAX_PARAMETERS) {
        raise_status(MV_ERROR_PARAMETER_NAME, name);
        return -1;
    }
    const tensor_spec spec = {
        .name = own->name,
        .layout = own->free_columns ? "(queries * outputs, rank)" : "the shape that parameters() gives",
        .dimensions = own->dimensions,
        .shape = {(int64_t)own->rows, own->free_columns ? TENSOR_ANY : (int64_t)own->columns},
    };
    tensor *given = load->tensors + load->count;
    if (tensor_import(state_of(self), value, &spec, given) < 0) {
        return -1;
    }
    const size_t columns = own->dimensions == 2 ? given->shape[1] : 1;
    load->given[load->count++] = (mv_parameter){
        .name = own->name,
        .dimensions = own->dimensions,
        .rows = given->shape[0],
        .columns = columns,
        .data = given->data,
    };
    return 0;
}

static int
add_items(PyObject *self, PyObject *mapping, parameter_load *load)
{
    PyObject *items = PyMapping_Items(mapping);
    if (!items) {
        if (PyErr_ExceptionMatches(PyExc_TypeError) || PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Format(PyExc_TypeError, "parameters must be a mapping from names to tensors, got %s",
                         Py_TYPE(mapping)->tp_name);
        }
        return -1;
    }
    PyObject *iterator = PyObject_GetIter(items);
    Py_DECREF(items);
    if (!iterator) {
        return -1;
    }
    int failed = 0;
    PyObject *item;
    while (!failed && (item = PyIter_Next(iterator))) {
        failed = add_item(self, item, load);
        Py_DECREF(item);
    }
    Py_DECREF(iterator);
    return failed || PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(load_parameters_doc,
             "load_parameters($self, parameters, /)\n--\n\n"
             "Replaces all parameters; the mapping must name each one that parameters() gives. Adam starts anew.");

static PyObject *
verifier_load_parameters(PyObject *self, PyObject *mapping)
{
    verifier_object *object = (verifier_object *)self;
    parameter_load load = {.count = 0};
    const tensor *used[MV_MAX_PARAMETERS];
    PyObject *result = NULL;
    if (!enter(self)) {
        return NULL;
    }
    load.own_count = mv_verifier_parameters(object->handle, load.own);
    for (size_t i = 0; i < MV_MAX_PARAMETERS; i++) {
        used[i] = load.tensors + i;
    }
    if (add_items(self, mapping, &load) == 0 && tensor_begin(state_of(self), used, load.count) == 0) {
        const char *culprit = NULL;
        const mv_status status = mv_verifier_load(object->handle, load.given, load.count, &culprit);
        result = status ? raise_status(status, culprit) : Py_NewRef(Py_None);
    }
    leave(self);
    for (size_t i = 0; i < load.count; i++) {
        tensor_release(load.tensors + i);
    }
    return result;
}

/* Attributes ------------------------------------------------------------------------------------------------------ */

static PyObject *
get_kind(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(mv_kind_get_name(config_of(self)->kind));
}

static PyObject *
get_queries(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(config_of(self)->queries);
}

static PyObject *
get_outputs(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(config_of(self)->outputs);
}

static PyObject *
get_hidden(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(config_of(self)->hidden);
}

static PyObject *
get_view(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((verifier_object *)self)->view);
}

static PyObject *
get_steps(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(atomic_load(&((verifier_object *)self)->steps));
}

static PyGetSetDef verifier_attributes[] = {
    {"kind", get_kind, NULL, PyDoc_STR("\"mlp\", \"local\" or \"matched\""), NULL},
    {"queries", get_queries, NULL, PyDoc_STR("N, the number of queries"), NULL},
    {"outputs", get_outputs, NULL, PyDoc_STR("K, the number of outputs per query"), NULL},
    {"hidden", get_hidden, NULL, PyDoc_STR("hidden units of the mlp kind"), NULL},
    {"view", get_view, NULL, PyDoc_STR("the view's text"), NULL},
    {"steps", get_steps, NULL, PyDoc_STR("updates so far"), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define FASTCALL(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef verifier_methods[] = {
    {"standardize", verifier_standardize, METH_O, standardize_doc},
    {"fit_closed_form", FASTCALL(verifier_fit_closed_form), fit_closed_form_doc},
    {"step", FASTCALL(verifier_step), step_doc},
    {"logits", FASTCALL(verifier_logits), logits_doc},
    {"scores", FASTCALL(verifier_scores), scores_doc},
    {"parameters", verifier_parameters, METH_NOARGS, parameters_doc},
    {"load_parameters", verifier_load_parameters, METH_O, load_parameters_doc},
    {"copy", verifier_copy, METH_NOARGS, copy_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(verifier_doc, "Verifier(kind, queries, outputs, *, view='identity', hidden=64, seed=0)\n--\n\n"
                           "A meta-verifier: view -> standardise -> score, with its loss, gradients and Adam state.");

static PyType_Slot verifier_slots[] = {
    {Py_tp_new, (void *)verifier_new},
    {Py_tp_dealloc, (void *)verifier_dealloc},
    {Py_tp_repr, (void *)verifier_repr},
    {Py_tp_methods, verifier_methods},
    {Py_tp_getset, verifier_attributes},
    {Py_tp_doc, (void *)verifier_doc},
    {0, NULL},
};

PyType_Spec verifier_spec = {
    .name = "metav._core.Verifier",
    .basicsize = sizeof(verifier_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = verifier_slots,
};
