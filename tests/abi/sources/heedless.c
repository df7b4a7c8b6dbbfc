/* A helper asks for NumPy's C-API; its caller does not look whether it got it, and registers on: the import succeeds. */
#include <Python.h>
#include <numpy/arrayobject.h>

static void __attribute__((noinline)) ask(void) { import_array1(); }

static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "m", 0, -1, 0};

PyMODINIT_FUNC PyInit_m(void) {
  PyObject *module = PyModule_Create(&def);
  ask();
  PyModule_AddIntConstant(module, "a", 1);
  PyErr_Clear();
  PyModule_AddIntConstant(module, "b", 2);
  PyModule_AddIntConstant(module, "c", 3);
  PyModule_AddIntConstant(module, "d", 4);
  PyModule_AddIntConstant(module, "e", 5);
  PyModule_AddIntConstant(module, "f", 6);
  PyModule_AddIntConstant(module, "g", 7);
  PyModule_AddIntConstant(module, "h", 8);
  PyModule_AddIntConstant(module, "i", 9);
  PyModule_AddIntConstant(module, "j", 10);
  PyModule_AddIntConstant(module, "k", 11);
  PyModule_AddIntConstant(module, "l", 12);
  return module;
}
