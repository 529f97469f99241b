/* The arrays of a sequence, from Python's objects. */
#include "_columns.h"

#include <stdlib.h>
#include <string.h>

static const char *const place_names[PLACES] = {"sequences", "context", "initial_states"};

static PyObject *to_column, *to_ragged, *surplus; /* of segue._arrays */

/* Reads a column as a state: what a feature has, that has too. */
static bool read_column(struct column *column, PyObject *item, struct segue_state *out)
{
	PyObject *name, *dims, *init;
	int dtype;

	*out = (struct segue_state){.size = sizeof(*out)};
	if (!PyArg_ParseTuple(item, "UiO!O", &name, &dtype, &PyTuple_Type, &dims, &init))
		return false;
	Py_INCREF(name);
	column->name = name;
	column->dtype = out->dtype = (enum segue_dtype)dtype;
	column->rank = (int)PyTuple_Size(dims);
	if (column->rank > SEGUE_RANK_MAX) {
		segue_py_fail_with("EINVAL", "'%U' has %d dimensions; at most %d are possible",
			name, column->rank, SEGUE_RANK_MAX);
		return false;
	}
	out->rank = (uint32_t)column->rank;
	for (int d = 0; d < column->rank; d++) {
		column->dims[d] = PyLong_AsSsize_t(PyTuple_GetItem(dims, d));
		if (column->dims[d] == -1 && PyErr_Occurred())
			return false;
		out->dims[d] = (uint64_t)column->dims[d];
	}
	if (PyBytes_Check(init)) {
		Py_INCREF(init);
		column->init = init;
	}
	column->wanted = PyUnicode_Check(init);
	if (PyLong_Check(init))
		column->form = (enum segue_form)PyLong_AsLong(init);
	out->name = PyUnicode_AsUTF8AndSize(name, NULL);
	return out->name;
}

/* spec NULL: what it is, is known to the library. */
static bool add_column(
	struct segue_spec *spec, enum place place, struct column *column, PyObject *item)
{
	struct segue_feature feature = {.size = sizeof(feature)};
	struct segue_state state;
	int rc;

	if (!read_column(column, item, &state))
		return false;
	if (!spec)
		return true;
	feature.name = state.name;
	feature.dtype = state.dtype;
	feature.rank = state.rank;
	feature.form = column->form;
	memcpy(feature.dims, state.dims, sizeof(feature.dims));
	rc = place == SEQUENCES ? segue_spec_add_sequence(spec, &feature)
	     : place == CONTEXT ? segue_spec_add_context(spec, &feature)
				: segue_spec_add_state(spec, &state);
	if (rc)
		segue_py_fail(rc);
	return rc == 0;
}

static bool allocate(struct columns *self, Py_ssize_t count)
{
	size_t all = (size_t)count + 1;

	self->column = calloc(all, sizeof(*self->column));
	self->arrays = calloc(all, sizeof(*self->arrays));
	self->buffers = calloc(all, sizeof(*self->buffers));
	self->kept = calloc(all, sizeof(*self->kept));
	self->offsets = calloc(all, sizeof(*self->offsets));
	self->offset_buffers = calloc(all, sizeof(*self->offset_buffers));
	if (self->column && self->arrays && self->buffers && self->kept && self->offsets &&
		self->offset_buffers)
		return true;
	PyErr_NoMemory();
	return false;
}

