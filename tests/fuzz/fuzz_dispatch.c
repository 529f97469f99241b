/*
 * Fuzzes a whole server by sequences of messages: sessions, streams, leases, checkpoints, reports.
 *
 * The server is the real one without its listener: loop, committer, loader threads, a store. Two
 * clients talk to it over socketpairs. The input is a list of steps: an op byte (bit 7: which
 * client), then
 *
 *	0 to 3	type u8, size u16, payload	a message (PLACE in it stands for the data's path)
 *	4	word u8, value u8		writes a word of the newest carry, and rings the event
 *	5	size u16, bytes			fills the newest upload
 *	6	-				lets the server come to rest
 *	7	-				the client goes; another comes
 *
 * When all have gone, nothing may be left of them: no stream, session, task, checkpoint or fd. The
 * store is emptied after each input. For libFuzzer, or with replay_main.c as a program that runs
 * files.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/layout.h"
#include "core/wait.h"
#include "store/ops.h"
#include "testserver.h"
#include "tfwrite.h"

#define PLACE       "/segue-fuzz-data/segue-fuzz-data/segue-fuzz-data/segue-fuzz-data"
#define PATIENCE_NS INT64_C(30000000000) /* for what should be gone in a moment */
#define MEMORY_MAX  (8u << 20)           /* of a ring, a carry, an upload */

