/* Arguments, errors, and tables of names. */
#include "module.h"

#include <string.h>

/* Arguments ------------------------------------------------------------------------------------------------------- */

static Py_ssize_t
find_keyword(const call_signature *signature, PyObject *name)
{
    for (Py_ssize_t i = signature->positional; i < signature->count; i++) {
        if (PyUnicode_CompareWithASCIIString(name, signature->parameters[i]) == 0) {
            return i;
        }
    }
    return -1;
}

int
parse_arguments(const call_signature *signature, PyObject *const *arguments, Py_ssize_t positional, PyObject *keywords,
                PyObject **values)
{
    if (positional != signature->positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes exactly %zd positional arguments (%zd given)", signature->name,
                     signature->positional, positional);
        return -1;
    }
    for (Py_ssize_t i = 0; i < signature->count; i++) {
        values[i] = i < positional ? arguments[i] : NULL;
    }
    const Py_ssize_t keyword_count = keywords ? PyTuple_Size(keywords) : 0;
    for (Py_ssize_t i = 0; i < keyword_count; i++) {
        PyObject *name = PyTuple_GetItem(keywords, i); /* borrowed from the tuple that the caller holds */
        const Py_ssize_t at = find_keyword(signature, name);
        if (at < 0) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", signature->name, name);
            return -1;
        }
        values[at] = arguments[positional + i];
    }
    return 0;
}

int
parse_double(PyObject *object, const char *name, double *value)
{
    if (!object) {
        return 0;
    }
    const double number = PyFloat_AsDouble(object);
    if (number == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "%s must be a number, got %s", name, Py_TYPE(object)->tp_name);
        }
        else if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
            PyErr_Format(PyExc_ValueError, "%s must be a number that fits a float", name);
        }
        return -1;
    }
    *value = number;
    return 0;
}

int
parse_bool(PyObject *object, bool *value)
{
    if (!object) {
        return 0;
    }
    const int truth = PyObject_IsTrue(object);
    if (truth < 0) {
        return -1;
    }
    *value = truth != 0;
    return 0;
}

int
parse_size(PyObject *object, const char *name, size_t minimum, size_t *value)
{
    if (!object) {
        return 0;
    }
    PyObject *index = PyNumber_Index(object);
    if (!index) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "%s must be an integer, got %s", name, Py_TYPE(object)->tp_name);
        }
        return -1;
    }
    int overflow;
    const long long number = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow || number < 0 || (unsigned long long)number < minimum || (unsigned long long)number > PTRDIFF_MAX) {
        PyErr_Format(PyExc_ValueError, "%s must be an integer >= %zu, got %R", name, minimum, object);
        return -1;
    }
    *value = (size_t)number;
    return 0;
}

PyObject *
join_names(const char *const *names, size_t count, const char *quote)
{
    PyObject *text = PyUnicode_FromFormat("%s%s%s", quote, names[0], quote);
    for (size_t i = 1; text && i < count; i++) {
        const char *joint = i + 1 < count ? ", " : " or ";
        PyObject *longer = PyUnicode_FromFormat("%U%s%s%s%s", text, joint, quote, names[i], quote);
        Py_DECREF(text);
        text = longer;
    }
    return text;
}

/* Errors ---------------------------------------------------------------------------------------------------------- */

static PyObject *
exception_of(mv_status status)
{
    switch (status) {
    case MV_ERROR_MEMORY:
        return PyExc_MemoryError;
    case MV_ERROR_NO_CLOSED_FORM:
    case MV_ERROR_NOT_FITTED:
        return PyExc_RuntimeError;
    case MV_ERROR_LOSS:
        return PyExc_OverflowError;
    default:
        return PyExc_ValueError;
    }
}

PyObject *
raise_status(mv_status status, const char *subject)
{
    if (status == MV_ERROR_MEMORY) {
        return PyErr_NoMemory();
    }
    PyErr_Format(exception_of(status), "%s%s%s", subject ? subject : "", subject ? " " : "", mv_status_text(status));
    return NULL;
}

void
raise_import_error(PyObject *text)
{
    PyObject *type;
    PyObject *cause;
    PyObject *trace;
    PyErr_Fetch(&type, &cause, &trace);
    PyErr_NormalizeException(&type, &cause, &trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    PyErr_SetObject(PyExc_ImportError, text);
    PyErr_Fetch(&type, &text, &trace);
    PyErr_NormalizeException(&type, &text, &trace);
    if (text && cause) {
        PyException_SetCause(text, cause); /* which takes the cause */
    }
    else {
        Py_XDECREF(cause);
    }
    PyErr_Restore(type, text, trace);
}

/* Tables ---------------------------------------------------------------------------------------------------------- */

int
add_traits(PyObject *table, const char *name, const trait *traits, size_t count)
{
    PyObject *row = PyDict_New();
    for (size_t i = 0; row && i < count; i++) {
        if (PyDict_SetItemString(row, traits[i].name, traits[i].value ? Py_True : Py_False) < 0) {
            Py_CLEAR(row);
        }
    }
    const int failed = row ? PyDict_SetItemString(table, name, row) : -1;
    Py_XDECREF(row);
    return failed;
}
