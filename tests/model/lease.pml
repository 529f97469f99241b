/*
 * Leases: one lane, WORKERS processes that want it, a server that is killed, a store. With TWINS the
 * first process has two handles of the lane, in two threads: the newer one takes it over, whichever
 * is first.
 *
 * The states after a batch are written as a number: one hexadecimal digit a batch, the grant under
 * which it was committed. A batch that was lost or committed twice is a digit too few or too many. How a
 * buffer is copied is ring.pml's subject: here the states after each step lie apart.
 *
 * Checked: what is on disk is one whole commit, its batches those of the grants that made them; what
 * was acknowledged as durable stays; at most one process has a lease that is not fenced; a grant is on
 * disk before it is sent; an offer is taken only with the token of the latest grant and never goes
 * below the disk; a worker that lives through a server's death goes on where it was; what a lease had
 * committed when it ended is on disk when the next begins; what an older handle had committed before a
 * newer one began to take its lane counts, also when its server was gone; nothing but a first attach
 * ends a lease of the same process, and nothing ends another process's; all work is done in the end
 * (invalid end states).
 *
 * mirrors server/lane/lease.c segue_holder_same 6ce837e9
 * mirrors server/lane/lease.c segue_lease_load befc6031
 * mirrors server/lane/lease.c ask_of_held 245cc009
 * mirrors server/lane/lease.c segue_lease_ask b0cb6f8b
 * mirrors server/lane/lease.c segue_lease_granted 60749cbc
 * mirrors server/lane/lease.c segue_lease_end 4918a2b8
 * mirrors server/lane/lease.c segue_lease_taken a117f9d8
 * mirrors server/lane/lease.c segue_lease_expire 3c757a6b
 * mirrors server/stream/release.c segue_ledger_end 7c77f64e
 * mirrors server/stream/attach.c granted 2eb9dc17
 * mirrors server/stream/attach.c wait_for_lane b33987f2
 * mirrors server/stream/attach.c ask 373772d7
 * mirrors server/stream/attach.c let_impatient_ask 689bf88a
 * mirrors server/engine/owed.c segue_owed_add 741aa337
 * mirrors server/engine/owed.c settle 209b57b8
 * mirrors server/engine/committer.c conclude b134aa72
 * mirrors server/engine/grant.c segue_grant_make 20b1a70b
 * mirrors lib/core/track.c segue_track_commit d19716e8
 * mirrors lib/client/lease.c segue_lease_adopt 269d1ffe
 * mirrors lib/client/lease.c segue_lease_decline 782fa0bf
 * mirrors lib/client/resume.c segue_lane_ready b9ecd4d4
 * mirrors lib/client/resume.c offer 09d763df
 * mirrors lib/client/resume.c resume a36c6607
 * mirrors lib/client/takeover.c look a6765d23
 * mirrors lib/client/takeover.c note_offered 3edab750
 * mirrors lib/client/takeover.c copy_legacy 031b80fd
 * mirrors lib/client/takeover.c offer 0a340b93
 * mirrors lib/client/takeover.c segue_takeover_prepare fa254ac0
 * mirrors lib/client/takeover.c segue_takeover_finish 8dfa3f4f
 * mirrors lib/client/attach.c attempt_place 2902000b
 */

#define WORKERS 2
#ifndef STEPS
#define STEPS 2
#endif
#ifndef CRASHES
#define CRASHES 1 /* of the server */
#endif
#ifndef KILLS
#define KILLS 1 /* of workers */
#endif
#ifndef CUTS
#define CUTS 1 /* connections lost, or leases that time out */
#endif
#ifndef FULL_DISKS
#define FULL_DISKS 0
#endif
#ifndef TWINS
#define TWINS 0 /* 1: handle 2 is process 0's, as handle 0 is; with KILLS = 0 */
#endif
#ifndef UNKNOWN
#define UNKNOWN 0 /* 1: no process can be looked up, and each is the same as none */
#endif
#ifndef RIVALS
#define RIVALS 1 /* 0: process 1 is not there */
#endif
#define HANDLES (WORKERS + TWINS)
#define PROC(h) ((h) % WORKERS)
#define TWIN(h) (2 - (h))
#define GRANTS  16 /* ids 1 to 15: hexadecimal digits */

