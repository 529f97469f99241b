/* What holds for sources of all kinds: damaged records passed over, lengths, statistics. */
#include "source/source.h"

#include <stdatomic.h>
#include <stdlib.h>

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

static int make_lengths(struct segue_source *source, segue_progress_fn *progress, void *arg)
{
	uint32_t *lengths = calloc(source->ops->records(source), sizeof(lengths[0]));
	int rc = lengths ? source->ops->find_lengths(source, progress, arg, lengths)
			 : segue_fail(SEGUE_ENOMEM, "no memory for the lengths of sequences");

	if (rc)
		free(lengths);
	else
		atomic_store_explicit(&source->lengths, lengths, memory_order_release);
	return rc;
}

int segue_source_lengths(
	struct segue_source *source, segue_progress_fn *progress, void *arg, const uint32_t **out)
{
	int rc = 0;

	pthread_mutex_lock(&source->lengths_mutex);
	if (!source->lengths)
		rc = make_lengths(source, progress, arg);
	if (!rc)
		*out = source->lengths;
	pthread_mutex_unlock(&source->lengths_mutex);
	return rc;
}

void segue_source_base_init(struct segue_source *source, const struct segue_source_ops *ops,
	enum segue_on_error on_error)
{
	source->ops = ops;
	source->on_error = on_error;
	pthread_mutex_init(&source->lengths_mutex, NULL);
}

void segue_source_base_finish(struct segue_source *source)
{
	pthread_mutex_destroy(&source->lengths_mutex);
	free(source->lengths);
}

void segue_source_stats(const struct segue_source *source, struct segue_source_stats *stats)
{
	*stats = (struct segue_source_stats){
		.skipped = atomic_load_explicit(&source->skipped, memory_order_relaxed)};
	if (atomic_load_explicit(&source->lengths, memory_order_relaxed))
		stats->index_memory = source->ops->records(source) * sizeof(uint32_t);
	source->ops->stats(source, stats);
}
