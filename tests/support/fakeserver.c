/* A server for tests of the client library: fakeserver.h has the contract. */
#include "fakeserver.h"

#include <errno.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/wait.h"

#define KEY_MAX   32
#define ANSWER_NS INT64_C(5000000000)

static const char magic[8] = "FAKETOK";

struct fake_token {
	char magic[8];
	uint64_t step, rows;
};

#define MUST(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "fakeserver: line %d: %s: %s (%s)\n", __LINE__,            \
				#condition, segue_error_detail(), strerror(errno));                \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* ---- Lanes --------------------------------------------------------------------------------- */

static struct segue_ring_header *ring_of(struct fake_lane *lane)
{
	return lane->ring.map;
}

static struct segue_carry_header *carry_of(struct fake_lane *lane)
{
	return lane->carry.map;
}

static struct segue_lease_page *page_of(struct fake_lane *lane)
{
	return lane->page.map;
}

static void ring_bell(struct fake_lane *lane, _Atomic uint32_t *bell)
{
	segue_store_release(bell, segue_load_relaxed(bell) + 1);
	segue_fence();
	if (segue_load_relaxed(&carry_of(lane)->sleeping))
		segue_wake_word(bell);
}

/* States of batch step - 1, row by row. */
static uint8_t *copy_states(struct fakeserver *server, struct fake_lane *lane, uint64_t step)
{
	const struct segue_spec *spec = server->spec;
	uint32_t rows = lane->rows_at[(step - 1) % FAKE_ROWS_KEPT];
	uint8_t *out = calloc(rows + 1, server->row_size + 1), *to = out;
	uint64_t offset = segue_carry_offset(&server->geometry, step - 1);

	MUST(out);
	for (uint32_t row = 0; row < rows; row++) {
		for (size_t i = 0; i < spec->state_count; i++) {
			size_t size = spec->states[i].size;
			MUST(segue_shm_read(&lane->carry,
				     offset + server->geometry.state_offset[i] + row * size, to,
				     size) == 0);
			to += size;
		}
	}
	return out;
}

static void write_disk(struct fakeserver *server, struct fake_lane *lane, uint64_t step)
{
	if (step == lane->step)
		return;
	free(lane->states);
	lane->states = copy_states(server, lane, step);
	lane->rows = lane->rows_at[(step - 1) % FAKE_ROWS_KEPT];
	lane->step = step;
}

static void drop_lease(struct fake_lane *lane)
{
	if (lane->lease == 0)
		return;
	segue_shm_destroy(&lane->ring);
	segue_shm_destroy(&lane->carry);
	segue_shm_destroy(&lane->page);
	close(lane->event);
	segue_plan_finish(&lane->plan);
	lane->lease = 0;
	lane->connection = -1;
}

static void end_lease(struct fakeserver *server, struct fake_lane *lane)
{
	if (lane->lease == 0)
		return;
	write_disk(server, lane, segue_load_acquire(&carry_of(lane)->committed));
	lane->token_valid = false;
	segue_store_release(&page_of(lane)->generation, lane->generation + 1);
	ring_bell(lane, &page_of(lane)->bell);
	ring_bell(lane, &ring_of(lane)->bell);
	drop_lease(lane);
}

static int admit(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total)
{
	const struct fakeserver *server = arg;

	(void)number;
	*array_steps = *total = server->script.lengths[record];
	return 0;
}

static struct segue_plan_spec plan_spec(const struct fakeserver *server, uint32_t lane)
{
	const struct segue_spec *spec = server->spec;

	return (struct segue_plan_spec){
		.records = server->script.records,
		.ends = {1, {spec->epochs}},
		.first_epoch = spec->first_epoch,
		.seed = spec->seed,
		.lanes = spec->lanes,
		.lane = lane,
		.batch_size = spec->batch_size,
		.num_unroll = spec->num_unroll,
		.tail = spec->tail,
		.epoch_end = spec->epoch_end,
		.shuffle = spec->shuffle,
	};
}

/* One step of the plan; rows are remembered. False at the end. */
static bool step_plan(
	struct fakeserver *server, struct fake_lane *lane, struct segue_slot_span *spans)
{
	const struct segue_plan_input input = {.arg = server, .admit = admit};
	uint64_t step = lane->plan.position->step;
	uint32_t rows;
	int rc = segue_plan_step(&lane->plan, &input, spans, &rows);

	MUST(rc >= 0);
	if (rc == 1)
		lane->rows_at[step % FAKE_ROWS_KEPT] = rows;
	return rc == 1;
}

