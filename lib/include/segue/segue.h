/*
 * segue: batches of segments of long sequences, with carried state, over shared memory.
 *
 * The only public header of libsegue. A process connects to the server of a store directory, opens
 * a stream, attaches to one or more of its lanes and takes batches from them:
 *
 *	segue_open("runs/exp1", NULL, &client);
 *	segue_stream_open(client, spec, &stream);
 *	segue_lane_attach(stream, 0, &attach, &lane);
 *	while ((rc = segue_lane_next(lane, SEGUE_FOREVER, &batch)) == 0) {
 *		... read segue_batch_sequence(), segue_batch_state() ...
 *		segue_batch_save_state(batch, 0, h, h_size);
 *		segue_batch_commit(batch);
 *		segue_batch_release(batch);
 *	}
 *
 * Results. Functions that can fail return 0 or a negative SEGUE_E* code; segue_error_detail() then
 * says what was wrong, where, and what to do. Out-parameters are written only on success.
 *
 * Threads. Handles that come from one client must not be used by two threads at the same time.
 * Different clients are independent. No function installs a signal handler.
 *
 * Fork. The handles belong to the process that made them; in a child every call returns
 * SEGUE_EFORKED and the shared memory is not mapped.
 *
 * Tensors are dense, C-contiguous, aligned to 64 bytes, in the byte order of the machine.
 */
#ifndef SEGUE_SEGUE_H
#define SEGUE_SEGUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SEGUE_EXPORT __attribute__((visibility("default")))
#else
#define SEGUE_EXPORT
#endif

#define SEGUE_VERSION_STRING "0.1.0"

/* ---- Errors -------------------------------------------------------------------------------- */

/* X(name, code, text): the one table of error codes. Codes are never reused. */
#define SEGUE_ERRORS(X)                                                                            \
	X(EINVAL, 1, "invalid argument")                                                           \
	X(ENOMEM, 2, "out of memory")                                                              \
	X(ESYSTEM, 3, "a system call failed")                                                      \
	X(EPROTOCOL, 4, "the peer broke the protocol")                                             \
	X(EVERSION, 5, "the peer speaks another version")                                          \
	X(EGONE, 6, "the server is gone")                                                          \
	X(EBUSY, 7, "held by another process")                                                     \
	X(EFENCED, 8, "the lease has passed to another holder")                                    \
	X(ESPEC, 9, "the stream exists with another spec")                                         \
	X(ESTART, 10, "the store already holds a position")                                        \
	X(ESOURCE, 11, "the data set cannot be read")                                              \
	X(EDATA, 12, "a record is damaged or does not fit the spec")                               \
	X(ECHANGED, 13, "the data set has changed")                                                \
	X(ESTATE, 14, "a state does not fit the spec")                                             \
	X(EUNSAVED, 15, "a state was not saved")                                                   \
	X(ECOMMITTED, 16, "the batch is already committed")                                        \
	X(EHELD, 17, "too many batches are held")                                                  \
	X(EEND, 18, "the lane has ended")                                                          \
	X(ETIMEOUT, 19, "the time is up")                                                          \
	X(EFORKED, 20, "the handle belongs to the parent process")                                 \
	X(ESTORE, 21, "the store is damaged")                                                      \
	X(EFORMAT, 22, "the store was written by another version")                                 \
	X(EREADONLY, 23, "the store cannot be written")                                            \
	X(ENOSPACE, 24, "the disk is full")                                                        \
	X(ETOKEN, 25, "the token does not fit")                                                    \
	X(ESTALE, 26, "the position was changed by a restore")                                     \
	X(ELIMIT, 27, "a limit was reached")                                                       \
	X(ENOTFOUND, 28, "not found")                                                              \
	X(EINTERRUPTED, 29, "interrupted")                                                         \
	X(EROUND, 30, "lanes are at different steps")                                              \
	X(EMOVED, 31, "the store is not where it was")                                             \
	X(EREPLICA, 32, "a replica is missing, or only reads")

enum segue_error {
	SEGUE_OK = 0,
#define SEGUE_ERROR_ENUM(name, code, text) SEGUE_##name = -(code),
	SEGUE_ERRORS(SEGUE_ERROR_ENUM)
#undef SEGUE_ERROR_ENUM
};

/* The text of a code, or "unknown error"; static, never NULL. */
SEGUE_EXPORT const char *segue_strerror(int code);
/* The name of a code without its prefix ("ESPEC"), or "?"; static, never NULL. */
SEGUE_EXPORT const char *segue_error_name(int code);
/* What went wrong in this thread's last failed call; valid until its next one. Never NULL. */
SEGUE_EXPORT const char *segue_error_detail(void);
/* The version of the library that is linked: SEGUE_VERSION_STRING of its build. */
SEGUE_EXPORT const char *segue_version(void);

/* ---- What a stream is made of --------------------------------------------------------------- */

#define SEGUE_RANK_MAX        8   /* dimensions per feature or state, batch and time not counted */
#define SEGUE_NAME_MAX        255 /* bytes of a name */
#define SEGUE_FEATURES_MAX    256 /* sequence + context features of a stream */
#define SEGUE_STATES_MAX      1024
#define SEGUE_KEY_MAX         4096 /* bytes of a record's key */
#define SEGUE_PARTS_MAX       64   /* of a mix */
#define SEGUE_CHECKPOINTS_MAX 100  /* of a lane, in the store */
#define SEGUE_BOUNDARIES_MAX  128  /* of lengths */

/* Values of a data set are in the range of their type, and exact: others are SEGUE_EDATA. */
enum segue_dtype {
	SEGUE_FLOAT32 = 1,
	SEGUE_FLOAT64 = 2,
	SEGUE_INT32 = 3,
	SEGUE_INT64 = 4,
	SEGUE_UINT8 = 5,
	SEGUE_BOOL = 6, /* one byte, 0 or 1 */
	SEGUE_FLOAT16 = 7,
	SEGUE_BFLOAT16 = 8, /* the upper half of a float32 */
	SEGUE_INT8 = 9,
	SEGUE_INT16 = 10,
	SEGUE_UINT16 = 11,
	SEGUE_UINT32 = 12,
	SEGUE_UINT64 = 13,
};

/* Bytes of one element; 0 for a value that is no dtype. */
SEGUE_EXPORT size_t segue_dtype_size(enum segue_dtype dtype);
/* NumPy's name of a dtype ("float32"); "?" for a value that is none. */
SEGUE_EXPORT const char *segue_dtype_name(enum segue_dtype dtype);

/*
 * A stream is opened by its spec, a handle: made, told what is in it, and no longer needed when the
 * stream is open. What is wrong is an error where it is said, SEGUE_EINVAL, which names the field,
 * its value and what is allowed; the spec is then as before. All that is given is copied.
 *
 *	segue_spec_create("train", &spec);
 *	segue_spec_set_source(spec, SEGUE_SOURCE_TFRECORD);
 *	segue_spec_add_path(spec, "data/a.tfrecord");
 *	segue_spec_add_sequence(spec, &(struct segue_feature){
 *		.size = sizeof(struct segue_feature), .name = "x", .dtype = SEGUE_FLOAT32});
 *	segue_spec_set(spec, SEGUE_SPEC_NUM_UNROLL, 20);
 *	segue_spec_set(spec, SEGUE_SPEC_TAIL, SEGUE_TAIL_PAD);
 *	segue_stream_open(client, spec, &stream);
 *	segue_spec_destroy(spec);
 *
 * Structs of which later versions may have more begin with `size`, their own: sizeof. What is 0 in
 * them, or behind that size, was not asked for; what this version does not know is SEGUE_EINVAL.
 * Structs that are filled in for the caller (segue_span, segue_ragged) have their size beside them.
 */
struct segue_spec;

/* How many values of its dtype a feature has a step, or a sequence. */
enum segue_form {
	SEGUE_FORM_DENSE = 0,  /* as many as its shape says */
	SEGUE_FORM_RAGGED = 1, /* any number, each time another one; rank 0 */
	SEGUE_FORM_BYTES = 2,  /* a string of bytes: as ragged, of SEGUE_UINT8 */
};

/* A feature: dims[0..rank) per step (sequence feature) or per sequence (context feature). */
struct segue_feature {
	size_t size;      /* sizeof(struct segue_feature) */
	const char *name; /* non-empty, no ':' */
	enum segue_dtype dtype;
	uint32_t rank; /* 0: a scalar */
	uint64_t dims[SEGUE_RANK_MAX];
	enum segue_form form; /* (identity) */
};

