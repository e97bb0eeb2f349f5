/* views, apply_view and view_gradient. */
#include "call.h"

/* Views by name --------------------------------------------------------------------------------------------------- */

/* "identity, identity_round(d) ... or label" of the core's table, a new reference. */
static PyObject *
known_views(void)
{
    mv_view_traits views[MV_MAX_VIEWS];
    char texts[MV_MAX_VIEWS][64];
    const char *names[MV_MAX_VIEWS];
    const size_t count = mv_view_list(views);
    for (size_t i = 0; i < count; i++) {
        const char *parameter = views[i].parameter;
        PyOS_snprintf(texts[i], sizeof texts[i], parameter ? "%s(%s)" : "%s", views[i].name, parameter);
        names[i] = texts[i];
    }
    return join_names(names, count, "");
}

int
parse_view(PyObject *object, mv_view *view)
{
    if (!PyUnicode_Check(object)) {
        PyErr_Format(PyExc_TypeError, "view must be a str, got %s", Py_TYPE(object)->tp_name);
        return -1;
    }
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(object, &length);
    if (!text) {
        return -1;
    }
    /* a text with a NUL would be read up to there, and count as another view than it says */
    const bool is_whole = strlen(text) == (size_t)length;
    const mv_status status = is_whole ? mv_view_parse(text, view) : MV_ERROR_VIEW_NAME;
    if (status == MV_ERROR_VIEW_NAME) {
        PyObject *known = known_views();
        if (known) {
            PyErr_Format(PyExc_ValueError, "view %R: %s; use %U", object, mv_status_text(status), known);
            Py_DECREF(known);
        }
    }
    else if (status) {
        PyErr_Format(PyExc_ValueError, "view %R: %s", object, mv_status_text(status));
    }
    return status ? -1 : 0;
}

PyDoc_STRVAR(views_doc, "views($module, /)\n--\n\n"
                        "All views by name: whether one takes a number in parentheses (parameter), reads answers as a\n"
                        "classifier's (reads_classes), and reads nothing but the most likely class (reads_labels).");

static PyObject *
list_views(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    mv_view_traits views[MV_MAX_VIEWS];
    PyObject *table = PyDict_New();
    const size_t count = mv_view_list(views);
    for (size_t i = 0; table && i < count; i++) {
        const trait traits[] = {
            {"parameter", views[i].parameter != NULL},
            {"reads_classes", views[i].reads_classes},
            {"reads_labels", views[i].reads_labels},
        };
        if (add_traits(table, views[i].name, traits, sizeof traits / sizeof *traits) < 0) {
            Py_CLEAR(table);
        }
    }
    return table;
}

/* Features and their gradient ------------------------------------------------------------------------------------- */

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

static mv_shape
shape_of(const tensor *responses)
{
    return (mv_shape){responses->shape[0], responses->shape[1], responses->shape[2]};
}

PyDoc_STRVAR(apply_view_doc, "apply_view($module, responses, view, /, *, out=None)\n--\n\n"
                             "Features (M, N, K) of raw responses (M, N, K) under a view.");

static PyObject *
apply_view(PyObject *module, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"responses", "view", "out"};
    static const call_signature signature = {"apply_view", 2, 3, names};
    PyObject *values[3];
    PyObject *result = NULL;
    core_call call;
    mv_view view;
    call_open(&call, get_state(module), NULL, CALL_READS, NULL);
    if (parse_arguments(&signature, arguments, count, keywords, values) < 0 || parse_view(values[1], &view) < 0) {
        goto done;
    }
    const tensor *responses = call_take(&call, values[0], &responses_spec);
    if (!responses) {
        goto done;
    }
    const tensor_spec spec = same_shape("out", responses, true);
    const tensor *features = call_take_output(&call, values[2], &spec);
    const mv_shape shape = shape_of(responses);
    if (!features || !call_begin(&call)) {
        goto done;
    }
    const mv_status status = mv_view_forward(view, shape, responses->data, features->data);
    if (call_end(&call, status, NULL)) {
        result = Py_NewRef(call.output);
    }
done:
    call_close(&call);
    return result;
}

PyDoc_STRVAR(view_gradient_doc,
             "view_gradient($module, responses, feature_gradient, view, /, *, out=None)\n--\n\n"
             "Gradient (M, N, K) with respect to the raw responses, given the one with respect to the features.");

static PyObject *
view_gradient(PyObject *module, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"responses", "feature_gradient", "view", "out"};
    static const call_signature signature = {"view_gradient", 3, 4, names};
    PyObject *values[4];
    PyObject *result = NULL;
    core_call call;
    mv_view view;
    call_open(&call, get_state(module), NULL, CALL_READS, NULL);
    if (parse_arguments(&signature, arguments, count, keywords, values) < 0 || parse_view(values[2], &view) < 0) {
        goto done;
    }
    const tensor *responses = call_take(&call, values[0], &responses_spec);
    if (!responses) {
        goto done;
    }
    const tensor_spec given_spec = same_shape("feature_gradient", responses, false);
    const tensor *given = call_take(&call, values[1], &given_spec);
    if (!given) {
        goto done;
    }
    const tensor_spec spec = same_shape("out", responses, true);
    const tensor *gradient = call_take_output(&call, values[3], &spec);
    const mv_shape shape = shape_of(responses);
    if (!gradient || !call_begin(&call)) {
        goto done;
    }
    const mv_status status = mv_view_backward(view, shape, responses->data, given->data, gradient->data);
    if (call_end(&call, status, status == MV_ERROR_GRADIENT ? "feature_gradient:" : NULL)) {
        result = Py_NewRef(call.output);
    }
done:
    call_close(&call);
    return result;
}

PyMethodDef view_methods[] = {
    {"views", list_views, METH_NOARGS, views_doc},
    {"apply_view", (PyCFunction)(void (*)(void))apply_view, METH_FASTCALL | METH_KEYWORDS, apply_view_doc},
    {"view_gradient", (PyCFunction)(void (*)(void))view_gradient, METH_FASTCALL | METH_KEYWORDS, view_gradient_doc},
    {NULL, NULL, 0, NULL},
};
