/* verifier_kinds and parameter_shapes: what can be said of a kind without a verifier. */
#include "module.h"

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

int
parse_sizes(const char *kind, PyObject *queries, PyObject *outputs, PyObject *hidden, mv_verifier_config *config)
{
    *config = (mv_verifier_config){.hidden = 64};
    return parse_kind(kind, &config->kind) < 0 || parse_size(queries, "queries", 1, &config->queries) < 0 ||
                   parse_size(outputs, "outputs", 1, &config->outputs) < 0 ||
                   parse_size(hidden, "hidden", 1, &config->hidden) < 0
               ? -1
               : 0;
}

PyDoc_STRVAR(verifier_kinds_doc,
             "verifier_kinds($module, /)\n--\n\n"
             "All kinds by name: whether one is fitted by fit_closed_form (closed_form), decides alone where it is\n"
             "close to the best (preferred), and may also read distances from the owner (pairs_with_owner).");

static PyObject *
list_kinds(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    const char *names[MV_MAX_KINDS];
    PyObject *table = PyDict_New();
    const size_t count = mv_kind_list(names);
    for (size_t i = 0; table && i < count; i++) {
        const mv_kind_traits kind = mv_kind_get_traits(mv_kind_find(names[i]));
        const trait traits[] = {
            {"closed_form", kind.closed_form},
            {"preferred", kind.preferred},
            {"pairs_with_owner", kind.pairs_with_owner},
        };
        if (add_traits(table, names[i], traits, sizeof traits / sizeof *traits) < 0) {
            Py_CLEAR(table);
        }
    }
    return table;
}

static int
add_shape(PyObject *result, const mv_parameter *parameter)
{
    const Py_ssize_t rows = (Py_ssize_t)parameter->rows;
    PyObject *shape = parameter->free_columns      ? Py_BuildValue("(nO)", rows, Py_None)
                      : parameter->dimensions == 2 ? Py_BuildValue("(nn)", rows, (Py_ssize_t)parameter->columns)
                                                   : Py_BuildValue("(n)", rows);
    const int failed = shape ? PyDict_SetItemString(result, parameter->name, shape) : -1;
    Py_XDECREF(shape);
    return failed;
}

PyDoc_STRVAR(parameter_shapes_doc,
             "parameter_shapes($module, kind, queries, outputs, *, hidden=64)\n--\n\n"
             "Shapes of the parameters that a verifier would have, by name; None where any number of columns will do.");

static PyObject *
parameter_shapes(PyObject *Py_UNUSED(module), PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"kind", "queries", "outputs", "hidden", NULL};
    const char *kind;
    PyObject *queries, *outputs, *hidden = NULL;
    mv_parameter list[MV_MAX_PARAMETERS];
    mv_verifier_config config;
    size_t count;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "sOO|$O:parameter_shapes", names, &kind, &queries, &outputs,
                                     &hidden) ||
        parse_sizes(kind, queries, outputs, hidden, &config) < 0) {
        return NULL;
    }
    const mv_status status = mv_kind_parameters(&config, list, &count);
    if (status) {
        return raise_status(status, NULL);
    }
    PyObject *result = PyDict_New();
    for (size_t i = 0; result && i < count; i++) {
        if (add_shape(result, list + i) < 0) {
            Py_CLEAR(result);
        }
    }
    return result;
}

PyMethodDef verifier_kind_methods[] = {
    {"verifier_kinds", list_kinds, METH_NOARGS, verifier_kinds_doc},
    {"parameter_shapes", (PyCFunction)(void (*)(void))parameter_shapes, METH_VARARGS | METH_KEYWORDS,
     parameter_shapes_doc},
    {NULL, NULL, 0, NULL},
};
