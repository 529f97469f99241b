/* Inserting: a log's throughput beside a plain one's, and how soon a sequence can be read. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

enum { GROUP_BYTES = 64 << 20, RING_BYTES = 16 << 20, CAPACITY = 1 << 24 };

/* A stream whose sequences are one segment of the shape, with a producer. */
struct inserting {
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_producer *producer;
	float *values;
	size_t bytes;
};

/* The other part of a mix: one sequence, again and again. */
static void write_file(
	const char *path, const struct segue_feature *feature, const struct inserting *inserting)
{
	const struct segue_draft draft = {.sequences = feature, .sequence_count = 1};
	const void *arrays[] = {inserting->values};
	const struct segue_sequence sequence = {
		.size = sizeof(sequence), .steps = 1, .arrays = arrays};
	struct segue_file_writer *writer;
	struct segue_spec *spec;

	BENCH_CHECK(segue_draft_tell(&draft, &spec));
	BENCH_CHECK(segue_file_writer_create(path, spec, &writer));
	BENCH_CHECK(segue_file_writer_add(writer, &sequence));
	BENCH_CHECK(segue_file_writer_close(writer));
	segue_file_writer_destroy(writer);
	segue_spec_destroy(spec);
}

/* `mixed`: a file, with which what is inserted is mixed half and half; NULL: it is alone. */
static void begin(struct inserting *inserting, const struct bench_server *server,
	const struct bench_shape *shape, enum segue_durability durability, const char *mixed)
{
	const struct segue_feature feature = {
		.name = "x", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {shape->floats}};
	const struct segue_draft_source log = {
		.kind = SEGUE_SOURCE_LOG, .log = {.capacity = CAPACITY}};
	const struct segue_draft_part parts[] = {
		{.name = "log", .source = log, .weight = 1, .epochs = 1},
		{.name = "file",
			.source = {.kind = SEGUE_SOURCE_FILES,
				.files = {.paths = &mixed, .path_count = 1}},
			.weight = 1},
	};
	struct segue_draft draft = {
		.name = durability == SEGUE_DURABLE_COMMIT ? "safe" : "soon",
		.source = log,
		.sequences = &feature,
		.sequence_count = 1,
		.num_unroll = shape->unroll,
		.batch_size = 1,
		.lanes = 1,
		.epochs = 1,
		.depth = 4,
		.durability = durability,
	};
	uint64_t random = 1;

	inserting->bytes = bench_row_bytes(shape);
	inserting->values = bench_alloc(inserting->bytes);
	for (size_t i = 0; i < inserting->bytes / sizeof(float); i++)
		inserting->values[i] = (float)(bench_random(&random) % 1000);
	if (mixed) {
		write_file(mixed, &feature, inserting);
		draft.source = (struct segue_draft_source){
			.kind = SEGUE_SOURCE_MIX, .mix = {.parts = parts, .part_count = 2}};
	}
	inserting->client = bench_connect(server);
	BENCH_CHECK(segue_draft_open(inserting->client, &draft, &inserting->stream));
	BENCH_CHECK(segue_producer_open(inserting->stream, "p", NULL, &inserting->producer));
}

static void end(struct inserting *inserting)
{
	segue_producer_destroy(inserting->producer);
	segue_stream_close(inserting->stream);
	segue_client_close(inserting->client);
	free(inserting->values);
}

static void insert(struct inserting *inserting, const struct bench_shape *shape)
{
	const void *arrays[] = {inserting->values};
	const struct segue_sequence sequence = {
		.size = sizeof(sequence), .steps = shape->unroll, .arrays = arrays};

	BENCH_CHECK(segue_producer_insert(inserting->producer, &sequence, NULL, 0, SEGUE_FOREVER));
}

/* MB/s of a group that is on disk when it is over. */
static double insert_group(
	struct inserting *inserting, const struct bench_shape *shape, size_t count)
{
	int64_t start = bench_now();

