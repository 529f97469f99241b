/* Inflating a file of gzip or zlib into another, piece by piece, and sealing what came of it. */
#include "source/inflate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zlib.h>

#include "core/error.h"
#include "os/file.h"
#include "source/foreign.h"

#define IN_SIZE  (64 * 1024)
#define OUT_SIZE (256 * 1024)
/* Output between two looks at the free space. */
#define LOOK_EVERY (16 * 1024 * 1024)

#define SEAL_MAGIC UINT64_C(0x7970637565676573)

/* A member of the compressed file. */
struct member {
	uint64_t end;     /* where it ends */
	uint8_t trail[8]; /* its last bytes; no member is shorter */
};

/* The end of a copy, behind the table of its members. */
struct seal {
	uint64_t magic;
	uint64_t size, packed_size, members;
	uint64_t hash[2]; /* XXH3-128 of the data */
	uint64_t check;   /* XXH3-64 of the table and of this, up to here */
};

struct inflation {
	const char *path, *target;
	const struct segue_packing *packing;
	const struct segue_file_format *format;
	char *temporary;
	int in, out;
	uint64_t keep_free;
	struct segue_progress *progress;
	z_stream stream;
	bool between;          /* a member has ended, none has begun */
	struct member *member; /* that have ended */
	uint64_t members, member_room;
	XXH3_state_t *hash;
	uint64_t taken, written, looked;
	uint8_t in_bytes[IN_SIZE], out_bytes[OUT_SIZE];
};

/* ---- Kinds of compression -------------------------------------------------------------------- */

/*
 * Two bytes: deflate (8) in a window of up to 32 KiB, no dictionary, a multiple of 31. A record of
 * that length whose header is damaged begins so, too, with zeros where zlib has none.
 */
static bool begins_zlib(const uint8_t *bytes, size_t size)
{
	static const uint8_t zeros[3];

	return size >= 2 && (bytes[0] & 0x8f) == 8 && !(bytes[1] & 0x20) &&
	       (bytes[0] << 8 | bytes[1]) % 31 == 0 &&
	       (size < 8 || memcmp(bytes + 5, zeros, sizeof(zeros)) != 0);
}

static const struct segue_packing packings[] = {
	{.name = "gzip",
		.unpack = "gunzip",
		.magic = {0x1f, 0x8b, 8},
		.size = 3,
		.compression = SEGUE_COMPRESSION_GZIP,
		.window_bits = 15 + 16,
		.header = 10},
	{.name = "zlib",
		.unpack = "zlib-flate -uncompress",
		.begins = begins_zlib,
		.compression = SEGUE_COMPRESSION_ZLIB,
		.window_bits = 15,
		.header = 2},
	{.name = "bzip2", .unpack = "bunzip2", .magic = {'B', 'Z', 'h'}, .size = 3},
	{.name = "zstd", .unpack = "unzstd", .magic = {0x28, 0xb5, 0x2f, 0xfd}, .size = 4},
	{.name = "lz4", .unpack = "unlz4", .magic = {0x04, 0x22, 0x4d, 0x18}, .size = 4},
	{.name = "xz", .unpack = "unxz", .magic = {0xfd, '7', 'z', 'X', 'Z', 0}, .size = 6},
};

const struct segue_packing *segue_packing_of(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < sizeof(packings) / sizeof(packings[0]); i++) {
		const struct segue_packing *one = &packings[i];

		if (one->begins ? one->begins(bytes, size)
				: size >= one->size && memcmp(bytes, one->magic, one->size) == 0)
			return one;
	}
	return NULL;
}

/* ---- Inflating ------------------------------------------------------------------------------- */

