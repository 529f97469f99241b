/*
 * The C extension of the Python package: handles of libsegue as objects, shared memory as arrays.
 *
 * Who keeps whom: open Batch -> Lane -> Stream -> Client, and array -> View -> Slot -> Gate, each a
 * counted reference, so that what a handle came from outlives it. A Slot is one batch taken from a
 * lane; the Batch that the user sees and every View of its memory hold it, and when the last of
 * them goes the batch is released. Memory keeps no lease: neither does a Batch that is committed or put
 * back. Batch caches arrays but no View holds a Batch: no cycles, no waiting for the collector.
 *
 * Threads: the handles of one client serve one thread at a time, and waits let go of the GIL, so
 * every call into the library holds the lock of the client's Gate. One that may wait for what
 * another thread does (a batch, room for a sequence) gives way to that: wait_in_turns(). What is
 * freed while the lock is held (by another thread, or below a signal handler of this one) is put on
 * the gate's list and freed by whoever lets go of the lock.
 */
#include "_segue.h"

#include <structmember.h>

#include "client/follow.h"
#include "client/stream.h"
#include "core/dtype.h"
#include "core/spec.h"
#include "core/wait.h"
#include "segue/segue.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Dimensions of an array: rows, steps, and those of the feature. */
#define DIMS_MAX (SEGUE_RANK_MAX + 2)

static PyTypeObject *gate_type, *client_type, *shape_type, *stream_type, *lane_type, *slot_type,
	*batch_type, *view_type;
static PyObject *make_error, *state_name_error; /* of segue.errors */
/* Of segue._arrays. */
static PyObject *to_array, *to_bits, *over_bits, *mismatch, *ragged_type, *to_bytes, *features_type;
static PyObject *warn_put_back; /* of segue._notice */
static PyObject *numpy_asarray;

/* Counts the forks between the process that loaded the module and this one. */
static unsigned fork_generation;

static void count_fork(void)
{
	fork_generation++;
}

/* ---- Errors --------------------------------------------------------------------------------- */

/* Raises the exception of a code name; the message is taken over. Returns NULL. */
static void *raise_message(const char *code, PyObject *message)
{
	if (message) {
		PyObject *error = PyObject_CallFunction(make_error, "sO", code, message);
		if (error)
			PyErr_SetObject((PyObject *)Py_TYPE(error), error);
		Py_XDECREF(error);
		Py_DECREF(message);
	}
	return NULL;
}

/* Raises an error that the binding found itself. */
static void *fail_with(const char *code, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	PyObject *message = PyUnicode_FromFormatV(format, arguments);
	va_end(arguments);
	return raise_message(code, message);
}

/* File names in it need not be UTF-8. */
static PyObject *detail_text(void)
{
	const char *detail = segue_error_detail();

	return PyUnicode_DecodeUTF8(detail, (Py_ssize_t)strlen(detail), "replace");
}

/* Raises what the library's last call in this thread said, unless a callback of it raised. */
static void *fail(int rc)
{
	if (PyErr_Occurred())
		return NULL;
	return raise_message(segue_error_name(rc), detail_text());
}

void *segue_py_fail(int rc)
{
	return fail(rc);
}

void *segue_py_fail_with(const char *code, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	PyObject *message = PyUnicode_FromFormatV(format, arguments);
	va_end(arguments);
	return raise_message(code, message);
}

/* The __reduce__ of all that is of one process. */
static PyObject *refuse_pickle(PyObject *Py_UNUSED(module), PyObject *thing)
{
	PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(thing), "__name__");

	if (name)
		PyErr_Format(PyExc_TypeError,
			"cannot pickle or copy a segue.%U: it belongs to the process that opened "
			"it. Open a client in the child (of spawn, or the worker of a DataLoader): "
			"segue.open() and stream() there; of a batch, pass on copies of its arrays",
			name);
	Py_XDECREF(name);
	return NULL;
}

static PyObject *own_reduce(PyObject *self, PyObject *Py_UNUSED(none))
{
	return refuse_pickle(NULL, self);
}

/* clang-format off */
#define REDUCE {"__reduce__", own_reduce, METH_NOARGS, "Raises: it belongs to this process."}
/* clang-format on */

/* ---- Objects -------------------------------------------------------------------------------- */

static void *new_object(PyTypeObject *type)
{
	return PyType_GenericAlloc(type, 0); /* zeroed */
}

static void free_object(void *self)
{
	PyTypeObject *type = Py_TYPE((PyObject *)self);

	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

/* ---- Gate: the lock of a client, and what waits for it --------------------------------------- */

struct stream;

/* Something to free as soon as the lock is free. */
struct deferred {
	struct deferred *next;
	void (*finish)(void *handle, PyObject *parent);
	void *handle;
	PyObject *parent; /* owned */
};

/* It outlives the client as long as memory of a batch is in use. */
struct gate {
	PyObject_HEAD PyThread_type_lock lock;
	unsigned long owner;    /* thread that holds the lock; 0: none. Under the GIL */
	PyThreadState *waiting; /* of the holder, while it has let go of the GIL in a call */
	unsigned fork_generation;
	struct deferred *deferred;
	bool hurried; /* a close was interrupted: what it leaves behind is not waited for */
	/* All of these under the GIL. */
	unsigned wanted;   /* threads that wait for the lock */
	int64_t wanted_ns; /* when one of them waited last */
	bool gives, gave;  /* the holder gives way to them; and does, upon which its call ends */
};

struct client {
	PyObject_HEAD struct segue_client *handle;
	struct gate *gate;
	PyObject *progress;     /* callable or NULL */
	PyObject *watch;        /* while a batch is waited for: of its stream, not owned; or NULL */
	struct stream *streams; /* all that live, not owned */
	Py_ssize_t children;    /* stream handles not closed */
	bool closed;
};

static bool is_forked(const struct gate *gate)
{
	return gate->fork_generation != fork_generation;
}

static bool check_fork(const struct gate *gate)
{
	if (is_forked(gate))
		fail_with("EFORKED", "this object belongs to the parent process: open a client by "
				     "segue.open() in this one");
	return !is_forked(gate);
}

static bool lock_now(struct gate *gate)
{
	if (!PyThread_acquire_lock(gate->lock, NOWAIT_LOCK))
		return false;
	gate->owner = PyThread_get_thread_ident();
	return true;
}

/* Takes the lock; lets go of the GIL while another thread has it. False: an exception is set. */
static bool enter(struct gate *gate)
{
	if (!check_fork(gate))
		return false;
	while (!lock_now(gate)) {
		PyThreadState *state;
		PyLockStatus status;

		if (gate->owner == PyThread_get_thread_ident()) {
			fail_with("EBUSY", "the client is in another call of this thread (is this "
					   "a signal handler or a "
					   "progress callback?)");
			return false;
		}
		gate->wanted++;
		state = PyEval_SaveThread();
		status = PyThread_acquire_lock_timed(gate->lock, -1, 1);
		PyEval_RestoreThread(state);
		gate->wanted--;
		gate->wanted_ns = segue_now_ns();
		if (status == PY_LOCK_ACQUIRED) {
			gate->owner = PyThread_get_thread_ident();
			break;
		}
		if (PyErr_CheckSignals() < 0)
			return false;
	}
	gate->hurried = false;
	return true;
}

/* Lets go of the lock, after freeing what waited for it. Keeps the exception that is set. */
static void leave(struct gate *gate)
{
	PyObject *type, *value, *traceback;

	if (gate->deferred) {
		PyErr_Fetch(&type, &value, &traceback);
		Py_INCREF((PyObject *)gate); /* a parent below may hold the last reference */
		while (gate->deferred) {
			struct deferred *entry = gate->deferred;
			gate->deferred = entry->next;
			entry->finish(entry->handle, entry->parent);
			Py_DECREF(entry->parent);
			free(entry);
		}
		gate->owner = 0;
		PyThread_release_lock(gate->lock);
		Py_DECREF((PyObject *)gate);
		PyErr_Restore(type, value, traceback);
		return;
	}
	gate->owner = 0;
	PyThread_release_lock(gate->lock);
}

/*
 * Runs finish(handle, parent) now or, if the lock is taken, when it is let go of. For destructors:
 * never blocks, never raises. In a forked child the handles are the parent's: nothing is done.
 */
static void finish_soon(struct gate *gate, void (*finish)(void *handle, PyObject *parent),
	void *handle, PyObject *parent)
{
	struct deferred *entry;

	if (is_forked(gate))
		return;
	if (lock_now(gate)) {
		Py_INCREF(parent);
		finish(handle, parent);
		leave(gate);
		Py_DECREF(parent);
		return;
	}
	entry = malloc(sizeof(*entry));
	if (!entry)
		return; /* the handle leaks: better than to free it under a running call */
	Py_INCREF(parent);
	*entry = (struct deferred){gate->deferred, finish, handle, parent};
	gate->deferred = entry;
}

static void gate_dealloc(struct gate *self)
{
	if (self->lock)
		PyThread_free_lock(self->lock);
	free_object(self);
}

static struct gate *gate_new(void)
{
	struct gate *self = new_object(gate_type);

	if (!self)
		return NULL;
	self->fork_generation = fork_generation;
	self->lock = PyThread_allocate_lock();
	if (!self->lock) {
		Py_DECREF((PyObject *)self);
		PyErr_NoMemory();
		return NULL;
	}
	return self;
}

/* Around a call that can wait; its callbacks take the GIL back through `waiting`. */
static void wait_begin(struct gate *gate)
{
	gate->waiting = PyEval_SaveThread();
}

static void wait_end(struct gate *gate)
{
	PyThreadState *state = gate->waiting;

	PyEval_RestoreThread(state);
	gate->waiting = NULL;
}

/* Whether the call that holds the lock can be ended now and made again, for others that want it. */
static bool can_give_way(const struct client *client)
{
	const struct segue_connection *connection;

	if (!client->gate->gives || !client->gate->wanted)
		return false;
	connection = &client->handle->connection;
	return segue_connection_live(connection) && (!connection->busy || connection->leavable);
}

/*
 * segue_interrupt_fn: lets Python see its signals, whoever feeds the stream say that it failed, and
 * other threads have the lock.
 */
static int on_interrupt(void *arg)
{
	struct client *client = arg;
	bool stop;

	if (!client->gate->waiting)
		return client->gate->hurried;
	PyEval_RestoreThread(client->gate->waiting);
	stop = PyErr_Occurred() || PyErr_CheckSignals() < 0;
	if (!stop && client->watch) {
		PyObject *result = PyObject_CallFunction(client->watch, NULL);

		stop = !result;
		Py_XDECREF(result);
	}
	if (!stop && can_give_way(client))
		stop = client->gate->gave = true;
	client->gate->waiting = PyEval_SaveThread();
	return stop;
}

enum { LOOK_NS = 1000000, PAUSE_NS = 1000000, SHARED_NS = 1000000000 };

/* Whether others use the client: waits are short then. Not while the server is lost. */
static bool is_shared(const struct client *client)
{
	return segue_now_ns() - client->gate->wanted_ns < SHARED_NS && client->gate->wanted_ns &&
	       segue_connection_live(&client->handle->connection);
}

/* Out of the lock, for others to get it. False: an exception is set. */
static bool pause_outside(void)
{
	const struct timespec pause = {.tv_nsec = PAUSE_NS};
	PyThreadState *state = PyEval_SaveThread();

	nanosleep(&pause, NULL);
	PyEval_RestoreThread(state);
	return PyErr_CheckSignals() == 0;
}

/* With the lock held; *held: still, else an exception is set. What the call said last. */
static int wait_in_turns(
	struct client *client, const struct segue_py_turns *turns, int64_t timeout, bool *held)
{
	struct gate *gate = client->gate;
	int64_t now = segue_now_ns();
	int64_t deadline = timeout > INT64_MAX - now ? INT64_MAX : now + timeout;

	for (;;) {
		int64_t left = deadline == INT64_MAX ? INT64_MAX : deadline - segue_now_ns();
		int64_t slice = left > LOOK_NS && is_shared(client) ? LOOK_NS : left;
		int rc;

		gate->gives = true;
		gate->gave = false;
		wait_begin(gate);
		rc = turns->call(turns->arg, slice > 0 ? slice : 0);
		wait_end(gate);
		gate->gives = false;
		*held = PyErr_Occurred() || !((rc == SEGUE_EINTERRUPTED && gate->gave) ||
						    (rc == SEGUE_ETIMEOUT && slice < left));
		if (*held)
			return rc;
		leave(gate);
		if (!pause_outside() || !turns->enter(turns->arg))
			return rc;
	}
}

/* segue_progress_fn. An exception stays set and ends the wait at the next look at the signals. */
static void on_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	struct client *client = arg;

	if (!client->gate->waiting || !client->progress)
		return;
	PyEval_RestoreThread(client->gate->waiting);
	if (!PyErr_Occurred()) {
		PyObject *result = PyObject_CallFunction(client->progress, "sKK", what,
			(unsigned long long)done, (unsigned long long)total);
		Py_XDECREF(result);
	}
	client->gate->waiting = PyEval_SaveThread();
}

/* ---- What there is --------------------------------------------------------------------------- */

struct field {
	PyObject *name;
	enum segue_dtype dtype;
	int rank;
	Py_ssize_t dims[SEGUE_RANK_MAX];
	enum segue_form form;
};

/* What the batches of a stream look like. */
struct shape {
	PyObject_HEAD bool persist;
	uint64_t seed;
	PyObject *states;     /* how they are nested: of trees.States */
	struct field *fields; /* sequences, then contexts, then states */
	size_t sequence_count, context_count, state_count;
	PyObject *state_index; /* {name: index} */
};

struct stream {
	PyObject_HEAD struct client *client;
	struct shape *shape;
	struct segue_stream *handle;
	struct stream *next; /* in client->streams */
	struct lane *lanes;  /* all that live, not owned */
	Py_ssize_t children; /* lane handles not closed */
	PyObject *watch; /* called while a batch is waited for: what it raises ends that; or NULL */
	bool closed;
	bool counted; /* among the client's children */
};

struct lane {
	PyObject_HEAD struct stream *stream;
	struct segue_lane *handle; /* NULL: closed */
	struct lane *next;         /* in stream->lanes */
	struct slot *slots;        /* all that live, not owned */
	unsigned index;
	uint64_t taken; /* batches so far */
	uint64_t began; /* those before are of a loop that has ended */
};

/* One batch taken from a lane, as long as anything of it is in use. */
struct slot {
	PyObject_HEAD struct gate *gate;
	struct segue_batch *handle;
	struct slot *next, **link; /* in lane->slots; link NULL: the lane is gone */
	unsigned outs;             /* arrays of states that go out, which are alive */
	uint64_t number;           /* among the batches that were taken of the lane */
};

/* Arrays that are made of the span table, and those made from it. */
enum meta {
	SEQUENCE,
	SEQUENCE_COUNT,
	LENGTH,
	TOTAL_LENGTH,
	INSERTION_INDEX,
	EPOCH,
	PART,
	META_VIEWS,
	IS_FIRST = META_VIEWS,
	IS_LAST,
	MASK,
	IS_KEPT,
	SEED,
	SEGMENT_SEED,
	META_COUNT
};

struct batch {
	PyObject_HEAD struct gate *gate;
	struct shape *shape;
	struct lane *lane; /* NULL: committed or put back */
	PyObject *lost;    /* to whom its lane went, a str; NULL: nobody */
	struct slot *slot; /* NULL: released */
	unsigned lane_index;
	PyObject *spans;      /* bytes: struct segue_span, one a row; NULL until asked for */
	uint32_t rows, steps; /* steps of each row */
	unsigned long long step;
	bool committed;
	PyObject *features[2]; /* caches: sequences, context */
	PyObject *meta[META_COUNT];
	PyObject **in, **out; /* arrays of the states, each NULL until asked for */
	/*
	 * Private memory (bytes) that `out` is of, each NULL: the buffer itself. While somebody has
	 * an array of the buffer from an earlier delivery, what is written there must not count.
	 */
	PyObject **own;
	PyObject *weakrefs;
};

/* Memory that something keeps alive, as a buffer. */
struct view {
	PyObject_HEAD PyObject *owner; /* struct slot, or bytes */
	void *data;
	const char *format;
	Py_ssize_t item, size;
	int rank;
	bool readonly, strided;
	bool out; /* among the outs of its owner, a slot */
	Py_ssize_t shape[DIMS_MAX], strides[DIMS_MAX];
};

/* ---- Closing: a handle goes when nothing that came from it is left --------------------------- */

