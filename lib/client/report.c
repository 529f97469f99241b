/* What a client asks of the store as a whole: reports, the checkpoints in it, streams to drop,
 * what was inserted. */
#include "client/bulk.h"
#include "client/takeover.h"
#include "core/error.h"

/* A request, and the bytes of its answer; a removal has none. */
struct asking {
	struct segue_client *client;
	struct segue_message request;
	int64_t timeout_ns;
	struct segue_answer answer;
};

static int attempt_ask(void *arg)
{
	struct asking *asking = arg;
	struct segue_message *request = &asking->request;
	struct segue_reply reply;

	if (request->type == SEGUE_MESSAGE_STORED && request->stored.remove)
		return segue_client_call(
			asking->client, request, SEGUE_MESSAGE_DONE, asking->timeout_ns, &reply);
	return segue_client_fetch(asking->client, request, asking->timeout_ns, &asking->answer);
}

int segue_client_report(struct segue_client *client, enum segue_report what, const char *stream,
	const char *key, char **json)
{
	if (!client || !json)
		return segue_fail(SEGUE_EINVAL, "segue_client_report wants a client and a place "
						"for the text");
	int rc = segue_fork_check(&client->connection.guard);
	if (rc)
		return rc;
	if (what < SEGUE_REPORT_STATUS || what > SEGUE_REPORT_BATCHES)
		return segue_fail(SEGUE_EINVAL, "there is no report %d", (int)what);
	if (what == SEGUE_REPORT_GET && (!key || !*key))
		return segue_fail(SEGUE_EINVAL,
			"the key is empty: give that of a record, such as data.tfrecord:4096");
	struct asking asking = {
		.client = client,
		.request = {.type = SEGUE_MESSAGE_REPORT,
			.report = {.what = what,
				.stream = stream ? stream : "",
				.key = key ? key : ""}},
		/* Checking every value takes as long as it takes. */
		.timeout_ns = what == SEGUE_REPORT_VERIFY ? INT64_MAX : SEGUE_REQUEST_NS,
	};
	rc = segue_client_run(client, INT64_MAX, attempt_ask, &asking);
	if (!rc)
		*json = asking.answer.bytes;
	return rc;
}

static int ask_stored(
	struct asking *asking, struct segue_client *client, const char *stream, const char *group)
{
	if (!client || !stream)
		return segue_fail(SEGUE_EINVAL, "a client and the name of a stream are wanted");
	int rc = segue_fork_check(&client->connection.guard);
	if (!rc && group)
		rc = segue_name_check("group", group, false);
	if (rc)
		return rc;
	asking->client = client;
	asking->request.type = SEGUE_MESSAGE_STORED;
	asking->request.stored.stream = stream;
	asking->request.stored.group = group ? group : "";
	asking->timeout_ns = SEGUE_REQUEST_NS;
	return segue_client_run(client, INT64_MAX, attempt_ask, asking);
}

int segue_client_checkpoint(struct segue_client *client, const char *stream, const char *group,
	uint32_t lane, uint64_t id, void **token, size_t *size)
{
	struct asking asking = {.request = {.stored = {.lane = lane, .id = id}}};

	if (!token || !size)
		return segue_fail(SEGUE_EINVAL, "places for the token and its size are wanted");
	int rc = ask_stored(&asking, client, stream, group);
	if (rc)
		return rc;
	*token = asking.answer.bytes;
	*size = asking.answer.size;
	return 0;
}

int segue_client_checkpoint_remove(struct segue_client *client, const char *stream,
	const char *group, uint32_t lane, uint64_t id)
{
	struct asking asking = {.request = {.stored = {.lane = lane, .id = id, .remove = true}}};

	return ask_stored(&asking, client, stream, group);
}

int segue_stream_files(struct segue_client *client, const char *stream, char **paths, size_t *size)
{
	struct asking asking = {.client = client,
		.request = {.type = SEGUE_MESSAGE_STREAM_FILES, .stream_files = {.stream = stream}},
		.timeout_ns = SEGUE_REQUEST_NS};

	if (!client || !stream || !paths || !size)
		return segue_fail(SEGUE_EINVAL,
			"segue_stream_files wants a client, a name and places for the paths");
	int rc = segue_fork_check(&client->connection.guard);
	if (!rc)
		rc = segue_name_check("name", stream, false);
	if (!rc)
		rc = segue_client_run(client, INT64_MAX, attempt_ask, &asking);
	if (rc)
		return rc;
	*paths = asking.answer.bytes;
	*size = asking.answer.size;
	return 0;
}

struct dropping {
	struct segue_client *client;
	const char *stream, *group;
	unsigned attempts;
};

/* A server that was lost may have dropped it: then it is no mistake that the next has none. */
static int attempt_drop(void *arg)
{
	struct dropping *dropping = arg;
	struct segue_message request = {.type = SEGUE_MESSAGE_STREAM_DROP,
		.stream_drop = {.stream = dropping->stream, .group = dropping->group}};
	struct segue_reply reply;

	int rc = *dropping->group ? segue_takeover_check_group(
					    dropping->client, dropping->stream, dropping->group)
				  : 0;
	if (rc)
		return rc;
	dropping->attempts++;
	/* No limit: there may be much to drop, and how far it is is shown. */
	rc = segue_client_call(dropping->client, &request, SEGUE_MESSAGE_DONE, INT64_MAX, &reply);
	return rc == SEGUE_ENOTFOUND && dropping->attempts > 1 ? 0 : rc;
}

static int run_drop(struct segue_client *client, const char *stream, const char *group)
{
	struct dropping dropping = {.client = client, .stream = stream, .group = group};

	if (!client || !stream)
		return segue_fail(SEGUE_EINVAL, "a client and the name of a stream are wanted");
	int rc = segue_fork_check(&client->connection.guard);
	if (!rc && *group)
		rc = segue_name_check("group", group, false);
	return rc ? rc : segue_client_run(client, INT64_MAX, attempt_drop, &dropping);
}

int segue_client_stream_drop(struct segue_client *client, const char *stream)
{
	return run_drop(client, stream, "");
}

int segue_client_group_drop(struct segue_client *client, const char *stream, const char *group)
{
	if (!group || !*group)
		return segue_fail(SEGUE_EINVAL,
			"the group without a name is every stream's, and goes with it: drop the "
			"stream, or name another group");
	return run_drop(client, stream, group);
}
