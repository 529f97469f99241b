/*
 * Leases: one lane, WORKERS processes that want it, a server that is killed, a store.
 *
 * The states after a batch are written as a number: one octal digit a batch, the grant under which
 * it was committed. A batch that was lost or committed twice is a digit too few or too many. How a
 * buffer is copied is ring.pml's subject: here the states after each step lie apart.
 *
 * Checked: what is on disk is one whole commit, its batches those of the grants that made them; what
 * was acknowledged as durable stays; at most one process has a lease that is not fenced; a grant is on
 * disk before it is sent; an offer is taken only with the token of the latest grant and never goes
 * below the disk; a worker that lives through a server's death goes on where it was; what a lease had
 * committed when it ended is on disk when the next begins; all work is done in the end (invalid end
 * states).
 *
 * mirrors server/lane/lease.c segue_lease_load befc6031
 * mirrors server/lane/lease.c segue_lease_ask f7a71c5c
 * mirrors server/lane/lease.c segue_lease_granted 60749cbc
 * mirrors server/lane/lease.c segue_lease_end 4918a2b8
 * mirrors server/lane/lease.c segue_lease_taken a117f9d8
 * mirrors server/lane/lease.c segue_lease_expire 3c757a6b
 * mirrors server/stream/release.c segue_ledger_end ab1b3b43
 * mirrors server/stream/attach.c granted 2c2f46dc
 * mirrors server/stream/attach.c ask 863b03db
 * mirrors server/engine/committer.c add_grant c7c32046
 * mirrors server/engine/committer.c settle 06eca5f3
 * mirrors server/engine/committer.c conclude 11eda6bc
 * mirrors server/engine/grant.c segue_grant_make 7564188d
 * mirrors lib/core/track.c segue_track_commit d19716e8
 * mirrors lib/client/resume.c segue_lane_ready 05a93149
 * mirrors lib/client/resume.c offer 6f049b94
 * mirrors lib/client/resume.c resume f5d28284
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
#define GRANTS 8 /* ids 1 to 7: octal digits */

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

byte in_force; /* the grant */
bit cut;       /* its connection is lost, or its time is over */
bit final_written;

byte making, making_step, making_for; /* a grant on its way to disk; the worker that asked */
short making_states;
bit made, wanted;

bit writing, writing_grant, writing_image, writing_final; /* a transaction */
byte image_step;
short image_states;

/* ---- The workers': processes, sockets ------------------------------------------------------- */

mtype = { NONE, CONTINUE, OFFER, DETACH, GRANTED, REFUSED, LOST, DONE };
byte pid_of[WORKERS];
bit alive[WORKERS], attached[WORKERS], connected[WORKERS];
byte held_grant[WORKERS];
mtype asked[WORKERS] = NONE, answered[WORKERS] = NONE;
byte asked_token[WORKERS], asked_step[WORKERS], answered_step[WORKERS];
short asked_states[WORKERS], answered_states[WORKERS];

/* ---- Faults left, and what is true ---------------------------------------------------------- */

byte crashes = CRASHES, kills = KILLS, cuts = CUTS, full_disks = FULL_DISKS;
byte grants;      /* so far */
byte granted_at[GRANTS];
byte sent_latest; /* the grant that a process got last */
byte sure_step;   /* acknowledged as durable */
short sure_states;
byte must_step;   /* committed when the lease in force ended */

#define LIVES(p) ((p) > 0 && alive[((p) - 1) % WORKERS] && pid_of[((p) - 1) % WORKERS] == (p))
#define HOLDS(w) (alive[w] && attached[w] && !page_fenced[held_grant[w]])

active proctype monitor()
{
end:	if
	:: HOLDS(0) && HOLDS(1) -> assert(false) /* two holders */
	fi
}

/* ---- The store's steps ---------------------------------------------------------------------- */

