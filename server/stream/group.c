/* Groups: found, or made by the committer. */
#include "stream/group.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/error.h"
#include "core/wait.h"
#include "engine/committer.h"
#include "engine/live.h"
#include "session/request.h"
#include "store/groups.h"
#include "stream/drop.h"
#include "stream/opening.h"

struct making {
	struct segue_request base;
	struct segue_change change;
	struct segue_opening *opening; /* used */
	struct segue_group group;
	struct segue_account *account; /* has paid for it: held */
	uint64_t memory;
};

static void send(struct segue_session *session, uint64_t serial, uint32_t number)
{
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_GROUPED, .serial = serial, .grouped = {.group = number}};

	segue_session_send(session, &message, NULL, 0);
}

/* A group begins with sequence 0: that must be there, also when the transaction is on disk. */
static int check_log(const struct segue_stream *stream, const char *name)
{
	uint64_t first = stream->live ? segue_live_first(stream->live) : 0;

	if (first == 0)
		return 0;
	return segue_fail(SEGUE_ESTART,
		"group '%s' would begin with sequence 0 of stream '%s', and the log has given up "
		"those before %" PRIu64
		": make all groups before the first of them has gone on, or retain more",
		name, stream->spec->name, first);
}

/* On the committer's thread. Another session may have asked for the same. */
static int build(void *arg, struct segue_ops *ops)
{
	struct making *making = arg;
	const struct segue_stream *stream = making->opening->stream;
	struct segue_groups groups;

	int rc = segue_groups_load(stream->server->store, stream->id, &groups);
	if (rc)
		return rc;
	const struct segue_group *there = segue_groups_find(&groups, making->group.name);
	if (there)
		making->group = *there;
	else if (groups.count > SEGUE_GROUPS_MAX)
		rc = segue_fail(SEGUE_ELIMIT,
			"group '%s': stream '%s' has %d already, which is the most; drop one that "
			"is not needed",
			making->group.name, stream->spec->name, SEGUE_GROUPS_MAX);
	else
		rc = check_log(stream, making->group.name);
	if (!rc && !there)
		rc = segue_groups_put(ops, stream->id, &groups, &making->group);
	segue_groups_finish(&groups);
	return rc;
}

static int load(struct making *making)
{
	struct segue_stream *stream = making->opening->stream;

	int rc = segue_ledgers_load(&stream->ledgers, stream->server->store, stream->id,
		&making->group, segue_now_ns());
	if (rc)
		return rc;
	segue_ledger_group_own(
		LIST_FIRST(&stream->ledgers.groups), making->account, making->memory);
	making->memory = 0;
	return 0;
}

/* What is not the group's by now is given back. */
static void destroy_account(struct making *making)
{
	segue_account_give(making->account, SEGUE_LIMIT_MEMORY, making->memory);
	segue_account_release(making->account);
}

static void stored(void *arg)
{
	struct making *making = arg;
	struct segue_stream *stream = making->opening->stream;
	struct segue_session *session = making->base.session;
	int rc = segue_outcome_give(&making->change.outcome);

	segue_loop_arrive(stream->server->loop);
	if (!rc && stream->live)
		rc = segue_live_add_group(stream->live, making->group.number);
	if (!rc && !segue_ledgers_find_group(&stream->ledgers, making->group.name))
		rc = load(making);
	destroy_account(making);
	stream->makings--;
	if (session && rc)
		segue_session_fail(session, making->base.serial, rc);
	else if (session)
		send(session, making->base.serial, making->group.number);
	making->opening->uses--;
	segue_request_end(&making->base);
	free(making);
}

static int check(const struct segue_stream *stream, const char *name)
{
	int rc = segue_drop_check_stream(stream);

	if (!rc)
		rc = segue_name_check("group", name, false);
	if (!rc)
		rc = segue_drops_check(stream->server, stream->spec->name, name);
	if (rc)
		return rc;
	if (!stream->spec->persist)
		return segue_fail(SEGUE_EINVAL,
			"group '%s': with persist=False nothing is shared: each loader has its own "
			"position and states, and needs no group",
			name);
	return 0;
}

static int make(struct segue_session *session, const struct segue_message *message,
	struct segue_opening *opening)
{
	struct segue_server *server = session->server;
	struct making *making = calloc(1, sizeof(*making));

	if (!making)
		return segue_fail(SEGUE_ENOMEM, "no memory for a group");
	making->memory = segue_ledger_group_size(opening->stream->ledgers.lanes);
	int rc = segue_account_take(session->account, SEGUE_LIMIT_MEMORY, making->memory);
	if (rc) {
		free(making);
		return rc;
	}
	making->account = segue_account_hold(session->account);
	rc = segue_request_begin(&making->base, session, message->serial);
	if (rc) {
		destroy_account(making);
		free(making);
		return rc;
	}
	snprintf(making->group.name, sizeof(making->group.name), "%s", message->group.name);
	making->opening = opening;
	opening->uses++;
	opening->stream->makings++;
	/* Of all lanes: a log that gives something up knows of the group, or the group of that. */
	making->change = (struct segue_change){
		.place = {.stream = opening->stream->id, .lane = SEGUE_LANES_ALL},
		.build = build,
		.arg = making};
	segue_loop_await(server->loop);
	segue_changes_submit(segue_committer_changes(server->committer), &making->change, stored);
	return 0;
}

void segue_group_request(struct segue_session *session, const struct segue_message *message)
{
	struct segue_opening *opening;

	int rc = segue_opening_find(session, message->group.stream, &opening);
	if (!rc)
		rc = check(opening->stream, message->group.name);
	if (!rc) {
		const struct segue_ledger_group *group =
			segue_ledgers_find_group(&opening->stream->ledgers, message->group.name);
		if (group) {
			send(session, message->serial, group->number);
			return;
		}
		rc = make(session, message, opening);
	}
	if (rc)
		segue_session_fail(session, message->serial, rc);
}
