/*
 * The writer of sequence files as an object of Python.
 *
 * It takes arrays by their buffers, as they are. What has no buffer that fits goes through
 * segue._arrays.to_column(), which makes an array of it or says why it cannot be one.
 */
#include "_segue.h"

#include <stdlib.h>
#include <string.h>

#include "segue/segue.h"

/* Bytes of a sequence for which the GIL is let go of. */
#define LONG_WRITE 65536

enum place { SEQUENCES, CONTEXT, STATES, PLACES };

static const char *const place_names[PLACES] = {"sequences", "context", "initial_states"};

struct column {
	PyObject *name;
	enum segue_dtype dtype;
	int rank;
	Py_ssize_t dims[SEGUE_RANK_MAX];
	enum segue_form form;
	PyObject *init; /* of a state: bytes, taken where a sequence has none; else NULL */
	bool wanted;    /* a state: no sequence is without */
};

struct writer {
	PyObject_HEAD struct segue_file_writer *handle; /* NULL: closed */
	PyObject *path;                                 /* str, for messages */
	struct column *columns;                         /* sequences, then context, then states */
	Py_ssize_t counts[PLACES], count;
	/* Of the sequence at hand, one a column. */
	const void **arrays;
	Py_buffer *buffers; /* obj NULL: none is held */
	PyObject **kept;    /* what was made for a column */
	/* Of columns that are not dense. */
	const int64_t **offsets;
	Py_buffer *offset_buffers;
	bool busy;
	unsigned long long sequences, steps, bytes; /* that were written, once it is closed */
};

static PyTypeObject *writer_type;
static PyObject *to_column, *to_ragged, *surplus; /* of segue._arrays */

/* ---- Making ---- */

static bool read_column(struct column *column, PyObject *item, struct segue_feature *feature)
{
	PyObject *name, *dims, *init;
	int dtype;

	if (!PyArg_ParseTuple(item, "UiO!O", &name, &dtype, &PyTuple_Type, &dims, &init))
		return false;
	Py_INCREF(name);
	column->name = name;
	column->dtype = feature->dtype = (enum segue_dtype)dtype;
	column->rank = (int)PyTuple_Size(dims);
	if (column->rank > SEGUE_RANK_MAX) {
		segue_py_fail_with("EINVAL", "'%U' has %d dimensions; at most %d are possible",
			name, column->rank, SEGUE_RANK_MAX);
		return false;
	}
	feature->rank = (uint32_t)column->rank;
	for (int d = 0; d < column->rank; d++) {
		column->dims[d] = PyLong_AsSsize_t(PyTuple_GetItem(dims, d));
		if (column->dims[d] == -1 && PyErr_Occurred())
			return false;
		feature->dims[d] = (uint64_t)column->dims[d];
	}
	if (PyBytes_Check(init)) {
		Py_INCREF(init);
		column->init = init;
	}
	column->wanted = PyUnicode_Check(init);
	if (PyLong_Check(init))
		column->form = feature->form = (enum segue_form)PyLong_AsLong(init);
	feature->name = PyUnicode_AsUTF8AndSize(name, NULL);
	return feature->name;
}

static bool allocate(struct writer *self, Py_ssize_t count)
{
	size_t all = (size_t)count + 1;

	self->columns = calloc(all, sizeof(*self->columns));
	self->arrays = calloc(all, sizeof(*self->arrays));
	self->buffers = calloc(all, sizeof(*self->buffers));
	self->kept = calloc(all, sizeof(*self->kept));
	self->offsets = calloc(all, sizeof(*self->offsets));
	self->offset_buffers = calloc(all, sizeof(*self->offset_buffers));
	if (self->columns && self->arrays && self->buffers && self->kept && self->offsets &&
		self->offset_buffers)
		return true;
	PyErr_NoMemory();
	return false;
}

