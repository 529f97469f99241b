/* Openings: made, answered, left. */
#include "stream/opening.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "stream/growth.h"

/* ---- Life ---- */

void segue_openings_judge(struct segue_stream *stream)
{
	const struct segue_opening *opening;

	LIST_FOREACH(opening, &stream->openings, of_stream) {
		if (opening->session)
			break;
	}
	atomic_store_explicit(
		&stream->given_up, !opening || stream->server->stopping, memory_order_relaxed);
}

int segue_opening_create(struct segue_stream *stream, const struct segue_opening_order *order,
	struct segue_opening **out)
{
	struct segue_session *session = order->session;
	struct segue_opening *opening = calloc(1, sizeof(*opening));

	if (!opening)
		return segue_fail(SEGUE_ENOMEM, "no memory for a stream");
	*opening = (struct segue_opening){
		.id = ++session->server->last_id,
		.stream = stream,
		.session = session,
		.spec = order->spec,
		.serial = order->serial,
		.again = order->again,
	};
	LIST_INSERT_HEAD(&stream->openings, opening, of_stream);
	LIST_INSERT_HEAD(&session->openings, opening, of_session);
	segue_openings_judge(stream);
	*out = opening;
	return 0;
}

void segue_opening_leave(struct segue_opening *opening)
{
	LIST_REMOVE(opening, of_session);
	opening->session = NULL;
	segue_openings_judge(opening->stream);
}

void segue_openings_sweep(struct segue_stream *stream)
{
	struct segue_opening *opening, *next;

	LIST_FOREACH_SAFE(opening, &stream->openings, of_stream, next) {
		if (opening->session || opening->uses > 0)
			continue;
		LIST_REMOVE(opening, of_stream);
		segue_spec_destroy(opening->spec);
		free(opening);
	}
}

int segue_opening_find(struct segue_session *session, uint64_t id, struct segue_opening **out)
{
	struct segue_opening *opening;

	LIST_FOREACH(opening, &session->openings, of_session) {
		if (opening->id == id && opening->answered)
			break;
	}
	if (!opening)
		return segue_fail(SEGUE_EPROTOCOL, "stream %" PRIu64 " is not open", id);
	*out = opening;
	return 0;
}

/* ---- Answers ---- */

/*
 * The spec's hash leaves the paths out: the data set is known by its fingerprint. But while a
 * stream is open nobody looks at other files that are asked for, so they must not differ.
 */
static int compare_list(const struct segue_paths *a, const struct segue_paths *b)
{
	for (size_t i = 0; i < a->count || i < b->count; i++) {
		const char *ours = i < a->count ? a->path[i] : "(none)";
		const char *theirs = i < b->count ? b->path[i] : "(none)";
		if (strcmp(ours, theirs) != 0)
			return segue_fail(SEGUE_ESPEC,
				"source.paths[%zu]: %s in use, %s asked for; all who have the "
				"stream open at one time must give the same paths",
				i, ours, theirs);
	}
	return 0;
}

/* Here and below, both have the same parts, of the same kinds: their specs are equal. */
static int compare_indexes(const struct segue_spec *open, const struct segue_spec *asked)
{
	const struct segue_spec_source *ours, *theirs;

	for (size_t i = 0; (ours = segue_source_plain(&open->source, i)) &&
			   (theirs = segue_source_plain(&asked->source, i));
		i++)
		if (segue_source_index(ours) && !segue_array_index_equal(*segue_source_index(ours),
							*segue_source_index(theirs)))
			return segue_source_fail_within(&open->source, i,
				segue_fail(SEGUE_ESPEC,
					"source: other arrays or sequences in these files are in "
					"use than those asked for; all who have the stream open at "
					"one time must give the same"));
	return 0;
}

static int compare_paths(const struct segue_spec *open, const struct segue_spec *asked)
{
	const struct segue_paths *a, *b;
	int rc = 0;

	for (size_t i = 0; !rc && (a = segue_source_list(&open->source, i)) &&
			   (b = segue_source_list(&asked->source, i));
		i++)
		rc = compare_list(a, b);
	return rc;
}

/* Whether this is the stream that is asked for: 0; 1, when it has grown; or a code. */
static int compare(const struct segue_opening *opening)
{
	const struct segue_stream *stream = opening->stream;

	int rc = segue_spec_compare(stream->spec, opening->spec);
	if (!rc)
		rc = compare_paths(stream->spec, opening->spec);
	if (!rc)
		rc = compare_indexes(stream->spec, opening->spec);
	if (!rc)
		rc = segue_growth_wanted(stream, opening->spec->epochs, opening->again);
	return rc < 0 ? segue_fail_within(rc, "stream '%s'", stream->spec->name) : rc;
}

/* Tells a session what its stream is; the runtime options are its own, so the geometry is too. */
static int tell_opened(struct segue_opening *opening)
{
	struct segue_stream *stream = opening->stream;
	uint32_t key_max = stream->source->ops->key_max(stream->source);
	struct segue_geometry geometry;

	int rc = segue_geometry_init(opening->spec, opening->spec->batch_size, key_max, &geometry);
	if (rc)
		return rc;
	/* What was asked for is there; tokens belong to the stream as it was made. */
	opening->spec->epochs = stream->spec->epochs;
	opening->ends = stream->plan.ends.count;
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_OPENED,
		.serial = opening->serial,
		.opened =
			{
				.stream = opening->id,
				.records = stream->plan.records,
				.layout_hash = geometry.hash,
				.key_max = key_max,
			},
	};
	segue_geometry_finish(&geometry);
	segue_session_send(opening->session, &message, NULL, 0);
	return 0;
}

static void grown(void *arg, int rc)
{
	struct segue_opening *opening = arg;

	opening->uses--;
	if (opening->session)
		segue_opening_answer(opening, rc);
}

void segue_opening_answer(struct segue_opening *opening, int rc)
{
	if (!rc)
		rc = compare(opening);
	if (rc == 1) {
		rc = segue_growth_start(opening->stream, opening->spec->epochs, grown, opening);
		if (!rc) {
			opening->uses++; /* until it has grown */
			return;
		}
	}
	opening->answered = true;
	if (!rc)
		rc = tell_opened(opening);
	if (!rc)
		return;
	segue_session_fail(opening->session, opening->serial, rc);
	segue_opening_leave(opening);
}
