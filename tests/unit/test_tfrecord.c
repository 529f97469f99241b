/* TFRecord framing: every record found where it was put, every damage to the framing seen. */
#include "source/tfrecord/framing.h"

#include "tfwrite.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define RECORDS 40

struct stream {
	struct segue_tfbytes bytes;
	size_t size;   /* as much of it as is read */
	uint64_t read; /* bytes that were asked for */
};

struct seen {
	uint64_t offset[RECORDS + 1], length[RECORDS + 1];
	uint32_t crc[RECORDS + 1];
	size_t count;
};

static int read_stream(void *arg, uint64_t position, void *bytes, size_t size)
{
	struct stream *stream = arg;

	cr_assert_leq(position + size, stream->size);
	memcpy(bytes, stream->bytes.bytes + position, size);
	stream->read += size;
	return SEGUE_OK;
}

static int note(void *arg, uint64_t offset, uint64_t length, uint32_t crc)
{
	struct seen *seen = arg;

	cr_assert_lt(seen->count, RECORDS);
	seen->offset[seen->count] = offset;
	seen->length[seen->count] = length;
	seen->crc[seen->count++] = crc;
	return SEGUE_OK;
}

static int hop(struct stream *stream, struct seen *seen)
{
	struct segue_progress progress = {.total = stream->size};

	seen->count = 0;
	return segue_tfrecord_hop(read_stream, stream, stream->size, note, seen, &progress);
}

static void add(struct stream *stream, size_t size)
{
	uint8_t *data = malloc(size + 1);

	for (size_t i = 0; i < size; i++)
		data[i] = (uint8_t)(i * 31 + size);
	segue_tfwrite_record(&stream->bytes, data, size);
	stream->size = stream->bytes.size;
	free(data);
}

static void count_calls(void *arg, const char *what, uint64_t done, uint64_t total)
{
	int *calls = arg;

	cr_assert_str_eq(what, "index");
	cr_assert_leq(done, total);
	(*calls)++;
}

Test(tfrecord, finds_every_record)
{
	static const size_t sizes[] = {0, 1, 17, 100, 4096, 70000, 3, 300000, 65536, 5, 600000, 0};
	struct stream stream = {.size = 0};
	struct seen seen;
	uint64_t at = 0;
	int calls = 0;
	struct segue_progress progress = {.fn = count_calls, .arg = &calls, .what = "index"};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		add(&stream, sizes[i]);
	cr_assert_eq(hop(&stream, &seen), SEGUE_OK);
	cr_assert_eq(seen.count, sizeof(sizes) / sizeof(sizes[0]));
	for (size_t i = 0; i < seen.count; i++) {
		cr_assert_eq(seen.offset[i], at);
		cr_assert_eq(seen.length[i], sizes[i]);
		cr_assert_eq(
			seen.crc[i], segue_tfwrite_crc(stream.bytes.bytes + at + 12, sizes[i]));
		at += 16 + sizes[i];
	}
	progress.total = stream.size;
	seen.count = 0;
	cr_assert_eq(segue_tfrecord_hop(read_stream, &stream, stream.size, note, &seen, &progress),
		SEGUE_OK);
	cr_assert_gt(calls, 0);
	cr_assert_eq(progress.done, progress.total);
	segue_tfbytes_free(&stream.bytes);
}

/* Large records are hopped over, not read. */
Test(tfrecord, hops)
{
	struct stream stream = {.size = 0};
	struct seen seen;

	for (int i = 0; i < 20; i++)
		add(&stream, 1000000);
	cr_assert_eq(hop(&stream, &seen), SEGUE_OK);
	cr_assert_eq(seen.count, 20);
	cr_assert_lt(stream.read, 400000);
	segue_tfbytes_free(&stream.bytes);
}

Test(tfrecord, nothing_is_no_record)
{
	struct stream stream = {.size = 0};
	struct seen seen;

	cr_assert_eq(hop(&stream, &seen), SEGUE_OK);
	cr_assert_eq(seen.count, 0);
}