/* Makes the file with the features of all columns. */
static bool create(struct writer *self, PyObject *lists[PLACES], const char *path)
{
	struct segue_feature *features = calloc((size_t)self->count + 1, sizeof(*features));
	struct segue_file_spec spec = {.size = sizeof(spec)};
	Py_ssize_t at = 0;
	bool read = features != NULL;
	int rc;

	if (!features)
		PyErr_NoMemory();
	for (int p = 0; p < PLACES; p++)
		for (Py_ssize_t i = 0; read && i < self->counts[p]; i++, at++)
			read = read_column(
				&self->columns[at], PyList_GetItem(lists[p], i), &features[at]);
	if (!read) {
		free(features);
		return false;
	}
	spec.sequences = features;
	spec.sequence_count = (size_t)self->counts[SEQUENCES];
	spec.contexts = features + self->counts[SEQUENCES];
	spec.context_count = (size_t)self->counts[CONTEXT];
	spec.states = spec.contexts + self->counts[CONTEXT];
	spec.state_count = (size_t)self->counts[STATES];
	rc = segue_file_writer_create(path, &spec, &self->handle);
	free(features);
	if (rc)
		segue_py_fail(rc);
	return rc == 0;
}

/* What sequences without a state get, where nothing was declared: zeros. */
static bool fill_inits(struct writer *self)
{
	for (Py_ssize_t i = self->count - self->counts[STATES]; i < self->count; i++) {
		struct column *column = &self->columns[i];
		Py_ssize_t size = (Py_ssize_t)segue_dtype_size(column->dtype);

		if (column->init || column->wanted)
			continue;
		for (int d = 0; d < column->rank; d++)
			size *= column->dims[d]; /* the library has checked it */
		column->init = PyBytes_FromStringAndSize(NULL, size);
		if (!column->init)
			return false;
		memset(PyBytes_AsString(column->init), 0, (size_t)size);
	}
	return true;
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
	for (int p = 0; p < PLACES; p++) {
		self->counts[p] = PyList_Size(lists[p]);
		self->count += self->counts[p];
	}
	if (!self->path || !allocate(self, self->count) ||
		!create(self, lists, PyBytes_AsString(path)) || !fill_inits(self)) {
		Py_DECREF((PyObject *)self);
		return NULL;
	}
	return (PyObject *)self;
}

static void writer_dealloc(struct writer *self)
{
	PyTypeObject *type = Py_TYPE((PyObject *)self);

	segue_file_writer_destroy(self->handle);
	for (Py_ssize_t i = 0; self->columns && i < self->count; i++) {
		Py_XDECREF(self->columns[i].name);
		Py_XDECREF(self->columns[i].init);
	}
	Py_XDECREF(self->path);
	free(self->columns);
	free(self->arrays);
	free(self->buffers);
	free(self->kept);
	free(self->offsets);
	free(self->offset_buffers);
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

static enum place place_of(const struct writer *self, Py_ssize_t i)
{
	if (i < self->counts[SEQUENCES])
		return SEQUENCES;
	return i < self->counts[SEQUENCES] + self->counts[CONTEXT] ? CONTEXT : STATES;
}

static bool buffer_fits(const struct column *column, bool sequence, const Py_buffer *buffer)
{
	if (buffer->ndim != column->rank + sequence || !segue_py_format_is(buffer, column->dtype))
		return false;
	for (int d = 0; d < column->rank; d++)
		if (buffer->shape[d + sequence] != column->dims[d])
			return false;
	return true;
}

/* Takes the buffer of a value: 1 if it has one that fits, 0, or -1 with an exception. */
static int take_buffer(struct writer *self, Py_ssize_t i, PyObject *value, Py_ssize_t *steps)
{
	bool sequence = i < self->counts[SEQUENCES];
	Py_buffer *buffer = &self->buffers[i];

	if (!PyObject_CheckBuffer(value))
		return 0;
	if (PyObject_GetBuffer(value, buffer, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) < 0) {
		if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
			PyErr_ExceptionMatches(PyExc_MemoryError))
			return -1;
		PyErr_Clear(); /* not contiguous, or of a dtype that no buffer can have */
		buffer->obj = NULL;
		return 0;
	}
	if (!buffer_fits(&self->columns[i], sequence, buffer)) {
		PyBuffer_Release(buffer);
		return 0;
	}
	*steps = sequence ? buffer->shape[0] : 0;
	return 1;
}

static PyObject *shape_of(const struct column *column)
{
	PyObject *shape = PyTuple_New(column->rank);

	for (int d = 0; d < column->rank && shape; d++) {
		PyObject *dim = PyLong_FromSsize_t(column->dims[d]);

		if (!dim || PyTuple_SetItem(shape, d, dim) < 0)
			Py_CLEAR(shape);
	}
	return shape;
}

