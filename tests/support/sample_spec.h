/*
 * A small valid stream spec that tests bend out of shape.
 */
#ifndef SEGUE_TESTS_SAMPLE_SPEC_H
#define SEGUE_TESTS_SAMPLE_SPEC_H

#include "draft.h"

struct sample {
	const char *paths[2];
	struct segue_feature sequences[2];
	struct segue_feature contexts[2];
	struct segue_state states[2];
	float c0[3];
	struct segue_draft spec;
};

/*
 * Two sequence features (x float32 [3, 5], label int64), two contexts (speaker int64, flag bool
 * [7]), two states (h float32 [4], c float32 [3] with an initial value), 2 files. Points into
 * itself: pass the address on, do not copy.
 */
static inline void sample_init(struct sample *s)
{
	*s = (struct sample){
		.paths = {"/data/a.tfrecord", "/data/b-*.tfrecord"},
		.sequences = {{.name = "x", .dtype = SEGUE_FLOAT32, .rank = 2, .dims = {3, 5}},
			{.name = "label", .dtype = SEGUE_INT64}},
		.contexts = {{.name = "speaker", .dtype = SEGUE_INT64},
			{.name = "flag", .dtype = SEGUE_BOOL, .rank = 1, .dims = {7}}},
		.states = {{.name = "h", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {4}},
			{.name = "c", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {3}}},
		.c0 = {1.0F, 2.0F, 3.0F},
	};
	s->states[1].init = s->c0;
	s->spec = (struct segue_draft){
		.name = "train",
		.source = {.kind = SEGUE_SOURCE_TFRECORD,
			.tfrecord = {.paths = s->paths, .path_count = 2, .key_feature = "id"}},
		.sequences = s->sequences,
		.sequence_count = 2,
		.contexts = s->contexts,
		.context_count = 2,
		.states = s->states,
		.state_count = 2,
		.num_unroll = 20,
		.batch_size = 6,
		.lanes = 2,
		.shuffle = true,
		.seed = 9,
		.epochs = 3,
	};
}

#endif
