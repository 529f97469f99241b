/*
 * Ring, carry, commit and wake-up: one feed, its filler, the committer, and WORKERS subscribers.
 *
 * Memory is x86-TSO: each agent's stores to shared words go through a FIFO and reach memory when
 * `memory` takes them out; a fence waits until its FIFO is empty. Bulk (slots, buffers) is seen at
 * once, in two halves, so that a half-written one is seen. A lock drains its owner's stores; other
 * system calls are not counted upon to (C11 does not), so that each fence has to hold by itself.
 * The library's look every 20 ms, and the committer's interval, are left out: nothing may hang on
 * a clock. The eventfd and the loop that hands it on are one step (`kick`).
 *
 * Checked: no slot and no buffer is written while a view of it is alive; a batch taken is whole and
 * comes with the states committed before it; a copy is the state after c - 1, an ended row's that of
 * its batch; released <= committed <= published; nobody sleeps for ever (invalid end states); no
 * wake-up is lost (`monitor`: with the ring before a sleep a lost one costs time, not progress).
 *
 * WORKERS > 1: groups that share the feed, a worker each. The last of them begins late (JOIN): at any
 * step that the feed reaches; the first may lose its lease and leave (LEAVE). With TSO 0 their stores
 * reach memory at once, or there would be too many states.
 *
 * mirrors lib/core/track.c segue_track_poll 841d3ec6
 * mirrors lib/core/track.c segue_track_take 010ee0d7
 * mirrors lib/core/track.c segue_track_commit d19716e8
 * mirrors lib/core/track.c segue_track_release 32608ff5
 * mirrors lib/core/track.c segue_track_sleep_begin b9e2d417
 * mirrors lib/core/track.c segue_track_sleep_end 29027ba6
 * mirrors lib/client/next.c wait_once 9862fa13
 * mirrors server/lane/carry.c segue_carry_observe 7d4e500f
 * mirrors server/lane/carry.c segue_carry_hold 131109b0
 * mirrors server/lane/carry.c segue_carry_copy 462f5cb5
 * mirrors server/lane/carry.c segue_carry_let_go ff672711
 * mirrors server/lane/feed.c segue_feed_take_of 4f622db1
 * mirrors server/lane/carry.c segue_carry_fence b82565a6
 * mirrors server/lane/feed.c segue_feed_reaches 49ab6753
 * mirrors server/lane/feed.c segue_feed_subscribe cf6da81d
 * mirrors server/lane/feed.c segue_feed_unsubscribe a8eea271
 * mirrors server/lane/feed.c released_of 404cefa3
 * mirrors server/lane/feed.c gate_of fd159fd3
 * mirrors server/lane/feed.c segue_feed_gate b1778204
 * mirrors server/lane/feed.c segue_feed_take cbe9c24f
 * mirrors server/lane/feed.c segue_feed_ring a6286614
 * mirrors server/lane/feed.c segue_feed_publish ea3ea420
 * mirrors server/lane/feed.c segue_feed_end 1a859cea
 * mirrors server/lane/feed.c segue_feed_sleep 700e6223
 * mirrors server/engine/filler.c work_on_batch 8b610ba3
 * mirrors server/engine/filler.c work_once 73526744
 * mirrors server/engine/filler.c make_way 14cc077e
 * mirrors server/engine/filler.c run dbcdeb37
 * mirrors server/engine/filler.c segue_filler_kick 7207c91f
 * mirrors server/engine/joining.c meets 4ba113c7
 * mirrors server/engine/joining.c join 845b4b77
 * mirrors server/engine/joining.c segue_grant_leave_feed 9ba53e80
 * mirrors server/engine/snapshot.c segue_snapshot 2e64e901
 */

