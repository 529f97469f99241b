/* Asking for a lane: who waits, who gets it, who has it too long. */
#include "stream/attach.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "core/error.h"
#include "core/wait.h"
#include "engine/committer.h"
#include "engine/size.h"
#include "os/process.h"
#include "os/random.h"
#include "session/upload.h"
#include "stream/drop.h"
#include "stream/gather.h"
#include "stream/held.h"
#include "stream/lag.h"
#include "stream/opening.h"
#include "stream/release.h"
#include "stream/replica.h"
#include "stream/taker.h"

enum { DEFAULT_TIMEOUT_S = 10, RESERVATION_LOOK_MS = 100 };

/*
 * A request for a lane: its upload is being read (it is among the ledger's `loading`), it waits
 * (`waiting`), or it is made into a grant (`making`), perhaps after it has met others. Its task
 * reads the upload, then makes the grant.
 */
struct segue_attach {
	struct segue_request base;
	TAILQ_ENTRY(segue_attach) link;
	struct segue_ledger *ledger;
	struct segue_opening *opening; /* used */
	int64_t deadline;
	struct segue_lease_request request;
	bool moves;     /* it is for a worker that takes any lane (taker.h) */
	uint64_t lease; /* that is given back for it, if this session has it; else 0 */
	struct segue_upload *upload;
	uint8_t *bulk; /* what was in it: the order's */
	struct segue_grant_order order;
	struct segue_feed_choice choice;
	struct segue_grant *grant;
	struct segue_gathered gathered;
	uint64_t token_step; /* RESTORE: of the token */
};

/* ---- Ends of a request ---- */

static void drop(struct segue_attach *attach)
{
	if (attach->base.session)
		attach->base.session->lanes--;
	attach->opening->uses--;
	segue_upload_destroy(attach->upload);
	segue_request_end(&attach->base);
	free(attach->bulk);
	free(attach);
}

static void refuse(struct segue_attach *attach, int code)
{
	if (attach->base.session)
		segue_session_fail(attach->base.session, attach->base.serial, code);
	drop(attach);
}

/* A request that another thread works for: it is answered now, and its result is of no use. */
static void abandon(struct segue_attach *attach, int code)
{
	segue_session_fail(attach->base.session, attach->base.serial, code);
	attach->base.session->lanes--;
	segue_request_give_up(&attach->base);
}

/* ---- In force ---- */

static void send_attached(const struct segue_attach *attach)
{
	struct segue_ledger *ledger = attach->ledger;
	struct segue_grant *grant = ledger->grant;
	struct segue_message message = {
		.type = SEGUE_MESSAGE_ATTACHED,
		.serial = attach->base.serial,
		.attached =
			{
				.lease = ledger->lease_id,
				.lane = ledger->place.lane,
				.generation = grant->record.generation,
				.step = grant->step,
				.rows = grant->rows,
				.places = grant->filler->geometry.places,
				.batch_size = grant->batch_size,
			},
	};
	const int fds[4] = {
		grant->filler->ring.fd, grant->carry_shm.fd, grant->page_shm.fd, grant->event};

	memcpy(message.attached.token, grant->record.token, SEGUE_TOKEN_BYTES);
	segue_session_send(attach->base.session, &message, fds, 4);
}

static void put_in_force(struct segue_attach *attach)
{
	struct segue_ledger *ledger = attach->ledger;
	struct segue_server *server = ledger->stream->server;
	struct segue_grant *grant = attach->grant;

	ledger->grant = grant;
	ledger->feed = segue_feeds_choose(&attach->choice, grant, ledger->account);
	ledger->memory -= attach->choice.ring_size; /* the feed's now, or given back */
	segue_feed_choice_finish(&attach->choice);
	segue_gather_settle(ledger);
	ledger->session = attach->base.session;
	ledger->session->lanes++;
	ledger->opening = attach->opening;
	ledger->opening->uses++;
	ledger->lease_id = ++server->last_id;
	ledger->event = (struct segue_watch){.fd = grant->event, .ready = segue_held_event};
	if (ledger->stream->spec->persist)
		segue_committer_add(server->committer, grant);
	if (segue_loop_add(server->loop, &ledger->event, EPOLLIN)) {
		segue_session_fail(attach->base.session, attach->base.serial, SEGUE_ESYSTEM);
		segue_ledger_end(ledger, false);
		return;
	}
	if (server->storage.rc && ledger->stream->spec->persist)
		segue_grant_storage(grant, server->storage.rc, server->storage.detail);
	if (ledger->stream->live)
		segue_live_join(
			ledger->stream->live, ledger->place.group, grant->filler, &grant->carry);
	segue_filler_kick(grant->filler);
	if (grant->spec->lease_timeout_ms)
		segue_loop_tick_within(server->loop, segue_now_ns());
	bool by_library = attach->request.mode == SEGUE_ATTACH_OFFER ||
			  attach->request.mode == SEGUE_ATTACH_RESUME;
	segue_taken_granted(
		ledger, attach->moves ? ledger->session : NULL, by_library && attach->lease == 0);
	send_attached(attach);
	segue_replicas_granted(ledger, attach->order.replicas);
}

