/*
 * Part 4: many sequences. Memory of the server with 10^3 and 10^6 of them, the index of 10^6 small
 * records in 1,000 files, and compressed files with shuffle.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "bench.h"

#define FILES  1000
#define FEW    1 /* records a file */
#define MANY   1000
#define ROUNDS 5
#define NUMBER "%04d.tfrecord"

/* A record of 4 steps of one float: one segment. */
static const struct bench_shape small = {"10^6 small", 32, 4, 1, 4};

/* ---- Small records --------------------------------------------------------------------------- */

static void small_path(char *path, const struct segue_tmpdir *dir, int records, int file)
{
	char name[64];

	snprintf(name, sizeof(name), "%d-" NUMBER, records, file);
	segue_tmpdir_path(dir, name, path);
}

static void write_small(const struct segue_tmpdir *dir, int records)
{
	const struct bench_data data = {.shape = &small,
		.segments_min = 1,
		.segments_max = 1,
		.records = (uint64_t)records};
	char path[SEGUE_TMPDIR_MAX];

	for (int i = 0; i < FILES; i++) {
		small_path(path, dir, records, i);
		bench_data_write(path, &data);
	}
}

/* The same records by a plain loop: every file opened, read whole, and hopped through. */
static double hop_plainly(const struct segue_tmpdir *dir, int records)
{
	char path[SEGUE_TMPDIR_MAX];
	uint8_t *bytes = bench_alloc(1 << 20);
	uint64_t found = 0, length;
	int64_t start = bench_now();

	for (int i = 0; i < FILES; i++) {
		small_path(path, dir, records, i);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t size = fd < 0 ? -1 : read(fd, bytes, 1 << 20);
		if (size <= 0)
			bench_die(path);
		for (ssize_t at = 0; at < size; at += 12 + (ssize_t)length + 4, found++)
			memcpy(&length, bytes + at, sizeof(length));
		close(fd);
	}
	double seconds = bench_seconds_since(start);
	if (found != (uint64_t)records * FILES)
		bench_die("records");
	free(bytes);
	return seconds;
}

/* Batches a second of reading random small records, a pread each, and nothing else. */
static double read_plainly(const struct segue_tmpdir *dir, double seconds)
{
	char path[SEGUE_TMPDIR_MAX];
	uint8_t record[128];
	uint64_t random = 3, batches = 0;
	struct stat info;

	small_path(path, dir, MANY, 0);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &info) < 0)
		bench_die(path);
	uint64_t size = (uint64_t)info.st_size / MANY;
	int64_t start = bench_now();
	while (bench_seconds_since(start) < seconds) {
		for (uint32_t row = 0; row < small.rows; row++)
			if (pread(fd, record, size, (off_t)(bench_random(&random) % MANY * size)) <
				0)
				bench_die(path);
		batches++;
	}
	close(fd);
	return (double)batches / seconds;
}

struct served {
	double open_seconds;
	double batch_rate; /* shuffled */
	double anonymous, rss, shared;
};

/* A server that opens the stream and serves for some seconds; with tail = pad one epoch. */
static struct served serve_small(
	const struct segue_tmpdir *dir, int records, bool pad, double seconds)
{
	char pattern[SEGUE_TMPDIR_MAX], store[SEGUE_TMPDIR_MAX], name[64];
	struct served served = {0};
	struct bench_server server;
	struct bench_worker worker;
	struct bench_spec spec;
	uint64_t batches = 0;

	snprintf(name, sizeof(name), "%d-*.tfrecord", records);
	bench_spec_init(&spec, &small, segue_tmpdir_path(dir, name, pattern));
	spec.stream.tail = pad ? SEGUE_TAIL_PAD : SEGUE_TAIL_SHRINK;
	spec.stream.epochs = pad;
	snprintf(name, sizeof(name), "store-%d-%d", records, pad);
	bench_server_start(&server, segue_tmpdir_path(dir, name, store));
	int64_t start = bench_now();
	bench_worker_open(&worker, &server, &spec, &small);
	served.open_seconds = bench_seconds_since(start);
	start = bench_now();
	while (bench_worker_batch(&worker) && (pad || bench_seconds_since(start) < seconds))
		batches++;
	served.batch_rate = (double)batches / bench_seconds_since(start);
	served.anonymous = bench_server_memory(&server, "RssAnon");
	served.rss = bench_server_memory(&server, "VmRSS");
	served.shared = bench_server_memory(&server, "RssShmem");
	bench_worker_close(&worker);
	bench_server_stop(&server);
	return served;
}

static void print_growth(const char *name, const struct served *few, const struct served *many,
	double index, double goal)
{
	double sequences = (double)(MANY - FEW) * FILES;

	bench_print(&(struct bench_figure){.part = 4,
			    .name = name,
			    .shape = small.name,
			    .value = (many->anonymous - few->anonymous) / sequences,
			    .unit = "B a record",
			    .beside = "the index by itself",
			    .beside_value = index,
			    .kind = BENCH_VALUE_MAX,
			    .goal = goal},
		"anonymous memory %.1f MB with 10^3, %.1f MB with 10^6; VmRSS less ring %.1f and "
		"%.1f MB (counts the store's pages in the page cache)",
		few->anonymous * 1e-6, many->anonymous * 1e-6, (few->rss - few->shared) * 1e-6,
		(many->rss - many->shared) * 1e-6);
}

static void print_opening(const struct served *first, const struct served *again, double hop)
{
	bench_print(&(struct bench_figure){.part = 4,
			    .name = "first open: index of 1,000 files",
			    .shape = small.name,
			    .value = first->open_seconds,
			    .unit = "s",
			    .beside = "reading and hopping",
			    .beside_value = hop},
		"10^6 records");
	bench_print(&(struct bench_figure){.part = 4,
			    .name = "open again, new server",
			    .shape = small.name,
			    .value = again->open_seconds,
			    .unit = "s",
			    .beside = "reading and hopping",
			    .beside_value = hop},
		"index from the store, every file looked at");
}

