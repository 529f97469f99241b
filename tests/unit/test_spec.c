/*
 * Tests of specs: each rule, defaults, copies, hash, comparison.
 */
#include "core/spec.h"

#include <criterion/criterion.h>
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
	int rc = segue_spec_create(&sample->spec, &spec);

	cr_assert_eq(rc, 0, "%s", segue_error_detail());
	return spec;
}

/* ---- Rules --------------------------------------------------------------------------------- */

static char long_name[SEGUE_NAME_MAX + 2], long_path[PATH_MAX + 2];
static struct segue_feature many[SEGUE_FEATURES_MAX + 1];

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
CASE(null_sequences, s->spec.sequences = NULL)
CASE(null_contexts, s->spec.contexts = NULL)
CASE(null_states, s->spec.states = NULL)
CASE(no_kind, s->spec.source.kind = 0)
CASE(bad_kind, s->spec.source.kind = 99)
CASE(null_paths, s->spec.source.tfrecord.paths = NULL)
CASE(no_path, s->spec.source.tfrecord.path_count = 0)
CASE(empty_path, s->paths[1] = "")
CASE(missing_path, s->paths[1] = NULL)
CASE(path_too_long, s->paths[1] = memset(long_path, '/', PATH_MAX))
CASE(too_many_features, s->spec.sequences = many; s->spec.sequence_count = SEGUE_FEATURES_MAX + 1)
CASE(too_many_together, s->spec.sequences = many; s->spec.sequence_count = SEGUE_FEATURES_MAX - 1)
CASE(too_many_states, s->spec.state_count = SEGUE_STATES_MAX + 1)
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
CASE(ragged_nowhere, s->sequences[1].form = SEGUE_FORM_RAGGED; s->sequences[1].rank = 0)
CASE(unroll_zero, s->spec.num_unroll = 0)
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
CASE(final_of_nothing, s->spec.keep_final = true; s->spec.volatile_ = true)
CASE(empty_key_feature, s->spec.source.tfrecord.key_feature = "")

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
	{no_sequence, {"sequences (in C: sequence_count) is 0"}},
	{null_sequences, {"sequences is NULL", "2 entries"}},
	{null_contexts, {"contexts is NULL"}},
	{null_states, {"states is NULL"}},
	{no_kind, {"source.kind is 0", "none of 1 (tfrecord)"}},
	{bad_kind, {"source.kind is 99", "none of 1 (tfrecord)"}},
	{null_paths, {"source.paths is NULL"}},
	{no_path, {"source.paths (in C: path_count) is 0"}},
	{empty_path, {"source.paths[1] is empty"}},
	{missing_path, {"source.paths[1] is empty"}},
	{path_too_long, {"source.paths[1] has 4096 bytes", "at most 4095"}},
	{too_many_features, {"sequences (in C: sequence_count) is 257", "256"}},
	{too_many_together, {"255 sequences and 2 context", "together at most 256"}},
	{too_many_states, {"states (in C: state_count) is 257", "256"}},
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
		{"states[0] \"h\": its initial value is to come from the data", "kind tfrecord"}},
	{bad_form, {"sequences[0] \"x\": form is 3, which is no form"}},
	{ragged_shape, {"sequences[0] \"x\": it is ragged, and then has no shape"}},
	{bytes_dtype, {"context[0] \"speaker\": the dtype of bytes is uint8 (5), not int64"}},
	{ragged_nowhere, {"sequences[1] \"label\" is ragged", "kind tfrecord does not have"}},
	{unroll_zero, {"num_unroll is 0", "from 1"}},
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
	{final_of_nothing, {"keep_final", "persist"}},
	{empty_key_feature, {"source.key (in C: key_feature) is empty"}},
};