/* ---- Shared memory: a carry and a page a grant ---------------------------------------------- */

byte carry_committed[GRANTS], page_durable[GRANTS];
short carry_states[GRANTS * (STEPS + 1)];
bit page_fenced[GRANTS];
#ifdef MUTANT_carry_reused
#define CARRY(g) 0
#else
#define CARRY(g) (g)
#endif
#define COMMITTED(g) carry_committed[CARRY(g)]
#define STATES(g, c) carry_states[CARRY(g) * (STEPS + 1) + (c)]

/* ---- The store ------------------------------------------------------------------------------ */

byte disk_generation, disk_token, disk_holder, disk_step;
short disk_states;
bit disk_held;

/* ---- The server's --------------------------------------------------------------------------- */

mtype = { FREE, RESERVED, GRANTING, IN_FORCE, ENDING };
bit up;
mtype state;
byte generation, token, holder;
bit token_valid;
mtype before;
byte before_token, before_holder;
bit before_valid;

byte instance; /* of the server */
byte in_force; /* the grant */
byte session;  /* the handle that has it */
byte taker;    /* 1 + the handle that the last one was ended for */
bit cut;       /* its connection is lost, or its time is over */
bit final_written;

byte making, making_step, making_for; /* a grant on its way to disk; the handle that asked */
short making_states;
bit made, wanted;

bit writing, writing_grant, writing_image, writing_final; /* a transaction */
byte image_step;
short image_states;

/* ---- The workers': processes, handles ------------------------------------------------------- */

mtype = { NONE, CONTINUE, RESUME, OFFER, DETACH, GRANTED, REFUSED, LOST, DONE };
byte pid_of[WORKERS];
bit alive[WORKERS];
bit attached[HANDLES], connected[HANDLES], ended[HANDLES];
byte held_grant[HANDLES];
mtype asked[HANDLES] = NONE, answered[HANDLES] = NONE;
byte asked_token[HANDLES], asked_step[HANDLES], answered_step[HANDLES];
short asked_states[HANDLES], answered_states[HANDLES];

/* What a handle knows; the list, with the process's lock: takeover.c. */
byte own_token[HANDLES]; /* of its lease, which is listed */
byte committed[HANDLES];
short own_states[HANDLES];
bit taken[HANDLES]; /* a newer handle has the lane: it is lost */

/* ---- Faults left, and what is true ---------------------------------------------------------- */

byte crashes = CRASHES, kills = KILLS, cuts = CUTS, full_disks = FULL_DISKS;
byte grants;      /* so far */
byte granted_at[GRANTS];
byte sent_latest; /* the grant that a process got last */
byte sure_step;   /* acknowledged as durable */
short sure_states;
byte must_step;   /* committed when the lease in force ended */
byte instance_of[GRANTS], handle_of[GRANTS];
/* Another handle of its process got the lane from a later server, or the grace was over. */
bit passed_on[GRANTS];
bit takes[HANDLES];          /* it is in its first attach */
byte foreign[WORKERS];       /* the last grant to another process */

#define LIVES(p) ((p) > 0 && alive[((p) - 1) % WORKERS] && pid_of[((p) - 1) % WORKERS] == (p))
#define GOOD(g)  (!page_fenced[g] && !passed_on[g])
#define HOLDS(h) (alive[PROC(h)] && attached[h] && !taken[h] && GOOD(held_grant[h]))

active proctype monitor()
{
end:	if
	:: HOLDS(0) && HOLDS(1) -> assert(false) /* two holders */
#if TWINS
	:: HOLDS(0) && HOLDS(2) -> assert(false)
	:: HOLDS(1) && HOLDS(2) -> assert(false)
#endif
	fi
}

/* ---- The store's steps ---------------------------------------------------------------------- */

