/*
 * Replicas: a process that holds a lane, two that follow it, and what each is given when one of them dies, lags,
 * leaves its loop, or all go back to an older step.
 *
 * One level above ring.pml and lease.pml: a step of a process, of the filler or of the server's loop is one, but a
 * slot is filled before it can be read, a batch is open for a while, and the end of a lease is not at once written.
 * Each lease has memory of its own, which stays for those who have it. Committed is released; a buffer is
 * written from the moment when its batch is taken. No wait is too long.
 *
 * Checked: what a follower is given has been taken by the holder of that lease, slot and states in are those that
 * it has seen, and stay so until the follower goes on; none is missing; the batch before it, as it was given last,
 * is the one that was committed; nothing comes of a lease from before a token; the holder goes on only when
 * both follow; nobody waits for ever (invalid end states), but where that is an error: for a holder that has
 * ended, or a follower that has seen the lane's end when the last batch comes again.
 *
 * Left out: one that is cut off while its server lives; a look of the holder alone at a batch before which all
 * load a token, where a follower has the lease and has taken nothing.
 *
 * mirrors server/lane/follower.c segue_followers_add 804d7ddd
 * mirrors server/lane/follower.c segue_followers_remove db68016d
 * mirrors server/lane/follower.c observe 96b13ba6
 * mirrors server/lane/follower.c segue_followers_observe e5945f7f
 * mirrors server/lane/follower.c segue_followers_tell 1b1e436f
 * mirrors server/lane/feed.c gate_of fd159fd3
 * mirrors server/lane/feed.c segue_feed_gate b1778204
 * mirrors server/lane/feed.c segue_feed_end_following db4e11e3
 * mirrors server/stream/replica.c tell_holder c3638dac
 * mirrors server/stream/replica.c part dbac94f4
 * mirrors server/stream/replica.c check_lease d8843673
 * mirrors server/stream/replica.c find_step 46228081
 * mirrors server/stream/replica.c join e2923ef0
 * mirrors server/stream/replica.c serve 24863d5c
 * mirrors server/stream/replica.c segue_replicas_granted 7d76c0d2
 * mirrors server/stream/replica.c segue_replicas_end aaa793be
 * mirrors server/stream/release.c segue_ledger_end 7c77f64e
 * mirrors lib/client/follow.c set_mapping 73e4cf15
 * mirrors lib/client/follow.c must_wait 9eaba384
 * mirrors lib/client/follow.c adopt 76baaff0
 * mirrors lib/client/follow.c segue_follow_attach 9a38f8b4
 * mirrors lib/client/follow.c segue_follow_recover 7eb905b2
 * mirrors lib/client/follow.c take_coming a0a97af8
 * mirrors lib/client/follow.c take_coming_if_due 2f298628
 * mirrors lib/client/follow.c settle_left 4ff2e749
 * mirrors lib/client/follow.c is_forgotten 605b1a2d
 * mirrors lib/client/follow.c segue_follow_poll 77da8e8a
 * mirrors lib/client/follow.c segue_follow_pass c2cf6538
 * mirrors lib/client/follow.c segue_follow_forget 9462fcac
 * mirrors lib/client/follow.c segue_follow_is_whole 1194aebd
 * mirrors lib/client/follow.c segue_follow_tell 1dbdd493
 * mirrors lib/client/next.c segue_lane_next f5609dd4
 * mirrors lib/client/commit.c segue_batch_put_back 5c023279
 */

#define DEPTH 2
#ifndef STEPS
#define STEPS 3 /* the lane ends there */
#endif
#ifndef ENDS
#define ENDS 0 /* times that the holder's process dies, and another comes */
#endif
#ifndef DEATHS
#define DEATHS 0 /* times that follower 1 dies, and another comes */
#endif
#ifndef LEAVES
#define LEAVES 0 /* times that each leaves its loop with a batch open */
#endif
#ifndef KILLS
#define KILLS 0 /* times that the server is killed: all go on with what is there, then with the next one */
#endif
#ifndef TOKEN
#define TOKEN 0 /* 1: before a batch all go back to an older step */
#endif