ssize_t segue_read_at(int fd, uint64_t position, void *bytes, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n =
			pread(fd, (uint8_t *)bytes + done, size - done, (off_t)(position + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static bool read_all(int fd, uint64_t position, void *bytes, size_t size)
{
	return segue_read_at(fd, position, bytes, size) == (ssize_t)size;
}

static int look_at_space(struct inflation *inflation)
{
	struct statvfs fs;

	if (fstatvfs(inflation->out, &fs) < 0)
		return segue_fail_errno(
			SEGUE_ESYSTEM, "cannot tell the free space for '%s'", inflation->temporary);
	inflation->looked = inflation->written;
	if ((uint64_t)fs.f_bavail * fs.f_frsize >= inflation->keep_free)
		return 0;
	return segue_fail(SEGUE_ENOSPACE,
		"%s: no room to inflate it: after %" PRIu64
		" bytes, the disk of '%s' has less than %" PRIu64
		" bytes free; make room, or inflate the file yourself elsewhere",
		inflation->path, inflation->written, inflation->target, inflation->keep_free);
}

static int check_first(struct inflation *inflation, size_t size)
{
	const struct segue_packing *packing = segue_packing_of(inflation->out_bytes, size);
	const struct segue_foreign *foreign = segue_foreign_of(inflation->out_bytes, size);

	if (inflation->written || size == 0 ||
		inflation->format->begins(inflation->out_bytes, size))
		return 0;
	if (foreign)
		return segue_fail(SEGUE_EDATA, "%s: what it inflates to is %s, no %s file: %s",
			inflation->path, foreign->name, inflation->format->name, foreign->advice);
	if (packing)
		return segue_fail(SEGUE_EDATA,
			"%s: compressed twice: what it inflates to is %s, not %s; undo one of them",
			inflation->path, packing->name, inflation->format->name);
	return segue_fail(SEGUE_EDATA,
		"%s: what it inflates to is no %s file; leave it out of the source's files",
		inflation->path, inflation->format->name);
}

static int write_all(struct inflation *inflation, const void *bytes, size_t size)
{
	if (segue_file_write(inflation->out, bytes, size) < 0)
		return segue_fail_errno(
			errno == ENOSPC || errno == EDQUOT ? SEGUE_ENOSPACE : SEGUE_ESYSTEM,
			"cannot write '%s'", inflation->temporary);
	return 0;
}

static int write_out(struct inflation *inflation, size_t size)
{
	int rc = check_first(inflation, size);

	if (!rc)
		rc = write_all(inflation, inflation->out_bytes, size);
	if (rc)
		return rc;
	XXH3_128bits_update(inflation->hash, inflation->out_bytes, size);
	inflation->written += size;
	if (inflation->written - inflation->looked < LOOK_EVERY)
		return 0;
	return look_at_space(inflation);
}

static int read_in(struct inflation *inflation)
{
	ssize_t n;

	do
		n = read(inflation->in, inflation->in_bytes, IN_SIZE);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return segue_fail_errno(SEGUE_ESOURCE, "%s: cannot be read", inflation->path);
	inflation->stream.next_in = inflation->in_bytes;
	inflation->stream.avail_in = (uInt)n;
	inflation->taken += (uint64_t)n;
	return segue_progress_add(inflation->progress, (uint64_t)n);
}

/* Offset in the compressed file of the next byte to inflate. */
static uint64_t place(const struct inflation *inflation)
{
	return inflation->taken - inflation->stream.avail_in;
}

static int damaged(struct inflation *inflation, int code)
{
	if (code == Z_MEM_ERROR)
		return segue_fail(SEGUE_ENOMEM, "no memory to inflate '%s'", inflation->path);
	if (inflation->members && inflation->stream.total_in <= inflation->packing->header)
		return segue_fail(SEGUE_EDATA,
			"%s: bytes that are no %s follow its end, near byte %" PRIu64
			"; copy or compress it anew",
			inflation->path, inflation->packing->name, place(inflation));
	return segue_fail(SEGUE_EDATA,
		"%s: damaged %s data near byte %" PRIu64 " (%s); copy or compress it anew",
		inflation->path, inflation->packing->name, place(inflation),
		inflation->stream.msg ? inflation->stream.msg : "no reason is given");
}

/* Inflates until the output is full or the input used up; 1: a member has ended. */
static int pump(struct inflation *inflation, size_t *size)
{
	z_stream *stream = &inflation->stream;
	int code = inflate(stream, Z_NO_FLUSH);

	*size = OUT_SIZE - stream->avail_out;
	if (code == Z_STREAM_END)
		return 1;
	return code == Z_OK || code == Z_BUF_ERROR ? 0 : damaged(inflation, code);
}

/* Gets more input if there is none; 1: the file has ended, and may. */
static int more(struct inflation *inflation)
{
	int rc = 0;

	if (inflation->stream.avail_in)
		return 0;
	rc = read_in(inflation);
	if (rc < 0 || inflation->stream.avail_in)
		return rc;
	if (inflation->between)
		return 1;
	return segue_fail(SEGUE_EDATA,
		"%s: %s data cut off at byte %" PRIu64 "; was it copied whole?", inflation->path,
		inflation->packing->name, place(inflation));
}

/* Notes the member that has just ended. */
static int end_member(struct inflation *inflation)
{
	uint64_t end = place(inflation);

	inflation->between = true;
	if (inflation->members == inflation->member_room) {
		uint64_t room = inflation->member_room ? 2 * inflation->member_room : 16;
		struct member *more = realloc(inflation->member, room * sizeof(*more));

		if (!more)
			return segue_fail(
				SEGUE_ENOMEM, "no memory to inflate '%s'", inflation->path);
		inflation->member = more;
		inflation->member_room = room;
	}
	struct member *member = &inflation->member[inflation->members++];
	member->end = end;
	if (read_all(inflation->in, end - sizeof(member->trail), member->trail,
		    sizeof(member->trail)))
		return 0;
	return segue_fail(SEGUE_ESOURCE, "%s: cannot be read at byte %" PRIu64, inflation->path,
		end - sizeof(member->trail));
}

/* Another member, if the file goes on. */
static int begin_member(struct inflation *inflation)
{
	if (inflateReset(&inflation->stream) != Z_OK)
		return segue_fail(SEGUE_ESYSTEM, "zlib cannot begin another member");
	inflation->between = false;
	return 0;
}

static int inflate_all(struct inflation *inflation)
{
	z_stream *stream = &inflation->stream;
	size_t size = 0;
	int rc;

	stream->next_out = inflation->out_bytes;
	stream->avail_out = OUT_SIZE;
	for (;;) {
		rc = more(inflation);
		if (rc)
			break;
		rc = inflation->between ? begin_member(inflation) : 0;
		if (!rc)
			rc = pump(inflation, &size);
		if (rc > 0)
			rc = end_member(inflation);
		if (rc)
			return rc;
		if (stream->avail_out)
			continue;
		rc = write_out(inflation, size);
		if (rc)
			return rc;
		stream->next_out = inflation->out_bytes;
		stream->avail_out = OUT_SIZE;
	}
	return rc < 0 ? rc : write_out(inflation, OUT_SIZE - stream->avail_out);
}

static int open_target(struct inflation *inflation)
{
	size_t size = strlen(inflation->target) + sizeof(".XXXXXX");

	inflation->temporary = malloc(size);
	if (!inflation->temporary)
		return segue_fail(SEGUE_ENOMEM, "no memory for a file's name");
	snprintf(inflation->temporary, size, "%s.XXXXXX", inflation->target);
	inflation->out = mkostemp(inflation->temporary, O_CLOEXEC);
	if (inflation->out < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make '%s'", inflation->temporary);
	return look_at_space(inflation);
}

static uint64_t check_of(const struct seal *seal, const struct member *member)
{
	XXH64_hash_t table = XXH3_64bits(member, seal->members * sizeof(*member));

	return XXH3_64bits_withSeed(seal, offsetof(struct seal, check), table);
}

static int put_seal(struct inflation *inflation)
{
	XXH128_hash_t hash = XXH3_128bits_digest(inflation->hash);
	struct seal seal = {
		.magic = SEAL_MAGIC,
		.size = inflation->written,
		.packed_size = inflation->taken,
		.members = inflation->members,
		.hash = {hash.low64, hash.high64},
	};

	seal.check = check_of(&seal, inflation->member);
	int rc = write_all(
		inflation, inflation->member, inflation->members * sizeof(*inflation->member));
	return rc ? rc : write_all(inflation, &seal, sizeof(seal));
}

static int keep(struct inflation *inflation)
{
	if (fsync(inflation->out) < 0)
		return segue_fail_errno(errno == ENOSPC ? SEGUE_ENOSPACE : SEGUE_ESYSTEM,
			"cannot sync '%s'", inflation->temporary);
	if (rename(inflation->temporary, inflation->target) < 0)
		return segue_fail_errno(
			SEGUE_ESYSTEM, "cannot rename a file to '%s'", inflation->target);
	return 0;
}

static int run(struct inflation *inflation)
{
	int rc = open_target(inflation);

	inflation->hash = XXH3_createState();
	if (inflation->hash)
		XXH3_128bits_reset(inflation->hash);
	else if (!rc)
		rc = segue_fail(SEGUE_ENOMEM, "no memory to inflate '%s'", inflation->path);
	if (!rc && inflateInit2(&inflation->stream, inflation->packing->window_bits) != Z_OK)
		rc = segue_fail(SEGUE_ENOMEM, "no memory to inflate '%s'", inflation->path);
	if (!rc)
		rc = inflate_all(inflation);
	if (!rc)
		rc = put_seal(inflation);
	if (!rc)
		rc = keep(inflation);
	/* Fine on a stream that was never set up. */
	inflateEnd(&inflation->stream);
	XXH3_freeState(inflation->hash);
	free(inflation->member);
	if (rc && inflation->out >= 0)
		unlink(inflation->temporary);
	return rc;
}

int segue_inflate_file(int in, const char *path, const struct segue_packing *packing,
	const char *target, const struct segue_file_format *format, uint64_t keep_free,
	struct segue_progress *progress)
{
	struct inflation *inflation = calloc(1, sizeof(*inflation));
	int rc;

	if (!inflation)
		return segue_fail(SEGUE_ENOMEM, "no memory to inflate '%s'", path);
	inflation->path = path;
	inflation->packing = packing;
	inflation->target = target;
	inflation->format = format;
	inflation->keep_free = keep_free;
	inflation->progress = progress;
	inflation->in = in;
	inflation->out = -1;
	rc = run(inflation);
	if (inflation->out >= 0)
		close(inflation->out);
	free(inflation->temporary);
	free(inflation);
	return rc;
}

/* ---- Copies ---------------------------------------------------------------------------------- */

/* The seal at the end of a copy, and its table, malloc'd: true if they are sound. */
static bool read_seal(int fd, struct seal *seal, struct member **member)
{
	struct stat st;

	*member = NULL;
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < sizeof(*seal))
		return false;
	uint64_t room = (uint64_t)st.st_size - sizeof(*seal);
	if (!read_all(fd, room, seal, sizeof(*seal)) || seal->magic != SEAL_MAGIC ||
		seal->members > room / sizeof(**member))
		return false;
	uint64_t table = seal->members * sizeof(**member);
	if (seal->size != room - table || !(*member = malloc(table + 1)))
		return false;
	return read_all(fd, seal->size, *member, table) && check_of(seal, *member) == seal->check;
}

/* Whether the compressed file has the members of which the copy was made. */
static bool same_members(int in, const struct seal *seal, const struct member *member)
{
	uint8_t trail[sizeof(member->trail)];
	struct stat st;

	if (fstat(in, &st) < 0 || (uint64_t)st.st_size != seal->packed_size)
		return false;
	for (uint64_t i = 0; i < seal->members; i++)
		if (!read_all(in, member[i].end - sizeof(trail), trail, sizeof(trail)) ||
			memcmp(trail, member[i].trail, sizeof(trail)) != 0)
			return false;
	return true;
}

int segue_copy_open(const char *target)
{
	return open(target, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

bool segue_copy_look(const char *target, int in, struct segue_copy *copy)
{
	struct member *member = NULL;
	struct seal seal;
	bool fits = false;
	int fd = segue_copy_open(target);

	if (fd < 0)
		return false;
	if (read_seal(fd, &seal, &member) && same_members(in, &seal, member)) {
		*copy = (struct segue_copy){
			.size = seal.size,
			.stored = seal.size + seal.members * sizeof(*member) + sizeof(seal),
			.seal = seal.check,
		};
		fits = true;
	}
	free(member);
	close(fd);
	return fits;
}

bool segue_copy_is(int fd, const struct segue_copy *copy)
{
	struct seal seal;
	struct stat st;

	return fstat(fd, &st) == 0 && (uint64_t)st.st_size == copy->stored &&
	       read_all(fd, copy->stored - sizeof(seal), &seal, sizeof(seal)) &&
	       seal.magic == SEAL_MAGIC && seal.check == copy->seal;
}

static int check_data(int fd, const struct seal *seal, uint8_t *bytes, XXH3_state_t *hash,
	struct segue_progress *progress)
{
	XXH3_128bits_reset(hash);
	for (uint64_t at = 0, size; at < seal->size; at += size) {
		size = seal->size - at < OUT_SIZE ? seal->size - at : OUT_SIZE;
		int rc = segue_progress_add(progress, size);

		if (rc)
			return rc;
		if (!read_all(fd, at, bytes, size))
			return 0;
		XXH3_128bits_update(hash, bytes, size);
	}
	XXH128_hash_t found = XXH3_128bits_digest(hash);
	return found.low64 == seal->hash[0] && found.high64 == seal->hash[1];
}

int segue_copy_check(int fd, const struct segue_copy *copy, struct segue_progress *progress)
{
	struct member *member = NULL;
	struct seal seal;
	XXH3_state_t *hash = XXH3_createState();
	uint8_t *bytes = malloc(OUT_SIZE);
	int rc = 0;

	if (!hash || !bytes)
		rc = segue_fail(SEGUE_ENOMEM, "no memory to check an inflated copy");
	else if (segue_copy_is(fd, copy) && read_seal(fd, &seal, &member))
		rc = check_data(fd, &seal, bytes, hash, progress);
	free(member);
	free(bytes);
	XXH3_freeState(hash);
	return rc;
}
