/* Verifier.step. */
#include "verifier.h"

/* The arguments in order. */
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

PyObject *
verifier_step(PyObject *object, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const call_signature signature = {"step", 2, STEP_COUNT, step_names};
    static const char *const ranges = "learning_rate, weights, weight_decay and noise must be finite and >= 0, mix in "
                                      "[0, 1], dropout in [0, 1):";
    verifier_object *self = (verifier_object *)object;
    const tensor_spec spec = verifier_responses_spec(self, "responses", TENSOR_ANY);
    mv_step_options options = {.learning_rate = 1e-3, .owner = 1.0, .positive = 1.0, .negative = 1.0, .update = true};
    const tensor *responses;
    PyObject *values[STEP_COUNT];
    PyObject *result = NULL;
    float *gradient = NULL;
    core_call call;
    verifier_open_call(&call, self, CALL_CHANGES);
    if (parse_arguments(&signature, arguments, count, keywords, values) < 0 || parse_step(values, &options) < 0 ||
        !(responses = call_take(&call, values[STEP_RESPONSES], &spec))) {
        goto done;
    }
    const uint8_t *roles = parse_roles(values[STEP_ROLES], responses->shape[0]);
    if (!roles) {
        goto done;
    }
    if (values[STEP_GRADIENT] && values[STEP_GRADIENT] != Py_None) {
        tensor_spec gradient_spec = verifier_responses_spec(self, "gradient", (int64_t)responses->shape[0]);
        gradient_spec.writable = true;
        const tensor *taken = call_take(&call, values[STEP_GRADIENT], &gradient_spec);
        if (!taken) {
            goto done;
        }
        gradient = taken->data;
    }
    if (!call_begin(&call)) {
        goto done;
    }
    double loss;
    const mv_status status =
        mv_verifier_step(self->handle, responses->shape[0], responses->data, roles, &options, gradient, &loss);
    atomic_store(&self->steps, mv_verifier_get_steps(self->handle));
    if (call_end(&call, status, status == MV_ERROR_OPTION ? ranges : NULL)) {
        result = PyFloat_FromDouble(loss);
    }
done:
    call_close(&call);
    return result;
}