#define LEASES  (2 + ENDS + TOKEN + KILLS) /* 0: none */
#define BUFFERS (DEPTH + 1)
#define NEVER   255

/* ---- Memory of a lease ---------------------------------------------------------------------- */

byte slot[LEASES * DEPTH] = NEVER, buffer[LEASES * BUFFERS] = NEVER;
byte published[LEASES], committed[LEASES], taken[LEASES], granted[LEASES];
bit fenced[LEASES];
byte again[LEASES * STEPS];        /* so often each was taken again */
byte seen[LEASES * STEPS] = NEVER; /* states that the holder was handed with it */
#define SLOT(l, t)   slot[(l) * DEPTH + (t) % DEPTH]
#define BUFFER(l, t) buffer[(l) * BUFFERS + (t) % BUFFERS]
#define STATES(l, t) (1 + (t) + 16 * (l))
#define WRITING      254

/* ---- The server's --------------------------------------------------------------------------- */

mtype = { FREE, HELD, ENDING };
mtype state = FREE;
byte lease, reserved = NEVER;
bit filled;
byte disk_step, disk_states;
bit killed;
bit follows[2], count[2] /* as the holder's page has it */;
byte released[2]; /* as their pages have it */

/* ---- Processes' ----------------------------------------------------------------------------- */

bit holds, open, ended;
byte ends = ENDS;
bit holder_went_back;
byte from_step = NEVER, to_step; /* of the token */

byte mapped[2], next[2], coming[2], took[2], heard[2];
bit reads[2], placed[2], left[2], at_end[2];
bit went_back[2], is_behind[2]; /* to the token; since it was mapped */
bit asks[2];          /* to follow, whatever has been taken since */
byte deaths = DEATHS, kills = KILLS, leaves[3] = LEAVES, looks = TOKEN;

/* By leases: of whom each was given last; by whom each was committed, before and after the token. */
byte given[2 * STEPS], committed_by[2 * STEPS];
#define GIVEN(f, t) given[(f) * STEPS + (t)]

/* ---- The server ----------------------------------------------------------------------------- */

#ifdef MUTANT_follower_not_waited_for
#define LETS(f) true
#else
#define LETS(f) (!follows[f] || published[lease] < released[f] + DEPTH)
#endif
/* gate_of, segue_feed_gate; of a lease that is ending, too */
#define GO                                                                                        \
	(state != FREE && !killed && published[lease] < STEPS && published[lease] < committed[lease] + DEPTH && \
		LETS(0) && LETS(1) && !(published[lease] >= reserved && published[lease] - reserved >= DEPTH))

inline tell_holder()
{
	count[0] = follows[0];
	count[1] = follows[1]
}

/* part: of one that has ended */
inline part(f)
{
	follows[f] = 0;
#ifndef MUTANT_gone_not_told
	tell_holder()
#endif
}

/* segue_ledger_end, segue_replicas_end, segue_feed_end_following */
inline end_lease()
{
	state = ENDING;
	fenced[lease] = 1;
#ifndef MUTANT_followed_lease_forgotten
	if
	:: follows[0] && released[0] < reserved -> reserved = released[0]
	:: else
	fi;
	if
	:: follows[1] && released[1] < reserved -> reserved = released[1]
	:: else
	fi;
#endif
	follows[0] = 0;
	follows[1] = 0;
	tell_holder()
}

/* The last commit is on disk, the feed closed. */
inline take_down()
{
	disk_step = committed[lease];
	disk_states = (disk_step > 0 -> BUFFER(lease, disk_step - 1) : 0);
	state = FREE;
	filled = 0;
	reserved = NEVER
}

inline grant()
{
	lease++;
	state = HELD;
	granted[lease] = disk_step;
	published[lease] = disk_step;
	committed[lease] = disk_step;
	taken[lease] = 0;
	tell_holder();
	if
	:: disk_step > 0 -> BUFFER(lease, disk_step - 1) = disk_states
	:: else
	fi
}

