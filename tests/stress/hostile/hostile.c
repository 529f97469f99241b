/* What the attacks share: raw connections, leases without the library, the stream under attack. */
#include "hostile.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "core/barrier.h"
#include "core/wait.h"
#include "spans.h"
#include "tfwrite.h"

#define MILLISECOND INT64_C(1000000)

static _Noreturn void end(int status, const char *word, const char *format, va_list args)
{
	fprintf(stderr, "%s: ", word);
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	if (status == 1 && segue_error_detail()[0])
		fprintf(stderr, "(the library's last error: %s)\n", segue_error_detail());
	fflush(NULL);
	_exit(status);
}

void hostile_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	end(1, "FAIL", format, args);
}

void hostile_skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	end(77, "SKIP", format, args);
}

static uint64_t mix(uint64_t z)
{
	z += UINT64_C(0x9E3779B97F4A7C15);
	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return z ^ z >> 31;
}

uint64_t hostile_random(struct hostile *hostile)
{
	return hostile->random = mix(hostile->random);
}

bool hostile_time_left(const struct hostile *hostile)
{
	return segue_now_ns() < hostile->until;
}

void hostile_sleep_ms(int64_t ms)
{
	struct timespec left = {ms / 1000, (long)(ms % 1000 * MILLISECOND)};

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

pid_t hostile_fork(void)
{
	pid_t parent = getpid(), pid = fork();

	EXPECT(pid >= 0, "fork: %s", strerror(errno));
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent && getppid() != 0) /* 0: the first of its namespace */
			_exit(1);
	}
	return pid;
}

void hostile_reap(pid_t pid, int signal)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		EXPECT(errno == EINTR, "waitpid: %s", strerror(errno));
	if (signal == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 77)
		_exit(77); /* it has said why */
	EXPECT(signal ? WIFSIGNALED(status) && WTERMSIG(status) == signal : status == 0,
		"a child ended with status 0x%x", (unsigned)status);
}

pid_t hostile_server_pid(const char *dir)
{
	char path[512];
	int pid = 0;

	snprintf(path, sizeof(path), "%s/server.pid", dir);
	FILE *file = fopen(path, "r");
	if (file && fscanf(file, "%d", &pid) != 1)
		pid = 0;
	if (file)
		fclose(file);
	return pid;
}

int hostile_count_fds(pid_t pid)
{
	char path[64];
	int count = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	DIR *dir = opendir(path);
	if (!dir)
		return -1;
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

void hostile_kill_server(const char *dir)
{
	pid_t pid = hostile_server_pid(dir);

	EXPECT(pid > 0 && kill(pid, SIGKILL) == 0, "%s: no server to kill", dir);
	/* It is gone, or nobody has waited for it yet: then it has no files any more ("." and ".."). */
	while (hostile_count_fds(pid) > 2)
		hostile_sleep_ms(1);
}

/* ---- The stream under attack, through the library ---- */

static uint64_t steps_of(uint64_t record)
{
	return 1 + mix(record) % 14;
}

static struct {
	const char *group;
	uint64_t salt;
} own;

void hostile_be_of_group(const char *group, uint64_t salt)
{
	own.group = group;
	own.salt = salt;
}

/* The state after a segment. */
static int64_t state_after(const struct segue_span *span, uint64_t segment, uint64_t word)
{
	return (int64_t)mix(span->number * 1000003 + segment * 1009 + word + (own.salt << 32));
}

void hostile_write_data(const char *path)
{
	segue_tfwrite_numbers(path, HOSTILE_RECORDS, steps_of);
}

void hostile_spec(const struct hostile *hostile, const char *name, struct hostile_spec *out)
{
	*out = (struct hostile_spec){
		.path = hostile->data,
		.feature = {.name = "x", .dtype = SEGUE_INT64},
		.state = {.name = "s", .dtype = SEGUE_INT64, .rank = 1, .dims = {HOSTILE_WORDS}},
	};
	out->spec = (struct segue_draft){
		.name = name,
		.source = {.kind = SEGUE_SOURCE_TFRECORD,
			.tfrecord = {.paths = &out->path, .path_count = 1}},
		.sequences = &out->feature,
		.sequence_count = 1,
		.states = &out->state,
		.state_count = 1,
		.num_unroll = HOSTILE_UNROLL,
		.batch_size = HOSTILE_ROWS,
		.lanes = HOSTILE_LANES,
		.shuffle = true,
		.seed = 7,
		.keep_final = true,
		.interval_ms = 20,
	};
}

void hostile_private_spec(const struct hostile *hostile, const char *name, struct hostile_spec *out)
{
	hostile_spec(hostile, name, out);
	out->spec.no_persist = true;
	out->spec.keep_final = false;
}

void hostile_open(const struct hostile *hostile, const char *dir, struct segue_client **client,
	struct segue_stream **stream)
{
	struct hostile_spec spec;

	hostile_spec(hostile, "main", &spec);
	EXPECT(segue_open(dir, NULL, client) == 0, "open: %s", segue_error_detail());
	EXPECT(segue_draft_open(*client, &spec.spec, stream) == 0, "stream: %s",
		segue_error_detail());
}

struct segue_lane *hostile_take(struct segue_stream *stream, uint32_t lane, enum segue_start start)
{
	const struct segue_attach_options options = {
		.size = sizeof(options), .start = start, .group = own.group};
	struct segue_lane *out;
	int64_t until = segue_now_ns() + 20000 * MILLISECOND;
	int rc;

	while ((rc = segue_lane_attach(stream, lane, &options, &out)) == SEGUE_EBUSY &&
		segue_now_ns() < until)
		hostile_sleep_ms(1);
	EXPECT(rc == 0, "attach to lane %u: %s", lane, segue_error_detail());
	if (own.group)
		hostile_beside_note(segue_lane_committed(out), -1);
	return out;
}

struct segue_batch *hostile_next(struct segue_lane *lane)
{
	struct segue_batch *batch;

	EXPECT(segue_lane_next(lane, 20000 * MILLISECOND, &batch) == 0, "next: %s",
		segue_error_detail());
	return batch;
}

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size)
{
	for (size_t i = 0; i < size; i += 8) {
		uint64_t word = 0;
		memcpy(&word, (const char *)bytes + i, size - i < 8 ? size - i : 8);
		hash = mix(hash ^ word);
	}
	return hash;
}

