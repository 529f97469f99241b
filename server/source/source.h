/*
 * A source: a pure map from record number to (key, steps, values), read where and when it is
 * needed.
 *
 * A source is shared by all loader threads of a stream. A record is an open reading position in one
 * of its records and belongs to one thread at a time. The interface is a table of operations;
 * TFRecord files are the first implementation (source_tfrecord.c).
 */
#ifndef SEGUE_SOURCE_SOURCE_H
#define SEGUE_SOURCE_SOURCE_H

#include "core/spec.h"
#include "guard/roots.h"

struct segue_source;
struct segue_record;

/* What a record is, found by admitting it. */
struct segue_admitted {
	uint64_t array_steps;  /* n >= 1 */
	uint64_t total_length; /* = n unless the record says otherwise */
};

struct segue_source_ops {
	uint64_t (*records)(const struct segue_source *source);
	uint32_t (*key_max)(const struct segue_source *source);
	/*
	 * Reads and checks record `number` whole, by one scan: lengths, checksum, structure, the
	 * shape of every step of every feature, that all sequence features have the same number of
	 * steps, and (spec pad = false) that it is a multiple of num_unroll. On success the caller
	 * owns *out. SEGUE_EDATA: the bytes were read and are wrong, hence always wrong (the detail
	 * names file, offset, feature, and what to do); SEGUE_ESOURCE: they could not be read, or
	 * the file has changed (SEGUE_ECHANGED).
	 */
	int (*admit)(struct segue_source *source, uint64_t number, struct segue_record **out,
		struct segue_admitted *admitted);
	/*
	 * Lengths of all records (array steps; 0: the record is damaged and on_error = skip),
	 * scanned once and then kept in the index: `records` entries, valid as long as the source.
	 * Long; reports progress. Safe to call from several threads.
	 */
	int (*lengths)(struct segue_source *source, segue_progress_fn *progress, void *arg,
		const uint32_t **out);
	void (*destroy)(struct segue_source *source);
};

struct segue_record_ops {
	/* The record's key: not NUL-terminated, 1..key_max bytes, valid as long as the record. */
	const char *(*key)(const struct segue_record *record, size_t *size);
	/* Moves every feature's cursor to step `step` (forwards or backwards). */
	int (*seek)(struct segue_record *record, uint64_t step);
	/*
	 * Writes the next `steps` steps of sequence feature `feature` (order of the spec) densely
	 * to `out` (steps * field size bytes) and moves its cursor on. The caller does not ask
	 * beyond the end. SEGUE_ESOURCE if a read fails; SEGUE_ECHANGED if the bytes are no longer
	 * those that were admitted.
	 */
	int (*read)(struct segue_record *record, size_t feature, uint64_t steps, void *out);
	/* Writes context feature `feature`. */
	int (*context)(struct segue_record *record, size_t feature, void *out);
	/* Bytes of memory that the record holds; for accounting. */
	size_t (*memory)(const struct segue_record *record);
	void (*release)(struct segue_record *record);
};

/* First member of an implementation's own struct. */
struct segue_source {
	const struct segue_source_ops *ops;
};

struct segue_record {
	const struct segue_record_ops *ops;
};

/*
 * Where an index is kept between runs: the store in the server, memory in tests. `name` is a short
 * printable text.
 */
struct segue_index_keeper {
	void *arg;
	/* The bytes kept under `name`, malloc'd; SEGUE_ENOTFOUND. */
	int (*load)(void *arg, const char *name, void **bytes, size_t *size);
	int (*save)(void *arg, const char *name, const void *bytes, size_t size);
};

/* Counters of a source, read without a lock by reports. */
struct segue_source_stats {
	uint64_t records, files, bytes;
	uint64_t skipped;      /* damaged records passed over so far (each time they were met) */
	uint64_t index_memory; /* bytes of index in memory */
	uint64_t fingerprint[2];
	const char *crc; /* the CRC32C implementation in use: "vpclmulqdq", "sse4.2", "table" */
};

/*
 * Opens the TFRecord files of the spec: expands patterns (sorted by name; a plain path stands for
 * itself, the same file may be listed several times), inflates compressed files once into
 * `cache_dir` (made if need be), loads the index from `keeper` or builds it by hopping from record
 * to record (length and its CRC checked, the stored data CRC taken), and saves it. A kept index is
 * used if every file's size and the CRCs at its first and last record still agree; else
 * SEGUE_ECHANGED names the file: the data set belongs to the stream's identity.
 *
 * `spec`, `keeper` and what `opener` (roots.h; may be NULL) points to must outlive the source. Progress is reported in bytes ("index") and ("inflate"). The
 * fingerprint is made of relative paths, sizes and stored CRCs, never of times.
 *
 * SEGUE_ESOURCE: a path or pattern that matches nothing, a directory, no permission. SEGUE_EDATA:
 * truncated or damaged framing (file and offset), an empty data set.
 */
int segue_source_open_tfrecord(const struct segue_spec *spec, const char *cache_dir,
	const struct segue_opener *opener, const struct segue_index_keeper *keeper,
	segue_progress_fn *progress, void *arg, struct segue_source **out);

void segue_source_stats(const struct segue_source *source, struct segue_source_stats *stats);

/* Counts a record that the caller passes over (on_error = skip). Any thread. */
void segue_source_note_skip(struct segue_source *source);

#endif
