/* C19: indexes of arrays in uploads: cut, changed, of other files, or no index at all. */
#include "hostile.h"

#include <stdio.h>

#include "core/shm.h"
#include "core/spec.h"
#include "core/wait.h"

enum { STEPS = 1000, TRIES = 300 };

/* Two groups of one file, with keys and a context feature; `mixed`: as each of two parts. */
static struct segue_spec *make_spec(const struct hostile *hostile, bool mixed)
{
	static char path[512];
	static const char *const paths[] = {path};
	static const uint64_t steps[] = {STEPS, 10}, ends[] = {1, 3, 6};
	static const struct segue_array arrays[] = {
		{.size = sizeof(struct segue_array), .offset = 16, .dtype = SEGUE_INT16},
		{.size = sizeof(struct segue_array), .offset = 1, .dtype = SEGUE_INT64},
		{.size = sizeof(struct segue_array),
			.offset = 0,
			.dtype = SEGUE_INT16,
			.stride = 300,
			.big_endian = true},
		{.size = sizeof(struct segue_array), .offset = 17, .dtype = SEGUE_INT64},
	};
	static const struct segue_array_sequence sequences[] = {
		{0, 0, 400}, {400, 0, 600}, {0, 1, 10}};
	static const struct segue_feature features[] = {
		{.name = "x", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {2}},
		{.name = "c", .dtype = SEGUE_INT64},
	};
	struct segue_draft asked = {
		.name = mixed ? "mix" : "arrays",
		.source = {.kind = SEGUE_SOURCE_ARRAYS,
			.arrays = {.paths = paths,
				.path_count = 1,
				.index = {.group_steps = steps,
					.group_count = 2,
					.arrays = arrays,
					.sequences = sequences,
					.sequence_count = 3,
					.keys = "abbccc",
					.key_ends = ends}}},
		.sequences = features,
		.sequence_count = 1,
		.contexts = features + 1,
		.context_count = 1,
		.num_unroll = 10,
		.batch_size = 2,
		.lanes = 1,
		.no_persist = true,
	};
	const struct segue_draft_part parts[] = {
		{.name = "a", .source = asked.source, .weight = 1, .epochs = 1},
		{.name = "b", .source = asked.source, .weight = 2},
	};
	struct segue_spec *spec;

	if (mixed) {
		asked.source = (struct segue_draft_source){
			.kind = SEGUE_SOURCE_MIX, .mix = {.parts = parts, .part_count = 2}};
		asked.epochs = 1;
	}

	snprintf(path, sizeof(path), "%s/x", hostile->scratch);
	FILE *file = fopen(path, "wbe");
	EXPECT(file, "%s", path);
	for (int i = 0; i < 2 * STEPS + 8; i++)
		fwrite(&(int16_t){(int16_t)i}, sizeof(int16_t), 1, file);
	fclose(file);
	EXPECT(segue_draft_make(&asked, &spec) == 0, "%s", segue_error_detail());
	return spec;
}

static uint64_t upload(struct raw *raw, const uint8_t *bytes, size_t size)
{
	struct segue_message request = {.type = SEGUE_MESSAGE_UPLOAD, .upload = {.size = size}};
	struct segue_shm shm;

	EXPECT(raw_call(raw, &request) == SEGUE_MESSAGE_BULK && raw->fd_count == 1, "upload: %s",
		raw->reply.failure.detail);
	EXPECT(segue_shm_map(raw->fds[0], size, SEGUE_SHM_WRITE, &shm) == 0, "map");
	memcpy(shm.map, bytes, size);
	segue_shm_destroy(&shm);
	return raw->reply.bulk.id;
}

/* Opens the stream with this index, and closes it again: 0, or the code. */
static int open_with(struct raw *raw, struct segue_spec *spec, const uint8_t *bytes, size_t size)
{
	struct segue_message request = {.type = SEGUE_MESSAGE_STREAM_OPEN,
		.stream_open = {.spec = spec, .index_upload = upload(raw, bytes, size)}};
	int64_t before = segue_now_ns();
	enum segue_message_type type = raw_call(raw, &request);

	EXPECT(segue_now_ns() - before < INT64_C(5000000000), "answered after 5 s");
	EXPECT(type == SEGUE_MESSAGE_OPENED || type == SEGUE_MESSAGE_FAILURE, "answer %d",
		(int)type);
	if (type == SEGUE_MESSAGE_FAILURE)
		return raw->reply.failure.code;
	request = (struct segue_message){.type = SEGUE_MESSAGE_STREAM_CLOSE,
		.stream_close = {.stream = raw->reply.opened.stream}};
	EXPECT(raw_call(raw, &request) == SEGUE_MESSAGE_DONE, "close");
	return 0;
}

