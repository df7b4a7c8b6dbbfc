// A helper asks for NumPy's C-API and throws where it is refused; its caller has no answer to look at, and needs none.
#include <Python.h>
#include <numpy/arrayobject.h>
#include <stdexcept>

static void __attribute__((noinline)) ask() {
  if (_import_array() < 0) throw std::runtime_error("no NumPy");
}

static PyModuleDef def = {PyModuleDef_HEAD_INIT, "m", nullptr, -1, nullptr};

PyMODINIT_FUNC PyInit_m(void) {
  PyObject *module = PyModule_Create(&def);
  try {
    ask();
  } catch (const std::exception &error) {
    PyErr_SetString(PyExc_ImportError, error.what());
    return nullptr;
  }
  const char *names[] = {"a", "b", "c", "d"};
  PyModule_AddIntConstant(module, names[0], 1);
  PyModule_AddIntConstant(module, names[1], 2);
  PyModule_AddIntConstant(module, names[2], 3);
  PyModule_AddIntConstant(module, names[3], 4);
  PyModule_AddStringConstant(module, "e", "5");
  PyModule_AddStringConstant(module, "f", "6");
  PyModule_AddStringConstant(module, "g", "7");
  PyModule_AddStringConstant(module, "h", "8");
  PyModule_AddStringConstant(module, "i", "9");
  PyModule_AddStringConstant(module, "j", "10");
  PyModule_AddStringConstant(module, "k", "11");
  PyModule_AddStringConstant(module, "l", "12");
  return module;
}