/* Which sequences a lane has (docs/shuffle.md). */
enum segue_lanes_by {
	SEGUE_LANES_BY_SEQUENCE = 0, /* every lanes-th of the epochs' order */
	/*
	 * Those of its own records, record mod lanes: a record is in the same lane in each epoch.
	 * Not of a mix or a log; at most as many lanes as records.
	 */
	SEGUE_LANES_BY_RECORD = 1,
};

/* What a row that begins is handed (docs/kept.md). */
enum segue_initial {
	SEGUE_INITIAL_VALUE = 0, /* the initial value of each state */
	/*
	 * All states of the final ones that are kept under its record's key in its lane, of the
	 * highest number among the sequences that ended in an earlier batch; where there are none,
	 * as above. Needs SEGUE_LANES_BY_RECORD and keep_final. A batch in which a key comes again
	 * is there only when the batch in which it ended is committed: who takes it before waits.
	 */
	SEGUE_INITIAL_KEPT = 1,
};

/* What a row that goes on with its sequence is handed; never what is committed. */
enum segue_policy {
	SEGUE_POLICY_CARRY = 0, /* the state that its segment before left */
	/*
	 * With `probability` at each segment that is not the first: the initial value instead.
	 * Drawn from seed, state, sequence and segment alone (docs/policy.md): the same after any
	 * resume, and for any number of workers.
	 */
	SEGUE_POLICY_ZERO = 1,
};

/* A state: dims[0..rank) per row. */
struct segue_state {
	size_t size;      /* sizeof(struct segue_state) */
	const char *name; /* non-empty, no ':' */
	enum segue_dtype dtype;
	uint32_t rank;
	uint64_t dims[SEGUE_RANK_MAX];
	const void *init; /* value in a sequence's first segment, one row; NULL: zeros */
	/* (identity) Instead, each sequence has its own (files, logs, mixes alone); `init` NULL. */
	bool init_from_data;
	enum segue_policy policy; /* (identity) */
	double probability;       /* (identity) of SEGUE_POLICY_ZERO: above 0, at most 1; else 0 */
};

/* Where the sequences come from (identity). */
enum segue_source_kind {
	SEGUE_SOURCE_STORED = 0,   /* as long as none is set: what the stream has, which exists */
	SEGUE_SOURCE_TFRECORD = 1, /* TFRecord files; has paths */
	SEGUE_SOURCE_FILES = 2,    /* sequence files, segue's own (docs/format.md); has paths */
	SEGUE_SOURCE_ARRAYS = 3,   /* arrays in files; has paths, and segue_spec_set_arrays() */
	SEGUE_SOURCE_MIX = 4,      /* several of the others; has segue_spec_add_part() */
	/*
	 * What producers insert (segue_producer_open), in the order in which it is accepted; kept
	 * on disk, so that lanes go on from it as from files. Epochs are 1, nothing is shuffled,
	 * and the stream is stored (persist). Features may be of any form, and states have values
	 * of their own for each sequence. Batches wait for what is not there yet, and are the same
	 * as if all of it had been there from the start; only the end of the input
	 * (segue_stream_end_input, or the last of SEGUE_SPEC_PRODUCERS closing) lets lanes end.
	 */
	SEGUE_SOURCE_LOG = 5,
};

/*
 * Options of a stream and of its source. An (identity) option is fixed when the stream is first
 * opened; opening it again with another value is SEGUE_ESPEC, as it is with other names, shapes,
 * initial values or another kind of source. (schedule) options are fixed too, for now. (runtime)
 * options are free. Numbers are never used again for another option.
 */
enum segue_spec_option {
	/*
	 * (identity) Steps a segment. 0, as it is unless set: a sequence is one segment, as long as
	 * it is, up to SEGUE_SPEC_MAXIMUM_LENGTH, which must be set then; as if num_unroll
	 * were that and SEGUE_SPEC_TRIM set.
	 */
	SEGUE_SPEC_NUM_UNROLL = 1,
	SEGUE_SPEC_BATCH_SIZE = 2, /* (schedule) rows a batch, 1 to 2^20; must be set */
	SEGUE_SPEC_LANES = 3,      /* (schedule) 1 to 4096; must be set */
	SEGUE_SPEC_SHUFFLE = 4,    /* (identity) false or true */
	SEGUE_SPEC_SEED = 5,       /* (identity) any number; 0 */
	/*
	 * Passes over the data in all; 0, as it is unless set: endless. A stream that was opened
	 * with fewer before grows: each lane ends where it did, by its tail, and goes on, for
	 * leases that come after. Fewer than before: SEGUE_ESPEC.
	 */
	SEGUE_SPEC_EPOCHS = 6,
	/*
	 * (identity) The epoch that a new stream begins with, below `epochs`: what another stream
	 * had before is not delivered. 0.
	 */
	SEGUE_SPEC_FIRST_EPOCH = 7,
	SEGUE_SPEC_PAD = 8,  /* (identity) true; false: lengths must be multiples of num_unroll */
	SEGUE_SPEC_TAIL = 9, /* (schedule) enum segue_tail */
	SEGUE_SPEC_EPOCH_END = 10, /* (schedule) enum segue_epoch_end */
	SEGUE_SPEC_ON_ERROR = 11,  /* (identity) enum segue_on_error */
	/* (identity) false; true: states saved with a last segment are kept, readable by key */
	SEGUE_SPEC_KEEP_FINAL = 12,
	/* (schedule) true; false: nothing is stored, each lane handle begins at step 0 */
	SEGUE_SPEC_PERSIST = 13,
	SEGUE_SPEC_DEPTH = 14,       /* (runtime) batches filled ahead, 2 to 64; 4 */
	SEGUE_SPEC_NUM_THREADS = 15, /* (runtime) loader threads, 1 to 64; 1 */
	SEGUE_SPEC_DURABILITY = 16,  /* (runtime) enum segue_durability */
	SEGUE_SPEC_INTERVAL_MS = 17, /* (runtime) 1000 */
	/*
	 * (runtime) A lane is taken from a worker that has had a batch and has committed none for
	 * so long: stopped, or stuck; or, where groups share a ring, has let go of none of its
	 * batches. It learns that at its next call. 0, as it is unless set:
	 * never, a lease ends with its process or socket alone. Longer than the longest step of the
	 * training.
	 */
	SEGUE_SPEC_LEASE_TIMEOUT_MS = 18,
	/* (runtime) newest checkpoints that the store keeps of a lane, up to 100; 3 */
	SEGUE_SPEC_KEEP_CHECKPOINTS = 19,
	/*
	 * (identity) Steps that a sequence may have; 0, as it is unless set: any number. What
	 * becomes of a longer one SEGUE_SPEC_ON_TOO_LONG says.
	 */
	SEGUE_SPEC_MAXIMUM_LENGTH = 24,
	SEGUE_SPEC_ON_TOO_LONG = 25, /* (identity) enum segue_on_too_long */
	/*
	 * (schedule) false; true: a batch has only as many steps as the longest `length` in it, at
	 * least 1 (segue_batch_steps).
	 */
	SEGUE_SPEC_TRIM = 26,
	SEGUE_SPEC_LANES_BY = 70, /* (identity) enum segue_lanes_by */
	/*
	 * (identity) With boundaries (segue_spec_set_boundaries): sequences of a lane among which
	 * those of one class are found, batch_size to 2^20. 0, as it is unless set: 16 *
	 * batch_size.
	 */
	SEGUE_SPEC_WINDOW = 28,
	SEGUE_SPEC_INITIAL = 71, /* (identity) enum segue_initial */
	/*
	 * (runtime) So many groups begin together: who attaches a lane that none of them has waits
	 * until so many have asked for it, and those that stand within `depth` batches of one
	 * another are given the same ring. Each asks from a thread, or process, of its own. 0, as
	 * it is unless set: nobody waits for others.
	 */
	SEGUE_SPEC_GROUPS = 80,
	/* (runtime) how long for; then it is SEGUE_ETIMEOUT, which says who is missing. 60000 */
	SEGUE_SPEC_GROUPS_TIMEOUT_MS = 81,
	/*
	 * (runtime) A group has kept this one waiting for so long in one piece, with a ring that
	 * both read: then it is as SEGUE_SPEC_ON_LAG says. 0, as it is unless set: never.
	 */
	SEGUE_SPEC_MAX_LAG_MS = 82,
	SEGUE_SPEC_ON_LAG = 83, /* (runtime) enum segue_on_lag */

	/* Of TFRecord files. */

	SEGUE_SPEC_COMPRESSION = 32, /* (runtime) enum segue_compression */
	/* (identity) text: bytes context feature that is the key; none: "<file>:<offset>" */
	SEGUE_SPEC_KEY_FEATURE = 33,
	/* (identity) false; true: records may hold features that the spec does not name */
	SEGUE_SPEC_ALLOW_SURPLUS = 34,
	SEGUE_SPEC_RECORD = 35, /* (identity) enum segue_record_kind */

