/* The worker processes of a run. */
#include "worker.h"

#include <stdio.h>
#include <string.h>

#include "core/barrier.h"
#include "lane/carry.h"
#include "lane/image.h"
#include "disk.h"
#include "follower.h"
#include "core/error.h"
#include "oracle.h"
#include "core/track.h"
#include "core/wait.h"

#define VIEWS   12
#define HANDLES (SIM_PAIRS + 2)
#define TIMEOUT 2000

/* What user code still looks at: a slot, and perhaps a buffer of the carry. */
struct view {
	bool used;
	uint64_t step;
	const struct segue_lease_page *page; /* of the lease that it came with */
	uint64_t generation;
	const struct segue_geometry *geometry;
	const uint8_t *slot, *buffer; /* buffer NULL: states in were a private copy */
	uint8_t *slot_was, *buffer_was;
};

/* A lane of one group in the hands of a thread: what lib/client calls a lane. */
struct handle {
	bool used;
	bool attached; /* has, or had, a lease: what the library asks by itself goes on with it */
	bool broken;   /* it is fenced, or its server or connection is lost */
	bool asleep;
	bool late; /* a newer lease had come, and perhaps gone, when it heard of its own */
	uint32_t pair;
	uint32_t ends;                         /* of the input, that the lease knows */
	uint32_t size;                         /* of its next batch */
	const struct segue_geometry *geometry; /* of the lease */
	uint64_t id;
	struct sim_server *server; /* that granted the lease */
	struct segue_track track;
	unsigned unanswered; /* grants of its own that may lie between this one and the next */
	bool rung;           /* the server has been rung since a batch came or went */
	struct sim_states in[SIM_ROWS]; /* of the open batch */
	struct view view[VIEWS];

	/* With the process's lock: for newer handles of the lane (takeover.h). */
	bool listed; /* its lease is in the list */
	bool taken;  /* a newer handle has the lane: its next step says so, and asks nobody */
	uint8_t token[SEGUE_TOKEN_BYTES];
	struct sim_kept *kept, **kept_tail;
	bool offered; /* by a newer handle: what it commits after that may not count */
	uint64_t offered_to;
};

struct lease_token {
	uint64_t generation; /* 0: none */
	uint8_t bytes[SEGUE_TOKEN_BYTES];
};

struct thread {
	struct worker *process;
	struct sim_request request;
	struct sim_event event; /* its socket, and all else that it waits for */
	bool restores;          /* has asked for it: lanes that have ended may begin again */
	bool must_not_ask;      /* it is the turn of a handle whose lane a newer one has */
	struct handle handle[HANDLES];
};

struct worker {
	bool alive;
	bool unknown; /* to the server: its pid means nothing there */
	int64_t pid;
	uint32_t threads;
	pthread_mutex_t lock;       /* of the list of its leases */
	uint64_t newest[SIM_PAIRS]; /* the newest lease of any of its handles */
	struct thread thread[SIM_THREADS];
};

static struct {
	struct worker worker[SIM_WORKERS];
	int64_t pids;
	uint64_t handles;              /* made so far */
	struct sim_server *server;     /* NULL: down */
	uint32_t wanted_by[SIM_PAIRS]; /* so many handles */
	bool done[SIM_PAIRS];
	uint64_t restore[SIM_PAIRS], restored[SIM_PAIRS]; /* asked for, done */
	uint64_t committed[SIM_PAIRS];                    /* by whoever has it, the last time */
	struct sim_token token[SIM_PAIRS];                /* newest checkpoint */
	struct sim_token older[SIM_PAIRS];                /* one from before the last restore */
	struct lease_token lease_token[SIM_PAIRS][2];     /* of the last lease; of one before */
	struct sim_token restore_to[SIM_PAIRS];
	uint32_t pace[SIM_GROUPS];   /* it makes one step in so many turns */
	uint64_t begins[SIM_GROUPS]; /* when group 0 is there */
	uint32_t ends;               /* of the input, that somebody was told of */
	uint32_t ended;              /* times that a lane was at the last of them */
	uint32_t patience;           /* views are kept for about so many steps */
	bool waits_durable, some_unknown;
} all;

/* Server or pool of lanes changed. */
static void announce(void)
{
	for (unsigned i = 0; i < SIM_WORKERS; i++)
		for (unsigned k = 0; k < SIM_THREADS; k++)
			sim_event_set(&all.worker[i].thread[k].event);
}

static struct sim_lane_truth *truth_of(uint32_t pair)
{
	return &sim_world.truth[pair];
}

/* ---- Views ---------------------------------------------------------------------------------- */

static size_t slot_size(const struct segue_geometry *geometry)
{
	return geometry->heap_offset + geometry->heap_size;
}

static size_t buffer_size(const struct segue_geometry *geometry)
{
	return geometry->state_offset[1] + geometry->places * sim_world.state[1].size;
}

static void *copy_of(const void *bytes, size_t size)
{
	void *copy = malloc(size);

	memcpy(copy, bytes, size);
	return copy;
}

/*
 * Where groups share a feed, the slots that only a fenced holder still looks at are written anew for
 * the others.
 */
static bool lease_is_over(const struct view *view)
{
	return atomic_load(&view->page->generation) != view->generation;
}

static void verify(const struct handle *handle, const struct view *view)
{
	sim_check(lease_is_over(view) ||
			  memcmp(view->slot, view->slot_was, slot_size(view->geometry)) == 0,
		"view", "pair %u: the slot of batch %llu changed under a live view", handle->pair,
		(unsigned long long)view->step);
	sim_check(!view->buffer ||
			  memcmp(view->buffer, view->buffer_was, buffer_size(view->geometry)) == 0,
		"view", "pair %u: the states in of batch %llu changed under a live view",
		handle->pair, (unsigned long long)view->step);
}

static void drop_view(const struct handle *handle, struct view *view)
{
	verify(handle, view);
	free(view->slot_was);
	free(view->buffer_was);
	*view = (struct view){0};
}

static void add_view(struct handle *handle, uint64_t step, const void *slot, const void *buffer)
{
	struct view *view = handle->view;

	while (view->used)
		view++;
	*view = (struct view){
		.used = true,
		.step = step,
		.page = handle->track.page,
		.generation = handle->track.generation,
		.slot = slot,
		.buffer = buffer,
		.geometry = handle->geometry,
		.slot_was = copy_of(slot, slot_size(handle->geometry)),
		.buffer_was = buffer ? copy_of(buffer, buffer_size(handle->geometry)) : NULL,
	};
}

static bool is_current(const struct handle *handle, const struct view *view)
{
	return view->used && handle->attached && view->page == handle->track.page;
}

static void ring_server(struct handle *handle)
{
	sim_doorbell(handle->server, handle->pair);
}

