/*
 * Fuzzes inflating, of gzip or (FUZZ_ZLIB) of zlib: what zlib makes of the same members is the oracle.
 *
 * Either the target is whole, the same bytes, begins as a TFRecord file does and says of what it is a
 * copy, or it is not there; cut off it says nothing. For libFuzzer, or with replay_main.c as a program that runs files.
 */
#include "source/inflate.h"
#include "source/tfrecord/framing.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "tmpdir.h"

#define PLAIN_MAX (4u << 20) /* inputs that inflate to more are passed over */

#ifdef FUZZ_ZLIB
static const uint8_t head[] = {0x78, 0x9c};
#define WINDOW_BITS MAX_WBITS
#else
static const uint8_t head[] = {0x1f, 0x8b, 8};
#define WINDOW_BITS (16 + MAX_WBITS)
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

static struct segue_tmpdir dir;

static void remove_dir(void)
{
	segue_tmpdir_remove(&dir);
}

/* All members, one after the other: their bytes, or false if they are not all whole. */
static bool inflate_all(const uint8_t *data, size_t size, uint8_t *plain, size_t *plain_size)
{
	z_stream stream = {.next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)size};

	*plain_size = 0;
	while (stream.avail_in > 0) {
		expect(inflateInit2(&stream, WINDOW_BITS) == Z_OK);
		stream.next_out = plain + *plain_size;
		stream.avail_out = (uInt)(PLAIN_MAX - *plain_size);
		int rc = inflate(&stream, Z_FINISH);
		*plain_size = PLAIN_MAX - stream.avail_out;
		inflateEnd(&stream);
		if (rc != Z_STREAM_END)
			return false;
	}
	return size > 0;
}

static bool same_as(const char *path, const uint8_t *bytes, size_t size)
{
	static uint8_t found[PLAIN_MAX + (1 << 20)];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	size_t have = 0;
	for (ssize_t got; (got = read(fd, found + have, sizeof(found) - have)) > 0;)
		have += (size_t)got;
	close(fd);
	return have > size && memcmp(found, bytes, size) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t plain[PLAIN_MAX];
	static char target[SEGUE_TMPDIR_MAX];
	struct segue_progress progress = {.total = size};
	size_t plain_size;

	if (!dir.root[0]) {
		segue_tmpdir_make(&dir, "fuzz-gzip");
		segue_tmpdir_path(&dir, "target", target);
		atexit(remove_dir);
	}
	bool whole = inflate_all(data, size, plain, &plain_size);
	if (plain_size == PLAIN_MAX)
		return 0;
	int fd = memfd_create("fuzz-gzip", MFD_CLOEXEC);
	expect(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	int rc = segue_inflate_file(fd, "data", segue_packing_of(head, sizeof(head)), target,
		&segue_tfrecord_format, 0, &progress);
	expect(rc == 0 || rc == SEGUE_EDATA);
	if (rc == 0) {
		struct segue_copy copy;

		expect(whole && same_as(target, plain, plain_size));
		expect(segue_copy_look(target, fd, &copy) && copy.size == plain_size);
		int made = segue_copy_open(target);
		expect(segue_copy_check(made, &copy, &progress) == 1);
		close(made);
		expect(truncate(target, (off_t)(copy.stored - 1 - size % copy.stored)) == 0);
		expect(!segue_copy_look(target, fd, &copy));
		unlink(target);
	}
	close(fd);
	expect(access(target, F_OK) != 0);
	return 0;
}
