/*
 * The steps of one sequence feature in a record.
 *
 * The scan checks the shape of every step, so that a cursor can afterwards copy values straight to
 * where they are wanted. Steps that all look alike (equal headers, equal sizes: what every writer
 * makes of dense floats) are copied at a stride, without looking at headers again.
 */
#ifndef SEGUE_SOURCE_TFRECORD_STEPS_H
#define SEGUE_SOURCE_TFRECORD_STEPS_H

#include "source/tfrecord/feature.h"
#include "source/tfrecord/window.h"

/* A place in the steps of one sequence feature. Positions are the record's. */
struct segue_cursor {
	bool found;
	uint64_t begin, end;  /* the body of its FeatureList */
	uint64_t steps;       /* in it */
	uint64_t stride;      /* bytes of every step, if they all look alike; else 0 */
	uint32_t header;      /* then: bytes of a step before its values */
	enum segue_kind kind; /* then: what they are */
	uint64_t position, step;
	/* Of a series (series.h): ends of the run and the list that `position`, `begin` are in. */
	uint64_t run, list, first_run, first_list;
};

/*
 * Checks the steps of a cursor whose begin and end are set, and counts them. SEGUE_EDATA,
 * SEGUE_EMISFIT: which step is damaged, or not what the field says; what the window returns.
 */
int segue_steps_scan(
	const struct segue_field *field, struct segue_window *window, struct segue_cursor *cursor);

/* Moves a cursor to `step` <= its steps. At once if steps look alike, else by hopping over them. */
int segue_steps_seek(struct segue_cursor *cursor, struct segue_window *window, uint64_t step);

/* Decodes the next `steps` steps, which must be there, densely to `out` and moves the cursor on. */
int segue_steps_read(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, void *out);

#endif
