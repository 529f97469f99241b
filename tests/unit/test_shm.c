/*
 * Tests of shared-memory segments: what each side may do, what is refused, what is left behind.
 */
#include "core/shm.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"

#define PAGE 4096

static struct segue_shm make(size_t size, enum segue_shm_access access)
{
	struct segue_shm shm = SEGUE_SHM_NONE;

	cr_assert_eq(
		segue_shm_create("segue:test", size, access, &shm), 0, "%s", segue_error_detail());
	return shm;
}

/* What a peer receives: another fd of the same open file. */
static int received(const struct segue_shm *shm)
{
	return fcntl(shm->fd, F_DUPFD_CLOEXEC, 0);
}

static int reopen(const struct segue_shm *shm, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", shm->fd);
	return open(path, flags | O_CLOEXEC);
}

static sigjmp_buf fault;

static void on_fault(int number)
{
	siglongjmp(fault, number);
}

/* The signal that a write there raises, 0 if none. */
static int write_faults(volatile char *place)
{
	struct sigaction action = {.sa_handler = on_fault}, old[2];
	int number;

	sigaction(SIGSEGV, &action, &old[0]);
	sigaction(SIGBUS, &action, &old[1]);
	number = sigsetjmp(fault, 1);
	if (number == 0)
		*place = 1;
	sigaction(SIGSEGV, &old[0], NULL);
	sigaction(SIGBUS, &old[1], NULL);
	return number;
}

Test(shm, maker_writes_and_reader_reads)
{
	struct segue_shm shm = make(10000, SEGUE_SHM_READ), peer = SEGUE_SHM_NONE;

	cr_assert_eq(shm.size, 3 * PAGE);
	for (size_t i = 0; i < shm.size; i++)
		cr_assert_eq(((char *)shm.map)[i], 0);
	cr_assert_eq(segue_shm_map(received(&shm), 10000, SEGUE_SHM_READ, &peer), 0, "%s",
		segue_error_detail());
	strcpy((char *)shm.map + 9000, "seen");
	cr_assert_str_eq((char *)peer.map + 9000, "seen");
	cr_assert_eq(write_faults((char *)peer.map), SIGSEGV);
	cr_assert(fcntl(shm.fd, F_GETFD) & FD_CLOEXEC);
	segue_shm_destroy(&peer);
	segue_shm_destroy(&shm);
	cr_assert_eq(shm.fd, -1);
	segue_shm_destroy(&shm); /* a zeroed one is fine */
}

Test(shm, writer_writes_and_maker_reads)
{
	struct segue_shm shm = make(PAGE, SEGUE_SHM_WRITE), peer = SEGUE_SHM_NONE;
	char text[5];
	void *view;

	cr_assert_eq(segue_shm_map(received(&shm), PAGE, SEGUE_SHM_WRITE, &peer), 0);
	strcpy((char *)peer.map + 100, "carr");
	cr_assert_str_eq((char *)shm.map + 100, "carr");
	cr_assert_eq(segue_shm_read(&shm, 100, text, 5), 0);
	cr_assert_str_eq(text, "carr");
	cr_assert_eq(segue_shm_view(&peer, &view), 0);
	cr_assert_str_eq((char *)view + 100, "carr");
	cr_assert_eq(write_faults(view), SIGSEGV, "a view of a state must fault");
	cr_assert_eq(write_faults(peer.map), 0);
	segue_shm_unmap(view, peer.size);
	segue_shm_destroy(&peer);
	segue_shm_destroy(&shm);
}