/* ---- Made into a grant ---- */

/* Before it is made: what cannot be paid for is refused. */
static int pay(struct segue_ledger *ledger, const struct segue_attach *attach, uint64_t *ring_size)
{
	struct segue_stream *stream = ledger->stream;
	struct segue_geometry geometry;

	int rc = segue_geometry_init(attach->opening->spec, attach->opening->spec->batch_size,
		stream->source->ops->key_max(stream->source), &geometry);
	if (rc)
		return rc;
	uint64_t memory = geometry.ring_size + geometry.carry_size + geometry.lease_size +
			  segue_size_waiting(attach->opening->spec);
	*ring_size = geometry.ring_size;
	segue_geometry_finish(&geometry);
	return segue_ledger_pay(ledger, stream->server, attach->base.account, memory);
}

static void let_next_ask(struct segue_ledger *ledger);
static void let_impatient_ask(struct segue_ledger *ledger);

static int make(struct segue_task *task)
{
	struct segue_attach *attach = (struct segue_attach *)task;

	return segue_grant_make(&attach->order, &attach->grant);
}

static void granted(struct segue_task *task)
{
	struct segue_attach *attach = (struct segue_attach *)task;
	struct segue_ledger *ledger = attach->ledger;
	/* One that a stop has overtaken is on disk: its holder must learn the token to offer. */
	bool ok = !task->outcome.rc && attach->base.session;

	ledger->making = NULL;
	segue_lease_granted(&ledger->lease, ok);
	if (ok) {
		put_in_force(attach);
		drop(attach);
		let_impatient_ask(ledger);
		return;
	}
	segue_grant_destroy(attach->grant);
	segue_feed_choice_finish(&attach->choice);
	segue_ledger_pay_back(ledger);
	segue_lag_give_up(ledger);
	segue_gather_settle(ledger);
	let_next_ask(ledger);
	refuse(attach, segue_outcome_give(&task->outcome));
}

/* What a client says where to go on may take long to follow: not on the threads that fill. */
static bool is_slow(const struct segue_attach *attach)
{
	return attach->request.mode == SEGUE_ATTACH_OFFER ||
	       attach->request.mode == SEGUE_ATTACH_RESTORE;
}

static void not_granted(struct segue_attach *attach, int code)
{
	attach->ledger->making = NULL;
	segue_lag_give_up(attach->ledger);
	segue_gather_settle(attach->ledger);
	segue_lease_granted(&attach->ledger->lease, false);
	refuse(attach, code);
}

static void start_making(struct segue_attach *attach)
{
	struct segue_ledger *ledger = attach->ledger;
	uint64_t ring_size;

	/* The stream may have grown since it was asked for, and the lane gone on. */
	attach->order.plan = segue_stream_plan(ledger->stream, ledger->place.lane);
	int rc = pay(ledger, attach, &ring_size);
	if (!rc) {
		rc = segue_feed_choice_init(&attach->choice, &ledger->stream->feeds, &attach->order,
			ring_size, &attach->opening->uses);
		if (rc)
			segue_ledger_pay_back(ledger);
	}
	if (rc) {
		/* Not the others that wait: they ask in the tick, or when a lease ends. */
		not_granted(attach, rc);
		return;
	}
	attach->order.record = (struct segue_lane_record){
		.generation = ledger->lease.generation,
		.held = true,
		.holder = ledger->lease.holder,
	};
	memcpy(attach->order.record.token, ledger->lease.token, SEGUE_TOKEN_BYTES);
	attach->opening->ends = attach->order.plan.ends.count;
	attach->base.task.work = make;
	attach->base.task.done = granted;
	ledger->making = attach;
	ledger->making_is_slow = is_slow(attach);
	segue_taken_making(ledger, attach->moves ? attach->base.session : NULL);
	if (!ledger->making_is_slow ||
		segue_account_run(attach->base.account, &attach->base.task, false))
		segue_pool_run(ledger->stream->pool, &attach->base.task);
}

