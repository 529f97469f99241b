/* Leases that end: fenced, written, taken down. */
#include "stream/release.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "core/error.h"
#include "core/wait.h"
#include "engine/committer.h"
#include "store/store.h"
#include "stream/gather.h"
#include "stream/opening.h"
#include "stream/replica.h"
#include "stream/taker.h"

/* ---- Taking down ---- */

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
		segue_session_send_done(ledger->detaching, ledger->detach_serial);
		return;
	}
	int code = failure_of(grant, text);
	segue_fail(code,
		"lane %u of stream '%s' is given back at step %" PRIu64
		", what was committed after it is not on disk: %s",
		ledger->place.lane, ledger->stream->spec->name, grant->account.durable, text);
	segue_session_fail(ledger->detaching, ledger->detach_serial, code);
}

static void taken_down(void *arg)
{
	struct segue_ledger *ledger = arg;

	segue_loop_arrive(ledger->stream->server->loop);
	if (ledger->detaching)
		answer_detach(ledger);
	ledger->detaching = NULL;
	ledger->delayed = false;
	ledger->durable = ledger->grant->account.durable;
	ledger->durable_ms = ledger->grant->durable_ms;
	ledger->checkpoint_ms = ledger->grant->checkpoint_ms;
	ledger->sized = true;
	ledger->batch_size = ledger->grant->batch_size;
	if (ledger->stream->live)
		segue_live_leave(ledger->stream->live, &ledger->grant->carry);
	segue_taken_freed(ledger);
	segue_grant_destroy(ledger->grant);
	ledger->grant = NULL;
	if (ledger->feed)
		segue_feeds_end(ledger->feed);
	ledger->feed = NULL;
	segue_ledger_pay_back(ledger);
	ledger->opening->uses--;
	ledger->opening = NULL;
	segue_lease_taken(&ledger->lease);
	/* Whom nobody asks for any more, others do not wait for. */
	if (TAILQ_EMPTY(&ledger->waiting) && TAILQ_EMPTY(&ledger->loading))
		segue_gather_settle(ledger);
}

static void post_taken_down(void *arg)
{
	struct segue_ledger *ledger = arg;

	segue_loop_post(ledger->stream->server->loop, taken_down, ledger);
}

static void take_down(struct segue_ledger *ledger)
{
	if (!ledger->written || ledger->pins > 0)
		return;
	ledger->written = false;
	if (segue_feeds_leave(ledger->feed, ledger->grant)) {
		segue_filler_close(ledger->grant->filler, post_taken_down, ledger);
		return;
	}
	ledger->feed = NULL;
	taken_down(ledger);
}

/* The last commit is on disk, or never will be. */
static void written(void *arg)
{
	struct segue_ledger *ledger = arg;

	ledger->stream->server->unwritten_ns = 0;
	ledger->written = true;
	take_down(ledger);
}

int segue_ledger_fail_unwritten(const struct segue_ledger *ledger)
{
	char text[SEGUE_ERROR_TEXT];
	int code = failure_of(ledger->grant, text);

	if (code == SEGUE_EMOVED)
		return segue_fail(code, "what lane %u of stream '%s' has stored is not found: %s",
			ledger->place.lane, ledger->stream->spec->name, text);
	return segue_fail(code,
		"the last commits of lane %u of stream '%s' are not on disk, and nobody can take "
		"it before they are: %s. The server goes on trying as long as it runs",
		ledger->place.lane, ledger->stream->spec->name, text);
}

/* The last commit cannot be written for now: those who wait for it are told at once. */
static void delayed(void *arg)
{
	struct segue_ledger *ledger = arg;
	struct segue_server *server = ledger->stream->server;

	if (!server->unwritten_ns)
		server->unwritten_ns = segue_now_ns();
	if (ledger->detaching)
		segue_session_fail(ledger->detaching, ledger->detach_serial,
			segue_ledger_fail_unwritten(ledger));
	ledger->detaching = NULL;
	ledger->delayed = true; /* the tick that follows tells those who wait for the lane */
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

void segue_ledger_end(struct segue_ledger *ledger, bool held)
{
	struct segue_server *server = ledger->stream->server;
	struct segue_grant *grant = ledger->grant;

	if (!segue_lease_end(&ledger->lease))
		return;
	segue_loop_remove(server->loop, &ledger->event);
	segue_replicas_end(ledger);
	if (ledger->session)
		ledger->session->lanes--;
	ledger->session = NULL;
	pthread_mutex_lock(&grant->filler->lock);
	if (!held)
		segue_carry_fence(&grant->carry);
	segue_feed_ring(&grant->filler->feed);
	pthread_mutex_unlock(&grant->filler->lock);
	segue_loop_await(server->loop);
	if (ledger->stream->spec->persist)
		segue_committer_finish(server->committer, grant, held, written, delayed, ledger);
	else
		written(ledger);
}

/* ---- Requests ---- */

/*
 * `ending`: also one that has ended, for a stop or by its timeout, and is being written. Or NULL.
 */
static struct segue_ledger *find_lease(
	const struct segue_session *session, uint64_t lease, bool ending)
{
	const struct segue_opening *opening;
	struct segue_ledger *ledger;

	LIST_FOREACH(opening, &session->openings, of_session) {
		if (!opening->answered)
			continue;
		LIST_FOREACH(ledger, &opening->stream->ledgers.in_use, link) {
			bool is_over = ledger->lease.state == SEGUE_LEASE_ENDING &&
				       ledger->opening == opening && !ledger->detaching;
			if (ledger->lease_id == lease &&
				(ledger->session == session || (ending && is_over)))
				return ledger;
		}
	}
	return NULL;
}

void segue_detach_request(struct segue_session *session, const struct segue_message *message)
{
	struct segue_ledger *ledger = find_lease(session, message->lane_detach.lease, true);

	if (ledger) {
		ledger->detaching = session;
		ledger->detach_serial = message->serial;
		segue_ledger_end(ledger, false);
	} else {
		segue_replicas_give_back(session, message->lane_detach.lease);
		segue_session_send_done(session, message->serial);
	}
}

void segue_flush_request(struct segue_session *session, const struct segue_message *message)
{
	const struct segue_ledger *ledger = find_lease(session, message->lane_flush.lease, false);
	int rc = 0;

	if (ledger && ledger->stream->spec->persist) {
		rc = segue_store_look(session->server->store);
		segue_grant_remind(ledger->grant);
		if (rc || segue_grant_owes(ledger->grant))
			segue_committer_flush(session->server->committer);
	}
	if (rc)
		segue_session_fail(session, message->serial, rc);
	else
		segue_session_send_done(session, message->serial);
}

void segue_side_request(struct segue_session *session, const struct segue_message *message)
{
	uint64_t lease = message->lane_side.lease;
	const struct segue_ledger *ledger = find_lease(session, lease, false);
	struct segue_message bulk = {
		.type = SEGUE_MESSAGE_BULK, .serial = message->serial, .bulk = {.step = 0}};
	int fd, rc;

	if (!ledger)
		ledger = segue_replicas_find(session, lease);
	if (!ledger) {
		rc = segue_fail(SEGUE_EGONE, "the lease is over");
	} else {
		struct segue_filler *filler = ledger->grant->filler;

		rc = segue_sides_get(&filler->sides,
			(uint32_t)(message->lane_side.step % filler->geometry.depth), &fd,
			&bulk.bulk.id, &bulk.bulk.size);
	}
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		return;
	}
	segue_session_send(session, &bulk, &fd, 1);
	close(fd);
}