/* Half a byte a record is left for noise. */
static void measure_many(const struct segue_tmpdir *dir, bool quick, double seconds)
{
	double hop = hop_plainly(dir, MANY);
	struct served few = serve_small(dir, FEW, false, 0.1);
	struct served few_again = serve_small(dir, FEW, false, 0.1);
	struct served many = serve_small(dir, MANY, false, seconds);
	struct served many_again = serve_small(dir, MANY, false, seconds);

	print_opening(&many, &many_again, hop);
	bench_print(&(struct bench_figure){.part = 4,
			    .name = "10^6 records, shuffled",
			    .shape = small.name,
			    .value = many_again.batch_rate,
			    .unit = "batches/s",
			    .beside = "a pread a record, one file",
			    .beside_value = read_plainly(dir, seconds / 2)},
		"32 new records a batch");
	print_growth("memory, index just built", &few, &many, 16, 16.5);
	print_growth("memory, index from the store", &few_again, &many_again, 16, 16.5);
	few = serve_small(dir, FEW, true, 0);
	many = serve_small(dir, MANY, true, 0);
	print_growth("memory, pad, lengths just scanned", &few, &many, 20, 20.5);
	if (quick)
		return;
	few_again = serve_small(dir, FEW, true, 0);
	many_again = serve_small(dir, MANY, true, 0);
	print_growth("memory, pad, lengths from the store", &few_again, &many_again, 20, 20.5);
}

/* ---- Compressed files ------------------------------------------------------------------------ */

static double inflate_plainly(const char *path)
{
	uint8_t *bytes = bench_alloc(1 << 20);
	gzFile file = gzopen(path, "rbe");
	int64_t start = bench_now();

	if (!file)
		bench_die(path);
	while (gzread(file, bytes, 1 << 20) > 0)
		;
	gzclose(file);
	free(bytes);
	return bench_seconds_since(start);
}

/* A server and a worker on one file of shape S. */
struct packed {
	struct bench_server server;
	struct bench_worker worker;
	double open_seconds;
	struct bench_samples rate;
};

static void packed_open(
	struct packed *packed, const struct segue_tmpdir *dir, const char *path, const char *name)
{
	char store[SEGUE_TMPDIR_MAX];
	struct bench_spec spec;

	*packed = (struct packed){0};
	bench_spec_init(&spec, &bench_shape_s, path);
	bench_server_start(&packed->server, segue_tmpdir_path(dir, name, store));
	int64_t start = bench_now();
	bench_worker_open(&packed->worker, &packed->server, &spec, &bench_shape_s);
	packed->open_seconds = bench_seconds_since(start);
}

static void packed_round(struct packed *packed, double seconds)
{
	int64_t start = bench_now();
	uint64_t batches = 0;

	for (; bench_seconds_since(start) < seconds; batches++)
		bench_worker_batch(&packed->worker);
	bench_samples_add(&packed->rate, (double)batches / bench_seconds_since(start));
}

static void packed_close(struct packed *packed)
{
	bench_worker_close(&packed->worker);
	bench_server_stop(&packed->server);
	bench_samples_finish(&packed->rate);
}

static void print_packed(struct packed *packed, struct packed *plain, double inflate, double bytes)
{
	bench_print(&(struct bench_figure){.part = 4,
			    .name = "gzip: first open",
			    .shape = "S",
			    .value = packed->open_seconds,
			    .unit = "s",
			    .beside = "inflating alone",
			    .beside_value = inflate},
		"%.0f MB of records", bytes * 1e-6);
	bench_print(&(struct bench_figure){.part = 4,
			    .name = "gzip, shuffled",
			    .shape = "S",
			    .value = bench_samples_at(&packed->rate, 0.5),
			    .unit = "batches/s",
			    .beside = "the same uncompressed",
			    .beside_value = bench_samples_at(&plain->rate, 0.5)},
		"from the cache of inflated files; %d rounds by turns", ROUNDS);
}

static void measure_packed(const struct segue_tmpdir *dir, uint64_t bytes, double seconds)
{
	struct bench_data data = {
		.shape = &bench_shape_s, .segments_min = 5, .segments_max = 50, .bytes = bytes};
	char plain_path[SEGUE_TMPDIR_MAX], packed_path[SEGUE_TMPDIR_MAX];
	struct packed plain, packed;

	bench_data_write(segue_tmpdir_path(dir, "plain", plain_path), &data);
	data.gzip = true;
	bench_data_write(segue_tmpdir_path(dir, "packed", packed_path), &data);
	double inflate = inflate_plainly(packed_path);
	packed_open(&plain, dir, plain_path, "store-plain");
	packed_open(&packed, dir, packed_path, "store-packed");
	for (int i = 0; i < ROUNDS; i++) {
		packed_round(&plain, seconds / ROUNDS);
		packed_round(&packed, seconds / ROUNDS);
	}
	print_packed(&packed, &plain, inflate, (double)bytes);
	packed_close(&plain);
	packed_close(&packed);
}

int main(int argc, char **argv)
{
	bool quick = bench_options(argc, argv);
	struct segue_tmpdir dir;

	segue_tmpdir_make(&dir, "bench");
	write_small(&dir, FEW);
	write_small(&dir, MANY);
	measure_many(&dir, quick, quick ? 0.5 : 2);
	measure_packed(&dir, quick ? 20000000 : 100000000, quick ? 0.5 : 4);
	segue_tmpdir_remove(&dir);
	return 0;
}