/* From one bit to a whole number that is as large as can be. */
static void change(struct hostile *hostile, uint8_t *bytes, size_t size)
{
	static const uint64_t words[] = {0, 1, UINT32_MAX, INT64_MAX, UINT64_MAX, 1ull << 62};
	size_t at = hostile_random(hostile) % size;
	uint64_t word = words[hostile_random(hostile) % (sizeof(words) / sizeof(words[0]))];

	if (hostile_random(hostile) % 2)
		bytes[at] ^= (uint8_t)(1u << hostile_random(hostile) % 8);
	else
		memcpy(bytes + at / 8 * 8, &word, size - at / 8 * 8 < 8 ? size - at / 8 * 8 : 8);
}

/* `size` bytes, as they are, then changed at random. */
static void open_many(struct hostile *hostile, struct raw *raw, struct segue_spec *spec,
	const uint8_t *sound, size_t all)
{
	uint8_t *bytes = malloc(all);

	EXPECT(bytes, "memory");
	EXPECT(open_with(raw, spec, sound, all) == 0, "as it is: %s", raw->reply.failure.detail);
	memcpy(bytes, sound, all);
	bytes[all - 1] ^= 1; /* the last is of the keys, which may be any */
	EXPECT(open_with(raw, spec, bytes, all) == 0, "an index with another key: %s",
		raw->reply.failure.detail);
	for (int i = 0; i < TRIES && hostile_time_left(hostile); i++) {
		size_t size = i % 10 ? all : 1 + hostile_random(hostile) % all;

		memcpy(bytes, sound, all);
		for (uint64_t n = hostile_random(hostile) % 3 + (size == all); n; n--)
			change(hostile, bytes, size);
		open_with(raw, spec, bytes, size);
	}
	free(bytes);
}

/* Indexes of two parts of a mix: one, three, none; changed. */
static void attack_mix(struct hostile *hostile, struct raw *raw)
{
	struct segue_spec *spec = make_spec(hostile, true);
	const struct segue_array_index *index = spec->source.mix.part[0].source.arrays.index;
	uint8_t *bytes = malloc(3 * index->size);

	EXPECT(bytes, "memory");
	for (size_t i = 0; i < 3; i++)
		memcpy(bytes + i * index->size, index->bytes, index->size);
	EXPECT(open_with(raw, spec, bytes, index->size) == SEGUE_EINVAL, "one of two indexes");
	EXPECT(strstr(raw->reply.failure.detail, "\"b\""), "%s", raw->reply.failure.detail);
	EXPECT(open_with(raw, spec, bytes, 3 * index->size) == SEGUE_EPROTOCOL, "three of two");
	open_many(hostile, raw, spec, bytes, 2 * index->size);
	struct segue_message request = {
		.type = SEGUE_MESSAGE_STREAM_OPEN, .stream_open = {.spec = spec}};
	raw_call(raw, &request);
	raw_expect_failure(raw, SEGUE_EINVAL, "no index of any part");
	free(bytes);
	segue_spec_destroy(spec);
}

void attack_arrays(struct hostile *hostile)
{
	struct segue_spec *spec = make_spec(hostile, false);
	const struct segue_array_index *index = spec->source.arrays.index;
	struct raw raw;

	raw_open(hostile->dir, &raw);
	open_many(hostile, &raw, spec, index->bytes, index->size);
	attack_mix(hostile, &raw);
	/* An index for files of another kind, one that nobody has uploaded, one used twice. */
	struct segue_message request = {.type = SEGUE_MESSAGE_STREAM_OPEN,
		.stream_open = {.spec = spec, .index_upload = UINT64_MAX}};
	raw_call(&raw, &request);
	raw_expect_failure(&raw, SEGUE_EPROTOCOL, "an upload that is not there");
	raw_renew(hostile->dir, &raw);
	request.stream_open.index_upload = 0;
	raw_call(&raw, &request);
	raw_expect_failure(&raw, SEGUE_EINVAL, "no index");
	raw_close(&raw);
	segue_spec_destroy(spec);
}
