/* C21: no room for shared memory: a file size limit, a memory cgroup, a full /dev/shm. */
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { LIMIT_MB = 96, BIG_MB = 32 }; /* a state of that size in each of 5 buffers and more */

/* On a server of its own: a ring that cannot be made is refused, and then one that can is served. */
static void try_both(const struct hostile *hostile, const char *dir, bool refused)
{
	struct segue_client *client;
	struct segue_stream *stream, *main;
	struct segue_lane *lane;
	struct hostile_spec spec;

	hostile_open(hostile, dir, &client, &main);
	hostile_private_spec(hostile, "big", &spec);
	spec.state.dims[0] = BIG_MB << 20 >> 3;
	spec.spec.batch_size = 1;
	EXPECT(segue_draft_open(client, &spec.spec, &stream) == 0, "stream: %s",
		segue_error_detail());
	if (refused) {
		int rc = segue_lane_attach(stream, 0, NULL, &lane);
		EXPECT(rc == SEGUE_ENOMEM || rc == SEGUE_ELIMIT,
			"%d MiB and more where there is no room: %s: %s", 5 * BIG_MB,
			segue_error_name(rc), segue_error_detail());
	}
	segue_stream_close(stream);
	lane = hostile_take(main, 0, SEGUE_START_FRESH);
	for (int i = 0; i < 20; i++) {
		struct segue_batch *batch = hostile_next(lane);
		hostile_check(batch);
		hostile_commit(batch);
	}
	segue_lane_close(lane);
	segue_stream_close(main);
	segue_client_close(client);
}

/* Each of these sets a limit that the server inherits; false: not possible here. */
static bool limit_files(void)
{
	struct rlimit limit = {(rlim_t)LIMIT_MB << 20, (rlim_t)LIMIT_MB << 20};

	return setrlimit(RLIMIT_FSIZE, &limit) == 0;
}

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}

static char cgroup[128];

static bool limit_cgroup(void)
{
	static const char *const roots[][2] = {{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max"}};
	char path[256], text[32];

	for (size_t i = 0; i < 2; i++) {
		snprintf(cgroup, sizeof(cgroup), "%s/segue-hostile-%d", roots[i][0], (int)getpid());
		if (mkdir(cgroup, 0700) < 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", cgroup, roots[i][1]);
		snprintf(text, sizeof(text), "%d", LIMIT_MB << 20);
		bool done = write_text(path, text);
		snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
		if (done && write_text(path, "0"))
			return true;
		rmdir(cgroup);
	}
	cgroup[0] = '\0';
	return false;
}

static bool fill_dev_shm(void)
{
	static char block[8192];

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("shm", "/dev/shm", "tmpfs", 0, "size=4k") < 0)
		return false;
	int fd = open("/dev/shm/full", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0 && write(fd, block, sizeof(block)) == (ssize_t)sizeof(block))
		hostile_fail("/dev/shm is not full");
	close(fd);
	return true;
}

static void try_limit(
	const struct hostile *hostile, const char *name, bool (*set)(void), bool refused)
{
	char dir[512], path[256] = "";
	pid_t pid = hostile_fork();
	int status;

	snprintf(dir, sizeof(dir), "%s/%s", hostile->scratch, name);
	if (pid == 0) {
		if (!set())
			_exit(77);
		try_both(hostile, dir, refused);
		_exit(0);
	}
	EXPECT(waitpid(pid, &status, 0) == pid, "waitpid");
	bool could = !WIFEXITED(status) || WEXITSTATUS(status) != 77;
	printf("%s%s\n", could ? "" : "SKIP, not allowed here: ", name);
	EXPECT(!could || status == 0, "%s: status 0x%x", name, (unsigned)status);
	/* The server ends by itself when its last client has left; its cgroup can go then. */
	snprintf(path, sizeof(path), "/sys/fs/cgroup/memory/segue-hostile-%d", (int)pid);
	for (int i = 0; i < 500 && rmdir(path) < 0 && errno == EBUSY; i++)
		hostile_sleep_ms(10);
	snprintf(path, sizeof(path), "/sys/fs/cgroup/segue-hostile-%d", (int)pid);
	for (int i = 0; i < 500 && rmdir(path) < 0 && errno == EBUSY; i++)
		hostile_sleep_ms(10);
}

void attack_memory(struct hostile *hostile)
{
	try_limit(hostile, "file-size-limit", limit_files, true);
	try_limit(hostile, "memory-cgroup", limit_cgroup, true);
	try_limit(hostile, "dev-shm-full", fill_dev_shm, false);
}
