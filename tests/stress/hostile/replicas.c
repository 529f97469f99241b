/*
 * C29: a replica that follows: it writes what it may only read, lies about how far it is, asks for
 * what is its leader's, or another group's, and hangs.
 */
#include "hostile.h"

#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>

#include "core/barrier.h"
#include "core/wait.h"

enum { LANE = 0, PATIENCE_MS = 5000 };

static void replicas_spec(const struct hostile *hostile, struct hostile_spec *out)
{
	hostile_spec(hostile, "replicas", out);
}

/* ---- The leader: a process of its own ---- */

struct leader {
	pid_t pid;
	int texts; /* of each ReplicaError it was told */
	int stop;
};

/* Each batch must be the next one, with the states that were committed. */
static _Noreturn void lead(const struct hostile *hostile, int texts, int stop)
{
	const struct segue_attach_options how = {.size = sizeof(how),
		.start = SEGUE_START_FRESH,
		.group = "led",
		.replicas = 2,
		.timeout_ns = INT64_C(20000000000)};
	struct pollfd stopped = {.fd = stop, .events = POLLIN};
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_batch *batch;
	struct segue_lane *lane;
	struct hostile_spec spec;
	uint64_t step = 0;

	replicas_spec(hostile, &spec);
	EXPECT(segue_open(hostile->dir, NULL, &client) == 0 &&
			segue_draft_open(client, &spec.spec, &stream) == 0 &&
			segue_lane_attach(stream, LANE, &how, &lane) == 0,
		"the leader: %s", segue_error_detail());
	while (poll(&stopped, 1, 0) == 0) {
		int rc = segue_lane_next(lane, PATIENCE_MS * INT64_C(1000000), &batch);
		if (rc == SEGUE_EREPLICA) {
			char text[256] = "";
			snprintf(text, sizeof(text), "%s", segue_error_detail());
			EXPECT(write(texts, text, sizeof(text)) == sizeof(text), "pipe");
			continue;
		}
		EXPECT(rc == 0 || rc == SEGUE_ETIMEOUT, "the leader: %s", segue_error_detail());
		if (rc)
			continue;
		EXPECT(segue_batch_step(batch) == step++, "the leader is given batch %llu",
			(unsigned long long)segue_batch_step(batch));
		hostile_check(batch);
		hostile_commit(batch);
	}
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
	_exit(0);
}

static void begin(const struct hostile *hostile, struct leader *leader)
{
	int texts[2], stop[2];

	EXPECT(pipe(texts) == 0 && pipe(stop) == 0, "pipe");
	leader->pid = hostile_fork();
	if (leader->pid == 0)
		lead(hostile, texts[1], stop[0]);
	close(texts[1]);
	close(stop[0]);
	leader->texts = texts[0];
	leader->stop = stop[1];
}

/* It is told of the one that went, by now. */
static void expect_told(const struct leader *leader, const char *why, const char *what)
{
	struct pollfd told = {.fd = leader->texts, .events = POLLIN};
	char text[256] = "";

	EXPECT(poll(&told, 1, PATIENCE_MS) == 1, "%s: the leader is stopped by it", what);
	EXPECT(read(leader->texts, text, sizeof(text)) == sizeof(text), "%s: the leader is gone",
		what);
	EXPECT(strstr(text, why), "%s: the leader is told: %s", what, text);
}

/* It looks whether to stop when it has been told of the follower. */
static void stop_leader(struct leader *leader)
{
	char byte = 0;

	EXPECT(write(leader->stop, &byte, 1) == 1, "pipe");
}

static void end(struct leader *leader)
{
	hostile_reap(leader->pid, 0);
	close(leader->stop);
	close(leader->texts);
}

/* ---- The follower, without the library ---- */

struct follower {
	struct raw raw;
	struct segue_spec *spec;
	struct segue_geometry geometry;
	uint64_t stream, lease, step;
	uint32_t group;
	int fds[SEGUE_FRAME_FDS]; /* ring, carry, lease page, event, own page */
	struct segue_ring_header *ring;
	struct segue_carry_header *carry, *own;
	struct segue_lease_page *page;
};