#ifndef WORKERS
#define WORKERS 1
#endif
#ifndef DEPTH
#define DEPTH 2
#endif
#ifndef STEPS
#define STEPS 4 /* the lane ends there */
#endif
#ifndef SNAPSHOTS
#define SNAPSHOTS 1
#endif
#ifndef GIVE_BACKS
#define GIVE_BACKS 1
#endif
#ifndef KEEP_FINAL
#define KEEP_FINAL 1
#endif
#ifndef FENCE
#define FENCE 0 /* 1: the control thread may end the lease of worker 0 */
#endif
#ifndef LEAVE
#define LEAVE 0 /* 1: ... which then leaves the feed */
#endif
#ifndef JOIN
#define JOIN 0 /* 1: the last worker joins late, or not at all */
#endif
#ifndef TSO
#define TSO 1
#endif
#define LAST  (WORKERS - 1)
#define FIRST (WORKERS - JOIN) /* so many are there from the beginning */

#define NEVER   255
#ifdef MUTANT_buffers_of_depth
#define BUFFERS DEPTH
#else
#define BUFFERS (DEPTH + 1)
#endif

/* ---- Memory --------------------------------------------------------------------------------- */

mtype = { PUBLISHED, END, BELL, WAKE_AT, GENERATION, COMMITTED, RELEASED, SLEEPING };
mtype = { GO, FULL, HELD, TAKE, OVER };
mtype = { READY, WAIT, ENDED, FENCED };

byte published_w, end_w = NEVER, bell_w;
byte wake_at_w[WORKERS] = NEVER, generation_w[WORKERS];
byte committed_w[WORKERS], released_w[WORKERS], sleeping_w[WORKERS];

chan filler_stores = [4] of { mtype, byte, byte };
#if FENCE
chan control_stores = [3] of { mtype, byte, byte };
#endif
chan worker_stores[WORKERS] = [3] of { mtype, byte, byte };

#if TSO
#define store(stores, word, who, value) stores ! word, who, value
#define COARSE
#else
#define COARSE atomic
#define store(stores, word, who, value) d_step { reach_memory(word, who, value) }
#endif

byte slot_low[DEPTH] = NEVER, slot_high[DEPTH] = NEVER;
byte buffer_low[WORKERS * BUFFERS] = NEVER, buffer_high[WORKERS * BUFFERS] = NEVER;
#define BUFFER(w, t) ((w) * BUFFERS + (t) % BUFFERS)

/* ---- What is true --------------------------------------------------------------------------- */

byte truth[WORKERS * STEPS]; /* the states committed with each batch */
byte done_below[WORKERS];    /* batches below it are committed, or were before its time */
short alive[WORKERS];        /* bit t: a view of batch t, and of its states in, is alive */
#define STATES(w, t, salt) (2 * (t) + (salt) + 16 * (w))

/* ---- The server's, under the lock ----------------------------------------------------------- */

bit locked, kick = 1, asleep_full, ringing, end_stored;
bit joined = !JOIN, left, leaving;
#define SUBSCRIBED(w) (((w) != LAST || joined) && ((w) != 0 || !left))
byte published, bell;
byte carry_committed[WORKERS], carry_released[WORKERS], taken[WORKERS], holds[WORKERS];

/* ---- The workers' --------------------------------------------------------------------------- */

bit asleep[WORKERS], releasing[WORKERS];
byte seen[WORKERS];

inline reach_memory(word, who, value)
{
	if
	:: word == PUBLISHED -> published_w = value
	:: word == END -> end_w = value
	:: word == BELL -> bell_w = value
	:: word == WAKE_AT -> wake_at_w[who] = value
	:: word == GENERATION -> generation_w[who] = value
	:: word == COMMITTED -> committed_w[who] = value
	:: word == RELEASED -> released_w[who] = value
	:: word == SLEEPING -> sleeping_w[who] = value
	fi
}

