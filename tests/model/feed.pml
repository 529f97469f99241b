/*
 * Groups that share feeds: one lane, three groups, the feeds that they join, leave and meet in again.
 *
 * One level above ring.pml, which proves the words and orders of a feed and its subscribers: here each
 * step of the loop's thread, of a filler with its lock and of a worker is one. A slot is two steps, filled
 * then readable; a grant looks at feeds twice; the end of a lease is not at once written. Committed is
 * released. Where the code waits for a time, that time may be over at any moment, so the waits that only
 * keep groups together (gather.c) are left out. What a wake-up is needed for is looked at for ever:
 * that none is lost is ring.pml's.
 *
 * Each group begins when it likes. Any may be slow, so that others are asked to go on without it, and any may be
 * asked to come to others. Group 2 is the one that things happen to: it is stopped, dies, goes back to an older
 * step, has other batches. For the lane of group 0 a second process may wait.
 *
 * Checked: a batch that is taken is the group's own next one, in a slot that stays as it is until it is committed;
 * with the states that this group has committed, or gone back to, which are those that the end of a lease leaves;
 * who gives its lease up for another gets that; all groups come to the end (invalid end states), also while one
 * that they share with is stopped. What could happen without end is counted, so every run has an end.
 *
 * mirrors server/lane/feed.c segue_feed_reaches 49ab6753
 * mirrors server/lane/feed.c segue_feed_subscribe cf6da81d
 * mirrors server/lane/feed.c segue_feed_unsubscribe a8eea271
 * mirrors server/lane/feed.c segue_feed_reserve 4bcc5e9f
 * mirrors server/lane/feed.c gate_of fd159fd3
 * mirrors server/lane/feed.c segue_feed_gate b1778204
 * mirrors server/engine/filler.c work_on_batch 8b610ba3
 * mirrors server/engine/filler.c work_once 73526744
 * mirrors server/engine/joining.c meets 4ba113c7
 * mirrors server/engine/joining.c join 845b4b77
 * mirrors server/engine/joining.c segue_grant_find_feed dc742119
 * mirrors server/engine/joining.c segue_grant_leave_feed 9ba53e80
 * mirrors server/stream/feeds.c segue_feed_choice_init 13ceaec6
 * mirrors server/stream/feeds.c segue_feeds_choose 513fa2cc
 * mirrors server/stream/feeds.c segue_feed_choice_finish a1eebbf1
 * mirrors server/stream/feeds.c segue_feeds_leave edca7aaf
 * mirrors server/stream/gather.c needs 61a0df68
 * mirrors server/stream/gather.c least_needed 48e9d3a1
 * mirrors server/stream/gather.c segue_gather_reserve 4a405e2b
 * mirrors server/stream/gather.c segue_gather_wants 039859a9
 * mirrors server/stream/gather.c is_ahead 0de54b29
 * mirrors server/stream/gather.c segue_gather_keep_place 8028453c
 * mirrors server/stream/gather.c segue_gather_settle f2498255
 * mirrors server/stream/gather.c segue_gather_expire 59a6b296
 * mirrors server/stream/gather.c look_around b00fb5ac
 * mirrors server/stream/gather.c is_ready dc71bb14
 * mirrors server/stream/gather.c look_at_following 2ad1d3a0
 * mirrors server/stream/gather.c segue_gather_look 57e76e51
 * mirrors server/stream/lag.c keeps ab1c8700
 * mirrors server/stream/lag.c waits 603b4352
 * mirrors server/stream/lag.c look_at f22aa9d4
 * mirrors server/stream/lag.c ask_to_renew 48d2baaf
 * mirrors server/stream/lag.c leave_behind 5e00a356
 * mirrors server/stream/lag.c act af45e813
 * mirrors server/stream/lag.c segue_lag_give_up efefc2ae
 * mirrors server/stream/lag.c takes 81add774
 * mirrors server/stream/lag.c is_better 8dfbd092
 * mirrors server/stream/lag.c is_on_its_way 23ff56c7
 * mirrors server/stream/lag.c move_over fac6f7ff
 * mirrors server/stream/attach.c wait_for_lane b33987f2
 * mirrors server/stream/attach.c gather_or_make ccf81666
 * mirrors server/stream/attach.c start_making b6404d6f
 * mirrors server/stream/attach.c granted 2eb9dc17
 * mirrors server/stream/attach.c not_granted 55d3e69a
 * mirrors server/stream/attach.c put_in_force c527e225
 * mirrors server/stream/attach.c loaded 87f7c814
 * mirrors server/stream/attach.c let_next_ask 3a53a81d
 * mirrors server/stream/release.c segue_ledger_end 7c77f64e
 * mirrors server/stream/release.c take_down ddda990d
 * mirrors server/stream/release.c taken_down f3fe507e
 * mirrors lib/client/attach.c attempt_renew 618092a0
 * mirrors lib/client/next.c wait_ready 827793ac
 */

