/* Asks for NumPy's C-API when its method is called first, not on import. */
#include <Python.h>
#include <numpy/arrayobject.h>

static int ready;

static int prepare(void) {
  if (!ready) {
    import_array1(-1);
    ready = 1;
  }
  return 0;
}
static PyObject *zeros(PyObject *self, PyObject *none) {
  npy_intp length = 3;
  return prepare() < 0 ? NULL : PyArray_SimpleNew(1, &length, NPY_DOUBLE);
}
static PyMethodDef methods[] = {{"zeros", zeros, METH_NOARGS, ""}, {0}};
static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "m", 0, -1, methods};

PyMODINIT_FUNC PyInit_m(void) { return PyModule_Create(&def); }