active proctype filler()
{
end:	do
	:: d_step { GO && !filled -> SLOT(lease, published[lease]) = published[lease]; filled = 1 }
	:: d_step { GO && filled -> published[lease] = published[lease] + 1; filled = 0 }
	od
}

/* ---- The holder ----------------------------------------------------------------------------- */

#ifdef MUTANT_goes_on_alone
#define WHOLE true
#else
#define WHOLE (count[0] && count[1])
#endif
#define AT (committed[lease])
#define BACK_IS_DUE(at, done) (TOKEN && !(done) && (at) == from_step)
#define STATES_BEFORE(l, t) ((t) > 0 -> BUFFER(l, (t) - 1) : 0)

/* At the batch where all go back: not where a follower may have come after the one before. */
#define MAY_LOOK (looks > 0 && AT > 0 && !DEATHS)

active proctype holder()
{
	do
	/* It comes. */
	:: d_step { state == FREE && !holds && !ended -> grant(); holds = 1 }
	/* segue_lane_next, segue_follow_tell */
	:: d_step { holds && state == HELD && !open && WHOLE && published[lease] > AT &&
		(!BACK_IS_DUE(AT, holder_went_back) || MAY_LOOK) ->
		looks = looks - (BACK_IS_DUE(AT, holder_went_back) -> 1 : 0);
		assert(killed || (follows[0] && follows[1]));
		assert(SLOT(lease, AT) == AT);
		assert(STATES_BEFORE(lease, AT) != WRITING);
		open = 1;
		seen[lease * STEPS + AT] = STATES_BEFORE(lease, AT);
		BUFFER(lease, AT) = WRITING;
		again[lease * STEPS + AT] = (taken[lease] <= AT -> 0 : again[lease * STEPS + AT] + 1);
		taken[lease] = AT + 1 }
	:: d_step { holds && state == HELD && open && !BACK_IS_DUE(AT, holder_went_back) ->
		assert(SLOT(lease, AT) == AT);
		BUFFER(lease, AT) = STATES(lease, AT);
		committed_by[holder_went_back * STEPS + AT] = lease;
		open = 0;
		committed[lease] = AT + 1 }
#if LEAVES
	:: d_step { holds && state == HELD && open && leaves[2] > 0 -> leaves[2] = leaves[2] - 1; open = 0 }
#endif
#if ENDS
	:: d_step { holds && state == HELD && !killed && ends > 0 -> ends--; open = 0; holds = 0; end_lease() }
#endif
#if KILLS
	:: d_step { state == HELD && kills > 0 && !killed ->
		kills--;
		killed = 1;
		follows[0] = 0;
		follows[1] = 0 }
	/* The next one takes what is offered. */
	:: d_step { killed && !open ->
		killed = 0;
		take_down();
		grant() }
#endif
#if TOKEN
	:: d_step { holds && state == HELD && !killed && BACK_IS_DUE(AT, holder_went_back) -> open = 0; end_lease() }
	:: d_step { holds && state == FREE ->
		holder_went_back = 1;
		disk_step = to_step;
		disk_states = (to_step > 0 -> STATES(committed_by[to_step - 1], to_step - 1) : 0);
		grant() }
#endif
	:: d_step { state == ENDING -> take_down() }
	:: d_step { holds && state == HELD && !killed && AT == STEPS && !BACK_IS_DUE(AT, holder_went_back) ->
		end_lease();
		holds = 0;
		ended = 1 }
#if ENDS || KILLS
	/* ReplicaError: its last batch comes again, to one that has seen the end. */
	:: d_step { holds && state == HELD && !killed && !open && (at_end[0] || at_end[1]) && AT < STEPS ->
		end_lease();
		holds = 0;
		ended = 1 }
#endif
	:: state == FREE && ended -> break
	od
}

/* ---- A follower ----------------------------------------------------------------------------- */