/* ---- Met by others ---- */

static void go_gathered(struct segue_gathered *gathered)
{
	start_making(SEGUE_CONTAINER(gathered, struct segue_attach, gathered));
}

static void refuse_gathered(struct segue_gathered *gathered, int code)
{
	not_granted(SEGUE_CONTAINER(gathered, struct segue_attach, gathered), code);
}

/* Where the group will stand, if it is granted the lane. */
static uint64_t step_of(const struct segue_attach *attach)
{
	switch (attach->request.mode) {
	case SEGUE_ATTACH_FRESH:
		return 0;
	case SEGUE_ATTACH_RESTORE:
		return attach->token_step;
	case SEGUE_ATTACH_OFFER:
		return attach->request.step;
	default:
		return attach->ledger->durable;
	}
}

/* The lane is there to be granted. */
static void gather_or_make(struct segue_attach *attach)
{
	const struct segue_spec *spec = attach->opening->spec;
	enum segue_attach_mode mode = attach->request.mode;
	bool by_library = mode == SEGUE_ATTACH_OFFER || mode == SEGUE_ATTACH_RESUME;

	bool wants = segue_gather_wants(attach->ledger, spec, attach->order.mode);

	if (!wants && (is_slow(attach) || !segue_gather_follows(attach->ledger, spec))) {
		start_making(attach);
		return;
	}
	attach->gathered = (struct segue_gathered){
		.request = &attach->base,
		.ledger = attach->ledger,
		.step = step_of(attach),
		.wanted = by_library ? 0 : spec->groups,
		.follows = !wants,
		.go = go_gathered,
		.refuse = refuse_gathered,
	};
	attach->ledger->making = attach;
	segue_gather_join(&attach->gathered, spec);
}

/* ---- Asking ---- */

static void wait_for_lane(struct segue_attach *attach)
{
	struct segue_ledger *ledger = attach->ledger;
	const struct segue_server *server = ledger->stream->server;

	/* A process that takes its lane over, or has given it up for this, does not lose it. */
	bool stays = attach->request.take || attach->lease;
	if (stays && segue_holder_same(&ledger->lease.holder, &attach->request.holder))
		TAILQ_INSERT_HEAD(&ledger->waiting, attach, link);
	else
		TAILQ_INSERT_TAIL(&ledger->waiting, attach, link);
	segue_loop_tick_within(server->loop, attach->deadline);
	if (server->storage.rc && ledger->lease.state == SEGUE_LEASE_ENDING)
		segue_committer_urge(server->committer); /* its verdict, or that it is delayed */
}

/* Who asks for a lease that may yet end by its timeout waits for that, and no longer. */
static void end_wait_with_timeout(struct segue_attach *attach)
{
	const struct segue_grant *grant = attach->ledger->grant;

	if (!grant || grant->spec->lease_timeout_ms == 0)
		return;
	int64_t timeout = grant->spec->lease_timeout_ms * INT64_C(1000000);
	int64_t until = segue_now_ns() + timeout + timeout / 4;
	if (until < attach->deadline)
		attach->deadline = until;
}

static void ask(struct segue_attach *attach)
{
	struct segue_ledger *ledger = attach->ledger;
	uint8_t token[SEGUE_TOKEN_BYTES];

	/* Nothing of a stream with persist = false is stored: what is offered is all there is. */
	if (!ledger->stream->spec->persist && attach->request.mode == SEGUE_ATTACH_OFFER) {
		memcpy(ledger->lease.token, attach->request.token, SEGUE_TOKEN_BYTES);
		ledger->lease.token_valid = true;
	}
	segue_random(token, sizeof(token));
	attach->request.holder_left = ledger->session && segue_session_peer_left(ledger->session);
	switch (segue_lease_ask(&ledger->lease, &attach->request, ledger->durable, token)) {
	case SEGUE_LEASE_GRANT:
		gather_or_make(attach);
		break;
	case SEGUE_LEASE_TAKE:
		segue_ledger_end(ledger, false);
		wait_for_lane(attach);
		break;
	case SEGUE_LEASE_WAIT:
		wait_for_lane(attach);
		break;
	case SEGUE_LEASE_BUSY:
		if (ledger->session && ledger->session == attach->base.session) {
			refuse(attach, segue_held_fail(ledger));
			break;
		}
		end_wait_with_timeout(attach);
		wait_for_lane(attach);
		break;
	case SEGUE_LEASE_REFUSED:
		refuse(attach,
			segue_fail(SEGUE_EFENCED,
				"lane %u of stream '%s' has passed to another holder since: what "
				"this worker committed after the last durable step is not part of "
				"its "
				"history. Go back to a checkpoint with load_state_dict()",
				ledger->place.lane, ledger->stream->spec->name));
		break;
	}
}