/* A plan that has run to `step`, by doing it all again. */
static void seek_plan(struct fakeserver *server, struct fake_lane *lane, uint64_t step)
{
	struct segue_plan_spec spec = plan_spec(server, (uint32_t)(lane - server->lanes));
	struct segue_slot_span *spans = calloc(spec.batch_size, sizeof(*spans));

	MUST(spans && segue_plan_init(&lane->plan, &spec) == 0);
	while (lane->plan.position->step < step)
		MUST(step_plan(server, lane, spans));
	free(spans);
}

/* ---- Filling ------------------------------------------------------------------------------- */

static void fill_row(
	struct fakeserver *server, struct segue_slot *slot, struct segue_slot_span *span)
{
	const struct segue_geometry *geometry = &server->geometry;
	char *base = (char *)slot, key[KEY_MAX];
	float *x = (float *)(void *)(base + geometry->sequence_offset[0]);

	if (span->flags & SEGUE_SPAN_EMPTY)
		return;
	for (uint32_t i = 0; i < span->length; i++)
		x[span->row * geometry->num_unroll + i] =
			(float)(span->number * 1000 + span->first_step + i);
	if (geometry->context_count) {
		int64_t *c = (int64_t *)(void *)(base + geometry->context_offset[0]);
		c[span->row] = (int64_t)span->number;
	}
	span->key_size =
		(uint32_t)snprintf(key, sizeof(key), "rec:%llu", (unsigned long long)span->number);
	span->key_offset = span->row * KEY_MAX;
	memcpy(base + geometry->heap_offset + span->key_offset, key, span->key_size);
}

static void damage_slot(
	int damage, struct segue_slot *slot, struct segue_slot_span *spans, uint32_t *previous)
{
	switch (damage) {
	case 1:
		slot->step++;
		break;
	case 2:
		slot->rows = slot->spans + 1;
		break;
	case 3:
		slot->rows = slot->spans = 4;
		break;
	case 4:
		spans[1].row = 2;
		break;
	case 5:
		spans[1].length = 3;
		break;
	case 6:
		spans[1].key_size = UINT32_MAX;
		break;
	case 7:
		previous[1] = 3;
		break;
	case 8:
		slot->steps = 0;
		break;
	case 9:
		slot->steps++;
		break;
	case 10:
		slot->valid = slot->rows * slot->steps + 1;
		break;
	default:
		break;
	}
}

static bool fill_one(struct fakeserver *server, struct fake_lane *lane)
{
	const struct segue_geometry *geometry = &server->geometry;
	uint64_t step = lane->published;
	struct segue_slot *slot = segue_ring_slot(lane->ring.map, geometry, step);
	struct segue_slot_span *spans = (void *)((char *)slot + geometry->span_offset);
	uint32_t *previous = (void *)((char *)slot + geometry->previous_offset);

	if (server->script.fail_at && step == server->script.fail_at) {
		ring_of(lane)->error_step = step;
		strcpy(ring_of(lane)->error_text, "data/a.tfrecord: record at 1234: damaged");
		segue_store_release(&ring_of(lane)->error, (uint32_t)-SEGUE_EDATA);
		lane->over = true;
		return true;
	}
	memset(slot, 0, geometry->slot_size);
	if (!step_plan(server, lane, spans)) {
		ring_of(lane)->undelivered = lane->plan.position->undelivered;
		segue_store_release(&ring_of(lane)->end, step);
		lane->over = true;
		return true;
	}
	slot->step = step;
	slot->rows = slot->spans = lane->rows_at[step % FAKE_ROWS_KEPT];
	slot->steps = geometry->num_unroll;
	for (uint32_t row = 0; row < slot->rows; row++) {
		fill_row(server, slot, &spans[row]);
		slot->valid += spans[row].length;
		previous[row] = spans[row].previous_row;
	}
	damage_slot(server->script.damage, slot, spans, previous);
	lane->published++;
	segue_store_release(&ring_of(lane)->published, lane->published);
	return true;
}