/* Has Python make an array of it: bytes that are contiguous, and the number of steps. */
static bool take_made(struct writer *self, Py_ssize_t i, PyObject *value, Py_ssize_t *steps)
{
	const struct column *column = &self->columns[i];
	enum place place = place_of(self, i);
	PyObject *shape = shape_of(column), *pair = NULL;
	bool taken = false;

	if (shape)
		pair = PyObject_CallFunction(to_column, "sOsOOO", place_names[place], column->name,
			segue_dtype_name(column->dtype), shape, value,
			place == SEQUENCES ? Py_True : Py_False);
	Py_XDECREF(shape);
	if (pair && PyArg_ParseTuple(pair, "On", &self->kept[i], steps)) {
		Py_INCREF(self->kept[i]);
		taken = PyObject_GetBuffer(self->kept[i], &self->buffers[i], PyBUF_SIMPLE) == 0;
	}
	Py_XDECREF(pair);
	return taken;
}

/* Has Python make offsets and values of it, where a column is not dense. */
static bool take_ragged(struct writer *self, Py_ssize_t i, PyObject *value, Py_ssize_t *steps)
{
	const struct column *column = &self->columns[i];
	enum place place = place_of(self, i);
	PyObject *offsets, *values;

	self->kept[i] = PyObject_CallFunction(to_ragged, "sOsOO", place_names[place], column->name,
		column->form == SEGUE_FORM_BYTES ? "bytes" : segue_dtype_name(column->dtype), value,
		place == SEQUENCES ? Py_True : Py_False);
	if (!self->kept[i] || !PyArg_ParseTuple(self->kept[i], "OOn", &offsets, &values, steps) ||
		PyObject_GetBuffer(offsets, &self->offset_buffers[i], PyBUF_SIMPLE) < 0 ||
		PyObject_GetBuffer(values, &self->buffers[i], PyBUF_SIMPLE) < 0)
		return false;
	self->offsets[i] = self->offset_buffers[i].buf;
	return true;
}

/* The value of a column in what was given for its place: a new reference, or NULL. */
static PyObject *find_value(struct writer *self, Py_ssize_t i, PyObject *given)
{
	PyObject *name = self->columns[i].name, *value = NULL;

	if (given == Py_None)
		return NULL;
	if (PyDict_CheckExact(given)) {
		value = PyDict_GetItemWithError(given, name);
		Py_XINCREF(value);
	} else {
		value = PyObject_GetItem(given, name);
		if (!value && PyErr_ExceptionMatches(PyExc_KeyError))
			PyErr_Clear();
	}
	return value;
}

static bool take_column(struct writer *self, Py_ssize_t i, PyObject *given, Py_ssize_t *steps)
{
	const struct column *column = &self->columns[i];
	PyObject *value = find_value(self, i, given);
	int rc;

	if (!value && !PyErr_Occurred()) {
		if (column->init) {
			self->arrays[i] = PyBytes_AsString(column->init);
			return true;
		}
		segue_py_fail_with("EINVAL", "%s[%R] is missing: each sequence has one",
			place_names[place_of(self, i)], column->name);
	}
	if (!value)
		return false;
	if (column->form != SEGUE_FORM_DENSE) {
		rc = take_ragged(self, i, value, steps);
	} else {
		rc = take_buffer(self, i, value, steps);
		if (rc == 0 && take_made(self, i, value, steps))
			rc = 1;
	}
	Py_DECREF(value);
	self->arrays[i] = self->buffers[i].buf;
	return rc > 0;
}

static void *fail_steps(struct writer *self, Py_ssize_t i, Py_ssize_t first, Py_ssize_t steps)
{
	return segue_py_fail_with("EINVAL",
		"sequences[%R] has %zd steps and sequences[%R] %zd: all of a sequence have as many",
		self->columns[0].name, first, self->columns[i].name, steps);
}

static bool take_columns(struct writer *self, PyObject *given[PLACES], uint64_t *all_steps)
{
	Py_ssize_t first = 0;

	for (Py_ssize_t i = 0; i < self->count; i++) {
		Py_ssize_t steps = 0;

		if (!take_column(self, i, given[place_of(self, i)], &steps))
			return false;
		if (i == 0)
			first = steps;
		else if (i < self->counts[SEQUENCES] && steps != first)
			return fail_steps(self, i, first, steps);
	}
	*all_steps = (uint64_t)first;
	return true;
}