inline store_lane(step, states)
{
	rest = states;
	digits = 0;
	do
	:: rest > 0 -> rest = rest / 16; digits++
	:: else -> break
	od;
	assert(digits == step); /* no batch is lost, none is there twice */
	assert(step >= disk_step);
	rest = states;
	do
	:: digits > sure_step -> rest = rest / 16; digits--
	:: else -> break
	od;
	assert(step >= sure_step && rest == sure_states); /* what was acknowledged stays */
	rest = 0;
	digits = 0;
	disk_step = step;
	disk_states = states
}

/* add_grant: the grant on its way, or the newest commit of the lease in force */
inline begin_writing()
{
	writing = 1;
	writing_grant = making && !made;
	if
	:: in_force ->
		writing_image = 1;
		writing_final = (state == ENDING);
		image_step = COMMITTED(in_force);
		image_states = STATES(in_force, image_step);
#ifdef MUTANT_last_commit_not_taken
		if
		:: writing_final -> image_step = disk_step; image_states = disk_states
		:: else
		fi;
#else
		assert(image_step == granted_at[in_force] || image_states % 16 == in_force); /* its own */
#endif
#ifdef MUTANT_durable_before_sync
		page_durable[in_force] = image_step
#endif
	:: else
	fi
}

inline apply()
{
	if
	:: writing_grant ->
		store_lane(making_step, making_states);
		disk_generation = generation;
		disk_token = token;
		disk_holder = holder;
		disk_held = 1
	:: else
	fi;
	if
	:: writing_image ->
		store_lane(image_step, image_states);
		disk_held = !writing_final
	:: else
	fi
}

inline forget_writing()
{
	writing = 0;
	writing_grant = 0;
	writing_image = 0;
	writing_final = 0;
	image_step = 0;
	image_states = 0
}

/* settle, conclude */
inline conclude()
{
	if
	:: writing_grant -> made = 1
	:: else
	fi;
	if
	:: writing_image ->
		page_durable[in_force] = image_step;
		final_written = writing_final
	:: else
	fi;
	forget_writing()
}

/* ---- Leases --------------------------------------------------------------------------------- */

inline refuse(w)
{
	asked[w] = NONE;
	answered[w] = REFUSED
}

/* segue_lease_ask says GRANT; segue_grant_make: from the store, or from what is offered */
inline grant(w)
{
	assert(grants + 1 < GRANTS);
	grants++;
	before = state;
	before_token = token;
	before_valid = token_valid;
	before_holder = holder;
	state = GRANTING;
	generation++;
	token = grants;
	token_valid = 1;
	holder = pid_of[PROC(w)];
	handle_of[grants] = w;
	foreign[1 - PROC(w)] = grants;
	if
	:: before_token && before == RESERVED && PROC(handle_of[before_token]) == PROC(w) && handle_of[before_token] != w ->
		passed_on[before_token] = 1
	:: else
	fi;
	taker = 0;
	making = grants;
	making_for = w;
	wanted = 1;
	if
	:: asked[w] == OFFER ->
		assert(asked_token[w] == sent_latest);
		assert(asked_step[w] >= disk_step);
		making_step = asked_step[w];
		making_states = asked_states[w]
	:: else ->
		making_step = disk_step;
		making_states = disk_states
	fi;
#ifdef MUTANT_grant_not_durable
	made = 1
#endif
}

