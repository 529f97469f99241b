/*
 * Where a stream's sequences come from, as library and server keep it: a kind and what it needs.
 *
 * One row a kind: a new one is a struct here, a value in segue.h, a list of options, a row, and its
 * message in segue.proto with two functions in wire_spec.c (and their switches, the scratch that
 * they take, whether it has paths); a driver in server/source/plain.c; a class in spec.py. Pure.
 */
#ifndef SEGUE_CORE_SPEC_SOURCE_H
#define SEGUE_CORE_SPEC_SOURCE_H

#include "core/array_index.h"
#include "core/options.h"

/* Absolute files or patterns. */
struct segue_paths {
	char **path;
	size_t count, room;
};

struct segue_spec_tfrecord {
	struct segue_paths paths;
	SEGUE_TFRECORD_OPTIONS(SEGUE_OPTION_FIELD)
};

struct segue_spec_files {
	struct segue_paths paths;
};

struct segue_spec_arrays {
	struct segue_paths paths;        /* names of files: no patterns */
	struct segue_array_index *index; /* NULL: not there yet, or kept in the store */
	SEGUE_ARRAYS_OPTIONS(SEGUE_OPTION_FIELD)
};

struct segue_spec_part;

struct segue_spec_mix {
	struct segue_spec_part *part;
	size_t count;
};

struct segue_spec_log {
	SEGUE_LOG_OPTIONS(SEGUE_OPTION_FIELD)
};

struct segue_spec_source {
	enum segue_source_kind kind;
	union {
		struct segue_spec_tfrecord tfrecord;
		struct segue_spec_files files;
		struct segue_spec_arrays arrays;
		struct segue_spec_mix mix;
		struct segue_spec_log log;
	};
};

struct segue_spec_part {
	char *name;
	uint32_t weight;
	uint64_t epochs; /* 0: for ever */
	struct segue_spec_source source;
};

#define SEGUE_MIX_BLOCK 1024 /* sequences of which each part has its share */

struct segue_source_row {
	const char *name;
	const struct segue_option *options; /* of struct segue_spec_source */
	size_t paths;                       /* offset of a kind that has paths; else 0 */
	bool initial_states;                /* sequences may have initial values of their own */
	bool variable;                      /* features may be ragged, or bytes */
	bool literal;                       /* its paths are names of files, not patterns */
};

/* The row of a kind; NULL: no such kind. */
const struct segue_source_row *segue_source_row(enum segue_source_kind kind);

/* The kind of that name; 0 (the source that the stream has): no other. */
enum segue_source_kind segue_source_kind(const char *name);

/*
 * Those of its sources that read data themselves: of a mix that of part `i`, of others it is the
 * first itself; NULL: no more.
 */
const struct segue_spec_source *segue_source_plain(
	const struct segue_spec_source *source, size_t i);
/* The log that it is, or that is a part of it; NULL: nothing of it is inserted. */
const struct segue_spec_log *segue_source_find_log(const struct segue_spec_source *source);
/* Says of a failure of that source which part of a mix it is, if it is one; returns rc. */
int segue_source_fail_within(const struct segue_spec_source *source, size_t i, int rc);

/* Its paths; NULL: a kind without. */
struct segue_paths *segue_source_paths(const struct segue_spec_source *source);
/* The i-th list of paths, of those sources that have one; NULL: no more. */
struct segue_paths *segue_source_list(const struct segue_spec_source *source, size_t i);
/* Of a mix: whether all its parts have; of a source that was checked. */
bool segue_source_has_initial(const struct segue_spec_source *source);
/*
 * The kind, as a message names it, whose features of sequences, or of context, cannot have that
 * form; NULL: they can. Of a mix that of the first such part.
 */
const char *segue_source_lacks(
	const struct segue_spec_source *source, enum segue_form form, bool context);
/*
 * How many of each SEGUE_MIX_BLOCK sequences are of each part: by largest remainder, of equal ones
 * the first.
 */
void segue_mix_quotas(const struct segue_spec_mix *mix, uint32_t quotas[SEGUE_PARTS_MAX]);

/* Where its index of arrays is to be; NULL: a kind without. */
struct segue_array_index **segue_source_index(const struct segue_spec_source *source);

/* A source of that kind, of which nothing else is said yet. SEGUE_EINVAL: no such kind. */
int segue_source_init(enum segue_source_kind kind, struct segue_spec_source *out);
/*
 * Adds a path, copied; a relative one is made absolute against the working directory. SEGUE_EINVAL
 * (none, too long, too many, a kind without), SEGUE_ENOMEM, SEGUE_ESYSTEM: nothing is added.
 */
int segue_source_add_path(struct segue_spec_source *source, const char *path);
/* Adds a part, checked, of which nothing else is said yet. SEGUE_EINVAL, SEGUE_ENOMEM. */
int segue_source_add_part(struct segue_spec_source *source, const struct segue_mix_part *part);
/*
 * What paths and options are said of: the source itself, or of a mix its last part. SEGUE_EINVAL:
 * there is none yet.
 */
int segue_source_last(struct segue_spec_source *source, struct segue_spec_source **out);
/* The row of its option. SEGUE_EINVAL: it has none such; says whose it is. */
int segue_source_option(const struct segue_spec_source *source, enum segue_spec_option id,
	const struct segue_option **out);
/* Checks all of it. SEGUE_EINVAL names the field, its value and what is allowed. */
int segue_source_check(const struct segue_spec_source *source);
/* Whether the paths of two sources of a kind are the same. */
bool segue_source_same_paths(
	const struct segue_spec_source *one, const struct segue_spec_source *other);
/* That of its log, if it has one: it holds at least so many sequences. `window`: said before what
 * they are counted by. SEGUE_EINVAL. */
int segue_source_check_capacity(
	const struct segue_spec_source *source, const char *window, uint64_t least);
/*
 * A deep copy, but that it holds the same index; on failure too, *out is to be finished.
 * SEGUE_ENOMEM.
 */
int segue_source_copy(const struct segue_spec_source *source, struct segue_spec_source *out);
/* Frees what it points to; a zeroed struct is fine. */
void segue_source_finish(struct segue_spec_source *source);

/* Hashes kind and identity. Not the paths: the data set has a fingerprint of its own. */
void segue_source_hash(const struct segue_spec_source *source, struct segue_digest *digest);
/* Adds what differs of what is hashed. */
void segue_source_compare(const struct segue_spec_source *stored,
	const struct segue_spec_source *asked, struct segue_differences *differences);

#endif
