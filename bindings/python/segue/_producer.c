/* A producer of sequences as an object of Python. */
#include "_columns.h"

#include <stdlib.h>
#include <string.h>

#include "segue/segue.h"

struct producer {
	PyObject_HEAD PyObject *stream; /* a segue._segue.Stream, which it keeps */
	struct segue_producer *handle;  /* NULL: closed */
	PyObject *name;
	struct columns columns;
	bool busy;
	unsigned long long inserted, acknowledged; /* as of its closing */
};

static PyTypeObject *producer_type;

/* ---- Making ---- */

static bool open_handle(
	struct producer *self, const char *name, const struct segue_producer_options *options)
{
	struct segue_stream *stream;
	int rc;

	if (!segue_py_stream_enter(self->stream, &stream))
		return false;
	segue_py_wait_begin(self->stream);
	rc = segue_producer_open(stream, name, options, &self->handle);
	segue_py_wait_end(self->stream);
	if (rc)
		segue_py_fail(rc);
	else
		segue_py_stream_adopt(self->stream);
	segue_py_stream_leave(self->stream);
	return rc == 0 && !PyErr_Occurred();
}

static PyObject *module_producer(PyObject *Py_UNUSED(module), PyObject *args)
{
	struct segue_producer_options options = {.size = sizeof(options)};
	PyObject *stream, *lists[PLACES];
	unsigned long long ring;
	struct producer *self;
	const char *name;
	int takeover;
	bool made;

	if (!PyArg_ParseTuple(args, "OspKO!O!O!", &stream, &name, &takeover, &ring, &PyList_Type,
		    &lists[SEQUENCES], &PyList_Type, &lists[CONTEXT], &PyList_Type, &lists[STATES]))
		return NULL;
	self = (struct producer *)PyType_GenericAlloc(producer_type, 0);
	if (!self)
		return NULL;
	Py_INCREF(stream);
	self->stream = stream;
	self->name = PyUnicode_FromString(name);
	options.takeover = takeover;
	options.ring_bytes = ring;
	made = self->name && columns_make(&self->columns, lists, NULL) &&
	       open_handle(self, name, &options) && columns_fill_inits(&self->columns);
	if (!made) {
		Py_DECREF((PyObject *)self);
		return NULL;
	}
	return (PyObject *)self;
}

static void finish(void *handle)
{
	segue_producer_destroy(handle);
}