/* Releases one view of the lease in force, or forgets one of a lease that is over. */
static void release(struct handle *handle, struct view *view)
{
	bool current = is_current(handle, view);
	uint64_t step = view->step;

	drop_view(handle, view);
	handle->rung = false;
	if (current && step == handle->track.committed && segue_track_open(&handle->track))
		segue_track_put_back(&handle->track);
	if (current && segue_track_release(&handle->track, step))
		ring_server(handle);
}

static struct view *find_view(struct handle *handle, uint64_t step)
{
	for (unsigned i = 0; i < VIEWS; i++)
		if (is_current(handle, &handle->view[i]) && handle->view[i].step == step)
			return &handle->view[i];
	return NULL;
}

/* Views of leases that are over are kept while there is room. */
static void make_room(struct handle *handle)
{
	for (unsigned i = 0; i < VIEWS; i++)
		if (!handle->view[i].used)
			return;
	for (unsigned i = 0; i < VIEWS; i++)
		if (!is_current(handle, &handle->view[i]))
			release(handle, &handle->view[i]);
}

static bool is_open_batch(const struct handle *handle, const struct view *view)
{
	return is_current(handle, view) && view->step == handle->track.committed;
}

/* Releases the committed batches, each with the chance of one in `n`; 1: all. */
static void release_some(struct handle *handle, uint32_t n)
{
	unsigned start = sim_below(VIEWS);

	for (unsigned i = 0; i < VIEWS; i++) {
		struct view *view = &handle->view[(start + i) % VIEWS];
		if (view->used && !is_open_batch(handle, view) && (n <= 1 || sim_one_in(n)))
			release(handle, view);
	}
}

static void release_all(struct handle *handle)
{
	release_some(handle, 1);
	for (unsigned i = 0; i < VIEWS; i++)
		if (handle->view[i].used)
			release(handle, &handle->view[i]);
}

/* ---- Talking to the server ------------------------------------------------------------------ */

/* Asks this server, and waits for its answer. */
static int ask(struct thread *thread, struct sim_server *server)
{
	struct sim_request *request = &thread->request;

	sim_check(!thread->must_not_ask, "asks",
		"pair %u: lease %llu was taken over, it asks for more", request->pair,
		(unsigned long long)thread->process->newest[request->pair]);
	if (!server->alive)
		return SEGUE_EGONE;
	request->event = &thread->event;
	request->serial++;
	request->granting = request->ended_one = false;
	request->rc = 0;
	request->pending = true;
	sim_event_ring(&server->control);
	while (request->pending)
		sim_event_wait(&thread->event, SIM_NEVER);
	return request->rc;
}

/* A new question about the handle's lane. */
static struct sim_request *question(
	struct thread *thread, const struct handle *handle, enum segue_attach_mode mode)
{
	struct sim_request *request = &thread->request;
	uint64_t serial = request->serial;

	*request = (struct sim_request){.serial = serial,
		.kind = SIM_ATTACH,
		.pair = handle->pair,
		.mode = mode,
		.owner = handle->id};
	return request;
}

/* As segue_lease_request(): a grant whose answer never came is one of the handle's own. */
static int ask_for_lease(struct thread *thread, struct handle *handle, struct sim_server *server)
{
	uint32_t ends = all.ends;

	handle->unanswered++;
	int rc = ask(thread, server);
	sim_check(rc || thread->request.ends >= ends, "growth",
		"pair %u: a lease of %u ends, after %u", handle->pair, thread->request.ends, ends);
	if (rc == 0 || rc == SEGUE_EFENCED || rc == SEGUE_EBUSY)
		handle->unanswered--;
	return rc;
}

static int give_back(struct thread *thread, const struct handle *handle, struct sim_server *server,
	uint64_t lease)
{
	struct sim_request *request = question(thread, handle, SEGUE_ATTACH_NONE);

	request->kind = SIM_DETACH;
	request->lease = lease;
	return ask(thread, server);
}

/* Gives back what was just granted. */
static int decline(struct thread *thread, struct handle *handle, struct sim_server *server)
{
	handle->unanswered++;
	return give_back(thread, handle, server, thread->request.generation);
}

static void forget_kept(struct handle *handle, uint64_t below)
{
	while (handle->kept && handle->kept->step < below) {
		struct sim_kept *gone = handle->kept;
		handle->kept = gone->next;
		free(gone);
	}
	if (!handle->kept)
		handle->kept_tail = &handle->kept;
}

/* ---- The leases of a process: as lib/client/takeover.c -------------------------------------- */

/* The newest other handle of the lane that has a lease; with the lock. */
static struct handle *other_listed(struct worker *process, const struct handle *handle)
{
	struct handle *newest = NULL;

	for (unsigned k = 0; k < process->threads; k++) {
		for (unsigned i = 0; i < HANDLES; i++) {
			struct handle *other = &process->thread[k].handle[i];
			if (other->used && other->listed && other != handle &&
				other->pair == handle->pair &&
				(!newest || other->track.generation > newest->track.generation))
				newest = other;
		}
	}
	return newest;
}

static void count_taken(const struct handle *older)
{
	sim_happened[SIM_TAKEN]++;
	sim_happened[SIM_TAKEN_OPEN] += segue_track_open(&older->track);
	sim_happened[SIM_TAKEN_LOST] += older->server != all.server;
}

/* `handle` has the lane: the older ones have lost it. False: it is the one that has lost it. */
static bool mark_older(struct thread *thread, struct handle *handle, bool first)
{
	struct worker *process = thread->process;
	struct handle *other;

	while ((other = other_listed(process, handle))) {
		if (other->track.generation > handle->track.generation &&
			!SEGUE_MUTANT(last_to_hear_wins)) {
			handle->taken = true;
			return false;
		}
		sim_check(first, "thrown_out",
			"pair %u: lease %llu ends %llu, and is not a first one", handle->pair,
			(unsigned long long)handle->track.generation,
			(unsigned long long)other->track.generation);
		count_taken(other);
		other->listed = false;
		other->taken = true;
		announce(); /* it may wait for another server */
	}
	return true;
}

static bool is_unfenced(const struct handle *handle)
{
	return handle->attached && !handle->taken &&
	       atomic_load(&handle->track.page->generation) == handle->track.generation;
}

/*
 * The next server will say that it is over: another handle of its process has got the lane since,
 * or it cannot be looked up, and is too late.
 */
static bool is_too_late(const struct worker *process, const struct handle *handle)
{
	bool given_up =
		sim_oracle_process_after(handle->pair, handle->track.generation) == process->pid;

	return !handle->server->alive && (process->unknown || given_up);
}

