/* Checksums of files, block by block. */
#include "source/arrays/sums.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"
#include "core/error.h"

#define BLOCK SEGUE_SUMS_BLOCK
#define PIECE (1 << 20) /* bytes that are read at once where all are */

void segue_sums_name(const uint64_t fingerprint[2], char name[SEGUE_KEPT_NAME_SIZE])
{
	snprintf(name, SEGUE_KEPT_NAME_SIZE, "sums-%016" PRIx64 "%016" PRIx64, fingerprint[1],
		fingerprint[0]);
}

void segue_sums_close(struct segue_sums *sums)
{
	free(sums->sum);
	free(sums->first);
	memset(sums, 0, sizeof(*sums));
}

size_t segue_sums_memory(const struct segue_sums *sums, const struct segue_files *files)
{
	if (!sums->sum)
		return 0;
	return sums->first[files->count] * sizeof(sums->sum[0]) +
	       (files->count + 1) * sizeof(sums->first[0]);
}

/* ---- Making ---------------------------------------------------------------------------------- */

static int count_blocks(struct segue_sums *sums, const struct segue_files *files)
{
	sums->first = calloc(files->count + 1, sizeof(sums->first[0]));
	if (!sums->first)
		return segue_fail(SEGUE_ENOMEM, "no memory for checksums");
	for (size_t i = 0; i < files->count; i++)
		sums->first[i + 1] = sums->first[i] + (files->file[i].size + BLOCK - 1) / BLOCK;
	return 0;
}

static int make_file(struct segue_sums *sums, struct segue_files *files, size_t file,
	uint8_t *piece, struct segue_progress *told)
{
	uint32_t *sum = sums->sum + sums->first[file];
	uint64_t size = files->file[file].size;
	int rc = 0;

	for (uint64_t at = 0; !rc && at < size; at += PIECE) {
		size_t part = size - at < PIECE ? (size_t)(size - at) : PIECE;

		rc = segue_files_read(files, file, at, piece, part);
		for (size_t k = 0; !rc && k < part; k += BLOCK)
			*sum++ = segue_crc32c(
				0, piece + k, part - k < BLOCK ? part - k : (size_t)BLOCK);
		if (!rc)
			rc = segue_progress_add(told, part);
	}
	return rc;
}

static int make(
	struct segue_sums *sums, struct segue_files *files, const struct segue_source_means *means)
{
	struct segue_progress told = {.fn = means->progress,
		.arg = means->arg,
		.what = "checksums",
		.given_up = files->opener.given_up};
	uint8_t *piece = malloc(PIECE);
	int rc = 0;

	sums->sum = malloc(sums->first[files->count] * sizeof(sums->sum[0]) + 1);
	if (!piece || !sums->sum)
		rc = segue_fail(SEGUE_ENOMEM, "no memory for checksums");
	for (size_t i = 0; i < files->count; i++)
		told.total += files->file[i].size;
	for (size_t i = 0; !rc && i < files->count; i++)
		rc = make_file(sums, files, i, piece, &told);
	free(piece);
	return rc;
}

int segue_sums_open(struct segue_sums *sums, struct segue_files *files,
	const uint64_t fingerprint[2], bool keep, const struct segue_source_means *means)
{
	const struct segue_index_keeper *keeper = means->keeper;
	char name[SEGUE_KEPT_NAME_SIZE];
	void *bytes = NULL;
	size_t size = 0;

	int rc = count_blocks(sums, files);
	if (rc)
		return rc;
	uint64_t wanted = sums->first[files->count] * sizeof(sums->sum[0]);
	segue_sums_name(fingerprint, name);
	rc = keeper->load(keeper->arg, name, &bytes, &size);
	if (!rc && size == wanted) {
		sums->sum = bytes;
		return 0;
	}
	if (!rc)
		free(bytes);
	if (rc && rc != SEGUE_ENOTFOUND)
		return rc;
	rc = make(sums, files, means);
	return rc || !keep ? rc : keeper->save(keeper->arg, name, sums->sum, wanted);
}

/* ---- Reading --------------------------------------------------------------------------------- */

static int check_block(const struct segue_sums *sums, const struct segue_files *files, size_t file,
	uint64_t block, const uint8_t *bytes, size_t size)
{
	if (segue_crc32c(0, bytes, size) == sums->sum[sums->first[file] + block])
		return 0;
	return segue_fail(SEGUE_ECHANGED,
		"%s: bytes %" PRIu64 " to %" PRIu64
		" are not what they were when the stream was made" SEGUE_CHANGED_ADVICE,
		files->file[file].path, block * BLOCK, block * BLOCK + size - 1);
}

/* Whole blocks go straight to their place: up to `size` bytes of them, *done in truth. */
static int read_whole(const struct segue_sums *sums, struct segue_files *files, size_t file,
	uint64_t position, uint8_t *bytes, size_t size, size_t *done)
{
	bool to_the_end = position + size == files->file[file].size;
	size_t all = to_the_end ? size : size / BLOCK * BLOCK;
	int rc = segue_files_read(files, file, position, bytes, all);

	for (size_t at = 0; !rc && at < all; at += BLOCK)
		rc = check_block(sums, files, file, (position + at) / BLOCK, bytes + at,
			all - at < BLOCK ? all - at : (size_t)BLOCK);
	*done = all;
	return rc;
}

/* Part of one block, by way of the block. */
static int read_part(const struct segue_sums *sums, struct segue_files *files, size_t file,
	uint64_t position, uint8_t *bytes, size_t size, size_t *done)
{
	uint64_t block = position / BLOCK, left = files->file[file].size - block * BLOCK;
	size_t whole = left < BLOCK ? (size_t)left : BLOCK, from = (size_t)(position % BLOCK);
	uint8_t buffer[BLOCK];
	int rc = segue_files_read(files, file, block * BLOCK, buffer, whole);

	*done = size < whole - from ? size : whole - from;
	if (!rc)
		rc = check_block(sums, files, file, block, buffer, whole);
	if (!rc)
		memcpy(bytes, buffer + from, *done);
	return rc;
}

int segue_sums_read(const struct segue_sums *sums, struct segue_files *files, size_t file,
	uint64_t position, void *bytes, size_t size)
{
	uint8_t *out = bytes;
	size_t done;
	int rc = 0;

	for (; !rc && size; position += done, out += done, size -= done) {
		bool whole = position % BLOCK == 0 &&
			     (size >= BLOCK || position + size == files->file[file].size);

		rc = whole ? read_whole(sums, files, file, position, out, size, &done)
			   : read_part(sums, files, file, position, out, size, &done);
	}
	return rc;
}