enum { CLIENTS = 2 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define expect(holds)                                                                              \
	do {                                                                                       \
		if (!(holds)) {                                                                    \
			dprintf(STDERR_FILENO, "line %d: %s\n", __LINE__, #holds);                 \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct client {
	int socket, peer; /* ours; the server's */
	struct segue_frame_reader reader;
	int ring, carry, event, upload; /* newest that came; -1 */
	uint64_t upload_size;
};

static struct {
	struct segue_testserver test;
	bool made;
	char place[sizeof(PLACE)];
	struct client client[CLIENTS];
	const uint8_t *at, *end;
	bool closing;
	int64_t closing_since;
} world;

/* ---- Clients -------------------------------------------------------------------------------- */

static void drop(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void come(struct client *client)
{
	int ends[2];

	expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
	client->socket = ends[0];
	client->peer = ends[1];
	client->ring = client->carry = client->event = client->upload = -1;
	segue_frame_reader_init(&client->reader, true);
	segue_session_create(&world.test.server, client->peer);
}

static void go(struct client *client)
{
	drop(&client->socket);
	drop(&client->ring);
	drop(&client->carry);
	drop(&client->event);
	drop(&client->upload);
	segue_frame_reader_finish(&client->reader);
}

/* Takes what the server answered: an honest server's frames are whole, and messages of its. */
static void listen_to_server(struct client *client)
{
	static struct segue_arena arena;
	struct segue_message message;
	struct segue_frame frame;

	if (!arena.base)
		expect(segue_arena_init(&arena, SEGUE_ARENA_SIZE) == 0);
	while (client->socket >= 0 &&
		segue_frame_read(&client->reader, client->socket, &frame) == 1) {
		expect(segue_message_unpack(&frame, &arena, &message) == 0);
		expect(message.type >= SEGUE_MESSAGE_WELCOME);
		if (message.type == SEGUE_MESSAGE_ATTACHED) {
			expect(frame.fd_count == 4);
			drop(&client->ring);
			drop(&client->carry);
			drop(&client->event);
			client->ring = frame.fds[0];
			client->carry = frame.fds[1];
			client->event = frame.fds[3];
			close(frame.fds[2]);
		} else if (message.type == SEGUE_MESSAGE_BULK) {
			expect(frame.fd_count == 1);
			if (message.bulk.id == 0) { /* bytes to read */
				close(frame.fds[0]);
				continue;
			}
			drop(&client->upload);
			client->upload = frame.fds[0];
			client->upload_size = message.bulk.size;
		}
		segue_message_finish(&message);
	}
}

/* Inputs that would read other files, or take much memory by right, are left out. */
static bool is_harmless_stream(struct segue_spec *spec)
{
	struct segue_geometry geometry;

	const struct segue_paths *paths;

	for (size_t k = 0; (paths = segue_source_list(&spec->source, k)); k++)
		for (size_t i = 0; i < paths->count; i++)
			if (strncmp(paths->path[i], world.place, strlen(world.place)) != 0)
				return false;
	if (spec->lanes > 16 || spec->num_threads > 4 || spec->batch_size > 64 || spec->depth > 16)
		return false;
	if (segue_spec_check(spec))
		return true; /* refused */
	if (segue_geometry_init(spec, spec->batch_size, 64, &geometry))
		return true;
	bool small = geometry.ring_size < MEMORY_MAX && geometry.carry_size < MEMORY_MAX;
	segue_geometry_finish(&geometry);
	return small;
}

static bool is_harmless(uint16_t type, const uint8_t *payload, size_t size)
{
	static struct segue_arena arena;
	const struct segue_frame frame = {.type = type, .size = (uint32_t)size, .payload = payload};
	struct segue_message message;

	if (!arena.base)
		expect(segue_arena_init(&arena, SEGUE_ARENA_SIZE) == 0);
	if (segue_message_unpack(&frame, &arena, &message))
		return true;
	if (type == SEGUE_MESSAGE_UPLOAD)
		return message.upload.size < MEMORY_MAX;
	if (type == SEGUE_MESSAGE_STREAM_OPEN) {
		bool harmless = message.stream_open.paths_upload == 0 &&
				message.stream_open.index_upload == 0 &&
				is_harmless_stream(message.stream_open.spec);
		segue_message_finish(&message);
		return harmless;
	}
	segue_message_finish(&message);
	return true;
}

/* ---- Steps ---------------------------------------------------------------------------------- */

static size_t take(size_t count)
{
	size_t value = 0;

	for (size_t i = 0; i < count; i++)
		value |= (size_t)(world.at < world.end ? *world.at++ : 0) << 8 * i;
	return value;
}

/* A copy of the next bytes, with the path of the data in it. */
static size_t take_bytes(uint8_t *out)
{
	size_t size = take(2), left = (size_t)(world.end - world.at);
	const size_t length = strlen(PLACE);

	size = size < left ? size : left;
	memcpy(out, world.at, size);
	world.at += size;
	for (size_t i = 0; i + length <= size; i++)
		if (memcmp(out + i, PLACE, length) == 0)
			memcpy(out + i, world.place, length);
	return size;
}

static void send_message(struct client *client)
{
	static uint8_t bytes[SEGUE_FRAME_MAX];
	uint16_t type = (uint16_t)take(1);
	size_t size = take_bytes(bytes);

	if (is_harmless(type, bytes, size))
		segue_frame_send(client->socket, type, bytes, size, NULL, 0, segue_now_ns());
}

/* The loader threads fill the ring meanwhile: a commit of what is not there yet is nonsense. */
static void await_batches(const struct client *client, uint64_t count)
{
	uint64_t published = 0;

	for (int i = 0; i < 50 && published < count && count < 4; i++) {
		expect(pread(client->ring, &published, sizeof(published),
			       offsetof(struct segue_ring_header, published)) == sizeof(published));
		if (published < count)
			usleep(200);
	}
}

static void write_word(const struct client *client)
{
	uint64_t which = take(1), value = take(1);

	value = value < 128 ? value : value - 256; /* and some that are absurd */
	if (client->carry < 0)
		return;
	await_batches(client, value);
	off_t place = which % 3 == 0   ? offsetof(struct segue_carry_header, committed)
		      : which % 3 == 1 ? offsetof(struct segue_carry_header, released)
				       : offsetof(struct segue_carry_header, sleeping);
	expect(pwrite(client->carry, &value, which % 3 == 2 ? 4 : 8, place) > 0);
	segue_event_ring(client->event);
}

static void fill_upload(const struct client *client)
{
	static uint8_t bytes[SEGUE_FRAME_MAX];
	size_t size = take_bytes(bytes);

	size = size < client->upload_size ? size : client->upload_size;
	if (client->upload >= 0 && size > 0)
		expect(pwrite(client->upload, bytes, size, 0) == (ssize_t)size);
}

/* Steps until one that wants the server to rest; false: the input is at its end. */
static bool take_steps(void)
{
	while (world.at < world.end) {
		size_t op = take(1);
		struct client *client = &world.client[op >> 7];
		switch (op % 8) {
		case 4:
			write_word(client);
			break;
		case 5:
			fill_upload(client);
			break;
		case 6:
			return true;
		case 7:
			go(client);
			come(client);
			return true;
		default:
			send_message(client);
		}
	}
	return false;
}

/* ---- The server ----------------------------------------------------------------------------- */

/* Nothing is on its way: all that was sent has been read, and what it asked for is done. */
static bool at_rest(void)
{
	const struct segue_session *session;

	LIST_FOREACH(session, &world.test.sessions.all, link) {
		int unread = 0;
		if (ioctl(session->socket.fd, FIONREAD, &unread) == 0 && unread > 0)
			return false;
	}
	return segue_loop_awaited(world.test.server.loop) == 0;
}

static void leave(void)
{
	for (int i = 0; i < CLIENTS; i++)
		go(&world.client[i]);
	world.closing = true;
	world.closing_since = segue_now_ns();
}

static void tick(void *arg, int64_t now)
{
	struct segue_server *server = &world.test.server;

	(void)arg;
	segue_testserver_tick(&world.test, now);
	if (world.closing) {
		bool gone = LIST_EMPTY(&world.test.sessions.all) &&
			    LIST_EMPTY(&world.test.streams.all) &&
			    LIST_EMPTY(&world.test.streams.checkpoints) &&
			    segue_loop_awaited(server->loop) == 0;
		if (gone)
			segue_loop_stop(server->loop);
		expect(gone || now - world.closing_since < PATIENCE_NS);
		segue_loop_tick_within(server->loop, now + PATIENCE_NS / 8);
		return;
	}
	if (!at_rest())
		return;
	for (int i = 0; i < CLIENTS; i++)
		listen_to_server(&world.client[i]);
	if (!take_steps())
		leave();
	segue_loop_tick_within(server->loop, now);
}

static void signalled(void *arg, int signal)
{
	(void)arg;
	_exit(128 + signal);
}

struct emptying {
	struct segue_ops ops;
	enum segue_table table;
};

static int remove_key(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct emptying *emptying = arg;

	(void)value;
	(void)value_size;
	return segue_ops_remove(&emptying->ops, emptying->table, key, key_size);
}

static void empty_store(void)
{
	struct segue_store *store = world.test.server.store;
	struct emptying emptying = {0};

	for (int table = SEGUE_TABLE_STREAMS; table < SEGUE_TABLE_COUNT; table++) {
		emptying.table = (enum segue_table)table;
		expect(segue_store_scan(
			       store, emptying.table, "", 0, remove_key, NULL, &emptying) == 0);
	}
	if (emptying.ops.count)
		expect(segue_store_apply(store, emptying.ops.op, emptying.ops.count) == 0);
	segue_ops_finish(&emptying.ops);
}

/* Three sequences of 3, 7 and 5 steps. */
static void make_data(void)
{
	static const float values[7] = {1, 2, 3, 4, 5, 6, 7};
	static const size_t lengths[] = {3, 7, 5};
	size_t root = strlen(world.test.dir.root);

	expect(root + 2 < sizeof(PLACE));
	memset(world.place, '/', sizeof(PLACE) - 1);
	memcpy(world.place, world.test.dir.root, root);
	world.place[sizeof(PLACE) - 2] = 'd';
	struct segue_tfwriter *writer = segue_tfwriter_open(world.place, false);
	for (size_t i = 0; i < 3; i++) {
		const struct segue_tffeature x = {
			"x", SEGUE_TF_FLOAT, SEGUE_TF_PACKED, lengths[i], 1, values};
		segue_tfwriter_add(writer, NULL, 0, &x, 1);
	}
	segue_tfwriter_close(writer);
}

static void finish_world(void)
{
	segue_testserver_finish(&world.test);
}

static void make_world(void)
{
	segue_testserver_init(&world.test, "fuzz");
	make_data();
	world.made = true;
	/* The server's log; the sanitizers write to the descriptor. */
	stderr = fopen("/dev/null", "we");
	atexit(finish_world);
}

static int open_fds(void)
{
	DIR *list = opendir("/proc/self/fd");
	int count = 0;

	expect(list != NULL);
	while (readdir(list))
		count++;
	closedir(list);
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!world.made)
		make_world();
	int before = open_fds();
	world.at = data;
	world.end = data + size;
	world.closing = false;
	segue_testserver_start(&world.test);
	struct segue_loop *loop = world.test.server.loop;
	for (int i = 0; i < CLIENTS; i++)
		come(&world.client[i]);
	segue_loop_tick_within(loop, segue_now_ns());
	expect(segue_loop_run(loop, tick, signalled, NULL) == 0);
	expect(!world.test.server.storage.rc);
	segue_testserver_stop(&world.test);
	empty_store();
	expect(open_fds() == before);
	return 0;
}