static void settle_client(struct client *client)
{
	struct segue_client *handle;
	PyThreadState *state;

	if (!client->closed || client->children || !client->handle)
		return;
	handle = client->handle;
	client->handle = NULL;
	state = PyEval_SaveThread();
	segue_client_close(handle);
	PyEval_RestoreThread(state);
}

static void settle_stream(struct stream *stream)
{
	if (!stream->closed || stream->children || !stream->counted)
		return;
	stream->counted = false;
	stream->client->children--;
	settle_client(stream->client);
}

static void finish_stream(void *handle, PyObject *parent)
{
	struct client *client = (struct client *)parent;

	segue_stream_close(handle);
	client->children--;
	settle_client(client);
}

static void lane_ended(struct stream *stream)
{
	stream->children--;
	settle_stream(stream);
}

static void finish_batch(void *handle, PyObject *Py_UNUSED(gate))
{
	segue_batch_release(handle);
}

/* The slot is the parent: its handle is there until this has run. */
static void finish_put_back(void *handle, PyObject *Py_UNUSED(slot))
{
	segue_batch_put_back(handle);
}

/* Why the first of several closes failed: the library keeps what the last one said. */
struct failure {
	int rc;
	PyObject *message; /* owned */
};

static void raise_failure(struct failure *failure)
{
	PyObject *message = failure->message;

	failure->message = NULL;
	if (PyErr_Occurred())
		Py_XDECREF(message); /* an interrupt comes first */
	else if (failure->rc < 0)
		raise_message(segue_error_name(failure->rc), message);
}

/* Cannot be interrupted. What a close would raise is told to sys.unraisablehook. */
static void finish_lane(void *handle, PyObject *parent)
{
	PyThreadState *state = PyEval_SaveThread();
	struct failure failure = {.rc = segue_lane_close(handle)};
	PyObject *type, *value, *traceback;

	PyEval_RestoreThread(state);
	if (failure.rc < 0) {
		PyErr_Fetch(&type, &value, &traceback);
		failure.message = detail_text();
		raise_failure(&failure);
		PyErr_WriteUnraisable(parent);
		PyErr_Restore(type, value, traceback);
	}
	lane_ended((struct stream *)parent);
}

/*
 * With the lock held. An interrupt leaves its exception, by which the lanes that are closed next
 * are not waited for.
 */
static void close_lane(struct lane *lane, struct failure *failure)
{
	struct client *client = lane->stream->client;
	struct segue_lane *handle = lane->handle;
	int rc;

	lane->handle = NULL;
	if (!handle)
		return;
	wait_begin(client->gate);
	rc = segue_lane_close(handle);
	wait_end(client->gate);
	client->gate->hurried = PyErr_Occurred() != NULL;
	/* That a lane was somebody else's already is the least of all failures. */
	if (rc < 0 && !client->gate->hurried &&
		(failure->rc == 0 || failure->rc == SEGUE_EFENCED)) {
		Py_XDECREF(failure->message);
		failure->rc = rc;
		failure->message = detail_text();
	}
	lane_ended(lane->stream);
}

/* With the lock held. Closing a lane lets other threads run, so the list is walked from the start.
 */
static void close_stream(struct stream *stream, struct failure *failure)
{
	struct segue_stream *handle;
	PyThreadState *state;
	struct lane *lane;

	stream->closed = true;
	stream->children++; /* the client stays until the handle has gone */
	do {
		for (lane = stream->lanes; lane && !lane->handle; lane = lane->next)
			;
		if (lane) {
			Py_INCREF((PyObject *)lane);
			close_lane(lane, failure);
			Py_DECREF((PyObject *)lane);
		}
	} while (lane);
	/* The server lets go of it now, also while a batch is still looked at here. */
	handle = stream->handle;
	stream->handle = NULL;
	state = PyEval_SaveThread();
	segue_stream_close(handle);
	PyEval_RestoreThread(state);
	stream->children--;
	settle_stream(stream);
}

/* ---- View ----------------------------------------------------------------------------------- */

static void view_dealloc(struct view *self)
{
	if (self->out)
		((struct slot *)self->owner)->outs--;
	Py_XDECREF(self->owner);
	free_object(self);
}

static bool owner_forked(PyObject *owner)
{
	return Py_TYPE(owner) == slot_type && is_forked(((struct slot *)owner)->gate);
}

static int view_getbuffer(struct view *self, Py_buffer *buffer, int flags)
{
	buffer->obj = NULL;
	if (owner_forked(self->owner)) {
		PyErr_SetString(PyExc_BufferError, "the memory belongs to the parent process: have "
						   "it pass on a copy (array.copy())");
		return -1;
	}
	if (self->readonly && (flags & PyBUF_WRITABLE)) {
		PyErr_SetString(PyExc_BufferError,
			"the array is read only: write to a copy, or to batch.state_out(name)");
		return -1;
	}
	if (self->strided && (flags & PyBUF_STRIDES) != PyBUF_STRIDES) {
		PyErr_SetString(PyExc_BufferError, "the array has strides: take a copy of it");
		return -1;
	}
	buffer->buf = self->data;
	buffer->len = self->size;
	buffer->readonly = self->readonly;
	buffer->itemsize = self->item;
	buffer->format = (flags & PyBUF_FORMAT) ? (char *)(uintptr_t)self->format : NULL;
	buffer->ndim = self->rank;
	buffer->shape = (flags & PyBUF_ND) ? self->shape : NULL;
	buffer->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? self->strides : NULL;
	buffer->suboffsets = NULL;
	buffer->internal = NULL;
	buffer->obj = (PyObject *)self;
	Py_INCREF((PyObject *)self);
	return 0;
}

/* A C-contiguous view; set strides[0] and `strided` afterwards for another. */
static struct view *view_new(PyObject *owner, const void *data, bool readonly, const char *format,
	size_t item, int rank, const Py_ssize_t *shape)
{
	struct view *view = new_object(view_type);

	if (!view)
		return NULL;
	Py_INCREF(owner);
	view->owner = owner;
	view->data = (void *)(uintptr_t)data;
	view->readonly = readonly;
	view->format = format;
	view->item = (Py_ssize_t)item;
	view->size = (Py_ssize_t)item;
	view->rank = rank;
	for (int i = rank - 1; i >= 0; i--) {
		view->shape[i] = shape[i];
		view->strides[i] = view->size;
		view->size *= shape[i];
	}
	return view;
}

/* What `make` makes of a view, which is taken over; NULL passes through. */
static PyObject *array_by(PyObject *make, struct view *view)
{
	PyObject *array = NULL;

	if (view)
		array = PyObject_CallFunctionObjArgs(make, (PyObject *)view, NULL);
	Py_XDECREF((PyObject *)view);
	return array;
}

/* The ndarray over a view. */
static PyObject *as_array(struct view *view)
{
	return array_by(numpy_asarray, view);
}

/* The same, of the dtype that the view's format does not tell. */
static PyObject *as_array_of(enum segue_dtype dtype, struct view *view)
{
	return array_by(segue_dtype_row(dtype)->bits ? over_bits : numpy_asarray, view);
}

static const char *dtype_format(enum segue_dtype dtype)
{
	return segue_dtype_row(dtype)->format;
}

static bool format_is(const Py_buffer *buffer, enum segue_dtype dtype)
{
	const char *format = buffer->format ? buffer->format : "B";

	if (*format == '@' || *format == '=' || *format == (PY_LITTLE_ENDIAN ? '<' : '>'))
		format++;
	if (!format[0] || format[1] || (size_t)buffer->itemsize != segue_dtype_size(dtype))
		return false;
	/* C has several integers of one size. */
	if (segue_dtype_row(dtype)->number == SEGUE_NUMBER_SIGNED)
		return strchr("bhilq", *format) != NULL;
	if (segue_dtype_row(dtype)->number == SEGUE_NUMBER_UNSIGNED)
		return strchr("BHILQ", *format) != NULL;
	return *format == *dtype_format(dtype);
}

bool segue_py_format_is(const Py_buffer *buffer, enum segue_dtype dtype)
{
	return !segue_dtype_row(dtype)->bits && format_is(buffer, dtype);
}

/* ---- Slot ----------------------------------------------------------------------------------- */

static void slot_unlink(struct slot *self)
{
	if (self->link)
		*self->link = self->next;
	if (self->link && self->next)
		self->next->link = self->link;
	self->link = NULL;
}

static void slot_dealloc(struct slot *self)
{
	if (self->gate) {
		slot_unlink(self);
		finish_soon(self->gate, finish_batch, self->handle, (PyObject *)self->gate);
		Py_DECREF((PyObject *)self->gate);
	}
	free_object(self);
}

/* Takes the handle over, also on failure. With the lock held. */
static struct slot *slot_new(struct lane *lane, struct segue_batch *handle)
{
	struct slot *slot = new_object(slot_type);

	if (!slot) {
		segue_batch_untake(handle);
		segue_batch_release(handle);
		return NULL;
	}
	slot->gate = lane->stream->client->gate;
	Py_INCREF((PyObject *)slot->gate);
	slot->handle = handle;
	slot->number = lane->taken++;
	slot->next = lane->slots;
	slot->link = &lane->slots;
	if (slot->next)
		slot->next->link = &slot->next;
	lane->slots = slot;
	return slot;
}

/* ---- Batch ---------------------------------------------------------------------------------- */

/* Arrays that are asked for once; those of states are there if there are states. */
static void forget_arrays(struct batch *self)
{
	for (size_t i = 0; i < 2; i++)
		Py_CLEAR(self->features[i]);
	for (size_t i = 0; i < META_COUNT; i++)
		Py_CLEAR(self->meta[i]);
	Py_CLEAR(self->spans);
	for (size_t i = 0; self->in && i < 3 * self->shape->state_count; i++)
		Py_CLEAR(self->in[i]); /* and out, and own */
}

/*
 * What is committed, or put back, is not to be written by accident. Views of these arrays escape
 * this. Keeps the exception that is set.
 */
static void freeze(struct batch *self)
{
	PyObject *type, *value, *traceback;

	PyErr_Fetch(&type, &value, &traceback);
	for (size_t i = 0; i < self->shape->state_count; i++) {
		PyObject *array = self->out[i], *done;
		if (!array)
			continue;
		Py_INCREF(array); /* another thread may release the batch meanwhile */
		done = PyObject_CallMethod(array, "setflags", "i", 0);
		Py_DECREF(array);
		if (!done)
			break;
		Py_DECREF(done);
	}
	if (type)
		PyErr_Restore(type, value, traceback); /* the first of two */
}

/* One that is open is not any more: it comes again. */
static void put_back(struct batch *self)
{
	struct slot *slot = self->slot;

	if (!self->lane || !slot)
		return;
	Py_INCREF((PyObject *)slot);
	if (self->in)
		freeze(self);
	finish_soon(self->gate, finish_put_back, slot->handle, (PyObject *)slot);
	Py_DECREF((PyObject *)slot);
	Py_CLEAR(self->lane);
}

static void batch_forget(struct batch *self)
{
	struct slot *slot = self->slot;

	put_back(self);
	forget_arrays(self);
	if (self->slot) {
		self->slot = NULL;
		Py_DECREF((PyObject *)slot);
	}
}

/* One that nobody can commit any more, though all was saved, is not lost in silence. */
static void tell_put_back(struct batch *self)
{
	PyObject *type, *value, *traceback, *done;

	if (!self->shape->persist || !self->lane || !self->lane->handle || is_forked(self->gate) ||
		!segue_batch_all_saved(self->slot->handle))
		return;
	PyErr_Fetch(&type, &value, &traceback);
	done = PyObject_CallFunction(warn_put_back, "KI", self->step, self->lane_index);
	if (!done)
		PyErr_WriteUnraisable(NULL);
	Py_XDECREF(done);
	PyErr_Restore(type, value, traceback);
}

static void batch_dealloc(struct batch *self)
{
	if (self->weakrefs)
		PyObject_ClearWeakRefs((PyObject *)self);
	if (self->gate) {
		if (self->slot)
			tell_put_back(self);
		batch_forget(self);
		PyMem_Free(self->in);
		Py_XDECREF(self->lost);
		Py_DECREF((PyObject *)self->shape);
		Py_DECREF((PyObject *)self->gate);
	}
	free_object(self);
}

/* Takes the handle over, also on failure. With the lock held. */
static struct batch *batch_new(struct lane *lane, struct segue_batch *handle)
{
	struct slot *slot = slot_new(lane, handle);
	struct batch *batch = slot ? new_object(batch_type) : NULL;

	if (!batch) {
		if (slot)
			segue_batch_untake(handle);
		Py_XDECREF((PyObject *)slot);
		return NULL;
	}
	batch->gate = slot->gate;
	Py_INCREF((PyObject *)batch->gate);
	batch->shape = lane->stream->shape;
	Py_INCREF((PyObject *)batch->shape);
	batch->slot = slot;
	batch->lane_index = lane->index;
	batch->step = segue_batch_step(handle);
	batch->rows = segue_batch_rows(handle);
	batch->steps = segue_batch_steps(handle);
	size_t states = batch->shape->state_count;
	batch->in = PyMem_Calloc(3 * states + 1, sizeof(PyObject *));
	if (!batch->in) {
		PyErr_NoMemory();
		segue_batch_untake(handle);
		Py_DECREF((PyObject *)batch);
		return NULL;
	}
	batch->out = batch->in + states;
	batch->own = batch->out + states;
	Py_INCREF((PyObject *)lane); /* from now on it can be committed */
	batch->lane = lane;
	return batch;
}

static bool batch_check(struct batch *self)
{
	if (!check_fork(self->gate))
		return false;
	if (!self->slot)
		fail_with("ECLOSED",
			"batch %llu of lane %u was released: take what you need of it before",
			self->step, self->lane_index);
	return self->slot != NULL;
}

/* The lock for a batch that is there; `open`: that can be saved and committed, or was. */
static bool batch_enter(struct batch *self, bool open)
{
	if (!enter(self->gate))
		return false;
	if (batch_check(self)) {
		if (!open || self->committed || (self->lane && self->lane->handle))
			return true;
		if (self->lost)
			fail_with("EFENCED", "%U", self->lost);
		else
			fail_with("ECLOSED",
				"lane %u is closed: batch %llu can no longer be saved or "
				"committed; a "
				"later loader "
				"gets it again",
				self->lane_index, self->step);
	}
	leave(self->gate);
	return false;
}

static void batch_leave(struct batch *self)
{
	leave(self->gate);
}

/*
 * Keeps what was made for the next who asks; takes nothing over. Making it may run the collector,
 * and what that runs may have made one, too, or have released the batch.
 */
static PyObject *keep(struct batch *self, PyObject **place, PyObject *made)
{
	if (made && self->slot && !*place) {
		Py_INCREF(made);
		*place = made;
	}
	return made;
}

/* The array of a field over `data`: [rows, (steps,) dims...]. */
static PyObject *field_array(struct batch *self, struct slot *slot, const struct field *field,
	bool steps, const void *data, bool readonly)
{
	Py_ssize_t shape[DIMS_MAX] = {self->rows, self->steps};
	int outer = steps ? 2 : 1;

	if (!data)
		return fail_with("EINVAL", "batch %llu of lane %u has no data for '%U'", self->step,
			self->lane_index, field->name);
	memcpy(shape + outer, field->dims, sizeof(field->dims));
	return as_array_of(
		field->dtype, view_new((PyObject *)slot, data, readonly, dtype_format(field->dtype),
				      segue_dtype_size(field->dtype), outer + field->rank, shape));
}

/* With the lock held. */
static PyObject *make_features(struct batch *self, struct slot *slot, bool context)
{
	const struct shape *shape = self->shape;
	const struct field *fields = shape->fields + (context ? shape->sequence_count : 0);
	size_t count = context ? shape->context_count : shape->sequence_count;
	PyObject *arrays = PyObject_CallNoArgs(features_type), *mapping;

	for (size_t i = 0; i < count && arrays; i++) {
		if (fields[i].form != SEGUE_FORM_DENSE)
			continue;
		const void *data = context ? segue_batch_context(slot->handle, i)
					   : segue_batch_sequence(slot->handle, i);
		PyObject *array = field_array(self, slot, &fields[i], !context, data, true);
		if (!array || PyDict_SetItem(arrays, fields[i].name, array) < 0)
			Py_CLEAR(arrays);
		Py_XDECREF(array);
	}
	mapping = arrays ? PyDictProxy_New(arrays) : NULL;
	Py_XDECREF(arrays);
	return mapping;
}