active proctype memory()
{
	mtype word;
	byte who, value;

end:	do
	:: d_step { filler_stores ? word, who, value -> reach_memory(word, who, value); word = 0; who = 0; value = 0 }
	:: d_step { worker_stores[0] ? word, who, value -> reach_memory(word, who, value); word = 0; who = 0; value = 0 }
#if WORKERS > 2
	:: d_step { worker_stores[2] ? word, who, value -> reach_memory(word, who, value); word = 0; who = 0; value = 0 }
#endif
#if WORKERS > 1
	:: d_step { worker_stores[1] ? word, who, value -> reach_memory(word, who, value); word = 0; who = 0; value = 0 }
#endif
#if FENCE
	:: d_step { control_stores ? word, who, value -> reach_memory(word, who, value); word = 0; who = 0; value = 0 }
#endif
	od
}

/* A feed sleeps until all its subscribers have reached the mark; a worker until the bell. */
#define MARK         (published - DEPTH + DEPTH / 2)
#define QUIET(w)     (len(worker_stores[w]) == 0 && !releasing[w])
#define REACHED(w)   (QUIET(w) && released_w[w] >= MARK)
#define OVERSLEPT(w) (asleep[w] && (bell_w != seen[w] || generation_w[w]))
#define PAST(w)      (!SUBSCRIBED(w) || REACHED(w))
#if WORKERS > 2
#define ALL_REACHED    (PAST(0) && PAST(1) && PAST(2))
#define SOME_OVERSLEPT (OVERSLEPT(0) || OVERSLEPT(1) || OVERSLEPT(2))
#define ANYBODY        (SUBSCRIBED(0) || SUBSCRIBED(1) || SUBSCRIBED(2))
#elif WORKERS > 1
#define ALL_REACHED    (PAST(0) && PAST(1))
#define SOME_OVERSLEPT (OVERSLEPT(0) || OVERSLEPT(1))
#define ANYBODY        (SUBSCRIBED(0) || SUBSCRIBED(1))
#else
#define ALL_REACHED    PAST(0)
#define SOME_OVERSLEPT OVERSLEPT(0)
#define ANYBODY        SUBSCRIBED(0)
#endif
#if FENCE
#define SERVER_QUIET (!ringing && !leaving && len(filler_stores) == 0 && len(control_stores) == 0)
#else
#define SERVER_QUIET (!ringing && len(filler_stores) == 0)
#endif

active proctype monitor()
{
end:	if
	:: asleep_full && !kick && SERVER_QUIET && ANYBODY && ALL_REACHED -> assert(false) /* the filler was not woken */
	:: SERVER_QUIET && SOME_OVERSLEPT -> assert(false) /* a worker was not woken */
	fi
}

/* ---- The server ----------------------------------------------------------------------------- */

#define lock(stores)   atomic { !locked && (len(stores) == 0) -> locked = 1 }
#define unlock(stores) atomic { (len(stores) == 0) -> locked = 0 }

/* segue_carry_observe: released is loaded before committed */
inline observe(w)
{
	seen_released = released_w[w];
	d_step {
		seen_committed = committed_w[w];
		assert(seen_committed >= carry_committed[w]);
		assert(seen_committed <= published);
		assert(seen_released >= carry_released[w]);
		assert(seen_released <= seen_committed);
		carry_committed[w] = seen_committed;
		carry_released[w] = seen_released;
		seen_released = 0;
		seen_committed = 0
	}
}

/* released_of */
#ifdef MUTANT_no_released_word
#define GIVEN(w) carry_committed[w]
#elif defined(MUTANT_slot_freed_by_the_first)
#define GIVEN(w) (carry_released[0] > carry_released[1] -> carry_released[0] : carry_released[1])
#else
#define GIVEN(w) carry_released[w]
#endif

/* gate_of */
inline gate_of(w)
{
	observe(w);
	d_step {
		if
		:: published >= GIVEN(w) + DEPTH -> gate = FULL
		:: else ->
			if
			:: holds[w] > 0 -> gate = HELD
			:: else ->
				if
#ifndef MUTANT_ended_rows_not_taken
				:: KEEP_FINAL && published > taken[w] + DEPTH -> gate = TAKE
#endif
				:: else -> gate = GO
				fi
			fi
		fi
	}
}

