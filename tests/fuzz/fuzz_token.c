/*
 * Fuzzes tokens: decoding, encoding again, and whether one is of a stream.
 *
 * The first byte says whether the checksum behind the bytes is made right (else nothing would get
 * past it), and whether names and hashes of the head are those of the stream. For libFuzzer, or
 * with replay_main.c as a program that runs files.
 */
#include "engine/grant.h"
#include "store/token.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "testspec.h"

#define SUM 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

static struct segue_spec *stream_spec(void)
{
	static struct segue_testspec test;
	static struct segue_field states[2];
	static char name[] = "train", h[] = "h", c[] = "c";
	static uint64_t hashes[2][2];

	if (test.spec.name)
		return &test.spec;
	segue_testspec_init(&test);
	segue_testspec_sequence(&test, "x", SEGUE_FLOAT32, 1);
	states[0] =
		(struct segue_field){.name = h, .dtype = SEGUE_FLOAT32, .elements = 2, .size = 8};
	states[1] = (struct segue_field){.name = c, .dtype = SEGUE_INT64, .elements = 1, .size = 8};
	test.spec.states = states;
	test.spec.state_count = 2;
	test.spec.init_hash = hashes;
	test.spec.name = name;
	test.spec.batch_size = 4;
	test.spec.num_unroll = 5;
	test.spec.lanes = 2;
	return &test.spec;
}

/* What the server does with the token of a RESTORE, up to the store. */
static void check(const void *bytes, size_t size)
{
	const struct segue_grant_order order = {
		.place = {.lane = 1},
		.spec = stream_spec(),
		.plan = {.records = 10,
			.ends = {1, {0}},
			.lanes = 2,
			.lane = 1,
			.batch_size = 4,
			.num_unroll = 5},
		.fingerprint = {7, 8},
		.bulk = bytes,
		.bulk_size = size,
	};
	uint64_t step;
	int rc = segue_grant_check_token(&order, &step);

	expect(rc == 0 || rc == SEGUE_ETOKEN || rc == SEGUE_EFORMAT || rc == SEGUE_ENOMEM);
}

/* The same token with a head that the stream accepts, if its position is possible. */
static void check_as_ours(struct segue_token_record *head, struct segue_image *image)
{
	const struct segue_spec *spec = stream_spec();
	void *bytes;
	size_t size;

	segue_spec_hash(spec, head->spec_hash);
	head->fingerprint[0] = 7;
	head->fingerprint[1] = 8;
	head->lanes = spec->lanes;
	head->lane = 1;
	head->row_size = image->row_size;
	head->position = image->position;
	expect(segue_token_encode(head, image, &bytes, &size) == 0);
	check(bytes, size);
	free(bytes);
}

/* A position that the stream's plan takes can be gone on from. */
static void seek(const struct segue_position *position)
{
	struct segue_plan_spec spec = {.records = 10,
		.ends = {2, {3, 0}},
		.lanes = 2,
		.lane = 1,
		.batch_size = 4,
		.num_unroll = 5};
	struct segue_plan plan;

	if (position->waiting) {
		spec.boundaries = SEGUE_BOUNDARIES(6);
		spec.window = 8;
		spec.tail = spec.tail == SEGUE_TAIL_STOP ? SEGUE_TAIL_PAD : spec.tail;
	}
	expect(segue_plan_init(&plan, &spec) == 0);
	if (segue_plan_places(&spec, position) <= 64 && segue_plan_seek(&plan, position) == 0) {
		for (uint32_t row = 0; row < segue_position_count(position); row++)
			segue_plan_row_lives(&spec, &position->row[row]);
	}
	segue_plan_finish(&plan);
}

static void decode(const uint8_t *bytes, size_t size, bool as_ours)
{
	const struct segue_plan_spec plan = {.num_unroll = 5};
	struct segue_token_record head, again_head;
	struct segue_image *image, *again;
	void *encoded;
	size_t encoded_size;

	check(bytes, size);
	int rc = segue_token_decode(&plan, bytes, size, &head, &image);
	expect(rc == 0 || rc == SEGUE_ETOKEN || rc == SEGUE_EFORMAT || rc == SEGUE_ENOMEM);
	if (rc)
		return;
	expect(segue_token_encode(&head, image, &encoded, &encoded_size) == 0);
	expect(segue_token_decode(&plan, encoded, encoded_size, &again_head, &again) == 0);
	expect(again->position->rows == image->position->rows &&
		again->row_size == image->row_size);
	expect(memcmp(again->position, image->position,
		       segue_position_size(segue_position_count(image->position))) == 0);
	expect(memcmp(again->states, image->states,
		       segue_position_count(image->position) * image->row_size) == 0);
	seek(image->position);
	free(head.position);
	free(again_head.position);
	if (as_ours)
		check_as_ours(&head, image);
	segue_image_destroy(image);
	segue_image_destroy(again);
	free(encoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	uint8_t choice = data[0], *bytes = malloc(size + SUM);
	size_t length = size - 1;

	expect(bytes != NULL);
	memcpy(bytes, data + 1, length);
	if (choice & 1) {
		XXH128_canonicalFromHash(
			(XXH128_canonical_t *)(bytes + length), XXH3_128bits(bytes, length));
		length += SUM;
	}
	decode(bytes, length, choice & 2);
	free(bytes);
	return 0;
}
