/*
 * Fuzzes a worker's side of shared memory: segments that a hostile server wrote.
 *
 * The input is laid over the ring's and the page's words and slots, between calls as well; the real
 * mapping, track and batch code reads it. Nothing may be read or written outside the segments
 * (ASan, and the guard pages behind a mapping), and what is handed out lies within its slot. For
 * libFuzzer, or with replay_main.c as a program that runs files.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client/lane.h"
#include "draft.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROWS = 3, KEY_MAX = 8, PLACES = 16 };

static void expect(bool holds)
{
	if (!holds)
		abort();
}

struct input {
	const uint8_t *at, *end;
};

static uint8_t take(struct input *input)
{
	return input->at < input->end ? *input->at++ : 0;
}

static uint64_t take_word(struct input *input)
{
	uint8_t byte = take(input);

	switch (byte % 16) {
	case 0:
		return UINT64_MAX;
	case 1:
		return (uint64_t)take(input) << 32 | take(input);
	default:
		return byte / 16;
	}
}

/* ---- A worker whose server is us ------------------------------------------------------------ */

struct world {
	struct segue_client client;
	struct segue_stream stream;
	struct segue_shape shape;
	struct segue_shm ring, carry, page;
	struct segue_lane *lane;
};

static struct segue_spec *make_spec(void)
{
	static const char *const paths[] = {"/data"};
	static const struct segue_feature sequences[] = {{.name = "x", .dtype = SEGUE_FLOAT32}};
	static const struct segue_feature contexts[] = {{.name = "c", .dtype = SEGUE_INT64}};
	static const struct segue_state states[] = {
		{.name = "h", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {2}},
		{.name = "k", .dtype = SEGUE_INT64}};
	const struct segue_draft asked = {
		.name = "train",
		.source = {.kind = SEGUE_SOURCE_TFRECORD,
			.tfrecord = {.paths = paths, .path_count = 1}},
		.sequences = sequences,
		.sequence_count = 1,
		.contexts = contexts,
		.context_count = 1,
		.states = states,
		.state_count = 2,
		.num_unroll = 4,
		.batch_size = ROWS,
		.lanes = 1,
		.keep_final = true,
		.depth = 2,
	};
	struct segue_spec *spec;

	expect(segue_draft_make(&asked, &spec) == 0);
	return spec;
}

static void make_segments(struct world *world)
{
	const struct segue_geometry *geometry = &world->shape.geometry;

	expect(segue_shm_create("ring", geometry->ring_size, SEGUE_SHM_READ, &world->ring) == 0);
	expect(segue_shm_create("carry", geometry->carry_size, SEGUE_SHM_WRITE, &world->carry) ==
		0);
	expect(segue_shm_create("page", geometry->lease_size, SEGUE_SHM_READ, &world->page) == 0);
	segue_segment_init(world->ring.map, SEGUE_SEGMENT_RING, geometry->ring_size, geometry);
	segue_segment_init(world->carry.map, SEGUE_SEGMENT_CARRY, geometry->carry_size, geometry);
	segue_segment_init(world->page.map, SEGUE_SEGMENT_LEASE, geometry->lease_size, geometry);
}

static void make_world(struct world *world)
{
	world->shape.users = 1;
	world->shape.spec = make_spec();
	world->shape.key_max = KEY_MAX;
	world->shape.row_size = 16;
	expect(segue_geometry_init(world->shape.spec, world->shape.spec->batch_size, KEY_MAX,
		       &world->shape.geometry) == 0);
	world->stream.client = &world->client;
	world->stream.shape = &world->shape;
	make_segments(world);
}

/* ---- What a hostile server writes ----------------------------------------------------------- */