/* A read-only mapping of all sequence features, or of all context features. */
static PyObject *batch_features(struct batch *self, void *closure)
{
	size_t which = (size_t)(uintptr_t)closure;
	PyObject *mapping;
	struct slot *slot;

	if (!batch_check(self))
		return NULL;
	mapping = self->features[which];
	if (mapping) {
		Py_INCREF(mapping);
		return mapping;
	}
	if (!batch_enter(self, false))
		return NULL;
	slot = self->slot;
	Py_INCREF((PyObject *)slot); /* see keep() */
	mapping = keep(self, &self->features[which], make_features(self, slot, which));
	batch_leave(self);
	Py_DECREF((PyObject *)slot);
	return mapping;
}

/* The number of a feature that is not dense, of context behind those of sequences; or -1. */
static Py_ssize_t ragged_find(const struct shape *shape, PyObject *name, bool bytes)
{
	const char *what = bytes ? "of bytes" : "that is ragged, or bytes";
	size_t count = shape->sequence_count + shape->context_count;

	for (size_t i = 0; i < count; i++) {
		enum segue_form form = shape->fields[i].form;
		int same = PyObject_RichCompareBool(shape->fields[i].name, name, Py_EQ);

		if (same < 0)
			return -1;
		if (same && form != SEGUE_FORM_DENSE && (!bytes || form == SEGUE_FORM_BYTES))
			return (Py_ssize_t)i;
	}
	fail_with("EINVAL", "the stream has no feature %R %s", name, what);
	return -1;
}

/* (values, offsets) of feature i, over the batch's memory. With the lock held. */
static PyObject *make_ragged(struct batch *self, struct slot *slot, size_t i)
{
	const struct field *field = &self->shape->fields[i];
	bool context = i >= self->shape->sequence_count;
	Py_ssize_t shape[2] = {self->rows, (Py_ssize_t)self->steps + 1}, count;
	PyObject *values, *offsets, *pair = NULL;
	struct segue_ragged ragged;

	int rc = context ? segue_batch_context_ragged(slot->handle, i - self->shape->sequence_count,
				   &ragged, sizeof(ragged))
			 : segue_batch_sequence_ragged(slot->handle, i, &ragged, sizeof(ragged));
	if (rc)
		return fail(rc);
	shape[0] += context;
	count = (Py_ssize_t)ragged.count;
	offsets = as_array_of(SEGUE_INT64,
		view_new((PyObject *)slot, ragged.offsets, true, dtype_format(SEGUE_INT64),
			sizeof(int64_t), context ? 1 : 2, shape));
	/* Of no values any place will do. */
	values = as_array_of(field->dtype,
		view_new((PyObject *)slot, count ? ragged.values : ragged.offsets, true,
			dtype_format(field->dtype), segue_dtype_size(field->dtype), 1, &count));
	if (offsets && values)
		pair = PyObject_CallFunctionObjArgs(ragged_type, values, offsets, NULL);
	Py_XDECREF(offsets);
	Py_XDECREF(values);
	return pair;
}

static PyObject *get_ragged(struct batch *self, PyObject *name, bool bytes)
{
	Py_ssize_t i = ragged_find(self->shape, name, bytes);
	PyObject *ragged;
	struct slot *slot;

	if (i < 0 || !batch_enter(self, false))
		return NULL;
	slot = self->slot;
	Py_INCREF((PyObject *)slot); /* see keep() */
	ragged = make_ragged(self, slot, (size_t)i);
	batch_leave(self);
	Py_DECREF((PyObject *)slot);
	return ragged;
}

static PyObject *batch_ragged(struct batch *self, PyObject *name)
{
	return get_ragged(self, name, false);
}

static PyObject *batch_bytes(struct batch *self, PyObject *name)
{
	PyObject *ragged = get_ragged(self, name, true), *array = NULL;

	if (ragged)
		array = PyObject_CallFunctionObjArgs(to_bytes, ragged, NULL);
	Py_XDECREF(ragged);
	return array;
}

/* Copies the spans, all at once: from then on they are private, and hold no slot. */
static bool spans_copy(struct batch *self)
{
	const Py_ssize_t size = sizeof(struct segue_span);
	PyObject *bytes;

	if (self->spans)
		return true;
	bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)self->rows * size);
	if (!bytes)
		return false;
	struct segue_span *span = (void *)PyBytes_AsString(bytes);
	for (uint32_t i = 0; i < self->rows; i++) {
		int rc = segue_batch_span(self->slot->handle, i, &span[i], sizeof(*span));

		if (rc) {
			fail(rc);
			Py_DECREF(bytes);
			return false;
		}
	}
	self->spans = bytes;
	return true;
}

/* Where each array of enum meta below META_VIEWS lies in a span. -1 stands for "no sequence". */
static const struct {
	size_t offset;
	bool wide;
} meta_fields[META_VIEWS] = {
	[SEQUENCE] = {offsetof(struct segue_span, segment), false},
	[SEQUENCE_COUNT] = {offsetof(struct segue_span, segment_count), false},
	[LENGTH] = {offsetof(struct segue_span, length), false},
	[TOTAL_LENGTH] = {offsetof(struct segue_span, total_length), true},
	[INSERTION_INDEX] = {offsetof(struct segue_span, number), true},
	[EPOCH] = {offsetof(struct segue_span, epoch), true},
	[PART] = {offsetof(struct segue_span, part), false},
};

static struct view *span_view(struct batch *self, enum meta which)
{
	Py_ssize_t shape[1] = {(Py_ssize_t)self->rows};
	bool wide = meta_fields[which].wide;
	struct view *view = view_new(self->spans,
		PyBytes_AsString(self->spans) + meta_fields[which].offset, true,
		dtype_format(wide ? SEGUE_INT64 : SEGUE_INT32), wide ? 8 : 4, 1, shape);

	if (view) {
		view->strides[0] = sizeof(struct segue_span);
		view->strided = true;
	}
	return view;
}

/* is_first, is_last, is_kept: bool [rows]; mask: bool [rows, steps]. */
static struct view *flag_view(struct batch *self, enum meta which)
{
	Py_ssize_t shape[2] = {(Py_ssize_t)self->rows, (Py_ssize_t)self->steps};
	size_t steps = self->steps, rows = self->rows;
	int rank = which == MASK ? 2 : 1;
	size_t size = which == MASK ? rows * steps : rows;
	PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
	struct view *view;

	if (!bytes)
		return NULL;
	char *data = PyBytes_AsString(bytes);
	memset(data, 0, size);
	const struct segue_span *span = (const void *)PyBytes_AsString(self->spans);
	for (uint32_t i = 0; i < self->rows; i++, span++) {
		if (which == MASK)
			memset(data + span->row * steps + span->offset, 1, span->length);
		else
			data[span->row] =
				(span->flags & (which == IS_FIRST         ? SEGUE_SPAN_FIRST
						       : which == IS_KEPT ? SEGUE_SPAN_KEPT
									  : SEGUE_SPAN_LAST)) != 0;
	}
	view = view_new(bytes, data, true, dtype_format(SEGUE_BOOL), 1, rank, shape);
	Py_DECREF(bytes);
	return view;
}

/* int64 [rows]: segue_seed_for() of each; -1 in an empty row. */
static struct view *seed_view(struct batch *self, enum meta which)
{
	Py_ssize_t shape[1] = {(Py_ssize_t)self->rows};
	PyObject *bytes = PyBytes_FromStringAndSize(NULL, shape[0] * (Py_ssize_t)sizeof(int64_t));
	struct view *view;

	if (!bytes)
		return NULL;
	int64_t *seed = (void *)PyBytes_AsString(bytes);
	const struct segue_span *span = (const void *)PyBytes_AsString(self->spans);
	for (uint32_t i = 0; i < self->rows; i++, span++)
		seed[span->row] = span->number == UINT64_MAX
					  ? -1
					  : segue_seed_for(self->shape->seed, span->number,
						    which == SEED ? NULL : &span->segment);
	view = view_new(bytes, seed, true, dtype_format(SEGUE_INT64), sizeof(*seed), 1, shape);
	Py_DECREF(bytes);
	return view;
}

static struct view *meta_view(struct batch *self, enum meta which)
{
	if (which < META_VIEWS)
		return span_view(self, which);
	return which < SEED ? flag_view(self, which) : seed_view(self, which);
}

static PyObject *batch_meta(struct batch *self, void *closure)
{
	enum meta which = (enum meta)(uintptr_t)closure;

	if (!batch_check(self))
		return NULL;
	if (self->meta[which]) {
		Py_INCREF(self->meta[which]);
		return self->meta[which];
	}
	if (!spans_copy(self))
		return NULL;
	return keep(self, &self->meta[which], as_array(meta_view(self, which)));
}

static PyObject *batch_keys(struct batch *self, void *closure)
{
	char buffer[SEGUE_KEY_MAX + 64];
	PyObject *keys;
	struct slot *slot;

	if (!batch_enter(self, false))
		return NULL;
	slot = self->slot;
	Py_INCREF((PyObject *)slot); /* see keep() */
	keys = PyList_New(self->rows);
	for (uint32_t row = 0; row < self->rows && keys; row++) {
		size_t size =
			segue_batch_key(slot->handle, row, closure != NULL, buffer, sizeof(buffer));
		if (size >= sizeof(buffer))
			size = sizeof(buffer) - 1;
		PyObject *key = PyBytes_FromStringAndSize(buffer, (Py_ssize_t)size);
		if (!key || PyList_SetItem(keys, row, key) < 0)
			Py_CLEAR(keys);
	}
	batch_leave(self);
	Py_DECREF((PyObject *)slot);
	return keys;
}

static PyObject *batch_number(struct batch *self, void *closure)
{
	switch (*(const char *)closure) {
	case 's':
		return PyLong_FromUnsignedLongLong(self->step);
	case 'l':
		return PyLong_FromUnsignedLong(self->lane_index);
	default:
		return PyLong_FromUnsignedLong(self->rows);
	}
}

static PyObject *batch_committed(struct batch *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(self->committed);
}

static PyObject *batch_released(struct batch *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(!self->slot);
}

static PyObject *batch_all_saved(struct batch *self, void *Py_UNUSED(closure))
{
	bool saved;

	if (!batch_enter(self, false))
		return NULL;
	saved = segue_batch_all_saved(self->slot->handle);
	batch_leave(self);
	return PyBool_FromLong(saved);
}

static const struct field *state_field(const struct shape *shape, Py_ssize_t i)
{
	return shape->fields + shape->sequence_count + shape->context_count + i;
}

/* Index of a state, or -1 with an exception. */
static Py_ssize_t state_find(const struct shape *shape, PyObject *name)
{
	PyObject *found = PyDict_GetItemWithError(shape->state_index, name), *names;

	if (found)
		return PyLong_AsSsize_t(found);
	if (PyErr_Occurred())
		return -1;
	names = PyDict_Keys(shape->state_index);
	if (names)
		PyErr_Format(
			state_name_error, "the stream has no state %R; it has %R", name, names);
	Py_XDECREF(names);
	return -1;
}

static PyObject *batch_state(struct batch *self, PyObject *name)
{
	Py_ssize_t i = state_find(self->shape, name);
	PyObject *array;

	if (i < 0 || !batch_check(self))
		return NULL;
	array = self->in[i];
	if (array) {
		Py_INCREF(array);
		return array;
	}
	if (!batch_enter(self, false))
		return NULL;
	array = keep(self, &self->in[i],
		field_array(self, self->slot, state_field(self->shape, i), false,
			segue_batch_state(self->slot->handle, (size_t)i, NULL), true));
	batch_leave(self);
	return array;
}

/* All states, nested as they were declared. */
static PyObject *batch_states(struct batch *self, void *Py_UNUSED(closure))
{
	PyObject *read = PyObject_GetAttrString((PyObject *)self, "state"), *tree;

	tree = read ? PyObject_CallMethod(self->shape->states, "read", "O", read) : NULL;
	Py_XDECREF(read);
	return tree;
}

static int batch_set_states(struct batch *self, PyObject *tree, void *Py_UNUSED(closure))
{
	PyObject *save, *done;

	if (!tree) {
		PyErr_SetString(PyExc_AttributeError, "states cannot be deleted");
		return -1;
	}
	save = PyObject_GetAttrString((PyObject *)self, "save_state");
	done = save ? PyObject_CallMethod(self->shape->states, "save", "OO", tree, save) : NULL;
	Py_XDECREF(save);
	Py_XDECREF(done);
	return done ? 0 : -1;
}

/* batch[name]: of a sequence feature, or of context. */
static PyObject *batch_subscript(struct batch *self, PyObject *name)
{
	PyObject *array = NULL, *mappings[2] = {NULL, NULL}, *names[2] = {NULL, NULL};
	int has = 0;

	for (uintptr_t i = 0; i < 2 && has == 0; i++) {
		mappings[i] = batch_features(self, (void *)i);
		has = mappings[i] ? PySequence_Contains(mappings[i], name) : -1;
		if (has > 0)
			array = PyObject_GetItem(mappings[i], name);
	}
	for (size_t i = 0; i < 2 && has == 0; i++)
		names[i] = PyMapping_Keys(mappings[i]);
	if (names[0] && names[1])
		PyErr_Format(PyExc_KeyError,
			"%R is none of sequences %R and context %R; ragged(name) and bytes(name) "
			"have what is ragged, or bytes",
			name, names[0], names[1]);
	for (size_t i = 0; i < 2; i++) {
		Py_XDECREF(mappings[i]);
		Py_XDECREF(names[i]);
	}
	return array;
}

/* Says why there is nowhere to write a state. */
static void *fail_no_out(struct batch *self, size_t i)
{
	int rc = segue_batch_mark_saved(self->slot->handle, i);

	if (rc < 0)
		return fail(rc);
	return fail_with("EFENCED",
		"lane %u has passed to another holder, and batch %llu goes nowhere: make a new "
		"loader, or go back to a checkpoint",
		self->lane_index, self->step);
}

/* Whether somebody has an array of the buffers of an earlier delivery of this batch. */
static bool is_written_elsewhere(const struct batch *self)
{
	if (!self->lane)
		return false;
	for (const struct slot *slot = self->lane->slots; slot; slot = slot->next)
		if (slot != self->slot && slot->outs &&
			segue_batch_step(slot->handle) == self->step)
			return true;
	return false;
}

/* The array over `data`, where a state goes out; or over memory of its own. */
static PyObject *out_array(struct batch *self, Py_ssize_t i, void *data)
{
	const struct field *field = state_field(self->shape, i);
	Py_ssize_t shape[DIMS_MAX] = {self->rows}, size;
	size_t item = segue_dtype_size(field->dtype);
	PyObject *owner = (PyObject *)self->slot, *own = NULL;
	struct view *view;

	memcpy(shape + 1, field->dims, sizeof(field->dims));
	if (is_written_elsewhere(self)) {
		size = (Py_ssize_t)(self->rows * item);
		for (int k = 0; k < field->rank; k++)
			size *= field->dims[k];
		own = PyBytes_FromStringAndSize(NULL, size);
		if (!own)
			return NULL;
		owner = own;
		data = memcpy(PyBytes_AsString(own), data, (size_t)size);
	}
	view = view_new(
		owner, data, false, dtype_format(field->dtype), item, 1 + field->rank, shape);
	if (view && !own) {
		view->out = true;
		self->slot->outs++;
	}
	PyObject *array = as_array_of(field->dtype, view);
	if (array && own)
		keep(self, &self->own[i], own);
	Py_XDECREF(own);
	return array;
}

static PyObject *batch_state_out(struct batch *self, PyObject *name)
{
	Py_ssize_t i = state_find(self->shape, name);
	PyObject *array = NULL;
	void *data;

	if (i < 0 || !batch_enter(self, true))
		return NULL;
	data = segue_batch_state_out(self->slot->handle, (size_t)i);
	if (!data) {
		fail_no_out(self, (size_t)i);
	} else if (self->out[i]) {
		array = self->out[i];
		Py_INCREF(array);
	} else {
		array = keep(self, &self->out[i], out_array(self, i, data));
	}
	batch_leave(self);
	return array;
}

/* True if the buffer is exactly what the state wants. */
static bool state_fits(struct batch *self, const struct field *field, const Py_buffer *buffer)
{
	if (!format_is(buffer, field->dtype) || buffer->ndim != field->rank + 1 ||
		buffer->shape[0] != (Py_ssize_t)self->rows)
		return false;
	for (int i = 0; i < field->rank; i++)
		if (buffer->shape[i + 1] != field->dims[i])
			return false;
	return true;
}

