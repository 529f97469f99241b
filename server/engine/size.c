/* Batch sizes that a lane may be given. */
#include "engine/size.h"

#include <inttypes.h>

#include "core/error.h"
#include "engine/looked.h"
#include "store/store.h"
#include "store/token.h"

/* All that is unfinished while the ring is full: as for the stream's own, core/spec_source.h. */
static int check_capacity(
	const struct segue_spec *spec, const struct segue_live *live, uint32_t batch_size)
{
	uint64_t least = segue_spec_window(spec) + (uint64_t)(spec->depth + 2) * batch_size;
	uint64_t capacity = segue_live_capacity(live);

	if (least <= capacity)
		return 0;
	return segue_fail(SEGUE_EINVAL,
		"stream '%s': batches of %" PRIu32 " rows need a capacity of %" PRIu64
		" sequences of its log, %s(depth + 2) * batch_size, and it was opened with %" PRIu64
		": open it with that capacity (segue.Push), or give a smaller batch_size",
		spec->name, batch_size, least, segue_spec_window(spec) ? "window + " : "",
		capacity);
}

int segue_size_check(
	const struct segue_spec *spec, const struct segue_live *live, uint32_t batch_size)
{
	if (batch_size == spec->batch_size)
		return 0;
	if (spec->tail == SEGUE_TAIL_PAD)
		return segue_fail(SEGUE_EINVAL,
			"stream '%s' has tail=\"pad\", which keeps the shape of its batches, "
			"%" PRIu32
			" rows, up to the end of the longest lane: another batch_size can be set "
			"with tail=\"shrink\" or \"stop\"",
			spec->name, spec->batch_size);
	if (!spec->persist)
		return segue_fail(SEGUE_EINVAL,
			"stream '%s' was opened with persist = false, and a batch_size that is set "
			"is stored with the lane: open it with that batch_size, or with persist = "
			"true",
			spec->name);
	uint64_t size = segue_token_max(spec, batch_size);
	if (size > SEGUE_STORE_VALUE_MAX)
		return segue_fail(SEGUE_EINVAL,
			"stream '%s': the states of a row have %" PRIu64
			" bytes, which with batch_size %" PRIu32
			" makes checkpoints of a lane of up to %" PRIu64
			" bytes; the store takes %" PRIu32 ": give a smaller batch_size",
			spec->name, segue_row_size(spec), batch_size, size, SEGUE_STORE_VALUE_MAX);
	return live ? check_capacity(spec, live, batch_size) : 0;
}

static int measure(
	const struct segue_spec *spec, uint32_t places, uint32_t key_max, uint64_t *bytes)
{
	struct segue_geometry geometry;
	int rc = segue_geometry_init(spec, places, key_max, &geometry);

	if (rc)
		return rc;
	*bytes = geometry.ring_size + geometry.carry_size;
	segue_geometry_finish(&geometry);
	return 0;
}

int segue_size_pay(const struct segue_spec *spec, uint32_t places, uint32_t key_max,
	const struct segue_purse *purse, uint64_t *paid)
{
	uint64_t own, all;

	*paid = 0;
	if (places <= spec->batch_size || !purse->take)
		return 0;
	int rc = measure(spec, spec->batch_size, key_max, &own);
	if (!rc)
		rc = measure(spec, places, key_max, &all);
	if (!rc && all > own)
		rc = purse->take(purse->arg, all - own);
	if (!rc)
		*paid = all - own;
	return rc;
}

uint64_t segue_size_waiting(const struct segue_spec *spec)
{
	/* In the history of its feed, and three times in its plan. */
	uint64_t positions = spec->depth + 2 + 3;

	return segue_spec_window(spec) *
	       (positions * sizeof(struct segue_plan_row) + 2 * sizeof(struct segue_looked_at));
}