/* One of the words that are looked at, or any byte. */
static void write_something(struct world *world, struct input *input)
{
	const struct segue_geometry *geometry = &world->shape.geometry;
	struct segue_ring_header *ring = world->ring.map;
	struct segue_lease_page *page = world->page.map;
	struct segue_slot *slot = segue_ring_slot(ring, geometry, take(input) & 1);
	uint8_t *bytes = (uint8_t *)slot;
	uint32_t *previous = (uint32_t *)(void *)(bytes + geometry->previous_offset);
	struct segue_slot_span *spans =
		(struct segue_slot_span *)(void *)(bytes + geometry->span_offset);
	uint8_t row = take(input) % ROWS;
	uint64_t word = take_word(input);

	switch (take(input) % 15) {
	case 0:
		ring->published = word;
		break;
	case 1:
		ring->end = word;
		break;
	case 2:
		ring->error = (uint32_t)word;
		memset(ring->error_text, 'x', sizeof(ring->error_text)); /* no NUL */
		break;
	case 3:
		page->wake_at = word;
		break;
	case 4:
		page->durable = word;
		break;
	case 5:
		page->error = (uint32_t)word;
		memset(page->error_text, 'x', sizeof(page->error_text));
		break;
	case 6:
		slot->step = word;
		break;
	case 7:
		slot->rows = slot->spans = (uint32_t)word;
		break;
	case 8:
		slot->spans = (uint32_t)word;
		break;
	case 13:
		slot->steps = (uint32_t)word;
		slot->valid = take(input);
		break;
	case 9:
		previous[row] = (uint32_t)word;
		break;
	case 10:
		spans[row].row = (uint32_t)word;
		spans[row].offset = take(input);
		break;
	case 11:
		spans[row].length = (uint32_t)word;
		spans[row].flags = take(input);
		break;
	case 12:
		spans[row].key_offset = (uint32_t)word;
		spans[row].key_size = take(input);
		break;
	default:
		bytes[word % geometry->slot_size] = take(input);
	}
}

/* A batch as an honest server would leave it. */
static void write_batch(struct world *world, uint64_t step)
{
	const struct segue_geometry *geometry = &world->shape.geometry;
	struct segue_ring_header *ring = world->ring.map;
	struct segue_slot *slot = segue_ring_slot(ring, geometry, step);
	uint32_t *previous = (uint32_t *)(void *)((char *)slot + geometry->previous_offset);
	struct segue_slot_span *spans =
		(struct segue_slot_span *)(void *)((char *)slot + geometry->span_offset);

	slot->step = step;
	slot->rows = slot->spans = ROWS;
	slot->steps = geometry->num_unroll;
	slot->valid = ROWS * (uint64_t)geometry->num_unroll;
	for (uint32_t row = 0; row < ROWS; row++) {
		previous[row] = step == 0 ? SEGUE_NO_ROW : row;
		spans[row] = (struct segue_slot_span){
			.row = row, .previous_row = previous[row], .length = 4, .key_size = 2};
	}
	ring->published = step + 1;
}

/* ---- What a worker does --------------------------------------------------------------------- */

static void expect_within(
	const struct world *world, const struct segue_batch *batch, const void *bytes, size_t size)
{
	uintptr_t at = (uintptr_t)bytes, slot = (uintptr_t)batch->slot;

	expect(at >= slot && at + size <= slot + world->shape.geometry.slot_size);
}

static uint64_t sum_of(const void *bytes, size_t size)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < size; i++)
		sum += ((const uint8_t *)bytes)[i];
	return sum;
}

/* What is read, so that no compiler leaves the reading out. */
static volatile uint64_t seen;

static void look_at(const struct world *world, struct segue_batch *batch)
{
	char key[64];
	size_t size;

	uint32_t rows = segue_batch_rows(batch);
	uint32_t steps = segue_batch_steps(batch);
	/* None, of a lane with batch_size 0. */
	expect(rows <= ROWS && steps > 0 && steps <= 4);
	seen = seen + sum_of(segue_batch_sequence(batch, 0), rows * steps * sizeof(float));
	seen = seen + sum_of(segue_batch_context(batch, 0), rows * sizeof(int64_t));
	for (uint32_t row = 0; row < rows; row++) {
		struct segue_span span;
		if (segue_batch_span(batch, row, &span, sizeof(span)) == 0)
			expect(span.row == row && span.offset + span.length <= steps);
		const char *record = segue_batch_record_key(batch, row, &size);
		if (record)
			expect_within(world, batch, record, size);
		segue_batch_key(batch, row, row & 1, key, sizeof(key));
	}
	for (size_t i = 0; i < 2; i++)
		seen = seen + sum_of(segue_batch_state(batch, i, NULL), rows * 8);
}

