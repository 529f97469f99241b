/*
 * Messages and stored records as plain structs, and their protobuf form. Only wire*.c see
 * protobuf-c.
 *
 * Unpacking allocates from an arena of bounded size: what an unpacked struct points to lies there
 * (or in the input) and dies when the arena is reset. Strings are NUL-terminated; every length,
 * count and enum is checked, and SEGUE_EPROTOCOL names the field. Repeated fields are capped
 * (features, states, dims, rows).
 */
#ifndef SEGUE_CORE_WIRE_H
#define SEGUE_CORE_WIRE_H

#include "core/arena.h"
#include "core/ends.h"
#include "core/frame.h"
#include "core/sequence_log.h"
#include "core/spec.h"

#define SEGUE_PROTOCOL    5
#define SEGUE_TOKEN_BYTES 16
#define SEGUE_ARENA_SIZE  (1u << 20)
/* Bits of `required`. Of streams: maximum_length and trim; policies of states; lanes_by. */
#define SEGUE_REQUIRES_LENGTHS  (UINT64_C(1) << 0)
#define SEGUE_REQUIRES_POLICY   (UINT64_C(1) << 1)
#define SEGUE_REQUIRES_LANES_BY (UINT64_C(1) << 2)
/* Of lanes and tokens: the position has a batch size of its own. */
#define SEGUE_REQUIRES_SIZED (UINT64_C(1) << 3)
/* Of streams: they have classes of lengths; of positions: sequences wait for theirs. */
#define SEGUE_REQUIRES_CLASSES (UINT64_C(1) << 4)
/* Of streams: rows that begin take up what was kept. */
#define SEGUE_REQUIRES_KEPT (UINT64_C(1) << 5)

/* Types of frames; the numbers are the protocol. */
enum segue_message_type {
	SEGUE_MESSAGE_HELLO = 1,
	SEGUE_MESSAGE_STREAM_OPEN = 2,
	SEGUE_MESSAGE_LANE_ATTACH = 3,
	SEGUE_MESSAGE_LANE_DETACH = 4,
	SEGUE_MESSAGE_UPLOAD = 5,
	SEGUE_MESSAGE_CHECKPOINT = 6,
	SEGUE_MESSAGE_REPORT = 7,
	SEGUE_MESSAGE_STORED = 9,
	SEGUE_MESSAGE_LANE_FLUSH = 12,
	SEGUE_MESSAGE_STREAM_CLOSE = 14,
	SEGUE_MESSAGE_STREAM_DROP = 15,
	SEGUE_MESSAGE_LANE_SIDE = 16,
	SEGUE_MESSAGE_PRODUCER_OPEN = 17,
	SEGUE_MESSAGE_INSERT = 18,
	SEGUE_MESSAGE_PRODUCER_WAIT = 19,
	SEGUE_MESSAGE_PRODUCER_LEAVE = 20,
	SEGUE_MESSAGE_STREAM_END = 21,
	SEGUE_MESSAGE_STREAM_FIND = 22,
	SEGUE_MESSAGE_INPUT_FAILED = 23,
	SEGUE_MESSAGE_STREAM_FILES = 24,
	SEGUE_MESSAGE_STATES = 25,
	SEGUE_MESSAGE_GROUP = 26,
	SEGUE_MESSAGE_LANE_FOLLOW = 30,
	SEGUE_MESSAGE_WELCOME = 65,
	SEGUE_MESSAGE_OPENED = 66,
	SEGUE_MESSAGE_ATTACHED = 67,
	SEGUE_MESSAGE_DONE = 68,
	SEGUE_MESSAGE_BULK = 69,
	SEGUE_MESSAGE_PROGRESS = 70,
	SEGUE_MESSAGE_FAILURE = 71,
	SEGUE_MESSAGE_PRODUCER_OPENED = 72,
	SEGUE_MESSAGE_ACKNOWLEDGED = 73,
	SEGUE_MESSAGE_FOUND = 74,
	SEGUE_MESSAGE_GROUPED = 75,
	SEGUE_MESSAGE_FOLLOWING = 80,
};

enum segue_states_request {
	SEGUE_STATES_REQUEST_GET = 1,
	SEGUE_STATES_REQUEST_LIST = 2,
	SEGUE_STATES_REQUEST_PUT = 3,
	SEGUE_STATES_REQUEST_DELETE = 4,
};

enum segue_attach_mode {
	SEGUE_ATTACH_NONE = 0, /* the first three are enum segue_start */
	SEGUE_ATTACH_CONTINUE = 1,
	SEGUE_ATTACH_FRESH = 2,
	SEGUE_ATTACH_RESTORE = 3, /* from the token in the upload */
	SEGUE_ATTACH_OFFER = 4,   /* reconnect: the states in the upload */
	SEGUE_ATTACH_CHECK = 5,   /* attaches nothing: would the token in the upload fit? */
	SEGUE_ATTACH_RESUME = 6,  /* as CONTINUE, by the library itself: a held lane is EFENCED */
	SEGUE_ATTACH_RESIZE = 7, /* as RESUME, over the lease `lease`: batches of batch_size rows */
};