Test(tfrecord, cut_off_anywhere)
{
	struct stream stream = {.size = 0};
	struct seen seen;
	size_t all;

	add(&stream, 30);
	add(&stream, 0);
	add(&stream, 9);
	all = stream.size;
	for (stream.size = 1; stream.size < all; stream.size++) {
		int rc = hop(&stream, &seen);

		if (stream.size == 46 || stream.size == 62) {
			cr_assert_eq(rc, SEGUE_OK);
			continue;
		}
		cr_assert_eq(rc, SEGUE_EDATA, "%zu", stream.size);
		cr_assert(
			strstr(segue_error_detail(), "ends within it"), "%s", segue_error_detail());
	}
	segue_tfbytes_free(&stream.bytes);
}

/* A flip in a header is seen by its checksum; elsewhere it does not change where records are. */
Test(tfrecord, flips)
{
	struct stream stream = {.size = 0};
	struct seen seen;

	add(&stream, 5);
	add(&stream, 7);
	for (size_t bit = 0; bit < 8 * stream.size; bit++) {
		size_t byte = bit / 8;
		bool header = byte < 12 || (byte >= 21 && byte < 33);

		stream.bytes.bytes[byte] ^= (uint8_t)(1 << bit % 8);
		cr_assert_eq(hop(&stream, &seen), header ? SEGUE_EDATA : SEGUE_OK, "bit %zu", bit);
		if (header)
			cr_assert(strstr(segue_error_detail(),
				byte < 12 ? "record at byte 0:" : "record at byte 21:"));
		stream.bytes.bytes[byte] ^= (uint8_t)(1 << bit % 8);
	}
	segue_tfbytes_free(&stream.bytes);
}

static void put_header(struct stream *stream, uint64_t length)
{
	uint32_t crc = segue_tfwrite_crc(&length, 8);

	segue_tfbytes_put(&stream->bytes, &length, 8);
	segue_tfbytes_put(&stream->bytes, &crc, 4);
	stream->size = stream->bytes.size;
}

Test(tfrecord, absurd_lengths)
{
	static const uint64_t lengths[] = {
		1, 5, UINT64_C(1) << 63, UINT64_MAX, UINT64_MAX - 15, UINT64_MAX - 16};
	struct seen seen;

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct stream stream = {.size = 0};

		put_header(&stream, lengths[i]);
		segue_tfbytes_put(&stream.bytes, "abcd", 4);
		stream.size += 4;
		cr_assert_eq(hop(&stream, &seen), SEGUE_EDATA);
		segue_tfbytes_free(&stream.bytes);
	}
}

/* What a crash of a writer, or a file system, leaves behind. */
Test(tfrecord, zero_bytes_at_the_end)
{
	static const uint8_t zeros[64];
	struct stream stream = {.size = 0};
	struct seen seen;

	add(&stream, 10);
	segue_tfbytes_put(&stream.bytes, zeros, sizeof(zeros));
	stream.size = stream.bytes.size;
	cr_assert_eq(hop(&stream, &seen), SEGUE_EDATA);
	cr_assert(strstr(segue_error_detail(), "record at byte 26:"), "%s", segue_error_detail());
	segue_tfbytes_free(&stream.bytes);
}

Test(tfrecord, not_tfrecord_at_all)
{
	struct stream stream = {.size = 0};
	struct seen seen;

	segue_tfbytes_put(&stream.bytes, "time,value\n1,2\n3,4\n", 19);
	stream.size = 19;
	cr_assert_eq(hop(&stream, &seen), SEGUE_EDATA);
	cr_assert(strstr(segue_error_detail(), "is this a TFRecord file?"));
	segue_tfbytes_free(&stream.bytes);
}

static int fail(void *arg, uint64_t position, void *bytes, size_t size)
{
	(void)arg, (void)position, (void)bytes, (void)size;
	return SEGUE_ESOURCE;
}

Test(tfrecord, passes_errors_on)
{
	struct segue_progress progress = {.total = 100};
	struct seen seen = {.count = 0};

	cr_assert_eq(segue_tfrecord_hop(fail, NULL, 100, note, &seen, &progress), SEGUE_ESOURCE);
}