/* Nobody else may have a lease of the lane that is not fenced. */
static void check_alone(const struct worker *process, const struct handle *handle)
{
	if (!is_unfenced(handle) || is_too_late(process, handle))
		return;
	for (unsigned i = 0; i < SIM_WORKERS * SIM_THREADS * HANDLES; i++) {
		const struct worker *of = &all.worker[i / HANDLES / SIM_THREADS];
		const struct handle *other =
			&of->thread[i / HANDLES % SIM_THREADS].handle[i % HANDLES];
		sim_check(!of->alive || !other->used || other == handle ||
				  other->pair != handle->pair || !is_unfenced(other) ||
				  is_too_late(of, other),
			"two_holders", "pair %u: leases %llu and %llu are both good", handle->pair,
			(unsigned long long)other->track.generation,
			(unsigned long long)handle->track.generation);
	}
}

static void note_token(const struct sim_request *request)
{
	struct lease_token *latest = all.lease_token[request->pair];
	bool older = request->generation < latest[0].generation; /* it hears of it late */

	if (!older)
		latest[1] = latest[0];
	latest[older].generation = request->generation;
	memcpy(latest[older].bytes, request->fresh, SEGUE_TOKEN_BYTES);
}

/* The lease is the handle's. False: a newer handle of the process has got another one meanwhile. */
static bool adopt_lease(struct thread *thread, struct handle *handle, struct sim_server *server)
{
	const struct sim_request *request = &thread->request;

	pthread_mutex_lock(&thread->process->lock);
	if (SEGUE_MUTANT(mark_forgotten))
		handle->taken = false;
	if (!handle->taken) {
		segue_track_init(&handle->track, request->ring, request->carry, request->page,
			sim_world.spec.depth, request->generation, request->first);
		note_token(request);
		memcpy(handle->token, request->fresh, SEGUE_TOKEN_BYTES);
		forget_kept(handle, SEGUE_NEVER);
		bool first = !handle->attached;
		handle->attached = true;
		handle->broken = handle->rung = false;
		handle->server = server;
		handle->ends = request->ends;
		handle->size = request->batch_size;
		handle->geometry = &sim_world.geometry[request->places];
		handle->unanswered = 0;
		handle->offered = false;
		handle->listed = mark_older(thread, handle, first);
		handle->late = request->generation < thread->process->newest[handle->pair];
		if (!handle->late)
			thread->process->newest[handle->pair] = request->generation;
	}
	bool mine = handle->listed;
	if (mine)
		check_alone(thread->process, handle);
	pthread_mutex_unlock(&thread->process->lock);
	sim_trace("pair %u: attached, generation %llu, step %llu%s", handle->pair,
		(unsigned long long)request->generation, (unsigned long long)request->first,
		mine ? "" : ", and taken already");
	return mine;
}

/* What an older handle has to offer, as a newer one of another thread finds it. */
struct offer {
	uint64_t step, generation;
	uint8_t token[SEGUE_TOKEN_BYTES];
	struct sim_states states[SIM_ROWS];
	struct sim_kept *kept;
	bool over;           /* then it may have committed what does not count */
	bool asleep;         /* the handle */
	uint64_t must_count; /* batches below that */
};

/*
 * With the lock. The word is looked at, not the handle's own count: its thread may commit just now.
 * The buffer before that batch stays as it is while that thread uses up what is in its ring.
 */
static void read_offer(const struct handle *older, struct offer *out)
{
	const struct segue_track *track = &older->track;
	struct sim_kept **tail = &out->kept;

	*out = (struct offer){.generation = track->generation};
	/* pairs with segue_track_commit (core/track.c) */
	out->step = segue_load_acquire(&track->carry->committed);
	/* pairs with segue_carry_fence (lane/carry.c) */
	bool fenced = segue_load_acquire(&track->page->generation) != track->generation;
	out->over = fenced || older->late;
	memcpy(out->token, older->token, SEGUE_TOKEN_BYTES);
	if (out->step > 0)
		for (uint32_t row = 0; row < truth_of(older->pair)->spans[out->step - 1]; row++)
			sim_buffer_get(older->geometry,
				(const uint8_t *)track->carry +
					segue_carry_offset(older->geometry, out->step - 1),
				row, &out->states[row]);
	for (const struct sim_kept *kept = older->kept; kept && kept->step < out->step;
		kept = kept->next) {
		*tail = malloc(sizeof(**tail));
		**tail = *kept;
		(*tail)->next = NULL;
		tail = &(*tail)->next;
	}
}

static int make_offer(struct thread *thread, struct handle *handle, struct sim_server *server,
	const struct offer *offer)
{
	struct sim_request *request = question(thread, handle, SEGUE_ATTACH_OFFER);

	memcpy(request->token, offer->token, SEGUE_TOKEN_BYTES);
	request->step = offer->step;
	request->generation = offer->generation;
	request->states = offer->states;
	request->kept = offer->kept;
	return ask_for_lease(thread, handle, server);
}

/* The offer was accepted: the lease that it was of is over. */
static void mark_offered(struct thread *thread, const struct handle *handle, const uint8_t *token)
{
	struct worker *process = thread->process;

	pthread_mutex_lock(&process->lock);
	struct handle *other = other_listed(process, handle);
	if (other && memcmp(other->token, token, SEGUE_TOKEN_BYTES) == 0) {
		count_taken(other);
		other->listed = false;
		other->taken = true;
		if (thread->request.generation > process->newest[handle->pair])
			process->newest[handle->pair] = thread->request.generation;
		announce();
	}
	pthread_mutex_unlock(&process->lock);
}

/* What an older handle has committed is with this server before the newer one takes the lane. */
static int settle(struct thread *thread, struct handle *handle, bool take,
	struct sim_server *server, struct offer *older)
{
	pthread_mutex_lock(&thread->process->lock);
	struct handle *other = other_listed(thread->process, handle);
	bool there = other && other->server == server;
	if (other) {
		read_offer(other, older);
		older->asleep = other->asleep;
		older->must_count = other->offered ? other->offered_to : older->step;
		other->offered_to = older->must_count;
		other->offered = !there;
	}
	pthread_mutex_unlock(&thread->process->lock);
	if (!other || there || SEGUE_MUTANT(no_offer_before_taking))
		return other && !take ? SEGUE_EBUSY : 0;
	if (!take)
		return SEGUE_EBUSY;
	int rc = make_offer(thread, handle, server, older);
	sim_happened[SIM_TAKEN_OFFER_REFUSED] += rc == SEGUE_EFENCED;
	if (rc)
		return rc == SEGUE_EFENCED ? 0 : rc;
	sim_check(thread->request.first == older->step, "lost", "pair %u: %llu offered, got %llu",
		handle->pair, (unsigned long long)older->step,
		(unsigned long long)thread->request.first);
	sim_happened[SIM_TAKEN_OFFER]++;
	mark_offered(thread, handle, older->token);
	rc = decline(thread, handle, server);
	sim_happened[SIM_TAKE_LOST_SERVER] += rc == SEGUE_EGONE;
	return rc;
}

