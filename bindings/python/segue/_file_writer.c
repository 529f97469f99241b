/* The writer of sequence files as an object of Python. */
#include "_columns.h"

#include <stdlib.h>
#include <string.h>

#include "segue/segue.h"

/* Bytes of a sequence for which the GIL is let go of. */
#define LONG_WRITE 65536

struct writer {
	PyObject_HEAD struct segue_file_writer *handle; /* NULL: closed */
	PyObject *path;                                 /* str, for messages */
	struct columns columns;
	bool busy;
	unsigned long long sequences, steps, bytes; /* that were written, once it is closed */
};

static PyTypeObject *writer_type;

/* ---- Making ---- */

/* Makes the file with the features of all columns. */
static bool create(struct writer *self, PyObject *lists[PLACES], const char *path)
{
	struct segue_spec *spec;
	bool made;
	int rc = segue_spec_create(NULL, &spec);

	if (rc) {
		segue_py_fail(rc);
		return false;
	}
	made = columns_make(&self->columns, lists, spec);
	rc = made ? segue_file_writer_create(path, spec, &self->handle) : 0;
	segue_spec_destroy(spec);
	if (rc)
		segue_py_fail(rc);
	return made && rc == 0 && columns_fill_inits(&self->columns);
}

static PyObject *module_file_writer(PyObject *Py_UNUSED(module), PyObject *args)
{
	PyObject *path, *lists[PLACES];
	struct writer *self;

	if (!PyArg_ParseTuple(args, "SO!O!O!", &path, &PyList_Type, &lists[SEQUENCES], &PyList_Type,
		    &lists[CONTEXT], &PyList_Type, &lists[STATES]))
		return NULL;
	self = (struct writer *)PyType_GenericAlloc(writer_type, 0);
	if (!self)
		return NULL;
	self->path = PyUnicode_DecodeFSDefault(PyBytes_AsString(path));
	if (!self->path || !create(self, lists, PyBytes_AsString(path))) {
		Py_DECREF((PyObject *)self);
		return NULL;
	}
	return (PyObject *)self;
}

static void writer_dealloc(struct writer *self)
{
	PyTypeObject *type = Py_TYPE((PyObject *)self);

	segue_file_writer_destroy(self->handle);
	columns_free(&self->columns);
	Py_XDECREF(self->path);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

/* ---- One call at a time ---- */

static bool enter(struct writer *self)
{
	if (!self->handle)
		segue_py_fail_with("ECLOSED", "the writer of %U is closed", self->path);
	else if (self->busy)
		segue_py_fail_with("EBUSY",
			"the writer of %U is in another call (of another thread, or of what gives "
			"it an array)",
			self->path);
	else
		self->busy = true;
	return !PyErr_Occurred();
}

/* ---- A sequence ---- */

static bool add_sequence(struct writer *self, const struct segue_sequence *sequence)
{
	int rc;

	if (columns_size(&self->columns) < LONG_WRITE) {
		rc = segue_file_writer_add(self->handle, sequence);
	} else {
		PyThreadState *state = PyEval_SaveThread();
		rc = segue_file_writer_add(self->handle, sequence);
		PyEval_RestoreThread(state);
	}
	if (rc)
		segue_py_fail(rc);
	return rc == 0;
}

static PyObject *writer_add(struct writer *self, PyObject *const *args, Py_ssize_t count)
{
	struct segue_sequence sequence;
	PyObject *given[PLACES];
	bool added;

	if (count != 6) {
		PyErr_Format(PyExc_TypeError, "add() takes 6 arguments, got %zd", count);
		return NULL;
	}
	if (!enter(self))
		return NULL;
	memcpy(given, args, sizeof(given));
	added = columns_take(
			&self->columns, given, args[3], args[4], args[5] == Py_True, &sequence) &&
		add_sequence(self, &sequence);
	columns_release(&self->columns);
	self->busy = false;
	if (!added)
		return NULL;
	Py_RETURN_NONE;
}

/* ---- The end ---- */

static void finish(struct writer *self)
{
	uint64_t sequences, steps, bytes;

	segue_file_writer_written(self->handle, &sequences, &steps, &bytes);
	self->sequences = sequences;
	self->steps = steps;
	self->bytes = bytes;
	segue_file_writer_destroy(self->handle);
	self->handle = NULL;
}

static PyObject *end_by(struct writer *self, int (*end)(struct segue_file_writer *writer))
{
	PyThreadState *state;
	int rc;

	if (!enter(self))
		return NULL;
	state = PyEval_SaveThread();
	rc = end(self->handle);
	PyEval_RestoreThread(state);
	self->busy = false;
	if (rc)
		return segue_py_fail(rc);
	finish(self);
	Py_RETURN_NONE;
}

static PyObject *writer_close(struct writer *self, PyObject *Py_UNUSED(none))
{
	return end_by(self, segue_file_writer_close);
}

static PyObject *writer_abort(struct writer *self, PyObject *Py_UNUSED(none))
{
	return end_by(self, segue_file_writer_abort);
}

static PyObject *writer_leave(struct writer *self, PyObject *Py_UNUSED(none))
{
	if (!enter(self))
		return NULL;
	self->busy = false;
	finish(self);
	Py_RETURN_NONE;
}

static PyObject *writer_closed(struct writer *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(!self->handle);
}

static PyObject *writer_written(struct writer *self, void *Py_UNUSED(closure))
{
	uint64_t sequences = self->sequences, steps = self->steps, bytes = self->bytes;

	if (self->handle)
		segue_file_writer_written(self->handle, &sequences, &steps, &bytes);
	return Py_BuildValue("(KKK)", (unsigned long long)sequences, (unsigned long long)steps,
		(unsigned long long)bytes);
}

/* ---- Module ---- */

#define METHOD(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef writer_methods[] = {
	{"add", METHOD(writer_add), METH_FASTCALL,
		"add(sequences, context, initial_states, key, length, exact): names that no field "
		"has are an error if `exact`."},
	{"close", METHOD(writer_close), METH_NOARGS, "close(): finish the file."},
	{"abort", METHOD(writer_abort), METH_NOARGS, "abort(): remove the file."},
	{"leave", METHOD(writer_leave), METH_NOARGS, "leave(): leave the file as it is."},
	{0},
};
static PyGetSetDef writer_getset[] = {
	{"closed", (getter)writer_closed, NULL, "bool", NULL},
	{"written", (getter)writer_written, NULL, "(sequences, steps, bytes) so far.", NULL},
	{0},
};
static PyType_Slot writer_slots[] = {
	{Py_tp_dealloc, METHOD(writer_dealloc)},
	{Py_tp_methods, writer_methods},
	{Py_tp_getset, writer_getset},
	{0},
};

static PyMethodDef functions[] = {
	{"file_writer", METHOD(module_file_writer), METH_VARARGS,
		"file_writer(path, sequences, context, states) -> FileWriter."},
	{0},
};

bool segue_py_add_file_writer(PyObject *module)
{
	PyType_Spec spec = {"segue._segue.FileWriter", sizeof(struct writer), 0,
		Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, writer_slots};

	writer_type = (PyTypeObject *)PyType_FromSpec(&spec);
	return columns_import() && writer_type && PyModule_AddType(module, writer_type) == 0 &&
	       PyModule_AddFunctions(module, functions) == 0;
}
