/*
 * The arrays of a sequence, taken from Python's objects by their buffers, as they are. What has no
 * buffer that fits goes through segue._arrays.to_column(), which makes an array of it or says why it
 * cannot be one.
 */
#ifndef SEGUE_PYTHON_COLUMNS_H
#define SEGUE_PYTHON_COLUMNS_H

#include "_segue.h"

enum place { SEQUENCES, CONTEXT, STATES, PLACES };

struct column {
	PyObject *name;
	enum segue_dtype dtype;
	int rank;
	Py_ssize_t dims[SEGUE_RANK_MAX];
	enum segue_form form;
	PyObject *init; /* of a state: bytes, taken where a sequence has none; else NULL */
	bool wanted;    /* a state: no sequence is without */
};

struct columns {
	struct column *column; /* sequences, then context, then states */
	Py_ssize_t counts[PLACES], count;
	/* Of the sequence at hand, one a column. */
	const void **arrays;
	Py_buffer *buffers; /* obj NULL: none is held */
	PyObject **kept;    /* what was made for a column */
	/* Of columns that are not dense. */
	const int64_t **offsets;
	Py_buffer *offset_buffers;
};

/*
 * From lists of (name, dtype, dims, init or form), as spec._named() makes them; each is added to
 * `spec`, too, unless that is NULL. False: an exception is set; columns_free() is due in either
 * case.
 */
bool columns_make(struct columns *self, PyObject *lists[PLACES], struct segue_spec *spec);
/* What sequences without a state get, where nothing was declared: zeros. */
bool columns_fill_inits(struct columns *self);
void columns_free(struct columns *self);

/*
 * Takes what was given for each place (None: nothing), key and length. `exact`: a name that no
 * column has is an error. The sequence points to what is held until columns_release(), which is due
 * in either case.
 */
bool columns_take(struct columns *self, PyObject *given[PLACES], PyObject *key, PyObject *length,
	bool exact, struct segue_sequence *sequence);
void columns_release(struct columns *self);
/* Bytes of what is held. */
Py_ssize_t columns_size(const struct columns *self);

/* Once, with the module. */
bool columns_import(void);

#endif
