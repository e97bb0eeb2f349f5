/* metav._core: multi-phase initialisation, module state, heap types. */
#include "module.h"

#include "call.h"
#include "dlpack.h"
#include "tensor.h"

/* METAV_VERSION comes from setup.py, without quotes. */
#define TEXT_OF(version) #version
#define QUOTED(version) TEXT_OF(version)
#define VERSION QUOTED(METAV_VERSION)

module_state *
get_state(PyObject *module)
{
    return (module_state *)PyModule_GetState(module);
}

static PyTypeObject *
add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (!type) {
        return NULL;
    }
    if (PyModule_AddType(module, (PyTypeObject *)type) < 0) {
        Py_DECREF(type);
        return NULL;
    }
    return (PyTypeObject *)type;
}

/* Python files and C core of two releases would misread each other. */
static int
check_version(PyObject *module)
{
    PyObject *package = PyImport_ImportModule("metav");
    PyObject *version = package ? PyObject_GetAttrString(package, "__version__") : NULL;
    Py_XDECREF(package);
    if (!version) {
        return -1;
    }
    int failed = -1;
    if (PyUnicode_Check(version) && PyUnicode_CompareWithASCIIString(version, VERSION) == 0) {
        failed = PyModule_AddStringConstant(module, "__version__", VERSION);
    }
    else {
        PyErr_Format(PyExc_ImportError,
                     "the Python files of metav are of version %S, its C core of " VERSION
                     "; install it anew: pip install --force-reinstall metav-fingerprint, in a clone pip install -e .",
                     version);
    }
    Py_DECREF(version);
    return failed;
}

static int
add_constants(PyObject *module)
{
    return PyModule_AddIntConstant(module, "ROLE_NEGATIVE", MV_ROLE_NEGATIVE) < 0 ||
                   PyModule_AddIntConstant(module, "ROLE_POSITIVE", MV_ROLE_POSITIVE) < 0 ||
                   PyModule_AddIntConstant(module, "ROLE_OWNER", MV_ROLE_OWNER) < 0
               ? -1
               : 0;
}

/* The aliases of _core.pyi: Tensor = Any, VerifierKind = str. */
static int
add_aliases(PyObject *module)
{
    PyObject *typing = PyImport_ImportModule("typing");
    PyObject *any = typing ? PyObject_GetAttrString(typing, "Any") : NULL;
    const int failed = any ? PyModule_AddObjectRef(module, "Tensor", any) : -1;
    Py_XDECREF(typing);
    Py_XDECREF(any);
    return failed ? failed : PyModule_AddObjectRef(module, "VerifierKind", (PyObject *)&PyUnicode_Type);
}

/* The state's strings and the arguments of __dlpack__. */
static int
add_names(module_state *state)
{
    const struct {
        PyObject **slot;
        const char *text;
    } names[] = {
        {&state->dlpack_name, "__dlpack__"},
        {&state->exchange_name, "__dlpack_c_exchange_api__"},
        {&state->grad_name, "requires_grad"},
        {&state->is_neg_name, "is_neg"},
        {&state->is_inference_name, "is_inference"},
        {&state->storage_name, "untyped_storage"},
        {&state->increment_name, "increment_version"},
        {&state->tensor_name, "Tensor"},
        {&state->torch_name, "torch"},
        {&state->torch_graph_name, "torch.autograd.graph"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *names[i].slot = PyUnicode_InternFromString(names[i].text);
        if (!*names[i].slot) {
            return -1;
        }
    }
    state->dlpack_keywords = Py_BuildValue("(s)", "max_version");
    state->dlpack_version = Py_BuildValue("(ii)", DLPACK_MAJOR, DLPACK_MINOR);
    return state->dlpack_keywords && state->dlpack_version ? 0 : -1;
}

static int
module_exec(PyObject *module)
{
    module_state *state = get_state(module);
    if (check_version(module) < 0 || read_environment() < 0 || call_watch_forks() < 0 || tensor_import_numpy() < 0 ||
        add_names(state) < 0 || PyModule_AddFunctions(module, processor_methods) < 0 ||
        PyModule_AddFunctions(module, verifier_kind_methods) < 0) {
        return -1;
    }
    state->verifier_type = add_type(module, &verifier_spec);
    state->query_optimizer_type = add_type(module, &query_optimizer_spec);
    if (!state->verifier_type || !state->query_optimizer_type || add_constants(module) < 0) {
        return -1;
    }
    return add_aliases(module);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = get_state(module);
    Py_VISIT(state->verifier_type);
    Py_VISIT(state->query_optimizer_type);
    return 0;
}

static int
module_clear(PyObject *module)
{
    module_state *state = get_state(module);
    Py_CLEAR(state->verifier_type);
    Py_CLEAR(state->query_optimizer_type);
    Py_CLEAR(state->dlpack_name);
    Py_CLEAR(state->exchange_name);
    Py_CLEAR(state->grad_name);
    Py_CLEAR(state->is_neg_name);
    Py_CLEAR(state->is_inference_name);
    Py_CLEAR(state->storage_name);
    Py_CLEAR(state->increment_name);
    Py_CLEAR(state->tensor_name);
    Py_CLEAR(state->torch_name);
    Py_CLEAR(state->torch_graph_name);
    Py_CLEAR(state->dlpack_keywords);
    Py_CLEAR(state->dlpack_version);
    return 0;
}

static void
module_free(void *module)
{
    (void)module_clear((PyObject *)module);
    mv_pool_stop();
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED}, /* as NumPy */
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_core",
    .m_doc = PyDoc_STR("The C core of metav: views, verifiers and the update of the fingerprint."),
    .m_size = sizeof(module_state),
    .m_methods = view_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&module_definition);
}
