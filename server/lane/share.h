/*
 * How the lanes that move are shared among the workers that take any: who gets a free one, who is
 * asked to give one back.
 *
 * A share is floor(lanes / workers) lanes, or one more. Who has less gets what is free first; who
 * has more gives back as many as others lack, and no more. Pure.
 */
#ifndef SEGUE_LANE_SHARE_H
#define SEGUE_LANE_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEGUE_SHARE_NOBODY UINT32_MAX

struct segue_share_lane {
	uint32_t worker; /* who has it, or is being given it; SEGUE_SHARE_NOBODY: it is free */
	bool apart;      /* somebody has it who does not share, or it is reserved */
	bool over;       /* its data have ended */
	bool leaving;    /* nobody has it any more, and it is not free yet */
	bool asked;      /* its worker has been asked to give it back */
	uint64_t since;  /* the lesser, the longer it has been free; 0: nobody has had it */
};

struct segue_share_worker {
	bool waits;    /* for a lane */
	bool more;     /* there is one for it, for which it does not wait */
	uint32_t held; /* lanes that it has */
};

struct segue_share {
	struct segue_share_lane *lane;
	struct segue_share_worker *worker; /* who has come first stands first */
	uint32_t lanes, workers;
	/* Of the lanes that are neither apart nor over: how many, and how many nobody has. */
	uint32_t shared, unheld;
	uint32_t least; /* share */
};

/* Counts: first of all. */
void segue_share_count(struct segue_share *share);
/*
 * Gives the lane that has been free longest to whoever has least of those that wait and may have
 * one more, and says so. False: there is nothing to give.
 */
bool segue_share_give(struct segue_share *share, uint32_t *worker, uint32_t *lane);
/*
 * When there is nothing more to give: sets `asked` of all lanes and `more` of all workers. What is
 * free for those that do not wait counts as theirs then.
 */
void segue_share_ask(struct segue_share *share);

#endif
