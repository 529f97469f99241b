/*
 * Shared-memory segments without names: sealed memfds, or unlinked shm_open where none can be had.
 */
#include "core/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"

/* Newer than the headers of some systems that we build on. */
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/* Allocated in parts of this size, so that a process with a fast timer signal gets somewhere. */
#define ALLOCATION_PART ((off_t)64 << 20)

#define SEALS_WRITE (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define SEALS_READ  (SEALS_WRITE | F_SEAL_FUTURE_WRITE)

/* ---- Making files ---- */

static int memory_file(const char *label)
{
	int fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd;
}

static pthread_once_t probe_once = PTHREAD_ONCE_INIT;
static bool sealable;

/* Every seal that we use must be there: one that is missing would be a hole, not a loss. */
static void probe(void)
{
	int fd = memory_file("segue:probe");

	if (fd < 0)
		return;
	sealable = fcntl(fd, F_ADD_SEALS, SEALS_READ) == 0;
	close(fd);
}

bool segue_shm_sealable(void)
{
	pthread_once(&probe_once, probe);
	return sealable;
}

/* A name that nobody guesses, and that is gone when this returns. */
static int named_file(int *reader)
{
	char name[64];
	uint64_t number[2];
	int fd;

	if (getrandom(number, sizeof(number), 0) != (ssize_t)sizeof(number))
		return -1;
	snprintf(name, sizeof(name), "/segue-%016" PRIx64 "%016" PRIx64, number[0], number[1]);
	fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	*reader = shm_open(name, O_RDONLY | O_CLOEXEC, 0);
	shm_unlink(name);
	if (*reader < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* ---- Sizes ---- */

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* Reads a small file of the kernel; false if it cannot be had. */
static bool slurp(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (fd < 0)
		return false;
	length = read(fd, text, size - 1);
	close(fd);
	if (length < 0)
		return false;
	text[length] = '\0';
	return true;
}

/* Bytes after `label` in /proc/meminfo. */
static uint64_t meminfo(const char *text, const char *label)
{
	const char *line = strstr(text, label);

	return line ? strtoull(line + strlen(label), NULL, 10) * 1024 : 0;
}

/*
 * The least limit from the memory cgroup `group` (its path; eaten) up to the root, UINT64_MAX if
 * there is none. What is in use is not taken off: most of it is page cache, which gives way.
 */
static uint64_t least_limit(const char *root, char *group, const char *file)
{
	char path[PATH_MAX + 64], value[64];
	uint64_t least = UINT64_MAX;

	for (;;) {
		char *slash;

		snprintf(path, sizeof(path), "%s%s/%s", root, group, file);
		if (slurp(path, value, sizeof(value)) && value[0] >= '0' && value[0] <= '9') {
			uint64_t limit = strtoull(value, NULL, 10);

			least = limit < least ? limit : least;
		}
		slash = strrchr(group, '/');
		if (!slash)
			return least;
		*slash = '\0';
	}
}

/* The limit of this process's memory cgroup, of either version. */
uint64_t segue_shm_memory_limit(void)
{
	static const struct {
		const char *line, *root, *file;
	} versions[] = {
		{"0::", "/sys/fs/cgroup", "memory.max"},
		{":memory:", "/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
	};
	uint64_t least = UINT64_MAX;
	char text[PATH_MAX];

	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		uint64_t limit;
		char *group;

		if (!slurp("/proc/self/cgroup", text, sizeof(text)))
			return least;
		group = strstr(text, versions[i].line);
		if (!group)
			continue;
		group += strlen(versions[i].line);
		group[strcspn(group, "\n")] = '\0';
		limit = least_limit(versions[i].root, group, versions[i].file);
		least = limit < least ? limit : least;
	}
	return least;
}

/*
 * The kernel does not refuse a memfd that is too large: it hands out pages until something is
 * killed. So look first; a machine that does not say what it has is taken at its word later.
 */
static int check_memory(const char *label, size_t size)
{
	char text[8192];
	uint64_t limit = segue_shm_memory_limit(), left;

	if (size > limit)
		return segue_fail(SEGUE_ENOMEM,
			"%s needs %zu bytes of shared memory, the memory cgroup of this process "
			"allows %" PRIu64 ": raise its limit, or make depth or batch_size smaller",
			label, size, limit);
	if (!slurp("/proc/meminfo", text, sizeof(text)))
		return 0;
	left = meminfo(text, "MemAvailable:") + meminfo(text, "SwapFree:");
	if (left && size > left)
		return segue_fail(SEGUE_ENOMEM,
			"%s needs %zu bytes of shared memory, this machine has %" PRIu64
			" left: make depth or batch_size smaller",
			label, size, left);
	return 0;
}

/* Takes the memory now: a page that is missing later would be a SIGBUS. */
static int allocate(const char *label, int fd, size_t size)
{
	for (off_t done = 0; done < (off_t)size;) {
		off_t part = (off_t)size - done;
		int error;

		if (part > ALLOCATION_PART)
			part = ALLOCATION_PART;
		error = posix_fallocate(fd, done, part);
		if (error == EINTR)
			continue;
		if (error) {
			errno = error;
			return segue_fail_errno(error == ENOSPC || error == ENOMEM || error == EFBIG
							? SEGUE_ENOMEM
							: SEGUE_ESYSTEM,
				"cannot allocate %zu bytes of shared memory for %s%s", size, label,
				error == EFBIG         ? ""
				: segue_shm_sealable() ? " (the memory cgroup, free memory)"
						       : " (the memory cgroup, free memory, the "
							 "size of /dev/shm)");
		}
		done += part;
	}
	return 0;
}

/* ---- Mapping ---- */

static int map_file(int fd, size_t size, enum segue_shm_access access, void **out)
{
	int protection = access == SEGUE_SHM_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
	void *map = mmap(NULL, size, protection, MAP_SHARED | MAP_POPULATE, fd, 0);

	if (map == MAP_FAILED)
		return segue_fail_errno(errno == ENOMEM ? SEGUE_ENOMEM : SEGUE_ESYSTEM,
			"cannot map %zu bytes of shared memory%s", size,
			errno == ENOMEM   ? " (ulimit -v, free memory)"
			: errno == EAGAIN ? " (ulimit -l)"
					  : "");
	if (madvise(map, size, MADV_DONTFORK) < 0) {
		int rc = segue_fail_errno(
			SEGUE_ESYSTEM, "cannot keep shared memory from forked children");

		munmap(map, size);
		return rc;
	}
	*out = map;
	return 0;
}

/*
 * Without seals nothing but the mode of the fd keeps the other side from writing, so a reader gets
 * one that was opened for reading.
 */
static int open_file(const char *label, enum segue_shm_access access, int *fd, int *handed_out)
{
	int reader = -1;

	if (segue_shm_sealable()) {
		*fd = memory_file(label);
		*handed_out = *fd;
		if (*fd < 0)
			return segue_fail_errno(SEGUE_ESYSTEM, "cannot make a memfd for %s", label);
		return 0;
	}
	*fd = named_file(&reader);
	if (*fd < 0)
		return segue_fail_errno(
			SEGUE_ESYSTEM, "cannot make shared memory for %s with shm_open", label);
	if (access == SEGUE_SHM_READ) {
		*handed_out = reader;
	} else {
		*handed_out = *fd;
		close(reader);
	}
	return 0;
}

/* After mapping: the maker's mapping, made before, stays writable. */
static int seal(const char *label, int fd, enum segue_shm_access access)
{
	int seals = access == SEGUE_SHM_READ ? SEALS_READ : SEALS_WRITE;

	if (segue_shm_sealable() && fcntl(fd, F_ADD_SEALS, seals) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot seal the memory of %s", label);
	return 0;
}

int segue_shm_create(
	const char *label, size_t size, enum segue_shm_access access, struct segue_shm *out)
{
	size_t page = page_size(), rounded = (size + page - 1) & ~(page - 1);
	int fd = -1, handed_out = -1, rc;
	void *map = NULL;

	if (size == 0 || rounded < size || rounded > (size_t)PTRDIFF_MAX)
		return segue_fail(SEGUE_ENOMEM,
			"%s: a segment of %zu bytes of shared memory cannot be made", label, size);
	rc = check_memory(label, rounded);
	if (rc)
		return rc;
	rc = open_file(label, access, &fd, &handed_out);
	if (rc)
		return rc;
	rc = allocate(label, fd, rounded);
	if (!rc)
		rc = map_file(fd, rounded, SEGUE_SHM_WRITE, &map);
	if (!rc)
		rc = seal(label, fd, access);
	if (fd != handed_out)
		close(fd);
	if (rc) {
		segue_shm_unmap(map, rounded);
		close(handed_out);
		return rc;
	}
	*out = (struct segue_shm){.fd = handed_out, .size = rounded, .map = map};
	return 0;
}

/* The size must be real and stay so, or reading the mapping could raise SIGBUS. */
static int check_received(int fd, size_t size)
{
	struct stat status;
	int seals;

	if (fstat(fd, &status) < 0)
		return segue_fail_errno(SEGUE_EPROTOCOL, "a received segment cannot be looked at");
	if (!S_ISREG(status.st_mode) || status.st_size < 0 || (uint64_t)status.st_size < size)
		return segue_fail(SEGUE_EPROTOCOL,
			"a received segment has %" PRId64 " bytes, %zu were announced",
			(int64_t)status.st_size, size);
	if (!segue_shm_sealable())
		return 0;
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return segue_fail(
			SEGUE_EPROTOCOL, "a received segment is not sealed: it could shrink");
	return 0;
}

int segue_shm_map(int fd, size_t size, enum segue_shm_access access, struct segue_shm *out)
{
	size_t page = page_size(), rounded = (size + page - 1) & ~(page - 1);
	void *map;
	int rc;

	if (size == 0 || rounded < size)
		return segue_fail(SEGUE_EPROTOCOL, "a segment of %zu bytes was announced", size);
	rc = check_received(fd, size);
	if (!rc)
		rc = map_file(fd, rounded, access, &map);
	if (rc)
		return rc;
	*out = (struct segue_shm){.fd = fd, .size = rounded, .map = map};
	return 0;
}

int segue_shm_view(const struct segue_shm *shm, void **out)
{
	return map_file(shm->fd, shm->size, SEGUE_SHM_READ, out);
}

void segue_shm_unmap(void *map, size_t size)
{
	if (map)
		munmap(map, size);
}

int segue_shm_reader(const struct segue_shm *shm, int *out)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", shm->fd);
	/* Whoever has any fd of it can open it anew, by /proc, as its mode allows. */
	if (fchmod(shm->fd, S_IRUSR) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot set the mode of a segment");
	*out = open(path, O_RDONLY | O_CLOEXEC);
	return *out < 0 ? segue_fail_errno(
				  SEGUE_ESYSTEM, "cannot open a segment for reading (%s)", path)
			: 0;
}

int segue_shm_read(const struct segue_shm *shm, uint64_t offset, void *out, size_t size)
{
	char *to = out;

	while (size > 0) {
		ssize_t got = pread(shm->fd, to, size, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return segue_fail_errno(SEGUE_ESYSTEM,
				"cannot read %zu bytes at %" PRIu64 " of a segment", size, offset);
		if (got == 0)
			return segue_fail(SEGUE_ESYSTEM,
				"a segment ends %zu bytes before the end of a read at %" PRIu64,
				size, offset);
		to += got;
		offset += (uint64_t)got;
		size -= (size_t)got;
	}
	return 0;
}

void segue_shm_destroy(struct segue_shm *shm)
{
	segue_shm_unmap(shm->map, shm->size);
	if (shm->fd >= 0)
		close(shm->fd);
	*shm = SEGUE_SHM_NONE;
}

/* ---- Copies ---- */

int segue_shm_copy(const void *pages, size_t size, void **out)
{
	void *copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (copy == MAP_FAILED)
		return segue_fail(SEGUE_ENOMEM, "no memory for a copy of %zu bytes", size);
	memcpy(copy, pages, size);
	*out = copy;
	return 0;
}

int segue_shm_put_copy(void *pages, size_t size, void *copy)
{
	if (mprotect(copy, size, PROT_READ) == 0 && madvise(copy, size, MADV_DONTFORK) == 0 &&
		mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, pages) != MAP_FAILED)
		return 0;
	int rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot map a copy of %zu bytes", size);
	munmap(copy, size);
	return rc;
}
