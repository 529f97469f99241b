/*
 * Options: what a stream and its source are told beside features and states. One row an option;
 * what takes, checks, copies, hashes, compares, packs, reports and binds them goes by the rows.
 *
 * A new option of streams is a row here, a value of enum segue_spec_option in segue.h, a field in
 * segue.proto, and an argument of the binding (client.py). One of a source is also put and got in
 * wire_spec.c, and an argument in spec.py. Pure.
 */
#ifndef SEGUE_CORE_OPTIONS_H
#define SEGUE_CORE_OPTIONS_H

#include <stddef.h>

#include "segue/segue.h"

/* ---- Limits ---- */

#define SEGUE_PATHS_MAX         (1u << 20) /* files and patterns of a source */
#define SEGUE_ROWS_MAX          (1u << 20) /* of a batch */
#define SEGUE_UNROLL_MAX        (1u << 20)
#define SEGUE_WINDOW_MAX        (1u << 20) /* sequences that a lane looks at for a class */
#define SEGUE_PRODUCERS_MAX     1024       /* of a log */
#define SEGUE_REPLICAS_MAX      1024       /* of a lane */
#define SEGUE_LANES_MAX         4096  /* the server keeps a table of all lanes of an open stream */
#define SEGUE_GROUPS_TIMEOUT    60000 /* ms, if none is given */
#define SEGUE_DEPTH_MAX         64    /* a bit each of a word: core/track.h */
#define SEGUE_THREADS_MAX       64
#define SEGUE_INTERVAL_MAX      3600000  /* ms: an hour */
#define SEGUE_LEASE_TIMEOUT_MAX 86400000 /* ms: a day */
#define SEGUE_GATHERED_MAX      65       /* groups: those with names, and that without */

/* ---- Rows ---- */

/*
 * X(name, C type, id, part, kind)
 *
 * name: of the field in the spec, in segue.proto and in reports. id: SEGUE_SPEC_<id> in segue.h.
 * part: identity (hashed; a change is refused by name), growing (hashed as the stream was made;
 * core/ends.h says how it changes), schedule (refused too), runtime (free).
 * kind: one of those below.
 *
 * The identity is hashed in the order of the rows, so rows keep their order, and new ones come
 * last. A row that has its usual value is left out of the hash: a new row changes no hash of what
 * was there before.
 */
