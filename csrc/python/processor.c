/* Instruction set and threads: what the environment asks for at import, and the functions that tell and set it. */
#include "module.h"

#include <errno.h>
#include <stdlib.h>

/* Environment ------------------------------------------------------------------------------------------------------ */

static int
choose_isa(const char *wanted)
{
    if (!mv_set_isa(wanted && *wanted ? wanted : NULL)) {
        return 0;
    }
    const char *names[MV_MAX_ISAS];
    PyObject *usable = join_names(names, mv_isa_list(names), "");
    if (usable) {
        PyErr_Format(PyExc_ImportError, "METAV_ISA is '%s', but this processor has %U; set one of these, or unset it",
                     wanted, usable);
        Py_DECREF(usable);
    }
    return -1;
}

/* A whole number within the pool's limits; 0 if the text is not one. */
static size_t
read_threads(const char *text)
{
    char *end = NULL;
    errno = 0;
    const long number = strtol(text, &end, 10);
    return errno || end == text || *end || number < 1 || number > MV_MAX_THREADS ? 0 : (size_t)number;
}

static int
choose_threads(const char *own, const char *shared)
{
    size_t threads = 0;
    if (own && *own) {
        threads = read_threads(own);
        if (!threads) {
            PyErr_Format(PyExc_ImportError, "METAV_NUM_THREADS is '%s'; set a whole number from 1 to %d, or unset it",
                         own, MV_MAX_THREADS);
            return -1;
        }
    }
    else if (shared) { /* of OpenMP, whose syntax is richer: what is not a number is not for us */
        threads = read_threads(shared);
        threads = threads < mv_cpu_count() ? threads : 0;
    }
    if (threads) {
        (void)mv_set_threads(threads);
    }
    return 0;
}

int
read_environment(void)
{
    if (choose_isa(getenv("METAV_ISA")) < 0) {
        return -1;
    }
    return choose_threads(getenv("METAV_NUM_THREADS"), getenv("OMP_NUM_THREADS"));
}

/* Functions -------------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(cpu_info_doc,
             "cpu_info()\n--\n\n"
             "Instruction set in use (isa), usable ones (isas, best first), cpus of this process, threads.");

static PyObject *
cpu_info(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arguments))
{
    const char *names[MV_MAX_ISAS];
    const size_t count = mv_isa_list(names);
    PyObject *isas = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; isas && i < count; i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        if (!name || PyTuple_SetItem(isas, (Py_ssize_t)i, name) < 0) { /* which takes the name in any case */
            Py_CLEAR(isas);
        }
    }
    if (!isas) {
        return NULL;
    }
    return Py_BuildValue("{s:s,s:N,s:n,s:n}", "isa", mv_get_isa(), "isas", isas, "cpus", (Py_ssize_t)mv_cpu_count(),
                         "threads", (Py_ssize_t)mv_get_threads());
}

PyDoc_STRVAR(get_num_threads_doc, "get_num_threads()\n--\n\nThreads that one call may use.");

static PyObject *
get_num_threads(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arguments))
{
    return PyLong_FromSize_t(mv_get_threads());
}

PyDoc_STRVAR(set_num_threads_doc, "set_num_threads(threads, /)\n--\n\n"
                                  "Threads that one call may use, its own included; results do not depend on them.");

static PyObject *
set_num_threads(PyObject *Py_UNUSED(module), PyObject *argument)
{
    size_t threads;
    if (parse_size(argument, "threads", 1, &threads) < 0) {
        return NULL;
    }
    if (mv_set_threads(threads)) {
        return PyErr_Format(PyExc_ValueError, "threads must be from 1 to %d, got %zu", MV_MAX_THREADS, threads);
    }
    Py_RETURN_NONE;
}

PyMethodDef processor_methods[] = {
    {"cpu_info", cpu_info, METH_NOARGS, cpu_info_doc},
    {"get_num_threads", get_num_threads, METH_NOARGS, get_num_threads_doc},
    {"set_num_threads", set_num_threads, METH_O, set_num_threads_doc},
    {NULL, NULL, 0, NULL},
};