	for (size_t i = 0; i < count; i++)
		insert(inserting, shape);
	BENCH_CHECK(segue_producer_flush(inserting->producer, SEGUE_FOREVER));
	return (double)(count * inserting->bytes) / bench_seconds_since(start) * 1e-6;
}

/* ---- A plain log: what there is to write is written, then synced, by a thread --------------- */

struct plain {
	int fd;
	size_t bytes, room; /* of a sequence; sequences that are under way at most */
	uint8_t *ring;
	pthread_mutex_t lock;
	pthread_cond_t more, less;
	uint64_t put, synced; /* sequences */
	bool stopping;
	pthread_t thread;
};

static void *append(void *arg)
{
	struct plain *plain = arg;

	pthread_mutex_lock(&plain->lock);
	for (;;) {
		while (plain->put == plain->synced && !plain->stopping)
			pthread_cond_wait(&plain->more, &plain->lock);
		if (plain->stopping)
			break;
		uint64_t from = plain->synced, to = plain->put;
		pthread_mutex_unlock(&plain->lock);
		for (uint64_t n = from; n < to; n++)
			if (write(plain->fd, plain->ring + n % plain->room * plain->bytes,
				    plain->bytes) != (ssize_t)plain->bytes)
				bench_die("write");
		if (fdatasync(plain->fd) < 0)
			bench_die("fdatasync");
		pthread_mutex_lock(&plain->lock);
		plain->synced = to;
		pthread_cond_signal(&plain->less);
	}
	pthread_mutex_unlock(&plain->lock);
	return NULL;
}

static void plain_begin(struct plain *plain, const char *path, size_t bytes)
{
	*plain = (struct plain){.bytes = bytes, .room = RING_BYTES / bytes};
	plain->ring = bench_alloc(plain->room * bytes);
	plain->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (plain->fd < 0)
		bench_die(path);
	pthread_mutex_init(&plain->lock, NULL);
	pthread_cond_init(&plain->more, NULL);
	pthread_cond_init(&plain->less, NULL);
	if (pthread_create(&plain->thread, NULL, append, plain))
		bench_die("a thread");
}

static void plain_end(struct plain *plain)
{
	pthread_mutex_lock(&plain->lock);
	plain->stopping = true;
	pthread_cond_signal(&plain->more);
	pthread_mutex_unlock(&plain->lock);
	pthread_join(plain->thread, NULL);
	close(plain->fd);
	free(plain->ring);
}

/* Until so few are under way. */
static void plain_await(struct plain *plain, uint64_t under_way)
{
	while (plain->put - plain->synced > under_way)
		pthread_cond_wait(&plain->less, &plain->lock);
}

static double append_group(struct plain *plain, const struct inserting *inserting, size_t count)
{
	int64_t start = bench_now();

	for (size_t i = 0; i < count; i++) {
		pthread_mutex_lock(&plain->lock);
		plain_await(plain, plain->room - 1);
		uint64_t at = plain->put % plain->room * plain->bytes;
		pthread_mutex_unlock(&plain->lock);
		memcpy(plain->ring + at, inserting->values, plain->bytes);
		pthread_mutex_lock(&plain->lock);
		plain->put++;
		pthread_cond_signal(&plain->more);
		pthread_mutex_unlock(&plain->lock);
	}
	pthread_mutex_lock(&plain->lock);
	plain_await(plain, 0);
	pthread_mutex_unlock(&plain->lock);
	return (double)(count * inserting->bytes) / bench_seconds_since(start) * 1e-6;
}

/* ---- Figures -------------------------------------------------------------------------------- */

