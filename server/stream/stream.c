/* Streams: what they are made of, and what that takes of an account. */
#include "stream/stream.h"

#include <malloc.h>
#include <stdlib.h>

#include "core/error.h"
#include "source/kinds.h"

/* ---- What a stream takes ---- */

/* What the stream takes of its account from now on. SEGUE_ELIMIT: nothing. */
static int charge(struct segue_stream *stream, enum segue_limit limit, uint64_t amount)
{
	segue_account_give(stream->account, limit, stream->taken[limit]);
	stream->taken[limit] = 0;
	int rc = segue_sessions_take(stream->server, stream->account, limit, amount);
	if (!rc)
		stream->taken[limit] = amount;
	return rc;
}

/* Bytes of the tables that have a place for each lane. */
static uint64_t size_of_lanes(const struct segue_spec *spec)
{
	return spec->persist ? spec->lanes * sizeof(struct segue_ledger) : 0;
}

/* Before it is opened: what it may take at most, but for the index, of which nothing is known. */
static int pay_ahead(struct segue_stream *stream)
{
	const struct segue_spec *spec = stream->spec;

	int rc = charge(stream, SEGUE_LIMIT_THREADS, spec->num_threads);
	if (!rc)
		rc = charge(stream, SEGUE_LIMIT_MEMORY, size_of_lanes(spec));
	return rc ? rc
		  : charge(stream, SEGUE_LIMIT_DESCRIPTORS,
			    segue_source_driver(spec)->descriptors(spec));
}

/* The groups that it has, but for the one that every stream has: that is paid for ahead. */
static int pay_for_groups(struct segue_stream *stream)
{
	uint64_t memory = segue_ledger_group_size(stream->ledgers.lanes);
	struct segue_ledger_group *group;

	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		int rc = group->number == 0
				 ? 0
				 : segue_account_take(stream->account, SEGUE_LIMIT_MEMORY, memory);
		if (rc)
			return rc;
		if (group->number)
			segue_ledger_group_own(group, stream->account, memory);
	}
	return 0;
}

int segue_stream_pay_for_source(struct segue_stream *stream)
{
	struct segue_source_stats stats;

	segue_source_stats(stream->source, &stats);
	int rc = charge(stream, SEGUE_LIMIT_DESCRIPTORS, stats.descriptors);
	if (!rc)
		rc = charge(stream, SEGUE_LIMIT_MEMORY,
			size_of_lanes(stream->spec) + stats.index_memory);
	return rc ? rc : pay_for_groups(stream);
}

/* ---- Life ---- */

int segue_stream_create(
	struct segue_session *session, const struct segue_spec *spec, struct segue_stream **out)
{
	struct segue_server *server = session->server;
	const struct segue_pool_options options = {
		.name = "loader", .threads = spec->num_threads, .loop = server->loop};
	struct segue_stream *stream = calloc(1, sizeof(*stream));
	int rc;

	if (!stream)
		return segue_fail(SEGUE_ENOMEM, "no memory for a stream");
	stream->server = server;
	stream->ledgers.stream = stream;
	stream->feeds.loop = stream->server->loop;
	stream->account = segue_account_hold(session->account);
	if ((rc = segue_spec_copy(spec, &stream->spec)) || (rc = pay_ahead(stream)) ||
		(rc = segue_pool_create(&options, &stream->pool))) {
		segue_stream_destroy(stream);
		return rc;
	}
	stream->id = server->streams->next_id++;
	LIST_INSERT_HEAD(&server->streams->all, stream, link);
	*out = stream;
	return 0;
}

struct segue_plan_spec segue_stream_plan(const struct segue_stream *stream, uint32_t lane)
{
	struct segue_plan_spec plan = stream->plan;

	plan.lane = lane;
	if (stream->live)
		plan.records = stream->source->ops->records(stream->source);
	return plan;
}

void segue_stream_destroy(struct segue_stream *stream)
{
	if (stream->live) /* before the threads that it gives work to */
		segue_live_stop(stream->live);
	segue_pool_destroy(stream->pool);
	segue_ledgers_finish(&stream->ledgers);
	if (stream->source)
		stream->source->ops->destroy(stream->source);
	segue_live_close(stream->live);
	segue_spec_destroy(stream->spec);
	free(stream->input_failure);
	for (unsigned i = 0; i < SEGUE_LIMIT_COUNT; i++)
		segue_account_give(stream->account, i, stream->taken[i]);
	segue_account_release(stream->account);
	free(stream);
	malloc_trim(0); /* its threads have left holes in their arenas */
}
