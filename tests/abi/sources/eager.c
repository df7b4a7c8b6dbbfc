/* Asks for NumPy's C-API in its init function. */
#include <Python.h>
#include <numpy/arrayobject.h>

static PyObject *zeros(PyObject *self, PyObject *none) {
  npy_intp length = 3;
  return PyArray_SimpleNew(1, &length, NPY_DOUBLE);
}
static PyMethodDef methods[] = {{"zeros", zeros, METH_NOARGS, ""}, {0}};
static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "m", 0, -1, methods};

PyMODINIT_FUNC PyInit_m(void) {
  import_array();
  return PyModule_Create(&def);
}