#ifndef DEPTH
#define DEPTH 2
#endif
#ifndef STEPS
#define STEPS 3 /* the lane ends there */
#endif
#ifndef DECLARED
#define DECLARED 0 /* 1: the stream says that there are three groups */
#endif
#ifndef RENEWS
#define RENEWS 0 /* times that group 0 renews its lease unasked */
#endif
#ifndef RIVAL
#define RIVAL 0 /* 1: a second process for the lane of group 0 */
#endif
#ifndef LAGS
#define LAGS 0 /* times that those who wait are asked to go on without a slow one */
#endif
#ifndef MOVES
#define MOVES 0 /* times that a group is asked to come to others */
#endif
#ifndef STOP
#define STOP 0 /* 1: group 2 may be stopped, until the others are at the end */
#endif
#ifndef DEATH
#define DEATH 0 /* 1: the process of group 2 may die; it has another */
#endif
#ifndef RESTORES
#define RESTORES 0 /* times that group 2 goes back to an older step: 0 or 1 */
#endif
#ifndef FULL
#define FULL 0 /* times that there is no memory for a grant */
#endif
#ifndef OTHER
#define OTHER 0 /* 1: group 2 has other batches */
#endif

#define GROUPS  3
#define FEEDS   4
#define NOWHERE FEEDS
#define NEVER   255

mtype = { FREE, GATHERED, LOOKING, LOOKED, MADE, HELD, ENDING };
mtype = { NONE, NEW, RENEW, RESTORE, AGAIN };

/* ---- Feeds ---------------------------------------------------------------------------------- */

bit there[FEEDS], filled[FEEDS], alone[FEEDS], other[FEEDS] /* it has group 2's batches */;
byte first[FEEDS], published[FEEDS], reserved[FEEDS] = NEVER, slot[FEEDS * DEPTH] = NEVER;
byte chosen_by[FEEDS]; /* bit g: a candidate of the grant that is being made for group g */

#define BATCHES(g)    (OTHER && (g) == 2)
#define CONTENT(t, b) ((t) + 16 * (b))

/* ---- Groups --------------------------------------------------------------------------------- */

mtype lease[GROUPS] = FREE;
byte feed[GROUPS] = NOWHERE; /* that it uses, or has looked at */
byte committed[GROUPS];      /* of its carry; when nobody has the lane, on disk */
byte states[GROUPS];         /* likewise: those after batch committed - 1 */
byte truth[GROUPS];          /* what they are to be */
bit again[GROUPS];           /* it has gone back: batches since have other states */
#define STATES(g, t) (1 + (t) + 8 * again[g] + 16 * (g))

mtype making[GROUPS] = NONE; /* the request that is made into a grant */
bit asker_gone[GROUPS];
bit gathered[GROUPS], follows[GROUPS]; /* it meets others; it waits for a grant alone */
bit ready[GROUPS];                     /* those it meets have come */
bit asked[GROUPS];                     /* to renew, or its place is kept for that */
byte asked_step[GROUPS];
mtype line[GROUPS * 2] = NONE; /* requests that wait, oldest first */

bit open[GROUPS];         /* a batch is */
bit told[GROUPS];         /* its page says: renew */
byte to_step[GROUPS];     /* of a token that is gone back to */
bit stopped;              /* the process of group 2 is */
byte to_come[GROUPS] = 1; /* processes that have not asked yet */

byte renews = RENEWS, lags = LAGS, moves = MOVES, stops = STOP, deaths = DEATH, restores = RESTORES,
     fails = FULL;

