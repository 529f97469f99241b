/* Checkpoints: taken by a loader thread, stored by the committer, sent. */
#include "stream/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/wait.h"
#include "engine/committer.h"
#include "engine/input.h"
#include "engine/snapshot.h"
#include "session/request.h"
#include "store/checkpoints.h"
#include "store/lanes.h"
#include "store/token.h"
#include "stream/drop.h"
#include "stream/opening.h"
#include "stream/release.h"

enum { LOOK_AGAIN_MS = 5, DEFAULT_TIMEOUT_S = 30 };

/* For a worker of this lane that has not come yet, or has just gone and comes back. */
#define UNHELD_NS      INT64_C(2000000000)
#define HOLDER_LOOK_NS INT64_C(100000000) /* a look at a process is dear */

struct segue_checkpoint {
	struct segue_request request; /* its task reads the lane */
	LIST_ENTRY(segue_checkpoint) link;
	struct segue_opening *opening; /* used */
	struct segue_ledger *ledger;
	uint64_t asked;
	uint64_t step;  /* of the token: below `asked` where the lane has ended */
	uint64_t needs; /* number of the stream; of one that reads a log */
	struct segue_plan_spec plan;
	/* So many ends of its input its holder knows; or, if it has none, the client who asks. */
	uint32_t ends;
	bool ended; /* the lane has, at that step, by those ends */
	int64_t deadline, again_at;
	int64_t unheld_ns; /* since when nobody has the lane, or asks for it; 0: somebody does */
	int64_t looked_ns; /* at the process of a reservation */
	bool running;      /* on a loader thread, or the committer's; else it waits for its step */
	bool in_force;     /* reads the grant, which is pinned; else the store, */
	uint64_t generation; /* where the lane's record has this one */
	uint64_t origin;     /* of the step */
	struct segue_pin pin;
	struct segue_change change;
	void *token;
	size_t size;
};

/*
 * The same bytes for the same step, whether a lease or the store is read: ended rows have no
 * states.
 */
static void clear_ended(struct segue_image *image)
{
	for (uint32_t row = 0, i = 0; row < segue_position_count(image->position); row++) {
		if (i < image->live_count && image->live[i] == row)
			i++;
		else
			memset(image->states + row * image->row_size, 0, image->row_size);
	}
}

static int encode(const struct segue_checkpoint *checkpoint, struct segue_image *image,
	void **token, size_t *size)
{
	const struct segue_stream *stream = checkpoint->ledger->stream;
	const struct segue_spec *spec = stream->spec;
	struct segue_token_record head = {
		.fingerprint = {stream->fingerprint[0], stream->fingerprint[1]},
		.lanes = spec->lanes,
		.lane = checkpoint->ledger->place.lane,
		.batch_size = spec->batch_size,
		.origin = checkpoint->origin,
	};

	int rc = stream->live ? segue_live_hash(stream->live, &checkpoint->plan, image->position,
					head.log_hash)
			      : 0;
	if (rc)
		return rc;
	strncpy(head.stream, spec->name, sizeof(head.stream) - 1);
	segue_spec_hash(spec, head.spec_hash);
	head.ends = checkpoint->plan.ends;
	head.ends.count = segue_ends_until(&head.ends, image->position->epoch);
	clear_ended(image);
	return segue_token_encode(&head, image, token, size);
}

/* Whether what ended before the step is on disk with it, and the lane is where it was read. */
static bool still_holds(struct segue_checkpoint *checkpoint)
{
	const struct segue_ledger *ledger = checkpoint->ledger;
	const struct segue_server *server = ledger->stream->server;
	struct segue_lane_record record;

	if (checkpoint->in_force)
		return segue_committer_covers(server->committer, ledger->grant, checkpoint->step);
	if (segue_lanes_load(server->store, ledger->place, &record))
		return false;
	bool same = record.generation == checkpoint->generation &&
		    record.position->step == checkpoint->step;
	free(record.position);
	return same;
}

static int fail_changed(const struct segue_checkpoint *checkpoint)
{
	return segue_fail(SEGUE_ETIMEOUT,
		"lane %u changed hands while its checkpoint was taken: take it again",
		checkpoint->ledger->place.lane);
}

static bool is_over(
	const struct segue_checkpoint *checkpoint, const struct segue_position *position)
{
	const struct segue_stream *stream = checkpoint->ledger->stream;
	struct segue_plan_spec plan = checkpoint->plan;
	struct segue_input input = {stream->source, stream->spec, &plan, 0, 0};

	plan.ends.count = checkpoint->ends;
	return segue_input_is_over(&input, position);
}