static void producer_dealloc(struct producer *self)
{
	PyTypeObject *type = Py_TYPE((PyObject *)self);

	if (self->handle)
		segue_py_stream_finish(self->stream, finish, self->handle);
	columns_free(&self->columns);
	Py_XDECREF(self->name);
	Py_XDECREF(self->stream);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

/* ---- Calls ---- */

/* With the client's lock, unless it fails. */
static bool enter(struct producer *self)
{
	if (!segue_py_stream_enter(self->stream, NULL))
		return false;
	if (self->handle)
		return true;
	segue_py_fail_with("ECLOSED", "producer %R is closed", self->name);
	segue_py_stream_leave(self->stream);
	return false;
}

static PyObject *leave(struct producer *self, int rc)
{
	if (rc < 0 && !PyErr_Occurred())
		segue_py_fail(rc);
	segue_py_stream_leave(self->stream);
	if (PyErr_Occurred())
		return NULL;
	Py_RETURN_NONE;
}

/* An insert, or what waits for those before. */
struct calling {
	struct producer *self;
	struct segue_producer *handle; /* of `self`, which another thread may leave meanwhile */
	int (*wait)(struct segue_producer *producer, int64_t timeout_ns); /* NULL: an insert */
	const struct segue_sequence *sequence;
	const char *cursor;
	size_t cursor_size;
};

static int call_library(void *arg, int64_t timeout_ns)
{
	const struct calling *calling = arg;

	return calling->wait ? calling->wait(calling->handle, timeout_ns)
			     : segue_producer_insert(calling->handle, calling->sequence,
				       calling->cursor, calling->cursor_size, timeout_ns);
}

static bool enter_to_call(void *arg)
{
	struct calling *calling = arg;

	if (!enter(calling->self))
		return false;
	calling->handle = calling->self->handle;
	return true;
}

static PyObject *call(struct calling *calling, int64_t timeout)
{
	struct producer *self = calling->self;
	const struct segue_py_turns turns = {call_library, enter_to_call, calling};
	bool held;
	int rc;

	if (!enter_to_call(calling))
		return NULL;
	rc = segue_py_stream_wait(self->stream, &turns, timeout, &held);
	return held ? leave(self, rc) : NULL;
}

/* Python's objects are asked for arrays before the client's lock is taken. */
static bool take(struct producer *self, PyObject *const *args, struct segue_sequence *sequence)
{
	PyObject *given[PLACES];

	if (self->busy) {
		segue_py_fail_with("EBUSY",
			"producer %R is in another call (of another thread, or of what gives it an "
			"array)",
			self->name);
		return false;
	}
	self->busy = true;
	memcpy(given, args, sizeof(given));
	if (columns_take(&self->columns, given, args[3], args[4], true, sequence))
		return true;
	columns_release(&self->columns);
	self->busy = false;
	return false;
}

static PyObject *producer_insert(struct producer *self, PyObject *const *args, Py_ssize_t count)
{
	struct segue_sequence sequence;
	PyObject *result;
	char *cursor;
	Py_ssize_t cursor_size;
	int64_t timeout;

	if (count != 7) {
		PyErr_Format(PyExc_TypeError, "insert() takes 7 arguments, got %zd", count);
		return NULL;
	}
	if (!PyBytes_Check(args[5])) {
		segue_py_fail_with("EINVAL", "cursor: expected bytes, got %R", args[5]);
		return NULL;
	}
	if (PyBytes_AsStringAndSize(args[5], &cursor, &cursor_size) < 0 ||
		!segue_py_nanoseconds(args[6], &timeout) || !take(self, args, &sequence))
		return NULL;
	result = call(&(struct calling){.self = self,
			      .sequence = &sequence,
			      .cursor = cursor,
			      .cursor_size = (size_t)cursor_size},
		timeout);
	columns_release(&self->columns);
	self->busy = false;
	return result;
}

static PyObject *await(struct producer *self, PyObject *timeout,
	int (*wait)(struct segue_producer *producer, int64_t timeout_ns))
{
	int64_t limit;

	if (!segue_py_nanoseconds(timeout, &limit))
		return NULL;
	return call(&(struct calling){.self = self, .wait = wait}, limit);
}

static PyObject *producer_flush(struct producer *self, PyObject *timeout)
{
	return await(self, timeout, segue_producer_flush);
}

static PyObject *producer_close(struct producer *self, PyObject *timeout)
{
	return await(self, timeout, segue_producer_close);
}

static PyObject *producer_leave(struct producer *self, PyObject *Py_UNUSED(none))
{
	struct segue_producer *handle = self->handle;
	uint64_t inserted, acknowledged;

	if (!handle)
		Py_RETURN_NONE;
	segue_producer_serials(handle, &inserted, &acknowledged);
	self->inserted = inserted;
	self->acknowledged = acknowledged;
	self->handle = NULL;
	segue_py_stream_finish(self->stream, finish, handle);
	Py_RETURN_NONE;
}

static PyObject *producer_closed(struct producer *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(!self->handle);
}

static PyObject *producer_serials(struct producer *self, void *Py_UNUSED(closure))
{
	uint64_t inserted = self->inserted, acknowledged = self->acknowledged;

	if (self->handle)
		segue_producer_serials(self->handle, &inserted, &acknowledged);
	return Py_BuildValue(
		"(KK)", (unsigned long long)inserted, (unsigned long long)acknowledged);
}

static PyObject *producer_resumed(struct producer *self, void *Py_UNUSED(closure))
{
	const void *cursor;
	uint64_t serial;
	size_t size;

	if (!self->handle)
		return segue_py_fail_with("ECLOSED", "producer %R is closed", self->name);
	segue_producer_resumed(self->handle, &serial, &cursor, &size);
	return Py_BuildValue("(Ky#)", (unsigned long long)serial, size ? (const char *)cursor : "",
		(Py_ssize_t)size);
}

/* ---- Module ---- */

#define METHOD(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef producer_methods[] = {
	{"insert", METHOD(producer_insert), METH_FASTCALL,
		"insert(sequences, context, initial_states, key, length, cursor, timeout)."},
	{"flush", METHOD(producer_flush), METH_O,
		"flush(timeout): wait until all is acknowledged."},
	{"close", METHOD(producer_close), METH_O, "close(timeout): flush, and close the name."},
	{"leave", METHOD(producer_leave), METH_NOARGS, "leave(): free the name."},
	{0},
};
static PyGetSetDef producer_getset[] = {
	{"closed", (getter)producer_closed, NULL, "bool", NULL},
	{"serials", (getter)producer_serials, NULL, "(inserted, acknowledged).", NULL},
	{"resumed", (getter)producer_resumed, NULL, "(serial, cursor) as it was opened.", NULL},
	{0},
};
static PyType_Slot producer_slots[] = {
	{Py_tp_dealloc, METHOD(producer_dealloc)},
	{Py_tp_methods, producer_methods},
	{Py_tp_getset, producer_getset},
	{0},
};

static PyMethodDef functions[] = {
	{"producer", METHOD(module_producer), METH_VARARGS,
		"producer(stream, name, takeover, ring, sequences, context, states) -> Producer."},
	{0},
};

bool segue_py_add_producer(PyObject *module)
{
	PyType_Spec spec = {"segue._segue.Producer", sizeof(struct producer), 0,
		Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, producer_slots};

	producer_type = (PyTypeObject *)PyType_FromSpec(&spec);
	return producer_type && PyModule_AddType(module, producer_type) == 0 &&
	       PyModule_AddFunctions(module, functions) == 0;
}
