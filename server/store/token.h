/*
 * Tokens: magic "SEGT", format u32, head size u64, TokenRecord, states (of the rows, then of the
 * parked ones: row_size each), XXH3-128 of all before it (docs/token.md).
 */
#ifndef SEGUE_STORE_TOKEN_H
#define SEGUE_STORE_TOKEN_H

#include "core/wire.h"
#include "lane/image.h"

/* `head`->position is not looked at: the image's is taken. The caller frees *out. */
int segue_token_encode(const struct segue_token_record *head, const struct segue_image *image,
	void **out, size_t *size);
/*
 * No token of a lane of such a stream with so many places (segue_plan_places) is larger; it may be
 * a few thousand bytes too much.
 */
uint64_t segue_token_max(const struct segue_spec *spec, uint32_t places);
/*
 * `plan` says which rows of the image live. SEGUE_ETOKEN: not a token, of a later format, damaged.
 * The caller frees head->position and the image.
 */
int segue_token_decode(const struct segue_plan_spec *plan, const void *bytes, size_t size,
	struct segue_token_record *head, struct segue_image **out);

#endif