/* The lane as its holder has it. Whether it ends there the filler knows, if it is ahead. */
static int from_grant(struct segue_checkpoint *checkpoint, struct segue_image **image)
{
	struct segue_grant *grant = checkpoint->ledger->grant;
	struct segue_filler *filler = grant->filler;
	uint64_t committed;

	int rc = segue_snapshot(filler, &grant->carry, checkpoint->asked, &committed, image);
	if (rc)
		return rc;
	uint64_t step = (*image)->position->step;
	checkpoint->origin = segue_grant_origin(grant, step);
	pthread_mutex_lock(&filler->lock);
	bool ended = filler->feed.ended && filler->feed.published == step;
	bool goes_on = filler->feed.published > step;
	pthread_mutex_unlock(&filler->lock);
	checkpoint->ended = ended || (!goes_on && is_over(checkpoint, (*image)->position));
	return 0;
}

/* The lane as the store has it: nobody holds it. */
static int from_store(struct segue_checkpoint *checkpoint, struct segue_image **image)
{
	const struct segue_ledger *ledger = checkpoint->ledger;
	const struct segue_stream *stream = ledger->stream;
	struct segue_lane_record record;

	int rc = segue_lanes_load(stream->server->store, ledger->place, &record);
	if (rc)
		return rc == SEGUE_ENOTFOUND ? segue_fail(SEGUE_ETIMEOUT,
						       "lane %u was never begun, and a checkpoint "
						       "of its step %" PRIu64 " is asked for",
						       ledger->place.lane, checkpoint->asked)
					     : rc;
	uint64_t step = record.position->step, asked = checkpoint->asked;
	checkpoint->ended = is_over(checkpoint, record.position);
	if (step > asked || (step < asked && !checkpoint->ended))
		rc = segue_fail(step < asked ? SEGUE_ETIMEOUT : SEGUE_ELIMIT,
			"lane %u stands at step %" PRIu64
			" and nobody holds it; a checkpoint of step %" PRIu64 " is asked for%s",
			ledger->place.lane, step, asked,
			step < asked ? "" : " (take checkpoints of all lanes inside rounds())");
	else
		rc = segue_lanes_load_image(stream->server->store, ledger->place, &checkpoint->plan,
			record.position, segue_row_size(stream->spec), image);
	checkpoint->generation = record.generation;
	checkpoint->origin = record.origin;
	checkpoint->step = step;
	free(record.position);
	/* Its record and its rows are read one after the other. */
	if (rc == SEGUE_ESTORE && !still_holds(checkpoint))
		return fail_changed(checkpoint);
	return rc;
}

/* On the committer's thread. */
static int add_checkpoint(void *arg, struct segue_ops *ops)
{
	struct segue_checkpoint *checkpoint = arg;
	const struct segue_ledger *ledger = checkpoint->ledger;
	char text[SEGUE_ERROR_TEXT];

	if (!still_holds(checkpoint)) {
		int code = checkpoint->in_force ? segue_grant_failure(ledger->grant, text) : 0;
		return code ? segue_fail(code, "lane %u: %s", ledger->place.lane, text)
			    : fail_changed(checkpoint);
	}
	const struct segue_catalogue_entry entry = {.step = checkpoint->step,
		.size = checkpoint->size,
		.created_ms = segue_unix_ms(),
		.needs = checkpoint->needs};
	return segue_checkpoints_put(ops, ledger->stream->server->store, ledger->place, &entry,
		checkpoint->ended ? checkpoint->ends : 0, checkpoint->token,
		checkpoint->opening->spec->keep_checkpoints);
}

/* ---- Run ---- */

/* On a loader thread. */
static int take(struct segue_task *task)
{
	struct segue_checkpoint *checkpoint = (struct segue_checkpoint *)task;
	struct segue_image *image = NULL;

	int rc = checkpoint->in_force ? from_grant(checkpoint, &image)
				      : from_store(checkpoint, &image);
	/* What a token refers to must be there, whatever comes. */
	if (!rc && checkpoint->ledger->stream->live)
		rc = segue_live_await(
			checkpoint->ledger->stream->live, &checkpoint->plan, image->position);
	if (!rc) {
		checkpoint->step = image->position->step;
		if (checkpoint->ledger->stream->live)
			checkpoint->needs = segue_backlog_needs(&checkpoint->plan, image->position);
		rc = encode(checkpoint, image, &checkpoint->token, &checkpoint->size);
	}
	segue_image_destroy(image);
	return rc;
}

