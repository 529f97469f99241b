/*
 * Tests of messages and records: there and back, against bytes made by hand, and against damage.
 */
#include "core/wire.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/position.h"
#include "sample_spec.h"

static const uint8_t secret[16] = {1, 2, 3, 0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255};

static struct segue_spec *sample_spec(void)
{
	struct segue_spec *spec = NULL;
	struct sample sample;

	sample_init(&sample);
	sample.spec.on_error = SEGUE_ON_ERROR_SKIP;
	sample.spec.tail = SEGUE_TAIL_STOP;
	sample.spec.epoch_end = SEGUE_EPOCH_DRAIN;
	sample.spec.keep_final = true;
	sample.spec.no_pad = true;
	sample.spec.depth = 5;
	sample.spec.num_threads = 3;
	sample.spec.durability = SEGUE_DURABLE_COMMIT;
	sample.spec.interval_ms = 77;
	sample.spec.lease_timeout_ms = 78;
	sample.spec.keep_checkpoints = 9;
	sample.spec.groups = 3;
	sample.spec.groups_timeout_ms = 79;
	sample.spec.max_lag_ms = 80;
	sample.spec.on_lag = SEGUE_ON_LAG_DETACH;
	sample.spec.maximum_length = 21;
	sample.spec.on_too_long = SEGUE_ON_TOO_LONG_SKIP;
	sample.spec.trim = true;
	sample.spec.first_epoch = 2;
	sample.spec.source.tfrecord.compression = SEGUE_COMPRESSION_GZIP;
	sample.spec.source.tfrecord.allow_surplus = true;
	sample.spec.source.tfrecord.record = SEGUE_RECORD_EXAMPLE;
	cr_assert_eq(segue_draft_make(&sample.spec, &spec), 0, "%s", segue_error_detail());
	return spec;
}

/* ---- Protobuf by hand ------------------------------------------------------------------------ */

struct bytes {
	uint8_t data[1 << 18];
	size_t size;
};

static void varint(struct bytes *to, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		to->data[to->size++] = (uint8_t)(value | 0x80);
	to->data[to->size++] = (uint8_t)value;
}

static void number(struct bytes *to, unsigned field, uint64_t value)
{
	varint(to, field << 3);
	varint(to, value);
}

static void fixed(struct bytes *to, unsigned field, uint64_t value)
{
	varint(to, field << 3 | 1);
	for (int i = 0; i < 8; i++)
		to->data[to->size++] = (uint8_t)(value >> 8 * i);
}

static void blob(struct bytes *to, unsigned field, const void *bytes, size_t size)
{
	varint(to, field << 3 | 2);
	varint(to, size);
	memcpy(to->data + to->size, bytes, size);
	to->size += size;
}

static void text(struct bytes *to, unsigned field, const char *string)
{
	blob(to, field, string, strlen(string));
}

/* ---- Helpers --------------------------------------------------------------------------------- */

static struct segue_arena arena;

static int unpack(uint16_t type, const void *bytes, size_t size, struct segue_message *out)
{
	/* Of exactly that size, so that ASan sees a byte too many. */
	uint8_t *copy = malloc(size ? size : 1);
	struct segue_frame frame = {.type = type, .size = (uint32_t)size, .payload = copy};
	int rc;

	if (!arena.base)
		cr_assert_eq(segue_arena_init(&arena, SEGUE_ARENA_SIZE), 0);
	memcpy(copy, bytes, size);
	rc = segue_message_unpack(&frame, &arena, out);
	free(copy); /* nothing of the message lies in the input */
	return rc;
}

static struct segue_message there_and_back(const struct segue_message *message)
{
	static uint8_t bytes[SEGUE_FRAME_MAX];
	struct segue_message out = {.serial = 0};
	size_t size;

	cr_assert_eq(segue_message_pack(message, bytes, &size), 0, "%s", segue_error_detail());
	cr_assert_eq(
		unpack((uint16_t)message->type, bytes, size, &out), 0, "%s", segue_error_detail());
	cr_assert_eq(out.type, message->type);
	cr_assert_eq(out.serial, message->serial);
	return out;
}

static void expect_refused(uint16_t type, const struct bytes *bytes, const char *says)
{
	struct segue_message out = {.serial = 99};

	cr_expect_eq(unpack(type, bytes->data, bytes->size, &out), SEGUE_EPROTOCOL, "%s", says);
	cr_expect(strstr(segue_error_detail(), says), "\"%s\" does not say \"%s\"",
		segue_error_detail(), says);
	cr_expect_eq(out.serial, 99, "written without success");
}

static void done(void)
{
	segue_arena_finish(&arena);
}

TestSuite(wire, .fini = done);

/*
 * ---- Messages there and back ------------------------------------------------------------------
 */

Test(wire, hello_and_welcome)
{
	struct segue_message m = {.type = SEGUE_MESSAGE_HELLO,
		.serial = UINT64_MAX,
		.hello = {.protocol = 1,
			.layout_version = 2,
			.version = "0.1.0",
			.program = "tr\xc3\xa4in"}};
	struct segue_message out = there_and_back(&m);

	cr_assert_eq(out.hello.protocol, 1);
	cr_assert_eq(out.hello.layout_version, 2);
	cr_assert_str_eq(out.hello.version, "0.1.0");
	cr_assert_str_eq(out.hello.program, "tr\xc3\xa4in");
	m = (struct segue_message){.type = SEGUE_MESSAGE_WELCOME,
		.welcome = {.protocol = 1,
			.layout_version = 3,
			.version = "",
			.pid = INT64_MAX,
			.instance = UINT64_MAX - 1}};
	out = there_and_back(&m);
	cr_assert_eq(out.welcome.protocol, 1);
	cr_assert_eq(out.welcome.layout_version, 3);
	cr_assert_str_eq(out.welcome.version, "");
	cr_assert_eq(out.welcome.pid, INT64_MAX);
	cr_assert_eq(out.welcome.instance, UINT64_MAX - 1);
}

/* The same spec: by comparison, by hash, and what neither looks at. */
static void expect_same_spec(const struct segue_spec *a, struct segue_spec *b, bool with_paths)
{
	uint64_t hash[2][2];

	cr_assert_eq(segue_spec_compare(a, b), 0, "%s", segue_error_detail());
	segue_spec_hash(a, hash[0]);
	segue_spec_hash(b, hash[1]);
	cr_assert_eq(memcmp(hash[0], hash[1], sizeof(hash[0])), 0);
	cr_assert_str_eq(a->name, b->name);
	cr_assert_eq(a->source.tfrecord.compression, b->source.tfrecord.compression);
	cr_assert_eq(a->depth, b->depth);
	cr_assert_eq(a->num_threads, b->num_threads);
	cr_assert_eq(a->durability, b->durability);
	cr_assert_eq(a->interval_ms, b->interval_ms);
	cr_assert_eq(a->lease_timeout_ms, b->lease_timeout_ms);
	cr_assert_eq(a->keep_checkpoints, b->keep_checkpoints);
	cr_assert_eq(a->groups, b->groups);
	cr_assert_eq(a->groups_timeout_ms, b->groups_timeout_ms);
	cr_assert_eq(a->max_lag_ms, b->max_lag_ms);
	cr_assert_eq(a->on_lag, b->on_lag);
	cr_assert_eq(
		b->source.tfrecord.paths.count, with_paths ? a->source.tfrecord.paths.count : 0);
	for (size_t i = 0; i < b->source.tfrecord.paths.count; i++)
		cr_assert_str_eq(
			a->source.tfrecord.paths.path[i], b->source.tfrecord.paths.path[i]);
	if (with_paths)
		cr_assert_eq(segue_spec_check(b), 0, "%s", segue_error_detail());
}

Test(wire, stream_open)
{
	struct segue_spec *spec = sample_spec();
	struct segue_message m = {
		.type = SEGUE_MESSAGE_STREAM_OPEN, .serial = 4, .stream_open = {.spec = spec}};
	struct segue_message out = there_and_back(&m);

	expect_same_spec(spec, out.stream_open.spec, true);
	cr_assert_eq(out.stream_open.paths_upload, 0);
	cr_assert_not(out.stream_open.again);
	segue_spec_destroy(out.stream_open.spec);
	m.stream_open.paths_upload = 12;
	m.stream_open.again = true;
	out = there_and_back(&m);
	cr_assert_eq(out.stream_open.paths_upload, 12);
	cr_assert(out.stream_open.again);
	expect_same_spec(spec, out.stream_open.spec, false);
	segue_spec_destroy(out.stream_open.spec);
	segue_spec_destroy(spec);
}

/* What has a source takes part in this, too: it is left out. */
Test(wire, specs_without_a_source)
{
	struct segue_spec *spec = sample_spec();
	struct segue_message open = {
		.type = SEGUE_MESSAGE_STREAM_OPEN, .stream_open = {.spec = spec, .stored = true}};
	struct segue_message found = {
		.type = SEGUE_MESSAGE_FOUND, .serial = 7, .found = {.spec = spec}};
	struct segue_message out = there_and_back(&open);

	cr_assert(out.stream_open.stored);
	cr_assert_eq(out.stream_open.spec->source.kind, SEGUE_SOURCE_STORED);
	cr_assert_eq(out.stream_open.spec->sequence_count, spec->sequence_count);
	cr_assert_eq(segue_spec_check(out.stream_open.spec), 0, "%s", segue_error_detail());
	segue_message_finish(&out);
	out = there_and_back(&found);
	cr_assert_eq(out.serial, 7);
	cr_assert_eq(out.found.spec->source.kind, SEGUE_SOURCE_STORED);
	cr_assert_eq(out.found.spec->state_count, spec->state_count);
	cr_assert_eq(out.found.spec->init_hash[0][1], spec->init_hash[0][1]);
	segue_message_finish(&out);
	segue_spec_destroy(spec);
}