#ifdef MUTANT_any_token
#define LATEST(w) true
#else
#define LATEST(w) (token_valid && token == asked_token[w])
#endif
#define BELOW(w) (asked_step[w] < disk_step) /* no honest worker's is: a check on the others */
/* segue_holder_same */
#if !UNKNOWN
#define SAME(w) (holder == pid_of[PROC(w)])
#else
#ifdef MUTANT_unknown_is_same
#define SAME(w) true
#else
#define SAME(w) false
#endif
#endif
/* segue_lease_ask says neither WAIT nor BUSY: GRANT or REFUSED */
#define ASKS(w)    (asked[w] == OFFER || asked[w] == CONTINUE || asked[w] == RESUME)
/* wait_for_lane: who took it comes before those that wait */
#define BEHIND(w)  (taker && taker != w + 1 && asked[taker - 1] == CONTINUE)
#define CAN_ASK(w) (ASKS(w) && ((state == FREE && !BEHIND(w)) || (state == RESERVED && (asked[w] == OFFER || SAME(w)))))
/* ... of what is held or reserved: ask_of_held */
#define HOLDER_LEFT  (!connected[session])
#define NO_RESUME(w) (asked[w] == RESUME && ((state == IN_FORCE && !(SAME(w) && HOLDER_LEFT)) || (state == RESERVED && !SAME(w))))
#define NO_OFFER(w)  (asked[w] == OFFER && state == IN_FORCE && !LATEST(w))
#ifdef MUTANT_resume_takes
#define CAN_TAKE(w) (((asked[w] == CONTINUE && takes[w]) || asked[w] == RESUME) && state == IN_FORCE && SAME(w))
#define IS_REFUSED(w) ((NO_RESUME(w) || NO_OFFER(w)) && !CAN_TAKE(w))
#else
#define CAN_TAKE(w) (asked[w] == CONTINUE && takes[w] && state == IN_FORCE && SAME(w))
#define IS_REFUSED(w) (NO_RESUME(w) || NO_OFFER(w))
#endif

/* segue_lease_ask */
inline ask(w)
{
	if
	:: asked[w] == OFFER && (!LATEST(w) || BELOW(w)) -> refuse(w)
	:: else -> grant(w)
	fi
}

inline forget_making()
{
	making = 0;
	making_step = 0;
	making_states = 0;
	making_for = 0;
	made = 0;
	wanted = 0;
	before = 0;
	before_token = 0;
	before_valid = 0;
	before_holder = 0
}

/* granted: segue_lease_granted, put_in_force, send_attached */
inline finish_grant(ok)
{
	if
	:: ok && wanted ->
		assert(disk_generation == generation && disk_token == token && disk_held);
		state = IN_FORCE;
		in_force = making;
		session = making_for;
		instance_of[making] = instance;
		sent_latest = making;
		granted_at[making] = making_step;
		COMMITTED(making) = making_step;
		STATES(making, making_step) = making_states;
		page_durable[making] = making_step;
		asked[making_for] = NONE;
		answered[making_for] = GRANTED;
		held_grant[making_for] = making;
		answered_step[making_for] = making_step;
		answered_states[making_for] = making_states;
		connected[making_for] = 1
	:: else ->
		state = before;
		token = before_token;
		token_valid = before_valid;
		holder = before_holder;
		if
		:: wanted -> asked[making_for] = NONE; answered[making_for] = LOST
		:: else
		fi
	fi;
	forget_making()
}

/* end_lease: segue_lease_end, segue_carry_fence */
inline end_lease()
{
	state = ENDING;
	cut = 0;
	must_step = COMMITTED(in_force);
#ifndef MUTANT_end_without_fence
	page_fenced[in_force] = 1
#endif
}

/* segue_lease_ask says TAKE: a newer handle of the process ends the lease */
inline take(w)
{
	assert(takes[w]); /* what the library asks by itself does not */
	assert(holder == pid_of[PROC(w)]);
	taker = w + 1;
	end_lease()
}

/* segue_lease_load */
inline load()
{
	generation = disk_generation;
	token = disk_token;
	holder = disk_holder;
	token_valid = disk_held;
	state = FREE;
#ifndef MUTANT_no_reservation
	if
	:: disk_held && (UNKNOWN || LIVES(holder)) -> state = RESERVED
	:: else
	fi;
#endif
	instance++;
	up = 1
}

inline lose(w)
{
	connected[w] = 0;
	if
	:: asked[w] != NONE -> asked[w] = NONE; answered[w] = LOST
	:: else
	fi
}

inline crash()
{
	crashes--;
	up = 0;
	if
	:: writing -> apply() /* it had reached the disk */
	:: true
	fi;
	forget_writing();
	forget_making();
	in_force = 0;
	session = 0;
	taker = 0;
	cut = 0;
	final_written = 0;
	must_step = 0;
	state = 0;
	generation = 0;
	token = 0;
	token_valid = 0;
	holder = 0;
	lose(0);
	lose(1)
#if TWINS
	;
	lose(2)
#endif
}