static void let_next_ask(struct segue_ledger *ledger)
{
	struct segue_attach *attach = TAILQ_FIRST(&ledger->waiting);

	/* A server that stops gives nobody a lane whose holder comes back to the next one. */
	if (!attach || ledger->stream->server->stopping)
		return;
	TAILQ_REMOVE(&ledger->waiting, attach, link);
	ask(attach);
}

/*
 * The lane has been granted to somebody: those who do not wait until it comes free ask now. Once
 * each: who waits again is behind.
 */
static void let_impatient_ask(struct segue_ledger *ledger)
{
	struct segue_attach *attach = TAILQ_FIRST(&ledger->waiting), *next;
	struct segue_attach *last = TAILQ_LAST(&ledger->waiting, segue_waiting);

	for (; attach; attach = attach == last ? NULL : next) {
		enum segue_attach_mode mode = attach->request.mode;
		next = TAILQ_NEXT(attach, link);
		if (!attach->request.take && mode != SEGUE_ATTACH_OFFER &&
			mode != SEGUE_ATTACH_RESUME)
			continue;
		TAILQ_REMOVE(&ledger->waiting, attach, link);
		ask(attach);
	}
}

/* ---- What comes with a request ---- */

/* The ledger that a request means; `lease` not 0: the one that this session holds. */
static int find_place(struct segue_session *session, struct segue_opening *opening,
	const struct segue_message *message, struct segue_ledger **out)
{
	struct segue_stream *stream = opening->stream;
	uint32_t lane = message->lane_attach.lane;
	uint64_t lease = message->lane_attach.lease;

	int rc = segue_drop_check_stream(stream);
	if (rc)
		return rc;
	if (lane >= stream->spec->lanes)
		return segue_fail(SEGUE_EINVAL, "stream '%s' has lanes 0 to %u, not %u",
			stream->spec->name, stream->spec->lanes - 1, lane);
	if (stream->spec->persist) {
		*out = segue_ledgers_find(
			&stream->ledgers, session, message->lane_attach.group, lane);
		if (!*out)
			return segue_drop_fail_group(stream, lane);
		segue_ledger_use(&stream->ledgers, *out);
		return 0;
	}
	LIST_FOREACH(*out, &stream->ledgers.in_use, link) {
		if (lease && (*out)->lease_id == lease && (*out)->session == session &&
			(*out)->place.lane == lane)
			return 0;
	}
	/* Nothing is shared: each attach is a group of its own. */
	const struct segue_place place = {
		.stream = stream->id, .group = (uint32_t)++session->server->last_id, .lane = lane};
	*out = segue_ledgers_add(&stream->ledgers, place);
	return *out ? 0 : segue_fail(SEGUE_ENOMEM, "no memory for a lane");
}

/* A token that does not fit changes nothing: its holder keeps the lease that it has. */
static int check_token(struct segue_attach *attach)
{
	bool has_token = attach->request.mode == SEGUE_ATTACH_RESTORE ||
			 attach->request.mode == SEGUE_ATTACH_CHECK;

	return has_token ? segue_grant_check_token(&attach->order, &attach->token_step) : 0;
}

static bool holds(const struct segue_attach *attach)
{
	const struct segue_ledger *ledger = attach->ledger;

	return attach->lease && ledger->lease_id == attach->lease &&
	       ledger->session == attach->base.session;
}

/* The request has all that came with it. */
static void loaded(struct segue_attach *attach, int rc)
{
	struct segue_session *session = attach->base.session;

	if (!rc && attach->ledger->stream->server->stopping)
		rc = segue_fail(SEGUE_EGONE, "the server is being stopped");
	if (rc || !session) {
		refuse(attach, rc);
		return;
	}
	if (attach->request.mode == SEGUE_ATTACH_CHECK) {
		segue_session_send_done(session, attach->base.serial);
		drop(attach);
		return;
	}
	if (holds(attach)) {
		segue_gather_keep_place(attach->ledger, attach->order.mode);
		segue_ledger_end(attach->ledger, false);
	}
	ask(attach);
}