#define AT_END(g) (to_come[g] == 0 && line[2 * (g)] == NONE && lease[g] == FREE)

/* Within a step. */
hidden byte i, least, step;

/* ---- Feeds: reached, reserved, left --------------------------------------------------------- */

#define SUBSCRIBES(g, f) (feed[g] == (f) && lease[g] != LOOKED)
#define USERS(f)         ((feed[0] == (f)) + (feed[1] == (f)) + (feed[2] == (f)))
#define HOLDS(g, f, t)   (SUBSCRIBES(g, f) && committed[g] <= (t))
#ifdef MUTANT_oldest_slot_not_held
#define SOME_HOLD(f, t) true
#else
#define SOME_HOLD(f, t) (HOLDS(0, f, t) || HOLDS(1, f, t) || HOLDS(2, f, t))
#endif

/* segue_feed_reaches */
#ifdef MUTANT_joins_what_is_gone
#define REACHES(f, t) ((t) >= first[f] && (t) <= published[f])
#else
#define REACHES(f, t)                                                             \
	((t) >= first[f] && (t) <= published[f] && (t) + DEPTH >= published[f] && \
		((t) + DEPTH > published[f] || reserved[f] <= (t) || SOME_HOLD(f, t)))
#endif

/* meets: where the group stands, or will */
#define STEP_OF(g) (making[g] == RESTORE -> to_step[g] : committed[g])
#ifdef MUTANT_catch_up_skips_a_batch
#define MEETS(g, f) (REACHES(f, STEP_OF(g) + 1) && other[f] == BATCHES(g))
#elif defined(MUTANT_joins_by_step_alone)
#define MEETS(g, f) REACHES(f, STEP_OF(g))
#else
#define MEETS(g, f) (REACHES(f, STEP_OF(g)) && other[f] == BATCHES(g))
#endif

inline forget_feed(f)
{
	there[f] = 0;
	filled[f] = 0;
	alone[f] = 0;
	other[f] = 0;
	first[f] = 0;
	published[f] = 0;
	reserved[f] = NEVER;
	step = 0;
	do
	:: step < DEPTH -> slot[f * DEPTH + step] = NEVER; step++
	:: else -> break
	od;
	step = 0
}

inline close_unused(f)
{
	if
	:: there[f] && chosen_by[f] == 0 && USERS(f) == 0 -> forget_feed(f)
	:: else
	fi
}

/* segue_feed_choice_finish */
inline finish_choice(g)
{
	i = 0;
	do
	:: i < FEEDS ->
		chosen_by[i] = chosen_by[i] & ~(1 << g);
		close_unused(i);
		i++
	:: else -> break
	od;
	i = 0
}

/* needs, least_needed */
#define STAYS(g, f) (lease[g] == HELD && feed[g] == (f))
#define NEEDS(g, f) (gathered[g] -> STEP_OF(g) : (asked[g] && !STAYS(g, f) -> asked_step[g] : NEVER))
inline need(g, f)
{
	step = NEEDS(g, f);
	if
	:: step >= first[f] && step < least && (step > published[f] || REACHES(f, step)) -> least = step
	:: else
	fi
}

/* segue_gather_reserve */
inline reserve()
{
	i = 0;
	do
	:: i < FEEDS ->
		if
		:: there[i] ->
			least = NEVER;
			if
			:: !alone[i] ->
				need(0, i);
				need(1, i);
				need(2, i)
#ifdef MUTANT_left_alone_with_what_is_reserved
			:: else -> least = reserved[i]
#else
			:: else
#endif
			fi;
			reserved[i] = least
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0
}

/* segue_gather_settle */
inline settle(g)
{
	if
	:: gathered[g] || asked[g] ->
		gathered[g] = 0;
		follows[g] = 0;
		ready[g] = 0;
		asked[g] = 0;
		asked_step[g] = 0;
#ifndef MUTANT_reserved_for_ever
		reserve()
#endif
	:: else
	fi
}

/* ---- Asking for a lane ---------------------------------------------------------------------- */

