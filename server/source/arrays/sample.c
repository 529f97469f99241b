/* Samples of a file. */
#include "source/arrays/sample.h"

#include <inttypes.h>

#include "core/digest.h"
#include "core/error.h"
#include "source/inflate.h"

static int add_block(
	struct segue_digest *digest, int fd, uint64_t position, size_t size, uint64_t file_size)
{
	uint8_t bytes[SEGUE_SAMPLE_BLOCK];
	ssize_t n = segue_read_at(fd, position, bytes, size);

	if (n < 0)
		return segue_fail_errno(SEGUE_ESOURCE, "cannot be read at byte %" PRIu64, position);
	if ((size_t)n < size)
		return segue_fail(SEGUE_ECHANGED,
			"ends at byte %" PRIu64 ", had %" PRIu64 " bytes; was it cut off?",
			position + (uint64_t)n, file_size);
	segue_digest_bytes(digest, bytes, size);
	return 0;
}

int segue_sample_file(int fd, uint64_t size, uint64_t hash[2])
{
	bool all = size <= (uint64_t)SEGUE_SAMPLE_BLOCK * SEGUE_SAMPLE_BLOCKS;
	struct segue_digest digest;
	int rc = 0;

	segue_digest_init(&digest);
	for (uint64_t at = 0; all && !rc && at < size; at += SEGUE_SAMPLE_BLOCK) {
		uint64_t left = size - at;

		rc = add_block(&digest, fd, at,
			left < SEGUE_SAMPLE_BLOCK ? (size_t)left : SEGUE_SAMPLE_BLOCK, size);
	}
	/* Evenly spread; no product of a file's size can overflow. */
	uint64_t last = all ? 0 : size - SEGUE_SAMPLE_BLOCK, parts = SEGUE_SAMPLE_BLOCKS - 1;
	for (uint64_t i = 0; !all && !rc && i <= parts; i++)
		rc = add_block(&digest, fd, last / parts * i + last % parts * i / parts,
			SEGUE_SAMPLE_BLOCK, size);
	segue_digest_finish(&digest, hash);
	return rc;
}