static void serve_lane(struct fakeserver *server, struct fake_lane *lane)
{
	if (lane->lease == 0)
		return;
	struct pollfd event = {.fd = lane->event, .events = POLLIN};
	if (poll(&event, 1, 0) > 0) {
		server->seen.events++;
		segue_event_clear(lane->event);
	}
	uint64_t released = segue_load_acquire(&carry_of(lane)->released);
	uint64_t committed = segue_load_acquire(&carry_of(lane)->committed);
	MUST(released <= committed && committed <= lane->published);
	bool news = false;
	bool holds = server->script.hold || server->script.hold_lanes >> (lane - server->lanes) & 1;
	while (!holds && !lane->over && lane->published < released + server->geometry.depth)
		news |= fill_one(server, lane);
	if (news)
		ring_bell(lane, &ring_of(lane)->bell);
	/* As the real one: wake me when half the ring is free. */
	if (!lane->over)
		segue_store_release(&page_of(lane)->wake_at,
			lane->published - server->geometry.depth + server->geometry.depth / 2);
	if (server->script.storage_error && !segue_load_relaxed(&page_of(lane)->error)) {
		strcpy(page_of(lane)->error_text, "no space left on device");
		segue_store_release(&page_of(lane)->error, (uint32_t)-server->script.storage_error);
		lane->over = true;
		ring_bell(lane, &page_of(lane)->bell);
		ring_bell(lane, &ring_of(lane)->bell);
	}
	if (!server->script.hold_durable && server->spec->persist && committed > lane->step &&
		!server->script.storage_error) {
		write_disk(server, lane, committed);
		segue_store_release(&page_of(lane)->durable, committed);
		ring_bell(lane, &page_of(lane)->bell);
	}
}

/* ---- Answers ------------------------------------------------------------------------------- */

static void reply(
	struct fakeserver *server, int c, struct segue_message *message, int *fds, size_t fd_count)
{
	static uint8_t bytes[SEGUE_FRAME_MAX];
	size_t size;

	MUST(segue_message_pack(message, bytes, &size) == 0);
	/* A client that is gone is found by reading. */
	segue_frame_send(server->connections[c].fd, (uint16_t)message->type, bytes, size, fds,
		fd_count, segue_now_ns() + ANSWER_NS);
}

static void refuse(struct fakeserver *server, int c, uint64_t serial, int code, const char *detail)
{
	struct segue_message message = {.type = SEGUE_MESSAGE_FAILURE,
		.serial = serial,
		.failure = {.code = code, .detail = detail}};

	reply(server, c, &message, NULL, 0);
}

static void reply_bytes(
	struct fakeserver *server, int c, uint64_t serial, const void *bytes, size_t size)
{
	struct segue_message message = {
		.type = SEGUE_MESSAGE_BULK, .serial = serial, .bulk = {.size = size}};
	struct segue_shm shm;

	MUST(segue_shm_create("fake:bulk", size, SEGUE_SHM_READ, &shm) == 0);
	memcpy(shm.map, bytes, size);
	reply(server, c, &message, &shm.fd, 1);
	segue_shm_destroy(&shm);
}

/* What the client has put into the upload; freed by the caller. */
static uint8_t *take_upload(struct fakeserver *server, uint64_t id, size_t *size)
{
	*size = 0;
	if (id == 0)
		return NULL;
	MUST(id == server->last_id && server->upload.fd >= 0);
	uint8_t *bytes = malloc(server->upload_size);
	MUST(bytes && segue_shm_read(&server->upload, 0, bytes, server->upload_size) == 0);
	*size = server->upload_size;
	segue_shm_destroy(&server->upload);
	return bytes;
}

static void on_hello(struct fakeserver *server, int c, const struct segue_message *request)
{
	char dir[sizeof(server->path)];
	struct stat info;

	strcpy(dir, server->path);
	MUST(stat(dirname(dir), &info) == 0);
	struct segue_message message = {.type = SEGUE_MESSAGE_WELCOME,
		.serial = request->serial,
		.welcome = {.protocol = SEGUE_PROTOCOL,
			.layout_version = SEGUE_LAYOUT_VERSION + server->script.other_layout,
			.version = "0.9-fake",
			.pid = getpid(),
			.instance = server->starts,
			.dir = dir,
			.device = info.st_dev,
			.inode = info.st_ino}};

	server->seen.hellos++;
	MUST(request->hello.protocol == SEGUE_PROTOCOL &&
		request->hello.layout_version == SEGUE_LAYOUT_VERSION);
	MUST(*request->hello.program && strcmp(request->hello.version, segue_version()) == 0);
	if (server->script.refuse_code)
		refuse(server, c, request->serial, server->script.refuse_code,
			"the server speaks protocol 9");
	else
		reply(server, c, &message, NULL, 0);
}