	/* Of arrays. */

	/*
	 * (runtime) false; true: all bytes of the files get checksums when the stream is made, and
	 * each read is checked. Else a change is seen only if it changes a file's size, or one of
	 * 64 blocks of 4 KiB (docs/GUARANTEES.md).
	 */
	SEGUE_SPEC_CHECKSUM = 48,

	/* Of a log. */

	/*
	 * (runtime) Inserting waits when each lane has so many sequences that are not finished and
	 * committed; from (depth + 2) * batch_size on (with boundaries, and the window), for which
	 * 0 stands. 0.
	 */
	SEGUE_SPEC_CAPACITY = 64,
	/* (runtime) the input ends when so many producers have closed; 0: not by that */
	SEGUE_SPEC_PRODUCERS = 65,
	/*
	 * (runtime) What every lane has finished, and no stored checkpoint needs, is given up, by
	 * whole files, but never the newest so many sequences, nor the newest so many bytes; 0 says
	 * nothing of either. Both 0, as they are unless set: all is kept. Who goes back behind what
	 * is left is refused: SEGUE_ETOKEN, and SEGUE_START_FRESH is SEGUE_ESTART.
	 */
	SEGUE_SPEC_RETAIN_SEQUENCES = 66,
	SEGUE_SPEC_RETAIN_BYTES = 67,
};

enum segue_compression {
	SEGUE_COMPRESSION_AUTO = 0, /* by the first bytes of each file */
	SEGUE_COMPRESSION_NONE = 1,
	SEGUE_COMPRESSION_GZIP = 2,
	SEGUE_COMPRESSION_ZLIB = 3,
};

/* What happens at the end of finite input; semantics in docs/guide.md. */
enum segue_tail {
	SEGUE_TAIL_SHRINK = 0, /* ended rows go, the others move up in order */
	SEGUE_TAIL_STOP = 1,   /* the lane ends when no full batch can be formed */
	SEGUE_TAIL_PAD = 2,    /* empty rows (length 0) until the longest lane has ended */
};

enum segue_epoch_end {
	SEGUE_EPOCH_CONTINUE = 0, /* epochs follow one another in the rows without a gap */
	SEGUE_EPOCH_DRAIN = 1, /* an epoch's rows end (by the tail rule) before the next begins */
};

enum segue_on_error {
	SEGUE_ON_ERROR_RAISE = 0,
	SEGUE_ON_ERROR_SKIP = 1, /* records whose bytes are wrong are passed over and counted */
};

/* What becomes of a sequence with more steps than SEGUE_SPEC_MAXIMUM_LENGTH. */
enum segue_on_too_long {
	/* SEGUE_EDATA, which names it; of a log where it is inserted */
	SEGUE_ON_TOO_LONG_ERROR = 0,
	/* it is as if it had only so many steps, its total length cut, too */
	SEGUE_ON_TOO_LONG_TRUNCATE = 1,
	SEGUE_ON_TOO_LONG_SKIP = 2, /* passed over, and counted as SEGUE_ON_ERROR_SKIP counts */
};

enum segue_durability {
	SEGUE_DURABLE_INTERVAL = 0, /* commits are on disk after at most interval_ms */
	SEGUE_DURABLE_COMMIT = 1,   /* segue_batch_commit returns when they are */
};

/* What becomes of groups that one of them keeps waiting. */
enum segue_on_lag {
	SEGUE_ON_LAG_WAIT = 0, /* they wait; the server's log says for whom */
	/* they go on with a ring of their own; the slow one keeps the old one, and may come back */
	SEGUE_ON_LAG_DETACH = 1,
};

/* What a record of TFRecord files is; docs/guide.md has the rules. */
enum segue_record_kind {
	SEGUE_RECORD_SEQUENCE_EXAMPLE = 0, /* tf.train.SequenceExample: a Feature a step */
	SEGUE_RECORD_EXAMPLE = 1,          /* tf.train.Example: a Feature holds all steps */
};

/*
 * A spec with nothing in it, of the stream `name`: non-empty, no ':'; NULL where it is for sequence
 * files alone. SEGUE_EINVAL, SEGUE_ENOMEM.
 */
SEGUE_EXPORT int segue_spec_create(const char *name, struct segue_spec **out);
/* NULL is fine. */
SEGUE_EXPORT void segue_spec_destroy(struct segue_spec *spec);

/* Each adds one, behind those before it: at least one sequence feature, then as many as fit. */
SEGUE_EXPORT int segue_spec_add_sequence(
	struct segue_spec *spec, const struct segue_feature *feature);
SEGUE_EXPORT int segue_spec_add_context(
	struct segue_spec *spec, const struct segue_feature *feature);
/*
 * There may be no states: a plain batching service. Where they are stored (persist), all states of
 * batch_size rows and 40 bytes a row are less than 1 GiB: a checkpoint of a lane is one value.
 */
SEGUE_EXPORT int segue_spec_add_state(struct segue_spec *spec, const struct segue_state *state);
/*
 * Sets the initial value of a state that is there, one row (NULL: zeros): of a spec from
 * segue_stream_find(), which has none.
 */
SEGUE_EXPORT int segue_spec_set_init(struct segue_spec *spec, const char *state, const void *init);

/* The kind of source. Paths, and options of the source, are said after it. */
SEGUE_EXPORT int segue_spec_set_source(struct segue_spec *spec, enum segue_source_kind kind);
/*
 * A file or a glob(7) pattern; a component "**" stands for any number of directories. Of arrays the
 * name of a file, as it is. Relative to the working directory, as it is now.
 */
SEGUE_EXPORT int segue_spec_add_path(struct segue_spec *spec, const char *path);

/*
 * An array that lies in a file, in C order. Its dtype may be one that the feature's can hold. In a
 * list all have the same size.
 */
struct segue_array {
	size_t size;     /* sizeof(struct segue_array) */
	uint64_t offset; /* of its first byte in the file */
	uint64_t stride; /* bytes from a value (of a step) to the next; 0: they lie side by side */
	uint32_t file;   /* a path of the source, in the order in which they were added */
	enum segue_dtype dtype; /* as it lies there */
	bool big_endian;
};

/* 16 bytes, for good: also the layout in an index (docs/format.md). */
struct segue_array_sequence {
	uint64_t first; /* step of its group's arrays */
	uint32_t group, steps;
};

/*
 * Arrays that lie in files, uncompressed, and are read where they lie. A group is arrays that go
 * together: one for each feature of the stream, with as many steps; a sequence is some steps of a
 * group. One file a sequence: a group each. One table of all: one group.
 */
struct segue_arrays {
	size_t size;                 /* sizeof(struct segue_arrays) */
	const uint64_t *group_steps; /* of each group */
	size_t group_count;
	/*
	 * Group by group: an array for each sequence feature ([steps, dims...]), then one for each
	 * context feature ([sequences of the group, dims...]), in the order of the spec.
	 */
	const struct segue_array *arrays;
	const struct segue_array_sequence *sequences; /* group by group */
	size_t sequence_count;
	/*
	 * The keys, one behind the other, and where each ends; NULL: "<file>:<first step>", of the
	 * first feature's file.
	 */
	const char *keys;
	const uint64_t *key_ends;
	const char *part; /* of a mix: which of its parts has them; NULL: the one added last */
};

/*
 * Which arrays the source, or a part of a mix, has: said when the spec has all its features, and
 * the source its paths, of which it makes an index. Saying it again replaces it. SEGUE_EINVAL names
 * the group, array or sequence.
 */
SEGUE_EXPORT int segue_spec_set_arrays(struct segue_spec *spec, const struct segue_arrays *arrays);

/* One of the sources that a mix is made of. */
struct segue_mix_part {
	size_t size;                 /* sizeof(struct segue_mix_part) */
	const char *name;            /* of no other part; no ':' */
	enum segue_source_kind kind; /* no mix; one part can be a log */
	uint32_t weight;             /* at least 1: its share, beside the other parts' weights */
	/* Passes over it, after which the mix ends; 0: it begins again for ever. Of a log 1. */
	uint64_t epochs;
};

/*
 * Adds a part to a mix, behind those before it, up to SEGUE_PARTS_MAX. Paths, and options of the
 * source, that are said after it are those of this part.
 *
 * A mix is several sources, by weight (identity; docs/mix.md): of each 1,024 sequences a part gives
 * its share. All have the features of the stream. It ends where a part that has an end would give
 * more than it has; one at least has one. The stream's epochs are 1, and its shuffle shuffles each
 * part but a log. With one all of the mix waits for what is not inserted yet, and its input ends by
 * itself with the last sequence that lies before the end of the other parts.
 */
