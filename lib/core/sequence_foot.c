/* Sequence files: their foot. docs/format.md draws the struct below. */
#include <inttypes.h>
#include <string.h>

#include "core/error.h"
#include "core/sequence_bytes.h"
#include "core/sequence_file.h"

struct foot_bytes {
	char magic[8];
	uint32_t version, head_size;
	uint64_t entries, index, steps;
	uint32_t key_max, reserved;
	uint64_t fingerprint[2];
	uint8_t zeros[60];
	uint32_t crc;
};

_Static_assert(sizeof(struct foot_bytes) == SEGUE_SEQFILE_FOOT, "docs/format.md");

static const char foot_magic[8] = "SEGUEEND";

void segue_seqfile_pack_foot(const struct segue_seqfile_foot *foot, void *out)
{
	struct foot_bytes bytes = {
		.version = SEGUE_SEQFILE_VERSION,
		.head_size = foot->head_size,
		.entries = foot->entries,
		.index = foot->index,
		.steps = foot->steps,
		.key_max = foot->key_max,
		.fingerprint = {foot->fingerprint[0], foot->fingerprint[1]},
	};

	memcpy(bytes.magic, foot_magic, sizeof(bytes.magic));
	memcpy(out, &bytes, sizeof(bytes));
	put_crc(out, sizeof(bytes));
}

/* Whether index and foot end where the file ends, with room for the entries before them. */
static bool foot_fits(const struct foot_bytes *foot, uint64_t file_size)
{
	/* At least a header and a column, each of its own 64 bytes. */
	const uint64_t least = 2 * SEGUE_SEQFILE_ALIGN;

	if (foot->head_size < SEGUE_SEQFILE_ALIGN || foot->head_size > SEGUE_SEQFILE_HEAD_MAX ||
		foot->head_size % SEGUE_SEQFILE_ALIGN || foot->index % SEGUE_SEQFILE_ALIGN)
		return false;
	if (foot->index < foot->head_size || foot->index > file_size - sizeof(*foot) ||
		foot->entries > (foot->index - foot->head_size) / least)
		return false;
	return file_size - sizeof(*foot) - foot->index == segue_seqfile_index_size(foot->entries);
}

static bool foot_counts(const struct foot_bytes *foot)
{
	if (foot->entries == 0)
		return foot->steps == 0 && foot->key_max == 0 && foot->index == foot->head_size;
	return foot->steps >= foot->entries && foot->steps / foot->entries <= UINT32_MAX &&
	       foot->key_max > 0 && foot->key_max <= SEGUE_KEY_MAX;
}

int segue_seqfile_read_foot(const void *bytes, uint64_t file_size, struct segue_seqfile_foot *out)
{
	struct foot_bytes foot;

	if (file_size < SEGUE_SEQFILE_ALIGN + sizeof(foot))
		return segue_fail(SEGUE_EINVAL,
			"the sequence file has no foot: it has %" PRIu64 " bytes", file_size);
	memcpy(&foot, bytes, sizeof(foot));
	if (memcmp(foot.magic, foot_magic, sizeof(foot.magic)) != 0)
		return segue_fail(SEGUE_EINVAL,
			"the sequence file has no foot: it was not finished, or it was cut (is "
			"somebody writing it?)");
	if (!is_sound(&foot, sizeof(foot)))
		return segue_fail(SEGUE_EDATA,
			"the foot of the sequence file is damaged: its checksum is wrong");
	if (foot.version != SEGUE_SEQFILE_VERSION)
		return segue_seqfile_fail_later("the version of the foot", foot.version);
	if (foot.reserved || !are_zeros(foot.zeros, sizeof(foot.zeros)))
		return segue_seqfile_fail_later("a reserved number", foot.reserved);
	if (!foot_fits(&foot, file_size) || !foot_counts(&foot))
		return segue_fail(SEGUE_EDATA,
			"the foot of the sequence file is not that of a file of %" PRIu64
			" bytes: the file was changed or cut",
			file_size);
	*out = (struct segue_seqfile_foot){
		.entries = foot.entries,
		.index = foot.index,
		.steps = foot.steps,
		.key_max = foot.key_max,
		.head_size = foot.head_size,
		.fingerprint = {foot.fingerprint[0], foot.fingerprint[1]},
	};
	return 0;
}