/* On a thread of the account's: the bytes may be many. */
static int load(struct segue_task *task)
{
	struct segue_attach *attach = (struct segue_attach *)task;

	int rc = segue_upload_read(attach->upload, &attach->bulk, &attach->order.bulk_size);
	attach->order.bulk = attach->bulk;
	return rc ? rc : check_token(attach);
}

static void task_loaded(struct segue_task *task)
{
	struct segue_attach *attach = (struct segue_attach *)task;

	TAILQ_REMOVE(&attach->ledger->loading, attach, link);
	loaded(attach, segue_outcome_give(&task->outcome));
}

static void start_loading(struct segue_attach *attach)
{
	if (!attach->upload) {
		loaded(attach, check_token(attach)); /* of no bytes: quickly told */
		return;
	}
	attach->base.task.work = load;
	attach->base.task.done = task_loaded;
	int rc = segue_account_run(attach->base.account, &attach->base.task, false);
	if (rc)
		refuse(attach, rc);
	else
		TAILQ_INSERT_HEAD(&attach->ledger->loading, attach, link);
}

static int check_lanes(
	struct segue_session *session, const struct segue_ledger *ledger, uint64_t lease)
{
	bool again = lease && ledger->session == session && ledger->lease_id == lease;

	/* Who goes back in place gives one up for it. */
	return segue_guard_check(
		session->server->guard, SEGUE_LIMIT_LANES, session->lanes, again ? 0 : 1);
}

/* All that is known of the grant before the lease is asked for. */
static void set_order(struct segue_attach *attach)
{
	const struct segue_stream *stream = attach->ledger->stream;

	attach->order = (struct segue_grant_order){
		.place = attach->ledger->place,
		.spec = attach->opening->spec,
		.purse = segue_ledger_purse(attach->ledger),
		.plan = segue_stream_plan(stream, attach->ledger->place.lane),
		.source = stream->source,
		.live = stream->live,
		.pool = stream->pool,
		.store = stream->server->store,
		.changes = segue_committer_changes(stream->server->committer),
		.fingerprint = {stream->fingerprint[0], stream->fingerprint[1]},
		.step = attach->request.step,
		.given_up = &attach->base.given_up,
	};
}

void segue_attach_request(struct segue_session *session, const struct segue_message *message)
{
	int64_t timeout = message->lane_attach.timeout_ns, now = segue_now_ns();
	struct segue_attach *attach = calloc(1, sizeof(*attach));
	struct segue_ledger *ledger = NULL;
	struct segue_opening *opening;
	struct segue_upload *upload;

	int rc = segue_upload_take(session, message->lane_attach.upload, &upload);
	if (!rc && !attach)
		rc = segue_fail(SEGUE_ENOMEM, "no memory for a lane");
	if (!rc)
		rc = segue_opening_find(session, message->lane_attach.stream, &opening);
	if (!rc && message->lane_attach.mode == SEGUE_ATTACH_RESIZE)
		rc = segue_size_check(
			opening->spec, opening->stream->live, message->lane_attach.batch_size);
	if (!rc)
		rc = find_place(session, opening, message, &ledger);
	if (!rc && message->lane_attach.mode != SEGUE_ATTACH_CHECK)
		rc = check_lanes(session, ledger, message->lane_attach.lease);
	if (!rc)
		rc = segue_request_begin(&attach->base, session, message->serial);
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		segue_upload_destroy(upload);
		free(attach);
		return;
	}
	if (timeout <= 0)
		timeout = DEFAULT_TIMEOUT_S * INT64_C(1000000000);
	attach->ledger = ledger;
	attach->opening = opening;
	attach->deadline = timeout > INT64_MAX - now ? INT64_MAX : now + timeout;
	attach->lease = message->lane_attach.lease;
	attach->moves = message->lane_attach.any == SEGUE_ANY_NAMED;
	attach->upload = upload;
	attach->request = (struct segue_lease_request){
		.holder = session->holder,
		.mode = message->lane_attach.mode == SEGUE_ATTACH_RESIZE
				? SEGUE_ATTACH_RESUME
				: message->lane_attach.mode,
		.step = message->lane_attach.step,
		.take = message->lane_attach.take,
	};
	memcpy(attach->request.token, message->lane_attach.token, SEGUE_TOKEN_BYTES);
	set_order(attach);
	attach->order.mode = message->lane_attach.mode;
	attach->order.replicas = message->lane_attach.replicas;
	attach->order.batch_size = message->lane_attach.batch_size;
	attach->order.seen = message->lane_attach.seen;
	opening->uses++;
	session->lanes++;
	start_loading(attach);
}