/* ---- Attaching ------------------------------------------------------------------------------ */

/* The same offer once more, after it was taken: whoever makes it, it is one too many. */
static void offer_again(struct thread *thread, struct handle *handle, struct sim_server *server,
	const struct offer *offer)
{
	unsigned unanswered = handle->unanswered;

	sim_happened[SIM_OFFER_TWICE]++;
	int rc = make_offer(thread, handle, server, offer);
	sim_check(rc != 0, "offer_twice", "pair %u: the offer of step %llu is taken twice",
		handle->pair, (unsigned long long)offer->step);
	handle->unanswered = unanswered;
}

/* What a process says that has got hold of the token of an earlier lease. */
static void offer_old_token(
	struct thread *thread, const struct handle *handle, struct sim_server *server)
{
	struct sim_states states[SIM_ROWS] = {0};
	uint32_t pair = handle->pair;

	if (all.lease_token[pair][1].generation == 0)
		return;
	sim_happened[SIM_OFFER_OLD_TOKEN]++;
	struct sim_request *request = question(thread, handle, SEGUE_ATTACH_OFFER);
	memcpy(request->token, all.lease_token[pair][1].bytes, SEGUE_TOKEN_BYTES);
	request->step = all.committed[pair];
	request->generation = all.lease_token[pair][1].generation;
	request->states = states;
	int rc = ask(thread, server);
	sim_check(rc != 0, "old_token", "pair %u: an offer with an old token is taken", pair);
}

/* Takes the lane again where it was left. */
static int offer(struct thread *thread, struct handle *handle, struct sim_server *server)
{
	struct offer own;

	pthread_mutex_lock(&thread->process->lock);
	read_offer(handle, &own);
	pthread_mutex_unlock(&thread->process->lock);
	sim_check(own.step == handle->track.committed, "lost", "pair %u: word %llu, committed %llu",
		handle->pair, (unsigned long long)own.step,
		(unsigned long long)handle->track.committed);
	int rc = make_offer(thread, handle, server, &own);
	if (rc)
		return rc;
	sim_check(thread->request.first == own.step, "lost", "pair %u: %llu offered, got %llu",
		handle->pair, (unsigned long long)own.step,
		(unsigned long long)thread->request.first);
	sim_happened[SIM_OFFER_TAKEN]++;
	if (!adopt_lease(thread, handle, server))
		return decline(thread, handle, server);
	if (sim_one_in(8))
		offer_again(thread, handle, server, &own);
	return 0;
}

/*
 * Without an offer: none may be made, or it was refused because the server has taken what the lane
 * had committed, or because a grant that answered an earlier one never came. Then the lane is where
 * it was left, and nobody has had it since; or it is lost.
 */
static int resume(struct thread *thread, struct handle *handle, struct sim_server *server)
{
	const struct segue_lane_record *stored = &sim_disk.lane[handle->pair].record;
	const struct segue_track *track = &handle->track;
	bool mine = handle->server != server && stored->held &&
		    atomic_load(&track->page->generation) == track->generation;

	question(thread, handle, SEGUE_ATTACH_RESUME);
	int rc = ask_for_lease(thread, handle, server);
	sim_happened[SIM_RESUME_REFUSED] += rc == SEGUE_EFENCED;
	sim_happened[SIM_RESUMED] += rc == 0;
	sim_check(rc != SEGUE_EFENCED || thread->process->unknown ||
			  !sim_oracle_all_of(
				  handle->pair, track->generation, SEGUE_NEVER, handle->id),
		"resume_refused", "pair %u: nobody has had it since lease %llu", handle->pair,
		(unsigned long long)track->generation);
	if (rc)
		return rc;
	uint64_t got = thread->request.generation, between = got - track->generation - 1;
	mine = mine && sim_oracle_all_of(handle->pair, track->generation, got, handle->id);
	bool same = thread->request.first == track->committed && between <= handle->unanswered;
	sim_check(same || !mine, "lost", "pair %u: %llu committed, resumed at %llu", handle->pair,
		(unsigned long long)track->committed, (unsigned long long)thread->request.first);
	if (same && adopt_lease(thread, handle, server))
		return 0;
	rc = decline(thread, handle, server);
	return rc ? rc : SEGUE_EFENCED;
}

/* What the library does by itself: it never takes. */
static int recover(struct thread *thread, struct handle *handle, struct sim_server *server)
{
	int rc = SEGUE_EFENCED;

	if (handle->server != server || sim_one_in(2))
		rc = offer(thread, handle, server);
	if (rc == SEGUE_EFENCED)
		rc = resume(thread, handle, server);
	return rc;
}

static int ask_for_restore(struct thread *thread, struct handle *handle, struct sim_server *server)
{
	uint64_t restore = all.restore[handle->pair];
	struct sim_request *request = &thread->request;

	request->mode = SEGUE_ATTACH_RESTORE;
	request->restore = &all.restore_to[handle->pair];
	thread->restores = true;
	int rc = ask_for_lease(thread, handle, server);
	thread->restores = false;
	all.done[handle->pair] = false; /* it may be on disk, whatever came of it */
	announce();
	if (rc == 0)
		all.restored[handle->pair] = restore;
	return rc;
}

/* A restore over the lease that the handle has. */
static int go_back(struct thread *thread, struct handle *handle, struct sim_server *server)
{
	release_all(handle);
	struct sim_request *request = question(thread, handle, SEGUE_ATTACH_NONE);
	request->lease = handle->track.generation;
	request->deadline = sim_now() + TIMEOUT;
	int rc = ask_for_restore(thread, handle, server);
	if (rc)
		return rc;
	return adopt_lease(thread, handle, server) ? 0 : decline(thread, handle, server);
}

/* The first attach of a handle: the only one that takes. */
static int attach_first(struct thread *thread, struct handle *handle, struct sim_server *server)
{
	bool take = !sim_one_in(12);
	struct offer older = {0};

	if (sim_one_in(10))
		offer_old_token(thread, handle, server);
	int rc = settle(thread, handle, take, server, &older);
	if (rc)
		return rc;
	struct sim_request *request = question(thread, handle, SEGUE_ATTACH_CONTINUE);
	bool back = all.restore[handle->pair] != all.restored[handle->pair];
	request->take = take;
	request->deadline = sim_now() + 1 + sim_below(2 * TIMEOUT);
	rc = back ? ask_for_restore(thread, handle, server) : ask_for_lease(thread, handle, server);
	sim_happened[SIM_TAKE_LOST_SERVER] += rc == SEGUE_EGONE && request->ended_one;
	sim_happened[SIM_TAKEN_ASLEEP] += older.asleep && rc == 0 && request->ended_one;
	sim_happened[SIM_BUSY] += rc == SEGUE_EBUSY;
	if (rc)
		return rc;
	if (!back && older.generation && !older.over)
		sim_oracle_continues(handle->pair, request->generation, older.generation,
			older.must_count, thread->process->unknown);
	return adopt_lease(thread, handle, server) ? 0 : decline(thread, handle, server);
}

