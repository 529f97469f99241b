/*
 * Tests of specs: each rule, defaults, copies, hash, comparison.
 */
#include "core/spec.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "sample_spec.h"
#include "core/utf8.h"

static struct segue_spec *make(const struct sample *sample)
{
	struct segue_spec *spec = NULL;
	int rc = segue_draft_make(&sample->spec, &spec);

	cr_assert_eq(rc, 0, "%s", segue_error_detail());
	return spec;
}

/* ---- Rules --------------------------------------------------------------------------------- */

static char long_name[SEGUE_NAME_MAX + 2], long_path[PATH_MAX + 2];
static struct segue_feature many[SEGUE_FEATURES_MAX + 1];
static struct segue_state many_states[SEGUE_STATES_MAX + 1];

static void make_many(void)
{
	static char names[SEGUE_STATES_MAX + 1][8];

	for (size_t i = 0; i < SEGUE_STATES_MAX + 1; i++) {
		snprintf(names[i], sizeof(names[i]), "f%zu", i);
		if (i <= SEGUE_FEATURES_MAX)
			many[i] = (struct segue_feature){.name = names[i], .dtype = SEGUE_UINT8};
		many_states[i] = (struct segue_state){.name = names[i], .dtype = SEGUE_UINT8};
	}
}

#define CASE(name, change)                                                                         \
	static void name(struct sample *s)                                                         \
	{                                                                                          \
		change;                                                                            \
	}
CASE(no_name, s->spec.name = NULL)
CASE(empty_name, s->spec.name = "")
CASE(colon, s->spec.name = "a:b")
CASE(long_stream, s->spec.name = memset(long_name, 'n', SEGUE_NAME_MAX + 1))
CASE(newline, s->spec.name = "a\nb")
CASE(delete_byte, s->spec.name = "a\x7f")
CASE(not_utf8, s->spec.name = "a\xff")
CASE(feature_without_name, s->sequences[1].name = NULL)
CASE(feature_empty, s->sequences[1].name = "")
CASE(feature_colon, s->contexts[1].name = "f:")
CASE(state_colon, s->states[0].name = ":")
CASE(no_sequence, s->spec.sequence_count = 0)
CASE(bad_kind, s->spec.source.kind = 99)
CASE(no_path, s->spec.source.tfrecord.path_count = 0)
CASE(empty_path, s->paths[1] = "")
CASE(missing_path, s->paths[1] = NULL)
CASE(path_too_long, s->paths[1] = memset(long_path, '/', PATH_MAX))
CASE(too_many_features, s->spec.sequences = many; s->spec.sequence_count = SEGUE_FEATURES_MAX + 1)
CASE(too_many_together, s->spec.sequences = many; s->spec.sequence_count = SEGUE_FEATURES_MAX - 1)
CASE(too_many_states, s->spec.states = many_states; s->spec.state_count = SEGUE_STATES_MAX + 1)
CASE(twice, s->sequences[1].name = "x")
CASE(twice_states, s->states[1].name = "h")
CASE(twice_contexts, s->contexts[1].name = "speaker")
CASE(twice_across, s->contexts[1].name = "label")
CASE(no_dtype, s->sequences[0].dtype = 0)
CASE(bad_dtype, s->states[0].dtype = 14)
CASE(rank, s->contexts[1].rank = 9)
CASE(zero_dim, s->sequences[0].dims[1] = 0)
CASE(overflow, s->states[0].dims[0] = UINT64_MAX / 2)
CASE(overflow_two, s->sequences[0].dims[0] = s->sequences[0].dims[1] = (uint64_t)1 << 32)
CASE(field_too_large, s->states[0].dims[0] = ((uint64_t)1 << 30) + 1)
CASE(initial_twice, s->states[1].init_from_data = true)
CASE(initial_nowhere, s->states[0].init_from_data = true)
CASE(bad_form, s->sequences[0].form = 3)
CASE(ragged_shape, s->sequences[0].form = SEGUE_FORM_RAGGED)
CASE(bytes_dtype, s->contexts[0].form = SEGUE_FORM_BYTES; s->contexts[0].rank = 0)
CASE(ragged_nowhere, s->sequences[1].form = SEGUE_FORM_RAGGED; s->sequences[1].rank = 0;
	s->spec.source.tfrecord.record = SEGUE_RECORD_EXAMPLE)
CASE(unroll_zero, s->spec.num_unroll = 0)
CASE(whole_large, s->spec.num_unroll = 0; s->spec.maximum_length = (1u << 20) + 1)
CASE(whole_without_padding, s->spec.num_unroll = 0; s->spec.maximum_length = 9;
	s->spec.no_pad = true)
CASE(unroll_large, s->spec.num_unroll = (1u << 20) + 1)
CASE(batch_zero, s->spec.batch_size = 0)
CASE(batch_large, s->spec.batch_size = (1u << 20) + 1)
CASE(lanes_zero, s->spec.lanes = 0)
CASE(lanes_large, s->spec.lanes = 4097)
CASE(bad_tail, s->spec.tail = 3)
CASE(bad_epoch_end, s->spec.epoch_end = 2)
CASE(bad_on_error, s->spec.on_error = 2)
CASE(bad_durability, s->spec.durability = 2)
CASE(bad_compression, s->spec.source.tfrecord.compression = 4)
CASE(bad_record, s->spec.source.tfrecord.record = 2)
CASE(depth_one, s->spec.depth = 1)
CASE(depth_large, s->spec.depth = 65)
CASE(threads_large, s->spec.num_threads = 65)
CASE(interval_large, s->spec.interval_ms = 3600001)
CASE(lease_timeout_large, s->spec.lease_timeout_ms = 86400001)
CASE(checkpoints_large, s->spec.keep_checkpoints = 101)
CASE(detached_when, s->spec.on_lag = SEGUE_ON_LAG_DETACH)
CASE(groups_large, s->spec.groups = 66)
CASE(groups_of_nothing, s->spec.groups = 2; s->spec.no_persist = true)
CASE(groups_of_kept, s->spec.groups = 2; s->spec.initial = SEGUE_INITIAL_KEPT;
	s->spec.keep_final = true; s->spec.lanes_by = SEGUE_LANES_BY_RECORD)
CASE(bad_on_too_long, s->spec.on_too_long = 3)
CASE(too_long_for_what, s->spec.on_too_long = SEGUE_ON_TOO_LONG_SKIP)
CASE(cut_within_a_segment, s->spec.on_too_long = SEGUE_ON_TOO_LONG_TRUNCATE;
	s->spec.maximum_length = s->spec.num_unroll + 1; s->spec.no_pad = true)
CASE(final_of_nothing, s->spec.keep_final = true; s->spec.no_persist = true)
CASE(kept_of_nothing, s->spec.initial = SEGUE_INITIAL_KEPT;
	s->spec.lanes_by = SEGUE_LANES_BY_RECORD)
CASE(kept_elsewhere, s->spec.initial = SEGUE_INITIAL_KEPT; s->spec.keep_final = true)
CASE(empty_key_feature, s->spec.source.tfrecord.key_feature = "")

/* A stream of what is inserted: one that is right, but for what the case says. */
#define LOG_CASE(name, change)                                                                     \
	CASE(name, s->spec.source = (struct segue_draft_source){.kind = SEGUE_SOURCE_LOG};         \
		s->spec.shuffle = false; s->spec.epochs = 1; change)
LOG_CASE(log_kept_nowhere, s->spec.no_persist = true)
LOG_CASE(log_shuffled, s->spec.shuffle = true)
LOG_CASE(log_again, s->spec.epochs = 2)
LOG_CASE(log_without_end, s->spec.epochs = 0)
LOG_CASE(log_too_small, s->spec.source.log.capacity = 35)
LOG_CASE(log_by_record, s->spec.lanes_by = SEGUE_LANES_BY_RECORD)
LOG_CASE(log_of_many, s->spec.source.log.producers = 1025)

/* A mix of it and of another part. */
static const struct segue_draft_part both[] = {
	{.name = "log", .source = {.kind = SEGUE_SOURCE_LOG}, .weight = 1, .epochs = 1},
	{.name = "other", .source = {.kind = SEGUE_SOURCE_LOG}, .weight = 1, .epochs = 1},
	{.name = "again", .source = {.kind = SEGUE_SOURCE_LOG}, .weight = 1, .epochs = 2},
};
#define MIX_CASE(name, from, count, change)                                                        \
	LOG_CASE(name, s->spec.source = ((struct segue_draft_source){                              \
			       .kind = SEGUE_SOURCE_MIX, .mix = {both + (from), (count)}});        \
		 change)
MIX_CASE(mix_of_logs, 0, 2, (void)s)
MIX_CASE(mix_with_a_log_again, 2, 1, (void)s)
MIX_CASE(mix_kept_nowhere, 0, 1, s->spec.no_persist = true)
MIX_CASE(mix_damaged, 0, 1, s->spec.on_error = SEGUE_ON_ERROR_SKIP)
MIX_CASE(mix_passed_over, 0, 1, s->spec.maximum_length = 9;
	 s->spec.on_too_long = SEGUE_ON_TOO_LONG_SKIP)