SEGUE_EXPORT int segue_spec_add_part(struct segue_spec *spec, const struct segue_mix_part *part);

/* A number, a flag (0 or 1), or a value of the option's enum. */
SEGUE_EXPORT int segue_spec_set(
	struct segue_spec *spec, enum segue_spec_option option, uint64_t value);
/* A text; NULL: none. */
SEGUE_EXPORT int segue_spec_set_text(
	struct segue_spec *spec, enum segue_spec_option option, const char *text);

/*
 * (identity) Only sequences of the same class of lengths share a batch: of fewer steps than
 * lengths[0], of lengths[i - 1] to lengths[i] - 1, or of no less than the last. From 1 on, rising,
 * copied; at most SEGUE_BOUNDARIES_MAX; none: lengths make no difference, as it is unless set. When
 * no row of a lane lives, it looks at its next SEGUE_SPEC_WINDOW sequences that have not begun, and
 * begins those of the class of the oldest; so batches are smaller, or have empty rows
 * (SEGUE_TAIL_PAD), where a class runs out. Not with SEGUE_TAIL_STOP. SEGUE_EINVAL.
 */
SEGUE_EXPORT int segue_spec_set_boundaries(
	struct segue_spec *spec, const uint64_t *lengths, size_t count);

/* ---- Client --------------------------------------------------------------------------------- */

#define SEGUE_FOREVER INT64_MAX

struct segue_client;
struct segue_stream;
struct segue_lane;
struct segue_batch;

/* Progress of long work in the server (done of total units of `what`); called on the caller's
 * thread. */
typedef void segue_progress_fn(void *arg, const char *what, uint64_t done, uint64_t total);

/*
 * Called now and then while a call waits. A non-zero result ends the wait with SEGUE_EINTERRUPTED;
 * the call may be made again. (Python looks for Ctrl-C here.)
 *
 * An interrupt of segue_lane_next, of the wait for the disk (commit, flush), of a report or of a
 * checkpoint changes nothing. While a stream is opened, a token handed over (also to be checked), a
 * lane attached, restored or closed, or a lost server is replaced, it costs the connection, and
 * with it the client's leases, as if the server had been lost: each lane goes on where it was
 * committed, batches that are open come again (their commit fails with SEGUE_EFENCED), and a
 * restore may have taken place or not.
 */
typedef int segue_interrupt_fn(void *arg);

struct segue_open_options {
	size_t size;             /* sizeof(struct segue_open_options) */
	const char *socket_path; /* NULL: <dir>/segue.sock */
	const char *program; /* server program; NULL: $SEGUE_PROGRAM, the installed one, or PATH */
	bool no_start;       /* fail with SEGUE_EGONE instead of starting a server */
	int64_t timeout_ns;  /* to connect or start; 0: 30 s */
	segue_progress_fn *progress;   /* may be NULL */
	segue_interrupt_fn *interrupt; /* may be NULL */
	void *arg;                     /* passed to both */
};

/*
 * Connects to the server of the store directory `dir`, starting one if none runs (unless
 * options->no_start): it ends by itself when its last user has left. Several processes may call
 * this at once; one server results. Creates `dir` if need be. `options` may be NULL. Blocks.
 *
 * When the server dies later, calls that need it start it again (same rules) and go on; a lane
 * offers its last commit, so that nothing is lost and no batch is seen twice.
 *
 * SEGUE_EGONE (no server, or it does not come up: its own message is in the detail),
 * SEGUE_EVERSION, SEGUE_EINVAL (the name of the socket is too long), SEGUE_ESYSTEM, and what the
 * server said when it refused to start (SEGUE_ESTORE, SEGUE_EFORMAT, SEGUE_EREADONLY,
 * SEGUE_ENOSPACE).
 */
SEGUE_EXPORT int segue_open(
	const char *dir, const struct segue_open_options *options, struct segue_client **out);

/* Closes the connection: this process's leases end. Streams and lanes that came from it must be
 * closed; batches that are held stay readable. NULL is fine. */
SEGUE_EXPORT void segue_client_close(struct segue_client *client);

/* Bytes that the library allocated for the caller. NULL is fine. */
SEGUE_EXPORT void segue_free(void *bytes);

enum segue_report {
	SEGUE_REPORT_STATUS = 1,  /* server, sessions, leases, rings */
	SEGUE_REPORT_INSPECT = 2, /* streams, lanes, positions */
	SEGUE_REPORT_GET = 3,     /* the states under one key */
	SEGUE_REPORT_VERIFY = 4,  /* every value of the store checked */
	/* batches of each lane of a stream that this client has open, from the first step to the
	 * end: {"batches": [...]}, by the lengths in the index of its data and the stream's batch
	 * size. SEGUE_EINVAL: only reading the data tells lengths, or the input has no end. */
	SEGUE_REPORT_BATCHES = 5,
};

/*
 * A report of the server as one JSON text (UTF-8, NUL-terminated), the caller frees it with
 * segue_free(). `key` is used by SEGUE_REPORT_GET alone (SEGUE_ENOTFOUND if nothing is kept under
 * it); `stream` narrows a report to one stream, or is NULL.
 */
SEGUE_EXPORT int segue_client_report(struct segue_client *client, enum segue_report what,
	const char *stream, const char *key, char **json);

/*
 * The token of a checkpoint that the store holds (SEGUE_REPORT_INSPECT lists them): `id` of that
 * lane of that stream, which need not be open, in that group (NULL: the one that every stream has).
 * The caller frees it with segue_free(). SEGUE_ENOTFOUND.
 */
SEGUE_EXPORT int segue_client_checkpoint(struct segue_client *client, const char *stream,
	const char *group, uint32_t lane, uint64_t id, void **token, size_t *size);
/*
 * Removes it from the store; with id 0 all of the lane. Tokens elsewhere stay good; final states
 * are not taken back any more to what was before the oldest that is left. SEGUE_ENOTFOUND.
 */
SEGUE_EXPORT int segue_client_checkpoint_remove(struct segue_client *client, const char *stream,
	const char *group, uint32_t lane, uint64_t id);

/*
 * Drops the stream of that name: all that the store holds of it goes, for good. Positions, states,
 * final states, checkpoints, and the index of its data set if no other stream has it; not the data
 * (but what a binding has made beside the store for it alone: files in DIR/examples, DIR/arrays).
 * Blocks, with progress in lanes, about, while there is much of it; if the server is lost meanwhile
 * it is gone all the same, or whole. A stream that is made anew under the name begins at step 0.
 * Tokens elsewhere stay good, for a stream of the same spec and data.
 *
 * SEGUE_EBUSY names a process that holds a lane of it, or may come back to one. Who has it open
 * without a lane gets SEGUE_ENOTFOUND at the next call that asks for something of it.
 * SEGUE_ENOTFOUND: the store has no such stream. SEGUE_ENOSPACE, SEGUE_ESTORE: it could not be
 * written. SEGUE_EINTERRUPTED: the server goes on, if it had begun.
 */
SEGUE_EXPORT int segue_client_stream_drop(struct segue_client *client, const char *stream);
/*
 * Drops a group of the stream likewise: its positions, states, final states and checkpoints. The
 * stream and its other groups stay. Whoever names the group again makes a new one, at step 0; a
 * lane that was attached for the old one gets SEGUE_ENOTFOUND. SEGUE_EINVAL: it has no name, and
 * goes with its stream. The errors of a stream: SEGUE_EBUSY also where a handle of this process has
 * a lane of it whose server was lost; SEGUE_ENOTFOUND: no such group, too.
 */
SEGUE_EXPORT int segue_client_group_drop(
	struct segue_client *client, const char *stream, const char *group);

/*
 * Opens the stream of the spec, making it if it is new. The first open of a data set builds the
 * index of its records: long for many records, with progress. The spec is copied.
 *
 * SEGUE_EINVAL (names what must be set and is not, or what does not go together), SEGUE_ESPEC
 * (names the fields that differ), SEGUE_ESOURCE (no such file, no read permission), SEGUE_EDATA (a
 * damaged record: file and offset), SEGUE_ECHANGED;
 * SEGUE_ENOTFOUND: it has no source, and there is no such stream.
 */
SEGUE_EXPORT int segue_stream_open(
	struct segue_client *client, const struct segue_spec *spec, struct segue_stream **out);
