/* The worker processes of a run. */
#include "worker.h"

#include <stdio.h>
#include <string.h>

#include "core/barrier.h"
#include "lane/carry.h"
#include "lane/image.h"
#include "disk.h"
#include "core/error.h"
#include "oracle.h"
#include "core/track.h"
#include "core/wait.h"

#define VIEWS 12

/* What user code still looks at: a slot, and perhaps a buffer of the carry. */
struct view {
	bool used;
	uint64_t step;
	const struct segue_lease_page *page; /* of the lease that it came with */
	uint64_t generation;
	const uint8_t *slot, *buffer; /* buffer NULL: states in were a private copy */
	uint8_t *slot_was, *buffer_was;
};

/* A lane of one group in the hands of a process. */
struct handle {
	bool used, attached, broken; /* broken: fenced, or its server is gone */
	uint32_t pair;
	struct sim_server *server; /* that granted the lease */
	struct segue_track track;
	uint8_t token[SEGUE_TOKEN_BYTES];
	bool has_token;
	bool rung; /* the server has been rung since a batch came or went */
	struct sim_kept *kept, **kept_tail;
	struct sim_states in[SIM_ROWS]; /* of the open batch */
	struct view view[VIEWS];
};

struct worker {
	bool alive;
	int64_t pid;
	struct sim_request request;
	struct sim_event event; /* its socket, and all else that a process waits for */
	struct handle handle[SIM_PAIRS];
};

static struct {
	struct worker worker[SIM_WORKERS];
	int64_t pids;
	struct sim_server *server; /* NULL: down */
	bool owned[SIM_PAIRS], done[SIM_PAIRS];
	uint64_t restore[SIM_PAIRS], restored[SIM_PAIRS];     /* asked for, done */
	uint64_t committed[SIM_PAIRS];                        /* by whoever has it, the last time */
	struct sim_token token[SIM_PAIRS];                    /* newest checkpoint */
	struct sim_token older[SIM_PAIRS];                    /* one from before the last restore */
	uint8_t lease_token[SIM_PAIRS][2][SEGUE_TOKEN_BYTES]; /* of the last lease; of one before */
	struct sim_token restore_to[SIM_PAIRS];
	uint32_t patience; /* views are kept for about so many steps */
	bool waits_durable;
} all;

/* Server or pool of lanes changed. */
static void announce(void)
{
	for (unsigned i = 0; i < SIM_WORKERS; i++)
		sim_event_set(&all.worker[i].event);
}

static struct sim_lane_truth *truth_of(uint32_t pair)
{
	return &sim_world.lane[pair / SIM_GROUPS];
}

/* ---- Views ---------------------------------------------------------------------------------- */

static size_t slot_size(void)
{
	return sim_world.geometry.heap_offset + sim_world.geometry.heap_size;
}

