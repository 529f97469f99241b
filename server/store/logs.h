/*
 * What the store holds of the log that a stream reads: its id, what was given up, how far it is
 * known; then, once something was closed, the names of closed producers and the end of the input.
 *
 *	META    log.<stream>.known  -> LogRecord (segue.proto)
 *	META    log.<stream>.end    -> LogEndRecord
 *
 * <stream>: its id, as 8 hexadecimal digits. docs/log.md says what has to be true of the log before
 * each of these is written.
 */
#ifndef SEGUE_STORE_LOGS_H
#define SEGUE_STORE_LOGS_H

#include "core/sequence_log.h"
#include "store/ops.h"

struct segue_stored_log {
	struct segue_log_known known;
	bool some;                /* something was closed: */
	struct segue_log_end end; /* all that was */
};
/* A zeroed one is fine. */
void segue_stored_log_finish(struct segue_stored_log *log);

/* Whether a value of a store is what is known of some log: of that of *stream. */
bool segue_logs_is_known(
	enum segue_table table, const void *key, size_t key_size, uint32_t *stream);

/* Each adds one operation. SEGUE_ENOMEM: nothing was added. */
int segue_logs_put_known(
	struct segue_ops *ops, uint32_t stream, const struct segue_log_known *known);
/* Of a log that is synced to end->count, as the store has it by the same transaction. */
int segue_logs_put_end(struct segue_ops *ops, uint32_t stream, const struct segue_log_end *end);
/* All that the store has of the log. */
int segue_logs_remove(struct segue_ops *ops, uint32_t stream);

/*
 * What the store has. SEGUE_ENOTFOUND: the stream has no log; SEGUE_ESTORE: what it has is damaged,
 * does not go together, or is of a later version: says what.
 */
int segue_logs_load(struct segue_store *store, uint32_t stream, struct segue_stored_log *out);

#endif
