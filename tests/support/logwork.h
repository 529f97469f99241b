/*
 * Sequences for a log, each a function of its number in a test: what was inserted can be told from
 * what is there.
 */
#ifndef SEGUE_TEST_LOGWORK_H
#define SEGUE_TEST_LOGWORK_H

#include <stdbool.h>

#include "source/log/log.h"

#define SEGUE_LOGWORK_FIELDS 3

/* A sequence feature of 12 bytes a step, a context feature, a state. */
extern const struct segue_seqfile_field segue_logwork_fields[SEGUE_LOGWORK_FIELDS];

/* What sequence `what` is: inserted by `producer` as its `serial`. */
struct segue_logwork {
	uint64_t what, serial;
	const char *producer;
	uint64_t steps; /* 0: by `what`, 1 to about 600: some fill several blocks */
};

/* Made and sealed; aborts without memory. */
struct segue_log_entry *segue_logwork_make(
	const struct segue_log *log, const struct segue_logwork *work);
/* Makes it and appends it. */
int segue_logwork_append(struct segue_log *log, const struct segue_logwork *work, uint64_t *number);
/* Which one an entry is, if all of it is what was made. False: it is none. */
bool segue_logwork_tell(const struct segue_log_entry *entry, uint64_t *what);

#endif
