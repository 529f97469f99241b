/*
 * A sequence feature of a plain tf.train.Example: one Feature that holds the values of all steps.
 *
 * It may be of any size: it is gone through in the window, piece by piece. A list of values that
 * lie side by side and have one size (floats, bytes, integers below 128: what writers make) is read
 * at a stride, as steps that look alike; any other from where the last reading ended.
 */
#ifndef SEGUE_SOURCE_TFRECORD_SERIES_H
#define SEGUE_SOURCE_TFRECORD_SERIES_H

#include "source/tfrecord/steps.h"

/*
 * Checks the values of a Feature, at the cursor's begin and end, and counts the steps that they
 * are, which may be none; the cursor is then at step 0. SEGUE_EDATA, SEGUE_EMISFIT: which step is
 * damaged, or not what the field says; what the window returns.
 */
int segue_series_scan(
	const struct segue_field *field, struct segue_window *window, struct segue_cursor *cursor);

/* Moves a cursor to `step` <= its steps. At once at a stride, else by passing over values. */
int segue_series_seek(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t step);

/* Decodes the next `steps` steps, which must be there, densely to `out` and moves the cursor on. */
int segue_series_read(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, void *out);

#endif