static void *map(int fd, size_t size, int access)
{
	void *at = mmap(NULL, size, access, MAP_SHARED, fd, 0);

	EXPECT(at != MAP_FAILED, "mmap");
	return at;
}

static struct segue_message ask_to_follow(const struct follower *from, uint32_t group)
{
	return (struct segue_message){.type = SEGUE_MESSAGE_LANE_FOLLOW,
		.lane_follow = {.stream = from->stream,
			.lane = LANE,
			.group = group,
			.replica = 1,
			.replicas = 2,
			.step = SEGUE_NEVER,
			.timeout_ns = 50000000}};
}

static void follow(const struct hostile *hostile, struct follower *out)
{
	struct hostile_spec spec;

	*out = (struct follower){0};
	replicas_spec(hostile, &spec);
	EXPECT(segue_draft_make(&spec.spec, &out->spec) == 0, "spec: %s", segue_error_detail());
	raw_open(hostile->dir, &out->raw);
	out->stream = raw_stream(&out->raw, &spec.spec);
	EXPECT(out->stream, "stream: %s", out->raw.reply.failure.detail);
	EXPECT(segue_geometry_init(out->spec, out->spec->batch_size, out->raw.reply.opened.key_max,
		       &out->geometry) == 0,
		"geometry: %s", segue_error_detail());
	out->group = raw_group(&out->raw, out->stream, "led");
	struct segue_message request = ask_to_follow(out, out->group);
	/* The leader may not have come, or the one before not have gone. */
	for (int tries = 0; raw_call(&out->raw, &request) != SEGUE_MESSAGE_FOLLOWING; tries++)
		EXPECT(tries < 400, "nobody to follow: %s", out->raw.reply.failure.detail);
	out->lease = out->raw.reply.attached.lease;
	out->step = out->raw.reply.attached.step;
	memcpy(out->fds, out->raw.fds, sizeof(out->fds));
	out->ring = map(out->fds[0], out->geometry.ring_size, PROT_READ);
	out->carry = map(out->fds[1], out->geometry.carry_size, PROT_READ);
	out->page = map(out->fds[2], out->geometry.lease_size, PROT_READ);
	out->own = map(out->fds[4], SEGUE_FOLLOWER_SIZE, PROT_READ | PROT_WRITE);
}

static void leave(struct follower *follower)
{
	munmap(follower->ring, follower->geometry.ring_size);
	munmap(follower->carry, follower->geometry.carry_size);
	munmap(follower->page, follower->geometry.lease_size);
	munmap(follower->own, SEGUE_FOLLOWER_SIZE);
	for (int i = 0; i < SEGUE_FRAME_FDS; i++)
		close(follower->fds[i]);
	segue_geometry_finish(&follower->geometry);
	segue_spec_destroy(follower->spec);
	raw_close(&follower->raw);
}

static void await_word(const _Atomic uint64_t *word, uint64_t value, const char *what)
{
	for (int tries = 0; segue_load_acquire(word) < value; tries++) {
		EXPECT(tries < PATIENCE_MS, "%s: the leader does not go on", what);
		hostile_sleep_ms(1);
	}
}

/* Goes through so many batches, and waits until the server knows. */
static void be_honest(struct follower *follower, uint64_t count, const char *what)
{
	for (uint64_t until = follower->step + count; follower->step < until; follower->step++) {
		await_word(&follower->carry->taken, follower->step + 1, what);
		segue_store_release(&follower->own->committed, follower->step + 1);
		segue_store_release(&follower->own->released, follower->step + 1);
		segue_event_ring(follower->fds[3]);
	}
	await_word(&follower->ring->published, follower->step + follower->geometry.depth, what);
}

/* ---- Attacks ---- */

/* Of the words after `step` honest batches. */
struct lie {
	const char *what;
	int64_t committed, released; /* to be added to the step, or: */
	uint64_t absolute;           /* not 0: of `committed`, if that is 1, else of `released` */
	bool ends;                   /* it is thrown out; else the lesser word is believed */
};