/* wait_for_lane; a request that the lane is free for waits for no time */
inline wait_for_lane(g, what)
{
	if
#ifndef MUTANT_renewed_lease_waits_behind
	:: what == RENEW || what == RESTORE -> /* of a lease that it gives up */
		line[2 * g + 1] = line[2 * g];
		line[2 * g] = what
#endif
	:: else ->
		if
		:: line[2 * g] == NONE -> line[2 * g] = what
		:: else -> line[2 * g + 1] = what
		fi
	fi
}

inline leave_line(g, at)
{
	if
	:: at == 0 -> line[2 * g] = line[2 * g + 1]
	:: else
	fi;
	line[2 * g + 1] = NONE
}

/* segue_feed_choice_init: with all that are there as candidates */
inline start_making(g)
{
	lease[g] = LOOKING;
	i = 0;
	do
	:: i < FEEDS ->
		if
		:: there[i] && !alone[i] -> chosen_by[i] = chosen_by[i] | (1 << g)
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0
}

/* segue_gather_wants, is_ahead */
#define WANTS(g)    (asked[g] || DECLARED)
#define IS_MADE(g)  (lease[g] == LOOKING || lease[g] == LOOKED || lease[g] == MADE)
#define IS_AHEAD(g) (IS_MADE(g) && making[g] != RESTORE)
#define SOME_AHEAD  (IS_AHEAD(0) || IS_AHEAD(1) || IS_AHEAD(2))

/* look_around, is_ready: the loop looks after each step, so who is ready once stays so */
#define MEETING(g)    (lease[g] == GATHERED && !follows[g])
#define IS_THERE(g)   (lease[g] == HELD || IS_MADE(g) || MEETING(g))
#define ALL_THERE     (IS_THERE(0) && IS_THERE(1) && IS_THERE(2))
#define SOME_HELD     (lease[0] == HELD || lease[1] == HELD || lease[2] == HELD)
#define BY_LIBRARY(g) (making[g] == RENEW || making[g] == AGAIN)
#define IS_READY(g)   (MEETING(g) && (!DECLARED || BY_LIBRARY(g) || SOME_HELD || ALL_THERE))
inline look_around()
{
	ready[0] = ready[0] || IS_READY(0);
	ready[1] = ready[1] || IS_READY(1);
	ready[2] = ready[2] || IS_READY(2)
}

/* segue_gather_look, look_at_following */
#define NOT_ABOVE(g, h) (!MEETING(h) || STEP_OF(g) <= STEP_OF(h))
#define LOWEST(g)       (MEETING(g) && NOT_ABOVE(g, 0) && NOT_ABOVE(g, 1) && NOT_ABOVE(g, 2))
#define NONE_MADE       (!IS_MADE(0) && !IS_MADE(1) && !IS_MADE(2))
#define GOES(g)                                               \
	(lease[g] == GATHERED && (follows[g] -> !SOME_AHEAD : \
		LOWEST(g) && NONE_MADE && (ready[0] || ready[1] || ready[2])))

/* let_next_ask, ask, gather_or_make */
inline ask(g)
{
	making[g] = line[2 * g];
	assert(making[g] != NEW || (line[2 * g + 1] != RENEW && line[2 * g + 1] != RESTORE)); /* lost */
	leave_line(g, 0);
	if
	:: WANTS(g) ->
		gathered[g] = 1;
		lease[g] = GATHERED
	:: else ->
		if
		:: making[g] != RESTORE && SOME_AHEAD ->
			gathered[g] = 1;
			follows[g] = 1;
			lease[g] = GATHERED
		:: else -> start_making(g)
		fi
	fi;
	if
	:: gathered[g] ->
		look_around();
		reserve()
	:: else
	fi
}

#define MAY_JOIN(g, f) ((chosen_by[f] & (1 << (g))) && MEETS(g, f))
#define JOINS(g)       (MAY_JOIN(g, 0) || MAY_JOIN(g, 1) || MAY_JOIN(g, 2) || MAY_JOIN(g, 3))

/* segue_grant_find_feed, where it joins none */
inline make_feed(g)
{
	i = 0;
	do
	:: there[i] -> i++
	:: else -> break
	od;
	assert(i < FEEDS);
	there[i] = 1;
	first[i] = STEP_OF(g);
	published[i] = STEP_OF(g);
	other[i] = BATCHES(g);
	feed[g] = i
}