Test(wire, stream_open_of_arrays)
{
	struct segue_spec *spec = sample_spec();
	struct segue_message m = {.type = SEGUE_MESSAGE_STREAM_OPEN,
		.stream_open = {.spec = spec, .index_upload = 13}};

	segue_options_finish(segue_source_row(spec->source.kind)->options, &spec->source);
	struct segue_paths paths = spec->source.tfrecord.paths;
	spec->source = (struct segue_spec_source){
		.kind = SEGUE_SOURCE_ARRAYS, .arrays = {.paths = paths, .checksum = true}};
	struct segue_message out = there_and_back(&m);
	struct segue_spec_source *source = &out.stream_open.spec->source;

	cr_assert_eq(out.stream_open.index_upload, 13);
	cr_assert_eq(source->kind, SEGUE_SOURCE_ARRAYS);
	cr_assert(source->arrays.checksum);
	cr_assert_null(source->arrays.index);
	cr_assert_eq(source->arrays.paths.count, paths.count);
	cr_assert_str_eq(source->arrays.paths.path[1], paths.path[1]);
	segue_spec_destroy(out.stream_open.spec);
	segue_spec_destroy(spec);
}

Test(wire, stream_open_without_states_and_key)
{
	struct segue_spec *spec = NULL;
	struct segue_message m = {.type = SEGUE_MESSAGE_STREAM_OPEN}, out;
	struct sample sample;

	sample_init(&sample);
	sample.spec.state_count = sample.spec.context_count = 0;
	sample.spec.source.tfrecord.key_feature = NULL;
	cr_assert_eq(segue_draft_make(&sample.spec, &spec), 0);
	m.stream_open.spec = spec;
	out = there_and_back(&m);
	expect_same_spec(spec, out.stream_open.spec, true);
	cr_assert_null(out.stream_open.spec->source.tfrecord.key_feature);
	segue_spec_destroy(out.stream_open.spec);
	segue_spec_destroy(spec);
}

/* A mix of all kinds that are parts; its own paths and arrays. */
static struct segue_spec *make_mix(void)
{
	static const char *const paths[] = {"/data/c.segue", "/data/d.segue"};
	struct segue_draft_part parts[4];
	struct segue_spec *spec = NULL;
	struct sample sample;

	sample_init(&sample);
	parts[0] = (struct segue_draft_part){
		.name = "a", .source = sample.spec.source, .weight = UINT32_MAX / 500};
	parts[1] = (struct segue_draft_part){.name = "l",
		.source = {.kind = SEGUE_SOURCE_LOG,
			.log = {.capacity = 1000000, .producers = 3, .retain_bytes = 5}},
		.weight = UINT32_MAX / 1000,
		.epochs = 1};
	parts[2] = (struct segue_draft_part){.name = "b",
		.source = {.kind = SEGUE_SOURCE_FILES, .files = {.paths = paths, .path_count = 2}},
		.weight = UINT32_MAX / 1000,
		.epochs = 9};
	parts[3] = (struct segue_draft_part){.name = "c",
		.source = {.kind = SEGUE_SOURCE_ARRAYS,
			.arrays = {.paths = paths, .path_count = 1, .checksum = true}},
		.weight = UINT32_MAX / 1000};
	sample.spec.source = (struct segue_draft_source){
		.kind = SEGUE_SOURCE_MIX, .mix = {.parts = parts, .part_count = 4}};
	sample.spec.epochs = 1;
	cr_assert_eq(segue_draft_make(&sample.spec, &spec), 0, "%s", segue_error_detail());
	return spec;
}

Test(wire, stream_open_of_a_mix)
{
	struct segue_spec *spec = make_mix(), *copy = NULL;
	struct segue_message m = {.type = SEGUE_MESSAGE_STREAM_OPEN, .stream_open = {.spec = spec}};
	uint64_t before[2], after[2];

	for (int upload = 0; upload < 2; upload++) {
		m.stream_open.paths_upload = (uint64_t)upload;
		struct segue_message out = there_and_back(&m);
		const struct segue_spec_mix *mix = &out.stream_open.spec->source.mix;

		cr_assert_eq(out.stream_open.spec->source.kind, SEGUE_SOURCE_MIX);
		cr_assert_eq(mix->count, 4);
		cr_assert_eq(mix->part[1].source.kind, SEGUE_SOURCE_LOG);
		cr_assert_eq(mix->part[1].source.log.capacity, 1000000);
		cr_assert_eq(mix->part[1].source.log.producers, 3);
		cr_assert_eq(mix->part[1].source.log.retain_bytes, 5);
		cr_assert_str_eq(mix->part[2].name, "b");
		cr_assert(mix->part[0].weight == UINT32_MAX / 500 && mix->part[0].epochs == 0);
		cr_assert(mix->part[2].weight == UINT32_MAX / 1000 && mix->part[2].epochs == 9);
		cr_assert_str_eq(mix->part[0].source.tfrecord.key_feature, "id");
		cr_assert_eq(mix->part[2].source.kind, SEGUE_SOURCE_FILES);
		cr_assert_eq(mix->part[2].source.files.paths.count, upload ? 0 : 2);
		if (!upload)
			cr_assert_str_eq(mix->part[2].source.files.paths.path[1], "/data/d.segue");
		cr_assert_eq(mix->part[3].source.kind, SEGUE_SOURCE_ARRAYS);
		cr_assert(mix->part[3].source.arrays.checksum && !mix->part[3].source.arrays.index);
		cr_assert_eq(mix->part[3].source.arrays.paths.count, upload ? 0 : 1);
		segue_spec_destroy(out.stream_open.spec);
	}
	cr_assert_eq(segue_spec_copy(spec, &copy), 0);
	segue_spec_hash(spec, before);
	segue_spec_hash(copy, after);
	cr_assert_arr_eq(before, after, sizeof(before));
	cr_assert_eq(segue_spec_compare(spec, copy), 0);
	copy->source.mix.part[2].source.kind = SEGUE_SOURCE_TFRECORD;
	copy->source.mix.part[0].weight++;
	segue_spec_hash(copy, after);
	cr_assert_arr_neq(before, after, sizeof(before));
	cr_assert_eq(segue_spec_compare(spec, copy), SEGUE_ESPEC);
	copy->source.mix.part[2].source.kind = SEGUE_SOURCE_FILES;
	segue_spec_destroy(copy);
	segue_spec_destroy(spec);
}

/* The largest numbers of everything that a frame is to hold. */
Test(wire, stream_open_with_all_fields)
{
	static char names[SEGUE_FEATURES_MAX + SEGUE_STATES_MAX][8];
	static struct segue_feature features[SEGUE_FEATURES_MAX];
	static struct segue_state states[SEGUE_STATES_MAX];
	struct segue_message m = {.type = SEGUE_MESSAGE_STREAM_OPEN}, out;
	struct segue_spec *spec = NULL;
	struct sample sample;

	sample_init(&sample);
	for (int i = 0; i < SEGUE_FEATURES_MAX + SEGUE_STATES_MAX; i++)
		snprintf(names[i], sizeof(names[i]), "n%d", i);
	for (int i = 0; i < SEGUE_FEATURES_MAX; i++) {
		features[i] = (struct segue_feature){.name = names[i],
			.dtype = SEGUE_UINT8,
			.rank = i % 3 ? 0 : 8,
			.dims = {3, 3, 3, 3, 3, 3, 3, 3},
			.form = (enum segue_form)(i % 3)};
	}
	for (int i = 0; i < SEGUE_STATES_MAX; i++)
		states[i] = (struct segue_state){.name = names[SEGUE_FEATURES_MAX + i],
			.dtype = SEGUE_FLOAT64,
			.rank = 8,
			.dims = {2, 2, 2, 2, 2, 2, 2, 200},
			.init_from_data = i % 3 == 0,
			.policy = i % 2 ? SEGUE_POLICY_ZERO : SEGUE_POLICY_CARRY,
			.probability = i % 2 ? 0.1 : 0};
	sample.spec.source = (struct segue_draft_source){
		.kind = SEGUE_SOURCE_FILES, .files = {.paths = sample.paths, .path_count = 2}};
	sample.spec.sequences = features;
	sample.spec.sequence_count = 200;
	sample.spec.contexts = features + 200;
	sample.spec.context_count = 56;
	sample.spec.states = states;
	sample.spec.state_count = SEGUE_STATES_MAX;
	cr_assert_eq(segue_draft_make(&sample.spec, &spec), 0, "%s", segue_error_detail());
	m.stream_open.spec = spec;
	out = there_and_back(&m);
	expect_same_spec(spec, out.stream_open.spec, true);
	segue_spec_destroy(out.stream_open.spec);
	segue_spec_destroy(spec);
}

Test(wire, too_many_paths_for_a_frame)
{
	static char path[] = "/data/a-file-with-a-name-of-some-length.tfrecord";
	static uint8_t bytes[SEGUE_FRAME_MAX];
	struct segue_message m = {.type = SEGUE_MESSAGE_STREAM_OPEN};
	const char *paths[2000];
	struct sample sample;
	size_t size;

	sample_init(&sample);
	for (int i = 0; i < 2000; i++)
		paths[i] = path;
	sample.spec.source.tfrecord.paths = paths;
	sample.spec.source.tfrecord.path_count = 2000;
	cr_assert_eq(segue_draft_make(&sample.spec, &m.stream_open.spec), 0);
	cr_assert_eq(segue_message_pack(&m, bytes, &size), SEGUE_ELIMIT);
	cr_assert(strstr(segue_error_detail(), "stream_open"));
	cr_assert(strstr(segue_error_detail(), "at most 65536 are allowed"));
	m.stream_open.paths_upload = 1;
	cr_assert_eq(segue_message_pack(&m, bytes, &size), 0);
	segue_spec_destroy(m.stream_open.spec);
}