static void on_stream_open(struct fakeserver *server, int c, struct segue_message *request)
{
	struct segue_spec *spec = request->stream_open.spec;
	size_t size;
	uint8_t *paths = take_upload(server, request->stream_open.paths_upload, &size);

	server->seen.opens++;
	MUST(size <= sizeof(server->seen.paths));
	if (paths) {
		MUST(spec->source.tfrecord.paths.count == 0);
		memcpy(server->seen.paths, paths, size);
		server->seen.paths_size = size;
		spec->source.tfrecord.paths.path =
			calloc(1, sizeof(*spec->source.tfrecord.paths.path));
		MUST(spec->source.tfrecord.paths.path &&
			(spec->source.tfrecord.paths.path[0] = strdup((char *)paths)));
		spec->source.tfrecord.paths.count = 1;
		free(paths);
	}
	MUST(segue_spec_check(spec) == 0);
	for (int i = 0; i < server->script.progress; i++) {
		struct segue_message progress = {.type = SEGUE_MESSAGE_PROGRESS,
			.serial = request->serial,
			.progress = {.what = "index", .done = (uint64_t)i, .total = 10}};
		reply(server, c, &progress, NULL, 0);
	}
	if (!server->spec) {
		server->spec = spec;
		MUST(segue_geometry_init(spec, spec->batch_size, KEY_MAX, &server->geometry) == 0);
		for (size_t i = 0; i < spec->state_count; i++)
			server->row_size += spec->states[i].size;
	} else {
		segue_spec_destroy(spec);
	}
	struct segue_message message = {.type = SEGUE_MESSAGE_OPENED,
		.serial = request->serial,
		.opened = {.stream = ++server->last_id,
			.records = server->script.records,
			.layout_hash = server->geometry.hash + server->script.wrong_hash,
			.key_max = KEY_MAX}};
	reply(server, c, &message, NULL, 0);
}

static void make_segment(struct segue_shm *shm, enum segue_segment_kind kind, size_t size,
	enum segue_shm_access access, const struct segue_geometry *geometry)
{
	MUST(segue_shm_create("fake:lease", size, access, shm) == 0);
	segue_segment_init(shm->map, kind, size, geometry);
}

/* The carry begins with the states after step - 1. */
static void put_states(struct fakeserver *server, struct fake_lane *lane)
{
	const struct segue_spec *spec = server->spec;
	const uint8_t *from = lane->states;
	uint8_t *buffer =
		(uint8_t *)lane->carry.map + segue_carry_offset(&server->geometry, lane->step - 1);

	for (uint32_t row = 0; row < lane->rows; row++) {
		for (size_t i = 0; i < spec->state_count; i++) {
			size_t size = spec->states[i].size;
			memcpy(buffer + server->geometry.state_offset[i] + row * size, from, size);
			from += size;
		}
	}
}

/* From the disk as it stands. */
static void grant(struct fakeserver *server, int c, uint64_t serial, struct fake_lane *lane)
{
	const struct segue_geometry *geometry = &server->geometry;

	lane->generation++;
	lane->token_valid = lane->started = true;
	memset(lane->token, (int)(0x40 + lane->generation), sizeof(lane->token));
	make_segment(
		&lane->ring, SEGUE_SEGMENT_RING, geometry->ring_size, SEGUE_SHM_READ, geometry);
	make_segment(
		&lane->carry, SEGUE_SEGMENT_CARRY, geometry->carry_size, SEGUE_SHM_WRITE, geometry);
	make_segment(
		&lane->page, SEGUE_SEGMENT_LEASE, geometry->lease_size, SEGUE_SHM_READ, geometry);
	lane->event = segue_event_create();
	lane->lease = ++server->last_id;
	lane->connection = c;
	lane->granted = lane->published = lane->step;
	lane->over = false;
	seek_plan(server, lane, lane->step);
	segue_store_release(&ring_of(lane)->published, lane->step);
	segue_store_release(&ring_of(lane)->end, SEGUE_NEVER);
	segue_store_release(&carry_of(lane)->committed, lane->step);
	segue_store_release(&carry_of(lane)->released, lane->step);
	segue_store_release(&page_of(lane)->wake_at, SEGUE_NEVER);
	segue_store_release(&page_of(lane)->durable, lane->step);
	segue_store_release(&page_of(lane)->generation, lane->generation);
	if (lane->step > 0)
		put_states(server, lane);
	struct segue_message message = {.type = SEGUE_MESSAGE_ATTACHED,
		.serial = serial,
		.attached = {.lease = lane->lease,
			.generation = lane->generation,
			.step = lane->step,
			.rows = lane->step ? lane->rows_at[(lane->step - 1) % FAKE_ROWS_KEPT] : 0,
			.places = geometry->places,
			.batch_size =
				lane->batch_size ? lane->batch_size : server->spec->batch_size}};
	message.attached.rows += server->script.bad_rows;
	memcpy(message.attached.token, lane->token, sizeof(lane->token));
	if (server->script.bad_grants > 0) {
		server->script.bad_grants--;
		memset(lane->ring.map, 0, sizeof(struct segue_segment));
	}
	int fds[] = {lane->ring.fd, lane->carry.fd, lane->page.fd, lane->event};
	reply(server, c, &message, fds, 4);
}