#define OWES (in_force && (state == ENDING -> !final_written : COMMITTED(in_force) > disk_step))
#define DETACHES(w) (asked[w] == DETACH && state != ENDING)

inline detach(w)
{
	if
	:: state == IN_FORCE && session == w -> end_lease()
	:: else -> asked[w] = NONE; answered[w] = DONE
	fi
}

active proctype server()
{
	short rest;
	byte digits;

	atomic { load() };
end:	do
	:: atomic { CAN_ASK(0) -> ask(0) }
	:: atomic { CAN_ASK(1) -> ask(1) }
	:: atomic { IS_REFUSED(0) -> refuse(0) }
	:: atomic { IS_REFUSED(1) -> refuse(1) }
	:: atomic { CAN_TAKE(0) -> take(0) }
	:: atomic { CAN_TAKE(1) -> take(1) }
	:: atomic { DETACHES(0) -> detach(0) }
	:: atomic { DETACHES(1) -> detach(1) }
#if TWINS
	:: atomic { CAN_ASK(2) -> ask(2) }
	:: atomic { IS_REFUSED(2) -> refuse(2) }
	:: atomic { CAN_TAKE(2) -> take(2) }
	:: atomic { DETACHES(2) -> detach(2) }
#endif
	:: atomic { !writing && ((making && !made) || OWES) -> begin_writing() }
	:: atomic { writing -> apply(); conclude() }
	:: atomic { writing && full_disks > 0 -> /* a grant is refused, all else is tried again */
			full_disks--;
			if
			:: writing_grant -> finish_grant(false)
			:: else
			fi;
			forget_writing() }
	:: atomic { making && made && !writing -> finish_grant(true) }
	:: atomic { state == IN_FORCE && (cut || !LIVES(holder)) -> end_lease() }
	:: atomic { state == RESERVED && (UNKNOWN || !LIVES(holder)) -> /* segue_lease_expire */
			state = FREE;
			if
			:: LIVES(holder) -> passed_on[token] = 1
			:: else
			fi }
	:: atomic { state == ENDING && final_written && !writing -> /* segue_lease_taken */
			assert(disk_step >= must_step);
			state = FREE;
			token_valid = 0;
			final_written = 0;
			must_step = 0;
			in_force = 0 }
	:: atomic { cuts > 0 && state == IN_FORCE && !cut ->
			cuts--;
			cut = 1;
			if
			:: lose(session)
			:: true /* it was too slow: lease_timeout */
			fi }
	:: atomic { cuts > 0 && making && wanted -> /* the one that asked is lost */
			cuts--;
			wanted = 0;
			lose(making_for) }
	:: atomic { crashes > 0 -> crash() };
		atomic { load() }
	od
}

/* ---- Workers -------------------------------------------------------------------------------- */

/* Kills a worker where it stands. */
inline kill(w)
{
	kills--;
	alive[w] = 0;
	attached[w] = 0;
	connected[w] = 0;
	held_grant[w] = 0;
	asked[w] = NONE;
	answered[w] = NONE;
	if
	:: making && making_for == w -> wanted = 0
	:: else
	fi
}

active proctype killer()
{
end:	do
	:: atomic { kills > 0 && alive[0] -> kill(0) }
	:: atomic { kills > 0 && alive[1] -> kill(1) }
	od
}

inline put(mode, token_, step_, states_)
{
	asked_token[self] = token_;
	asked_step[self] = step_;
	asked_states[self] = states_;
	asked[self] = mode
}

inline clear()
{
	answered[self] = NONE;
	answered_step[self] = 0;
	answered_states[self] = 0;
	asked_token[self] = 0;
	asked_step[self] = 0;
	asked_states[self] = 0
}