Test(wire, lane_attach)
{
	struct segue_message m = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.serial = 5,
		.lane_attach = {.stream = 1,
			.upload = 2,
			.step = UINT64_MAX,
			.lease = 4,
			.lane = 4095,
			.group = UINT32_MAX,
			.mode = SEGUE_ATTACH_OFFER,
			.timeout_ns = INT64_MAX,
			.batch_size = SEGUE_ROWS_MAX,
			.seen = {.number = 6, .hash = {7, UINT64_MAX}}}};
	struct segue_message out;

	memcpy(m.lane_attach.token, secret, 16);
	out = there_and_back(&m);
	cr_assert_eq(out.lane_attach.stream, 1);
	cr_assert_eq(out.lane_attach.upload, 2);
	cr_assert_eq(out.lane_attach.step, UINT64_MAX);
	cr_assert_eq(out.lane_attach.lease, 4);
	cr_assert_eq(out.lane_attach.lane, 4095);
	cr_assert_eq(out.lane_attach.group, UINT32_MAX);
	cr_assert_eq(out.lane_attach.mode, SEGUE_ATTACH_OFFER);
	cr_assert_eq(out.lane_attach.timeout_ns, INT64_MAX);
	cr_assert_eq(out.lane_attach.batch_size, SEGUE_ROWS_MAX);
	cr_assert_eq(out.lane_attach.seen.number, 6);
	cr_assert_eq(out.lane_attach.seen.hash[0], 7);
	cr_assert_eq(out.lane_attach.seen.hash[1], UINT64_MAX);
	cr_assert_eq(memcmp(out.lane_attach.token, secret, 16), 0);
	cr_assert_eq(out.lane_attach.kept_size, 0);
	uint8_t kept[512];
	memset(kept, 0xa5, sizeof(kept));
	m.lane_attach.kept = kept;
	m.lane_attach.kept_size = sizeof(kept);
	out = there_and_back(&m);
	cr_assert_eq(out.lane_attach.kept_size, sizeof(kept));
	cr_assert_arr_eq(out.lane_attach.kept, kept, sizeof(kept));
	m.lane_attach.kept_size = 0;
	for (unsigned mode = SEGUE_ATTACH_NONE; mode <= SEGUE_ATTACH_RESIZE; mode++) {
		static const uint8_t zeros[16];

		if (mode == SEGUE_ATTACH_OFFER)
			continue;
		m.lane_attach.mode = mode;
		out = there_and_back(&m);
		cr_assert_eq(out.lane_attach.mode, mode);
		cr_assert_eq(memcmp(out.lane_attach.token, zeros, 16), 0, "a secret went out");
	}
}

Test(wire, small_requests)
{
	struct segue_message m = {
		.type = SEGUE_MESSAGE_LANE_DETACH, .serial = 6, .lane_detach = {.lease = 7}};
	struct segue_message out = there_and_back(&m);

	cr_assert_eq(out.lane_detach.lease, 7);
	m = (struct segue_message){
		.type = SEGUE_MESSAGE_LANE_FLUSH, .serial = 7, .lane_flush = {.lease = 8}};
	out = there_and_back(&m);
	cr_assert_eq(out.lane_flush.lease, 8);
	m = (struct segue_message){.type = SEGUE_MESSAGE_LANE_SIDE,
		.serial = 8,
		.lane_side = {.lease = 9, .step = 10}};
	out = there_and_back(&m);
	cr_assert_eq(out.lane_side.lease, 9);
	cr_assert_eq(out.lane_side.step, 10);
	m = (struct segue_message){.type = SEGUE_MESSAGE_UPLOAD, .upload = {.size = UINT64_MAX}};
	out = there_and_back(&m);
	cr_assert_eq(out.upload.size, UINT64_MAX);
	m = (struct segue_message){.type = SEGUE_MESSAGE_CHECKPOINT,
		.checkpoint = {.stream = 1, .step = 2, .lane = 3, .group = 4, .timeout_ns = 5}};
	out = there_and_back(&m);
	cr_assert_eq(out.checkpoint.stream, 1);
	cr_assert_eq(out.checkpoint.step, 2);
	cr_assert_eq(out.checkpoint.lane, 3);
	cr_assert_eq(out.checkpoint.group, 4);
	cr_assert_eq(out.checkpoint.timeout_ns, 5);
	m = (struct segue_message){.type = SEGUE_MESSAGE_STORED,
		.stored = {.stream = "train",
			.group = "b",
			.id = UINT64_MAX,
			.lane = 4095,
			.remove = true}};
	out = there_and_back(&m);
	cr_assert_str_eq(out.stored.stream, "train");
	cr_assert_str_eq(out.stored.group, "b");
	cr_assert_eq(out.stored.id, UINT64_MAX);
	cr_assert_eq(out.stored.lane, 4095);
	cr_assert(out.stored.remove);
	m = (struct segue_message){.type = SEGUE_MESSAGE_STREAM_DROP,
		.stream_drop = {.stream = "train", .group = "b"}};
	out = there_and_back(&m);
	cr_assert_str_eq(out.stream_drop.stream, "train");
	cr_assert_str_eq(out.stream_drop.group, "b");
	m = (struct segue_message){
		.type = SEGUE_MESSAGE_STREAM_FILES, .stream_files = {.stream = "live"}};
	out = there_and_back(&m);
	cr_assert_str_eq(out.stream_files.stream, "live");
	m = (struct segue_message){.type = SEGUE_MESSAGE_STATES,
		.states = {.what = SEGUE_STATES_REQUEST_PUT,
			.stream = "train",
			.group = "c",
			.key = "a:\xff",
			.live = true,
			.again = true,
			.upload = 7,
			.lane = 4095,
			.at = {UINT64_MAX, 5}}};
	out = there_and_back(&m);
	cr_assert_eq(out.states.what, SEGUE_STATES_REQUEST_PUT);
	cr_assert_str_eq(out.states.stream, "train");
	cr_assert_str_eq(out.states.group, "c");
	cr_assert_str_eq(out.states.key, "a:\xff");
	cr_assert(out.states.live && out.states.again);
	cr_assert_eq(out.states.upload, 7);
	cr_assert_eq(out.states.lane, 4095);
	cr_assert_eq(out.states.at[0], UINT64_MAX);
	cr_assert_eq(out.states.at[1], 5);
	m = (struct segue_message){
		.type = SEGUE_MESSAGE_GROUP, .group = {.stream = UINT64_MAX, .name = "b"}};
	out = there_and_back(&m);
	cr_assert_eq(out.group.stream, UINT64_MAX);
	cr_assert_str_eq(out.group.name, "b");
	m = (struct segue_message){.type = SEGUE_MESSAGE_GROUPED, .grouped = {.group = UINT32_MAX}};
	out = there_and_back(&m);
	cr_assert_eq(out.grouped.group, UINT32_MAX);
	m = (struct segue_message){.type = SEGUE_MESSAGE_STREAM_END, .stream_end = {.stream = 3}};
	out = there_and_back(&m);
	cr_assert_eq(out.stream_end.stream, 3);
	m = (struct segue_message){
		.type = SEGUE_MESSAGE_INPUT_FAILED, .input_failed = {3, "item 7"}};
	out = there_and_back(&m);
	cr_assert_eq(out.input_failed.stream, 3);
	cr_assert_str_eq(out.input_failed.reason, "item 7");
	for (unsigned what = SEGUE_REPORT_STATUS; what <= SEGUE_REPORT_BATCHES; what++) {
		m = (struct segue_message){.type = SEGUE_MESSAGE_REPORT,
			.report = {.what = what,
				.stream = what % 2 ? "train" : "",
				.key = what % 2 ? "" : "file\xff:12"}};
		out = there_and_back(&m);
		cr_assert_eq(out.report.what, what);
		cr_assert_str_eq(out.report.stream, m.report.stream);
		cr_assert_str_eq(out.report.key, m.report.key, "keys may be any bytes");
	}
}

Test(wire, producers)
{
	struct segue_message m = {.type = SEGUE_MESSAGE_PRODUCER_OPEN,
		.serial = 6,
		.producer_open = {.stream = 1,
			.ring = UINT64_MAX,
			.producer = "actor 0",
			.token = "sixteen bytes ..",
			.takeover = true}};
	struct segue_message out = there_and_back(&m);

	cr_assert_eq(out.producer_open.stream, 1);
	cr_assert_eq(out.producer_open.ring, UINT64_MAX);
	cr_assert_str_eq(out.producer_open.producer, "actor 0");
	cr_assert_arr_eq(out.producer_open.token, m.producer_open.token, SEGUE_TOKEN_BYTES);
	cr_assert(out.producer_open.takeover);
	m = (struct segue_message){.type = SEGUE_MESSAGE_INSERT,
		.serial = 7,
		.insert = {1, 2, 3, 4, 5, UINT32_MAX, UINT64_MAX, 4096, 4096}};
	out = there_and_back(&m);
	cr_assert_eq(memcmp(&out.insert, &m.insert, sizeof(out.insert)), 0);
	m = (struct segue_message){
		.type = SEGUE_MESSAGE_PRODUCER_WAIT, .producer_wait = {1, 2, true}};
	out = there_and_back(&m);
	cr_assert(out.producer_wait.producer == 1 && out.producer_wait.entry == 2 &&
		  out.producer_wait.look);
	m = (struct segue_message){
		.type = SEGUE_MESSAGE_PRODUCER_LEAVE, .producer_leave = {1, true}};
	out = there_and_back(&m);
	cr_assert(out.producer_leave.producer == 1 && out.producer_leave.close);
	m = (struct segue_message){
		.type = SEGUE_MESSAGE_PRODUCER_OPENED, .producer_opened = {1, 2, 4096}};
	out = there_and_back(&m);
	cr_assert_eq(
		memcmp(&out.producer_opened, &m.producer_opened, sizeof(m.producer_opened)), 0);
	m = (struct segue_message){
		.type = SEGUE_MESSAGE_ACKNOWLEDGED, .acknowledged = {UINT64_MAX}};
	out = there_and_back(&m);
	cr_assert_eq(out.acknowledged.entry, UINT64_MAX);
}

Test(wire, producers_that_are_wrong)
{
	static struct bytes bytes;

	number(&bytes, 7, 0);
	expect_refused(SEGUE_MESSAGE_INSERT, &bytes, "insert.steps is 0");
	bytes.size = 0;
	number(&bytes, 7, 1);
	number(&bytes, 9, 4097);
	expect_refused(SEGUE_MESSAGE_INSERT, &bytes, "insert.key_size is 4097");
	bytes.size = 0;
	number(&bytes, 7, 1);
	number(&bytes, 9, 1);
	number(&bytes, 10, 4097);
	expect_refused(SEGUE_MESSAGE_INSERT, &bytes, "insert.cursor_size is 4097");
	bytes.size = 0;
	number(&bytes, 4, 4097);
	expect_refused(
		SEGUE_MESSAGE_PRODUCER_OPENED, &bytes, "producer_opened.cursor_size is 4097");
}

