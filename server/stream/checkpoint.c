/*
 * Checkpoints: the token of a lane at one step, now or as soon as it is committed. It is in the store
 * before it is sent, with the final states of all that ended before that step. A lane that has ended
 * is at every later step: its token is then of the step at which it ended.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/wait.h"
#include "engine/input.h"
#include "engine/snapshot.h"
#include "session/server.h"
#include "store/checkpoints.h"
#include "store/lanes.h"
#include "store/token.h"
#include "stream/ledger.h"

enum { LOOK_AGAIN_MS = 5, DEFAULT_TIMEOUT_S = 30 };

struct segue_checkpoint {
	struct segue_checkpoint *next; /* in server->checkpoints */
	struct segue_session *session; /* NULL: gone */
	struct segue_opening *opening;
	struct segue_ledger *ledger;
	uint64_t serial, asked;
	uint64_t step; /* of the token: below `asked` where the lane has ended */
	bool ended;    /* the lane has, at that step */
	int64_t deadline, again_at;
	bool running;        /* on a loader thread */
	bool in_force;       /* reads the grant, which is pinned; else the store, */
	uint64_t generation; /* where the lane's record has this one */
	struct segue_job job;
	struct segue_pin pin;
	struct segue_change change;
	int rc;
	char detail[SEGUE_DETAIL_MAX];
	void *token;
	size_t size;
};

/* The same bytes for the same step, whether a lease or the store is read: ended rows have no states. */
static void clear_ended(struct segue_image *image)
{
	for (uint32_t row = 0, i = 0; row < image->position->rows; row++) {
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
	};

	strncpy(head.stream, spec->name, sizeof(head.stream) - 1);
	segue_spec_hash(spec, head.spec_hash);
	clear_ended(image);
	return segue_token_encode(&head, image, token, size);
}

static bool still_holds(struct segue_checkpoint *checkpoint);

static int fail_changed(const struct segue_checkpoint *checkpoint)
{
	return segue_fail(SEGUE_ETIMEOUT, "lane %u changed hands while its checkpoint was taken",
		checkpoint->ledger->place.lane);
}

static bool is_over(
	const struct segue_checkpoint *checkpoint, const struct segue_position *position)
{
	const struct segue_stream *stream = checkpoint->ledger->stream;
	struct segue_plan_spec plan = stream->plan;
	struct segue_input input = {stream->source, stream->spec, &plan, 0, 0};

	plan.lane = checkpoint->ledger->place.lane;
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
	struct segue_plan_spec plan = stream->plan;
	struct segue_lane_record record;

	int rc = segue_lanes_load(stream->server->store, ledger->place, &record);
	if (rc)
		return rc == SEGUE_ENOTFOUND ? segue_fail(SEGUE_ETIMEOUT, "lane %u was never begun",
						       ledger->place.lane)
					     : rc;
	plan.lane = ledger->place.lane;
	uint64_t step = record.position->step, asked = checkpoint->asked;
	checkpoint->ended = is_over(checkpoint, record.position);
	if (step > asked || (step < asked && !checkpoint->ended))
		rc = segue_fail(step < asked ? SEGUE_ETIMEOUT : SEGUE_ELIMIT,
			"lane %u stands at step %" PRIu64 " and nobody holds it; step %" PRIu64
			" is asked for",
			ledger->place.lane, step, asked);
	else
		rc = segue_lanes_load_image(stream->server->store, ledger->place, &plan,
			record.position, segue_row_size(stream->spec), image);
	checkpoint->generation = record.generation;
	free(record.position);
	/* Its record and its rows are read one after the other. */
	if (rc == SEGUE_ESTORE && !still_holds(checkpoint))
		return fail_changed(checkpoint);
	return rc;
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
	const struct segue_catalogue_entry entry = {
		.step = checkpoint->step, .size = checkpoint->size, .created_ms = segue_unix_ms()};
	return segue_checkpoints_put(ops, ledger->stream->server->store, ledger->place, &entry,
		checkpoint->ended, checkpoint->token, checkpoint->opening->spec->keep_checkpoints);
}

static void done(void *arg);

static void stored(void *arg)
{
	struct segue_checkpoint *checkpoint = arg;

	checkpoint->rc = checkpoint->change.rc;
	snprintf(checkpoint->detail, sizeof(checkpoint->detail), "%s", checkpoint->change.detail);
	done(checkpoint);
}

static void run(void *arg)
{
	struct segue_checkpoint *checkpoint = arg;
	struct segue_image *image = NULL;

	int rc = checkpoint->in_force ? from_grant(checkpoint, &image)
				      : from_store(checkpoint, &image);
	if (!rc) {
		checkpoint->step = image->position->step;
		rc = encode(checkpoint, image, &checkpoint->token, &checkpoint->size);
	}
	segue_image_destroy(image);
	checkpoint->rc = rc;
	const struct segue_stream *stream = checkpoint->ledger->stream;
	if (rc)
		snprintf(
			checkpoint->detail, sizeof(checkpoint->detail), "%s", segue_error_detail());
	if (!rc && stream->spec->persist)
		segue_changes_submit(segue_committer_changes(stream->server->committer),
			&checkpoint->change, stored);
	else
		segue_loop_post(stream->server->loop, done, checkpoint);
}