/* Lanes that move from worker to worker. */
enum segue_attach_any {
	SEGUE_ANY_NOT = 0,
	SEGUE_ANY_NAMED = 1,  /* the lane, to be held as one that moves */
	SEGUE_ANY_CHOOSE = 2, /* whichever the server gives: `lane` says nothing; NONE to FRESH */
};

struct segue_message {
	enum segue_message_type type;
	uint64_t serial;
	union {
		struct {
			uint32_t protocol, layout_version;
			const char *version, *program;
		} hello;
		struct {
			struct segue_spec *spec; /* unpacked: malloc'd and unchecked; the caller
						    takes it over */
			uint64_t paths_upload, index_upload;
			bool again;  /* had it open before */
			bool stored; /* the source is the stream's: spec->source.kind is 0 */
		} stream_open;
		struct {
			uint64_t stream, upload, step, lease;
			uint32_t lane, group;
			enum segue_attach_mode mode;
			uint8_t token[SEGUE_TOKEN_BYTES];
			int64_t timeout_ns;
			enum segue_attach_any any;
			bool take;                   /* a lease of the same process ends for it */
			uint32_t batch_size;         /* resize: from `step` on */
			uint32_t replicas;           /* of the group; 0 or 1: the holder alone */
			struct segue_log_place seen; /* offer: of a log, by batch step - 1 */
			const uint8_t *kept;         /* CHOOSE: lanes, a bit each; in the arena */
			size_t kept_size;
		} lane_attach;
		struct {
			uint64_t stream, step; /* to go on at; SEGUE_NEVER: where the holder is */
			uint64_t generation;   /* of the lease that it has followed, or 0 */
			uint32_t lane, group, replica, replicas;
			int64_t timeout_ns;
		} lane_follow;
		struct {
			uint64_t lease;
		} lane_detach, lane_flush;
		struct {
			uint64_t lease, step;
		} lane_side;
		struct {
			uint64_t size;
		} upload;
		struct {
			uint64_t stream, step;
			uint32_t lane, group;
			int64_t timeout_ns;
		} checkpoint;
		struct {
			const char *stream, *group; /* group "": the one that every stream has */
			uint64_t id;                /* remove: 0 means all */
			uint32_t lane;
			bool remove; /* else the token is sent */
		} stored;
		struct {
			enum segue_report what;
			const char *stream, *key; /* "": none */
		} report;
		struct {
			enum segue_states_request what;
			const char *stream, *group, *key;
			bool live;
			bool again;      /* put, delete: it may have been done */
			uint64_t upload; /* put */
			uint32_t lane;   /* list: where it goes on */
			uint64_t at[2];
		} states;
		struct {
			uint64_t stream;
			const char *name;
		} group;
		struct {
			uint32_t group;
		} grouped;
		struct {
			uint64_t stream;
		} stream_close, stream_end;
		struct {
			uint64_t stream;
			const char *reason;
		} input_failed;
		struct {
			uint64_t stream, ring; /* ring: an upload of its own */
			const char *producer;
			uint8_t token[SEGUE_TOKEN_BYTES];
			bool takeover;
		} producer_open;
		struct {
			uint64_t producer, entry; /* entry: the producer's serial of it */
			uint64_t upload;          /* of its own; 0: it lies in the ring */
			uint64_t offset, bytes, steps, total_length; /* UINT64_MAX: none is given */
			uint32_t key_size, cursor_size;
		} insert;
		struct {
			uint64_t producer, entry;
			bool look; /* it is not waited for */
		} producer_wait;
		struct {
			uint64_t producer;
			bool close; /* the name: it inserts nothing more, for good */
		} producer_leave;
		struct {
			const char *stream;
		} stream_find, stream_files;
		struct {
			const char *stream, *group; /* group "": the whole stream */
		} stream_drop;
		struct {
			uint32_t protocol, layout_version;
			const char *version;
			int64_t pid;
			uint64_t instance;
			const char *dir; /* of the store; "": not told, and then no inode */
			uint64_t device, inode;
		} welcome;
		struct {
			uint64_t stream, records, layout_hash;
			uint32_t key_max;
		} opened;
		struct {
			struct segue_spec *spec; /* as that of stream_open; without its source */
		} found;
		struct {
			uint64_t lease, generation, step;
			uint8_t token[SEGUE_TOKEN_BYTES];
			uint32_t rows;       /* of batch step - 1, with the parked ones */
			uint32_t places;     /* rows that the memory has room for */
			uint32_t batch_size; /* wanted from `step` on */
			uint32_t lane;       /* not of FOLLOWING */
			uint32_t taken;      /* of FOLLOWING: so often, before it came */
		} attached;                  /* and FOLLOWING, without a token */
		struct {
			uint64_t id, size, step;
			uint64_t needs, first; /* sequences of a log: that a token needs, left */
		} bulk;
		struct {
			const char *what;
			uint64_t done, total;
		} progress;
		struct {
			uint64_t producer, entry; /* the last that is in the log */
			uint32_t cursor_size;     /* it is at the beginning of the ring */
		} producer_opened;
		struct {
			uint64_t entry;
		} acknowledged;
		struct {
			int code;
			const char *detail;
		} failure;
	};
};