static const struct lie lies[] = {
	{"committed -1", 1, 0, UINT64_MAX, true},
	{"committed 2^63", 1, 0, UINT64_C(1) << 63, true},
	{"committed beyond what is published", 1000, 0, 0, true},
	{"committed backwards", -1, 0, 0, true},
	{"released backwards", 0, -1, 0, true},
	{"released -1", 0, 1, UINT64_MAX, false},
	{"released 2^63", 0, 1, UINT64_C(1) << 63, false},
	{"released beyond committed", 0, 1, 0, false},
};
enum { LIES = sizeof(lies) / sizeof(lies[0]) };

static void tell(struct follower *follower, const struct lie *lie, bool rings)
{
	uint64_t committed = follower->step + (uint64_t)lie->committed;
	uint64_t released = follower->step + (uint64_t)lie->released;

	if (lie->absolute && lie->committed == 1)
		committed = lie->absolute;
	else if (lie->absolute)
		released = lie->absolute;
	segue_store_release(&follower->own->committed, committed);
	segue_store_release(&follower->own->released, released);
	if (rings)
		segue_event_ring(follower->fds[3]);
}

/* Who does not ring is found when the leader has to wait. */
static void tell_lies(
	const struct hostile *hostile, const struct leader *leader, struct follower *follower)
{
	for (unsigned told = 0; told < 2 * LIES; told++) {
		const struct lie *lie = &lies[told % LIES];
		be_honest(follower, 3, lie->what);
		tell(follower, lie, told / LIES);
		if (!lie->ends)
			be_honest(follower, 2 * follower->geometry.depth, lie->what);
		else
			expect_told(leader, "wrote what cannot be", lie->what);
		leave(follower);
		if (!lie->ends)
			expect_told(leader, "has ended", lie->what);
		follow(hostile, follower);
	}
}

static void write_memory(const struct follower *follower)
{
	hostile_try_segment(follower->fds[0], follower->ring, "batch ring");
	hostile_try_segment(follower->fds[2], follower->page, "lease page");
	/* Whoever is the server's user may open it anew by /proc (GUARANTEES, R4). */
	hostile_try_mapped(follower->fds[1], follower->carry, "the leader's carry");
	int own = follower->fds[4];
	EXPECT(ftruncate(own, 0) < 0 && ftruncate(own, 1 << 20) < 0, "own page: ftruncate");
}

/* What is the leader's to ask for. */
static void ask_as_leader(struct hostile *hostile, struct follower *follower)
{
	const enum segue_attach_mode modes[] = {SEGUE_ATTACH_NONE, SEGUE_ATTACH_CONTINUE,
		SEGUE_ATTACH_FRESH, SEGUE_ATTACH_OFFER, SEGUE_ATTACH_RESUME, SEGUE_ATTACH_RESTORE,
		SEGUE_ATTACH_RESIZE};

	for (size_t i = 0; i < 2 * sizeof(modes) / sizeof(modes[0]); i++) {
		struct segue_message request = {.type = SEGUE_MESSAGE_LANE_ATTACH,
			.lane_attach = {.stream = follower->stream,
				.group = follower->group,
				.lane = LANE,
				.mode = modes[i / 2],
				.step = follower->step,
				.batch_size = 1,
				.take = true,
				.replicas = 2,
				.lease = i % 2 ? follower->lease : 0,
				.timeout_ns = 20000000}};
		EXPECT(raw_call(&follower->raw, &request) == SEGUE_MESSAGE_FAILURE,
			"the leader's lane, asked for in mode %d: answered with type %d",
			(int)modes[i / 2], (int)follower->raw.reply.type);
	}
	/* Leases of others, among them the leader's; what comes after its own are not made yet. */
	for (uint64_t lease = follower->lease > 50 ? follower->lease - 50 : 1;
		lease < follower->lease + 50; lease++) {
		if (lease == follower->lease)
			continue;
		struct segue_message requests[] = {
			{.type = SEGUE_MESSAGE_LANE_DETACH, .lane_detach = {lease}},
			{.type = SEGUE_MESSAGE_LANE_FLUSH, .lane_flush = {lease}},
			{.type = SEGUE_MESSAGE_LANE_SIDE,
				.lane_side = {lease, hostile_random(hostile) % 8}},
		};
		for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
			EXPECT(raw_call(&follower->raw, &requests[i]),
				"another's lease: the server hangs up");
	}
	be_honest(follower, 2 * follower->geometry.depth, "what is the leader's to ask for");
}