static void drop(struct segue_checkpoint *checkpoint)
{
	LIST_REMOVE(checkpoint, link);
	checkpoint->ledger->checkpoints--;
	checkpoint->opening->uses--;
	segue_committer_unpin(checkpoint->ledger->stream->server->committer, &checkpoint->pin);
	segue_request_end(&checkpoint->request);
	free(checkpoint->token);
	free(checkpoint);
}

/* Whether somebody may yet take the lane to the step: who has it, comes back to it, asks for it. */
static bool may_come(struct segue_checkpoint *checkpoint, int64_t now)
{
	struct segue_ledger *ledger = checkpoint->ledger;
	struct segue_lease *lease = &ledger->lease;

	if (lease->state == SEGUE_LEASE_RESERVED && now - checkpoint->looked_ns >= HOLDER_LOOK_NS) {
		checkpoint->looked_ns = now;
		segue_lease_expire(lease, segue_process_presence(&lease->holder), now);
	}
	bool unheld = lease->state == SEGUE_LEASE_FREE && TAILQ_EMPTY(&ledger->waiting) &&
		      TAILQ_EMPTY(&ledger->loading);
	if (!unheld)
		checkpoint->unheld_ns = 0;
	else if (checkpoint->unheld_ns == 0)
		checkpoint->unheld_ns = now;
	return !unheld || now - checkpoint->unheld_ns < UNHELD_NS;
}

/* Nobody takes the lane to the step: the outcome says what to do instead of waiting. */
static void give_up(struct segue_checkpoint *checkpoint)
{
	struct segue_outcome *outcome = &checkpoint->request.task.outcome;

	segue_outcome_give(outcome);
	segue_outcome_take(outcome,
		segue_fail(SEGUE_EROUND,
			"%s. Let a worker hold lane %u while this is asked for, or take all lanes "
			"to one step: rounds() keeps them there, load_state_dict() brings them "
			"there",
			outcome->detail, checkpoint->ledger->place.lane));
}

/* Whether it is to be tried again, because its step has not been committed yet. */
static bool waits(const struct segue_checkpoint *checkpoint)
{
	return checkpoint->request.task.outcome.rc == SEGUE_ETIMEOUT &&
	       checkpoint->request.session && segue_now_ns() < checkpoint->deadline;
}

static void send_token(const struct segue_checkpoint *checkpoint)
{
	const struct segue_live *live = checkpoint->ledger->stream->live;
	struct segue_message message = {
		.serial = checkpoint->request.serial, .bulk = {.step = checkpoint->step}};

	if (live) {
		message.bulk.needs = segue_live_inserted(live, checkpoint->needs);
		message.bulk.first = segue_live_first(live);
	}
	segue_session_send_bulk_with(
		checkpoint->request.session, &message, checkpoint->token, checkpoint->size);
}

static void finish(struct segue_checkpoint *checkpoint)
{
	struct segue_request *request = &checkpoint->request;

	checkpoint->running = false;
	if (checkpoint->in_force)
		segue_ledger_unpin(checkpoint->ledger);
	if (request->task.outcome.rc == SEGUE_ETIMEOUT && !may_come(checkpoint, segue_now_ns()))
		give_up(checkpoint);
	if (waits(checkpoint) && !checkpoint->ledger->stream->server->stopping) {
		free(checkpoint->token);
		checkpoint->token = NULL;
		checkpoint->again_at = segue_now_ns() + LOOK_AGAIN_MS * INT64_C(1000000);
		return; /* the tick tries again */
	}
	if (waits(checkpoint)) /* the client asks the next server */
		segue_outcome_take(&request->task.outcome,
			segue_fail(SEGUE_EGONE, "the server is being stopped"));
	if (!segue_request_is_over(request))
		send_token(checkpoint);
	drop(checkpoint);
}

static void stored(void *arg)
{
	struct segue_checkpoint *checkpoint = arg;

	segue_loop_arrive(checkpoint->ledger->stream->server->loop);
	checkpoint->request.task.outcome = checkpoint->change.outcome;
	if (!checkpoint->change.outcome.rc)
		segue_ledger_note_checkpoint(checkpoint->ledger, segue_unix_ms());
	if (checkpoint->ledger->stream->live)
		segue_live_stored(
			checkpoint->ledger->stream->live); /* an older one may have gone */
	finish(checkpoint);
}