#define IS_DUE(f)    (coming[f] && next[f] >= granted[coming[f]])
#ifdef MUTANT_takes_what_is_forgotten
#define FORGOTTEN(f) false
#else
#define FORGOTTEN(f) (!placed[f] && took[f] == mapped[f])
#endif
#ifdef MUTANT_follows_the_ring
#define TAKEN(f) (published[mapped[f]] > next[f])
#else
#define TAKEN(f) (taken[mapped[f]] > next[f])
#endif
/* segue_follow_poll: the ways that it ends */
#define CAN_SETTLE(f)                                                \
	(left[f] && (again[mapped[f] * STEPS + next[f]] > heard[f] || \
		committed[mapped[f]] > next[f]))
#define CAN_ASK(f)                                                                 \
	(!at_end[f] && !reads[f] && !asks[f] && mapped[f] && !IS_DUE(f) && \
		!CAN_SETTLE(f) &&                                           \
		!BACK_IS_DUE(next[f], went_back[f]))
#ifdef MUTANT_begins_with_the_next_lease
#define STANDS(f) (placed[f] || !fenced[mapped[f]])
#else
#define STANDS(f) (placed[f] || !is_behind[f] || !fenced[mapped[f]])
#endif
#define READY(f) (CAN_ASK(f) && !left[f] && !FORGOTTEN(f) && TAKEN(f) && STANDS(f))
#define MET_END(f)                                                                \
	(CAN_ASK(f) && !READY(f) && placed[f] && published[mapped[f]] == STEPS && \
		next[f] == STEPS && !coming[f])
#define OVER(f) (CAN_ASK(f) && !READY(f) && !MET_END(f) && !coming[f] && fenced[mapped[f]])

inline check_batch(f, t)
{
	assert(seen[mapped[f] * STEPS + (t)] != NEVER); /* its holder has taken it */
	assert(SLOT(mapped[f], t) == (t));
	assert(STATES_BEFORE(mapped[f], t) == seen[mapped[f] * STEPS + (t)])
}

/* Its words count while it follows that lease. */
inline release(f)
{
	if
	:: follows[f] && mapped[f] == lease -> released[f] = next[f]
	:: else
	fi
}

inline forget_given(f)
{
	step = 0;
	do
	:: step < STEPS -> GIVEN(f, step) = 0; step++
	:: else -> break
	od;
	step = 0
}

/* What has been taken while it was there comes to it first. */
#ifdef MUTANT_begins_with_the_next_lease
#define IS_OWED(f) placed[f]
#else
#define IS_OWED(f) OWED(f)
#endif
#define OWED(f) (placed[f] || (mapped[f] && took[f] != mapped[f] && !is_behind[f] && taken[mapped[f]] > next[f]))

inline set_mapping(f, l, step)
{
	assert(!OWED(f) || step <= next[f]); /* none is missing */
	left[f] = 0;
	heard[f] = 0;
	is_behind[f] = 0;
	mapped[f] = l;
	next[f] = step
}

/* check_lease, find_step, join, adopt, must_wait: the server has a lease that it may follow */
inline follow(f)
{
	if
	:: !placed[f] ->
		step = committed[lease]
	:: else ->
		if
		:: next[f] < granted[lease] -> step = granted[lease]
#ifdef MUTANT_goes_on_where_it_was
		:: else -> step = next[f]
#else
		:: else -> step = (next[f] > committed[lease] -> committed[lease] : next[f])
#endif
		fi;
		assert(next[f] <= committed[lease] + 1) /* StaleIterator */
	fi;
	follows[f] = 1;
	released[f] = step;
	tell_holder();
	if
#ifndef MUTANT_next_lease_at_once
	:: IS_OWED(f) && step > next[f] ->
		assert(taken[mapped[f]] >= step); /* StaleIterator */
		coming[f] = lease
#endif
	:: else ->
		if
		:: !mapped[f] && taken[lease] > step -> /* others were given that before it came */
			set_mapping(f, lease, step);
			left[f] = 1;
			heard[f] = again[lease * STEPS + step]
		:: else -> set_mapping(f, lease, step)
		fi
	fi;
	step = 0
}