/*
 * The spec of the stream of that name, so that it can be opened without knowing where its data lie:
 * it has no source, and all else as the stream has it, epochs in all. Options may be set before it
 * is opened, and initial values must be where they are not zeros (segue_spec_set_init). On success
 * the caller owns *out (segue_spec_destroy).
 *
 * SEGUE_ENOTFOUND: no process has a stream of that name open, and the store has none. For up to ten
 * seconds after the server was lost it is waited for: who has it open may come to the next later.
 */
SEGUE_EXPORT int segue_stream_find(
	struct segue_client *client, const char *name, struct segue_spec **out);
/*
 * Frees the handle, and tells the server, which lets go of the data set when nobody else uses it.
 * Lanes that came from it must be closed before. NULL is fine.
 */
SEGUE_EXPORT void segue_stream_close(struct segue_stream *stream);
/* Records of the data set. */
SEGUE_EXPORT uint64_t segue_stream_records(const struct segue_stream *stream);

/* ---- States by record key ------------------------------------------------------------------- */

/*
 * What the store has under the keys of a stream's records: the states that a sequence left behind
 * with its last segment (keep_final), or that were put in their place, and those of sequences that
 * go on. The stream need not be open; it is named, and a group of it, which has states of its own
 * (NULL: the one that every stream has). Keys are the records' own, without NUL.
 *
 * What is put counts at the committed step of a lane: a restore to that step or a later one keeps
 * it, one to an earlier step takes it back. It takes the place of all that is under the key, and of
 * what a sequence of that key that goes on will leave; one that begins later takes its place. The
 * same holds of a deletion.
 *
 * The lane is one in which the key may come. With SEGUE_LANES_BY_RECORD, once a sequence of the key
 * has come, it is the lane of that (keys are taken to be those of one record each); else the key
 * may come in any lane, and lane 0's step counts. With SEGUE_INITIAL_KEPT it is put in each lane in
 * which the key has come, or, if it has in none, in all, and counts at each one's step. Nothing can
 * be put while a process has, or may come back to, a lane in which the key may come: SEGUE_EBUSY.
 */
enum segue_states_kind {
	SEGUE_STATES_FINAL = 1, /* of a sequence that has ended */
	SEGUE_STATES_PUT = 2,
	SEGUE_STATES_LIVE =
		3, /* of a sequence that goes on, as of the lane's last commit on disk */
};

struct segue_states {
	enum segue_states_kind kind;
	uint32_t lane;
	/*
	 * Batches that the lane had committed when it came (the step of the batch that ended the
	 * sequence, + 1), or, LIVE, has. UINT64_MAX: a store of before does not say.
	 */
	uint64_t step;
	uint64_t number; /* of the sequence; PUT: it stands below that of this number */
	const char *key; /* no NUL follows */
	size_t key_size;
	/* All states of a row, side by side in the order of the spec, without padding. */
	const void *bytes;
	size_t bytes_size;
};

/* Called for each; what it is given dies when it returns. A result that is not 0 is returned. */
typedef int segue_states_fn(void *arg, const struct segue_states *states);

/*
 * Visits what is under one key: what is kept or was put there; with `live` that of the newest
 * sequence of that key that goes on. SEGUE_ENOTFOUND: nothing is, or there is no such stream or
 * group.
 */
SEGUE_EXPORT int segue_states_get(struct segue_client *client, const char *stream,
	const char *group, const char *key, bool live, segue_states_fn *visit, void *arg);

/* How far a list has come. Zeros: it is at the beginning. */
struct segue_states_cursor {
	bool done; /* nothing is left */
	uint32_t lane;
	uint64_t at[2];
};

/*
 * Visits those of all keys, in no order that means anything, a few MiB of them: to be called until
 * cursor->done. Each page is as of its own moment: what changes between two may be missed, or
 * seen twice. After an error the cursor is as before.
 */
SEGUE_EXPORT int segue_states_list(struct segue_client *client, const char *stream,
	const char *group, bool live, struct segue_states_cursor *cursor, segue_states_fn *visit,
	void *arg);

/*
 * Puts states under a key, that of any record or none: all states of a row, as in struct
 * segue_states. On disk when it returns. What the call itself asks again for, because the server
 * was lost, is done once, unless the key has come in a lane before that: then it is put above that,
 * too. After an error other than those below it may have been done, and can be asked for again.
 *
 * SEGUE_EBUSY names lane and process. SEGUE_ESPEC: the stream was made without keep_final, or has
 * no states. SEGUE_ESTATE: `size` is not that of all states. SEGUE_ENOTFOUND: no such stream.
 */
SEGUE_EXPORT int segue_states_put(struct segue_client *client, const char *stream,
	const char *group, const char *key, const void *states, size_t size);
/* Deletes what is under a key; it is fine if nothing is. The same errors. */
SEGUE_EXPORT int segue_states_delete(
	struct segue_client *client, const char *stream, const char *group, const char *key);

/* ---- Lane ----------------------------------------------------------------------------------- */

enum segue_start {
	SEGUE_START_NONE = 0,     /* SEGUE_ESTART if the lane already has a position */
	SEGUE_START_CONTINUE = 1, /* from the last durable commit of the lane */
	SEGUE_START_FRESH = 2,    /* from step 0; the lane's position and states are dropped */
};

struct segue_attach_options {
	size_t size; /* sizeof(struct segue_attach_options) */
	enum segue_start start;
	const void *token; /* restore this instead (start is then not looked at); NULL: none */
	size_t token_size;
	int64_t timeout_ns; /* how long to wait for a lane that somebody else holds; 0: 10 s */
	/*
	 * Take it over from an older handle of this process, of whichever client: what that has
	 * committed stands, its open batch comes again, its next call is SEGUE_EFENCED. A commit
	 * that another thread makes of it meanwhile may return and not count. false: SEGUE_EBUSY at
	 * once if there is such a handle.
	 */
	bool take;
	/*
	 * The group, with its own positions and states, that the lane is taken for; it is made if
	 * there is none of that name. NULL: the one that every stream has.
	 */
	const char *group;
	/*
	 * Replicas of the group: processes that see the same batches, states included (tensor- or
	 * pipeline-parallel ranks). `replicas` of them in all, 0 and 1: this one alone; `replica`,
	 * from 0, is this one. 0 holds the lease, saves and commits; the others follow it: they get
	 * a batch when it has taken it, and a batch's memory is used anew when all have released
	 * it. For them start, token and take are not looked at.
	 */
	uint32_t replica, replicas;
};

/*
 * As the lane of segue_lane_attach: whichever the server gives, of those that nobody holds the one
 * that has been free longest. The lanes are shared evenly by the connections that ask so, and their
 * handles move: the server asks for one back where another worker has fewer (segue_lane_asks).
 * While any such worker has or wants a lane, `start` counts for each lane once; who takes it later
 * goes on from there. It is waited for as for one that somebody else holds; SEGUE_EEND: all lanes
 * have ended. No token, no replicas, not with persist = false; `take`: it is the process's newer
 * loader, which begins anew where this connection has lanes no more.
 */
#define SEGUE_LANE_ANY UINT32_MAX

/*
 * Takes the lease of one lane: from now on this handle alone takes its batches. `options` may be
 * NULL. Blocks. SEGUE_EBUSY (names the holder, its process and program), SEGUE_ESTART (names the
 * step and its date), SEGUE_ETOKEN (names what differs), SEGUE_EINVAL (no such lane).
 *
 * A replica that follows takes none: it waits until replica 0 has it, and begins where that is
 * then. SEGUE_EREPLICA: it has not come, or has other replicas; SEGUE_EBUSY: another process is
 * that replica. What such a handle does otherwise:
 *
 *	segue_lane_next       takes the next batch that replica 0 has taken: with the one before
 *	                      it is done then. It goes on by itself with replica 0's next lease
 *	                      (another process that continues, another server, another batch size);
 *	                      SEGUE_ESTALE if that begins elsewhere than where this one is.
 *	segue_batch_put_back  replica 0 says what comes: this batch if it takes that again, the
 *	                      one behind it if it commits.
 *	segue_lane_restore    it goes on where replica 0 is, which is to be set to the same
 *	                      token: it takes no more of the lease that it has followed.
 *	segue_lane_checkpoint waits until replica 0 has committed as many batches.
 *	segue_lane_set_batch_size  waits until replica 0 has done so.
 *	to save, commit, flush or renew is SEGUE_EREPLICA.
 */
SEGUE_EXPORT int segue_lane_attach(struct segue_stream *stream, uint32_t lane,
	const struct segue_attach_options *options, struct segue_lane **out);

