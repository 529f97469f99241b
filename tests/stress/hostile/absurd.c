/* C8: valid protobuf with absurd values: each is refused by name, and the connection goes on. */
#include "hostile.h"

#include <stdio.h>

/* Sends a request and looks at the answer; BULK and DONE are no harm. */
static void ask(const char *dir, struct raw *raw, struct segue_message *request, bool must_fail,
	const char *what)
{
	enum segue_message_type type = raw_call(raw, request);

	EXPECT(type, "%s: the server hung up", what);
	for (unsigned i = 0; i < raw->fd_count; i++)
		close(raw->fds[i]);
	if (must_fail)
		raw_expect_failure(raw, 0, what);
	EXPECT(type != SEGUE_MESSAGE_FAILURE || raw->reply.failure.detail[0], "%s: no reason given",
		what);
	raw_renew(dir, raw); /* what breaks the protocol's own rules ends the connection, too */
}

static void ask_spec(
	const char *dir, struct raw *raw, struct segue_spec *spec, bool must_fail, const char *what)
{
	struct segue_message request = {
		.type = SEGUE_MESSAGE_STREAM_OPEN, .stream_open = {.spec = spec}};

	ask(dir, raw, &request, must_fail, what);
}

/* Each case changes one field of a good spec, asks, and puts it back. */
#define TRY(field, value, must_fail)                                                               \
	do {                                                                                       \
		__typeof__(field) before = (field);                                                \
		(field) = (value);                                                                 \
		ask_spec(dir, raw, spec, (must_fail), #field " = " #value);                        \
		(field) = before;                                                                  \
	} while (0)

static void absurd_specs(const char *dir, struct raw *raw, struct segue_spec *spec)
{
	static char long_name[SEGUE_NAME_MAX + 2], bad_utf8[] = "\xff\xfe\x80", with_nul[] = "\1";
	struct segue_field twice[2];

	memset(long_name, 'n', sizeof(long_name) - 1);
	TRY(spec->name, (char[]){""}, true);
	TRY(spec->name, long_name, true);
	TRY(spec->name, (char[]){"a:b"}, true);
	TRY(spec->name, bad_utf8, false);
	TRY(spec->name, with_nul, false);
	TRY(spec->batch_size, UINT32_MAX, true);
	TRY(spec->batch_size, 0, true);
	TRY(spec->num_unroll, UINT32_MAX, true);
	TRY(spec->num_unroll, 0, true);
	TRY(spec->lanes, UINT32_MAX, true);
	TRY(spec->lanes, 0, true);
	TRY(spec->depth, UINT32_MAX, true);
	TRY(spec->num_threads, UINT32_MAX, true);
	TRY(spec->tail, 99, true);
	TRY(spec->durability, 99, true);
	TRY(spec->source.tfrecord.compression, 99, true);
	TRY(spec->sequences[0].name, long_name, true);
	TRY(spec->sequences[0].name, (char[]){""}, true);
	TRY(spec->sequences[0].dtype, 99, true);
	TRY(spec->states[0].dims[0], UINT64_MAX, true);
	TRY(spec->states[0].dims[0], UINT64_C(1) << 63, true);
	TRY(spec->states[0].dims[0], UINT64_C(1) << 50, true);
	TRY(spec->source.tfrecord.paths.count, 0, true);
	TRY(spec->sequence_count, 0, true);
	twice[0] = twice[1] = spec->sequences[0];
	struct segue_field *one = spec->sequences;
	spec->sequences = twice;
	TRY(spec->sequence_count, 2, true);
	spec->sequences = one;
}

/* Parts without end, of no weight, of each other's names, of absurd numbers; and more than go. */
static void absurd_mixes(const char *dir, struct raw *raw, const struct hostile_spec *sample)
{
	static struct segue_draft_part parts[SEGUE_PARTS_MAX];
	static char names[SEGUE_PARTS_MAX][4];
	struct hostile_spec mixed = *sample;
	struct segue_spec *spec;

	for (size_t i = 0; i < SEGUE_PARTS_MAX; i++) {
		snprintf(names[i], sizeof(names[i]), "%zu", i);
		parts[i] = (struct segue_draft_part){.name = names[i],
			.source = sample->spec.source,
			.weight = UINT32_MAX,
			.epochs = i ? UINT64_MAX : 1};
	}
	mixed.spec.epochs = 1;
	mixed.spec.source = (struct segue_draft_source){
		.kind = SEGUE_SOURCE_MIX, .mix = {.parts = parts, .part_count = SEGUE_PARTS_MAX}};
	EXPECT(segue_draft_make(&mixed.spec, &spec) == 0, "mix: %s", segue_error_detail());
	struct segue_spec_mix *mix = &spec->source.mix;
	ask_spec(dir, raw, spec, false, "64 parts, of one file");
	TRY(mix->count, 0, true);
	TRY(mix->part[1].weight, 0, true);
	TRY(mix->part[1].weight, 1, true);
	TRY(mix->part[1].name, (char[]){"2"}, true);
	TRY(mix->part[1].name, (char[]){""}, true);
	TRY(mix->part[0].epochs, UINT64_MAX, false);
	TRY(mix->part[1].source.tfrecord.paths.count, 0, true);
	TRY(mix->part[1].source.tfrecord.compression, 99, true);
	TRY(spec->epochs, 2, true);
	TRY(spec->first_epoch, 1, true);
	for (size_t i = 0; i < mix->count; i++)
		mix->part[i].epochs = 0;
	ask_spec(dir, raw, spec, true, "no part has an end");
	segue_spec_destroy(spec);
}

static void absurd_requests(const char *dir, struct raw *raw, uint64_t stream)
{
	static char key[SEGUE_KEY_MAX + 2];
	static const uint64_t sizes[] = {0, UINT64_MAX, UINT64_C(1) << 63, (UINT64_C(1) << 32) + 1};
	static const size_t keys[] = {0, 1, 511, 512, SEGUE_KEY_MAX};
	struct segue_message attach = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.lane_attach = {.stream = stream, .lane = UINT32_MAX, .timeout_ns = INT64_MIN}};
	struct segue_message point = {.type = SEGUE_MESSAGE_CHECKPOINT,
		.checkpoint = {.stream = stream, .lane = UINT32_MAX, .step = UINT64_MAX}};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		ask(dir, raw,
			&(struct segue_message){.type = SEGUE_MESSAGE_UPLOAD, .upload = {sizes[i]}},
			true, "an upload of a size that cannot be");
	memset(key, 'k', sizeof(key));
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		key[keys[i]] = '\0';
		ask(dir, raw,
			&(struct segue_message){.type = SEGUE_MESSAGE_REPORT,
				.report = {SEGUE_REPORT_GET, "main", key}},
			true, "a key that is not there");
		key[keys[i]] = 'k';
	}
	ask(dir, raw, &attach, true, "lane 2^32 - 1");
	attach.lane_attach.lane = 8;
	attach.lane_attach.group = 7;
	ask(dir, raw, &attach, true, "group 7");
	attach.lane_attach.group = 0;
	attach.lane_attach.upload = UINT64_MAX;
	ask(dir, raw, &attach, true, "an upload that is not there");
	ask(dir, raw, &point, true, "a checkpoint of lane 2^32 - 1");
	point.checkpoint.lane = 8;
	point.checkpoint.timeout_ns = 1;
	ask(dir, raw, &point, true, "a checkpoint of step 2^64 - 1");
	point.checkpoint.stream = UINT64_MAX;
	ask(dir, raw, &point, true, "a checkpoint of no stream");
	ask(dir, raw,
		&(struct segue_message){.type = SEGUE_MESSAGE_LANE_DETACH, .lane_detach = {7}},
		false, "a lease of nobody");
}

void attack_absurd(struct hostile *hostile)
{
	struct hostile_spec sample;
	struct segue_spec *spec;
	struct raw raw;
	unsigned rounds = 0;

	hostile_private_spec(hostile, "absurd", &sample);
	for (; rounds < 1 || hostile_time_left(hostile); rounds++) {
		EXPECT(segue_draft_make(&sample.spec, &spec) == 0, "spec");
		raw_open(hostile->dir, &raw);
		absurd_specs(hostile->dir, &raw, spec);
		absurd_mixes(hostile->dir, &raw, &sample);
		uint64_t stream = raw_stream(&raw, &sample.spec);
		EXPECT(stream, "the good spec is refused: %s", raw.reply.failure.detail);
		absurd_requests(hostile->dir, &raw, stream);
		raw_close(&raw);
		segue_spec_destroy(spec);
	}
	printf("%u rounds of absurd values\n", rounds);
}
