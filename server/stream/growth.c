/* A stream grows: asked for by an opening, stored by the committer, true from then on. */
#include "stream/growth.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/error.h"
#include "engine/committer.h"
#include "store/lanes.h"

struct growth {
	struct segue_change change;
	struct segue_stream *stream;
	uint64_t epochs;
	struct segue_ends ends; /* built: those that are stored then */
	void (*grown)(void *arg, int rc);
	void *arg;
};

int segue_growth_wanted(const struct segue_stream *stream, uint64_t epochs, bool again)
{
	struct segue_ends ends = stream->plan.ends;
	char text[2][24];

	/* It knew the stream before that grew: that it wants no more is no wish for less. */
	if (again && segue_ends_have(&ends, epochs))
		return 0;
	if (!stream->spec->persist && epochs != stream->spec->epochs)
		return segue_fail(SEGUE_ESPEC,
			"epochs: %s in use, %s asked for; a stream with persist=False cannot grow "
			"while somebody has it open: give another name, or close it first",
			segue_epochs_print(stream->spec->epochs, text[0]),
			segue_epochs_print(epochs, text[1]));
	return segue_ends_grow(&ends, epochs);
}

/* The stream's record, as it is or with the end that is asked for. */
static int put_record(
	struct growth *growth, struct segue_ops *ops, struct segue_stream_record *record)
{
	if (record->id != growth->stream->id)
		return segue_fail(SEGUE_EGONE,
			"the store has another stream of that name by now: open it again");
	int rc = segue_ends_grow(&record->ends, growth->epochs);
	if (rc < 0)
		return rc;
	growth->ends = record->ends;
	/* Else another opening has asked for the same. */
	return rc ? segue_lanes_put_stream(ops, record) : 0;
}

/* On the committer's thread. */
static int build(void *arg, struct segue_ops *ops)
{
	struct growth *growth = arg;
	const struct segue_stream *stream = growth->stream;
	struct segue_stream_record record;

	int rc = segue_lanes_load_stream(stream->server->store, stream->spec->name, &record);
	if (rc)
		return rc;
	rc = put_record(growth, ops, &record);
	segue_spec_destroy(record.spec);
	return rc ? segue_fail_within(rc, "stream '%s'", stream->spec->name) : 0;
}

static void stored(void *arg)
{
	struct growth *growth = arg;
	struct segue_stream *stream = growth->stream;

	segue_loop_arrive(stream->server->loop);
	if (!growth->change.outcome.rc && growth->ends.count > stream->plan.ends.count)
		stream->plan.ends = growth->ends;
	growth->grown(growth->arg, segue_outcome_give(&growth->change.outcome));
	free(growth);
}

int segue_growth_start(
	struct segue_stream *stream, uint64_t epochs, void (*grown)(void *arg, int rc), void *arg)
{
	struct segue_server *server = stream->server;
	struct growth *growth = calloc(1, sizeof(*growth));

	if (!growth)
		return segue_fail(SEGUE_ENOMEM, "no memory for a stream that grows");
	*growth = (struct growth){.stream = stream,
		.epochs = epochs,
		.grown = grown,
		.arg = arg,
		/* The place of all records of streams: a transaction changes one of them. */
		.change = {.build = build, .arg = growth}};
	segue_loop_await(server->loop);
	segue_changes_submit(segue_committer_changes(server->committer), &growth->change, stored);
	return 0;
}