/*
 * Gives the lease back and frees the handle, in any case. Batches not released yet stay readable
 * until they are (their memory is counted), but can no longer be committed. NULL is fine.
 *
 * 0: all that was committed is on disk (or persist = false). Else why that is not so:
 * SEGUE_ENOSPACE (the server goes on trying as long as it runs), SEGUE_ESTORE, SEGUE_EFENCED,
 * SEGUE_EGONE, SEGUE_ETIMEOUT (the server did not answer), SEGUE_EINTERRUPTED. SEGUE_ENOMEM: the
 * server could not be told, or what is held of a ring that others share could not be copied; the
 * lease ends with the stream's handle, or the client.
 */
SEGUE_EXPORT int segue_lane_close(struct segue_lane *lane);

/*
 * The next batch of the lane, in order. With the ring ahead it makes no system call. Waits up to
 * timeout_ns otherwise (SEGUE_FOREVER: without limit; 0: not at all). The batch before must be
 * committed, or put back. The caller owns the batch and releases it.
 *
 * SEGUE_EEND (the lane has ended), SEGUE_ETIMEOUT, SEGUE_EUNSAVED (the batch before is not
 * committed: names its states that are not saved), SEGUE_EHELD (so many batches are not released
 * that no further one can come), SEGUE_EFENCED, SEGUE_ESOURCE / SEGUE_EDATA / SEGUE_ESTORE /
 * SEGUE_ENOSPACE (after the batches before the damage have been taken), SEGUE_EGONE (and the server
 * could not be started again). Of replica 0 also SEGUE_EREPLICA: one that followed it has gone, and
 * is named, once; then it is waited for like those that have not come yet, for a minute at most.
 */
SEGUE_EXPORT int segue_lane_next(
	struct segue_lane *lane, int64_t timeout_ns, struct segue_batch **out);

/* What the server asks of the holder of a lane that moves, to be done between two batches: bits. */
enum segue_lane_asks {
	SEGUE_LANE_ASKED_BACK = 2, /* close it: another worker has fewer */
	SEGUE_LANE_ASKED_MORE = 4, /* attach another with SEGUE_LANE_ANY: one is free */
};
SEGUE_EXPORT unsigned segue_lane_asks(const struct segue_lane *lane);

/*
 * Waits until segue_lane_next of one of these lanes, which are of one client, would not wait:
 * *which is its place, the first of them if there are several. `count`: none is, and something is
 * asked of one (segue_lane_asks). SEGUE_ETIMEOUT, SEGUE_EINTERRUPTED, SEGUE_EGONE, SEGUE_EUNSAVED
 * (a batch of one is open), SEGUE_EINVAL (none, or more than 128, or of several clients, or with
 * replicas).
 */
SEGUE_EXPORT int segue_lanes_wait(
	struct segue_lane *const *lanes, size_t count, int64_t timeout_ns, size_t *which);

/*
 * Batches of `batch_size` rows from the committed step on. Sequences that have begun and do not fit
 * wait, with their states, and come back first, oldest first; 0: all wait, and batches have no
 * rows, until another size is set. What tail = shrink and stop do at the end stays as it is. With
 * the stream's own batch_size, or the one that the lane has, nothing else changes.
 *
 * The size is the lane's: it is on disk when this returns, is in its tokens (restoring an older one
 * brings the older size back), and stays until it is set again. It is a new lease, as of
 * segue_lane_renew: what was committed is on disk first; batches that are held stay readable.
 * Called again after an error it does what is still to do. Blocks.
 *
 * SEGUE_EUNSAVED if a batch is open; SEGUE_EINVAL (more rows than a batch, a checkpoint or the
 * capacity of the stream's log can have: says how many; tail = pad; persist = false);
 * SEGUE_EFENCED, SEGUE_ENOSPACE, SEGUE_ELIMIT (the memory that it takes): the size is then as it
 * was.
 */
SEGUE_EXPORT int segue_lane_set_batch_size(struct segue_lane *lane, uint32_t batch_size);
/* Rows that the lane's next batch is to have. */
SEGUE_EXPORT uint32_t segue_lane_batch_size(const struct segue_lane *lane);
/* Index of the lane in its stream. */
SEGUE_EXPORT uint32_t segue_lane_index(const struct segue_lane *lane);
/* Batches below this step are committed; of a replica that follows: it is done with. */
SEGUE_EXPORT uint64_t segue_lane_committed(const struct segue_lane *lane);
/* Batches below this step are on disk. One load from shared memory: no message, no system call. */
SEGUE_EXPORT uint64_t segue_lane_durable(const struct segue_lane *lane);
/*
 * Returns when everything committed on this handle is on disk; has the server write at once, not
 * after the interval. To wait for one commit, call it after segue_batch_commit(). Waits up to
 * timeout_ns (SEGUE_FOREVER: without limit); whatever comes back, the commits stand, and a call
 * that comes too late or is interrupted may be made again.
 *
 * SEGUE_ENOSPACE (the disk is full: call it again when there is room), SEGUE_ESTORE (storage has
 * failed), SEGUE_EUNSAVED (the server was lost while a batch is open: commit or release it, then
 * call it again), SEGUE_ETIMEOUT, SEGUE_EFENCED, SEGUE_EGONE, SEGUE_EINTERRUPTED, SEGUE_EINVAL
 * (persist = false: nothing of the stream is stored).
 */
SEGUE_EXPORT int segue_lane_flush(struct segue_lane *lane, int64_t timeout_ns);
/* Segments left out at the end by tail = stop; 0 before SEGUE_EEND. */
SEGUE_EXPORT uint64_t segue_lane_undelivered(const struct segue_lane *lane);
/*
 * Records of the lane that were passed over since it was attached (on_error = skip: damaged;
 * on_too_long = skip: too long), as far as the server has looked ahead; each time that they were
 * met.
 */
SEGUE_EXPORT uint64_t segue_lane_skipped(const struct segue_lane *lane);
/*
 * Of the batches that segue_lane_next has returned on this handle: their steps, rows times
 * segue_batch_steps(), and those of them that count, the sum of all `length`. The rest is padding.
 */
SEGUE_EXPORT void segue_lane_steps(const struct segue_lane *lane, uint64_t *steps, uint64_t *valid);
/*
 * Nanoseconds that segue_lane_next has waited for batches on this handle, all calls together, one
 * under way included; those of segue_lanes_wait count for the first lane it was given. The server
 * is told, and 'segue top' shows it.
 */
SEGUE_EXPORT uint64_t segue_lane_waited(const struct segue_lane *lane);
/* Times that segue_lane_next had to wait, and that this handle woke the server. */
SEGUE_EXPORT void segue_lane_wakes(const struct segue_lane *lane, uint64_t *waits, uint64_t *wakes);

/*
 * A token of the lane's committed position and states: bytes that carry it to segue_lane_restore or
 * segue_attach_options.token. It is durable in the store when this returns (but for a stream with
 * persist = false), as the newest of keep_checkpoints. The caller frees it with segue_free().
 * Blocks. SEGUE_EUNSAVED if a batch is open (taken and not committed); SEGUE_ENOSPACE,
 * SEGUE_ESTORE: it could not be stored.
 */
SEGUE_EXPORT int segue_lane_checkpoint(struct segue_lane *lane, void **token, size_t *size);

/*
 * The token of any lane of the stream at exactly `step`: waits until that lane has committed it. A
 * lane that has ended is at every later step, and its token is of its end. Durable in the store
 * when this returns, as with segue_lane_checkpoint. One that nobody holds is taken from the store,
 * if it stands there.
 *
 * SEGUE_ETIMEOUT names the lane and its step. SEGUE_EROUND: it stands below the step, and for two
 * seconds nobody has held it, asked for it, or been able to come back to it: waiting is in vain.
 * SEGUE_ELIMIT: it has gone too far to be taken there.
 */
SEGUE_EXPORT int segue_stream_checkpoint(struct segue_stream *stream, uint32_t lane, uint64_t step,
	int64_t timeout_ns, void **token, size_t *size);

/* The same of another lane of the group that `lane` was attached for. */
SEGUE_EXPORT int segue_lane_checkpoint_of(struct segue_lane *lane, uint32_t other, uint64_t step,
	int64_t timeout_ns, void **token, size_t *size);

/*
 * Of the last token that one of those above has returned, of a stream whose sequences are
 * inserted: the first of these that it needs, and the first that had not been given up, in the
 * order in which they were inserted, of a mix too. A token that needs an earlier one than that can
 * no longer be gone back to. Of other streams, and before the first token, both are 0.
 */
SEGUE_EXPORT void segue_stream_token_needs(
	const struct segue_stream *stream, uint64_t *needs, uint64_t *first);

