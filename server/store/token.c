/* Tokens: an image with a head, as bytes. */
#include "store/token.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/error.h"
#include "lane/carry.h"

enum {
	TOKEN_FORMAT = 1,
	TOKEN_HEAD = 16,
	TOKEN_SUM = 16,
	TOKEN_ROW = 4 * 10, /* what the position says of a row, at most */
	TOKEN_REST = 4096,  /* more than all that is neither of a row nor its states */
};

static const char token_magic[4] = {'S', 'E', 'G', 'T'};

int segue_token_encode(const struct segue_token_record *head, const struct segue_image *image,
	void **out, size_t *size)
{
	struct segue_token_record record = *head;
	uint64_t states = segue_position_count(image->position) * image->row_size;
	const uint32_t format = TOKEN_FORMAT;
	size_t head_size;
	void *packed;

	record.position = image->position;
	record.row_size = image->row_size;
	int rc = segue_token_record_pack(&record, &packed, &head_size);
	if (rc)
		return rc;
	size_t total = TOKEN_HEAD + head_size + states + TOKEN_SUM;
	uint8_t *bytes = malloc(total), *at = bytes;
	if (!bytes) {
		free(packed);
		return segue_fail(SEGUE_ENOMEM, "no memory for a token of %zu bytes", total);
	}
	const uint64_t head_size64 = head_size;
	memcpy(at, token_magic, sizeof(token_magic));
	memcpy(at + 4, &format, sizeof(format));
	memcpy(at + 8, &head_size64, sizeof(head_size64));
	memcpy(at + TOKEN_HEAD, packed, head_size);
	memcpy(at + TOKEN_HEAD + head_size, image->states, states);
	XXH128_canonicalFromHash((XXH128_canonical_t *)(at + total - TOKEN_SUM),
		XXH3_128bits(bytes, total - TOKEN_SUM));
	free(packed);
	*out = bytes;
	*size = total;
	return 0;
}

uint64_t segue_token_max(const struct segue_spec *spec, uint32_t places)
{
	return places * (segue_row_size(spec) + TOKEN_ROW) +
	       (uint64_t)segue_spec_window(spec) * TOKEN_ROW + TOKEN_REST;
}

/* Checks frame and sum; the head's bytes are bytes[TOKEN_HEAD, TOKEN_HEAD + *head_size). */
static int check_token(const uint8_t *bytes, size_t size, uint64_t *head_size)
{
	XXH128_canonical_t sum;
	uint32_t format;

	if (size < TOKEN_HEAD + TOKEN_SUM || memcmp(bytes, token_magic, sizeof(token_magic)) != 0)
		return segue_fail(SEGUE_ETOKEN,
			"%zu bytes that are no token of segue (state_dict() makes them)", size);
	memcpy(&format, bytes + 4, sizeof(format));
	memcpy(head_size, bytes + 8, sizeof(*head_size));
	if (format != TOKEN_FORMAT)
		return segue_fail(SEGUE_ETOKEN,
			"the token has format %u, this version of segue reads %u: use the version "
			"that made it, or a later one",
			format, TOKEN_FORMAT);
	XXH128_canonicalFromHash(&sum, XXH3_128bits(bytes, size - TOKEN_SUM));
	if (memcmp(&sum, bytes + size - TOKEN_SUM, TOKEN_SUM) != 0)
		return segue_fail(SEGUE_ETOKEN, "the token is damaged: its checksum does not fit "
						"its bytes; go back to another checkpoint");
	if (*head_size > size - TOKEN_HEAD - TOKEN_SUM)
		return segue_fail(
			SEGUE_ETOKEN, "the token is cut short; go back to another checkpoint");
	return 0;
}

int segue_token_decode(const struct segue_plan_spec *plan, const void *bytes, size_t size,
	struct segue_token_record *head, struct segue_image **out)
{
	const uint8_t *at = bytes;
	struct segue_token_record record;
	uint64_t head_size = 0;

	int rc = check_token(at, size, &head_size);
	if (rc)
		return rc;
	rc = segue_token_record_unpack(at + TOKEN_HEAD, head_size, &record);
	if (rc)
		return segue_fail_within(segue_as_damage(rc, SEGUE_ETOKEN), "the token's head");
	uint64_t states = size - TOKEN_HEAD - head_size - TOKEN_SUM, wanted;
	uint32_t count = segue_position_count(record.position);
	if ((!record.position->sized && count > record.batch_size) ||
		__builtin_mul_overflow(record.row_size, count, &wanted) || wanted != states) {
		free(record.position);
		return segue_fail(SEGUE_ETOKEN,
			"the token's states do not fit its rows; go back to another checkpoint");
	}
	struct segue_image *image = segue_image_create(plan, record.position, record.row_size);
	if (!image) {
		free(record.position);
		return segue_fail(SEGUE_ENOMEM, "no memory for a token's states");
	}
	memcpy(image->states, at + TOKEN_HEAD + head_size, states);
	*head = record;
	*out = image;
	return 0;
}
