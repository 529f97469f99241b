/* What a client asks of the store as a whole: reports, and the checkpoints in it. */
#include "client/bulk.h"
#include "core/error.h"

/* ---- Reports ---- */

struct report_attempt {
	struct segue_client *client;
	struct segue_message request;
	void *json;
	size_t size;
};

static int attempt_report(void *arg)
{
	struct report_attempt *report = arg;
	/* Checking every value takes as long as it takes. */
	bool all = report->request.report.what == SEGUE_REPORT_VERIFY;

	return segue_client_fetch(report->client, &report->request,
		all ? INT64_MAX : SEGUE_REQUEST_NS, &report->json, &report->size);
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
	if (what < SEGUE_REPORT_STATUS || what > SEGUE_REPORT_VERIFY)
		return segue_fail(SEGUE_EINVAL, "there is no report %d", (int)what);
	if (what == SEGUE_REPORT_GET && (!key || !*key))
		return segue_fail(SEGUE_EINVAL, "the report of a key's states wants the key");
	struct report_attempt report = {
		.client = client,
		.request = {.type = SEGUE_MESSAGE_REPORT,
			.report = {.what = what,
				.stream = stream ? stream : "",
				.key = key ? key : ""}},
	};
	rc = segue_client_run(client, INT64_MAX, attempt_report, &report);
	if (!rc)
		*json = report.json;
	return rc;
}

/* ---- Checkpoints in the store ---- */

struct stored_attempt {
	struct segue_client *client;
	struct segue_message request;
	void *token;
	size_t size;
};

static int attempt_stored(void *arg)
{
	struct stored_attempt *call = arg;
	struct segue_reply reply;

	return call->request.stored.remove ? segue_client_call(call->client, &call->request,
						     SEGUE_MESSAGE_DONE, SEGUE_REQUEST_NS, &reply)
					   : segue_client_fetch(call->client, &call->request,
						     SEGUE_REQUEST_NS, &call->token, &call->size);
}

static int run_stored(struct stored_attempt *call, struct segue_client *client, const char *stream)
{
	if (!client || !stream)
		return segue_fail(SEGUE_EINVAL, "a client and the name of a stream are wanted");
	int rc = segue_fork_check(&client->connection.guard);
	if (rc)
		return rc;
	call->client = client;
	call->request.type = SEGUE_MESSAGE_STORED;
	call->request.stored.stream = stream;
	return segue_client_run(client, INT64_MAX, attempt_stored, call);
}

int segue_client_checkpoint(struct segue_client *client, const char *stream, uint32_t lane,
	uint64_t id, void **token, size_t *size)
{
	struct stored_attempt call = {.request = {.stored = {.lane = lane, .id = id}}};

	if (!token || !size)
		return segue_fail(SEGUE_EINVAL, "places for the token and its size are wanted");
	int rc = run_stored(&call, client, stream);
	if (rc)
		return rc;
	*token = call.token;
	*size = call.size;
	return 0;
}

int segue_client_checkpoint_remove(
	struct segue_client *client, const char *stream, uint32_t lane, uint64_t id)
{
	struct stored_attempt call = {
		.request = {.stored = {.lane = lane, .id = id, .remove = true}}};

	return run_stored(&call, client, stream);
}