/*
 * Sets an attached lane to a token. Its generation rises; batches taken before stay readable until
 * they are released, and can no longer be committed (SEGUE_ESTALE). SEGUE_ETOKEN names what
 * differs; the lane is then as before. Final states that came after the token's step are taken
 * back, as far as the oldest checkpoint in the store; checkpoints of later steps leave the store.
 * With SEGUE_INITIAL_KEPT a token is refused, too, if the store has no checkpoint of its step, or
 * one of another future.
 */
SEGUE_EXPORT int segue_lane_restore(struct segue_lane *lane, const void *token, size_t size);
/*
 * Gives the lane new memory, where it stands: batches that are held keep what they have, and no
 * longer count among those that the ring can hold (SEGUE_EHELD). It is a new lease: what was
 * committed is on disk first. SEGUE_EUNSAVED if a batch is open; SEGUE_EFENCED, SEGUE_ENOSPACE.
 */
SEGUE_EXPORT int segue_lane_renew(struct segue_lane *lane);
/*
 * Whether segue_lane_restore would take the token: 0, or SEGUE_ETOKEN, which names what differs.
 * Changes nothing. For a restore of several lanes: all of them, or none.
 */
SEGUE_EXPORT int segue_lane_check(struct segue_lane *lane, const void *token, size_t size);

/* ---- Batch ---------------------------------------------------------------------------------- */

#define SEGUE_NO_ROW      UINT32_MAX
#define SEGUE_NO_SEQUENCE UINT64_MAX

enum segue_span_flags {
	SEGUE_SPAN_FIRST =
		1u << 0, /* first segment of its sequence: state in is the initial value */
	SEGUE_SPAN_LAST = 1u << 1,  /* last segment */
	SEGUE_SPAN_EMPTY = 1u << 2, /* a row without a sequence (tail = pad): length 0, zeros */
	SEGUE_SPAN_KEPT = 1u << 3,  /* it begins with states that were kept: SEGUE_INITIAL_KEPT */
};

/*
 * What lies in a row of the batch: `length` valid steps of one sequence from step first_step on.
 * Today one span a row, in row order. Later versions add fields at the end.
 */
struct segue_span {
	uint64_t number;        /* of the sequence in the stream, from 0: rank in which it enters */
	uint64_t epoch;         /* from 0; of an empty row: the epoch that it pads */
	uint64_t first_step;    /* segment * num_unroll */
	uint64_t array_steps;   /* steps of the whole sequence's arrays, cut to maximum_length */
	uint64_t total_length;  /* steps of the whole sequence that count */
	uint32_t row;           /* in this batch */
	uint32_t offset;        /* first step's place in the row */
	uint32_t length;        /* valid steps here */
	uint32_t segment;       /* k, from 0 ("sequence" in batches of the original) */
	uint32_t segment_count; /* of the whole sequence ("sequence_count") */
	uint32_t previous_row;  /* its row in the batch before, or SEGUE_NO_ROW */
	uint32_t flags;         /* enum segue_span_flags */
	uint32_t part; /* of a mix: which of its parts the sequence is of, from 0; else 0 */
};

/* Step t of the batch in its lane. */
SEGUE_EXPORT uint64_t segue_batch_step(const struct segue_batch *batch);
/*
 * Rows: the lane's batch size (0: segue_lane_set_batch_size), or fewer, but not 0, in a shrinking
 * tail.
 */
SEGUE_EXPORT uint32_t segue_batch_rows(const struct segue_batch *batch);
/*
 * Steps of each row: num_unroll, or with SEGUE_SPEC_TRIM the longest `length` of its rows, at least
 * 1. The tensors have no more: row r of a sequence feature begins behind r times so many steps.
 */
SEGUE_EXPORT uint32_t segue_batch_steps(const struct segue_batch *batch);
/*
 * Copies span `i`, below segue_batch_rows(): as much of it as fits `size`, the size of the caller's
 * struct; what this version does not know becomes 0.
 *
 * SEGUE_EINVAL (no such span), SEGUE_EPROTOCOL (the table is damaged), SEGUE_EFORKED.
 */
SEGUE_EXPORT int segue_batch_span(
	const struct segue_batch *batch, uint32_t i, struct segue_span *out, size_t size);
/* The record's key of row `row`: not NUL-terminated, valid until the batch is released. */
SEGUE_EXPORT const char *segue_batch_record_key(
	const struct segue_batch *batch, uint32_t row, size_t *size);
/*
 * "%05d_of_%05d:<key>" of the row's segment, or of the next one ("STOP:<key>" after the last), with
 * a NUL; returns its length like snprintf, and writes at most `size` bytes. An empty row's key is
 * "".
 */
SEGUE_EXPORT size_t segue_batch_key(
	const struct segue_batch *batch, uint32_t row, bool next, char *buffer, size_t size);
/*
 * Sequence feature `i` (order of the spec): [rows, segue_batch_steps(), dims...]; NULL if there is
 * no such, or it is not dense.
 */
SEGUE_EXPORT const void *segue_batch_sequence(const struct segue_batch *batch, size_t i);
/* Context feature `i`: [rows, dims...]. */
SEGUE_EXPORT const void *segue_batch_context(const struct segue_batch *batch, size_t i);

/* The values of a feature that is ragged, or bytes. Later versions add fields at the end. */
struct segue_ragged {
	/*
	 * Where the values of each step begin and the last one's end, counted in values: [rows,
	 * segue_batch_steps() + 1], where a row begins where the one before has ended; of context
	 * [rows + 1]. From 0 on, never falling. Steps behind the end of a sequence have no values.
	 */
	const int64_t *offsets;
	const void *values; /* one behind the other, aligned to 64 bytes; NULL: there are none */
	uint64_t count;
};

/*
 * Sequence feature `i`, or context feature `i`, that is not dense. Valid until the batch is
 * released. Looks at all offsets. As much of it as fits `size`, the size of the caller's struct;
 * what this version does not know becomes 0.
 *
 * SEGUE_EINVAL (there is no such, or it is dense), SEGUE_EPROTOCOL (what the server wrote cannot
 * be), SEGUE_EFORKED.
 */
SEGUE_EXPORT int segue_batch_sequence_ragged(
	const struct segue_batch *batch, size_t i, struct segue_ragged *out, size_t size);
SEGUE_EXPORT int segue_batch_context_ragged(
	const struct segue_batch *batch, size_t i, struct segue_ragged *out, size_t size);
/*
 * State `i` as it comes in: [*rows, dims...]; NULL if there is no such. Read only: writing there
 * faults. `rows` may be NULL: today they are those of the batch.
 */
SEGUE_EXPORT const void *segue_batch_state(struct segue_batch *batch, size_t i, uint32_t *rows);
/*
 * Where state `i` goes out: [rows, dims...], writable until the commit; segue_batch_mark_saved()
 * says that it is written. NULL once the batch is committed or fenced.
 */
SEGUE_EXPORT void *segue_batch_state_out(struct segue_batch *batch, size_t i);
SEGUE_EXPORT int segue_batch_mark_saved(struct segue_batch *batch, size_t i);
/* Copies `data` ([rows, dims...], `size` bytes) there and marks it. SEGUE_ESTATE, SEGUE_ECOMMITTED.
 */
SEGUE_EXPORT int segue_batch_save_state(
	struct segue_batch *batch, size_t i, const void *data, size_t size);
/* True if every state of the stream was saved. */
SEGUE_EXPORT bool segue_batch_all_saved(const struct segue_batch *batch);
SEGUE_EXPORT bool segue_batch_committed(const struct segue_batch *batch);
/*
 * Makes the saved states and the advance to the next step true: one atomic store, no system call
 * (at SEGUE_DURABLE_COMMIT it waits until they are on disk). SEGUE_EUNSAVED names the states that
 * are missing; SEGUE_ECOMMITTED; SEGUE_EFENCED; SEGUE_ESTALE.
 *
 * At SEGUE_DURABLE_COMMIT also SEGUE_ENOSPACE, SEGUE_ESTORE, SEGUE_EGONE, SEGUE_EINTERRUPTED,
 * SEGUE_EFENCED from the wait: the commit stands (segue_batch_committed) and is not known to be on
 * disk; segue_lane_flush waits for it again.
 */
SEGUE_EXPORT int segue_batch_commit(struct segue_batch *batch);
/*
 * The batch is no longer open: the next segue_lane_next delivers it again, with the same bytes, by
 * another handle. Pointers into this one stay good until it is released; nothing may be written
 * through segue_batch_state_out() any more. Of no effect after the commit. NULL is fine.
 */
SEGUE_EXPORT void segue_batch_put_back(struct segue_batch *batch);
/*
 * Gives the batch's memory back; pointers into it die. Any order, also after its lane, stream and
 * client are closed. A batch that was not committed is put back. NULL is fine.
 */
