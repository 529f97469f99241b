/* C17: a server with --root: nothing that is not beneath it is opened, by whatever way. */
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tfwrite.h"

static char root[512], outside[512], dir[512];
static unsigned number; /* of the next stream */

static bool has_root(const char *program)
{
	char command[600], line[256];
	bool found = false;

	snprintf(command, sizeof(command), "'%s' serve --help", program);
	FILE *help = popen(command, "r");
	while (help && fgets(line, sizeof(line), help))
		found = found || strstr(line, "--root");
	if (help)
		pclose(help);
	return found;
}

/* The secret has all records of the data, what lies beneath the root has one. */
static void write_files(const struct hostile *hostile)
{
	static uint8_t bytes[1 << 16];
	char path[600];
	uint64_t length;
	FILE *file = fopen(hostile->data, "r");

	snprintf(root, sizeof(root), "%s/root", hostile->scratch);
	snprintf(outside, sizeof(outside), "%s/outside", hostile->scratch);
	snprintf(dir, sizeof(dir), "%s/run", hostile->scratch);
	EXPECT(mkdir(root, 0700) == 0 && mkdir(outside, 0700) == 0, "mkdir");
	size_t size = file ? fread(bytes, 1, sizeof(bytes), file) : 0;
	EXPECT(size > 16 && size < sizeof(bytes), "%s", hostile->data);
	fclose(file);
	snprintf(path, sizeof(path), "%s/secret", outside);
	segue_tfwrite_file(path, bytes, size);
	memcpy(&length, bytes, sizeof(length));
	snprintf(path, sizeof(path), "%s/good", root);
	segue_tfwrite_file(path, bytes, 12 + (size_t)length + 4);
	snprintf(path, sizeof(path), "%s/link", root);
	EXPECT(symlink("../outside/secret", path) == 0, "symlink");
	snprintf(path, sizeof(path), "%s/way", root);
	EXPECT(symlink(outside, path) == 0, "symlink");
}

static pid_t serve(const char *program)
{
	char socket[600];
	pid_t pid = hostile_fork();

	if (pid == 0) {
		dup2(STDERR_FILENO, STDOUT_FILENO);
		execl(program, "segue", "serve", dir, "--root", root, (char *)NULL);
		_exit(127);
	}
	snprintf(socket, sizeof(socket), "%s/segue.sock", dir);
	for (int i = 0; i < 10000 && access(socket, F_OK) < 0; i++)
		hostile_sleep_ms(1);
	return pid;
}

/* How many records the stream over `path` has; 0: refused. */
static uint64_t open_path(const struct hostile *hostile, struct raw *raw, const char *path)
{
	struct segue_message request = {.type = SEGUE_MESSAGE_STREAM_OPEN};
	struct hostile_spec spec;
	char name[64];

	snprintf(name, sizeof(name), "rooted-%u", number++);
	hostile_private_spec(hostile, name, &spec);
	EXPECT(segue_draft_make(&spec.spec, &request.stream_open.spec) == 0, "spec");
	free(request.stream_open.spec->source.tfrecord.paths.path[0]);
	request.stream_open.spec->source.tfrecord.paths.path[0] = strdup(path);
	enum segue_message_type type = raw_call(raw, &request);
	segue_spec_destroy(request.stream_open.spec);
	uint64_t records = type == SEGUE_MESSAGE_OPENED ? raw->reply.opened.records : 0;
	/* A connection may have a few streams only: each gets one of its own. */
	raw_close(raw);
	raw_open(dir, raw);
	return records;
}

static _Atomic bool stop;

/* A name beneath the root that is the good file and a link to the secret in turn. */
static void *swap_links(void *arg)
{
	char name[600], temporary[600], good[600];

	snprintf(name, sizeof(name), "%s/swapped", root);
	snprintf(temporary, sizeof(temporary), "%s/swapping", root);
	snprintf(good, sizeof(good), "%s/good", root);
	for (unsigned i = 0; !stop; i++) {
		unlink(temporary);
		if ((i % 2 ? symlink("../outside/secret", temporary) : link(good, temporary)) == 0)
			rename(temporary, name);
		usleep(20);
	}
	return arg;
}

void attack_rooted(struct hostile *hostile)
{
	static const char *const ways[] = {"link", "way/secret", "../outside/secret", "way/*",
		"./../outside/secret", "/../outside/se*"};
	const char *program = getenv("SEGUE_PROGRAM");
	char path[600];
	pthread_t thread;
	struct raw raw;
	unsigned tries = 0, opened = 0;

	if (!program || !has_root(program))
		hostile_skip("this server has no --root");
	write_files(hostile);
	pid_t server = serve(program);
	raw_open(dir, &raw);
	snprintf(path, sizeof(path), "%s/good", root);
	EXPECT(open_path(hostile, &raw, path) == 1, "what lies beneath the root is refused");
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", root, ways[i]);
		EXPECT(open_path(hostile, &raw, path) == 0, "%s is opened", path);
	}
	snprintf(path, sizeof(path), "%s/secret", outside);
	EXPECT(open_path(hostile, &raw, path) == 0, "%s is opened", path);
	EXPECT(open_path(hostile, &raw, hostile->data) == 0, "%s is opened", hostile->data);
	EXPECT(pthread_create(&thread, NULL, swap_links, NULL) == 0, "thread");
	snprintf(path, sizeof(path), "%s/swapped", root);
	for (; tries < 100 || hostile_time_left(hostile); tries++) {
		uint64_t records = open_path(hostile, &raw, path);
		EXPECT(records <= 1, "a link was followed to the secret");
		opened += records == 1;
	}
	EXPECT(opened, "%u times refused while the link was swapped: nothing was seen", tries);
	stop = true;
	pthread_join(thread, NULL);
	raw_close(&raw);
	kill(server, SIGTERM);
	hostile_reap(server, 0);
	printf("nothing outside of the root, %u tries while the link was swapped\n", tries);
}