/* segue_lease_adopt, segue_takeover_finish: the newest lease is the one that counts */
inline adopt()
{
	if
	:: taken[self] -> declines = 1
	:: else ->
		committed[self] = answered_step[self];
		own_states[self] = answered_states[self];
		own_token[self] = held_grant[self];
		had_lease = 1;
		attached[self] = 1
	fi
#if TWINS
	;
	if
	:: self == 1 || declines || !own_token[TWIN(self)]
	:: else ->
		if
#ifdef MUTANT_last_to_hear_wins
		:: true ->
#else
		:: own_token[TWIN(self)] < own_token[self] ->
#endif
			taken[TWIN(self)] = 1;
			own_token[TWIN(self)] = 0
		:: else ->
			taken[self] = 1;
			own_token[self] = 0
		fi
	fi
#endif
}

/* segue_lease_decline */
inline give_back()
{
	if
	:: declines ->
		asked[self] = DETACH;
		atomic { answered[self] != NONE -> declines = 0; again = (answered[self] == LOST); clear() }
	:: else
	fi
}

/* segue_lane_ready: an offer; resume, if it is refused. It never takes. */
inline recover()
{
	atomic { up -> put(OFFER, own_token[self], committed[self], own_states[self]) };
	atomic {
		answered[self] != NONE ->
		if
		:: answered[self] == GRANTED ->
			assert(answered_step[self] == asked_step[self] && answered_states[self] == asked_states[self]);
			adopt()
		:: answered[self] == REFUSED -> refused = 1
		:: else
		fi;
		clear()
	};
	give_back();
	if
	:: refused ->
		atomic { up -> refused = 0; put(RESUME, own_token[self], committed[self], own_states[self]) };
		atomic {
			answered[self] != NONE ->
			if
			:: answered[self] == GRANTED ->
				if
				:: own_token[self] && answered_step[self] == committed[self] && answered_states[self] == own_states[self] -> adopt()
				:: else ->
					/* With no fence seen, nobody came between. */
					assert(taken[self] || !GOOD(own_token[self]));
					own_token[self] = 0;
					declines = 1
				fi
			:: answered[self] == REFUSED -> own_token[self] = 0
			:: else
			fi;
			clear()
		};
		give_back()
	:: else
	fi
}

/* segue_takeover_prepare: what the twin has is offered, if it is with another server */
inline look()
{
#if TWINS
	if
	:: self != 1 && own_token[TWIN(self)] && must_grant != own_token[TWIN(self)] && GOOD(own_token[TWIN(self)]) ->
		must_grant = own_token[TWIN(self)];
		must_count = committed[TWIN(self)];
		must_states = own_states[TWIN(self)]
	:: else
	fi;
#ifndef MUTANT_no_offer_before_taking
	if
	:: self != 1 && own_token[TWIN(self)] && instance_of[own_token[TWIN(self)]] != instance ->
		put(OFFER, own_token[TWIN(self)], committed[TWIN(self)], own_states[TWIN(self)])
	:: else
	fi
#endif
#else
	skip
#endif
}

/* It is with this server now: the twin's lease is over. */
inline note_offered()
{
#if TWINS
	if
	:: own_token[TWIN(self)] == asked_token[self] ->
		taken[TWIN(self)] = 1;
		own_token[TWIN(self)] = 0
	:: else
	fi
#else
	skip
#endif
}

/* What the twin had committed when it was looked at counts. */
inline check_must()
{
#if TWINS
	must_states_now = answered_states[self];
	digits = answered_step[self];
	do
	:: digits > must_count -> must_states_now = must_states_now / 16; digits--
	:: else -> break
	od;
	assert((UNKNOWN && foreign[PROC(self)] > must_grant) || !must_grant || (digits == must_count && must_states_now == must_states));
	must_states_now = 0;
	digits = 0;
	must_grant = 0;
	must_count = 0;
	must_states = 0
#else
	skip
#endif
}

/*
 * The first attach of a handle, which takes: attempt_place. Or one after a fence, which does not:
 * that is SEGUE_EBUSY if the twin has the lane.
 */
