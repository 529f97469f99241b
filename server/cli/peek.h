/*
 * segue peek: what is found in data files of one kind, record by record, and said in the end.
 *
 * peek_tfrecord.c and peek_seqfile.c look into files, peek_found.c collects what they see,
 * peek_report.c makes a report of it; peek_arrays.c has the Python for files of arrays. All that is
 * read is taken to be hostile.
 */
#ifndef SEGUE_CLI_PEEK_H
#define SEGUE_CLI_PEEK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/print.h"
#include "core/sequence_file.h"
#include "source/foreign.h"

#define SEGUE_PEEK_RECORDS  1000 /* that are looked into, of each file, unless all are asked for */
#define SEGUE_PEEK_KEYS     3    /* that are shown of each file */
#define SEGUE_PEEK_FEATURES 1024 /* that are told apart; a stream has fewer */

enum segue_peek_values { SEGUE_PEEK_NONE, SEGUE_PEEK_BYTES, SEGUE_PEEK_FLOAT, SEGUE_PEEK_INT64 };

/* How many values each record has of a feature: its steps, if that one says them. */
struct segue_peek_counts {
	uint64_t records; /* the first so many; fewer than all: one has not got it */
	uint64_t first;   /* of the first record */
	uint32_t *each;   /* NULL: all have as many */
	size_t room;
};

/* A feature of all records that were looked into. */
struct segue_peek_feature {
	char *name; /* any bytes */
	size_t name_size;
	enum segue_seqfile_place place;
	uint64_t records;       /* that have it; of sequence files: files */
	uint64_t least, most;   /* values a step, or a record */
	uint64_t values, bytes; /* in all; of TFRecord */
	struct segue_peek_counts counts;
	unsigned kinds;         /* bits, 1 << enum segue_peek_values; of TFRecord */
	enum segue_dtype dtype; /* of a sequence file; 0: none, which kinds say */
	uint32_t rank;
	uint64_t dims[SEGUE_RANK_MAX];
	enum segue_form form;
};

/* A file, as far as it was looked at. */
struct segue_peek_file {
	const char *path;
	const char *packed; /* "gzip"; NULL: not */
	uint64_t bytes, records, steps;
	bool all;         /* these are all records */
	uint64_t damaged; /* records; what is wrong: */
	char *trouble;    /* the first that was found; NULL: nothing */
	char *key[SEGUE_PEEK_KEYS];
	size_t key_size[SEGUE_PEEK_KEYS], keys;
};

/* What files of one kind have. */
struct segue_peek_found {
	const char *kind; /* "tfrecord" or "files", as sources are called */
	struct segue_peek_file *file;
	size_t files;
	struct segue_peek_feature *feature;
	size_t features;
	bool more_features; /* than are told apart */
	uint64_t *length;   /* of each sequence, in steps */
	size_t lengths, room;
	uint64_t heads;            /* files whose features are known, of sequence files */
	uint64_t records;          /* whose bytes are sound, of TFRecord */
	uint64_t sequences_differ; /* records whose sequence features have different steps */
	uint64_t flat;             /* records without any sequence feature: tf.train.Example */
	bool guessed;              /* their steps are: as many as values of one of the features */
	bool every;                /* look into all */
	struct segue_cli_progress *progress;
};

/* ---- Collecting (peek_found.c) ---- */

void segue_peek_add_file(struct segue_peek_found *found, const char *path, uint64_t bytes);
/* The file that was added last. */
struct segue_peek_file *segue_peek_file(struct segue_peek_found *found);
/* Notes this thread's detail of an error as the file's trouble, unless it has one. */
void segue_peek_trouble(struct segue_peek_found *found);
void segue_peek_key(struct segue_peek_found *found, const void *key, size_t size);
/* A sequence of the file that was added last. */
void segue_peek_length(struct segue_peek_found *found, uint64_t steps);
/* The feature of that place and name; made if need be. NULL: there are too many. */
struct segue_peek_feature *segue_peek_feature(struct segue_peek_found *found,
	enum segue_seqfile_place place, const void *name, size_t size);
/* The record at hand, of which no sequence feature is known, has so many values of a feature. */
void segue_peek_count(
	const struct segue_peek_found *found, struct segue_peek_feature *feature, uint64_t values);
/* Those of record `i`, below counts->records. */
uint64_t segue_peek_counted(const struct segue_peek_counts *counts, uint64_t i);
void segue_peek_finish(struct segue_peek_found *found);

/* ---- Looking ---- */

/*
 * Looks into a file that was added, which is open as `fd`. What is wrong with it is its trouble;
 * SEGUE_ENOMEM alone is an error.
 */
int segue_peek_tfrecord(struct segue_peek_found *found, int fd);
int segue_peek_seqfile(struct segue_peek_found *found, int fd);

/* ---- Saying (peek_report.c) ---- */

void segue_peek_report(struct segue_json *json, struct segue_peek_found *found);

/* ---- Files of arrays (peek_arrays.c) ---- */

/* As much of a file of arrays as its first bytes tell. */
struct segue_peek_arrays {
	enum segue_foreign_arrays form;
	bool packed;       /* .npz: what segue.Arrays does not read where it lies */
	const char *dtype; /* of samples; a literal */
	unsigned channels; /* the same */
};

struct segue_peek_arrays segue_peek_arrays_of(
	const struct segue_foreign *kind, const uint8_t *bytes, size_t size);
/* Whether one program opens both. */
bool segue_peek_arrays_equal(
	const struct segue_peek_arrays *one, const struct segue_peek_arrays *other);
/* The Python that opens such files, at least one; the caller frees it. */
char *segue_peek_arrays_python(
	const struct segue_peek_arrays *arrays, const char *const path[], size_t count);

#endif
