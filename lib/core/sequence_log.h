/*
 * What sequence files that are a log's say beyond the others: whose log it is, how its files follow
 * one another, and who inserted what. docs/format.md draws it, docs/log.md says what it is for.
 *
 * A head has the log's id, the number of the file's first sequence, the running hash before it, and
 * what each producer had inserted by then. An entry has its number, its producer and that one's
 * serial, and the running hash of all entries before it.
 *
 * Pure: bytes in, bytes out. All that is read is taken to be hostile.
 */
#ifndef SEGUE_CORE_SEQUENCE_LOG_H
#define SEGUE_CORE_SEQUENCE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "segue/segue.h"

#define SEGUE_SEQLOG_REQUIRES      UINT64_C(0x10) /* the bit of `requires` that such files have */
#define SEGUE_SEQLOG_ID            16
#define SEGUE_SEQLOG_CURSOR_MAX    4096 /* bytes of a producer's own place */
#define SEGUE_SEQLOG_PRODUCERS_MAX 1024
/* Bytes of all producers in a head: with any fields, a head stays below its limit. */
#define SEGUE_SEQLOG_TABLE_MAX (768u << 10)
/* Bytes that an entry's header has more, at most. */
#define SEGUE_SEQLOG_STAMP_MAX (40 + SEGUE_NAME_MAX + SEGUE_SEQLOG_CURSOR_MAX)

/* What a producer had inserted last. */
struct segue_seqlog_producer {
	char name[SEGUE_NAME_MAX + 1];
	uint64_t serial; /* of its last sequence; 1 or more: they rise by 1 */
	uint64_t number; /* of that sequence in the log */
	uint32_t cursor_size;
	uint8_t *cursor; /* malloc'd; NULL: none */
};

struct segue_seqlog {
	uint8_t id[SEGUE_SEQLOG_ID];
	uint64_t first;     /* number of the file's first sequence */
	uint64_t before[2]; /* the running hash of all sequences before that */
	struct segue_seqlog_producer *producer;
	uint32_t count, room;
	uint32_t size; /* bytes of all producers in a head */
};

/* How far a log is known: so many sequences, and the running hash of all of them. */
struct segue_log_place {
	uint64_t number;
	uint64_t hash[2];
};

/* What the store holds of a log. */
struct segue_log_known {
	uint8_t id[SEGUE_SEQLOG_ID];
	uint64_t first;                /* files of which all sequences are below it are given up */
	struct segue_log_place synced; /* at least as far */
};

/* What the store holds of closed names and of the end. */
struct segue_log_end {
	uint64_t count; /* the log has to be synced to so many before this is stored */
	bool ended;     /* after these, for good */
	char (*closed)[SEGUE_NAME_MAX + 1]; /* malloc'd */
	uint32_t closed_count;
};
/* A zeroed one is fine. */
void segue_log_end_finish(struct segue_log_end *end);

/* What an entry's header says of it. */
struct segue_seqlog_stamp {
	uint64_t number, serial;
	uint64_t before[2];   /* the running hash of all entries before this one */
	const char *producer; /* its name, not NUL-terminated; in the bytes that were read */
	const uint8_t *cursor;
	uint16_t producer_size; /* 1 to SEGUE_NAME_MAX; 0: the entry is of no log */
	uint16_t cursor_size;   /* up to SEGUE_SEQLOG_CURSOR_MAX */
};

/* ---- The table of producers ---- */

/* The producer of that name; NULL: it has inserted nothing. Valid until the next change. */
struct segue_seqlog_producer *segue_seqlog_find(
	const struct segue_seqlog *log, const char *name, size_t size);
/*
 * Whether the table has room for what `stamp` says of its producer. SEGUE_ELIMIT: there are too
 * many, or their cursors have too many bytes.
 */
int segue_seqlog_fits(const struct segue_seqlog *log, const struct segue_seqlog_stamp *stamp);
/* Takes in what it says. SEGUE_ELIMIT, SEGUE_ENOMEM: nothing has changed. */
int segue_seqlog_note(struct segue_seqlog *log, const struct segue_seqlog_stamp *stamp);
/* A zeroed one, and NULL, are fine. */
void segue_seqlog_finish(struct segue_seqlog *log);

/* The running hash of a log's nothing, and that behind an entry: of its header, which has the one
 * before it. */
void segue_seqlog_begin(const uint8_t id[SEGUE_SEQLOG_ID], uint64_t hash[2]);
void segue_seqlog_go_on(const void *header, size_t size, uint64_t hash[2]);

/* ---- Bytes ---- */

/* Bytes in a head: behind its fields, a multiple of 8. */
size_t segue_seqlog_head_size(const struct segue_seqlog *log);
void segue_seqlog_pack_head(const struct segue_seqlog *log, void *out);
/*
 * Reads it from the `size` bytes that are left of a head, and says how many it has. SEGUE_EDATA,
 * SEGUE_ENOMEM. On success segue_seqlog_finish() frees it.
 */
int segue_seqlog_read_head(const void *bytes, size_t size, struct segue_seqlog *out, size_t *used);

/* Bytes that the header of an entry has more; 0: it is of no log. */
static inline uint32_t segue_seqlog_stamp_size(const struct segue_seqlog_stamp *stamp)
{
	return stamp->producer_size ? 40u + stamp->producer_size + stamp->cursor_size : 0;
}
/* SEGUE_EINVAL: a name, a cursor or a serial that cannot be. */
int segue_seqlog_check_stamp(const struct segue_seqlog_stamp *stamp);
void segue_seqlog_pack_stamp(const struct segue_seqlog_stamp *stamp, void *out);
/* Bytes that are read to know how many it has. */
#define SEGUE_SEQLOG_STAMP_FIRST 40
/*
 * The sizes alone, from its first SEGUE_SEQLOG_STAMP_FIRST bytes. SEGUE_EDATA: they cannot be.
 */
int segue_seqlog_read_sizes(const void *bytes, struct segue_seqlog_stamp *out);
/* All of it, of which the sizes were read. SEGUE_EDATA. */
int segue_seqlog_read_stamp(const void *bytes, struct segue_seqlog_stamp *out);

#endif
