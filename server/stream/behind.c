/* What inserts, and those who read, wait for, in words. */
#include "stream/behind.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "engine/live.h"
#include "stream/drop.h"
#include "stream/opening.h"

enum { HOLDER_TEXT = 80, BEHIND_TEXT = HOLDER_TEXT + SEGUE_NAME_MAX + 100 };

static void put_holder(const struct segue_ledger *ledger, char text[HOLDER_TEXT])
{
	int64_t pid = ledger->lease.holder.pid;

	switch (ledger->lease.state) {
	case SEGUE_LEASE_FREE:
		snprintf(text, HOLDER_TEXT, "nobody holds it");
		break;
	case SEGUE_LEASE_RESERVED:
		snprintf(text, HOLDER_TEXT, "process %" PRId64 " held it last", pid);
		break;
	case SEGUE_LEASE_GRANTING:
	case SEGUE_LEASE_HELD:
	case SEGUE_LEASE_ENDING:
		snprintf(text, HOLDER_TEXT, "process %" PRId64 " holds it", pid);
		break;
	}
}

/* Whether all have as much as they may, and which has most. */
static bool are_full(const struct segue_live_look *look, uint32_t lanes, uint32_t *behind)
{
	const struct segue_backlog_limits any = {0, 0};
	const struct segue_backlog_limits limits = {look->limits.capacity, UINT64_MAX};

	return segue_backlog_is_full(&any, look->unfinished, lanes, 0, behind) &&
	       segue_backlog_is_full(&limits, look->unfinished, lanes, 0, behind);
}

/* The lane, the group that is furthest behind in it, by how much, and who has it. */
static void put_behind(
	const struct segue_stream *stream, uint32_t lane, const char *unit, char text[BEHIND_TEXT])
{
	const struct segue_ledger_group *group, *last = NULL;
	char holder[HOLDER_TEXT];
	uint64_t most = 0;

	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		uint64_t behind = segue_live_behind(stream->live, group->number, lane);
		if (last && behind <= most)
			continue;
		last = group;
		most = behind;
	}
	put_holder(&last->of_lane[lane], holder);
	snprintf(text, BEHIND_TEXT,
		"lane %" PRIu32 "%s%s%s is furthest behind, by %" PRIu64 "%s, and %s", lane,
		*last->name ? " of group '" : "", last->name, *last->name ? "'" : "", most, unit,
		holder);
}

static int fail_slow(void)
{
	return segue_fail(
		SEGUE_ETIMEOUT, "no lane has too much before it: the server, or its disk, is slow");
}

static int fail(const struct segue_stream *stream, const struct segue_live_look *look)
{
	char text[BEHIND_TEXT];
	uint32_t behind = 0;

	bool full = are_full(look, stream->spec->lanes, &behind);
	if (!full && look->log.bytes < look->limits.spool)
		return fail_slow(); /* room has come since it waited */
	put_behind(stream, behind, full ? "" : " sequences", text);
	if (full)
		return segue_fail(SEGUE_ETIMEOUT,
			"every lane has `capacity` (%" PRIu64 ") sequences before it, or more: %s",
			look->limits.capacity, text);
	return segue_fail(SEGUE_ETIMEOUT,
		"what the lanes have not finished takes `spool` (%" PRIu64
		") bytes of the log, or more: %s",
		look->limits.spool, text);
}

static void pass_over(void *arg, const struct segue_producer *producer)
{
	(void)arg;
	(void)producer;
}

int segue_behind_fail(const struct segue_stream *stream)
{
	if (!segue_inserter_look(segue_live_inserter(stream->live), pass_over, NULL))
		return fail_slow();
	struct segue_live_look *look = segue_live_look(stream->live);
	int rc = look ? fail(stream, look)
		      : segue_fail(SEGUE_ETIMEOUT, "no memory for %" PRIu32 " lanes",
				stream->spec->lanes);
	free(look);
	return rc;
}

/* ---- Input ---- */

int segue_input_find(struct segue_session *session, uint64_t id, struct segue_opening **opening)
{
	int rc = segue_opening_find(session, id, opening);

	if (!rc)
		rc = segue_drop_check_stream((*opening)->stream);
	if (!rc && session->server->stopping)
		rc = segue_fail(SEGUE_EGONE, "the server is being stopped");
	if (!rc && !(*opening)->stream->live)
		rc = segue_fail(SEGUE_EINVAL,
			"stream '%s' reads what is there: sequences are inserted into one whose "
			"source is a log (segue.Push, SEGUE_SOURCE_LOG)",
			(*opening)->stream->spec->name);
	return rc;
}

void segue_input_goes_on(struct segue_stream *stream)
{
	free(stream->input_failure);
	stream->input_failure = NULL;
}

void segue_input_failed_request(struct segue_session *session, const struct segue_message *message)
{
	struct segue_opening *opening;
	char *failure = NULL;
	int rc = segue_input_find(session, message->input_failed.stream, &opening);

	if (!rc && !(failure = strdup(message->input_failed.reason)))
		rc = segue_fail(SEGUE_ENOMEM, "no memory for why nobody inserts");
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		return;
	}
	segue_input_goes_on(opening->stream);
	opening->stream->input_failure = failure;
	segue_session_send_done(session, message->serial);
}
