/*
 * Who inserts into a log: which session has which name, which serial comes next, what may be
 * acknowledged, and when the input ends.
 *
 * A pure state machine: no clock, no I/O, no thread. Whoever drives it appends what it accepts
 * (source/log/log.h), syncs, and stores what it closes:
 *
 *	offer --> append --> accepted --> durable(count) --> acknowledge
 *	close, end --> unstored --> log synced as far, a transaction --> stored --> acknowledge
 *
 * A name outlives its sessions: what it has inserted is in the log, so whoever opens it next, after
 * a crash of either side, learns its last serial, and sends what comes then, or sends all that was
 * not acknowledged once more: what is there already is taken for done, and nothing is there twice.
 *
 *	a name:    OPEN --close--> CLOSING --stored--> CLOSED
 *	the input: OPEN --end, or the last of `expected` names closing--> ENDING --stored--> ENDED
 *
 * From CLOSING and ENDING on nothing new is accepted. Nobody hears of either before it is stored.
 */
#ifndef SEGUE_SOURCE_LOG_PRODUCERS_H
#define SEGUE_SOURCE_LOG_PRODUCERS_H

#include "core/sequence_log.h"

enum segue_closing {
	SEGUE_CLOSING_OPEN = 0,
	SEGUE_CLOSING_CLOSING, /* until it is stored */
	SEGUE_CLOSING_CLOSED,
};

struct segue_producer {
	char name[SEGUE_NAME_MAX + 1];
	uint64_t session;      /* who has it; 0: nobody */
	uint8_t token[16];     /* of that one: the same comes back after its connection broke */
	uint64_t accepted;     /* serial of its last sequence in the log */
	uint64_t durable;      /* ... of the last that may be acknowledged */
	uint64_t acknowledged; /* ... of the last that the session was told of */
	enum segue_closing closing;
};

struct segue_producers {
	struct segue_producer *producer;
	uint32_t count, room;
	uint32_t expected; /* names that are going to close, and end the input; 0: not said */
	uint64_t sessions; /* that there have been */
	uint64_t next;     /* number of the sequence that comes next */
	uint64_t durable;  /* sequences that may be acknowledged */
	/* Of each of those between the two whose it is: number n at n % room. */
	struct segue_producers_waiting {
		uint32_t producer;
		uint64_t serial;
	} * waiting;
	uint64_t waiting_room; /* a power of two, or 0 */
	enum segue_closing input;
};

/*
 * From what a log has, all of it synced, and what was stored (NULL: nothing). SEGUE_ENOMEM;
 * SEGUE_ESTORE: it was ended after another number of sequences.
 */
int segue_producers_init(struct segue_producers *producers, const struct segue_seqlog *log,
	uint64_t count, const struct segue_log_end *stored, uint32_t expected);
/* A zeroed one is fine. */
void segue_producers_finish(struct segue_producers *producers);

struct segue_producer_asked {
	const char *name;
	size_t name_size;
	uint8_t token[16]; /* random, of who asks */
	bool takeover;     /* end another's session of that name */
};
/*
 * Begins a session of a name, also of one that is closed, and of one that inserted before the end:
 * so it can learn what became of its last. *session is its handle, *serial the last that is in the
 * log: to be told when that one is durable, for whoever goes on behind it counts on it.
 * SEGUE_EBUSY: another has it; SEGUE_EEND: the input has ended, and the name has inserted nothing;
 * SEGUE_ELIMIT (names), SEGUE_EINVAL (no name), SEGUE_ENOMEM.
 */
int segue_producers_open(struct segue_producers *producers,
	const struct segue_producer_asked *asked, uint64_t *session, uint64_t *serial);
/* The session is over: the name is free. One that was taken over is fine. */
void segue_producers_gone(struct segue_producers *producers, uint64_t session);

/*
 * Whether the sequence with that serial is to be appended; then segue_producers_accepted() is due
 * before the next offer. SEGUE_PRODUCERS_AGAIN: it is in the log. SEGUE_EFENCED: the session was
 * taken over; SEGUE_EEND: name or input is closed; SEGUE_EINVAL: not the serial that follows.
 */
#define SEGUE_PRODUCERS_AGAIN 1
int segue_producers_offer(
	const struct segue_producers *producers, uint64_t session, uint64_t serial);
/* Room to remember one more that is accepted: so accepting cannot fail. SEGUE_ENOMEM. */
int segue_producers_reserve(struct segue_producers *producers);
/*
 * The next serial of that name was appended, and has this number: also if the session that offered
 * it has ended meanwhile.
 */
void segue_producers_accepted(
	struct segue_producers *producers, const char *name, size_t size, uint64_t number);
/*
 * So many sequences of the log may be acknowledged: those that are synced, or written, as was
 * promised to who inserts. Each session that has more now is told, up to which serial.
 */
void segue_producers_durable(struct segue_producers *producers, uint64_t count,
	void (*acknowledge)(void *arg, uint64_t session, uint64_t serial), void *arg);
/* Up to which serial a session may be told so now: for one that sends again. */
uint64_t segue_producers_acknowledged(const struct segue_producers *producers, uint64_t session);

/* SEGUE_EFENCED. Again: nothing changes. */
int segue_producers_close(struct segue_producers *producers, uint64_t session);
void segue_producers_end(struct segue_producers *producers);
/* How a name, or (session 0) the input, stands. A session that is over: OPEN. */
enum segue_closing segue_producers_closing(
	const struct segue_producers *producers, uint64_t session);
/*
 * Whether there is something to store, and what: all that is closed by now. SEGUE_ENOMEM. 1: there
 * is; segue_log_end_finish() is due.
 */
int segue_producers_unstored(const struct segue_producers *producers, struct segue_log_end *out);
/* It is on disk. What was closed since then is still to be stored. */
void segue_producers_stored(struct segue_producers *producers, const struct segue_log_end *stored);

#endif