static void place(struct fakeserver *server, struct fake_lane *lane, uint64_t step,
	const uint8_t *states, size_t size)
{
	free(lane->states);
	lane->states = malloc(size + 1);
	MUST(lane->states);
	if (size)
		memcpy(lane->states, states, size);
	lane->step = step;
	lane->rows = server->row_size ? (uint32_t)(size / server->row_size) : 0;
}

static bool accept_offer(struct fakeserver *server, struct fake_lane *lane,
	const struct segue_message *request, const uint8_t *bytes, size_t size)
{
	uint64_t step = request->lane_attach.step;

	server->seen.offers++;
	server->seen.offer_step = step;
	server->seen.offer_size = size;
	MUST(size <= sizeof(server->seen.offer));
	if (size)
		memcpy(server->seen.offer, bytes, size);
	if (!lane->token_valid || step < lane->step ||
		memcmp(lane->token, request->lane_attach.token, sizeof(lane->token)) != 0)
		return false;
	if (step > lane->step) {
		seek_plan(server, lane, step);
		size_t states = lane->rows_at[(step - 1) % FAKE_ROWS_KEPT] * server->row_size;
		MUST(size >= states);
		place(server, lane, step, bytes, states);
		segue_plan_finish(&lane->plan);
	}
	return true;
}

static bool accept_token(
	struct fakeserver *server, struct fake_lane *lane, const uint8_t *bytes, size_t size)
{
	struct fake_token token;

	if (size < sizeof(token))
		return false;
	memcpy(&token, bytes, sizeof(token));
	if (memcmp(token.magic, magic, sizeof(magic)) != 0)
		return false;
	place(server, lane, token.step, bytes + sizeof(token), size - sizeof(token));
	return true;
}

/* Whether the lane may be granted as is asked; moves the disk there. */
static bool decide(struct fakeserver *server, int c, const struct segue_message *request,
	struct fake_lane *lane, const uint8_t *bytes, size_t size)
{
	uint64_t serial = request->serial;
	enum segue_attach_mode mode = request->lane_attach.mode;

	if (lane->lease && request->lane_attach.take) {
		server->seen.takes++;
		end_lease(server, lane);
	}
	if (mode == SEGUE_ATTACH_RESIZE) {
		MUST(request->lane_attach.lease == lane->lease);
		end_lease(server, lane);
		MUST(request->lane_attach.step == lane->step);
		lane->batch_size = request->lane_attach.batch_size;
		server->seen.resizes++;
		return true;
	}
	/* Somebody who holds it has to give it back, or to name the lease. */
	if (lane->lease && !(mode == SEGUE_ATTACH_RESTORE && request->lane_attach.lease)) {
		refuse(server, c, serial,
			mode == SEGUE_ATTACH_OFFER || mode == SEGUE_ATTACH_RESUME ? SEGUE_EFENCED
										  : SEGUE_EBUSY,
			"held by pid 4711");
		return false;
	}
	switch (mode) {
	case SEGUE_ATTACH_NONE:
		if (lane->step == 0)
			return true;
		refuse(server, c, serial, SEGUE_ESTART, "the lane stands at step 7 of yesterday");
		return false;
	case SEGUE_ATTACH_CONTINUE:
	case SEGUE_ATTACH_RESUME:
		return true;
	case SEGUE_ATTACH_FRESH:
		place(server, lane, 0, NULL, 0);
		return true;
	case SEGUE_ATTACH_OFFER:
		if (accept_offer(server, lane, request, bytes, size))
			return true;
		refuse(server, c, serial, SEGUE_EFENCED, "the offer is not of the latest lease");
		return false;
	case SEGUE_ATTACH_RESTORE:
		MUST(request->lane_attach.lease == lane->lease);
		if (!accept_token(server, lane, bytes, size)) {
			refuse(server, c, serial, SEGUE_ETOKEN, "the token is of another stream");
			return false;
		}
		drop_lease(lane);
		return true;
	case SEGUE_ATTACH_CHECK:  /* on_check */
	case SEGUE_ATTACH_RESIZE: /* above */
		break;
	}
	return false;
}

static void close_connection(struct fakeserver *server, int c, bool take)
{
	for (int l = 0; l < FAKE_LANES; l++) {
		if (server->lanes[l].lease && server->lanes[l].connection == c) {
			if (take)
				end_lease(server, &server->lanes[l]);
			else
				drop_lease(&server->lanes[l]);
		}
	}
	close(server->connections[c].fd);
	segue_frame_reader_finish(server->connections[c].reader);
	free(server->connections[c].reader);
	server->connections[c].fd = -1;
}