inline gate_of_next(w)
{
	if
	:: gate == GO && SUBSCRIBED(w) -> gate_of(w)
	:: else
	fi
}

/* segue_feed_gate */
inline ask_gate()
{
	if
	:: (published == STEPS && end_stored) || !ANYBODY -> gate = OVER
	:: else -> COARSE {
			gate = GO;
			gate_of_next(0);
#if WORKERS > 1
			gate_of_next(1);
#endif
#if WORKERS > 2
			gate_of_next(2)
#endif
		}
	fi
}

/* segue_feed_take_of, with segue_carry_copy in two steps */
inline take_ended(w, below)
{
	do
	:: taken[w] < below ->
		copy_low = buffer_low[BUFFER(w, taken[w])];
		d_step {
			assert(copy_low == truth[w * STEPS + taken[w]]);
			assert(buffer_high[BUFFER(w, taken[w])] == truth[w * STEPS + taken[w]]);
			copy_low = 0;
			taken[w] = taken[w] + 1
		}
	:: else -> break
	od
}

inline take_of(w)
{
	if
	:: SUBSCRIBED(w) && published > taken[w] + DEPTH -> take_ended(w, carry_committed[w])
	:: else
	fi
}

/* segue_feed_take */
inline take_all()
{
	take_of(0);
#if WORKERS > 1
	take_of(1);
#endif
#if WORKERS > 2
	take_of(2)
#endif
}

#ifdef MUTANT_ring_without_fence
#define ring_fence(stores)
#else
#define ring_fence(stores) ((len(stores) == 0));
#endif

inline wake_all()
{
	d_step {
		asleep[0] = 0;
#if WORKERS > 1
		asleep[1] = 0;
#endif
#if WORKERS > 2
		asleep[2] = 0;
#endif
		ringing = 0
	}
}

#define SLEEPS(w) (SUBSCRIBED(w) && sleeping_w[w])

inline ring_for(w)
{
	if
	:: ringing && SLEEPS(w) -> wake_all()
	:: else
	fi
}

/* segue_feed_ring: the futex wakes all who sleep on the bell */
inline ring_bell(stores)
{
	COARSE {
		atomic { store(stores, BELL, 0, bell + 1) -> bell++ };
		ring_fence(stores)
		ring_for(0);
#if WORKERS > 1
		ring_for(1);
#endif
#if WORKERS > 2
		ring_for(2);
#endif
		ringing = 0
	}
}

/* Nobody who has the feed looks at what is in the slot, or will. */
#define OLD       (published - DEPTH)
#define UNREAD(w) (published < DEPTH || !SUBSCRIBED(w) || (!(alive[w] & (1 << OLD)) && done_below[w] > OLD))

/* work_on_batch: publishes what is filled, or fills, without the lock, and looks again */
inline work_on_batch()
{
	if
	:: filled -> COARSE {
		atomic { store(filler_stores, PUBLISHED, 0, published + 1) -> published++; ringing = 1 };
		ring_bell(filler_stores);
		filled = 0;
		unlock(filler_stores) }; /* make_way */
		lock(filler_stores)
	:: !filled && published < STEPS ->
		unlock(filler_stores);
#ifdef MUTANT_publish_before_fill
		store(filler_stores, PUBLISHED, 0, published + 1);
#endif
		d_step {
			assert(UNREAD(0));
#if WORKERS > 1
			assert(UNREAD(1));
#endif
#if WORKERS > 2
			assert(UNREAD(2));
#endif
			slot_low[published % DEPTH] = published
		};
		slot_high[published % DEPTH] = published;
		lock(filler_stores);
		filled = 1
	:: !filled && published == STEPS -> /* segue_feed_end */
		atomic { store(filler_stores, END, 0, published) -> end_stored = 1; ringing = 1 };
		ring_bell(filler_stores)
	fi
}

#ifdef MUTANT_feed_sleep_without_fence
#define feed_sleep_fence
#else
#define feed_sleep_fence ((len(filler_stores) == 0));
#endif