static void *fail_mismatch(struct batch *self, const struct field *field, PyObject *value)
{
	PyObject *shape = PyTuple_New(field->rank + 1), *error = NULL;

	for (int i = 0; i <= field->rank && shape; i++) {
		PyObject *size =
			PyLong_FromSsize_t(i ? field->dims[i - 1] : (Py_ssize_t)self->rows);
		if (!size || PyTuple_SetItem(shape, i, size) < 0)
			Py_CLEAR(shape);
	}
	if (shape)
		error = PyObject_CallFunction(mismatch, "OsOO", field->name,
			segue_dtype_name(field->dtype), shape, value);
	if (error)
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
	Py_XDECREF(error);
	Py_XDECREF(shape);
	return NULL;
}

/* A state was saved from `bytes`: memory of its own shows that. */
static void note_own(struct batch *self, size_t i, const void *bytes)
{
	PyObject *own = self->own[i];

	if (own && bytes != PyBytes_AsString(own))
		memcpy(PyBytes_AsString(own), bytes, (size_t)PyBytes_Size(own));
}

/* Hands a buffer that fits to the library: 0 or -1. What lies there already is not copied. */
static int state_write(struct batch *self, size_t i, const Py_buffer *buffer)
{
	struct segue_batch *handle;
	void *out;
	int rc;

	/* The buffer's owner may have run Python code: the batch may be gone. */
	if (!batch_enter(self, true))
		return -1;
	handle = self->slot->handle;
	out = segue_batch_state_out(handle, i);
	if (!out) {
		fail_no_out(self, i);
		rc = -1;
	} else {
		rc = buffer->buf == out
			     ? segue_batch_mark_saved(handle, i)
			     : segue_batch_save_state(handle, i, buffer->buf, (size_t)buffer->len);
		if (rc < 0)
			fail(rc);
		else
			note_own(self, i, buffer->buf);
	}
	batch_leave(self);
	return rc < 0 ? -1 : 0;
}

/*
 * Saves a value by its buffer: 0; 1 if it has to be made an array, or a contiguous one, first; -1.
 * `array`: it has been made one, of which messages speak; else NULL.
 */
static int state_save(
	struct batch *self, size_t i, const struct field *field, PyObject *value, PyObject *array)
{
	Py_buffer buffer;
	int rc = -1;

	if (PyObject_GetBuffer(value, &buffer, PyBUF_FULL_RO) < 0) {
		if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
			PyErr_ExceptionMatches(PyExc_MemoryError))
			return -1;
		PyErr_Clear(); /* a dtype that no buffer can have, memory that was given back */
		if (!array)
			return 1;
		fail_mismatch(self, field, array);
		return -1;
	}
	if (!state_fits(self, field, &buffer))
		fail_mismatch(self, field, array ? array : value);
	else if (!PyBuffer_IsContiguous(&buffer, 'C'))
		rc = 1;
	else
		rc = state_write(self, i, &buffer);
	PyBuffer_Release(&buffer);
	return rc;
}

/* As state_save(), of an array of a type that has no format: by its bits. */
static int state_save_bits(struct batch *self, size_t i, const struct field *field, PyObject *array)
{
	PyObject *bits = PyObject_CallFunctionObjArgs(to_bits, array, NULL);
	int rc = -1;

	if (bits == Py_None)
		fail_mismatch(self, field, array);
	else if (bits && batch_check(self))
		rc = state_save(self, i, field, bits, array);
	Py_XDECREF(bits);
	return rc;
}

/* Saves what has no fitting buffer itself: 0 or -1. */
static int state_save_array(
	struct batch *self, size_t i, const struct field *field, PyObject *value)
{
	PyObject *array = PyObject_CallFunction(
		to_array, "OOs", field->name, value, segue_dtype_name(field->dtype));
	int rc = -1;

	/* The call ran Python code: the batch may be gone. */
	if (array && batch_check(self))
		rc = segue_dtype_row(field->dtype)->bits ? state_save_bits(self, i, field, array)
							 : state_save(self, i, field, array, array);
	Py_XDECREF(array);
	return rc;
}

static PyObject *batch_save_state(struct batch *self, PyObject *const *args, Py_ssize_t count)
{
	const struct field *field;
	Py_ssize_t i;
	int rc = 1;

	if (count != 2) {
		PyErr_Format(PyExc_TypeError, "save_state(name, value) takes 2 arguments, got %zd",
			count);
		return NULL;
	}
	i = state_find(self->shape, args[0]);
	if (i < 0 || !batch_check(self))
		return NULL;
	field = state_field(self->shape, i);
	if (PyObject_CheckBuffer(args[1]) && !segue_dtype_row(field->dtype)->bits)
		rc = state_save(self, (size_t)i, field, args[1], NULL);
	if (rc > 0)
		rc = state_save_array(self, (size_t)i, field, args[1]);
	if (rc)
		return NULL;
	Py_RETURN_NONE;
}

/* commit(wait=False): whether to wait. False: an exception is set. */
static bool commit_arguments(
	struct batch *self, PyObject *const *args, Py_ssize_t count, PyObject *names, int *wait)
{
	Py_ssize_t named = names ? PyTuple_Size(names) : 0;

	*wait = 0;
	if (count + named == 0)
		return true;
	if (count + named > 1 || (named == 1 && PyUnicode_CompareWithASCIIString(
							PyTuple_GetItem(names, 0), "wait") != 0)) {
		PyErr_SetString(PyExc_TypeError, "commit() takes one argument, wait");
		return false;
	}
	*wait = PyObject_IsTrue(args[0]);
	if (*wait > 0 && !self->shape->persist) {
		fail_with("EINVAL",
			"commit(wait=True): the stream was opened with persist=False: nothing of "
			"it is stored, so there is nothing to wait for");
		return false;
	}
	return *wait >= 0;
}

/* Memory of its own goes to the buffer: it holds what was saved, and what was written since. */
static int save_own(const struct batch *self, struct segue_batch *handle)
{
	int rc = 0;

	for (size_t i = 0; i < self->shape->state_count && !rc; i++)
		if (self->own[i])
			rc = segue_batch_save_state(handle, i, PyBytes_AsString(self->own[i]),
				(size_t)PyBytes_Size(self->own[i]));
	return rc;
}