/* Lanes of which it is no replica. */
static void follow_others(const struct hostile *hostile, struct follower *follower)
{
	struct raw *raw = &follower->raw, holder;
	struct hostile_spec spec;

	replicas_spec(hostile, &spec);
	raw_open(hostile->dir, &holder);
	struct segue_message attach = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.lane_attach = {.stream = raw_stream(&holder, &spec.spec),
			.lane = LANE,
			.mode = SEGUE_ATTACH_FRESH}};
	attach.lane_attach.group = raw_group(&holder, attach.lane_attach.stream, "apart");
	EXPECT(raw_call(&holder, &attach) == SEGUE_MESSAGE_ATTACHED, "attach: %s",
		holder.reply.failure.detail);
	for (int i = 0; i < SEGUE_FRAME_FDS; i++)
		close(holder.fds[i]);
	struct segue_message request =
		ask_to_follow(follower, raw_group(raw, follower->stream, "apart"));
	raw_call(raw, &request);
	raw_expect_failure(raw, SEGUE_EREPLICA, "to follow a group without replicas");
	request = ask_to_follow(follower, 1000);
	raw_call(raw, &request);
	raw_expect_failure(raw, SEGUE_ENOTFOUND, "to follow a group that is not there");
	request = ask_to_follow(follower, follower->group);
	raw_call(raw, &request);
	raw_expect_failure(raw, SEGUE_EBUSY, "to be a replica that there is");
	request.lane_follow.replicas = 3;
	request.lane_follow.replica = 2;
	raw_call(raw, &request);
	raw_expect_failure(raw, SEGUE_EREPLICA, "to be one more than there are");
	request.lane_follow.replica = request.lane_follow.replicas;
	raw_call(raw, &request);
	raw_expect_failure(raw, 0, "to be replica n of n");
	request = ask_to_follow(follower, follower->group);
	request.lane_follow.lane = HOSTILE_LANES;
	raw_call(raw, &request);
	raw_expect_failure(raw, 0, "to follow a lane that is not there");
	raw_close(&holder);
	be_honest(follower, 2 * follower->geometry.depth, "others to follow");
}

/* The leader waits, as long as it is there; it is named when it is not. */
static void hang(
	const struct hostile *hostile, const struct leader *leader, struct follower *follower)
{
	uint64_t before = follower->step;

	await_word(&follower->carry->taken, before + follower->geometry.depth, "hangs");
	hostile_sleep_ms(100);
	EXPECT(segue_load_acquire(&follower->carry->taken) == before + follower->geometry.depth,
		"the leader has gone on without it");
	leave(follower);
	expect_told(leader, "has ended", "hangs");
	follow(hostile, follower);
}

void attack_replicas(struct hostile *hostile)
{
	struct follower follower;
	struct leader leader;
	unsigned rounds = 0;

	begin(hostile, &leader);
	follow(hostile, &follower);
	for (; rounds < 1 || hostile_time_left(hostile); rounds++) {
		be_honest(&follower, 3, "nothing");
		write_memory(&follower);
		tell_lies(hostile, &leader, &follower);
		ask_as_leader(hostile, &follower);
		follow_others(hostile, &follower);
		hang(hostile, &leader, &follower);
	}
	stop_leader(&leader);
	leave(&follower);
	end(&leader);
	printf("%u rounds; its leader was told of each lie, and never given another batch or "
	       "state\n",
		rounds);
}