/* Nobody has it in hand any more; what was looked at goes with it. */
static void drop_handle(struct thread *thread, struct handle *handle)
{
	release_all(handle);
	pthread_mutex_lock(&thread->process->lock);
	all.wanted_by[handle->pair]--;
	memset(handle, 0, sizeof(*handle));
	pthread_mutex_unlock(&thread->process->lock);
	announce();
}

/* A new handle in the place of a fenced one: old arrays are still looked at. */
static void begin_anew(struct thread *thread, struct handle *handle)
{
	pthread_mutex_lock(&thread->process->lock);
	handle->listed = handle->attached = handle->broken = false;
	handle->unanswered = 0;
	forget_kept(handle, SEGUE_NEVER);
	pthread_mutex_unlock(&thread->process->lock);
}

static void attach(struct thread *thread, struct handle *handle)
{
	int rc;

	while (!all.server)
		sim_event_wait(&thread->event, SIM_NEVER);
	struct sim_server *server = all.server;
	if (handle->taken) /* while it waited */
		return;
	if (!handle->attached) {
		rc = attach_first(thread, handle, server);
		if (rc == SEGUE_EBUSY)
			drop_handle(thread, handle);
		return;
	}
	if (handle->broken) {
		rc = recover(thread, handle, server);
		if (rc == SEGUE_EFENCED && !handle->taken)
			begin_anew(thread, handle);
		return;
	}
	rc = go_back(thread, handle, server);
	if (rc == SEGUE_EBUSY)
		begin_anew(thread, handle);
	else if (rc)
		handle->broken = true;
}

/* Whether the lane is to have another batch size than its lease from here on. */
static bool wants_size(const struct handle *handle)
{
	uint32_t size;

	return sim_world_sizes(handle->pair, handle->track.committed, &size) &&
	       size != handle->size;
}

/* As segue_lane_set_batch_size(), segue_lane_renew(): a new lease, over the one that it has. */
static void renew(struct thread *thread, struct handle *handle, bool sizes)
{
	struct sim_server *server = handle->server;

	if (!server->alive) {
		handle->broken = true;
		return;
	}
	struct sim_request *request = question(thread, handle, SEGUE_ATTACH_RESUME);
	request->sizes = sizes;
	request->step = handle->track.committed;
	request->lease = handle->track.generation;
	if (sizes)
		sim_world_sizes(handle->pair, request->step, &request->batch_size);
	int rc = ask_for_lease(thread, handle, server);
	sim_happened[sizes ? SIM_SIZED_LOST : SIM_RENEWED_LOST] += rc == SEGUE_EGONE;
	if (rc) {
		handle->broken = true;
		return;
	}
	sim_happened[sizes ? SIM_SIZED : SIM_RENEWED]++;
	bool same = request->first == handle->track.committed;
	sim_check(same || !sizes, "lost", "pair %u: %llu committed, goes on at %llu", handle->pair,
		(unsigned long long)handle->track.committed, (unsigned long long)request->first);
	if (sizes)
		sim_oracle_sized(handle->pair, request->generation, request->first);
	/* Not the same: its connection was lost, and somebody else has had it. */
	if (!same || !adopt_lease(thread, handle, server))
		handle->broken |= decline(thread, handle, server) != 0 || !same;
}

/* As segue_lane_asked(). */
static bool is_asked(const struct handle *handle)
{
	return atomic_load(&handle->track.page->asks) & SEGUE_ASKS_RENEW;
}

/* Its connection is lost, and it is the first to see it. */
static void lose_connection(struct handle *handle)
{
	sim_server_lose(handle->server, handle->pair, handle->track.generation);
	handle->broken = true;
}

static void detach(struct thread *thread, struct handle *handle)
{
	uint32_t pair = handle->pair;

	release_all(handle);
	if (give_back(thread, handle, handle->server, handle->track.generation)) {
		handle->broken = true;
		return;
	}
	sim_trace("pair %u: detached", pair);
	if (sim_disk.lane[pair].record.position->step == truth_of(pair)->end_by[all.ends - 1])
		all.done[pair] = true;
	drop_handle(thread, handle);
}

/* Opens the stream with more epochs: lanes that had ended go on. */
static void grow(struct thread *thread, struct sim_server *server)
{
	struct sim_request *request = &thread->request;
	uint32_t ends = all.ends + 1;

	*request = (struct sim_request){.serial = request->serial, .kind = SIM_GROW, .ends = ends};
	thread->must_not_ask = false;
	if (ask(thread, server) || ends <= all.ends)
		return;
	sim_check(sim_disk.ends >= ends, "growth", "%u ends it says, but %u are on disk", ends,
		sim_disk.ends);
	all.ends = ends;
	all.ended = 0;
	sim_happened[SIM_GREW]++;
	for (uint32_t pair = 0; pair < sim_world.pairs; pair++) {
		sim_happened[SIM_GREW_AT_END] += all.done[pair];
		all.done[pair] = false;
	}
	announce();
}

/*
 * A checkpoint of any lane of any process: of the step it committed last, as far as we know, or of
 * one before that. It may be too early or too late for it.
 */
static void checkpoint(struct thread *thread, const struct handle *handle)
{
	struct sim_request *request = question(thread, handle, SEGUE_ATTACH_NONE);
	uint32_t pair = sim_below(sim_world.pairs);
	uint64_t committed = all.committed[pair], back = sim_below(3);

	request->kind = SIM_CHECKPOINT;
	request->pair = pair;
	request->step = committed - (back <= committed ? back : 0);
	if (ask(thread, handle->server))
		return;
	sim_check(request->image->position->step == request->step, "token",
		"pair %u: step %llu was asked for", pair, (unsigned long long)request->step);
	sim_trace("pair %u: checkpoint of step %llu", pair, (unsigned long long)request->step);
	all.token[pair] = (struct sim_token){request->image, pair, request->generation};
}

/* ---- Batches -------------------------------------------------------------------------------- */

static const uint8_t *buffer_before(const struct handle *handle, uint64_t step)
{
	return (const uint8_t *)handle->track.carry +
	       segue_carry_offset(handle->geometry, step - 1);
}

