/*
 * A log: the sequences that producers inserted, in the order in which they were accepted, in
 * sequence files that grow (core/sequence_log.h, docs/log.md).
 *
 *	append --> written --sync--> synced --(a transaction of the store names it)--> known
 *
 * A sequence that is synced is there whatever comes; one that is only written survives any kill,
 * and not a power cut. What the store refers to must be synced before: then nothing that it names
 * is ever missing, and segue_log_open() finds all of it or says that the log is damaged. Behind
 * what the store knows, all is checked in full, and the log ends before the first entry that is not
 * sound, however sound those behind it are.
 *
 * Files are named by their first number. One is finished (index, foot, sync) before the next one is
 * there, so all but the last have a foot.
 *
 * One thread writes (append, sync, finish, give up); any may ask where it stands, and read.
 */
#ifndef SEGUE_SOURCE_LOG_LOG_H
#define SEGUE_SOURCE_LOG_LOG_H

#include "core/sequence_file.h"

#define SEGUE_LOG_FILE_BYTES (UINT64_C(256) << 20)

struct segue_log;

/* What a file is called: "00000000000000000042.segue". */
#define SEGUE_LOG_NAME 32
void segue_log_name(uint64_t first, char name[SEGUE_LOG_NAME]);
/* Whether a file of a log can be called so, and which number that begins with. */
bool segue_log_is_name(const char *name, uint64_t *first);

/* What every log is made and opened with; copied. */
struct segue_log_means {
	const char *dir; /* of its files, its own; made if it is not there */
	const struct segue_seqfile_field *fields;
	uint32_t count;
	uint64_t file_bytes; /* a file that has so many is finished; 0: SEGUE_LOG_FILE_BYTES */
};

/*
 * A new log, empty and on disk. A directory in which there is one already, of which nothing was
 * inserted yet, is used anew: its making was cut short. SEGUE_ESTORE: one with sequences is there;
 * and as segue_log_open().
 */
int segue_log_create(const struct segue_log_means *means, const uint8_t id[SEGUE_SEQLOG_ID],
	struct segue_log **out);
/*
 * Opens one, cuts off what is not sound behind what is known, and syncs the rest: all that it then
 * has is synced. Removes what was given up. Blocks. SEGUE_ESTORE: it is damaged, ends before what
 * is known, is another log, or of other fields: says where, and nothing was changed; or what the
 * system says. SEGUE_EFORMAT, SEGUE_ENOSPACE, SEGUE_ENOMEM.
 */
int segue_log_open(const struct segue_log_means *means, const struct segue_log_known *known,
	struct segue_log **out);
/* What is not synced stays so. NULL is fine. */
void segue_log_close(struct segue_log *log);

/* ---- Appending ------------------------------------------------------------------------------ */

/* A sequence to be inserted, but for its columns. */
struct segue_log_sequence {
	const char *key;
	uint32_t key_size;
	uint64_t steps, total_length; /* or SEGUE_SEQFILE_NO_TOTAL */
	const uint64_t *counts;       /* of values of each field that is not dense; NULL: none is */
	const char *producer;         /* its name */
	uint64_t serial;
	const void *cursor;
	size_t producer_size, cursor_size;
};

/*
 * Its bytes as they will lie in a file. Whoever made it writes column i to bytes + column[i], as
 * many as segue_seqfile_column_size() says; the rest is zeros.
 */
struct segue_log_entry {
	struct segue_seqfile_entry entry;
	uint8_t *bytes; /* entry.size of them */
	uint64_t column[];
};

/* SEGUE_EINVAL: a key, name, cursor, serial, length that cannot be; SEGUE_ENOMEM. Any thread. */
int segue_log_entry_make(const struct segue_log *log, const struct segue_log_sequence *sequence,
	struct segue_log_entry **out);
/* Makes its checksums, when all columns are there. Any thread. */
void segue_log_entry_seal(const struct segue_log *log, struct segue_log_entry *entry);
/* NULL is fine. */
void segue_log_entry_free(struct segue_log_entry *entry);

/*
 * Writes it; *number is then its place in the log. SEGUE_EINVAL: its serial is not the one that
 * follows its producer's last; SEGUE_ELIMIT: too many producers; SEGUE_ENOSPACE, SEGUE_ENOMEM: the
 * log is as it was, and goes on. SEGUE_ESTORE: it has failed, now or before, for good.
 */
int segue_log_append(struct segue_log *log, struct segue_log_entry *entry, uint64_t *number);
/*
 * All that was written is on disk. SEGUE_ESTORE: it has failed for good, for what the disk has is
 * not known.
 */
int segue_log_sync(struct segue_log *log);
/* Syncs, and gives the last file its foot, unless it is empty. Fails as segue_log_append(). */
int segue_log_finish(struct segue_log *log);
/*
 * Files of which all sequences are below `number` are no longer needed, and the store has it on
 * disk: they are removed, but never the last. SEGUE_ESTORE: the system could not; the next opening
 * does.
 */
int segue_log_give_up(struct segue_log *log, uint64_t number);

/* ---- Asking: any thread --------------------------------------------------------------------- */

/* Of its directory. */
const char *segue_log_path(const struct segue_log *log);

struct segue_log_stand {
	uint64_t first;                         /* number of the first sequence that is there */
	struct segue_log_place written, synced; /* written.number is the next one's */
	uint64_t bytes, files;
	bool failed;
};
void segue_log_look(struct segue_log *log, struct segue_log_stand *out);
/* The first number of the file that holds `number`: to what giving up that far would go. */
uint64_t segue_log_floor(struct segue_log *log, uint64_t number);
/* The newest so many sequences and the newest so many bytes of a log; 0 of either: none. */
struct segue_log_retain {
	uint64_t sequences, bytes;
};
/* Where a file begins from which on all of that lies: to what giving up may go. */
uint64_t segue_log_retained(struct segue_log *log, const struct segue_log_retain *retain);
/* Bytes of sequence `number` and of all behind it. */
uint64_t segue_log_bytes_from(struct segue_log *log, uint64_t number);
/*
 * Of the sequences `first`, first + stride, ... below `until`, which are there, how many have more
 * than `most` steps. *within: the first that has not, or the one that comes at `until` or behind.
 */
uint64_t segue_log_longer(struct segue_log *log, uint64_t first, uint64_t stride, uint64_t until,
	uint64_t most, uint64_t *within);
/*
 * The running hash of all sequences below `number`. SEGUE_ENOTFOUND: it was given up, or is not
 * there yet.
 */
int segue_log_hash(struct segue_log *log, uint64_t number, uint64_t hash[2]);
/*
 * All of a sequence, checked; its columns are where segue_seqfile_lay_out() says. *out is to be
 * freed by segue_log_entry_free(). SEGUE_ENOTFOUND; SEGUE_EDATA: damaged.
 */
int segue_log_read(struct segue_log *log, uint64_t number, struct segue_log_entry **out);
/* What its producers have inserted. The thread that writes alone. */
const struct segue_seqlog *segue_log_producers(const struct segue_log *log);

#endif