static PyObject *batch_commit(
	struct batch *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	struct gate *gate = self->gate;
	struct lane *lane;
	struct slot *slot;
	int rc, wait;

	if (!commit_arguments(self, args, count, names, &wait) || !batch_enter(self, true))
		return NULL;
	slot = self->slot;
	lane = self->lane;           /* NULL: it is committed already, which the library says */
	Py_INCREF((PyObject *)slot); /* another thread may release the batch meanwhile */
	Py_XINCREF((PyObject *)lane);
	rc = self->committed || !segue_batch_all_saved(slot->handle) ? 0
								     : save_own(self, slot->handle);
	wait_begin(gate);
	if (rc == 0)
		rc = segue_batch_commit(slot->handle);
	if (rc == 0 && wait)
		rc = segue_lane_flush(lane->handle, SEGUE_FOREVER);
	wait_end(gate);
	self->committed = segue_batch_committed(slot->handle);
	if (rc < 0)
		fail(rc);
	leave(gate);
	/* Also where the commit stands and the wait for the disk has failed. */
	if (self->committed && self->in)
		freeze(self);
	if (self->committed)
		Py_CLEAR(self->lane);
	Py_DECREF((PyObject *)slot);
	Py_XDECREF((PyObject *)lane);
	if (PyErr_Occurred())
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *batch_release(struct batch *self, PyObject *Py_UNUSED(none))
{
	batch_forget(self);
	Py_RETURN_NONE;
}

static PyObject *batch_lose(struct batch *self, PyObject *to)
{
	put_back(self);
	Py_INCREF(to);
	PyObject *before = self->lost;
	self->lost = to;
	Py_XDECREF(before);
	Py_RETURN_NONE;
}

static PyObject *batch_repr(struct batch *self)
{
	return PyUnicode_FromFormat("<segue.Batch: step %llu of lane %u, %u rows%s%s>", self->step,
		self->lane_index, self->rows, self->committed ? ", committed" : "",
		self->slot ? "" : ", released");
}

/* ---- Ends of calls -------------------------------------------------------------------------- */

/* Lets go of the lock: None, or what the library said, or a callback of it raised. */
static PyObject *leave_with_none(struct gate *gate, int rc)
{
	if (rc < 0)
		fail(rc);
	leave(gate);
	if (PyErr_Occurred())
		return NULL;
	Py_RETURN_NONE;
}

/* As leave_with_none, with bytes that the library allocated; frees them. */
static PyObject *leave_with_bytes(struct gate *gate, int rc, void *data, size_t size)
{
	PyObject *bytes = NULL;

	if (rc < 0)
		fail(rc);
	else if (!PyErr_Occurred())
		bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
	segue_free(data);
	leave(gate);
	return bytes;
}

/* (token, needs, first) of a token that has just been taken. */
static PyObject *leave_with_token(
	struct gate *gate, const struct segue_stream *stream, int rc, void *token, size_t size)
{
	uint64_t needs, first;

	segue_stream_token_needs(stream, &needs, &first);
	PyObject *bytes = leave_with_bytes(gate, rc, token, size);
	return bytes ? Py_BuildValue(
			       "(NKK)", bytes, (unsigned long long)needs, (unsigned long long)first)
		     : NULL;
}

/* ---- Lane ----------------------------------------------------------------------------------- */

static bool lane_enter(struct lane *self)
{
	struct gate *gate = self->stream->client->gate;

	if (!enter(gate))
		return false;
	if (self->handle)
		return true;
	fail_with("ECLOSED", "lane %u is closed", self->index);
	leave(gate);
	return false;
}

static void lane_leave(struct lane *self)
{
	leave(self->stream->client->gate);
}

static void lane_dealloc(struct lane *self)
{
	struct stream *stream = self->stream;

	if (stream) {
		for (struct lane **at = &stream->lanes; *at; at = &(*at)->next)
			if (*at == self) {
				*at = self->next;
				break;
			}
		while (self->slots)
			slot_unlink(self->slots);
		if (self->handle)
			finish_soon(stream->client->gate, finish_lane, self->handle,
				(PyObject *)stream);
		Py_DECREF((PyObject *)stream);
	}
	free_object(self);
}

/* Seconds as a number, or None for ever; `least` is what 0 becomes. False: an exception is set. */
static bool nanoseconds(PyObject *timeout, int64_t least, int64_t *out)
{
	double seconds;

	*out = SEGUE_FOREVER;
	if (timeout == Py_None)
		return true;
	seconds = PyFloat_AsDouble(timeout);
	if (seconds == -1.0 && PyErr_Occurred())
		return false;
	if (!(seconds >= 0)) {
		fail_with("EINVAL", "timeout: %R is not a number of seconds, 0 or more", timeout);
		return false;
	}
	if (seconds < 9e9) {
		*out = (int64_t)(seconds * 1e9);
		if (*out < least)
			*out = least;
	}
	return true;
}

struct taking {
	struct lane *lane;
	struct segue_batch *batch;
};

static int take_next(void *arg, int64_t timeout_ns)
{
	struct taking *taking = arg;
	struct stream *stream = taking->lane->stream;

	stream->client->watch = stream->watch;
	int rc = segue_lane_next(taking->lane->handle, timeout_ns, &taking->batch);
	stream->client->watch = NULL;
	return rc;
}

static bool enter_to_take(void *arg)
{
	return lane_enter(((struct taking *)arg)->lane);
}

static PyObject *lane_next(struct lane *self, PyObject *timeout)
{
	struct taking taking = {.lane = self};
	const struct segue_py_turns turns = {take_next, enter_to_take, &taking};
	struct batch *batch = NULL;
	int64_t limit;
	bool held;
	int rc;

	if (!nanoseconds(timeout, 0, &limit) || !lane_enter(self))
		return NULL;
	rc = wait_in_turns(self->stream->client, &turns, limit, &held);
	if (!held)
		return NULL;
	if (rc == 0)
		batch = batch_new(self, taking.batch);
	else if (rc != SEGUE_EEND)
		fail(rc);
	if (batch && PyErr_Occurred()) /* what a progress callback raised */
		segue_batch_untake(taking.batch);
	lane_leave(self);
	if (PyErr_Occurred()) {
		Py_XDECREF((PyObject *)batch);
		return NULL;
	}
	if (rc == SEGUE_EEND)
		Py_RETURN_NONE;
	return (PyObject *)batch;
}

static PyObject *lane_begin(struct lane *self, PyObject *Py_UNUSED(none))
{
	self->began = self->taken;
	Py_RETURN_NONE;
}

static PyObject *lane_pass(struct lane *self, PyObject *Py_UNUSED(none))
{
	if (!lane_enter(self))
		return NULL;
	segue_follow_pass(self->handle);
	lane_leave(self);
	Py_RETURN_NONE;
}

static PyObject *lane_leave_open(struct lane *self, PyObject *Py_UNUSED(none))
{
	if (!lane_enter(self))
		return NULL;
	segue_follow_leave(self->handle);
	lane_leave(self);
	Py_RETURN_NONE;
}

/*
 * Arrays that a loop before this one has left (in a traceback, in Out[]) keep no place in the ring:
 * if there are any, the lane gets new memory.
 */
static PyObject *lane_leave_behind(struct lane *self, PyObject *Py_UNUSED(none))
{
	struct gate *gate = self->stream->client->gate;
	bool old = false;
	int rc = 0;

	if (!lane_enter(self))
		return NULL;
	for (const struct slot *slot = self->slots; slot; slot = slot->next)
		old = old || slot->number < self->began;
	if (old) {
		wait_begin(gate);
		rc = segue_lane_renew(self->handle);
		wait_end(gate);
	}
	while (old && rc == 0 && self->slots)
		slot_unlink(self->slots);
	return leave_with_none(gate, rc);
}

/* Arrays that are held lie in memory that is no longer the lane's. */
static PyObject *lane_set_batch_size(struct lane *self, PyObject *size)
{
	struct gate *gate = self->stream->client->gate;
	long long rows = PyLong_AsLongLong(size);

	if (rows == -1 && PyErr_Occurred())
		return NULL;
	if (rows < 0 || rows > UINT32_MAX)
		return fail_with("EINVAL", "batch_size: %R is not a number of rows", size);
	if (!lane_enter(self))
		return NULL;
	uint32_t before = segue_lane_batch_size(self->handle);
	wait_begin(gate);
	int rc = segue_lane_set_batch_size(self->handle, (uint32_t)rows);
	wait_end(gate);
	while (rc == 0 && before != (uint32_t)rows && self->slots)
		slot_unlink(self->slots);
	return leave_with_none(gate, rc);
}

static PyObject *lane_checkpoint(struct lane *self, PyObject *Py_UNUSED(none))
{
	struct gate *gate = self->stream->client->gate;
	void *token = NULL;
	size_t size = 0;
	int rc;

	if (!lane_enter(self))
		return NULL;
	wait_begin(gate);
	rc = segue_lane_checkpoint(self->handle, &token, &size);
	wait_end(gate);
	return leave_with_token(gate, self->stream->handle, rc, token, size);
}

static PyObject *lane_checkpoint_of(struct lane *self, PyObject *args)
{
	struct gate *gate = self->stream->client->gate;
	PyObject *timeout;
	unsigned long long step;
	unsigned other;
	int64_t limit;
	void *token = NULL;
	size_t size = 0;
	int rc;

	if (!PyArg_ParseTuple(args, "IKO", &other, &step, &timeout) ||
		!nanoseconds(timeout, 0, &limit) || !lane_enter(self))
		return NULL;
	wait_begin(gate);
	rc = segue_lane_checkpoint_of(self->handle, other, step, limit, &token, &size);
	wait_end(gate);
	return leave_with_token(gate, self->stream->handle, rc, token, size);
}

static PyObject *lane_flush(struct lane *self, PyObject *timeout)
{
	struct gate *gate = self->stream->client->gate;
	int64_t limit;
	int rc;

	if (!nanoseconds(timeout, 0, &limit) || !lane_enter(self))
		return NULL;
	wait_begin(gate);
	rc = segue_lane_flush(self->handle, limit);
	wait_end(gate);
	return leave_with_none(gate, rc);
}

/* segue_lane_restore or segue_lane_check. */
static PyObject *lane_with_token(struct lane *self, PyObject *token,
	int (*call)(struct segue_lane *lane, const void *token, size_t size))
{
	struct gate *gate = self->stream->client->gate;
	PyObject *done;
	Py_buffer buffer;
	int rc;

	if (PyObject_GetBuffer(token, &buffer, PyBUF_SIMPLE) < 0)
		return NULL;
	if (!lane_enter(self)) {
		PyBuffer_Release(&buffer);
		return NULL;
	}
	wait_begin(gate);
	rc = call(self->handle, buffer.buf, (size_t)buffer.len);
	wait_end(gate);
	done = leave_with_none(gate, rc);
	PyBuffer_Release(&buffer);
	return done;
}

static PyObject *lane_restore(struct lane *self, PyObject *token)
{
	return lane_with_token(self, token, segue_lane_restore);
}

static PyObject *lane_check(struct lane *self, PyObject *token)
{
	return lane_with_token(self, token, segue_lane_check);
}

/* An exception says that what was committed is not on disk; the handle is closed all the same. */
static PyObject *lane_close(struct lane *self, PyObject *Py_UNUSED(none))
{
	if (self->handle && !is_forked(self->stream->client->gate)) {
		if (!enter(self->stream->client->gate))
			return NULL;
		struct failure failure = {0};
		close_lane(self, &failure);
		raise_failure(&failure);
		return leave_with_none(self->stream->client->gate, 0);
	}
	Py_RETURN_NONE;
}

/* Without a wait for another thread's call, nor an exception. */
static PyObject *lane_abandon(struct lane *self, PyObject *Py_UNUSED(none))
{
	struct segue_lane *handle = self->handle;

	self->handle = NULL;
	if (handle)
		finish_soon(
			self->stream->client->gate, finish_lane, handle, (PyObject *)self->stream);
	Py_RETURN_NONE;
}

static PyObject *lane_number(struct lane *self, void *closure)
{
	unsigned long long number = 0;
	uint64_t waits, wakes, steps;

	if (!lane_enter(self))
		return NULL;
	switch (*(const char *)closure) {
	case 'a':
		number = segue_lane_asks(self->handle);
		break;
	case 'b':
		number = segue_lane_batch_size(self->handle);
		break;
	case 'c':
		number = segue_lane_committed(self->handle);
		break;
	case 'd':
		number = segue_lane_durable(self->handle);
		break;
	case 'u':
		number = segue_lane_undelivered(self->handle);
		break;
	case 's':
		number = segue_lane_skipped(self->handle);
		break;
	case 't':
		segue_lane_steps(self->handle, &steps, NULL);
		number = steps;
		break;
	case 'v':
		segue_lane_steps(self->handle, NULL, &steps);
		number = steps;
		break;
	case 'w':
		number = segue_lane_waited(self->handle);
		break;
	default:
		segue_lane_wakes(self->handle, &waits, &wakes);
		number = *(const char *)closure == 'n' ? waits : wakes;
	}
	lane_leave(self);
	return PyLong_FromUnsignedLongLong(number);
}

static PyObject *lane_index(struct lane *self, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLong(self->index);
}

static PyObject *lane_closed(struct lane *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(!self->handle);
}

/* ---- Stream --------------------------------------------------------------------------------- */

static bool stream_enter(struct stream *self)
{
	if (!enter(self->client->gate))
		return false;
	if (!self->closed)
		return true;
	fail_with("ECLOSED", "the stream is closed");
	leave(self->client->gate);
	return false;
}

static void shape_dealloc(struct shape *self)
{
	size_t fields = self->sequence_count + self->context_count + self->state_count;

	for (size_t i = 0; i < fields && self->fields; i++)
		Py_XDECREF(self->fields[i].name);
	PyMem_Free(self->fields);
	Py_XDECREF(self->state_index);
	Py_XDECREF(self->states);
	free_object(self);
}

static void stream_dealloc(struct stream *self)
{
	struct client *client = self->client;

	if (client) {
		for (struct stream **at = &client->streams; *at; at = &(*at)->next)
			if (*at == self) {
				*at = self->next;
				break;
			}
		if (self->handle)
			finish_soon(client->gate, finish_stream, self->handle, (PyObject *)client);
		Py_DECREF((PyObject *)client);
	}
	Py_XDECREF((PyObject *)self->shape);
	Py_XDECREF(self->watch);
	free_object(self);
}

static PyObject *stream_lane(struct stream *self, PyObject *args)
{
	struct segue_attach_options options = {.size = sizeof(options)};
	struct segue_lane *handle = NULL;
	struct lane *lane = NULL;
	Py_buffer token = {0};
	PyObject *timeout;
	unsigned index;
	int start, take, rc;

	if (!PyArg_ParseTuple(args, "Iiz*OpzII", &index, &start, &token, &timeout, &take,
		    &options.group, &options.replica, &options.replicas))
		return NULL;
	if (!nanoseconds(timeout, 1, &options.timeout_ns) || !stream_enter(self))
		goto out;
	options.start = (enum segue_start)start;
	options.token = token.buf;
	options.token_size = (size_t)token.len;
	options.take = take;
	wait_begin(self->client->gate);
	rc = segue_lane_attach(self->handle, index, &options, &handle);
	wait_end(self->client->gate);
	if (rc < 0) {
		fail(rc);
	} else {
		self->children++;
		lane = PyErr_Occurred() ? NULL : new_object(lane_type);
		if (!lane)
			finish_lane(handle, (PyObject *)self);
	}
	if (lane) {
		Py_INCREF((PyObject *)self);
		lane->stream = self;
		lane->handle = handle;
		lane->index = segue_lane_index(handle);
		lane->next = self->lanes;
		self->lanes = lane;
	}
	leave(self->client->gate);
out:
	if (token.obj)
		PyBuffer_Release(&token);
	return (PyObject *)lane;
}

enum { WAITED_MAX = 128 };

struct waiting {
	struct stream *stream;
	PyObject *lanes; /* a tuple */
	size_t which;
};

static int wait_for_lanes(void *arg, int64_t timeout_ns)
{
	struct waiting *waiting = arg;
	struct segue_lane *handles[WAITED_MAX];
	Py_ssize_t count = PyTuple_Size(waiting->lanes);

	for (Py_ssize_t i = 0; i < count; i++)
		handles[i] = ((struct lane *)PyTuple_GetItem(waiting->lanes, i))->handle;
	waiting->stream->client->watch = waiting->stream->watch;
	int rc = segue_lanes_wait(handles, (size_t)count, timeout_ns, &waiting->which);
	waiting->stream->client->watch = NULL;
	return rc;
}

static bool enter_to_wait(void *arg)
{
	struct waiting *waiting = arg;

	if (!stream_enter(waiting->stream))
		return false;
	for (Py_ssize_t i = 0; i < PyTuple_Size(waiting->lanes); i++) {
		const struct lane *lane = (struct lane *)PyTuple_GetItem(waiting->lanes, i);
		if (lane->handle)
			continue;
		fail_with("ECLOSED", "lane %u is closed", lane->index);
		leave(waiting->stream->client->gate);
		return false;
	}
	return true;
}

static bool are_lanes(const struct stream *self, PyObject *lanes)
{
	Py_ssize_t count = PyTuple_Size(lanes);
	bool right = count > 0 && count <= WAITED_MAX;

	for (Py_ssize_t i = 0; i < count && right; i++) {
		PyObject *lane = PyTuple_GetItem(lanes, i);
		right = Py_TYPE(lane) == (PyTypeObject *)lane_type &&
			((struct lane *)lane)->stream == self;
	}
	return right;
}

/* The first of the lanes whose next() would not wait; None: something is asked of one. */
static PyObject *stream_wait(struct stream *self, PyObject *args)
{
	struct waiting waiting = {.stream = self};
	const struct segue_py_turns turns = {wait_for_lanes, enter_to_wait, &waiting};
	PyObject *timeout;
	int64_t limit;
	bool held;

	if (!PyArg_ParseTuple(args, "O!O", &PyTuple_Type, &waiting.lanes, &timeout))
		return NULL;
	if (!are_lanes(self, waiting.lanes))
		return fail_with(
			"EINVAL", "wait: 1 to %d lanes of the stream are wanted", WAITED_MAX);
	if (!nanoseconds(timeout, 0, &limit) || !enter_to_wait(&waiting))
		return NULL;
	int rc = wait_in_turns(self->client, &turns, limit, &held);
	if (!held)
		return NULL;
	if (rc < 0)
		fail(rc);
	leave(self->client->gate);
	if (PyErr_Occurred())
		return NULL;
	if (waiting.which >= (size_t)PyTuple_Size(waiting.lanes))
		Py_RETURN_NONE;
	PyObject *lane = PyTuple_GetItem(waiting.lanes, (Py_ssize_t)waiting.which);
	Py_INCREF(lane);
	return lane;
}

static PyObject *stream_close(struct stream *self, PyObject *Py_UNUSED(none))
{
	if (!self->closed && !is_forked(self->client->gate)) {
		if (!enter(self->client->gate))
			return NULL;
		struct failure failure = {0};
		close_stream(self, &failure);
		raise_failure(&failure);
		return leave_with_none(self->client->gate, 0);
	}
	Py_RETURN_NONE;
}

static PyObject *stream_records(struct stream *self, void *Py_UNUSED(closure))
{
	unsigned long long records;

	if (!stream_enter(self))
		return NULL;
	records = segue_stream_records(self->handle);
	leave(self->client->gate);
	return PyLong_FromUnsignedLongLong(records);
}

static PyObject *stream_closed(struct stream *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(self->closed);
}

static PyObject *stream_end_input(struct stream *self, PyObject *Py_UNUSED(none))
{
	struct gate *gate = self->client->gate;
	struct segue_stream *handle;
	int rc;

	if (!segue_py_stream_enter((PyObject *)self, &handle))
		return NULL;
	wait_begin(gate);
	rc = segue_stream_end_input(handle);
	wait_end(gate);
	return leave_with_none(gate, rc);
}

static PyObject *stream_fail_input(struct stream *self, PyObject *reason)
{
	struct gate *gate = self->client->gate;
	const char *text = PyUnicode_AsUTF8AndSize(reason, NULL);
	struct segue_stream *handle;
	int rc;

	if (!text || !segue_py_stream_enter((PyObject *)self, &handle))
		return NULL;
	wait_begin(gate);
	rc = segue_stream_fail_input(handle, text);
	wait_end(gate);
	return leave_with_none(gate, rc);
}

static PyObject *stream_watch(struct stream *self, PyObject *callable)
{
	if (!enter(self->client->gate)) /* a call that waits has it in use */
		return NULL;
	Py_XDECREF(self->watch);
	Py_INCREF(callable);
	self->watch = callable;
	return leave_with_none(self->client->gate, 0);
}

/* ---- What belongs to a stream, and has a file of its own ------------------------------------- */

bool segue_py_nanoseconds(PyObject *timeout, int64_t *out)
{
	return nanoseconds(timeout, 0, out);
}

bool segue_py_stream_enter(PyObject *stream, struct segue_stream **handle)
{
	struct stream *self = (struct stream *)stream;

	if (!enter(self->client->gate))
		return false;
	if (self->closed) {
		fail_with("ECLOSED", "the stream is closed");
		leave(self->client->gate);
		return false;
	}
	if (handle)
		*handle = self->handle;
	return true;
}

void segue_py_stream_leave(PyObject *stream)
{
	leave(((struct stream *)stream)->client->gate);
}

void segue_py_wait_begin(PyObject *stream)
{
	wait_begin(((struct stream *)stream)->client->gate);
}

void segue_py_wait_end(PyObject *stream)
{
	wait_end(((struct stream *)stream)->client->gate);
}

int segue_py_stream_wait(
	PyObject *stream, const struct segue_py_turns *turns, int64_t timeout, bool *held)
{
	return wait_in_turns(((struct stream *)stream)->client, turns, timeout, held);
}

void segue_py_stream_adopt(PyObject *stream)
{
	((struct stream *)stream)->children++;
}

struct ward {
	void (*finish)(void *handle);
	void *handle;
};

static void finish_ward(void *arg, PyObject *parent)
{
	struct ward *ward = arg;

	ward->finish(ward->handle);
	free(ward);
	lane_ended((struct stream *)parent);
}

void segue_py_stream_finish(PyObject *stream, void (*finish)(void *handle), void *handle)
{
	struct ward *ward = malloc(sizeof(*ward));

	if (!ward)
		return; /* the handle leaks: better than to free it under a running call */
	*ward = (struct ward){finish, handle};
	finish_soon(((struct stream *)stream)->client->gate, finish_ward, ward, stream);
}

/* ---- Opening a stream: the spec from Python's objects ---------------------------------------- */

/* The UTF-8 of a name, owned by it, or NULL with an exception. */
static const char *name_text(PyObject *name)
{
	Py_ssize_t size;
	const char *text = PyUnicode_AsUTF8AndSize(name, &size);

	if (text && strlen(text) != (size_t)size)
		return fail_with("EINVAL", "name %R holds a NUL", name);
	return text;
}

static bool told(int rc)
{
	if (rc)
		fail(rc);
	return rc == 0;
}

/*
 * Reads (name, dtype, dims, init or form), what spec._named makes, as a state, which a feature is
 * too, and which may have (policy, probability) behind; it points into the item.
 */
static bool field_read(struct field *field, PyObject *item, struct segue_state *out)
{
	PyObject *text, *sizes, *init;
	int dtype, policy = SEGUE_POLICY_CARRY;

	*out = (struct segue_state){.size = sizeof(*out)};
	if (!PyArg_ParseTuple(item, "UiO!O|id", &text, &dtype, &PyTuple_Type, &sizes, &init,
		    &policy, &out->probability))
		return false;
	out->policy = (enum segue_policy)policy;
	out->name = name_text(text);
	if (!out->name)
		return false;
	out->dtype = field->dtype = (enum segue_dtype)dtype;
	field->rank = (int)PyTuple_Size(sizes);
	out->rank = (uint32_t)field->rank;
	if (field->rank > SEGUE_RANK_MAX) {
		fail_with("EINVAL", "'%U' has %d dimensions; at most %d are possible", text,
			field->rank, SEGUE_RANK_MAX);
		return false;
	}
	for (int i = 0; i < field->rank; i++) {
		field->dims[i] = PyLong_AsSsize_t(PyTuple_GetItem(sizes, i));
		if (field->dims[i] == -1 && PyErr_Occurred())
			return false;
		out->dims[i] = (uint64_t)field->dims[i];
	}
	out->init = PyBytes_Check(init) ? PyBytes_AsString(init) : NULL;
	out->init_from_data = PyUnicode_Check(init);
	if (PyLong_Check(init))
		field->form = (enum segue_form)PyLong_AsLong(init);
	Py_INCREF(text);
	field->name = text;
	return true;
}

static bool feature_add(struct segue_spec *spec, bool context, struct field *field, PyObject *item)
{
	struct segue_feature feature = {.size = sizeof(feature)};
	struct segue_state read;

	if (!field_read(field, item, &read))
		return false;
	feature.name = read.name;
	feature.dtype = read.dtype;
	feature.rank = read.rank;
	feature.form = field->form;
	memcpy(feature.dims, read.dims, sizeof(feature.dims));
	return told(context ? segue_spec_add_context(spec, &feature)
			    : segue_spec_add_sequence(spec, &feature));
}

static bool state_add(
	struct segue_spec *spec, struct shape *shape, struct field *field, PyObject *item, size_t i)
{
	struct segue_state state;
	PyObject *index;
	bool done;

	if (!field_read(field, item, &state) || !told(segue_spec_add_state(spec, &state)))
		return false;
	index = PyLong_FromSize_t(i);
	done = index && PyDict_SetItem(shape->state_index, field->name, index) == 0;
	Py_XDECREF(index);
	return done;
}

/* Adds what is in the three lists to the spec, and to the shape. */
static bool fields_add(struct segue_spec *spec, struct shape *shape, PyObject *const lists[3])
{
	size_t count[3], all = 0;
	struct field *field;
	bool done = true;

	for (int list = 0; list < 3; list++)
		all += count[list] = (size_t)PyList_Size(lists[list]);
	shape->sequence_count = count[0];
	shape->context_count = count[1];
	shape->state_count = count[2];
	shape->fields = PyMem_Calloc(all + 1, sizeof(*shape->fields));
	shape->state_index = PyDict_New();
	if (!shape->fields || !shape->state_index) {
		PyErr_NoMemory();
		return false;
	}
	field = shape->fields;
	for (int list = 0; list < 3; list++)
		for (size_t i = 0; done && i < count[list]; i++, field++) {
			PyObject *item = PyList_GetItem(lists[list], (Py_ssize_t)i);

			done = list < 2 ? feature_add(spec, list == 1, field, item)
					: state_add(spec, shape, field, item, i);
		}
	return done;
}

static bool options_read(struct segue_spec *spec, PyObject *dict, const struct segue_option *list)
{
	for (const struct segue_option *option = list; option->name; option++) {
		PyObject *value = PyDict_GetItemString(dict, option->name);

		if (!value) {
			fail_with("EINVAL", "option %s is missing", option->name);
			return false;
		}
		if (option->kind == SEGUE_OPTION_TEXT) {
			const char *text = value == Py_None ? NULL : name_text(value);

			if (PyErr_Occurred() || !told(segue_spec_set_text(spec, option->id, text)))
				return false;
			continue;
		}
		unsigned long long number = PyLong_AsUnsignedLongLong(value);
		if (PyErr_Occurred() || !told(segue_spec_set(spec, option->id, number)))
			return false;
	}
	return true;
}

static bool boundaries_read(struct segue_spec *spec, PyObject *dict)
{
	PyObject *list = PyDict_GetItemString(dict, "bucket_boundaries");
	uint64_t lengths[SEGUE_BOUNDARIES_MAX] = {0};
	Py_ssize_t count = list && PyList_Check(list) ? PyList_Size(list) : -1;

	if (count < 0) {
		fail_with("EINVAL", "option bucket_boundaries is missing");
		return false;
	}
	for (Py_ssize_t i = 0; i < count && i < SEGUE_BOUNDARIES_MAX; i++) {
		lengths[i] = PyLong_AsUnsignedLongLong(PyList_GetItem(list, i));
		if (PyErr_Occurred())
			return false;
	}
	return told(segue_spec_set_boundaries(spec, lengths, (size_t)count));
}

/* An item of the index of arrays, bytes or None: `size` bytes each, *count of them. */
static bool index_part(PyObject *index, Py_ssize_t i, size_t size, const void *out, size_t *count)
{
	PyObject *bytes = PyTuple_GetItem(index, i);
	void *at = NULL;

	if (!bytes)
		return false;
	if (bytes != Py_None) {
		at = PyBytes_AsString(bytes);
		if (!at)
			return false;
		if (count)
			*count = (size_t)PyBytes_Size(bytes) / size;
	}
	memcpy((void *)(uintptr_t)out, &at, sizeof(at));
	return true;
}

/* arrays.py lays the items out. */
_Static_assert(sizeof(struct segue_array) == 40 && offsetof(struct segue_array, offset) == 8 &&
		       offsetof(struct segue_array, file) == 24 &&
		       offsetof(struct segue_array, dtype) == 28 &&
		       offsetof(struct segue_array, big_endian) == 32,
	"as in arrays.py");
_Static_assert(sizeof(struct segue_array_sequence) == 16 &&
		       offsetof(struct segue_array_sequence, group) == 8,
	"as in arrays.py");

/* (part or None, the tuple that arrays.py makes): what spec._told makes. */
static bool index_add(struct segue_spec *spec, PyObject *item)
{
	struct segue_arrays arrays = {.size = sizeof(arrays)};
	PyObject *index;

	return PyArg_ParseTuple(item, "zO!", &arrays.part, &PyTuple_Type, &index) &&
	       index_part(index, 0, sizeof(arrays.group_steps[0]), &arrays.group_steps,
		       &arrays.group_count) &&
	       index_part(index, 1, sizeof(arrays.arrays[0]), &arrays.arrays, NULL) &&
	       index_part(index, 2, sizeof(arrays.sequences[0]), &arrays.sequences,
		       &arrays.sequence_count) &&
	       index_part(index, 3, 1, &arrays.keys, NULL) &&
	       index_part(index, 4, sizeof(arrays.key_ends[0]), &arrays.key_ends, NULL) &&
	       told(segue_spec_set_arrays(spec, &arrays));
}

static bool indexes_add(struct segue_spec *spec, PyObject *indexes)
{
	for (Py_ssize_t i = 0; i < PyList_Size(indexes); i++)
		if (!index_add(spec, PyList_GetItem(indexes, i)))
			return false;
	return true;
}

/* Paths and options, of the source or of the part that was added last. */
static bool source_tell(
	struct segue_spec *spec, const char *kind, PyObject *options, PyObject *paths)
{
	const struct segue_source_row *row = segue_source_row(segue_source_kind(kind));

	for (Py_ssize_t i = 0; i < PyList_Size(paths); i++) {
		const char *path = PyBytes_AsString(PyList_GetItem(paths, i));

		if (!path || !told(segue_spec_add_path(spec, path)))
			return false;
	}
	return options_read(spec, options, row->options);
}

/* (name, weight, epochs, kind, paths, options): what spec.Mix makes. */
static bool part_add(struct segue_spec *spec, PyObject *item)
{
	struct segue_mix_part part = {.size = sizeof(part)};
	PyObject *paths, *options;
	unsigned long long epochs;
	const char *kind;
	unsigned weight;

	if (!PyArg_ParseTuple(item, "sIKsO!O!", &part.name, &weight, &epochs, &kind, &PyList_Type,
		    &paths, &PyDict_Type, &options))
		return false;
	part.weight = weight;
	part.epochs = epochs;
	part.kind = segue_source_kind(kind);
	return told(segue_spec_add_part(spec, &part)) && source_tell(spec, kind, options, paths);
}

/* A mix has parts in the place of paths. */
static bool source_read(
	struct segue_spec *spec, const char *kind, PyObject *options, PyObject *paths)
{
	enum segue_source_kind number = segue_source_kind(kind);

	if (!number) {
		fail_with("EINVAL", "source: there is no kind %s", kind);
		return false;
	}
	if (!told(segue_spec_set_source(spec, number)))
		return false;
	if (number != SEGUE_SOURCE_MIX)
		return source_tell(spec, kind, options, paths);
	for (Py_ssize_t i = 0; i < PyList_Size(paths); i++)
		if (!part_add(spec, PyList_GetItem(paths, i)))
			return false;
	return true;
}

/*
 * Everything of the spec but features and states, which are in the lists, and indexes of arrays,
 * which come after those. as_it_is: as of segue_stream_open_as_it_is().
 */
static bool spec_read(PyObject *args, struct segue_spec **out, PyObject *lists[3],
	PyObject **indexes, int *as_it_is, PyObject **states)
{
	PyObject *paths, *source_options, *options;
	const char *name, *kind;

	if (!PyArg_ParseTuple(args, "szO!O!O!O!O!O!O!pO:stream", &name, &kind, &PyList_Type, &paths,
		    &PyList_Type, indexes, &PyDict_Type, &source_options, &PyList_Type, &lists[0],
		    &PyList_Type, &lists[1], &PyList_Type, &lists[2], &PyDict_Type, &options,
		    as_it_is, states))
		return false;
	/* Without a kind the source is that which the stream has. */
	return told(segue_spec_create(name, out)) &&
	       (!kind || source_read(*out, kind, source_options, paths)) &&
	       options_read(*out, options, segue_spec_options) && boundaries_read(*out, options);
}

static bool client_enter(struct client *self)
{
	if (!enter(self->gate))
		return false;
	if (!self->closed)
		return true;
	fail_with("ECLOSED", "the client is closed");
	leave(self->gate);
	return false;
}

/* The call itself, for a stream object that is complete but for its handle. */
static bool stream_open(
	struct client *self, struct stream *stream, const struct segue_spec *spec, bool as_it_is)
{
	struct segue_stream *handle = NULL;
	int rc;

	if (!client_enter(self))
		return false;
	wait_begin(self->gate);
	rc = as_it_is ? segue_stream_open_as_it_is(self->handle, spec, &handle)
		      : segue_stream_open(self->handle, spec, &handle);
	wait_end(self->gate);
	if (rc < 0) {
		fail(rc);
	} else if (PyErr_Occurred()) {
		segue_stream_close(handle);
	} else {
		Py_INCREF((PyObject *)self);
		stream->client = self;
		stream->handle = handle;
		stream->counted = true;
		stream->next = self->streams;
		self->streams = stream;
		self->children++;
	}
	leave(self->gate);
	return stream->handle != NULL;
}

static PyObject *client_stream(struct client *self, PyObject *args)
{
	struct segue_spec *spec = NULL;
	struct stream *stream = NULL;
	struct shape *shape = NULL;
	PyObject *lists[3], *indexes, *states;
	bool done = false;
	int as_it_is;

	if (spec_read(args, &spec, lists, &indexes, &as_it_is, &states))
		shape = new_object(shape_type);
	if (shape)
		stream = new_object(stream_type);
	if (stream) {
		Py_INCREF((PyObject *)shape);
		stream->shape = shape;
		shape->persist = spec->persist;
		shape->seed = spec->seed;
		Py_INCREF(states);
		shape->states = states;
		done = fields_add(spec, shape, lists) && indexes_add(spec, indexes) &&
		       stream_open(self, stream, spec, as_it_is);
	}
	segue_spec_destroy(spec);
	if (!done)
		Py_CLEAR(stream);
	Py_XDECREF((PyObject *)shape);
	return (PyObject *)stream;
}

/* ---- Finding a stream: the other way ---------------------------------------------------------- */

/* What spec._named makes of a feature or state, but for an initial value: `last`, which is taken. */
static PyObject *field_described(const struct segue_field *field, PyObject *last)
{
	PyObject *sizes = PyTuple_New((Py_ssize_t)field->rank);

	for (uint32_t d = 0; sizes && d < field->rank; d++) {
		PyObject *size = PyLong_FromUnsignedLongLong(field->dims[d]);

		if (!size || PyTuple_SetItem(sizes, (Py_ssize_t)d, size) < 0)
			Py_CLEAR(sizes);
	}
	if (!sizes || !last) {
		Py_XDECREF(sizes);
		Py_XDECREF(last);
		return NULL;
	}
	if (field->policy.kind == SEGUE_POLICY_CARRY)
		return Py_BuildValue("(siNN)", field->name, (int)field->dtype, sizes, last);
	return Py_BuildValue("(siNNid)", field->name, (int)field->dtype, sizes, last,
		(int)field->policy.kind, field->policy.probability);
}

/* The form of a feature; of a state None, "data", or True: a value that only its user has. */
static PyObject *last_of(const struct segue_spec *spec, const struct segue_field *field)
{
	size_t state = (size_t)(field - spec->states);

	if (!spec->states || field < spec->states || state >= spec->state_count)
		return PyLong_FromLong((long)field->form);
	if (field->from_data)
		return PyUnicode_FromString("data");
	return Py_BuildValue("O", segue_spec_wants_init(spec, state) ? Py_True : Py_None);
}

static PyObject *fields_described(
	const struct segue_spec *spec, const struct segue_field *fields, size_t count)
{
	PyObject *list = PyList_New((Py_ssize_t)count);

	for (size_t i = 0; list && i < count; i++) {
		PyObject *item = field_described(&fields[i], last_of(spec, &fields[i]));

		if (!item || PyList_SetItem(list, (Py_ssize_t)i, item) < 0)
			Py_CLEAR(list);
	}
	return list;
}

static PyObject *options_described(const struct segue_spec *spec)
{
	PyObject *options = PyDict_New();

	for (const struct segue_option *option = segue_spec_options; options && option->name;
		option++) {
		PyObject *value = PyLong_FromUnsignedLongLong(segue_option_get(option, spec));

		if (!value || PyDict_SetItemString(options, option->name, value) < 0)
			Py_CLEAR(options);
		Py_XDECREF(value);
	}
	PyObject *list = options ? PyList_New(0) : NULL;
	for (uint32_t i = 0; list && i < spec->boundaries.count; i++) {
		PyObject *length = PyLong_FromUnsignedLongLong(spec->boundaries.length[i]);

		if (!length || PyList_Append(list, length) < 0)
			Py_CLEAR(list);
		Py_XDECREF(length);
	}
	if (!list || PyDict_SetItemString(options, "bucket_boundaries", list) < 0)
		Py_CLEAR(options);
	Py_XDECREF(list);
	return options;
}

static PyObject *client_find(struct client *self, PyObject *args)
{
	struct segue_spec *spec = NULL;
	PyObject *found = NULL;
	const char *name;
	int rc;

	if (!PyArg_ParseTuple(args, "s", &name) || !client_enter(self))
		return NULL;
	wait_begin(self->gate);
	rc = segue_stream_find(self->handle, name, &spec);
	wait_end(self->gate);
	if (rc < 0)
		fail(rc);
	else if (!PyErr_Occurred())
		found = Py_BuildValue("(NNNN)",
			fields_described(spec, spec->sequences, spec->sequence_count),
			fields_described(spec, spec->contexts, spec->context_count),
			fields_described(spec, spec->states, spec->state_count),
			options_described(spec));
	segue_spec_destroy(spec);
	leave(self->gate);
	return found;
}

/* ---- Client --------------------------------------------------------------------------------- */

/* Bytes without a NUL among them, or None. */
static bool bytes_or_null(PyObject *object, const char **bytes)
{
	*bytes = object == Py_None ? NULL : PyBytes_AsString(object);
	return *bytes || object == Py_None;
}

static PyObject *client_report(struct client *self, PyObject *args)
{
	const char *stream, *key;
	char *json = NULL;
	PyObject *text = NULL;
	int what, rc;

	PyObject *key_bytes;

	if (!PyArg_ParseTuple(args, "izO", &what, &stream, &key_bytes) ||
		!bytes_or_null(key_bytes, &key) || !client_enter(self))
		return NULL;
	wait_begin(self->gate);
	rc = segue_client_report(self->handle, (enum segue_report)what, stream, key, &json);
	wait_end(self->gate);
	if (rc < 0) {
		fail(rc);
	} else {
		text = PyUnicode_DecodeUTF8(json, (Py_ssize_t)strlen(json), "replace");
		segue_free(json);
	}
	leave(self->gate);
	if (PyErr_Occurred())
		Py_CLEAR(text);
	return text;
}

static PyObject *client_checkpoint(struct client *self, PyObject *args)
{
	unsigned long long id;
	const char *stream, *group;
	void *token = NULL;
	size_t size = 0;
	unsigned lane;
	int rc;

	if (!PyArg_ParseTuple(args, "szIK", &stream, &group, &lane, &id) || !client_enter(self))
		return NULL;
	wait_begin(self->gate);
	rc = segue_client_checkpoint(self->handle, stream, group, lane, id, &token, &size);
	wait_end(self->gate);
	return leave_with_bytes(self->gate, rc, token, size);
}

static PyObject *client_drop(struct client *self, PyObject *args)
{
	const char *stream, *group;

	if (!PyArg_ParseTuple(args, "sz", &stream, &group) || !client_enter(self))
		return NULL;
	wait_begin(self->gate);
	int rc = group ? segue_client_group_drop(self->handle, stream, group)
		       : segue_client_stream_drop(self->handle, stream);
	wait_end(self->gate);
	return leave_with_none(self->gate, rc);
}

/* States that the library visits without the GIL: copies, made objects afterwards. */
struct found {
	struct found *next;
	struct segue_states states;
	char bytes[]; /* key, then states */
};

static int note_found(void *arg, const struct segue_states *states)
{
	struct found ***last = arg, *found;

	found = malloc(sizeof(*found) + states->key_size + states->bytes_size);
	if (!found)
		return SEGUE_ENOMEM;
	*found = (struct found){.states = *states};
	memcpy(found->bytes, states->key, states->key_size);
	memcpy(found->bytes + states->key_size, states->bytes, states->bytes_size);
	**last = found;
	*last = &found->next;
	return 0;
}

/* (key, kind, lane, step, number, all states of the row) of each. */
static PyObject *found_list(const struct found *found)
{
	PyObject *list = PyList_New(0);

	for (; list && found; found = found->next) {
		const struct segue_states *states = &found->states;
		PyObject *item = Py_BuildValue("(y#iIKKy#)", found->bytes,
			(Py_ssize_t)states->key_size, (int)states->kind, states->lane,
			(unsigned long long)states->step, (unsigned long long)states->number,
			found->bytes + states->key_size, (Py_ssize_t)states->bytes_size);

		if (!item || PyList_Append(list, item) < 0)
			Py_CLEAR(list);
		Py_XDECREF(item);
	}
	return list;
}

static PyObject *leave_with_found(struct gate *gate, int rc, struct found *found)
{
	PyObject *list = NULL;

	if (rc < 0)
		fail(rc);
	else if (!PyErr_Occurred())
		list = found_list(found);
	while (found) {
		struct found *next = found->next;
		free(found);
		found = next;
	}
	leave(gate);
	return list;
}

static PyObject *client_states_get(struct client *self, PyObject *args)
{
	struct found *found = NULL, **last = &found;
	const char *stream, *group, *key;
	int live;

	if (!PyArg_ParseTuple(args, "szyp", &stream, &group, &key, &live) || !client_enter(self))
		return NULL;
	wait_begin(self->gate);
	int rc = segue_states_get(self->handle, stream, group, key, live, note_found, &last);
	wait_end(self->gate);
	PyObject *list = leave_with_found(self->gate, rc, found), *first = NULL;
	if (list) {
		first = PyList_GetItem(list, 0);
		Py_XINCREF(first);
		Py_DECREF(list);
	}
	return first;
}

static PyObject *client_states_list(struct client *self, PyObject *args)
{
	struct found *found = NULL, **last = &found;
	struct segue_states_cursor cursor = {0};
	unsigned long long high, low;
	const char *stream, *group;
	unsigned lane;
	int live;

	if (!PyArg_ParseTuple(args, "szpIKK", &stream, &group, &live, &lane, &high, &low) ||
		!client_enter(self))
		return NULL;
	cursor.lane = lane;
	cursor.at[0] = high;
	cursor.at[1] = low;
	wait_begin(self->gate);
	int rc = segue_states_list(self->handle, stream, group, live, &cursor, note_found, &last);
	wait_end(self->gate);
	PyObject *list = leave_with_found(self->gate, rc, found);
	if (!list || cursor.done)
		return list ? Py_BuildValue("(NO)", list, Py_None) : NULL;
	return Py_BuildValue("(N(IKK))", list, cursor.lane, (unsigned long long)cursor.at[0],
		(unsigned long long)cursor.at[1]);
}

static PyObject *client_states_put(struct client *self, PyObject *args)
{
	const char *stream, *group, *key, *row;
	Py_ssize_t size;

	if (!PyArg_ParseTuple(args, "szyy#", &stream, &group, &key, &row, &size) ||
		!client_enter(self))
		return NULL;
	wait_begin(self->gate);
	int rc = segue_states_put(self->handle, stream, group, key, row, (size_t)size);
	wait_end(self->gate);
	return leave_with_none(self->gate, rc);
}

static PyObject *client_states_delete(struct client *self, PyObject *args)
{
	const char *stream, *group, *key;

	if (!PyArg_ParseTuple(args, "szy", &stream, &group, &key) || !client_enter(self))
		return NULL;
	wait_begin(self->gate);
	int rc = segue_states_delete(self->handle, stream, group, key);
	wait_end(self->gate);
	return leave_with_none(self->gate, rc);
}

static PyObject *client_stream_files(struct client *self, PyObject *args)
{
	const char *stream;
	char *paths = NULL;
	size_t size;

	if (!PyArg_ParseTuple(args, "s", &stream) || !client_enter(self))
		return NULL;
	wait_begin(self->gate);
	int rc = segue_stream_files(self->handle, stream, &paths, &size);
	wait_end(self->gate);
	return leave_with_bytes(self->gate, rc, paths, size);
}

/* As lane_close, for the first of the lanes. */
static PyObject *client_close(struct client *self, PyObject *Py_UNUSED(none))
{
	struct failure failure = {0};
	struct stream *stream;

	if (self->closed || is_forked(self->gate)) {
		self->closed = true;
		Py_RETURN_NONE;
	}
	if (!enter(self->gate))
		return NULL;
	self->closed = true;
	do { /* closing a stream lets other threads run, so the list is walked from the start */
		for (stream = self->streams; stream && stream->closed; stream = stream->next)
			;
		if (stream) {
			Py_INCREF((PyObject *)stream);
			close_stream(stream, &failure);
			Py_DECREF((PyObject *)stream);
		}
	} while (stream);
	settle_client(self);
	raise_failure(&failure);
	return leave_with_none(self->gate, 0);
}

static PyObject *client_closed(struct client *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(self->closed);
}

static int client_traverse(struct client *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE((PyObject *)self));
	Py_VISIT(self->progress);
	return 0;
}