static void start(struct segue_checkpoint *checkpoint)
{
	struct segue_ledger *ledger = checkpoint->ledger;

	checkpoint->running = true;
	checkpoint->in_force = ledger->lease.state == SEGUE_LEASE_HELD;
	checkpoint->job = (struct segue_job){.fn = run, .arg = checkpoint};
	if (checkpoint->in_force)
		segue_ledger_pin(ledger);
	ledger->stream->server->jobs++;
	segue_pool_run(ledger->stream->pool, &checkpoint->job);
}

static void drop(struct segue_checkpoint *checkpoint)
{
	struct segue_checkpoint **link = &checkpoint->ledger->stream->server->checkpoints;
	struct segue_opening *opening = checkpoint->opening;

	while (*link != checkpoint)
		link = &(*link)->next;
	*link = checkpoint->next;
	if (checkpoint->session)
		checkpoint->session->requests--;
	checkpoint->ledger->checkpoints--;
	segue_committer_unpin(opening->stream->server->committer, &checkpoint->pin);
	free(checkpoint->token);
	free(checkpoint);
	opening->leases--;
	segue_opening_release(opening);
}

static void done(void *arg)
{
	struct segue_checkpoint *checkpoint = arg;
	struct segue_ledger *ledger = checkpoint->ledger;
	struct segue_server *server = ledger->stream->server;

	server->jobs--;
	checkpoint->running = false;
	if (checkpoint->in_force)
		segue_ledger_unpin(ledger);
	if (checkpoint->rc == SEGUE_ETIMEOUT && checkpoint->session &&
		segue_now_ns() < checkpoint->deadline) {
		free(checkpoint->token);
		checkpoint->token = NULL;
		checkpoint->again_at = segue_now_ns() + LOOK_AGAIN_MS * INT64_C(1000000);
		if (!server->stopping)
			return;               /* the tick tries again */
		checkpoint->rc = SEGUE_EGONE; /* the client asks the next server */
		snprintf(checkpoint->detail, sizeof(checkpoint->detail),
			"the server is being stopped");
	}
	if (checkpoint->session && checkpoint->rc == 0)
		segue_session_send_bulk(checkpoint->session, checkpoint->serial, checkpoint->step,
			checkpoint->token, checkpoint->size);
	else if (checkpoint->session)
		segue_session_fail_text(checkpoint->session, checkpoint->serial, checkpoint->rc,
			checkpoint->detail);
	drop(checkpoint);
}

void segue_checkpoint_request(struct segue_session *session, const struct segue_message *message)
{
	struct segue_opening *opening = segue_opening_find(session, message->checkpoint.stream);
	struct segue_checkpoint *checkpoint = calloc(1, sizeof(*checkpoint));
	struct segue_ledger *ledger = NULL;
	int64_t timeout = message->checkpoint.timeout_ns, now = segue_now_ns();
	int rc = 0;

	if (opening)
		ledger = segue_ledger_of(opening, session, message->checkpoint.lane);
	if (!checkpoint)
		rc = segue_fail(SEGUE_ENOMEM, "no memory for a checkpoint");
	else if (!opening)
		rc = segue_fail(SEGUE_EPROTOCOL, "stream %llu is not open",
			(unsigned long long)message->checkpoint.stream);
	else if (!ledger)
		rc = segue_fail(SEGUE_EINVAL, "there is no lane %u to take a checkpoint of",
			message->checkpoint.lane);
	else
		rc = segue_session_take_request(session);
	if (rc) {
		free(checkpoint);
		segue_session_fail(session, message->serial, rc);
		return;
	}
	if (timeout <= 0)
		timeout = DEFAULT_TIMEOUT_S * INT64_C(1000000000);
	*checkpoint = (struct segue_checkpoint){
		.next = session->server->checkpoints,
		.session = session,
		.opening = opening,
		.ledger = ledger,
		.serial = message->serial,
		.asked = message->checkpoint.step,
		.deadline = timeout > INT64_MAX - now ? INT64_MAX : now + timeout,
		.pin = {.place = ledger->place, .step = message->checkpoint.step},
		.change = {.place = ledger->place, .build = add_checkpoint, .arg = checkpoint},
	};
	segue_committer_pin(session->server->committer, &checkpoint->pin);
	session->server->checkpoints = checkpoint;
	opening->leases++;
	ledger->checkpoints++;
	start(checkpoint);
}

int64_t segue_checkpoints_tick(struct segue_server *server, int64_t now)
{
	int64_t when = INT64_MAX;

	for (struct segue_checkpoint *checkpoint = server->checkpoints; checkpoint;
		checkpoint = checkpoint->next) {
		if (!checkpoint->running && (now >= checkpoint->again_at || server->stopping))
			start(checkpoint);
		when = now + LOOK_AGAIN_MS * INT64_C(1000000);
	}
	return when;
}

void segue_checkpoints_session_gone(struct segue_session *session)
{
	for (struct segue_checkpoint *checkpoint = session->server->checkpoints; checkpoint;
		checkpoint = checkpoint->next) {
		if (checkpoint->session == session)
			checkpoint->session = NULL;
	}
}
