/*
 * The index of arrays that lie in files: which arrays there are, and which of their steps make a
 * sequence. The client makes it, the server reads. docs/format.md draws it byte by byte.
 *
 *	columns    of each feature of the stream: the shape of a step
 *	groups     arrays that go together, one a column: how many steps they have
 *	arrays     of each group and column: file, place in it, dtype, byte order, stride
 *	sequences  group, first step, steps; group by group
 *	keys       of the sequences; may be left out
 *
 * An array of a sequence feature has a value a step of its group, one of a context feature a value
 * a sequence of its group. Files are numbers: places in a list of paths that travels beside it.
 *
 * Pure: bytes in, bytes out. All that is read is taken to be hostile.
 */
#ifndef SEGUE_CORE_ARRAY_INDEX_H
#define SEGUE_CORE_ARRAY_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "segue/segue.h"

#define SEGUE_ARRAY_INDEX_MAGIC   "SEGUEARR"
#define SEGUE_ARRAY_INDEX_VERSION 1

/* What follows lies in the index as it is here, little-endian. */

struct segue_array_column {
	uint8_t context; /* 1: a value a sequence; 0: a value a step */
	uint8_t rank;
	uint8_t reserved[6];
	uint64_t dims[SEGUE_RANK_MAX]; /* behind `rank`: 0 */
};

struct segue_array_group {
	uint64_t steps;
	uint64_t first; /* number of its first sequence; they end where the next group's begin */
};

struct segue_array_place {
	uint64_t offset; /* of the first value in the file */
	uint64_t stride; /* bytes from a value to the next, at least 1 */
	uint32_t file;
	uint8_t dtype; /* enum segue_dtype, as it lies there */
	uint8_t big_endian;
	uint8_t reserved[2];
};

/* Read, and checked: nothing in it leads outside of its bytes. Shared; it never changes. */
struct segue_array_index {
	uint8_t *bytes;
	size_t size;
	uint32_t columns, groups;
	uint32_t files;   /* each array's `file` is below it */
	uint32_t key_max; /* bytes of the longest key; 0: there are none */
	uint64_t sequences;
	const struct segue_array_column *column;
	const struct segue_array_group *group;
	const struct segue_array_place *array; /* group by group, in each column by column */
	const struct segue_array_sequence *sequence;
	const uint64_t *key_end; /* where each key ends in `keys`; NULL: there are none */
	const char *keys;
	_Atomic unsigned users;
};

/*
 * Packs what the application gives, of so many files, with the columns that its stream's features
 * are. On success the caller holds *out. SEGUE_EINVAL (names the group, array or sequence, and what
 * is wrong with it), SEGUE_ENOMEM.
 */
int segue_array_index_pack(const struct segue_arrays *asked, uint32_t files,
	const struct segue_array_column *column, uint32_t columns, struct segue_array_index **out);

/*
 * Reads a copy of the index that begins there: it has (*out)->size bytes, and more may follow. On
 * success the caller holds *out. SEGUE_EINVAL (what is wrong, and where), SEGUE_EFORMAT (of a later
 * version), SEGUE_ENOMEM.
 */
int segue_array_index_read(const void *bytes, size_t size, struct segue_array_index **out);

/* One holder more; it returns `index`. */
struct segue_array_index *segue_array_index_hold(struct segue_array_index *index);
/* One holder less; the last frees it. NULL is fine. */
void segue_array_index_drop(struct segue_array_index *index);

bool segue_array_index_equal(
	const struct segue_array_index *one, const struct segue_array_index *other);

/* The array of a group and column. */
const struct segue_array_place *segue_array_index_place(
	const struct segue_array_index *index, uint32_t group, uint32_t column);
/* How many sequences the group has, hence values an array of a context feature. */
uint64_t segue_array_index_sequences(const struct segue_array_index *index, uint32_t group);
/* Elements of a value of the column. */
uint64_t segue_array_column_elements(const struct segue_array_column *column);
/* Where the array ends in its file: behind its last value; 0: it has none. */
uint64_t segue_array_index_end(
	const struct segue_array_index *index, uint32_t group, uint32_t column);

#endif
