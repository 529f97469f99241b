/* States by record key: asked for, put, deleted. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/bulk.h"
#include "client/resume.h"
#include "core/error.h"
#include "core/keyed.h"

struct asking {
	struct segue_client *client;
	struct segue_message request;
	const void *states; /* put */
	size_t size;
	struct segue_answer answer;
};

static int fetch(void *arg)
{
	struct asking *asking = arg;

	return segue_client_fetch(
		asking->client, &asking->request, SEGUE_REQUEST_NS, &asking->answer);
}

/*
 * After a loss of the server a lane that is open here is reserved for this process, which is no
 * reason for the server to refuse: it is to know that the lane is held.
 */
static int take_lanes_again(struct segue_client *client, const char *stream)
{
	struct segue_lane *lane, *next;

	for (lane = client->lanes; lane; lane = next) {
		next = lane->next;
		if (lane->replica || segue_lane_is_lost(lane) || segue_lane_attached(lane) ||
			strcmp(segue_lane_spec(lane)->name, stream) != 0)
			continue;
		if (segue_track_open(&lane->track))
			return segue_fail(SEGUE_EBUSY,
				"stream '%s': no states can be put under a key, or deleted, while "
				"a batch of lane %u is open in this process (%ld), and its server "
				"was lost: commit or release it, and close its loader",
				stream, lane->index, (long)getpid());
		int rc = segue_lane_ready(lane);
		if (rc == SEGUE_EGONE)
			return rc; /* else it has lost the lane: then it does not hold it */
	}
	return 0;
}

/* A server that was lost may have done it: it says so the second time. */
static int change(void *arg)
{
	struct asking *asking = arg;
	struct segue_message *request = &asking->request;
	struct segue_reply reply;
	int rc = take_lanes_again(asking->client, request->states.stream);

	request->states.upload = 0;
	if (!rc && asking->size)
		rc = segue_client_upload_bytes(
			asking->client, asking->states, asking->size, &request->states.upload);
	if (rc)
		return rc;
	rc = segue_client_call(
		asking->client, request, SEGUE_MESSAGE_DONE, SEGUE_REQUEST_NS, &reply);
	request->states.again = true;
	return rc;
}

static int check_names(const char *stream, const char *group, const char *key)
{
	int rc = segue_name_check("name", stream, false);

	if (!rc && group)
		rc = segue_name_check("group", group, false);
	if (rc || !key)
		return rc;
	if (!*key || strlen(key) > SEGUE_KEY_MAX)
		return segue_fail(SEGUE_EINVAL,
			"a key of %zu bytes: that of a record has 1 to %d, such as "
			"data.tfrecord:4096",
			strlen(key), SEGUE_KEY_MAX);
	return 0;
}

static int ask(struct asking *asking, struct segue_client *client, const char *stream,
	const char *group, const char *key, int (*attempt)(void *arg))
{
	int rc = segue_fork_check(&client->connection.guard);

	if (!rc)
		rc = check_names(stream, group, key);
	if (rc)
		return rc;
	asking->client = client;
	asking->request.type = SEGUE_MESSAGE_STATES;
	asking->request.states.stream = stream;
	asking->request.states.group = group ? group : "";
	asking->request.states.key = key;
	return segue_client_run(client, INT64_MAX, attempt, asking);
}

/* ---- Reading ---- */

static int visit_answer(const struct segue_answer *answer, struct segue_keyed_head *head,
	segue_states_fn *visit, void *arg)
{
	const uint8_t *at = answer->bytes;
	size_t left = answer->size;
	struct segue_states states;
	int rc = 0;

	if (left < sizeof(*head))
		return segue_fail(SEGUE_EPROTOCOL, "an answer of %zu bytes", left);
	memcpy(head, at, sizeof(*head));
	at += sizeof(*head);
	left -= sizeof(*head);
	for (uint64_t i = 0; !rc && i < head->count; i++) {
		uint64_t size = segue_keyed_unpack(at, left, &states);
		if (!size)
			return segue_fail(SEGUE_EPROTOCOL, "an answer of states that is cut short");
		at += size;
		left -= size;
		rc = visit(arg, &states);
	}
	return rc;
}

int segue_states_get(struct segue_client *client, const char *stream, const char *group,
	const char *key, bool live, segue_states_fn *visit, void *arg)
{
	struct asking asking = {
		.request = {.states = {.what = SEGUE_STATES_REQUEST_GET, .live = live}}};
	struct segue_keyed_head head;

	if (!client || !stream || !key || !visit)
		return segue_fail(SEGUE_EINVAL, "a client, the name of a stream, a key, and states "
						"or a function are wanted");
	int rc = ask(&asking, client, stream, group, key, fetch);
	if (rc)
		return rc;
	rc = visit_answer(&asking.answer, &head, visit, arg);
	free(asking.answer.bytes);
	return rc;
}

int segue_states_list(struct segue_client *client, const char *stream, const char *group, bool live,
	struct segue_states_cursor *cursor, segue_states_fn *visit, void *arg)
{
	struct asking asking = {
		.request = {.states = {.what = SEGUE_STATES_REQUEST_LIST, .live = live}}};
	struct segue_keyed_head head;

	if (!client || !stream || !cursor || !visit)
		return segue_fail(SEGUE_EINVAL,
			"a client, the name of a stream, a cursor and a function are wanted");
	if (cursor->done)
		return 0;
	asking.request.states.lane = cursor->lane;
	memcpy(asking.request.states.at, cursor->at, sizeof(cursor->at));
	int rc = ask(&asking, client, stream, group, NULL, fetch);
	if (rc)
		return rc;
	rc = visit_answer(&asking.answer, &head, visit, arg);
	free(asking.answer.bytes);
	if (!rc)
		*cursor = (struct segue_states_cursor){
			head.done, head.lane, {head.at[0], head.at[1]}};
	return rc;
}

/* ---- Changing ---- */

int segue_states_put(struct segue_client *client, const char *stream, const char *group,
	const char *key, const void *states, size_t size)
{
	struct asking asking = {.request = {.states = {.what = SEGUE_STATES_REQUEST_PUT}},
		.states = states,
		.size = size};

	if (!client || !stream || !key || !states || size == 0)
		return segue_fail(SEGUE_EINVAL, "a client, the name of a stream, a key, and states "
						"or a function are wanted");
	return ask(&asking, client, stream, group, key, change);
}

int segue_states_delete(
	struct segue_client *client, const char *stream, const char *group, const char *key)
{
	struct asking asking = {.request = {.states = {.what = SEGUE_STATES_REQUEST_DELETE}}};

	if (!client || !stream || !key)
		return segue_fail(SEGUE_EINVAL, "a client, the name of a stream, a key, and states "
						"or a function are wanted");
	return ask(&asking, client, stream, group, key, change);
}
