/*
 * How a producer hands a sequence over: all of it lies in an upload, at an offset that is a
 * multiple of 8,
 *
 *	counts   a uint64 for each field that is not dense: its values
 *	key, cursor
 *	columns  as in a sequence file, each from a multiple of 8 on
 *
 * and the message says how long key and cursor are, and how many steps there are. Pure: the library
 * checks what it is given, the server what it has copied, by the same functions.
 */
#ifndef SEGUE_CORE_INSERT_H
#define SEGUE_CORE_INSERT_H

#include "core/sequence_file.h"
#include "core/spec.h"

/* So much of a ring is taken by each entry that is under way, however small. */
#define SEGUE_INSERT_LEAST 1024

/*
 * What sequences have that are inserted into streams of this spec, and lie in their logs: sequence
 * features, context features, states whose initial values are from the data. On success
 * segue_seqfile_free_head() frees it. SEGUE_ENOMEM; SEGUE_EINVAL: segue_seqfile_check_fields().
 */
int segue_insert_fields(const struct segue_spec *spec, struct segue_seqfile_head *out);

/*
 * Where the columns begin, and how many bytes all of it has, by steps, counts, key_size and
 * stamp.cursor_size of the entry. SEGUE_EINVAL: there are more than a file can have.
 */
int segue_insert_lay_out(const struct segue_seqfile_head *head,
	const struct segue_seqfile_entry *entry, uint64_t *columns, uint64_t *size);

/*
 * Whether the total length, if there is one, is within the steps as they are padded. Else `code`,
 * with the reason. Also of sequences in files.
 */
int segue_insert_check_total(
	const struct segue_spec *spec, const struct segue_seqfile_entry *entry, int code);

/*
 * Whether a sequence is one of the spec: steps, total length, keys, and that column i, which lies
 * at column[i], can be what it is said to be. SEGUE_EINVAL names the field, and what is wrong.
 */
int segue_insert_check(const struct segue_spec *spec, const struct segue_seqfile_head *head,
	const struct segue_seqfile_entry *entry, const uint8_t *const *column);

#endif
