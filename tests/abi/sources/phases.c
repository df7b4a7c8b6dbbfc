/* Asks for it in the function that Py_mod_exec names: multi-phase initialization. */
#include <Python.h>
#include <numpy/arrayobject.h>

static int execute(PyObject *module) {
  import_array1(-1);
  return 0;
}
static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, 0}};
static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "m", 0, 0, 0, slots};

PyMODINIT_FUNC PyInit_m(void) { return PyModuleDef_Init(&def); }
