/*
 * A sequence of a sequence file, admitted: its header, and where its columns are, or all of it.
 * Whoever has the file says where the entry is, and reads.
 */
#ifndef SEGUE_SOURCE_SEQFILE_RECORD_H
#define SEGUE_SOURCE_SEQFILE_RECORD_H

#include "source/buffers.h"
#include "source/seqfile/file_set.h"
#include "source/sink.h"
#include "source/source.h"

/* Who reads the files. */
struct segue_seqfile_reader {
	/* SEGUE_ESOURCE, SEGUE_ECHANGED */
	int (*read)(void *arg, size_t file, uint64_t position, void *bytes, size_t size);
	/* Puts its name before the detail; returns rc. */
	int (*fail_within)(void *arg, size_t file, int rc);
	void *arg;
};

/* An entry that is to be read, and what is known of it. */
struct segue_seqfile_found {
	const struct segue_seqfile_reader *reader;
	const struct segue_seqfile_layout *layout; /* of the file */
	size_t file;                               /* the reader's number of it */
	uint64_t number;                           /* for messages */
	uint64_t offset, size;                     /* in the file */
	uint32_t steps, crc;                       /* that its header must have */
	uint32_t key_max;
};

struct segue_seqfile_column {
	uint64_t begin, size; /* in the entry; of its data */
	/* Not dense: bytes of the offsets that it begins with, values behind them; else 0. */
	uint64_t offsets, count;
	const uint8_t *table; /* of a longer sequence: its checksums; else NULL */
	uint64_t at;          /* the cursor: bytes that were read; not dense: steps */
	/* The block that a window of a longer one ended in, checked; SIZE_MAX: none. */
	uint64_t block;
	uint8_t *bytes;
};

struct segue_seqfile_record {
	struct segue_record base;
	struct segue_seqfile_record *next; /* in the list of free ones */
	const struct segue_spec *spec;
	struct segue_buffers *buffers;
	struct segue_seqfile_found found;
	struct segue_seqfile_entry entry;
	struct segue_seqfile_column *column; /* of the spec: segue_seqfile_columns() */
	uint64_t *begins;                    /* scratch: of all columns of the file */
	uint8_t *bytes;                      /* the entry, or its header and tables */
	size_t capacity;
	bool whole;
};

/* One that can hold any sequence of files of up to `columns` columns. SEGUE_ENOMEM. */
int segue_seqfile_record_new(const struct segue_spec *spec, uint32_t columns,
	struct segue_buffers *buffers, struct segue_seqfile_record **out);
void segue_seqfile_record_free(struct segue_seqfile_record *record);

/*
 * Reads the entry and checks it: whole if it has up to `whole_max` bytes, else its header and
 * tables; with `through` all blocks of a longer one, too. SEGUE_EDATA, SEGUE_ECHANGED,
 * SEGUE_ESOURCE, SEGUE_ENOMEM, SEGUE_EMISFIT; the detail names file and sequence.
 */
int segue_seqfile_record_load(struct segue_seqfile_record *record,
	const struct segue_seqfile_found *found, size_t whole_max, bool through);
/* Gives its memory back. */
void segue_seqfile_record_unload(struct segue_seqfile_record *record);
/* What it is, after it was loaded. */
struct segue_admitted segue_seqfile_record_admitted(const struct segue_seqfile_record *record);

/* Operations of struct segue_record_ops: all but the release. */
const char *segue_seqfile_record_key(const struct segue_record *base, size_t *size);
int segue_seqfile_record_seek(struct segue_record *base, uint64_t step);
int segue_seqfile_record_read(struct segue_record *base, size_t feature, uint64_t steps, void *out);
int segue_seqfile_record_context(struct segue_record *base, size_t feature, void *out);
int segue_seqfile_record_initial(struct segue_record *base, size_t state, void *out);
int segue_seqfile_record_read_variable(struct segue_record *base, size_t feature, uint64_t steps,
	int64_t *offsets, struct segue_sink *sink);
int segue_seqfile_record_context_variable(
	struct segue_record *base, size_t feature, int64_t *offsets, struct segue_sink *sink);
size_t segue_seqfile_record_memory(const struct segue_record *base);
#define SEGUE_SEQFILE_RECORD_OPS(release_)                                                         \
	{                                                                                          \
		.key = segue_seqfile_record_key, .seek = segue_seqfile_record_seek,                \
		.read = segue_seqfile_record_read, .context = segue_seqfile_record_context,        \
		.initial = segue_seqfile_record_initial,                                           \
		.read_variable = segue_seqfile_record_read_variable,                               \
		.context_variable = segue_seqfile_record_context_variable,                         \
		.memory = segue_seqfile_record_memory, .release = (release_)                       \
	}

#endif