uint64_t hostile_check(struct segue_batch *batch)
{
	struct segue_span spans[HOSTILE_ROWS];
	uint32_t count = segue_test_spans(batch, spans, HOSTILE_ROWS);
	const int64_t *in = segue_batch_state(batch, 0, NULL), *x = segue_batch_sequence(batch, 0);
	uint64_t hash = mix(segue_batch_step(batch));

	EXPECT(count && in && x, "a batch without content: %s", segue_error_detail());
	for (uint32_t row = 0; row < count; row++) {
		const struct segue_span *span = &spans[row];
		for (uint64_t word = 0; word < HOSTILE_WORDS; word++) {
			int64_t wanted =
				span->segment == 0 ? 0 : state_after(span, span->segment - 1, word);
			EXPECT(in[row * HOSTILE_WORDS + word] == wanted,
				"batch %llu: a state is not the one that was committed",
				(unsigned long long)segue_batch_step(batch));
		}
		for (uint32_t i = 0; i < HOSTILE_UNROLL; i++) {
			int64_t got = x[row * HOSTILE_UNROLL + i];
			EXPECT(i < span->length ? got % 100 == (int64_t)(span->first_step + i)
						: got == 0,
				"batch %llu: an input that is not in the data",
				(unsigned long long)segue_batch_step(batch));
		}
	}
	hash = hash_bytes(hash, spans, count * sizeof(*spans));
	hash = hash_bytes(hash, x, count * HOSTILE_UNROLL * sizeof(*x));
	return hash_bytes(hash, in, count * HOSTILE_WORDS * sizeof(*in));
}

void hostile_save(struct segue_batch *batch)
{
	struct segue_span spans[HOSTILE_ROWS];
	uint32_t count = segue_test_spans(batch, spans, HOSTILE_ROWS);
	int64_t *out = segue_batch_state_out(batch, 0);

	EXPECT(count && out, "no room for states: %s", segue_error_detail());
	for (uint32_t row = 0; row < count; row++)
		for (uint64_t word = 0; word < HOSTILE_WORDS; word++)
			out[row * HOSTILE_WORDS + word] =
				state_after(&spans[row], spans[row].segment, word);
	EXPECT(segue_batch_mark_saved(batch, 0) == 0, "save: %s", segue_error_detail());
}

void hostile_commit(struct segue_batch *batch)
{
	hostile_save(batch);
	EXPECT(segue_batch_commit(batch) == 0, "commit: %s", segue_error_detail());
	segue_batch_release(batch);
}

/* ---- Without the library ---- */