/* The table that the design rests on, row "sealed with all four". */
Test(shm, holder_of_a_read_only_segment_can_do_nothing_to_it)
{
	struct segue_shm shm = make(2 * PAGE, SEGUE_SHM_READ);
	int fds[2], count = 0;
	void *map;

	cr_assert(segue_shm_sealable(), "this kernel cannot seal");
	fds[count++] = shm.fd;
	fds[count] = reopen(&shm, O_RDWR);
	count += fds[count] >= 0;
	for (int i = 0; i < count; i++) {
		map = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
		cr_expect_eq(map, MAP_FAILED, "mapped writable");
		map = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fds[i], 0);
		cr_assert_neq(map, MAP_FAILED);
		cr_expect_lt(mprotect(map, PAGE, PROT_READ | PROT_WRITE), 0, "made writable");
		munmap(map, 2 * PAGE);
		cr_expect_lt(pwrite(fds[i], "x", 1, 0), 0, "written");
		cr_expect_lt(ftruncate(fds[i], 0), 0, "shrunk");
		cr_expect_lt(ftruncate(fds[i], 3 * PAGE), 0, "grown");
		cr_expect_lt(fallocate(fds[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE),
			0, "hole punched");
		cr_expect_lt(fallocate(fds[i], 0, 2 * PAGE, PAGE), 0, "extended");
		cr_expect_lt(fcntl(fds[i], F_ADD_SEALS, F_SEAL_WRITE), 0, "sealed further");
	}
	strcpy(shm.map, "still ours");
	cr_assert_str_eq(shm.map, "still ours");
	if (count == 2)
		close(fds[1]);
	segue_shm_destroy(&shm);
}