inline store_lane(step, states)
{
	rest = states;
	digits = 0;
	do
	:: rest > 0 -> rest = rest / 8; digits++
	:: else -> break
	od;
	assert(digits == step); /* no batch is lost, none is there twice */
	assert(step >= disk_step);
	rest = states;
	do
	:: digits > sure_step -> rest = rest / 8; digits--
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
		assert(image_step == granted_at[in_force] || image_states % 8 == in_force); /* its own */
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
	holder = pid_of[w];
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
/* segue_lease_ask says neither WAIT nor BUSY */
#define OWN(w)     (holder == pid_of[w])
#define CAN_ASK(w) ((asked[w] == OFFER || asked[w] == CONTINUE) && (state == FREE || (state == RESERVED && (asked[w] == OFFER || OWN(w)))))

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
	:: disk_held && LIVES(holder) -> state = RESERVED
	:: else
	fi;
#endif
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
}

#define OWES (in_force && (state == ENDING -> !final_written : COMMITTED(in_force) > disk_step))
#define DETACHES(w) (asked[w] == DETACH && state != ENDING)

inline detach(w)
{
	if
	:: state == IN_FORCE && OWN(w) -> end_lease()
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
	:: atomic { DETACHES(0) -> detach(0) }
	:: atomic { DETACHES(1) -> detach(1) }
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
	:: atomic { state == RESERVED && !LIVES(holder) -> state = FREE } /* segue_lease_expire */
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
			:: lose((holder - 1) % WORKERS)
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

/* segue_lane_ready: an offer; resume, if it is refused */
inline attach()
{
	atomic {
		up ->
		asked_token[self] = own_token;
		asked_step[self] = committed;
		asked_states[self] = states;
		asked[self] = (own_token -> OFFER : CONTINUE)
	};
	atomic {
		answered[self] != NONE ->
		if
		:: answered[self] == GRANTED ->
			/* With no fence seen, nobody came between. */
			assert(!old_grant || page_fenced[old_grant] || (answered_step[self] == committed && answered_states[self] == states));
			assert(!own_token || (answered_step[self] == committed && answered_states[self] == states));
			committed = answered_step[self];
			states = answered_states[self];
			own_token = held_grant[self];
			old_grant = held_grant[self];
			attached[self] = 1
		:: answered[self] == REFUSED -> own_token = 0
		:: else
		fi;
		answered[self] = NONE;
		answered_step[self] = 0;
		answered_states[self] = 0;
		asked_token[self] = 0;
		asked_step[self] = 0;
		asked_states[self] = 0
	}
}

/* segue_track_commit: look at the page, write the word */
inline commit()
{
	if
	:: page_fenced[held_grant[self]] -> attached[self] = 0
	:: else ->
		STATES(held_grant[self], committed + 1) = states * 8 + held_grant[self];
		atomic {
			COMMITTED(held_grant[self]) = committed + 1;
			states = states * 8 + held_grant[self];
			committed++
		}
	fi
}

/* durability = commit */
inline wait_durable()
{
	if
	:: atomic { page_durable[held_grant[self]] >= committed ->
			assert(disk_step >= committed && (disk_step > committed || disk_states == states));
			if
			:: committed > sure_step -> sure_step = committed; sure_states = states
			:: else
			fi }
	:: page_fenced[held_grant[self]] || !connected[self]
	fi
}

proctype worker(byte self)
{
	byte committed, own_token, old_grant;
	short states;

	do
	:: {
		do
		:: !attached[self] && disk_step == STEPS -> break
		:: !attached[self] && disk_step < STEPS -> attach()
		:: attached[self] && committed < STEPS -> commit()
		:: attached[self] && committed > sure_step -> wait_durable()
		:: attached[self] && committed == STEPS && !page_fenced[held_grant[self]] && connected[self] ->
			asked[self] = DETACH;
			atomic { answered[self] != NONE -> answered[self] = NONE; attached[self] = 0 }
		:: atomic { attached[self] && (page_fenced[held_grant[self]] || !connected[self]) -> attached[self] = 0 }
		od;
		break
	} unless {
		atomic {
			!alive[self] ->
			pid_of[self] = pid_of[self] + WORKERS;
			committed = 0;
			own_token = 0;
			old_grant = 0;
			states = 0;
			alive[self] = 1
		}
	}
	od;
	assert(disk_step == STEPS);
	alive[self] = 0 /* its process exits */
}

init {
	atomic {
		pid_of[0] = 1;
		pid_of[1] = 2;
		alive[0] = 1;
		alive[1] = 1;
		run worker(0);
		run worker(1)
	}
}