static void taken(struct segue_task *task)
{
	struct segue_checkpoint *checkpoint = (struct segue_checkpoint *)task;
	const struct segue_stream *stream = checkpoint->ledger->stream;

	if (task->outcome.rc || !stream->spec->persist) {
		finish(checkpoint);
		return;
	}
	segue_loop_await(stream->server->loop);
	segue_changes_submit(
		segue_committer_changes(stream->server->committer), &checkpoint->change, stored);
}

static void start(struct segue_checkpoint *checkpoint)
{
	struct segue_ledger *ledger = checkpoint->ledger;

	checkpoint->running = true;
	checkpoint->in_force = ledger->lease.state == SEGUE_LEASE_HELD;
	if (checkpoint->in_force) {
		segue_ledger_pin(ledger);
		checkpoint->plan = segue_filler_plan(ledger->grant->filler);
		checkpoint->ends = checkpoint->plan.ends.count;
	} else {
		checkpoint->plan = segue_stream_plan(ledger->stream, ledger->place.lane);
		checkpoint->ends = checkpoint->opening->ends;
	}
	checkpoint->request.task.work = take;
	checkpoint->request.task.done = taken;
	segue_pool_run(ledger->stream->pool, &checkpoint->request.task);
}

/* ---- Asked for ---- */

static int find_ledger(struct segue_session *session, const struct segue_message *message,
	struct segue_opening **opening, struct segue_ledger **ledger)
{
	int rc = segue_opening_find(session, message->checkpoint.stream, opening);

	if (!rc)
		rc = segue_drop_check_stream((*opening)->stream);
	if (rc)
		return rc;
	*ledger = segue_ledgers_find(&(*opening)->stream->ledgers, session,
		message->checkpoint.group, message->checkpoint.lane);
	const struct segue_stream *stream = (*opening)->stream;
	if (!*ledger && stream->spec->persist && message->checkpoint.lane < stream->spec->lanes)
		return segue_drop_fail_group(stream, message->checkpoint.lane);
	return *ledger ? 0
		       : segue_fail(SEGUE_EINVAL,
				 "stream '%s' has no lane %u to take a checkpoint of (with "
				 "persist=False, only lanes that this client holds)",
				 stream->spec->name, message->checkpoint.lane);
}

void segue_checkpoint_request(struct segue_session *session, const struct segue_message *message)
{
	int64_t timeout = message->checkpoint.timeout_ns, now = segue_now_ns();
	struct segue_checkpoint *checkpoint = calloc(1, sizeof(*checkpoint));
	struct segue_server *server = session->server;
	struct segue_opening *opening;
	struct segue_ledger *ledger;

	int rc = checkpoint ? find_ledger(session, message, &opening, &ledger)
			    : segue_fail(SEGUE_ENOMEM, "no memory for a checkpoint");
	if (!rc) {
		checkpoint->request.is_long = true;
		rc = segue_request_begin(&checkpoint->request, session, message->serial);
	}
	if (rc) {
		free(checkpoint);
		segue_session_fail(session, message->serial, rc);
		return;
	}
	if (timeout <= 0)
		timeout = DEFAULT_TIMEOUT_S * INT64_C(1000000000);
	checkpoint->opening = opening;
	checkpoint->ledger = ledger;
	checkpoint->asked = message->checkpoint.step;
	checkpoint->deadline = timeout > INT64_MAX - now ? INT64_MAX : now + timeout;
	checkpoint->pin = (struct segue_pin){.place = ledger->place, .step = checkpoint->asked};
	checkpoint->change = (struct segue_change){
		.place = ledger->place, .build = add_checkpoint, .arg = checkpoint};
	segue_committer_pin(server->committer, &checkpoint->pin);
	LIST_INSERT_HEAD(&server->streams->checkpoints, checkpoint, link);
	opening->uses++;
	ledger->checkpoints++;
	start(checkpoint);
}

void segue_checkpoints_tick(struct segue_server *server, int64_t now)
{
	struct segue_checkpoint *checkpoint;

	LIST_FOREACH(checkpoint, &server->streams->checkpoints, link) {
		if (!checkpoint->running && (now >= checkpoint->again_at || server->stopping))
			start(checkpoint);
		segue_loop_tick_within(server->loop, now + LOOK_AGAIN_MS * INT64_C(1000000));
	}
}