Test(wire, replies)
{
	struct segue_message m = {.type = SEGUE_MESSAGE_OPENED,
		.serial = 1,
		.opened = {.stream = 2, .records = 3, .layout_hash = UINT64_MAX, .key_max = 4096}};
	struct segue_message out = there_and_back(&m);

	cr_assert_eq(out.opened.stream, 2);
	cr_assert_eq(out.opened.records, 3);
	cr_assert_eq(out.opened.layout_hash, UINT64_MAX);
	cr_assert_eq(out.opened.key_max, 4096);
	for (uint32_t rows = 0; rows < 2; rows++) {
		m = (struct segue_message){.type = SEGUE_MESSAGE_ATTACHED,
			.attached = {.lease = 1,
				.generation = 2,
				.step = 3,
				.rows = rows,
				.places = rows + 1,
				.batch_size = SEGUE_ROWS_MAX - rows}};
		memcpy(m.attached.token, secret, 16);
		out = there_and_back(&m);
		cr_assert_eq(out.attached.lease, 1);
		cr_assert_eq(out.attached.generation, 2);
		cr_assert_eq(out.attached.step, 3);
		cr_assert_eq(out.attached.rows, rows);
		cr_assert_eq(out.attached.places, rows + 1);
		cr_assert_eq(out.attached.batch_size, SEGUE_ROWS_MAX - rows);
		cr_assert_eq(memcmp(out.attached.token, secret, 16), 0);
	}
	m = (struct segue_message){.type = SEGUE_MESSAGE_FOLLOWING,
		.attached = {.lease = 1, .step = 3, .rows = 4, .places = 5, .taken = UINT32_MAX}};
	out = there_and_back(&m);
	cr_assert_eq(out.attached.lease, 1);
	cr_assert_eq(out.attached.step, 3);
	cr_assert_eq(out.attached.rows, 4);
	cr_assert_eq(out.attached.places, 5);
	cr_assert_eq(out.attached.taken, UINT32_MAX);
	m = (struct segue_message){.type = SEGUE_MESSAGE_DONE, .serial = 9};
	there_and_back(&m);
	m = (struct segue_message){.type = SEGUE_MESSAGE_BULK,
		.bulk = {.id = 1, .size = 2, .step = 3, .needs = 4, .first = 5}};
	out = there_and_back(&m);
	cr_assert(out.bulk.id == 1 && out.bulk.size == 2 && out.bulk.step == 3 &&
		  out.bulk.needs == 4 && out.bulk.first == 5);
	m = (struct segue_message){.type = SEGUE_MESSAGE_PROGRESS,
		.progress = {.what = "records", .done = 1, .total = 2}};
	out = there_and_back(&m);
	cr_assert_str_eq(out.progress.what, "records");
	cr_assert(out.progress.done == 1 && out.progress.total == 2);
	m = (struct segue_message){.type = SEGUE_MESSAGE_FAILURE,
		.failure = {.code = SEGUE_EINTERRUPTED, .detail = "stopped"}};
	out = there_and_back(&m);
	cr_assert_eq(out.failure.code, SEGUE_EINTERRUPTED);
	cr_assert_str_eq(out.failure.detail, "stopped");
}

/* Names of files need not be UTF-8, and stand in details. */
Test(wire, texts_for_people_are_made_valid)
{
	static char long_detail[2 * SEGUE_DETAIL_MAX];
	struct segue_message m = {.type = SEGUE_MESSAGE_FAILURE,
		.failure = {.code = -1, .detail = "a\xff\xfe b\xc3 \xe2\x82\xac\xe2\x82"}};
	struct segue_message out = there_and_back(&m);

	cr_assert_str_eq(out.failure.detail, "a?? b? \xe2\x82\xac??");
	for (size_t i = 1; i + 3 < sizeof(long_detail); i += 3)
		memcpy(long_detail + i, "\xe2\x82\xac", 4);
	long_detail[0] = 'x';
	m.failure.detail = long_detail;
	out = there_and_back(&m);
	cr_assert_eq(strlen(out.failure.detail), SEGUE_DETAIL_MAX, "1 + 3 * 1365");
	cr_assert_eq(strncmp(out.failure.detail, long_detail, SEGUE_DETAIL_MAX), 0);
}

Test(wire, reports_that_cannot_be_asked_for)
{
	static uint8_t bytes[SEGUE_FRAME_MAX];
	static char long_text[SEGUE_KEY_MAX + 2];
	struct segue_message m = {.type = SEGUE_MESSAGE_REPORT,
		.report = {.what = SEGUE_REPORT_GET, .stream = "a\xff", .key = ""}};
	size_t size;

	memset(long_text, 'k', SEGUE_KEY_MAX + 1);
	cr_assert_eq(segue_message_pack(&m, bytes, &size), SEGUE_EINVAL);
	m.report.stream = long_text;
	cr_assert_eq(segue_message_pack(&m, bytes, &size), SEGUE_EINVAL);
	m.report.stream = "";
	m.report.key = long_text;
	cr_assert_eq(segue_message_pack(&m, bytes, &size), SEGUE_EINVAL);
	cr_assert(strstr(segue_error_detail(), "4097 bytes"));
	m.report.key = long_text + 1;
	cr_assert_eq(segue_message_pack(&m, bytes, &size), 0);
}

/*
 * ---- Against bytes by hand --------------------------------------------------------------------
 */

/* The numbers of fields are the protocol. */
Test(wire, bytes_of_a_message)
{
	static struct bytes expected;
	static uint8_t bytes[SEGUE_FRAME_MAX];
	struct segue_message m = {.type = SEGUE_MESSAGE_ATTACHED,
		.serial = 300,
		.attached = {.lease = 1,
			.generation = 1 << 20,
			.step = 3,
			.rows = 7,
			.places = 9,
			.batch_size = 5}};
	size_t size;

	memcpy(m.attached.token, secret, 16);
	number(&expected, 1, 300);
	number(&expected, 2, 1);
	number(&expected, 3, 1 << 20);
	blob(&expected, 4, secret, 16);
	number(&expected, 5, 3);
	number(&expected, 7, 7);
	number(&expected, 8, 9);
	number(&expected, 9, 5);
	cr_assert_eq(segue_message_pack(&m, bytes, &size), 0);
	cr_assert_eq(size, expected.size);
	cr_assert_eq(memcmp(bytes, expected.data, size), 0);
}

/* A newer peer of the same protocol may say more. */
Test(wire, unknown_fields_are_passed_over)
{
	static struct bytes bytes;
	struct segue_message out;

	number(&bytes, 900, 5);
	number(&bytes, 1, 7);
	text(&bytes, 901, "more");
	fixed(&bytes, 902, 8);
	number(&bytes, 2, 9);
	cr_assert_eq(unpack(SEGUE_MESSAGE_LANE_DETACH, bytes.data, bytes.size, &out), 0);
	cr_assert_eq(out.serial, 7);
	cr_assert_eq(out.lane_detach.lease, 9);
}

Test(wire, unknown_types)
{
	static const struct bytes empty;
	static const uint16_t types[] = {0, 8, 64, 76, 66 + 256, UINT16_MAX};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		expect_refused(types[i], &empty, "which is no message");
}

static void spec_with(struct bytes *to, void (*change)(struct bytes *spec))
{
	static struct bytes spec;

	spec.size = 0;
	text(&spec, 1, "train");
	change(&spec);
	to->size = 0;
	blob(to, 2, spec.data, spec.size);
}

static char long_text[SEGUE_DETAIL_MAX + 2];

static void field(struct bytes *spec, unsigned kind, const char *name, uint64_t dtype, size_t dims)
{
	static struct bytes pb;

	pb.size = 0;
	text(&pb, 1, name);
	number(&pb, 2, dtype);
	for (size_t i = 0; i < dims; i++)
		number(&pb, 3, 2);
	blob(spec, kind, pb.data, pb.size);
}

static void no_dtype(struct bytes *s)
{
	field(s, 10, "x", 0, 0);
}
static void bad_dtype(struct bytes *s)
{
	field(s, 10, "x", 1, 1);
	field(s, 10, "y", 14, 1);
}
static void many_dims(struct bytes *s)
{
	field(s, 11, "x", 1, 9);
}
static void long_name(struct bytes *s)
{
	memset(long_text, 'n', SEGUE_NAME_MAX + 1);
	long_text[SEGUE_NAME_MAX + 1] = '\0';
	field(s, 12, long_text, 1, 0);
}
static void bad_name(struct bytes *s)
{
	field(s, 12, "\xff", 1, 0);
}
static void many_sequences(struct bytes *s)
{
	for (int i = 0; i <= SEGUE_FEATURES_MAX; i++)
		field(s, 10, "x", 1, 0);
}
static void many_states(struct bytes *s)
{
	for (int i = 0; i <= SEGUE_STATES_MAX; i++)
		field(s, 12, "x", 1, 0);
}
static void bad_tail(struct bytes *s)
{
	number(s, 20, 3);
}
static void bad_epoch_end(struct bytes *s)
{
	number(s, 21, UINT32_MAX);
}
static void bad_on_error(struct bytes *s)
{
	number(s, 22, 2);
}
static void bad_durability(struct bytes *s)
{
	number(s, 27, 2);
}
static struct bytes source;

static void bad_compression(struct bytes *s)
{
	source.size = 0;
	number(&source, 2, 4);
	blob(s, 2, source.data, source.size);
}
static void bad_record(struct bytes *s)
{
	source.size = 0;
	number(&source, 5, 2);
	blob(s, 2, source.data, source.size);
}
static void nul_path(struct bytes *s)
{
	source.size = 0;
	blob(&source, 1, "/a\0b", 4);
	blob(s, 2, source.data, source.size);
}
static void long_path(struct bytes *s)
{
	memset(long_text, '/', 4096);
	source.size = 0;
	blob(&source, 1, long_text, 4096);
	blob(s, 2, source.data, source.size);
}
static void nul_key(struct bytes *s)
{
	source.size = 0;
	blob(&source, 3, "k\0", 2);
	blob(s, 2, source.data, source.size);
}
static void long_key(struct bytes *s)
{
	memset(long_text, 'k', 256);
	source.size = 0;
	blob(&source, 3, long_text, 256);
	blob(s, 2, source.data, source.size);
}
static void no_source(struct bytes *s)
{
	number(s, 13, 20);
}
/* Of a newer peer: passed over as any unknown field is, and then there is none. */
static void other_source(struct bytes *s)
{
	blob(s, 9, "", 0);
}

