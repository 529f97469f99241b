/*
 * Fuzzes what people and scripts hand in: the command line, JSON, the spec of a stream.
 *
 * The first byte says which. For libFuzzer, or with replay_main.c as a program that runs files.
 */
#include "cli/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/layout.h"

#define WORDS_MAX 32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

/* ---- Command line -------------------------------------------------------------------------- */

static int run_nothing(const struct segue_cli_options *options)
{
	expect(options->dir != NULL || options->key == NULL);
	return 77;
}

static void fuzz_command_line(const uint8_t *data, size_t size, uint8_t choice)
{
	const struct segue_cli_command command = {
		.name = "test",
		.operands = "DIR KEY",
		.summary = "Nothing.",
		.help = "",
		.takes = choice & 15u,
		.operands_min = choice >> 4 & 1,
		.operands_max = 1 + (choice >> 5 & 1),
		.run = run_nothing,
	};
	char *text = malloc(size + 1), *words[WORDS_MAX + 2] = {text};
	FILE *out = stdout, *error = stderr;
	int count = 1;

	expect(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';
	/* Each line is an argument. */
	for (char *at = text; count <= WORDS_MAX; at++) {
		words[count++] = at;
		at = strchr(at, '\n');
		if (!at)
			break;
		*at = '\0';
	}
	static FILE *nowhere;
	if (!nowhere)
		nowhere = fopen("/dev/null", "we");
	stdout = stderr = nowhere;
	optind = 0;
	int status = segue_cli_run(&command, count, words);
	stdout = out;
	stderr = error;
	/* A client that starts a server reads an error code. */
	expect(status == 77 || status == SEGUE_CLI_FINE || status == SEGUE_CLI_USAGE ||
		(command.takes & SEGUE_CLI_EMBEDDED && status == -SEGUE_EINVAL));
	free(text);
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static void write_again(struct segue_json *json, const struct segue_json_value *value)
{
	const char *brackets = value->type == SEGUE_JSON_OBJECT ? "{}" : "[]";
	size_t count = 0;

	switch (value->type) {
	case SEGUE_JSON_STRING:
		segue_json_bytes(json, value->name, value->text, value->size);
		break;
	case SEGUE_JSON_ARRAY:
	case SEGUE_JSON_OBJECT:
		segue_json_begin(json, value->name, brackets[0]);
		for (const struct segue_json_value *at = value->first; at; at = at->next, count++)
			write_again(json, at);
		segue_json_end(json, brackets[1]);
		expect(count == value->count);
		break;
	case SEGUE_JSON_BOOL:
		segue_json_bool(json, value->name, value->text[0] == 't');
		break;
	case SEGUE_JSON_NULL:
	case SEGUE_JSON_NUMBER:
		segue_json_null(json, value->name);
		break;
	}
}

/* What was read is written, read and written again: the same text. */
static void fuzz_json(const char *bytes, size_t size)
{
	struct segue_json first = {0}, second = {0};
	struct segue_json_value *value, *again;
	char *text, *text_again;

	int rc = segue_json_parse(bytes, size, &value);
	expect(rc == 0 || rc == SEGUE_EPROTOCOL);
	if (rc)
		return;
	segue_json_get_unsigned(value, "n");
	segue_json_get_bool(value, "b");
	write_again(&first, value);
	expect(segue_json_take(&first, &text) == 0);
	expect(segue_json_parse(text, strlen(text), &again) == 0);
	write_again(&second, again);
	expect(segue_json_take(&second, &text_again) == 0);
	expect(strcmp(text, text_again) == 0);
	segue_json_destroy(value);
	segue_json_destroy(again);
	free(text);
	free(text_again);
}

/* ---- Spec ---------------------------------------------------------------------------------- */

struct input {
	const uint8_t *at, *end;
};

static uint64_t take(struct input *input)
{
	static const uint64_t odd[] = {0, 1, 2, 63, 64, 65, 1000, 1u << 20, UINT32_MAX,
		UINT64_C(1) << 32, UINT64_C(1) << 40, INT64_MAX, UINT64_MAX};

	if (input->at == input->end)
		return 1;
	uint8_t byte = *input->at++;
	return byte < 128 ? byte % 16 : odd[byte % (sizeof(odd) / sizeof(odd[0]))];
}

static const char *take_name(struct input *input)
{
	static const char *const names[] = {"x", "y", "h", "", "a:b", "a name", "\xff", "k", NULL};
	return names[take(input) % 9];
}

static void take_feature(struct input *input, struct segue_feature *feature)
{
	feature->name = take_name(input);
	feature->dtype = (enum segue_dtype)take(input);
	feature->rank = (uint32_t)(take(input) % (SEGUE_RANK_MAX + 2));
	for (uint32_t i = 0; i < feature->rank && i < SEGUE_RANK_MAX; i++)
		feature->dims[i] = take(input);
}

static void fuzz_spec(const uint8_t *data, size_t size)
{
	static const char *const paths[] = {"a", "/b/*.tfrecord", "", NULL};
	struct input input = {data, data + size};
	struct segue_feature sequences[3] = {0}, contexts[2] = {0};
	struct segue_state states[3] = {0};
	struct segue_spec *spec, *copy;

	for (int i = 0; i < 3; i++)
		take_feature(&input, &sequences[i]);
	for (int i = 0; i < 2; i++)
		take_feature(&input, &contexts[i]);
	for (int i = 0; i < 3; i++) {
		states[i].name = take_name(&input);
		states[i].dtype = (enum segue_dtype)take(&input);
		states[i].rank = (uint32_t)(take(&input) % (SEGUE_RANK_MAX + 2));
		for (uint32_t k = 0; k < states[i].rank && k < SEGUE_RANK_MAX; k++)
			states[i].dims[k] = take(&input);
	}
	const struct segue_stream_spec asked = {
		.name = take_name(&input),
		.source.kind = take(&input) % 8 ? SEGUE_SOURCE_TFRECORD : take(&input),
		.source.tfrecord = {.paths = paths,
			.path_count = take(&input) % 4,
			.compression = (enum segue_compression)take(&input),
			.key_feature = take(&input) % 2 ? take_name(&input) : NULL},
		.sequences = sequences,
		.sequence_count = take(&input) % 4,
		.contexts = contexts,
		.context_count = take(&input) % 3,
		.states = states,
		.state_count = take(&input) % 4,
		.num_unroll = (uint32_t)take(&input),
		.batch_size = (uint32_t)take(&input),
		.lanes = (uint32_t)take(&input),
		.shuffle = take(&input) & 1,
		.epochs = take(&input),
		.tail = (enum segue_tail)take(&input),
		.epoch_end = (enum segue_epoch_end)take(&input),
		.on_error = (enum segue_on_error)take(&input),
		.depth = (uint32_t)take(&input),
		.num_threads = (uint32_t)take(&input),
		.durability = (enum segue_durability)take(&input),
		.interval_ms = (uint32_t)take(&input),
		.lease_timeout_ms = (uint32_t)take(&input),
	};
	int rc = segue_spec_create(&asked, &spec);
	expect(rc == 0 || rc == SEGUE_EINVAL || rc == SEGUE_ELIMIT);
	if (rc)
		return;
	expect(segue_spec_check(spec) == 0);
	expect(segue_spec_copy(spec, &copy) == 0 && segue_spec_compare(spec, copy) == 0);
	struct segue_geometry geometry;
	if (segue_geometry_init(spec, 16, &geometry) == 0)
		segue_geometry_finish(&geometry);
	segue_spec_destroy(spec);
	segue_spec_destroy(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	switch (data[0] % 3) {
	case 0:
		fuzz_command_line(data + 2, size - 2, data[1]);
		break;
	case 1:
		fuzz_json((const char *)data + 1, size - 1);
		break;
	default:
		fuzz_spec(data + 1, size - 1);
	}
	return 0;
}