static const struct {
	void (*change)(struct sample *sample);
	const char *says[2]; /* the field, and what was wrong with it */
} rules[] = {
	{no_name, {"name is missing"}},
	{empty_name, {"name is empty"}},
	{colon, {"name \"a:b\"", "':'"}},
	{long_stream, {"name has 256 bytes", "at most 255"}},
	{newline, {"name", "0x0a at place 1"}},
	{delete_byte, {"name", "0x7f"}},
	{not_utf8, {"name", "UTF-8"}},
	{feature_without_name, {"sequences[1].name", "missing"}},
	{feature_empty, {"sequences[1].name", "empty"}},
	{feature_colon, {"context[1].name \"f:\"", "':'"}},
	{state_colon, {"states[0].name \":\"", "':'"}},
	{no_sequence, {"the number of sequences is 0"}},
	{bad_kind, {"source.kind is 99", "none of 1 (tfrecord)"}},
	{no_path, {"the number of source.paths is 0"}},
	{empty_path, {"source.paths[1] is empty"}},
	{missing_path, {"source.paths[1] is empty"}},
	{path_too_long, {"source.paths[1] has 4096 bytes", "at most 4095"}},
	{too_many_features, {"257 sequences and 0 context", "256"}},
	{too_many_together, {"255 sequences and 2 context", "together at most 256"}},
	{too_many_states, {"the number of states is 1025", "1024"}},
	{twice, {"sequences[0] and sequences[1]", "\"x\""}},
	{twice_states, {"states[0] and states[1]", "\"h\""}},
	{twice_contexts, {"context[0] and context[1]", "\"speaker\""}},
	{twice_across, {"sequences[1] and context[1]", "\"label\""}},
	{no_dtype, {"sequences[0] \"x\": dtype is 0"}},
	{bad_dtype, {"states[0] \"h\": dtype is 14, which is no dtype; 1 (float32) to 13 (uint64) "
		     "are"}},
	{rank, {"context[1] \"flag\": the shape has 9 dimensions", "at most 8"}},
	{zero_dim, {"sequences[0] \"x\": shape[1] (in C: dims) is 0"}},
	{overflow, {"states[0] \"h\"", "shape[0] (in C: dims) = 9223372036854775807"}},
	{overflow_two, {"sequences[0] \"x\"", "4294967296 bytes at shape[0]"}},
	{field_too_large, {"states[0] \"h\"", "shape[0] (in C: dims) = 1073741825"}},
	{initial_twice, {"states[1] \"c\": init is given, and init_from_data too"}},
	{initial_nowhere,
		{"states[0] \"h\" is to have its initial value from the data", "kind tfrecord"}},
	{bad_form, {"sequences[0] \"x\": form is 3, which is no form"}},
	{ragged_shape, {"sequences[0] \"x\": it is ragged, and then has no shape"}},
	{bytes_dtype, {"context[0] \"speaker\": the dtype of bytes is uint8 (5), not int64"}},
	{ragged_nowhere,
		{"sequences[1] \"label\" is ragged", "tfrecord with record=\"example\" does not"}},
	{unroll_zero, {"num_unroll is None and maximum_length None: a batch of whole"}},
	{whole_large, {"num_unroll is None and maximum_length 1048577"}},
	{whole_without_padding, {"num_unroll is None and pad false"}},
	{unroll_large, {"num_unroll is 1048577", "to 1048576"}},
	{batch_zero, {"batch_size is 0"}},
	{batch_large, {"batch_size is 1048577"}},
	{lanes_zero, {"lanes is 0"}},
	{lanes_large, {"lanes is 4097", "to 4096"}},
	{bad_tail, {"tail is 3"}},
	{bad_epoch_end, {"epoch_end is 2"}},
	{bad_on_error, {"on_error is 2"}},
	{bad_durability, {"durability is 2"}},
	{bad_compression, {"source.compression is 4"}},
	{bad_record, {"source.record is 2"}},
	{depth_one, {"depth is 1", "from 2 to 64"}},
	{depth_large, {"depth is 65"}},
	{threads_large, {"num_threads is 65"}},
	{interval_large, {"interval_ms is 3600001", "(3600.001 s; 0.001 to 3600 s)"}},
	{lease_timeout_large, {"lease_timeout_ms is 86400001"}},
	{checkpoints_large, {"keep_checkpoints is 101"}},
	{detached_when, {"on_lag is detach and max_lag None: it says what becomes of groups"}},
	{groups_large, {"groups is 66", "from 0 to 65"}},
	{groups_of_nothing, {"groups is 2 and persist false: there are no groups"}},
	{groups_of_kept, {"groups is 2 and initial kept: rows begin with"}},
	{bad_on_too_long, {"on_too_long is 3"}},
	{too_long_for_what, {"on_too_long is skip and maximum_length None"}},
	{cut_within_a_segment, {"maximum_length is ", "and pad false: with on_too_long"}},
	{final_of_nothing, {"keep_final is true and persist false: there is no store"}},
	{kept_of_nothing, {"initial is kept and keep_final false: a row begins with the final"}},
	{kept_elsewhere, {"initial is kept and lanes_by sequence: what a row begins with would"}},
	{empty_key_feature, {"source.key (in C: key_feature) is empty"}},
	{log_kept_nowhere, {"persist is false and the source of kind log: what is inserted"}},
	{log_by_record, {"lanes_by is record and the source of kind log: lanes have records"}},
	{log_shuffled, {"shuffle is true and the source of kind log: what is inserted"}},
	{log_again, {"epochs is 2 and first_epoch 0: there is one pass over"}},
	{log_without_end, {"there is one pass over"}},
	{log_too_small, {"source.capacity is 35", "batch_size = 36"}},
	{log_of_many, {"source.producers is 1025"}},
	{mix_of_logs, {"source.parts[1] is inserted: a mix has one such part"}},
	{mix_with_a_log_again, {"source.parts[0] is inserted: a mix has one such part"}},
	{mix_kept_nowhere, {"persist is false and the source of kind mix: what is inserted"}},
	{mix_damaged, {"on_error is skip and the source of kind mix: a part"}},
	{mix_passed_over, {"on_too_long is skip and the source of kind mix: a part"}},
};

Test(spec, each_rule_names_field_and_value)
{
	make_many();
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		struct segue_spec *spec = NULL;
		struct sample sample;

		sample_init(&sample);
		rules[i].change(&sample);
		cr_expect_eq(segue_draft_make(&sample.spec, &spec), SEGUE_EINVAL,
			"rule %zu (\"%s\") was not enforced", i, rules[i].says[0]);
		cr_expect_null(spec);
		for (size_t k = 0; k < 2 && rules[i].says[k]; k++)
			cr_expect(strstr(segue_error_detail(), rules[i].says[k]),
				"rule %zu: \"%s\" does not say \"%s\"", i, segue_error_detail(),
				rules[i].says[k]);
		segue_spec_destroy(spec);
	}
}

Test(spec, limits_themselves_are_allowed)
{
	struct sample sample;

	sample_init(&sample);
	memset(long_name, 'n', SEGUE_NAME_MAX);
	long_name[SEGUE_NAME_MAX] = '\0';
	sample.spec.name = long_name;
	sample.spec.num_unroll = 1u << 20;
	sample.spec.batch_size = 1u << 20;
	sample.spec.lanes = 4096;
	sample.spec.depth = 64;
	sample.spec.num_threads = 64;
	sample.spec.interval_ms = 3600000;
	sample.spec.lease_timeout_ms = 86400000;
	sample.spec.keep_checkpoints = 100;
	sample.sequences[1].dtype = SEGUE_UINT8;
	sample.sequences[1].rank = SEGUE_RANK_MAX;
	for (int d = 0; d < SEGUE_RANK_MAX; d++)
		sample.sequences[1].dims[d] = 16; /* 2^32 bytes */
	sample.spec.tail = SEGUE_TAIL_PAD;
	sample.spec.epoch_end = SEGUE_EPOCH_DRAIN;
	sample.spec.epochs = 0; /* endless: each epoch is padded when it ends */
	sample.spec.source.tfrecord.key_feature = "image/key:0";
	segue_spec_destroy(make(&sample));
}

Test(spec, stream_without_states_or_contexts)
{
	struct segue_spec *spec;
	struct sample sample;

	sample_init(&sample);
	sample.spec.states = NULL;
	sample.spec.state_count = 0;
	sample.spec.contexts = NULL;
	sample.spec.context_count = 0;
	sample.spec.source.tfrecord.key_feature = NULL;
	spec = make(&sample);
	cr_assert_eq(spec->state_count, 0);
	cr_assert_null(spec->source.tfrecord.key_feature);
	segue_spec_destroy(spec);
}

/* ---- Said call by call --------------------------------------------------------------------- */