/* segue_grant_make: the grant is on disk; make_memory has scattered the image */
inline store(g)
{
	if
	:: making[g] == RESTORE ->
		committed[g] = to_step[g];
		truth[g] = (to_step[g] > 0 -> STATES(g, to_step[g] - 1) : 0);
#ifdef MUTANT_restored_to_newer_states
		again[g] = 1
#else
		again[g] = 1;
		states[g] = truth[g]
#endif
	:: else
	fi;
	lease[g] = MADE
}

/* not_granted, or granted to nobody; who asked asks again, if it is there */
inline fail(g)
{
	feed[g] = NOWHERE;
	finish_choice(g);
	lease[g] = FREE;
	if
	:: asked[g] -> /* segue_lag_give_up */
		i = 0;
		do
		:: i < FEEDS -> alone[i] = 0; i++
		:: else -> break
		od
	:: else
	fi;
	settle(g);
	if
	:: !asker_gone[g] && making[g] != NEW -> making[g] = AGAIN
	:: else
	fi;
	if
	:: !asker_gone[g] -> wait_for_lane(g, making[g])
	:: else
	fi;
	making[g] = NONE;
	to_step[g] = 0;
	asker_gone[g] = 0
}

/* ---- Leases that end ------------------------------------------------------------------------ */

inline end_lease(g)
{
	lease[g] = ENDING;
	told[g] = 0;
	open[g] = 0
}

/* segue_gather_keep_place, segue_ledger_end, ask */
inline give_up_for(g, what)
{
	if
	:: what == RENEW && !asked[g] && USERS(feed[g]) > 1 ->
		asked[g] = 1;
		asked_step[g] = committed[g];
		if
		:: committed[g] < reserved[feed[g]] && REACHES(feed[g], committed[g]) ->
			reserved[feed[g]] = committed[g]
		:: else
		fi
	:: else
	fi;
	end_lease(g);
	wait_for_lane(g, what)
}

/* take_down, segue_feeds_leave, taken_down */
inline take_down(g)
{
	assert(states[g] == truth[g]);
	i = feed[g];
	feed[g] = NOWHERE;
#ifdef MUTANT_leaver_closes_the_feed
	forget_feed(i);
#else
	close_unused(i);
#endif
	lease[g] = FREE
}

/* ---- Those who keep others waiting, those who meet again ------------------------------------ */

#define USES(g, f)  (feed[g] == (f) && lease[g] == HELD)
#define KEEPS(g, f) (USES(g, f) && published[f] >= committed[g] + DEPTH)
#define WAITS(g, f) (USES(g, f) && committed[g] == published[f])
#define IS_KEPT(f)                                                     \
	(there[f] && published[f] < STEPS &&                           \
		(KEEPS(0, f) || KEEPS(1, f) || KEEPS(2, f)) &&         \
		(WAITS(0, f) || WAITS(1, f) || WAITS(2, f)))

inline ask_to_renew(g)
{
	asked[g] = 1;
	asked_step[g] = committed[g];
	told[g] = 1
}

inline leave_behind_by(g, f)
{
	if
	:: USES(g, f) && !KEEPS(g, f) -> ask_to_renew(g)
	:: else
	fi
}

/* takes, is_better, is_on_its_way */
#define COUNT(f)     (USES(0, f) + USES(1, f) + USES(2, f))
#define COMING(f)    ((USES(0, f) && asked[0]) || (USES(1, f) && asked[1]) || (USES(2, f) && asked[2]))
#define TAKES(g, f)                                                        \
	(there[f] && feed[g] != (f) && COUNT(f) > 0 && !alone[f] &&        \
		published[f] < STEPS && committed[g] < published[f] && REACHES(f, committed[g]))
#define BETTER(g, f) (alone[feed[g]] || COUNT(f) >= COUNT(feed[g]))
#define MOVES_TO(g, f) (lease[g] == HELD && !asked[g] && TAKES(g, f) && BETTER(g, f) && !COMING(f))

