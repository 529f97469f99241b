/*
 * tf.train.SequenceExample, or as the spec says, a plain tf.train.Example, on the wire: checked in
 * one scan, then decoded from cursors (steps.h, series.h). proto/example.proto has the messages.
 *
 * A plain Example is one map, as the context of a SequenceExample is: of sequence features each
 * Feature holds all steps. feature_lists are surplus in it.
 *
 * What protobuf allows is read as it reads it: maps in pieces, a name given again (the last one
 * counts, and each must fit), lists in parts, unknown fields and groups. Three things it would make
 * something of are errors: a known field of another wire type, a map entry whose value comes in
 * pieces, and a number of more than 64 bits.
 */
#ifndef SEGUE_SOURCE_TFRECORD_EXAMPLE_H
#define SEGUE_SOURCE_TFRECORD_EXAMPLE_H

#include "core/spec.h"
#include "source/tfrecord/steps.h"

/* Longest key that may come from spec->source.tfrecord.key_feature. */
#define SEGUE_EXAMPLE_KEY_MAX 512

/* What a scan found. */
struct segue_example {
	struct segue_cursor *cursors; /* one a sequence feature, in the order of the spec */
	uint8_t *context;             /* values of the context features */
	uint64_t *context_offset;     /* where each lies in it */
	bool *context_found;
	uint64_t steps; /* n, of all sequence features */
	char key[SEGUE_EXAMPLE_KEY_MAX];
	size_t key_size; /* 0 unless the spec has a key feature */
};

/* Allocates for `spec`, once for any number of scans. SEGUE_ENOMEM. */
int segue_example_init(struct segue_example *example, const struct segue_spec *spec);
/* A zeroed struct is fine. */
void segue_example_finish(struct segue_example *example);
/* Bytes that it holds. */
size_t segue_example_memory(const struct segue_spec *spec);

/*
 * Scans the record behind `window` from its start, decodes its context and leaves the cursors at
 * step 0. SEGUE_EDATA: the message is damaged; SEGUE_EMISFIT (source.h): it is sound, and not what
 * the spec says; both name the feature and the step. Else what the window returns. The window need
 * not have read the whole record afterwards (segue_window_complete).
 */
int segue_example_scan(
	const struct segue_spec *spec, struct segue_window *window, struct segue_example *example);

/* Moves sequence feature `i` to step `step` <= its steps. What the window returns. */
int segue_example_seek(const struct segue_spec *spec, struct segue_example *example, size_t i,
	struct segue_window *window, uint64_t step);
/* Decodes its next `steps` steps, which must be there, densely to `out`, and moves it on. */
int segue_example_read(const struct segue_spec *spec, struct segue_example *example, size_t i,
	struct segue_window *window, uint64_t steps, void *out);

/*
 * After a scan that ended with SEGUE_EMISFIT, of a record that has been read whole: adds to what is
 * wrong what the record holds, or says instead where the missing name was found. SEGUE_EMISFIT;
 * else what the window returns.
 */
int segue_example_explain(const struct segue_spec *spec, struct segue_window *window);

#endif
