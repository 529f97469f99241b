/*
 * tf.train.SequenceExample on the wire: checked in one scan, then decoded from cursors.
 *
 * The scan finds where each sequence feature's steps lie and checks the shape of every one of them,
 * so that a cursor can afterwards copy values straight to where they are wanted. Features whose
 * steps all look alike (equal headers, equal sizes: what every writer makes of dense floats) are
 * copied at a stride, without looking at headers again. proto/example.proto has the messages.
 *
 * Stricter than a protobuf parser: a feature named twice, a map entry or a feature with two values,
 * a known field of another wire type, and groups are errors.
 */
#ifndef SEGUE_SOURCE_TFRECORD_EXAMPLE_H
#define SEGUE_SOURCE_TFRECORD_EXAMPLE_H

#include "core/spec.h"
#include "source/tfrecord/window.h"

/* Longest key that may come from spec->source.tfrecord.key_feature. */
#define SEGUE_EXAMPLE_KEY_MAX 512

/* What a Feature holds: its field number in the message. */
enum segue_kind {
	SEGUE_KIND_NONE = 0,
	SEGUE_KIND_BYTES = 1,
	SEGUE_KIND_FLOAT = 2,
	SEGUE_KIND_INT64 = 3,
};

/* A place in the steps of one sequence feature. Positions are the record's. */
struct segue_cursor {
	bool found;
	uint64_t begin, end;  /* the body of its FeatureList */
	uint64_t steps;       /* in it */
	uint64_t stride;      /* bytes of every step, if they all look alike; else 0 */
	uint32_t header;      /* then: bytes of a step before its values */
	enum segue_kind kind; /* then: what they are */
	uint64_t position, step;
};

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
 * step 0. SEGUE_EDATA names the feature and the step; else what the window returns. The window need
 * not have read the whole record afterwards (segue_window_complete).
 */
int segue_example_scan(
	const struct segue_spec *spec, struct segue_window *window, struct segue_example *example);

/* Moves a cursor to `step` <= its steps. At once if steps look alike, else by hopping over them. */
int segue_example_seek(struct segue_cursor *cursor, struct segue_window *window, uint64_t step);

/* Decodes the next `steps` steps, which must be there, densely to `out` and moves the cursor on. */
int segue_example_read(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, void *out);

#endif
