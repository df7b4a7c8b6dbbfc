#!/bin/sh
# Takes out of an environment what the service never runs: trim.sh FOLDER. Prints what each step saved.
#
# Only for Dockerfile.optimized. What a step changes is proved afterwards: every compiled file is loaded and judged, and
# the tests of the images are the same for both. Figures in the comments: CPython 3.13, x86-64, NumPy 2.4, OpenCV 5.0.
set -eu
packages=$(echo "$1"/lib/python3*/site-packages)
cd "$packages"

size() { du --apparent-size --summarize --bytes "$packages" | cut -f 1; }
before=$(size)
saved() {
  now=$(size)
  printf 'trim: %5.1f MB  %s\n' "$(echo "$before $now" | awk '{ print ($1 - $2) / 1e6 }')" "$1"
  before=$now
}

# 8 MB: nobody runs NumPy's tests in here. _simd and _*_tests are modules for them alone.
find . -type d -name tests -prune -exec rm -rf {} +
rm -f numpy/_core/_simd.*.so numpy/_core/_*_tests.*.so
saved "tests of the libraries"

# 3 MB: for compilers and editors.
find . -type f \( -name '*.pyi' -o -name '*.pxd' -o -name '*.pyx' -o -name '*.pxi' -o -name '*.h' -o -name '*.hpp' \
  -o -name '*.c' -o -name '*.a' -o -name '*.f90' \) -delete
saved "headers, stubs and sources for compilers"

# 25 MB, more than half of it uvloop's: debugging symbols and the table of local ones. Dynamic symbols stay, and every
# file is loaded afterwards.
find . -type f -name '*.so*' -exec strip --strip-unneeded {} +
saved "symbols for debuggers"

# 41 MB: OpenCV carries an OpenBLAS of its own for 19 functions (cv2.solve, cv2.SVDecomp, large cv2.gemm, cv2.eigen)
# that a camera service hardly calls. Debian's reference BLAS and LAPACK have the same functions in 11 MB, slower and
# with the same results; a library without code, by the same name, hands them on.
for file in opencv_python_headless.libs/libopenblas*; do
  [ -f "$file" ] || continue
  gcc -shared -nostdlib -o "$file" -Wl,-z,noexecstack,-soname,"${file##*/}" -Wl,--no-as-needed -l:liblapack.so.3 -l:libblas.so.3
  rm -f opencv_python_headless.libs/libgfortran-* opencv_python_headless.libs/libquadmath-*
done
saved "OpenCV's own OpenBLAS"

# 5 MB: no camera, no upload and no answer of ours is AVIF.
rm -f PIL/_avif.*.so pillow.libs/libavif-*
saved "AVIF in Pillow"

# 1 MB: linuxpy's list of all USB devices there are. V4L2 does not ask it.
rm -rf linuxpy/usb
saved "linuxpy's USB list"