/* As compose() of the library (client/batch.c) does it, for all states of a row. */
static void compose_row(struct handle *handle, uint64_t step, const struct segue_slot *slot,
	const struct segue_slot_span *span, uint32_t previous, uint32_t row)
{
	struct sim_states states = sim_world.initial;
	bool goes_on = previous != SEGUE_NO_ROW;

	if (goes_on)
		sim_buffer_get(handle->geometry, buffer_before(handle, step), previous, &states);
	for (size_t i = 0; i < sim_world.spec.state_count; i++) {
		const struct segue_field *state = &sim_world.state[i];
		const void *from = sim_state_of(&sim_world.initial, i);
		if (goes_on && !segue_state_zeroed(&sim_world.spec, i, span))
			continue;
		if (state->from_data || span->flags & SEGUE_SPAN_KEPT)
			from = (const uint8_t *)slot + handle->geometry->initial_offset[i] +
			       row * state->size;
		memcpy(sim_state_of(&states, i), from, state->size);
	}
	handle->in[row] = states;
}

/* States in: initial, what was kept, or the previous row's. True: it is the buffer as it is. */
static bool compose(struct handle *handle, uint64_t step, const struct segue_slot *slot)
{
	const uint32_t *previous =
		(const uint32_t *)((const uint8_t *)slot + handle->geometry->previous_offset);
	const struct segue_slot_span *spans =
		(const void *)((const uint8_t *)slot + handle->geometry->span_offset);
	bool identity = true;

	for (uint32_t row = 0; row < slot->rows; row++) {
		sim_point();
		compose_row(handle, step, slot, &spans[row], previous[row], row);
		identity &= previous[row] == row;
	}
	return identity;
}

static void take(struct handle *handle)
{
	make_room(handle);
	uint64_t step = segue_track_take(&handle->track);
	handle->rung = false;
	const struct segue_slot *slot =
		(const struct segue_slot *)((const uint8_t *)handle->track.ring +
					    handle->geometry->slots_offset +
					    (step % sim_world.spec.depth) *
						    handle->geometry->slot_size);

	bool right = sim_world_slot_right(handle->geometry, slot, handle->pair, step);
	bool identity = compose(handle, step, slot);
	add_view(handle, step, slot, identity ? buffer_before(handle, step) : NULL);
	if (lease_is_over(find_view(handle, step))) {
		handle->broken = true;
		return;
	}
	sim_check(right, "content", "pair %u: batch %llu is not what the plan says", handle->pair,
		(unsigned long long)step);
	sim_oracle_delivered(handle->pair, handle->track.generation, step, handle->in);
	sim_followed_take(&handle->track, handle->pair, handle->geometry, step);
}

static void keep_ended(struct handle *handle, uint64_t step, const struct sim_states *out)
{
	const struct sim_lane_truth *truth = truth_of(handle->pair);

	for (uint32_t row = 0; row < truth->rows[step]; row++) {
		const struct segue_slot_span *span = &truth->span[step][row];
		if (!(span->flags & SEGUE_SPAN_LAST))
			continue;
		struct sim_kept *kept = calloc(1, sizeof(*kept));
		kept->step = step;
		kept->number = span->number;
		kept->states = out[row];
		kept->key_size =
			sim_world_key(segue_plan_record(&truth->plan, span->number), kept->key);
		*handle->kept_tail = kept;
		handle->kept_tail = &kept->next;
	}
}

static void write_states(struct handle *handle, uint64_t step, struct sim_states *out)
{
	uint8_t *buffer =
		(uint8_t *)handle->track.carry + segue_carry_offset(handle->geometry, step);
	uint64_t salt = sim_random();

	memset(out, 0, SIM_ROWS * sizeof(*out));
	for (uint32_t row = 0; row < truth_of(handle->pair)->rows[step]; row++) {
		for (uint32_t i = 0; i < sim_world.words; i++)
			out[row].word[i] = sim_mix(handle->in[row].word[i] ^ salt, row * 8 + i);
		sim_buffer_put(handle->geometry, buffer, row, &out[row]);
	}
	/* As segue_batch_commit() does for those that are parked. */
	for (uint32_t row = truth_of(handle->pair)->rows[step];
		row < truth_of(handle->pair)->spans[step]; row++) {
		sim_buffer_get(handle->geometry, buffer_before(handle, step),
			truth_of(handle->pair)->span[step][row].previous_row, &out[row]);
		sim_buffer_put(handle->geometry, buffer, row, &out[row]);
	}
}

/* A library looks after its connection while it sleeps. */
static void sleep_on(struct handle *handle, const _Atomic uint32_t *word, uint32_t seen)
{
	handle->asleep = true;
	sim_sleep_while(&handle->server->alive);
	segue_wait_word(word, seen, INT64_MAX);
	handle->asleep = false;
}

/* As a library at durability = commit. */
static void wait_durable(struct handle *handle, uint64_t step)
{
	struct segue_track *track = &handle->track;
	const struct segue_lease_page *page = track->page;

	/* So that the answer may come just as it goes to sleep. */
	sim_stop(sim_now() + sim_below(400));
	while (handle->server->alive) {
		/* As the library's sleep_on_page(): all pairs with segue_carry_ring (lane/carry.c) */
		uint32_t bell = segue_load_acquire(&page->bell);
		segue_store_release(&track->carry->sleeping, 1);
		segue_fence();
		/*
		 * pairs with segue_carry_set_durable (lane/carry.c), segue_carry_fence
		 * (lane/carry.c), segue_carry_storage_failed (lane/carry.c)
		 */
		bool durable = segue_load_acquire(&page->durable) >= step;
		bool over = segue_load_acquire(&page->generation) != track->generation ||
			    segue_load_acquire(&page->error);
		if (!durable && !over)
			sleep_on(handle, &page->bell, bell);
		/* pairs with segue_carry_ring (lane/carry.c) */
		segue_store_release(&track->carry->sleeping, 0);
		if (durable && !over)
			sim_oracle_acknowledged(handle->pair, track->generation, step);
		if (durable || over)
			return;
	}
}

static void commit(struct thread *thread, struct handle *handle)
{
	struct segue_track *track = &handle->track;
	uint64_t step = track->committed;
	struct sim_states out[SIM_ROWS];

	write_states(handle, step, out);
	if (sim_one_in(10)) { /* given back: it comes again */
		release(handle, find_view(handle, step));
		return;
	}
	sim_oracle_commits(handle->pair, track->generation, step, out);
	pthread_mutex_lock(&thread->process->lock);
	/* pairs with segue_carry_set_durable (lane/carry.c) */
	forget_kept(handle, segue_load_acquire(&track->page->durable));
	keep_ended(handle, step, out);
	pthread_mutex_unlock(&thread->process->lock);
	bool over = lease_is_over(find_view(handle, step));
	int rc = segue_track_commit(track);
	sim_check(
		rc || !over, "fenced", "pair %u: a commit without a lease succeeds", handle->pair);
	if (rc) {
		sim_oracle_withdrawn(handle->pair, track->generation, step);
		handle->broken = true;
		return;
	}
	all.committed[handle->pair] = step + 1;
	sim_happened[SIM_PARKED] +=
		truth_of(handle->pair)->spans[step] > truth_of(handle->pair)->rows[step];
	sim_happened[SIM_NO_ROWS] += truth_of(handle->pair)->rows[step] == 0;
	sim_happened[SIM_LATE_COMMIT] += lease_is_over(find_view(handle, step));
	sim_happened[SIM_TAKE_LATE_COMMIT] += handle->taken || handle->offered;
	sim_progress();
	if (all.waits_durable && sim_one_in(3))
		wait_durable(handle, step + 1);
}