static int client_clear(struct client *self)
{
	Py_CLEAR(self->progress);
	return 0;
}

/* Streams hold the client, so none is left here, and no call is running. */
static void client_dealloc(struct client *self)
{
	PyObject_GC_UnTrack(self);
	self->closed = true;
	if (self->gate && !is_forked(self->gate))
		settle_client(self);
	Py_XDECREF((PyObject *)self->gate);
	client_clear(self);
	free_object(self);
}

/* open(dir: bytes, socket: bytes | None, program: bytes | None, timeout, no_start, progress) */
static PyObject *module_open(PyObject *Py_UNUSED(module), PyObject *args)
{
	struct segue_open_options options = {
		.size = sizeof(options), .progress = on_progress, .interrupt = on_interrupt};
	PyObject *socket, *program, *timeout, *progress;
	struct segue_client *handle = NULL;
	struct client *self;
	const char *dir;
	int no_start, rc;

	if (!PyArg_ParseTuple(
		    args, "yOOOpO", &dir, &socket, &program, &timeout, &no_start, &progress) ||
		!bytes_or_null(socket, &options.socket_path) ||
		!bytes_or_null(program, &options.program) ||
		!nanoseconds(timeout, 1, &options.timeout_ns))
		return NULL;
	self = new_object(client_type);
	if (!self)
		return NULL;
	self->gate = gate_new();
	if (!self->gate) {
		Py_DECREF((PyObject *)self);
		return NULL;
	}
	if (progress != Py_None) {
		Py_INCREF(progress);
		self->progress = progress;
	}
	options.no_start = no_start;
	options.arg = self;
	lock_now(self->gate); /* nobody else has it: a callback must not use it */
	wait_begin(self->gate);
	rc = segue_open(dir, &options, &handle);
	wait_end(self->gate);
	self->handle = handle;
	if (rc < 0)
		fail(rc);
	leave(self->gate);
	if (PyErr_Occurred())
		Py_CLEAR(self);
	return (PyObject *)self;
}