inline look_at(w)
{
	if
	:: SUBSCRIBED(w) ->
		observe(w);
		d_step {
			if
			:: last == NEVER || carry_released[w] < carry_released[last] -> last = w
			:: else ->
				if
				:: carry_released[w] == carry_released[last] && w == awaited -> last = w
				:: else
				fi
			fi
		}
	:: else
	fi
}

inline find_last()
{
	last = NEVER;
	look_at(0);
#if WORKERS > 1
	look_at(1);
#endif
#if WORKERS > 2
	look_at(2)
#endif
}

/* Several workers go on during it where there would not be too many states. */
#if TSO || (!SNAPSHOTS && !LEAVE)
#define SLEEP
#else
#define SLEEP atomic
#endif

/* segue_feed_sleep: `gate` says whether there is something to do after all */
inline feed_sleep()
{
	SLEEP {
	find_last();
	do
	:: store(filler_stores, WAKE_AT, last, MARK);
		awaited = last;
		feed_sleep_fence
#ifdef MUTANT_no_second_look_of_the_filler
		break
#elif defined(MUTANT_awaits_one_that_has_gone_on)
		ask_gate();
		break
#else
		find_last();
		if
		:: last == awaited -> ask_gate(); break
		:: else
		fi
#endif
	od;
	last = 0 }
}

/* run, work_once */
active proctype filler()
{
	mtype gate;
	byte seen_released, seen_committed, copy_low, last, awaited;
	bit filled;

end:	do
	:: atomic { kick -> asleep_full = 0 };
		lock(filler_stores);
again:		kick = 0;
		do
		:: ask_gate();
			if
			:: gate == GO -> work_on_batch()
			:: gate == TAKE -> take_all()
			:: gate == FULL ->
				feed_sleep();
				if
				:: gate == FULL || gate == OVER -> break
				:: else
				fi
			:: gate == HELD || gate == OVER -> break
			fi
		od;
		if
		:: kick -> goto again
		:: else
		fi;
		atomic { (len(filler_stores) == 0) -> asleep_full = (gate == FULL); gate = 0; locked = 0 }
	od
}

/* segue_snapshot of worker w */
inline snapshot(w)
{
	atomic { !locked -> locked = 1 };
#ifndef MUTANT_copy_without_hold
	holds[w] = holds[w] + 1;
#endif
	observe(w);
	step = carry_committed[w];
	if
	:: KEEP_FINAL -> take_ended(w, step)
	:: else
	fi;
	locked = 0;
	if
	:: step > 0 ->
		copy_low = buffer_low[BUFFER(w, step - 1)];
		d_step {
			assert(copy_low == truth[w * STEPS + step - 1]);
			assert(buffer_high[BUFFER(w, step - 1)] == truth[w * STEPS + step - 1]);
			copy_low = 0
		}
	:: else
	fi;
	atomic { !locked -> locked = 1 };
#ifndef MUTANT_copy_without_hold
	holds[w] = holds[w] - 1;
#endif
	d_step {
		step = 0;
		locked = 0;
#ifndef MUTANT_let_go_without_kick
		kick = 1
#endif
	}
}

active proctype committer()
{
	byte seen_released, seen_committed, copy_low, step, count;

	do
	:: count < SNAPSHOTS ->
		count++;
		if
		:: snapshot(0)
#if WORKERS > 1
		:: SUBSCRIBED(LAST) -> snapshot(LAST)
#endif
		fi
	:: break
	od;
	count = 0
}

#if FENCE
/* segue_ledger_end: segue_carry_fence, then segue_feed_ring; leave_feed when it is written */
active proctype control()
{
	if
	:: skip
	:: COARSE {
		lock(control_stores);
		atomic { store(control_stores, GENERATION, 0, 1) -> ringing = 1 };
#ifdef MUTANT_fence_without_ring
		ringing = 0;
#else
		ring_bell(control_stores);
#endif
		unlock(control_stores)
		};
#if LEAVE
		atomic { !locked && holds[0] == 0 -> left = 1; leaving = 1 };
		d_step {
#ifndef MUTANT_leave_without_kick
			kick = 1;
#endif
			leaving = 0
		}
#endif
	fi
}
#endif

