/* Leases in force: asked for, granted, ended. */
#include "stream/ledger.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/wait.h"
#include "os/process.h"
#include "store/lanes.h"

enum { DEFAULT_TIMEOUT_S = 10, RESERVATION_LOOK_MS = 100, LOOKS_A_TIMEOUT = 16 };

/* A request for a lane: waiting, or being made into a grant. */
struct segue_attach {
	struct segue_attach *next;
	struct segue_ledger *ledger;
	struct segue_session *session; /* NULL: gone */
	struct segue_opening *opening;
	uint64_t serial;
	int64_t deadline;
	struct segue_lease_request request;
	struct segue_user *user; /* who asks, held */
	uint64_t lease;          /* that is given back for it, if this session has it; else 0 */
	struct segue_upload *upload;
	uint8_t *bulk; /* what was in it */
	size_t bulk_size;
	/* The job's, or the task's. */
	struct segue_job job;
	struct segue_task task;
	struct segue_grant_order order;
	struct segue_grant *grant;
	_Atomic bool given_up; /* set by the loop */
	int rc;
	char detail[SEGUE_ERROR_TEXT];
};

static void retry_waiting(struct segue_ledger *ledger);
static void end_lease(struct segue_ledger *ledger, bool held);

void segue_random(void *out, size_t size)
{
	uint8_t *at = out;

	while (size > 0) {
		ssize_t got = getrandom(at, size, 0);
		if (got < 0 && errno != EINTR)
			abort(); /* no kernel that we run on refuses this */
		if (got > 0) {
			at += got;
			size -= (size_t)got;
		}
	}
}

/* ---- Life of the ledger ---- */

static void init_ledger(
	struct segue_ledger *ledger, struct segue_stream *stream, uint32_t lane, uint32_t group)
{
	*ledger = (struct segue_ledger){
		.stream = stream,
		.place = {.stream = stream->id, .group = group, .lane = lane},
		.event.fd = -1,
	};
}

/* What is done to all ledgers, again and again, is done to those in use: a stream may have many. */
static void put_in_use(struct segue_ledger *ledger)
{
	if (ledger->listed)
		return;
	ledger->listed = true;
	ledger->next = ledger->stream->in_use;
	ledger->stream->in_use = ledger;
}

static int load_ledger(struct segue_ledger *ledger)
{
	struct segue_lane_record record;

	int rc = segue_lanes_load(ledger->stream->server->store, ledger->place, &record);
	if (rc == SEGUE_ENOTFOUND)
		return 0;
	if (rc)
		return rc;
	segue_lease_load(&ledger->lease, &record, segue_process_presence(&record.holder),
		segue_now_ns(), SEGUE_RECONNECT_GRACE_NS);
	ledger->durable = record.position->step;
	free(record.position);
	if (ledger->lease.state != SEGUE_LEASE_FREE)
		put_in_use(ledger);
	return 0;
}