bool raw_connect(const char *dir, struct raw *raw)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	*raw = (struct raw){.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	EXPECT(raw->fd >= 0, "socket: %s", strerror(errno));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/segue.sock", dir);
	if (connect(raw->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		int error = errno;
		close(raw->fd);
		errno = error;
		return false;
	}
	raw->reader = malloc(sizeof(*raw->reader));
	EXPECT(raw->reader && segue_arena_init(&raw->arena, SEGUE_ARENA_SIZE) == 0, "no memory");
	segue_frame_reader_init(raw->reader, true);
	return true;
}

void raw_open(const char *dir, struct raw *raw)
{
	struct segue_message hello = {
		.type = SEGUE_MESSAGE_HELLO,
		.hello = {.protocol = SEGUE_PROTOCOL,
			.layout_version = SEGUE_LAYOUT_VERSION,
			.version = "hostile",
			.program = "hostile"},
	};

	/* Where a limit holds, earlier connections may not have been taken down yet. */
	for (int tries = 0; tries < 200; tries++) {
		if (raw_connect(dir, raw)) {
			if (raw_call(raw, &hello) == SEGUE_MESSAGE_WELCOME)
				return;
			raw_close(raw);
		}
		hostile_sleep_ms(50);
	}
	hostile_fail("%s: no new client is admitted for 10 s", dir);
}

void raw_close(struct raw *raw)
{
	close(raw->fd);
	segue_frame_reader_finish(raw->reader);
	free(raw->reader);
	segue_arena_finish(&raw->arena);
	raw->fd = -1;
}

bool raw_send(struct raw *raw, const void *bytes, size_t size)
{
	while (size > 0) {
		ssize_t sent = send(raw->fd, bytes, size, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return false;
		bytes = (const char *)bytes + sent;
		size -= (size_t)sent;
	}
	return true;
}

bool raw_send_frame(struct raw *raw, uint16_t type, uint16_t fds, uint32_t size,
	const void *payload, size_t payload_size)
{
	uint8_t header[SEGUE_FRAME_HEADER] = {'S', 'G', 'F', '1', (uint8_t)type,
		(uint8_t)(type >> 8), (uint8_t)fds, (uint8_t)(fds >> 8), (uint8_t)size,
		(uint8_t)(size >> 8), (uint8_t)(size >> 16), (uint8_t)(size >> 24)};

	return raw_send(raw, header, sizeof(header)) && raw_send(raw, payload, payload_size);
}

int raw_receive(struct raw *raw, int ms)
{
	int64_t until = segue_now_ns() + ms * MILLISECOND;
	struct segue_frame frame;

	for (;;) {
		int rc = segue_frame_read(raw->reader, raw->fd, &frame);
		if (rc < 0)
			return -1;
		if (rc > 0) {
			EXPECT(segue_message_unpack(&frame, &raw->arena, &raw->reply) == 0,
				"the server sent nonsense: %s", segue_error_detail());
			raw->fd_count = frame.fd_count;
			memcpy(raw->fds, frame.fds, sizeof(raw->fds));
			if (raw->reply.type != SEGUE_MESSAGE_PROGRESS)
				return 1;
		}
		int64_t left = until - segue_now_ns();
		if (left <= 0)
			return 0;
		struct pollfd entry = {.fd = raw->fd, .events = POLLIN};
		poll(&entry, 1, (int)(left / MILLISECOND) + 1);
	}
}

enum segue_message_type raw_call(struct raw *raw, struct segue_message *request)
{
	uint8_t *bytes = malloc(SEGUE_FRAME_MAX);
	size_t size;

	request->serial = ++raw->serial;
	EXPECT(bytes && segue_message_pack(request, bytes, &size) == 0, "pack: %s",
		segue_error_detail());
	/* A server that hangs up may have said why before. */
	raw_send_frame(raw, (uint16_t)request->type, 0, (uint32_t)size, bytes, size);
	free(bytes);
	int rc = raw_receive(raw, 60000);
	EXPECT(rc != 0, "a request of type %d was not answered for 60 s", (int)request->type);
	if (rc < 0)
		raw->reply = (struct segue_message){.failure = {.detail = "hung up"}};
	return raw->reply.type;
}

void raw_renew(const char *dir, struct raw *raw)
{
	if (raw->reply.type != SEGUE_MESSAGE_FAILURE || raw->reply.serial != 0)
		return;
	raw_expect_end(raw, 5000, "a failure of the connection");
	raw_close(raw);
	raw_open(dir, raw);
}

void raw_expect_end(struct raw *raw, int ms, const char *what)
{
	int64_t until = segue_now_ns() + ms * MILLISECOND, left;

	while ((left = until - segue_now_ns()) > 0) {
		int rc = raw_receive(raw, (int)(left / MILLISECOND) + 1);
		if (rc < 0)
			return;
		for (unsigned i = 0; rc > 0 && i < raw->fd_count; i++)
			close(raw->fds[i]);
	}
	hostile_fail("%s: the server has not hung up within %d ms", what, ms);
}

void raw_expect_failure(const struct raw *raw, int code, const char *what)
{
	EXPECT(raw->reply.type == SEGUE_MESSAGE_FAILURE, "%s: answered with type %d", what,
		(int)raw->reply.type);
	EXPECT(code == 0 || raw->reply.failure.code == code, "%s: %s (%s), expected was %s", what,
		segue_error_name(raw->reply.failure.code), raw->reply.failure.detail,
		segue_error_name(code));
}

uint64_t raw_stream(struct raw *raw, const struct segue_draft *spec)
{
	struct segue_message request = {.type = SEGUE_MESSAGE_STREAM_OPEN};

	EXPECT(segue_draft_make(spec, &request.stream_open.spec) == 0, "spec: %s",
		segue_error_detail());
	enum segue_message_type type = raw_call(raw, &request);
	segue_spec_destroy(request.stream_open.spec);
	return type == SEGUE_MESSAGE_OPENED ? raw->reply.opened.stream : 0;
}

uint32_t raw_group(struct raw *raw, uint64_t stream, const char *name)
{
	struct segue_message request = {
		.type = SEGUE_MESSAGE_GROUP, .group = {.stream = stream, .name = name}};

	EXPECT(raw_call(raw, &request) == SEGUE_MESSAGE_GROUPED, "group '%s': %s", name,
		raw->reply.failure.detail);
	return raw->reply.grouped.group;
}

/* ---- Leases ---- */

static void *map(int fd, size_t size, int protection)
{
	void *at = mmap(NULL, size, protection, MAP_SHARED, fd, 0);

	EXPECT(at != MAP_FAILED, "mmap: %s", strerror(errno));
	return at;
}

void seat_take(const struct hostile *hostile, const char *dir, uint32_t lane,
	enum segue_attach_mode mode, struct seat *seat)
{
	struct hostile_spec spec;
	struct segue_message attach = {
		.type = SEGUE_MESSAGE_LANE_ATTACH, .lane_attach = {.lane = lane, .mode = mode}};

	*seat = (struct seat){0};
	hostile_spec(hostile, "main", &spec);
	EXPECT(segue_draft_make(&spec.spec, &seat->spec) == 0, "spec: %s", segue_error_detail());
	raw_open(dir, &seat->raw);
	seat->stream = attach.lane_attach.stream = raw_stream(&seat->raw, &spec.spec);
	EXPECT(seat->stream, "stream: %s", seat->raw.reply.failure.detail);
	EXPECT(segue_geometry_init(seat->spec, seat->spec->batch_size,
		       seat->raw.reply.opened.key_max, &seat->geometry) == 0,
		"geometry: %s", segue_error_detail());
	if (own.group)
		seat->group = raw_group(&seat->raw, seat->stream, own.group);
	attach.lane_attach.group = seat->group;
	for (int tries = 0; raw_call(&seat->raw, &attach) != SEGUE_MESSAGE_ATTACHED; tries++) {
		raw_expect_failure(&seat->raw, SEGUE_EBUSY, "attach");
		EXPECT(tries < 1000, "lane %u is not given back", lane);
		hostile_sleep_ms(10);
	}
	seat->lease = seat->raw.reply.attached.lease;
	seat->generation = seat->raw.reply.attached.generation;
	seat->step = seat->raw.reply.attached.step;
	memcpy(seat->token, seat->raw.reply.attached.token, SEGUE_TOKEN_BYTES);
	memcpy(seat->fds, seat->raw.fds, sizeof(seat->fds));
	seat->ring = map(seat->fds[0], seat->geometry.ring_size, PROT_READ);
	seat->carry = map(seat->fds[1], seat->geometry.carry_size, PROT_READ | PROT_WRITE);
	seat->page = map(seat->fds[2], seat->geometry.lease_size, PROT_READ);
	if (own.group)
		hostile_beside_note(seat->step, seat->fds[0]);
}

bool seat_await(struct seat *seat, uint64_t step)
{
	for (int tries = 0; tries < 10000; tries++) {
		if (segue_load_acquire(&seat->ring->published) > step)
			return true;
		hostile_sleep_ms(1);
	}
	return false;
}

bool seat_fenced(const struct seat *seat, int ms)
{
	for (int tries = 0; tries < ms; tries++) {
		if (segue_load_acquire(&seat->page->generation) != seat->generation)
			return true;
		hostile_sleep_ms(1);
	}
	return false;
}

void seat_leave(struct seat *seat)
{
	munmap(seat->ring, seat->geometry.ring_size);
	munmap(seat->carry, seat->geometry.carry_size);
	munmap(seat->page, seat->geometry.lease_size);
	for (int i = 0; i < SEGUE_FRAME_FDS; i++)
		close(seat->fds[i]);
	segue_geometry_finish(&seat->geometry);
	segue_spec_destroy(seat->spec);
	raw_close(&seat->raw);
}