/* Packs a message into `out` (SEGUE_FRAME_MAX bytes of room). SEGUE_ELIMIT names the message. */
int segue_message_pack(const struct segue_message *message, uint8_t *out, size_t *size);
/* Unpacks a frame; resets the arena first. Unknown types are SEGUE_EPROTOCOL; unknown fields are
 * passed over. */
int segue_message_unpack(
	const struct segue_frame *frame, struct segue_arena *arena, struct segue_message *out);

/* Frees what unpacking made and nobody has taken over: a spec. */
void segue_message_finish(struct segue_message *message);

/* ---- Records: malloc'd bytes out, malloc'd structs back ---- */

struct segue_position; /* server/lane/plan.h */

struct segue_holder {
	uint8_t boot_id[16];
	uint64_t pid_namespace; /* inode number; 0: unknown */
	int64_t pid;
	uint64_t start_time; /* clock ticks since boot; 0: unknown */
};

struct segue_stream_record {
	uint32_t id;
	struct segue_spec *spec; /* unpacked: malloc'd, checked; the caller destroys it */
	struct segue_ends ends;  /* the first is spec->epochs */
	uint64_t fingerprint[2];
	int64_t created_ms;
};

struct segue_lane_record {
	uint64_t generation;
	uint8_t token[SEGUE_TOKEN_BYTES];
	bool held;
	struct segue_holder holder;
	int64_t committed_ms;
	/*
	 * With initial = kept: of the lease that has committed the position's step a hash (of its
	 * token); 0 at step 0. With the step it says which of several futures the position is of.
	 */
	uint64_t origin;
	struct segue_position *position; /* unpacked: malloc'd, free() */
};

/* The checkpoints that the store holds of a lane, by rising step. */
struct segue_catalogue {
	uint64_t next_id;  /* ids begin at 1, rise with time and are not used again */
	uint64_t ended_id; /* of the one at whose step the lane has ended; 0: of none */
	uint32_t ended_at; /* how many ends the input had then */
	uint32_t count;
	struct segue_catalogue_entry {
		uint64_t id, step, size; /* size of the token */
		int64_t created_ms;      /* Unix time */
		uint64_t needs;          /* the first sequence of a log that it needs */
	} entry[SEGUE_CHECKPOINTS_MAX];
};

struct segue_token_record {
	char stream[SEGUE_NAME_MAX + 1];
	uint64_t spec_hash[2], fingerprint[2];
	uint32_t lanes, lane, batch_size;
	uint64_t row_size;
	uint64_t log_hash[2];   /* running hash of all that the lane has seen of a log; or zeros */
	struct segue_ends ends; /* count 0: older, made when there was but one */
	uint64_t origin;        /* as in segue_lane_record */
	struct segue_position *position; /* unpacked: malloc'd, free() */
};

int segue_stream_record_pack(const struct segue_stream_record *record, void **out, size_t *size);
int segue_stream_record_unpack(const void *bytes, size_t size, struct segue_stream_record *out);
int segue_lane_record_pack(const struct segue_lane_record *record, void **out, size_t *size);
int segue_lane_record_unpack(const void *bytes, size_t size, struct segue_lane_record *out);
int segue_token_record_pack(const struct segue_token_record *record, void **out, size_t *size);
int segue_catalogue_pack(const struct segue_catalogue *catalogue, void **out, size_t *size);
int segue_catalogue_unpack(const void *bytes, size_t size, struct segue_catalogue *out);
int segue_token_record_unpack(const void *bytes, size_t size, struct segue_token_record *out);
int segue_log_known_pack(const struct segue_log_known *known, void **out, size_t *size);
int segue_log_known_unpack(const void *bytes, size_t size, struct segue_log_known *out);
int segue_log_end_pack(const struct segue_log_end *end, void **out, size_t *size);
/* The caller finishes it. */
int segue_log_end_unpack(const void *bytes, size_t size, struct segue_log_end *out);

#endif