int segue_ledgers_load(struct segue_stream *stream)
{
	uint32_t lanes = stream->spec->lanes;

	if (!stream->spec->persist)
		return 0;
	stream->ledgers = calloc(lanes, sizeof(*stream->ledgers));
	if (!stream->ledgers)
		return segue_fail(SEGUE_ENOMEM, "no memory for %u lanes", lanes);
	for (uint32_t lane = 0; lane < lanes; lane++) {
		init_ledger(&stream->ledgers[lane], stream, lane, 0);
		int rc = load_ledger(&stream->ledgers[lane]);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- What a grant takes of its user ---- */

enum { GRANT_DESCRIPTORS = 4 };

/* Before it is made: what cannot be paid for is refused. */
static int pay(struct segue_ledger *ledger, const struct segue_attach *attach)
{
	struct segue_stream *stream = ledger->stream;
	struct segue_geometry geometry;

	int rc = segue_geometry_init(
		attach->opening->spec, stream->source->ops->key_max(stream->source), &geometry);
	if (rc)
		return rc;
	uint64_t memory = geometry.ring_size + geometry.carry_size + geometry.lease_size;
	segue_geometry_finish(&geometry);
	rc = segue_user_take(attach->user, SEGUE_LIMIT_MEMORY, memory);
	if (rc)
		return rc;
	rc = segue_user_take(attach->user, SEGUE_LIMIT_DESCRIPTORS, GRANT_DESCRIPTORS);
	if (rc) {
		segue_user_give(attach->user, SEGUE_LIMIT_MEMORY, memory);
		return rc;
	}
	ledger->user = attach->user;
	ledger->memory = memory;
	return 0;
}

static void pay_back(struct segue_ledger *ledger)
{
	struct segue_user *user = ledger->user;

	ledger->user = NULL;
	segue_user_give(user, SEGUE_LIMIT_DESCRIPTORS, GRANT_DESCRIPTORS);
	segue_user_give(user, SEGUE_LIMIT_MEMORY, ledger->memory);
}

void segue_ledgers_destroy(struct segue_stream *stream)
{
	while (stream->in_use) {
		struct segue_ledger *next = stream->in_use->next;
		segue_grant_destroy(stream->in_use->grant);
		if (!stream->ledgers)
			free(stream->in_use);
		stream->in_use = next;
	}
	free(stream->ledgers);
}

struct segue_ledger *segue_ledger_of(
	struct segue_opening *opening, struct segue_session *session, uint32_t lane)
{
	struct segue_stream *stream = opening->stream;
	struct segue_ledger *ledger = stream->in_use;

	if (stream->ledgers)
		return lane < stream->spec->lanes ? &stream->ledgers[lane] : NULL;
	while (ledger && (ledger->session != session || ledger->place.lane != lane))
		ledger = ledger->next;
	return ledger;
}

/* A stream with persist = false has nothing to share: each attach is a group of its own. */
static struct segue_ledger *make_private(struct segue_stream *stream, uint32_t lane)
{
	struct segue_ledger *ledger = malloc(sizeof(*ledger));

	if (!ledger)
		return NULL;
	init_ledger(ledger, stream, lane, (uint32_t)++stream->server->next_id);
	put_in_use(ledger);
	return ledger;
}

/* Those that nobody holds, asks for or reads. In the tick, where no caller still looks at one. */
static void sweep(struct segue_stream *stream)
{
	struct segue_ledger **link = &stream->in_use;

	while (*link) {
		struct segue_ledger *ledger = *link;
		if (ledger->lease.state != SEGUE_LEASE_FREE || ledger->waiting || ledger->loading ||
			ledger->checkpoints > 0) {
			link = &ledger->next;
			continue;
		}
		*link = ledger->next;
		ledger->listed = false;
		if (!stream->ledgers)
			free(ledger);
	}
}

/* ---- Taking down ---- */

static void send_done(struct segue_session *session, uint64_t serial)
{
	const struct segue_message done = {.type = SEGUE_MESSAGE_DONE, .serial = serial};

	segue_session_send(session, &done, NULL, 0);
}

/* Why what a lane owes is not on disk, where nobody has said so for want of memory. */
static int failure_of(struct segue_grant *grant, char text[SEGUE_ERROR_TEXT])
{
	int code = segue_grant_failure(grant, text);

	if (!code)
		snprintf(text, SEGUE_ERROR_TEXT, "the server has no memory to write it");
	return code ? code : SEGUE_ENOMEM;
}

/* Closing a lane means that its last commit is on disk; where that cannot be, it is an error. */
static void answer_detach(const struct segue_ledger *ledger)
{
	struct segue_grant *grant = ledger->grant;
	bool owes = !grant->carry.broken && grant->carry.committed > grant->account.durable;
	char text[SEGUE_ERROR_TEXT];

	if (!ledger->stream->spec->persist || !owes) {
		send_done(ledger->detaching, ledger->detach_serial);
		return;
	}
	int code = failure_of(grant, text);
	segue_fail(code,
		"lane %u of stream '%s' is given back at step %llu, what was committed after it is "
		"not on disk: %s",
		ledger->place.lane, ledger->stream->spec->name,
		(unsigned long long)grant->account.durable, text);
	segue_session_fail(ledger->detaching, ledger->detach_serial, code);
}

static void taken_down(void *arg)
{
	struct segue_ledger *ledger = arg;
	struct segue_stream *stream = ledger->stream;
	struct segue_opening *opening = ledger->opening;

	stream->server->jobs--;
	if (ledger->detaching)
		answer_detach(ledger);
	ledger->detaching = NULL;
	ledger->durable = ledger->grant->account.durable;
	segue_grant_destroy(ledger->grant);
	ledger->grant = NULL;
	pay_back(ledger);
	ledger->opening = NULL;
	segue_lease_taken(&ledger->lease);
	opening->leases--;
	retry_waiting(ledger);
	segue_opening_release(opening); /* may free the stream, and the ledger with it */
}

static void post_taken_down(void *arg)
{
	struct segue_ledger *ledger = arg;

	segue_loop_post(ledger->stream->server->loop, taken_down, ledger);
}

static void take_down(struct segue_ledger *ledger)
{
	if (ledger->written && ledger->pins == 0) {
		ledger->written = false;
		segue_filler_close(ledger->grant->filler, post_taken_down, ledger);
	}
}

/* The last commit is on disk, or never will be. */
static void written(void *arg)
{
	struct segue_ledger *ledger = arg;

	ledger->stream->server->unwritten_ns = 0;
	ledger->written = true;
	take_down(ledger);
}

static void refuse(struct segue_attach *attach, int code);

static int fail_unwritten(const struct segue_ledger *ledger)
{
	char text[SEGUE_ERROR_TEXT];
	int code = failure_of(ledger->grant, text);

	return segue_fail(code,
		"the last commits of lane %u of stream '%s' are not on disk, and nobody can take "
		"it before they are: %s. The server goes on trying as long as it runs",
		ledger->place.lane, ledger->stream->spec->name, text);
}

/* The last commit cannot be written for now: those who wait for the lane are told at once. */
static void delayed(void *arg)
{
	struct segue_ledger *ledger = arg;
	struct segue_server *server = ledger->stream->server;

	if (!server->unwritten_ns)
		server->unwritten_ns = segue_now_ns();
	if (ledger->detaching)
		segue_session_fail(
			ledger->detaching, ledger->detach_serial, fail_unwritten(ledger));
	ledger->detaching = NULL;
	while (ledger->waiting) {
		struct segue_attach *attach = ledger->waiting;
		ledger->waiting = attach->next;
		refuse(attach, fail_unwritten(ledger));
	}
}

void segue_ledger_pin(struct segue_ledger *ledger)
{
	ledger->pins++;
}

void segue_ledger_unpin(struct segue_ledger *ledger)
{
	ledger->pins--;
	take_down(ledger);
}

/*
 * The lease is over: fence the holder, then write what it committed. `held`: the server stops, and
 * the holder may go on with the next one: it is not fenced, and offers what it commits until then.
 */
static void end_lease(struct segue_ledger *ledger, bool held)
{
	struct segue_server *server = ledger->stream->server;
	struct segue_grant *grant = ledger->grant;

	if (!segue_lease_end(&ledger->lease))
		return;
	segue_loop_remove(server->loop, &ledger->event);
	if (ledger->session)
		ledger->session->lanes--;
	ledger->session = NULL;
	pthread_mutex_lock(&grant->filler->lock);
	if (!held)
		segue_carry_fence(&grant->carry);
	segue_feed_ring(&grant->filler->feed);
	pthread_mutex_unlock(&grant->filler->lock);
	server->jobs++;
	if (ledger->stream->spec->persist)
		segue_committer_finish(server->committer, grant, held, written, delayed, ledger);
	else
		written(ledger);
}

/* ---- Asking ---- */

static void drop_attach(struct segue_attach *attach)
{
	struct segue_opening *opening = attach->opening;

	if (attach->session)
		attach->session->lanes--;
	opening->leases--;
	segue_upload_destroy(attach->upload);
	segue_user_release(attach->user);
	free(attach->bulk);
	free(attach);
	segue_opening_release(opening);
}

static void refuse(struct segue_attach *attach, int code)
{
	if (attach->session)
		segue_session_fail(attach->session, attach->serial, code);
	drop_attach(attach); /* may free the stream */
}

static void send_attached(struct segue_attach *attach)
{
	struct segue_ledger *ledger = attach->ledger;
	struct segue_grant *grant = ledger->grant;
	struct segue_message message = {
		.type = SEGUE_MESSAGE_ATTACHED,
		.serial = attach->serial,
		.attached =
			{
				.lease = ledger->lease_id,
				.generation = grant->record.generation,
				.step = grant->step,
				.rows = grant->rows,
			},
	};
	const int fds[4] = {
		grant->filler->ring.fd, grant->carry_shm.fd, grant->page_shm.fd, grant->event};

	memcpy(message.attached.token, grant->record.token, SEGUE_TOKEN_BYTES);
	segue_session_send(attach->session, &message, fds, 4);
}

/* The worker has released enough, committed at durability = commit, or is about to sleep. */
static void event_ready(struct segue_watch *watch, uint32_t events)
{
	struct segue_ledger *ledger =
		(struct segue_ledger *)((char *)watch - offsetof(struct segue_ledger, event));

	(void)events;
	segue_event_clear(watch->fd);
	/* Words that cannot be are seen here: the tick that follows ends the lease. */
	pthread_mutex_lock(&ledger->grant->filler->lock);
	segue_carry_observe(&ledger->grant->carry, ledger->grant->filler->feed.published);
	pthread_mutex_unlock(&ledger->grant->filler->lock);
	segue_filler_kick(ledger->grant->filler);
	if (ledger->stream->spec->persist &&
		ledger->grant->spec->durability == SEGUE_DURABLE_COMMIT)
		segue_committer_urge(ledger->stream->server->committer);
}

static void put_in_force(struct segue_attach *attach)
{
	struct segue_ledger *ledger = attach->ledger;
	struct segue_server *server = ledger->stream->server;
	struct segue_grant *grant = attach->grant;

	ledger->grant = grant;
	ledger->session = attach->session;
	ledger->session->lanes++;
	ledger->opening = attach->opening;
	ledger->opening->leases++;
	ledger->lease_id = ++server->next_id;
	ledger->event = (struct segue_watch){.fd = grant->event, .ready = event_ready};
	if (ledger->stream->spec->persist)
		segue_committer_add(server->committer, grant);
	if (segue_loop_add(server->loop, &ledger->event, EPOLLIN)) {
		segue_session_fail(attach->session, attach->serial, SEGUE_ESYSTEM);
		end_lease(ledger, false);
		return;
	}
	if (server->storage_error && ledger->stream->spec->persist)
		segue_grant_storage(grant, server->storage_error, server->storage_detail);
	segue_filler_kick(grant->filler);
	if (grant->spec->lease_timeout_ms)
		segue_loop_tick_within(server->loop, segue_now_ns());
	send_attached(attach);
}

static void granted(void *arg)
{
	struct segue_attach *attach = arg;
	struct segue_ledger *ledger = attach->ledger;
	/* One that a stop has overtaken is on disk: its holder must learn the token to offer with. */
	bool ok = attach->rc == 0 && attach->session;

	ledger->stream->server->jobs--;
	ledger->making = NULL;
	segue_lease_granted(&ledger->lease, ok);
	if (ok) {
		put_in_force(attach);
		drop_attach(attach);
		return;
	}
	segue_grant_destroy(attach->grant);
	pay_back(ledger);
	retry_waiting(ledger);
	if (attach->session)
		segue_fail(attach->rc, "%s", attach->detail);
	refuse(attach, attach->rc);
}

static void make(struct segue_attach *attach)
{
	attach->rc = segue_grant_make(&attach->order, &attach->grant);
	if (attach->rc)
		strncpy(attach->detail, segue_error_detail(), sizeof(attach->detail) - 1);
}

static void make_job(void *arg)
{
	struct segue_attach *attach = arg;

	make(attach);
	segue_loop_post(attach->ledger->stream->server->loop, granted, attach);
}

static struct segue_attach *attach_of_task(struct segue_task *task)
{
	return (struct segue_attach *)((char *)task - offsetof(struct segue_attach, task));
}

static void make_task(struct segue_task *task)
{
	make(attach_of_task(task));
}

static void task_granted(struct segue_task *task)
{
	struct segue_attach *attach = attach_of_task(task);

	attach->ledger->stream->server->jobs++; /* granted() counts it off */
	granted(attach);
}

/* What a client says where to go on may take long to follow: not on the threads that fill. */
static bool is_slow(const struct segue_attach *attach)
{
	return attach->request.mode == SEGUE_ATTACH_OFFER ||
	       attach->request.mode == SEGUE_ATTACH_RESTORE;
}

/* A grant that could not be begun. */
static void fail_making(struct segue_attach *attach, int rc)
{
	struct segue_ledger *ledger = attach->ledger;

	segue_lease_granted(&ledger->lease, false);
	/* Not the others that wait: they are looked at in the tick, or when a lease ends. */
	refuse(attach, rc);
}

static void start_making(struct segue_attach *attach)
{
	struct segue_ledger *ledger = attach->ledger;
	struct segue_stream *stream = ledger->stream;
	struct segue_server *server = stream->server;

	int rc = pay(ledger, attach);
	if (rc) {
		fail_making(attach, rc);
		return;
	}
	attach->order = (struct segue_grant_order){
		.place = ledger->place,
		.spec = attach->opening->spec,
		.plan = stream->plan,
		.source = stream->source,
		.pool = stream->pool,
		.store = server->store,
		.changes = segue_committer_changes(server->committer),
		.fingerprint = {stream->fingerprint[0], stream->fingerprint[1]},
		.mode = attach->request.mode,
		.step = attach->request.step,
		.bulk = attach->bulk,
		.bulk_size = attach->bulk_size,
		.given_up = &attach->given_up,
		.record =
			{
				.generation = ledger->lease.generation,
				.held = true,
				.holder = ledger->lease.holder,
			},
	};
	attach->order.plan.lane = ledger->place.lane;
	memcpy(attach->order.record.token, ledger->lease.token, SEGUE_TOKEN_BYTES);
	attach->job = (struct segue_job){.fn = make_job, .arg = attach};
	ledger->making = attach;
	if (is_slow(attach) &&
		segue_user_run(attach->user, &attach->task, make_task, task_granted) == 0)
		return;
	server->jobs++;
	segue_pool_run(stream->pool, &attach->job);
}

static int busy(const struct segue_ledger *ledger)
{
	return segue_fail(SEGUE_EBUSY,
		"lane %u of stream '%s' is %s by process %lld: each lane has one worker at a time "
		"(is "
		"an old worker still running, or do two workers have the same rank?)",
		ledger->place.lane, ledger->stream->spec->name,
		ledger->lease.state == SEGUE_LEASE_RESERVED
			? "reserved, after a restart of the server,"
			: "held",
		(long long)ledger->lease.holder.pid);
}

static void wait_for_lane(struct segue_attach *attach)
{
	struct segue_attach **link = &attach->ledger->waiting;

	while (*link)
		link = &(*link)->next;
	attach->next = NULL;
	*link = attach;
	struct segue_server *server = attach->ledger->stream->server;
	segue_loop_tick_within(server->loop, attach->deadline);
	if (server->storage_error && attach->ledger->lease.state == SEGUE_LEASE_ENDING)
		segue_committer_urge(server->committer); /* its verdict, or delayed() */
}

/* Whether the lease may yet end by its timeout; who asks then waits for that, and no longer. */
static bool wait_for_timeout(struct segue_attach *attach)
{
	const struct segue_grant *grant = attach->ledger->grant;

	if (!grant || grant->spec->lease_timeout_ms == 0)
		return false;
	int64_t timeout = grant->spec->lease_timeout_ms * INT64_C(1000000);
	int64_t until = segue_now_ns() + timeout + timeout / 4;
	if (until < attach->deadline)
		attach->deadline = until;
	return true;
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
	switch (segue_lease_ask(&ledger->lease, &attach->request, ledger->durable, token)) {
	case SEGUE_LEASE_GRANT:
		start_making(attach);
		break;
	case SEGUE_LEASE_WAIT:
		if (ledger->lease.state == SEGUE_LEASE_HELD && ledger->session == attach->session)
			refuse(attach, busy(ledger));
		else
			wait_for_lane(attach);
		break;
	case SEGUE_LEASE_BUSY:
		/* Its end may not have been told yet, or it may be one that is still. */
		if (segue_process_presence(&ledger->lease.holder) != SEGUE_PRESENCE_ALIVE ||
			wait_for_timeout(attach))
			wait_for_lane(attach);
		else
			refuse(attach, busy(ledger));
		break;
	case SEGUE_LEASE_REFUSED:
		refuse(attach,
			segue_fail(SEGUE_EFENCED,
				"lane %u of stream '%s' has passed to another holder since: what "
				"this "
				"worker committed after the last durable step is not part of its "
				"history. Go back to a checkpoint with load_state_dict()",
				ledger->place.lane, ledger->stream->spec->name));
		break;
	}
}

static void retry_waiting(struct segue_ledger *ledger)
{
	struct segue_attach *attach = ledger->waiting;

	/* A server that stops gives nobody a lane whose holder comes back to the next one. */
	if (!attach || ledger->stream->server->stopping)
		return;
	ledger->waiting = attach->next;
	ask(attach);
}

/* The ledger that a request means; `lease` not 0: the one that this session holds. */
static int find_place(struct segue_session *session, struct segue_opening *opening,
	const struct segue_message *message, struct segue_ledger **out)
{
	struct segue_stream *stream = opening->stream;
	uint32_t lane = message->lane_attach.lane;
	uint64_t lease = message->lane_attach.lease;
	struct segue_ledger *ledger;

	if (lane >= stream->spec->lanes)
		return segue_fail(SEGUE_EINVAL, "stream '%s' has lanes 0 to %u, not %u",
			stream->spec->name, stream->spec->lanes - 1, lane);
	if (message->lane_attach.group != 0)
		return segue_fail(SEGUE_EINVAL, "group %u: this version has one group, 0",
			message->lane_attach.group);
	if (stream->spec->persist) {
		ledger = &stream->ledgers[lane];
		put_in_use(ledger);
	} else {
		ledger = stream->in_use;
		while (ledger && (lease == 0 || ledger->lease_id != lease ||
					 ledger->session != session || ledger->place.lane != lane))
			ledger = ledger->next;
		if (!ledger)
			ledger = make_private(stream, lane);
	}
	if (!ledger)
		return segue_fail(SEGUE_ENOMEM, "no memory for a lane");
	*out = ledger;
	return 0;
}

/* A token that does not fit changes nothing: its holder keeps the lease that it has. */
static int check_token(const struct segue_attach *attach)
{
	const struct segue_stream *stream = attach->ledger->stream;
	struct segue_grant_order order = {
		.place = attach->ledger->place,
		.spec = attach->opening->spec,
		.plan = stream->plan,
		.fingerprint = {stream->fingerprint[0], stream->fingerprint[1]},
		.bulk = attach->bulk,
		.bulk_size = attach->bulk_size,
	};
	bool has_token = attach->request.mode == SEGUE_ATTACH_RESTORE ||
			 attach->request.mode == SEGUE_ATTACH_CHECK;

	order.plan.lane = attach->ledger->place.lane;
	return has_token ? segue_grant_check_token(&order) : 0;
}

static bool holds(const struct segue_attach *attach)
{
	const struct segue_ledger *ledger = attach->ledger;

	return attach->lease && ledger->lease_id == attach->lease &&
	       ledger->session == attach->session;
}

/* On a thread of the user's: the bytes may be many. */
static void load(struct segue_task *task)
{
	struct segue_attach *attach = attach_of_task(task);

	attach->rc = segue_upload_read(attach->upload, &attach->bulk, &attach->bulk_size);
	if (!attach->rc)
		attach->rc = check_token(attach);
	if (attach->rc)
		strncpy(attach->detail, segue_error_detail(), sizeof(attach->detail) - 1);
}

/* The request has all that came with it. */
static void loaded(struct segue_attach *attach)
{
	struct segue_server *server = attach->ledger->stream->server;
	int rc = attach->rc;

	if (!rc && server->stopping)
		rc = segue_fail(SEGUE_EGONE, "the server is being stopped");
	else if (rc)
		segue_fail(rc, "%s", attach->detail);
	if (rc || !attach->session) {
		refuse(attach, rc);
		return;
	}
	if (attach->request.mode == SEGUE_ATTACH_CHECK) {
		send_done(attach->session, attach->serial);
		drop_attach(attach);
		return;
	}
	if (holds(attach))
		end_lease(attach->ledger, false);
	ask(attach);
}

static void task_loaded(struct segue_task *task)
{
	struct segue_attach *attach = attach_of_task(task);
	struct segue_attach **link = &attach->ledger->loading;

	while (*link != attach)
		link = &(*link)->next;
	*link = attach->next;
	loaded(attach);
}

static void start_loading(struct segue_attach *attach)
{
	struct segue_ledger *ledger = attach->ledger;
	int rc = 0;

	if (attach->upload) {
		rc = segue_user_run(attach->user, &attach->task, load, task_loaded);
		if (rc) {
			refuse(attach, rc);
			return;
		}
		attach->next = ledger->loading;
		ledger->loading = attach;
		return;
	}
	rc = check_token(attach); /* of no bytes: quickly told */
	if (rc)
		refuse(attach, rc);
	else
		loaded(attach);
}

static int check_lanes(
	struct segue_session *session, const struct segue_ledger *ledger, uint64_t lease)
{
	bool again = lease && ledger->session == session && ledger->lease_id == lease;

	/* Who goes back in place gives one up for it. */
	return segue_limits_check(&session->server->options.limits, SEGUE_LIMIT_LANES,
		session->lanes, again ? 0 : 1, "this connection");
}

void segue_attach_request(struct segue_session *session, const struct segue_message *message,
	struct segue_upload *upload)
{
	struct segue_opening *opening = segue_opening_find(session, message->lane_attach.stream);
	struct segue_attach *attach = calloc(1, sizeof(*attach));
	struct segue_ledger *ledger = NULL;
	int64_t timeout = message->lane_attach.timeout_ns;
	int rc;

	if (!attach)
		rc = segue_fail(SEGUE_ENOMEM, "no memory for a lane");
	else if (!opening)
		rc = segue_fail(SEGUE_EPROTOCOL, "stream %llu is not open",
			(unsigned long long)message->lane_attach.stream);
	else
		rc = find_place(session, opening, message, &ledger);
	if (!rc && message->lane_attach.mode != SEGUE_ATTACH_CHECK)
		rc = check_lanes(session, ledger, message->lane_attach.lease);
	if (rc) {
		free(attach);
		segue_upload_destroy(upload);
		segue_session_fail(session, message->serial, rc);
		return;
	}
	if (timeout <= 0)
		timeout = DEFAULT_TIMEOUT_S * INT64_C(1000000000);
	int64_t now = segue_now_ns();
	*attach = (struct segue_attach){
		.ledger = ledger,
		.session = session,
		.opening = opening,
		.user = segue_user_hold(session->user),
		.lease = message->lane_attach.lease,
		.serial = message->serial,
		.deadline = timeout > INT64_MAX - now ? INT64_MAX : now + timeout,
		.request =
			{
				.holder = session->holder,
				.mode = message->lane_attach.mode,
				.step = message->lane_attach.step,
			},
		.upload = upload,
	};
	memcpy(attach->request.token, message->lane_attach.token, SEGUE_TOKEN_BYTES);
	opening->leases++;
	session->lanes++;
	start_loading(attach);
}

/* `ending`: also one that has ended, for a stop or by its timeout, and is being written. Or NULL. */
static struct segue_ledger *find_lease(struct segue_session *session, uint64_t lease, bool ending)
{
	for (struct segue_opening *opening = session->openings; opening;
		opening = opening->next_of_session) {
		struct segue_ledger *ledger = opening->answered ? opening->stream->in_use : NULL;
		for (; ledger; ledger = ledger->next) {
			bool is_over = ledger->lease.state == SEGUE_LEASE_ENDING &&
				       ledger->opening == opening && !ledger->detaching;
			if (ledger->lease_id == lease &&
				(ledger->session == session || (ending && is_over)))
				return ledger;
		}
	}
	return NULL;
}

/* The answer comes when the last commit is on disk: closing a lane means that. */
void segue_detach_request(struct segue_session *session, uint64_t serial, uint64_t lease)
{
	struct segue_ledger *ledger = find_lease(session, lease, true);

	if (ledger) {
		ledger->detaching = session;
		ledger->detach_serial = serial;
		end_lease(ledger, false);
	} else {
		send_done(session, serial);
	}
}

/* The transaction begins now; the lease page tells its end. */
void segue_flush_request(struct segue_session *session, uint64_t serial, uint64_t lease)
{
	const struct segue_ledger *ledger = find_lease(session, lease, false);

	if (ledger && ledger->stream->spec->persist) {
		segue_grant_remind(ledger->grant);
		segue_committer_flush(session->server->committer);
	}
	send_done(session, serial);
}

/* ---- All ledgers of a stream that are in use ---- */

static void each(
	struct segue_stream *stream, void (*fn)(struct segue_ledger *ledger, void *arg), void *arg)
{
	if (stream->state != SEGUE_STREAM_OPEN)
		return;
	for (struct segue_ledger *ledger = stream->in_use, *next; ledger; ledger = next) {
		next = ledger->next;
		fn(ledger, arg);
	}
}

static void session_gone(struct segue_ledger *ledger, void *arg)
{
	struct segue_session *session = arg;
	struct segue_attach **link = &ledger->waiting;

	while (*link) {
		struct segue_attach *attach = *link;
		if (attach->session == session) {
			*link = attach->next;
			drop_attach(attach); /* its opening is the session's still */
		} else {
			link = &attach->next;
		}
	}
	for (struct segue_attach *attach = ledger->loading; attach; attach = attach->next) {
		if (attach->session == session)
			attach->session = NULL;
	}
	if (ledger->detaching == session)
		ledger->detaching = NULL;
	if (ledger->making && ledger->making->session == session) {
		ledger->making->given_up = true;
		ledger->making->session = NULL;
	}
	if (ledger->session == session)
		end_lease(ledger, false);
}

void segue_ledgers_session_gone(struct segue_stream *stream, struct segue_session *session)
{
	each(stream, session_gone, session);
}

static void storage_changed(struct segue_ledger *ledger, void *arg)
{
	const struct segue_message *failure = arg;

	if (ledger->grant && ledger->stream->spec->persist)
		segue_grant_storage(ledger->grant, failure->failure.code, failure->failure.detail);
}

void segue_ledgers_storage(struct segue_stream *stream, int code, const char *detail)
{
	struct segue_message failure = {.failure = {.code = code, .detail = detail}};

	each(stream, storage_changed, &failure);
}

/* A request that another thread works for: it is answered now, and its result is of no use. */
static void abandon(struct segue_attach *attach)
{
	segue_session_fail(attach->session, attach->serial, SEGUE_EINVAL);
	attach->session->lanes--;
	attach->session = NULL;
	attach->given_up = true;
}

/* The client has closed the stream: what it has through this opening, and asks for, ends. */
static void opening_closed(struct segue_ledger *ledger, void *arg)
{
	struct segue_opening *opening = arg;
	struct segue_attach **link = &ledger->waiting;
	struct segue_session *session = opening->session;

	segue_fail(SEGUE_EINVAL, "the stream was closed");
	while (*link) {
		struct segue_attach *attach = *link;
		if (attach->opening == opening && attach->session == session) {
			*link = attach->next;
			refuse(attach, SEGUE_EINVAL);
		} else {
			link = &attach->next;
		}
	}
	for (struct segue_attach *attach = ledger->loading; attach; attach = attach->next) {
		if (attach->opening == opening && attach->session)
			abandon(attach);
	}
	if (ledger->making && ledger->making->opening == opening && ledger->making->session)
		abandon(ledger->making);
	if (ledger->opening == opening && ledger->session == session)
		end_lease(ledger, false);
}

void segue_ledgers_opening_closed(struct segue_opening *opening)
{
	each(opening->stream, opening_closed, opening);
}

struct clock {
	int64_t now, when;
};

/* One that wrote nonsense, or has been still for longer than its stream allows, loses the lane. */
static void look_at_holder(struct segue_ledger *ledger, struct clock *clock)
{
	struct segue_grant *grant = ledger->grant;
	int64_t timeout = grant->spec->lease_timeout_ms * INT64_C(1000000);
	bool over = false;

	pthread_mutex_lock(&grant->filler->lock);
	if (timeout)
		over = segue_carry_overdue(
			&grant->carry, grant->filler->feed.published, clock->now, timeout);
	bool broken = grant->carry.broken;
	pthread_mutex_unlock(&grant->filler->lock);
	if (over)
		fprintf(stderr,
			"segue: lane %u of stream '%s': process %lld has had a batch for %u ms "
			"(lease_timeout) and committed none: its lease is ended\n",
			ledger->place.lane, ledger->stream->spec->name,
			(long long)ledger->lease.holder.pid, grant->spec->lease_timeout_ms);
	if (over || broken) {
		end_lease(ledger, false);
	} else if (timeout) {
		int64_t again = clock->now + timeout / LOOKS_A_TIMEOUT + 1;
		clock->when = again < clock->when ? again : clock->when;
	}
}

static void look(struct segue_ledger *ledger, void *arg)
{
	struct clock *clock = arg;

	/* A look at a process is dear: only for those who wait. */
	if (ledger->lease.state == SEGUE_LEASE_RESERVED && ledger->waiting) {
		enum segue_presence presence = segue_process_presence(&ledger->lease.holder);
		segue_lease_expire(&ledger->lease, presence, clock->now);
	}
	if (ledger->lease.state == SEGUE_LEASE_FREE)
		retry_waiting(ledger);
	struct segue_attach **link = &ledger->waiting;
	while (*link) {
		struct segue_attach *attach = *link;
		if (clock->now < attach->deadline) {
			int64_t again = clock->now + RESERVATION_LOOK_MS * INT64_C(1000000);
			clock->when = again < clock->when ? again : clock->when;
			link = &attach->next;
			continue;
		}
		*link = attach->next;
		refuse(attach, busy(ledger));
	}
	if (ledger->lease.state == SEGUE_LEASE_HELD)
		look_at_holder(ledger, clock);
}

int64_t segue_ledgers_tick(struct segue_stream *stream, int64_t now)
{
	struct clock clock = {now, INT64_MAX};

	if (stream->state != SEGUE_STREAM_OPEN)
		return clock.when; /* its ledgers are being loaded, on another thread */
	each(stream, look, &clock);
	sweep(stream);
	return clock.when;
}

static void stop(struct segue_ledger *ledger, void *arg)
{
	bool *idle = arg;

	end_lease(ledger, true);
	if (ledger->making)
		ledger->making->given_up = true;
	if (ledger->grant)
		*idle = false;
}

bool segue_ledgers_stop(struct segue_stream *stream)
{
	bool idle = true;

	each(stream, stop, &idle);
	return idle;
}