SEGUE_EXPORT void segue_batch_release(struct segue_batch *batch);

/* ---- Sequence files -------------------------------------------------------------------------- */

/*
 * Files of segue's own format (docs/format.md), which it reads fastest: many sequences a file, each
 * with its arrays. Needs no server.
 *
 *	segue_file_writer_create("train.segue", spec, &writer);
 *	while (...)
 *		segue_file_writer_add(writer, &sequence);
 *	segue_file_writer_close(writer);
 *	segue_file_writer_destroy(writer);
 */
struct segue_file_writer;

struct segue_sequence {
	size_t size;    /* sizeof(struct segue_sequence) */
	uint64_t steps; /* 1 to UINT32_MAX: the first dimension of each sequence feature */
	/*
	 * Steps that count, if has_total_length; else all. 0 to `steps` rounded up to the
	 * num_unroll of who reads it.
	 */
	uint64_t total_length;
	bool has_total_length;
	const void *key; /* 1 to SEGUE_KEY_MAX bytes of any kind; NULL: "<file name>:<number>" */
	size_t key_size;
	/*
	 * An array for each field, of any alignment: those of the sequences ([steps, dims...]),
	 * then contexts, then states ([dims...]), each in the order of the spec. Of a ragged field,
	 * and of bytes, the values of all steps, one behind the other; NULL: there are none.
	 */
	const void *const *arrays;
	/*
	 * For each field as above: of ragged ones, and of bytes, where the values of each step
	 * begin and the last one's end, [steps + 1] (context: [2]), counted in values from 0 on. Of
	 * the others it is not looked at. NULL: all are dense.
	 */
	const int64_t *const *offsets;
};

/*
 * Makes the file, in which nothing may be yet, not even an empty file: SEGUE_ESYSTEM says so. Each
 * of its sequences has the features of the spec, a value a step or a sequence, and a value of each
 * state, that of its first segment; nothing else of the spec is looked at, and it is not needed
 * afterwards. SEGUE_EINVAL (no sequence feature), SEGUE_ENOSPACE, SEGUE_ENOMEM.
 */
SEGUE_EXPORT int segue_file_writer_create(
	const char *path, const struct segue_spec *spec, struct segue_file_writer **out);

/*
 * Adds a sequence, behind those before it. What it points to is not needed afterwards. Blocks while
 * it writes. If it fails the file has nothing of this sequence, and the writer can go on.
 *
 * SEGUE_EINVAL (no steps, key or array, a bool that is neither 0 nor 1: names the field),
 * SEGUE_ENOSPACE, SEGUE_ENOMEM, SEGUE_ESYSTEM, SEGUE_EFORKED.
 */
SEGUE_EXPORT int segue_file_writer_add(
	struct segue_file_writer *writer, const struct segue_sequence *sequence);

/*
 * Finishes the file: when it returns 0, all of it is on disk, under its name. Else the file is not
 * finished, and streams refuse it. After SEGUE_ENOSPACE it may be called again.
 */
SEGUE_EXPORT int segue_file_writer_close(struct segue_file_writer *writer);

/* Removes the file, which is not finished. */
SEGUE_EXPORT int segue_file_writer_abort(struct segue_file_writer *writer);

/*
 * Frees the writer. A file that was neither closed nor aborted stays, unfinished, with all
 * sequences that were added (as far as they can be written). NULL is fine.
 */
SEGUE_EXPORT void segue_file_writer_destroy(struct segue_file_writer *writer);

/* Sequences and steps that were added, and bytes of the file so far; each may be NULL. */
SEGUE_EXPORT void segue_file_writer_written(const struct segue_file_writer *writer,
	uint64_t *sequences, uint64_t *steps, uint64_t *bytes);

/* ---- Producers ------------------------------------------------------------------------------- */

/*
 * Sequences are inserted into a stream whose source is SEGUE_SOURCE_LOG, or a mix with it, by
 * producers: in any process that opens the stream, each under a name. Each entry of a name has a
 * serial, from 1 on; what is not acknowledged is kept here and sent again after the connection was
 * lost, and nothing is in the log twice. As with a client, one thread at a time.
 */
struct segue_producer;

struct segue_producer_options {
	size_t size;   /* sizeof(struct segue_producer_options) */
	bool takeover; /* a session of that name that another has ends: its inserts fail */
	/* Bytes that are under way at most; 0: 16 MiB. A longer sequence travels by itself. */
	uint64_t ring_bytes;
};

/*
 * Begins a session of a name (1 to 255 bytes of UTF-8). `options` may be NULL. SEGUE_EBUSY: another
 * has it; SEGUE_EEND: the input has ended, and the name has inserted nothing; SEGUE_EINVAL: the
 * stream is of another source. The stream is closed after its producers.
 */
SEGUE_EXPORT int segue_producer_open(struct segue_stream *stream, const char *name,
	const struct segue_producer_options *options, struct segue_producer **out);

/*
 * Where the name stood when it was opened: serial of its last entry, and the cursor that came with
 * it (as long as the producer; size 0: none). From there it goes on.
 */
SEGUE_EXPORT void segue_producer_resumed(const struct segue_producer *producer, uint64_t *serial,
	const void **cursor, size_t *cursor_size);

/*
 * Inserts a sequence; what it points to is not needed afterwards. Arrays are in the order of the
 * stream's spec: sequence features, context features, states whose initial values are from the
 * data. Without a key it has "<name>:<serial>". `cursor`: up to 4096 bytes, which whoever opens the
 * name next finds; NULL: none.
 *
 * It is under way when this returns: segue_producer_flush() waits until it is acknowledged. Waits
 * up to timeout_ns while there is no room: SEGUE_ETIMEOUT, nothing was inserted, says which lane is
 * furthest behind and who holds it; 0: does not wait.
 * SEGUE_EINVAL: it is not one of the spec, nothing was inserted. An error of one before it comes
 * here, too: SEGUE_EEND (the input has ended), SEGUE_EFENCED (taken over), ...: then the producer
 * inserts nothing more. SEGUE_ENOSPACE: the disk of the log is full; it is sent again by the next
 * call.
 */
SEGUE_EXPORT int segue_producer_insert(struct segue_producer *producer,
	const struct segue_sequence *sequence, const void *cursor, size_t cursor_size,
	int64_t timeout_ns);

/*
 * Waits until all that was inserted is acknowledged: as safe as the stream's durability promises.
 * SEGUE_ETIMEOUT, and others, as of segue_producer_insert().
 */
SEGUE_EXPORT int segue_producer_flush(struct segue_producer *producer, int64_t timeout_ns);

/* Serials: of the last entry that was inserted, and that is acknowledged as far as is known. */
SEGUE_EXPORT void segue_producer_serials(
	const struct segue_producer *producer, uint64_t *inserted, uint64_t *acknowledged);

/* Flushes, then closes the name for good. The producer is still to be destroyed. */
SEGUE_EXPORT int segue_producer_close(struct segue_producer *producer, int64_t timeout_ns);

/* Frees it. The name can be opened again, unless it was closed. NULL is fine. */
SEGUE_EXPORT void segue_producer_destroy(struct segue_producer *producer);

/*
 * Ends the input for good; on disk when this returns. What producers have under way is not part of
 * it.
 */
SEGUE_EXPORT int segue_stream_end_input(struct segue_stream *stream);

/*
 * What was inserted into the stream of that name, as a data set (for epochs, or shuffled): the
 * paths of its files, which segue_spec_add_path() takes for SEGUE_SOURCE_FILES, each ended by a
 * NUL, *size bytes in all. They are the stream's own, and go with it. Blocks until the server has
 * answered; the stream need not be open. The caller frees *paths (segue_free).
 *
 * SEGUE_EINVAL: it reads no log, its input has not ended, nothing was inserted, or what was
 * inserted first was given up. SEGUE_ENOTFOUND: the store has no such stream.
 */
SEGUE_EXPORT int segue_stream_files(
	struct segue_client *client, const char *stream, char **paths, size_t *size);

/*
 * Leaves word that nobody inserts any more, and why, for those who wait for sequences: it is in
 * SEGUE_REPORT_STATUS ("input_failure") until a producer is opened again. The input has not ended,
 * and nothing is stored. To be called before the producer is destroyed, for another may go on. Of
 * the reason at most 4096 bytes are kept. SEGUE_EINVAL: nothing is inserted into that stream.
 */
SEGUE_EXPORT int segue_stream_fail_input(struct segue_stream *stream, const char *reason);

#ifdef __cplusplus
}
#endif

#endif