Test(wire, specs_of_a_peer_are_checked)
{
	static const struct {
		void (*change)(struct bytes *spec);
		const char *says;
	} cases[] = {
		{no_dtype, "spec.sequences[0]: dtype is 0"},
		{bad_dtype, "spec.sequences[1]: dtype is 14, expected 1 to 13"},
		{many_dims, "spec.contexts[0]: number of dims is 9"},
		{long_name, "spec.states[0]: name has 256 bytes"},
		{bad_name, "spec.states[0]: name is not valid UTF-8"},
		{many_sequences, "spec.sequences is 257"},
		{many_states, "spec.states is 1025"},
		{bad_compression, "spec.compression is 4"},
		{bad_record, "spec.record is 2"},
		{bad_tail, "spec.tail is 3"},
		{bad_epoch_end, "spec.epoch_end is 4294967295"},
		{bad_on_error, "spec.on_error is 2"},
		{bad_durability, "spec.durability is 2"},
		{nul_path, "spec.paths has a NUL"},
		{long_path, "spec.paths has 4096 bytes"},
		{nul_key, "spec.key_feature has a NUL"},
		{long_key, "spec.key_feature has 256 bytes"},
		{no_source, "spec.source is missing"},
		{other_source, "spec.source is missing, or of a kind that is not known"},
	};
	static struct bytes bytes;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		spec_with(&bytes, cases[i].change);
		expect_refused(SEGUE_MESSAGE_STREAM_OPEN, &bytes, cases[i].says);
	}
	bytes.size = 0;
	expect_refused(SEGUE_MESSAGE_STREAM_OPEN, &bytes, "spec is missing");
	spec_with(&bytes, nul_path);
	number(&bytes, 3, 5);
	expect_refused(SEGUE_MESSAGE_STREAM_OPEN, &bytes, "paths in the spec and in upload 5");
	/* The stream's own source, and one that is given. */
	spec_with(&bytes, nul_path);
	number(&bytes, 6, 1);
	expect_refused(SEGUE_MESSAGE_STREAM_OPEN, &bytes, "spec.source is there");
	number(&bytes, 5, 3);
	expect_refused(SEGUE_MESSAGE_STREAM_OPEN, &bytes, "an upload for the source");
	/* Without it where it must be: of an unknown kind, of which a later version would know. */
	spec_with(&bytes, no_source);
	expect_refused(SEGUE_MESSAGE_STREAM_OPEN, &bytes, "spec.source is missing");
	spec_with(&bytes, nul_path);
	expect_refused(SEGUE_MESSAGE_FOUND, &bytes, "spec.source is there");
}

#define BAD(type, says, build)                                                                     \
	do {                                                                                       \
		bytes.size = 0;                                                                    \
		build;                                                                             \
		expect_refused(type, &bytes, says);                                                \
	} while (0)

Test(wire, fields_of_a_peer_are_checked)
{
	static struct bytes bytes;

	memset(long_text, 'k', sizeof(long_text) - 1);
	BAD(SEGUE_MESSAGE_HELLO, "hello.version is not valid UTF-8", text(&bytes, 4, "\xc3"));
	BAD(SEGUE_MESSAGE_HELLO, "hello.program has 256", blob(&bytes, 5, long_text, 256));
	BAD(SEGUE_MESSAGE_LANE_ATTACH, "lane_attach.mode is 8", number(&bytes, 5, 8));
	BAD(SEGUE_MESSAGE_LANE_ATTACH, "lane_attach.batch_size is 1048577", number(&bytes, 5, 7);
		number(&bytes, 15, SEGUE_ROWS_MAX + 1));
	BAD(SEGUE_MESSAGE_LANE_ATTACH, "token has 15 bytes, expected 16", number(&bytes, 5, 4);
		blob(&bytes, 7, secret, 15));
	BAD(SEGUE_MESSAGE_LANE_ATTACH, "token has 0 bytes, expected 16", number(&bytes, 5, 4));
	BAD(SEGUE_MESSAGE_LANE_ATTACH, "token has 16 bytes, expected 0",
		blob(&bytes, 7, secret, 16));
	BAD(SEGUE_MESSAGE_LANE_ATTACH, "lane_attach.kept is 513", blob(&bytes, 18, long_text, 513));
	BAD(SEGUE_MESSAGE_LANE_ATTACH, "lane_attach.lane is 4096", number(&bytes, 3, 4096));
	BAD(SEGUE_MESSAGE_LANE_ATTACH, "timeout_ns is negative: -1",
		number(&bytes, 10, UINT64_MAX));
	BAD(SEGUE_MESSAGE_CHECKPOINT, "checkpoint.lane is 4096", number(&bytes, 3, 4096));
	BAD(SEGUE_MESSAGE_CHECKPOINT, "timeout_ns is negative", number(&bytes, 6, UINT64_MAX));
	BAD(SEGUE_MESSAGE_STORED, "stored.lane is 4096", number(&bytes, 3, 4096));
	BAD(SEGUE_MESSAGE_STORED, "stored.stream has 256", blob(&bytes, 2, long_text, 256));
	BAD(SEGUE_MESSAGE_STORED, "stored.group has 256", blob(&bytes, 6, long_text, 256));
	BAD(SEGUE_MESSAGE_STATES, "states.group has 256",
		(number(&bytes, 2, 1), blob(&bytes, 11, long_text, 256)));
	BAD(SEGUE_MESSAGE_GROUP, "group.name has 256", blob(&bytes, 3, long_text, 256));
	BAD(SEGUE_MESSAGE_REPORT, "report.what is 0", number(&bytes, 1, 1));
	BAD(SEGUE_MESSAGE_REPORT, "report.what is 6", number(&bytes, 2, 6));
	BAD(SEGUE_MESSAGE_REPORT, "report.key has a NUL", number(&bytes, 2, 1);
		blob(&bytes, 4, "\0", 1));
	BAD(SEGUE_MESSAGE_REPORT, "report.key has 4097", number(&bytes, 2, 1);
		blob(&bytes, 4, long_text, 4097));
	BAD(SEGUE_MESSAGE_REPORT, "report.stream has 256", number(&bytes, 2, 1);
		blob(&bytes, 3, long_text, 256));
	BAD(SEGUE_MESSAGE_WELCOME, "welcome.version", text(&bytes, 4, "\xff"));
	BAD(SEGUE_MESSAGE_OPENED, "opened.key_max is 4097", number(&bytes, 4, 4097));
	BAD(SEGUE_MESSAGE_ATTACHED, "attached.token has 17", blob(&bytes, 4, long_text, 17));
	BAD(SEGUE_MESSAGE_ATTACHED, "attached.places is 0", blob(&bytes, 4, secret, 16));
	BAD(SEGUE_MESSAGE_ATTACHED, "attached.rows is 1048577", blob(&bytes, 4, secret, 16);
		number(&bytes, 7, SEGUE_ROWS_MAX + 1));
	BAD(SEGUE_MESSAGE_ATTACHED, "attached.batch_size is 1048577", blob(&bytes, 4, secret, 16);
		number(&bytes, 8, 1); number(&bytes, 9, SEGUE_ROWS_MAX + 1));
	BAD(SEGUE_MESSAGE_PROGRESS, "progress.what", text(&bytes, 2, "\xff"));
	BAD(SEGUE_MESSAGE_FAILURE, "failure.code is 0", number(&bytes, 1, 1));
	BAD(SEGUE_MESSAGE_FAILURE, "failure.code is 1", number(&bytes, 2, 2)); /* zigzag */
	BAD(SEGUE_MESSAGE_FAILURE, "failure.detail has 4097", number(&bytes, 2, 1);
		blob(&bytes, 3, long_text, 4097));
	BAD(SEGUE_MESSAGE_DONE, "done: 3 bytes are no such message",
		memcpy(bytes.data, "\xff\xff\xff", 3);
		bytes.size = 3);
	BAD(SEGUE_MESSAGE_DONE, "no such message", text(&bytes, 2, "cut"); bytes.size--);
}

/*
 * ---- Bounds ------------------------------------------------------------------------------------
 */

/* Two bytes that unpack to a struct of eighty, as often as a frame takes. */
Test(wire, bombs_stop_at_the_arena)
{
	static struct bytes spec, bytes;

	while (spec.size < SEGUE_FRAME_MAX - 20)
		blob(&spec, 6, "", 0);
	blob(&bytes, 2, spec.data, spec.size);
	expect_refused(SEGUE_MESSAGE_STREAM_OPEN, &bytes, "need more than the 1048576");
	bytes.size = 0;
	while (bytes.size < SEGUE_FRAME_MAX - 4)
		blob(&bytes, 1000, "", 0); /* unknown fields */
	expect_refused(SEGUE_MESSAGE_DONE, &bytes, "need more than the 1048576");
	/* And the next message is none the worse. */
	there_and_back(&(struct segue_message){.type = SEGUE_MESSAGE_DONE, .serial = 3});
}

Test(wire, arena_is_zeroed_for_each_message)
{
	static struct bytes bytes;
	struct segue_message out;

	memset(long_text, 'k', SEGUE_KEY_MAX);
	number(&bytes, 2, 3);
	blob(&bytes, 4, long_text, SEGUE_KEY_MAX);
	cr_assert_eq(unpack(SEGUE_MESSAGE_REPORT, bytes.data, bytes.size, &out), 0);
	cr_assert_eq(strlen(out.report.key), SEGUE_KEY_MAX);
	cr_assert_gt(arena.used, SEGUE_KEY_MAX);
	segue_arena_reset(&arena);
	cr_assert_eq(arena.used, 0);
	for (size_t i = 0; i < arena.size; i++)
		cr_assert_eq(arena.base[i], 0);
}

