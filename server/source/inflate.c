/* Inflating a gzip file into another, piece by piece. */
#include "source/inflate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <zlib.h>

#include "core/error.h"
#include "source/tfrecord/framing.h"

#define IN_SIZE  (64 * 1024)
#define OUT_SIZE (256 * 1024)
/* Output between two looks at the free space. */
#define LOOK_EVERY (16 * 1024 * 1024)

struct inflation {
	const char *path, *target;
	char *temporary;
	int in, out;
	uint64_t keep_free;
	struct segue_progress *progress;
	z_stream stream;
	bool between;     /* a member has ended, none has begun */
	uint64_t members; /* that have ended */
	uint64_t taken, written, looked;
	uint8_t in_bytes[IN_SIZE], out_bytes[OUT_SIZE];
};

bool segue_inflate_is_gzip(const uint8_t *bytes, size_t size)
{
	return size >= 3 && bytes[0] == 0x1f && bytes[1] == 0x8b && bytes[2] == 8;
}

static int look_at_space(struct inflation *inflation)
{
	struct statvfs fs;

	if (fstatvfs(inflation->out, &fs) < 0)
		return segue_fail_errno(
			SEGUE_ESYSTEM, "cannot tell the free space for '%s'", inflation->temporary);
	inflation->looked = inflation->written;
	if ((uint64_t)fs.f_bavail * fs.f_frsize >= inflation->keep_free)
		return SEGUE_OK;
	return segue_fail(SEGUE_ENOSPACE,
		"%s: no room to inflate it: after %ju bytes, '%s' has less than %ju bytes free; "
		"make room, or inflate the file yourself elsewhere",
		inflation->path, (uintmax_t)inflation->written, inflation->target,
		(uintmax_t)inflation->keep_free);
}

/* The first bytes of a TFRecord file carry a checksum. */
static int check_first(struct inflation *inflation, size_t size)
{
	uint64_t length;

	if (inflation->written || size == 0)
		return SEGUE_OK;
	if (size >= SEGUE_TFRECORD_HEADER && segue_tfrecord_length(inflation->out_bytes, &length))
		return SEGUE_OK;
	return segue_fail(SEGUE_EDATA, "%s: what it inflates to is not TFRecord", inflation->path);
}

static int write_out(struct inflation *inflation, size_t size)
{
	int rc = check_first(inflation, size);

	if (rc < 0)
		return rc;
	for (size_t done = 0; done < size;) {
		ssize_t n = write(inflation->out, inflation->out_bytes + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return segue_fail_errno(
				errno == ENOSPC || errno == EDQUOT ? SEGUE_ENOSPACE : SEGUE_ESYSTEM,
				"cannot write '%s'", inflation->temporary);
		done += (size_t)n;
	}
	inflation->written += size;
	if (inflation->written - inflation->looked < LOOK_EVERY)
		return SEGUE_OK;
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
static uintmax_t place(const struct inflation *inflation)
{
	return (uintmax_t)(inflation->taken - inflation->stream.avail_in);
}

static int damaged(struct inflation *inflation, int code)
{
	if (code == Z_MEM_ERROR)
		return segue_fail(SEGUE_ENOMEM, "no memory to inflate '%s'", inflation->path);
	/* Ten bytes are the shortest header. */
	if (inflation->members && inflation->stream.total_in <= 10)
		return segue_fail(SEGUE_EDATA,
			"%s: bytes that are no gzip follow its end, near "
			"byte %ju",
			inflation->path, place(inflation));
	return segue_fail(SEGUE_EDATA, "%s: damaged gzip data near byte %ju: %s", inflation->path,
		place(inflation), inflation->stream.msg ? inflation->stream.msg : "?");
}

/* Inflates until the output is full or the input used up; 1: a member has ended. */
static int pump(struct inflation *inflation, size_t *size)
{
	z_stream *stream = &inflation->stream;
	int code = inflate(stream, Z_NO_FLUSH);

	*size = OUT_SIZE - stream->avail_out;
	if (code == Z_STREAM_END)
		return 1;
	return code == Z_OK || code == Z_BUF_ERROR ? SEGUE_OK : damaged(inflation, code);
}

/* Gets more input if there is none; 1: the file has ended, and may. */
static int more(struct inflation *inflation)
{
	int rc = SEGUE_OK;

	if (inflation->stream.avail_in)
		return SEGUE_OK;
	rc = read_in(inflation);
	if (rc < 0 || inflation->stream.avail_in)
		return rc;
	if (inflation->between)
		return 1;
	return segue_fail(SEGUE_EDATA, "%s: gzip data cut off at byte %ju", inflation->path,
		place(inflation));
}

/* Another member, if the file goes on. */
static int begin_member(struct inflation *inflation)
{
	if (inflateReset(&inflation->stream) != Z_OK)
		return segue_fail(SEGUE_ESYSTEM, "zlib cannot begin another member");
	inflation->between = false;
	return SEGUE_OK;
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
		if (rc != SEGUE_OK)
			break;
		rc = inflation->between ? begin_member(inflation) : SEGUE_OK;
		if (rc == SEGUE_OK)
			rc = pump(inflation, &size);
		if (rc < 0)
			return rc;
		inflation->between = rc == 1;
		inflation->members += rc == 1;
		if (stream->avail_out)
			continue;
		rc = write_out(inflation, size);
		if (rc < 0)
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

static int keep(struct inflation *inflation)
{
	if (fsync(inflation->out) < 0)
		return segue_fail_errno(errno == ENOSPC ? SEGUE_ENOSPACE : SEGUE_ESYSTEM,
			"cannot sync '%s'", inflation->temporary);
	if (rename(inflation->temporary, inflation->target) < 0)
		return segue_fail_errno(
			SEGUE_ESYSTEM, "cannot rename a file to '%s'", inflation->target);
	return SEGUE_OK;
}

static int run(struct inflation *inflation)
{
	int rc = open_target(inflation);

	if (rc == SEGUE_OK && inflateInit2(&inflation->stream, 15 + 16) != Z_OK)
		rc = segue_fail(SEGUE_ENOMEM, "no memory to inflate '%s'", inflation->path);
	if (rc == SEGUE_OK)
		rc = inflate_all(inflation);
	if (rc == SEGUE_OK)
		rc = keep(inflation);
	/* Fine on a stream that was never set up. */
	inflateEnd(&inflation->stream);
	if (rc < 0 && inflation->out >= 0)
		unlink(inflation->temporary);
	return rc;
}

int segue_inflate_file(int in, const char *path, const char *target, uint64_t keep_free,
	struct segue_progress *progress)
{
	struct inflation *inflation = calloc(1, sizeof(*inflation));
	int rc;

	if (!inflation)
		return segue_fail(SEGUE_ENOMEM, "no memory to inflate '%s'", path);
	inflation->path = path;
	inflation->target = target;
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
