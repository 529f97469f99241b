/* What holds for sources of all kinds: damaged records passed over, lengths, statistics. */
#include "source/source.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/error.h"

int segue_source_judge(const struct segue_source *source, int rc)
{
	if (rc == SEGUE_EMISFIT)
		return SEGUE_EDATA;
	if (rc == SEGUE_ETOOLONG)
		return SEGUE_SOURCE_SKIPPED;
	if (rc != SEGUE_EDATA)
		return rc;
	if (source->on_error == SEGUE_ON_ERROR_SKIP)
		return SEGUE_SOURCE_SKIPPED;
	return segue_fail(
		rc, "%s (on_error=\"skip\" passes over such records)", segue_error_detail());
}

int segue_source_check_steps(const struct segue_spec *spec, uint64_t steps)
{
	if (segue_spec_is_too_long(spec, steps))
		return segue_fail(spec->on_too_long == SEGUE_ON_TOO_LONG_SKIP ? SEGUE_ETOOLONG
									      : SEGUE_EMISFIT,
			"feature '%s': %" PRIu64 " steps, and maximum_length is %" PRIu32
			" (on_too_long=\"truncate\" cuts such sequences, \"skip\" passes over "
			"them)",
			spec->sequences[0].name, steps, spec->maximum_length);
	if (!spec->pad && segue_spec_cut(spec, steps) % segue_spec_unroll(spec))
		return segue_fail(SEGUE_EMISFIT,
			"feature '%s': %" PRIu64
			" steps, which is no multiple of num_unroll = %" PRIu32 "; "
			"consider pad=True",
			spec->sequences[0].name, steps, spec->num_unroll);
	return 0;
}

static void cut(const struct segue_source *source, struct segue_admitted *admitted)
{
	uint64_t most = source->maximum_length;

	if (source->on_too_long != SEGUE_ON_TOO_LONG_TRUNCATE || admitted->array_steps <= most)
		return;
	admitted->array_steps = most;
	if (admitted->total_length > most)
		admitted->total_length = most;
}

int segue_source_admit(struct segue_source *source, uint64_t number, struct segue_record **out,
	struct segue_admitted *admitted)
{
	int rc = segue_source_judge(source, source->ops->admit(source, number, out, admitted));

	if (rc == SEGUE_SOURCE_SKIPPED)
		atomic_fetch_add_explicit(&source->skipped, 1, memory_order_relaxed);
	if (!rc)
		cut(source, admitted);
	return rc;
}

/* What find_lengths has written, as it is delivered. What is an error is one when it is reached. */
static void settle_lengths(const struct segue_source *source, uint32_t *lengths)
{
	uint64_t records = source->maximum_length ? source->ops->records(source) : 0;

	for (uint64_t i = 0; i < records; i++) {
		if (lengths[i] <= source->maximum_length)
			continue;
		if (source->on_too_long == SEGUE_ON_TOO_LONG_TRUNCATE)
			lengths[i] = source->maximum_length;
		else if (source->on_too_long == SEGUE_ON_TOO_LONG_SKIP)
			lengths[i] = 0;
	}
}

static int make_lengths(struct segue_source *source, segue_progress_fn *progress, void *arg)
{
	uint32_t *lengths = calloc(source->ops->records(source), sizeof(lengths[0]));
	int rc = lengths ? source->ops->find_lengths(source, progress, arg, lengths)
			 : segue_fail(SEGUE_ENOMEM, "no memory for the lengths of sequences");

	if (rc) {
		free(lengths);
		return rc;
	}
	settle_lengths(source, lengths);
	atomic_store_explicit(&source->lengths, lengths, memory_order_release);
	return 0;
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

bool segue_source_has_lengths(const struct segue_source *source)
{
	return atomic_load_explicit(&source->lengths, memory_order_relaxed) ||
	       (source->ops->has_lengths && source->ops->has_lengths(source));
}

void segue_source_base_init(struct segue_source *source, const struct segue_source_ops *ops,
	const struct segue_spec *spec)
{
	source->ops = ops;
	source->on_error = spec->on_error;
	source->maximum_length = spec->maximum_length;
	source->on_too_long = spec->on_too_long;
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