bool columns_fill_inits(struct columns *self)
{
	for (Py_ssize_t i = self->count - self->counts[STATES]; i < self->count; i++) {
		struct column *column = &self->column[i];
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

static enum place place_of(const struct columns *self, Py_ssize_t i)
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
static int take_buffer(struct columns *self, Py_ssize_t i, PyObject *value, Py_ssize_t *steps)
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
	if (!buffer_fits(&self->column[i], sequence, buffer)) {
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
static bool take_made(struct columns *self, Py_ssize_t i, PyObject *value, Py_ssize_t *steps)
{
	const struct column *column = &self->column[i];
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
static bool take_ragged(struct columns *self, Py_ssize_t i, PyObject *value, Py_ssize_t *steps)
{
	const struct column *column = &self->column[i];
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
static PyObject *find_value(struct columns *self, Py_ssize_t i, PyObject *given)
{
	PyObject *name = self->column[i].name, *value = NULL;

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

static void fail_missing(struct columns *self, Py_ssize_t i, PyObject *given)
{
	PyObject *names = given == Py_None ? NULL : PyMapping_Keys(given);

	PyErr_Clear();
	if (!names && !(names = PyList_New(0)))
		return;
	segue_py_fail_with("EINVAL", "%s[%R] is missing: each sequence has one; this one has %R",
		place_names[place_of(self, i)], self->column[i].name, names);
	Py_DECREF(names);
}

static bool take_column(struct columns *self, Py_ssize_t i, PyObject *given, Py_ssize_t *steps)
{
	const struct column *column = &self->column[i];
	PyObject *value = find_value(self, i, given);
	int rc;

	if (!value && !PyErr_Occurred()) {
		if (column->init) {
			self->arrays[i] = PyBytes_AsString(column->init);
			return true;
		}
		fail_missing(self, i, given);
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

static void *fail_steps(struct columns *self, Py_ssize_t i, Py_ssize_t first, Py_ssize_t steps)
{
	return segue_py_fail_with("EINVAL",
		"sequences[%R] has %zd steps and sequences[%R] %zd: all of a sequence have as many",
		self->column[0].name, first, self->column[i].name, steps);
}

static bool take_columns(struct columns *self, PyObject *given[PLACES], uint64_t *all_steps)
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

void columns_release(struct columns *self)
{
	for (Py_ssize_t i = 0; i < self->count; i++) {
		if (self->buffers[i].obj)
			PyBuffer_Release(&self->buffers[i]);
		if (self->offset_buffers[i].obj)
			PyBuffer_Release(&self->offset_buffers[i]);
		Py_CLEAR(self->kept[i]);
	}
}

/* Names that no column has, and what has no names. With a mapping for each place, there is none. */
static bool check_surplus(struct columns *self, PyObject *given[PLACES])
{
	Py_ssize_t at = 0;

	for (int p = 0; p < PLACES; at += self->counts[p++]) {
		bool named = given[p] == Py_None || PyDict_CheckExact(given[p]) ||
			     PyObject_HasAttrString(given[p], "keys");
		Py_ssize_t size = given[p] == Py_None || !named ? 0 : PyObject_Size(given[p]);
		PyObject *names, *error;

		if (size < 0)
			return false;
		if (named && size <= self->counts[p])
			continue; /* one that is missing instead is found by its name */
		names = PyList_New(0);
		for (Py_ssize_t i = 0; names && i < self->counts[p]; i++)
			if (PyList_Append(names, self->column[at + i].name) < 0)
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

bool columns_make(struct columns *self, PyObject *lists[PLACES], struct segue_spec *spec)
{
	Py_ssize_t at = 0;
	bool done = true;

	for (int p = 0; p < PLACES; p++) {
		self->counts[p] = PyList_Size(lists[p]);
		self->count += self->counts[p];
	}
	if (!allocate(self, self->count))
		return false;
	for (int p = 0; p < PLACES; p++)
		for (Py_ssize_t i = 0; done && i < self->counts[p]; i++, at++)
			done = add_column(spec, (enum place)p, &self->column[at],
				PyList_GetItem(lists[p], i));
	return done;
}

void columns_free(struct columns *self)
{
	for (Py_ssize_t i = 0; self->column && i < self->count; i++) {
		Py_XDECREF(self->column[i].name);
		Py_XDECREF(self->column[i].init);
	}
	free(self->column);
	free(self->arrays);
	free(self->buffers);
	free(self->kept);
	free(self->offsets);
	free(self->offset_buffers);
}

bool columns_take(struct columns *self, PyObject *given[PLACES], PyObject *key, PyObject *length,
	bool exact, struct segue_sequence *sequence)
{
	*sequence = (struct segue_sequence){
		.size = sizeof(*sequence), .arrays = self->arrays, .offsets = self->offsets};
	return (!exact || check_surplus(self, given)) && read_key(key, sequence) &&
	       read_length(length, sequence) && take_columns(self, given, &sequence->steps);
}

Py_ssize_t columns_size(const struct columns *self)
{
	Py_ssize_t size = 0;

	for (Py_ssize_t i = 0; i < self->count; i++)
		size += self->buffers[i].len;
	return size;
}

bool columns_import(void)
{
	PyObject *arrays = PyImport_ImportModule("segue._arrays");

	if (arrays) {
		to_column = PyObject_GetAttrString(arrays, "to_column");
		to_ragged = PyObject_GetAttrString(arrays, "to_ragged");
		surplus = PyObject_GetAttrString(arrays, "surplus");
		Py_DECREF(arrays);
	}
	return to_column && to_ragged && surplus;
}
