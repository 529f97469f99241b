/*
 * The structs behind the handles of segue.h, and the calls between the files of the library.
 *
 * client  one connection, made again when it is lost; `epoch` counts connections
 * stream  a spec, and the stream's id on the connection of its epoch
 * lane    a lease on the connection of its epoch, and what is needed to offer its last commit
 * mapping the segments of one lease; lives until the lane and all its batches have let go of it
 * batch   a place in its mapping
 *
 * All of a client is used by one thread at a time, so counts are plain. Work that needs the server
 * is an "attempt": a function that may be run again, from its start, on the next connection.
 */
#ifndef SEGUE_CLIENT_CLIENT_H
#define SEGUE_CLIENT_CLIENT_H

#include "client/connection.h"
#include "core/layout.h"
#include "core/shm.h"
#include "core/track.h"

#define SEGUE_REQUEST_NS INT64_C(30000000000) /* patience with simple requests */

/* ---- client.c ------------------------------------------------------------------------------- */

struct segue_client {
	struct segue_connection connection;
	struct segue_hooks hooks;
	char *dir, *socket_path; /* absolute */
	char *program;           /* NULL: to be found */
	bool own_socket;         /* socket_path was given */
	bool no_start;
	int64_t timeout_ns;
	uint64_t epoch;           /* of the live connection; 0: none yet */
	struct segue_lane *lanes; /* all that are open */
};

/* Losses of the server while one thing is being tried. */
struct segue_losses {
	int64_t first, last, delay;
};

/*
 * The server was lost: 0 if it should be tried again, at once the first time and after growing
 * pauses then. SEGUE_EGONE when that has been going on for the client's timeout, SEGUE_ETIMEOUT at
 * `deadline_ns`, SEGUE_EINTERRUPTED.
 */
int segue_client_lost(
	struct segue_client *client, struct segue_losses *losses, int64_t deadline_ns);

/*
 * Runs `attempt` on a live connection, and again on a new one whenever it comes back with
 * SEGUE_EGONE, as segue_client_lost() allows. A server that must be waited for is waited for until
 * `deadline_ns` at most: SEGUE_ETIMEOUT.
 */
int segue_client_run(
	struct segue_client *client, int64_t deadline_ns, int (*attempt)(void *arg), void *arg);

/* segue_connection_call() with the client's hooks. */
int segue_client_call(struct segue_client *client, struct segue_message *request,
	enum segue_message_type want, int64_t timeout_ns, struct segue_reply *reply);

/* Within an attempt: an upload of `size` > 0 bytes, mapped to be filled; then segue_shm_destroy. */
int segue_client_upload(
	struct segue_client *client, uint64_t size, struct segue_shm *out, uint64_t *id);
/* The same, filled with `bytes`. */
int segue_client_upload_bytes(
	struct segue_client *client, const void *bytes, size_t size, uint64_t *id);

/*
 * Within an attempt: a request that is answered by bytes. The caller frees them; a NUL follows the
 * last.
 */
int segue_client_fetch(struct segue_client *client, struct segue_message *request,
	int64_t timeout_ns, void **bytes, size_t *size);

/* ---- stream.c ------------------------------------------------------------------------------- */

/* What a stream's batches look like: shared by the stream and the mappings, freed by the last. */
struct segue_shape {
	unsigned users;
	struct segue_spec *spec;
	struct segue_geometry geometry;
	uint32_t key_max;
	uint64_t row_size; /* bytes of all states of one row */
	void **init;       /* per state: its initial value, one row; NULL: zeros */
};

void segue_shape_drop(struct segue_shape *shape);

struct segue_stream {
	struct segue_client *client;
	unsigned users; /* the handle, and each lane */
	struct segue_shape *shape;
	bool opened;    /* once: the shape's geometry is valid */
	uint64_t epoch; /* of the connection on which `id` is valid */
	uint64_t id;
	uint64_t records;
};

/* One user less; the last frees it. */
void segue_stream_drop(struct segue_stream *stream);
/* Within an attempt: opens the stream on this connection if that is not done yet. */
int segue_stream_ready(struct segue_stream *stream);

/* ---- mapping.c ------------------------------------------------------------------------------ */

struct segue_batch {
	struct segue_mapping *mapping;
	const struct segue_slot *slot;
	const uint32_t *previous; /* a row's row in the batch before, or SEGUE_NO_ROW */
	const struct segue_span *spans;
	uint64_t step;
	uint32_t rows, before; /* of it, and of the batch before: those that rows can come from */
	bool taken, committed;
	bool identity; /* every row goes on where it was: state in is the buffer itself */
	size_t saved;  /* how many states are */
	uint64_t is_saved[SEGUE_STATES_MAX / 64];
	uint64_t is_composed[SEGUE_STATES_MAX / 64];
};

