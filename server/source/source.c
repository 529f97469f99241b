/* What holds for sources of all kinds: damaged records are passed over, or not; statistics. */
#include "source/source.h"

#include <stdatomic.h>

#include "core/error.h"

int segue_source_judge(const struct segue_source *source, int rc)
{
	if (rc == SEGUE_EMISFIT)
		return SEGUE_EDATA;
	if (rc != SEGUE_EDATA)
		return rc;
	if (source->on_error == SEGUE_ON_ERROR_SKIP)
		return SEGUE_SOURCE_SKIPPED;
	return segue_fail(
		rc, "%s (on_error=\"skip\" passes over such records)", segue_error_detail());
}

int segue_source_admit(struct segue_source *source, uint64_t number, struct segue_record **out,
	struct segue_admitted *admitted)
{
	int rc = segue_source_judge(source, source->ops->admit(source, number, out, admitted));

	if (rc == SEGUE_SOURCE_SKIPPED)
		atomic_fetch_add_explicit(&source->skipped, 1, memory_order_relaxed);
	return rc;
}

void segue_source_stats(const struct segue_source *source, struct segue_source_stats *stats)
{
	*stats = (struct segue_source_stats){
		.skipped = atomic_load_explicit(&source->skipped, memory_order_relaxed)};
	source->ops->stats(source, stats);
}
