/* C6: tries to write what is read only: the batch ring and the lease page. */
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/uio.h>

enum { LANE = 6 };

static void try_file(int fd, const char *what)
{
	char byte = 1;

	EXPECT(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED,
		"%s: mapped for writing", what);
	EXPECT(pwrite(fd, &byte, 1, 128) < 0, "%s: pwrite", what);
	EXPECT(ftruncate(fd, 0) < 0 && ftruncate(fd, 1 << 30) < 0, "%s: ftruncate", what);
	EXPECT(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0,
		"%s: a hole punched", what);
	EXPECT(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 4096) < 0, "%s: zeroed", what);
	EXPECT(fallocate(fd, 0, 0, 1 << 30) < 0, "%s: grown", what);
	EXPECT(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0, "%s: another seal", what);
}

static void try_map(void *at, const char *what)
{
	char byte = 1;
	struct iovec from = {&byte, 1}, to = {at, 1};

	EXPECT(mprotect(at, 4096, PROT_READ | PROT_WRITE) < 0, "%s: mprotect", what);
	EXPECT(process_vm_writev(getpid(), &from, 1, &to, 1, 0) < 0, "%s: process_vm_writev", what);
	EXPECT(madvise(at, 4096, MADV_REMOVE) < 0, "%s: MADV_REMOVE", what);
	/* This one writes even through read-only private mappings. */
	int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	if (memory >= 0) {
		EXPECT(pwrite(memory, &byte, 1, (off_t)(uintptr_t)at) < 0, "%s: /proc/self/mem",
			what);
		close(memory);
	}
}

void hostile_try_mapped(int fd, void *at, const char *what)
{
	try_file(fd, what);
	try_map(at, what);
}

void hostile_try_segment(int fd, void *at, const char *what)
{
	char path[64];
	static const int modes[] = {O_RDWR, O_WRONLY, O_RDWR | O_TRUNC};

	hostile_try_mapped(fd, at, what);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		int again = open(path, modes[i] | O_CLOEXEC);
		if (again >= 0)
			try_file(again, what);
		if (again >= 0)
			close(again);
	}
}

/* The carry is the worker's, but its size is not. */
static void try_carry(const struct seat *seat)
{
	int fd = seat->fds[1];

	EXPECT(ftruncate(fd, 4096) < 0 && ftruncate(fd, 1 << 30) < 0, "carry: ftruncate");
	EXPECT(fallocate(fd, 0, 0, 1 << 30) < 0, "carry: grown");
	EXPECT(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0, "carry: another seal");
	/* This is allowed, and leaves zeros: what the server maps and reads is never gone. */
	fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		(off_t)seat->geometry.carry_size);
}

void attack_readonly(struct hostile *hostile)
{
	struct seat seat;
	unsigned rounds = 0;

	for (; rounds < 1 || (hostile_time_left(hostile) && rounds < 100); rounds++) {
		seat_take(hostile, hostile->dir, LANE, SEGUE_ATTACH_FRESH, &seat);
		EXPECT(seat_await(&seat, seat.step), "no batch");
		hostile_try_segment(seat.fds[0], seat.ring, "batch ring");
		hostile_try_segment(seat.fds[2], seat.page, "lease page");
		try_carry(&seat);
		hostile_sleep_ms(50); /* the server reads the zeros */
		seat_leave(&seat);
	}
	printf("%u times every way to write, truncate, punch, remap: refused\n", rounds);
}