proctype follower(bit f)
{
	byte step;

	do
	/* It comes, anew or not for the first time. */
	:: d_step { !mapped[f] && !at_end[f] && state == HELD && !killed && !follows[f] ->
		went_back[f] = holder_went_back; follow(f) }
	:: d_step { READY(f) ->
		check_batch(f, next[f]);
		assert(!went_back[f] || mapped[f] > 1);
		/* What it was given before this is what was committed. */
		assert(next[f] == 0 || GIVEN(f, next[f] - 1) == 0 || /* its first */
			GIVEN(f, next[f] - 1) == committed_by[went_back[f] * STEPS + next[f] - 1]);
		reads[f] = 1;
		placed[f] = 1;
		took[f] = mapped[f];
		GIVEN(f, next[f]) = mapped[f];
		next[f] = next[f] + 1 }
	/* segue_follow_pass */
	:: d_step { reads[f] ->
		check_batch(f, next[f] - 1);
		reads[f] = 0;
		heard[f] = 0;
		release(f) }
#if LEAVES
	:: d_step { reads[f] && leaves[f] > 0 ->
		leaves[f] = leaves[f] - 1;
		check_batch(f, next[f] - 1);
		reads[f] = 0;
		next[f] = next[f] - 1;
		left[f] = 1 }
#endif
	/* settle_left */
	:: d_step { left[f] && !reads[f] && again[mapped[f] * STEPS + next[f]] > heard[f] ->
		heard[f] = heard[f] + 1;
		left[f] = 0 }
	:: d_step { left[f] && !reads[f] && again[mapped[f] * STEPS + next[f]] <= heard[f] &&
		committed[mapped[f]] > next[f] ->
		heard[f] = 0;
		GIVEN(f, next[f]) = (placed[f] -> mapped[f] : 0);
		next[f] = next[f] + 1;
		left[f] = 0;
		release(f) }
	/* take_coming_if_due */
	:: d_step { IS_DUE(f) && !reads[f] && !at_end[f] ->
		set_mapping(f, coming[f], granted[coming[f]]);
		coming[f] = 0 }
	/* segue_follow_recover */
	:: d_step { OVER(f) && state == HELD && !killed && !follows[f] -> follow(f) }
#if KILLS
	:: d_step { CAN_ASK(f) && !READY(f) && !coming[f] && !fenced[mapped[f]] && (killed || mapped[f] != lease) ->
		asks[f] = 1 }
	:: d_step { asks[f] && (killed || state != HELD) -> asks[f] = 0 }
	:: d_step { asks[f] && !killed && state == HELD -> asks[f] = 0; follow(f) }
#endif
	:: d_step { MET_END(f) -> at_end[f] = 1 }
#if TOKEN
	/* segue_follow_forget */
	:: d_step { !at_end[f] && !reads[f] && mapped[f] && BACK_IS_DUE(next[f], went_back[f]) ->
		is_behind[f] = 1;
		if
		:: coming[f] -> set_mapping(f, coming[f], granted[coming[f]]); coming[f] = 0
		:: else
		fi;
		went_back[f] = 1;
		left[f] = left[f] && !placed[f];
		placed[f] = 0;
		forget_given(f) }
#endif
#if DEATHS || TOKEN || ENDS || KILLS
	/* ReplicaError: the holder has ended before it came, or before the lane did. */
	:: d_step { !reads[f] && !at_end[f] && ended && state == FREE && (!placed[f] || disk_step < STEPS) ->
		at_end[f] = 1 }
#endif
#if DEATHS
	:: d_step { f == 1 && deaths > 0 && follows[1] && !at_end[1] ->
		deaths--;
		part(1);
		mapped[1] = 0;
		next[1] = 0;
		coming[1] = 0;
		took[1] = 0;
		heard[1] = 0;
		forget_given(1);
		reads[1] = 0;
		placed[1] = 0;
		left[1] = 0 }
#endif
	:: at_end[f] -> break
	od
}

init {
	atomic {
#if TOKEN
		from_step = 0;
		do
		:: from_step < STEPS -> from_step++
		:: break
		od;
		do
		:: to_step < from_step -> to_step++
		:: break
		od;
#endif
		run follower(0);
		run follower(1)
	}
}
