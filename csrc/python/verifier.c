/* The type Verifier. */
#include "verifier.h"

static verifier_object *
verifier_of(PyObject *self)
{
    return (verifier_object *)self;
}

static const mv_verifier_config *
config_of(const PyObject *self)
{
    return mv_verifier_get_config(((const verifier_object *)self)->handle);
}

void
verifier_open_call(core_call *call, verifier_object *self, call_access access)
{
    module_state *state = (module_state *)PyType_GetModuleState(Py_TYPE((PyObject *)self));
    call_open(call, state, &self->guard, access, "Verifier");
}

tensor_spec
verifier_responses_spec(const verifier_object *self, const char *name, int64_t models)
{
    const mv_verifier_config *config = mv_verifier_get_config(self->handle);
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
    atomic_init(&self->guard.state, 0);
    atomic_init(&self->steps, mv_verifier_get_steps(handle));
    return (PyObject *)self;
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
    mv_verifier_config config;
    mv_verifier *handle = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "sOO|$UOO:Verifier", names, &kind, &queries, &outputs, &view,
                                     &hidden, &seed)) {
        return NULL;
    }
    view = view ? Py_NewRef(view) : PyUnicode_FromString("identity");
    if (!view || parse_sizes(kind, queries, outputs, hidden, &config) < 0 || parse_seed(seed, &config.seed) < 0 ||
        parse_view(view, &config.view) < 0) {
        goto done;
    }
    const mv_status status = mv_verifier_create(&config, &handle);
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
    mv_verifier_destroy(verifier_of(self)->handle);
    Py_XDECREF(verifier_of(self)->view);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
verifier_repr(PyObject *self)
{
    const mv_verifier_config *config = config_of(self);
    return PyUnicode_FromFormat("<metav Verifier kind=%s queries=%zu outputs=%zu view=%U>",
                                mv_kind_get_name(config->kind), config->queries, config->outputs,
                                verifier_of(self)->view);
}

PyDoc_STRVAR(copy_doc, "copy($self, /)\n--\n\nAn independent verifier in the same state, Adam's included.");

static PyObject *
verifier_copy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    mv_verifier *copy = NULL;
    PyObject *result = NULL;
    mv_verifier *handle = verifier_of(self)->handle;
    core_call call;
    verifier_open_call(&call, verifier_of(self), CALL_READS);
    if (!call_begin(&call)) {
        goto done;
    }
    const mv_status status = mv_verifier_copy(handle, &copy);
    if (call_end(&call, status, NULL)) {
        result = wrap(Py_TYPE(self), copy, verifier_of(self)->view);
    }
done:
    call_close(&call);
    return result;
}

/* Work ------------------------------------------------------------------------------------------------------------ */

PyDoc_STRVAR(standardize_doc,
             "standardize($self, responses, /)\n--\n\n"
             "Sets shift (per feature mean) and scale (per output, pooled over queries) from responses (M, N, K).");

static PyObject *
verifier_standardize(PyObject *self, PyObject *object)
{
    const tensor_spec spec = verifier_responses_spec(verifier_of(self), "responses", TENSOR_ANY);
    PyObject *result = NULL;
    mv_verifier *handle = verifier_of(self)->handle;
    core_call call;
    verifier_open_call(&call, verifier_of(self), CALL_CHANGES);
    const tensor *responses = call_take(&call, object, &spec);
    if (!responses || !call_begin(&call)) {
        goto done;
    }
    const mv_status status = mv_verifier_standardize(handle, responses->shape[0], responses->data);
    if (call_end(&call, status, NULL)) {
        result = Py_NewRef(Py_None);
    }
done:
    call_close(&call);
    return result;
}

PyDoc_STRVAR(fit_closed_form_doc,
             "fit_closed_form($self, owner, negatives, /, *, shrinkage=0.2, floor=0.01)\n--\n\n"
             "Fits a kind that has a closed form to the owner's (N, K) and M >= 2 negatives' (M, N, K) responses.");