#define SEGUE_OPTIONS(X)                                                                           \
	X(num_unroll, uint32_t, NUM_UNROLL, IDENTITY,                                              \
		SEGUE_NUMBER_OR_NONE(SEGUE_UNROLL_MAX, "steps"))                                   \
	X(batch_size, uint32_t, BATCH_SIZE, SCHEDULE, SEGUE_NUMBER(1, SEGUE_ROWS_MAX, 0, "rows"))  \
	X(lanes, uint32_t, LANES, SCHEDULE, SEGUE_NUMBER(1, SEGUE_LANES_MAX, 0, NULL))             \
	X(shuffle, bool, SHUFFLE, IDENTITY, SEGUE_FLAG)                                            \
	X(seed, uint64_t, SEED, IDENTITY, SEGUE_NUMBER(0, UINT64_MAX, 0, NULL))                    \
	X(epochs, uint64_t, EPOCHS, GROWING, SEGUE_NUMBER_OR_NONE(UINT64_MAX, NULL))               \
	X(first_epoch, uint64_t, FIRST_EPOCH, IDENTITY, SEGUE_NUMBER(0, UINT32_MAX, 0, NULL))      \
	X(pad, bool, PAD, IDENTITY, SEGUE_FLAG_ON)                                                 \
	X(tail, enum segue_tail, TAIL, SCHEDULE, SEGUE_CHOICE("shrink", "stop", "pad"))            \
	X(epoch_end, enum segue_epoch_end, EPOCH_END, SCHEDULE, SEGUE_CHOICE("continue", "drain")) \
	X(on_error, enum segue_on_error, ON_ERROR, IDENTITY, SEGUE_CHOICE("raise", "skip"))        \
	X(keep_final, bool, KEEP_FINAL, IDENTITY, SEGUE_FLAG)                                      \
	X(persist, bool, PERSIST, SCHEDULE, SEGUE_FLAG_ON)                                         \
	X(depth, uint32_t, DEPTH, RUNTIME, SEGUE_NUMBER(2, SEGUE_DEPTH_MAX, 4, "batches"))         \
	X(num_threads, uint32_t, NUM_THREADS, RUNTIME,                                             \
		SEGUE_NUMBER(1, SEGUE_THREADS_MAX, 1, "threads"))                                  \
	X(durability, enum segue_durability, DURABILITY, RUNTIME,                                  \
		SEGUE_CHOICE("interval", "commit"))                                                \
	X(interval_ms, uint32_t, INTERVAL_MS, RUNTIME,                                             \
		SEGUE_NUMBER(1, SEGUE_INTERVAL_MAX, 1000, "ms"))                                   \
	X(lease_timeout_ms, uint32_t, LEASE_TIMEOUT_MS, RUNTIME,                                   \
		SEGUE_NUMBER_OR_NONE(SEGUE_LEASE_TIMEOUT_MAX, "ms"))                               \
	X(keep_checkpoints, uint32_t, KEEP_CHECKPOINTS, RUNTIME,                                   \
		SEGUE_NUMBER(1, SEGUE_CHECKPOINTS_MAX, 3, NULL))                                   \
	X(maximum_length, uint32_t, MAXIMUM_LENGTH, IDENTITY,                                      \
		SEGUE_NUMBER_OR_NONE(UINT32_MAX, "steps"))                                         \
	X(on_too_long, enum segue_on_too_long, ON_TOO_LONG, IDENTITY,                              \
		SEGUE_CHOICE("error", "truncate", "skip"))                                         \
	X(trim, bool, TRIM, SCHEDULE, SEGUE_FLAG)                                                  \
	X(lanes_by, enum segue_lanes_by, LANES_BY, IDENTITY, SEGUE_CHOICE("sequence", "record"))   \
	X(window, uint32_t, WINDOW, IDENTITY, SEGUE_NUMBER_OR_NONE(SEGUE_WINDOW_MAX, "sequences")) \
	X(initial, enum segue_initial, INITIAL, IDENTITY, SEGUE_CHOICE("value", "kept"))           \
	X(groups, uint32_t, GROUPS, RUNTIME, SEGUE_NUMBER_OR_NONE(SEGUE_GATHERED_MAX, NULL))       \
	X(groups_timeout_ms, uint32_t, GROUPS_TIMEOUT_MS, RUNTIME,                                 \
		SEGUE_NUMBER(1, SEGUE_LEASE_TIMEOUT_MAX, SEGUE_GROUPS_TIMEOUT, "ms"))              \
	X(max_lag_ms, uint32_t, MAX_LAG_MS, RUNTIME,                                               \
		SEGUE_NUMBER_OR_NONE(SEGUE_LEASE_TIMEOUT_MAX, "ms"))                               \
	X(on_lag, enum segue_on_lag, ON_LAG, RUNTIME, SEGUE_CHOICE("wait", "detach"))

#define SEGUE_TFRECORD_OPTIONS(X)                                                                  \
	X(compression, enum segue_compression, COMPRESSION, RUNTIME,                               \
		SEGUE_CHOICE("auto", "none", "gzip", "zlib"))                                      \
	X(key_feature, char *, KEY_FEATURE, IDENTITY, SEGUE_TEXT("key (in C: key_feature)"))       \
	/* Decides which records are wrong, hence which are passed over. */                        \
	X(allow_surplus, bool, ALLOW_SURPLUS, IDENTITY, SEGUE_FLAG)                                \
	X(record, enum segue_record_kind, RECORD, IDENTITY,                                        \
		SEGUE_CHOICE("sequence_example", "example"))

#define SEGUE_ARRAYS_OPTIONS(X) X(checksum, bool, CHECKSUM, RUNTIME, SEGUE_FLAG)

#define SEGUE_LOG_OPTIONS(X)                                                                       \
	X(capacity, uint64_t, CAPACITY, RUNTIME, SEGUE_NUMBER_OR_NONE(UINT64_MAX, "sequences"))    \
	X(producers, uint32_t, PRODUCERS, RUNTIME,                                                 \
		SEGUE_NUMBER_OR_NONE(SEGUE_PRODUCERS_MAX, NULL))                                   \
	X(retain_sequences, uint64_t, RETAIN_SEQUENCES, RUNTIME,                                   \
		SEGUE_NUMBER_OR_NONE(UINT64_MAX, "sequences"))                                     \
	X(retain_bytes, uint64_t, RETAIN_BYTES, RUNTIME, SEGUE_NUMBER_OR_NONE(UINT64_MAX, "bytes"))

/* true or false. */
#define SEGUE_FLAG    .kind = SEGUE_OPTION_FLAG, .most = 1
#define SEGUE_FLAG_ON SEGUE_FLAG, .usual = 1 /* where nothing is said: true */
/*
 * From `least_` to `most_`; where nothing is said it is `usual_`, which below `least_` means that
 * something must be. unit: "ms" or what is counted.
 */
#define SEGUE_NUMBER(least_, most_, usual_, unit_)                                                 \
	.kind = SEGUE_OPTION_NUMBER, .least = (least_), .most = (most_), .usual = (usual_),        \
	.unit = (unit_)