/* ---- A step of a lane ----------------------------------------------------------------------- */

/* Nothing to do: not even what would let another lane's feed, which may be this one, go on. */
static bool is_waiting(struct handle *handle)
{
	if (handle->broken || !handle->attached || segue_track_open(&handle->track))
		return false;
	release_some(handle, 1);
	return segue_track_poll(&handle->track) == SEGUE_TRACK_WAIT;
}

static void sleep_for_batch(struct thread *thread, struct handle *handle)
{
	struct segue_track *track = &handle->track;
	uint32_t seen;

	for (unsigned i = 0; i < HANDLES; i++) {
		struct handle *other = &thread->handle[i];
		if (other->used && other != handle && !is_waiting(other))
			return;
	}
	if (!segue_track_sleep_begin(track, &seen))
		return;
	/* Half a ring may never come free while views are held: the filler takes what there is. */
	if (!handle->rung)
		ring_server(handle);
	handle->rung = true;
	sleep_on(handle, &track->ring->bell, seen);
	segue_track_sleep_end(track);
}

/* It may find room, or has found it meanwhile. */
static bool storage_may_work(const struct handle *handle)
{
	uint32_t error = atomic_load(&handle->track.page->error);

	return error == 0 || error == (uint32_t)-SEGUE_ENOSPACE;
}

static void go_on(struct thread *thread, struct handle *handle)
{
	switch (segue_track_poll(&handle->track)) {
	case SEGUE_TRACK_READY:
		take(handle);
		break;
	case SEGUE_TRACK_WAIT:
		if (!handle->server->alive)
			handle->broken = true;
		else
			sleep_for_batch(thread, handle);
		break;
	case SEGUE_TRACK_HELD:
		release_some(handle, 2);
		break;
	case SEGUE_TRACK_END:
		sim_check(handle->track.next == truth_of(handle->pair)->end_by[handle->ends - 1] &&
				  handle->track.ring->undelivered ==
					  truth_of(handle->pair)->undelivered_by[handle->ends - 1],
			"end", "pair %u: ends at %llu by %u ends", handle->pair,
			(unsigned long long)handle->track.next, handle->ends);
		sim_happened[SIM_OLD_END] += handle->ends < all.ends;
		all.ended += handle->ends >= all.ends;
		detach(thread, handle);
		break;
	case SEGUE_TRACK_ERROR:
		sim_fail("ring_error", "pair %u: %s", handle->pair, handle->track.ring->error_text);
		break;
	case SEGUE_TRACK_STORAGE: /* until somebody starts the server again */
		if (handle->server != all.server)
			handle->broken = true;
		else if (storage_may_work(handle))
			sim_stop(sim_now() + 50); /* asks again */
		else
			sim_event_wait(&thread->event, SIM_NEVER);
		break;
	case SEGUE_TRACK_FENCED:
		handle->broken = true;
		break;
	}
}

static void verify_some(struct handle *handle)
{
	for (unsigned i = 0; i < VIEWS; i++)
		if (handle->view[i].used && sim_one_in(2))
			verify(handle, &handle->view[i]);
}

static void step_lane(struct thread *thread, struct handle *handle)
{
	struct segue_track *track = &handle->track;
	bool server_gone = handle->attached && !handle->server->alive;

	verify_some(handle);
	thread->must_not_ask = handle->attached && !handle->late &&
			       track->generation < thread->process->newest[handle->pair];
	if (handle->taken) {
		sim_check(!handle->attached || handle->late || thread->must_not_ask, "taken",
			"pair %u: lease %llu is the newest, and no handle has it", handle->pair,
			(unsigned long long)track->generation);
		sim_happened[SIM_TAKEN_SEEN]++;
		drop_handle(thread, handle);
		return;
	}
	/* What is left in an old ring may be used up before the worker comes back. */
	if (server_gone && sim_one_in(8))
		handle->broken = true;
	bool restore = all.restore[handle->pair] != all.restored[handle->pair];
	if (handle->broken || !handle->attached || restore) {
		handle->broken |= server_gone;
		release_some(handle, 8);
		attach(thread, handle);
		return;
	}
	if (segue_track_open(track)) {
		commit(thread, handle);
		return;
	}
	release_some(handle, all.patience);
	bool sizes = wants_size(handle);
	if (sizes || is_asked(handle)) {
		renew(thread, handle, sizes);
		return;
	}
	if (handle->server->alive && sim_one_in(25))
		checkpoint(thread, handle);
	else if (handle->server->alive && sim_one_in(60))
		detach(thread, handle);
	else if (handle->server->alive && sim_one_in(100))
		lose_connection(handle);
	else
		go_on(thread, handle);
}

/* ---- Processes ------------------------------------------------------------------------------ */

static bool all_done(void)
{
	for (uint32_t pair = 0; pair < sim_world.pairs; pair++)
		if (!all.done[pair])
			return false;
	for (uint32_t i = 0; i < SIM_REQUESTS; i++)
		if (all.worker[i / SIM_THREADS].thread[i % SIM_THREADS].restores)
			return false;
	return all.ends == sim_world.ends.count;
}

/* At some time or other; at the latest when there is nothing else, or not much, to do. */
static bool grows_now(const struct handle *handle)
{
	bool may = all.ends < sim_world.ends.count && all.server && all.server->alive;

	return may && (!handle || sim_one_in(all.ended < 4 * sim_world.pairs ? 300 : 3));
}

static struct handle *pick_handle(struct thread *thread)
{
	unsigned start = sim_below(HANDLES);
	struct handle *slow = NULL;

	for (unsigned i = 0; i < HANDLES; i++) {
		struct handle *handle = &thread->handle[(start + i) % HANDLES];
		if (handle->used && sim_one_in(all.pace[sim_group_of(handle->pair)]))
			return handle;
		slow = handle->used ? handle : slow;
	}
	return slow;
}

/* A group may wait for its first until group 0 has gone on for a while, or is through. */
static bool is_to_do(uint32_t pair)
{
	uint32_t first = sim_lane_of(pair);
	bool begun = all.committed[first] >= all.begins[sim_group_of(pair)] || all.done[first];

	return begun && !all.done[pair];
}

static struct handle *new_handle(struct thread *thread, uint32_t pair)
{
	for (unsigned i = 0; i < HANDLES; i++) {
		struct handle *handle = &thread->handle[i];
		if (handle->used)
			continue;
		*handle = (struct handle){.used = true, .pair = pair, .id = ++all.handles};
		handle->kept_tail = &handle->kept;
		all.wanted_by[pair]++;
		return handle;
	}
	return NULL;
}