#define CAN_LAG(f) (IS_KEPT(f) && !SAID(f) && (lags > 0 || (stopped && KEEPS(2, f))))
#ifdef MUTANT_left_behind_once
bit said[FEEDS]; /* of what is published */
#define SAID(f)     said[f]
#define note_said(f, is) said[f] = is
#else
#define SAID(f) false
#define note_said(f, is)
#endif

inline leave_behind(f)
{
	alone[f] = 1;
	leave_behind_by(0, f);
	leave_behind_by(1, f);
	leave_behind_by(2, f);
	reserve();
	note_said(f, 1);
	if
	:: lags > 0 -> lags--
	:: else
	fi
}

/* ---- Feeds ---------------------------------------------------------------------------------- */

/* gate_of, segue_feed_gate */
#define SUBSCRIBED(f)   (SUBSCRIBES(0, f) || SUBSCRIBES(1, f) || SUBSCRIBES(2, f))
#define MAKES_WAY(g, f) (committed[g] + DEPTH > published[f])
#ifdef MUTANT_slot_freed_by_the_first
#define ALLOWS(g, f) (SUBSCRIBES(g, f) && MAKES_WAY(g, f))
#define FREED(f)     (ALLOWS(0, f) || ALLOWS(1, f) || ALLOWS(2, f))
#else
#define ALLOWS(g, f) (!SUBSCRIBES(g, f) || MAKES_WAY(g, f))
#define FREED(f)     (SUBSCRIBED(f) && ALLOWS(0, f) && ALLOWS(1, f) && ALLOWS(2, f))
#endif
#ifdef MUTANT_nothing_is_reserved
#define RESERVED(f) false
#else
#define RESERVED(f) (published[f] >= reserved[f] && published[f] - reserved[f] >= DEPTH)
#endif
#define GO(f) (there[f] && published[f] < STEPS && FREED(f) && !RESERVED(f))

/* work_once, work_on_batch; act, of the loop */
active [FEEDS] proctype of_feed()
{
end:	do
	:: d_step { GO(_pid) && !filled[_pid] ->
		slot[_pid * DEPTH + published[_pid] % DEPTH] = CONTENT(published[_pid], other[_pid]);
		filled[_pid] = 1 }
	:: d_step { GO(_pid) && filled[_pid] ->
		published[_pid] = published[_pid] + 1;
		filled[_pid] = 0;
		note_said(_pid, 0) }
#if LAGS || STOP
	:: d_step { CAN_LAG(_pid) -> leave_behind(_pid) }
#endif
	od
}

/* ---- Groups: the process that has the lane, or asks for it; what the server does for it ------- */

#define ALIKE(g) ((g) == 1 && !RENEWS && !RIVAL)
#define RUNS(g)  ((g) != 2 || !stopped)
#define HAS(g)   (lease[g] == HELD && RUNS(g))
#define SLOT(g)  slot[feed[g] * DEPTH + committed[g] % DEPTH]

inline check_slot(g)
{
	assert(there[feed[g]]);
	assert(SLOT(g) == CONTENT(committed[g], BATCHES(g)))
}

inline move_over(g, f)
{
	moves--;
	ask_to_renew(g);
	reserve()
}

inline look(g, f)
{
	feed[g] = f;
	lease[g] = LOOKED
}

/* The second look of join: subscribes, or goes on looking at others. */
inline look_again(g)
{
	if
#ifndef MUTANT_join_looks_once
	:: !MEETS(g, feed[g]) ->
		chosen_by[feed[g]] = chosen_by[feed[g]] & ~(1 << g);
		i = feed[g];
		feed[g] = NOWHERE;
		close_unused(i);
		lease[g] = LOOKING
#endif
	:: else ->
#ifdef MUTANT_states_of_another_group
		if
		:: SUBSCRIBES((g + 1) % GROUPS, feed[g]) -> states[g] = states[(g + 1) % GROUPS]
		:: else
		fi;
#endif
		store(g)
	fi
}

/* granted, put_in_force */
inline put_in_force(g)
{
	lease[g] = HELD;
	making[g] = NONE;
	to_step[g] = 0;
	finish_choice(g);
	settle(g);
	look_around()
}

