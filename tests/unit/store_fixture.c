/* What the tests of the store share. */
/* LMDB calls pwrite: defining it must not make pwrite64 of it, as this would... */
#undef _FILE_OFFSET_BITS

#include "store_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- Faults --------------------------------------------------------------------------------- */

int fail_sync_with, fail_meta_with;
uint32_t pretend_file_system;

int fdatasync(int fd)
{
	if (fail_sync_with) {
		errno = fail_sync_with;
		fail_sync_with = 0;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

/* LMDB writes its meta page, and nothing else, to a file that is open with O_DSYNC. */
ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
	if (fail_meta_with && (fcntl(fd, F_GETFL) & O_DSYNC)) {
		errno = fail_meta_with;
		fail_meta_with = 0;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, bytes, size, offset);
}

int fstatfs(int fd, struct statfs *out)
{
	int rc = (int)syscall(SYS_fstatfs, fd, out);
	if (rc == 0 && pretend_file_system)
		out->f_type = pretend_file_system;
	return rc;
}

/* ... while our own files, built with it, call this. */
int fstatfs64(int fd, struct statfs64 *out)
{
	return fstatfs(fd, (struct statfs *)out);
}

/* ---- Helpers -------------------------------------------------------------------------------- */

uint64_t random_state;

uint64_t next_random(void)
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

size_t below(size_t limit)
{
	return (size_t)(next_random() % limit);
}

void seed_random(const char *test)
{
	const char *given = getenv("SEGUE_TEST_SEED");
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	random_state = given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_nsec;
	fprintf(stderr, "%s: SEGUE_TEST_SEED=%llu\n", test, (unsigned long long)random_state);
}

void skip(const char *why)
{
	fprintf(stderr, "SKIP: %s\n", why);
	cr_skip_test("%s", why);
}

struct segue_tmpdir tmp;
char dir[SEGUE_TMPDIR_MAX];
char file[SEGUE_TMPDIR_MAX];

static void setup(void)
{
	segue_tmpdir_make(&tmp, "store");
	segue_tmpdir_path(&tmp, "run", dir);
	segue_tmpdir_path(&tmp, "run/store/data.mdb", file);
}

static void teardown(void)
{
	segue_tmpdir_remove(&tmp);
}

TestSuite(store, .init = setup, .fini = teardown);

struct segue_store *open_store(enum segue_store_mode mode)
{
	struct segue_store *store = NULL;
	assert_ok(segue_store_open(dir, mode, &store));
	return store;
}

int put(struct segue_store *store, const char *key, const void *value, size_t size)
{
	struct segue_store_op op = {.table = SEGUE_TABLE_STATES,
		.key = key,
		.key_size = strlen(key),
		.value = value,
		.value_size = size};
	return segue_store_apply(store, &op, 1);
}

int put_text(struct segue_store *store, const char *key, const char *text)
{
	return put(store, key, text, strlen(text));
}

void expect_text(struct segue_store *store, const char *key, const char *text)
{
	void *value;
	size_t size;
	assert_ok(segue_store_get(store, SEGUE_TABLE_STATES, key, strlen(key), &value, &size));
	cr_assert_eq(size, strlen(text));
	cr_assert_eq(memcmp(value, text, size), 0, "%s holds another value", key);
	segue_free(value);
}

int get_code(struct segue_store *store, const char *key)
{
	void *value;
	size_t size;
	int rc = segue_store_get(store, SEGUE_TABLE_STATES, key, strlen(key), &value, &size);
	if (rc == 0)
		segue_free(value);
	return rc;
}

struct segue_store_stats stats_of(struct segue_store *store)
{
	struct segue_store_stats stats;
	segue_store_stats(store, &stats);
	return stats;
}

size_t read_file(const char *path, uint8_t **bytes)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert(fd >= 0 && fstat(fd, &status) == 0, "%s: %s", path, strerror(errno));
	size_t size = (size_t)status.st_size;
	*bytes = malloc(size + 1);
	cr_assert(*bytes && pread(fd, *bytes, size, 0) == (ssize_t)size);
	close(fd);
	return size;
}

void write_file(const char *path, const void *bytes, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	cr_assert(fd >= 0 && write(fd, bytes, size) == (ssize_t)size, "%s: %s", path,
		strerror(errno));
	close(fd);
}

int run_child(int (*body)(void *arg), void *arg)
{
	fflush(NULL);
	pid_t pid = fork();
	cr_assert(pid >= 0);
	if (pid == 0) {
		static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
		for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
			signal(signals[i], SIG_DFL);
		alarm(60);
		_exit(body(arg));
	}
	int status;
	while (waitpid(pid, &status, 0) < 0)
		cr_assert_eq(errno, EINTR);
	return status;
}

bool mount_tmpfs(const char *path, const char *options)
{
	return unshare(CLONE_NEWNS) == 0 &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("tmpfs", path, "tmpfs", 0, options) == 0;
}

/* ---- Processes ------------------------------------------------------------------------------ */

struct holder {
	enum segue_store_mode mode;
	int ready; /* pipe end */
};

static int hold(void *arg)
{
	struct holder *holder = arg;
	struct segue_store *store;
	CHILD_CHECK(segue_store_open(dir, holder->mode, &store) == 0);
	CHILD_CHECK(holder->mode == SEGUE_STORE_READ || put_text(store, "held", "yes") == 0);
	CHILD_CHECK(write(holder->ready, "r", 1) == 1);
	for (;;)
		pause();
}

pid_t start_process(int (*body)(void *arg), void *arg, int *ready)
{
	int ends[2];
	char byte;
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	fflush(NULL);
	*ready = ends[1];
	pid_t pid = fork();
	cr_assert(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(body(arg));
	}
	close(ends[1]);
	cr_assert_eq(read(ends[0], &byte, 1), 1, "the process did not open the store");
	close(ends[0]);
	return pid;
}

pid_t start_holder(enum segue_store_mode mode)
{
	struct holder holder = {.mode = mode};
	return start_process(hold, &holder, &holder.ready);
}

void kill_holder(pid_t pid)
{
	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
}