inline attach_first()
{
	atomic {
		up ->
		on = instance;
		if
		:: TWINS && had_lease && self != 1 && own_token[TWIN(self)] -> taken[self] = 1
		:: had_lease && !(TWINS && self != 1 && own_token[TWIN(self)])
		:: !had_lease -> look()
		fi
	};
	if
	:: atomic { asked[self] == OFFER || answered[self] != NONE ->
			answered[self] != NONE;
			if
			:: answered[self] == GRANTED ->
				assert(answered_step[self] == asked_step[self] && answered_states[self] == asked_states[self]);
				note_offered();
				declines = 1
			:: answered[self] == LOST -> again = 1
			:: else
			fi;
			clear() };
		give_back()
	:: else
	fi;
	if
	:: atomic { !again && !taken[self] && up && on == instance -> /* on the same connection */
			takes[self] = !had_lease;
			asked[self] = CONTINUE };
		atomic {
			answered[self] != NONE ->
			takes[self] = 0;
			if
			:: answered[self] == GRANTED -> check_must(); adopt()
			:: else
			fi;
			clear()
		};
		give_back()
	:: atomic { again || taken[self] || (up && on != instance) -> again = 0 }
	fi;
	on = 0
}

/* segue_track_commit: look at the page, write the word */
inline commit()
{
	if
	:: page_fenced[held_grant[self]] -> attached[self] = 0
	:: else ->
		STATES(held_grant[self], committed[self] + 1) = own_states[self] * 16 + held_grant[self];
		atomic {
			COMMITTED(held_grant[self]) = committed[self] + 1;
			own_states[self] = own_states[self] * 16 + held_grant[self];
			committed[self]++
		}
	fi
}

/* durability = commit */
inline wait_durable()
{
	if
	:: atomic { page_durable[held_grant[self]] >= committed[self] ->
			assert(disk_step >= committed[self] && (disk_step > committed[self] || disk_states == own_states[self]));
			if
			:: committed[self] > sure_step -> sure_step = committed[self]; sure_states = own_states[self]
			:: else
			fi }
	:: page_fenced[held_grant[self]] || !connected[self] || taken[self]
	fi
}

#define IN_HAND (attached[self] && !taken[self])

proctype worker(byte self)
{
	bit refused, declines, again, had_lease;
	byte on, must_grant, must_count, digits;
	short must_states, must_states_now;

	do
	:: {
		do
		:: taken[self] || (!attached[self] && disk_step == STEPS) -> break
		:: !attached[self] && !taken[self] && disk_step < STEPS && own_token[self] -> recover()
		:: !attached[self] && !taken[self] && disk_step < STEPS && !own_token[self] -> attach_first()
		:: IN_HAND && committed[self] < STEPS -> commit()
		:: IN_HAND && committed[self] > sure_step -> wait_durable()
		:: atomic { IN_HAND && committed[self] == STEPS && !page_fenced[held_grant[self]] && connected[self] ->
				asked[self] = DETACH };
			atomic {
				answered[self] != NONE ->
				if
				:: answered[self] == DONE -> own_token[self] = 0
				:: else
				fi;
				answered[self] = NONE;
				attached[self] = 0
			}
		:: atomic { IN_HAND && (page_fenced[held_grant[self]] || !connected[self]) -> attached[self] = 0 }
		od;
		break
	} unless {
		atomic {
			!alive[PROC(self)] ->
			pid_of[self] = pid_of[self] + WORKERS;
			committed[self] = 0;
			own_token[self] = 0;
			own_states[self] = 0;
			refused = 0;
			declines = 0;
			again = 0;
			had_lease = 0;
			on = 0;
			takes[self] = 0;
			alive[self] = 1
		}
	}
	od;
	atomic {
		assert(taken[self] || disk_step == STEPS);
		ended[self] = 1;
		own_token[self] = 0;
		attached[self] = 0;
		if
		:: !TWINS || self == 1 || ended[TWIN(self)] -> alive[PROC(self)] = 0 /* its process exits */
		:: else
		fi
	}
}

init {
	atomic {
		pid_of[0] = 1;
		pid_of[1] = 2;
		alive[0] = 1;
		run worker(0)
#if RIVALS
		;
		alive[1] = 1;
		run worker(1)
#endif
#if TWINS
		;
		run worker(2)
#endif
	}
}