static void on_check(
	struct fakeserver *server, int c, uint64_t serial, const uint8_t *bytes, size_t size)
{
	struct segue_message done = {.type = SEGUE_MESSAGE_DONE, .serial = serial};

	if (size < sizeof(magic) || memcmp(bytes, magic, sizeof(magic)) != 0)
		refuse(server, c, serial, SEGUE_ETOKEN, "the token is of another stream");
	else
		reply(server, c, &done, NULL, 0);
}

static void on_stream_close(struct fakeserver *server, int c, const struct segue_message *request)
{
	struct segue_message done = {.type = SEGUE_MESSAGE_DONE, .serial = request->serial};

	reply(server, c, &done, NULL, 0);
}

static void on_stored(struct fakeserver *server, int c, const struct segue_message *request)
{
	struct segue_message done = {.type = SEGUE_MESSAGE_DONE, .serial = request->serial};
	char text[64];

	snprintf(text, sizeof(text), "%s %u %llu", request->stored.stream, request->stored.lane,
		(unsigned long long)request->stored.id);
	if (request->stored.id == 99)
		refuse(server, c, request->serial, SEGUE_ENOTFOUND,
			"lane 1 has no checkpoint of id 99");
	else if (request->stored.remove)
		reply(server, c, &done, NULL, 0);
	else
		reply_bytes(server, c, request->serial, text, strlen(text));
}

static void on_attach(struct fakeserver *server, int c, const struct segue_message *request)
{
	struct fake_lane *lane = &server->lanes[request->lane_attach.lane];
	size_t size;
	uint8_t *bytes = take_upload(server, request->lane_attach.upload, &size);

	if (request->lane_attach.mode == SEGUE_ATTACH_CHECK) {
		on_check(server, c, request->serial, bytes, size);
		free(bytes);
		return;
	}
	server->seen.attaches++;
	if (decide(server, c, request, lane, bytes, size)) {
		if (server->script.lose_grants > 0) {
			/* Durable, but the server dies before it can say so. */
			server->script.lose_grants--;
			lane->generation++;
			memset(lane->token, 0x99, sizeof(lane->token));
			close_connection(server, c, false);
		} else {
			grant(server, c, request->serial, lane);
		}
	}
	free(bytes);
}

static void on_checkpoint(struct fakeserver *server, int c, const struct segue_message *request)
{
	struct fake_lane *lane = &server->lanes[request->checkpoint.lane];
	uint64_t step = request->checkpoint.step;

	if (!lane->lease || segue_load_acquire(&carry_of(lane)->committed) != step) {
		refuse(server, c, request->serial, SEGUE_ETIMEOUT, "lane 1 stands at another step");
		return;
	}
	struct fake_token token = {.step = step};
	memcpy(token.magic, magic, sizeof(magic));
	token.rows = step ? lane->rows_at[(step - 1) % FAKE_ROWS_KEPT] : 0;
	size_t states = token.rows * server->row_size;
	uint8_t *bytes = malloc(sizeof(token) + states);
	uint8_t *copy = step ? copy_states(server, lane, step) : NULL;
	MUST(bytes);
	memcpy(bytes, &token, sizeof(token));
	if (copy)
		memcpy(bytes + sizeof(token), copy, states);
	reply_bytes(server, c, request->serial, bytes, sizeof(token) + states);
	free(copy);
	free(bytes);
}

static void on_report(struct fakeserver *server, int c, const struct segue_message *request)
{
	char text[256];

	if (server->script.stray) {
		struct segue_message old = {.type = SEGUE_MESSAGE_BULK,
			.serial = request->serial - 1,
			.bulk = {.size = 1}};
		int fd = segue_event_create();
		reply(server, c, &old, &fd, 1);
		close(fd);
	}
	if (server->script.wrong_reply) {
		struct segue_message done = {.type = SEGUE_MESSAGE_DONE, .serial = request->serial};
		reply(server, c, &done, NULL, 0);
		return;
	}
	if (strcmp(request->report.key, "missing") == 0) {
		refuse(server, c, request->serial, SEGUE_ENOTFOUND, "nothing under 'missing'");
		return;
	}
	int size = snprintf(text, sizeof(text), "{\"what\":%d,\"stream\":\"%s\",\"key\":\"%s\"}",
		(int)request->report.what, request->report.stream, request->report.key);
	reply_bytes(server, c, request->serial, text, (size_t)size);
}