/* ---- Types ---------------------------------------------------------------------------------- */

/* Function pointers of the types below differ only in what `self` points to. */
#define METHOD(function) (PyCFunction)(void (*)(void))(function)
#define SLOT(id, function)                                                                         \
	{                                                                                          \
		id, (void *)(function)                                                             \
	}
#define GET(name, function, doc, closure)                                                          \
	{                                                                                          \
		name, (getter)(void (*)(void))(function), NULL, doc, (void *)(uintptr_t)(closure)  \
	}

static PyMethodDef client_methods[] = {
	{"stream", METHOD(client_stream), METH_VARARGS, "Open a stream; see segue.client."},
	{"report", METHOD(client_report), METH_VARARGS, "report(what, stream, key) -> JSON text."},
	{"checkpoint", METHOD(client_checkpoint), METH_VARARGS,
		"checkpoint(stream, lane, id) -> bytes: a token that the store holds."},
	{"find", METHOD(client_find), METH_VARARGS,
		"find(stream) -> sequences, context, states, options, as stream() takes them."},
	{"files", METHOD(client_stream_files), METH_VARARGS,
		"files(stream): the paths of what was inserted, each ended by a NUL."},
	{"drop", METHOD(client_drop), METH_VARARGS, "drop(stream): all that the store has of it."},
	{"states_get", METHOD(client_states_get), METH_VARARGS,
		"states_get(stream, key, live) -> key, kind, lane, step, number, states."},
	{"states_list", METHOD(client_states_list), METH_VARARGS,
		"states_list(stream, live, lane, high, low) -> some of these, where to go on."},
	{"states_put", METHOD(client_states_put), METH_VARARGS,
		"states_put(stream, key, states): all states of a row."},
	{"states_delete", METHOD(client_states_delete), METH_VARARGS, "states_delete(stream, key)"},
	{"close", METHOD(client_close), METH_NOARGS, "Close it and all that came from it."},
	REDUCE,
	{0},
};
static PyGetSetDef client_getset[] = {
	GET("closed", client_closed, "bool", 0),
	{0},
};
static PyType_Slot gate_slots[] = {
	SLOT(Py_tp_dealloc, gate_dealloc),
	{0},
};
static PyType_Slot shape_slots[] = {
	SLOT(Py_tp_dealloc, shape_dealloc),
	{0},
};
static PyType_Slot client_slots[] = {
	SLOT(Py_tp_dealloc, client_dealloc),
	SLOT(Py_tp_traverse, client_traverse),
	SLOT(Py_tp_clear, client_clear),
	SLOT(Py_tp_methods, client_methods),
	SLOT(Py_tp_getset, client_getset),
	{0},
};

static PyMethodDef stream_methods[] = {
	{"lane", METHOD(stream_lane), METH_VARARGS,
		"lane(index, start, token, timeout, take, group, replica, replicas) -> Lane: takes "
		"its lease, or follows it."},
	{"wait", METHOD(stream_wait), METH_VARARGS,
		"wait(lanes, timeout) -> Lane: the first of this tuple whose next() would not "
		"wait; "
		"None: something is asked of one (Lane.asks)."},
	{"end_input", METHOD(stream_end_input), METH_NOARGS,
		"end_input(): nothing more is inserted."},
	{"fail_input", METHOD(stream_fail_input), METH_O,
		"fail_input(reason): nobody inserts, until a producer is opened again."},
	{"watch", METHOD(stream_watch), METH_O,
		"watch(callable): called while a batch is waited for; what it raises ends that."},
	{"close", METHOD(stream_close), METH_NOARGS, "Close it and its lanes."},
	REDUCE,
	{0},
};
static PyGetSetDef stream_getset[] = {
	GET("records", stream_records, "Records of the data set.", 0),
	GET("closed", stream_closed, "bool", 0),
	{0},
};
static PyType_Slot stream_slots[] = {
	SLOT(Py_tp_dealloc, stream_dealloc),
	SLOT(Py_tp_methods, stream_methods),
	SLOT(Py_tp_getset, stream_getset),
	{0},
};

static PyMethodDef lane_methods[] = {
	{"next", METHOD(lane_next), METH_O, "next(timeout) -> Batch, or None at the end."},
	{"checkpoint_of", METHOD(lane_checkpoint_of), METH_VARARGS,
		"checkpoint_of(lane, step, timeout) -> (token, needs, first): that of another lane "
		"of its group, at that step."},
	{"checkpoint", METHOD(lane_checkpoint), METH_NOARGS,
		"checkpoint() -> (token, needs, first): as segue_stream_token_needs() has them."},
	{"flush", METHOD(lane_flush), METH_O,
		"flush(timeout): wait until all that is committed is on disk."},
	{"restore", METHOD(lane_restore), METH_O, "restore(token)."},
	{"check", METHOD(lane_check), METH_O, "check(token): raises if restore would refuse it."},
	{"begin", METHOD(lane_begin), METH_NOARGS, "begin(): another loop begins."},
	{"go_past", METHOD(lane_pass), METH_NOARGS,
		"go_past(): a replica that follows is done with the batch that it has taken."},
	{"leave_open", METHOD(lane_leave_open), METH_NOARGS,
		"leave_open(): it leaves that one to replica 0, which commits it or takes it "
		"again."},
	{"leave_behind", METHOD(lane_leave_behind), METH_NOARGS,
		"leave_behind(): give arrays of the loops before no place in the ring."},
	{"set_batch_size", METHOD(lane_set_batch_size), METH_O,
		"set_batch_size(n): batches of n rows from the committed step on."},
	{"abandon", METHOD(lane_abandon), METH_NOARGS,
		"abandon(): close it, now or when the client is free, and say nothing."},
	{"close", METHOD(lane_close), METH_NOARGS,
		"close(): give the lease back. Raises if what was committed is not on disk."},
	REDUCE,
	{0},
};
static PyGetSetDef lane_getset[] = {
	GET("index", lane_index, "Index in the stream.", 0),
	GET("closed", lane_closed, "bool", 0),
	GET("asks", lane_number, "What the server asks of who holds it: ASKED_BACK, ASKED_MORE.",
		"a"),
	GET("batch_size", lane_number, "Rows that the next batch is to have.", "b"),
	GET("committed", lane_number, "Batches below this step are committed.", "c"),
	GET("durable", lane_number, "Batches below this step are on disk.", "d"),
	GET("undelivered", lane_number, "Segments that tail=\"stop\" left out.", "u"),
	GET("skipped", lane_number, "Records that were passed over.", "s"),
	GET("steps", lane_number, "Steps of the batches that were taken, rows by rows.", "t"),
	GET("steps_valid", lane_number, "Those of them that count.", "v"),
	GET("waited", lane_number, "Nanoseconds that next() waited.", "w"),
	GET("waits", lane_number, "Times that next() had to wait.", "n"),
	GET("wakes", lane_number, "Times that the server was woken.", "k"),
	{0},
};
static PyType_Slot lane_slots[] = {
	SLOT(Py_tp_dealloc, lane_dealloc),
	SLOT(Py_tp_methods, lane_methods),
	SLOT(Py_tp_getset, lane_getset),
	{0},
};

static PyType_Slot slot_slots[] = {
	SLOT(Py_tp_dealloc, slot_dealloc),
	{0},
};

static PyType_Slot view_slots[] = {
	SLOT(Py_tp_dealloc, view_dealloc),
	SLOT(Py_bf_getbuffer, view_getbuffer),
	SLOT(Py_tp_doc, "Memory of a batch, as a buffer; arrays over it keep the batch's slot."),
	{0},
};

/* clang-format off */
PyDoc_STRVAR(batch_doc,
"A batch of segments of different sequences, in shared memory.\n"
"\n"
"Features, states and ragged values are read-only views that share the memory of the batch\n"
"(that of `state_out` can be written to); they and the batch hold its place in the ring\n"
"until the last of them is gone. `mask`, `length` and what else tells of rows are read-only\n"
"copies, made when they are asked for. Views speak the buffer protocol and DLPack:\n"
"``torch.from_dlpack(array)`` copies nothing. The memory must not be used in a child after\n"
"``fork``.\n"
"\n"
"bfloat16 is ``ml_dtypes.bfloat16`` where that package is installed, else the bits as\n"
"uint16; by DLPack it is bfloat16.");

PyDoc_STRVAR(ragged_doc,
	"ragged(name)\n--\n\n"
	"Return values and offsets of a feature that is ragged, or bytes: a `Ragged`.\n\n"
	"Both are views of the batch's memory. Offsets are ``[rows, num_unroll + 1]``, of context\n"
	"``[rows + 1]``: step `t` of row `r` has ``values[offsets[r, t]:offsets[r, t + 1]]``.");
PyDoc_STRVAR(bytes_doc,
	"bytes(name)\n--\n\n"
	"Return an object array of the bytes of each step, made when it is asked for:\n"
	"``[rows, num_unroll]``, of context ``[rows]``. Behind the end of a sequence they are empty.");
PyDoc_STRVAR(state_doc,
"state($self, name, /)\n--\n\n"
"The state that comes in: the initial value in a sequence's first segment, else what was\n"
"saved with the segment before.\n"
"\n"
"Returns\n"
"-------\n"
"numpy.ndarray\n"
"    ``[batch_size, *shape]`` of the declared dtype, read only.\n"
"\n"
"Raises\n"
"------\n"
"StateNameError\n"
"    No such state (also a ``KeyError``).");

PyDoc_STRVAR(save_state_doc,
"save_state($self, name, value, /)\n--\n\n"
"Save the state that goes with the next segment of each row's sequence.\n"
"\n"
"Parameters\n"
"----------\n"
"name : str\n"
"value : array\n"
"    ``[batch_size, *shape]`` of exactly the declared dtype: a NumPy array, or anything with\n"
"    a buffer, ``__array__`` or ``__dlpack__``. Torch tensors are detached and fetched from\n"
"    their device. Copied into shared memory, unless it is the array from `state_out`.\n"
"    Of bfloat16 it is an array of ``ml_dtypes.bfloat16`` or of JAX, a tensor of PyTorch, or,\n"
"    where ml_dtypes is not installed, its bits as uint16.\n"
"\n"
"Raises\n"
"------\n"
"StateNameError, StateTypeError, StateShapeError\n"
"    Say what was expected and what came.\n"
"CommittedError\n"
"    The batch is committed.");

PyDoc_STRVAR(state_out_doc,
"state_out($self, name, /)\n--\n\n"
"Where a state goes out: compute into it, then ``save_state(name, array)`` copies nothing.\n"
"\n"
"Returns\n"
"-------\n"
"numpy.ndarray\n"
"    ``[batch_size, *shape]``, writable until the commit. Its content is undefined at first.\n"
"\n"
"Raises\n"
"------\n"
"StateNameError, CommittedError, FencedError");

