/* BATCHES: counted by the plan on a thread of the user's, from the lengths in the index. */
#include "report/batches.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "report/json.h"
#include "session/request.h"
#include "source/source.h"
#include "stream/opening.h"

struct batches_request {
	struct segue_request base;
	struct segue_opening *opening; /* used */
	struct segue_plan_spec plan;
	char *text;
};

static int count(struct segue_request *base)
{
	struct batches_request *request = (struct batches_request *)base;
	struct segue_json json = {0};
	const uint32_t *lengths;

	uint64_t *steps = calloc(request->plan.lanes, sizeof(*steps));
	if (!steps)
		return segue_fail(SEGUE_ENOMEM, "no memory for the batches of each lane");
	int rc = segue_source_lengths(request->opening->stream->source, NULL, NULL, &lengths);
	if (!rc)
		rc = segue_plan_count(&request->plan, lengths, &base->given_up, steps);
	if (!rc) {
		segue_json_begin(&json, NULL, '{');
		segue_json_begin(&json, "batches", '[');
		for (uint32_t lane = 0; lane < request->plan.lanes; lane++)
			segue_json_unsigned(&json, NULL, steps[lane]);
		segue_json_end(&json, ']');
		segue_json_end(&json, '}');
		rc = segue_json_take(&json, &request->text);
	}
	free(steps);
	return rc;
}

static void answer(struct segue_task *task)
{
	struct batches_request *request = (struct batches_request *)task;

	if (!segue_request_is_over(&request->base))
		segue_session_send_bulk(request->base.session, request->base.serial, request->text,
			strlen(request->text));
	segue_request_end(&request->base);
	request->opening->uses--;
	free(request->text);
	free(request);
}

static struct segue_opening *find_opening(struct segue_session *session, const char *name)
{
	struct segue_opening *opening;

	LIST_FOREACH(opening, &session->openings, of_session) {
		if (opening->answered && strcmp(opening->stream->spec->name, name) == 0)
			break;
	}
	return opening;
}

/* Whether lengths are at hand, and have an end. */
static int check(const struct segue_opening *opening)
{
	if (!opening)
		return segue_fail(SEGUE_EINVAL, "this client does not have it open");
	struct segue_plan_spec plan = segue_stream_plan(opening->stream, 0);
	int rc = segue_plan_check_countable(&plan);
	if (!rc && !segue_source_has_lengths(opening->stream->source))
		return segue_fail(
			SEGUE_EINVAL, "its data must be read to know the lengths of its sequences");
	return rc;
}

void segue_report_batches(struct segue_session *session, const struct segue_message *message)
{
	const char *name = message->report.stream;
	struct segue_opening *opening = find_opening(session, name);
	struct batches_request *request = NULL;

	int rc = check(opening);
	if (!rc && !(request = calloc(1, sizeof(*request))))
		rc = segue_fail(SEGUE_ENOMEM, "no memory for a report");
	if (!rc) {
		request->base.is_long = true;
		request->opening = opening;
		request->plan = segue_stream_plan(opening->stream, 0);
		rc = segue_request_run(&request->base, session, message->serial, count, answer);
	}
	if (!rc) {
		opening->uses++;
		return;
	}
	free(request);
	segue_session_fail(
		session, message->serial, segue_fail_within(rc, "batches of stream '%s'", name));
}
