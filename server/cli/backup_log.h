/*
 * The logs that a store refers to, on their way into a backup of it, or out of one. In the child
 * that copies (cli/backup.c).
 *
 * The store comes first: what it says of a log was synced before it was said, and a log only grows;
 * so a log that is copied behind its store has all that this refers to. Files that were begun later
 * are left where they are, and what is half written behind that goes when the copy is opened. While
 * logs are held no server gives up anything of them (engine/give_up.h).
 */
#ifndef SEGUE_CLI_BACKUP_LOG_H
#define SEGUE_CLI_BACKUP_LOG_H

#include "core/sequence_log.h"
#include "store/dump.h"

struct segue_spec;

/* Zeroed: none. */
struct segue_backup_logs {
	struct segue_backup_log {
		uint32_t stream;
		struct segue_spec *spec; /* NULL: the stream is being dropped, or reads no log */
		bool is_known;           /* the store has: */
		struct segue_log_known known;
	} * log;
	size_t count;
	int *held; /* their directories, locked */
	size_t held_count;
	uint64_t copied, sequences, bytes; /* logs that were checked, and what is in them */
};
/* A zeroed one is fine. */
void segue_backup_logs_finish(struct segue_backup_logs *logs);

/*
 * Holds all logs in the directory `from` of a store, which is read behind that. SEGUE_ESYSTEM,
 * SEGUE_ENOMEM.
 */
int segue_backup_logs_hold(struct segue_backup_logs *logs, const char *from);

/* A value of the store: of which logs it tells is noted. SEGUE_ENOMEM; SEGUE_ESTORE: damaged. */
int segue_backup_logs_note(struct segue_backup_logs *logs, enum segue_table table, const void *key,
	size_t key_size, const void *value, size_t value_size);

/*
 * Copies what was noted from the directory `from` of a store to `to`, which has no logs.
 * SEGUE_ESTORE: a log is missing; SEGUE_ENOSPACE, SEGUE_ESYSTEM, SEGUE_ENOMEM. Reports progress to
 * the parent of this process, and so does the next one.
 */
int segue_backup_logs_copy(const struct segue_backup_logs *logs, const char *from, const char *to);
/*
 * Opens those in `to` as a server would, which cuts off what is not sound behind what the store
 * knows, and reads every sequence; all of it is then on disk. SEGUE_ESTORE: one is missing, ends
 * too early, or is damaged.
 */
int segue_backup_logs_check(struct segue_backup_logs *logs, const char *to);

/* All files of those in `at`, into a dump that has all values. As segue_dump_put(). */
int segue_backup_logs_pack(
	const struct segue_backup_logs *logs, const char *at, struct segue_dump *dump);
/* A piece of such a file, as a dump gives it, into `to`. SEGUE_ESTORE: no file is called so. */
int segue_backup_logs_unpack(
	const char *to, const void *name, size_t name_size, const void *bytes, size_t size);

#endif