PyDoc_STRVAR(commit_doc,
"commit($self, wait=False)\n--\n\n"
"Make the saved states and the advance to the next step true, all or nothing.\n"
"\n"
"Parameters\n"
"----------\n"
"wait : bool\n"
"    Return when the commit is on disk. If that fails the commit still stands: `Loader.flush`\n"
"    waits for it again.\n"
"\n"
"Raises\n"
"------\n"
"UnsavedError\n"
"    Names the states that are missing.\n"
"CommittedError, FencedError, StaleIterator\n"
"NoSpaceError, StoreError\n"
"    With `wait`: it is not on disk, and why.\n"
"ArgumentError\n"
"    `wait` of a stream with ``persist=False``; nothing was committed.");

PyDoc_STRVAR(release_doc,
"release($self, /)\n--\n\n"
"Let go of the memory now; arrays that are alive keep it until they are gone.\n"
"\n"
"A batch that was not committed is then no longer open: it is delivered again.");
/* clang-format on */

static PyMethodDef batch_methods[] = {
	{"ragged", METHOD(batch_ragged), METH_O, ragged_doc},
	{"bytes", METHOD(batch_bytes), METH_O, bytes_doc},
	{"state", METHOD(batch_state), METH_O, state_doc},
	{"save_state", METHOD(batch_save_state), METH_FASTCALL, save_state_doc},
	{"state_out", METHOD(batch_state_out), METH_O, state_out_doc},
	{"commit", METHOD(batch_commit), METH_FASTCALL | METH_KEYWORDS, commit_doc},
	{"release", METHOD(batch_release), METH_NOARGS, release_doc},
	{"_lose", METHOD(batch_lose), METH_O,
		"_lose(to): its lane has gone, which errors say; what was read of it stays."},
	REDUCE,
	{0},
};
static PyGetSetDef batch_getset[] = {
	GET("sequences", batch_features,
		"Mapping of name to ``[batch_size, num_unroll, *shape]``; with `trim`, and of "
		"whole\n"
		"sequences, there are only as many steps as the longest `length` in the batch.",
		0),
	GET("context", batch_features, "Mapping of name to ``[batch_size, *shape]``.", 1),
	GET("key", batch_keys,
		"list of bytes: ``<segment>_of_<segments>:<record key>`` of each row.", 0),
	GET("next_key", batch_keys,
		"list of bytes: key of the next segment, or ``STOP:<record key>``.", 1),
	GET("sequence", batch_meta, "int32 ``[batch_size]``: index of the segment, from 0.",
		SEQUENCE),
	GET("sequence_count", batch_meta, "int32 ``[batch_size]``: segments of the sequence.",
		SEQUENCE_COUNT),
	GET("length", batch_meta, "int32 ``[batch_size]``: valid steps here; 0 in an empty row.",
		LENGTH),
	GET("total_length", batch_meta, "int64 ``[batch_size]``: steps of the sequence.",
		TOTAL_LENGTH),
	GET("insertion_index", batch_meta,
		"int64 ``[batch_size]``: rank in which the sequence entered, from 0; -1 in an "
		"empty row.",
		INSERTION_INDEX),
	GET("epoch", batch_meta,
		"int64 ``[batch_size]``: epoch of the sequence, from 0; of an empty row: the epoch "
		"that it pads.",
		EPOCH),
	GET("part", batch_meta,
		"int32 ``[batch_size]``: which part of a `Mix` the sequence is of, from 0; else 0.",
		PART),
	GET("is_first", batch_meta, "bool ``[batch_size]``: first segment of its sequence.",
		IS_FIRST),
	GET("is_init", batch_meta, "The same as `is_first`, by TorchRL's name.", IS_FIRST),
	GET("is_last", batch_meta, "bool ``[batch_size]``: last segment of its sequence.", IS_LAST),
	GET("is_kept", batch_meta,
		"bool ``[batch_size]``: the row begins with states that were kept "
		"(``initial=\"kept\"``), not with initial values.",
		IS_KEPT),
	GET("mask", batch_meta, "bool ``[batch_size, num_unroll]``: steps that are not padding.",
		MASK),
	GET("seed", batch_meta,
		"int64 ``[batch_size]``: 63 random bits for each sequence, for augmentation that "
		"is\n"
		"the same after a resume and for any number of workers. From the stream's seed "
		"and\n"
		"`insertion_index` (docs/policy.md), so others each epoch; -1 in an empty row.",
		SEED),
	GET("segment_seed", batch_meta, "int64 ``[batch_size]``: the same for each segment.",
		SEGMENT_SEED),
	{"states", (getter)batch_states, (setter)batch_set_states,
		"All states, nested as they were declared (`Client.stream`): read-only views, the "
		"rows\n"
		"where `State.row_axis` says. To be set to what is nested alike: saves each, as\n"
		"`save_state`. Of a stream that was opened by its name alone a dict by path.",
		NULL},
	GET("step", batch_number, "int: index of the batch in its lane.", "s"),
	GET("lane", batch_number, "int: index of the lane.", "l"),
	GET("batch_size", batch_number, "int: rows of this batch.", "b"),
	GET("committed", batch_committed, "bool", 0),
	GET("released", batch_released, "bool: release() was called.", 0),
	GET("all_saved", batch_all_saved, "bool: every state of the stream was saved.", 0),
	{0},
};
static PyMemberDef batch_members[] = {
	{"__weaklistoffset__", T_PYSSIZET, offsetof(struct batch, weakrefs), READONLY, NULL},
	{0},
};
static PyType_Slot batch_slots[] = {
	SLOT(Py_tp_dealloc, batch_dealloc),
	SLOT(Py_tp_repr, batch_repr),
	SLOT(Py_mp_subscript, batch_subscript),
	SLOT(Py_tp_methods, batch_methods),
	SLOT(Py_tp_members, batch_members),
	SLOT(Py_tp_getset, batch_getset),
	SLOT(Py_tp_doc, batch_doc),
	{0},
};

#define PLAIN (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION)
static const struct {
	PyTypeObject **type;
	PyType_Spec spec;
} types[] = {
	{&gate_type, {"segue._segue.Gate", sizeof(struct gate), 0, PLAIN, gate_slots}},
	{&shape_type, {"segue._segue.Shape", sizeof(struct shape), 0, PLAIN, shape_slots}},
	{&client_type, {"segue._segue.Client", sizeof(struct client), 0, PLAIN | Py_TPFLAGS_HAVE_GC,
			       client_slots}},
	{&stream_type, {"segue._segue.Stream", sizeof(struct stream), 0, PLAIN, stream_slots}},
	{&lane_type, {"segue._segue.Lane", sizeof(struct lane), 0, PLAIN, lane_slots}},
	{&slot_type, {"segue._segue.Slot", sizeof(struct slot), 0, PLAIN, slot_slots}},
	{&batch_type, {"segue.Batch", sizeof(struct batch), 0, PLAIN, batch_slots}},
	{&view_type, {"segue._segue.View", sizeof(struct view), 0, PLAIN, view_slots}},
};

/* ---- Module --------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	int value;
} constants[] = {
	{"ASKED_BACK", SEGUE_LANE_ASKED_BACK},
	{"ASKED_MORE", SEGUE_LANE_ASKED_MORE},
	{"START_NONE", SEGUE_START_NONE},
	{"START_CONTINUE", SEGUE_START_CONTINUE},
	{"START_FRESH", SEGUE_START_FRESH},
	{"REPORT_STATUS", SEGUE_REPORT_STATUS},
	{"REPORT_INSPECT", SEGUE_REPORT_INSPECT},
	{"REPORT_GET", SEGUE_REPORT_GET},
	{"STATES_FINAL", SEGUE_STATES_FINAL},
	{"STATES_PUT", SEGUE_STATES_PUT},
	{"STATES_LIVE", SEGUE_STATES_LIVE},
	{"REPORT_VERIFY", SEGUE_REPORT_VERIFY},
	{"REPORT_BATCHES", SEGUE_REPORT_BATCHES},
};

/* DTYPES: {NumPy name: code}. */
static bool add_dtypes(PyObject *module)
{
	PyObject *dtypes = PyDict_New();
	bool done = dtypes != NULL;

	for (int dtype = 1; dtype <= (int)segue_dtype_last() && done; dtype++) {
		PyObject *code = PyLong_FromLong(dtype);
		done = code && PyDict_SetItemString(dtypes,
				       segue_dtype_name((enum segue_dtype)dtype), code) == 0;
		Py_XDECREF(code);
	}
	done = done && PyModule_AddObjectRef(module, "DTYPES", dtypes) == 0;
	Py_XDECREF(dtypes);
	return done;
}

/* An iterator had it; the frame is the one that iterates, and may be gone: it is not looked into. */
static void leaving_end(PyObject *leaving)
{
	PyObject *left = PyCapsule_GetPointer(leaving, NULL);

	/* While an exception goes through a frame it is set, and the frame drops its iterators. */
	if (!PyErr_Occurred() && (void *)PyEval_GetFrame() == PyCapsule_GetContext(leaving) &&
		PyList_Append(left, Py_None) < 0)
		PyErr_WriteUnraisable(left);
	Py_DECREF(left);
}

static PyObject *module_leaving(PyObject *Py_UNUSED(module), PyObject *arguments)
{
	PyObject *left, *frame, *leaving;

	if (!PyArg_ParseTuple(arguments, "OO", &left, &frame))
		return NULL;
	leaving = PyCapsule_New(left, NULL, leaving_end);
	if (!leaving)
		return NULL;
	Py_INCREF(left);
	if (PyCapsule_SetContext(leaving, frame) < 0)
		Py_CLEAR(leaving);
	return leaving;
}

/* What DLPack's ABI lays down of a tensor, and of what it travels in from version 1 on. */
struct dlpack_tensor {
	void *data;
	int32_t device, device_id, rank;
	uint8_t code, bits;
	uint16_t lanes;
};
struct dlpack_versioned {
	uint32_t major, minor;
	void *context;
	void (*deleter)(struct dlpack_versioned *self);
	uint64_t flags;
	struct dlpack_tensor tensor;
};
enum { DLPACK_UINT = 1, DLPACK_BFLOAT = 4 };

/* NULL: an exception is set. */
static struct dlpack_tensor *dlpack_tensor(PyObject *capsule)
{
	struct dlpack_versioned *versioned;

	if (PyCapsule_IsValid(capsule, "dltensor"))
		return PyCapsule_GetPointer(capsule, "dltensor");
	versioned = PyCapsule_GetPointer(capsule, "dltensor_versioned");
	if (versioned && versioned->major == 1)
		return &versioned->tensor;
	if (versioned)
		PyErr_Format(PyExc_BufferError, "DLPack version %u", (unsigned)versioned->major);
	return NULL;
}

/* NumPy takes and gives no bfloat16 by DLPack: it takes and gives their bits. */
static PyObject *module_relabel(PyObject *Py_UNUSED(module), PyObject *arguments)
{
	struct dlpack_tensor *tensor;
	PyObject *capsule;
	int as_bfloat16;

	if (!PyArg_ParseTuple(arguments, "Op", &capsule, &as_bfloat16))
		return NULL;
	tensor = dlpack_tensor(capsule);
	if (!tensor)
		return NULL;
	if (tensor->bits != 16 || tensor->lanes != 1 ||
		tensor->code != (as_bfloat16 ? DLPACK_UINT : DLPACK_BFLOAT)) {
		PyErr_SetString(PyExc_BufferError, "the elements are no bfloat16");
		return NULL;
	}
	tensor->code = as_bfloat16 ? DLPACK_BFLOAT : DLPACK_UINT;
	Py_INCREF(capsule);
	return capsule;
}

/* The names of a choice's values, in their order; None for other kinds. */
static PyObject *choices_of(const struct segue_option *option)
{
	PyObject *names, *name = NULL;

	if (option->kind != SEGUE_OPTION_CHOICE)
		Py_RETURN_NONE;
	names = PyTuple_New((Py_ssize_t)option->most + 1);
	for (uint64_t i = 0; names && i <= option->most; i++) {
		name = PyUnicode_FromString(option->choices[i]);
		if (!name || PyTuple_SetItem(names, (Py_ssize_t)i, name) < 0)
			Py_CLEAR(names);
	}
	return names;
}

/* {name: {"kind", "least", "most", "usual", "none", "unit", "choices"}} */
static PyObject *options_of(const struct segue_option *list)
{
	static const char *const kinds[] = {"flag", "number", "choice", "text"};
	PyObject *options = PyDict_New();

	for (const struct segue_option *option = list; options && option->name; option++) {
		PyObject *row = Py_BuildValue("{s:s,s:K,s:K,s:K,s:O,s:z,s:N}", "kind",
			kinds[option->kind], "least", (unsigned long long)option->least, "most",
			(unsigned long long)option->most, "usual",
			(unsigned long long)option->usual, "none",
			option->none ? Py_True : Py_False, "unit", option->unit, "choices",
			choices_of(option));
		if (!row || PyDict_SetItemString(options, option->name, row) < 0)
			Py_CLEAR(options);
		Py_XDECREF(row);
	}
	return options;
}

/* OPTIONS: those of a stream; SOURCES: {name of the kind: its options}. */
static bool add_options(PyObject *module)
{
	PyObject *options = options_of(segue_spec_options), *sources = PyDict_New();
	bool done = options && sources;
	const struct segue_source_row *row;

	/* Their numbers need not be without gaps. */
	for (unsigned kind = 1; done && kind < 16; kind++) {
		row = segue_source_row(kind);
		if (!row)
			continue;
		PyObject *own = options_of(row->options);
		done = own && PyDict_SetItemString(sources, row->name, own) == 0;
		Py_XDECREF(own);
	}
	done = done && PyModule_AddObjectRef(module, "OPTIONS", options) == 0 &&
	       PyModule_AddObjectRef(module, "SOURCES", sources) == 0;
	Py_XDECREF(options);
	Py_XDECREF(sources);
	return done;
}

static PyObject *import_from(const char *module_name, const char *name)
{
	PyObject *module = PyImport_ImportModule(module_name), *object = NULL;

	if (module)
		object = PyObject_GetAttrString(module, name);
	Py_XDECREF(module);
	return object;
}

static bool fill_module(PyObject *module)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		PyType_Spec spec = types[i].spec;
		*types[i].type = (PyTypeObject *)PyType_FromSpec(&spec);
		if (!*types[i].type || PyModule_AddType(module, *types[i].type) < 0)
			return false;
	}
	for (size_t i = 0; i < sizeof(constants) / sizeof(constants[0]); i++)
		if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
			return false;
	make_error = import_from("segue.errors", "make");
	state_name_error = import_from("segue.errors", "StateNameError");
	to_array = import_from("segue._arrays", "to_array");
	to_bits = import_from("segue._arrays", "to_bits");
	over_bits = import_from("segue._arrays", "over_bits");
	ragged_type = import_from("segue._arrays", "Ragged");
	to_bytes = import_from("segue._arrays", "to_bytes");
	features_type = import_from("segue._arrays", "Features");
	mismatch = import_from("segue._arrays", "mismatch");
	warn_put_back = import_from("segue._notice", "warn_put_back");
	numpy_asarray = import_from("numpy", "asarray");
	return make_error && state_name_error && to_array && to_bits && over_bits && mismatch &&
	       ragged_type && to_bytes && features_type && warn_put_back && numpy_asarray &&
	       add_dtypes(module) && add_options(module) && segue_py_add_file_writer(module) &&
	       segue_py_add_producer(module) &&
	       PyModule_AddStringConstant(module, "VERSION", segue_version()) == 0;
}

static PyMethodDef module_methods[] = {
	{"open", METHOD(module_open), METH_VARARGS,
		"open(dir, socket, program, timeout, no_start, progress) -> Client."},
	{"leaving", METHOD(module_leaving), METH_VARARGS,
		"leaving(left, frame): when what this returns goes, `left` gets an item if that is "
		"in `frame`, and no exception is on its way."},
	{"relabel", METHOD(module_relabel), METH_VARARGS,
		"relabel(capsule, as_bfloat16): the DLPack capsule, whose elements of 16 bits are "
		"then bfloat16, or uint16."},
	{"refuse_pickle", METHOD(refuse_pickle), METH_O, "refuse_pickle(thing): raises TypeError."},
	{0},
};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT,
	.m_name = "segue._segue",
	.m_doc = "libsegue; use the package segue.",
	.m_size = -1,
	.m_methods = module_methods,
};

PyMODINIT_FUNC PyInit__segue(void);

PyMODINIT_FUNC PyInit__segue(void)
{
	PyObject *module = PyModule_Create(&module_def);

	if (module && (!fill_module(module) || pthread_atfork(NULL, NULL, count_fork) != 0)) {
		if (!PyErr_Occurred())
			PyErr_NoMemory();
		Py_CLEAR(module);
	}
	return module;
}