static size_t buffer_size(void)
{
	return sim_world.geometry.state_offset[1] +
	       sim_world.geometry.batch_size * sim_world.state[1].size;
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
	sim_check(lease_is_over(view) || memcmp(view->slot, view->slot_was, slot_size()) == 0,
		"view", "pair %u: the slot of batch %llu changed under a live view", handle->pair,
		(unsigned long long)view->step);
	sim_check(!view->buffer || memcmp(view->buffer, view->buffer_was, buffer_size()) == 0,
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
		.slot_was = copy_of(slot, slot_size()),
		.buffer_was = buffer ? copy_of(buffer, buffer_size()) : NULL,
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
static int ask(struct worker *worker, struct sim_server *server)
{
	struct sim_request *request = &worker->request;

	if (!server->alive)
		return SEGUE_EGONE;
	request->event = &worker->event;
	request->serial++;
	request->granting = false;
	request->rc = 0;
	request->pending = true;
	sim_event_ring(&server->control);
	while (request->pending)
		sim_event_wait(&worker->event, SIM_NEVER);
	return request->rc;
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

static void take_over(struct worker *worker, struct handle *handle, struct sim_server *server)
{
	const struct sim_request *request = &worker->request;

	segue_track_init(&handle->track, request->ring, request->carry, request->page,
		sim_world.spec.depth, request->generation, request->first);
	memcpy(all.lease_token[handle->pair][1], all.lease_token[handle->pair][0],
		SEGUE_TOKEN_BYTES);
	memcpy(all.lease_token[handle->pair][0], request->fresh, SEGUE_TOKEN_BYTES);
	memcpy(handle->token, request->fresh, SEGUE_TOKEN_BYTES);
	handle->has_token = true;
	handle->attached = true;
	handle->broken = handle->rung = false;
	handle->server = server;
	sim_trace("pair %u: attached, generation %llu, step %llu", handle->pair,
		(unsigned long long)request->generation, (unsigned long long)request->first);
}

/* Offers what was committed last to a server that does not know of it. */
static int offer(struct worker *worker, struct handle *handle, struct sim_server *server)
{
	struct sim_states states[SIM_ROWS];
	uint64_t step = handle->track.committed;
	const uint8_t *carry = (const uint8_t *)handle->track.carry;

	if (step > 0)
		for (uint32_t row = 0; row < truth_of(handle->pair)->rows[step - 1]; row++)
			sim_buffer_get(carry + segue_carry_offset(&sim_world.geometry, step - 1),
				row, &states[row]);
	worker->request.mode = SEGUE_ATTACH_OFFER;
	memcpy(worker->request.token, handle->token, SEGUE_TOKEN_BYTES);
	worker->request.step = step;
	worker->request.generation = handle->track.generation;
	worker->request.states = states;
	worker->request.kept = handle->kept;
	return ask(worker, server);
}

static void check_offered(const struct worker *worker, const struct handle *handle)
{
	sim_check(worker->request.first == handle->track.committed, "lost",
		"pair %u: %llu committed, resumed at %llu", handle->pair,
		(unsigned long long)handle->track.committed,
		(unsigned long long)worker->request.first);
}

/* The same offer once more, after it was taken: whoever makes it, it is one too many. */
static void offer_again(struct worker *worker, struct handle *handle, struct sim_server *server,
	const uint8_t *token)
{
	sim_happened[SIM_OFFER_TWICE]++;
	memcpy(worker->request.token, token, SEGUE_TOKEN_BYTES);
	worker->request.probe = true;
	int rc = ask(worker, server);
	worker->request.probe = false;
	sim_check(rc != 0, "offer_twice", "pair %u: the offer of step %llu is taken twice",
		handle->pair, (unsigned long long)worker->request.step);
	handle->broken = true; /* asking has ended the lease */
}

/* What a process says that has got hold of the token of an earlier lease. */
static void offer_old_token(struct worker *worker, uint32_t pair, struct sim_server *server)
{
	static const uint8_t none[SEGUE_TOKEN_BYTES];
	struct sim_states states[SIM_ROWS] = {0};
	struct sim_request *request = &worker->request;

	if (memcmp(all.lease_token[pair][1], none, SEGUE_TOKEN_BYTES) == 0)
		return;
	sim_happened[SIM_OFFER_OLD_TOKEN]++;
	request->mode = SEGUE_ATTACH_OFFER;
	memcpy(request->token, all.lease_token[pair][1], SEGUE_TOKEN_BYTES);
	request->step = all.committed[pair];
	request->states = states;
	request->kept = NULL;
	request->probe = true;
	int rc = ask(worker, server);
	request->probe = false;
	sim_check(rc != 0, "old_token", "pair %u: an offer with an old token is taken", pair);
}

/*
 * Resumes without an offer: none may be made, or it was refused because a grant that answered an
 * earlier one never came. Then what was offered is on disk.
 */
static int resume(struct worker *worker, struct handle *handle, struct sim_server *server)
{
	const struct segue_lane_record *stored = &sim_disk.lane[handle->pair].record;
	const struct segue_track *track = &handle->track;
	bool mine = handle->has_token && handle->server != server && stored->held &&
		    stored->holder.pid == worker->pid &&
		    atomic_load(&track->page->generation) == track->generation;

	handle->has_token = false;
	worker->request.mode = SEGUE_ATTACH_RESUME;
	int rc = ask(worker, server);
	if (rc == 0 && mine)
		check_offered(worker, handle);
	return rc;
}

static int go_back(struct worker *worker, struct handle *handle, struct sim_server *server)
{
	uint64_t restore = all.restore[handle->pair];

	release_all(handle);
	worker->request.mode = SEGUE_ATTACH_RESTORE;
	worker->request.restore = &all.restore_to[handle->pair];
	int rc = ask(worker, server);
	if (rc == 0)
		all.restored[handle->pair] = restore;
	return rc;
}

static int attach_once(struct worker *worker, struct handle *handle)
{
	int rc = SEGUE_EFENCED;
	bool offered = false;

	while (!all.server)
		sim_event_wait(&worker->event, SIM_NEVER);
	struct sim_server *server = all.server;
	worker->request.kind = SIM_ATTACH;
	worker->request.pair = handle->pair;
	if (all.restore[handle->pair] != all.restored[handle->pair]) {
		rc = go_back(worker, handle, server);
	} else {
		/* A server that ended the lease itself refuses. */
		if (!handle->has_token && sim_one_in(10))
			offer_old_token(worker, handle->pair, server);
		if (handle->has_token && (handle->server != server || sim_one_in(4))) {
			rc = offer(worker, handle, server);
			if (rc == 0)
				check_offered(worker, handle);
			offered = rc == 0;
		}
		if (rc == SEGUE_EFENCED)
			rc = resume(worker, handle, server);
	}
	if (rc == 0) {
		uint8_t token[SEGUE_TOKEN_BYTES];
		memcpy(token, handle->token, SEGUE_TOKEN_BYTES);
		forget_kept(handle, SEGUE_NEVER);
		take_over(worker, handle, server);
		sim_happened[SIM_OFFER_TAKEN] += offered;
		if (offered && sim_one_in(8)) {
			worker->request.kept = NULL;
			offer_again(worker, handle, server, token);
		}
	}
	return rc;
}

static void detach(struct worker *worker, struct handle *handle)
{
	uint32_t pair = handle->pair;

	release_all(handle);
	worker->request.kind = SIM_DETACH;
	worker->request.pair = pair;
	if (ask(worker, handle->server)) {
		handle->broken = true;
		return;
	}
	sim_trace("pair %u: detached", pair);
	if (sim_disk.lane[pair].record.position->step == truth_of(pair)->end)
		all.done[pair] = true;
	memset(handle, 0, sizeof(*handle));
	all.owned[pair] = false;
	announce();
}

/*
 * A checkpoint of any lane of any process: of the step it committed last, as far as we know, or of
 * one before that. It may be too early or too late for it.
 */
static void checkpoint(struct worker *worker, struct sim_server *server)
{
	struct sim_request *request = &worker->request;
	uint32_t pair = sim_below(SIM_PAIRS);
	uint64_t committed = all.committed[pair], back = sim_below(3);

	request->kind = SIM_CHECKPOINT;
	request->pair = pair;
	request->step = committed - (back <= committed ? back : 0);
	if (ask(worker, server))
		return;
	sim_check(request->image->position->step == request->step, "token",
		"pair %u: step %llu was asked for", pair, (unsigned long long)request->step);
	sim_trace("pair %u: checkpoint of step %llu", pair, (unsigned long long)request->step);
	all.token[pair] = (struct sim_token){request->image, request->generation};
}

/* ---- Batches -------------------------------------------------------------------------------- */

static const uint8_t *buffer_before(const struct handle *handle, uint64_t step)
{
	return (const uint8_t *)handle->track.carry +
	       segue_carry_offset(&sim_world.geometry, step - 1);
}

/* States in: initial, or the previous row of the buffer before. True: it is the buffer as it is. */
static bool compose(struct handle *handle, uint64_t step, const struct segue_slot *slot)
{
	const uint32_t *previous =
		(const uint32_t *)((const uint8_t *)slot + sim_world.geometry.previous_offset);
	bool identity = true;

	for (uint32_t row = 0; row < slot->rows; row++) {
		sim_point();
		handle->in[row] = sim_world.initial;
		if (previous[row] != SEGUE_NO_ROW)
			sim_buffer_get(
				buffer_before(handle, step), previous[row], &handle->in[row]);
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
					    sim_world.geometry.slots_offset +
					    (step % sim_world.spec.depth) *
						    sim_world.geometry.slot_size);

	bool right = sim_world_slot_right(slot, handle->pair / SIM_GROUPS, step);
	bool identity = compose(handle, step, slot);
	add_view(handle, step, slot, identity ? buffer_before(handle, step) : NULL);
	if (lease_is_over(find_view(handle, step))) {
		handle->broken = true;
		return;
	}
	sim_check(right, "content", "pair %u: batch %llu is not what the plan says", handle->pair,
		(unsigned long long)step);
	sim_oracle_delivered(handle->pair, handle->track.generation, step, handle->in);
}

static void keep_ended(struct handle *handle, uint64_t step, const struct sim_states *out)
{
	const struct sim_lane_truth *truth = truth_of(handle->pair);

	for (uint32_t row = 0; row < truth->rows[step]; row++) {
		const struct segue_span *span = &truth->span[step][row];
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
		(uint8_t *)handle->track.carry + segue_carry_offset(&sim_world.geometry, step);
	uint64_t salt = sim_random();

	memset(out, 0, SIM_ROWS * sizeof(*out));
	for (uint32_t row = 0; row < truth_of(handle->pair)->rows[step]; row++) {
		for (uint32_t i = 0; i < sim_world.words; i++)
			out[row].word[i] = sim_mix(handle->in[row].word[i] ^ salt, row * 8 + i);
		sim_buffer_put(buffer, row, &out[row]);
	}
}

/* A library looks after its connection while it sleeps. */
static void sleep_on(struct handle *handle, const _Atomic uint32_t *word, uint32_t seen)
{
	sim_sleep_while(&handle->server->alive);
	segue_wait_word(word, seen, INT64_MAX);
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

static void commit(struct handle *handle)
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
	sim_happened[SIM_LATE_COMMIT] += lease_is_over(find_view(handle, step));
	keep_ended(handle, step, out);
	/* pairs with segue_carry_set_durable (lane/carry.c) */
	forget_kept(handle, segue_load_acquire(&track->page->durable));
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

static void sleep_for_batch(struct worker *worker, struct handle *handle)
{
	struct segue_track *track = &handle->track;
	uint32_t seen;

	for (unsigned i = 0; i < SIM_PAIRS; i++) {
		struct handle *other = &worker->handle[i];
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

static void go_on(struct worker *worker, struct handle *handle)
{
	switch (segue_track_poll(&handle->track)) {
	case SEGUE_TRACK_READY:
		take(handle);
		break;
	case SEGUE_TRACK_WAIT:
		if (!handle->server->alive)
			handle->broken = true;
		else
			sleep_for_batch(worker, handle);
		break;
	case SEGUE_TRACK_HELD:
		release_some(handle, 2);
		break;
	case SEGUE_TRACK_END:
		sim_check(handle->track.next == truth_of(handle->pair)->end &&
				  handle->track.ring->undelivered ==
					  truth_of(handle->pair)->undelivered,
			"end", "pair %u: ends at %llu", handle->pair,
			(unsigned long long)handle->track.next);
		detach(worker, handle);
		break;
	case SEGUE_TRACK_ERROR:
		sim_fail("ring_error", "pair %u: %s", handle->pair, handle->track.ring->error_text);
		break;
	case SEGUE_TRACK_STORAGE: /* until somebody starts the server again */
		if (handle->server != all.server)
			handle->broken = true;
		else if (atomic_load(&handle->track.page->error) == (uint32_t)-SEGUE_ENOSPACE)
			sim_stop(sim_now() + 50); /* it may yet find room: asks again */
		else
			sim_event_wait(&worker->event, SIM_NEVER);
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

static void step_lane(struct worker *worker, struct handle *handle)
{
	struct segue_track *track = &handle->track;
	bool server_gone = handle->attached && !handle->server->alive;

	verify_some(handle);
	if (all.restore[handle->pair] != all.restored[handle->pair])
		handle->broken = true;
	/* What is left in an old ring may be used up before the worker comes back. */
	if (server_gone && sim_one_in(8))
		handle->broken = true;
	if (handle->broken || !handle->attached) {
		release_some(handle, 8);
		attach_once(worker, handle);
		return;
	}
	if (segue_track_open(track)) {
		commit(handle);
		return;
	}
	release_some(handle, all.patience);
	if (handle->server->alive && sim_one_in(25))
		checkpoint(worker, handle->server);
	else if (handle->server->alive && sim_one_in(60))
		detach(worker, handle);
	else
		go_on(worker, handle);
}

/* ---- Processes ------------------------------------------------------------------------------ */

static bool all_done(void)
{
	for (uint32_t pair = 0; pair < SIM_PAIRS; pair++)
		if (!all.done[pair])
			return false;
	return true;
}

static struct handle *pick_handle(struct worker *worker)
{
	unsigned start = sim_below(SIM_PAIRS);

	for (unsigned i = 0; i < SIM_PAIRS; i++) {
		struct handle *handle = &worker->handle[(start + i) % SIM_PAIRS];
		if (handle->used)
			return handle;
	}
	return NULL;
}

/* Takes on a lane that nobody has. */
static struct handle *adopt(struct worker *worker)
{
	unsigned start = sim_below(SIM_PAIRS);

	for (unsigned i = 0; i < SIM_PAIRS; i++) {
		uint32_t pair = (start + i) % SIM_PAIRS;
		if (all.owned[pair] || all.done[pair])
			continue;
		struct handle *handle = worker->handle;
		while (handle->used)
			handle++;
		*handle = (struct handle){.used = true, .pair = pair};
		handle->kept_tail = &handle->kept;
		all.owned[pair] = true;
		return handle;
	}
	return NULL;
}

static void run_worker(void *arg)
{
	struct worker *worker = arg;

	while (!all_done()) {
		struct handle *handle = pick_handle(worker);
		if (!handle || sim_one_in(20)) {
			struct handle *adopted = adopt(worker);
			handle = adopted ? adopted : handle;
		}
		if (handle)
			step_lane(worker, handle);
		else
			sim_event_wait(&worker->event, SIM_NEVER);
	}
	sim_oracle_end();
	sim_finish();
}

void sim_workers_begin(void)
{
	static const uint32_t patience[] = {1, 2, 4, 16};

	memset(&all, 0, sizeof(all));
	all.patience = patience[sim_below(sizeof(patience) / sizeof(patience[0]))];
	all.waits_durable = sim_one_in(3);
}

void sim_worker_start(uint32_t i)
{
	static const char *const names[] = {"worker-0", "worker-1", "worker-2", "worker-3"};
	struct worker *worker = &all.worker[i];
	uint64_t serial = worker->request.serial + 1;

	*worker = (struct worker){.alive = true, .pid = ++all.pids};
	worker->request.serial = serial;
	sim_spawn(names[i], (int)worker->pid, run_worker, worker);
}

void sim_worker_died(uint32_t i)
{
	struct worker *worker = &all.worker[i];

	worker->alive = false;
	worker->request.pending = worker->request.granting = false;
	for (unsigned k = 0; k < SIM_PAIRS; k++)
		if (worker->handle[k].used)
			all.owned[worker->handle[k].pair] = false;
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

void sim_restore_group(uint32_t group)
{
	for (uint32_t lane = 0; lane < SIM_LANES; lane++) {
		uint32_t pair = lane * SIM_GROUPS + group;
		sim_trace("pair %u is to go back to step %llu", pair,
			(unsigned long long)(all.token[pair].image
						     ? all.token[pair].image->position->step
						     : 0));
		all.restore[pair]++;
		all.restore_to[pair] = all.token[pair];
		if (all.older[pair].image && sim_one_in(2)) {
			all.restore_to[pair] = all.older[pair];
			sim_happened[SIM_RESTORE_OLDER]++;
		}
		if (!all.older[pair].image || sim_one_in(2))
			all.older[pair] = all.token[pair];
		all.done[pair] = false;
	}
	announce();
}

bool sim_process_alive(int64_t pid)
{
	return sim_worker_of((int)pid) >= 0;
}

struct sim_request *sim_request_of(uint32_t worker)
{
	return &all.worker[worker].request;
}

int64_t sim_pid_of(uint32_t worker)
{
	return all.worker[worker].pid;
}