static void release_columns(struct writer *self)
{
	for (Py_ssize_t i = 0; i < self->count; i++) {
		if (self->buffers[i].obj)
			PyBuffer_Release(&self->buffers[i]);
		if (self->offset_buffers[i].obj)
			PyBuffer_Release(&self->offset_buffers[i]);
		Py_CLEAR(self->kept[i]);
	}
}

/* Names that no column has. With a mapping for each place, there is none. */
static bool check_surplus(struct writer *self, PyObject *given[PLACES])
{
	Py_ssize_t at = 0;

	for (int p = 0; p < PLACES; at += self->counts[p++]) {
		Py_ssize_t size = given[p] == Py_None ? 0 : PyObject_Size(given[p]);
		PyObject *names, *error;

		if (size < 0)
			return false;
		if (size <= self->counts[p])
			continue; /* one that is missing instead is found by its name */
		names = PyList_New(0);
		for (Py_ssize_t i = 0; names && i < self->counts[p]; i++)
			if (PyList_Append(names, self->columns[at + i].name) < 0)
				Py_CLEAR(names);
		error = names ? PyObject_CallFunction(
					surplus, "sOO", place_names[p], names, given[p])
			      : NULL;
		if (error)
			PyErr_SetObject((PyObject *)Py_TYPE(error), error);
		Py_XDECREF(names);
		Py_XDECREF(error);
		return false;
	}
	return true;
}

static bool read_key(PyObject *key, struct segue_sequence *sequence)
{
	char *bytes;
	Py_ssize_t size;

	if (key == Py_None)
		return true;
	if (PyUnicode_Check(key)) {
		sequence->key = PyUnicode_AsUTF8AndSize(key, &size);
		if (!sequence->key)
			return false;
	} else if (PyBytes_Check(key)) {
		if (PyBytes_AsStringAndSize(key, &bytes, &size) < 0)
			return false;
		sequence->key = bytes;
	} else {
		segue_py_fail_with("EINVAL", "key: %R is neither str nor bytes", key);
		return false;
	}
	sequence->key_size = (size_t)size;
	return true;
}

static bool read_length(PyObject *length, struct segue_sequence *sequence)
{
	PyObject *number;

	if (length == Py_None)
		return true;
	number = PyBool_Check(length) ? NULL : PyNumber_Index(length);
	if (number)
		sequence->total_length = PyLong_AsUnsignedLongLong(number);
	Py_XDECREF(number);
	if (!number || PyErr_Occurred()) {
		PyErr_Clear();
		segue_py_fail_with(
			"EINVAL", "length: %R is no number of steps, which is 0 or more", length);
		return false;
	}
	sequence->has_total_length = true;
	return true;
}

static bool add_sequence(struct writer *self, const struct segue_sequence *sequence)
{
	Py_ssize_t size = 0;
	int rc;

	for (Py_ssize_t i = 0; i < self->count; i++)
		size += self->buffers[i].len;
	if (size < LONG_WRITE) {
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
	struct segue_sequence sequence = {
		.size = sizeof(sequence), .arrays = self->arrays, .offsets = self->offsets};
	PyObject *given[PLACES];
	bool added;

	if (count != 6) {
		PyErr_Format(PyExc_TypeError, "add() takes 6 arguments, got %zd", count);
		return NULL;
	}
	if (!enter(self))
		return NULL;
	memcpy(given, args, sizeof(given));
	added = (args[5] != Py_True || check_surplus(self, given)) &&
		read_key(args[3], &sequence) && read_length(args[4], &sequence) &&
		take_columns(self, given, &sequence.steps) && add_sequence(self, &sequence);
	release_columns(self);
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
	PyObject *arrays = PyImport_ImportModule("segue._arrays");

	if (arrays) {
		to_column = PyObject_GetAttrString(arrays, "to_column");
		to_ragged = PyObject_GetAttrString(arrays, "to_ragged");
		surplus = PyObject_GetAttrString(arrays, "surplus");
		Py_DECREF(arrays);
	}
	writer_type = (PyTypeObject *)PyType_FromSpec(&spec);
	return to_column && to_ragged && surplus && writer_type &&
	       PyModule_AddType(module, writer_type) == 0 &&
	       PyModule_AddFunctions(module, functions) == 0;
}