/* Takes on a lane: one that nobody has, or any. */
static struct handle *adopt(struct thread *thread, bool any)
{
	unsigned start = sim_below(sim_world.pairs);

	for (unsigned i = 0; i < sim_world.pairs; i++) {
		uint32_t pair = (start + i) % sim_world.pairs;
		if ((any || !all.wanted_by[pair]) && is_to_do(pair))
			return new_handle(thread, pair);
	}
	return NULL;
}

/*
 * One more handle of a lane that somebody has: of the process itself, most likely when its server
 * is gone; or of another one.
 */
static struct handle *compete(struct thread *thread)
{
	const struct thread *of = &thread->process->thread[sim_below(thread->process->threads)];
	const struct handle *handle = &of->handle[sim_below(HANDLES)];
	bool lost = handle->used && handle->attached && !handle->server->alive;

	if (handle->used && !handle->taken && sim_one_in(lost ? 12 : 60))
		return new_handle(thread, handle->pair);
	uint32_t pair = sim_below(sim_world.pairs);
	return is_to_do(pair) && sim_one_in(300) ? new_handle(thread, pair) : NULL;
}

/* With nothing else to do it asks for what others have: it may be reserved for its own process. */
static void idle(struct thread *thread)
{
	sim_event_wait(&thread->event, sim_now() + 1 + sim_below(TIMEOUT));
	if (sim_one_in(2))
		adopt(thread, true);
}

static void run_thread(void *arg)
{
	struct thread *thread = arg;

	while (!all_done()) {
		struct handle *handle = compete(thread);
		if (!handle)
			handle = pick_handle(thread);
		if (!handle || sim_one_in(20)) {
			struct handle *adopted = adopt(thread, false);
			handle = adopted ? adopted : handle;
		}
		if (grows_now(handle))
			grow(thread, all.server);
		else if (handle)
			step_lane(thread, handle);
		else
			idle(thread);
	}
	sim_oracle_end();
	sim_finish();
}

void sim_workers_begin(void)
{
	static const uint32_t patience[] = {1, 2, 4, 16};

	memset(&all, 0, sizeof(all));
	sim_followers_begin();
	all.ends = 1;
	all.patience = patience[sim_below(sizeof(patience) / sizeof(patience[0]))];
	for (uint32_t group = 0; group < sim_world.groups; group++) {
		all.pace[group] = sim_one_in(3) ? 2 + sim_below(8) : 1;
		if (group > 0 && sim_one_in(4))
			all.begins[group] = sim_below(16);
	}
	all.waits_durable = sim_one_in(3);
	all.some_unknown = sim_one_in(5);
}

void sim_worker_start(uint32_t i)
{
	static const char *const names[] = {"worker-0", "worker-1", "worker-2", "worker-3"};
	struct worker *worker = &all.worker[i];
	uint64_t serial[SIM_THREADS];

	for (unsigned k = 0; k < SIM_THREADS; k++)
		serial[k] = worker->thread[k].request.serial + 1;
	*worker = (struct worker){.alive = true,
		.pid = ++all.pids,
		.unknown = all.some_unknown && sim_one_in(2),
		.threads = sim_one_in(3) ? SIM_THREADS : 1};
	for (unsigned k = 0; k < SIM_THREADS; k++) {
		worker->thread[k].process = worker;
		worker->thread[k].request.serial = serial[k];
	}
	for (unsigned k = 0; k < worker->threads; k++)
		sim_spawn(names[i], (int)worker->pid, run_thread, &worker->thread[k]);
}

void sim_worker_died(uint32_t i)
{
	struct worker *worker = &all.worker[i];

	worker->alive = false;
	for (unsigned k = 0; k < SIM_THREADS; k++) {
		struct thread *thread = &worker->thread[k];
		thread->request.pending = thread->request.granting = false;
		if (thread->restores)
			all.done[thread->request.pair] = false;
		thread->restores = false;
		for (unsigned h = 0; h < HANDLES; h++)
			if (thread->handle[h].used)
				all.wanted_by[thread->handle[h].pair]--;
	}
	announce();
	if (all.server)
		sim_event_set(&all.server->control);
}

void sim_workers_see(struct sim_server *server)
{
	all.server = server;
	announce();
}

int sim_worker_of(int process)
{
	for (int i = 0; i < SIM_WORKERS; i++)
		if (all.worker[i].alive && all.worker[i].pid == process)
			return i;
	return -1;
}

/* Which checkpoint a pair goes back to; it may be of group `from`. */
static void choose_checkpoint(uint32_t pair, uint32_t from)
{
	uint32_t other = from * SIM_LANES + sim_lane_of(pair);

	all.restore_to[pair] = all.token[pair];
	if (other != pair && all.token[other].image && sim_world_alike(pair, other)) {
		all.restore_to[pair] = all.token[other];
		sim_happened[SIM_RESTORE_OTHER]++;
	} else if (all.older[pair].image && sim_one_in(2)) {
		all.restore_to[pair] = all.older[pair];
		sim_happened[SIM_RESTORE_OLDER]++;
	}
	if (!all.older[pair].image || sim_one_in(2))
		all.older[pair] = all.token[pair];
}

void sim_restore_group(uint32_t group)
{
	uint32_t from = group;

	/* Where rows begin with what was kept, a checkpoint does not leave its group. */
	if (sim_one_in(3) && sim_world.spec.initial != SEGUE_INITIAL_KEPT)
		from = sim_below(sim_world.groups);
	for (uint32_t lane = 0; lane < SIM_LANES; lane++) {
		uint32_t pair = group * SIM_LANES + lane;
		all.restore[pair]++;
		choose_checkpoint(pair, from);
		const struct segue_image *image = all.restore_to[pair].image;
		sim_trace("pair %u is to go back to step %llu", pair,
			(unsigned long long)(image ? image->position->step : 0));
		all.done[pair] = false;
	}
	announce();
}

bool sim_process_alive(int64_t pid)
{
	return sim_worker_of((int)pid) >= 0;
}

int64_t sim_pid_of(uint32_t worker)
{
	return all.worker[worker].pid;
}

struct sim_request *sim_request_of(uint32_t i)
{
	return &all.worker[i / SIM_THREADS].thread[i % SIM_THREADS].request;
}

int64_t sim_process_asking(uint32_t i)
{
	return all.worker[i / SIM_THREADS].pid;
}

struct segue_holder sim_holder_asking(uint32_t i)
{
	const struct worker *worker = &all.worker[i / SIM_THREADS];

	if (worker->unknown)
		return (struct segue_holder){0};
	return (struct segue_holder){
		.pid = worker->pid, .start_time = (uint64_t)worker->pid, .pid_namespace = 1};
}