Test(wire, small_arena)
{
	struct segue_arena small;
	struct segue_frame frame = {.type = SEGUE_MESSAGE_REPORT};
	struct segue_message out;
	static struct bytes bytes;

	number(&bytes, 2, 3);
	text(&bytes, 4, "key");
	frame.payload = bytes.data;
	frame.size = (uint32_t)bytes.size;
	for (size_t size = 1; size < 400; size++) {
		int rc;

		cr_assert_eq(segue_arena_init(&small, size), 0);
		rc = segue_message_unpack(&frame, &small, &out);
		cr_assert(rc == 0 || rc == SEGUE_EPROTOCOL, "%zu", size);
		cr_assert(size > 30 || rc == SEGUE_EPROTOCOL, "%zu", size);
		cr_assert(size < 300 || rc == 0, "%zu: %s", size, segue_error_detail());
		segue_arena_finish(&small);
	}
}

/*
 * ---- Records
 * ------------------------------------------------------------------------------------
 */

static struct segue_position *random_position(unsigned *seed, uint32_t rows)
{
	struct segue_position *p = calloc(1, sizeof(*p) + rows * sizeof(p->row[0]));

	p->step = (uint64_t)rand_r(seed) << (rand_r(seed) % 33);
	p->next = (uint64_t)rand_r(seed);
	p->epoch = (uint64_t)rand_r(seed) % 3;
	p->epoch_step = (uint64_t)rand_r(seed);
	p->undelivered = (uint64_t)rand_r(seed) % 2;
	if (rand_r(seed) % 2) {
		p->sized = 1 + (uint64_t)rand_r(seed);
		p->batch_size = (uint32_t)rand_r(seed) % 300;
		p->parked = rows ? (uint32_t)rand_r(seed) % rows : 0;
	}
	if (rand_r(seed) % 2 && rows > p->parked)
		p->waiting = (uint32_t)rand_r(seed) % (rows - p->parked);
	p->rows = rows - p->parked - p->waiting;
	for (uint32_t i = 0; i < rows; i++) {
		if (rand_r(seed) % 5 == 0) {
			p->row[i].number = SEGUE_NO_SEQUENCE;
			continue;
		}
		p->row[i].number = (uint64_t)rand_r(seed) << (rand_r(seed) % 33);
		p->row[i].array_steps = (uint64_t)rand_r(seed);
		p->row[i].total_length = (uint64_t)rand_r(seed);
		p->row[i].segment = (uint64_t)rand_r(seed) % 100;
	}
	return p;
}

static void expect_same_position(
	const struct segue_position *a, const struct segue_position *b, unsigned seed)
{
	cr_assert_eq(segue_position_entries(a), segue_position_entries(b), "seed %u", seed);
	cr_assert_eq(memcmp(a, b, sizeof(*a) + segue_position_entries(a) * sizeof(a->row[0])), 0,
		"seed %u", seed);
}

static struct segue_lane_record lane_record(struct segue_position *position)
{
	struct segue_lane_record record = {.generation = 1u << 31,
		.held = true,
		.holder = {.pid_namespace = 4026531836, .pid = 4000000, .start_time = UINT64_MAX},
		.committed_ms = 1700000000000,
		.origin = UINT64_MAX - 3,
		.position = position};

	memcpy(record.token, secret, 16);
	memcpy(record.holder.boot_id, secret, 16);
	return record;
}

static struct segue_token_record token_record(struct segue_position *position)
{
	return (struct segue_token_record){.stream = "tr\xc3\xa4in",
		.spec_hash = {1, UINT64_MAX},
		.fingerprint = {UINT64_MAX, 4},
		.lanes = 4096,
		.lane = 4095,
		.batch_size = 1u << 20,
		.row_size = 5,
		.log_hash = {6, UINT64_MAX},
		.origin = 7,
		.position = position};
}

Test(wire, lane_record)
{
	for (unsigned seed = 1; seed <= 50; seed++) {
		unsigned draw = seed;
		struct segue_position *position =
			random_position(&draw, (uint32_t)rand_r(&draw) % 300);
		struct segue_lane_record record = lane_record(position), out;
		size_t size;
		void *bytes;

		record.held = seed % 2;
		cr_assert_eq(segue_lane_record_pack(&record, &bytes, &size), 0);
		cr_assert_eq(
			segue_lane_record_unpack(bytes, size, &out), 0, "%s", segue_error_detail());
		expect_same_position(position, out.position, seed);
		cr_assert_eq(out.generation, record.generation);
		cr_assert_eq(memcmp(out.token, secret, 16), 0);
		cr_assert_eq(out.held, seed % 2);
		cr_assert_eq(memcmp(&out.holder, &record.holder, sizeof(out.holder)), 0);
		cr_assert_eq(out.committed_ms, 1700000000000);
		cr_assert_eq(out.origin, record.origin);
		free(out.position);
		free(bytes);
		free(position);
	}
}

Test(wire, token_record)
{
	for (unsigned seed = 1; seed <= 50; seed++) {
		unsigned draw = seed;
		struct segue_position *position =
			random_position(&draw, (uint32_t)rand_r(&draw) % 300);
		struct segue_token_record record = token_record(position), out;
		size_t size;
		void *bytes;

		record.ends.count = seed % 3;
		record.ends.epochs[0] = seed;
		record.ends.epochs[1] = seed % 2 ? 0 : UINT64_MAX;
		cr_assert_eq(segue_token_record_pack(&record, &bytes, &size), 0);
		cr_assert_eq(segue_token_record_unpack(bytes, size, &out), 0, "%s",
			segue_error_detail());
		expect_same_position(position, out.position, seed);
		cr_assert_str_eq(out.stream, record.stream);
		cr_assert_eq(memcmp(out.spec_hash, record.spec_hash, 16), 0);
		cr_assert_eq(memcmp(out.fingerprint, record.fingerprint, 16), 0);
		cr_assert_eq(memcmp(&out.ends, &record.ends,
				     offsetof(struct segue_ends, epochs[seed % 3])),
			0);
		cr_assert_eq(out.lanes, record.lanes);
		cr_assert_eq(out.lane, record.lane);
		cr_assert_eq(out.batch_size, record.batch_size);
		cr_assert_eq(out.row_size, 5);
		cr_assert_arr_eq(out.log_hash, record.log_hash, sizeof(out.log_hash));
		cr_assert_eq(out.origin, record.origin);
		free(out.position);
		free(bytes);
		free(position);
	}
}

/* As many rows as a batch can have, with the longest numbers and with the shortest. */
Test(wire, largest_position)
{
	for (int shape = 0; shape < 2; shape++) {
		unsigned draw = 1;
		uint32_t rows = 1u << 20;
		struct segue_position *position = random_position(&draw, rows);
		struct segue_token_record record = token_record(position), out;
		size_t size;
		void *bytes;

		for (uint32_t i = 0; i < rows; i++)
			position->row[i] = shape ? (struct segue_plan_row){UINT64_MAX, UINT64_MAX,
							   UINT64_MAX, UINT64_MAX}
						 : (struct segue_plan_row){.number = 0};
		cr_assert_eq(segue_token_record_pack(&record, &bytes, &size), 0);
		cr_assert_eq(segue_token_record_unpack(bytes, size, &out), 0, "%s",
			segue_error_detail());
		expect_same_position(position, out.position, 1);
		free(out.position);
		free(bytes);
		free(position);
	}
}

Test(wire, stream_record)
{
	struct segue_stream_record record = {.id = UINT32_MAX,
					   .spec = sample_spec(),
					   .fingerprint = {1, UINT64_MAX},
					   .created_ms = 1700000000000},
				   out;
	size_t size;
	void *bytes;

	cr_assert_eq(segue_stream_record_pack(&record, &bytes, &size), 0);
	cr_assert_eq(segue_stream_record_unpack(bytes, size, &out), 0, "%s", segue_error_detail());
	expect_same_spec(record.spec, out.spec, true);
	cr_assert_eq(out.spec->sequences[0].size, 60, "unpacked records are checked");
	cr_assert_eq(out.id, UINT32_MAX);
	cr_assert_eq(memcmp(out.fingerprint, record.fingerprint, 16), 0);
	cr_assert_eq(out.created_ms, 1700000000000);
	segue_spec_destroy(out.spec);
	free(bytes);

	record.spec->lanes = 0;
	cr_assert_eq(segue_stream_record_pack(&record, &bytes, &size), 0);
	cr_assert_eq(segue_stream_record_unpack(bytes, size, &out), SEGUE_EPROTOCOL);
	cr_assert_str_eq(
		segue_error_detail(), "stream record: spec: lanes is 0, from 1 to 4096 is allowed");
	free(bytes);
	segue_spec_destroy(record.spec);
}

/* Bytes of a record, and behind them its field 15: bits of what a reader must know. */
static void require_one(uint8_t **bytes, size_t *size, unsigned bit)
{
	uint64_t left = UINT64_C(1) << bit;

	*bytes = realloc(*bytes, *size + 11);
	cr_assert_not_null(*bytes);
	(*bytes)[(*size)++] = 15 << 3;
	for (; left >= 128; left >>= 7)
		(*bytes)[(*size)++] = 0x80;
	(*bytes)[(*size)++] = (uint8_t)left;
}

#define REFUSES_BITS(pack, unpack, record, out, name, known)                                       \
	for (unsigned bit = 0; bit < 64; bit++) {                                                  \
		if ((known) >> bit & 1)                                                            \
			continue;                                                                  \
		void *packed;                                                                      \
		size_t size;                                                                       \
                                                                                                   \
		cr_assert_eq(pack(record, &packed, &size), 0);                                     \
		uint8_t *bytes = packed;                                                           \
		require_one(&bytes, &size, bit);                                                   \
		cr_expect_eq(unpack(bytes, size, out), SEGUE_EFORMAT, "bit %u", bit);              \
		cr_expect(strstr(segue_error_detail(),                                             \
				  name ": it requires what this version of segue (0.1.0) does "    \
				       "not know"),                                                \
			"%s", segue_error_detail());                                               \
		free(bytes);                                                                       \
	}