/* Up to `most_`; 0 stands for none: no limit, never. */
#define SEGUE_NUMBER_OR_NONE(most_, unit_) SEGUE_NUMBER(0, most_, 0, unit_), .none = true
/* An enum that counts from 0; the names of its values. */
#define SEGUE_CHOICE(...)                                                                          \
	.kind = SEGUE_OPTION_CHOICE, .choices = (const char *const[]){__VA_ARGS__},                \
	.most = sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *) - 1
/* A name of the user's data, in which a ':' may be; NULL: none. Errors call it by `said_`. */
#define SEGUE_TEXT(said_) .kind = SEGUE_OPTION_TEXT, .said = (said_)

/* For X: the fields of a struct that has these options. */
#define SEGUE_OPTION_FIELD(name, type, id, part, ...) type name;
/* A row of its list. */
#define SEGUE_OPTION_ROW(spec, field, name_, id_, part_, ...)                                      \
	{                                                                                          \
		.name = (name_), .id = SEGUE_SPEC_##id_, .part = SEGUE_OPTION_##part_,             \
		__VA_ARGS__, .offset = offsetof(spec, field),                                      \
		.size = sizeof(((spec *)NULL)->field)                                              \
	}

enum segue_option_kind {
	SEGUE_OPTION_FLAG,
	SEGUE_OPTION_NUMBER,
	SEGUE_OPTION_CHOICE,
	SEGUE_OPTION_TEXT,
};

enum segue_option_part {
	SEGUE_OPTION_IDENTITY,
	SEGUE_OPTION_GROWING,
	SEGUE_OPTION_SCHEDULE,
	SEGUE_OPTION_RUNTIME,
};

/* Lists of them end with a row without a name. */
struct segue_option {
	const char *name;
	enum segue_spec_option id;
	enum segue_option_kind kind;
	enum segue_option_part part;
	bool none;
	size_t offset, size; /* in the spec's struct */
	uint64_t least, most, usual;
	const char *unit; /* NULL: none */
	const char *said; /* in errors; NULL: its name */
	const char *const *choices;
};

/* Below, `spec` is the struct that has the options of the list. */

/* The row of an option; NULL: the list has none. */
const struct segue_option *segue_option_find(
	const struct segue_option *list, enum segue_spec_option id);
/* The value of an option that is no text. */
uint64_t segue_option_get(const struct segue_option *option, const void *spec);
/* A text; NULL: none. */
const char *segue_option_text(const struct segue_option *option, const void *spec);
/* Its value as people write it, in `text` or static; a text is the spec's own. */
const char *segue_option_print(const struct segue_option *option, const void *spec, char text[24]);
/*
 * Sets one that is no text, or a text, which is copied (NULL: none). SEGUE_EINVAL names the option
 * (after `within`), its value and what is allowed; SEGUE_ENOMEM. It is then as before.
 */
int segue_option_set(
	const struct segue_option *option, const char *within, void *spec, uint64_t value);
int segue_option_set_text(
	const struct segue_option *option, const char *within, void *spec, const char *text);

/* Gives each its usual value; texts: none. */
void segue_options_init(const struct segue_option *list, void *spec);
/* SEGUE_EINVAL names the option (after `within`), its value and what is allowed. */
int segue_options_check(const struct segue_option *list, const char *within, const void *spec);
/* Gives `to`, a copy byte by byte of `from`, texts of its own. SEGUE_ENOMEM: all texts are its own,
 * or NULL. */
int segue_options_copy(const struct segue_option *list, const void *from, void *to);
/* Frees its texts. */
void segue_options_finish(const struct segue_option *list, void *spec);

struct segue_digest;
struct segue_differences;
/* Hashes the identity: name and value of each option that has not its usual value, then an end. */
void segue_options_hash(
	const struct segue_option *list, const void *spec, struct segue_digest *digest);
/* Adds those of identity and schedule that differ; what grows is not looked at. */
void segue_options_compare(const struct segue_option *list, const void *stored, const void *asked,
	struct segue_differences *differences);

/*
 * A name: 1 to SEGUE_NAME_MAX bytes of UTF-8 without control bytes. SEGUE_EINVAL; `what` names the
 * field: "sequences[2].name".
 */
int segue_name_check(const char *what, const char *name, bool colon_allowed);
/* SEGUE_EINVAL names the field, its value and what is allowed. */
int segue_range_check(const char *what, uint64_t value, uint64_t least, uint64_t most);
/* strdup; NULL stays NULL: the check says that it is missing. SEGUE_ENOMEM. */
int segue_text_copy(const char *from, char **to);

#endif