#if JOIN
/* segue_feed_reaches, of a feed that began with batch 0 */
#define HOLDS(w, t) (SUBSCRIBED(w) && carry_released[w] <= (t))
#if WORKERS > 2
#define SOME_HOLD(t) (HOLDS(0, t) || HOLDS(1, t))
#elif defined(MUTANT_oldest_slot_not_held)
#define SOME_HOLD(t) true
#else
#define SOME_HOLD(t) HOLDS(0, t)
#endif
#define REACHES(t) ((t) <= published && (t) + DEPTH >= published && ((t) + DEPTH > published || SOME_HOLD(t)))

/* meets */
#ifdef MUTANT_catch_up_skips_a_batch
#define MEETS(t) REACHES((t) + 1)
#else
#define MEETS(t) REACHES(t)
#endif

/* find_feed: join, of a group that has its states from the store; it looks twice */
active proctype group()
{
	byte step;

	if
	:: skip
	:: atomic {
			!locked ->
			do
			:: step < published -> step++
			:: break
			od;
			if
			:: MEETS(step)
			:: else -> goto apart
			fi
		};
		atomic {
			!locked ->
			if
#ifndef MUTANT_join_looks_once
			:: !MEETS(step) -> goto apart
#endif
			:: else
			fi;
			d_step {
				carry_committed[LAST] = step;
				carry_released[LAST] = step;
				taken[LAST] = step;
				done_below[LAST] = step;
				committed_w[LAST] = step;
				released_w[LAST] = step;
				if
				:: step > 0 ->
					truth[LAST * STEPS + step - 1] = STATES(LAST, step - 1, 0);
#ifdef MUTANT_states_of_another_group
					buffer_low[BUFFER(LAST, step - 1)] = buffer_low[BUFFER(0, step - 1)];
					buffer_high[BUFFER(LAST, step - 1)] = buffer_high[BUFFER(0, step - 1)]
#else
					buffer_low[BUFFER(LAST, step - 1)] = STATES(LAST, step - 1, 0);
					buffer_high[BUFFER(LAST, step - 1)] = STATES(LAST, step - 1, 0)
#endif
				:: else
				fi;
				joined = 1;
				kick = 1
			};
			run worker(LAST, step)
		}
	fi;
apart:	step = 0
}
#endif

/* ---- A worker ------------------------------------------------------------------------------- */

#define HELD_BATCH(w, t) (alive[w] & (1 << (t)))
#define ring_server kick = 1

/* segue_track_poll; HELD is the caller's to see */
inline poll(w)
{
	if
	:: FENCE && generation_w[w] -> met = FENCED
	:: else ->
		if
		:: published_w > next -> met = READY
		:: else ->
			if
			:: end_w == next -> met = ENDED
			:: else -> met = WAIT
			fi
		fi
	fi
}

#ifdef MUTANT_release_without_fence
#define release_fence
#else
#define release_fence ((len(worker_stores[self]) == 0));
#endif

/* segue_track_release of a committed batch t */
inline release(t)
{
	d_step {
		alive[self] = alive[self] & ~(1 << (t));
		give = released;
		do
		:: give < committed && !HELD_BATCH(self, give) -> give++
		:: else -> break
		od
	};
	if
	:: give > released ->
		atomic { store(worker_stores[self], RELEASED, self, give) -> released = give; give = 0; releasing[self] = 1 };
		release_fence
		d_step {
			if
			:: released >= wake_at_w[self] && wake_at_w[self] != woken_at ->
				woken_at = wake_at_w[self];
				ring_server
			:: else
			fi;
			releasing[self] = 0
		}
	:: else -> give = 0
	fi
}

#ifdef MUTANT_sleep_begin_without_fence
#define sleep_begin_fence
#else
#define sleep_begin_fence ((len(worker_stores[self]) == 0));
#endif