proctype of_group(byte g)
{
	do
	/* A process comes: of groups that are alike, in their order. */
	:: d_step { to_come[g] > 0 && line[2 * g + 1] == NONE && (!ALIKE(g) || to_come[g - 1] == 0) ->
		to_come[g] = to_come[g] - 1;
		wait_for_lane(g, NEW) }
	/* Its loop. */
	:: d_step { HAS(g) && !open[g] && published[feed[g]] > committed[g] ->
		check_slot(g);
		assert(states[g] == truth[g]);
		open[g] = 1 }
	:: d_step { HAS(g) && open[g] ->
		check_slot(g);
		states[g] = STATES(g, committed[g]);
		truth[g] = states[g];
		committed[g] = committed[g] + 1;
		open[g] = 0 }
	:: d_step { HAS(g) && !open[g] && told[g] -> give_up_for(g, RENEW) }
	:: d_step { HAS(g) && committed[g] == STEPS && published[feed[g]] == STEPS -> end_lease(g) }
#if RENEWS
	:: d_step { g == 0 && renews > 0 && HAS(0) && !open[0] -> renews--; give_up_for(0, RENEW) }
#endif
#if RESTORES
	:: atomic { g == 2 && restores > 0 && HAS(2) && !open[2] ->
		restores--;
		do
		:: to_step[2] < committed[2] -> to_step[2] = to_step[2] + 1
		:: break
		od;
		d_step { give_up_for(2, RESTORE) } }
#endif
#if STOP
	:: d_step { g == 2 && stops > 0 && HAS(2) -> stops--; stopped = 1 }
	:: d_step { g == 2 && stopped && AT_END(0) && AT_END(1) -> stopped = 0 }
#endif
#if DEATH
	:: d_step { g == 2 && deaths > 0 && lease[2] != FREE && lease[2] != ENDING && !stopped ->
		deaths--;
		to_come[2] = to_come[2] + 1;
		if
		:: lease[2] == HELD -> end_lease(2)
		:: else -> asker_gone[2] = 1
		fi }
	:: d_step { g == 2 && deaths > 0 && line[4] != NONE && line[4] != NEW ->
		deaths--;
		to_come[2] = to_come[2] + 1;
		leave_line(2, 0);
		to_step[2] = 0 }
#endif
	/* Its lease. */
	:: d_step { lease[g] == ENDING -> take_down(g) }
	:: d_step { lease[g] == FREE && line[2 * g] != NONE -> ask(g) }
	:: d_step { GOES(g) -> start_making(g) }
	:: d_step { lease[g] == GATHERED && asker_gone[g] -> fail(g) }
	:: d_step { lease[g] == LOOKING && MAY_JOIN(g, 0) -> look(g, 0) }
	:: d_step { lease[g] == LOOKING && MAY_JOIN(g, 1) -> look(g, 1) }
	:: d_step { lease[g] == LOOKING && MAY_JOIN(g, 2) -> look(g, 2) }
	:: d_step { lease[g] == LOOKING && MAY_JOIN(g, 3) -> look(g, 3) }
	:: d_step { lease[g] == LOOKING && !JOINS(g) -> make_feed(g); store(g) }
	:: d_step { lease[g] == LOOKED -> look_again(g) }
	:: d_step { lease[g] == MADE && !asker_gone[g] -> put_in_force(g) }
	:: d_step { lease[g] == MADE && asker_gone[g] -> fail(g) }
#if FULL
	:: d_step { lease[g] == LOOKING && fails > 0 -> fails--; fail(g) }
#endif
	:: d_step { asked[g] && !gathered[g] -> settle(g) } /* segue_gather_expire */
#if MOVES
	:: d_step { moves > 0 && MOVES_TO(g, 0) -> move_over(g, 0) }
	:: d_step { moves > 0 && MOVES_TO(g, 1) -> move_over(g, 1) }
	:: d_step { moves > 0 && MOVES_TO(g, 2) -> move_over(g, 2) }
	:: d_step { moves > 0 && MOVES_TO(g, 3) -> move_over(g, 3) }
#endif
	:: AT_END(0) && AT_END(1) && AT_END(2) -> break
	od;
	assert(committed[g] == STEPS)
}

init {
	atomic {
		to_come[0] = to_come[0] + RIVAL;
		run of_group(0);
		run of_group(1);
		run of_group(2)
	}
}
