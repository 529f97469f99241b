/* C24: a client in another user, process, mount or network namespace: it works, or is refused by name. */
#include "hostile.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { LANE = 10 };

struct kind {
	const char *name;
	int flags;
};

static const struct kind kinds[] = {
	{"mount", CLONE_NEWNS},
	{"network", CLONE_NEWNET},
	{"process", CLONE_NEWPID},
	{"user", CLONE_NEWUSER},
	{"user, process, mount and network",
		CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET},
};

/* A worker's work, held until killed if `die`. */
static _Noreturn void work(const struct hostile *hostile, bool die)
{
	struct segue_client *client;
	struct segue_stream *stream;

	hostile_open(hostile, hostile->dir, &client, &stream);
	struct segue_lane *lane = hostile_take(stream, LANE, SEGUE_START_CONTINUE);
	for (int i = 0; i < 10; i++) {
		struct segue_batch *batch = hostile_next(lane);
		hostile_check(batch);
		if (die && i == 5)
			_exit(0); /* its lease must come back, though nobody here knows its pid */
		hostile_commit(batch);
	}
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
	_exit(0);
}

/* False: this machine does not let us make such a namespace. */
static bool try_kind(const struct hostile *hostile, const struct kind *kind, bool die)
{
	pid_t pid = hostile_fork();
	int status;

	if (pid == 0) {
		if (unshare(kind->flags) < 0)
			_exit(77);
		/* Who makes a process namespace is not in it, the first child is. */
		pid_t inner = hostile_fork();
		if (inner == 0)
			work(hostile, die);
		hostile_reap(inner, 0);
		_exit(0);
	}
	EXPECT(waitpid(pid, &status, 0) == pid, "waitpid");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		return false;
	EXPECT(status == 0, "%s namespace: status 0x%x", kind->name, (unsigned)status);
	return true;
}

/* Another user, who was even given the socket: refused by name. */
static bool try_user(const struct hostile *hostile)
{
	struct segue_message hello = {.type = SEGUE_MESSAGE_HELLO,
		.hello = {.protocol = SEGUE_PROTOCOL,
			.layout_version = SEGUE_LAYOUT_VERSION,
			.version = "",
			.program = ""}};
	struct raw raw;
	pid_t pid = hostile_fork();
	int status;

	if (pid == 0) {
		/* Connected as root it would be let in: the socket's credentials are those of connect(). */
		if (geteuid() != 0 || setegid(65534) < 0 || seteuid(65534) < 0)
			_exit(77);
		if (!raw_connect(hostile->dir, &raw)) {
			EXPECT(errno == EACCES || errno == EPERM, "connect: errno %d", errno);
			_exit(0);
		}
		EXPECT(raw_call(&raw, &hello) != SEGUE_MESSAGE_WELCOME, "another user is let in");
		_exit(0);
	}
	EXPECT(waitpid(pid, &status, 0) == pid, "waitpid");
	EXPECT(status == 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 77),
		"another user: status 0x%x", (unsigned)status);
	return status == 0;
}

void attack_namespaces(struct hostile *hostile)
{
	struct segue_client *client;
	struct segue_stream *stream;
	unsigned worked = 0, rounds = 0;

	hostile_open(hostile, hostile->dir, &client, &stream);
	segue_lane_close(hostile_take(stream, LANE, SEGUE_START_FRESH));
	segue_stream_close(stream);
	segue_client_close(client);
	for (; rounds < 1 || hostile_time_left(hostile); rounds++) {
		for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
			bool could = try_kind(hostile, &kinds[i], true) &&
				     try_kind(hostile, &kinds[i], false);
			worked += could;
			if (!could && rounds == 0)
				printf("SKIP %s namespace: not allowed here\n", kinds[i].name);
		}
		if (!try_user(hostile) && rounds == 0)
			printf("SKIP another user: only root can be one\n");
	}
	if (worked == 0)
		hostile_skip("no namespace can be made here");
	printf("%u workers in namespaces of their own\n", worked);
}
