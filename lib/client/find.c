/* Streams by their names. */
#include "client/client.h"

#include <string.h>

#include "core/error.h"
#include "core/wait.h"

struct finding {
	struct segue_client *client;
	const char *name;
	struct segue_spec *spec;
};

static int attempt_find(void *arg)
{
	struct finding *finding = arg;
	struct segue_message request = {
		.type = SEGUE_MESSAGE_STREAM_FIND, .stream_find = {.stream = finding->name}};
	struct segue_reply reply;

	int rc = segue_client_call(
		finding->client, &request, SEGUE_MESSAGE_FOUND, SEGUE_REQUEST_NS, &reply);
	if (rc)
		return segue_client_missing(finding->client, rc);
	finding->spec = reply.message.found.spec;
	rc = segue_spec_check(finding->spec);
	if (!rc && strcmp(finding->spec->name, finding->name) == 0)
		return 0;
	segue_spec_destroy(finding->spec);
	return segue_fail(
		SEGUE_EPROTOCOL, "the server has found another stream than '%s'", finding->name);
}

static int find(struct segue_client *client, const char *name, struct segue_spec **out)
{
	struct finding finding = {.client = client, .name = name};

	int rc = segue_client_run(client, INT64_MAX, attempt_find, &finding);
	if (rc)
		return rc;
	*out = finding.spec;
	return 0;
}

int segue_stream_find(struct segue_client *client, const char *name, struct segue_spec **out)
{
	if (!client || !name || !out)
		return segue_fail(SEGUE_EINVAL,
			"segue_stream_find wants a client, a name and a place for the spec");
	int rc = segue_fork_check(&client->connection.guard);
	if (!rc)
		rc = segue_name_check("name", name, false);
	return rc ? rc : find(client, name, out);
}
