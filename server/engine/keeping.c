/* What a lane has kept, as its store has it: looked up, and gone back to. */
#include "engine/keeping.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/digest.h"
#include "core/error.h"
#include "store/checkpoints.h"
#include "store/finals.h"
#include "store/row.h"
#include "store/token.h"

uint64_t segue_keeping_origin(const struct segue_spec *spec, const uint8_t token[SEGUE_TOKEN_BYTES])
{
	return spec->initial == SEGUE_INITIAL_KEPT ? XXH3_64bits(token, SEGUE_TOKEN_BYTES) : 0;
}

int segue_keeping_load(void *arg, const char *key, size_t size, struct segue_initials_found *found)
{
	const struct segue_keeping *keeping = arg;
	struct segue_final final;

	int rc = segue_finals_newest(keeping->store, keeping->place, keeping->place.lane + 1,
		keeping->row_size, key, size, NULL, &final);
	if (rc)
		return rc;
	if (final.kind == SEGUE_FINAL_NONE)
		return SEGUE_ENOTFOUND;
	*found = (struct segue_initials_found){final.number, final.row.states, final.value};
	return 0;
}

/* Whether a stored checkpoint is of that step of that future. */
static int is_of(const struct segue_grant_order *order, const struct segue_catalogue_entry *entry,
	uint64_t origin, bool *out)
{
	struct segue_token_record head;
	struct segue_image *image;
	size_t size;
	void *token;

	int rc = segue_checkpoints_load(order->store, order->place, entry->id, &token, &size);
	if (rc)
		return rc;
	rc = segue_token_decode(&order->plan, token, size, &head, &image);
	free(token);
	if (rc)
		return rc;
	*out = head.origin == origin;
	free(head.position);
	segue_image_destroy(image);
	return 0;
}

int segue_keeping_fits(
	const struct segue_grant_order *order, const struct segue_token_record *head, uint64_t step)
{
	struct segue_catalogue catalogue = {.count = 0};
	bool found = false;
	int rc = 0;

	if (order->spec->initial != SEGUE_INITIAL_KEPT)
		return 0;
	rc = segue_catalogue_load(order->store, order->place, &catalogue);
	for (uint32_t i = 0; i < catalogue.count && !rc && !found; i++)
		if (catalogue.entry[i].step == step)
			rc = is_of(order, &catalogue.entry[i], head->origin, &found);
	if (rc || found)
		return rc;
	return segue_fail(SEGUE_ETOKEN,
		"the token of step %" PRIu64 " is none that this store can go back to: with "
		"initial=\"kept\" rows begin with what "
		"the store has kept, and that can be taken back to the lane's checkpoints in the "
		"store alone ('segue checkpoint list' shows them, keep_checkpoints says how many "
		"there are), not to one that is gone, of another store, or of a future that it has "
		"gone back behind",
		step);
}
