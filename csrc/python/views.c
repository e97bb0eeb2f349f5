/* apply_view and view_gradient. */
#include "tensor.h"

static int
parse_view(PyObject *object, mv_view *view)
{
    if (!PyUnicode_Check(object)) {
        PyErr_Format(PyExc_TypeError, "view must be a str, got %s", Py_TYPE(object)->tp_name);
        return -1;
    }
    const char *text = PyUnicode_AsUTF8AndSize(object, NULL);
    if (!text) {
        return -1;
    }
    const mv_status status = mv_view_parse(text, view);
    if (status) {
        PyErr_Format(PyExc_ValueError, "view %R: %s", object, mv_status_text(status));
        return -1;
    }
    return 0;
}

static const tensor_spec responses_spec = {
    .name = "responses",
    .layout = "(models, queries, outputs)",
    .dimensions = 3,
    .shape = {TENSOR_ANY, TENSOR_ANY, TENSOR_ANY},
};

/* The spec of another argument with the shape of `like`. */
static tensor_spec
same_shape(const char *name, const tensor *like, bool writable)
{
    tensor_spec spec = responses_spec;
    spec.name = name;
    spec.writable = writable;
    for (int i = 0; i < 3; i++) {
        spec.shape[i] = (int64_t)like->shape[i];
    }
    return spec;
}

static PyObject *
apply_view(PyObject *module, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"responses", "view", "out"};
    static const call_signature signature = {"apply_view", 2, 3, names};
    module_state *state = get_state(module);
    PyObject *values[3];
    PyObject *result = NULL;
    tensor responses = {0};
    tensor features = {0};
    mv_view view;
    if (parse_arguments(&signature, arguments, count, keywords, values) < 0 || parse_view(values[1], &view) < 0 ||
        tensor_import(state, values[0], &responses_spec, &responses) < 0) {
        goto done;
    }
    const tensor_spec spec = same_shape("out", &responses, true);
    result = tensor_output(state, values[2], &spec, &features);
    const tensor *const used[] = {&features, &responses};
    if (!result || tensor_check_overlap(&features, used + 1, 1) < 0 || tensor_begin(state, used, 2) < 0) {
        Py_CLEAR(result);
        goto done;
    }
    const mv_shape shape = {responses.shape[0], responses.shape[1], responses.shape[2]};
    mv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = mv_view_forward(view, shape, responses.data, features.data);
    Py_END_ALLOW_THREADS
    if (status) {
        Py_CLEAR(result);
        raise_status(status, NULL);
    }
    else if (tensor_end(used, 2) < 0) {
        Py_CLEAR(result);
    }
done:
    tensor_release(&responses);
    tensor_release(&features);
    return result;
}

static PyObject *
view_gradient(PyObject *module, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"responses", "feature_gradient", "view", "out"};
    static const call_signature signature = {"view_gradient", 3, 4, names};
    module_state *state = get_state(module);
    PyObject *values[4];
    PyObject *result = NULL;
    tensor responses = {0};
    tensor given = {0};
    tensor gradient = {0};
    mv_view view;
    if (parse_arguments(&signature, arguments, count, keywords, values) < 0 || parse_view(values[2], &view) < 0 ||
        tensor_import(state, values[0], &responses_spec, &responses) < 0) {
        goto done;
    }
    const tensor_spec given_spec = same_shape("feature_gradient", &responses, false);
    const tensor_spec spec = same_shape("out", &responses, true);
    if (tensor_import(state, values[1], &given_spec, &given) < 0) {
        goto done;
    }
    result = tensor_output(state, values[3], &spec, &gradient);
    const tensor *const used[] = {&gradient, &responses, &given};
    if (!result || tensor_check_overlap(&gradient, used + 1, 2) < 0 || tensor_begin(state, used, 3) < 0) {
        Py_CLEAR(result);
        goto done;
    }
    const mv_shape shape = {responses.shape[0], responses.shape[1], responses.shape[2]};
    mv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = mv_view_backward(view, shape, responses.data, given.data, gradient.data);
    Py_END_ALLOW_THREADS
    if (status) {
        Py_CLEAR(result);
        raise_status(status, status == MV_ERROR_GRADIENT ? "feature_gradient:" : NULL);
    }
    else if (tensor_end(used, 3) < 0) {
        Py_CLEAR(result);
    }
done:
    tensor_release(&responses);
    tensor_release(&given);
    tensor_release(&gradient);
    return result;
}

PyDoc_STRVAR(apply_view_doc, "apply_view($module, responses, view, /, *, out=None)\n--\n\n"
                             "Features (M, N, K) of raw responses (M, N, K) under a view.");
PyDoc_STRVAR(view_gradient_doc,
             "view_gradient($module, responses, feature_gradient, view, /, *, out=None)\n--\n\n"
             "Gradient (M, N, K) with respect to the raw responses, given the one with respect to the features.");

PyMethodDef view_methods[] = {
    {"apply_view", (PyCFunction)(void (*)(void))apply_view, METH_FASTCALL | METH_KEYWORDS, apply_view_doc},
    {"view_gradient", (PyCFunction)(void (*)(void))view_gradient, METH_FASTCALL | METH_KEYWORDS, view_gradient_doc},
    {NULL, NULL, 0, NULL},
};