/* The carry: its holder may write, and empty pages, but not take them away. */
Test(shm, holder_of_a_writable_segment_cannot_resize_it)
{
	struct segue_shm shm = make(2 * PAGE, SEGUE_SHM_WRITE);
	char byte = 1;

	cr_assert_lt(ftruncate(shm.fd, 0), 0);
	cr_assert_lt(ftruncate(shm.fd, 3 * PAGE), 0);
	cr_assert_lt(fcntl(shm.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0, "sealed further");
	*(char *)shm.map = 7;
	cr_assert_eq(fallocate(shm.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * PAGE), 0);
	cr_assert_eq(segue_shm_read(&shm, 0, &byte, 1), 0, "a hole reads as zeros");
	cr_assert_eq(byte, 0);
	cr_assert_eq(*(volatile char *)shm.map, 0);
	segue_shm_destroy(&shm);
}

/* ---- What is refused ------------------------------------------------------------------------- */

static void expect_refused(int fd, size_t size, const char *says)
{
	struct segue_shm shm = SEGUE_SHM_NONE;

	cr_expect_eq(segue_shm_map(fd, size, SEGUE_SHM_READ, &shm), SEGUE_EPROTOCOL, "%s", says);
	cr_expect(strstr(segue_error_detail(), says), "\"%s\" does not say \"%s\"",
		segue_error_detail(), says);
	cr_expect_eq(shm.fd, -1);
	cr_expect_geq(fcntl(fd, F_GETFD), 0, "the fd was taken over without success");
}

Test(shm, received_fds_are_looked_at)
{
	struct segue_shm shm = make(PAGE, SEGUE_SHM_READ);
	int plain = memfd_create("plain", MFD_CLOEXEC);
	int grows = memfd_create("grows", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int ends[2];

	expect_refused(shm.fd, PAGE + 1, "4096 bytes, 4097 were announced");
	expect_refused(shm.fd, 0, "0 bytes");
	expect_refused(shm.fd, SIZE_MAX, "bytes");
	cr_assert_eq(ftruncate(plain, PAGE), 0);
	expect_refused(plain, PAGE, "could shrink");
	cr_assert_eq(ftruncate(grows, PAGE), 0);
	cr_assert_eq(fcntl(grows, F_ADD_SEALS, F_SEAL_GROW), 0);
	expect_refused(grows, PAGE, "could shrink");
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	expect_refused(ends[0], 1, "bytes");
	segue_shm_destroy(&shm);
}

Test(shm, closed_fd_is_refused)
{
	struct segue_shm shm = SEGUE_SHM_NONE;

	cr_assert_eq(segue_shm_map(999, PAGE, SEGUE_SHM_READ, &shm), SEGUE_EPROTOCOL);
}

Test(shm, writing_through_a_reader_s_fd_is_refused)
{
	struct segue_shm shm = make(PAGE, SEGUE_SHM_READ), peer = SEGUE_SHM_NONE;

	cr_assert_eq(segue_shm_map(shm.fd, PAGE, SEGUE_SHM_WRITE, &peer), SEGUE_ESYSTEM);
	segue_shm_destroy(&shm);
}

Test(shm, reads_beyond_the_end_fail)
{
	struct segue_shm shm = make(PAGE, SEGUE_SHM_WRITE);
	char buffer[200];

	cr_assert_eq(segue_shm_read(&shm, PAGE - 200, buffer, 200), 0);
	cr_assert_eq(segue_shm_read(&shm, PAGE - 100, buffer, 200), SEGUE_ESYSTEM);
	cr_assert(strstr(segue_error_detail(), "100 bytes before the end"));
	cr_assert_eq(segue_shm_read(&shm, UINT64_MAX, buffer, 1), SEGUE_ESYSTEM);
	cr_assert_eq(segue_shm_read(&shm, PAGE, buffer, 0), 0);
	segue_shm_destroy(&shm);
}

Test(shm, too_large_is_an_error_with_the_size)
{
	static const size_t sizes[] = {0, (size_t)1 << 46, SIZE_MAX - PAGE, SIZE_MAX};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct segue_shm shm = SEGUE_SHM_NONE;
		char number[32];

		snprintf(number, sizeof(number), "%zu", sizes[i]);
		cr_expect_eq(segue_shm_create("ring", sizes[i], SEGUE_SHM_READ, &shm), SEGUE_ENOMEM,
			"%zu", sizes[i]);
		if (i != 2)
			cr_expect(strstr(segue_error_detail(), number), "%s", segue_error_detail());
		cr_expect(strstr(segue_error_detail(), "ring"), "%s", segue_error_detail());
		cr_expect_eq(shm.fd, -1);
	}
}

/* In the place of the C library's: kernels before 6.1 let any signal end an allocation. */
static int interruptions;

int posix_fallocate(int fd, off_t offset, off_t size)
{
	if (interruptions > 0) {
		interruptions--;
		return EINTR;
	}
	return fallocate(fd, 0, offset, size) < 0 ? errno : 0;
}

Test(shm, signals_do_not_stop_an_allocation)
{
	size_t size = ((size_t)64 << 20) + 3 * PAGE; /* more than one part */
	struct segue_shm shm;
	struct stat status;

	interruptions = 5;
	shm = make(size, SEGUE_SHM_WRITE);
	cr_assert_eq(interruptions, 0);
	cr_assert_eq(fstat(shm.fd, &status), 0);
	cr_assert_eq((size_t)status.st_size, size);
	cr_assert_eq((size_t)status.st_blocks * 512, size, "all of it is there");
	segue_shm_destroy(&shm);
}

/*
 * ---- Children ---------------------------------------------------------------------------------
 */

static int status_of(pid_t child)
{
	int status;

	cr_assert_eq(waitpid(child, &status, 0), child);
	return status;
}

Test(shm, forked_children_do_not_have_the_mapping)
{
	struct segue_shm shm = make(PAGE, SEGUE_SHM_WRITE);
	void *view;
	pid_t child;

	cr_assert_eq(segue_shm_view(&shm, &view), 0);
	for (int i = 0; i < 2; i++) {
		void *place = i == 0 ? shm.map : view;
		unsigned char page;

		cr_assert_eq(mincore(place, PAGE, &page), 0);
		child = fork();
		if (child == 0)
			_exit(mincore(place, PAGE, &page) < 0 && errno == ENOMEM ? 0 : 1);
		cr_expect_eq(status_of(child), 0, "mapping %d is in the child", i);
	}
	segue_shm_unmap(view, shm.size);
	segue_shm_destroy(&shm);
}

/*
 * ---- Limits of a memory cgroup ----------------------------------------------------------------
 */

/* Writes a limit where the cgroup file system would show it, in a mount namespace of its own. */
static int fake_limit(const char *directory, const char *file, const char *value)
{
	char path[600];
	FILE *stream;

	snprintf(path, sizeof(path), "%s/%s", directory, file);
	for (char *slash = path + strlen("/sys/fs/cgroup"); (slash = strchr(slash + 1, '/'));) {
		*slash = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return -1;
		*slash = '/';
	}
	stream = fopen(path, "w");
	if (!stream || fputs(value, stream) < 0)
		return -1;
	return fclose(stream);
}

#define CANNOT 77

/* In a child: a tmpfs in the place of the cgroup file system, with one limit in it. */
static int under_limit(const char *directory, const char *file)
{
	struct segue_shm shm = SEGUE_SHM_NONE;
	int rc;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("none", "/sys/fs/cgroup", "tmpfs", 0, NULL) < 0)
		return CANNOT;
	if (fake_limit(directory, file, "1048576\n") < 0)
		return 2;
	rc = segue_shm_create("ring", 1048576, SEGUE_SHM_READ, &shm);
	if (rc < 0)
		return 3;
	rc = segue_shm_create("ring", 1048577, SEGUE_SHM_READ, &shm);
	if (rc != SEGUE_ENOMEM)
		return 4;
	return strstr(segue_error_detail(), "memory cgroup of this process allows 1048576") ? 0 : 5;
}

