/* C17: paths that are no data: they are refused, and nothing waits for them. */
#include "hostile.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tfwrite.h"
#include "core/wait.h"

static unsigned number; /* of the next stream */

/* Opens a stream over `path` within 5 s: 0 (and how many records) or the code. */
static int open_path(
	const struct hostile *hostile, struct raw *raw, const char *path, uint64_t *records)
{
	struct segue_message request = {.type = SEGUE_MESSAGE_STREAM_OPEN};
	struct hostile_spec spec;
	char name[64];

	snprintf(name, sizeof(name), "paths-%u", number++);
	hostile_private_spec(hostile, name, &spec);
	EXPECT(segue_draft_make(&spec.spec, &request.stream_open.spec) == 0, "spec");
	free(request.stream_open.spec->source.tfrecord.paths.path[0]);
	request.stream_open.spec->source.tfrecord.paths.path[0] =
		strdup(path); /* as it is: not made absolute */
	int64_t before = segue_now_ns();
	enum segue_message_type type = raw_call(raw, &request);
	int64_t took = segue_now_ns() - before;
	segue_spec_destroy(request.stream_open.spec);
	EXPECT(took < INT64_C(5000000000), "%.80s: answered after %.1f s", path,
		(double)took / 1e9);
	EXPECT(type == SEGUE_MESSAGE_OPENED || type == SEGUE_MESSAGE_FAILURE, "%.80s: answer %d",
		path, (int)type);
	if (type == SEGUE_MESSAGE_OPENED && records)
		*records = raw->reply.opened.records;
	int code = type == SEGUE_MESSAGE_OPENED ? 0 : raw->reply.failure.code;
	raw_renew(hostile->dir, raw); /* a path may be against the protocol's own rules */
	return code;
}

static void refuse(const struct hostile *hostile, struct raw *raw, const char *path)
{
	EXPECT(open_path(hostile, raw, path, NULL) != 0, "%.80s: accepted", path);
}

static const char *below(const struct hostile *hostile, const char *name)
{
	static char path[4][512];
	static unsigned next;

	next = (next + 1) % 4;
	snprintf(path[next], sizeof(path[next]), "%s/%s", hostile->scratch, name);
	return path[next];
}

/* What is no plain file, in all kinds. */
static void refuse_kinds(const struct hostile *hostile, struct raw *raw)
{
	static char name[4200];

	EXPECT(mkfifo(below(hostile, "fifo"), 0600) == 0 || errno == EEXIST, "mkfifo");
	symlink("fifo", below(hostile, "to-fifo"));
	symlink("loop", below(hostile, "loop"));
	symlink("/dev/zero", below(hostile, "to-zero"));
	static const char *const names[] = {
		"fifo", "to-fifo", "loop", "to-zero", ".", "", "missing", "new\nline", "\xff\xfe"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		refuse(hostile, raw, below(hostile, names[i]));
	static const char *const paths[] = {"/dev/zero", "/dev/random", "/dev/tty",
		"/proc/self/fd/0", "/proc/self/mem", "/proc/self/exe", "/proc/self/environ", "/",
		".", "..", "../../..", "relative", "[", "/proc/self/fd/*", "/sys/kernel/mm/*"};
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		refuse(hostile, raw, paths[i]);
	memset(name, 'n', 4096);
	name[0] = '/';
	refuse(hostile, raw, name);
	snprintf(name, sizeof(name), "%s/segue.sock", hostile->dir);
	refuse(hostile, raw, name);
}

/* A link that points to the data, to a FIFO and to nothing in turn, as fast as can be. */
struct swap {
	char link[512], temporary[512];
	const char *target[2];
	_Atomic bool stop;
};

static void *swap_links(void *arg)
{
	struct swap *swap = arg;

	for (unsigned i = 0; !swap->stop; i++) {
		unlink(swap->temporary);
		if (symlink(swap->target[i % 2], swap->temporary) == 0)
			rename(swap->temporary, swap->link);
		usleep(50);
	}
	return NULL;
}

static void race(const struct hostile *hostile, struct raw *raw, const char *good, const char *bad)
{
	struct swap swap = {.target = {good, bad}};
	uint64_t records;
	pthread_t thread;

	snprintf(swap.link, sizeof(swap.link), "%s/swapped", hostile->scratch);
	snprintf(swap.temporary, sizeof(swap.temporary), "%s/swapping", hostile->scratch);
	EXPECT(pthread_create(&thread, NULL, swap_links, &swap) == 0, "thread");
	for (int i = 0; i < 50; i++)
		EXPECT(open_path(hostile, raw, swap.link, &records) != 0 ||
				records == HOSTILE_RECORDS,
			"a link was followed to %s", bad);
	swap.stop = true;
	pthread_join(thread, NULL);
}

void attack_paths(struct hostile *hostile)
{
	unsigned rounds = 0;
	struct raw raw;

	for (; rounds < 1 || hostile_time_left(hostile); rounds++) {
		raw_open(hostile->dir, &raw);
		refuse_kinds(hostile, &raw);
		EXPECT(open_path(hostile, &raw, hostile->data, NULL) == 0, "the data: %s",
			raw.reply.failure.detail);
		race(hostile, &raw, hostile->data, below(hostile, "fifo"));
		raw_close(&raw);
	}
	printf("%u rounds of paths\n", rounds);
}
