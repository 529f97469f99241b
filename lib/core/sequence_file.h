/*
 * Sequence files, segue's own: one file, many sequences, the steps of each feature side by side.
 * docs/format.md draws them byte by byte. Written once and never changed; little-endian.
 *
 *	head     which features there are, and initial states
 *	entry    a sequence: header (sizes, key, steps, hash of its columns), then a column a field
 *	...
 *	index    where each entry is, and its steps
 *	foot     how much all of it is, and the hash of all headers: the file's fingerprint
 *
 * Each column ends with a CRC32C for each block of 4 KiB of it. Whoever has checked a header, and
 * the table of a column against it, can read any window of the column and knows what it has read.
 *
 * Pure: bytes in, bytes out. All that is read is taken to be hostile.
 */
#ifndef SEGUE_CORE_SEQUENCE_FILE_H
#define SEGUE_CORE_SEQUENCE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/sequence_log.h"
#include "segue/segue.h"

#define SEGUE_SEQFILE_MAGIC       "SEGUESEQ" /* that a file begins with: 8 bytes */
#define SEGUE_SEQFILE_ENTRY_MAGIC "ENTR"     /* that an entry begins with: 4 bytes */
#define SEGUE_SEQFILE_VERSION     1
#define SEGUE_SEQFILE_ALIGN       64   /* of head, entries, columns, index and foot */
#define SEGUE_SEQFILE_BLOCK       4096 /* bytes of a column that one CRC32C covers */
#define SEGUE_SEQFILE_FOOT        128  /* bytes of the foot */
#define SEGUE_SEQFILE_HEAD_MAX    (1u << 21)
/* Bytes of the longest header of an entry. */
#define SEGUE_SEQFILE_ENTRY_MAX                                                                    \
	(56 + 8 * SEGUE_FEATURES_MAX + SEGUE_KEY_MAX + SEGUE_SEQLOG_STAMP_MAX + 4)
#define SEGUE_SEQFILE_NO_TOTAL UINT64_MAX

/* What a field is of. */
enum segue_seqfile_place {
	SEGUE_SEQFILE_SEQUENCE = 0, /* a value a step */
	SEGUE_SEQFILE_CONTEXT = 1,  /* one a sequence */
	SEGUE_SEQFILE_STATE = 2,    /* one a sequence: the state of its first segment */
};

struct segue_seqfile_field {
	char name[SEGUE_NAME_MAX + 1];
	enum segue_seqfile_place place;
	enum segue_dtype dtype;
	uint32_t rank;
	uint64_t dims[SEGUE_RANK_MAX];
	enum segue_form form;
	uint64_t size;     /* bytes of a value: the product of dims, times that of an element */
	uint32_t variable; /* not dense: its number among those that are not */
};

/* What a file's head says. Fields are in the order of their columns. */
struct segue_seqfile_head {
	struct segue_seqfile_field *fields; /* at least one of SEQUENCE */
	uint32_t count;
	uint32_t size;            /* bytes of the head: where the first entry begins */
	uint32_t variable;        /* fields that are not dense */
	struct segue_seqlog *log; /* malloc'd; NULL: the file is of no log */
};

/* A sequence's header, but for its columns. */
struct segue_seqfile_entry {
	uint64_t steps;        /* of every sequence field; 1 to UINT32_MAX */
	uint64_t total_length; /* or SEGUE_SEQFILE_NO_TOTAL; 0 to steps rounded up by the reader */
	const char *key;       /* in the bytes that were read; not NUL-terminated */
	uint32_t key_size;     /* 1 to SEGUE_KEY_MAX */
	/*
	 * A number of 8 bytes, of any alignment, for each field that is not dense: how many values
	 * it has. In the bytes that were read; NULL: all fields are dense.
	 */
	const uint8_t *counts;
	uint32_t header_size; /* bytes up to the first column, without what aligns it */
	uint64_t size;        /* bytes from here to the next entry, or to the index */
	uint32_t crc;         /* CRC32C of the header, its last 4 bytes */
	uint64_t hash[2];     /* of the tables of all columns, in their order: XXH3-128 */
	struct segue_seqlog_stamp stamp; /* of a log's file; else zeros */
};

struct segue_seqfile_foot {
	uint64_t entries;
	uint64_t index; /* where it begins: an indexed each, then the CRC32C of all of them */
	uint64_t steps; /* of all entries */
	uint32_t key_max, head_size;
	uint64_t fingerprint[2]; /* XXH3-128 of the head, then of the header of every entry */
};

/*
 * One of the index, little-endian: where an entry begins, its steps, and the CRC32C that its header
 * ends with. What the server keeps of a record (server/source/index.h) has the same layout, so the
 * index of a file is read into its place as it is.
 */
struct segue_seqfile_indexed {
	uint64_t offset;
	uint32_t steps, crc;
};

/* ---- Sizes: all of them follow from the head and an entry's steps, counts and key ------------ */

/* Values of a field that is not dense; of others 0. */
uint64_t segue_seqfile_count(
	const struct segue_seqfile_field *field, const struct segue_seqfile_entry *entry);
