/*
 * Features that are ragged, or bytes: each step has any number of values, or one bytes value.
 *
 * In a SequenceExample a step is a Feature: of what is ragged with any number of floats or
 * integers, or with one bytes value that is the values themselves; of bytes with one bytes value,
 * neither none nor several. In its context the Feature is that of the only step. In a plain Example
 * a feature of bytes has a value a step, and nothing can be ragged but what is context.
 *
 * Steps and values may be of any size and are gone through piece by piece. Cursors go on from where
 * the last reading ended; backwards, from the beginning.
 */
#ifndef SEGUE_SOURCE_TFRECORD_VARIABLE_H
#define SEGUE_SOURCE_TFRECORD_VARIABLE_H

#include "source/sink.h"
#include "source/tfrecord/steps.h"

/*
 * Checks the steps of a cursor whose begin and end are those of a FeatureList, and counts them.
 * SEGUE_EDATA, SEGUE_EMISFIT: which step is damaged, or not what the field says; what the window
 * returns. segue_steps_seek() moves the cursor.
 */
int segue_variable_scan(
	const struct segue_field *field, struct segue_window *window, struct segue_cursor *cursor);
/*
 * Appends the next `steps` steps, which must be there, and moves the cursor on: as read_variable of
 * source.h.
 */
int segue_variable_read(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, int64_t *offsets, struct segue_sink *sink);

/* The same of a cursor that has a Feature of context; it is read as often as wanted. */
int segue_variable_scan_context(
	const struct segue_field *field, struct segue_window *window, struct segue_cursor *cursor);
int segue_variable_read_context(const struct segue_field *field, const struct segue_cursor *cursor,
	struct segue_window *window, int64_t *offsets, struct segue_sink *sink);

/* The same of a Feature of a plain Example whose bytes values are the steps. */
int segue_variable_scan_series(
	const struct segue_field *field, struct segue_window *window, struct segue_cursor *cursor);
int segue_variable_seek_series(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t step);
int segue_variable_read_series(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, int64_t *offsets, struct segue_sink *sink);

#endif