#define REFUSED(call, text)                                                                        \
	do {                                                                                       \
		cr_expect_eq(call, SEGUE_EINVAL, "%s", #call);                                     \
		cr_expect(strstr(segue_error_detail(), text), "\"%s\" does not say \"%s\"",        \
			segue_error_detail(), text);                                               \
	} while (0)

/* What cannot be is refused where it is said, and what was said before stands. */
Test(spec, a_call_that_fails_changes_nothing)
{
	const struct segue_feature again = {
		.size = sizeof(again), .name = "label", .dtype = SEGUE_INT8};
	const struct segue_state h = {.size = sizeof(h), .name = "h", .dtype = SEGUE_INT8};
	const struct segue_state nameless = {.size = sizeof(h), .dtype = SEGUE_INT8};
	struct segue_spec *spec;
	struct sample sample;
	uint64_t hash[2][2];

	sample_init(&sample);
	spec = make(&sample);
	segue_spec_hash(spec, hash[0]);
	REFUSED(segue_spec_add_sequence(spec, &again), "sequences[1] and sequences[2]");
	REFUSED(segue_spec_add_state(spec, &h), "states[0] and states[2]");
	REFUSED(segue_spec_add_state(spec, &nameless), "states[2].name is missing");
	REFUSED(segue_spec_add_path(spec, ""), "source.paths[2] is empty");
	REFUSED(segue_spec_add_path(spec, NULL), "source.paths[2] is empty");
	REFUSED(segue_spec_set_source(spec, 99), "none of 1 (tfrecord)");
	REFUSED(segue_spec_set(spec, SEGUE_SPEC_DEPTH, 1), "depth is 1, from 2 to 64");
	REFUSED(segue_spec_set(spec, SEGUE_SPEC_DEPTH, UINT64_MAX),
		"depth is 18446744073709551615");
	REFUSED(segue_spec_set(spec, SEGUE_SPEC_BATCH_SIZE, (UINT64_C(1) << 32) + 6), "batch_size");
	REFUSED(segue_spec_set(spec, SEGUE_SPEC_SHUFFLE, 2), "shuffle is 2, from 0 to 1");
	REFUSED(segue_spec_set(spec, SEGUE_SPEC_TAIL, 3), "tail is 3, which is none of 0 (shrink)");
	REFUSED(segue_spec_set_text(spec, SEGUE_SPEC_KEY_FEATURE, ""), "source.key");
	cr_expect_eq(segue_spec_check(spec), 0, "%s", segue_error_detail());
	segue_spec_hash(spec, hash[1]);
	cr_expect_arr_eq(hash[0], hash[1], sizeof(hash[0]));
	cr_expect_eq(spec->source.tfrecord.paths.count, 2);
	cr_expect_str_eq(spec->source.tfrecord.key_feature, "id");
	cr_expect_eq(spec->depth, 4);
	segue_spec_destroy(spec);
}

Test(spec, options_are_set_by_the_call_of_their_type_and_of_their_source)
{
	struct segue_spec *spec;

	cr_assert_eq(segue_spec_create("train", &spec), 0);
	REFUSED(segue_spec_add_path(spec, "a"), "segue_spec_set_source");
	REFUSED(segue_spec_set(spec, SEGUE_SPEC_COMPRESSION, 1), "not set yet");
	cr_assert_eq(segue_spec_set_source(spec, SEGUE_SOURCE_FILES), 0);
	REFUSED(segue_spec_set(spec, SEGUE_SPEC_COMPRESSION, 1),
		"compression is an option of a source of kind tfrecord, and this spec's is files");
	REFUSED(segue_spec_set(spec, 999, 1), "no option 999");
	cr_assert_eq(segue_spec_add_path(spec, "/data/a.segue"), 0);
	cr_assert_eq(segue_spec_set_source(spec, SEGUE_SOURCE_TFRECORD), 0);
	cr_expect_eq(spec->source.tfrecord.paths.count, 0, "another source begins anew");
	REFUSED(segue_spec_set(spec, SEGUE_SPEC_KEY_FEATURE, 1), "is a text: segue_spec_set_text");
	REFUSED(segue_spec_set_text(spec, SEGUE_SPEC_SEED, "1"), "seed is no text: segue_spec_set");
	cr_assert_eq(segue_spec_set_text(spec, SEGUE_SPEC_KEY_FEATURE, "id"), 0);
	cr_assert_eq(segue_spec_set_text(spec, SEGUE_SPEC_KEY_FEATURE, "image/key"), 0);
	cr_expect_str_eq(spec->source.tfrecord.key_feature, "image/key");
	cr_assert_eq(segue_spec_set_text(spec, SEGUE_SPEC_KEY_FEATURE, NULL), 0);
	cr_expect_null(spec->source.tfrecord.key_feature);
	REFUSED(segue_spec_set(NULL, SEGUE_SPEC_SEED, 1), "spec is missing");
	REFUSED(segue_spec_add_path(NULL, "a"), "spec is missing");
	REFUSED(segue_spec_add_state(NULL, NULL), "spec is missing");
	segue_spec_destroy(spec);
}

/* As a spec that came in a message: it has hashes, and no values. */
Test(spec, an_initial_value_is_set_where_there_is_the_hash_alone)
{
	static const float value[] = {1, 2}, other[] = {1, 3};
	const struct segue_state h = {.size = sizeof(h),
		.name = "h",
		.dtype = SEGUE_FLOAT32,
		.rank = 1,
		.dims = {2},
		.init = value};
	const struct segue_state d = {
		.size = sizeof(d), .name = "d", .dtype = SEGUE_FLOAT32, .init_from_data = true};
	struct segue_spec *spec;
	uint64_t hash[2];

	cr_assert_eq(segue_spec_create("train", &spec), 0);
	cr_assert_eq(segue_spec_add_state(spec, &h), 0);
	cr_assert_eq(segue_spec_add_state(spec, &d), 0);
	memcpy(hash, spec->init_hash[0], sizeof(hash));
	cr_expect_not(segue_spec_wants_init(spec, 0));
	free(spec->init[0]);
	free(spec->init);
	spec->init = NULL;
	cr_expect(segue_spec_wants_init(spec, 0));
	cr_expect_not(segue_spec_wants_init(spec, 1));
	REFUSED(segue_spec_set_init(spec, "none", value), "no state \"none\"");
	REFUSED(segue_spec_set_init(spec, NULL, value), "no state \"\"");
	REFUSED(segue_spec_set_init(spec, "d", value), "init_from_data too");
	REFUSED(segue_spec_set_init(NULL, "h", value), "spec is missing");
	cr_assert_eq(segue_spec_set_init(spec, "h", other), 0);
	cr_expect_neq(memcmp(hash, spec->init_hash[0], sizeof(hash)), 0);
	cr_assert_eq(segue_spec_set_init(spec, "h", value), 0);
	cr_expect_eq(memcmp(hash, spec->init_hash[0], sizeof(hash)), 0);
	cr_expect_not(segue_spec_wants_init(spec, 0));
	segue_spec_destroy(spec);
}

/* A mix is told of its parts one by one; arrays are those of what was said before. */
Test(spec, paths_and_options_are_of_the_part_that_came_last)
{
	struct segue_mix_part part = {.size = sizeof(part),
		.name = "a",
		.kind = SEGUE_SOURCE_TFRECORD,
		.weight = 3,
		.epochs = 1};
	const struct segue_spec_mix *mix;
	struct segue_spec *spec, *copy;

	cr_assert_eq(segue_spec_create("train", &spec), 0);
	REFUSED(segue_spec_add_part(NULL, &part), "spec is missing");
	REFUSED(segue_spec_add_part(spec, &part), "source is missing");
	cr_assert_eq(segue_spec_set_source(spec, SEGUE_SOURCE_FILES), 0);
	REFUSED(segue_spec_add_part(spec, &part), "a source of kind files has no parts");
	cr_assert_eq(segue_spec_set_source(spec, SEGUE_SOURCE_MIX), 0);
	mix = &spec->source.mix;
	REFUSED(segue_spec_add_path(spec, "/a"), "the mix has no part yet");
	REFUSED(segue_spec_set(spec, SEGUE_SPEC_RECORD, 1), "the mix has no part yet");
	cr_assert_eq(segue_spec_add_part(spec, &part), 0, "%s", segue_error_detail());
	cr_assert_eq(segue_spec_add_path(spec, "/a"), 0);
	cr_assert_eq(segue_spec_set(spec, SEGUE_SPEC_RECORD, SEGUE_RECORD_EXAMPLE), 0);
	REFUSED(segue_spec_set(spec, SEGUE_SPEC_RECORD, 2), "source.parts[0].record is 2");
	REFUSED(segue_spec_add_part(spec, &part), "source.parts[0] and source.parts[1]");
	part.name = "b";
	part.weight = 0;
	REFUSED(segue_spec_add_part(spec, &part), "source.parts[1].weight is 0");
	part.weight = 1;
	part.kind = SEGUE_SOURCE_MIX;
	REFUSED(segue_spec_add_part(spec, &part), "cannot be a mix itself");
	part.kind = 0;
	REFUSED(segue_spec_add_part(spec, &part), "source.parts[1]: source is missing");
	part.kind = SEGUE_SOURCE_FILES;
	cr_assert_eq(segue_spec_add_part(spec, &part), 0);
	REFUSED(segue_spec_set(spec, SEGUE_SPEC_RECORD, 1), "this spec's is files");
	REFUSED(segue_spec_add_path(spec, ""), "source.parts[1]: source.paths[0] is empty");
	cr_assert_eq(segue_spec_add_path(spec, "/b"), 0);
	cr_assert_eq(segue_spec_copy(spec, &copy), 0);
	segue_spec_destroy(spec);
	mix = &copy->source.mix;
	cr_assert_eq(mix->count, 2);
	cr_expect_str_eq(mix->part[0].name, "a");
	cr_expect_eq(mix->part[0].source.tfrecord.record, SEGUE_RECORD_EXAMPLE);
	cr_expect_str_eq(mix->part[0].source.tfrecord.paths.path[0], "/a");
	cr_expect_eq(mix->part[1].source.files.paths.count, 1);
	cr_expect_str_eq(mix->part[1].source.files.paths.path[0], "/b");
	segue_spec_destroy(copy);
}

/* Each number is one option's, whosever it is. */
Test(spec, options_have_numbers_of_their_own)
{
	bool seen[128] = {false};

	for (int list = 0; list <= SEGUE_SOURCE_LOG; list++)
		for (const struct segue_option *option =
				list ? segue_source_row((enum segue_source_kind)list)->options
				     : segue_spec_options;
			option->name; option++) {
			cr_assert_lt(option->id, sizeof(seen));
			cr_expect(!seen[option->id], "%s", option->name);
			seen[option->id] = true;
		}
}

/* A later version's struct is taken as long as nothing is asked for that is not known here. */
Test(spec, structs_of_other_versions)
{
	struct {
		struct segue_feature known;
		uint64_t more;
	} later = {.known = {.size = sizeof(later), .name = "x", .dtype = SEGUE_INT8}};
	struct segue_feature earlier = {.size = offsetof(struct segue_feature, rank),
		.name = "y",
		.dtype = SEGUE_INT8,
		.rank = 77};
	struct segue_spec *spec;

	cr_assert_eq(segue_spec_create("train", &spec), 0);
	cr_expect_eq(segue_spec_add_sequence(spec, &later.known), 0, "%s", segue_error_detail());
	later.known.name = "z";
	later.more = (uint64_t)1 << 56;
	REFUSED(segue_spec_add_sequence(spec, &later.known),
		"struct segue_feature has something at byte");
	cr_expect_eq(segue_spec_add_sequence(spec, &earlier), 0, "%s", segue_error_detail());
	cr_expect_eq(spec->sequences[1].rank, 0, "what lies behind the caller's end is not read");
	earlier.size = 0;
	REFUSED(segue_spec_add_sequence(spec, &earlier), "set it to sizeof(struct segue_feature)");
	earlier.size = SIZE_MAX;
	REFUSED(segue_spec_add_sequence(spec, &earlier), "set it to sizeof(struct segue_feature)");
	REFUSED(segue_spec_add_sequence(spec, NULL), "struct segue_feature is missing (NULL)");
	segue_spec_destroy(spec);
}

/* ---- Defaults and copies ------------------------------------------------------------------- */

Test(spec, defaults)
{
	struct segue_spec *spec;
	struct sample sample;

	sample_init(&sample);
	spec = make(&sample);
	cr_assert_eq(spec->depth, 4);
	cr_assert_eq(spec->num_threads, 1);
	cr_assert_eq(spec->interval_ms, 1000);
	cr_assert_eq(spec->lease_timeout_ms, 0);
	cr_assert_eq(spec->keep_checkpoints, 3);
	cr_assert(spec->pad);
	cr_assert(spec->persist);
	segue_spec_destroy(spec);
}

Test(spec, everything_is_copied)
{
	struct segue_spec *spec;
	struct sample sample;
	char name[] = "train";

	sample_init(&sample);
	sample.spec.name = name;
	sample.spec.no_pad = true;
	sample.spec.no_persist = true;
	sample.spec.depth = 8;
	sample.spec.durability = SEGUE_DURABLE_COMMIT;
	sample.spec.source.tfrecord.allow_surplus = true;
	sample.spec.source.tfrecord.compression = SEGUE_COMPRESSION_GZIP;
	spec = make(&sample);
	memset(name, '#', sizeof(name) - 1);
	memset(sample.sequences, 0, sizeof(sample.sequences));
	cr_assert_str_eq(spec->name, "train");
	cr_assert_eq(spec->source.tfrecord.paths.count, 2);
	cr_assert_str_eq(spec->source.tfrecord.paths.path[0], "/data/a.tfrecord");
	cr_assert_str_eq(spec->source.tfrecord.paths.path[1], "/data/b-*.tfrecord");
	cr_assert_str_eq(spec->source.tfrecord.key_feature, "id");
	cr_assert(spec->source.tfrecord.allow_surplus);
	cr_assert_eq(spec->source.tfrecord.compression, SEGUE_COMPRESSION_GZIP);
	cr_assert_str_eq(spec->sequences[0].name, "x");
	cr_assert_eq(spec->sequences[0].rank, 2);
	cr_assert_eq(spec->sequences[0].elements, 15);
	cr_assert_eq(spec->sequences[0].size, 60);
	cr_assert_eq(spec->sequences[1].elements, 1);
	cr_assert_eq(spec->sequences[1].size, 8);
	cr_assert_eq(spec->contexts[1].size, 7);
	cr_assert_eq(spec->states[1].size, 12);
	cr_assert_eq(spec->depth, 8);
	cr_assert_eq(spec->seed, 9);
	cr_assert_eq(spec->epochs, 3);
	cr_assert(spec->shuffle);
	cr_assert_not(spec->pad);
	cr_assert_not(spec->persist);
	cr_assert_eq(spec->durability, SEGUE_DURABLE_COMMIT);
	segue_spec_destroy(spec);
}

Test(spec, relative_paths_become_absolute)
{
	char directory[] = "/tmp/segue-spec-XXXXXX", expected[PATH_MAX], *real;
	struct segue_spec *spec;
	struct sample sample;

	cr_assert_not_null(mkdtemp(directory));
	cr_assert_eq(chdir(directory), 0);
	real = realpath(".", NULL);
	sample_init(&sample);
	sample.paths[0] = "data/*.tfrecord";
	spec = make(&sample);
	snprintf(expected, sizeof(expected), "%s/data/*.tfrecord", real);
	cr_assert_str_eq(spec->source.tfrecord.paths.path[0], expected);
	cr_assert_str_eq(spec->source.tfrecord.paths.path[1], "/data/b-*.tfrecord");
	segue_spec_destroy(spec);
	cr_assert_eq(chdir("/"), 0);
	spec = make(&sample);
	cr_assert_str_eq(spec->source.tfrecord.paths.path[0], "/data/*.tfrecord");
	segue_spec_destroy(spec);
	free(real);
	rmdir(directory);
}

Test(spec, lost_working_directory)
{
	char directory[] = "/tmp/segue-spec-XXXXXX";
	struct segue_spec *spec = NULL;
	struct sample sample;

	cr_assert_not_null(mkdtemp(directory));
	cr_assert_eq(chdir(directory), 0);
	rmdir(directory);
	sample_init(&sample);
	sample.paths[0] = "a.tfrecord";
	cr_assert_eq(segue_draft_make(&sample.spec, &spec), SEGUE_ESYSTEM);
	cr_assert(strstr(segue_error_detail(), "working directory"));
	sample.paths[0] = "/data/a.tfrecord"; /* needs none */
	spec = make(&sample);
	segue_spec_destroy(spec);
}

Test(spec, peers_are_held_to_the_same_rules)
{
	struct segue_spec *spec;
	struct sample sample;
	char *path;

	sample_init(&sample);
	spec = make(&sample);
	spec->sequences[0].elements = spec->sequences[0].size = 0;
	cr_assert_eq(segue_spec_check(spec), 0);
	cr_assert_eq(spec->sequences[0].size, 60, "what follows from the shape is computed here");
	spec->depth = 0; /* defaults are the library's to fill in, not the server's */
	cr_assert_eq(segue_spec_check(spec), SEGUE_EINVAL);
	spec->depth = 4;
	spec->states[0].rank = 0;
	spec->states[0].form = SEGUE_FORM_RAGGED;
	cr_assert_eq(segue_spec_check(spec), SEGUE_EINVAL);
	cr_assert(strstr(segue_error_detail(), "a state is dense, not ragged or bytes"));
	spec->states[0].form = SEGUE_FORM_DENSE;
	path = spec->source.tfrecord.paths.path[1];
	spec->source.tfrecord.paths.path[1] = strdup("b.tfrecord");
	cr_assert_eq(segue_spec_check(spec), SEGUE_EINVAL);
	cr_assert(strstr(segue_error_detail(), "source.paths[1] \"b.tfrecord\" is not absolute"));
	free(spec->source.tfrecord.paths.path[1]);
	spec->source.tfrecord.paths.path[1] = path;
	segue_spec_destroy(spec);
	segue_spec_destroy(NULL);
}

Test(spec, copy_is_deep_and_whole)
{
	struct segue_spec *spec, *copy;
	struct sample sample;
	uint64_t hash[2][2], before[64];

	sample_init(&sample);
	sample.spec.depth = 7;
	sample.spec.interval_ms = 12;
	sample.spec.lease_timeout_ms = 13;
	sample.spec.keep_checkpoints = 4;
	sample.spec.maximum_length = 5;
	sample.spec.on_too_long = SEGUE_ON_TOO_LONG_SKIP;
	spec = make(&sample);
	cr_assert_eq(segue_spec_copy(spec, &copy), 0);
	segue_spec_hash(spec, hash[0]);
	cr_assert_eq(segue_spec_compare(spec, copy), 0);
	for (const struct segue_option *option = segue_spec_options; option->name; option++)
		before[option - segue_spec_options] = segue_option_get(option, spec);
	segue_spec_destroy(spec);
	segue_spec_hash(copy, hash[1]);
	cr_assert_eq(memcmp(hash[0], hash[1], sizeof(hash[0])), 0);
	cr_assert_eq(segue_spec_check(copy), 0);
	cr_assert_eq(copy->source.tfrecord.paths.count, 2);
	cr_assert_str_eq(copy->source.tfrecord.paths.path[1], "/data/b-*.tfrecord");
	for (const struct segue_option *option = segue_spec_options; option->name; option++)
		cr_assert_eq(segue_option_get(option, copy), before[option - segue_spec_options],
			"%s", option->name);
	segue_spec_destroy(copy);
}

/* ---- Hash ---------------------------------------------------------------------------------- */

static void hash_of(const struct sample *sample, uint64_t hash[2])
{
	struct segue_spec *spec = make(sample);

	segue_spec_hash(spec, hash);
	segue_spec_destroy(spec);
}

static float other_c0[3] = {1.0F, 2.0F, 4.0F};
CASE(rename_feature, s->sequences[0].name = "y")
CASE(retype, s->sequences[0].dtype = SEGUE_INT32)
CASE(reshape, s->sequences[0].dims[0] = 5; s->sequences[0].dims[1] = 3)
CASE(flatten, s->sequences[0].rank = 1; s->sequences[0].dims[0] = 15)
CASE(fewer_contexts, s->spec.context_count = 1)
CASE(fewer_states, s->spec.state_count = 1)
CASE(other_init, s->states[1].init = other_c0)
CASE(no_init, s->states[1].init = NULL)
CASE(unroll, s->spec.num_unroll = 21)
CASE(seed, s->spec.seed = 10)
CASE(no_shuffle, s->spec.shuffle = false)
CASE(epochs, s->spec.epochs = 4)
CASE(later, s->spec.first_epoch = 2)
CASE(no_pad, s->spec.no_pad = true)
CASE(skip, s->spec.on_error = SEGUE_ON_ERROR_SKIP)
CASE(final, s->spec.keep_final = true)
CASE(whole, s->spec.num_unroll = 0; s->spec.maximum_length = 50)
CASE(trimmed, s->spec.trim = true)
CASE(limited, s->spec.maximum_length = 9)
CASE(limited_by_skipping, s->spec.maximum_length = 9; s->spec.on_too_long = SEGUE_ON_TOO_LONG_SKIP)
CASE(surplus, s->spec.source.tfrecord.allow_surplus = true)
CASE(plain, s->spec.source.tfrecord.record = SEGUE_RECORD_EXAMPLE)
CASE(other_key, s->spec.source.tfrecord.key_feature = "other")
CASE(no_key, s->spec.source.tfrecord.key_feature = NULL)
CASE(swap, struct segue_feature f = s->sequences[0]; s->sequences[0] = s->sequences[1];
	s->sequences[1] = f)
CASE(move_to_context, s->spec.sequence_count = 1; s->contexts[0] = s->sequences[1])
CASE(batch, s->spec.batch_size = 7)
CASE(lanes, s->spec.lanes = 3)
CASE(tail, s->spec.tail = SEGUE_TAIL_STOP)
CASE(drain, s->spec.epoch_end = SEGUE_EPOCH_DRAIN)
CASE(not_stored, s->spec.no_persist = true)
CASE(rename_stream, s->spec.name = "eval")
CASE(move_files, s->spec.source.tfrecord.path_count = 1; s->paths[0] = "/elsewhere/a.tfrecord")
CASE(gzip, s->spec.source.tfrecord.compression = SEGUE_COMPRESSION_GZIP)
CASE(runtime, s->spec.depth = 8; s->spec.num_threads = 4; s->spec.durability = SEGUE_DURABLE_COMMIT;
	s->spec.interval_ms = 5; s->spec.lease_timeout_ms = 6; s->spec.groups = 3;
	s->spec.groups_timeout_ms = 7; s->spec.max_lag_ms = 8; s->spec.on_lag = SEGUE_ON_LAG_DETACH)

/* What a change of one field does to the hash, and what comparing says ("": nothing). */
static const struct {
	void (*change)(struct sample *sample);
	bool rehashes;
	const char *says;
} changes[] = {
	{rename_feature, true,
		"sequences \"x\": in the store, not asked for; sequences \"y\": not in the store, "
		"asked for"},
	{retype, true, "sequences \"x\" dtype: float32 in the store, int32 asked for"},
	{reshape, true, "sequences \"x\" shape: [3, 5] in the store, [5, 3] asked for"},
	{flatten, true, "sequences \"x\" shape: [3, 5] in the store, [15] asked for"},
	{fewer_contexts, true, "context \"flag\": in the store, not asked for"},
	{fewer_states, true, "states \"c\": in the store, not asked for"},
	{other_init, true, "states \"c\" initial value: one of hash "},
	{no_init, true, "states \"c\" initial value: one of hash "},
	{unroll, true, "num_unroll: 20 in the store, 21 asked for"},
	{seed, true, "seed: 9 in the store, 10 asked for"},
	{no_shuffle, true, "shuffle: true in the store, false asked for"},
	{epochs, true, ""},
	{later, true, "first_epoch: 0 in the store, 2 asked for"},
	{no_pad, true, "pad: true in the store, false asked for"},
	{skip, true, "on_error: raise in the store, skip asked for"},
	{final, true, "keep_final: false in the store, true asked for"},
	{whole, true, "num_unroll: 20 in the store, None asked for"},
	{trimmed, false, "trim: false in the store, true asked for"},
	{limited, true, "maximum_length: None in the store, 9 asked for"},
	{limited_by_skipping, true,
		"maximum_length: None in the store, 9 asked for; on_too_long: error in the store, "
		"skip asked for"},
	{surplus, true, "allow_surplus: false in the store, true asked for"},
	{plain, true, "record: sequence_example in the store, example asked for"},
	{other_key, true, "key (in C: key_feature): id in the store, other asked for"},
	{no_key, true, "key (in C: key_feature): id in the store, (none) asked for"},
	{swap, true, "order of sequences: \"x\" at place 0 in the store, \"label\" asked for"},
	{move_to_context, true,
		"sequences \"label\": in the store, not asked for; context \"speaker\": in the "
		"store, not asked for; context \"label\": not in the store, asked for"},
	{batch, false, "batch_size: 6 in the store, 7 asked for"},
	{lanes, false, "lanes: 2 in the store, 3 asked for"},
	{tail, false, "tail: shrink in the store, stop asked for"},
	{drain, false, "epoch_end: continue in the store, drain asked for"},
	{not_stored, false, "persist: true in the store, false asked for"},
	{rename_stream, false, ""},
	{move_files, false, ""},
	{gzip, false, ""},
	{runtime, false, ""},
};
#define CHANGES (sizeof(changes) / sizeof(changes[0]))

Test(spec, hash_changes_with_the_identity_alone)
{
	uint64_t original[2], hash[CHANGES][2];
	struct sample sample;

	sample_init(&sample);
	hash_of(&sample, original);
	for (size_t i = 0; i < CHANGES; i++) {
		bool same;

		sample_init(&sample);
		changes[i].change(&sample);
		hash_of(&sample, hash[i]);
		same = hash[i][0] == original[0] && hash[i][1] == original[1];
		cr_expect_eq(same, !changes[i].rehashes, "change %zu (%s)", i, changes[i].says);
		for (size_t k = 0; k < i && changes[i].rehashes; k++)
			cr_expect(hash[i][0] != hash[k][0] || hash[i][1] != hash[k][1],
				"changes %zu and %zu", i, k);
	}
}

Test(spec, no_initial_value_and_explicit_zeros_are_the_same)
{
	static float zeros[3];
	struct segue_spec *a, *b;
	struct sample sample;

	sample_init(&sample);
	sample.states[1].init = NULL;
	a = make(&sample);
	sample.states[1].init = zeros;
	b = make(&sample);
	cr_assert_eq(a->init_hash[1][0], b->init_hash[1][0]);
	cr_assert_eq(a->init_hash[1][1], b->init_hash[1][1]);
	cr_assert_neq(a->init_hash[0][0], a->init_hash[1][0], "zeros of another size");
	segue_spec_destroy(a);
	segue_spec_destroy(b);
}

/* Larger than the block that zeros are hashed in. */
Test(spec, large_initial_values)
{
	struct segue_spec *a, *b, *c;
	struct sample sample;
	uint8_t *init = calloc(1, 10001);

	sample_init(&sample);
	sample.states[1].dtype = SEGUE_UINT8;
	sample.states[1].dims[0] = 10001;
	sample.states[1].init = NULL;
	a = make(&sample);
	sample.states[1].init = init;
	b = make(&sample);
	init[10000] = 1;
	c = make(&sample);
	cr_assert_eq(a->init_hash[1][0], b->init_hash[1][0]);
	cr_assert_neq(b->init_hash[1][0], c->init_hash[1][0]);
	segue_spec_destroy(a);
	segue_spec_destroy(b);
	segue_spec_destroy(c);
	free(init);
}

/* ---- Comparison ---------------------------------------------------------------------------- */

static int compare(const struct sample *stored, const struct sample *asked)
{
	struct segue_spec *a = make(stored), *b = make(asked);
	int rc = segue_spec_compare(a, b);

	segue_spec_destroy(a);
	segue_spec_destroy(b);
	return rc;
}

/* Another value that is allowed. */
static void change_option(const struct segue_option *option, void *of)
{
	uint64_t value;

	if (option->kind == SEGUE_OPTION_TEXT) {
		cr_assert_eq(segue_option_set_text(option, "", of, "other"), 0);
		return;
	}
	value = segue_option_get(option, of);
	cr_assert_eq(
		segue_option_set(option, "", of, value == option->most ? value - 1 : value + 1), 0);
}

/* One option of the spec, or of its source, is another. */
static void expect_part(const struct segue_option *option, bool of_source)
{
	struct sample sample;
	struct segue_spec *stored, *asked;
	uint64_t hash[2][2];
	char says[64];
	int rc;

	sample_init(&sample);
	stored = make(&sample);
	asked = make(&sample);
	change_option(option, of_source ? (void *)&asked->source : asked);
	segue_spec_hash(stored, hash[0]);
	segue_spec_hash(asked, hash[1]);
	cr_expect_eq(memcmp(hash[0], hash[1], sizeof(hash[0])) != 0,
		option->part == SEGUE_OPTION_IDENTITY || option->part == SEGUE_OPTION_GROWING, "%s",
		option->name);
	rc = segue_spec_compare(stored, asked);
	cr_expect_eq(rc,
		option->part == SEGUE_OPTION_RUNTIME || option->part == SEGUE_OPTION_GROWING
			? 0
			: SEGUE_ESPEC,
		"%s", option->name);
	snprintf(says, sizeof(says), "%s: ", option->said ? option->said : option->name);
	cr_expect(!rc || strncmp(segue_error_detail(), says, strlen(says)) == 0, "%s: %s",
		option->name, segue_error_detail());
	segue_spec_destroy(stored);
	segue_spec_destroy(asked);
}

Test(spec, each_option_is_identity_schedule_or_free)
{
	const struct segue_option *of_source = segue_source_row(SEGUE_SOURCE_TFRECORD)->options;

	for (const struct segue_option *option = segue_spec_options; option->name; option++)
		expect_part(option, false);
	for (const struct segue_option *option = of_source; option->name; option++)
		expect_part(option, true);
}

static void expect_hash(const struct segue_spec *spec, const char *golden)
{
	uint64_t hash[2];
	char text[33];

	segue_spec_hash(spec, hash);
	snprintf(text, sizeof(text), "%016" PRIx64 "%016" PRIx64, hash[1], hash[0]);
	cr_expect_str_eq(text, golden);
}

static void over_files(struct sample *s)
{
	s->spec.source = (struct segue_draft_source){
		.kind = SEGUE_SOURCE_FILES, .files = {.paths = s->paths, .path_count = 2}};
}

/*
 * Stores and tokens hold these: a later version, which knows more, must make the same of a stream
 * that does not use it. They change with HASH_VERSION alone.
 */
Test(spec, hashes_are_those_of_earlier_versions)
{
	struct segue_spec *spec;
	struct sample sample;

	sample_init(&sample);
	spec = make(&sample);
	expect_hash(spec, "d75546abccbb96510202402bdf65aa10");
	segue_spec_destroy(spec);

	sample.spec.seed = UINT64_MAX;
	sample.spec.epochs = 5;
	sample.spec.first_epoch = 4;
	sample.spec.no_pad = true;
	sample.spec.on_error = SEGUE_ON_ERROR_SKIP;
	sample.spec.keep_final = true;
	sample.spec.source.tfrecord.allow_surplus = true;
	spec = make(&sample);
	expect_hash(spec, "b607d692463251c9b29944a9ef165d88");
	segue_spec_destroy(spec);

	sample_init(&sample);
	sample.spec.source.kind = SEGUE_SOURCE_FILES;
	sample.spec.source.tfrecord.key_feature = NULL;
	sample.spec.shuffle = false;
	sample.spec.seed = sample.spec.epochs = 0;
	sample.spec.context_count = sample.spec.state_count = 0;
	spec = make(&sample);
	expect_hash(spec, "9aa48872266132f6d27eac382690bbc8");
	segue_spec_destroy(spec);

	sample_init(&sample);
	over_files(&sample);
	sample.sequences[1].form = SEGUE_FORM_RAGGED;
	sample.contexts[0].form = SEGUE_FORM_BYTES;
	sample.contexts[0].dtype = SEGUE_UINT8;
	sample.states[0].init_from_data = true;
	spec = make(&sample);
	expect_hash(spec, "1a47856001900f3a990691a58270cd90");
	segue_spec_destroy(spec);

	struct segue_draft_part parts[2];
	sample_init(&sample);
	parts[0] = (struct segue_draft_part){
		.name = "a", .source = sample.spec.source, .weight = 3, .epochs = 2};
	parts[0].source.tfrecord.record = SEGUE_RECORD_EXAMPLE;
	over_files(&sample);
	parts[1] =
		(struct segue_draft_part){.name = "b", .source = sample.spec.source, .weight = 1};
	sample.spec.source = (struct segue_draft_source){
		.kind = SEGUE_SOURCE_MIX, .mix = {.parts = parts, .part_count = 2}};
	sample.spec.epochs = 1;
	spec = make(&sample);
	expect_hash(spec, "58ab5ed25988d58d67e692bc0f0ca9d4");
	segue_spec_destroy(spec);

	parts[1].source.kind = SEGUE_SOURCE_ARRAYS;
	parts[1].source.arrays.checksum = true; /* which does not belong to what it is */
	spec = make(&sample);
	expect_hash(spec, "3fb9754377b7e7193ff35261c4e984a8");
	segue_spec_destroy(spec);
}

/* Rows keep their order: it is that of the hash. */
Test(spec, identity_has_its_order)
{
	static const char *const names[] = {"num_unroll", "shuffle", "seed", "epochs",
		"first_epoch", "pad", "on_error", "keep_final", "maximum_length", "on_too_long",
		"lanes_by", "window", "initial", "key_feature", "allow_surplus", "record"};
	const struct segue_option *const lists[] = {
		segue_spec_options, segue_source_row(SEGUE_SOURCE_TFRECORD)->options};
	size_t count = 0;

	for (size_t i = 0; i < 2; i++)
		for (const struct segue_option *option = lists[i]; option->name; option++) {
			if (option->part != SEGUE_OPTION_IDENTITY &&
				option->part != SEGUE_OPTION_GROWING)
				continue;
			cr_assert_lt(count, sizeof(names) / sizeof(names[0]));
			cr_expect_str_eq(option->name, names[count++]);
		}
	cr_expect_eq(count, sizeof(names) / sizeof(names[0]));
}

static int check_with(struct segue_spec *spec, const struct segue_option *option, uint64_t value)
{
	uint64_t before = segue_option_get(option, spec);
	char *at = (char *)spec + option->offset;
	int rc;

	/* Little-endian, as all that the tests run on. */
	memcpy(at, &value, option->size);
	if (option->id == SEGUE_SPEC_WINDOW) /* which is that of some boundaries */
		spec->boundaries = SEGUE_BOUNDARIES(7);
	if (option->id == SEGUE_SPEC_INITIAL) { /* which needs both */
		spec->keep_final = true;
		spec->lanes_by = SEGUE_LANES_BY_RECORD;
	}
	rc = segue_spec_check(spec);
	spec->boundaries.count = 0;
	if (option->id == SEGUE_SPEC_INITIAL) {
		spec->keep_final = false;
		spec->lanes_by = SEGUE_LANES_BY_SEQUENCE;
	}
	memcpy(at, &before, option->size);
	return rc;
}

/* The ends of each range are allowed, what lies beyond is refused by name. */
Test(spec, each_option_has_its_range)
{
	struct segue_spec *spec;
	struct sample sample;

	sample_init(&sample);
	sample.spec.epochs = 0; /* so that it may begin with any */
	sample.spec.maximum_length = 50;
	sample.spec.max_lag_ms = 50;
	spec = make(&sample);
	for (const struct segue_option *option = segue_spec_options; option->name; option++) {
		if (option->kind == SEGUE_OPTION_FLAG)
			continue;
		cr_expect_eq(check_with(spec, option, option->least), 0, "%s", option->name);
		cr_expect_eq(check_with(spec, option, option->most), 0, "%s", option->name);
		if (option->least > 0) {
			cr_expect_eq(check_with(spec, option, option->least - 1), SEGUE_EINVAL);
			cr_expect_eq(
				strncmp(segue_error_detail(), option->name, strlen(option->name)),
				0, "%s", segue_error_detail());
		}
		if (option->most < UINT32_MAX) {
			cr_expect_eq(check_with(spec, option, option->most + 1), SEGUE_EINVAL);
			cr_expect_eq(
				strncmp(segue_error_detail(), option->name, strlen(option->name)),
				0, "%s", segue_error_detail());
		}
	}
	segue_spec_destroy(spec);
}

/* The table of what does not go together is whole: all pairs of options, at the ends of each. */
Test(spec, what_does_not_go_together_is_in_the_table)
{
	struct segue_spec *spec;
	struct sample sample;
	size_t refused = 0;

	sample_init(&sample);
	spec = make(&sample);
	for (const struct segue_option *one = segue_spec_options; one->name; one++)
		for (const struct segue_option *other = segue_spec_options; other < one; other++)
			for (int ends = 0; ends < 4; ends++) {
				uint64_t before[2] = {
					segue_option_get(one, spec), segue_option_get(other, spec)};
				uint64_t a = ends & 1 ? one->most : one->least;
				uint64_t b = ends & 2 ? other->most : other->least;

				cr_assert_eq(segue_option_set(one, "", spec, a), 0);
				cr_assert_eq(segue_option_set(other, "", spec, b), 0);
				bool kept = spec->initial == SEGUE_INITIAL_KEPT;
				bool wrong = (spec->keep_final && !spec->persist) ||
					     (kept && (!spec->keep_final || !spec->lanes_by)) ||
					     (spec->epochs && spec->epochs <= spec->first_epoch) ||
					     (spec->on_too_long && !spec->maximum_length) ||
					     (spec->groups && (!spec->persist || kept)) ||
					     (spec->on_lag && !spec->max_lag_ms) ||
					     (!spec->num_unroll &&
						     (!spec->pad || !spec->maximum_length ||
							     spec->maximum_length > 1u << 20)) ||
					     spec->window > 0; /* there are no boundaries */
				cr_expect_eq(segue_spec_check(spec), wrong ? SEGUE_EINVAL : 0,
					"%s and %s: %s", one->name, other->name,
					segue_error_detail());
				refused += wrong;
				segue_option_set(one, "", spec, before[0]);
				segue_option_set(other, "", spec, before[1]);
			}
	cr_expect_gt(refused, 1);
	segue_spec_destroy(spec);
}

Test(spec, boundaries_and_what_goes_with_them)
{
	uint64_t hash[3][2];
	struct segue_spec *spec, *copy;
	struct sample sample;

	sample_init(&sample);
	spec = make(&sample);
	segue_spec_hash(spec, hash[0]);
	cr_assert_eq(segue_spec_window(spec), 0);
	cr_assert_eq(segue_spec_set_boundaries(spec, (uint64_t[]){10, 20}, 2), 0);
	spec->tail = SEGUE_TAIL_SHRINK;
	cr_assert_eq(segue_spec_check(spec), 0, "%s", segue_error_detail());
	cr_assert_eq(segue_spec_window(spec), 16 * spec->batch_size);
	cr_assert_eq(segue_spec_least_capacity(spec), (16 + spec->depth + 2) * spec->batch_size);
	segue_spec_hash(spec, hash[1]);
	cr_assert_eq(segue_spec_copy(spec, &copy), 0);
	cr_assert_eq(segue_spec_compare(spec, copy), 0);
	cr_assert_eq(segue_spec_set_boundaries(copy, (uint64_t[]){10, 21}, 2), 0);
	segue_spec_hash(copy, hash[2]);
	cr_assert_neq(hash[0][0], hash[1][0]);
	cr_assert_neq(hash[1][0], hash[2][0]);
	cr_assert_eq(segue_spec_compare(spec, copy), SEGUE_ESPEC);
	cr_assert(strstr(segue_error_detail(),
			  "bucket_boundaries: [10, 20] in the store, [10, 21] asked for"),
		"%s", segue_error_detail());
	cr_assert_eq(segue_spec_set_boundaries(copy, (uint64_t[]){10, 10}, 2), SEGUE_EINVAL);
	cr_assert_eq(copy->boundaries.length[1], 21, "a refused list changes nothing");
	cr_assert_eq(segue_spec_set_boundaries(copy, NULL, SEGUE_BOUNDARIES_MAX + 1), SEGUE_EINVAL);
	spec->window = spec->batch_size;
	cr_assert_eq(segue_spec_check(spec), 0);
	cr_assert_eq(segue_spec_window(spec), spec->batch_size);
	spec->tail = SEGUE_TAIL_STOP;
	cr_assert_eq(segue_spec_check(spec), SEGUE_EINVAL);
	cr_assert_eq(segue_spec_set_boundaries(spec, NULL, 0), 0);
	spec->window = 0;
	cr_assert_eq(segue_spec_check(spec), 0);
	segue_spec_hash(spec, hash[1]);
	cr_assert_eq(hash[0][0], hash[1][0]);
	segue_spec_destroy(copy);
	segue_spec_destroy(spec);
}

Test(spec, it_begins_before_it_ends)
{
	struct segue_spec *spec;
	struct sample sample;

	sample_init(&sample);
	sample.spec.first_epoch = 2; /* of 3 */
	segue_spec_destroy(make(&sample));
	sample.spec.first_epoch = 3;
	cr_assert_eq(segue_draft_make(&sample.spec, &spec), SEGUE_EINVAL);
	cr_assert(strstr(segue_error_detail(), "epochs is 3 and first_epoch 3"), "%s",
		segue_error_detail());
}

Test(spec, comparison_names_what_differs)
{
	struct sample stored, asked;

	for (size_t i = 0; i < CHANGES; i++) {
		int rc;

		sample_init(&stored);
		sample_init(&asked);
		changes[i].change(&asked);
		segue_fail(0, "%s", "");
		rc = compare(&stored, &asked);
		cr_expect_eq(rc, changes[i].says[0] ? SEGUE_ESPEC : 0, "change %zu", i);
		cr_expect_eq(
			strncmp(segue_error_detail(), changes[i].says, strlen(changes[i].says)), 0,
			"change %zu: \"%s\" instead of \"%s\"", i, segue_error_detail(),
			changes[i].says);
		const char *rest = segue_error_detail() + strlen(changes[i].says);
		const char *advice = strstr(rest, ". A stream keeps these as it was made");
		cr_expect_eq(rc != 0, advice != NULL, "change %zu: \"%s\"", i, rest);
		cr_expect(!advice || (advice - rest < 130 && strstr(advice, "drop(\"train\")")),
			"change %zu: \"%s\"", i, rest);
		cr_expect_eq(strstr(rest, "loader.set_batch_size") != NULL,
			changes[i].change == batch, "change %zu: \"%s\"", i, rest);
	}
}

/* "(none)" is what is shown where there is no key feature, and a name that one can have. */
Test(spec, a_key_feature_that_looks_like_none)
{
	struct sample stored, asked;

	sample_init(&stored);
	sample_init(&asked);
	stored.spec.source.tfrecord.key_feature = "(none)";
	asked.spec.source.tfrecord.key_feature = NULL;
	cr_assert_eq(compare(&stored, &asked), SEGUE_ESPEC);
}

/* Which of two states has them is told apart, and a copy has them, too. */
Test(spec, initial_values_from_the_data_are_identity)
{
	struct segue_spec *spec, *copy;
	struct sample sample[3];
	uint64_t hash[4][2];

	for (size_t i = 0; i < 3; i++) {
		sample_init(&sample[i]);
		over_files(&sample[i]);
		sample[i].states[1].init = NULL;
		if (i > 0)
			sample[i].states[i - 1].init_from_data = true;
		hash_of(&sample[i], hash[i]);
	}
	cr_assert(memcmp(hash[0], hash[1], 16) && memcmp(hash[0], hash[2], 16) &&
		  memcmp(hash[1], hash[2], 16));
	cr_assert_eq(compare(&sample[0], &sample[1]), SEGUE_ESPEC);
	cr_assert(strstr(segue_error_detail(),
			  "states \"h\" initial value: one for all in the store, from the data "
			  "asked for. "),
		"%s", segue_error_detail());
	cr_assert_eq(compare(&sample[1], &sample[2]), SEGUE_ESPEC);
	cr_assert(strstr(segue_error_detail(), "\"h\" initial value: from the data in the store"));
	cr_assert(strstr(segue_error_detail(), "\"c\" initial value: one for all in the store"));
	spec = make(&sample[2]);
	cr_assert_eq(segue_spec_copy(spec, &copy), 0);
	segue_spec_hash(copy, hash[3]);
	cr_assert_eq(memcmp(hash[2], hash[3], 16), 0);
	segue_spec_destroy(spec);
	segue_spec_destroy(copy);
}

Test(spec, policies_are_identity)
{
	struct segue_spec *spec, *copy;
	struct sample sample[3];
	uint64_t hash[4][2];

	for (size_t i = 0; i < 3; i++) {
		sample_init(&sample[i]);
		if (i > 0) {
			sample[i].states[1].policy = SEGUE_POLICY_ZERO;
			sample[i].states[1].probability = 0.25 * (double)i;
		}
		hash_of(&sample[i], hash[i]);
	}
	cr_assert(memcmp(hash[0], hash[1], 16) && memcmp(hash[0], hash[2], 16) &&
		  memcmp(hash[1], hash[2], 16));
	cr_assert_eq(compare(&sample[0], &sample[1]), SEGUE_ESPEC);
	cr_assert(strstr(segue_error_detail(),
			  "states \"c\" policy: carry in the store, zero(0.25) asked for. "),
		"%s", segue_error_detail());
	cr_assert_eq(compare(&sample[2], &sample[1]), SEGUE_ESPEC);
	cr_assert(strstr(segue_error_detail(), "zero(0.5) in the store, zero(0.25) asked for"));
	spec = make(&sample[2]);
	cr_assert_eq(segue_spec_copy(spec, &copy), 0);
	segue_spec_hash(copy, hash[3]);
	cr_assert_eq(memcmp(hash[2], hash[3], 16), 0);
	segue_spec_destroy(spec);
	segue_spec_destroy(copy);
}

Test(spec, comparison_lists_all_of_them)
{
	struct sample stored, asked;

	sample_init(&stored);
	sample_init(&asked);
	unroll(&asked);
	lanes(&asked);
	retype(&asked);
	other_init(&asked);
	cr_assert_eq(compare(&stored, &asked), SEGUE_ESPEC);
	cr_assert(strstr(segue_error_detail(),
		"num_unroll: 20 in the store, 21 asked for; lanes: 2 in the store, 3 asked for; "
		"sequences \"x\" dtype: float32 in the store, int32 asked for; states \"c\" "
		"initial value: "));
}

Test(spec, comparison_counts_what_has_no_room)
{
	static char names[200][64];
	static struct segue_feature features[200];
	struct sample stored, asked;
	const char *rest;
	unsigned more, shown = 0;

	sample_init(&stored);
	sample_init(&asked);
	for (int i = 0; i < 200; i++) {
		snprintf(names[i], sizeof(names[i]), "a feature with a rather long name %d", i);
		features[i] = (struct segue_feature){.name = names[i], .dtype = SEGUE_INT32};
	}
	stored.spec.sequences = features;
	stored.spec.sequence_count = 200;
	cr_assert_eq(compare(&stored, &asked), SEGUE_ESPEC);
	rest = strstr(segue_error_detail(), "; and ");
	cr_assert_not_null(rest, "%s", segue_error_detail());
	cr_assert_eq(sscanf(rest, "; and %u more", &more), 1);
	for (const char *c = segue_error_detail(); (c = strstr(c, "asked for")); c++)
		shown++;
	cr_assert_eq(shown + more, 202, "%u shown, %u more", shown, more);
}

/* ---- UTF-8 --------------------------------------------------------------------------------- */

/* Every code point, encoded by the definition, and what its neighbours make of it. */
Test(spec, utf8_takes_exactly_what_it_should)
{
	static const char *const bad[] = {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf",
		"\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
		"\xf5\x80\x80\x80", "\xff", "\xe2\x82", "\xe2\x28\xa1", "\xf0\x9f\x92",
		"\xf0\x9f\x92\x28", "ok\xc3"};

	for (uint32_t c = 0; c <= 0x10ffff; c++) {
		char text[4];
		size_t size;

		if (c >= 0xd800 && c <= 0xdfff)
			continue;
		if (c < 0x80) {
			text[0] = (char)c;
			size = 1;
		} else if (c < 0x800) {
			text[0] = (char)(0xc0 | c >> 6);
			text[1] = (char)(0x80 | (c & 0x3f));
			size = 2;
		} else if (c < 0x10000) {
			text[0] = (char)(0xe0 | c >> 12);
			text[1] = (char)(0x80 | (c >> 6 & 0x3f));
			text[2] = (char)(0x80 | (c & 0x3f));
			size = 3;
		} else {
			text[0] = (char)(0xf0 | c >> 18);
			text[1] = (char)(0x80 | (c >> 12 & 0x3f));
			text[2] = (char)(0x80 | (c >> 6 & 0x3f));
			text[3] = (char)(0x80 | (c & 0x3f));
			size = 4;
		}
		cr_assert_eq(segue_utf8_next(text, size), size, "U+%04x", c);
		for (size_t cut = 0; cut < size; cut++)
			cr_assert_eq(segue_utf8_next(text, cut), 0, "U+%04x cut to %zu", c, cut);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_not(segue_utf8_valid(bad[i], strlen(bad[i])), "%zu", i);
	cr_assert(segue_utf8_valid("", 0));
	cr_assert(segue_utf8_valid("h\xc3\xa4tte", 6));
}

/* ---- Arrays ---------------------------------------------------------------------------------- */

static struct segue_draft arrays_spec(void)
{
	static const char *const paths[] = {"/data/x.npy"};
	static const uint64_t steps[] = {9};
	static struct segue_array array;
	static const struct segue_array_sequence sequences[] = {{0, 0, 4}, {4, 0, 5}};
	static struct segue_feature feature;

	array = (struct segue_array){
		.size = sizeof(struct segue_array), .offset = 128, .dtype = SEGUE_INT16};
	feature =
		(struct segue_feature){.name = "x", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {2}};
	return (struct segue_draft){
		.name = "arrays",
		.source = {.kind = SEGUE_SOURCE_ARRAYS,
			.arrays = {.paths = paths,
				.path_count = 1,
				.index = {.group_steps = steps,
					.group_count = 1,
					.arrays = &array,
					.sequences = sequences,
					.sequence_count = 2}}},
		.sequences = &feature,
		.sequence_count = 1,
		.num_unroll = 2,
		.batch_size = 1,
		.lanes = 1,
	};
}

Test(spec, arrays_are_said_last)
{
	struct segue_draft asked = arrays_spec();
	struct segue_arrays arrays = asked.source.arrays.index;
	struct segue_array list[2] = {arrays.arrays[0], arrays.arrays[0]};
	struct segue_feature more = {.size = sizeof(more), .name = "y", .dtype = SEGUE_INT8};
	struct segue_spec *spec = NULL;

	cr_assert_eq(segue_draft_make(&asked, &spec), 0, "%s", segue_error_detail());
	const struct segue_array_index *index = spec->source.arrays.index;
	REFUSED(segue_spec_set_arrays(spec, NULL), "struct segue_arrays is missing");
	REFUSED(segue_spec_set_arrays(spec, &arrays), "size of struct segue_arrays is 0");
	arrays.size = sizeof(arrays);
	arrays.arrays = list;
	list[0].size = 0;
	REFUSED(segue_spec_set_arrays(spec, &arrays), "size of struct segue_array is 0");
	cr_expect_eq(spec->source.arrays.index, index, "as it was");
	cr_assert_eq(segue_spec_add_sequence(spec, &more), 0);
	cr_expect_eq(segue_spec_check(spec), SEGUE_EINVAL);
	cr_expect(strstr(segue_error_detail(), "of 1 features in 1 files, the stream has 2 in 1"));
	list[0].size = sizeof(list[0]);
	list[1] =
		(struct segue_array){.size = sizeof(list[0]) - 8, .offset = 1, .dtype = SEGUE_INT8};
	REFUSED(segue_spec_set_arrays(spec, &arrays), "array 1 has another size than the first");
	list[1].size = sizeof(list[1]);
	cr_assert_eq(segue_spec_set_arrays(spec, &arrays), 0, "%s", segue_error_detail());
	cr_expect_eq(segue_spec_check(spec), 0, "%s", segue_error_detail());
	segue_spec_destroy(spec);
	cr_assert_eq(segue_spec_create("a", &spec), 0);
	REFUSED(segue_spec_set_arrays(spec, &arrays), "of kind arrays");
	REFUSED(segue_spec_set_arrays(NULL, &arrays), "spec is missing");
	segue_spec_destroy(spec);
}

/* Each part of a mix has its own; whose they are is said by name, or they are the last one's. */
Test(spec, arrays_of_parts)
{
	struct segue_draft asked = arrays_spec();
	struct segue_draft_part parts[] = {
		{.name = "a", .source = asked.source, .weight = 1, .epochs = 1},
		{.name = "b", .source = asked.source, .weight = 1, .epochs = 1},
		{.name = "f", .source = asked.source, .weight = 1, .epochs = 1},
	};
	struct segue_arrays arrays = asked.source.arrays.index;
	struct segue_spec *spec = NULL, *copy = NULL;

	parts[2].source.kind = SEGUE_SOURCE_FILES;
	parts[2].source.files.index = (struct segue_arrays){.size = 0};
	asked.source = (struct segue_draft_source){
		.kind = SEGUE_SOURCE_MIX, .mix = {.parts = parts, .part_count = 3}};
	asked.epochs = 1;
	cr_assert_eq(segue_draft_make(&asked, &spec), 0, "%s", segue_error_detail());
	const struct segue_spec_mix *mix = &spec->source.mix;
	struct segue_array_index *first = mix->part[0].source.arrays.index;
	cr_assert(first && mix->part[1].source.arrays.index);
	arrays.size = sizeof(arrays);
	REFUSED(segue_spec_set_arrays(spec, &arrays), "or a part of a mix, of kind arrays");
	arrays.part = "f";
	REFUSED(segue_spec_set_arrays(spec, &arrays), "or a part of a mix, of kind arrays");
	arrays.part = "c";
	REFUSED(segue_spec_set_arrays(spec, &arrays), "has no part \"c\"");
	arrays.part = "b";
	arrays.sequence_count = 1;
	cr_assert_eq(segue_spec_set_arrays(spec, &arrays), 0, "%s", segue_error_detail());
	cr_expect_eq(mix->part[0].source.arrays.index, first, "as it was");
	cr_expect_eq(mix->part[1].source.arrays.index->sequences, 1);
	cr_expect_eq(segue_spec_check(spec), 0, "%s", segue_error_detail());
	cr_assert_eq(segue_spec_copy(spec, &copy), 0);
	cr_expect_eq(copy->source.mix.part[0].source.arrays.index, first, "the same");
	segue_spec_destroy(spec);
	cr_expect_eq(first->sequences, 2, "the copy has it");
	copy->sequences[0].dims[0] = 3;
	cr_expect_eq(segue_spec_check(copy), SEGUE_EINVAL);
	cr_expect(strstr(segue_error_detail(), "source.parts[0] \"a\": feature 'x': its arrays"),
		"%s", segue_error_detail());
	segue_spec_destroy(copy);
	asked = arrays_spec();
	cr_assert_eq(segue_draft_make(&asked, &spec), 0);
	arrays.part = "a";
	REFUSED(segue_spec_set_arrays(spec, &arrays), "has no part \"a\"");
	segue_spec_destroy(spec);
}

Test(spec, arrays_are_those_of_the_features)
{
	struct segue_draft asked = arrays_spec();
	struct segue_feature feature = asked.sequences[0];
	struct segue_array array = asked.source.arrays.index.arrays[0];
	struct segue_spec *spec = NULL, *copy;

	cr_assert_eq(segue_draft_make(&asked, &spec), 0, "%s", segue_error_detail());
	cr_assert_eq(segue_spec_copy(spec, &copy), 0);
	cr_assert_eq(copy->source.arrays.index, spec->source.arrays.index, "the same");
	segue_spec_destroy(spec);
	cr_assert_eq(segue_array_index_end(copy->source.arrays.index, 0, 0), 128 + 9 * 4);
	/* As a peer may have it. */
	copy->sequences[0].dims[0] = 3;
	cr_assert_eq(segue_spec_check(copy), SEGUE_EINVAL);
	cr_assert(strstr(segue_error_detail(), "'x': its arrays have steps of another shape"));
	copy->sequences[0].dims[0] = 2;
	copy->sequences[0].dtype = SEGUE_INT8;
	cr_assert_eq(segue_spec_check(copy), SEGUE_EINVAL);
	cr_assert(strstr(segue_error_detail(), "is int16, which as int8 would lose values"));
	copy->sequences[0].dtype = SEGUE_INT16;
	cr_assert_eq(segue_spec_check(copy), 0);
	free(copy->source.arrays.paths.path[0]);
	copy->source.arrays.paths.count = 0;
	cr_assert_eq(segue_spec_check(copy), SEGUE_EINVAL);
	segue_spec_destroy(copy);
	array.dtype = SEGUE_INT32;
	asked.source.arrays.index.arrays = &array;
	cr_assert_eq(segue_draft_make(&asked, &spec), SEGUE_EINVAL);
	cr_assert(strstr(segue_error_detail(), "is int32, which as float32 would lose values"));
	feature.rank = 9;
	asked.sequences = &feature;
	cr_assert_eq(segue_draft_make(&asked, &spec), SEGUE_EINVAL);
	cr_assert(strstr(segue_error_detail(), "9 dimensions"), "%s", segue_error_detail());
}
