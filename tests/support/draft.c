/* A stream's spec as one initializer. */
#include "draft.h"

#include "core/spec.h"

static int tell_fields(const struct segue_draft *draft, struct segue_spec *spec)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < draft->sequence_count; i++) {
		struct segue_feature feature = draft->sequences[i];

		feature.size = sizeof(feature);
		rc = segue_spec_add_sequence(spec, &feature);
	}
	for (size_t i = 0; !rc && i < draft->context_count; i++) {
		struct segue_feature feature = draft->contexts[i];

		feature.size = sizeof(feature);
		rc = segue_spec_add_context(spec, &feature);
	}
	for (size_t i = 0; !rc && i < draft->state_count; i++) {
		struct segue_state state = draft->states[i];

		state.size = sizeof(state);
		rc = segue_spec_add_state(spec, &state);
	}
	return rc;
}

/* Of the source, or of the part that was added last. */
static int tell_paths(const struct segue_draft_paths *source, struct segue_spec *spec)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < source->path_count; i++)
		rc = segue_spec_add_path(spec, source->paths[i]);
	if (!rc && source->compression)
		rc = segue_spec_set(spec, SEGUE_SPEC_COMPRESSION, source->compression);
	if (!rc && source->allow_surplus)
		rc = segue_spec_set(spec, SEGUE_SPEC_ALLOW_SURPLUS, true);
	if (!rc && source->key_feature)
		rc = segue_spec_set_text(spec, SEGUE_SPEC_KEY_FEATURE, source->key_feature);
	if (!rc && source->record)
		rc = segue_spec_set(spec, SEGUE_SPEC_RECORD, source->record);
	if (!rc && source->checksum)
		rc = segue_spec_set(spec, SEGUE_SPEC_CHECKSUM, true);
	if (!rc && source->capacity)
		rc = segue_spec_set(spec, SEGUE_SPEC_CAPACITY, source->capacity);
	if (!rc && source->producers)
		rc = segue_spec_set(spec, SEGUE_SPEC_PRODUCERS, source->producers);
	if (!rc && source->retain_sequences)
		rc = segue_spec_set(spec, SEGUE_SPEC_RETAIN_SEQUENCES, source->retain_sequences);
	if (!rc && source->retain_bytes)
		rc = segue_spec_set(spec, SEGUE_SPEC_RETAIN_BYTES, source->retain_bytes);
	if (!rc && source->index.group_count) {
		struct segue_arrays arrays = source->index;

		arrays.size = sizeof(arrays);
		rc = segue_spec_set_arrays(spec, &arrays);
	}
	return rc;
}

static int tell_parts(const struct segue_draft_source *source, struct segue_spec *spec)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < source->mix.part_count; i++) {
		const struct segue_draft_part *draft = &source->mix.parts[i];
		const struct segue_mix_part part = {.size = sizeof(part),
			.name = draft->name,
			.kind = draft->source.kind,
			.weight = draft->weight,
			.epochs = draft->epochs};

		rc = segue_spec_add_part(spec, &part);
		if (!rc)
			rc = tell_paths(&draft->source.tfrecord, spec);
	}
	return rc;
}

static int tell_source(const struct segue_draft *draft, struct segue_spec *spec)
{
	const struct segue_draft_source *source = &draft->source;
	int rc = source->kind ? segue_spec_set_source(spec, source->kind) : 0;

	if (rc)
		return rc;
	return source->kind == SEGUE_SOURCE_MIX ? tell_parts(source, spec)
						: tell_paths(&source->tfrecord, spec);
}

static int tell_options(const struct segue_draft *draft, struct segue_spec *spec)
{
	const struct {
		enum segue_spec_option option;
		uint64_t value;
	} numbers[] = {
		{SEGUE_SPEC_NUM_UNROLL, draft->num_unroll},
		{SEGUE_SPEC_BATCH_SIZE, draft->batch_size},
		{SEGUE_SPEC_LANES, draft->lanes},
		{SEGUE_SPEC_SHUFFLE, draft->shuffle},
		{SEGUE_SPEC_SEED, draft->seed},
		{SEGUE_SPEC_EPOCHS, draft->epochs},
		{SEGUE_SPEC_FIRST_EPOCH, draft->first_epoch},
		{SEGUE_SPEC_TAIL, draft->tail},
		{SEGUE_SPEC_EPOCH_END, draft->epoch_end},
		{SEGUE_SPEC_ON_ERROR, draft->on_error},
		{SEGUE_SPEC_KEEP_FINAL, draft->keep_final},
		{SEGUE_SPEC_DEPTH, draft->depth},
		{SEGUE_SPEC_NUM_THREADS, draft->num_threads},
		{SEGUE_SPEC_DURABILITY, draft->durability},
		{SEGUE_SPEC_INTERVAL_MS, draft->interval_ms},
		{SEGUE_SPEC_LEASE_TIMEOUT_MS, draft->lease_timeout_ms},
		{SEGUE_SPEC_KEEP_CHECKPOINTS, draft->keep_checkpoints},
		{SEGUE_SPEC_MAXIMUM_LENGTH, draft->maximum_length},
		{SEGUE_SPEC_ON_TOO_LONG, draft->on_too_long},
		{SEGUE_SPEC_TRIM, draft->trim},
		{SEGUE_SPEC_LANES_BY, draft->lanes_by},
		{SEGUE_SPEC_INITIAL, draft->initial},
		{SEGUE_SPEC_GROUPS, draft->groups},
		{SEGUE_SPEC_GROUPS_TIMEOUT_MS, draft->groups_timeout_ms},
		{SEGUE_SPEC_MAX_LAG_MS, draft->max_lag_ms},
		{SEGUE_SPEC_ON_LAG, draft->on_lag},
	};
	int rc = 0;

	for (size_t i = 0; !rc && i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (numbers[i].value)
			rc = segue_spec_set(spec, numbers[i].option, numbers[i].value);
	if (!rc && draft->no_pad)
		rc = segue_spec_set(spec, SEGUE_SPEC_PAD, false);
	if (!rc && draft->no_persist)
		rc = segue_spec_set(spec, SEGUE_SPEC_PERSIST, false);
	return rc;
}

int segue_draft_tell(const struct segue_draft *draft, struct segue_spec **out)
{
	struct segue_spec *spec;
	int rc = segue_spec_create(draft->name, &spec);

	if (rc)
		return rc;
	rc = tell_fields(draft, spec);
	if (!rc)
		rc = tell_source(draft, spec);
	if (!rc)
		rc = tell_options(draft, spec);
	if (rc)
		segue_spec_destroy(spec);
	else
		*out = spec;
	return rc;
}

int segue_draft_make(const struct segue_draft *draft, struct segue_spec **out)
{
	struct segue_spec *spec;
	int rc = segue_draft_tell(draft, &spec);

	if (rc)
		return rc;
	rc = segue_spec_check(spec);
	if (rc)
		segue_spec_destroy(spec);
	else
		*out = spec;
	return rc;
}

int segue_draft_open(
	struct segue_client *client, const struct segue_draft *draft, struct segue_stream **out)
{
	struct segue_spec *spec;
	int rc = segue_draft_tell(draft, &spec);

	if (rc)
		return rc;
	rc = segue_stream_open(client, spec, out);
	segue_spec_destroy(spec);
	return rc;
}
