/* TFRecord framing: checking a header, hopping from record to record. */
#include "source/tfrecord/framing.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"
#include "core/error.h"

/* Read at once: much where records are short, little where their data are only hopped over. */
#define CHUNK_LARGE (256 * 1024)
#define CHUNK_SMALL 4096
#define SHORT       (64 * 1024)

struct hop {
	segue_read_fn *read;
	void *arg;
	uint64_t size;
	uint8_t *bytes; /* the stream's [start, end) */
	uint64_t start, end;
	size_t chunk;
};

bool segue_tfrecord_length(const uint8_t header[SEGUE_TFRECORD_HEADER], uint64_t *length)
{
	uint32_t crc;

	memcpy(&crc, header + 8, sizeof(crc));
	if (crc != segue_crc32c_mask(segue_crc32c(0, header, 8)))
		return false;
	memcpy(length, header, sizeof(*length));
	return true;
}

static bool begins(const uint8_t *bytes, size_t size)
{
	uint64_t length;

	return size >= SEGUE_TFRECORD_HEADER && segue_tfrecord_length(bytes, &length);
}

const struct segue_file_format segue_tfrecord_format = {"TFRecord", begins};

/* Points *bytes at [at, at + size), which lies within the stream. */
static int look(struct hop *hop, uint64_t at, size_t size, const uint8_t **bytes)
{
	if (at < hop->start || at + size > hop->end) {
		uint64_t left = hop->size - at;
		size_t chunk = left < hop->chunk ? (size_t)left : hop->chunk;
		int rc = hop->read(hop->arg, at, hop->bytes, chunk);

		hop->start = hop->end = at;
		if (rc)
			return rc;
		hop->end = at + chunk;
	}
	*bytes = hop->bytes + (at - hop->start);
	return 0;
}

static int cut_off(uint64_t at, uint64_t size)
{
	return segue_fail(SEGUE_EDATA,
		"record at byte %" PRIu64 ": the file ends within it, at byte %" PRIu64
		"; was it copied whole?",
		at, size);
}

static int take_length(struct hop *hop, uint64_t at, uint64_t *length)
{
	const uint8_t *bytes;
	int rc;

	if (hop->size - at < SEGUE_TFRECORD_HEADER)
		return cut_off(at, hop->size);
	rc = look(hop, at, SEGUE_TFRECORD_HEADER, &bytes);
	if (rc)
		return rc;
	if (!segue_tfrecord_length(bytes, length))
		return segue_fail(SEGUE_EDATA,
			"record at byte %" PRIu64 ": the checksum of its length is wrong%s", at,
			at ? "; from here on the file is damaged: copy or make it anew"
			   : " (is this a TFRecord file?)");
	if (hop->size - at < SEGUE_TFRECORD_HEADER + SEGUE_TFRECORD_FOOTER ||
		*length > hop->size - at - SEGUE_TFRECORD_HEADER - SEGUE_TFRECORD_FOOTER)
		return cut_off(at, hop->size);
	return 0;
}

static int hop_all(
	struct hop *hop, segue_tfrecord_visit_fn *visit, void *arg, struct segue_progress *progress)
{
	for (uint64_t at = 0, next; at < hop->size; at = next) {
		const uint8_t *bytes;
		uint64_t length = 0;
		uint32_t crc;
		int rc = take_length(hop, at, &length);

		if (rc)
			return rc;
		hop->chunk = length < SHORT ? CHUNK_LARGE : CHUNK_SMALL;
		next = at + SEGUE_TFRECORD_HEADER + length;
		rc = look(hop, next, SEGUE_TFRECORD_FOOTER, &bytes);
		if (rc)
			return rc;
		memcpy(&crc, bytes, sizeof(crc));
		next += SEGUE_TFRECORD_FOOTER;
		rc = visit(arg, at, length, crc);
		if (rc)
			return rc;
		rc = segue_progress_add(progress, next - at);
		if (rc)
			return rc;
	}
	return 0;
}

int segue_tfrecord_hop(segue_read_fn *read, void *read_arg, uint64_t size,
	segue_tfrecord_visit_fn *visit, void *visit_arg, struct segue_progress *progress)
{
	struct hop hop = {.read = read, .arg = read_arg, .size = size, .chunk = CHUNK_LARGE};
	int rc;

	hop.bytes = malloc(CHUNK_LARGE);
	if (!hop.bytes)
		return segue_fail(SEGUE_ENOMEM, "no memory to read a file");
	rc = hop_all(&hop, visit, visit_arg, progress);
	free(hop.bytes);
	return rc;
}