static PyObject *
verifier_fit_closed_form(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"owner", "negatives", "shrinkage", "floor"};
    static const call_signature signature = {"fit_closed_form", 2, 4, names};
    const tensor_spec negatives_spec = verifier_responses_spec(verifier_of(self), "negatives", TENSOR_ANY);
    const tensor_spec owner_spec = {
        .name = "owner",
        .layout = "(queries, outputs)",
        .dimensions = 2,
        .shape = {negatives_spec.shape[1], negatives_spec.shape[2]},
    };
    const tensor *owner, *negatives;
    PyObject *values[4];
    PyObject *result = NULL;
    double shrinkage = 0.2;
    double floor = 1e-2;
    mv_verifier *handle = verifier_of(self)->handle;
    core_call call;
    verifier_open_call(&call, verifier_of(self), CALL_CHANGES);
    if (parse_arguments(&signature, arguments, count, keywords, values) < 0 ||
        parse_double(values[2], "shrinkage", &shrinkage) < 0 || parse_double(values[3], "floor", &floor) < 0 ||
        !(owner = call_take(&call, values[0], &owner_spec)) ||
        !(negatives = call_take(&call, values[1], &negatives_spec))) {
        goto done;
    }
    if (!call_begin(&call)) {
        goto done;
    }
    const mv_status status =
        mv_verifier_fit_closed_form(handle, owner->data, negatives->shape[0], negatives->data, shrinkage, floor);
    const char *ranges = "0 < shrinkage <= 1 and 0 <= floor are needed:";
    if (call_end(&call, status, status == MV_ERROR_OPTION ? ranges : NULL)) {
        result = Py_NewRef(Py_None);
    }
done:
    call_close(&call);
    return result;
}

typedef mv_status (*model_function)(mv_verifier *, size_t, const float *, float *);

/* logits and scores: (M, N, K) to (M). */
static PyObject *
call_model_function(PyObject *self, model_function mv_function, const call_signature *signature,
                    PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    const tensor_spec spec = verifier_responses_spec(verifier_of(self), "responses", TENSOR_ANY);
    const tensor *responses;
    PyObject *values[2];
    PyObject *result = NULL;
    mv_verifier *handle = verifier_of(self)->handle;
    core_call call;
    verifier_open_call(&call, verifier_of(self), CALL_READS);
    if (parse_arguments(signature, arguments, count, keywords, values) < 0 ||
        !(responses = call_take(&call, values[0], &spec))) {
        goto done;
    }
    const tensor_spec out_spec = {
        .name = "out",
        .layout = "(models,)",
        .dimensions = 1,
        .shape = {(int64_t)responses->shape[0]},
        .writable = true,
    };
    const tensor *out = call_take_output(&call, values[1], &out_spec);
    if (!out || !call_begin(&call)) {
        goto done;
    }
    const mv_status status = mv_function(handle, responses->shape[0], responses->data, out->data);
    if (call_end(&call, status, NULL)) {
        result = Py_NewRef(call.output);
    }
done:
    call_close(&call);
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
    return Py_NewRef(verifier_of(self)->view);
}

static PyObject *
get_steps(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(atomic_load(&verifier_of(self)->steps));
}

static PyGetSetDef verifier_attributes[] = {
    {"kind", get_kind, NULL, PyDoc_STR("one of verifier_kinds()"), NULL},
    {"queries", get_queries, NULL, PyDoc_STR("N, the number of queries"), NULL},
    {"outputs", get_outputs, NULL, PyDoc_STR("K, the number of outputs per query"), NULL},
    {"hidden", get_hidden, NULL, PyDoc_STR("hidden units of the mlp kind"), NULL},
    {"view", get_view, NULL, PyDoc_STR("the view's text"), NULL},
    {"steps", get_steps, NULL, PyDoc_STR("updates so far"), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* The type -------------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(step_doc,
             "step($self, responses, roles, /, *, gradient=None, learning_rate=0.001, weights=(1.0, 1.0, 1.0), "
             "weight_decay=0.0, mix=0.0, noise=0.0, dropout=0.0, update=True)\n--\n\n"
             "One joint step; returns the three-term loss and writes d loss / d responses to `gradient` if given.");

PyDoc_STRVAR(parameters_doc, "parameters($self, /)\n--\n\nCopies of all parameters, `shift` and `scale` included.");

PyDoc_STRVAR(load_parameters_doc,
             "load_parameters($self, parameters, /)\n--\n\n"
             "Replaces all parameters; the mapping must name each one that parameters() gives. Adam starts anew.");

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
