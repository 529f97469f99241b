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

/* Seconds, or None for ever. False: an exception is set. */
bool segue_py_nanoseconds(PyObject *timeout, int64_t *out);

/*
 * A call into the library that waits, and changes nothing when it ends early: one that other
 * threads may have to help, with the same client. Without the GIL. `enter` takes the client's lock
 * again, if that is still possible; else it sets an exception.
 */
struct segue_py_turns {
	int (*call)(void *arg, int64_t timeout_ns);
	bool (*enter)(void *arg);
	void *arg;
};

/*
 * A stream object, for what belongs to it: its client's lock, with which alone the library may be
 * called (*handle, if not NULL, is the stream's); waits, in which Python's signals are seen; and
 * what keeps the client until it is destroyed: adopted with the lock, finished as soon as the lock
 * is free.
 */
bool segue_py_stream_enter(PyObject *stream, struct segue_stream **handle);
void segue_py_stream_leave(PyObject *stream);
void segue_py_wait_begin(PyObject *stream);
void segue_py_wait_end(PyObject *stream);
/*
 * Makes the call, with the lock, which other threads get now and then meanwhile. What the call said
 * last; *held: with the lock, else an exception is set.
 */
int segue_py_stream_wait(
	PyObject *stream, const struct segue_py_turns *turns, int64_t timeout, bool *held);
void segue_py_stream_adopt(PyObject *stream);
void segue_py_stream_finish(PyObject *stream, void (*finish)(void *handle), void *handle);

/* Each adds its type to the module. */
bool segue_py_add_file_writer(PyObject *module);
bool segue_py_add_producer(PyObject *module);

#endif
