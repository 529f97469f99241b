/*
 * The inserter: the one thread that writes to a log, for all who insert, and syncs it: so no insert
 * waits for the store, and no transaction for the log.
 *
 *	ask --> [queue] --> offered, appended --> written --sync--> answered
 *
 * Inserts are done in their order, and wait while the lanes have enough; all else goes before them:
 * so whoever takes a name over, or ends the input, waits for nobody's insert, and those that are
 * not begun yet fail. All that can be written is written before it is synced together.
 *
 * An answer comes from this thread, and says that it is done for good: of an insert when it is as
 * safe as was promised (`commit`), of an opened session when all that its name had inserted is
 * synced, of an end when that is stored. source/log/producers.h has the rules.
 */
#ifndef SEGUE_ENGINE_INSERTER_H
#define SEGUE_ENGINE_INSERTER_H

#include "core/error.h"
#include "source/log/log.h"
#include "source/log/producers.h"

struct segue_inserter;

struct segue_inserter_order {
	struct segue_log *log; /* the inserter's to write from now on; closed by who has it */
	const struct segue_log_end *stored; /* of closed names and the end; NULL: nothing */
	uint32_t expected;                  /* producers that will close, and end the input */
	uint64_t most;       /* with so many sequences the input ends; UINT64_MAX: it is not said */
	bool commit;         /* an insert is answered when it is synced, not when it is written */
	int64_t interval_ns; /* nothing is written for longer without being synced */
	/*
	 * Whether inserting has to wait: asked before each; segue_inserter_kick() when that may
	 * have changed. `count`: sequences in the log. This and all that follows is called on the
	 * inserter's thread, without locks.
	 */
	bool (*is_full)(void *arg, uint64_t count);
	/* More can be read: so many sequences. */
	void (*grown)(void *arg, uint64_t count);
	/* A sync is over: all that was written is on disk, or the log has failed for good. */
	void (*synced)(void *arg);
	/*
	 * Has an end stored, and returns when it is on disk. SEGUE_ENOSPACE, SEGUE_ENOMEM,
	 * SEGUE_EMOVED: it is tried again; others: it is given up, and so who waits hears of it.
	 */
	int (*store)(void *arg, const struct segue_log_end *end);
	/*
	 * Gives up what of the log is no longer needed, if there is such: asked when the log has
	 * grown, or more of it is synced, and after segue_inserter_spare(). NULL: nothing ever is.
	 */
	void (*give_up)(void *arg);
	/* The input has ended, after so many sequences; their last file has its foot. */
	void (*ended)(void *arg, uint64_t count);
	void *arg;
};

enum segue_asked {
	SEGUE_ASKED_INSERT,
	SEGUE_ASKED_OPEN,  /* a session of a producer */
	SEGUE_ASKED_CLOSE, /* its name */
	SEGUE_ASKED_END,   /* the input */
};

/* Something asked for. The caller's until it is asked, and again when it is answered. */
struct segue_ask {
	enum segue_asked what;
	uint64_t session;                  /* INSERT, CLOSE; set by OPEN */
	uint64_t serial;                   /* INSERT; set by OPEN: the last that is in the log */
	struct segue_log_entry *entry;     /* INSERT: sealed; its stamp has the same serial */
	struct segue_producer_asked asked; /* OPEN */
	uint8_t *cursor; /* OPEN, answered: of that last; malloc'd, the caller's; NULL: none */
	size_t cursor_size;
	void (*answer)(struct segue_ask *ask);
	void *arg;
	struct segue_outcome outcome;
	/* The inserter's. */
	uint64_t until; /* it is answered when so many sequences are safe */
	struct segue_ask *next;
};

/* SEGUE_ENOMEM, SEGUE_ESTORE (store and log are not of one time), SEGUE_ESYSTEM. */
int segue_inserter_create(const struct segue_inserter_order *order, struct segue_inserter **out);
/*
 * Ends the thread, after a last sync. What is not answered gets SEGUE_EGONE, or is done; so does
 * what is asked for later. Again: nothing happens.
 */
void segue_inserter_stop(struct segue_inserter *inserter);
/* Stops it, if it was not. NULL is fine. */
void segue_inserter_destroy(struct segue_inserter *inserter);

/* From any thread, and so is all that follows. */
void segue_inserter_ask(struct segue_inserter *inserter, struct segue_ask *ask);
/*
 * A session is over: its name is free, and what it asked for and is not begun yet is answered by
 * SEGUE_EFENCED.
 */
void segue_inserter_gone(struct segue_inserter *inserter, uint64_t session);
/* Inserting may have to wait no longer. */
void segue_inserter_kick(struct segue_inserter *inserter);
/*
 * Visits all whom the log, or a session, knows; `visit` must not ask the inserter for anything.
 * True: an insert waits, for its lanes have enough.
 */
bool segue_inserter_look(struct segue_inserter *inserter,
	void (*visit)(void *arg, const struct segue_producer *producer), void *arg);
/* Something of the log may be needed no longer. */
void segue_inserter_spare(struct segue_inserter *inserter);
/* The log is to be synced soon: something waits for that. */
void segue_inserter_urge(struct segue_inserter *inserter);

#endif