Test(spec, each_rule_names_field_and_value)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		struct segue_spec *spec = NULL;
		struct sample sample;

		sample_init(&sample);
		rules[i].change(&sample);
		cr_expect_eq(segue_spec_create(&sample.spec, &spec), SEGUE_EINVAL,
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
	sample.spec.volatile_ = true;
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
	cr_assert_eq(segue_spec_create(&sample.spec, &spec), SEGUE_ESYSTEM);
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
CASE(not_stored, s->spec.volatile_ = true)
CASE(rename_stream, s->spec.name = "eval")
CASE(move_files, s->spec.source.tfrecord.path_count = 1; s->paths[0] = "/elsewhere/a.tfrecord")
CASE(gzip, s->spec.source.tfrecord.compression = SEGUE_COMPRESSION_GZIP)
CASE(runtime, s->spec.depth = 8; s->spec.num_threads = 4; s->spec.durability = SEGUE_DURABLE_COMMIT;
	s->spec.interval_ms = 5; s->spec.lease_timeout_ms = 6)

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
	{no_pad, true, "pad (in C the contrary: no_pad): true in the store, false asked for"},
	{skip, true, "on_error: raise in the store, skip asked for"},
	{final, true, "keep_final: false in the store, true asked for"},
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
	{not_stored, false,
		"persist (in C the contrary: volatile_): true in the store, false asked for"},
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

/* Tokens of one build must fit the next: this number changes only with HASH_VERSION. */
Test(spec, hash_is_the_same_in_every_build)
{
	struct sample sample;
	uint64_t hash[2];

	sample_init(&sample);
	hash_of(&sample, hash);
	cr_assert_eq(hash[0], UINT64_C(0x00f885a8c075f537), "%016lx", (unsigned long)hash[0]);
	cr_assert_eq(hash[1], UINT64_C(0x4184edcb0db9cf98), "%016lx", (unsigned long)hash[1]);
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
static void change_option(const struct segue_option *option, const void *spec, void *asked)
{
	static const char *const other = "other";
	uint64_t value;

	if (option->kind == SEGUE_OPTION_TEXT) {
		memcpy((char *)asked + option->asked, &other, sizeof(other));
		return;
	}
	value = segue_option_get(option, spec);
	segue_option_ask(option, asked, value == option->most ? value - 1 : value + 1);
}

static void expect_part(const struct segue_option *option, const struct sample *changed)
{
	struct sample sample;
	struct segue_spec *stored, *asked;
	uint64_t hash[2][2];
	char says[64];
	int rc;

	sample_init(&sample);
	stored = make(&sample);
	asked = make(changed);
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
	struct sample sample, changed;
	struct segue_spec *spec;

	sample_init(&sample);
	spec = make(&sample);
	for (const struct segue_option *option = segue_spec_options; option->name; option++) {
		sample_init(&changed);
		change_option(option, spec, &changed.spec);
		expect_part(option, &changed);
	}
	for (const struct segue_option *option = of_source; option->name; option++) {
		sample_init(&changed);
		change_option(option, &spec->source, &changed.spec.source);
		expect_part(option, &changed);
	}
	segue_spec_destroy(spec);
}

/* Rows keep their order: it is that of the hash. */
Test(spec, identity_has_its_order)
{
	static const char *const names[] = {"num_unroll", "shuffle", "seed", "epochs",
		"first_epoch", "pad", "on_error", "keep_final", "key_feature", "allow_surplus",
		"record"};
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
	rc = segue_spec_check(spec);
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

Test(spec, it_begins_before_it_ends)
{
	struct segue_spec *spec;
	struct sample sample;

	sample_init(&sample);
	sample.spec.first_epoch = 2; /* of 3 */
	segue_spec_destroy(make(&sample));
	sample.spec.first_epoch = 3;
	cr_assert_eq(segue_spec_create(&sample.spec, &spec), SEGUE_EINVAL);
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

static void over_files(struct sample *s)
{
	s->spec.source = (struct segue_stream_source){
		.kind = SEGUE_SOURCE_FILES, .files = {.paths = s->paths, .path_count = 2}};
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

static struct segue_stream_spec arrays_spec(void)
{
	static const char *const paths[] = {"/data/x.npy"};
	static const uint64_t steps[] = {9};
	static struct segue_array array;
	static const struct segue_array_sequence sequences[] = {{0, 0, 4}, {4, 0, 5}};
	static struct segue_feature feature;

	array = (struct segue_array){.offset = 128, .dtype = SEGUE_INT16};
	feature =
		(struct segue_feature){.name = "x", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {2}};
	return (struct segue_stream_spec){
		.name = "arrays",
		.source = {.kind = SEGUE_SOURCE_ARRAYS,
			.arrays = {.paths = paths,
				.path_count = 1,
				.group_steps = steps,
				.group_count = 1,
				.arrays = &array,
				.sequences = sequences,
				.sequence_count = 2}},
		.sequences = &feature,
		.sequence_count = 1,
		.num_unroll = 2,
		.batch_size = 1,
		.lanes = 1,
	};
}

Test(spec, arrays_are_those_of_the_features)
{
	struct segue_stream_spec asked = arrays_spec();
	struct segue_feature feature = asked.sequences[0];
	struct segue_array array = asked.source.arrays.arrays[0];
	struct segue_spec *spec = NULL, *copy;

	cr_assert_eq(segue_spec_create(&asked, &spec), 0, "%s", segue_error_detail());
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
	asked.source.arrays.arrays = &array;
	cr_assert_eq(segue_spec_create(&asked, &spec), SEGUE_EINVAL);
	cr_assert(strstr(segue_error_detail(), "is int32, which as float32 would lose values"));
	feature.rank = 9;
	asked.sequences = &feature;
	cr_assert_eq(segue_spec_create(&asked, &spec), SEGUE_EINVAL);
	cr_assert(strstr(segue_error_detail(), "9 dimensions"), "%s", segue_error_detail());
}
