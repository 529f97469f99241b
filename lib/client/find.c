/* Streams by their names. */
#include "client/find.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/wait.h"

struct finding {
	struct segue_client *client;
	const char *name;
	struct segue_missing missing;
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
		return segue_client_missing(finding->client, &finding->missing, rc);
	finding->spec = reply.message.found.spec;
	rc = segue_spec_check(finding->spec);
	if (!rc && strcmp(finding->spec->name, finding->name) == 0)
		return 0;
	segue_spec_destroy(finding->spec);
	return segue_fail(
		SEGUE_EPROTOCOL, "the server has found another stream than '%s'", finding->name);
}

int segue_client_find(struct segue_client *client, const char *name, struct segue_spec **out)
{
	struct finding finding = {
		.client = client, .name = name, .missing = {.epoch = client->epoch}};

	int rc = segue_fork_check(&client->connection.guard);
	if (!rc)
		rc = segue_name_check("name", name, false);
	if (!rc)
		rc = segue_client_run(client, INT64_MAX, attempt_find, &finding);
	if (rc)
		return rc;
	*out = finding.spec;
	return 0;
}

bool segue_client_wants_init(const struct segue_spec *spec, size_t state)
{
	uint64_t zeros[2];

	segue_init_hash(NULL, spec->states[state].size, zeros);
	return !spec->states[state].from_data &&
	       memcmp(zeros, spec->init_hash[state], sizeof(zeros)) != 0;
}

/* ---- As segue.h has it: one piece of memory ---- */

/* The struct, and what it points to. */
struct found {
	struct segue_stream_spec spec;
	struct segue_feature features[SEGUE_FEATURES_MAX]; /* sequences, then contexts */
	struct segue_state states[SEGUE_STATES_MAX];
	char names[];
};

static size_t size_of_names(const struct segue_field *fields, size_t count)
{
	size_t size = 0;

	for (size_t i = 0; i < count; i++)
		size += strlen(fields[i].name) + 1;
	return size;
}

static const char *put_name(char **at, const char *name)
{
	const char *put = *at;

	*at = stpcpy(*at, name) + 1;
	return put;
}

static void put_features(
	const struct segue_field *fields, size_t count, struct segue_feature *to, char **names)
{
	for (size_t i = 0; i < count; i++) {
		to[i] = (struct segue_feature){.name = put_name(names, fields[i].name),
			.dtype = fields[i].dtype,
			.rank = fields[i].rank,
			.form = fields[i].form};
		memcpy(to[i].dims, fields[i].dims, sizeof(to[i].dims));
	}
}

static void put_states(const struct segue_spec *spec, struct segue_state *to, char **names)
{
	for (size_t i = 0; i < spec->state_count; i++) {
		const struct segue_field *field = &spec->states[i];

		to[i] = (struct segue_state){.name = put_name(names, field->name),
			.dtype = field->dtype,
			.rank = field->rank,
			.init_from_data = field->from_data};
		memcpy(to[i].dims, field->dims, sizeof(to[i].dims));
	}
}

static int give_out(const struct segue_spec *spec, struct segue_stream_spec **out)
{
	struct found *found =
		calloc(1, sizeof(*found) + strlen(spec->name) + 1 +
				  size_of_names(spec->sequences, spec->sequence_count) +
				  size_of_names(spec->contexts, spec->context_count) +
				  size_of_names(spec->states, spec->state_count));
	struct segue_stream_spec *to = &found->spec;
	char *names;

	if (!found)
		return segue_fail(SEGUE_ENOMEM, "no memory for the spec of a stream");
	names = found->names;
	to->name = put_name(&names, spec->name);
	to->sequences = found->features;
	to->sequence_count = spec->sequence_count;
	put_features(spec->sequences, spec->sequence_count, found->features, &names);
	to->contexts = found->features + spec->sequence_count;
	to->context_count = spec->context_count;
	put_features(spec->contexts, spec->context_count, found->features + spec->sequence_count,
		&names);
	to->states = found->states;
	to->state_count = spec->state_count;
	put_states(spec, found->states, &names);
	for (const struct segue_option *option = segue_spec_options; option->name; option++)
		segue_option_ask(option, to, segue_option_get(option, spec));
	*out = to;
	return 0;
}

int segue_stream_find(struct segue_client *client, const char *name, struct segue_stream_spec **out)
{
	struct segue_spec *spec;

	if (!client || !name || !out)
		return segue_fail(SEGUE_EINVAL,
			"segue_stream_find wants a client, a name and a place for the spec");
	int rc = segue_client_find(client, name, &spec);
	if (rc)
		return rc;
	rc = give_out(spec, out);
	segue_spec_destroy(spec);
	return rc;
}