struct segue_mapping {
	struct segue_fork_guard guard; /* fd: the eventfd that wakes the server */
	struct segue_lane *lane;
	struct segue_shape *shape;
	unsigned users; /* the lane, and each batch that is held */
	struct segue_shm ring, carry, page;
	struct segue_shm composed;        /* state in of rows that moved: buffer t % depth */
	void *carry_view, *composed_view; /* read-only mappings of the same */
	uint64_t granted;                 /* first batch of the lease */
	bool has_states;                  /* the carry came with the states after granted - 1 */
	struct segue_batch batches[];     /* batch t is t % depth */
};

/*
 * Maps what an ATTACHED reply brought, and takes its fds over, also when it fails. The caller is
 * the first user; the lane must outlive the mapping.
 */
int segue_mapping_create(
	struct segue_lane *lane, const struct segue_reply *reply, struct segue_mapping **out);
/* One user less; the last unmaps, and lets go of the lane. */
void segue_mapping_drop(struct segue_mapping *mapping);

static inline const struct segue_ring_header *segue_mapping_ring(
	const struct segue_mapping *mapping)
{
	return mapping->ring.map;
}

static inline const struct segue_lease_page *segue_mapping_page(const struct segue_mapping *mapping)
{
	return mapping->page.map;
}

static inline struct segue_carry_header *segue_mapping_carry(const struct segue_mapping *mapping)
{
	return mapping->carry.map;
}

/* ---- offer.c -------------------------------------------------------------------------------- */

/*
 * Private copies of the states of ended rows until they are on disk, in the form in which an offer
 * carries them: {u64 step, u64 number, u32 key_size, u32 0, key, states}, oldest first.
 */
struct segue_kept_rows {
	uint8_t *bytes;
	size_t begin, end, capacity;
};

/* Forgets rows of batches below `durable`, then appends the ended rows of `batch`. SEGUE_ENOMEM. */
int segue_kept_rows_add(
	struct segue_kept_rows *kept, const struct segue_batch *batch, uint64_t durable);
/* Takes the rows of `batch`, the last one, back. */
void segue_kept_rows_undo(struct segue_kept_rows *kept, const struct segue_batch *batch);
void segue_kept_rows_finish(struct segue_kept_rows *kept);

/* Within an attempt: uploads what the lane has to offer; *id is 0 if that is nothing. */
int segue_offer_upload(struct segue_lane *lane, uint64_t *id);

/* ---- lane.c --------------------------------------------------------------------------------- */

struct segue_lane {
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_lane *next; /* of the client's open lanes */
	uint32_t index;
	unsigned users; /* the handle, and each mapping */
	bool closed;    /* the handle is gone */
	bool fenced;    /* for good: somebody else has the lane */
	struct segue_mapping *mapping;
	struct segue_track track;
	uint64_t epoch; /* of the connection that the lease belongs to; 0: none */
	uint64_t lease, generation;
	uint8_t token[SEGUE_TOKEN_BYTES];
	unsigned unanswered; /* grants of ours that may lie between this one and the next */
	uint32_t rows;       /* of batch committed - 1; batch_size if not known */
	uint32_t held;       /* batches not released, of all mappings */
	uint64_t waited, waits, wakes;
	struct segue_kept_rows kept;
};

void segue_lane_drop(struct segue_lane *lane);

/* Within an attempt: makes sure of a lease on this connection, by an offer if there is none. */
int segue_lane_ready(struct segue_lane *lane);
/* Wakes the server. */
void segue_lane_ring(struct segue_lane *lane);
/*
 * After `commit` of batch `step` - 1: waits until it is on disk. Interruption and errors change
 * nothing about the commit.
 */
int segue_lane_wait_durable(struct segue_lane *lane, uint64_t step);
/* 0, or what the lease page says about storage. */
int segue_lane_check_storage(const struct segue_lane *lane);

/* ---- batch.c -------------------------------------------------------------------------------- */

/* Checks the slot of batch `step` and makes its handle: SEGUE_EPROTOCOL. */
int segue_batch_begin(struct segue_mapping *mapping, uint64_t step, struct segue_batch **out);
/* Fails with SEGUE_EUNSAVED, naming the states of the batch that are not saved. */
int segue_batch_fail_unsaved(const struct segue_batch *batch);

#endif