/* Bytes of the offsets that its column begins with; of a dense one 0. */
uint64_t segue_seqfile_offsets_size(
	const struct segue_seqfile_field *field, const struct segue_seqfile_entry *entry);
/* Bytes of a column's data, offsets included; UINT64_MAX: more than can be. */
uint64_t segue_seqfile_column_size(
	const struct segue_seqfile_field *field, const struct segue_seqfile_entry *entry);
/* Bytes of the longest header that an entry of this head can have. */
static inline size_t segue_seqfile_header_max(const struct segue_seqfile_head *head)
{
	return 56 + 8 * (size_t)head->variable + SEGUE_KEY_MAX +
	       (head->log ? SEGUE_SEQLOG_STAMP_MAX : 0) + 4;
}
/* Blocks of it: its table has 4 bytes for each, right behind the data, of any alignment. */
uint64_t segue_seqfile_blocks(uint64_t column_size);
/* Bytes from the index's beginning to the foot: 16 an entry, its CRC32C, and what aligns it. */
uint64_t segue_seqfile_index_size(uint64_t entries);
/*
 * Whether a sequence of so many steps may have that total length, whatever the num_unroll of who
 * reads it (below 2^32), or has none.
 */
bool segue_seqfile_total_fits(uint64_t total_length, uint64_t steps);
/*
 * Whether `size` bytes of offsets, little-endian and of any alignment, begin at 0, never fall, and
 * end at `count`.
 */
bool segue_seqfile_offsets_fit(const void *offsets, uint64_t size, uint64_t count);
/*
 * The same, part by part: of a column that begins with `size` bytes of offsets, of `count` values,
 * the `part` bytes at `at` (multiples of 8). *before: the last offset before, 0 at first.
 */
bool segue_seqfile_offsets_rise(const void *bytes, uint64_t at, uint64_t part, uint64_t size,
	uint64_t count, uint64_t *before);
/*
 * Lays an entry out: sets its sizes from steps, counts, key_size and stamp, and columns[i] of all
 * head->count to where column i begins, from the entry's beginning. SEGUE_EINVAL: no or too many
 * steps, no or too long a key, longer than a file can be.
 */
int segue_seqfile_lay_out(const struct segue_seqfile_head *head, struct segue_seqfile_entry *entry,
	uint64_t *columns);

/* ---- Bytes ---------------------------------------------------------------------------------- */

/* "sequences", "context", "states": what people call the fields of a place. Static. */
const char *segue_seqfile_place_name(enum segue_seqfile_place place);
/*
 * Checks fields, computes their sizes, and the head's. SEGUE_EINVAL names the field, and what is
 * wrong with it: no name, one twice in a place, no dtype, rank, a size that overflows, no sequence
 * field, too many.
 */
int segue_seqfile_check_fields(struct segue_seqfile_head *head);
/* Writes head->size bytes. */
void segue_seqfile_pack_head(const struct segue_seqfile_head *head, void *out);
/*
 * Reads one from the first `size` bytes of a file. On success segue_seqfile_free_head() frees it.
 * 1: it has out->size bytes or more, more than these; nothing else of *out is set. SEGUE_EINVAL:
 * this is no sequence file; SEGUE_EDATA: damaged; SEGUE_EFORMAT: of a later version, or one that
 * requires what this one does not know; SEGUE_ENOMEM.
 */
int segue_seqfile_read_head(const void *bytes, size_t size, struct segue_seqfile_head *out);
void segue_seqfile_free_head(struct segue_seqfile_head *head);

/* Writes the header_size bytes of an entry that was laid out, and sets its crc. */
void segue_seqfile_pack_entry(struct segue_seqfile_entry *entry, void *out);
/*
 * Reads one, at whose beginning are these `size` bytes. 1: its header has out->header_size bytes or
 * more, more than these; nothing else of *out is set. SEGUE_EDATA: damaged, or not of this head;
 * SEGUE_EFORMAT. Whether it lies within its file, and is the one that the index means (steps, crc),
 * is for the caller to see.
 */
int segue_seqfile_read_entry(const struct segue_seqfile_head *head, const void *bytes, size_t size,
	struct segue_seqfile_entry *out);

/* SEGUE_SEQFILE_FOOT bytes, the last of the file. */
void segue_seqfile_pack_foot(const struct segue_seqfile_foot *foot, void *out);
/*
 * Reads the last SEGUE_SEQFILE_FOOT bytes of a file of `file_size`; of a shorter one nothing is
 * read. SEGUE_EINVAL: no foot is there; SEGUE_EDATA: damaged, or not that of a file of `file_size`;
 * SEGUE_EFORMAT. What it says fits: the entries' least sizes, index and foot fill the file.
 */
int segue_seqfile_read_foot(const void *bytes, uint64_t file_size, struct segue_seqfile_foot *out);

/* CRC32C of bytes, as the tables have it. */
uint32_t segue_seqfile_crc(const void *bytes, size_t size);
/* Writes the table of a column: 4 bytes for each of its segue_seqfile_blocks(size). */
void segue_seqfile_put_table(const void *column, uint64_t size, void *table);
/* The same of a column that lies in two places. */
void segue_seqfile_put_table_of(const void *const part[2], const uint64_t size[2], void *table);

#endif