static void on_upload(struct fakeserver *server, int c, const struct segue_message *request)
{
	struct segue_message message = {.type = SEGUE_MESSAGE_BULK,
		.serial = request->serial,
		.bulk = {.id = ++server->last_id, .size = request->upload.size}};

	MUST(request->upload.size > 0);
	server->seen.uploads++;
	segue_shm_destroy(&server->upload);
	server->upload_size = request->upload.size;
	MUST(segue_shm_create(
		     "fake:upload", server->upload_size, SEGUE_SHM_WRITE, &server->upload) == 0);
	reply(server, c, &message, &server->upload.fd, 1);
}

static void on_detach(struct fakeserver *server, int c, const struct segue_message *request)
{
	struct segue_message done = {.type = SEGUE_MESSAGE_DONE, .serial = request->serial};

	server->seen.detaches++;
	for (int l = 0; l < FAKE_LANES; l++)
		if (server->lanes[l].lease == request->lane_detach.lease)
			end_lease(server, &server->lanes[l]);
	reply(server, c, &done, NULL, 0);
}

static void on_flush(struct fakeserver *server, int c, const struct segue_message *request)
{
	struct segue_message done = {.type = SEGUE_MESSAGE_DONE, .serial = request->serial};

	server->seen.flushes++;
	reply(server, c, &done, NULL, 0);
}

static void answer(struct fakeserver *server, int c, struct segue_message *request)
{
	if (server->script.die_times > 0 && server->script.die_on == (int)request->type) {
		server->script.die_times--;
		if (request->type == SEGUE_MESSAGE_STREAM_OPEN)
			segue_spec_destroy(request->stream_open.spec);
		close_connection(server, c, false);
		return;
	}
	if (server->script.mute == (int)request->type)
		return;
	switch (request->type) {
	case SEGUE_MESSAGE_HELLO:
		on_hello(server, c, request);
		break;
	case SEGUE_MESSAGE_STREAM_OPEN:
		on_stream_open(server, c, request);
		break;
	case SEGUE_MESSAGE_LANE_ATTACH:
		on_attach(server, c, request);
		break;
	case SEGUE_MESSAGE_LANE_DETACH:
		on_detach(server, c, request);
		break;
	case SEGUE_MESSAGE_LANE_FLUSH:
		on_flush(server, c, request);
		break;
	case SEGUE_MESSAGE_UPLOAD:
		on_upload(server, c, request);
		break;
	case SEGUE_MESSAGE_CHECKPOINT:
		on_checkpoint(server, c, request);
		break;
	case SEGUE_MESSAGE_STORED:
		on_stored(server, c, request);
		break;
	case SEGUE_MESSAGE_REPORT:
		on_report(server, c, request);
		break;
	case SEGUE_MESSAGE_STREAM_CLOSE:
		on_stream_close(server, c, request);
		break;
	default:
		MUST(request->type <= SEGUE_MESSAGE_REPORT);
	}
}

/* ---- Thread -------------------------------------------------------------------------------- */

static void serve_connection(struct fakeserver *server, int c)
{
	struct segue_message request;
	struct segue_frame frame;

	while (server->connections[c].fd >= 0) {
		int rc = 1;
		if (server->connections[c].waits)
			frame = server->connections[c].frame;
		else
			rc = segue_frame_read(
				server->connections[c].reader, server->connections[c].fd, &frame);
		if (rc == 0)
			return;
		if (rc == SEGUE_EGONE) {
			close_connection(server, c, true);
			return;
		}
		server->connections[c].waits = rc > 0 && server->script.late == (int)frame.type;
		server->connections[c].frame = frame; /* what it points to stays until the next */
		if (server->connections[c].waits)
			return;
		MUST(rc > 0 && segue_message_unpack(&frame, &server->arena, &request) == 0);
		answer(server, c, &request);
	}
}

static void accept_connection(struct fakeserver *server)
{
	int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	int c = 0;
	while (c < FAKE_CONNECTIONS && server->connections[c].fd >= 0)
		c++;
	MUST(c < FAKE_CONNECTIONS);
	server->seen.connections++;
	server->connections[c].fd = fd;
	server->connections[c].waits = false;
	server->connections[c].reader = malloc(sizeof(struct segue_frame_reader));
	MUST(server->connections[c].reader);
	segue_frame_reader_init(server->connections[c].reader, false);
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
}

static void *run(void *arg)
{
	struct fakeserver *server = arg;

	for (bool stop = false; !stop; nap()) {
		fakeserver_lock(server);
		accept_connection(server);
		for (int c = 0; c < FAKE_CONNECTIONS; c++)
			if (server->connections[c].fd >= 0)
				serve_connection(server, c);
		for (int l = 0; l < FAKE_LANES; l++)
			serve_lane(server, &server->lanes[l]);
		stop = server->stop;
		fakeserver_unlock(server);
	}
	return NULL;
}