static void measure_throughput(
	const char *dir, const struct bench_shape *shape, bool mixed, int groups)
{
	struct bench_samples of_log = {0}, of_file = {0};
	char store[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX], part[SEGUE_TMPDIR_MAX];
	struct inserting inserting;
	struct bench_server server;
	struct plain plain;

	snprintf(store, sizeof(store), "%.*s/%s%d", SEGUE_TMPDIR_MAX - 16, dir, shape->name, mixed);
	snprintf(path, sizeof(path), "%.*s/plain", SEGUE_TMPDIR_MAX - 16, dir);
	snprintf(part, sizeof(part), "%.*s/part.segue", SEGUE_TMPDIR_MAX - 16, dir);
	bench_server_start(&server, store);
	begin(&inserting, &server, shape, SEGUE_DURABLE_COMMIT, mixed ? part : NULL);
	plain_begin(&plain, path, inserting.bytes);
	size_t count = GROUP_BYTES / inserting.bytes;
	for (int i = 0; i < groups; i++) {
		bench_samples_add(&of_log, insert_group(&inserting, shape, count));
		bench_samples_add(&of_file, append_group(&plain, &inserting, count));
	}
	plain_end(&plain);
	unlink(path);
	bench_print(&(struct bench_figure){.part = 8,
			    .name = mixed ? "inserting into a mix" : "inserting, on disk",
			    .shape = shape->name,
			    .value = bench_samples_at(&of_log, 0.5),
			    .unit = "MB/s",
			    .beside = "a plain log",
			    .beside_value = bench_samples_at(&of_file, 0.5),
			    .kind = BENCH_RATIO_MIN,
			    .goal = 0.5},
		"%d groups of %zu sequences of %zu bytes", groups, count, inserting.bytes);
	bench_samples_finish(&of_log);
	bench_samples_finish(&of_file);
	end(&inserting);
	bench_server_stop(&server);
}

/* From the call that inserts to the batch that has it. */
static void measure_delay(const char *dir, const struct bench_shape *shape, int count)
{
	const struct segue_attach_options options = {
		.size = sizeof(options), .start = SEGUE_START_FRESH};
	struct bench_samples samples = {0};
	struct inserting inserting;
	struct bench_server server;
	struct segue_batch *batch;
	struct segue_lane *lane;

	bench_server_start(&server, dir);
	begin(&inserting, &server, shape, SEGUE_DURABLE_INTERVAL, NULL);
	BENCH_CHECK(segue_lane_attach(inserting.stream, 0, &options, &lane));
	for (int i = 0; i < count; i++) {
		int64_t start = bench_now();

		insert(&inserting, shape);
		BENCH_CHECK(segue_lane_next(lane, SEGUE_FOREVER, &batch));
		bench_samples_add(&samples, bench_seconds_since(start) * 1e3);
		BENCH_CHECK(segue_batch_commit(batch));
		segue_batch_release(batch);
		bench_sleep(500000); /* all sleep again */
	}
	double p99 = bench_samples_at(&samples, 0.99);
	bench_print(&(struct bench_figure){.part = 8,
			    .name = "insert to batch",
			    .shape = shape->name,
			    .value = bench_samples_at(&samples, 0.5),
			    .unit = "ms",
			    .kind = BENCH_VALUE_MAX,
			    .goal = 2},
		"p99 %.2f ms, %d sequences", p99, count);
	bench_samples_finish(&samples);
	segue_lane_close(lane);
	end(&inserting);
	bench_server_stop(&server);
}

int main(int argc, char **argv)
{
	bool quick = bench_options(argc, argv);
	char store[SEGUE_TMPDIR_MAX];
	struct segue_tmpdir dir;

	segue_tmpdir_make(&dir, "bench");
	measure_throughput(dir.root, &bench_shape_s, false, quick ? 4 : 15);
	measure_throughput(dir.root, &bench_shape_s, true, quick ? 4 : 15);
	measure_throughput(dir.root, &bench_shape_l, false, quick ? 4 : 15);
	measure_delay(segue_tmpdir_path(&dir, "store", store), &bench_shape_s, quick ? 200 : 2000);
	segue_tmpdir_remove(&dir);
	return 0;
}