/* wait_once: segue_track_sleep_begin, the ring before the sleep, the futex */
inline sleep_for_batch()
{
	seen[self] = bell_w;
	store(worker_stores[self], SLEEPING, self, 1);
	sleep_begin_fence
#ifndef MUTANT_no_second_look_of_the_worker
	poll(self);
#endif
	if
	:: met == WAIT ->
#ifndef MUTANT_no_ring_before_sleep
		if
		:: !rung -> ring_server; rung = 1
		:: else
		fi;
#endif
#ifdef MUTANT_sleep_without_compare
		asleep[self] = 1;
#else
		d_step { /* the kernel compares and puts to sleep in one step */
			if
			:: bell_w == seen[self] -> asleep[self] = 1
			:: else
			fi
		};
#endif
		!asleep[self]
	:: else
	fi;
	atomic { store(worker_stores[self], SLEEPING, self, 0) -> seen[self] = 0; met = 0 }
}

/* The states after batch `committed`; `salt` tells a second attempt from the first. */
inline write_states()
{
	d_step {
		assert(committed < DEPTH || !HELD_BATCH(self, committed - DEPTH));
		buffer_low[BUFFER(self, committed)] = STATES(self, committed, salt)
	};
	buffer_high[BUFFER(self, committed)] = STATES(self, committed, salt)
}

proctype worker(byte self; byte first)
{
	mtype met;
	byte next, committed, released, woken_at = NEVER, give, given_back, which;
	bit salt, rung;

	next = first;
	committed = first;
	released = first;
	do
	:: COARSE { next > committed -> /* a batch is open */
		if
		:: write_states();
			if
			:: FENCE && generation_w[self] -> goto fenced
			:: else
			fi;
			atomic {
				store(worker_stores[self], COMMITTED, self, next) ->
				truth[self * STEPS + committed] = STATES(self, committed, salt);
				done_below[self] = next;
				committed = next
			}
#ifdef MUTANT_commit_before_states
			; buffer_high[BUFFER(self, committed - 1)] = NEVER;
			buffer_high[BUFFER(self, committed - 1)] = STATES(self, committed - 1, salt)
#endif
		:: given_back < GIVE_BACKS -> /* given back with states written: it comes again */
			write_states();
			d_step { alive[self] = alive[self] & ~(1 << committed); next = committed; salt = !salt; given_back++ }
		fi }
	:: COARSE { next == committed && alive[self] -> /* any that is held; TSO 0: the oldest */
		atomic {
			if
			:: HELD_BATCH(self, released) -> which = released
#if TSO
			:: HELD_BATCH(self, released + 1) -> which = released + 1
			:: HELD_BATCH(self, released + 2) -> which = released + 2
			:: HELD_BATCH(self, released + 3) -> which = released + 3
#endif
			fi
		};
		release(which);
		which = 0 }
	:: COARSE { next == committed && next - released < DEPTH -> /* with that many held, HELD is an error */
		poll(self);
		if
		:: met == READY -> /* segue_track_take */
			d_step {
				assert(!SUBSCRIBED(self) || (slot_low[next % DEPTH] == next && slot_high[next % DEPTH] == next));
				if
				:: next > 0 ->
					assert(buffer_low[BUFFER(self, next - 1)] == truth[self * STEPS + next - 1]);
					assert(buffer_high[BUFFER(self, next - 1)] == truth[self * STEPS + next - 1])
				:: else
				fi;
				alive[self] = alive[self] | (1 << next);
				next++;
				rung = 0;
				met = 0
			}
		:: met == WAIT -> sleep_for_batch()
		:: met == ENDED -> break
		:: met == FENCED -> goto fenced
		fi }
	od;
	assert(next == STEPS);
fenced:
	skip
}

init {
	atomic {
		run worker(0, 0);
#if FIRST > 1
		run worker(1, 0);
#endif
#if FIRST > 2
		run worker(2, 0)
#endif
	}
}