Test(shm, memory_cgroup_limit_is_named)
{
	static const struct {
		const char *directory, *file;
	} limits[] = {
		{"/sys/fs/cgroup", "memory.max"},
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
	};
	char text[4096] = "";
	FILE *stream = fopen("/proc/self/cgroup", "r");
	int tried = 0;

	cr_assert_not_null(stream);
	cr_assert_gt(fread(text, 1, sizeof(text) - 1, stream), 0);
	fclose(stream);
	for (int i = 0; i < 2; i++) {
		pid_t child;
		int status;

		if (!strstr(text, i == 0 ? "0::" : ":memory:"))
			continue;
		child = fork();
		if (child == 0)
			_exit(under_limit(limits[i].directory, limits[i].file));
		status = status_of(child);
		if (WEXITSTATUS(status) == CANNOT)
			continue;
		tried++;
		cr_expect_eq(status, 0, "%s: stage %d", limits[i].file, WEXITSTATUS(status));
	}
	if (tried == 0)
		cr_skip_test("no right to mount, or no cgroups here");
}

/* ---- Where nothing can be sealed ------------------------------------------------------------- */

/* From here on memfd_create says ENOSYS, as on an old kernel. */
static int without_memfd(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int names_left(void)
{
	DIR *directory = opendir("/dev/shm");
	struct dirent *entry;
	int count = 0;

	cr_assert_not_null(directory);
	while ((entry = readdir(directory)))
		count += strncmp(entry->d_name, "segue-", 6) == 0;
	closedir(directory);
	return count;
}

Test(shm, fallback_without_memfd)
{
	struct segue_shm shm, peer = SEGUE_SHM_NONE;
	int before = names_left();
	char text[8];

	if (without_memfd() < 0)
		cr_skip_test("no seccomp here");
	cr_assert_not(segue_shm_sealable());
	shm = make(PAGE, SEGUE_SHM_READ);
	cr_assert_eq(names_left(), before, "a name is left in /dev/shm");
	cr_assert_eq(fcntl(shm.fd, F_GETFL) & O_ACCMODE, O_RDONLY, "the reader gets a writable fd");
	strcpy(shm.map, "fall");
	cr_assert_eq(segue_shm_map(received(&shm), PAGE, SEGUE_SHM_READ, &peer), 0, "%s",
		segue_error_detail());
	cr_assert_str_eq(peer.map, "fall");
	cr_assert_eq(write_faults(peer.map), SIGSEGV);
	cr_assert_lt(mprotect(peer.map, PAGE, PROT_READ | PROT_WRITE), 0);
	cr_assert_eq(segue_shm_read(&shm, 0, text, 5), 0);
	cr_assert_str_eq(text, "fall");
	expect_refused(shm.fd, PAGE + 1, "were announced");
	segue_shm_destroy(&peer);
	segue_shm_destroy(&shm);
	shm = make(PAGE, SEGUE_SHM_WRITE);
	cr_assert_eq(names_left(), before);
	cr_assert_eq(segue_shm_map(received(&shm), PAGE, SEGUE_SHM_WRITE, &peer), 0);
	strcpy(peer.map, "back");
	cr_assert_str_eq(shm.map, "back");
	segue_shm_destroy(&peer);
	segue_shm_destroy(&shm);
}

/*
 * ---- Nothing left behind ----------------------------------------------------------------------
 */

static int open_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

Test(shm, failures_leave_no_fd)
{
	struct segue_shm shm = make(PAGE, SEGUE_SHM_READ);
	int before;

	segue_shm_destroy(&shm);
	before = open_fds();
	cr_assert_lt(segue_shm_create("x", (size_t)1 << 46, SEGUE_SHM_READ, &shm), 0);
	cr_assert_eq(open_fds(), before);
	shm = make(PAGE, SEGUE_SHM_WRITE);
	segue_shm_destroy(&shm);
	cr_assert_eq(open_fds(), before);
}