static void save(struct segue_batch *batch)
{
	static const uint8_t states[ROWS * 8];

	for (size_t i = 0; i < 2; i++)
		segue_batch_save_state(batch, i, states, segue_batch_rows(batch) * 8);
}

/* Only where the library would not look for its server. */
static bool can_ask(const struct segue_lane *lane)
{
	enum segue_track_result met = segue_track_poll(&lane->track);

	return met == SEGUE_TRACK_READY || met == SEGUE_TRACK_HELD || met == SEGUE_TRACK_END ||
	       met == SEGUE_TRACK_ERROR;
}

static void work(struct world *world, struct input *input)
{
	struct segue_batch *held[PLACES] = {NULL}, *open = NULL;

	while (input->at < input->end) {
		uint8_t what = take(input);
		struct segue_batch **place = &held[what / 16];
		switch (what % 8) {
		case 0:
			write_batch(world, world->lane->track.next);
			break;
		case 1:
		case 2:
			write_something(world, input);
			break;
		case 3:
			if (!open && !*place && can_ask(world->lane) &&
				segue_lane_next(world->lane, 1, &open) == 0)
				*place = open;
			break;
		case 4:
			if (open)
				look_at(world, open);
			break;
		case 5:
			if (open)
				save(open);
			break;
		case 6:
			/* A lease that ends is asked for again: that needs a server. */
			if (open && segue_batch_commit(open) == 0)
				open = NULL;
			break;
		default:
			if (*place == open)
				open = NULL;
			if (what & 8) { /* it comes again, and this one is still looked at */
				segue_batch_put_back(*place);
				break;
			}
			segue_batch_release(*place);
			*place = NULL;
		}
	}
	for (int i = 0; i < PLACES; i++)
		segue_batch_release(held[i]);
}

/* ---- A lease -------------------------------------------------------------------------------- */

/* What the first bytes of each segment say; most inputs leave them right, else nothing is mapped. */
static void spoil_segments(struct world *world, struct input *input)
{
	uint8_t which = take(input);
	struct segue_segment *segments[] = {world->ring.map, world->carry.map, world->page.map};

	if (which >= 3)
		return;
	uint8_t at = take(input) % sizeof(struct segue_segment);
	((uint8_t *)segments[which])[at] ^= take(input);
}

static void attach(struct world *world, struct input *input)
{
	struct segue_reply reply = {0};
	const int fds[] = {world->ring.fd, world->carry.fd, world->page.fd};
	uint64_t step = take(input) % 4 ? 0 : take_word(input);

	for (size_t i = 0; i < 3; i++)
		reply.fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
	reply.fds[3] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	reply.message.attached.step = step;
	reply.message.attached.rows = take(input) & 1 ? ROWS : 0;
	reply.message.attached.places = ROWS;
	struct segue_mapping *mapping;
	if (segue_mapping_create(&world->shape, 0, &reply, &mapping))
		return;
	expect(segue_places_create(mapping) == 0);
	world->lane->mapping = mapping;
	segue_track_init(&world->lane->track, segue_mapping_ring(mapping),
		segue_mapping_carry(mapping), segue_mapping_page(mapping), 2, 0, step);
	work(world, input);
	segue_mapping_drop(mapping);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, data + size};
	struct world world = {0};

	make_world(&world);
	world.lane = calloc(1, sizeof(*world.lane));
	expect(world.lane != NULL);
	world.lane->client = &world.client;
	world.lane->stream = &world.stream;
	world.lane->users = 1;
	spoil_segments(&world, &input);
	attach(&world, &input);
	expect(world.lane->users == 1 && world.shape.users == 1);
	segue_lane_drop(world.lane);
	segue_shm_destroy(&world.ring);
	segue_shm_destroy(&world.carry);
	segue_shm_destroy(&world.page);
	segue_geometry_finish(&world.shape.geometry);
	segue_spec_destroy(world.shape.spec);
	return 0;
}