/* ---- What befalls a ledger ---- */

/* Its requests that other threads work for, it forgets by itself. */
void segue_ledger_session_gone(struct segue_ledger *ledger, void *session)
{
	struct segue_attach *attach, *next;

	TAILQ_FOREACH_SAFE(attach, &ledger->waiting, link, next) {
		if (attach->base.session != session)
			continue;
		TAILQ_REMOVE(&ledger->waiting, attach, link);
		drop(attach);
	}
	if (ledger->detaching == session)
		ledger->detaching = NULL;
	segue_replicas_session_gone(ledger, session);
	if (ledger->session == session)
		segue_ledger_end(ledger, false);
}

void segue_ledger_opening_closed(struct segue_ledger *ledger, const struct segue_opening *opening)
{
	struct segue_attach *attach, *next;

	segue_fail(SEGUE_EINVAL, "stream '%s' was closed while a lane of it was asked for",
		ledger->stream->spec->name);
	TAILQ_FOREACH_SAFE(attach, &ledger->waiting, link, next) {
		if (attach->opening != opening)
			continue;
		TAILQ_REMOVE(&ledger->waiting, attach, link);
		refuse(attach, SEGUE_EINVAL);
	}
	TAILQ_FOREACH(attach, &ledger->loading, link) {
		if (attach->opening == opening && attach->base.session)
			abandon(attach, SEGUE_EINVAL);
	}
	attach = ledger->making;
	if (attach && attach->opening == opening && attach->base.session)
		abandon(attach, SEGUE_EINVAL);
	segue_replicas_closed(ledger, opening);
	if (ledger->opening == opening && ledger->session)
		segue_ledger_end(ledger, false);
}

/* Those who wait for a lane whose last commit cannot be written for now. */
static void refuse_all(struct segue_ledger *ledger)
{
	struct segue_attach *attach, *next;

	TAILQ_FOREACH_SAFE(attach, &ledger->waiting, link, next) {
		TAILQ_REMOVE(&ledger->waiting, attach, link);
		refuse(attach, segue_ledger_fail_unwritten(ledger));
	}
	ledger->delayed = false;
}

static void look_at_waiting(struct segue_ledger *ledger, int64_t now)
{
	struct segue_attach *attach, *next;

	TAILQ_FOREACH_SAFE(attach, &ledger->waiting, link, next) {
		if (now < attach->deadline)
			continue;
		TAILQ_REMOVE(&ledger->waiting, attach, link);
		refuse(attach, segue_held_fail(ledger));
	}
	if (!TAILQ_EMPTY(&ledger->waiting))
		segue_loop_tick_within(
			ledger->stream->server->loop, now + RESERVATION_LOOK_MS * INT64_C(1000000));
}

void segue_ledger_look(struct segue_ledger *ledger, void *at)
{
	int64_t now = *(const int64_t *)at;

	if (ledger->delayed)
		refuse_all(ledger);
	/* A look at a process is dear: only for those who wait. */
	if (ledger->lease.state == SEGUE_LEASE_RESERVED && !TAILQ_EMPTY(&ledger->waiting)) {
		enum segue_presence presence = segue_process_presence(&ledger->lease.holder);
		segue_lease_expire(&ledger->lease, presence, now);
	}
	if (ledger->lease.state == SEGUE_LEASE_FREE)
		let_next_ask(ledger);
	look_at_waiting(ledger, now);
	if (ledger->gathered)
		segue_gather_look(ledger, now);
	segue_gather_expire(ledger, now);
	segue_replicas_look(ledger, now);
	if (ledger->lease.state == SEGUE_LEASE_HELD)
		segue_held_look(ledger, now);
}

void segue_ledger_stop(struct segue_ledger *ledger, void *idle)
{
	segue_ledger_end(ledger, true);
	if (ledger->grant)
		*(bool *)idle = false;
}