/* What a later version has put in, and says that must be known, is not passed over. */
Test(wire, records_that_require_what_is_not_known)
{
	struct segue_position position = {.step = 3};
	struct segue_stream_record stream = {.id = 1, .spec = sample_spec()}, stream_out;
	struct segue_lane_record lane = {.generation = 1, .position = &position}, lane_out;
	struct segue_catalogue catalogue = {.next_id = 1}, catalogue_out;
	struct segue_token_record token = {.stream = "train",
					  .lanes = 1,
					  .batch_size = 1,
					  .ends = SEGUE_ENDS(1),
					  .position = &position},
				  token_out;

	REFUSES_BITS(segue_stream_record_pack, segue_stream_record_unpack, &stream, &stream_out,
		"stream record",
		SEGUE_REQUIRES_LENGTHS | SEGUE_REQUIRES_POLICY | SEGUE_REQUIRES_LANES_BY |
			SEGUE_REQUIRES_CLASSES | SEGUE_REQUIRES_KEPT);
	REFUSES_BITS(segue_lane_record_pack, segue_lane_record_unpack, &lane, &lane_out,
		"lane record", SEGUE_REQUIRES_SIZED | SEGUE_REQUIRES_CLASSES);
	REFUSES_BITS(segue_catalogue_pack, segue_catalogue_unpack, &catalogue, &catalogue_out,
		"catalogue of checkpoints", UINT64_C(0));
	REFUSES_BITS(segue_token_record_pack, segue_token_record_unpack, &token, &token_out,
		"token", SEGUE_REQUIRES_SIZED | SEGUE_REQUIRES_CLASSES);
	segue_spec_destroy(stream.spec);
}

/* A reader from before there was something can go on with a stream that does not use it. */
Test(wire, stream_records_require_what_their_spec_uses)
{
	static const struct {
		uint32_t num_unroll, most;
		bool trim, zeroes, by_record, classes, kept;
		uint8_t required;
	} given[] = {
		{3, 0, .required = 0},
		{3, 9, .required = SEGUE_REQUIRES_LENGTHS},
		{3, 0, .trim = true, .required = SEGUE_REQUIRES_LENGTHS},
		{0, 9, .required = SEGUE_REQUIRES_LENGTHS},
		{3, 0, .zeroes = true, .required = SEGUE_REQUIRES_POLICY},
		{3, 0, .by_record = true, .required = SEGUE_REQUIRES_LANES_BY},
		{3, 0, .classes = true, .required = SEGUE_REQUIRES_CLASSES},
		{3, 0, .by_record = true, .kept = true,
			.required = SEGUE_REQUIRES_LANES_BY | SEGUE_REQUIRES_KEPT},
		{0, 9, true, true, true, true, true,
			SEGUE_REQUIRES_LENGTHS | SEGUE_REQUIRES_POLICY | SEGUE_REQUIRES_LANES_BY |
				SEGUE_REQUIRES_CLASSES | SEGUE_REQUIRES_KEPT},
	};

	for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
		struct segue_stream_record record = {.id = 1, .spec = sample_spec()}, out;
		struct segue_spec *spec = record.spec;
		size_t size;
		void *bytes;

		record.ends = SEGUE_ENDS(spec->epochs);
		spec->num_unroll = given[i].num_unroll;
		spec->maximum_length = given[i].most;
		spec->trim = given[i].trim;
		spec->on_too_long = SEGUE_ON_TOO_LONG_ERROR;
		spec->pad = true;
		spec->tail = SEGUE_TAIL_SHRINK;
		spec->states[1].policy =
			given[i].zeroes ? (struct segue_state_policy){SEGUE_POLICY_ZERO, 0.5}
					: (struct segue_state_policy){SEGUE_POLICY_CARRY, 0};
		spec->lanes_by =
			given[i].by_record ? SEGUE_LANES_BY_RECORD : SEGUE_LANES_BY_SEQUENCE;
		spec->initial = given[i].kept ? SEGUE_INITIAL_KEPT : SEGUE_INITIAL_VALUE;
		spec->groups = 0; /* which do not go with it */
		spec->keep_final = spec->persist = true;
		spec->boundaries.count = given[i].classes;
		spec->boundaries.length[0] = 7;
		cr_assert_eq(segue_stream_record_pack(&record, &bytes, &size), 0);
		/* The last field, number 15, is `required`. */
		const uint8_t *last = (const uint8_t *)bytes + size - 2;
		uint8_t required = last[0] == 15 << 3 ? last[1] : 0;
		cr_expect_eq(required, given[i].required, "spec %zu: %u", i, required);
		cr_assert_eq(segue_stream_record_unpack(bytes, size, &out), 0, "%s",
			segue_error_detail());
		expect_same_spec(spec, out.spec, true);
		segue_spec_destroy(out.spec);
		segue_spec_destroy(spec);
		free(bytes);
	}
}

/* 100,000 paths: a record is bounded by its own size, not by a frame's. */
static int stream_record_of(struct segue_ends ends, struct segue_stream_record *out)
{
	struct segue_stream_record record = {.id = 1, .spec = sample_spec(), .ends = ends};
	size_t size;
	void *bytes;

	cr_assert_eq(segue_stream_record_pack(&record, &bytes, &size), 0);
	int rc = segue_stream_record_unpack(bytes, size, out);
	segue_spec_destroy(record.spec);
	free(bytes);
	return rc;
}

Test(wire, stream_record_of_a_stream_that_grew)
{
	struct segue_stream_record out;
	const struct segue_ends wrong[] = {SEGUE_ENDS(4), SEGUE_ENDS(3, 3), SEGUE_ENDS(3, 0, 5)};

	cr_assert_eq(stream_record_of((struct segue_ends){.count = 0}, &out), 0);
	cr_assert_eq(out.ends.count, 1, "as it was written before streams could grow");
	cr_assert_eq(out.ends.epochs[0], 3);
	segue_spec_destroy(out.spec);
	cr_assert_eq(stream_record_of(SEGUE_ENDS(3, 5, 0), &out), 0, "%s", segue_error_detail());
	cr_assert_eq(out.ends.count, 3);
	cr_assert_eq(out.ends.epochs[1], 5);
	cr_assert_eq(out.ends.epochs[2], 0);
	cr_assert_eq(out.spec->epochs, 3);
	segue_spec_destroy(out.spec);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		cr_expect_eq(stream_record_of(wrong[i], &out), SEGUE_EPROTOCOL);
		cr_expect(strstr(segue_error_detail(), "end"), "%s", segue_error_detail());
	}
}

Test(wire, stream_record_of_many_paths)
{
	static char path[] = "/data/0.tfrecord";
	const char **paths = malloc(100000 * sizeof(*paths));
	struct segue_stream_record record = {.id = 1}, out;
	struct sample sample;
	size_t size;
	void *bytes;

	sample_init(&sample);
	for (int i = 0; i < 100000; i++)
		paths[i] = path;
	sample.spec.source.tfrecord.paths = paths;
	sample.spec.source.tfrecord.path_count = 100000;
	cr_assert_eq(segue_draft_make(&sample.spec, &record.spec), 0);
	cr_assert_eq(segue_stream_record_pack(&record, &bytes, &size), 0);
	cr_assert_eq(segue_stream_record_unpack(bytes, size, &out), 0, "%s", segue_error_detail());
	expect_same_spec(record.spec, out.spec, true);
	segue_spec_destroy(out.spec);
	segue_spec_destroy(record.spec);
	free(bytes);
	free(paths);
}

static void packed(struct bytes *to, unsigned field_number, size_t count)
{
	static const uint8_t ones[64] = {1, 1, 1, 1, 1, 1, 1, 1};

	blob(to, field_number, ones, count);
}

static void expect_lane_refused(const struct bytes *bytes, const char *says)
{
	struct segue_lane_record out;

	cr_expect_eq(segue_lane_record_unpack(bytes->data, bytes->size, &out), SEGUE_EPROTOCOL,
		"%s", says);
	cr_expect_eq(strncmp(segue_error_detail(), "lane record: ", 13), 0);
	cr_expect(strstr(segue_error_detail(), says), "\"%s\" does not say \"%s\"",
		segue_error_detail(), says);
}

Test(wire, lane_records_that_are_wrong)
{
	static struct bytes bytes, holder, position;
	static const unsigned short_of[] = {6, 7, 8, 9};

	expect_lane_refused(&bytes, "token has 0 bytes, expected 16");
	blob(&bytes, 2, secret, 16);
	expect_lane_refused(&bytes, "holder is missing");
	blob(&holder, 1, secret, 15);
	blob(&bytes, 4, holder.data, holder.size);
	expect_lane_refused(&bytes, "holder: boot_id has 15");
	holder.size = 0;
	blob(&holder, 1, secret, 16);
	for (size_t i = 0; i < 4; i++) {
		bytes.size = position.size = 0;
		blob(&bytes, 2, secret, 16);
		blob(&bytes, 4, holder.data, holder.size);
		if (i == 0)
			expect_lane_refused(&bytes, "position is missing");
		for (unsigned f = 6; f <= 9; f++)
			packed(&position, f, f == short_of[i] ? 4 : 5);
		blob(&bytes, 6, position.data, position.size);
		expect_lane_refused(&bytes, "they should be as many");
	}
	for (size_t i = 0; i < 2; i++) { /* of two rows */
		bytes.size = position.size = 0;
		blob(&bytes, 2, secret, 16);
		blob(&bytes, 4, holder.data, holder.size);
		for (unsigned f = 6; f <= 9; f++)
			packed(&position, f, 2);
		if (i == 0)
			number(&position, 80, 1);
		number(&position, 82, i == 0 ? 3 : 1);
		blob(&bytes, 6, position.data, position.size);
		expect_lane_refused(&bytes, i == 0 ? "parked is 3, expected 0 to 2"
						   : "1 parked, of a lane that was given none");
	}
	bytes.size = 1;
	bytes.data[0] = 0xff;
	expect_lane_refused(&bytes, "no such message");
}

