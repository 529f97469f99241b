/*
 * Fuzzes what people and scripts hand in: the command line, JSON, the spec of a stream.
 *
 * The first byte says which. For libFuzzer, or with replay_main.c as a program that runs files.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "cli/print.h"
#include "core/layout.h"
#include "core/utf8.h"
#include "draft.h"

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
		.takes = choice & 64 ? ~0u : choice & 15u,
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

/* Text that a terminal may be shown. */
static void expect_printable(const char *text)
{
	size_t size = strlen(text);

	expect(segue_utf8_valid(text, size));
	for (size_t i = 0; i < size; i++)
		expect((unsigned char)text[i] >= 0x20 && text[i] != 0x7f);
}

/* As the command line does, whatever is there. */
static void look(struct json_object *value)
{
	for (size_t i = 0; i < segue_json_count(value); i++)
		look(segue_json_at(value, i));
	if (json_object_is_type(value, json_type_object)) {
		json_object_object_foreach(value, name, member)
		{
			segue_json_get_unsigned(value, name);
			segue_json_get_bool(value, name);
			look(member);
		}
	} else if (!json_object_is_type(value, json_type_array)) {
		expect_printable(segue_cli_text(value));
	}
}

static void fuzz_json(const char *bytes, size_t size)
{
	struct json_object *value = NULL;
	char *text = strndup(bytes, size);

	expect(text != NULL);
	int rc = segue_json_parse(text, &value);
	expect(rc == 0 || rc == SEGUE_EPROTOCOL);
	look(value);
	json_object_put(value);
	free(text);
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
	struct segue_draft asked = {
		.name = take_name(&input),
		.source.kind = take(&input) % 8 ? SEGUE_SOURCE_TFRECORD
						: (enum segue_source_kind)take(&input),
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
	const struct segue_draft_part parts[] = {
		{.name = take_name(&input),
			.source = {.kind = (enum segue_source_kind)take(&input),
				.tfrecord = asked.source.tfrecord},
			.weight = (uint32_t)take(&input),
			.epochs = take(&input)},
		{.name = take_name(&input),
			.source = {.kind = SEGUE_SOURCE_FILES,
				.files = {.paths = paths, .path_count = 1}},
			.weight = (uint32_t)take(&input)},
	};
	if (asked.source.kind == SEGUE_SOURCE_MIX)
		asked.source = (struct segue_draft_source){.kind = SEGUE_SOURCE_MIX,
			.mix = {.parts = parts, .part_count = take(&input) % 3}};
	int rc = segue_draft_make(&asked, &spec);
	expect(rc == 0 || rc == SEGUE_EINVAL || rc == SEGUE_ELIMIT);
	if (rc)
		return;
	expect(segue_spec_check(spec) == 0);
	expect(segue_spec_copy(spec, &copy) == 0 && segue_spec_compare(spec, copy) == 0);
	struct segue_geometry geometry;
	if (segue_geometry_init(spec, spec->batch_size, 16, &geometry) == 0)
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
