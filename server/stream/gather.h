/*
 * Groups that meet. Those that ask for a lane together are granted it one after the other, that
 * which stands lowest first, so that each finds the feed of the one before. On the loop's thread.
 *
 *	asked ──► gathered ──► goes (its grant is made) ──► settled: in force, or failed
 *	             │ nobody waits for it any more, its time is up: refused
 *
 * A lane is ready when all who are expected have come: the first time so many groups as the stream
 * declares (`groups`), after a loss those whose lanes are reserved for them, and those that were
 * asked to come. Where one has the lane already, others are not waited for.
 *
 * Others, where a grant of another group at the lane is just being made, wait for that alone: of
 * groups that ask at the same moment each would bring a feed of its own.
 *
 * Slots of the feed that those need who have not joined yet are reserved; who is ahead of what is
 * published, and within reach of it, waits until it is published.
 */
#ifndef SEGUE_STREAM_GATHER_H
#define SEGUE_STREAM_GATHER_H

#include "session/request.h"
#include "stream/stream.h"

/* A request for a lane, as those see it that meet there. */
struct segue_gathered {
	struct segue_request *request;
	struct segue_ledger *ledger;
	uint64_t step;    /* where its group stands */
	uint32_t wanted;  /* groups that begin together; 0: it goes on after a loss, or was asked */
	int64_t since;    /* it has asked, */
	int64_t deadline; /* and waits for others until then */
	int64_t ready_at; /* all have come since then; 0: not yet */
	bool follows;     /* it meets nobody: it waits for a grant that is being made */
	bool going;       /* its grant is being made */
	void (*go)(struct segue_gathered *gathered);
	void (*refuse)(struct segue_gathered *gathered, int code);
};

/* Whether one that asks in this mode is to be gathered. */
bool segue_gather_wants(const struct segue_ledger *ledger, const struct segue_spec *spec,
	enum segue_attach_mode mode);
/* Whether it is to be gathered since it follows another's grant. */
bool segue_gather_follows(const struct segue_ledger *ledger, const struct segue_spec *spec);
/*
 * The ledger, which is GRANTING, is gathered until the request is settled; `spec` is that of its
 * opening. The tick that follows has it go, or wait.
 */
void segue_gather_join(struct segue_gathered *gathered, const struct segue_spec *spec);
/*
 * The holder of the ledger gives its lease up for one in this mode: where that is at the same
 * place, its slots are kept for it meanwhile, a second long.
 */
void segue_gather_keep_place(struct segue_ledger *ledger, enum segue_attach_mode mode);
/* What it was gathered for has come to its end; also of one that was not gathered. */
void segue_gather_settle(struct segue_ledger *ledger);
/* One that was asked to renew, and has not come, is expected no more when its time is up. */
void segue_gather_expire(struct segue_ledger *ledger, int64_t now);
/* Of all feeds of the lane: reserves what those need who are gathered, or asked to come. */
void segue_gather_reserve(struct segue_stream *stream, uint32_t lane);
/* Time passes: whoever is gathered at the lane of the ledger goes, waits on, or is refused. */
void segue_gather_look(struct segue_ledger *ledger, int64_t now);

#endif
