/* Asks for it two exported functions away from its init function. */
#include <Python.h>
#include <numpy/arrayobject.h>

int ask(void) {
  import_array1(-1);
  return 0;
}
PyObject *make(void) { return ask() < 0 ? NULL : PyModule_New("m"); }

PyMODINIT_FUNC PyInit_m(void) { return make(); }