struct fakeserver *fakeserver_create(const char *path)
{
	struct fakeserver *server = calloc(1, sizeof(*server));

	MUST(server && strlen(path) < sizeof(server->path));
	strcpy(server->path, path);
	server->script.records = 8;
	for (uint64_t i = 0; i < FAKE_RECORDS; i++)
		server->script.lengths[i] = 4 + (i * 5) % 9;
	MUST(pthread_mutex_init(&server->lock, NULL) == 0);
	MUST(segue_arena_init(&server->arena, SEGUE_ARENA_SIZE) == 0);
	for (int c = 0; c < FAKE_CONNECTIONS; c++)
		server->connections[c].fd = -1;
	server->upload = SEGUE_SHM_NONE;
	server->listener = -1;
	return server;
}

void fakeserver_start(struct fakeserver *server)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	strcpy(address.sun_path, server->path);
	unlink(server->path);
	server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	MUST(server->listener >= 0);
	MUST(bind(server->listener, (struct sockaddr *)&address, sizeof(address)) == 0);
	MUST(listen(server->listener, 16) == 0);
	server->stop = false;
	server->running = true;
	server->starts++;
	MUST(pthread_create(&server->thread, NULL, run, server) == 0);
}

void fakeserver_kill(struct fakeserver *server)
{
	if (!server->running)
		return;
	fakeserver_lock(server);
	server->stop = true;
	fakeserver_unlock(server);
	MUST(pthread_join(server->thread, NULL) == 0);
	server->running = false;
	close(server->listener);
	for (int c = 0; c < FAKE_CONNECTIONS; c++)
		if (server->connections[c].fd >= 0)
			close_connection(server, c, false);
}

void fakeserver_destroy(struct fakeserver *server)
{
	fakeserver_kill(server);
	for (int l = 0; l < FAKE_LANES; l++)
		free(server->lanes[l].states);
	segue_shm_destroy(&server->upload);
	segue_geometry_finish(&server->geometry);
	segue_spec_destroy(server->spec);
	segue_arena_finish(&server->arena);
	pthread_mutex_destroy(&server->lock);
	unlink(server->path);
	free(server);
}

void fakeserver_lock(struct fakeserver *server)
{
	MUST(pthread_mutex_lock(&server->lock) == 0);
}

void fakeserver_unlock(struct fakeserver *server)
{
	MUST(pthread_mutex_unlock(&server->lock) == 0);
}

void fakeserver_end_lease(struct fakeserver *server, unsigned lane)
{
	fakeserver_lock(server);
	end_lease(server, &server->lanes[lane]);
	fakeserver_unlock(server);
}

void fakeserver_usurp(struct fakeserver *server, unsigned lane)
{
	fakeserver_lock(server);
	end_lease(server, &server->lanes[lane]);
	server->lanes[lane].generation++;
	memset(server->lanes[lane].token, 0x77, SEGUE_TOKEN_BYTES);
	fakeserver_unlock(server);
}

void fakeserver_ask(struct fakeserver *server, unsigned lane, uint32_t bits)
{
	fakeserver_lock(server);
	struct fake_lane *asked = &server->lanes[lane];
	MUST(asked->lease);
	segue_store_release(&page_of(asked)->asks, bits);
	ring_bell(asked, &page_of(asked)->bell);
	ring_bell(asked, &ring_of(asked)->bell);
	fakeserver_unlock(server);
}

void fakeserver_hang_up(struct fakeserver *server, int code, const char *detail)
{
	fakeserver_lock(server);
	refuse(server, 0, 0, code, detail);
	close_connection(server, 0, true);
	fakeserver_unlock(server);
}

void fakeserver_await(struct fakeserver *server, unsigned lane, uint64_t published)
{
	for (bool done = false; !done; nap()) {
		fakeserver_lock(server);
		done = server->lanes[lane].published >= published;
		fakeserver_unlock(server);
	}
}

void fakeserver_await_commit(struct fakeserver *server, unsigned lane, uint64_t step)
{
	for (bool done = false; !done; nap()) {
		fakeserver_lock(server);
		done = segue_load_acquire(&carry_of(&server->lanes[lane])->committed) >= step;
		fakeserver_unlock(server);
	}
}

void fakeserver_await_idle(struct fakeserver *server)
{
	for (bool idle = false; !idle; nap()) {
		fakeserver_lock(server);
		idle = true;
		for (int c = 0; c < FAKE_CONNECTIONS; c++)
			idle &= server->connections[c].fd < 0;
		fakeserver_unlock(server);
	}
}
