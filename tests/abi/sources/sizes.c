/* What Cython compiles in to compare the sizes of NumPy's types, and what headers of NumPy 1.x compare. No headers. */
extern void *PyImport_ImportModule(const char *), *PyErr_Format(const char *, const char *);
extern void *import_type(void *, const char *, const char *, unsigned long, unsigned long, int);

void *PyInit_m(void) {
  void *numpy = PyImport_ImportModule("numpy");
  void **api = PyImport_ImportModule("numpy.core._multiarray_umath");
  import_type(numpy, "numpy", "dtype", 96, 8, 2);
  import_type(numpy, "numpy", "flatiter", 2632, 8, 2);
  import_type(numpy, "numpy", "ndarray", 80, 8, 2);
  PyErr_Format("_ARRAY_API", "%.200s size changed, may indicate binary incompatibility. Expected %zd, got %zd");
#ifdef LEVELS
  if (((unsigned (*)(void))api[0])() != 0x1000009) PyErr_Format("_ARRAY_API", "another ABI");
  if (((unsigned (*)(void))api[211])() < 0xe)
    PyErr_Format("_ARRAY_API", "module compiled against API version 0x%x but this version of numpy is 0x%x");
#endif
  return api;
}
