/*
 * What the files of the extension share.
 */
#ifndef SEGUE_PYTHON_SEGUE_H
#define SEGUE_PYTHON_SEGUE_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

#include "segue/segue.h"

/* Raises what the library's last call in this thread said. Returns NULL. */
void *segue_py_fail(int rc);
/* Raises the exception of a code name. Returns NULL. */
void *segue_py_fail_with(const char *code, const char *format, ...);
/* Whether the elements of the buffer are of that type, and it has a format that says so. */
bool segue_py_format_is(const Py_buffer *buffer, enum segue_dtype dtype);

/* Adds the type FileWriter to the module. */
bool segue_py_add_file_writer(PyObject *module);

#endif