/* An earlier reader would take the parked rows for rows of the batch. */
Test(wire, a_batch_size_of_its_own_must_be_known)
{
	static const uint8_t required[] = {15 << 3, SEGUE_REQUIRES_SIZED};
	struct segue_position position = {.step = 3};
	struct segue_lane_record lane = lane_record(&position);
	struct segue_token_record token = token_record(&position);

	for (int sized = 0; sized < 2; sized++) {
		size_t sizes[2];
		void *bytes[2];

		position.sized = sized ? 4 : 0;
		cr_assert_eq(segue_lane_record_pack(&lane, &bytes[0], &sizes[0]), 0);
		cr_assert_eq(segue_token_record_pack(&token, &bytes[1], &sizes[1]), 0);
		for (int i = 0; i < 2; i++) {
			cr_expect_eq(memmem(bytes[i], sizes[i], required, 2) != NULL, sized);
			free(bytes[i]);
		}
	}
}

/* ... and sequences that wait likewise; more of them than there are entries is none. */
Test(wire, sequences_that_wait_must_be_known)
{
	static const uint8_t required[] = {15 << 3, SEGUE_REQUIRES_CLASSES};
	struct segue_position *position =
		calloc(1, sizeof(*position) + 2 * sizeof(position->row[0]));
	struct segue_lane_record lane = lane_record(position), out;
	size_t size;
	void *bytes;

	cr_assert_not_null(position);
	for (uint32_t waiting = 0; waiting < 3; waiting++) {
		position->waiting = waiting;
		cr_assert_eq(segue_lane_record_pack(&lane, &bytes, &size), 0);
		cr_expect_eq(memmem(bytes, size, required, 2) != NULL, waiting > 0);
		cr_assert_eq(segue_lane_record_unpack(bytes, size, &out), 0);
		cr_expect_eq(out.position->waiting, waiting);
		cr_expect_eq(out.position->rows, 0);
		free(out.position);
		free(bytes);
	}
	free(position);
}

Test(wire, position_of_too_many_rows)
{
	size_t rows = ((size_t)1 << 20) + 1, size = 0;
	uint8_t *pb = calloc(1, rows + 64);
	struct segue_lane_record out;
	struct bytes *head = calloc(1, sizeof(*head));
	uint8_t *whole = calloc(1, rows + 200);

	/* position { number: rows times 0, packed } */
	varint(head, 6 << 3 | 2);
	varint(head, rows);
	memcpy(pb, head->data, head->size);
	size = head->size + rows;
	head->size = 0;
	blob(head, 2, secret, 16);
	blob(head, 4,
		"\x0a\x10"
		"0123456789abcdef",
		18);
	varint(head, 6 << 3 | 2);
	varint(head, size);
	memcpy(whole, head->data, head->size);
	memcpy(whole + head->size, pb, size);
	cr_assert_eq(segue_lane_record_unpack(whole, head->size + size, &out), SEGUE_EPROTOCOL);
	cr_assert_str_eq(segue_error_detail(),
		"lane record: rows of position is 1048577, expected 0 to 1048576");
	free(pb);
	free(head);
	free(whole);
}

static void expect_token_refused(struct segue_token_record *record, const char *says)
{
	struct segue_token_record out;
	size_t size;
	void *bytes;

	cr_assert_eq(segue_token_record_pack(record, &bytes, &size), 0);
	cr_expect_eq(segue_token_record_unpack(bytes, size, &out), SEGUE_EPROTOCOL, "%s", says);
	cr_expect_str_eq(segue_error_detail(), says);
	free(bytes);
}

Test(wire, catalogues)
{
	struct segue_catalogue catalogue = {.next_id = 12, .ended_id = 11, .count = 2}, out;
	static const uint32_t noted[] = {0, 1, 64}; /* 0: before there was more than one end */
	size_t size;
	void *bytes;

	catalogue.entry[0] = (struct segue_catalogue_entry){3, 0, 100, 1, 0};
	catalogue.entry[1] = (struct segue_catalogue_entry){11, 7, UINT64_MAX, INT64_MAX, 9};
	for (catalogue.count = 0; catalogue.count <= 2; catalogue.count++) {
		catalogue.ended_at = noted[catalogue.count];
		cr_assert_eq(segue_catalogue_pack(&catalogue, &bytes, &size), 0);
		cr_assert_eq(
			segue_catalogue_unpack(bytes, size, &out), 0, "%s", segue_error_detail());
		cr_assert_eq(out.next_id, 12);
		cr_assert_eq(out.ended_id, 11);
		cr_assert_eq(out.ended_at, catalogue.count == 2 ? 64 : 1);
		cr_assert_eq(out.count, catalogue.count);
		cr_assert_eq(
			memcmp(out.entry, catalogue.entry, catalogue.count * sizeof(out.entry[0])),
			0);
		free(bytes);
	}
}

static void expect_catalogue_refused(const struct segue_catalogue *catalogue, const char *says)
{
	struct segue_catalogue out;
	size_t size;
	void *bytes;

	cr_assert_eq(segue_catalogue_pack(catalogue, &bytes, &size), 0);
	cr_expect_eq(segue_catalogue_unpack(bytes, size, &out), SEGUE_EPROTOCOL, "%s", says);
	cr_expect(strstr(segue_error_detail(), says), "%s: %s", says, segue_error_detail());
	free(bytes);
}

Test(wire, catalogues_that_are_wrong)
{
	static struct bytes bytes;
	struct segue_catalogue out, wrong = {.next_id = 0};

	expect_catalogue_refused(&wrong, "the next id is 0");
	wrong = (struct segue_catalogue){
		.next_id = 5, .count = 2, .entry = {{4, 1, 1, 1, 0}, {4, 2, 1, 1, 0}}};
	wrong.entry[1] = (struct segue_catalogue_entry){3, 1, 1, 1, 0};
	expect_catalogue_refused(&wrong, "steps do not rise");
	wrong.entry[1] = (struct segue_catalogue_entry){5, 2, 1, 1, 0};
	expect_catalogue_refused(&wrong, "id 5, and the next is 5");
	wrong.entry[1].id = 0;
	expect_catalogue_refused(&wrong, "id 0");
	bytes.size = 0;
	number(&bytes, 1, 9);
	number(&bytes, 2, 3);
	cr_assert_eq(segue_catalogue_unpack(bytes.data, bytes.size, &out), SEGUE_EPROTOCOL);
	cr_assert(strstr(segue_error_detail(), "1 of id, 0 of step"));
	for (unsigned field = 3; field <= 5; field++)
		number(&bytes, field, 1);
	cr_assert_eq(segue_catalogue_unpack(bytes.data, bytes.size, &out), 0);
	cr_assert_eq(out.entry[0].needs, 0, "of an older one nothing is known");
	number(&bytes, 8, 1);
	number(&bytes, 8, 1);
	cr_assert_eq(segue_catalogue_unpack(bytes.data, bytes.size, &out), SEGUE_EPROTOCOL);
	cr_assert(strstr(segue_error_detail(), "1 of id, 2 of needs"));
	bytes.size = 0;
	for (unsigned i = 0; i <= SEGUE_CHECKPOINTS_MAX; i++)
		for (unsigned field = 2; field <= 5; field++)
			number(&bytes, field, i + 1);
	cr_assert_eq(segue_catalogue_unpack(bytes.data, bytes.size, &out), SEGUE_EPROTOCOL);
	cr_assert(strstr(segue_error_detail(), "checkpoints of a lane"));
}

Test(wire, tokens_that_are_wrong)
{
	unsigned draw = 1;
	struct segue_position *position = random_position(&draw, 3);
	struct segue_token_record record = token_record(position);
	static struct bytes bytes;
	struct segue_token_record out;

	record.lane = 4096;
	expect_token_refused(&record, "token: lane is 4096, expected 0 to 4095");
	record.lanes = 0;
	expect_token_refused(&record, "token: lanes is 0, expected 1 to 4096");
	record = token_record(position);
	record.lanes = 4097;
	expect_token_refused(&record, "token: lanes is 4097, expected 1 to 4096");
	record = token_record(position);
	record.batch_size = 0;
	expect_token_refused(&record, "token: batch_size is 0, expected 1 to 1048576");
	record = token_record(position);
	record.stream[0] = (char)0xff;
	expect_token_refused(&record, "token: stream is not valid UTF-8");
	memset(long_text, 'n', 256);
	blob(&bytes, 1, long_text, 256);
	cr_assert_eq(segue_token_record_unpack(bytes.data, bytes.size, &out), SEGUE_EPROTOCOL);
	cr_assert(strstr(segue_error_detail(), "stream has 256 bytes"));
	free(position);
}

/*
 * ---- Damage
 * --------------------------------------------------------------------------------------
 */

/* Cut anywhere, or one bit turned: an error or a record, never more than that (under ASan). */
Test(wire, damaged_records_do_no_harm)
{
	unsigned draw = 7;
	struct segue_position *position = random_position(&draw, 20);
	struct segue_lane_record lane = lane_record(position), lane_out;
	struct segue_stream_record stream = {.id = 3, .spec = sample_spec()}, stream_out;
	size_t lane_size, stream_size;
	void *lane_bytes, *stream_bytes;

	cr_assert_eq(segue_lane_record_pack(&lane, &lane_bytes, &lane_size), 0);
	cr_assert_eq(segue_stream_record_pack(&stream, &stream_bytes, &stream_size), 0);
	for (size_t cut = 0; cut < lane_size; cut++) {
		uint8_t *copy = malloc(cut ? cut : 1);

		memcpy(copy, lane_bytes, cut);
		if (segue_lane_record_unpack(copy, cut, &lane_out) == 0)
			free(lane_out.position);
		free(copy);
	}
	for (size_t bit = 0; bit < 8 * lane_size; bit++) {
		uint8_t *bytes = lane_bytes;

		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (segue_lane_record_unpack(bytes, lane_size, &lane_out) == 0)
			free(lane_out.position);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (size_t bit = 0; bit < 8 * stream_size; bit++) {
		uint8_t *bytes = stream_bytes;

		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (segue_stream_record_unpack(bytes, stream_size, &stream_out) == 0)
			segue_spec_destroy(stream_out.spec);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	free(lane_bytes);
	free(stream_bytes);
	segue_spec_destroy(stream.spec);
	free(position);
}
